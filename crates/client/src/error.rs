//! What can go wrong with a call. Each message says what to do about it.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::call::Transport;
use crate::phone::webhook::InvalidTwiml;
use crate::sdp::InvalidSdp;
use crate::socket::options::Direction;

/// Why a call could not be made, or something could not be done with it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The offer did not reach the server, or its answer did not come back.
    #[error("cannot reach {url}: {reason}; check that the server runs and that the address is right")]
    Unreachable {
        /// Where the offer was posted.
        url: String,
        /// The chain of causes.
        reason: String,
    },
    /// The request cannot be made from these options.
    #[error("cannot prepare the request: {0}; check headers, certificates and proxy settings")]
    Request(String),
    /// The server said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The server answered, but not as a server of this protocol does.
    #[error("{url} answered with status {status}, but {reason}; check that the URL names a service, such as /echo")]
    NotAnAnswer {
        /// Where the offer was posted.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What is wrong with it.
        reason: String,
    },
    /// The answer's SDP cannot be used.
    #[error(transparent)]
    Sdp(#[from] InvalidSdp),
    /// The server refused every m-line that carries media.
    #[error("the server accepted no audio; it offers another kind of media, or none of Opus, PCMU and PCMA")]
    NoMedia,
    /// No address to offer.
    #[error("no local network address is usable; connect a network, or name an address in `local_addresses`")]
    NoAddress,
    /// Media may go through a TURN server only, and there is none.
    #[error(
        "media may go through a TURN server only, and no TURN server over UDP is known; name one, or see whether the service's \
         rtc_configuration has one for you"
    )]
    NoTurn,
    /// Media may go through a TURN server only, and none has taken it on.
    #[error("no TURN server has taken the call on; check that it is reached, and that its credentials are still good")]
    NoRelay,
    /// ICE or DTLS did not come up.
    #[error(
        "no connection within {after:.1?} ({state}); the answer came, so a firewall probably drops UDP to the server's \
         media port: open it, or give a TURN server"
    )]
    NotConnected {
        /// How long was waited.
        after: Duration,
        /// The states of ICE and DTLS at the end.
        state: String,
    },
    /// Encoding or decoding failed.
    #[error("audio: {0}")]
    Audio(#[from] streamfleet_audio::AudioError),
    /// A decoder could not be made.
    #[error("audio: no decoder ({0})")]
    Decoder(String),
    /// The server closed the socket instead of taking the call.
    #[error("{url} closed the socket: {reason}; check that the path names a service and what its log says")]
    SocketClosed {
        /// Where the socket was opened.
        url: String,
        /// The close code and the words with it, or what broke.
        reason: String,
    },
    /// The socket stands, but the server says nothing on it.
    #[error("{url} did not take the call within {after:.1?}; check that it is a service of this protocol")]
    NotAccepted {
        /// Where the socket was opened.
        url: String,
        /// How long was waited.
        after: Duration,
    },
    /// The service works at another rate than this call was made for.
    #[error(
        "the service's {direction} rate is {server} Hz, and this call was made for {ours} Hz: it would be heard at the \
         wrong pitch; set the {direction} rate to {server}, or leave it out"
    )]
    Rate {
        /// Which of the two.
        direction: Direction,
        /// What the call was made for, in Hz.
        ours: u32,
        /// What the server says, in Hz.
        server: u32,
    },
    /// The service answers a call with TwiML that connects nobody.
    #[error("{url} answered with TwiML that connects no stream: {reason}")]
    Twiml {
        /// Where the call was posted.
        url: String,
        /// What is wrong with it.
        reason: InvalidTwiml,
    },
    /// This transport has no way to say it.
    #[error("a {transport} call has no {what}")]
    Unsupported {
        /// What is not there.
        what: &'static str,
        /// What carries the call.
        transport: Transport,
    },
    /// The WebRTC stack refused something.
    #[error("WebRTC: {0}; this is a defect of the client or of the server's answer")]
    Rtc(#[from] webrtc::error::Error),
    /// The call is over.
    #[error("the call is over; make a new one with Client::connect")]
    Over,
    /// The call has no such track.
    #[error("this call has no {0} track; ask for it with ClientOptions::media")]
    NoTrack(&'static str),
}

impl ClientError {
    /// Whether the same call may be taken a little later without anybody changing it: the service is being set up, has no room, or the way
    /// to it is not there yet. A wrong path looks like the first, so whoever tries again should do so for a bounded time.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::NotConnected { .. }
            | Self::SocketClosed { .. }
            | Self::NotAccepted { .. } => true,
            Self::Refused(refusal) => refusal.remedy() == Remedy::Wait || refusal.status == 404,
            Self::NotAnAnswer { status, .. } => *status == 404 || *status >= 500,
            _ => false,
        }
    }
}

