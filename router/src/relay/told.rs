//! What this relay knows of all relays' flows, for all of its threads.

use std::hash::BuildHasher as _;
use std::time::Instant;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use streamfleet_relay::told::{Told, Whose};
use streamfleet_relay::{Announced, FlowKey};

/// Parts of it, each with a lock of its own: a thread that looks for a client waits for one part at most, and that for as long as one
/// flow takes to enter.
const PARTS: usize = 64;

/// Looked at only when a client comes whose flow a thread does not have.
pub(super) struct Elsewhere {
    parts: Vec<Mutex<Told>>,
    hasher: RandomState,
    started: Instant,
}

impl Elsewhere {
    pub(super) fn new(most: usize, started: Instant) -> Self {
        // By chance one part has more than another: by six standard deviations at most.
        let even = most.div_ceil(PARTS);
        let each = even + 6 * even.isqrt();
        let parts = (0..PARTS).map(|_| Mutex::new(Told::new(each))).collect();
        Self { parts, hasher: RandomState::default(), started }
    }

    fn part(&self, key: &FlowKey) -> &Mutex<Told> {
        // The hash's high bits: the low ones choose a place within the part.
        &self.parts[(self.hasher.hash_one(key) >> 32) as usize % PARTS]
    }

    pub(super) fn tell(&self, flows: impl IntoIterator<Item = Announced>, whose: Whose) {
        let now = self.started.elapsed();
        for flow in flows {
            self.part(&FlowKey::new(flow.client, flow.door)).lock().tell(flow, whose, now);
        }
    }

    /// All that is known now, a part at a time.
    pub(super) fn all(&self) -> impl Iterator<Item = Vec<Announced>> {
        self.parts.iter().map(|part| part.lock().iter(self.started.elapsed()).collect())
    }

    pub(super) fn count(&self, whose: Whose) -> usize {
        let now = self.started.elapsed();
        let count = |part: &Mutex<Told>| {
            let mut told = part.lock();
            told.forget(now);
            told.count(whose)
        };
        self.parts.iter().map(count).sum()
    }
}

impl streamfleet_relay::Elsewhere for Elsewhere {
    fn find(&self, key: &FlowKey) -> Option<Announced> {
        self.part(key).lock().find(key, self.started.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use streamfleet_relay::{SessionHandle, Target};
    use streamfleet_session::ufrag::SessionKey;

    use super::*;

    /// However flows fall to its parts.
    #[test]
    fn as_many_are_known_as_it_was_made_for() {
        let target = Target { worker: SocketAddr::from(([10, 0, 0, 1], 5000)), key: SessionKey::from_bytes([1; 16]) };
        let flow = |n: u16| {
            let (client, session) = (SocketAddr::from(([192, 0, 2, 1], n)), SessionHandle(1));
            Announced { client, door: 3478, target, session, silent: Duration::ZERO }
        };
        for most in [1, 100, 1_000, 20_000] {
            let elsewhere = Elsewhere::new(usize::from(most), Instant::now());
            for whose in [Whose::Own, Whose::Others] {
                let first = if whose == Whose::Own { 0 } else { 30_000 };
                elsewhere.tell((first..first + most).map(flow), whose);
                assert_eq!(elsewhere.count(whose), usize::from(most));
            }
        }
    }
}
