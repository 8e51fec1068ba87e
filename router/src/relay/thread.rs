//! One of a relay's threads: a [`Carrier`], and what all of them share.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use streamfleet_carrier::carrier::RECV_BUFFER;
use streamfleet_carrier::{Addresses, Carrier, Counters, Offloads};
use streamfleet_relay::{Announced, Bounds, Ufrags};
use tokio::sync::mpsc;

use super::told::Elsewhere;
use super::view::Looker;

/// A thread whose sockets are bound and that has not begun.
pub(super) struct Thread<U> {
    carrier: Carrier<U>,
    means: Means,
    looker: Looker,
}

/// What all threads of a relay share.
#[derive(Clone)]
pub(super) struct Means {
    /// The threads' clock began then.
    pub(super) started: Instant,
    pub(super) elsewhere: Arc<Elsewhere>,
    /// Flows that others are to hear of. What does not fit is told later.
    pub(super) announce: mpsc::Sender<Announced>,
    /// How many did not fit.
    pub(super) untold: Arc<AtomicU64>,
}

impl<U: Ufrags> Thread<U> {
    /// Binds the sockets: at `addresses` clients' is the one that all threads share.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn bind(
        addresses: Addresses,
        ufrags: U,
        bounds: Bounds,
        means: Means,
        looker: Looker,
    ) -> io::Result<Self> {
        let carrier = Carrier::bind(addresses, Offloads::default(), ufrags, bounds, means.started)?;
        Ok(Self { carrier, means, looker })
    }

    /// The address that clients send to.
    pub(super) fn door(&self) -> SocketAddr {
        self.carrier.door()
    }

    /// What it counts.
    pub(super) fn counters(&self) -> Arc<Counters> {
        self.carrier.counters().clone()
    }

    /// Says so where the kernel has not granted the buffers that were asked for.
    pub(super) fn tell_of_its_buffers(&self) {
        match self.carrier.recv_buffer() {
            Ok(granted) if granted < RECV_BUFFER => tracing::warn!(
                granted,
                wanted = RECV_BUFFER,
                "the relay's buffers are small: net.core.rmem_max is lower, and the process may not exceed it"
            ),
            _ => {}
        }
    }

    /// Runs until `stop` is set.
    ///
    /// # Errors
    /// A socket cannot be received from any more.
    pub(super) fn run(self, stop: &AtomicBool) -> io::Result<()> {
        let Self { mut carrier, means, mut looker } = self;
        while !stop.load(Relaxed) {
            carrier.step(&*means.elsewhere, |announced| {
                // Whoever takes what is told may be behind: it is told again.
                if means.announce.try_send(announced).is_err() {
                    means.untold.fetch_add(1, Relaxed);
                }
            })?;
            looker.look(carrier.relay(), carrier.now());
        }
        Ok(())
    }
}
