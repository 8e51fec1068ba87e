//! What the rest of the process may know of a session: written by its loop, read by anyone.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use serde_json::Value;
use streamfleet_handler::Transport;
use streamfleet_process::telemetry::trace;
use streamfleet_session::lifecycle::{CloseReason, State};
use streamfleet_session::{Identity, ServiceName, SessionId, UserId, Verification};
use streamfleet_socket::outputs::OutputTooLarge;
use tokio::sync::watch;

use super::changes::{Change, Changes, Event};
use crate::history::History;

/// A session's number within the process: never reused, unlike its id.
pub(crate) type Token = u64;

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Answered; ICE or DTLS is under way.
    Connecting,
    /// Media flows.
    Active,
    /// Being told goodbye.
    Ending(CloseReason),
    /// Over.
    Closed(CloseReason),
}

impl Stage {
    /// The label of JSON views.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Connecting => "connecting",
            Stage::Active => "active",
            Stage::Ending(_) => "ending",
            Stage::Closed(_) => "closed",
        }
    }

    /// Why it ends or ended.
    #[must_use]
    pub const fn reason(self) -> Option<CloseReason> {
        match self {
            Stage::Connecting | Stage::Active => None,
            Stage::Ending(reason) | Stage::Closed(reason) => Some(reason),
        }
    }
}

impl From<Stage> for State {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Connecting => State::Connecting,
            Stage::Active => State::Active,
            Stage::Ending(reason) => State::Ending(reason),
            Stage::Closed(reason) => State::Closed(reason),
        }
    }
}

/// How a session's media fares; refreshed every second while it is connected, and once more at its end.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Quality {
    /// Milliseconds, from RTCP; absent until the client has reported.
    pub rtt_ms: Option<f64>,
    /// Per track.
    pub tracks: Vec<TrackView>,
    /// The frames path's jitter buffer, where there is one.
    pub playout: Option<Playout>,
    /// What comes over a socket, where there is one.
    pub intake: Option<Intake>,
}

/// Audio over a socket, which loses nothing: what can be known is how much there is of it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Intake {
    /// Frames of 20 ms that the handler was given.
    pub frames: u64,
    /// Audio of the handler's that waits to be sent, milliseconds.
    pub queued_ms: f64,
    /// Audio that came faster than real time and was dropped, milliseconds.
    pub dropped_ms: f64,
}

/// One track, from the worker's side.
#[derive(Clone, Debug, serde::Serialize)]
pub struct TrackView {
    /// The m-line's identification.
    pub mid: String,
    /// `audio` or `video`.
    pub kind: &'static str,
    /// As SDP names it.
    pub codec: &'static str,
    /// Packets received and missing.
    pub packets_received: u64,
    /// Packets missing of those expected.
    pub packets_lost: u64,
    /// RFC 3550 interarrival jitter, milliseconds.
    pub jitter_ms: f64,
    /// Packets sent.
    pub packets_sent: u64,
    /// What the client reported missing in its last report, 0..=1.
    pub remote_fraction_lost: Option<f32>,
    /// Ended by `DELETE sessions/{id}/tracks/{mid}` or the handler.
    pub closed: bool,
}

/// What came of the wish to end a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackEnd {
    /// It has ended, now or earlier.
    Closed,
    /// The session has no such track, or none yet.
    Unknown,
}

/// The jitter buffer's figures.
#[derive(Clone, Debug, serde::Serialize)]
#[allow(missing_docs, reason = "named as they are read")]
pub struct Playout {
    pub target_delay_ms: f64,
    pub current_delay_ms: f64,
    pub concealed: u64,
    /// Of the time played, what was made up, 0..=1.
    pub concealed_share: f64,
    pub fec_repaired: u64,
    pub late: u64,
    pub accelerated: u64,
}

/// One session, seen from outside its loop.
#[derive(Debug)]
pub struct Shared {
    token: Token,
    id: SessionId,
    service: ServiceName,
    transport: Transport,
    user: Option<UserId>,
    verified: Verification,
    since: SystemTime,
    /// When its client connected: its time limit counts from then.
    connected_at: OnceLock<Instant>,
    stage: watch::Sender<Stage>,
    channel: AtomicBool,
    refused: AtomicBool,
    remote: Mutex<Option<SocketAddr>>,
    quality: Mutex<Quality>,
    changes: Mutex<Changes>,
    /// What its events are told in; none once it is over, so that it ends then and not with whoever still looks.
    span: Mutex<tracing::Span>,
    history: Arc<History>,
}

/// Additional outputs that a view shows.
const MAX_OUTPUTS: usize = 16;

