//! Sessions over sockets on a whole HTTP server, with clients on loopback sockets.

mod blocked;
mod calls;
mod ending;
mod handlers;
mod leaving;
mod peer;
mod placed;
mod reattach;
mod returning;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::Value;
use streamfleet_audio::DelayBounds;
use streamfleet_net::SocketOptions;
use streamfleet_process::serve::{Listener, ServeLimits};
use streamfleet_process::telemetry::Metrics;
use streamfleet_service::spec::Modality;
use streamfleet_session::{IdentityPolicy, Limits, SessionId};
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::admission::Occupancy;
use crate::http::{self, Access, Callers, Host as _, Hosts, Origins, Service, Telephone};
use crate::media::answer::PeerFactory;
use crate::media::driver::{Loop, LoopHandle};
use crate::metrics::SessionMetrics;
use crate::sessions::gated::Gated;
use crate::sessions::{Advertised, Sessions};

/// Longer than anything here takes on a busy machine, shorter than anybody waits for a hanging test.
const PATIENCE: Duration = Duration::from_secs(20);
/// Sockets without a session that the server takes.
const NEWCOMERS: usize = 4;
const AUTH_TOKEN: &str = "twilio's secret";

/// A worker's HTTP side and its sessions, listening.
struct World {
    address: SocketAddr,
    app: Router,
    sessions: Sessions,
    occupancy: Occupancy,
    metrics: Metrics,
    stop: CancellationToken,
    /// A media loop, where there is one.
    media: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
    _tasks: JoinSet<std::io::Result<()>>,
}

/// A service at `/name`, whose handler has the same name.
fn service(name: &str) -> Service {
    Service {
        name: name.parse().unwrap(),
        path: format!("/{name}").parse().unwrap(),
        aliases: Vec::new(),
        handler: name.to_owned(),
        handler_config: Value::Null,
        modality: Modality::default(),
        limits: Limits::default(),
        identity: IdentityPolicy::default(),
        telephone: Telephone::default(),
        capacity: None,
    }
}

fn signed(name: &str) -> Service {
    let telephone = Telephone { callers: Callers::Signed(AUTH_TOKEN.into()), ..Telephone::default() };
    Service { telephone, ..service(name) }
}

/// Everybody may do everything, and all places may be those of the one address that tests have.
fn access() -> Access {
    Access {
        origins: Origins::Any,
        hosts: Hosts::Any,
        admin_token: "correct-horse-battery".parse().unwrap(),
        newcomers: NEWCOMERS,
        newcomers_per_source: Some(NEWCOMERS),
        trusted: [].into(),
        fleet: None,
        streams: 9,
    }
}

/// What may be different in a world.
struct Setup {
    loops: Vec<LoopHandle>,
    handlers_on: Handle,
    access: Access,
}

impl Default for Setup {
    /// Without media, handlers beside everything else.
    fn default() -> Self {
        Self { loops: Vec::new(), handlers_on: Handle::current(), access: access() }
    }
}

impl World {
    fn new(services: impl IntoIterator<Item = Service>) -> Self {
        Self::made(services, Setup::default())
    }

    /// One whose handlers share this runtime's threads with nothing else.
    fn with_handlers_on(services: impl IntoIterator<Item = Service>, handlers_on: &Runtime) -> Self {
        Self::made(services, Setup { handlers_on: handlers_on.handle().clone(), ..Setup::default() })
    }

    fn with_access(services: impl IntoIterator<Item = Service>, access: Access) -> Self {
        Self::made(services, Setup { access, ..Setup::default() })
    }

    /// One that takes offers, too.
    fn with_media(services: impl IntoIterator<Item = Service>) -> Self {
        let (media, handle) = Loop::bind("127.0.0.1:0".parse().unwrap(), SocketOptions::default()).unwrap();
        let mut world = Self::made(services, Setup { loops: vec![handle], ..Setup::default() });
        let stop = Arc::new(AtomicBool::new(false));
        let stops = stop.clone();
        world.media = Some((stop, std::thread::spawn(move || media.run(&stops).unwrap())));
        world
    }

    /// One whose contexts are in a store that keeps its callers waiting.
    fn gated(services: impl IntoIterator<Item = Service>) -> (Self, Arc<Gated>) {
        let mut store = None;
        let change = |sessions: &mut Sessions| store = Some(sessions.gated());
        let world = Self::changed(services, Setup::default(), change);
        (world, store.expect("sessions were made"))
    }

    fn made(services: impl IntoIterator<Item = Service>, setup: Setup) -> Self {
        Self::changed(services, setup, |_| {})
    }

    fn changed(services: impl IntoIterator<Item = Service>, setup: Setup, change: impl FnOnce(&mut Sessions)) -> Self {
        let Setup { loops, handlers_on, access } = setup;
        let registry = handlers::registry();
        let services: Vec<Arc<Service>> = services.into_iter().map(Arc::new).collect();
        let made = services.iter().map(|service| {
            let handler = registry.get(&service.handler, service.handler_config.clone()).unwrap();
            (service.name.clone(), handler)
        });
        let metrics = Metrics::new("test", "0");
        let mut sessions = Sessions::new(
            PeerFactory::new().unwrap(),
            loops,
            Advertised(vec!["127.0.0.1".parse().unwrap()]),
            DelayBounds::default(),
            made.collect::<HashMap<_, _>>(),
            handlers_on,
            SessionMetrics::new(&metrics.meter("worker")),
        );
        change(&mut sessions);
        let occupancy = Occupancy::default();
        let meter = metrics.meter("http");
        let host = Arc::new(sessions.clone());
        let app = http::router(
            host,
            &services,
            &occupancy,
            access,
            streamfleet_service::ice::IceServers::default(),
            &meter,
            Router::new(),
        );
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (address, stop, mut tasks) = (listener.address(), CancellationToken::new(), JoinSet::new());
        tasks.spawn(listener.serve(app.clone(), ServeLimits::default(), stop.clone(), Duration::from_secs(1)));
        Self { address, app, sessions, occupancy, metrics, stop, media: None, _tasks: tasks }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The outputs of a session, as control shows them.
    fn outputs(&self, id: &str) -> Vec<Value> {
        self.view(id).map(|view| view.outputs).unwrap_or_default()
    }

    fn view(&self, id: &str) -> Option<http::SessionView> {
        self.sessions.session(&id.parse::<SessionId>().unwrap())
    }

    /// Sessions that have ended for this reason.
    fn ended(&self, reason: &str) -> u64 {
        self.counted(&format!("streamfleet_sessions_ended_total{{reason=\"{reason}\"}}"))
    }

    /// A counter, which need not have begun to count.
    fn counted(&self, name: &str) -> u64 {
        let text = self.metrics.render();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// A request that needs no listener.
    async fn send(&self, request: Request<Body>) -> (u16, String) {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some((stop, running)) = self.media.take() {
            stop.store(true, Relaxed);
            self.sessions.wake_loops();
            running.join().unwrap();
        }
    }
}

/// Lets the server's tasks run until `condition` holds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