/// A refusal as the server worded it: `{"status":"failed","meta":{"error":…}}`, or an HTTP error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The stable word, such as `concurrency_limit_reached`.
    pub error: String,
    /// The HTTP status; FastRTC refuses with 200.
    pub status: u16,
    /// The limit that was reached.
    pub limit: Option<u64>,
    /// More about it, in words.
    pub detail: Option<String>,
    /// When to try again, if the server said so.
    pub retry_after: Option<Duration>,
}

/// What can be done about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// It passes by itself: a session that is being ended, a server that drains, a lack of capacity.
    Wait,
    /// Somebody has to change something.
    Change,
}

impl Refusal {
    pub(crate) fn remedy(&self) -> Remedy {
        match self.error.as_str() {
            "connection_already_exists" | "no_capacity" | "draining" | "upstream_unavailable" | "rate_limited" => {
                Remedy::Wait
            }
            _ if self.retry_after.is_some() => Remedy::Wait,
            _ => Remedy::Change,
        }
    }

    fn advice(&self) -> &'static str {
        match (self.error.as_str(), self.status) {
            ("connection_already_exists", _) => "use another id, or end the session that has it",
            ("concurrency_limit_reached", _) => "wait for a session to end, or raise the service's limit",
            ("user_limit_reached", _) => "end another of this user's sessions, or raise the limit per user",
            ("invalid_metadata", _) => "send a JSON object within the service's limits",
            ("invalid_offer", _) => "offer a codec that the service has",
            ("no_capacity" | "draining" | "upstream_unavailable", _) => "try again in a moment",
            ("rate_limited", _) => "slow down",
            ("service_not_found", _) | (_, 404 | 405) => "check the path of the URL",
            ("unauthorized", _) | (_, 401) => "give a valid token in an authorization header",
            ("forbidden", _) | (_, 403) => {
                "ask the service's owner for access; a telephone's requests are signed with its auth token"
            }
            ("payload_too_large", _) | (_, 413) => "send less metadata",
            (_, 422) => "check the id: 1 to 128 characters of A-Z a-z 0-9 . _ ~ : @ -",
            (_, 500..) => "look into the server's log",
            _ => "look into the server's documentation",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server refused the call: {}", self.error)?;
        if let Some(limit) = self.limit {
            write!(f, " (limit {limit})")?;
        }
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        if let Some(after) = self.retry_after {
            write!(f, "; it asks to wait {} s", after.as_secs())?;
        }
        write!(f, "; {}", self.advice())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(error: &str, status: u16) -> Refusal {
        Refusal { error: error.into(), status, limit: None, detail: None, retry_after: None }
    }

    #[test]
    fn refusals_say_what_to_do() {
        fn check(refusal: Refusal, expected: &str) {
            assert_eq!(refusal.to_string(), expected);
        }
        check(
            Refusal { limit: Some(2), ..refusal("concurrency_limit_reached", 200) },
            "the server refused the call: concurrency_limit_reached (limit 2); wait for a session to end, or raise the \
             service's limit",
        );
        check(
            Refusal { detail: Some("no audio".into()), ..refusal("invalid_offer", 400) },
            "the server refused the call: invalid_offer: no audio; offer a codec that the service has",
        );
        check(
            Refusal { retry_after: Some(Duration::from_secs(3)), ..refusal("no_capacity", 503) },
            "the server refused the call: no_capacity; it asks to wait 3 s; try again in a moment",
        );
        check(refusal("HTTP 404", 404), "the server refused the call: HTTP 404; check the path of the URL");
    }

    #[test]
    fn what_may_pass() {
        fn check(error: ClientError, expected: bool) {
            assert_eq!(error.may_pass(), expected, "{error}");
        }
        let url = || "http://h/echo".to_owned();
        check(ClientError::Unreachable { url: url(), reason: "refused".into() }, true);
        check(ClientError::NotConnected { after: Duration::from_secs(15), state: "ICE failed".into() }, true);
        check(ClientError::NotAnAnswer { url: url(), status: 502, reason: "HTML".into() }, true);
        check(ClientError::NotAnAnswer { url: url(), status: 200, reason: "HTML".into() }, false);
        check(refusal("service_not_found", 404).into(), true);
        check(refusal("no_capacity", 503).into(), true);
        check(refusal("unauthorized", 401).into(), false);
        check(refusal("invalid_offer", 400).into(), false);
        check(ClientError::NoMedia, false);
        check(ClientError::Over, false);
    }

    #[test]
    fn which_refusals_pass_by_themselves() {
        fn check(refusal: Refusal, expected: Remedy) {
            assert_eq!(refusal.remedy(), expected, "{refusal}");
        }
        check(refusal("connection_already_exists", 200), Remedy::Wait);
        check(refusal("no_capacity", 503), Remedy::Wait);
        check(refusal("concurrency_limit_reached", 200), Remedy::Change);
        check(refusal("unauthorized", 401), Remedy::Change);
        check(Refusal { retry_after: Some(Duration::ZERO), ..refusal("HTTP 503", 503) }, Remedy::Wait);
    }
}
