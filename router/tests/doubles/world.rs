//! A fleet for a test.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::ws::{CloseFrame, Message, WebSocketUpgrade};
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use opentelemetry::metrics::MeterProvider as _;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use streamfleet_edge::origin::{Hosts, Origins};
use streamfleet_edge::proxy::Network;
use streamfleet_process::config::Mistakes;
use streamfleet_process::serve::{Listener, ServeLimits};
use streamfleet_router::forward::Upstream;
use streamfleet_router::hold::Hold;
use streamfleet_router::http::{Access, Parts, router};
use streamfleet_router::reached::Front;
use streamfleet_router::relay::Minting;
use streamfleet_router::roster::{Means, Roster};
use streamfleet_router::secret::Secrets;
use streamfleet_router::sockets::{SocketBounds, Sockets};
use streamfleet_router::tell;
use streamfleet_service::{Service, files};
use streamfleet_session::fleet::{MAX_PLACED, PLACED_HEADER, Placed, REFUSED_HEADER, Refused, SECRET_HEADER, Standing};
use streamfleet_session::{FleetSecret, ServiceKey, ServiceName};
use streamfleet_store::{
    Arrangement, Bounds, ContextId, Demand, Entry, Epoch, Filter, FleetError, Gate, Generation, Heartbeat, Issued,
    Kept, MAX_PAGE, Memory, Order, Owner, Phase, RedisConfig, RedisStore, Restored, Store, Ticket, Topic, Version,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::redis::Redis;

pub(crate) const SECRET: &str = "a-secret-of-the-fleet";
pub(crate) const ADMIN: &str = "a-token-of-the-operator";
/// For what happens at once on any machine that is not standing still.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn service() -> ServiceName {
    "a".parse().unwrap()
}

/// What a router shows its workers: never the secret.
pub(crate) fn service_key() -> ServiceKey {
    SECRET.parse::<FleetSecret>().unwrap().of_service(&service())
}

/// What a worker does with an offer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    Answer,
    Decline,
    /// Meets a fault of its own.
    Fail,
    Refuse(Refused),
    /// Never answers.
    Hang,
    /// Takes a socket and is gone.
    Die,
}

/// A request as a worker saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) worker: String,
    pub(crate) line: String,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) placed: Option<Placed>,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A fleet.
pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    /// What each router opens for itself; the same for all in memory.
    redis: Option<RedisConfig>,
    pub(crate) seen: mpsc::UnboundedReceiver<Seen>,
    told: mpsc::UnboundedSender<Seen>,
    /// What workers do with the next offers, whichever of them is asked; they answer all that follow.
    pub(crate) script: Arc<Mutex<VecDeque<Act>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    pub(crate) sockets: Sockets,
    pub(crate) client: reqwest::Client,
    /// Streams of outputs that a router has.
    pub(crate) streams: usize,
    /// How media comes by relays.
    pub(crate) relay: Option<Arc<Minting>>,
    /// Proxies whom a router believes.
    pub(crate) trusted: Vec<Network>,
    /// Told to routers that leave.
    pub(crate) leaving: CancellationToken,
    /// Workers that leave a store alone that has forgotten them.
    pub(crate) late: Arc<Mutex<HashSet<String>>>,
    _ends: DropGuard,
}

