//! A worker that does what a test says, and tells what it was asked.

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
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use streamfleet_session::fleet::{PLACED_HEADER, Placed, REFUSED_HEADER, Refused, SECRET_HEADER, Standing};
use streamfleet_store::{
    ContextId, Demand, Entry, FleetError, Gate, Generation, Heartbeat, Issued, Kept, Order, Owner, Phase, Restored,
    Store, Ticket, Topic, Version,
};
use tokio::sync::mpsc;

use super::world::{service, service_key};

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

pub(super) struct Double {
    pub(super) name: String,
    pub(super) script: Arc<Mutex<VecDeque<Act>>>,
    pub(super) owner: Mutex<Owner>,
    pub(super) store: Arc<dyn Store>,
    /// Its sessions, by id.
    pub(super) held: Mutex<HashMap<String, Held>>,
    pub(super) told: mpsc::UnboundedSender<Seen>,
    pub(super) late: Arc<Mutex<HashSet<String>>>,
}

/// A session of a double.
pub(super) struct Held {
    placed: Placed,
    transport: &'static str,
}

pub(super) fn beat(address: SocketAddr, capacity: u32) -> Heartbeat {
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
    pub(super) async fn obey(self: Arc<Self>, mut beat: Heartbeat) {
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

pub(super) async fn serve(State(double): State<Arc<Double>>, request: Request) -> Response {
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
