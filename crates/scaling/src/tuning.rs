//! What a service says about its scaling.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use crate::schedule::Schedule;

/// What a service says about its scaling. All of it comes from its specification, but for [`tick`](Self::tick) and
/// [`start`](Self::start), which are the installation's.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// Workers that there are at least. With 0 the last one goes after [`idle`](Self::idle).
    pub min: u32,
    /// Workers that serve or start at most. Draining ones are not in it: see [`Tuning::ceiling`].
    pub max: u32,
    /// Sessions that one worker takes.
    pub sessions_per_worker: NonZeroU32,
    /// Places that are kept free.
    pub buffer: Buffer,
    /// Whose wish is obeyed.
    pub mode: Mode,
    /// Nothing goes that was wanted within this time.
    pub stabilization: Duration,
    /// With [`min`](Self::min) 0: the last worker goes when there was no session, no arrival and no held offer for so long.
    pub idle: Duration,
    /// Known peaks.
    pub schedules: Vec<Schedule>,
    /// How often [`decide`](crate::decide) is called while nothing wakes it: what is seen late is late by this.
    pub tick: Duration,
    /// How long a worker takes from its creation until it serves, while none has shown it.
    pub start: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        const SESSIONS: NonZeroU32 = NonZeroU32::new(50).expect("50 is not zero");
        Self {
            min: 1,
            max: 10,
            sessions_per_worker: SESSIONS,
            buffer: Buffer::default(),
            mode: Mode::Sessions,
            stabilization: Duration::from_secs(300),
            idle: Duration::from_secs(300),
            schedules: Vec::new(),
            tick: Duration::from_secs(5),
            start: Duration::from_secs(30),
        }
    }
}

impl Tuning {
    /// All pods at most, draining and lost ones included: as many again as may serve, so that each one that serves can be
    /// replaced while it drains.
    #[must_use]
    pub fn ceiling(&self) -> u32 {
        self.max.saturating_mul(2)
    }
}

/// Whose wish is obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The rule's: by sessions.
    Sessions,
    /// Somebody else's: so many workers, whatever they carry. Draining is the same.
    External(u32),
}

/// Places that are kept free for sessions that come while a worker starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffer {
    /// A share of the sessions that there are, in percent.
    Percent(u32),
    /// So many places.
    Places(u32),
}

impl Default for Buffer {
    fn default() -> Self {
        Self::Percent(25)
    }
}

/// A text that is no buffer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a share of the sessions, as `25%`, nor a number of free places, as `40`")]
pub struct NoBuffer(String);

impl FromStr for Buffer {
    type Err = NoBuffer;

    /// `25%`, or a number of places.
    fn from_str(text: &str) -> Result<Self, NoBuffer> {
        /// Ten times the sessions is a mistake, not a wish.
        const MOST_PERCENT: u32 = 1_000;
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten().ok_or_else(|| NoBuffer(text.to_owned()))
        };
        match text.strip_suffix('%') {
            Some(percent) => match number(percent)? {
                percent @ 0..=MOST_PERCENT => Ok(Self::Percent(percent)),
                _ => Err(NoBuffer(text.to_owned())),
            },
            None => Ok(Self::Places(number(text)?)),
        }
    }
}

impl fmt::Display for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Places(places) => write!(f, "{places}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_shares_or_places() {
        #[track_caller]
        fn check(text: &str, expected: Option<Buffer>) {
            assert_eq!(text.parse().ok(), expected, "{text}");
            if let Some(buffer) = expected {
                assert_eq!(buffer.to_string(), text);
            }
        }
        check("25%", Some(Buffer::Percent(25)));
        check("0%", Some(Buffer::Percent(0)));
        check("1000%", Some(Buffer::Percent(1_000)));
        check("40", Some(Buffer::Places(40)));
        check("0", Some(Buffer::Places(0)));
        for wrong in ["", "%", "1001%", "-1", "+1", "2.5%", "25 %", " 25%", "25%%", "4294967296", "many"] {
            check(wrong, None);
        }
        let error = "many".parse::<Buffer>().unwrap_err().to_string();
        assert_eq!(error, "`many` is neither a share of the sessions, as `25%`, nor a number of free places, as `40`");
    }

    #[test]
    fn each_that_serves_can_be_replaced() {
        assert_eq!(Tuning { max: 7, ..Tuning::default() }.ceiling(), 14);
        assert_eq!(Tuning { max: u32::MAX, ..Tuning::default() }.ceiling(), u32::MAX);
    }
}
