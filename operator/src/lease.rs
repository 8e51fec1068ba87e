//! Who leads: one operator of an installation acts, the others wait. A Lease (`coordination.k8s.io`) says which.
//!
//! The decision is pure. Clocks of different machines are not compared: another's lease counts from when this process has
//! seen it change, as client-go does it.
//!
//! A leader that cannot renew stops acting before anybody else may begin, and goes on if nobody has. One whose lease was taken
//! by another ends its process: what it remembers is not how things are any more.

use std::time::{Duration, Instant};

/// The longest lease. Whoever says more is no operator, and is not waited for longer.
pub const LONGEST: Duration = Duration::from_secs(120);

/// How long leases last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long others wait for a sign of the leader's life.
    pub duration: Duration,
    /// How long a leader acts without having renewed. Shorter than `duration`: what is under way has to end in between.
    pub deadline: Duration,
    /// How often it renews, and others look.
    pub retry: Duration,
}

impl Default for Terms {
    /// client-go's, but for the time between the two: a request that a leader has sent at its last moment ends in it.
    fn default() -> Self {
        Self { duration: Duration::from_secs(25), deadline: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// A lease as the API server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who has it; empty if it was given back.
    pub holder: String,
    /// Of the object: it changes with each renewal.
    pub version: String,
    /// How often it has changed hands.
    pub transitions: i32,
    /// What its holder said about how long others have to wait.
    pub duration: Option<Duration>,
}

/// What to do about the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// There is none: make it.
    Create,
    /// Write ourselves in, over this version; `transitions` is what to write.
    Take {
        /// The version that it must still have.
        version: String,
        /// How often it has changed hands then.
        transitions: i32,
    },
    /// Somebody else leads.
    Wait,
    /// Somebody else leads who did not before: we did.
    Lost,
}

/// What one operator knows of the lease.
#[derive(Debug, Clone)]
pub struct Candidate {
    identity: String,
    terms: Terms,
    /// The version that was seen last, and when it was first seen.
    seen: Option<(String, Instant)>,
    /// When our last renewal was sent that succeeded.
    renewed: Option<Instant>,
    /// Whether somebody else has written since.
    doubted: bool,
}

impl Candidate {
    /// One that has seen nothing. `identity` is unique among operators.
    #[must_use]
    pub fn new(identity: String, terms: Terms) -> Self {
        Self { identity, terms, seen: None, renewed: None, doubted: false }
    }

    /// What follows from the lease as it is, read at `now`.
    pub fn look(&mut self, lease: Option<&Seen>, now: Instant) -> Act {
        let Some(lease) = lease else {
            return Act::Create;
        };
        if self.seen.as_ref().is_none_or(|(version, _)| *version != lease.version) {
            self.seen = Some((lease.version.clone(), now));
        }
        let take = |transitions| Act::Take { version: lease.version.clone(), transitions };
        if lease.holder == self.identity {
            return take(lease.transitions);
        }
        if self.renewed.is_some() {
            return Act::Lost;
        }
        let since = self.seen.as_ref().map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(*since));
        if lease.holder.is_empty() || since >= lease.duration.unwrap_or(self.terms.duration).min(LONGEST) {
            return take(lease.transitions.saturating_add(1));
        }
        Act::Wait
    }

    /// The lease could not be read: whether its holder has renewed it meanwhile is not known, so it is waited for anew. Whoever could
    /// not read could not be written to either, and an API server that is back is the holder's as much as ours.
    pub fn blind(&mut self) {
        self.seen = None;
    }

    /// What was written at `sent` was taken.
    pub fn written(&mut self, sent: Instant) {
        self.renewed = Some(sent);
        self.doubted = false;
    }

    /// What was written was not taken, because it is not as we have left it: another one may lead by now, and has not had to wait for
    /// us if the lease was emptied or taken away. Until it is ours again we do nothing.
    pub fn doubt(&mut self) {
        self.doubted = true;
    }

    /// Until when this operator may act; `None` if it does not lead. From the time at which the renewal was sent: the
    /// API server may have taken it any time after.
    #[must_use]
    pub fn leads_until(&self) -> Option<Instant> {
        self.renewed.filter(|_| !self.doubted).map(|renewed| renewed + self.terms.deadline)
    }

    /// When to look again.
    #[must_use]
    pub fn retry(&self) -> Duration {
        self.terms.retry
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(holder: &str, version: u32) -> Seen {
        Seen { holder: holder.to_owned(), version: version.to_string(), transitions: 3, duration: None }
    }

    fn take(version: u32, transitions: i32) -> Act {
        Act::Take { version: version.to_string(), transitions }
    }

    #[test]
    fn another_lease_is_taken_when_its_holder_is_silent_or_has_gone() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut me = Candidate::new("me".to_owned(), Terms::default());
        assert_eq!(me.look(None, at(0)), Act::Create);
        assert_eq!(me.look(Some(&seen("other", 1)), at(0)), Act::Wait);
        assert_eq!(me.look(Some(&seen("other", 2)), at(24)), Act::Wait, "it lives");
        assert_eq!(me.look(Some(&seen("other", 2)), at(48)), Act::Wait, "24 seconds");
        assert_eq!(me.look(Some(&seen("other", 2)), at(49)), take(2, 4));
        assert_eq!(me.look(Some(&seen("", 3)), at(49)), take(3, 4), "given back");
        let forever = Seen { duration: Some(Duration::MAX), ..seen("ghost", 9) };
        let mut other = Candidate::new("other".to_owned(), Terms::default());
        let acts = [0, 119, 120].map(|second| other.look(Some(&forever), at(second)));
        assert_eq!(acts, [Act::Wait, Act::Wait, take(9, 4)]);
        assert_eq!(me.leads_until(), None, "nothing was written yet");
        me.written(at(49));
        assert_eq!(me.leads_until(), Some(at(59)));
        assert_eq!(me.look(Some(&seen("me", 4)), at(51)), take(4, 3), "renewed");
        assert_eq!(me.look(Some(&seen("me", 4)), at(99)), take(4, 3), "nobody has taken it meanwhile");
        assert_eq!(me.look(Some(&seen("other", 5)), at(99)), Act::Lost);
        assert_eq!(me.look(Some(&seen("", 6)), at(99)), Act::Lost, "somebody had it in between");
    }

