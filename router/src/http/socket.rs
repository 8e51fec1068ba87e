//! `{p}/websocket/offer` and `{p}/telephone/handler`: sockets, on their way to a worker.
//!
//! A socket is accepted before anything is known of it, and read until it has said `start`. The checks and their order are
//! those of an offer; a refusal is a message where the protocol has one, and a close frame. Then a worker is asked for a
//! socket, is told `start` as it came, and from there on bytes go both ways. Who comes back to a session of his own goes to
//! the worker that has it.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, response};
use axum::response::Response;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use streamfleet_edge::headers::utf8;
use streamfleet_edge::lobby::NoPlace;
use streamfleet_edge::reply;
use streamfleet_process::telemetry::trace;
use streamfleet_session::fleet::{PLACED_HEADER, REFUSED_HEADER, Refused, VOUCHED, VOUCHED_HEADER};
use streamfleet_session::wire::Failure;
use streamfleet_session::{Claims, CloseReason};
use streamfleet_socket::hello::{Earlier, Hello, Otherwise};
use streamfleet_socket::{Connection, ConnectionLimits, Opening};
use streamfleet_store::{ContextKey, Delivery, Gate, Phase, Reach, SessionView, WorkerView};
use tracing::Instrument as _;

use super::Call;
use super::away::{Returning, Search};
use super::claim::{Ask, Carrier, Medium, Told, Wanted, trace_headers, unavailable};
use super::offer::access_token;
use super::wait::Wait;
use crate::attempt::{FULL_RETRY, Outcome};
use crate::forward::{Opened, Silence, onward};
use crate::identify::{Caller, Shown};
use crate::sockets::Admitted;
use crate::sockets::handshake::Handshake;
use crate::sockets::line::Line;
use crate::sockets::splice::splice;

/// When a client may come again that found too many others before the door.
const CROWDED: Duration = Duration::from_secs(2);
/// For a worker to answer a handshake: it asks nobody.
const HANDSHAKE_TIME: Duration = Duration::from_secs(3);

/// Which protocol a route speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// FastRTC's own.
    Client,
    /// A telephone company's.
    Telephone,
}

impl Dialect {
    fn connection(self, limits: ConnectionLimits) -> Connection {
        let now = tokio::time::Instant::now().into_std();
        match self {
            Self::Client => Connection::client(now, limits),
            Self::Telephone => Connection::telephone(now, limits),
        }
    }

    /// What its sessions are called in the store.
    const fn transport(self) -> &'static str {
        match self {
            Self::Client => "websocket",
            Self::Telephone => "telephone",
        }
    }
}

type Socket = TokioIo<Upgraded>;

impl Call {
    /// Accepts a socket, unless the handshake is none, comes from a page that may not call, or there are too many already.
    pub(super) fn socket(self, mut request: Request, dialect: Dialect) -> Response {
        let Some(handshake) = Handshake::take(&mut request) else { return reply::upgrade_required() };
        let (parts, _) = request.into_parts();
        // Scripts open sockets to any origin without asking: what CORS does for requests has to be done here.
        let origin = parts.headers.get(header::ORIGIN);
        if origin.is_some() && self.api.parts.access.origins.answer(origin).is_none() {
            return reply::failure(&Failure::Forbidden);
        }
        let admitted = match self.api.parts.sockets.enter(self.client.ip()) {
            Ok(admitted) => admitted,
            Err(NoPlace::Full) => {
                let failure = Failure::NoCapacity { retry_after: CROWDED };
                self.api.record.offer(failure.as_str());
                return reply::failure(&failure);
            }
            Err(NoPlace::TooMany) => {
                self.api.record.offer(reply::TOO_MANY_SOCKETS);
                return reply::too_many_sockets(CROWDED);
            }
        };
        let (upgrade, response) = handshake.accept();
        let tasks = self.api.parts.sockets.tasks().clone();
        tasks.spawn(async move { self.serve(&parts, upgrade, dialect, admitted).await });
        response
    }

