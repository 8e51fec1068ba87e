//! Who it is that has said `start`, and what for: the same to whoever serves the session and to whoever passes it on.

use serde_json::Value;
use streamfleet_session::{ResumeToken, SessionId};

use crate::protocol::{CallResume, CallStart, Resume, Start};
use crate::telephone::{CallLeg, Visit};

/// What a client says in its first frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    /// The session.
    pub id: SessionId,
    /// What it says of itself.
    pub metadata: Option<Value>,
    /// What it shows of an earlier session, or wants for a later one.
    pub resume: Resume,
    /// The session that it wants to have again.
    pub earlier: Option<Earlier>,
    /// The call that it belongs to, if that is proved.
    pub call: Option<CallLeg>,
}

/// A session that a client says was its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Earlier {
    /// Which.
    pub id: SessionId,
    /// What it shows for that.
    pub token: ResumeToken,
    /// What it gets if it cannot have it.
    pub otherwise: Otherwise,
}

/// What a client gets that cannot have its session again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Otherwise {
    /// A new one.
    Begin,
    /// Nothing: its conversation is over.
    Refuse,
}

/// What is known of a media stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// TwiML of ours has led it here.
    Ours(CallLeg, Visit),
    /// Nothing, and nothing is asked.
    None,
}

impl Hello {
    /// Of a client of `{p}/websocket/offer`.
    #[must_use]
    pub fn of_client(start: Start) -> Self {
        let earlier = match start.resume {
            Resume::With(token) => Some(Earlier { id: start.id.clone(), token, otherwise: Otherwise::Begin }),
            Resume::No | Resume::Wanted => None,
        };
        Self { id: start.id, metadata: start.metadata, resume: start.resume, earlier, call: None }
    }

    /// Of a telephone call.
    #[must_use]
    pub fn of_call(start: CallStart, proof: Proof) -> Self {
        let (call, otherwise) = match proof {
            // Its first words have been said, and it was told nothing of another conversation.
            Proof::Ours(leg, Visit::Return) => (Some(leg), Otherwise::Refuse),
            Proof::Ours(leg, Visit::First) => (Some(leg), Otherwise::Begin),
            Proof::None => (None, Otherwise::Begin),
        };
        let (id, resume) = match &start.resume {
            // A call that takes up a session has its id; its stream's goes on the wire only.
            Some(earlier) if otherwise == Otherwise::Begin => (earlier.session.clone(), Resume::With(earlier.token)),
            // Only a call whose TwiML was ours comes back, because of its `action`.
            _ => (start.stream_sid, if call.is_some() { Resume::Wanted } else { Resume::No }),
        };
        let earlier = start.resume.map(|CallResume { session: id, token }| Earlier { id, token, otherwise });
        Self { id, metadata: Some(Value::Object(start.parameters)), resume, earlier, call }
    }

    /// What it shows to take over the session that has its id.
    #[must_use]
    pub fn shown(&self) -> Option<ResumeToken> {
        self.earlier.as_ref().filter(|earlier| earlier.id == self.id).map(|earlier| earlier.token)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::protocol::CallSid;
    use crate::telephone::CallNonce;

    #[test]
    fn what_a_call_is_for() {
        let token = ResumeToken::from_random([1; 16]);
        let leg = CallLeg { sid: CallSid::parse("CA1").unwrap(), nonce: CallNonce::from_random([7; 16]) };
        let resume = CallResume { session: "MZ0".parse().unwrap(), token };
        let ours = |visit| Proof::Ours(leg.clone(), visit);
        #[track_caller]
        fn check(resume: Option<&CallResume>, proof: Proof, expected: (&str, Resume, Option<Otherwise>, bool)) {
            let stream_sid = "MZ1".parse().unwrap();
            let (call_sid, token) = (CallSid::parse("CA1"), None);
            let start = CallStart { stream_sid, call_sid, parameters: Map::new(), token, resume: resume.cloned() };
            let hello = Hello::of_call(start, proof);
            let otherwise = hello.earlier.as_ref().map(|earlier| earlier.otherwise);
            let takes_over = hello.shown().is_some();
            assert_eq!((hello.id.as_str(), hello.resume, otherwise, takes_over), expected);
        }
        check(None, Proof::None, ("MZ1", Resume::No, None, false));
        check(None, ours(Visit::First), ("MZ1", Resume::Wanted, None, false));
        let begins = ("MZ0", Resume::With(token), Some(Otherwise::Begin), true);
        check(Some(&resume), Proof::None, begins);
        check(Some(&resume), ours(Visit::First), begins);
        check(Some(&resume), ours(Visit::Return), ("MZ1", Resume::Wanted, Some(Otherwise::Refuse), false));
    }
}
