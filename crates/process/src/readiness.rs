//! Whether this process wants traffic, and if not, why.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// A shared answer to "ready?": ready while nothing holds it back.
///
/// Parts of a process take a [`Hold`] each, with a name that an operator reads in the probe's answer: `starting`,
/// `draining`, `store`. The names are code, not data, so their number is bounded by the program.
///
/// A [`Note`] is what an operator should know of a process that serves all the same: taking it out of service would help
/// nobody.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<Vec<(Weight, &'static str)>>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    Hold,
    Note,
}

impl Readiness {
    /// Ready until somebody says otherwise.
    pub fn new() -> Self {
        Self::default()
    }

    /// Not ready, for this reason, until the returned hold is dropped.
    #[must_use = "dropping the hold makes the process ready again"]
    pub fn hold(&self, reason: &'static str) -> Hold {
        self.0.lock().push((Weight::Hold, reason));
        Hold { readiness: self.clone(), reason }
    }

    /// Ready, and this is to be known, until the returned note is dropped.
    #[must_use = "dropping the note takes it back"]
    pub fn note(&self, what: &'static str) -> Note {
        self.0.lock().push((Weight::Note, what));
        Note { readiness: self.clone(), what }
    }

    /// What holds readiness back, sorted and without repetition; empty means ready.
    pub fn reasons(&self) -> Vec<&'static str> {
        self.of(Weight::Hold)
    }

    /// What is to be known besides, likewise.
    pub fn notes(&self) -> Vec<&'static str> {
        self.of(Weight::Note)
    }

    fn of(&self, weight: Weight) -> Vec<&'static str> {
        let all = self.0.lock();
        let some = all.iter().filter(|(found, _)| *found == weight).map(|(_, text)| *text);
        some.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn take_back(&self, weight: Weight, text: &'static str) {
        let mut all = self.0.lock();
        if let Some(at) = all.iter().position(|known| *known == (weight, text)) {
            all.swap_remove(at);
        }
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
        self.readiness.take_back(Weight::Hold, self.reason);
    }
}

/// One thing to be known, for as long as it lives.
#[derive(Debug)]
pub struct Note {
    readiness: Readiness,
    what: &'static str,
}

impl Drop for Note {
    fn drop(&mut self) {
        self.readiness.take_back(Weight::Note, self.what);
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
        let note = readiness.note("store");
        drop(again);
        assert_eq!(readiness.notes(), ["store"], "a note is no hold");
        check(&[]);
        drop(note);
        assert!(readiness.notes().is_empty());
        check(&[]);
        readiness.hold("draining").forever();
        check(&["draining"]);
    }
}