    /// While the API server is away nobody can renew: the first one to reach it again is not to take what the other is about to keep.
    #[test]
    fn who_could_not_read_waits_anew() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut me = Candidate::new("me".to_owned(), Terms::default());
        assert_eq!(me.look(Some(&seen("other", 1)), at(0)), Act::Wait);
        me.blind();
        assert_eq!(me.look(Some(&seen("other", 1)), at(60)), Act::Wait, "it is back, and so is its holder");
        assert_eq!(me.look(Some(&seen("other", 1)), at(84)), Act::Wait);
        assert_eq!(me.look(Some(&seen("other", 1)), at(85)), take(1, 4));
        me.written(at(85));
        me.blind();
        assert_eq!(me.leads_until(), Some(at(95)), "what a leader has, it has");
        assert_eq!(me.look(Some(&seen("me", 2)), at(90)), take(2, 3));
    }

    /// `helm upgrade --force` makes the lease anew: another one takes it at once, and the leader went on for ten seconds.
    #[test]
    fn who_finds_that_somebody_else_has_written_does_nothing_until_it_knows() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let check = |then: Option<Seen>, expected: Act| {
            let mut me = Candidate::new("me".to_owned(), Terms::default());
            me.written(at(0));
            me.doubt();
            assert_eq!(me.leads_until(), None);
            assert_eq!(me.look(then.as_ref(), at(2)), expected, "{then:?}");
            assert_eq!(me.leads_until(), None, "nothing was written yet");
            me.written(at(2));
            assert_eq!(me.leads_until(), Some(at(12)));
        };
        check(Some(seen("me", 2)), take(2, 3));
        check(None, Act::Create);
        check(Some(seen("other", 2)), Act::Lost);
        check(Some(seen("", 2)), Act::Lost);
    }

    #[test]
    fn the_holder_says_how_long_to_wait() {
        let start = Instant::now();
        let mut me = Candidate::new("me".to_owned(), Terms::default());
        let slow = Seen { duration: Some(Duration::from_secs(60)), ..seen("other", 1) };
        assert_eq!(me.look(Some(&slow), start), Act::Wait);
        assert_eq!(me.look(Some(&slow), start + Duration::from_secs(59)), Act::Wait);
        assert_eq!(me.look(Some(&slow), start + Duration::from_secs(60)), take(1, 4));
    }

    /// Two operators and a lease, in virtual time: requests take time, get lost, and their clocks begin anywhere.
    #[derive(Debug, Clone)]
    enum Move {
        /// One of them looks, and its write arrives this many milliseconds later, or never.
        Look(usize, Option<u64>),
        /// Time passes.
        Pass(u64),
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let one = prop_oneof![
            3 => (0..2_usize, prop::option::weighted(0.8, 0..3_000_u64)).prop_map(|(who, delay)| Move::Look(who, delay)),
            2 => (0..6_000_u64).prop_map(Move::Pass),
        ];
        prop::collection::vec(one, 0..120)
    }

    proptest! {
        #[test]
        fn two_never_act_at_the_same_time(moves in moves()) {
            let mut now = Instant::now();
            let mut candidates = ["a", "b"].map(|name| Candidate::new(name.to_owned(), Terms::default()));
            let mut lost = [false; 2];
            let mut lease: Option<Seen> = None;
            let mut version = 0;
            for step in moves {
                match step {
                    Move::Pass(ms) => now += Duration::from_millis(ms),
                    Move::Look(who, _) if lost[who] => {}
                    Move::Look(who, delay) => {
                        let sent = now;
                        let act = candidates[who].look(lease.as_ref(), now);
                        if act == Act::Lost {
                            lost[who] = true;
                            continue;
                        }
                        let (expected, transitions) = match act {
                            Act::Create => (None, 0),
                            Act::Take { version, transitions } => (Some(version), transitions),
                            _ => continue,
                        };
                        let Some(delay) = delay else { continue };
                        now += Duration::from_millis(delay);
                        // Optimistic concurrency: the API server takes it if the version is still that.
                        if lease.as_ref().map(|lease| lease.version.clone()) == expected {
                            version += 1;
                            let holder = ["a", "b"][who].to_owned();
                            lease = Some(Seen { holder, version: version.to_string(), transitions, duration: None });
                            candidates[who].written(sent);
                        }
                    }
                }
                let acting = (0..2).filter(|&n| !lost[n] && candidates[n].leads_until().is_some_and(|until| now < until));
                prop_assert!(acting.count() <= 1);
            }
        }
    }
}
