//! How much later than the fastest packet audio is played: what the network and the repair of losses ask for.

use std::time::Duration;

use super::clock::Clock;
use super::queue::Redundancy;
use crate::delay::{DelayBounds, DelayEstimator};

/// Loss above which the delay makes room for repair by the next packet.
const REPAIR_LOSS: f32 = 0.01;
/// Redundancy above which repair is likely enough to be worth that room.
const REPAIR_SHARE: f32 = 0.25;
/// Losses that one gap counts for at most: a longer one is an outage, which says little of what comes next.
const MAX_GAP: u64 = 16;

/// The delay aimed at, and the delay that a moment of playout stands for. Times in microseconds, media time in ticks.
#[derive(Debug)]
pub(super) struct Target {
    clock: Clock,
    bounds: DelayBounds,
    estimator: DelayEstimator,
    /// Recent loss, 0.0 to 1.0.
    loss: f32,
    /// Recent packets that could repair their predecessor, 0.0 to 1.0.
    redundancy: f32,
    /// Length of the last packet.
    packet_ticks: u32,
}

impl Target {
    pub(super) fn new(clock: Clock, bounds: DelayBounds) -> Self {
        Self { clock, bounds, estimator: DelayEstimator::new(), loss: 0.0, redundancy: 0.0, packet_ticks: 0 }
    }

    /// A packet has arrived, with `ticks` of audio from media time `media` on.
    pub(super) fn observe(&mut self, arrival: i64, media: i64, ticks: u32, redundancy: Redundancy) {
        self.estimator.observe(arrival, self.clock.to_micros(media), self.clock.to_micros(i64::from(ticks)));
        self.packet_ticks = ticks;
        let carries = f32::from(u8::from(redundancy == Redundancy::Previous));
        self.redundancy += (carries - self.redundancy) / 16.0;
    }

    /// The media clock was mapped anew.
    pub(super) fn remapped(&mut self) {
        self.estimator.remapped();
    }

    /// A packet is played, and so many before it have not come.
    pub(super) fn played(&mut self, missing: u64) {
        for _ in 0..missing.min(MAX_GAP) {
            self.loss += (1.0 - self.loss) / 64.0;
        }
        self.loss -= self.loss / 64.0;
    }

    /// Media time of a packet that arrives now as fast as the fastest; `None` before the first.
    pub(super) fn media_at(&self, arrival: i64) -> Option<i64> {
        self.estimator.base().map(|base| self.clock.to_ticks(arrival - base))
    }

    /// Delay of playing `media` at `at`, compared with the fastest recent packet.
    pub(super) fn delay(&self, at: i64, media: i64) -> i64 {
        self.estimator.base().map_or(0, |base| at - base - self.clock.to_micros(media))
    }

    /// When `media` should be played.
    pub(super) fn due(&self, media: i64, now: i64) -> i64 {
        self.estimator.base().unwrap_or(now) + self.clock.to_micros(media) + self.aim()
    }

    /// The delay aimed at.
    pub(super) fn aim(&self) -> i64 {
        let network = self.estimator.target();
        let repair = if self.loss > REPAIR_LOSS && self.redundancy > REPAIR_SHARE {
            // A lost packet can be repaired only if the next one is there when its own time comes.
            network + self.clock.to_micros(i64::from(self.packet_ticks))
        } else {
            0
        };
        network.max(repair).clamp(micros(self.bounds.min), self.most())
    }

    /// The largest delay there may be.
    pub(super) fn most(&self) -> i64 {
        micros(self.bounds.max)
    }

    /// Interarrival jitter (RFC 3550, 6.4.1).
    pub(super) fn jitter(&self) -> Duration {
        Duration::from_micros(self.estimator.jitter() as u64)
    }
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The target after 100 packets of 20 ms on a clean network, with this redundancy and every `nth` of them lost.
    fn aim(redundancy: Redundancy, nth: Option<i64>) -> i64 {
        let mut target = Target::new(Clock::new(48_000), DelayBounds { min: Duration::ZERO, ..DelayBounds::default() });
        let mut missing = 0;
        for packet in 0..100 {
            if nth.is_some_and(|nth| packet % nth == 1) {
                missing += 1;
                continue;
            }
            target.observe(packet * 20_000 + 50_000, packet * 960, 960, redundancy);
            target.played(missing);
            missing = 0;
        }
        target.aim()
    }

    #[test]
    fn room_for_repair_is_made_where_there_is_something_to_repair_and_to_repair_with() {
        fn check(redundancy: Redundancy, nth: Option<i64>, expected: i64) {
            assert_eq!(aim(redundancy, nth), expected, "{redundancy:?}, every {nth:?}th lost");
        }
        let network = aim(Redundancy::None, None);
        check(Redundancy::Previous, None, network);
        check(Redundancy::None, Some(10), network);
        check(Redundancy::Previous, Some(10), network + 20_000);
    }
}
