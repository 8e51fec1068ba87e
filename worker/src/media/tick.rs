//! How long the loop may sleep before it looks for packets again.
//!
//! Woken by every packet, the loop would pay a poll, a recvmmsg and a sendmmsg for each. Letting packets gather shares
//! those calls; it costs each packet half a tick of delay. With few packets a second there is nothing to share, and
//! the loop is woken at once.

use std::time::Duration;

/// The longest tick. Two passes of it (in and out of a handler) stay far below a 20 ms packet.
const MAX_TICK: Duration = Duration::from_millis(1);
/// Packets that a tick should gather: beyond, the shared calls are a small part of a packet's cost.
const ENOUGH: f64 = 16.0;
/// Below this many in the longest tick, waiting shares nothing worth its delay.
const WORTH_IT: f64 = 2.0;
/// Weight of one observation in the packet rate, by the time that it covers.
const MEMORY: Duration = Duration::from_millis(100);

/// Follows the packet rate and says how long to let packets gather.
#[derive(Debug, Default)]
pub(crate) struct Ticker {
    /// Packets a second.
    rate: f64,
}

impl Ticker {
    /// `packets` came in `elapsed`.
    pub(crate) fn observe(&mut self, packets: usize, elapsed: Duration) {
        let elapsed = elapsed.as_secs_f64();
        if elapsed <= 0.0 {
            return;
        }
        let weight = 1.0 - (-elapsed / MEMORY.as_secs_f64()).exp();
        self.rate += weight * (packets as f64 / elapsed - self.rate);
    }

    /// Zero: wait for the next packet.
    pub(crate) fn tick(&self) -> Duration {
        if self.rate * MAX_TICK.as_secs_f64() < WORTH_IT {
            Duration::ZERO
        } else {
            MAX_TICK.min(Duration::from_secs_f64(ENOUGH / self.rate))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick_at(rate: usize) -> Duration {
        let mut ticker = Ticker::default();
        for _ in 0..10_000 {
            ticker.observe(rate / 1_000, Duration::from_millis(1));
        }
        ticker.tick()
    }

    #[test]
    fn gathers_only_what_is_worth_it() {
        assert_eq!(tick_at(0), Duration::ZERO);
        assert_eq!(tick_at(1_000), Duration::ZERO);
        assert_eq!(tick_at(5_000), MAX_TICK);
        assert_eq!(tick_at(16_000), MAX_TICK);
        let busy = tick_at(64_000);
        assert!(busy > Duration::from_micros(240) && busy < Duration::from_micros(260), "{busy:?}");
    }

    #[test]
    fn forgets_a_burst() {
        let mut ticker = Ticker::default();
        ticker.observe(1_000, Duration::from_millis(1));
        for _ in 0..100 {
            ticker.observe(0, Duration::from_millis(10));
        }
        assert_eq!(ticker.tick(), Duration::ZERO);
    }
}
