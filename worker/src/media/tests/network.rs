//! A simulated network: seeded loss, duplication, delay and reordering, and a NAT that may give a client a new port.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
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

pub(crate) struct Network {
    rng: StdRng,
    pub(crate) conditions: Conditions,
    queue: BinaryHeap<Reverse<(Instant, u64, Datagram)>>,
    sequence: u64,
    pub(crate) lost: u64,
}

impl Network {
    pub(crate) fn new(seed: u64, conditions: Conditions) -> Self {
        Network { rng: StdRng::seed_from_u64(seed), conditions, queue: BinaryHeap::new(), sequence: 0, lost: 0 }
    }

    pub(crate) fn send(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        let c = self.conditions;
        let copies = if self.rng.random_bool(c.loss) {
            self.lost += 1;
            0
        } else if self.rng.random_bool(c.duplication) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let delay = if c.delay.0 == c.delay.1 { c.delay.0 } else { self.rng.random_range(c.delay.0..c.delay.1) };
            self.sequence += 1;
            self.queue.push(Reverse((now + delay, self.sequence, Datagram { from, to, data: data.to_vec() })));
        }
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
