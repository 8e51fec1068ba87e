//! The routes of a router: those of a worker, for all services at once.
//!
//! Services come and go while the process runs, so every request goes through one function, which finds its service by host
//! and path ([`dispatch`]). Offers are decided in [`offer`] on the way that [`claim`] describes, candidates in
//! [`candidate`], ICE servers in [`configuration`], sockets in [`socket`], what telephone companies ask in [`telephone`]; what is asked of sessions that are there
//! goes through [`owner`] and [`control`]. [`away`] is what stands in for the store while it cannot be asked.

mod away;
mod candidate;
mod claim;
mod configuration;
mod control;
mod offer;
mod owner;
mod record;
mod socket;
mod telephone;
mod wait;

use std::net::{Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use futures_util::FutureExt as _;
use opentelemetry::metrics::Meter;
use parking_lot::Mutex;
use streamfleet_edge::origin::{Hosts, Origins, check, requested_host};
use streamfleet_edge::proxy::{client, is_trusted};
use streamfleet_edge::{cors, reply, unknown};
use streamfleet_process::tasks::panic_message;
use streamfleet_service::Params;
use streamfleet_session::wire::Failure;
use streamfleet_session::{AdminToken, FleetSecret, Network, SessionId};
use streamfleet_store::Store;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::away::Returning;
use self::owner::Aspect;
use self::record::Record;
use self::socket::Dialect;
use crate::forward::{Target, Upstream};
use crate::hold::Hold;
use crate::known::Known;
use crate::reached::{self, Front};
use crate::relay::Minting;
use crate::roster::{Desk, Roster};
use crate::sockets::Sockets;

/// When to come again to a router that has just begun.
const UNREAD_RETRY: Duration = Duration::from_secs(5);

/// Who may do what over HTTP.
#[derive(Debug, Clone)]
pub struct Access {
    /// Pages that may call the public routes.
    pub origins: Origins,
    /// Names under which the control routes may be called.
    pub hosts: Hosts,
    /// What the control routes demand. Workers are given the same.
    pub admin_token: AdminToken,
    /// Proxies whose word is taken: on where a request is from, and on the trace that it is part of.
    pub trusted: Vec<Network>,
    /// What this router's own listener is.
    pub front: Front,
}

/// What a router works with.
#[derive(Clone)]
pub struct Parts {
    /// What the fleet knows.
    pub store: Arc<dyn Store>,
    /// The services.
    pub roster: watch::Receiver<Arc<Roster>>,
    /// The way to workers.
    pub upstream: Upstream,
    /// What it shares with workers.
    pub secret: FleetSecret,
    /// Calls that wait for a worker.
    pub hold: Hold,
    /// Clients' sockets.
    pub sockets: Sockets,
    /// For webhooks.
    pub http: reqwest::Client,
    /// Who may do what.
    pub access: Access,
    /// How media comes by relays; without, clients are told the workers' own addresses.
    pub relay: Option<Arc<Minting>>,
    /// Streams of outputs at a time: they last, and must leave connections for everything else.
    pub streams: usize,
    /// Who wait for workers to tell the store what they have, of each kind.
    pub settling: usize,
    /// Owns what goes on beside requests: releases, the search for sessions of early candidates.
    pub tasks: TaskTracker,
    /// Ends it.
    pub stop: CancellationToken,
    /// No more connections come: what would last ends, and its client goes on at another router.
    pub leaving: CancellationToken,
}

/// All that the routes share.
struct Api {
    parts: Parts,
    known: Arc<Mutex<Known>>,
    /// Searches under way.
    searches: Semaphore,
    /// Of telephone calls, which take longer, and of which each that ends while the store is away is one.
    call_searches: Semaphore,
    /// Who wait for workers to tell the store what they have.
    settling: [Semaphore; Returning::KINDS],
    streams: Arc<Semaphore>,
    record: Record,
}

/// A request for a service.
struct Call {
    api: Arc<Api>,
    desk: Arc<Desk>,
    params: Params,
    target: Target,
    client: SocketAddr,
}

/// What a request is for, below its service's path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Route {
    Offer,
    RtcConfiguration,
    Outputs,
    Input,
    Trigger,
    Socket(Dialect),
    Incoming,
    Sessions,
    Session(SessionId),
    Data(SessionId),
    Track(SessionId, String),
}

