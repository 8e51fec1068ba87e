//! What is remembered of requests: counts by outcome, and one audit line for each decision about a session.
//!
//! Outcomes are labels of closed enums. Ids and users go into the audit trail only, metadata nowhere.

use std::net::SocketAddr;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};
use streamfleet_process::telemetry::AUDIT;
use streamfleet_session::{CloseReason, ServiceName, SessionId, UserId};

use crate::admission::Occupancy;

/// Upper bounds of the offer's duration, in seconds: an answer takes milliseconds, a slow handler seconds.
const OFFER_SECONDS: [f64; 10] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// The instruments of the HTTP side.
#[derive(Debug)]
pub(super) struct Record {
    offers: Counter<u64>,
    offer_seconds: Histogram<f64>,
    candidates: Counter<u64>,
    controls: Counter<u64>,
    incoming_calls: Counter<u64>,
    sessions: Counter<u64>,
    panics: Counter<u64>,
}

impl Record {
    pub(super) fn new(meter: &Meter, occupancy: &Occupancy) -> Self {
        let occupancy = occupancy.clone();
        // The meter's provider keeps the callback.
        let _ = meter
            .u64_observable_gauge("streamfleet_sessions_admitted")
            .with_description("Slots held: sessions that connect, live or end")
            .with_callback(move |observer| observer.observe(occupancy.live() as u64, &[]))
            .build();
        let counter = |name, description| meter.u64_counter(name).with_description(description).build();
        let panics = counter("streamfleet_http_panics", "Requests that ended in the last net");
        // Zero is a statement too: an alert on this counter needs it to exist before it counts.
        panics.add(0, &[]);
        Self {
            offers: counter("streamfleet_offers", "Offers, by outcome"),
            offer_seconds: meter
                .f64_histogram("streamfleet_offer_duration")
                .with_unit("s")
                .with_description("From an offer's body to its answer, accepted offers")
                .with_boundaries(OFFER_SECONDS.to_vec())
                .build(),
            candidates: counter("streamfleet_candidates", "Trickled candidates, by outcome"),
            controls: counter("streamfleet_control_requests", "Requests to the control routes, by outcome"),
            incoming_calls: counter("streamfleet_incoming_calls", "Requests for TwiML, by outcome"),
            sessions: counter("streamfleet_session_requests", "Requests for outputs, inputs and replies, by outcome"),
            panics,
        }
    }

    pub(super) fn offer(&self, outcome: &'static str) {
        self.offers.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    pub(super) fn offer_took(&self, time: Duration) {
        self.offer_seconds.record(time.as_secs_f64(), &[]);
    }

    pub(super) fn candidate(&self, outcome: &'static str) {
        self.candidates.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    pub(super) fn control(&self, outcome: &'static str) {
        self.controls.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    pub(super) fn incoming_call(&self, outcome: &'static str) {
        self.incoming_calls.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    pub(super) fn session(&self, route: Route, outcome: &'static str) {
        self.sessions.add(1, &[KeyValue::new("route", route.as_str()), KeyValue::new("outcome", outcome)]);
    }

    pub(super) fn panicked(&self) {
        self.panics.add(1, &[]);
    }
}

/// What a session's client asks beside its media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Outputs,
    Input,
    Trigger,
}

impl Route {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Outputs => "outputs",
            Self::Input => "input_hook",
            Self::Trigger => "trigger_response",
        }
    }
}

/// The audit trail: one line for each session that was accepted, refused, denied, ended or controlled.
#[derive(Debug, Clone, Copy)]
pub struct Audit<'a> {
    /// The service that was called.
    pub service: &'a ServiceName,
    /// The session in question.
    pub session: &'a SessionId,
    /// Its user, as far as known.
    pub user: Option<&'a UserId>,
}

impl Audit<'_> {
    fn user(&self) -> Option<&str> {
        self.user.map(UserId::as_str)
    }

    /// The offer was answered.
    pub fn accepted(&self, source: SocketAddr) {
        let Self { service, session, .. } = self;
        tracing::info!(target: AUDIT, %service, %session, user = self.user(), %source, "session accepted");
    }

    /// The offer was refused; `error` is the stable error string.
    pub fn refused(&self, source: SocketAddr, error: &'static str) {
        let Self { service, session, .. } = self;
        tracing::info!(target: AUDIT, %service, %session, user = self.user(), %source, error, "session refused");
    }

    /// Somebody was not let through to it; `error` is the stable error string.
    pub fn denied(&self, source: SocketAddr, error: &'static str) {
        let Self { service, session, .. } = self;
        tracing::info!(target: AUDIT, %service, %session, user = self.user(), %source, error, "session denied");
    }

    /// The session is over, `age` after its offer.
    pub fn ended(&self, reason: CloseReason, age: Duration) {
        let Self { service, session, .. } = self;
        let (reason, seconds) = (reason.as_str(), age.as_secs_f64());
        tracing::info!(target: AUDIT, %service, %session, user = self.user(), reason, seconds, "session ended");
    }

    /// Somebody with authority asked to end it; `outcome` says what came of it.
    pub fn controlled(&self, source: SocketAddr, outcome: &'static str) {
        let Self { service, session, .. } = self;
        tracing::info!(target: AUDIT, %service, %session, user = self.user(), %source, outcome, "session controlled");
    }
}
