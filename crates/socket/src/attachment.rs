//! Whether a `start` takes up a session whose socket broke.

use std::time::{Duration, Instant};

use streamfleet_session::ResumeToken;

use crate::protocol::Resume;

/// How long a session waits for its client to come back: a phone that changes networks needs ten seconds, and a handler
/// that talks to nobody costs money.
pub const REATTACH_WINDOW: Duration = Duration::from_secs(30);

/// How a living session stands to its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// It has one, as far as we know: a broken one is noticed late.
    Attached,
    /// It has lost it.
    Detached {
        /// When.
        since: Instant,
    },
}

/// What becomes of a `start` whose id belongs to a living session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It takes the session up. The token is used: the client gets a new one.
    Attach,
    /// It takes the session up and its old socket, which the client has given up, is closed.
    TakeOver,
    /// It is somebody else, or cannot show that it is not: `connection_already_exists`.
    Duplicate,
    /// The session's time is over. Once it has ended, the `start` opens a new one.
    Expired,
}

impl Attachment {
    /// Decides for a session with this token, if it has one. An id alone proves nothing, so without the right token all
    /// that a stranger learns is that the id is in use, however long the session has been alone.
    #[must_use]
    pub fn decide(self, now: Instant, token: Option<&ResumeToken>, resume: &Resume) -> Decision {
        let Resume::With(presented) = resume else { return Decision::Duplicate };
        if token != Some(presented) {
            return Decision::Duplicate;
        }
        match self {
            Self::Attached => Decision::TakeOver,
            Self::Detached { .. } if self.expires_at().is_none_or(|end| now < end) => Decision::Attach,
            Self::Detached { .. } => Decision::Expired,
        }
    }

    /// When the session ends unless its client comes back.
    #[must_use]
    pub fn expires_at(self) -> Option<Instant> {
        match self {
            Self::Attached => None,
            Self::Detached { since } => since.checked_add(REATTACH_WINDOW),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions() {
        let start = Instant::now();
        let [right, wrong] = [1, 2].map(|byte| ResumeToken::from_random([byte; 16]));
        let check = |attachment: Attachment, token, resume, seconds, expected| {
            let now = start + Duration::from_millis(seconds);
            assert_eq!(attachment.decide(now, token, &resume), expected, "{attachment:?} {resume:?} at {seconds}");
        };
        let gone = Attachment::Detached { since: start };
        check(gone, Some(&right), Resume::With(right), 0, Decision::Attach);
        check(gone, Some(&right), Resume::With(right), 29_999, Decision::Attach);
        check(gone, Some(&right), Resume::With(right), 30_000, Decision::Expired);
        check(Attachment::Attached, Some(&right), Resume::With(right), 0, Decision::TakeOver);
        for attachment in [Attachment::Attached, gone] {
            for seconds in [0, 30_000] {
                check(attachment, Some(&right), Resume::With(wrong), seconds, Decision::Duplicate);
                check(attachment, Some(&right), Resume::Wanted, seconds, Decision::Duplicate);
                check(attachment, Some(&right), Resume::No, seconds, Decision::Duplicate);
                check(attachment, None, Resume::With(right), seconds, Decision::Duplicate);
            }
        }
    }
}
