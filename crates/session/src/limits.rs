//! What one service allows.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::lifecycle::LifeLimits;

/// The limits of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at a time; `None` for as many as the machine carries.
    pub concurrency: Option<NonZeroU32>,
    /// Sessions of one user at a time.
    pub per_user: Option<NonZeroU32>,
    /// Offers a minute from one source address.
    pub offers_per_minute: Option<NonZeroU32>,
    /// The longest session, counted from its connection.
    pub time_limit: Option<Duration>,
    /// From the answer to the connection.
    pub connect_timeout: Duration,
    /// The longest that a session may play out after its end was decided.
    pub end_grace: Duration,
}

impl Limits {
    /// A client that has not connected by then never will: ICE gives up earlier.
    pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

    /// Longer than the longest sentence a handler queues, short enough that a stuck client frees its slot.
    pub const DEFAULT_END_GRACE: Duration = Duration::from_secs(30);

    /// The part that a session's life obeys.
    pub fn life(&self) -> LifeLimits {
        LifeLimits { connect_timeout: self.connect_timeout, time_limit: self.time_limit, end_grace: self.end_grace }
    }
}

impl Default for Limits {
    /// No limit but the two timeouts.
    fn default() -> Self {
        Self {
            concurrency: None,
            per_user: None,
            offers_per_minute: None,
            time_limit: None,
            connect_timeout: Self::DEFAULT_CONNECT_TIMEOUT,
            end_grace: Self::DEFAULT_END_GRACE,
        }
    }
}
