//! How a socket ends: close codes (RFC 6455, 7.4.1) and the reasons behind them.

use streamfleet_session::CloseReason;
use streamfleet_session::wire::Failure;

/// The close codes in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// The conversation is over.
    Normal,
    /// The server goes away: the client may come back.
    GoingAway,
    /// What the client sent breaks the WebSocket protocol.
    Protocol,
    /// What the client sent is not what it should be.
    InvalidPayload,
    /// What the client sent is well-formed and not allowed.
    Policy,
    /// A message was too large.
    TooBig,
    /// Something failed on our side.
    Internal,
    /// The server is being replaced: the client may come back at once, to another one.
    ServiceRestart,
    /// There is no room at present.
    TryAgainLater,
}

impl CloseCode {
    /// The number on the wire.
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::Protocol => 1002,
            Self::InvalidPayload => 1007,
            Self::Policy => 1008,
            Self::TooBig => 1009,
            Self::Internal => 1011,
            Self::ServiceRestart => 1012,
            Self::TryAgainLater => 1013,
        }
    }

    /// The code after a refusal was sent as a frame. What FastRTC's clients know is 1000.
    #[must_use]
    pub const fn of_refusal(failure: &Failure) -> Self {
        match failure {
            Failure::UnknownConnection
            | Failure::ConnectionClosed
            | Failure::ConnectionAlreadyExists
            | Failure::ConcurrencyLimitReached { .. }
            | Failure::UserLimitReached { .. }
            | Failure::NotAReplyOnPause => Self::Normal,
            Failure::InvalidCandidateFormat
            | Failure::InvalidOffer { .. }
            | Failure::InvalidMetadata { .. }
            | Failure::Unauthorized
            | Failure::Forbidden
            | Failure::ServiceNotFound
            | Failure::NotFound => Self::Policy,
            Failure::PayloadTooLarge => Self::TooBig,
            Failure::RateLimited { .. }
            | Failure::NoCapacity { .. }
            | Failure::Draining
            | Failure::UpstreamUnavailable => Self::TryAgainLater,
            Failure::Internal => Self::Internal,
        }
    }

    /// The code that tells a client why its session ended.
    #[must_use]
    pub const fn of_reason(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Draining | CloseReason::Shutdown => Self::GoingAway,
            CloseReason::HandlerError | CloseReason::InternalError => Self::Internal,
            CloseReason::ConnectTimeout | CloseReason::Invalid | CloseReason::SlowClient => Self::Policy,
            // Whatever else ends a session is no fault of the client's.
            _ => Self::Normal,
        }
    }
}

/// A close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseFrame {
    /// The code.
    pub code: CloseCode,
    /// A stable label, far below the 123 bytes that fit (RFC 6455, 5.5).
    pub reason: &'static str,
}

/// Why a connection ended. A closed set; the label goes into close frames, metrics and events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// The client said `stop`, or closed the socket in good order.
    Stopped,
    /// The socket broke.
    Disconnected,
    /// Nothing came from the client for long, not even an answer to a ping.
    Silent,
    /// The client does not read what it is sent.
    SlowClient,
    /// What the client sent cannot be read.
    BadInput,
    /// No `start` came in time.
    StartTimeout,
    /// The session was refused; there never was one.
    Refused,
    /// The session ended, and everything that had to play has played.
    Session(CloseReason),
}

impl End {
    /// The stable label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Disconnected => "disconnected",
            Self::Silent => "silent",
            Self::SlowClient => "slow_client",
            Self::BadInput => "bad_input",
            Self::StartTimeout => "start_timeout",
            Self::Refused => "refused",
            Self::Session(reason) => reason.as_str(),
        }
    }

    /// Whether a client that asked for a resume token may attach again: the socket failed, not the conversation.
    #[must_use]
    pub const fn is_recoverable(self) -> bool {
        matches!(self, Self::Disconnected | Self::Silent | Self::SlowClient)
    }

    /// What the session's life is told; `None` if there was no session.
    #[must_use]
    pub const fn reason(self) -> Option<CloseReason> {
        match self {
            Self::Stopped => Some(CloseReason::ClientClosed),
            Self::Disconnected | Self::Silent => Some(CloseReason::ConnectionLost),
            Self::SlowClient => Some(CloseReason::SlowClient),
            Self::BadInput => Some(CloseReason::Invalid),
            Self::StartTimeout | Self::Refused => None,
            Self::Session(reason) => Some(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_session_ends_with() {
        fn check(end: End, expected: Option<CloseReason>, is_recoverable: bool) {
            assert_eq!((end.reason(), end.is_recoverable()), (expected, is_recoverable), "{}", end.as_str());
        }
        check(End::Stopped, Some(CloseReason::ClientClosed), false);
        check(End::Disconnected, Some(CloseReason::ConnectionLost), true);
        check(End::Silent, Some(CloseReason::ConnectionLost), true);
        check(End::SlowClient, Some(CloseReason::SlowClient), true);
        check(End::BadInput, Some(CloseReason::Invalid), false);
        check(End::StartTimeout, None, false);
        check(End::Refused, None, false);
        check(End::Session(CloseReason::TimeLimit), Some(CloseReason::TimeLimit), false);
    }
}
