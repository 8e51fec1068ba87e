//! A worker from its plan to its last session: bind everything, then start everything, then wait, then drain.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::Router;
use axum::middleware::from_fn_with_state;
use opentelemetry::metrics::Meter;
use streamfleet_audio::DelayBounds;
use streamfleet_handler::{ConfigError, Registered, Registry};
use streamfleet_net::{Offload, SocketOptions};
use streamfleet_process::admin::Admin;
use streamfleet_process::readiness::Readiness;
use streamfleet_process::serve::Listener;
use streamfleet_process::signals::{Demand, Signals};
use streamfleet_process::tasks::Subsystems;
use streamfleet_process::telemetry::Metrics;
use streamfleet_process::tls::{self, TlsError};
use streamfleet_session::{CloseReason, ServiceName};
use streamfleet_store::{Heartbeat, Observed, Order};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::admission::Occupancy;
use crate::config::{FleetPlan, WorkerPlan};
use crate::fleet::guard::{Keeper, guard};
use crate::fleet::{self, Fate, FleetMetrics, Member};
use crate::http::{self, Access};
use crate::media::answer::{NoIdentity, PeerFactory};
use crate::media::driver::{Loop, LoopHandle};
use crate::metrics::{SessionMetrics, observe_loops};
use crate::sessions::{Advertised, Sessions};

