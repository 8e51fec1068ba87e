//! How a handler fails, in words that may be shown.

use std::any::Any;
use std::fmt;
use std::time::Duration;

/// The longest text of a failure, in characters: enough for a sentence with a path in it, short enough for a log
/// line and one data-channel message.
const MAX_REASON: usize = 256;

/// What the client is told about a failure that is not its business.
const INTERNAL: &str = "the handler failed";

/// A one-line text without control characters, at most 256 characters long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(String);

impl Reason {
    /// Takes any text: line breaks and other control characters become spaces, the rest beyond the bound is cut.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut kept = String::with_capacity(text.len().min(MAX_REASON));
        for (count, character) in text.trim().chars().enumerate() {
            if count == MAX_REASON - 1 {
                kept.push('…');
                break;
            }
            kept.push(if character.is_control() { ' ' } else { character });
        }
        Self(kept)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The calls of a handler that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `start_up`
    StartUp,
    /// `receive`
    Receive,
    /// `emit`
    Emit,
    /// `reset`
    Reset,
    /// `shutdown`
    Shutdown,
    /// A task of the session's
    Task,
}

impl Step {
    /// The method's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StartUp => "start_up",
            Self::Receive => "receive",
            Self::Emit => "emit",
            Self::Reset => "reset",
            Self::Shutdown => "shutdown",
            Self::Task => "a task",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a handler ended its session against its will. `Display` is for logs; see
/// [`client_message`](HandlerError::client_message) for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandlerError {
    /// The handler said so.
    #[error("{0}")]
    Failed(Reason),
    /// The handler panicked.
    #[error("panicked in {step}: {message}")]
    Panicked {
        /// Where.
        step: Step,
        /// The panic's message.
        message: Reason,
    },
    /// A call took longer than it may.
    #[error("{step} took longer than {} s", .limit.as_secs_f32())]
    Deadline {
        /// Which call.
        step: Step,
        /// How long it may take.
        limit: Duration,
    },
}

impl HandlerError {
    /// A failure with the words of `cause`, which **reach the client**; made one line and cut at 256 characters. For
    /// use with `map_err(HandlerError::new)`.
    pub fn new(cause: impl fmt::Display) -> Self {
        Self::Failed(Reason::new(&cause.to_string()))
    }

    /// A panic caught in `step`.
    #[must_use]
    pub fn panicked(step: Step, payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("a value that is no text");
        Self::Panicked { step, message: Reason::new(text) }
    }

    /// What the client is told: the handler's own words, or for panics and deadlines only that it failed, as a
    /// panic's message was never written for the client.
    #[must_use]
    pub fn client_message(&self) -> &str {
        match self {
            Self::Failed(reason) if !reason.as_str().is_empty() => reason.as_str(),
            Self::Failed(_) | Self::Panicked { .. } | Self::Deadline { .. } => INTERNAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_one_bounded_line() {
        fn check(given: &str, expected: &str) {
            let error = HandlerError::new(given);
            assert_eq!(error.to_string(), expected);
        }
        check("model not found", "model not found");
        check("  two\r\nlines\u{1b}[31m ", "two  lines [31m");
        check("", "");
        check(&"é".repeat(MAX_REASON), &format!("{}…", "é".repeat(MAX_REASON - 1)));
        assert_eq!(Reason::new(&"x".repeat(100_000)).as_str().chars().count(), MAX_REASON);
    }

    #[test]
    fn the_client_sees_words_that_were_meant_for_it() {
        fn check(error: &HandlerError, expected: &str) {
            assert_eq!(error.client_message(), expected, "{error}");
        }
        check(&HandlerError::new("no such voice"), "no such voice");
        check(&HandlerError::new(""), INTERNAL);
        check(&HandlerError::panicked(Step::Emit, &"index out of bounds: /secret"), INTERNAL);
        check(&HandlerError::Deadline { step: Step::StartUp, limit: Duration::from_secs(30) }, INTERNAL);
    }

    #[test]
    fn panics_are_told_in_the_log() {
        fn check(payload: &(dyn Any + Send), expected: &str) {
            assert_eq!(HandlerError::panicked(Step::Receive, payload).to_string(), expected);
        }
        check(&"static", "panicked in receive: static");
        check(&String::from("owned\n"), "panicked in receive: owned");
        check(&17_u8, "panicked in receive: a value that is no text");
    }
}
