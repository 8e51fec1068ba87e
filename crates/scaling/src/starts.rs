//! How long workers take from their creation until they serve.

use std::collections::VecDeque;
use std::time::Duration;

use crate::snapshot::Worker;
use crate::time::Moment;

/// Starts that are remembered: the twentieth part of them is a start or two, and a new image shows soon.
const REMEMBERED: usize = 32;

/// The longest that a start counts for: a pod that waits for a node for an hour says nothing of the next one.
const LONGEST: Duration = Duration::from_secs(600);

/// The last starts of a service's workers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Starts {
    durations: VecDeque<Duration>,
    /// When the latest of them ended.
    until: Moment,
}

impl Starts {
    /// Remembers the starts that are new.
    pub(crate) fn learn<Id>(&mut self, workers: &[Worker<Id>]) {
        let ended = |worker: &Worker<Id>| worker.start.map(|start| (worker.created + start, start));
        // Nearly always there is none.
        if !workers.iter().any(|worker| ended(worker).is_some_and(|(end, _)| end > self.until)) {
            return;
        }
        let mut new: Vec<_> = workers.iter().filter_map(ended).filter(|(end, _)| *end > self.until).collect();
        new.sort_unstable();
        for (end, start) in new {
            self.durations.push_back(start.min(LONGEST));
            self.until = end;
        }
        while self.durations.len() > REMEMBERED {
            self.durations.pop_front();
        }
    }

    /// The duration that nineteen of twenty do not exceed; `None` while none is known.
    pub(crate) fn p95(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.durations.iter().copied().collect();
        sorted.sort_unstable();
        // The nearest rank.
        sorted.get((sorted.len() * 95).div_ceil(100).checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(created: u64, start: u64) -> Worker<u64> {
        Worker::serving(created, Moment::from_millis(created * 1_000), Duration::from_secs(start), 0, 20)
    }

    #[test]
    fn nineteen_of_twenty_are_not_slower() {
        let mut starts = Starts::default();
        assert_eq!(starts.p95(), None);
        starts.learn(&[Worker::starting(1, Moment::from_millis(5), 20)]);
        assert_eq!(starts.p95(), None, "a start that has not ended is none");
        starts.learn(&[worker(0, 7)]);
        assert_eq!(starts.p95(), Some(Duration::from_secs(7)));
        let workers: Vec<_> = (1..=20).map(|n| worker(100, n)).collect();
        starts.learn(&workers);
        // 21 of them: the twentieth.
        assert_eq!(starts.p95(), Some(Duration::from_secs(19)));
    }

    /// One that is seen at each decision counts once; only the last ones count.
    #[test]
    fn a_start_counts_once_and_is_forgotten() {
        let mut starts = Starts::default();
        let slow = worker(0, 500);
        for _ in 0..100 {
            starts.learn(std::slice::from_ref(&slow));
        }
        assert_eq!(starts.durations.len(), 1);
        for n in 0..40 {
            starts.learn(&[slow.clone(), worker(1_000 + n, 9)]);
            assert!(starts.durations.len() <= REMEMBERED);
        }
        assert_eq!(starts.p95(), Some(Duration::from_secs(9)));
        starts.learn(&[worker(9_000, 100_000)]);
        assert_eq!(starts.durations.back(), Some(&LONGEST));
        assert_eq!(starts.p95(), Some(Duration::from_secs(9)), "one of 32 is no rule");
    }
}