/// More addresses in an answer only make clients try longer.
const MAX_ADVERTISED: usize = 8;
/// What is left of the HTTP connections after the last session: replies under way.
const HTTP_GRACE: Duration = Duration::from_secs(1);
/// When it is to leave at once: for clients to be told.
const LEAVE_GRACE: Duration = Duration::from_secs(1);
/// Handlers may say goodbye to what they talk to.
const HANDLER_GRACE: Duration = Duration::from_secs(5);
/// Clients that were asked to connect elsewhere have so long for that: a little less than passes before an operator deletes the pod.
const FAREWELL: Duration = Duration::from_secs(50);
/// Who is still there then is asked once more, and has so long to go.
const LAST_CALL: Duration = Duration::from_secs(1);
/// Subsystems stop within this, or are named as overdue.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket could not be bound.
    #[error("{what} cannot listen on {address}: {error}")]
    Bind {
        /// Which of the worker's sockets.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No DTLS certificate.
    #[error(transparent)]
    Identity(#[from] NoIdentity),
    /// A handler could not be made.
    #[error("service {service}: {error}")]
    Handler {
        /// Whose.
        service: ServiceName,
        /// Why not.
        error: ConfigError,
    },
    /// The operating system refused something else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Where a worker listens, once it does.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// HTTP.
    pub http: SocketAddr,
    /// Probes and metrics.
    pub admin: SocketAddr,
    /// What clients are told to send media to: every advertised address with the port of every loop.
    pub media: Vec<SocketAddr>,
}

/// A worker whose sockets are bound and that has not begun.
pub struct Worker {
    plan: WorkerPlan,
    metrics: Metrics,
    listener: Listener,
    admin: Listener,
    loops: Vec<Loop>,
    handles: Vec<LoopHandle>,
    advertised: Advertised,
    handlers: HashMap<ServiceName, Registered>,
    factory: PeerFactory,
}

impl Worker {
    /// Binds every socket and makes every handler's prototype, so that what can go wrong goes wrong now.
    ///
    /// # Errors
    /// A port is taken, the certificate unusable, or a handler's configuration wrong.
    pub fn bind(plan: WorkerPlan, registry: &Registry, metrics: Metrics) -> Result<Worker, StartError> {
        streamfleet_process::crypto::install();
        let bind = |what, address| Listener::bind(address).map_err(|error| StartError::Bind { what, address, error });
        let mut listener = bind("HTTP", plan.listen)?;
        if let Some(certificate) = &plan.certificate {
            listener = listener.with_tls(tls::server_config(certificate)?);
        }
        let admin = bind("the admin port", plan.admin_listen)?;
        // A relay's datagrams all come from a few addresses, in runs.
        let gro = if plan.fleet.is_some() { Offload::On } else { Offload::Off };
        let options = SocketOptions { gro, ..SocketOptions::default() };
        let (mut loops, mut handles) = (Vec::new(), Vec::new());
        for i in 0..plan.loops.get() {
            // Port 0 takes a free port for each loop.
            let port = if plan.udp.port() == 0 { 0 } else { plan.udp.port() + u16::try_from(i).unwrap_or(u16::MAX) };
            let address = SocketAddr::new(plan.udp.ip(), port);
            let (media, handle) =
                Loop::bind(address, options).map_err(|error| StartError::Bind { what: "media", address, error })?;
            loops.push(media);
            handles.push(handle);
        }
        let mut handlers = HashMap::new();
        for service in &plan.services {
            let handler = registry
                .get(&service.handler, service.handler_config.clone())
                .map_err(|error| StartError::Handler { service: service.name.clone(), error })?;
            handlers.insert(service.name.clone(), handler);
        }
        let advertised = advertised(&plan)?;
        let factory = PeerFactory::new()?;
        Ok(Worker { plan, metrics, listener, admin, loops, handles, advertised, handlers, factory })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        let ports: Vec<u16> = self.handles.iter().map(|h| h.port).collect();
        let media =
            self.advertised.0.iter().flat_map(|ip| ports.iter().map(|port| SocketAddr::new(*ip, *port))).collect();
        Addresses { scheme: self.listener.scheme(), http: self.listener.address(), admin: self.admin.address(), media }
    }

    /// Serves until `signals` say drain, then until the last session is over or the grace is.
    ///
    /// `pages` are further routes beside the services'; `handlers_on` is where handlers run; `ready` is called when it serves.
    ///
    /// # Errors
    /// A part of the process ended before it was told to; the error says which and why.
    pub async fn run(
        self,
        pages: Router,
        handlers_on: Handle,
        mut signals: Signals,
        ready: impl FnOnce(),
    ) -> Result<(), StartError> {
        let mut subsystems = Subsystems::new();
        let readiness = Readiness::new();
        let starting = readiness.hold("starting");

        let listening = self.addresses();
        let stop_loops = Arc::new(AtomicBool::new(false));
        for media in self.loops {
            let stop = stop_loops.clone();
            subsystems.spawn_thread("media", move || media.run(&stop))?;
        }
        let meter = self.metrics.meter("worker");
        observe_loops(&meter, self.handles.iter().map(|h| h.counters.clone()).collect());
        let sessions = Sessions::new(
            self.factory,
            self.handles,
            self.advertised,
            DelayBounds::default(),
            self.handlers,
            handlers_on,
            SessionMetrics::new(&meter),
        );
        let occupancy = Occupancy::new(self.plan.max_sessions);
        let members = match &self.plan.fleet {
            Some(fleet) => {
                let place = Place { listening: &listening, readiness: &readiness };
                join(fleet, &self.plan, place, &sessions, &occupancy, &meter, &mut subsystems)
            }
            None => Vec::new(),
        };
        let fleet_key = self.plan.fleet.map(|fleet| fleet.key);
        let names = self.plan.services.iter().map(|service| &service.name);
        let keeper = fleet_key.as_ref().map(|given| Keeper::new(given, names, &self.plan.admin_token));
        let access = Access {
            origins: self.plan.origins,
            hosts: self.plan.hosts,
            admin_token: self.plan.admin_token,
            newcomers: http::MAX_NEWCOMERS,
            newcomers_per_source: self.plan.sockets_per_address.map(NonZeroUsize::get),
            trusted: self.plan.trusted.into(),
            fleet: fleet_key,
            streams: self.plan.serve.connections.get() / 2,
        };
        let router = http::router(
            Arc::new(sessions.clone()),
            &self.plan.services,
            &occupancy,
            access,
            self.plan.ice,
            &meter,
            pages,
        );
        let router = match keeper {
            Some(keeper) => router.layer(from_fn_with_state(keeper, guard)),
            None => router,
        };
        // Control stays reachable while sessions finish, so HTTP stops after the drain and not with it.
        let stop_http = CancellationToken::new();
        subsystems.spawn("http", self.listener.serve(router, self.plan.serve, stop_http.clone(), HTTP_GRACE));
        let admin = Admin { readiness, metrics: self.metrics };
        let stopping = subsystems.stopping();
        admin.start(self.admin, &mut subsystems, stopping)?;
        drop(starting);
        tracing::info!("ready");
        ready();

        tokio::select! {
            _ = signals.next() => {}
            Some(exit) = subsystems.next_exit() => {
                return Err(io::Error::other(exit.to_string()).into());
            }
        }
        // Draining leaves the worker ready: not-ready pods are the first to lose their endpoints and to be deleted. So does a store
        // that is away later on: what the worker can do depends on nothing else.
        occupancy.drain();
        sessions.nudge();
        let begun = Instant::now();
        let deadline = deadline(begun, self.plan.termination_grace, members.iter().map(|member| member.leaving()));
        tracing::info!(sessions = sessions.len(), grace = ?deadline.saturating_duration_since(begun), "draining");
        tokio::select! {
            () = sessions.drain(deadline, &occupancy) => tracing::info!("drained"),
            Demand::Leave = signals.next() => {
                tracing::warn!(sessions = sessions.len(), "leaving at once");
                sessions.end_all(CloseReason::Shutdown, LEAVE_GRACE).await;
            }
            Some(exit) = subsystems.next_exit() => {
                return Err(io::Error::other(exit.to_string()).into());
            }
        }
        // The loops go first: what is left of sessions goes with them, and that is what ends their handlers.
        stop_http.cancel();
        stop_loops.store(true, Relaxed);
        sessions.wake_loops();
        sessions.handlers_done(HANDLER_GRACE).await;
        for exit in subsystems.stop(STOP_GRACE).await.iter().filter(|exit| !exit.is_clean()) {
            tracing::warn!(%exit, "a part did not stop cleanly");
        }
        Ok(())
    }
}

/// Until when sessions may go on, of a worker that is told to end now. Where all clients were asked to connect elsewhere, those of each
/// service since the time in `leaving`, who is still there has had that time: there is no other drain after it. There is time to be asked
/// once more: he may have been brought back while the store was away.
fn deadline(now: Instant, grace: Duration, leaving: impl Iterator<Item = Option<Instant>>) -> Instant {
    let latest = now + grace;
    let asked: Option<Vec<Instant>> = leaving.collect();
    let last = asked.and_then(|asked| asked.into_iter().max());
    last.map_or(latest, |last| (last + FAREWELL).max(now + LAST_CALL).min(latest))
}

/// Where a worker is known.
#[derive(Clone, Copy)]
struct Place<'a> {
    listening: &'a Addresses,
    readiness: &'a Readiness,
}

