//! When a part that has died is started again. Pure.

use std::time::Duration;

/// The first pause: somebody who kills a part to see what happens wants to see it.
const FIRST: Duration = Duration::from_millis(500);
/// The longest.
const LONGEST: Duration = Duration::from_secs(10);
/// One that has lived as long was no failed start: the next pause is the first again.
const LIFE: Duration = Duration::from_secs(30);

/// Pauses that double while parts die young.
#[derive(Debug)]
pub(super) struct Restarts {
    next: Duration,
}

impl Default for Restarts {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Restarts {
    /// How long to wait after a process that has lived for this long.
    pub(super) fn pause(&mut self, lived: Duration) -> Duration {
        if lived >= LIFE {
            self.next = FIRST;
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_while_parts_die_young() {
        let mut restarts = Restarts::default();
        let lives = [1, 1, 1, 1, 1, 1, 1, 30, 1];
        let pauses: Vec<u128> =
            lives.into_iter().map(|lived| restarts.pause(Duration::from_secs(lived)).as_millis()).collect();
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 500, 1_000]);
    }
}
