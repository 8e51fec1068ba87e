//! How long packets have to wait so that (almost) all of them arrive in time.
//!
//! The unit of measure is a packet's *lateness*: its arrival compared with that of the fastest packet of the last
//! seconds, by RTP timestamps. Its distribution is kept in a histogram that forgets; the target is a high quantile.

use std::time::Duration;

use crate::AudioError;

/// Limits of the playout delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DelayBounds {
    /// Never less than this, even on a perfect network. 20 ms lets the next packet arrive before a lost one is missed.
    pub min: Duration,
    /// Never more than this; what arrives later is lost.
    pub max: Duration,
}

impl DelayBounds {
    /// The largest upper bound: half of what the packet queue holds at 20 ms a packet.
    pub const LIMIT: Duration = Duration::from_millis(600);

    pub(crate) fn check(self) -> Result<Self, AudioError> {
        if self.min <= self.max && self.max >= Duration::from_millis(20) && self.max <= Self::LIMIT {
            Ok(self)
        } else {
            Err(AudioError::DelayBounds { min: self.min, max: self.max })
        }
    }
}

impl Default for DelayBounds {
    fn default() -> Self {
        Self { min: Duration::from_millis(20), max: Duration::from_millis(200) }
    }
}

/// Width of a histogram bin, in microseconds: finer than any time-scaling step.
const BIN: i64 = 5_000;
/// Bins: 640 ms, just above [`DelayBounds::LIMIT`]. The last one collects everything beyond.
const BINS: usize = 128;
/// What is kept of old evidence per 20 ms of audio. A single late packet is remembered for 1.5 s, a jittery phase is
/// forgotten 7 s after its end; one more nine would triple that and fail the goal of 10 s.
const FORGET: f32 = 0.985;
/// The part of packets that may come too late.
const MISSED: f32 = 0.005;
/// The fastest packet is looked for in the current and the previous window of this length, in microseconds. Long enough
/// to see one packet without queueing, short enough to follow clock drift (100 ppm are 0.4 ms) and route changes.
const WINDOW: i64 = 2_000_000;
/// A packet this much later than the target is a spike, not jitter (microseconds).
const SPIKE: i64 = 60_000;
/// Two spikes within this time are a pattern (Wi-Fi scans, bursts of a shaper) and are planned for (microseconds).
const SPIKE_MEMORY: i64 = 8_000_000;

/// The forgetting statistics of one stream. Times are microseconds since an origin that the owner chooses.
#[derive(Debug)]
pub(crate) struct DelayEstimator {
    histogram: [f32; BINS],
    weight: f32,
    /// Smallest difference of arrival and media time in the current and the previous window.
    fastest: [i64; 2],
    window_end: i64,
    /// Arrival of the last packet.
    latest: i64,
    /// Arrival and height of the last two spikes.
    spikes: [(i64, i64); 2],
    /// Difference of arrival and media time of the previous packet, for `jitter`.
    previous: Option<i64>,
    jitter: f32,
}

impl DelayEstimator {
    pub(crate) fn new() -> Self {
        Self {
            histogram: [0.0; BINS],
            weight: 0.0,
            fastest: [i64::MAX; 2],
            window_end: 0,
            latest: 0,
            spikes: [(i64::MIN / 2, 0); 2],
            previous: None,
            jitter: 0.0,
        }
    }

    /// Difference of arrival and media time of the fastest recent packet; `None` before the first.
    pub(crate) fn base(&self) -> Option<i64> {
        let base = self.fastest[0].min(self.fastest[1]);
        (base != i64::MAX).then_some(base)
    }

    /// Takes notice of a packet that holds `length` of audio.
    pub(crate) fn observe(&mut self, arrival: i64, media: i64, length: i64) {
        let transit = arrival - media;
        self.latest = arrival;
        if arrival >= self.window_end {
            // After a pause longer than a window nothing recent is left; the previous minimum is still the best guess.
            self.fastest =
                [i64::MAX, self.fastest[0].min(if self.fastest[0] == i64::MAX { self.fastest[1] } else { i64::MAX })];
            self.window_end = arrival + WINDOW;
        }
        self.fastest[0] = self.fastest[0].min(transit);
        let lateness = transit - self.base().unwrap_or(transit);

        let before = self.quantile();
        let keep = if length == 20_000 { FORGET } else { FORGET.powf(length as f32 / 20_000.0) };
        for bin in &mut self.histogram {
            *bin *= keep;
        }
        self.weight = self.weight * keep + 1.0;
        self.histogram[usize::try_from(lateness / BIN).unwrap_or(0).min(BINS - 1)] += 1.0;

        if self.weight > 20.0 && lateness > before + SPIKE {
            // Packets held up together arrive in one burst: that is one spike, as high as its first packet.
            if arrival - self.spikes[0].0 > 500_000 {
                self.spikes[1] = self.spikes[0];
                self.spikes[0] = (arrival, lateness);
            }
        }

        // RFC 3550, 6.4.1 and A.8.
        if let Some(previous) = self.previous.replace(transit) {
            self.jitter += ((transit - previous).abs() as f32 - self.jitter) / 16.0;
        }
    }

