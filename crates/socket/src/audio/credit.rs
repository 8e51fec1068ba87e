//! How much audio a client may send: a token bucket in time.

use std::time::{Duration, Instant};

/// What a client gains on our clock, in parts of the time that passed. Sound cards differ by a few hundred parts per
/// million; a hundredth is far from them and far from ten times real time.
const DRIFT: u32 = 100;

const NANOS: u128 = 1_000_000_000;

/// Time that may be taken now; grows with the clock up to its bound.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credit {
    bound: Duration,
    level: Duration,
    at: Option<Instant>,
}

impl Credit {
    /// Full.
    pub(super) const fn new(bound: Duration) -> Self {
        Self { bound, level: bound, at: None }
    }

    /// Samples at `rate` Hz that may be taken now.
    pub(super) fn affords(&mut self, now: Instant, rate: u32) -> usize {
        self.refill(now);
        usize::try_from(self.level.as_nanos() * u128::from(rate) / NANOS).unwrap_or(usize::MAX)
    }

    /// Takes them.
    pub(super) fn spend(&mut self, samples: usize, rate: u32) {
        let cost = (samples as u128 * NANOS).div_ceil(u128::from(rate.max(1)));
        self.level = self.level.saturating_sub(Duration::from_nanos(u64::try_from(cost).unwrap_or(u64::MAX)));
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(*self.at.get_or_insert(now));
        self.at = self.at.max(Some(now));
        self.level = self.level.saturating_add(passed).saturating_add(passed / DRIFT).min(self.bound);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_real_time_and_a_burst() {
        let start = Instant::now();
        let mut credit = Credit::new(Duration::from_secs(5));
        let mut check = |at: u64, asked: usize, expected: usize| {
            let granted = credit.affords(start + Duration::from_millis(at), 8_000).min(asked);
            credit.spend(granted, 8_000);
            assert_eq!(granted, expected, "at {at} ms");
        };
        check(0, 48_000, 40_000);
        check(0, 1, 0);
        // One hundredth more than has passed.
        check(1_000, 80_000, 8_080);
        // A clock that goes back gives nothing.
        check(500, 80_000, 0);
        check(1_000, 80_000, 0);
        // Never more than the burst.
        check(3_600_000, 80_000, 40_000);
    }
}
