//! When to post an offer again: a pure back-off.

use std::time::Duration;

/// The first pause. A worker frees an id within a few milliseconds of a call's end, so the first repetition mostly hits.
const FIRST: Duration = Duration::from_millis(200);
/// The longest pause, unless the server names one.
const LONGEST: Duration = Duration::from_secs(4);
/// The longest pause that a server's `Retry-After` is believed.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// Doubling pauses with a random quarter more, so that the clients of a dead worker do not return in step.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    next: Duration,
    spent: Duration,
    budget: Duration,
}

impl Backoff {
    /// Pauses that together stay within `budget`.
    pub(crate) fn new(budget: Duration) -> Self {
        Self { next: FIRST, spent: Duration::ZERO, budget }
    }

    /// The pause before the next attempt; `None` when the budget is spent. `elapsed` is the time since the first
    /// attempt, `asked` the server's own wish, `random` uniform in 0..1.
    pub(crate) fn pause(&mut self, elapsed: Duration, asked: Option<Duration>, random: f64) -> Option<Duration> {
        let pause = match asked {
            Some(asked) => asked.clamp(FIRST, LONGEST_ASKED),
            None => {
                let pause = self.next.mul_f64(1.0 + random.clamp(0.0, 1.0) / 4.0);
                self.next = (self.next * 2).min(LONGEST);
                pause
            }
        };
        self.spent = elapsed.saturating_add(pause);
        (self.spent <= self.budget).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_end_with_the_budget() {
        let mut backoff = Backoff::new(Duration::from_secs(15));
        let mut elapsed = Duration::ZERO;
        let mut pauses = Vec::new();
        while let Some(pause) = backoff.pause(elapsed, None, 0.0) {
            elapsed += pause;
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 4000, 4000]);
    }

    #[test]
    fn a_server_may_ask_for_its_own_pause() {
        fn check(asked: u64, expected: Option<u64>) {
            let found =
                Backoff::new(Duration::from_secs(90)).pause(Duration::ZERO, Some(Duration::from_secs(asked)), 0.9);
            assert_eq!(found, expected.map(Duration::from_millis), "{asked} s");
        }
        check(0, Some(200));
        check(3, Some(3_000));
        check(86_400, Some(60_000));
        assert_eq!(Backoff::new(Duration::from_secs(2)).pause(Duration::ZERO, Some(Duration::from_secs(3)), 0.0), None);
    }

    proptest! {
        #[test]
        fn the_budget_is_never_exceeded(budget in 0u64..60_000, randoms in prop::collection::vec(0.0f64..1.0, 1..100)) {
            let budget = Duration::from_millis(budget);
            let mut backoff = Backoff::new(budget);
            let mut elapsed = Duration::ZERO;
            for random in randoms {
                let Some(pause) = backoff.pause(elapsed, None, random) else { break };
                elapsed += pause;
            }
            prop_assert!(elapsed <= budget);
        }
    }
}
