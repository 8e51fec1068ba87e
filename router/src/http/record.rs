//! What is remembered of requests: counts by outcome, and one audit line for each decision about a session.
//!
//! Outcomes are labels of closed sets. Ids and users go into the audit trail only, metadata and tokens nowhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};
use parking_lot::Mutex;
use streamfleet_process::telemetry::AUDIT;
use streamfleet_session::{ServiceName, SessionId, UserId};
use streamfleet_store::WorkerId;
use tokio::sync::watch;

use crate::attempt::Outcome;
use crate::hold::Hold;
use crate::known::Known;
use crate::place::Freshness;
use crate::roster::Roster;
use crate::sockets::Sockets;

/// Upper bounds of durations, in seconds: the store takes a millisecond, an answer some, a busy machine seconds.
const SECONDS: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0, 10.0];

/// Upper bounds of what a call waits for a worker, in seconds: a pod's start, up to what services let calls wait.
const HELD_SECONDS: [f64; 8] = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0];

/// The instruments of a router.
#[derive(Debug)]
pub(super) struct Record {
    offers: Counter<u64>,
    offer_seconds: Histogram<f64>,
    claims: Counter<u64>,
    claim_seconds: Histogram<f64>,
    attempts: Counter<u64>,
    candidates: Counter<u64>,
    controls: Counter<u64>,
    sessions: Counter<u64>,
    searches: Counter<u64>,
    placements: Counter<u64>,
    held: Counter<u64>,
    held_seconds: Histogram<f64>,
    sockets: UpDownCounter<i64>,
    sockets_closed: Counter<u64>,
    panics: Counter<u64>,
}

