//! The HTTP routes of a worker: FastRTC's offer route, the client's ICE configuration, what a session's client does beside
//! its media, and control of sessions.
//!
//! A request comes in through [`peer`] (whose it is), [`net`] (the last net under a panic), then through `cors` or [`control`]'s guard; what
//! it asks for is decided in [`offer`], [`configuration`], [`outputs`], [`inputs`], [`control`] and [`data`], on whose authority in [`access`],
//! and every outcome becomes a response in [`reply`]. Sessions are run by a [`Host`]. What sockets have in common is in
//! [`socket`], their routes are [`websocket`] and [`telephone`]. What is absent: listeners and TLS
//! (`streamfleet_process::serve`), media, what sockets carry (`crate::sockets`).

mod access;
mod configuration;
mod control;
mod data;
mod elsewhere;
mod etag;
mod host;
mod inputs;
mod net;
mod offer;
mod outputs;
mod peer;
mod placed;
mod record;
mod reply;
mod socket;
mod telephone;
mod websocket;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Extensions;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{any, delete, get, post};
use opentelemetry::metrics::Meter;
use parking_lot::Mutex;
use streamfleet_edge::lobby::Lobby;
pub use streamfleet_edge::origin::{HostName, Hosts, InvalidOrigin, Origins};
use streamfleet_edge::proxy::Network;
use streamfleet_edge::{body, cors, origin, rate, unknown};
use streamfleet_service::ice::IceServers;
use streamfleet_session::wire::Failure;
use streamfleet_session::{AdminToken, EarlyCandidates, FleetKey, Limits, PathPrefix, ServiceName, SessionId};
use tokio::sync::Semaphore;

pub use self::host::{
    Attached, ChangeView, Claimant, Ended, Host, OpenRequest, Quality, Reached, Returning, Service, SessionView,
    SocketRequest, TrackInfo,
};
pub use self::record::Audit;
pub use self::telephone::{Callers, Proxy, Telephone};
pub use streamfleet_edge::lobby::MAX_NEWCOMERS;

use self::rate::{CANDIDATES_PER_OFFER, CONFIGURATIONS_PER_OFFER, REQUESTS_PER_OFFER, SourceRate};
use self::record::Record;
use self::telephone::Switchboard;
use crate::admission::{Admission, Occupancy};
use crate::fleet::Member;

/// Who may do what over HTTP.
#[derive(Debug, Clone)]
pub struct Access {
    /// Pages that may call the public routes.
    pub origins: Origins,
    /// Names under which the control routes may be called.
    pub hosts: Hosts,
    /// What the control routes demand.
    pub admin_token: AdminToken,
    /// Sockets of all services together that have no session yet; [`MAX_NEWCOMERS`] where nothing else is wanted.
    pub newcomers: usize,
    /// How many of these one source address may hold where they are scarce; an eighth of them if not said.
    pub newcomers_per_source: Option<usize>,
    /// Proxies whose word is taken on where a request is from, and on its trace; of no meaning in a fleet.
    pub trusted: Arc<[Network]>,
    /// What this worker knows its routers by, if it is in a fleet: of it is made what a call shows.
    pub fleet: Option<FleetKey>,
    /// Streams of outputs at a time, over all sessions: they last, and must leave connections for everything else.
    pub streams: usize,
}

/// All that the routes share.
struct Api {
    host: Arc<dyn Host>,
    access: Access,
    ice: IceServers,
    /// By service: what is sent to one must not reach a session of another.
    early: Mutex<EarlyCandidates<(ServiceName, SessionId)>>,
    streams: Arc<Semaphore>,
    record: Record,
    /// Sockets that have no session yet.
    newcomers: Lobby,
}

/// One service, and its part of the worker's admission.
struct Door {
    service: Arc<Service>,
    admission: Admission,
    rates: Option<Rates>,
    switchboard: Switchboard,
    /// Its part in a fleet: sessions are placed by routers then, which have asked who is calling, and how often.
    member: Option<Arc<Member>>,
    api: Arc<Api>,
}

/// What one source address may ask of a service.
struct Rates {
    offers: Mutex<SourceRate>,
    /// Apart from the offers: a client with many candidates must not use up what it may offer.
    candidates: Mutex<SourceRate>,
    /// Outputs, inputs and triggers: ids can be guessed.
    sessions: Mutex<SourceRate>,
    /// Answers with credentials for TURN servers.
    configurations: Mutex<SourceRate>,
}

