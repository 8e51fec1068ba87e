//! A look at the flows of a relay, for people who look for one: `GET /debug/relay/flows` of the admin port.
//!
//! Each thread looks through its own table, a part of it between two waits for packets, so that no packet waits for a reader.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use streamfleet_carrier::Doors;
use streamfleet_edge::headers::bearer;
use streamfleet_edge::reply;

use streamfleet_relay::{FlowView, Relay, Standing};
use streamfleet_session::AdminToken;
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;

/// Places that a thread looks at between two waits: less than a tenth of a millisecond.
const PLACES: usize = 4_096;
/// Flows that are shown, if nothing is said, and at most.
const SOME: usize = 100;
const MOST: usize = 1_000;
/// A thread that has nothing to do looks ten times a second, and has the largest table seen after three.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked of a thread.
struct Ask {
    client: Option<IpAddr>,
    limit: usize,
    /// Dropped by whoever has run out of patience.
    found: oneshot::Sender<Found>,
}

/// What a thread has found.
#[derive(Default)]
struct Found {
    flows: Vec<FlowView>,
    /// How many there are, shown or not.
    matching: usize,
}

/// A thread's side.
pub(super) struct Looker {
    asked: Receiver<Ask>,
    at: Option<(Ask, usize, Found)>,
}

impl Looker {
    /// Looks at the next part of the table, if anybody has asked.
    pub(super) fn look<U>(&mut self, relay: &Relay<U>, now: Duration) {
        let Some((ask, from, mut found)) =
            self.at.take().or_else(|| Some((self.asked.try_recv().ok()?, 0, Found::default())))
        else {
            return;
        };
        for flow in relay.views(from..from + PLACES, now) {
            if ask.client.is_none_or(|client| client == flow.client.ip()) {
                found.matching += 1;
                if found.flows.len() < ask.limit {
                    found.flows.push(flow);
                }
            }
        }
        if from + PLACES < relay.places() {
            self.at = Some((ask, from + PLACES, found));
        } else {
            // Nobody waits any more.
            let _ = ask.found.send(found);
        }
    }
}

/// The side of whoever asks.
#[derive(Clone)]
pub(crate) struct Flows {
    threads: Arc<[SyncSender<Ask>]>,
    /// One look at a time.
    turn: Arc<Mutex<()>>,
    doors: Doors,
}

/// A thread did not answer in time.
#[derive(Debug)]
struct Silent;

impl Flows {
    /// Both sides, for so many threads.
    pub(super) fn of(threads: usize, doors: Doors) -> (Self, Vec<Looker>) {
        let (senders, lookers): (Vec<_>, Vec<_>) =
            (0..threads).map(|_| sync_channel(1)).map(|(ask, asked)| (ask, Looker { asked, at: None })).unzip();
        (Self { threads: senders.into(), turn: Arc::default(), doors }, lookers)
    }

    /// What all threads have.
    async fn ask(&self, client: Option<IpAddr>, limit: usize) -> Result<Found, Silent> {
        let _turn = self.turn.lock().await;
        let mut all = Found::default();
        let mut answers = Vec::new();
        for thread in &*self.threads {
            let (found, answer) = oneshot::channel();
            // One that still has an earlier question is behind.
            thread.try_send(Ask { client, limit, found }).map_err(|_| Silent)?;
            answers.push(answer);
        }
        for answer in answers {
            let found = timeout(PATIENCE, answer).await.map_err(|_| Silent)?.map_err(|_| Silent)?;
            all.matching += found.matching;
            all.flows.extend(found.flows);
        }
        all.flows.truncate(limit);
        Ok(all)
    }

    /// The route, for the operator alone: it shows clients' addresses.
    pub(crate) fn route(self, token: AdminToken) -> Router {
        Router::new().route("/debug/relay/flows", get(show)).with_state((self, token))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    client: Option<IpAddr>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Shown {
    flows: Vec<Row>,
    matching: usize,
}

#[derive(Serialize)]
struct Row {
    client: SocketAddr,
    #[serde(flatten)]
    door: Door,
    worker: SocketAddr,
    standing: &'static str,
    session: u32,
    silent_s: u64,
    age_s: u64,
    received_packets: u32,
    received_octets: u64,
    sent_packets: u32,
    sent_octets: u64,
}

/// What a client has asked.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Door {
    /// The relay's, at whichever address.
    Port(u16),
    /// At the relay's port, where it has several addresses.
    Address(IpAddr),
}

impl Row {
    fn new(flow: FlowView, doors: &Doors) -> Self {
        let standing = match flow.standing {
            Standing::Unknown => "unknown",
            Standing::Confirmed => "confirmed",
            Standing::Proven => "proven",
        };
        let FlowView { client, door, worker, session, silent, age, received, sent, .. } = flow;
        Self {
            client,
            door: doors.address(door).map_or(Door::Port(door), Door::Address),
            worker,
            standing,
            session: session.0,
            silent_s: silent.as_secs(),
            age_s: age.as_secs(),
            received_packets: received.packets,
            received_octets: received.octets,
            sent_packets: sent.packets,
            sent_octets: sent.octets,
        }
    }
}

async fn show(
    State((flows, token)): State<(Flows, AdminToken)>,
    headers: HeaderMap,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Response {
    if !bearer(&headers).is_some_and(|shown| token.matches(shown)) {
        return reply::other(StatusCode::UNAUTHORIZED, "unauthorized");
    }
    let Ok(Query(Wanted { client, limit })) = wanted else {
        return reply::other(StatusCode::BAD_REQUEST, "expected client=IP and limit=N, or nothing");
    };
    match flows.ask(client, limit.unwrap_or(SOME).min(MOST)).await {
        Ok(Found { flows: found, matching }) => {
            let rows = found.into_iter().map(|flow| Row::new(flow, &flows.doors)).collect();
            reply::json(StatusCode::OK, &Shown { flows: rows, matching })
        }
        Err(Silent) => reply::other(StatusCode::SERVICE_UNAVAILABLE, "the relay is behind"),
    }
}
