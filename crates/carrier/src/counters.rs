//! What a carrier counts. Written by its thread, read by others: relaxed atomics, nothing is ordered by them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use streamfleet_net::SendReport;
use streamfleet_relay::Drop;

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

/// One thread's, so that no two threads write to one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    packets: [AtomicU64; 2],
    octets: [AtomicU64; 2],
    unsent: [AtomicU64; 2],
    dropped: [AtomicU64; Drop::ALL.len()],
    flows: AtomicU64,
}

impl Counters {
    /// Packets that were passed on.
    pub fn packets(&self, way: Way) -> u64 {
        self.packets[way as usize].load(Relaxed)
    }

    /// Octets of what was to be passed on, headers between relay and worker included.
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

    /// Flows at the moment, as of a tenth of a second ago.
    pub fn flows(&self) -> u64 {
        self.flows.load(Relaxed)
    }

    pub(crate) fn sent(&self, way: Way, report: &SendReport, octets: usize) {
        let way = way as usize;
        self.packets[way].fetch_add(report.sent.into(), Relaxed);
        self.unsent[way].fetch_add(report.dropped.into(), Relaxed);
        self.octets[way].fetch_add(octets as u64, Relaxed);
    }

    pub(crate) fn count_drop(&self, why: Drop) {
        self.dropped[why as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn set_flows(&self, flows: usize) {
        self.flows.store(flows as u64, Relaxed);
    }
}
