//! Flows that other relays have told of: any of them may come here next.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::flows::FlowKey;
use crate::relay::Announced;

/// How long a flow is known that nobody tells of any more: it is told again every [`AGAIN`], and two tellings may be lost.
pub const LASTS: Duration = Duration::from_secs(30);
/// How often a relay tells of each flow that it has.
pub const AGAIN: Duration = Duration::from_secs(10);

/// At most so many flows as it was made for; of more, those told of longest ago are forgotten.
pub struct Told {
    flows: HashMap<FlowKey, Known, RandomState>,
    /// When each telling is over, the first first. Those that a later one has replaced say nothing.
    over: VecDeque<(Duration, FlowKey)>,
    most: usize,
}

struct Known {
    flow: Announced,
    until: Duration,
}

impl Told {
    /// For at most `most` flows, of about 200 octets each.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { flows: HashMap::default(), over: VecDeque::new(), most }
    }

    /// Another relay has it. `now` never goes back.
    pub fn tell(&mut self, flow: Announced, now: Duration) {
        self.forget(now);
        let (key, until) = (FlowKey::new(flow.client, flow.door), now + LASTS);
        let known = self.flows.insert(key, Known { flow, until });
        // Said again within the same moment: one entry of the list stands for both.
        if known.is_none_or(|known| known.until != until) {
            self.over.push_back((until, key));
        }
        while self.flows.len() > self.most || self.over.len() > 4 * self.most {
            self.forget_first();
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn find(&self, key: &FlowKey, now: Duration) -> Option<Announced> {
        self.flows.get(key).filter(|known| known.until > now).map(|known| known.flow)
    }

    /// All that are known.
    pub fn iter(&self, now: Duration) -> impl Iterator<Item = Announced> {
        self.flows.values().filter(move |known| known.until > now).map(|known| known.flow)
    }

    /// How many are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Forgets those that nobody has told of lately.
    pub fn forget(&mut self, now: Duration) {
        while self.over.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some((until, key)) = self.over.pop_front() else { return };
        if self.flows.get(&key).is_some_and(|known| known.until == until) {
            self.flows.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::flows::Target;
    use crate::header::SessionHandle;
    use streamfleet_session::ufrag::SessionKey;

    fn flow(client: u16, session: u32) -> Announced {
        let target = Target { worker: SocketAddr::from(([10, 0, 0, 1], 5000)), key: SessionKey::from_bytes([1; 16]) };
        let client = SocketAddr::from(([192, 0, 2, 1], client));
        Announced { client, door: 3478, target, session: SessionHandle(session) }
    }

    fn key(client: u16) -> FlowKey {
        FlowKey::new(flow(client, 0).client, 3478)
    }

    #[test]
    fn what_is_not_told_again_is_forgotten() {
        let (mut told, at) = (Told::new(10), Duration::from_secs);
        told.tell(flow(1, 1), at(0));
        told.tell(flow(2, 1), at(0));
        told.tell(flow(1, 2), at(20));
        assert_eq!(told.find(&key(1), at(30)), Some(flow(1, 2)));
        assert_eq!(told.find(&key(2), at(29)), Some(flow(2, 1)));
        assert_eq!(told.find(&key(2), at(30)), None);
        assert_eq!(told.iter(at(30)).collect::<Vec<_>>(), [flow(1, 2)]);
        told.forget(at(30));
        assert_eq!(told.len(), 1);
        told.forget(at(50));
        assert!(told.is_empty() && told.over.is_empty());
    }

    #[test]
    fn those_told_of_longest_ago_make_room() {
        let mut told = Told::new(3);
        for client in 1..6 {
            told.tell(flow(client, 0), Duration::from_secs(client.into()));
        }
        let now = Duration::from_secs(6);
        assert_eq!(
            [1, 2, 3, 4, 5].map(|client| told.find(&key(client), now).is_some()),
            [false, false, true, true, true]
        );
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(steps in proptest::collection::vec((0..9u16, 0..40u64), 0..200), most in 1..5usize) {
            let (mut told, mut now) = (Told::new(most), Duration::ZERO);
            let mut last = HashMap::new();
            for (client, seconds) in steps {
                now += Duration::from_secs(seconds);
                told.tell(flow(client, 7), now);
                last.insert(client, now);
                prop_assert!(told.len() <= most && told.over.len() <= 4 * most);
                prop_assert!(told.find(&key(client), now).is_some(), "the one told of last is known");
                for (client, at) in &last {
                    prop_assert!(told.find(&key(*client), now).is_none() || now - *at < LASTS);
                }
            }
        }
    }
}
