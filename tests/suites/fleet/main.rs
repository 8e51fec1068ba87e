//! A fleet of processes under live calls: what goes on when one of them dies, stops, or cannot reach another.
//!
//! Routers, workers and a Redis are started for each test; the clients are of `crates/client`. What is asked of the store
//! beside them is asked as any process of the fleet would.

mod caller;
mod calls;
mod conformance;
mod control;
mod cost;
mod drain;
mod families;
mod leftovers;
mod outage;
mod pods;
mod races;
mod redis_lost;
mod relay;
mod router_lost;
mod sockets;
mod worker_lost;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use streamfleet_session::ServiceName;
use streamfleet_store::{
    Address, Arrangement, Filter, LiveSession, MAX_PAGE, RedisConfig, RedisStore, Store, WorkerView,
};
use streamfleet_tests::{Events, Fleet, Media, Shape, Wires, browser_offer};

use self::caller::{Caller, Plan};

/// Longer than any step takes on a busy machine, shorter than anybody waits for a hanging test.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a worker that is silent keeps what it has; renewed every [`HEARTBEAT`].
const LEASE: Duration = Duration::from_secs(6);
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long a claim waits for its worker.
const RESERVATION: Duration = Duration::from_secs(10);
/// By how much a busy machine may be late.
const SLACK: Duration = Duration::from_secs(2);

/// One fleet at a time: what is measured of one is not to be the load of another.
static MACHINE: Mutex<()> = Mutex::new(());

/// A fleet, and a view of its store.
struct World {
    fleet: Fleet,
    store: Arc<dyn Store>,
}

/// Two routers and two workers, as most tests have them.
fn shape(services: Vec<Value>) -> Shape {
    Shape {
        routers: 2,
        workers: 2,
        services: services.into(),
        grace: Duration::from_secs(20),
        wires: Wires::Direct,
        media: Media::Direct,
    }
}

/// A service whose path is its name and whose handler is `handler`. Its sessions go where the hash of their room says, whatever
/// the workers have already: each call of [`Plan::of`] has a room of its own.
fn service(name: &str, handler: &str) -> Value {
    json!({
        "name": name, "path": format!("/{name}"), "handler": { "name": handler },
        "routing": { "affinity": { "by": "metadata:room" } },
    })
}

/// An offer that is answered, and whose client never comes.
fn offer(id: &str, seed: u32) -> Value {
    json!({ "type": "offer", "webrtc_id": id, "sdp": browser_offer(seed), "metadata": { "room": id } })
}

/// Services that are called as their handlers.
fn plain(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| service(name, name)).collect()
}

/// Starts a fleet, waits until its workers are known, and runs `test` on it. What its parts said is told of a failure.
fn in_a_fleet(shape: Shape, test: impl AsyncFnOnce(&mut World) -> Result<()>) -> Result<()> {
    let _machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut world = World::start(shape).await?;
        test(&mut world).await.with_context(|| world.fleet.printed())
    })
}

impl World {
    async fn start(shape: Shape) -> Result<Self> {
        let workers = shape.workers;
        let fleet = blocking(|| Fleet::start(shape))?;
        let at = fleet.redis.address();
        let address = Address { host: at.ip().to_string(), port: at.port() };
        let store = Arc::new(RedisStore::new(RedisConfig::new(Arrangement::Single(address))));
        let world = Self { fleet, store };
        world.await_workers(workers).await?;
        Ok(world)
    }

    /// The services' names.
    fn services(&self) -> Vec<ServiceName> {
        self.fleet.services().iter().filter_map(|name| name.parse().ok()).collect()
    }