    async fn serve(&self, parts: &Parts, upgrade: OnUpgrade, dialect: Dialect, admitted: Admitted) {
        let Admitted { open: _place, waiting } = admitted;
        let Ok(client) = upgrade.await else { return };
        let open = self.api.record.socket("waiting");
        // Boxed, so that what it takes to come in is given back before the long part.
        let Some((client, worker, read)) = Box::pin(self.come_in(parts, TokioIo::new(client), dialect)).await else {
            return;
        };
        drop((open, waiting));
        let _open = self.api.record.socket("spliced");
        let sockets = &self.api.parts.sockets;
        let parted = splice(client, worker, read, sockets.restart(), sockets.octets()).await;
        self.api.record.socket_closed(parted.as_str());
    }

    /// The client's socket, that of its worker, and what the client has said; `None` if it has not come so far.
    async fn come_in(&self, parts: &Parts, client: Socket, dialect: Dialect) -> Option<(Socket, Socket, Vec<u8>)> {
        let limits = ConnectionLimits { start_timeout: self.desk.service.limits.connect_timeout };
        let mut line = Line::new(client, dialect.connection(limits));
        let Some(opening) = line.opening(self.api.parts.sockets.restart()).await else {
            self.api.record.offer("no_start");
            line.close().await;
            return None;
        };
        let began = Instant::now();
        let (hello, admitted) = self.hello(opening, began);
        let (service, transport) = (&self.desk.service.name, dialect.transport());
        let span = tracing::info_span!("socket", %service, session = %hello.id, transport, otel.kind = "server");
        trace::accept(&span, |name| utf8(&parts.headers, name));
        let decided = async {
            if let Err(failure) = admitted {
                return Err(self.refuse(&hello.id, None, failure, None));
            }
            self.decide(parts, &hello, dialect, began).await
        };
        let decided = tokio::select! {
            decided = decided.instrument(span) => decided,
            // Nobody is there to be told, and what was begun is given back.
            () = line.gone() => {
                self.api.record.offer("gone");
                return None;
            }
        };
        match decided {
            Ok((worker, label)) => {
                self.api.record.offer(label);
                self.api.record.offer_took(began.elapsed());
                let (client, read) = line.into_parts();
                Some((client, TokioIo::new(worker), read))
            }
            Err(failure) => {
                self.api.record.offer(failure.as_str());
                line.refuse(failure).await;
                None
            }
        }
    }

    /// Who it is, and whether it may come in at all: by the rate of its address, and by what it has to prove.
    fn hello(&self, opening: Opening, now: Instant) -> (Hello, Result<(), Failure>) {
        match opening {
            Opening::Client(start) => (Hello::of_client(*start), self.rated(crate::limit::Kind::Offer, now)),
            Opening::Call(start) => match self.proof(&start, now) {
                Ok(proof) => (Hello::of_call(*start, proof), Ok(())),
                Err(failure) => (Hello::of_call(*start, streamfleet_socket::hello::Proof::None), Err(failure)),
            },
        }
    }

    /// A worker's socket for it, and what has become of it.
    async fn decide(
        &self,
        parts: &Parts,
        hello: &Hello,
        dialect: Dialect,
        began: Instant,
    ) -> Result<(Upgraded, &'static str), Failure> {
        let token = access_token(parts);
        let claims = Claims { metadata: hello.metadata.as_ref(), candidate: None };
        let shown = Shown { headers: &parts.headers, query_token: token.as_deref(), claims };
        let caller = self.acquainted(shown, &hello.id, began).await?;
        let user = caller.user.clone();
        let told = |failure: Failure| self.refuse(&hello.id, Some(&caller), failure, None);
        if let Some(call) = &hello.call {
            let session = hello.earlier.as_ref().map_or(&hello.id, |earlier| &earlier.id);
            self.enter_call(call, session).await.map_err(told)?;
        }
        let mut wait = Wait::new(self);
        if let Some(earlier) = &hello.earlier {
            let own = self.own(earlier, &caller, dialect, &mut wait).await;
            match own.inspect_err(|failure| self.unserved(failure)).map_err(told)? {
                Some(at) => {
                    wait.found();
                    let worker = self.attach(parts, &at).await.map_err(told)?;
                    self.audit(&earlier.id, user.as_ref()).attached(&at.worker);
                    return Ok((worker, "attached"));
                }
                None if earlier.otherwise == Otherwise::Refuse => return Err(told(Failure::ConnectionClosed)),
                None => {}
            }
        }
        let wanted = Wanted {
            session: &hello.id,
            caller,
            resume: hello.shown(),
            delivery: Delivery::Sent,
            medium: Medium::Socket,
        };
        let served = self.place(&wanted, &Shaken { call: self, parts }, wait).await?;
        let key = (self.desk.service.name.clone(), hello.id.clone());
        self.api.known.lock().remember(&key, served.at, Instant::now());
        served.answer.map(|worker| (worker, "accepted"))
    }

