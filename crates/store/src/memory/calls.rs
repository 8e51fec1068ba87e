//! A service's calls, the oldest first.

use std::collections::{HashMap, VecDeque};

use streamfleet_session::SessionId;

use crate::calls::MAX_CALLS;

/// Kept by number alone: a process that stands alone has all of it to itself, and a day's calls are fewer.
#[derive(Debug, Default)]
pub(super) struct Calls {
    sessions: HashMap<u128, SessionId>,
    order: VecDeque<u128>,
}

impl Calls {
    pub(super) fn enter(&mut self, call: u128, session: &SessionId) -> bool {
        if self.sessions.contains_key(&call) {
            return false;
        }
        if self.order.len() >= MAX_CALLS
            && let Some(oldest) = self.order.pop_front()
        {
            self.sessions.remove(&oldest);
        }
        self.sessions.insert(call, session.clone());
        self.order.push_back(call);
        true
    }

    pub(super) fn find(&self, call: u128) -> Option<SessionId> {
        self.sessions.get(&call).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes() {
        let (mut calls, session) = (Calls::default(), "MZ1".parse().unwrap());
        for call in 0..=MAX_CALLS as u128 {
            assert!(calls.enter(call, &session));
        }
        assert_eq!((calls.find(0), calls.find(1)), (None, Some(session)));
        assert_eq!((calls.sessions.len(), calls.order.len()), (MAX_CALLS, MAX_CALLS));
    }
}