    /// Waits until so many workers are ready, for every service.
    async fn await_workers(&self, count: usize) -> Result<Duration> {
        until("the workers are known", PATIENCE, async || {
            for service in self.services() {
                let workers = self.workers(&service).await.unwrap_or_default();
                if workers.iter().filter(|view| view.said.is_some()).count() != count {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await
        .map(|((), took)| took)
    }

    async fn workers(&self, service: &ServiceName) -> Result<Vec<WorkerView>> {
        Ok(self.store.workers(service).await?)
    }

    /// All sessions of a service, as the store has them.
    async fn held(&self, service: &str) -> Result<Vec<LiveSession>> {
        let filter = Filter { limit: MAX_PAGE, ..Filter::default() };
        Ok(self.store.list(&service.parse()?, &filter).await?.sessions)
    }

    /// Sessions and reservations that the store counts for a service's workers.
    async fn places(&self, service: &str) -> Result<u32> {
        Ok(self.workers(&service.parse()?).await?.iter().map(|view| view.sessions).sum())
    }

    /// Waits until nobody holds a place: neither in the store, nor in a worker that still runs.
    async fn await_no_places(&mut self) -> Result<()> {
        let found = until("every place is given back", PATIENCE, async || {
            for service in self.services() {
                if self.places(service.as_str()).await? != 0 {
                    return Ok(None);
                }
            }
            // Those that were killed do not answer.
            let scrapes = self.fleet.workers.iter().filter_map(|worker| blocking(|| worker.server.metrics()).ok());
            let admitted: f64 = scrapes.filter_map(|metrics| metrics.sum("streamfleet_sessions_admitted")).sum();
            Ok((admitted == 0.0).then_some(()))
        });
        found.await.map(drop)
    }

    /// Where clients of a service call, by way of this router.
    fn url(&self, router: usize, service: &str) -> String {
        format!("{}/{service}", self.fleet.routers[router].server.url())
    }

    /// Calls by way of this router.
    async fn dial(&self, router: usize, plan: Plan) -> Result<Caller> {
        let url = self.url(router, &plan.service);
        Caller::dial(&url, plan).await.with_context(|| format!("by router {router}"))
    }

    /// Calls until a call is on this worker. The others are hung up.
    async fn dial_on(&self, router: usize, worker: &str, plan: impl Fn() -> Plan) -> Result<Caller> {
        /// Of two workers each is missed so often once in 65 000 times.
        const TRIES: usize = 16;
        for _ in 0..TRIES {
            let plan = plan();
            let service = plan.service.clone();
            let caller = self.dial(router, plan).await?;
            if self.worker_of(&service, caller.id().as_str()).await? == worker {
                return Ok(caller);
            }
            caller.hang_up().await;
        }
        bail!("no call is on {worker}")
    }

    /// The worker that has a session.
    async fn worker_of(&self, service: &str, id: &str) -> Result<String> {
        let held = self.held(service).await?;
        let found = held.into_iter().find(|live| live.session.as_str() == id);
        Ok(found.with_context(|| format!("no session {id}"))?.at.worker.to_string())
    }

    /// What a router answers to the operator.
    fn ask(&self, router: usize, method: &str, path: &str, body: &Value) -> Result<(u16, Value)> {
        let answer = blocking(|| self.fleet.routers[router].ask(method, path, body))?;
        let body = if answer.body.is_empty() { Value::Null } else { answer.json()? };
        Ok((answer.status, body))
    }

    /// Ends a session, and sees that it is.
    fn end(&self, router: usize, service: &str, id: &str) -> Result<Duration> {
        let began = Instant::now();
        let (status, body) = self.ask(router, "DELETE", &format!("/{service}/sessions/{id}"), &Value::Null)?;
        ensure!(status == 200 && body["reason"] == "ended_by_control", "{status} {body}");
        Ok(began.elapsed())
    }

    /// The next additional outputs of a session.
    fn outputs(&self, router: usize, service: &str, id: &str, count: usize) -> Result<Vec<Value>> {
        let url = format!("{}/outputs?webrtc_id={id}", self.url(router, service));
        blocking(|| {
            let mut events = Events::open(&url, None)?;
            ensure!(events.status() == 200, "{}", events.status());
            (0..count).map(|_| Ok(events.next(PATIENCE)?.context("the outputs are over")?.data)).collect()
        })
    }

    /// Waits until a session of the handler `memory` has told of so many visits; whether it was resumed then. What it has told
    /// before may be kept, or lost with its worker.
    fn resumed(&self, router: usize, id: &str, visits: u64) -> Result<bool> {
        let url = format!("{}/outputs?webrtc_id={id}", self.url(router, "memory"));
        blocking(|| {
            let mut events = Events::open(&url, None)?;
            ensure!(events.status() == 200, "{}", events.status());
            loop {
                let told = events.next(PATIENCE)?.context("the outputs are over")?.data;
                if told["data"]["visits"] == visits {
                    return told["resumed"].as_bool().with_context(|| told.to_string());
                }
            }
        })
    }
}

/// A blocking call in a task.
fn blocking<T>(call: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(call)
}

/// Looks until something is found, and says how long that took.
async fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<(T, Duration)> {
    let began = Instant::now();
    loop {
        let found = look().await;
        match found {
            Ok(Some(found)) => return Ok((found, began.elapsed())),
            Ok(None) => ensure!(began.elapsed() < limit, "{what}: not within {limit:?}"),
            Err(error) if began.elapsed() >= limit => {
                return Err(error.context(format!("{what}: not within {limit:?}")));
            }
            // What is away may be back soon.
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A figure for the failure table.
#[expect(clippy::print_stdout, reason = "the output of a test")]
fn measured(what: &str, took: Duration) {
    println!("measured: {what}: {:.2} s", took.as_secs_f64());
}
