//! A fleet's store on Redis 7.
//!
//! Every operation is one script, so it is one step for everybody and one round trip for its caller. Clocks of callers play no
//! part: scripts take the server's. The files in `lua/` are the rules; this module sends them and reads what they answer.
//!
//! What is absent: retries. A claim or a write whose answer was lost may be sent again, and whoever sent it knows whether it
//! still matters.

mod backoff;
mod calls;
mod config;
mod contexts;
mod directory;
mod keys;
mod link;
mod outputs;
mod reply;
mod scripts;
mod sessions;
mod supervisor;
mod users;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::{Cmd, RedisError, Value};
use streamfleet_session::ServiceName;

use crate::context::{ContextStore, StoreError};
use crate::directory::FleetError;
use crate::wake::{Hub, Listener, Topic, Wakeups};
use crate::words::Epoch;
pub use config::{Address, Arrangement, Login, RedisConfig, Tls};
use contexts::Contexts;
use scripts::{SCHEMA, Scripts, Step};
use supervisor::Supervisor;
pub use users::RIGHTS;

/// A full server is told no more often to forget what is over, whatever it is asked.
const RELIEF_SPACING: Duration = Duration::from_millis(500);

/// A fleet's store on Redis. It connects by itself, and again when the connection is lost; until then its callers are
/// refused in microseconds.
#[derive(Clone)]
pub struct RedisStore(Arc<Inner>);

struct Inner {
    config: Arc<RedisConfig>,
    scripts: Scripts,
    hub: Arc<Hub>,
    supervisor: Supervisor,
    relief: Relief,
}

/// When a full server was last told to forget what is over.
#[derive(Default)]
struct Relief(Mutex<Option<Instant>>);

impl Relief {
    fn is_due(&self, now: Instant) -> bool {
        let mut last = self.0.lock();
        let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= RELIEF_SPACING);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("arrangement", &self.0.config.arrangement).finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Begins to connect. Needs a tokio runtime, which has to outlive the store.
    #[must_use]
    pub fn new(config: RedisConfig) -> Self {
        let config = Arc::new(config);
        let hub = Arc::<Hub>::default();
        let supervisor = Supervisor::start(config.clone(), hub.clone());
        let relief = Relief::default();
        Self(Arc::new(Inner { scripts: Scripts::new(&config), config, hub, supervisor, relief }))
    }

    /// Whether the store can be reached now and is in a schema that this program knows.
    ///
    /// # Errors
    /// [`StoreError`] says what is wrong.
    pub async fn ping(&self, service: &ServiceName) -> Result<(), StoreError> {
        self.run(&self.0.scripts.context_find, service, &["-"]).await.map(|_| ()).map_err(plain)
    }

    /// One script, one round trip; two when the server has not seen it yet.
    async fn run<A: AsRef<[u8]>>(
        &self,
        step: &Step,
        service: &ServiceName,
        arguments: &[A],
    ) -> Result<Value, FleetError> {
        let schema = keys::schema(service);
        let answer = self.run_at(step, &schema, arguments).await;
        if matches!(answer, Err(FleetError::Store(StoreError::NoMemory))) && self.0.relief.is_due(Instant::now()) {
            // What is over by time alone is what may fill it, and nothing else that would forget it is run now.
            let _ = self.run_at::<&str>(&self.0.scripts.relieve, &schema, &[]).await;
        }
        answer
    }

    /// The same for what has another key than a service's.
    async fn run_at<A: AsRef<[u8]>>(&self, step: &Step, schema: &str, arguments: &[A]) -> Result<Value, FleetError> {
        let mut link = self.0.supervisor.link().await?;
        let command = |verb: &str, script: &str| {
            let mut command = redis::cmd(verb);
            command.arg(script).arg(1).arg(schema);
            for argument in arguments {
                command.arg(argument.as_ref());
            }
            command
        };
        let mut answer = self.send(&mut link, &command("EVALSHA", &step.hash)).await;
        if answer.as_ref().is_err_and(|error| error.code() == Some("NOSCRIPT")) {
            answer = self.send(&mut link, &command("EVAL", &step.text)).await;
        }
        answer.map_err(|error| refusal(&error))
    }

    async fn send(&self, link: &mut link::Link, command: &Cmd) -> Result<Value, RedisError> {
        let answer = link.send(command).await;
        if let Err(error) = &answer {
            self.0.supervisor.failed(error);
        }
        answer
    }

    fn scripts(&self) -> &Scripts {
        &self.0.scripts
    }

    /// The contexts of a service, which are kept beside its sessions.
    pub(crate) fn contexts_of(&self, service: &ServiceName) -> Arc<dyn ContextStore> {
        Arc::new(Contexts::new(self.clone(), service.clone()))
    }
}

fn refusal(error: &RedisError) -> FleetError {
    let detail = error.detail().unwrap_or_default().to_owned();
    match error.code() {
        Some("UNREGISTERED") => FleetError::Unregistered,
        Some("FENCED") => match detail.trim().parse() {
            Ok(current) => FleetError::Fenced { current: Epoch(current) },
            Err(_) => reply::nonsense().into(),
        },
        Some("SCHEMA") => StoreError::Schema { found: detail, ours: SCHEMA }.into(),
        Some("FULL") => StoreError::Full.into(),
        // The server's own bound, where it has one and may not throw anything away.
        Some("OOM") => StoreError::NoMemory.into(),
        // It is there, and waiting mends nothing.
        Some(code @ ("WRONGTYPE" | "NOPERM")) => StoreError::Refused(format!("{code} {detail}")).into(),
        _ => StoreError::Unavailable(error.to_string()).into(),
    }
}

/// The error of a step that has no owner and so cannot be fenced.
fn plain(error: FleetError) -> StoreError {
    match error {
        FleetError::Store(error) => error,
        FleetError::Fenced { .. } | FleetError::Unregistered => reply::nonsense(),
    }
}

impl Wakeups for RedisStore {
    fn listen(&self, service: &ServiceName, topic: Topic) -> Listener {
        let channel = (service.clone(), topic);
        let listener = self.0.hub.listen(channel.clone());
        // The confirmation of a subscription wakes its listener. One that joins another on its channel needs no
        // confirmation, and is woken here.
        self.0.hub.wake(&channel);
        listener
    }
}
