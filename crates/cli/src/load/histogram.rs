//! Distributions of times, in constant memory.

use std::time::Duration;

use serde::Serialize;

/// Buckets per doubling: the error of a quantile is below 1/32, 3 %.
const STEPS: u64 = 32;
/// Doublings: up to 2^35 µs, ten hours.
const DOUBLINGS: usize = 31;

/// How often which time occurred, to 3 % (exact below 32 µs).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: Duration,
    max: Duration,
}

/// The figures that reports show, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) count: u64,
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p95: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = vec![0; (DOUBLINGS + 1) * STEPS as usize];
        Self { buckets, count: 0, sum: Duration::ZERO, max: Duration::ZERO }
    }
}

impl Histogram {
    pub(super) fn record(&mut self, time: Duration) {
        let bucket = bucket(time.as_micros() as u64).min(self.buckets.len() - 1);
        self.buckets[bucket] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(time);
        self.max = self.max.max(time);
    }

    /// The time that a share of the recorded ones (0 to 1) is not above, to 3 %; zero if none was recorded.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        let rank = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        // What is in the last bucket, or beyond it, is the longest.
        for (i, count) in self.buckets[..self.buckets.len() - 1].iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(upper_bound(i)).min(self.max);
            }
        }
        self.max
    }

    /// `None` if nothing was recorded.
    pub(super) fn summary(&self) -> Option<Summary> {
        if self.count == 0 {
            return None;
        }
        let at = |share| milliseconds(self.quantile(share));
        Some(Summary {
            count: self.count,
            mean: round(self.sum.as_secs_f64() * 1e3 / self.count as f64),
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            max: milliseconds(self.max),
        })
    }
}

/// A duration in milliseconds, to the microsecond.
pub(super) fn milliseconds(time: Duration) -> f64 {
    round(time.as_secs_f64() * 1e3)
}

fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// The first 32 buckets are a microsecond wide, the next 32 too, then each 32 are twice as wide as the 32 before.
fn bucket(micros: u64) -> usize {
    let doubling = u64::from((micros / STEPS).checked_ilog2().map_or(0, |log| log + 1));
    let within = if doubling == 0 { micros } else { (micros >> (doubling - 1)) - STEPS };
    (doubling * STEPS + within) as usize
}

/// The largest value in a bucket.
fn upper_bound(bucket: usize) -> u64 {
    let (doubling, within) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    if doubling == 0 { within } else { ((STEPS + within + 1) << (doubling - 1)) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_narrow() {
        let mut last = 0;
        for micros in (0..5_000).chain((5_000..40_000_000).step_by(997)) {
            let bucket = bucket(micros);
            assert!(bucket >= last, "{micros}");
            last = bucket;
            let bound = upper_bound(bucket);
            assert!(bound >= micros && bound - micros <= micros / STEPS, "{micros} {bound}");
        }
    }

    #[track_caller]
    fn check(micros: impl IntoIterator<Item = u64>, share: f64, expected: u64) {
        let mut histogram = Histogram::default();
        micros.into_iter().for_each(|micros| histogram.record(Duration::from_micros(micros)));
        let got = histogram.quantile(share).as_micros() as u64;
        assert!(got.abs_diff(expected) <= expected / 32, "{got} for {expected}");
    }

    #[test]
    fn quantiles() {
        check([], 0.5, 0);
        check([7], 0.5, 7);
        check([7], 0.0, 7);
        check(1..=1_000, 0.5, 500);
        check(1..=1_000, 0.95, 950);
        check(1..=1_000, 1.0, 1_000);
        check([10, 10, 10, 100_000], 0.75, 10);
        check([10, 10, 10, 100_000], 0.76, 100_000);
        check([u64::MAX], 0.5, u64::MAX);
    }

    #[test]
    fn summaries_are_in_milliseconds() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.summary(), None);
        [1_000, 3_000].into_iter().for_each(|micros| histogram.record(Duration::from_micros(micros)));
        let summary = histogram.summary().unwrap();
        assert_eq!((summary.count, summary.mean, summary.max, summary.p99), (2, 2.0, 3.0, 3.0));
    }
}