impl Route {
    /// The route of a path. An id that is none is an id that nobody has.
    fn parse(rest: &str) -> Option<Self> {
        let mut segments = rest.strip_prefix('/')?.split('/');
        let mut next = || segments.next();
        let route = match (next()?, next(), next(), next()) {
            ("webrtc", Some("offer"), None, _) => Self::Offer,
            ("rtc_configuration", None, ..) => Self::RtcConfiguration,
            ("outputs", None, ..) => Self::Outputs,
            ("input_hook", None, ..) => Self::Input,
            ("trigger_response", None, ..) => Self::Trigger,
            ("websocket", Some("offer"), None, _) => Self::Socket(Dialect::Client),
            ("telephone", Some("handler"), None, _) => Self::Socket(Dialect::Telephone),
            ("telephone", Some("incoming"), None, _) => Self::Incoming,
            ("sessions", None, ..) => Self::Sessions,
            ("sessions", Some(id), None, _) => Self::Session(decoded(id)?.parse().ok()?),
            ("sessions", Some(id), Some("data"), None) => Self::Data(decoded(id)?.parse().ok()?),
            ("sessions", Some(id), Some("tracks"), Some(mid)) => {
                Self::Track(decoded(id)?.parse().ok()?, decoded(mid)?.into_owned())
            }
            _ => return None,
        };
        segments.next().is_none().then_some(route)
    }

    fn methods(&self) -> &'static [Method] {
        match self {
            Self::Offer | Self::Input | Self::Trigger => &[Method::POST, Method::OPTIONS],
            Self::RtcConfiguration | Self::Outputs => &[Method::GET, Method::HEAD, Method::OPTIONS],
            Self::Socket(_) => &[Method::GET],
            Self::Incoming => &[Method::POST],
            Self::Sessions => &[Method::GET, Method::HEAD],
            Self::Session(_) => &[Method::GET, Method::HEAD, Method::DELETE],
            Self::Data(_) => &[Method::GET, Method::HEAD, Method::PATCH],
            Self::Track(..) => &[Method::DELETE],
        }
    }
}

/// A segment without its escapes (RFC 3986, 2.1); `None` if what it says is no UTF-8.
fn decoded(segment: &str) -> Option<std::borrow::Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(segment.into());
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok().map(Into::into)
}

/// The routes of all services.
pub fn router(parts: Parts, meter: &Meter) -> Router {
    let origins = parts.access.origins.clone();
    let known = Arc::<Mutex<Known>>::default();
    let record = Record::new(meter, &parts.hold, &known, &parts.roster, &parts.sockets);
    let [searches, call_searches] = [(); 2].map(|()| Semaphore::new(away::MAX_SEARCHES));
    let settling = [(); Returning::KINDS].map(|()| Semaphore::new(parts.settling));
    let streams = Arc::new(Semaphore::new(parts.streams.min(Semaphore::MAX_PERMITS)));
    let api = Arc::new(Api { parts, known, searches, call_searches, settling, streams, record });
    let public = Router::new().fallback(dispatch).layer(from_fn_with_state(origins, cors_where_public));
    public.layer(from_fn(reply::private)).layer(from_fn_with_state(api.clone(), catch)).with_state(api)
}

/// The last net: a panic becomes `internal` (500), is counted, and ends nothing but its request.
async fn catch(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            tracing::error!(message = panic_message(panic.as_ref()), "a request panicked");
            api.record.panicked();
            reply::failure(&Failure::Internal)
        }
    }
}

/// Pages of other origins may read every answer but those of the control routes.
async fn cors_where_public(origins: State<Origins>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_control = path.split('/').any(|segment| segment == "sessions");
    if is_control { next.run(request).await } else { cors::allow(origins, request, next).await }
}

