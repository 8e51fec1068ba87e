//! What a carrier counts. Written by its thread, read by others: relaxed atomics, nothing is ordered by them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use streamfleet_net::SendReport;
use streamfleet_relay::{Drop, HEADER};

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From a client.
    ToWorker,
    /// From a worker.
    ToClient,
}

impl Way {
    /// Both.
    pub const ALL: [Self; 2] = [Self::ToWorker, Self::ToClient];

    /// The metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ToWorker => "to_worker",
            Self::ToClient => "to_client",
        }
    }
}

/// Bounds of [`Counters::batches`], packets: each is the most that its bucket has.
pub const BATCHES: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
/// Bounds of [`Counters::delays`], microseconds.
pub const DELAYS: &[u64] = &[25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000];

/// How often there were values between bounds.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One more than there are bounds.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// One thread's, so that no two threads write to one cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct Counters {
    packets: [AtomicU64; 2],
    octets: [AtomicU64; 2],
    unsent: [AtomicU64; 2],
    dropped: [AtomicU64; Drop::ALL.len()],
    overflowed: [AtomicU64; 2],
    batches: [Histogram; 2],
    delays: [Histogram; 2],
    flows: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    /// A value that so many had.
    fn record(&self, value: u64, times: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(times, Relaxed);
        self.sum.fetch_add(value.saturating_mul(times), Relaxed);
    }

    /// The most that each bucket has; what is more is in one that has no bound.
    pub fn bounds(&self) -> &'static [u64] {
        self.bounds
    }

    /// How many values each bucket has, without those of others; the last is that without a bound.
    pub fn counts(&self) -> impl Iterator<Item = u64> {
        self.counts.iter().map(|count| count.load(Relaxed))
    }

    /// All values together.
    pub fn sum(&self) -> u64 {
        self.sum.load(Relaxed)
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            packets: Default::default(),
            octets: Default::default(),
            unsent: Default::default(),
            dropped: Default::default(),
            overflowed: Default::default(),
            batches: [const { BATCHES }; 2].map(Histogram::new),
            delays: [const { DELAYS }; 2].map(Histogram::new),
            flows: AtomicU64::new(0),
        }
    }
}

impl Counters {
    /// Packets that were passed on.
    pub fn packets(&self, way: Way) -> u64 {
        self.packets[way as usize].load(Relaxed)
    }

    /// Octets of packets that were passed on, as clients send and receive them: without the headers between relay and worker.
    pub fn octets(&self, way: Way) -> u64 {
        self.octets[way as usize].load(Relaxed)
    }

    /// Packets that the kernel did not take: its buffers were full, or there was no way.
    pub fn unsent(&self, way: Way) -> u64 {
        self.unsent[way as usize].load(Relaxed)
    }

    /// Packets that went no further, for this reason.
    pub fn dropped(&self, why: Drop) -> u64 {
        self.dropped[why as usize].load(Relaxed)
    }

    /// Packets that the kernel dropped before the relay had them, because its buffer was full: as of a tenth of a second ago.
    pub fn overflowed(&self, way: Way) -> u64 {
        self.overflowed[way as usize].load(Relaxed)
    }

    /// Packets that were taken at once, by [`BATCHES`]: one value for each batch.
    pub fn batches(&self, way: Way) -> &Histogram {
        &self.batches[way as usize]
    }

    /// How long packets were in the relay's hands, by [`DELAYS`]: from the moment before the kernel was asked for their batch to that
    /// after it was given the last of it. One batch in [`SAMPLED`](crate::carrier::SAMPLED) is looked at, and counts for each of
    /// its packets. How long they had waited at the socket is not in it.
    pub fn delays(&self, way: Way) -> &Histogram {
        &self.delays[way as usize]
    }

    /// Flows at the moment, as of a tenth of a second ago.
    pub fn flows(&self) -> u64 {
        self.flows.load(Relaxed)
    }

    pub(crate) fn sent(&self, way: Way, report: &SendReport) {
        let header = match way {
            Way::ToWorker => HEADER as u64,
            Way::ToClient => 0,
        };
        let way = way as usize;
        self.packets[way].fetch_add(report.sent.into(), Relaxed);
        self.unsent[way].fetch_add(report.dropped.into(), Relaxed);
        self.octets[way].fetch_add(report.octets - header * u64::from(report.sent), Relaxed);
    }

    pub(crate) fn count_drop(&self, why: Drop) {
        self.count_drops(why, 1);
    }

    pub(crate) fn count_drops(&self, why: Drop, packets: u64) {
        self.dropped[why as usize].fetch_add(packets, Relaxed);
    }

    pub(crate) fn took(&self, way: Way, packets: usize) {
        self.batches[way as usize].record(packets as u64, 1);
    }

    pub(crate) fn delayed(&self, way: Way, packets: usize, delay: Duration) {
        let microseconds = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.delays[way as usize].record(microseconds, packets as u64);
    }

    pub(crate) fn add_overflowed(&self, way: Way, packets: u32) {
        self.overflowed[way as usize].fetch_add(packets.into(), Relaxed);
    }

    pub(crate) fn set_flows(&self, flows: usize) {
        self.flows.store(flows as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_by_the_bound_that_they_do_not_exceed() {
        let histogram = Histogram::new(&[1, 4]);
        for (value, times) in [(0, 1), (1, 1), (2, 5), (4, 1), (5, 2)] {
            histogram.record(value, times);
        }
        assert_eq!(histogram.counts().collect::<Vec<_>>(), [2, 6, 2]);
        assert_eq!(histogram.sum(), 1 + 10 + 4 + 10);
    }
}
