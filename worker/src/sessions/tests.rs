//! Sessions on a real loop, over HTTP, without a client: what becomes of them when they end before they have begun.

pub(crate) mod gated;
mod leaving;
mod moving;
mod placed;
mod races;

use std::num::NonZeroU32;
use std::sync::atomic::AtomicBool;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::{Value, json};
use streamfleet_handler::{Emit, Handler, HandlerError, Input, Registry};
use streamfleet_process::telemetry::Metrics;
use streamfleet_service::spec::Modality;
use streamfleet_session::{Identity, IdentityPolicy, Limits, RECONNECT_LEAD};
use tower::ServiceExt as _;

use std::sync::atomic::Ordering::Relaxed;

use streamfleet_handler::{LinkConfig, LoopEnd, link};
use tokio_util::sync::CancellationToken;

use super::begin::HandlerTask;
use super::*;
use crate::admission::Occupancy;
use crate::http::{self, Access, Hosts, Origins, Service};
use crate::media::driver::Loop;

const TOKEN: &str = "correct-horse-battery";

type Orders = tokio::sync::mpsc::Receiver<crate::sockets::session::Command>;

/// For what takes microseconds, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A whole worker with an `echo` at the root, but for its listeners.
struct Worker {
    app: Router,
    sessions: Sessions,
    occupancy: Occupancy,
    stop: Arc<AtomicBool>,
    running: Option<std::thread::JoinHandle<()>>,
}

impl Worker {
    fn new() -> Self {
        let (media, sessions) = Self::sessions();
        let mut worker = Self::with(sessions);
        let stop = worker.stop.clone();
        worker.running = Some(std::thread::spawn(move || media.run(&stop).unwrap()));
        worker
    }

    fn with(sessions: Sessions) -> Self {
        let occupancy = Occupancy::default();
        let app = Self::app(&sessions, &occupancy);
        Worker { app, sessions, occupancy, stop: Arc::default(), running: None }
    }

    fn sessions() -> (Loop, Sessions) {
        let (media, handle) =
            Loop::bind("127.0.0.1:0".parse().unwrap(), streamfleet_net::SocketOptions::default()).unwrap();
        let name: ServiceName = "echo".parse().unwrap();
        let echo = Registry::builtin().get("echo", Value::Null).unwrap();
        let sessions = Sessions::new(
            PeerFactory::new().unwrap(),
            vec![handle],
            Advertised(vec!["127.0.0.1".parse().unwrap()]),
            DelayBounds::default(),
            HashMap::from([(name, echo)]),
            Handle::current(),
            SessionMetrics::new(&Metrics::new("test", "0").meter("worker")),
        );
        (media, sessions)
    }

    fn app(sessions: &Sessions, occupancy: &Occupancy) -> Router {
        let service = Service {
            name: "echo".parse().unwrap(),
            path: "".parse().unwrap(),
            aliases: Vec::new(),
            handler: "echo".to_owned(),
            handler_config: Value::Null,
            modality: Modality::default(),
            // Whoever moves must not need a second place.
            limits: Limits { concurrency: NonZeroU32::new(1), ..Limits::default() },
            identity: IdentityPolicy::default(),
            telephone: http::Telephone::default(),
            capacity: None,
        };
        let access = Access {
            origins: Origins::Any,
            hosts: Hosts::Only([].into()),
            admin_token: TOKEN.parse().unwrap(),
            streams: 9,
            newcomers: http::MAX_NEWCOMERS,
            newcomers_per_source: None,
            trusted: [].into(),
            fleet: None,
        };
        let meter = Metrics::new("test", "0").meter("http");
        let (host, services) = (Arc::new(sessions.clone()), [Arc::new(service)]);
        http::router(
            host,
            &services,
            occupancy,
            access,
            streamfleet_service::ice::IceServers::default(),
            &meter,
            Router::new(),
        )
    }

