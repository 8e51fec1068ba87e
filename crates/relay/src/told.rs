//! Flows that relays have told of: any of them may come here next.
//!
//! This relay's own are among them: the kernel may spread clients anew over its threads, and whoever begins asks any one relay for
//! all that is known.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;
use streamfleet_session::ufrag::SessionKey;

use crate::flows::{FlowKey, Target};
use crate::header::{SessionHandle, address_octets, address_of};
use crate::relay::Announced;

/// How long a flow is known that nobody tells of any more: it is told again every [`AGAIN`], and two tellings may be lost.
pub const LASTS: Duration = Duration::from_secs(30);
/// How often a relay tells of each flow that it has.
pub const AGAIN: Duration = Duration::from_secs(10);

/// Whose a flow is: that of the relay by which its client came last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// This relay's.
    Own,
    /// Another relay's.
    Others,
}

/// At most so many flows of either kind as it was made for; of more, those told of longest ago are forgotten.
pub struct Told {
    flows: HashMap<FlowKey, Known, RandomState>,
    /// By [`Whose`].
    kinds: [Kind; 2],
    most: usize,
}

/// All flows of one kind.
#[derive(Default)]
struct Kind {
    count: usize,
    /// When each telling is over, in milliseconds, the first first. Those that a later one has replaced say nothing.
    over: VecDeque<(u64, FlowKey)>,
}

/// Octets rather than addresses: there is one for each client of all relays.
struct Known {
    worker: [u8; 18],
    key: SessionKey,
    session: SessionHandle,
    whose: Whose,
    /// When it is over, and when its client was heard, in milliseconds. That may have been before the clock began.
    until: u64,
    heard: i64,
}

impl Known {
    fn is_of(&self, flow: &Announced) -> bool {
        (self.key, self.worker, self.session) == (flow.target.key, address_octets(flow.target.worker), flow.session)
    }

    fn flow(&self, name: &FlowKey, now: Duration) -> Announced {
        let (client, door) = name.parts();
        let target = Target { worker: address_of(&self.worker), key: self.key };
        let silent = u64::try_from(ago(now, Duration::ZERO) - self.heard).unwrap_or(0);
        Announced { client, door, target, session: self.session, silent: Duration::from_millis(silent) }
    }
}