impl Rates {
    fn new(limits: &Limits) -> Option<Self> {
        let offers = limits.offers_per_minute?;
        let candidates = offers.saturating_mul(CANDIDATES_PER_OFFER);
        let sessions = offers.saturating_mul(REQUESTS_PER_OFFER);
        let configurations = offers.saturating_mul(CONFIGURATIONS_PER_OFFER);
        let rate = |per_minute| Mutex::new(SourceRate::new(per_minute));
        Some(Self {
            offers: rate(offers),
            candidates: rate(candidates),
            sessions: rate(sessions),
            configurations: rate(configurations),
        })
    }
}

/// The routes of all `services`, and `pages` beside them.
///
/// `pages` may hold any further routes (a demo page, later transports); they get the net under a panic and the JSON
/// answers for unknown paths and methods, and nothing else. `occupancy` is shared with whoever drains the worker.
///
/// # Panics
/// If two services share a path, or `pages` has one of theirs: the configuration has excluded the former.
pub fn router(
    host: Arc<dyn Host>,
    services: &[Arc<Service>],
    occupancy: &Occupancy,
    access: Access,
    ice: IceServers,
    meter: &Meter,
    pages: Router,
) -> Router {
    let record = Record::new(meter, occupancy);
    let newcomers = Lobby::new(access.newcomers, access.newcomers_per_source);
    let streams = Arc::new(Semaphore::new(access.streams.min(Semaphore::MAX_PERMITS)));
    let api = Arc::new(Api { host, access, ice, early: Mutex::default(), streams, record, newcomers });
    let mut router = pages;
    for service in services {
        let member = api.host.member(&service.name);
        let known_as = format!("/{}", service.name);
        let rates = if member.is_some() { None } else { Rates::new(&service.limits) };
        let admission = occupancy.service(service.limits);
        let callers = &service.telephone.callers;
        let switchboard = match &api.access.fleet {
            Some(given) => Switchboard::of_fleet(callers, &given.of_service(&service.name)),
            None => Switchboard::new(service.name.as_str(), callers, rand::random()),
        };
        let is_member = member.is_some();
        let door = Arc::new(Door { service: service.clone(), admission, rates, switchboard, member, api: api.clone() });
        let public = || std::iter::once(&service.path).chain(&service.aliases).map(PathPrefix::as_str);
        // Routers know which public path is whose.
        let prefixes: Vec<&str> = if is_member { vec![&known_as] } else { public().collect() };
        for prefix in prefixes {
            router = router.merge(routes(prefix, &door));
        }
    }
    // A page that has mistyped a service's name is to read that, as it reads every other failure.
    let unknown = any(unknown::path)
        .layer(from_fn_with_state(api.access.origins.clone(), cors::allow))
        .layer(from_fn(reply::private));
    let (trusted, is_alone) = (api.access.trusted.clone(), api.access.fleet.is_none());
    let router = router
        .method_not_allowed_fallback(async || reply::method_not_allowed())
        .fallback_service(unknown)
        .layer(from_fn_with_state(api, net::catch));
    if is_alone { router.layer(from_fn_with_state(trusted, peer::judge)) } else { router }
}

fn routes(prefix: &str, door: &Arc<Door>) -> Router {
    let path = |route: &str| format!("{prefix}{route}");
    let public = Router::new()
        .route(&path("/webrtc/offer"), post(offer::offer).options(cors::preflight))
        .route(&path("/rtc_configuration"), get(configuration::configuration).options(cors::preflight))
        .route(&path("/outputs"), get(outputs::outputs).options(cors::preflight))
        .route(&path("/input_hook"), post(inputs::input_hook).options(cors::preflight))
        .route(&path("/trigger_response"), post(inputs::trigger_response).options(cors::preflight))
        .layer(from_fn_with_state(door.api.access.origins.clone(), cors::allow))
        // A handshake is no request that CORS knows.
        .route(&path("/websocket/offer"), get(websocket::websocket))
        // A telephone company is no page.
        .route(&path("/telephone/incoming"), post(telephone::incoming))
        .route(&path("/telephone/handler"), get(telephone::handler));
    let control = Router::new()
        .route(&path("/sessions"), get(control::list))
        .route(&path("/sessions/{id}"), get(control::show).delete(control::end))
        .route(&path("/sessions/{id}/tracks/{mid}"), delete(control::end_track))
        .route(&path("/sessions/{id}/data"), get(data::read).patch(data::patch))
        .layer(from_fn_with_state(door.clone(), control::guard));
    public.merge(control).layer(from_fn(reply::private)).with_state(door.clone())
}

/// A failure as the routes answer it, for what stands before them.
pub(crate) fn refusal(failure: &Failure) -> Response {
    reply::failure(failure)
}

/// Where a request came from. Only a router without a listener (a test) does not know.
fn source(extensions: &Extensions) -> SocketAddr {
    let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    extensions.get::<ConnectInfo<SocketAddr>>().map_or(unknown, |ConnectInfo(peer)| *peer)
}

#[cfg(test)]
mod tests;