    /// The media clock was mapped anew: the next packet is not compared with the one before.
    pub(crate) fn remapped(&mut self) {
        self.previous = None;
    }

    /// The lateness that all but [`MISSED`] of the packets stay below, in microseconds, rounded up to a bin.
    fn quantile(&self) -> i64 {
        let mut tail = 0.0;
        for (bin, mass) in self.histogram.iter().enumerate().rev() {
            tail += mass;
            if tail > self.weight * MISSED {
                return (bin as i64 + 1) * BIN;
            }
        }
        0
    }

    /// What the network asks for, in microseconds, before any bounds.
    pub(crate) fn target(&self) -> i64 {
        let [last, before] = self.spikes;
        let pattern = self.latest - before.0 < SPIKE_MEMORY;
        self.quantile().max(if pattern { last.1.min(before.1) } else { 0 })
    }

    /// Interarrival jitter by RFC 3550, in microseconds.
    pub(crate) fn jitter(&self) -> f32 {
        self.jitter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds one packet per 20 ms with the given lateness (in ms) for `seconds`, from `start` seconds on.
    fn feed(estimator: &mut DelayEstimator, start: i64, seconds: i64, lateness: impl Fn(i64) -> i64) -> i64 {
        for packet in start * 50..(start + seconds) * 50 {
            let media = packet * 20_000;
            estimator.observe(media + 70_000 + lateness(packet) * 1_000, media, 20_000);
        }
        estimator.target()
    }

    #[test]
    fn target_follows_lateness() {
        fn check(name: &str, seconds: i64, lateness: impl Fn(i64) -> i64, expected: std::ops::RangeInclusive<i64>) {
            let target = feed(&mut DelayEstimator::new(), 0, seconds, lateness) / 1_000;
            assert!(expected.contains(&target), "{name}: {target} ms");
        }
        check("clean", 10, |_| 0, 0..=5);
        check("even jitter", 10, |packet| packet * 7 % 41, 40..=45);
        check("one spike in ten seconds, long ago", 10, |packet| if packet == 100 { 150 } else { 0 }, 0..=5);
        check("one spike, just now", 10, |packet| if packet == 480 { 150 } else { 0 }, 150..=155);
        check("a spike every three seconds", 14, |packet| if packet % 150 == 149 { 150 } else { 0 }, 150..=155);
        check("beyond the histogram", 1, |packet| if packet == 30 { 5_000 } else { 0 }, 640..=640);
    }

    #[test]
    fn a_quiet_network_is_believed_after_some_seconds() {
        let mut estimator = DelayEstimator::new();
        assert!(feed(&mut estimator, 0, 20, |packet| packet * 7 % 41) >= 40_000);
        assert!(feed(&mut estimator, 20, 8, |_| 0) <= 5_000);
    }

    #[test]
    fn a_longer_route_becomes_the_new_base() {
        let mut estimator = DelayEstimator::new();
        feed(&mut estimator, 0, 10, |_| 0);
        assert_eq!(feed(&mut estimator, 10, 1, |_| 30), 35_000);
        assert!(feed(&mut estimator, 11, 12, |_| 30) <= 5_000);
    }

    #[test]
    fn bounds() {
        fn check(min: u64, max: u64, expected: bool) {
            let bounds = DelayBounds { min: Duration::from_millis(min), max: Duration::from_millis(max) };
            assert_eq!(bounds.check().is_ok(), expected, "{min}..{max}");
        }
        check(20, 200, true);
        check(0, 20, true);
        check(600, 600, true);
        check(50, 40, false);
        check(0, 0, false);
        check(0, 601, false);
    }
}