impl Told {
    /// For at most `most` flows of either kind, of about 150 octets each.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { flows: HashMap::default(), kinds: Default::default(), most }
    }

    /// A relay has it. Where two tell of one client, he is there by whom he was heard last, in milliseconds; what they say is exact
    /// to a second. `now` never goes back.
    pub fn tell(&mut self, flow: Announced, whose: Whose, now: Duration) {
        self.forget(now);
        let name = FlowKey::new(flow.client, flow.door);
        let (until, heard) = (millis(now + LASTS), ago(now, flow.silent));
        let Announced { target: Target { worker, key }, session, .. } = flow;
        let known = Known { worker: address_octets(worker), key, session, whose, until, heard };
        let Some(before) = self.flows.get_mut(&name) else {
            self.flows.insert(name, known);
            self.kinds[whose as usize].count += 1;
            return self.is_over(until, name, whose);
        };
        let (was, was_until) = (before.whose, before.until);
        if heard >= before.heard {
            *before = known;
        } else if before.is_of(&flow) {
            // Two relays know of it, and he has left this one.
            before.until = until;
        } else {
            return;
        }
        let whose = before.whose;
        if whose != was {
            self.kinds[was as usize].count -= 1;
            self.kinds[whose as usize].count += 1;
        }
        // Said again within the same moment: one entry of the list stands for both.
        if (whose, until) != (was, was_until) {
            self.is_over(until, name, whose);
        }
    }

    fn is_over(&mut self, until: u64, name: FlowKey, whose: Whose) {
        self.kinds[whose as usize].over.push_back((until, name));
        while self.kinds[whose as usize].count > self.most || self.kinds[whose as usize].over.len() > 4 * self.most {
            self.forget_first(whose);
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn find(&self, key: &FlowKey, now: Duration) -> Option<Announced> {
        self.flows.get(key).filter(|known| known.until > millis(now)).map(|known| known.flow(key, now))
    }

    /// All that are known.
    pub fn iter(&self, now: Duration) -> impl Iterator<Item = Announced> {
        let known = self.flows.iter().filter(move |(_, known)| known.until > millis(now));
        known.map(move |(name, known)| known.flow(name, now))
    }

    /// How many of them are whose.
    #[must_use]
    pub fn count(&self, whose: Whose) -> usize {
        self.kinds[whose as usize].count
    }

    /// Forgets those that nobody has told of lately.
    pub fn forget(&mut self, now: Duration) {
        for whose in [Whose::Own, Whose::Others] {
            while self.kinds[whose as usize].over.front().is_some_and(|(until, _)| *until <= millis(now)) {
                self.forget_first(whose);
            }
        }
    }

    fn forget_first(&mut self, whose: Whose) {
        let Some((until, name)) = self.kinds[whose as usize].over.pop_front() else { return };
        if self.flows.get(&name).is_some_and(|known| (known.until, known.whose) == (until, whose)) {
            self.flows.remove(&name);
            self.kinds[whose as usize].count -= 1;
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A time so long before another, in milliseconds.
fn ago(now: Duration, silent: Duration) -> i64 {
    let signed = |time| i64::try_from(millis(time)).unwrap_or(i64::MAX);
    signed(now).saturating_sub(signed(silent))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    fn flow(client: u16, session: u32) -> Announced {
        let target = Target { worker: SocketAddr::from(([10, 0, 0, 1], 5000)), key: SessionKey::from_bytes([1; 16]) };
        let client = SocketAddr::from(([192, 0, 2, 1], client));
        Announced { client, door: 3478, target, session: SessionHandle(session), silent: Duration::ZERO }
    }

    fn key(client: u16) -> FlowKey {
        FlowKey::new(flow(client, 0).client, 3478)
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn silent(flow: Announced, seconds: u64) -> Announced {
        Announced { silent: at(seconds), ..flow }
    }

    #[test]
    fn what_is_not_told_again_is_forgotten() {
        let mut told = Told::new(10);
        told.tell(flow(1, 1), Whose::Others, at(0));
        told.tell(flow(2, 1), Whose::Others, at(0));
        told.tell(flow(1, 2), Whose::Others, at(20));
        assert_eq!(told.find(&key(1), at(30)), Some(silent(flow(1, 2), 10)));
        assert_eq!(told.find(&key(2), at(29)), Some(silent(flow(2, 1), 29)));
        assert_eq!(told.find(&key(2), at(30)), None);
        assert_eq!(told.iter(at(30)).collect::<Vec<_>>(), [silent(flow(1, 2), 10)]);
        told.forget(at(30));
        assert_eq!(told.count(Whose::Others), 1);
        told.forget(at(50));
        assert!(told.flows.is_empty() && told.kinds.iter().all(|kind| kind.over.is_empty()));
    }

    #[test]
    fn those_told_of_longest_ago_make_room() {
        let mut told = Told::new(3);
        for client in 1..6 {
            told.tell(flow(client, 0), Whose::Others, at(client.into()));
        }
        let known = [1, 2, 3, 4, 5].map(|client| told.find(&key(client), at(6)).is_some());
        assert_eq!(known, [false, false, true, true, true]);
    }

    /// Whatever this relay has, there is as much room for what the others have.
    #[test]
    fn each_kind_has_its_own_room() {
        let mut told = Told::new(3);
        for client in 1..=3 {
            told.tell(flow(client, 0), Whose::Others, at(1));
        }
        for client in 11..=20 {
            told.tell(flow(client, 0), Whose::Own, at(2));
        }
        assert_eq!((told.count(Whose::Others), told.count(Whose::Own)), (3, 3));
        assert!((1..=3).all(|client| told.find(&key(client), at(3)).is_some()));
    }

    #[test]
    fn who_has_heard_a_client_last_has_it() {
        /// Session, seconds of silence, whose.
        type Telling = (u32, u64, Whose);
        use Whose::{Others, Own};
        #[track_caller]
        fn check(second: Telling, expected: (u32, Whose)) {
            let mut told = Told::new(10);
            for (session, seconds, whose) in [(1, 5, Own), second] {
                told.tell(silent(flow(1, session), seconds), whose, at(20));
            }
            let counts = [Own, Others].map(|whose| usize::from(whose == expected.1));
            assert_eq!([Own, Others].map(|whose| told.count(whose)), counts, "{second:?}");
            assert_eq!(told.find(&key(1), at(20)).unwrap().session.0, expected.0, "{second:?}");
        }
        check((2, 4, Others), (2, Others));
        check((2, 5, Others), (2, Others));
        check((2, 6, Others), (1, Own));
        check((1, 4, Others), (1, Others));
        check((1, 6, Others), (1, Own));
        check((2, 6, Own), (1, Own));
        // Longer than the clock goes.
        check((2, 600, Others), (1, Own));
        // It lasts for as long as any relay tells of it, and a relay that it has left does not take it back.
        let mut told = Told::new(10);
        told.tell(flow(1, 1), Own, at(0));
        told.tell(flow(1, 1), Others, at(1));
        told.tell(silent(flow(1, 1), 10), Own, at(10));
        assert_eq!(told.count(Others), 1);
        assert!(told.find(&key(1), at(39)).is_some() && told.find(&key(1), at(40)).is_none());
        told.tell(silent(flow(1, 2), 12), Own, at(11));
        assert_eq!(told.find(&key(1), at(12)).unwrap().session, SessionHandle(1));
        told.forget(at(40));
        assert_eq!(told.count(Others), 0);
        // It comes back.
        told.tell(flow(1, 1), Others, at(50));
        told.tell(flow(1, 1), Own, at(51));
        assert_eq!((told.count(Others), told.count(Own)), (0, 1));
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(
            steps in proptest::collection::vec((0..9u16, 0..40u64, 0..12u64, any::<bool>()), 0..200),
            most in 1..5usize,
        ) {
            let (mut told, mut now) = (Told::new(most), Duration::ZERO);
            let mut last = HashMap::new();
            for (client, seconds, silence, own) in steps {
                now += at(seconds);
                told.tell(silent(flow(client, 7), silence), if own { Whose::Own } else { Whose::Others }, now);
                last.insert(client, now);
                for whose in [Whose::Own, Whose::Others] {
                    prop_assert!(told.count(whose) <= most && told.kinds[whose as usize].over.len() <= 4 * most);
                    prop_assert_eq!(told.flows.values().filter(|known| known.whose == whose).count(), told.count(whose));
                }
                prop_assert!(told.find(&key(client), now).is_some(), "the one told of last is known");
                for (client, at) in &last {
                    prop_assert!(told.find(&key(*client), now).is_none() || now - *at < LASTS);
                }
            }
        }
    }
}
