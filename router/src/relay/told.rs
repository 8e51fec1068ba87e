//! What this relay knows of the others' flows, for all of its threads.

use std::time::Instant;

use parking_lot::Mutex;
use streamfleet_relay::told::Told;
use streamfleet_relay::{Announced, FlowKey};

/// Looked at only when a client comes whose flow a thread does not have.
pub(super) struct Elsewhere {
    told: Mutex<Told>,
    started: Instant,
}

impl Elsewhere {
    pub(super) fn new(most: usize, started: Instant) -> Self {
        Self { told: Mutex::new(Told::new(most)), started }
    }

    pub(super) fn tell(&self, flows: impl IntoIterator<Item = Announced>) {
        let now = self.started.elapsed();
        let mut told = self.told.lock();
        flows.into_iter().for_each(|flow| told.tell(flow, now));
    }

    /// All that is known now.
    pub(super) fn all(&self) -> Vec<Announced> {
        self.told.lock().iter(self.started.elapsed()).collect()
    }

    pub(super) fn len(&self) -> usize {
        let mut told = self.told.lock();
        told.forget(self.started.elapsed());
        told.len()
    }
}

impl streamfleet_relay::Elsewhere for Elsewhere {
    fn find(&self, key: &FlowKey) -> Option<Announced> {
        self.told.lock().find(key, self.started.elapsed())
    }
}