    /// Who has the session that somebody says was his own, if it is, and lives over this kind of socket. One over another
    /// transport is taken over, as by an offer.
    async fn own(
        &self,
        earlier: &Earlier,
        caller: &Caller,
        dialect: Dialect,
        wait: &mut Wait<'_>,
    ) -> Result<Option<Reach>, Failure> {
        let store = &self.api.parts.store;
        let service = self.desk.service.name.clone();
        let live = loop {
            match store.session(&service, &earlier.id).await {
                Ok(Some(SessionView::Live(live))) => break live,
                Ok(Some(SessionView::Over(CloseReason::WorkerLost)) | None) => match self.unsure().await {
                    Ok(None) => return Ok(None),
                    // Its worker may be about to write it again. What is begun anew would be ended then.
                    Ok(Some(left)) => wait.settles(Returning::Socket, left).await?,
                    Err(error) if error.is_away() => {}
                    Err(error) => return Err(unavailable(&error)),
                },
                Ok(Some(SessionView::Over(_))) => return Ok(None),
                // Where no worker is known yet, it would begin anew at the first one that is. Then the store is there.
                Err(error) if error.is_away() => {
                    if !wait.for_anybody().await? {
                        return self.own_there(earlier, caller, dialect).await;
                    }
                }
                Err(error) => return Err(unavailable(&error)),
            }
        };
        let says = |key: &str| live.detail.get(key);
        let is_here = says("transport").and_then(Value::as_str) == Some(dialect.transport());
        // A token is no way around an identity: a verified user's session is his alone.
        let is_anothers = says("verified") == Some(&Value::Bool(true)) && caller.proved() != live.user.as_ref();
        if !is_here || is_anothers || !matches!(live.phase, Phase::Connecting | Phase::Active) {
            return Ok(None);
        }
        // A client that was asked to go elsewhere would be asked again, and then cut off.
        if earlier.otherwise == Otherwise::Begin && self.is_leaving(&live.at) {
            return Ok(None);
        }
        let contexts = store.clone().contexts(&service);
        let key = ContextKey { service, session: earlier.id.clone() };
        let context = contexts.verify(&key, &earlier.token).await.map_err(|error| unavailable(&error))?;
        Ok((context == Some(live.context)).then_some(live.at))
    }

    /// The same while the store is away, as the worker says that has it: it also knows the token, and judges it.
    async fn own_there(&self, earlier: &Earlier, caller: &Caller, dialect: Dialect) -> Result<Option<Reach>, Failure> {
        match self.api.search(&self.desk, &earlier.id).await {
            Search::Found(found) => {
                let is_here = found.transport == dialect.transport();
                let is_anothers = found.verified && caller.proved() != found.user.as_ref();
                Ok((is_here && !is_anothers).then_some(found.at))
            }
            Search::Unsure if earlier.otherwise == Otherwise::Refuse => Err(Failure::UpstreamUnavailable),
            Search::Nobody | Search::Unsure => Ok(None),
        }
    }

    /// Whether a worker asks its clients to connect elsewhere, and another one takes sessions. One that only drains finishes what
    /// it has.
    fn is_leaving(&self, at: &Reach) -> bool {
        let snapshot = self.desk.directory.now();
        let is_it = |view: &WorkerView| view.owner.worker == at.worker;
        let said = |view: &WorkerView| view.said.as_ref().is_some_and(|said| said.gate == Gate::Leaving);
        // By an order that it is about to hear, too: its clients may be quicker than what it says next.
        let asks = |view: &WorkerView| view.gate == Gate::Leaving || said(view);
        let workers = || snapshot.workers.iter();
        workers().any(|view| is_it(view) && asks(view)) && workers().any(|view| !is_it(view) && view.gate == Gate::Open)
    }

