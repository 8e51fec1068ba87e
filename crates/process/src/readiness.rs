//! Whether this process wants traffic, and if not, why.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// A shared answer to "ready?": ready while nothing holds it back.
///
/// Parts of a process take a [`Hold`] each, with a name that an operator reads in the probe's answer: `starting`,
/// `draining`, `store`. The names are code, not data, so their number is bounded by the program.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<Vec<&'static str>>>);

impl Readiness {
    /// Ready until somebody says otherwise.
    pub fn new() -> Self {
        Self::default()
    }

    /// Not ready, for this reason, until the returned hold is dropped.
    #[must_use = "dropping the hold makes the process ready again"]
    pub fn hold(&self, reason: &'static str) -> Hold {
        self.0.lock().push(reason);
        Hold { readiness: self.clone(), reason }
    }

    /// What holds readiness back, sorted and without repetition; empty means ready.
    pub fn reasons(&self) -> Vec<&'static str> {
        self.0.lock().iter().copied().collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// One reason for not being ready, for as long as it lives.
#[derive(Debug)]
pub struct Hold {
    readiness: Readiness,
    reason: &'static str,
}

impl Hold {
    /// Makes the reason permanent: a process that drains never becomes ready again.
    pub fn forever(self) {
        std::mem::forget(self);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holds = self.readiness.0.lock();
        if let Some(at) = holds.iter().position(|reason| *reason == self.reason) {
            holds.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_nothing_holds_it_back() {
        let readiness = Readiness::new();
        let check = |expected: &[&str]| assert_eq!(readiness.reasons(), expected);
        check(&[]);
        let starting = readiness.hold("starting");
        let store = readiness.hold("store");
        let again = readiness.hold("store");
        check(&["starting", "store"]);
        drop(starting);
        drop(store);
        check(&["store"]);
        drop(again);
        check(&[]);
        readiness.hold("draining").forever();
        check(&["draining"]);
    }
}
