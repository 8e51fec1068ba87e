//! All sessions of the process: who is live, on which loop, with which handler.
//!
//! This is where an admitted client becomes a session: what all of them have in `begin`, each transport's part in `webrtc`
//! and `socket`. What a session holds here it gives back by being dropped, on whichever way it ends.

mod afterlife;
mod begin;
mod calls;
mod context;
mod drain;
mod moving;
mod placed;
mod quality;
mod reach;
mod seal;
mod socket;
mod via;
mod view;
mod webrtc;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use streamfleet_audio::DelayBounds;
use streamfleet_handler::{self as sdk, Registered};
use streamfleet_session::candidate::ParsedCandidate;
use streamfleet_session::wire::{Answer, Failure};
use streamfleet_session::{CloseReason, ServiceName, SessionId};
use streamfleet_socket::protocol::CallResume;
use streamfleet_socket::telephone::CallLeg;
use streamfleet_store::{ContextId, ContextStore, Issued, Memory, WorkerId};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Occupancy;
use crate::fleet::Member;
use crate::http::{Attached, Ended, Host, OpenRequest, Reached, Returning, SessionView, SocketRequest};
use crate::media::answer::PeerFactory;
use crate::media::driver::LoopHandle;
use crate::media::{Shared, Stage};
use crate::metrics::SessionMetrics;
use crate::sockets::Line;

use self::afterlife::Afterlife;
use self::calls::Calls;
use self::drain::Urged;
use self::moving::stop;
use self::placed::Places;
use self::seal::{Seal, Sealed};
use self::via::{Order, Via, deliver};
use self::view::view;

/// How long `end` waits for a session to be over: longer than the grace that a session gives its client.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// When a client may come again that found its loop behind with its work.
const OVERLOADED: Duration = Duration::from_secs(2);

/// What clients are told to send media to.
#[derive(Clone, Debug)]
pub struct Advertised(pub Vec<IpAddr>);

#[derive(Clone)]
struct Live {
    shared: Arc<Shared>,
    via: Via,
    /// Its context's name.
    context: ContextId,
    /// What makes its handler reply.
    replies: sdk::Replies,
    /// Where its handler takes inputs; none for a handler on the loop.
    inputs: Option<sdk::Inputs>,
    /// Its handler's handle; none for a handler on the loop.
    session: Option<sdk::Session>,
    /// The newest token of its client's that is known.
    resume: Option<Issued>,
    admitted: Instant,
    time_limit: Option<Duration>,
    /// Whether it has been asked to go.
    urged: Urged,
    /// Set while it is being ended.
    seal: Seal,
    /// The session that its client is on the way to; one that has come to be in `moving` has none itself.
    moving: Option<Box<Live>>,
}

impl Live {
    /// Whether a token of its context is known that was given out after this one.
    fn knows_newer(&self, issued: Option<Issued>) -> bool {
        self.resume.map(|known| known.generation) > issued.map(|issued| issued.generation)
    }
}

#[derive(Default)]
struct Table {
    by_id: Mutex<HashMap<SessionId, Live>>,
    /// Never locked before `by_id`.
    over: Mutex<Afterlife>,
    /// Never locked before `by_id` by whoever needs both.
    places: Places,
}

/// The sessions of this process.
#[derive(Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
}

struct Inner {
    factory: PeerFactory,
    loops: Vec<LoopHandle>,
    advertised: Advertised,
    bounds: DelayBounds,
    handlers: HashMap<ServiceName, Registered>,
    /// Where handlers run, apart from everything else: one that blocks its thread holds up no socket and no request.
    handlers_on: Handle,
    /// Those of services that are in no fleet.
    contexts: Arc<dyn ContextStore>,
    /// Set once, before the first session.
    members: OnceLock<HashMap<ServiceName, Arc<Member>>>,
    table: Arc<Table>,
    calls: Arc<Calls>,
    tasks: TaskTracker,
    /// Cancelled when the process stops: what has a socket and nobody to tell it so is told by this.
    stopping: CancellationToken,
    tokens: AtomicU64,
    metrics: SessionMetrics,
}

