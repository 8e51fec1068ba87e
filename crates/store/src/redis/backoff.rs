//! How long to wait before the next try.

use std::time::Duration;

/// Soon enough that a restart is noticed at once.
const FIRST: Duration = Duration::from_millis(50);
/// Rare enough that a thousand processes do not keep a store down that comes up.
const LONGEST: Duration = Duration::from_secs(2);

/// Waits that double, each drawn from its upper half so that processes do not try in step.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure. `random` is uniform over its range.
    pub(super) fn after_failure(&mut self, random: u32) -> Duration {
        let wait = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        wait / 2 + (wait / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// It worked.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_begin_again() {
        let mut backoff = Backoff::default();
        let mut waits = |random: u32| [(); 8].map(|()| backoff.after_failure(random).as_millis());
        assert_eq!(waits(u32::MAX), [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(waits(0), [1000; 8]);
        backoff.reset();
        assert_eq!(backoff.after_failure(0).as_millis(), 25);
        for _ in 0..100 {
            assert!(backoff.after_failure(7) <= LONGEST, "however often it fails");
        }
    }
}
