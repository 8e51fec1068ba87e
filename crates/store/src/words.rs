//! Names and terms of a fleet, parsed once at the edge.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A text that names nothing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be 1 to {max} characters of {allowed}")]
pub struct InvalidName {
    what: &'static str,
    max: usize,
    allowed: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $allowed:literal, $is:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let is: fn(char) -> bool = $is;
                // Every character is at least a byte, so a giant text is refused without being walked.
                if text.is_empty() || text.len() > $max * 4 || text.chars().count() > $max || !text.chars().all(is) {
                    return Err(InvalidName { what: $what, max: $max, allowed: $allowed });
                }
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), self.as_str())
            }
        }
    };
}

name! {
    /// A worker process: the name of its pod, or whatever else is unique in the fleet (RFC 1123 names fit).
    WorkerId, "a worker id", 253, "a-z A-Z 0-9 . _ -",
    |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

name! {
    /// A router process: random, and no other's.
    RouterId, "a router id", 64, "a-z A-Z 0-9 . _ -",
    |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

name! {
    /// A value that keeps sessions together: while one of them lives, all later ones go to its worker. A room's name.
    PinValue, "a pinned value", 256, "anything but control characters", |c| !c.is_control()
}

name! {
    /// A track of a session: the identification tag of its m-line (RFC 8843, 9: a token).
    TrackId, "a track", 64, "visible ASCII characters", |c| c.is_ascii_graphic()
}

/// What a client is told at its session's end by a handler of another session: at most 4096 bytes, which is a message to
/// people and no file. It stands in the store until the session's owner has read it.
#[derive(Clone, PartialEq, Eq)]
pub struct LastWords(Arc<str>);

/// More than [`LastWords`] may be, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("last words must be 1 to {} bytes", LastWords::MAX)]
pub struct InvalidLastWords;

impl LastWords {
    /// The longest, in bytes.
    pub const MAX: usize = 4096;

    /// As much of a text as they may be; `None` if there is none.
    #[must_use]
    pub fn cut(text: &str) -> Option<Self> {
        text[..text.floor_char_boundary(Self::MAX)].parse().ok()
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LastWords {
    type Err = InvalidLastWords;

    fn from_str(text: &str) -> Result<Self, InvalidLastWords> {
        if text.is_empty() || text.len() > Self::MAX { Err(InvalidLastWords) } else { Ok(Self(text.into())) }
    }
}

impl fmt::Display for LastWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LastWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It may be about people.
        write!(f, "LastWords({} bytes)", self.0.len())
    }
}

/// Which registration of a worker's name is meant. A later one is greater; only the present one may write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which of the orders to a worker's registration is meant: each that differs from the one before has a greater number, 0 where
/// there was none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Order(pub u64);

impl Order {
    /// Whether there was none.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who writes: a worker under its registration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The worker.
    pub worker: WorkerId,
    /// What [`register`](crate::Directory::register) gave it.
    pub epoch: Epoch,
}

/// One session among all that ever had its id: 64 random bits that the router draws for a claim. A claim that is repeated
/// with its ticket, because the answer was lost, is the same claim.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

impl Ticket {
    /// A ticket of random bits.
    #[must_use]
    pub const fn from_random(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits, for whoever sends it on.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({self})")
    }
}

impl FromStr for Ticket {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let wrong = InvalidName { what: "a ticket", max: 16, allowed: "0-9 a-f" };
        if text.len() != 16 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(wrong);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| wrong)
    }
}

/// How long things last in a store. The same for everybody who uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// A worker that has not renewed for so long is lost, and its sessions with it.
    pub lease: Duration,
    /// A claim that its worker has not confirmed by then is void.
    pub reservation: Duration,
    /// How long a session that is over can be asked about, and its outputs read.
    pub afterlife: Duration,
}

impl Default for Terms {
    /// A lease of 6 s, to be renewed every 2 s: two renewals may be lost, and a client that lost its worker is taken up
    /// elsewhere before its user hangs up. 10 s for a claim is twice what a busy worker takes for an answer. A minute
    /// afterwards an EventSource has come back twice.
    fn default() -> Self {
        Self { lease: Duration::from_secs(6), reservation: Duration::from_secs(10), afterlife: Duration::from_secs(60) }
    }
}

impl Terms {
    /// How often a worker should renew its lease.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        self.lease / 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        fn check<T: FromStr>(text: &str, expected: Result<(), ()>) {
            assert_eq!(text.parse::<T>().map(|_| ()).map_err(|_| ()), expected, "{text:?}");
        }
        check::<WorkerId>("assistant-7f9c-x2", Ok(()));
        check::<WorkerId>("", Err(()));
        check::<WorkerId>("a:b", Err(()));
        check::<WorkerId>(&"w".repeat(253), Ok(()));
        check::<WorkerId>(&"w".repeat(254), Err(()));
        check::<PinValue>("room 7 ☕", Ok(()));
        check::<PinValue>("a\0b", Err(()));
        check::<PinValue>(&"☕".repeat(256), Ok(()));
        check::<PinValue>(&"☕".repeat(257), Err(()));
        check::<TrackId>("0", Ok(()));
        check::<TrackId>("a b", Err(()));
        check::<Ticket>("00000000000000ff", Ok(()));
        check::<Ticket>("00000000000000FF", Err(()));
        check::<Ticket>("+0000000000000ff", Err(()));
    }

    #[test]
    fn last_words_are_cut_between_characters() {
        let check = |text: &str, expected: Option<usize>| {
            assert_eq!(LastWords::cut(text).map(|words| words.as_str().len()), expected, "{}", text.len());
        };
        check("", None);
        check("bye", Some(3));
        check(&"x".repeat(LastWords::MAX), Some(LastWords::MAX));
        check(&"☕".repeat(LastWords::MAX), Some(LastWords::MAX / 3 * 3));
        assert!("x".repeat(LastWords::MAX + 1).parse::<LastWords>().is_err());
    }

    #[test]
    fn tickets_go_there_and_back() {
        for bits in [0, 1, 0xdead_beef, u64::MAX] {
            let ticket = Ticket::from_random(bits);
            assert_eq!(ticket.to_string().parse(), Ok(ticket));
        }
    }
}
