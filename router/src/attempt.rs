//! What follows when a worker was asked to take a session: one more worker is tried when the first one does not have it,
//! and none after that.
//!
//! A claim that is given up is released, which takes back only what no worker has confirmed.

use std::time::Duration;

use streamfleet_session::fleet::Refused;
use streamfleet_session::wire::Failure;
use streamfleet_store::{Ticket, WorkerId};

/// When a full fleet may be asked again: sessions end every few seconds in one that is full.
pub const FULL_RETRY: Duration = Duration::from_secs(5);

/// What became of a request to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has answered, and has the session.
    Taken,
    /// It has answered, and the client is to read why there is no session.
    Declined,
    /// It has answered, and that it cannot: a fault of its own, or of what it needs. Another one would fail likewise.
    Failed,
    /// It will not take what was placed on it.
    Refused(Refused),
    /// Its connection could not be made, or ended before the answer.
    Gone,
    /// It has not answered in time.
    TimedOut,
}

impl Outcome {
    /// A stable label for metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Declined => "declined",
            Self::Failed => "failed",
            Self::Refused(refused) => refused.as_str(),
            Self::Gone => "gone",
            Self::TimedOut => "timed_out",
        }
    }
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The client gets the worker's answer.
    Reply {
        /// Whether the claim is given back.
        claim: Fate,
    },
    /// The claim is released, and another worker tried, if there is one.
    Retry {
        /// What the client is told if there is none.
        or: Failure,
    },
    /// The claim is released, and the client told.
    GiveUp(Failure),
}

/// What becomes of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is a session's, or has been given back already.
    Kept,
    /// It is nobody's.
    Released,
}

/// A session on its way to a worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempts {
    failed: Option<WorkerId>,
    why: Why,
    claims: u32,
    /// Those of them that have decided nothing.
    put_off: u32,
}

/// Why a worker has not taken it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Why {
    /// It cannot.
    #[default]
    Cannot,
    /// It goes, or has come only just: soon there is another one, or it stays after all.
    Goes,
}

impl Attempts {
    /// The worker that is not to be tried again.
    #[must_use]
    pub fn failed(&self) -> Option<&WorkerId> {
        self.failed.as_ref()
    }

    /// Whether it may wait for a worker to be ready. Not for one that cannot take it: its client is told so.
    #[must_use]
    pub fn may_wait(&self) -> bool {
        self.failed.is_none() || self.why == Why::Goes
    }

    /// It is claimed once more. Returns whether this is the first time: only that counts on anybody's account.
    pub fn claims(&mut self) -> bool {
        self.claims += 1;
        self.claims == 1
    }

    /// The claim has decided nothing: it is made again.
    pub fn put_off(&mut self) {
        self.put_off += 1;
    }

    /// The store has no room at any of the workers that looked open. Whether to look again: once, if no worker has been asked. They
    /// may have been asked to drain in between.
    #[must_use]
    pub fn may_look_again(&self) -> bool {
        self.failed.is_none() && self.claims == 1 + self.put_off
    }

    /// What follows after a worker was asked.
    pub fn after(&mut self, worker: &WorkerId, outcome: Outcome) -> Next {
        let failure = match outcome {
            Outcome::Taken => return Next::Reply { claim: Fate::Kept },
            Outcome::Declined | Outcome::Failed => return Next::Reply { claim: Fate::Released },
            Outcome::Refused(Refused::Stale | Refused::Draining | Refused::Full) => {
                Failure::NoCapacity { retry_after: FULL_RETRY }
            }
            Outcome::Refused(Refused::Stranger) | Outcome::Gone | Outcome::TimedOut => Failure::UpstreamUnavailable,
        };
        if self.failed.is_some() {
            return Next::GiveUp(failure);
        }
        self.failed = Some(worker.clone());
        self.why = match outcome {
            Outcome::Refused(Refused::Stale | Refused::Draining) => Why::Goes,
            _ => Why::Cannot,
        };
        Next::Retry { or: failure }
    }

    /// What the client is told when the second claim finds its own id taken: the first worker may have begun the session
    /// before it was lost, and holds the id until its lease or the session's time to connect is over.
    #[must_use]
    pub fn duplicate(&self) -> Failure {
        match self.failed {
            Some(_) => Failure::UpstreamUnavailable,
            None => Failure::ConnectionAlreadyExists,
        }
    }
}

/// A claim to be released unless it has become a session.
#[derive(Debug)]
#[must_use]
pub struct Claimed<F: FnMut(Ticket)> {
    ticket: Ticket,
    fate: Fate,
    release: F,
}

impl<F: FnMut(Ticket)> Claimed<F> {
    /// A claim that nobody has confirmed. `release` is called with it when it is dropped: also when the client goes away
    /// and everything that was done for it is dropped with it.
    pub fn new(ticket: Ticket, release: F) -> Self {
        Self { ticket, fate: Fate::Released, release }
    }

