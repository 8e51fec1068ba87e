//! Which session a telephone call has. A call that comes back over another stream knows its own id and not its session's.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use streamfleet_session::{ServiceName, SessionId};
use streamfleet_socket::telephone::CallLeg;

use crate::media::shared::Token;

/// By the time that it was put through: whoever knows a call's id can have it put through once more, and gets another key.
type Key = (ServiceName, CallLeg);

/// The calls of this process: at most one entry a session.
#[derive(Debug, Default)]
pub(super) struct Calls(Mutex<HashMap<Key, (Token, SessionId)>>);

impl Calls {
    /// The call has this session until the entry is dropped, or it has another one.
    pub(super) fn enter(self: &Arc<Self>, service: &ServiceName, call: CallLeg, token: Token, id: SessionId) -> Entry {
        let key = (service.clone(), call);
        self.0.lock().insert(key.clone(), (token, id));
        Entry { calls: self.clone(), key, token }
    }

    pub(super) fn find(&self, service: &ServiceName, call: &CallLeg) -> Option<SessionId> {
        self.0.lock().get(&(service.clone(), call.clone())).map(|(_, id)| id.clone())
    }
}

/// A session's entry.
#[derive(Debug)]
pub(super) struct Entry {
    calls: Arc<Calls>,
    key: Key,
    token: Token,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut calls = self.calls.0.lock();
        if calls.get(&self.key).is_some_and(|(token, _)| *token == self.token) {
            calls.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use streamfleet_socket::protocol::CallSid;
    use streamfleet_socket::telephone::CallNonce;

    use super::*;

    #[test]
    fn a_call_has_its_last_session() {
        let calls = Arc::new(Calls::default());
        let service = |name: &str| name.parse::<ServiceName>().unwrap();
        let id = |text: &str| text.parse::<SessionId>().unwrap();
        let leg = |n| CallLeg { sid: CallSid::parse("CA1").unwrap(), nonce: CallNonce::from_random([n; 16]) };
        let call = leg(1);
        let first = calls.enter(&service("a"), call.clone(), 1, id("MZ1"));
        assert_eq!(calls.find(&service("a"), &call), Some(id("MZ1")));
        assert_eq!(calls.find(&service("b"), &call), None);
        assert_eq!(calls.find(&service("a"), &leg(2)), None, "the same call, put through for somebody else");
        let second = calls.enter(&service("a"), call.clone(), 2, id("MZ2"));
        drop(first);
        assert_eq!(calls.find(&service("a"), &call), Some(id("MZ2")), "the first takes nothing with it");
        drop(second);
        assert_eq!(calls.find(&service("a"), &call), None);
        assert!(calls.0.lock().is_empty());
    }
}