    async fn send(&self, request: Request<Body>) -> (u16, Value) {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn offer(&self, id: &str) -> (u16, Value) {
        self.offer_with(id, Value::Null).await
    }

    async fn offer_with(&self, id: &str, resume: Value) -> (u16, Value) {
        let body = json!({ "type": "offer", "webrtc_id": id, "sdp": offer(), "resume": resume });
        self.send(Request::post("/webrtc/offer").body(Body::from(body.to_string())).unwrap()).await
    }

    async fn delete(&self, id: &str) -> (u16, Value) {
        let request = Request::delete(format!("/sessions/{id}"))
            .header("host", "localhost")
            .header("authorization", format!("Bearer {TOKEN}"));
        self.send(request.body(Body::empty()).unwrap()).await
    }
}

impl Worker {
    /// Stops its loop.
    fn stop(&mut self) {
        self.stop.store(true, Relaxed);
        self.sessions.wake_loops();
        if let Some(running) = self.running.take() {
            running.join().unwrap();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn offer() -> String {
    let fingerprint = ["AB"; 32].join(":");
    format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n\
         c=IN IP4 0.0.0.0\r\na=mid:0\r\na=rtcp-mux\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdefghijklmn\r\n\
         a=fingerprint:sha-256 {fingerprint}\r\na=setup:actpass\r\na=rtpmap:111 opus/48000/2\r\n"
    )
}

#[tokio::test]
async fn a_deleted_session_is_over_and_its_id_free() {
    let worker = Worker::new();
    for round in 0..20 {
        assert_eq!(worker.offer("a").await.0, 200, "round {round}");
        let ended = json!({ "status": "success", "id": "a", "reason": "ended_by_control" });
        assert_eq!(worker.delete("a").await, (200, ended), "round {round}");
        assert_eq!((worker.occupancy.live(), worker.sessions.len()), (0, 0), "round {round}");
    }
    assert_eq!(worker.delete("a").await.0, 404);
}

#[tokio::test]
async fn a_candidate_reaches_the_sessions_of_its_service() {
    let worker = Worker::new();
    assert_eq!(worker.offer("a").await.0, 200);
    let send = async |service: &str, id: &str| {
        let end = ParsedCandidate::EndOfCandidates;
        worker.sessions.candidate(&service.parse().unwrap(), &id.parse().unwrap(), end).await
    };
    assert_eq!(send("echo", "a").await, Ok(()));
    assert_eq!(send("other", "a").await, Err(Failure::UnknownConnection));
    assert_eq!(send("echo", "b").await, Err(Failure::UnknownConnection));
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_does_not_answer_is_no_success() {
    let (stopped, sessions) = Worker::sessions();
    drop(stopped);
    let worker = Worker::with(sessions);
    assert_eq!(worker.offer("a").await.0, 503);
    assert_eq!(worker.occupancy.live(), 0);

    let (_idle, sessions) = Worker::sessions();
    let worker = Worker::with(sessions);
    assert_eq!(worker.offer("a").await.0, 200);
    let begun = tokio::time::Instant::now();
    let (status, body) = worker.delete("a").await;
    assert_eq!((status, &body["meta"]["error"]), (503, &json!("no_capacity")));
    assert_eq!(begun.elapsed(), END_TIMEOUT);
    assert_eq!(worker.occupancy.live(), 1, "it lives on");
}

/// A session that ends by itself takes no orders any more: whoever wants to end it learns of its end when it comes.
#[tokio::test(start_paused = true)]
async fn who_ends_a_session_that_ends_waits_for_that_alone() {
    let (_idle, sessions) = Worker::sessions();
    let (id, context, shared) = deaf(&sessions).await;
    let begun = tokio::time::Instant::now();
    let end = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        shared.closed(CloseReason::EndStream);
    };
    let (ended, ()) = tokio::join!(sessions.end(&id, context, CloseReason::EndedByControl), end);
    assert_eq!(ended, Ok(Ended::Closed(CloseReason::EndStream)));
    assert_eq!(begun.elapsed(), Duration::from_millis(30));
}

#[tokio::test(start_paused = true)]
async fn a_track_of_a_session_that_has_just_ended_is_not_there() {
    let (_idle, sessions) = Worker::sessions();
    let (id, context, _shared) = deaf(&sessions).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(sessions.close_track(&id, context, "audio").await, Err(Failure::NotFound));
    assert_eq!(begun.elapsed(), Duration::ZERO, "there is nothing to wait for");
}

/// A session over a socket that takes no orders any more and is still known.
async fn deaf(sessions: &Sessions) -> (SessionId, ContextId, Arc<Shared>) {
    let (shared, context, orders) = over_a_socket(sessions, "echo", "a").await;
    drop(orders);
    (shared.id().clone(), context, shared)
}

/// A session over a socket whose orders are read by the test; one waits at most.
async fn over_a_socket(sessions: &Sessions, service: &str, id: &str) -> (Arc<Shared>, ContextId, Orders) {
    let (id, service): (SessionId, ServiceName) = (id.parse().unwrap(), service.parse().unwrap());
    let identity = Identity::default();
    let shared = Arc::new(Shared::new(1, id.clone(), service, sdk::Transport::WebSocket, &identity));
    let (commands, orders) = tokio::sync::mpsc::channel(1);
    let key = streamfleet_store::ContextKey { service: shared.service().clone(), session: id.clone() };
    let opened = sessions.inner.contexts.open(&key, &streamfleet_store::Claim::default()).await.unwrap();
    let live = Live {
        context: opened.id,
        replies: sdk::Replies::Freely,
        shared: shared.clone(),
        via: Via::Socket(commands),
        inputs: None,
        session: None,
        resume: None,
        admitted: Instant::now(),
        time_limit: None,
        urged: Urged::default(),
        seal: Seal::default(),
        moving: None,
    };
    sessions.inner.table.by_id.lock().insert(id, live);
    (shared, opened.id, orders)
}

async fn ask(worker: &Worker, method: &str, path: &str, token: &str, body: Value) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    let request = request.header("authorization", format!("Bearer {token}")).header("content-type", "application/json");
    worker.send(request.body(Body::from(body.to_string())).unwrap()).await
}

#[tokio::test]
async fn a_track_that_is_not_there_is_told_by_the_loop() {
    let worker = Worker::new();
    assert_eq!(worker.offer("a").await.0, 200);
    let (status, body) = ask(&worker, "DELETE", "/sessions/a/tracks/0", TOKEN, Value::Null).await;
    assert_eq!((status, &body["meta"]["error"]), (404, &json!("not_found")), "nobody is connected");
    assert_eq!(worker.occupancy.live(), 1);
    assert_eq!(worker.delete("a").await.0, 200);
    assert_eq!(ask(&worker, "DELETE", "/sessions/a/tracks/0", TOKEN, Value::Null).await.0, 404);
}

/// An `echo` works on the loop: it has no handle by which to end it.
#[tokio::test]
async fn a_handler_ends_a_session_whose_own_handler_is_on_the_loop() {
    use sdk::Neighbours as _;
    let worker = Worker::new();
    let id: SessionId = "a".parse().unwrap();
    let others = worker.sessions.neighbours(&"echo".parse().unwrap());
    assert_eq!(others.end(&id, "bye"), Err(sdk::Closed));
    assert_eq!(worker.offer("a").await.0, 200);
    let shared = worker.sessions.live(&id).unwrap().shared;
    assert_eq!(others.end(&id, "bye"), Ok(()));
    let mut stage = shared.watch();
    let over = stage.wait_for(|stage| matches!(stage, Stage::Closed(_)));
    let over = tokio::time::timeout(PATIENCE, over).await.unwrap().map(|stage| *stage).unwrap();
    assert_eq!(over, Stage::Closed(CloseReason::EndStream));
    assert_eq!(others.end(&id, "bye"), Err(sdk::Closed));
}

#[tokio::test]
async fn what_a_backend_writes_goes_on_with_the_token_and_so_do_the_outputs() {
    let worker = Worker::new();
    let token = |answer: &Value| answer["resume"].as_str().unwrap().to_owned();
    let (service, id): (ServiceName, SessionId) = ("echo".parse().unwrap(), "a".parse().unwrap());
    let history = || worker.sessions.reached(&service, &id).unwrap().shared.history().clone();

    let first = token(&worker.offer("a").await.1);
    let wrote = ask(&worker, "PATCH", "/sessions/a/data", &first, json!({ "order": 17 })).await;
    assert_eq!(wrote, (200, json!({ "order": 17 })));
    history().push(&json!("of the first")).unwrap();
    assert_eq!(worker.delete("a").await.0, 200);
    assert_eq!(history().recent(9), [json!("of the first")], "a while longer");

    // Somebody else's browser has made the same id.
    let stranger = token(&worker.offer("a").await.1);
    assert_eq!(ask(&worker, "GET", "/sessions/a/data", &stranger, Value::Null).await, (200, json!({})));
    assert_eq!(ask(&worker, "GET", "/sessions/a/data", &first, Value::Null).await, (200, json!({ "order": 17 })));
    assert_eq!(history().recent(9), Vec::<Value>::new());
    assert_eq!(worker.delete("a").await.0, 200);

    let again = |token: &str| json!({ "type": "offer", "webrtc_id": "b", "sdp": offer(), "resume": token });
    let resume = async |token: &str| {
        let body = Body::from(again(token).to_string());
        worker.send(Request::post("/webrtc/offer").body(body).unwrap()).await
    };
    let first = token(&worker.offer("b").await.1);
    ask(&worker, "PATCH", "/sessions/b/data", &first, json!({ "order": 18 })).await;
    let id = "b".parse().unwrap();
    let history = || worker.sessions.reached(&service, &id).unwrap().shared.history().clone();
    history().push(&json!("before")).unwrap();
    worker.delete("b").await;
    let next = token(&resume(&first).await.1);
    history().push(&json!("after")).unwrap();
    assert_eq!(history().recent(9), [json!("before"), json!("after")]);
    assert_eq!(ask(&worker, "GET", "/sessions/b/data", &next, Value::Null).await, (200, json!({ "order": 18 })));
    // The answer with the next token might have been lost; when that one has been shown, it was not.
    assert_eq!(ask(&worker, "GET", "/sessions/b/data", &first, Value::Null).await.0, 200);
    worker.delete("b").await;
    let third = token(&resume(&next).await.1);
    assert_eq!(ask(&worker, "GET", "/sessions/b/data", &third, Value::Null).await, (200, json!({ "order": 18 })));
    assert_eq!(ask(&worker, "GET", "/sessions/b/data", &first, Value::Null).await.0, 401, "its token has been used");
    assert_eq!(worker.sessions.inner.table.over.lock().get(&id, Instant::now()).map(|_| ()), None, "it lives again");
}

/// Who comes again finds a loop that does not take its session: what the earlier one has said stays to be read.
#[tokio::test]
async fn a_session_that_is_refused_takes_no_outputs_with_it() {
    let mut worker = Worker::new();
    let (service, id): (ServiceName, SessionId) = ("echo".parse().unwrap(), "a".parse().unwrap());
    let answer = worker.offer("a").await.1;
    let token = answer["resume"].as_str().unwrap();
    ask(&worker, "PATCH", "/sessions/a/data", token, json!({ "order": 17 })).await;
    let shared = worker.sessions.live(&id).unwrap().shared;
    shared.history().push(&json!("before")).unwrap();
    assert_eq!(worker.delete("a").await.0, 200);
    worker.stop();
    let (status, body) = worker.offer_with("a", json!(token)).await;
    assert_eq!((status, &body["meta"]["error"]), (503, &json!("no_capacity")));
    let reached = worker.sessions.reached(&service, &id).unwrap();
    assert!(Arc::ptr_eq(reached.shared.history(), shared.history()));
    assert_eq!(reached.shared.history().recent(9), [json!("before")]);
}

/// Says what has been called.
#[derive(Clone, Default)]
struct Witness(Arc<Mutex<Vec<&'static str>>>);

#[async_trait]
impl Handler for Witness {
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(self.clone())
    }
    async fn start_up(&self, _: &sdk::Session) -> Result<(), HandlerError> {
        self.0.lock().push("start_up");
        Ok(())
    }
    async fn receive(&self, _: Input) -> Result<(), HandlerError> {
        Ok(())
    }
    async fn emit(&self) -> Result<Emit, HandlerError> {
        self.0.lock().push("emit");
        std::future::pending().await
    }
    async fn shutdown(&self) {
        self.0.lock().push("shutdown");
    }
}

/// A handler's task, of a session in the hands of the test.
fn task(witness: &Witness) -> (HandlerTask, Arc<Shared>, CancellationToken, LoopEnd) {
    let (_, to) = Loop::bind("127.0.0.1:0".parse().unwrap(), streamfleet_net::SocketOptions::default()).unwrap();
    let (id, service): (SessionId, ServiceName) = ("a".parse().unwrap(), "echo".parse().unwrap());
    let shared = Arc::new(Shared::new(1, id.clone(), service.clone(), sdk::Transport::WebRtc, &Identity::default()));
    let (loop_end, end) = link(LinkConfig::default(), Arc::new(|| {}));
    let Identity { user_id, verified, metadata } = Identity::default();
    let context = sdk::Context {
        session_id: id,
        transport: sdk::Transport::WebRtc,
        service,
        user_id,
        verified,
        metadata,
        claims: serde_json::Map::new(),
        variant: None,
        resumed: false,
        trace_id: None,
    };
    let (session, cancel) = (sdk::Session::new(context, &end), CancellationToken::new());
    let handler = Box::new(witness.clone());
    let task = HandlerTask { handler, session, end, shared: shared.clone(), cancel: cancel.clone(), to: Via::Loop(to) };
    (task, shared, cancel, loop_end)
}

#[tokio::test(start_paused = true)]
async fn a_handler_begins_when_the_client_has_connected() {
    let witness = Witness::default();
    let (task, shared, cancel, _loop_end) = task(&witness);
    let mut running = std::pin::pin!(task.run());
    assert!(futures_util::poll!(&mut running).is_pending());
    assert_eq!(*witness.0.lock(), Vec::<&str>::new());
    shared.connected("192.0.2.1:1".parse().unwrap());
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut running).await.is_err(), "until it is told to end");
    assert_eq!(*witness.0.lock(), ["start_up", "emit"]);
    cancel.cancel();
    tokio::time::timeout(PATIENCE, running).await.unwrap();
    assert_eq!(*witness.0.lock(), ["start_up", "emit", "shutdown"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_comes_and_goes_between_two_looks_leaves_no_task() {
    type Story = fn(&Shared);
    let stories: [Story; 4] = [
        |s| s.ending(CloseReason::ConnectTimeout),
        |s| {
            s.connected("192.0.2.1:1".parse().unwrap());
            s.ending(CloseReason::ClientClosed);
        },
        |s| {
            s.connected("192.0.2.1:1".parse().unwrap());
            s.ending(CloseReason::EndedByControl);
            s.closed(CloseReason::EndedByControl);
        },
        |s| s.closed(CloseReason::InternalError),
    ];
    for (n, story) in stories.into_iter().enumerate() {
        let witness = Witness::default();
        let (task, shared, _never_cancelled, _loop_end) = task(&witness);
        let mut running = std::pin::pin!(task.run());
        assert!(futures_util::poll!(&mut running).is_pending(), "story {n}");
        story(&shared);
        assert!(tokio::time::timeout(PATIENCE, running).await.is_ok(), "story {n} leaves its task behind");
        assert_eq!(*witness.0.lock(), Vec::<&str>::new(), "story {n}: nobody is there to talk to");
    }
}