impl Shared {
    pub(crate) fn new(
        token: Token,
        id: SessionId,
        service: ServiceName,
        transport: Transport,
        identity: &Identity,
    ) -> Self {
        let user = identity.user_id.as_ref().map(UserId::as_str);
        let label = transport.as_str();
        // It outlasts the request that it began with, which must not stay open for it: a child by its trace alone.
        let span = tracing::info_span!(parent: None, "session", %service, session = %id, transport = label, user);
        trace::follow(&span, &tracing::Span::current());
        let shared = Shared {
            token,
            id,
            service,
            transport,
            user: identity.user_id.clone(),
            verified: identity.verified,
            since: SystemTime::now(),
            connected_at: OnceLock::new(),
            stage: watch::Sender::new(Stage::Connecting),
            channel: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            remote: Mutex::new(None),
            quality: Mutex::new(Quality::default()),
            changes: Mutex::new(Changes::default()),
            span: Mutex::new(span),
            history: Arc::default(),
        };
        shared.record(Event::Connecting);
        shared
    }

    /// Goes on with the outputs of an earlier session.
    #[must_use]
    pub(crate) fn with_history(self, history: Arc<History>) -> Self {
        Shared { history, ..self }
    }

    /// Something has happened to the session: told once, as an event of its span.
    pub(crate) fn record(&self, event: Event) {
        if self.changes.lock().push(SystemTime::now(), event) {
            let (change, reason) = (event.as_str(), event.reason().map(CloseReason::as_str));
            tracing::info!(parent: &self.span(), change, reason, "session changed");
        }
    }

    /// What it has been through, the oldest first.
    pub fn changes(&self) -> Vec<Change> {
        self.changes.lock().list()
    }

    /// What is told of the session belongs in here.
    pub(crate) fn span(&self) -> tracing::Span {
        self.span.lock().clone()
    }

    pub(crate) fn token(&self) -> Token {
        self.token
    }

    /// The client's id of it.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Whose handler it runs.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// How the client is connected.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Who is calling, if known.
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// Whether the user was proven.
    pub fn verified(&self) -> Verification {
        self.verified
    }

    /// When it was answered.
    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// When its client connected; `None` while it has not.
    pub(crate) fn connected_at(&self) -> Option<Instant> {
        self.connected_at.get().copied()
    }

    /// Where it stands now.
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Follows where it stands.
    pub fn watch(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// The client's address that media goes to.
    pub fn remote(&self) -> Option<SocketAddr> {
        *self.remote.lock()
    }

    /// The loop did not take it: it never was.
    pub(crate) fn refuse(&self) {
        self.refused.store(true, Relaxed);
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Relaxed)
    }

    /// Whether the client has opened a data channel.
    pub fn has_channel(&self) -> bool {
        self.channel.load(Relaxed)
    }

    /// The last published figures.
    pub fn quality(&self) -> Quality {
        self.quality.lock().clone()
    }

    pub(crate) fn connected(&self, remote: SocketAddr) {
        *self.remote.lock() = Some(remote);
        self.connected_at.get_or_init(Instant::now);
        self.stage.send_replace(Stage::Active);
        self.record(Event::Active);
    }

    /// Connected, or connected again, over what has no address of its own.
    pub(crate) fn active(&self) {
        self.connected_at.get_or_init(Instant::now);
        let begins = self.stage.send_if_modified(|stage| {
            let begins = *stage == Stage::Connecting;
            if begins {
                *stage = Stage::Active;
            }
            begins
        });
        self.record(if begins { Event::Active } else { Event::Attached });
    }

    pub(crate) fn moved(&self, remote: SocketAddr) {
        *self.remote.lock() = Some(remote);
        self.record(Event::PathChanged);
    }

    pub(crate) fn channel_opened(&self) {
        self.channel.store(true, Relaxed);
    }

    /// The handler's last additional outputs, the oldest first.
    pub fn outputs(&self) -> Vec<Value> {
        self.history.recent(MAX_OUTPUTS)
    }

    /// All of them that are kept.
    pub fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// Keeps an additional output.
    ///
    /// # Errors
    /// It is too large, which is logged. There is nothing to fetch then.
    pub(crate) fn output(&self, value: &Value) -> Result<(), OutputTooLarge> {
        self.history.push(value).inspect_err(|error| {
            tracing::warn!(session = %self.id, %error, "an additional output is lost");
        })
    }

    pub(crate) fn publish(&self, quality: Quality) {
        *self.quality.lock() = quality;
    }

    pub(crate) fn ending(&self, reason: CloseReason) {
        self.stage.send_replace(Stage::Ending(reason));
        self.record(Event::Ending(reason));
    }

    pub(crate) fn closed(&self, reason: CloseReason) {
        self.record(Event::Closed(reason));
        *self.span.lock() = tracing::Span::none();
        self.stage.send_replace(Stage::Closed(reason));
    }
}

/// Milliseconds with a fraction, as the JSON views show times.
pub(crate) fn millis(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}
