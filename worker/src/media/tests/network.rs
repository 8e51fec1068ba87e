//! A simulated network: seeded loss, duplication, delay and reordering, and a NAT that may give a client a new port.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What the network does to datagrams, the same in both directions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    /// Probability that a datagram is lost, and that it arrives twice.
    pub(crate) loss: f64,
    pub(crate) duplication: f64,
    /// One-way delay is uniform between these; a wide range reorders.
    pub(crate) delay: (Duration, Duration),
}

impl Conditions {
    pub(crate) const CLEAN: Conditions =
        Conditions { loss: 0.0, duplication: 0.0, delay: (Duration::from_millis(10), Duration::from_millis(10)) };
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) data: Vec<u8>,
}

/// Datagrams whose fates are drawn from one row of random numbers: those of one way and kind. The core draws numbers of its
/// own that decide how many checks and reports there are; what becomes of RTP must not depend on them.
type Lane = (SocketAddr, SocketAddr, Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Rtp,
    Other,
}

impl Kind {
    fn of(data: &[u8]) -> Kind {
        if is_rtp(data) { Kind::Rtp } else { Kind::Other }
    }
}

/// Whether a datagram is RTP and not RTCP (RFC 5761 4, RFC 7983).
pub(crate) fn is_rtp(data: &[u8]) -> bool {
    matches!(data, [128..192, second, ..] if !(192..224).contains(second))
}

pub(crate) struct Network {
    seed: u64,
    lanes: HashMap<Lane, StdRng>,
    pub(crate) conditions: Conditions,
    queue: BinaryHeap<Reverse<(Instant, u64, Datagram)>>,
    sequence: u64,
    pub(crate) lost: u64,
}

impl Network {
    pub(crate) fn new(seed: u64, conditions: Conditions) -> Self {
        Network { seed, lanes: HashMap::new(), conditions, queue: BinaryHeap::new(), sequence: 0, lost: 0 }
    }

    pub(crate) fn send(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        let c = self.conditions;
        let lane = (from, to, Kind::of(data));
        let rng = self.lanes.entry(lane).or_insert_with(|| {
            // FNV-1a, which is the same in every run.
            let name = format!("{lane:?}");
            let hash =
                name.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
            StdRng::seed_from_u64(self.seed ^ hash)
        });
        let copies = if rng.random_bool(c.loss) {
            self.lost += 1;
            0
        } else if rng.random_bool(c.duplication) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let delay = if c.delay.0 == c.delay.1 { c.delay.0 } else { rng.random_range(c.delay.0..c.delay.1) };
            self.sequence += 1;
            self.queue.push(Reverse((now + delay, self.sequence, Datagram { from, to, data: data.to_vec() })));
        }
    }

    /// Everything under way of which this holds is lost. Returns how much that was.
    pub(crate) fn lose(&mut self, of: impl Fn(&[u8]) -> bool) -> usize {
        let before = self.queue.len();
        self.queue.retain(|Reverse((.., datagram))| !of(&datagram.data));
        before - self.queue.len()
    }

    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((at, ..))| *at)
    }

    pub(crate) fn receive(&mut self, now: Instant) -> Option<Datagram> {
        if self.next_at()? > now {
            return None;
        }
        self.queue.pop().map(|Reverse((.., datagram))| datagram)
    }
}
