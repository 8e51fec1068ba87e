//! A fleet for a test.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use opentelemetry::metrics::MeterProvider as _;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use streamfleet_edge::origin::{Hosts, Origins};
use streamfleet_process::serve::{Listener, ServeLimits};
use streamfleet_router::forward::Upstream;
use streamfleet_router::http::{Access, Parts, router};
use streamfleet_router::roster::{Means, Roster};
use streamfleet_service::files::services;
use streamfleet_session::ServiceName;
use streamfleet_session::fleet::{PLACED_HEADER, Placed, REFUSED_HEADER, Refused, SECRET_HEADER};
use streamfleet_store::{
    Bounds, Demand, Directory as _, Epoch, Filter, Gate, Heartbeat, MAX_PAGE, Memory, Owner, Phase, Sessions as _,
    Store, Ticket, Topic, Wakeups as _,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub(crate) const SECRET: &str = "a-secret-of-the-fleet";
pub(crate) const ADMIN: &str = "a-token-of-the-operator";
/// For what happens at once on any machine that is not standing still.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn service() -> ServiceName {
    "a".parse().unwrap()
}

/// What a worker does with an offer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    Answer,
    Decline,
    Refuse(Refused),
    /// Never answers.
    Hang,
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
    pub(crate) store: Arc<Memory>,
    pub(crate) seen: mpsc::UnboundedReceiver<Seen>,
    told: mpsc::UnboundedSender<Seen>,
    /// What workers do with the next offers, whichever of them is asked; they answer all that follow.
    pub(crate) script: Arc<Mutex<VecDeque<Act>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    pub(crate) client: reqwest::Client,
    _ends: DropGuard,
}

struct Double {
    name: String,
    script: Arc<Mutex<VecDeque<Act>>>,
    owner: Owner,
    store: Arc<Memory>,
    told: mpsc::UnboundedSender<Seen>,
}

impl World {
    pub(crate) fn new() -> Self {
        streamfleet_process::crypto::install();
        let (told, seen) = mpsc::unbounded_channel();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let store = Arc::new(Memory::new(Bounds::default()));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { store, seen, told, script: Arc::default(), tasks, stop: stop.clone(), client, _ends: stop.drop_guard() }
    }

    fn listen(&self, routes: axum::Router) -> SocketAddr {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address();
        let served = listener.serve(routes, ServeLimits::default(), self.stop.clone(), Duration::ZERO);
        self.tasks.spawn(async move { drop(served.await) });
        address
    }

    /// A router with one service, `a`.
    pub(crate) fn router(&self, spec: Value) -> String {
        let mut spec = spec;
        spec["handler"] = json!({ "name": "echo" });
        let manifest = json!({
            "apiVersion": "streamfleet.dev/v1alpha1", "kind": "StreamService", "metadata": { "name": "a" }, "spec": spec,
        });
        let store: Arc<dyn Store> = self.store.clone();
        let (tasks, stop, http) = (self.tasks.clone(), self.stop.clone(), self.client.clone());
        let means = Means { store: store.clone(), http: http.clone(), tasks: tasks.clone(), stop: stop.clone() };
        let services = services(&[("a.yaml".to_owned(), manifest.to_string())]).unwrap();
        let roster = Roster::default().next(services, &means).unwrap();
        let access = Access {
            origins: Origins::Any,
            hosts: Hosts::Any,
            admin_token: ADMIN.parse().unwrap(),
            trusted: Vec::new(),
        };
        let upstream = Upstream::new(&SECRET.parse().unwrap());
        // Nobody changes the services; who holds the sender keeps them.
        let (sender, roster) = watch::channel(Arc::new(roster));
        let held = self.stop.clone();
        self.tasks.spawn(async move {
            held.cancelled().await;
            drop(sender);
        });
        let meter = opentelemetry_sdk::metrics::SdkMeterProvider::default().meter("test");
        let parts = Parts { store, roster, upstream, http, access, tasks, stop };
        format!("http://{}/a", self.listen(router(parts, &meter)))
    }

    pub(crate) async fn worker(&self, name: &str) {
        let worker = name.parse().unwrap();
        let epoch = self.store.register(&service(), &worker).await.unwrap();
        let owner = Owner { worker, epoch };
        let double = Double {
            name: name.to_owned(),
            script: self.script.clone(),
            owner: owner.clone(),
            store: self.store.clone(),
            told: self.told.clone(),
        };
        let address = self.listen(axum::Router::new().fallback(serve).with_state(Arc::new(double)));
        self.serves(&owner, address, 9).await;
        let (store, stop) = (self.store.clone(), self.stop.clone());
        let obey = async move {
            let mut listener = store.listen(&service(), Topic::Worker(owner.worker.clone()));
            loop {
                let orders = store.renew(&service(), &owner, &beat(address, 9)).await.unwrap();
                for asked in orders.asked {
                    if let Demand::End(reason) = asked.demand {
                        store.end(&service(), &owner, asked.ticket, reason).await.unwrap();
                    }
                }
                let _ = tokio::time::timeout(Duration::from_secs(1), listener.woken()).await;
            }
        };
        self.tasks.spawn(stop.run_until_cancelled_owned(obey));
    }

    pub(crate) async fn serves(&self, owner: &Owner, address: SocketAddr, capacity: u32) {
        self.store.renew(&service(), owner, &beat(address, capacity)).await.unwrap();
    }

    /// A worker in the directory that nobody can reach.
    pub(crate) async fn ghost(&self, name: &str) -> Owner {
        let worker = name.parse().unwrap();
        let epoch: Epoch = self.store.register(&service(), &worker).await.unwrap();
        // A port that was free a moment ago and that nobody listens on.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let owner = Owner { worker, epoch };
        self.serves(&owner, address, 9).await;
        owner
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
                let page = self.store.list(&service(), &all).await.unwrap();
                if page.sessions.len() == expected {
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
        http: address.to_string(),
        media: Vec::new(),
        version: "1".to_owned(),
        variant: None,
    }
}

async fn serve(State(double): State<Arc<Double>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if parts.headers.get(SECRET_HEADER).is_none_or(|shown| shown != SECRET) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let placed = parts.headers.get(PLACED_HEADER).map(|value| Placed::decode(value.as_bytes()).unwrap());
    let seen = Seen {
        worker: double.name.clone(),
        line: format!("{} {}", parts.method, parts.uri),
        headers: parts.headers,
        placed: placed.clone(),
        body,
    };
    let _ = double.told.send(seen);
    let Some(placed) = placed else {
        return (StatusCode::OK, [("content-type", "application/json")], r#"{"status":"success"}"#).into_response();
    };
    let act = double.script.lock().pop_front().unwrap_or(Act::Answer);
    match act {
        Act::Answer => {
            assert_eq!(placed.epoch, double.owner.epoch.0);
            let ticket = Ticket::from_random(placed.ticket);
            let detail: Map<String, Value> = [("transport".to_owned(), json!("webrtc"))].into_iter().collect();
            double.store.report(&service(), &double.owner, ticket, Phase::Connecting, &detail).await.unwrap();
            let answer = json!({ "sdp": double.name, "type": "answer", "resume": placed.context.token });
            (StatusCode::OK, [("content-type", "application/json")], answer.to_string()).into_response()
        }
        Act::Decline => {
            let failed = json!({ "status": "failed", "meta": { "error": "invalid_offer" } });
            (StatusCode::BAD_REQUEST, failed.to_string()).into_response()
        }
        Act::Refuse(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, [(REFUSED_HEADER, reason.as_str())], Body::empty()).into_response()
        }
        Act::Hang => std::future::pending().await,
    }
}
