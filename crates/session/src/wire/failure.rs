//! Failures of a request: `{"status":"failed","meta":{"error":…}}`.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::to_json;
use crate::metadata::InvalidMetadata;
use crate::text::excerpt;

/// The longest detail that a reply carries, in characters.
const MAX_DETAIL: usize = 256;

/// Why a request failed. Each has a stable error string and an HTTP status; clients test `status === "failed"` and
/// `meta.error`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.as_str())]
pub enum Failure {
    /// No session of that id.
    UnknownConnection,
    /// The session of that id is over.
    ConnectionClosed,
    /// The candidate cannot be read.
    InvalidCandidateFormat,
    /// The id is in use.
    ConnectionAlreadyExists,
    /// The service is full.
    ConcurrencyLimitReached {
        /// Sessions that it takes.
        limit: NonZeroU32,
    },
    /// The user has enough sessions.
    UserLimitReached {
        /// Sessions of one user.
        limit: NonZeroU32,
    },
    /// The handler does not answer pauses.
    NotAReplyOnPause,
    /// The SDP cannot be read or has no usable media.
    InvalidOffer {
        /// What is wrong with it. Hidden characters are stripped and the text is cut when it is sent.
        detail: String,
    },
    /// The metadata cannot be accepted.
    InvalidMetadata {
        /// What is wrong with it.
        detail: String,
    },
    /// Nobody said who they are.
    Unauthorized,
    /// They may not do this.
    Forbidden,
    /// No service at that path.
    ServiceNotFound,
    /// No such route or thing.
    NotFound,
    /// The body is too large.
    PayloadTooLarge,
    /// Too many requests from there.
    RateLimited {
        /// When to come back.
        retry_after: Duration,
    },
    /// No worker has room.
    NoCapacity {
        /// When to come back.
        retry_after: Duration,
    },
    /// Nothing new is admitted here.
    Draining,
    /// The worker could not be reached.
    UpstreamUnavailable,
    /// A fault of ours. The last net, never an answer to bad input.
    Internal,
}

impl Failure {
    /// The stable error string.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::UnknownConnection => "unknown_connection",
            Self::ConnectionClosed => "connection_closed",
            Self::InvalidCandidateFormat => "invalid_candidate_format",
            Self::ConnectionAlreadyExists => "connection_already_exists",
            Self::ConcurrencyLimitReached { .. } => "concurrency_limit_reached",
            Self::UserLimitReached { .. } => "user_limit_reached",
            Self::NotAReplyOnPause => "not_a_reply_on_pause",
            Self::InvalidOffer { .. } => "invalid_offer",
            Self::InvalidMetadata { .. } => "invalid_metadata",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::ServiceNotFound => "service_not_found",
            Self::NotFound => "not_found",
            Self::PayloadTooLarge => "payload_too_large",
            Self::RateLimited { .. } => "rate_limited",
            Self::NoCapacity { .. } => "no_capacity",
            Self::Draining => "draining",
            Self::UpstreamUnavailable => "upstream_unavailable",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status. What FastRTC's clients know is 200: they look into the body.
    pub const fn status(&self) -> u16 {
        match self {
            Self::UnknownConnection
            | Self::ConnectionClosed
            | Self::InvalidCandidateFormat
            | Self::ConnectionAlreadyExists
            | Self::ConcurrencyLimitReached { .. }
            | Self::UserLimitReached { .. }
            | Self::NotAReplyOnPause => 200,
            Self::InvalidOffer { .. } | Self::InvalidMetadata { .. } => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::ServiceNotFound | Self::NotFound => 404,
            Self::PayloadTooLarge => 413,
            Self::RateLimited { .. } => 429,
            Self::Internal => 500,
            Self::UpstreamUnavailable => 502,
            Self::NoCapacity { .. } | Self::Draining => 503,
        }
    }

    /// The value of `Retry-After` (RFC 9110, 10.2.3), in whole seconds and at least one.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::NoCapacity { retry_after } => {
                let partial = u64::from(retry_after.subsec_nanos() > 0);
                Some(Duration::from_secs(retry_after.as_secs().saturating_add(partial).max(1)))
            }
            _ => None,
        }
    }

    /// The text to send.
    pub fn to_json(&self) -> String {
        to_json(self)
    }

    fn limit(&self) -> Option<NonZeroU32> {
        match self {
            Self::ConcurrencyLimitReached { limit } | Self::UserLimitReached { limit } => Some(*limit),
            _ => None,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::InvalidOffer { detail } | Self::InvalidMetadata { detail } => Some(excerpt(detail, MAX_DETAIL)),
            _ => None,
        }
    }
}

impl From<InvalidMetadata> for Failure {
    fn from(error: InvalidMetadata) -> Self {
        Self::InvalidMetadata { detail: error.to_string() }
    }
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Meta {
            error: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            limit: Option<NonZeroU32>,
            #[serde(skip_serializing_if = "Option::is_none")]
            detail: Option<String>,
        }
        let mut object = serializer.serialize_struct("Failure", 2)?;
        object.serialize_field("status", "failed")?;
        object.serialize_field("meta", &Meta { error: self.as_str(), limit: self.limit(), detail: self.detail() })?;
        object.end()
    }
}