/// Makes every service a member of the fleet. A task each keeps it one until the process stops. The worker is not ready before the
/// fleet knows of each: a rollout that took away workers for it would leave routers without any.
fn join(
    fleet: &FleetPlan,
    plan: &WorkerPlan,
    place: Place<'_>,
    sessions: &Sessions,
    occupancy: &Occupancy,
    meter: &Meter,
    subsystems: &mut Subsystems,
) -> Vec<Arc<Member>> {
    let Place { listening, readiness } = place;
    let media: Vec<String> = listening.media.iter().map(ToString::to_string).collect();
    let http = reached_at(&fleet.http, listening.http);
    let terms = fleet.store.terms();
    let metrics = FleetMetrics::new(meter);
    let store = Arc::new(Observed::new(fleet.store.clone().open(), Arc::new(metrics.clone())));
    let member = |service: &Arc<http::Service>| {
        let member = Member::new(service.name.clone(), fleet.worker.clone(), store.clone());
        Arc::new(member.counted(metrics.clone()))
    };
    let members: Vec<Arc<Member>> = plan.services.iter().map(member).collect();
    fleet::observe(meter, &members);
    sessions.join(members.iter().map(|member| (member.service().clone(), member.clone())).collect());
    for member in &members {
        let (http, media, occupancy) = (http.clone(), media.clone(), occupancy.clone());
        let variant = fleet.variant.clone();
        let service = plan.services.iter().find(|service| service.name == *member.service());
        let capacity = service
            .and_then(|service| service.capacity)
            .map_or(plan.max_sessions, |own| own.min(plan.max_sessions))
            .get();
        let beat = move || Heartbeat {
            capacity,
            active: 0,
            reserved: 0,
            gate: occupancy.gate(),
            heard: Order::default(),
            variant: variant.clone(),
            http: http.clone(),
            media: media.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let stop = subsystems.stopping();
        let joining = Some(readiness.hold("fleet"));
        let surroundings = fleet::Surroundings { terms, beat: Box::new(beat), joining, stop };
        let kept = fleet::run(member.clone(), Arc::new(sessions.clone()), surroundings);
        subsystems.spawn("fleet", async move {
            match kept.await {
                Fate::Left => Ok(()),
                fate @ Fate::Fenced => Err(fate),
            }
        });
    }
    members
}

/// Where routers reach it: as configured, and at the port that it has where none is.
fn reached_at(configured: &str, listening: SocketAddr) -> String {
    match configured.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => SocketAddr::new(address.ip(), listening.port()).to_string(),
        _ => configured.to_owned(),
    }
}