    /// Brings a client back to its session.
    async fn attach(&self, parts: &Parts, at: &Reach) -> Result<Upgraded, Failure> {
        let mut request = self.handshake(parts);
        request.headers_mut().insert(HeaderName::from_static(VOUCHED_HEADER), HeaderValue::from_static(VOUCHED));
        match self.api.parts.upstream.open(&at.http, request, HANDSHAKE_TIME).await {
            Ok(Opened::Yes(worker)) => Ok(worker),
            Ok(Opened::No(head)) if is_full(&head) => Err(Failure::NoCapacity { retry_after: FULL_RETRY }),
            Ok(Opened::No(_)) | Err(_) => Err(Failure::UpstreamUnavailable),
        }
    }

    /// The client's handshake, to be made ours.
    fn handshake(&self, parts: &Parts) -> axum::http::Request<Body> {
        let mut request = onward(Method::GET, &self.target, &parts.headers, self.client, Body::empty());
        for (name, value) in trace_headers() {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                request.headers_mut().insert(name, value);
            }
        }
        request
    }
}

/// A handshake.
struct Shaken<'a> {
    call: &'a Call,
    parts: &'a Parts,
}

impl Carrier for Shaken<'_> {
    type Answer = Result<Upgraded, Failure>;

    async fn ask(&self, ask: Ask) -> Told<Self::Answer> {
        let mut request = self.call.handshake(self.parts);
        request.headers_mut().insert(HeaderName::from_static(PLACED_HEADER), ask.placed);
        told(self.call.api.parts.upstream.open(&ask.at.http, request, HANDSHAKE_TIME).await)
    }
}

/// What a worker's answer to a handshake means.
fn told(opened: Result<Opened, Silence>) -> Told<Result<Upgraded, Failure>> {
    match opened {
        Ok(Opened::Yes(worker)) => Told { outcome: Outcome::Taken, answer: Some(Ok(worker)) },
        Ok(Opened::No(head)) => match refused(head.status, &head.headers) {
            Some(refused) => Told { outcome: Outcome::Refused(refused), answer: None },
            // It is no worker of ours, or of another release.
            None => Told { outcome: Outcome::Failed, answer: Some(Err(Failure::UpstreamUnavailable)) },
        },
        Err(Silence::Gone) => Told { outcome: Outcome::Gone, answer: None },
        Err(Silence::TimedOut) => Told { outcome: Outcome::TimedOut, answer: None },
    }
}

fn is_full(head: &response::Parts) -> bool {
    refused(head.status, &head.headers).is_some_and(|refused| refused != Refused::Stranger)
}

/// Why a worker does not take a socket, if another one may: one that says no more than that it has no room has none.
fn refused(status: StatusCode, headers: &HeaderMap) -> Option<Refused> {
    let said = headers.get(REFUSED_HEADER).and_then(|text| text.to_str().ok()).and_then(|text| text.parse().ok());
    match status {
        StatusCode::SERVICE_UNAVAILABLE => Some(said.unwrap_or(Refused::Full)),
        StatusCode::FORBIDDEN => said.filter(|said| *said == Refused::Stranger),
        StatusCode::TOO_MANY_REQUESTS => Some(Refused::Full),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_refusal_means() {
        #[track_caller]
        fn check(status: u16, said: Option<&'static str>, expected: Option<Refused>) {
            let mut headers = HeaderMap::new();
            headers.extend(said.map(|said| (HeaderName::from_static(REFUSED_HEADER), HeaderValue::from_static(said))));
            assert_eq!(refused(StatusCode::from_u16(status).unwrap(), &headers), expected, "{status} {said:?}");
        }
        check(503, Some("stale"), Some(Refused::Stale));
        check(503, Some("draining"), Some(Refused::Draining));
        check(503, Some("moody"), Some(Refused::Full));
        check(503, None, Some(Refused::Full));
        check(429, None, Some(Refused::Full));
        check(403, Some("stale"), None);
        check(200, None, None);
    }
}
