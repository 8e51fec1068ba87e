//! The routes, asked in process, over a host that does what the offer's SDP says.

mod audit;
mod candidates;
mod configuration;
mod control;
mod cors;
mod data;
mod inputs;
mod offers;
mod outputs;
mod peer;
mod socket;
mod telephone;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, BodyDataStream, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use streamfleet_handler::{LinkConfig, LoopEnd, Replies, TaskEnd, Transport, link};
use streamfleet_process::telemetry::Metrics;
use streamfleet_service::ice::IceServers;
use streamfleet_service::spec::Modality;
use streamfleet_session::candidate::ParsedCandidate;
use streamfleet_session::wire::{Answer, Failure};
use streamfleet_session::{
    CloseReason, Identity, IdentityPolicy, Limits, ResumeToken, ServiceName, SessionId, State, Verification,
};
use streamfleet_socket::protocol::{CallResume, CallSid};
use streamfleet_socket::telephone::CallLeg;
use streamfleet_store::{Claim, ContextId, ContextKey, ContextStore, Memory};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::*;
use crate::admission::Slot;
use crate::history::Writing;
use crate::media::Shared;
use crate::sockets::Line;

/// An SDP that the host accepts.
const SDP: &str = "v=0";
const TOKEN: &str = "correct-horse-battery";
const CLIENT: &str = "192.0.2.7:40000";

/// A host whose sessions are entries of a table.
struct FakeHost {
    sessions: Mutex<HashMap<SessionId, FakeSession>>,
    /// Lets one `slow` offer go on.
    go: Notify,
    sockets: TaskTracker,
    contexts: Arc<dyn ContextStore>,
    /// Sessions that are over.
    over: Mutex<HashMap<SessionId, Reached>>,
    stopping: CancellationToken,
    /// The one call that goes on.
    call: Mutex<Option<(CallSid, CallResume)>>,
}

impl Default for FakeHost {
    fn default() -> Self {
        Self {
            sessions: Mutex::default(),
            go: Notify::new(),
            sockets: TaskTracker::new(),
            contexts: Arc::new(Memory::default()),
            over: Mutex::default(),
            stopping: CancellationToken::new(),
            call: Mutex::default(),
        }
    }
}

struct FakeSession {
    service: ServiceName,
    state: State,
    shared: Arc<Shared>,
    _writing: Writing,
    context: ContextId,
    token: ResumeToken,
    link: LoopEnd,
    handler: TaskEnd,
    replies: Replies,
    identity: Identity,
    /// Lines of the candidates: those that came early with the offer first.
    candidates: Vec<String>,
    _slot: Slot,
}

impl FakeHost {
    fn set(&self, id: &str, state: State) {
        let mut sessions = self.sessions.lock();
        let session = sessions.get_mut(id).unwrap();
        session.state = state;
        match state {
            State::Connecting => {}
            State::Active => session.shared.active(),
            State::Ending(reason) => session.shared.ending(reason),
            State::Closed(reason) => session.shared.closed(reason),
        }
    }

    fn with<T>(&self, id: &str, f: impl FnOnce(&FakeSession) -> T) -> T {
        f(&self.sessions.lock()[id])
    }

    /// What the session's client shows.
    fn token(&self, id: &str) -> String {
        self.with(id, |session| session.token.reveal())
    }

    /// The session is over: it is remembered, as is what it has written.
    async fn finish(&self, id: &str) {
        let (id, session) = self.sessions.lock().remove_entry(id).unwrap();
        session.shared.closed(CloseReason::EndStream);
        self.contexts.close(session.context).await.unwrap();
        let FakeSession { shared, context, replies, .. } = session;
        self.over.lock().insert(id, Reached { shared, context, inputs: None, replies });
    }

    fn candidates(&self, id: &str) -> Vec<String> {
        self.sessions.lock()[id].candidates.clone()
    }
}

#[async_trait]
impl Host for FakeHost {
    async fn open(&self, request: OpenRequest) -> Result<Answer, Failure> {
        match request.sdp.as_str() {
            "v=0" | "proven" | "on pause" => {}
            "slow" => self.go.notified().await,
            "hang" => std::future::pending().await,
            "panic" => panic!("as the offer wished"),
            "full" => return Err(Failure::NoCapacity { retry_after: Duration::from_millis(1500) }),
            "gone" => return Err(Failure::UpstreamUnavailable),
            _ => return Err(Failure::InvalidOffer { detail: "no media".to_owned() }),
        }
        let OpenRequest { service, id, identity, slot, early, .. } = request;
        let candidates = early.iter().map(|candidate| candidate.line.clone()).collect();
        let service = service.name.clone();
        let mut identity = identity;
        if request.sdp == "proven" {
            identity.verified = Verification::Verified;
        }
        let key = ContextKey { service: service.clone(), session: id.clone() };
        let claim = Claim { token: request.resume, user: None };
        let opened = self.contexts.open(&key, &claim).await.unwrap();
        let shared = Shared::new(1, id.clone(), service.clone(), Transport::WebRtc, &identity);
        let writing = shared.history().write();
        let (link, handler) = link(LinkConfig::default(), Arc::new(|| {}));
        let session = FakeSession {
            service,
            state: State::Connecting,
            shared: shared.into(),
            _writing: writing,
            context: opened.id,
            token: opened.token,
            link,
            handler,
            replies: if request.sdp == "on pause" { Replies::OnPause } else { Replies::Freely },
            identity,
            candidates,
            _slot: slot,
        };
        self.sessions.lock().insert(id, session);
        Ok(Answer { sdp: "v=0 answer".to_owned(), resume: None })
    }

