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