/// What clients are told: what is configured, else where the sockets are.
fn advertised(plan: &WorkerPlan) -> Result<Advertised, StartError> {
    let told = if plan.advertise.is_empty() { reachable(plan.udp.ip())? } else { plan.advertise.clone() };
    Ok(Advertised(told))
}

/// Where clients reach a socket that is bound so: the address itself, or those of this machine, loopback last.
///
/// # Errors
/// The kernel does not say which it has.
pub fn reachable(bound: IpAddr) -> io::Result<Vec<IpAddr>> {
    if !bound.is_unspecified() {
        return Ok(vec![bound]);
    }
    let mut addresses: Vec<IpAddr> = streamfleet_net::interfaces()?;
    addresses.retain(|ip| ip.is_ipv4() || bound.is_ipv6());
    // A machine without a network still serves itself.
    addresses.sort_by_key(IpAddr::is_loopback);
    addresses.truncate(MAX_ADVERTISED);
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_reached_at_the_port_that_it_has() {
        let listening = "0.0.0.0:40123".parse().unwrap();
        for (configured, expected) in [
            ("10.0.0.7:0", "10.0.0.7:40123"),
            ("[::1]:0", "[::1]:40123"),
            ("10.0.0.7:80", "10.0.0.7:80"),
            ("pod-7.voice:8081", "pod-7.voice:8081"),
        ] {
            assert_eq!(reached_at(configured, listening), expected);
        }
    }

    /// A pod whose drain was over drained once more, for as long, and was killed in the middle of that.
    #[test]
    fn who_was_asked_to_leave_does_not_stay_for_another_drain() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let check = |leaving: &[Option<u64>], grace: u64, expected: u64| {
            let since = leaving.iter().map(|since| since.map(at));
            assert_eq!(deadline(at(100), Duration::from_secs(grace), since), at(expected), "{leaving:?} {grace}");
        };
        check(&[], 600, 700);
        check(&[None], 600, 700);
        check(&[Some(20)], 600, 101);
        check(&[Some(20)], 0, 100);
        check(&[Some(90)], 600, 140);
        check(&[Some(90)], 30, 130);
        check(&[Some(20), Some(90)], 600, 140);
        check(&[Some(20), None], 600, 700);
    }
}