    /// Sockets need a listener: they are tried on a whole worker.
    async fn open_socket(&self, _: SocketRequest, line: Line) -> Result<(), (Failure, Box<Line>)> {
        Err((Failure::UpstreamUnavailable, Box::new(line)))
    }

    async fn attach(&self, _: Returning<'_>, line: Line) -> Attached {
        Attached::No(Box::new(line))
    }

    fn sockets(&self) -> &TaskTracker {
        &self.sockets
    }

    fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    fn call(&self, _: &ServiceName, call: &CallLeg) -> Option<CallResume> {
        self.call.lock().as_ref().filter(|(sid, _)| *sid == call.sid).map(|(_, resume)| resume.clone())
    }

    async fn candidate(
        &self,
        service: &ServiceName,
        id: &SessionId,
        candidate: ParsedCandidate,
    ) -> Result<(), Failure> {
        let mut sessions = self.sessions.lock();
        let session = sessions.get_mut(id).filter(|session| session.service == *service);
        let session = session.ok_or(Failure::UnknownConnection)?;
        match (session.state, candidate) {
            (State::Ending(_) | State::Closed(_), _) => return Err(Failure::ConnectionClosed),
            (_, ParsedCandidate::Candidate(candidate)) => session.candidates.push(candidate.line),
            _ => {}
        }
        Ok(())
    }

    fn sessions(&self, service: &ServiceName) -> Vec<SessionView> {
        let ids: Vec<SessionId> = self.sessions.lock().keys().cloned().collect();
        ids.iter().filter_map(|id| self.session(id)).filter(|session| session.service == *service).collect()
    }

    fn session(&self, id: &SessionId) -> Option<SessionView> {
        self.sessions.lock().get(id).map(|session| SessionView {
            id: id.clone(),
            context: session.context,
            service: session.service.clone(),
            worker: None,
            transport: Transport::WebRtc,
            user_id: session.identity.user_id.clone(),
            verified: session.identity.verified.is_verified(),
            state: session.state,
            since: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
            changes: Vec::new(),
            quality: None,
            outputs: Vec::new(),
            tracks: Vec::new(),
        })
    }

    fn reach(&self, service: &ServiceName, id: &SessionId) -> Option<Reached> {
        let live = self.sessions.lock().get(id).map(|session| Reached {
            shared: session.shared.clone(),
            context: session.context,
            inputs: Some(session.link.inputs()),
            replies: session.replies,
        });
        live.or_else(|| self.over.lock().get(id).cloned()).filter(|reached| reached.shared.service() == service)
    }

    fn contexts(&self, _: &ServiceName) -> Arc<dyn ContextStore> {
        self.contexts.clone()
    }

    async fn close_track(&self, id: &SessionId, _: ContextId, mid: &str) -> Result<(), Failure> {
        match (self.sessions.lock().contains_key(id), mid) {
            (true, "0") => Ok(()),
            (true, "late") => Err(Failure::NoCapacity { retry_after: Duration::from_secs(2) }),
            _ => Err(Failure::NotFound),
        }
    }

    async fn end(&self, id: &SessionId, _: ContextId, reason: CloseReason) -> Result<Ended, Failure> {
        let mut sessions = self.sessions.lock();
        match sessions.get(id).ok_or(Failure::NotFound)?.state {
            // A session that is ending already takes longer than anybody waits.
            State::Ending(_) => return Ok(Ended::Ending),
            State::Closed(_) => return Err(Failure::NoCapacity { retry_after: Duration::from_secs(2) }),
            State::Connecting | State::Active => {}
        }
        sessions.remove(id);
        Ok(Ended::Closed(reason))
    }
}

/// A worker's HTTP side with a service at the root, `limited` with every limit, and `/deep/path`.
struct World {
    host: Arc<FakeHost>,
    occupancy: Occupancy,
    metrics: Metrics,
    app: Router,
}

fn service(name: &str, path: &str, limits: Limits) -> Arc<Service> {
    Arc::new(Service {
        name: name.parse().unwrap(),
        path: path.parse().unwrap(),
        aliases: Vec::new(),
        handler: "echo".to_owned(),
        handler_config: Value::Null,
        modality: Modality::default(),
        limits,
        identity: IdentityPolicy::default(),
        telephone: Telephone::default(),
        capacity: None,
    })
}