impl Sessions {
    pub(crate) fn new(
        factory: PeerFactory,
        loops: Vec<LoopHandle>,
        advertised: Advertised,
        bounds: DelayBounds,
        handlers: HashMap<ServiceName, Registered>,
        handlers_on: Handle,
        metrics: SessionMetrics,
    ) -> Self {
        let contexts = Arc::new(Memory::default());
        metrics.observe_contexts(&contexts);
        Sessions {
            inner: Arc::new(Inner {
                factory,
                loops,
                advertised,
                bounds,
                handlers,
                handlers_on,
                contexts,
                members: OnceLock::new(),
                table: Arc::new(Table::default()),
                calls: Arc::default(),
                tasks: TaskTracker::new(),
                stopping: CancellationToken::new(),
                tokens: AtomicU64::new(1),
                metrics,
            }),
        }
    }

    /// Has these services' sessions placed by routers. Once, and before the first session.
    pub(crate) fn join(&self, members: HashMap<ServiceName, Arc<Member>>) {
        if self.inner.members.set(members).is_err() {
            tracing::error!("a worker joins its fleet once");
        }
    }

    pub(crate) fn member_of(&self, service: &ServiceName) -> Option<&Arc<Member>> {
        self.inner.members.get()?.get(service)
    }

    /// Tells the fleet what has changed of the worker as a whole.
    pub(crate) fn nudge(&self) {
        self.inner.members.get().into_iter().flat_map(HashMap::values).for_each(|member| member.nudge());
    }

    /// This worker's name in the fleet, where it has one.
    fn worker_of(&self, service: &ServiceName) -> Option<WorkerId> {
        self.member_of(service).map(|member| member.worker().clone())
    }

    /// Where what is remembered of this service's sessions is.
    pub(crate) fn contexts_of(&self, service: &ServiceName) -> Arc<dyn ContextStore> {
        match self.member_of(service) {
            Some(member) => member.contexts().clone(),
            None => self.inner.contexts.clone(),
        }
    }

    /// Sessions that are not over.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.table.by_id.lock().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for the last session, at most until `deadline`. Clients that the deadline would cut off are asked to
    /// reconnect shortly before it; what is left then is ended. New offers must be refused by now; those that were admitted before
    /// are waited for.
    pub async fn drain(&self, deadline: Instant, occupancy: &Occupancy) {
        let mut asked = false;
        loop {
            let now = tokio::time::Instant::now().into_std();
            // An offer that is being answered has a place and is no session yet.
            if occupancy.live() == 0 && self.is_empty() {
                return;
            }
            if !asked && Self::is_near(now, deadline) {
                asked = true;
                // Routers are told at once, and clients come again a little later: none of them is brought back.
                occupancy.leave();
                self.nudge();
                self.warn_of(now, deadline);
            }
            if now >= deadline {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50).min(deadline - now)).await;
        }
        tracing::info!(sessions = self.len(), "the drain's deadline is over");
        self.end_all(CloseReason::Draining, END_TIMEOUT).await;
    }

    /// Ends every session for this reason, and waits until they are over, at most `limit`.
    pub async fn end_all(&self, reason: CloseReason, limit: Duration) {
        let all: Vec<(SessionId, ContextId)> = {
            let table = self.inner.table.by_id.lock();
            table.iter().map(|(id, live)| (id.clone(), live.context)).collect()
        };
        let ends = futures_util::future::join_all(all.iter().map(|(id, context)| self.end(id, *context, reason)));
        // Those that are not over then end with their loop.
        drop(tokio::time::timeout(limit, ends).await);
    }

    /// Closes what is left of sockets, and waits until every handler has shut down, at most `limit`.
    pub async fn handlers_done(&self, limit: Duration) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(limit, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.inner.tasks.len(), "handlers did not shut down in time");
        }
    }

    /// Makes the loops look at whether they are to stop.
    pub(crate) fn wake_loops(&self) {
        for media in &self.inner.loops {
            media.wake();
        }
    }

    /// The session of this id and context, sealed: nobody comes to be beside it or in its place.
    fn sealed(&self, id: &SessionId, context: ContextId) -> Option<(Live, Sealed)> {
        let table = self.inner.table.by_id.lock();
        let live = table.get(id).filter(|live| live.context == context)?.clone();
        let sealed = live.seal.set();
        Some((live, sealed))
    }

    fn live(&self, id: &SessionId) -> Option<Live> {
        self.inner.table.by_id.lock().get(id).cloned()
    }

    fn least_loaded(&self) -> usize {
        let sessions = |l: &LoopHandle| l.counters.read().sessions;
        (0..self.inner.loops.len()).min_by_key(|i| sessions(&self.inner.loops[*i])).unwrap_or(0)
    }
}