impl Record {
    pub(super) fn new(
        meter: &Meter,
        hold: &Hold,
        known: &Arc<Mutex<Known>>,
        roster: &watch::Receiver<Arc<Roster>>,
        sockets: &Sockets,
    ) -> Self {
        let hold = hold.clone();
        // The meter's provider keeps the callbacks.
        let _ = meter
            .u64_observable_gauge("streamfleet_router_held")
            .with_description("Calls that wait for a worker.")
            .with_callback(move |observer| observer.observe(hold.held() as u64, &[]))
            .build();
        let stale = roster.clone();
        let _ = meter
            .u64_observable_gauge("streamfleet_router_stale_directories")
            .with_description("Services of which the directory cannot be read at present.")
            .with_callback(move |observer| {
                let now = Instant::now();
                let roster = stale.borrow().clone();
                let is_stale = |freshness| matches!(freshness, Freshness::Stale(_));
                let stale = roster.desks().filter(|desk| is_stale(desk.directory.now().freshness(now))).count();
                observer.observe(stale as u64, &[]);
            })
            .build();
        let aged = roster.clone();
        let _ = meter
            .f64_observable_gauge("streamfleet_router_directory_age")
            .with_unit("s")
            .with_description("Since the store has told of workers last, for the service of which it was longest ago.")
            .with_callback(move |observer| {
                let now = Instant::now();
                let roster = aged.borrow().clone();
                let oldest = roster.desks().filter_map(|desk| desk.directory.now().age(now)).max();
                if let Some(age) = oldest {
                    observer.observe(age.as_secs_f64(), &[]);
                }
            })
            .build();
        let waiting = known.clone();
        let _ = meter
            .u64_observable_gauge("streamfleet_router_awaited_offers")
            .with_description("Ids of which candidates have come and no offer yet.")
            .with_callback(move |observer| observer.observe(waiting.lock().awaited() as u64, &[]))
            .build();
        let remembered = known.clone();
        let _ = meter
            .u64_observable_gauge("streamfleet_router_known_sessions")
            .with_description("Sessions of which this router remembers the worker.")
            .with_callback(move |observer| observer.observe(remembered.lock().len() as u64, &[]))
            .build();
        let octets = sockets.octets().clone();
        let _ = meter
            .u64_observable_counter("streamfleet_router_spliced_octets")
            .with_description("Bytes of sockets that were passed on, by direction.")
            .with_callback(move |observer| {
                let (up, down) = octets.read();
                observer.observe(up, &[KeyValue::new("direction", "up")]);
                observer.observe(down, &[KeyValue::new("direction", "down")]);
            })
            .build();
        let counter = |name, description| meter.u64_counter(name).with_description(description).build();
        let histogram = |name, description| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(description);
            histogram.with_boundaries(SECONDS.to_vec()).build()
        };
        let panics = counter("streamfleet_http_panics", "Requests that ended in the last net");
        // Zero is a statement too: an alert on this counter needs it to exist before it counts.
        panics.add(0, &[]);
        Self {
            offers: counter("streamfleet_offers", "Offers, by outcome"),
            offer_seconds: histogram(
                "streamfleet_offer_duration",
                "From an offer's body to its answer, accepted offers",
            ),
            claims: counter("streamfleet_claims", "Claims, by outcome"),
            claim_seconds: histogram("streamfleet_claim_duration", "From a claim to the store's answer"),
            attempts: counter("streamfleet_forwarded_offers", "Offers that went to a worker, by what became of them"),
            candidates: counter("streamfleet_candidates", "Trickled candidates, by outcome"),
            controls: counter("streamfleet_control_requests", "Requests to the control routes, by outcome"),
            sessions: counter("streamfleet_session_requests", "Other requests that went to a worker, by outcome"),
            placements: counter(
                "streamfleet_placements",
                "Sessions that a worker has taken, by whether a claim stands behind them",
            ),
            held: counter("streamfleet_held_offers", "Calls that waited for a worker, by what became of them"),
            held_seconds: meter
                .f64_histogram("streamfleet_held_offer_duration")
                .with_unit("s")
                .with_description("For how long calls waited that found a worker then")
                .with_boundaries(HELD_SECONDS.to_vec())
                .build(),
            searches: counter(
                "streamfleet_router_searches",
                "Sessions that workers were asked for because the store did not know, by outcome",
            ),
            sockets: meter
                .i64_up_down_counter("streamfleet_router_sockets")
                .with_description("Sockets that are open, by whether they have a worker.")
                .build(),
            sockets_closed: counter(
                "streamfleet_router_sockets_closed",
                "Sockets that had a worker, by who ended them",
            ),
            panics,
        }
    }

    pub(super) fn placed(&self, standing: &'static str) {
        self.placements.add(1, &[KeyValue::new("standing", standing)]);
    }

    /// A call waits no more for a worker, after so long.
    pub(super) fn held(&self, outcome: &'static str, after: Duration) {
        self.held.add(1, &[KeyValue::new("outcome", outcome)]);
        if outcome == "found" {
            self.held_seconds.record(after.as_secs_f64(), &[]);
        }
    }

    pub(super) fn search(&self, outcome: &'static str) {
        self.searches.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    pub(super) fn offer(&self, outcome: &'static str) {
        self.offers.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    pub(super) fn offer_took(&self, time: Duration) {
        self.offer_seconds.record(time.as_secs_f64(), &[]);
    }

    pub(super) fn claim(&self, outcome: &'static str, time: Duration) {
        self.claims.add(1, &[KeyValue::new("outcome", outcome)]);
        self.claim_seconds.record(time.as_secs_f64(), &[]);
    }

    pub(super) fn attempt(&self, outcome: Outcome) {
        self.attempts.add(1, &[KeyValue::new("outcome", outcome.as_str())]);
    }

    pub(super) fn candidate(&self, outcome: &'static str) {
        self.candidates.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    pub(super) fn control(&self, outcome: &'static str) {
        self.controls.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    pub(super) fn session(&self, outcome: &'static str) {
        self.sessions.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    /// A socket is open, in this state, until what is returned is dropped.
    pub(super) fn socket(&self, state: &'static str) -> OpenSocket {
        let attribute = [KeyValue::new("state", state)];
        self.sockets.add(1, &attribute);
        OpenSocket { sockets: self.sockets.clone(), attribute }
    }

    pub(super) fn socket_closed(&self, reason: &'static str) {
        self.sockets_closed.add(1, &[KeyValue::new("reason", reason)]);
    }

    pub(super) fn panicked(&self) {
        self.panics.add(1, &[]);
    }
}

/// An open socket.
pub(super) struct OpenSocket {
    sockets: UpDownCounter<i64>,
    attribute: [KeyValue; 1],
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.sockets.add(-1, &self.attribute);
    }
}

/// The audit trail: one line for each decision about a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Audit<'a> {
    pub(super) service: &'a ServiceName,
    pub(super) session: &'a SessionId,
    pub(super) user: Option<&'a UserId>,
    pub(super) client: SocketAddr,
}

impl Audit<'_> {
    /// `standing` says whether a claim stands behind it.
    pub(super) fn placed(&self, worker: &WorkerId, standing: &'static str) {
        let Self { service, session, user, client } = self;
        let user = user.map(UserId::as_str);
        tracing::info!(target: AUDIT, %service, %session, user, source = %client, %worker, standing, "session placed");
    }

    /// A client has its session again.
    pub(super) fn attached(&self, worker: &WorkerId) {
        let Self { service, session, user, client } = self;
        let user = user.map(UserId::as_str);
        tracing::info!(target: AUDIT, %service, %session, user, source = %client, %worker, "session attached");
    }

    /// `error` is the stable error string, `reason` says more where there is more to be said.
    pub(super) fn refused(&self, error: &'static str, reason: Option<&'static str>) {
        let Self { service, session, user, client } = self;
        let user = user.map(UserId::as_str);
        tracing::info!(target: AUDIT, %service, %session, user, source = %client, error, reason, "session refused");
    }

    /// Somebody was not let through to it.
    pub(super) fn denied(&self, error: &'static str) {
        let Self { service, session, client, .. } = self;
        tracing::info!(target: AUDIT, %service, %session, source = %client, error, "session denied");
    }

    /// Somebody with authority asked something of it; `outcome` says what came of it.
    pub(super) fn controlled(&self, outcome: &'static str) {
        let Self { service, session, user, client } = self;
        let user = user.map(UserId::as_str);
        tracing::info!(target: AUDIT, %service, %session, user, source = %client, outcome, "session controlled");
    }
}