struct Double {
    name: String,
    script: Arc<Mutex<VecDeque<Act>>>,
    owner: Mutex<Owner>,
    store: Arc<dyn Store>,
    /// Its sessions, by id.
    held: Mutex<HashMap<String, Held>>,
    told: mpsc::UnboundedSender<Seen>,
    late: Arc<Mutex<HashSet<String>>>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of(Arc::new(Memory::new(Bounds::default())), None)
    }

    /// On a Redis: whatever has a store has a connection of its own.
    pub(crate) async fn on(redis: &Redis) -> Self {
        let config = RedisConfig::new(Arrangement::Single(redis.address()));
        let store = RedisStore::new(config.clone());
        tokio::time::timeout(SOON, async {
            while store.ping(&service()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("Redis answers");
        Self::of(Arc::new(store), Some(config))
    }

    fn of(store: Arc<dyn Store>, redis: Option<RedisConfig>) -> Self {
        streamfleet_process::crypto::install();
        let (told, seen) = mpsc::unbounded_channel();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let sockets = Sockets::new(SocketBounds::default());
        Self {
            store,
            redis,
            seen,
            told,
            script: Arc::default(),
            tasks,
            stop: stop.clone(),
            sockets,
            client,
            streams: 9,
            relay: None,
            trusted: Vec::new(),
            leaving: CancellationToken::new(),
            late: Arc::default(),
            _ends: stop.drop_guard(),
        }
    }

    fn open(&self) -> Arc<dyn Store> {
        match &self.redis {
            Some(config) => Arc::new(RedisStore::new(config.clone())),
            None => self.store.clone(),
        }
    }

    pub(crate) fn listen(&self, routes: axum::Router) -> SocketAddr {
        self.listen_within(routes, ServeLimits::default())
    }

    fn listen_within(&self, routes: axum::Router, limits: ServeLimits) -> SocketAddr {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address();
        let served = listener.serve(routes, limits, self.stop.clone(), Duration::ZERO);
        self.tasks.spawn(async move { drop(served.await) });
        address
    }

    /// A router with one service, `a`, of which nobody makes workers.
    pub(crate) fn router(&self, spec: Value) -> String {
        self.router_of(spec, None)
    }

    /// Likewise, of which an operator makes so many workers at most.
    pub(crate) fn growing(&self, spec: Value, most: u32) -> String {
        self.router_of(spec, Some(most))
    }

    fn router_of(&self, mut spec: Value, grows_to: Option<u32>) -> String {
        spec["handler"] = json!({ "name": "echo" });
        let manifest = json!({
            "apiVersion": "streamfleet.dev/v1alpha1", "kind": "StreamService", "metadata": { "name": "a" }, "spec": spec,
        });
        let means = self.means();
        let mut mistakes = Mistakes::new();
        let services = files::services(&[("a.yaml".to_owned(), manifest.to_string())], &mut mistakes);
        assert_eq!(mistakes, Mistakes::new());
        let services = services.into_iter().map(|(_, service)| Service { grows_to, ..service }).collect();
        self.router_with(Roster::default().next(services, &means).unwrap(), means)
    }

    /// A router that nobody has told yet which services there are.
    pub(crate) fn unread_router(&self) -> String {
        self.router_with(Roster::unread(), self.means())
    }

    fn means(&self) -> Means {
        let (tasks, stop) = (self.tasks.clone(), self.stop.clone());
        Means { store: self.open(), http: self.client.clone(), secrets: Secrets::local(), tasks, stop }
    }

    fn router_with(&self, roster: Roster, means: Means) -> String {
        let Means { store, http, tasks, stop, .. } = means;
        let access = Access {
            origins: Origins::Any,
            hosts: Hosts::Any,
            admin_token: ADMIN.parse().unwrap(),
            trusted: self.trusted.clone(),
            front: Front::Plain,
        };
        let upstream = Upstream::new();
        // Nobody changes the services; who holds the sender keeps them.
        let (sender, roster) = watch::channel(Arc::new(roster));
        let held = self.stop.clone();
        self.tasks.spawn(async move {
            held.cancelled().await;
            drop(sender);
        });
        let meter = opentelemetry_sdk::metrics::SdkMeterProvider::default().meter("test");
        let (secret, hold) = (SECRET.parse().unwrap(), Hold::default());
        let tell = tell::tell(hold.clone(), store.clone(), meter.clone());
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(tell));
        let sockets = self.sockets.clone();
        let parts = Parts {
            store,
            roster,
            upstream,
            hold,
            secret,
            sockets,
            http,
            access,
            relay: self.relay.clone(),
            streams: self.streams,
            tasks,
            stop,
            leaving: self.leaving.clone(),
        };
        format!("http://{}/a", self.listen(router(parts, &meter)))
    }

    pub(crate) async fn worker(&self, name: &str) {
        self.worker_for(name, 9).await;
    }

    /// A worker with so many places.
    pub(crate) async fn worker_for(&self, name: &str, capacity: u32) {
        let worker = name.parse().unwrap();
        let epoch = self.store.register(&service(), &worker, Entry::New).await.unwrap();
        let owner = Owner { worker, epoch };
        let double = Arc::new(Double {
            name: name.to_owned(),
            script: self.script.clone(),
            owner: Mutex::new(owner.clone()),
            store: self.open(),
            held: Mutex::default(),
            told: self.told.clone(),
            late: self.late.clone(),
        });
        // As a worker's: a session's place fits beside the usual headers.
        let usual = ServeLimits::default();
        let limits = ServeLimits { header_bytes: usual.header_bytes + MAX_PLACED, ..usual };
        let address = self.listen_within(axum::Router::new().fallback(serve).with_state(double.clone()), limits);
        self.serves(&owner, address, capacity).await;
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(double.obey(beat(address, capacity))));
    }

    pub(crate) async fn serves(&self, owner: &Owner, address: SocketAddr, capacity: u32) {
        self.store.renew(&service(), owner, &beat(address, capacity)).await.unwrap();
    }

    /// A worker in the directory that nobody can reach.
    pub(crate) async fn ghost(&self, name: &str) -> Owner {
        let worker = name.parse().unwrap();
        let epoch: Epoch = self.store.register(&service(), &worker, Entry::New).await.unwrap();
        // A port that was free a moment ago and that nobody listens on.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let owner = Owner { worker, epoch };
        self.serves(&owner, address, 9).await;
        owner
    }

    /// A worker that takes connections and ends them.
    pub(crate) async fn grave(&self, name: &str) {
        let worker = name.parse().unwrap();
        let epoch: Epoch = self.store.register(&service(), &worker, Entry::New).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bury = async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // Not before it is asked: a connection that has not been used is tried once more.
                let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 99]).await;
            }
        };
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(bury));
        self.serves(&Owner { worker, epoch }, address, 9).await;
    }

    pub(crate) async fn post(&self, url: &str, body: &Value) -> (u16, Value) {
        let request = self.client.post(url).header("content-type", "application/json").body(body.to_string());
        answer(request.send().await.unwrap()).await
    }

    pub(crate) async fn offer(&self, router: &str, id: &str, more: &Value) -> (u16, Value) {
        let mut body = json!({ "type": "offer", "sdp": "v=0", "webrtc_id": id });
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        self.post(&format!("{router}/webrtc/offer"), &body).await
    }

    /// What a worker is asked next.
    pub(crate) async fn next(&mut self) -> Seen {
        tokio::time::timeout(SOON, self.seen.recv()).await.expect("a worker is asked").unwrap()
    }

    /// How many sessions and claims there are, once there are so many.
    pub(crate) async fn sessions_become(&self, expected: usize) {
        let count = async {
            loop {
                let all = Filter { limit: MAX_PAGE, ..Filter::default() };
                // A store that has been away may take a moment.
                let page = self.store.list(&service(), &all).await;
                if page.is_ok_and(|page| page.sessions.len() == expected) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, count).await.unwrap_or_else(|_| panic!("there are never {expected} sessions"));
    }
}