/// Takes away what browsers send by themselves where another's page asks: it proves who sits before it, not that he means it.
fn forget_cookies(request: &mut Request, access: &Access) {
    let host = requested_host(request.version(), request.headers(), request.uri());
    let is_own = host.is_ok_and(|host| check(request.headers(), &host, &Hosts::Any, &access.origins).is_ok());
    if !is_own {
        request.headers_mut().remove(header::COOKIE);
    }
}

async fn dispatch(State(api): State<Arc<Api>>, mut request: Request) -> Response {
    forget_cookies(&mut request, &api.parts.access);
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer);
    // Only a router without a listener (a test) does not know.
    let peer = peer.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    let access = &api.parts.access;
    let client = client(peer, request.headers(), &access.trusted);
    reached::judge(request.headers_mut(), access.front, is_trusted(peer.ip(), &access.trusted));
    let host = requested_host(request.version(), request.headers(), request.uri()).ok();
    let roster = api.parts.roster.borrow().clone();
    let found = roster.catalog.find(host.as_ref().map(|host| host.as_str()), request.uri().path());
    let found = found.and_then(|found| {
        let name = &found.service.name;
        let target = Target::new(name, &api.parts.secret.of_service(name), found.rest, request.uri());
        Some((Route::parse(found.rest)?, found.service, found.params, target))
    });
    let Some((route, service, params, target)) = found else {
        if roster.is_unread() {
            return reply::failure(&Failure::NoCapacity { retry_after: UNREAD_RETRY });
        }
        return unknown::path(request).await;
    };
    // It is there, and what it needs is not: a Secret of its own.
    let Some(desk) = roster.desk(&service.name).cloned() else { return reply::failure(&Failure::UpstreamUnavailable) };
    if !route.methods().contains(request.method()) {
        return not_allowed(route.methods());
    }
    if request.method() == Method::OPTIONS {
        return cors::preflight().await;
    }
    let call = Call { api, desk, params, target, client };
    match route {
        Route::Offer => call.offer_or_candidate(request).await,
        Route::RtcConfiguration => call.configuration(request).await,
        Route::Socket(dialect) => call.socket(request, dialect),
        Route::Incoming => call.incoming(request).await,
        Route::Outputs => call.outputs(request).await,
        Route::Input | Route::Trigger => call.told(request).await,
        Route::Sessions => call.list(request).await,
        Route::Session(id) if request.method() == Method::DELETE => call.end(request, id).await,
        Route::Session(id) => call.of_owner(request, id, Aspect::View).await,
        Route::Data(id) => call.of_owner(request, id, Aspect::Data).await,
        Route::Track(id, mid) => call.end_track(request, id, &mid).await,
    }
}

fn not_allowed(methods: &[Method]) -> Response {
    let mut response = reply::method_not_allowed();
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    if let Ok(allow) = names.join(", ").try_into() {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        #[track_caller]
        fn check(rest: &str, expected: Option<Route>) {
            assert_eq!(Route::parse(rest), expected, "{rest}");
        }
        let id = || "a~b".parse().unwrap();
        check("/webrtc/offer", Some(Route::Offer));
        check("/webrtc/offer/", None);
        check("/webrtc", None);
        check("", None);
        check("/", None);
        check("/websocket/offer", Some(Route::Socket(Dialect::Client)));
        check("/telephone/handler", Some(Route::Socket(Dialect::Telephone)));
        check("/telephone/handler/x", None);
        check("/sessions", Some(Route::Sessions));
        check("/sessions/a~b", Some(Route::Session(id())));
        check("/sessions/a%7Eb", Some(Route::Session(id())));
        check("/sessions/a%7", None);
        check("/sessions/a%+1b", None);
        check("/sessions/%ff", None);
        check("/sessions/a{b", None);
        check("/sessions/a~b/data", Some(Route::Data(id())));
        check("/sessions/a~b/tracks/0", Some(Route::Track(id(), "0".to_owned())));
        check("/sessions/a~b/tracks/0/x", None);
        check("/sessions/a~b/tracks", None);
    }
}