#[async_trait]
impl Host for Sessions {
    async fn open(&self, request: OpenRequest) -> Result<Answer, Failure> {
        self.begin_call(request).await
    }

    async fn open_socket(&self, request: SocketRequest, line: Line) -> Result<(), (Failure, Box<Line>)> {
        self.begin_socket(request, line).await
    }

    async fn attach(&self, returning: Returning<'_>, line: Line) -> Attached {
        self.reattach(returning, line).await
    }

    fn sockets(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    fn stopping(&self) -> &CancellationToken {
        &self.inner.stopping
    }

    fn call(&self, service: &ServiceName, call: &CallLeg) -> Option<CallResume> {
        let session = self.inner.calls.find(service, call)?;
        let live = self.live(&session).filter(|live| live.shared.stage().reason().is_none())?;
        Some(CallResume { session, token: live.resume?.token })
    }

    async fn candidate(
        &self,
        service: &ServiceName,
        id: &SessionId,
        candidate: ParsedCandidate,
    ) -> Result<(), Failure> {
        self.trickle(service, id, candidate)
    }

    fn sessions(&self, service: &ServiceName) -> Vec<SessionView> {
        // Loops take this lock when a session ends: it is held for the list of them and not for their views.
        let table = self.inner.table.by_id.lock();
        let of_service = table.values().filter(|live| live.shared.service() == service);
        let found: Vec<(Arc<Shared>, ContextId)> = of_service.map(|live| (live.shared.clone(), live.context)).collect();
        drop(table);
        let worker = self.worker_of(service);
        found.iter().map(|(shared, context)| view(shared, *context, worker.clone())).collect()
    }

    fn session(&self, id: &SessionId) -> Option<SessionView> {
        self.live(id).map(|live| view(&live.shared, live.context, self.worker_of(live.shared.service())))
    }

    fn reach(&self, service: &ServiceName, id: &SessionId) -> Option<Reached> {
        self.reached(service, id)
    }

    fn contexts(&self, service: &ServiceName) -> Arc<dyn ContextStore> {
        self.contexts_of(service)
    }

    fn member(&self, service: &ServiceName) -> Option<Arc<Member>> {
        self.member_of(service).cloned()
    }

    async fn close_track(&self, id: &SessionId, context: ContextId, mid: &str) -> Result<(), Failure> {
        self.end_track(id, context, mid).await
    }

    async fn end(&self, id: &SessionId, context: ContextId, reason: CloseReason) -> Result<Ended, Failure> {
        let (live, _sealed) = self.sealed(id, context).ok_or(Failure::NotFound)?;
        let Live { shared, via, moving, .. } = live;
        if let Some(moving) = moving {
            stop(*moving, reason).await;
        }
        let mut stage = shared.watch();
        let told = async {
            deliver(&via, shared.token(), || Order::End(reason)).await;
            std::future::pending::<()>().await;
        };
        let end = async {
            tokio::select! {
                // The session's own `Shared` sends: it cannot be gone. One that ends by itself takes no orders any more.
                _ = stage.wait_for(|stage| matches!(stage, Stage::Closed(_))) => {}
                () = told => {}
            }
        };
        // Whether the time was enough is what the stage says.
        let _ = tokio::time::timeout(END_TIMEOUT, end).await;
        match shared.stage() {
            Stage::Closed(reason) => Ok(Ended::Closed(reason)),
            Stage::Ending(_) => Ok(Ended::Ending),
            // The loop has not come to it.
            Stage::Connecting | Stage::Active => Err(Failure::NoCapacity { retry_after: OVERLOADED }),
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::{gated, offer};
