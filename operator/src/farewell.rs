//! How long the last sessions of a worker have that drains for longer than it may.
//!
//! That is measured, and not read from anywhere: clocks of two operators differ, and one may be put forward. An operator that begins to
//! lead gives them all of it once more.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use streamfleet_store::{Gate, Order, WorkerView};

use crate::facts::PodFacts;
use crate::workers::Views;

/// From when a worker has heard that its clients are to go elsewhere; and for one that the store does not know, to come back.
pub const FAREWELL: Duration = Duration::from_secs(60);

/// What a worker that drains for too long waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// Its clients to go: it has heard this order. Whoever is put back and drains again gets another one.
    Clients(Order),
    /// Nothing: the store does not know it, and nobody can ask it.
    Nobody,
}

impl Last {
    /// What the store tells of a worker; nothing if that has still to be asked, or to hear.
    fn of(view: Option<&WorkerView>) -> Option<Self> {
        let Some(view) = view else { return Some(Self::Nobody) };
        (view.gate == Gate::Leaving && view.has_heard()).then_some(Self::Clients(view.order))
    }
}

/// Since when workers have their last time, by their pods' uids.
#[derive(Debug, Default)]
pub struct Farewells(HashMap<String, (Last, Instant)>);

impl Farewells {
    /// Takes what the store tells of the workers that drain for too long, and returns the uids of those that have had their time. To be
    /// asked with each look at which the store answers: what is known of one that is not among them is forgotten.
    pub fn look<'a>(
        &mut self,
        overdue: impl Iterator<Item = &'a PodFacts>,
        views: &Views<'_>,
        now: Instant,
    ) -> HashSet<&'a str> {
        let mut known = HashMap::new();
        let mut over = HashSet::new();
        for pod in overdue {
            let Some(last) = Last::of(views.get(&pod.name)) else { continue };
            let since = self.0.get(&pod.uid).filter(|(before, _)| *before == last).map_or(now, |(_, since)| *since);
            if now.duration_since(since) > FAREWELL {
                over.insert(pod.uid.as_str());
            }
            known.insert(pod.uid.clone(), (last, since));
        }
        self.0 = known;
        over
    }
}

#[cfg(test)]
mod tests {
    use streamfleet_store::Heartbeat;

    use super::*;
    use crate::doubles::{self, NOW};
    use crate::facts::Stage;

    fn view(gate: Gate, order: u64, heard: u64) -> WorkerView {
        let view = doubles::view("a", gate, 1);
        let said = view.said.map(|said| Heartbeat { heard: Order(heard), ..said });
        WorkerView { order: Order(order), said, ..view }
    }

    /// What the store tells, second by second from a beginning; when its time is over, if it is.
    #[track_caller]
    fn check(told: impl Fn(u64) -> Option<WorkerView>, expected: Option<u64>) {
        let (pod, begun) = (doubles::pod("a", Stage::Ready(NOW)), Instant::now());
        let mut farewells = Farewells::default();
        let over = (0..300).find(|second| {
            let views: Vec<_> = told(*second).into_iter().collect();
            let now = begun + Duration::from_secs(*second);
            farewells.look([&pod].into_iter(), &Views::of(&views), now).contains("uid-a")
        });
        assert_eq!(over, expected);
    }

    #[test]
    fn it_begins_when_the_worker_has_heard() {
        check(|_| Some(view(Gate::Leaving, 7, 7)), Some(61));
        check(|_| Some(view(Gate::Draining, 7, 7)), None);
        check(|_| Some(view(Gate::Leaving, 8, 7)), None);
        check(|_| Some(WorkerView { said: None, ..view(Gate::Leaving, 7, 7) }), None);
        check(|second| Some(view(Gate::Leaving, 7, if second < 100 { 6 } else { 7 })), Some(161));
        // It was put back, and drains again.
        check(
            |second| Some(if second < 50 { view(Gate::Leaving, 7, 7) } else { view(Gate::Leaving, 9, 9) }),
            Some(111),
        );
    }

    #[test]
    fn whom_the_store_does_not_know_may_come_back() {
        check(|_| None, Some(61));
        check(|second| (second == 30).then(|| view(Gate::Draining, 7, 7)), Some(92));
        check(|second| (second >= 60).then(|| view(Gate::Leaving, 7, 7)), Some(121));
    }

    #[test]
    fn whoever_is_not_overdue_any_more_is_forgotten() {
        let (pod, begun) = (doubles::pod("a", Stage::Ready(NOW)), Instant::now());
        let mut farewells = Farewells::default();
        farewells.look([&pod].into_iter(), &Views::default(), begun);
        farewells.look(std::iter::empty(), &Views::default(), begun);
        assert!(farewells.0.is_empty());
        let later = begun + 2 * FAREWELL;
        assert!(farewells.look([&pod].into_iter(), &Views::default(), later).is_empty(), "it has its time anew");
    }
}