    /// Decides what becomes of it.
    pub fn settle(mut self, fate: Fate) {
        self.fate = fate;
    }
}

impl<F: FnMut(Ticket)> Drop for Claimed<F> {
    fn drop(&mut self) {
        if self.fate == Fate::Released {
            (self.release)(self.ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: Failure = Failure::NoCapacity { retry_after: FULL_RETRY };

    fn name(text: &str) -> WorkerId {
        text.parse().unwrap()
    }

    #[test]
    fn one_more_worker_is_tried() {
        #[track_caller]
        fn check(outcomes: &[Outcome], expected: &[Next]) {
            let mut attempts = Attempts::default();
            let found: Vec<Next> = outcomes
                .iter()
                .enumerate()
                .map(|(n, outcome)| attempts.after(&name(&format!("w{n}")), *outcome))
                .collect();
            assert_eq!(found, expected, "{outcomes:?}");
        }
        let (kept, released) = (Next::Reply { claim: Fate::Kept }, Next::Reply { claim: Fate::Released });
        let stale = Outcome::Refused(Refused::Stale);
        check(&[Outcome::Taken], std::slice::from_ref(&kept));
        check(&[Outcome::Declined], std::slice::from_ref(&released));
        check(&[Outcome::Failed], std::slice::from_ref(&released));
        let retry = |or: &Failure| Next::Retry { or: or.clone() };
        let lost = Failure::UpstreamUnavailable;
        check(&[stale, Outcome::Taken], &[retry(&FULL), kept]);
        check(&[Outcome::Gone, Outcome::Declined], &[retry(&lost), released]);
        check(&[Outcome::TimedOut, stale], &[retry(&lost), Next::GiveUp(FULL)]);
        check(&[stale, Outcome::Gone], &[retry(&FULL), Next::GiveUp(lost)]);
    }

    #[test]
    fn an_id_that_is_taken_on_the_second_try_may_be_the_clients_own() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.duplicate(), Failure::ConnectionAlreadyExists);
        assert_eq!(attempts.after(&name("w"), Outcome::Gone), Next::Retry { or: Failure::UpstreamUnavailable });
        assert_eq!(attempts.failed(), Some(&name("w")));
        assert_eq!(attempts.duplicate(), Failure::UpstreamUnavailable);
    }

    #[test]
    fn what_is_put_off_is_no_look() {
        let mut attempts = Attempts::default();
        assert!(attempts.claims(), "it counts");
        attempts.put_off();
        assert!(!attempts.claims() && attempts.may_look_again(), "once, and the directory is looked at again");
        assert!(!attempts.claims() && !attempts.may_look_again());
    }

    #[test]
    fn who_waits_and_who_looks_again() {
        let check = |outcome: Option<Outcome>, claims: u32, expected: (bool, bool)| {
            let mut attempts = Attempts::default();
            for n in 0..claims {
                assert_eq!(attempts.claims(), n == 0);
            }
            if let Some(outcome) = outcome {
                attempts.after(&name("w"), outcome);
            }
            assert_eq!((attempts.may_wait(), attempts.may_look_again()), expected, "{outcome:?} {claims}");
        };
        check(None, 0, (true, false));
        check(None, 1, (true, true));
        check(None, 2, (true, false));
        check(Some(Outcome::Refused(Refused::Draining)), 1, (true, false));
        check(Some(Outcome::Refused(Refused::Stale)), 1, (true, false));
        for cannot in
            [Outcome::Refused(Refused::Full), Outcome::Refused(Refused::Stranger), Outcome::Gone, Outcome::TimedOut]
        {
            check(Some(cannot), 1, (false, false));
        }
    }

    #[test]
    fn a_claim_is_released_unless_it_has_become_a_session() {
        #[track_caller]
        fn check(fate: Option<Fate>, expected: u32) {
            let mut released = 0;
            let claim = Claimed::new(Ticket::from_random(1), |_| released += 1);
            match fate {
                Some(fate) => claim.settle(fate),
                None => drop(claim),
            }
            assert_eq!(released, expected, "{fate:?}");
        }
        check(Some(Fate::Kept), 0);
        check(Some(Fate::Released), 1);
        check(None, 1);
    }

    fn outcomes() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Outcome::Taken),
            Just(Outcome::Declined),
            Just(Outcome::Failed),
            prop::sample::select(&Refused::ALL[..]).prop_map(Outcome::Refused),
            Just(Outcome::Gone),
            Just(Outcome::TimedOut),
        ]
    }

    proptest! {
        /// Whatever happens, two workers are asked at most.
        #[test]
        fn two_at_most(outcomes in prop::collection::vec(outcomes(), 2..6)) {
            let mut attempts = Attempts::default();
            let tries = outcomes
                .iter()
                .take_while(|outcome| matches!(attempts.after(&name("w"), **outcome), Next::Retry { .. }))
                .count();
            prop_assert!(tries <= 1);
        }
    }
}