pub(crate) async fn answer(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

pub(crate) fn error(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["meta"]["error"].as_str().unwrap_or_default())
}

fn beat(address: SocketAddr, capacity: u32) -> Heartbeat {
    Heartbeat {
        capacity,
        active: 0,
        reserved: 0,
        gate: Gate::Open,
        heard: Order::default(),
        http: address.to_string(),
        media: Vec::new(),
        version: "1".to_owned(),
        variant: None,
    }
}

impl Double {
    /// Does what the store asks of it, and is known to it again when it has been away.
    async fn obey(self: Arc<Self>, mut beat: Heartbeat) {
        let owner = self.owner.lock().clone();
        let mut listener = self.store.listen(&service(), Topic::Worker(owner.worker));
        loop {
            let owner = self.owner.lock().clone();
            match self.store.renew(&service(), &owner, &beat).await {
                Ok(orders) => {
                    if (beat.gate, beat.heard) != (orders.gate, orders.order) {
                        (beat.gate, beat.heard) = (orders.gate, orders.order);
                        continue;
                    }
                    for asked in orders.asked {
                        if let Demand::End(reason) = asked.demand {
                            self.held.lock().retain(|_, held| held.placed.ticket != asked.ticket.bits());
                            self.store.end(&service(), &owner, asked.ticket, reason).await.unwrap();
                        }
                    }
                }
                Err(FleetError::Unregistered) => {
                    while self.late.lock().contains(&self.name) {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    let Ok(epoch) = self.store.register(&service(), &owner.worker, Entry::Again).await else {
                        continue;
                    };
                    self.owner.lock().epoch = epoch;
                    let all: Vec<Restored> = self.held.lock().values().map(restored).collect();
                    let owner = self.owner.lock().clone();
                    let _ = self.store.restore(&service(), &owner, &all).await;
                    continue;
                }
                Err(_) => {}
            }
            let _ = tokio::time::timeout(Duration::from_millis(500), listener.woken()).await;
        }
    }

    /// What it says of one of its sessions.
    fn session(&self, method: &axum::http::Method, id: &str) -> Response {
        let mut held = self.held.lock();
        let Some(Held { placed, transport }) = held.get(id) else { return StatusCode::NOT_FOUND.into_response() };
        let (user, verified) = (&placed.user, placed.verified);
        let body =
            json!({ "id": id, "user_id": user, "verified": verified, "transport": transport, "worker": self.name });
        if method == axum::http::Method::DELETE {
            held.remove(id);
        }
        body.to_string().into_response()
    }
}

/// A session of a double.
struct Held {
    placed: Placed,
    transport: &'static str,
}

fn restored(Held { placed, transport }: &Held) -> Restored {
    let token = Issued { token: placed.context.token, generation: Generation::from_number(placed.context.generation) };
    Restored {
        ticket: Ticket::from_random(placed.ticket),
        session: placed.session.clone(),
        user: placed.user.clone(),
        pin: None,
        phase: Phase::Active,
        age: Duration::from_secs(1),
        retention: placed.retention,
        detail: [("transport".to_owned(), json!(transport))].into_iter().collect(),
        context: Kept {
            id: ContextId::from_random(placed.context.id),
            user: None,
            issued: token,
            data: placed.context.data.clone(),
            version: Version(placed.context.version),
        },
    }
}

async fn serve(State(double): State<Arc<Double>>, request: Request) -> Response {
    if request.headers().contains_key("upgrade") {
        return serve_socket(double, request).await;
    }
    let (parts, body) = request.into_parts();
    if parts.headers.get(SECRET_HEADER).is_none_or(|shown| shown != service_key().reveal()) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let placed = parts.headers.get(PLACED_HEADER).map(|value| Placed::decode(value.as_bytes()).unwrap());
    let seen = Seen {
        worker: double.name.clone(),
        line: format!("{} {}", parts.method, parts.uri),
        headers: parts.headers.clone(),
        placed: placed.clone(),
        body,
    };
    let _ = double.told.send(seen);
    let Some(placed) = placed else {
        if let Some(id) = parts.uri.path().strip_prefix("/a/sessions/").filter(|id| !id.contains('/')) {
            return double.session(&parts.method, id);
        }
        if parts.uri.path() == "/a/telephone/incoming" {
            let held = double.held.lock();
            let call = held.iter().find(|(_, held)| held.transport == "telephone");
            let twiml = call.map_or("<Response><Hangup /></Response>".to_owned(), |(id, _)| {
                format!("<Response><Parameter name=\"streamfleet_session\" value=\"{id}\" /></Response>")
            });
            return (StatusCode::OK, [("content-type", "application/xml")], twiml).into_response();
        }
        if parts.uri.query().is_some_and(|query| query.contains("&lasting")) {
            let first = futures_util::stream::once(async { Ok::<_, std::convert::Infallible>("data: 1\n\n") });
            return Body::from_stream(first.chain(futures_util::stream::pending())).into_response();
        }
        return (StatusCode::OK, [("content-type", "application/json")], r#"{"status":"success"}"#).into_response();
    };
    let act = double.script.lock().pop_front().unwrap_or(Act::Answer);
    match act {
        Act::Answer => {
            let owner = double.owner.lock().clone();
            let id = placed.session.to_string();
            if placed.standing == Standing::Claimed {
                assert_eq!(placed.epoch, owner.epoch.0);
                let ticket = Ticket::from_random(placed.ticket);
                let detail: Map<String, Value> = [("transport".to_owned(), json!("webrtc"))].into_iter().collect();
                double.store.report(&service(), &owner, ticket, Phase::Connecting, &detail).await.unwrap();
            } else if double.held.lock().contains_key(&id) {
                let failed = json!({ "status": "failed", "meta": { "error": "connection_already_exists" } });
                return failed.to_string().into_response();
            }
            double.held.lock().insert(id, Held { placed: placed.clone(), transport: "webrtc" });
            let answer = json!({ "sdp": double.name, "type": "answer", "resume": placed.context.token });
            (StatusCode::OK, [("content-type", "application/json")], answer.to_string()).into_response()
        }
        Act::Decline => {
            let failed = json!({ "status": "failed", "meta": { "error": "invalid_offer" } });
            (StatusCode::BAD_REQUEST, failed.to_string()).into_response()
        }
        Act::Fail => {
            let failed = json!({ "status": "failed", "meta": { "error": "internal" } });
            (StatusCode::INTERNAL_SERVER_ERROR, failed.to_string()).into_response()
        }
        Act::Refuse(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, [(REFUSED_HEADER, reason.as_str())], Body::empty()).into_response()
        }
        Act::Hang | Act::Die => std::future::pending().await,
    }
}

/// A worker's side of a socket: its session stays when the socket is gone.
async fn serve_socket(double: Arc<Double>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    assert_eq!(parts.headers[SECRET_HEADER], service_key().reveal());
    assert!(!parts.headers.contains_key("sec-websocket-extensions") && !parts.headers.contains_key("origin"));
    let placed = parts.headers.get(PLACED_HEADER).map(|value| Placed::decode(value.as_bytes()).unwrap());
    let tell = |line: String, headers: axum::http::HeaderMap, placed: Option<Placed>| {
        let _ = double.told.send(Seen { worker: double.name.clone(), line, headers, placed, body: Bytes::new() });
    };
    tell(format!("{} {}", parts.method, parts.uri), parts.headers.clone(), placed.clone());
    let act = double.script.lock().pop_front().unwrap_or(Act::Answer);
    match act {
        Act::Answer | Act::Die => {}
        Act::Decline | Act::Fail => return StatusCode::NOT_FOUND.into_response(),
        Act::Refuse(reason) => {
            return (StatusCode::SERVICE_UNAVAILABLE, [(REFUSED_HEADER, reason.as_str())]).into_response();
        }
        Act::Hang => std::future::pending().await,
    }
    let transport = if parts.uri.path().contains("telephone") { "telephone" } else { "websocket" };
    if let (Some(placed), Act::Answer) = (&placed, act) {
        double.held.lock().insert(placed.session.to_string(), Held { placed: placed.clone(), transport });
        if placed.standing == Standing::Claimed {
            let ticket = Ticket::from_random(placed.ticket);
            let detail: Map<String, Value> = [("transport".to_owned(), json!(transport))].into_iter().collect();
            let owner = double.owner.lock().clone();
            double.store.report(&service(), &owner, ticket, Phase::Active, &detail).await.unwrap();
        }
    }
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await.unwrap();
    upgrade.on_upgrade(move |mut socket| async move {
        if matches!(act, Act::Die) {
            return;
        }
        let Some(Ok(Message::Text(start))) = socket.recv().await else { return };
        let start: Value = serde_json::from_str(&start).unwrap();
        assert_eq!(start["event"], "start");
        let said = match &placed {
            Some(placed) if !start["resume"].is_null() => {
                Some(json!({ "type": "session", "data": { "resume": placed.context.token } }).to_string())
            }
            Some(_) => None,
            None => Some(format!("{}: attached", double.name)),
        };
        if let Some(said) = said {
            socket.send(Message::Text(said.into())).await.unwrap();
        }
        while let Some(Ok(message)) = socket.recv().await {
            let answer = match message {
                Message::Text(text) if text == "bye" => {
                    Message::Close(Some(CloseFrame { code: 1001, reason: "as you like".into() }))
                }
                Message::Text(text) if text == "die" => return,
                Message::Text(text) => Message::Text(format!("{}: {text}", double.name).into()),
                Message::Close(frame) => {
                    let line =
                        frame.map_or("closed".to_owned(), |frame| format!("closed {} {}", frame.code, frame.reason));
                    let seen = Seen {
                        worker: double.name.clone(),
                        line,
                        headers: axum::http::HeaderMap::new(),
                        placed: None,
                        body: Bytes::new(),
                    };
                    let _ = double.told.send(seen);
                    continue;
                }
                other => other,
            };
            if socket.send(answer).await.is_err() {
                return;
            }
        }
    })
}
