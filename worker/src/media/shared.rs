//! What the rest of the process may know of a session: written by its loop, read by anyone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde_json::Value;
use streamfleet_handler::Transport;
use streamfleet_session::lifecycle::{CloseReason, State};
use streamfleet_session::{Identity, ServiceName, SessionId, UserId, Verification};
use streamfleet_socket::outputs::OutputTooLarge;
use tokio::sync::watch;

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
    stage: watch::Sender<Stage>,
    channel: AtomicBool,
    refused: AtomicBool,
    remote: Mutex<Option<SocketAddr>>,
    quality: Mutex<Quality>,
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
        Shared {
            token,
            id,
            service,
            transport,
            user: identity.user_id.clone(),
            verified: identity.verified,
            since: SystemTime::now(),
            stage: watch::Sender::new(Stage::Connecting),
            channel: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            remote: Mutex::new(None),
            quality: Mutex::new(Quality::default()),
            history: Arc::default(),
        }
    }

    /// Goes on with the outputs of an earlier session.
    #[must_use]
    pub(crate) fn with_history(self, history: Arc<History>) -> Self {
        Shared { history, ..self }
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
        self.stage.send_replace(Stage::Active);
    }

    /// Connected, over what has no address of its own.
    pub(crate) fn active(&self) {
        self.stage.send_if_modified(|stage| {
            let begins = *stage == Stage::Connecting;
            if begins {
                *stage = Stage::Active;
            }
            begins
        });
    }

    pub(crate) fn moved(&self, remote: SocketAddr) {
        *self.remote.lock() = Some(remote);
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
    }

    pub(crate) fn closed(&self, reason: CloseReason) {
        self.stage.send_replace(Stage::Closed(reason));
    }
}

/// Milliseconds with a fraction, as the JSON views show times.
pub(crate) fn millis(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}
