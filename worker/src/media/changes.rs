//! What a session has been through, with times: for whoever looks at it while it lives.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use streamfleet_session::CloseReason;

/// Changes that are kept of a session. A call has five; what changes often is the path of a client that travels, and
/// then the last ones are of interest.
pub(crate) const MAX_CHANGES: usize = 32;

/// A client's changes of its path count as one within this time: one that does nothing else would fill every log.
const PATHS_APART: Duration = Duration::from_secs(1);

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was admitted, and waits for its client.
    Connecting,
    /// It goes on where an earlier one ended.
    Resumed,
    /// Its client has connected.
    Active,
    /// Its client has another address.
    PathChanged,
    /// Its client has gone, and may come back.
    Detached,
    /// Its client is back.
    Attached,
    /// It is being ended.
    Ending(CloseReason),
    /// It is over.
    Closed(CloseReason),
}

impl Event {
    /// The stable label, without its reason.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Event::Connecting => "connecting",
            Event::Resumed => "resumed",
            Event::Active => "active",
            Event::PathChanged => "path_changed",
            Event::Detached => "detached",
            Event::Attached => "attached",
            Event::Ending(_) => "ending",
            Event::Closed(_) => "closed",
        }
    }

    /// Why, of what ends a session.
    #[must_use]
    pub const fn reason(self) -> Option<CloseReason> {
        match self {
            Event::Ending(reason) | Event::Closed(reason) => Some(reason),
            _ => None,
        }
    }
}

/// One change, and when it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// By this machine's clock.
    pub at: SystemTime,
    /// What happened.
    pub event: Event,
}

impl Change {
    fn is_repeated_by(&self, at: SystemTime, event: Event) -> bool {
        let is_apart = match event {
            Event::PathChanged => at.duration_since(self.at).is_ok_and(|time| time >= PATHS_APART),
            // A client may come and go any number of times.
            Event::Detached | Event::Attached => true,
            Event::Connecting | Event::Resumed | Event::Active | Event::Ending(_) | Event::Closed(_) => false,
        };
        self.event == event && !is_apart
    }
}

/// The last [`MAX_CHANGES`] of them, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Changes(VecDeque<Change>);

impl Changes {
    /// Adds one. Returns whether it is one: what is as before is none.
    pub(crate) fn push(&mut self, at: SystemTime, event: Event) -> bool {
        if self.0.back().is_some_and(|last| last.is_repeated_by(at, event)) {
            return false;
        }
        if self.0.len() == MAX_CHANGES {
            self.0.pop_front();
        }
        self.0.push_back(Change { at, event });
        true
    }

    pub(crate) fn list(&self) -> Vec<Change> {
        self.0.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_and_repetitions_are_none() {
        let mut changes = Changes::default();
        let at = |ms: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let ending = Event::Ending(CloseReason::Moved);
        for (ms, event, expected) in [
            (0, Event::Connecting, true),
            (1, Event::Active, true),
            (2, Event::Active, false),
            (2, Event::PathChanged, true),
            (1_001, Event::PathChanged, false),
            (1_002, Event::PathChanged, true),
            // The clock was set back.
            (1, Event::PathChanged, false),
            (1_003, ending, true),
            (1_004, ending, false),
            (1_005, Event::Closed(CloseReason::Moved), true),
        ] {
            assert_eq!(changes.push(at(ms), event), expected, "{event:?} after {ms} ms");
        }
        let events: Vec<&str> = changes.list().iter().map(|change| change.event.as_str()).collect();
        assert_eq!(events, ["connecting", "active", "path_changed", "path_changed", "ending", "closed"]);
        for second in 2..1_000 {
            changes.push(at(second * 1_000), Event::PathChanged);
        }
        changes.push(at(1_000_000), ending);
        let list = changes.list();
        assert_eq!((list.len(), list.last().unwrap().event), (MAX_CHANGES, ending));
    }
}
