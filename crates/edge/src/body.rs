//! Reading a body that a stranger sends: bounded in size and in time.

use std::error::Error as _;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _, to_bytes};
use streamfleet_session::wire::Failure;
use tokio::time::timeout;

/// The largest body, in bytes. An offer of a browser with sound, pictures and a data channel has 10 kB; one with every
/// codec and extension of today, 60 kB.
pub const MAX_BODY: usize = 256 << 10;

/// For the whole body. 256 KiB in this time is 210 kbit/s: slower than a telephone line is no browser.
pub const BODY_TIME: Duration = Duration::from_secs(10);

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// More than it may be, announced or sent.
    TooLarge,
    /// Not there within [`BODY_TIME`].
    TooSlow,
    /// The client broke off, or its framing is wrong.
    Broken,
}

impl BodyFault {
    /// A stable label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => Failure::PayloadTooLarge.as_str(),
            Self::TooSlow => "request_timeout",
            Self::Broken => "incomplete_body",
        }
    }
}

/// The whole body, at most [`MAX_BODY`].
///
/// # Errors
/// [`BodyFault`].
pub async fn read(body: Body) -> Result<Bytes, BodyFault> {
    read_up_to(body, MAX_BODY).await
}

/// The whole body, at most `limit` bytes.
///
/// # Errors
/// [`BodyFault`].
pub async fn read_up_to(body: Body, limit: usize) -> Result<Bytes, BodyFault> {
    // What is announced too large is refused before a byte of it is taken.
    if body.size_hint().lower() > limit as u64 {
        return Err(BodyFault::TooLarge);
    }
    match timeout(BODY_TIME, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if error.source().is_some_and(|source| source.is::<http_body_util::LengthLimitError>()) => {
            Err(BodyFault::TooLarge)
        }
        Ok(Err(_)) => Err(BodyFault::Broken),
        Err(_) => Err(BodyFault::TooSlow),
    }
}
