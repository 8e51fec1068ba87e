//! The life of a session: `connecting → active → ending → closed(reason)`.
//!
//! A state machine without a clock. The owner feeds it [`LifeEvent`]s and calls [`Lifecycle::handle_timeout`] at
//! [`Lifecycle::poll_timeout`]; it acts on what [`Lifecycle::state`] says afterwards.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::ParseError;

/// Clients that the deadline of a drain would cut off are asked to connect elsewhere this long before it.
pub const RECONNECT_LEAD: Duration = Duration::from_secs(10);

/// Why a session ended. A closed set: the label goes into metrics, events and JSON and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CloseReason {
    /// The client hung up.
    ClientClosed,
    /// The handler said that the stream is over.
    EndStream,
    /// The service's time limit, counted from the connection.
    TimeLimit,
    /// The client did not connect in time.
    ConnectTimeout,
    /// The path to the client was lost.
    ConnectionLost,
    /// The connection stands and media has stopped coming.
    MediaTimeout,
    /// The client stopped reading what it is sent.
    SlowClient,
    /// The handler failed.
    HandlerError,
    /// Somebody with authority ended it.
    EndedByControl,
    /// Its worker was told to drain and the deadline came.
    Draining,
    /// The same client took it over with its resume token.
    Moved,
    /// The same client had begun to move here, and has gone another way before it arrived.
    Superseded,
    /// Its worker died or lost touch with the fleet, and somebody else noticed.
    WorkerLost,
    /// The process stopped.
    Shutdown,
    /// What the client sent cannot be served.
    Invalid,
    /// A fault of ours.
    InternalError,
}

impl CloseReason {
    /// Every reason, for metrics that register their labels up front.
    pub const ALL: [Self; 16] = [
        Self::ClientClosed,
        Self::EndStream,
        Self::TimeLimit,
        Self::ConnectTimeout,
        Self::ConnectionLost,
        Self::MediaTimeout,
        Self::SlowClient,
        Self::HandlerError,
        Self::EndedByControl,
        Self::Draining,
        Self::Moved,
        Self::Superseded,
        Self::WorkerLost,
        Self::Shutdown,
        Self::Invalid,
        Self::InternalError,
    ];

    /// The stable label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::EndStream => "end_stream",
            Self::TimeLimit => "time_limit",
            Self::ConnectTimeout => "connect_timeout",
            Self::ConnectionLost => "connection_lost",
            Self::MediaTimeout => "media_timeout",
            Self::SlowClient => "slow_client",
            Self::HandlerError => "handler_error",
            Self::EndedByControl => "ended_by_control",
            Self::Draining => "draining",
            Self::Moved => "moved",
            Self::Superseded => "superseded",
            Self::WorkerLost => "worker_lost",
            Self::Shutdown => "shutdown",
            Self::Invalid => "invalid",
            Self::InternalError => "internal_error",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CloseReason {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or(ParseError::Form { what: "a close reason", rule: "must be one of the documented labels" })
    }
}

impl Serialize for CloseReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for CloseReason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The answer is out and the client has not connected yet.
    Connecting,
    /// Connected.
    Active,
    /// No more input; what was queued for the client still plays.
    Ending(CloseReason),
    /// Over. The id is free.
    Closed(CloseReason),
}

impl State {
    /// The state's stable label, without its reason.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Active => "active",
            Self::Ending(_) => "ending",
            Self::Closed(_) => "closed",
        }
    }

    /// Whether the session is over.
    pub const fn is_closed(self) -> bool {
        matches!(self, Self::Closed(_))
    }

    /// Why the session ends or ended.
    pub const fn reason(self) -> Option<CloseReason> {
        match self {
            Self::Connecting | Self::Active => None,
            Self::Ending(reason) | Self::Closed(reason) => Some(reason),
        }
    }

    /// The state after an event. Total: every event may come in every state, since client, handler and control do not
    /// wait for each other.
    ///
    /// The first reason stays: a client that leaves while its last words play was ended by the handler all the same.
    #[must_use]
    pub const fn after(self, event: LifeEvent) -> Self {
        match (self, event) {
            (Self::Connecting, LifeEvent::Connected) => Self::Active,
            // Nothing can have been queued for a client that never connected.
            (Self::Connecting, LifeEvent::End(reason) | LifeEvent::Close(reason)) => Self::Closed(reason),
            (Self::Active, LifeEvent::End(reason)) => Self::Ending(reason),
            (Self::Active, LifeEvent::Close(reason)) => Self::Closed(reason),
            (Self::Ending(reason), LifeEvent::PlayedOut | LifeEvent::Close(_)) => Self::Closed(reason),
            (Self::Connecting, LifeEvent::PlayedOut)
            | (Self::Active, LifeEvent::Connected | LifeEvent::PlayedOut)
            | (Self::Ending(_), LifeEvent::Connected | LifeEvent::End(_))
            | (Self::Closed(_), _) => self,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifeEvent {
    /// The client's transport is up.
    Connected,
    /// End in good order: what is queued plays first.
    End(CloseReason),
    /// The last queued sample was sent.
    PlayedOut,
    /// End now: the transport is gone or nothing more may be sent.
    Close(CloseReason),
}

/// The times of a session's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LifeLimits {
    /// From creation to the connection.
    pub connect_timeout: Duration,
    /// From the connection to the end; `None` for no limit.
    pub time_limit: Option<Duration>,
    /// The longest that [`State::Ending`] may last.
    pub end_grace: Duration,
}

/// One session's life.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    state: State,
    since: Instant,
    connected_at: Option<Instant>,
    limits: LifeLimits,
}

impl Lifecycle {
    /// A session that begins to connect at `now`.
    pub fn new(now: Instant, limits: LifeLimits) -> Self {
        Self { state: State::Connecting, since: now, connected_at: None, limits }
    }

    /// Applies an event.
    pub fn handle(&mut self, event: LifeEvent, now: Instant) {
        let next = self.state.after(event);
        if next == self.state {
            return;
        }
        if next == State::Active {
            self.connected_at = Some(now);
        }
        self.state = next;
        self.since = now;
    }

    /// When [`Lifecycle::handle_timeout`] is next due, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let span = match self.state {
            State::Connecting => self.limits.connect_timeout,
            State::Active => self.limits.time_limit?,
            State::Ending(_) => self.limits.end_grace,
            State::Closed(_) => return None,
        };
        // A span beyond the clock's range is no limit.
        self.since.checked_add(span)
    }

    /// Lets time pass. May be called at any time; before [`Lifecycle::poll_timeout`] it does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return;
        }
        let event = match self.state {
            State::Connecting => LifeEvent::Close(CloseReason::ConnectTimeout),
            State::Active => LifeEvent::End(CloseReason::TimeLimit),
            State::Ending(reason) | State::Closed(reason) => LifeEvent::Close(reason),
        };
        self.handle(event, now);
    }

    /// The present state.
    pub fn state(&self) -> State {
        self.state
    }

    /// When the present state was entered.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// When the client connected, if it did.
    pub fn connected_at(&self) -> Option<Instant> {
        self.connected_at
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