fn access() -> Access {
    Access {
        origins: Origins::Any,
        hosts: Hosts::Only([].into()),
        admin_token: TOKEN.parse().unwrap(),
        newcomers: MAX_NEWCOMERS,
        newcomers_per_source: None,
        trusted: [].into(),
        fleet: None,
        streams: 20,
    }
}

impl World {
    fn new() -> Self {
        Self::with(access())
    }

    fn with(access: Access) -> Self {
        Self::serving(access, Router::new().route("/", get(async || "a page")))
    }

    fn serving(access: Access, pages: Router) -> Self {
        let fixed = serde_json::from_value(json!([{ "urls": ["stun:stun.example.com"] }])).unwrap();
        Self::whole(access, IceServers { fixed, turn: None }, pages)
    }

    /// One whose clients are told of these.
    fn telling(ice: IceServers) -> Self {
        Self::whole(access(), ice, Router::new())
    }

    fn whole(access: Access, ice: IceServers, pages: Router) -> Self {
        let limits = Limits {
            concurrency: NonZeroU32::new(2),
            per_user: NonZeroU32::new(1),
            offers_per_minute: NonZeroU32::new(20),
            ..Limits::default()
        };
        let mut deep = Arc::unwrap_or_clone(service("deep", "/deep/path", Limits::default()));
        deep.aliases = vec!["/alias".parse().unwrap()];
        let telephone = |name: &str, telephone: Telephone| {
            let phoned = Arc::unwrap_or_clone(service(name, &format!("/{name}"), Limits::default()));
            Arc::new(Service { telephone, ..phoned })
        };
        let services = [
            service("root", "", Limits::default()),
            service("limited", "/limited", limits),
            Arc::new(deep),
            telephone("behind", Telephone { proxy: Proxy::Trusted, ..Telephone::default() }),
            telephone(
                "signed",
                Telephone {
                    callers: Callers::Signed("12345".into()),
                    before: "Hello & <welcome>".to_owned(),
                    after: String::new(),
                    ..Telephone::default()
                },
            ),
            telephone(
                "signed-behind",
                Telephone { callers: Callers::Signed("12345".into()), proxy: Proxy::Trusted, ..Telephone::default() },
            ),
        ];
        let (host, occupancy) = (Arc::new(FakeHost::default()), Occupancy::default());
        let metrics = Metrics::new("test", "0");
        let app = router(host.clone(), &services, &occupancy, access, ice, &metrics.meter("http"), pages);
        Self { host, occupancy, metrics, app }
    }

    async fn send(&self, request: Request<Body>) -> Reply {
        let mut request = request;
        request.extensions_mut().insert(ConnectInfo(CLIENT.parse::<SocketAddr>().unwrap()));
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Reply { status: parts.status.as_u16(), headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    /// A request whose answer may have no end.
    async fn begin(&self, request: Request<Body>) -> Begun {
        let mut request = request;
        request.extensions_mut().insert(ConnectInfo(CLIENT.parse::<SocketAddr>().unwrap()));
        let (parts, body) = self.app.clone().oneshot(request).await.unwrap().into_parts();
        Begun { status: parts.status.as_u16(), headers: parts.headers, pieces: body.into_data_stream() }
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> Reply {
        self.send(Request::post(path).body(body.into()).unwrap()).await
    }

    async fn offer(&self, path: &str, id: &str, sdp: &str) -> Reply {
        let body = json!({ "type": "offer", "webrtc_id": id, "sdp": sdp });
        self.post(&format!("{path}/webrtc/offer"), body.to_string()).await
    }

    async fn trickle(&self, id: &str, candidate: Value) -> Reply {
        self.trickle_to("", id, candidate).await
    }

    async fn trickle_to(&self, path: &str, id: &str, candidate: Value) -> Reply {
        let body = json!({ "type": "ice-candidate", "webrtc_id": id, "candidate": candidate });
        self.post(&format!("{path}/webrtc/offer"), body.to_string()).await
    }

    /// A request to a control route, from the machine itself and with the token.
    async fn control(&self, method: &str, path: &str) -> Reply {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost:8081")
            .header("authorization", format!("Bearer {TOKEN}"));
        self.send(request.body(Body::empty()).unwrap()).await
    }

    fn counted(&self, line: &str) {
        let text = self.metrics.render();
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    }
}

/// The beginning of an answer, and the rest as it comes.
struct Begun {
    status: u16,
    headers: HeaderMap,
    pieces: BodyDataStream,
}

impl Begun {
    /// The next piece of the body; `None` at its end.
    async fn piece(&mut self) -> Option<String> {
        let piece = self.pieces.next().await?.unwrap();
        Some(String::from_utf8(piece.to_vec()).unwrap())
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    fn is(&self, status: u16, body: &str) {
        assert_eq!((self.status, self.body.as_str()), (status, body));
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

fn failed(error: &str) -> String {
    format!(r#"{{"status":"failed","meta":{{"error":"{error}"}}}}"#)
}
