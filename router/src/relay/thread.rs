//! One of a relay's threads: two sockets, a clock and a [`Relay`].
//!
//! Towards clients all threads share one port, and the kernel gives each the clients whose addresses it hashes there. Towards
//! workers each has a port of its own, so that what workers send comes back to the thread that has the flow.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use streamfleet_net::{
    Fragmentation, Offload, Outbox, Receiver, ReusePort, SendReport, Sender, SocketOptions, SocketSet, UdpSocket,
};
use streamfleet_relay::{Announced, Bounds, Relay, Ufrags};
use tokio::sync::mpsc;

use super::counters::{Counters, Direction};
use super::told::Elsewhere;
use super::view::Looker;

/// Batches taken from one socket before the other has its turn: bounds how long what came first waits.
const MAX_BATCHES: usize = 4;
/// How often the table is looked after, and how long a thread takes to see that it is to stop.
const TEND_EVERY: Duration = Duration::from_millis(100);
/// All of the table in about a second.
const TEND_PARTS: usize = 10;
const CLIENTS: u64 = 0;
const WORKERS: u64 = 1;

/// A thread whose sockets are bound and that has not begun.
pub(super) struct Thread<U> {
    clients: UdpSocket,
    workers: UdpSocket,
    ready: SocketSet,
    relay: Relay<U>,
    means: Means,
    looker: Looker,
}

/// What all threads of a relay share.
#[derive(Clone)]
pub(super) struct Means {
    /// The thread's clock began then.
    pub(super) started: Instant,
    pub(super) elsewhere: Arc<Elsewhere>,
    /// Flows that others are to hear of. What does not fit is told later.
    pub(super) announce: mpsc::Sender<Announced>,
    pub(super) counters: Arc<Counters>,
}

impl<U: Ufrags> Thread<U> {
    /// Binds the sockets: `clients` is the address that all threads share, `workers` the address of the other side.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn bind(
        clients: SocketAddr,
        workers: SocketAddr,
        ufrags: U,
        bounds: Bounds,
        means: Means,
        looker: Looker,
    ) -> io::Result<Self> {
        // A client's packet that is too large for the way to its worker is dropped, as on any way (RFC 8085, 3.2).
        let common = SocketOptions { fragmentation: Fragmentation::Forbidden, ..SocketOptions::default() };
        let clients = UdpSocket::bind(clients, SocketOptions { reuse_port: ReusePort::Shared, ..common })?;
        let workers = UdpSocket::bind(workers, SocketOptions { gro: Offload::On, ..common })?;
        let ready = SocketSet::new()?;
        ready.add(&clients, CLIENTS)?;
        ready.add(&workers, WORKERS)?;
        let relay = Relay::new(ufrags, bounds, workers.local_addr().port());
        Ok(Self { clients, workers, ready, relay, means, looker })
    }

    /// The address that clients send to.
    pub(super) fn door(&self) -> SocketAddr {
        self.clients.local_addr()
    }

    /// Runs until `stop` is set.
    ///
    /// # Errors
    /// A socket cannot be received from any more.
    pub(super) fn run(self, stop: &AtomicBool) -> io::Result<()> {
        let Self { clients, workers, ready, mut relay, means, mut looker } = self;
        let door = clients.local_addr().port();
        let (mut from_clients, mut to_clients) = clients.split();
        let (mut from_workers, mut to_workers) = workers.split();
        let (mut onward, mut homeward) = (Way::new(Direction::ToWorker), Way::new(Direction::ToClient));
        let mut tokens = Vec::new();
        let mut tend_at = Duration::ZERO;
        while !stop.load(Relaxed) {
            ready.wait(TEND_EVERY, &mut tokens)?;
            if tokens.contains(&CLIENTS) {
                batches(&mut from_clients, |datagram, from| {
                    let now = means.started.elapsed();
                    match relay.from_client(from, door, datagram, now, &*means.elsewhere) {
                        Ok(sent) => {
                            for (worker, header) in [Some(sent.to), sent.also].into_iter().flatten() {
                                onward.push(worker, &[&header, datagram], &mut to_workers, &means.counters);
                            }
                        }
                        Err(why) => means.counters.dropped(why),
                    }
                })?;
            }
            if tokens.contains(&WORKERS) {
                batches(&mut from_workers, |datagram, _| {
                    let now = means.started.elapsed();
                    match relay.from_worker(datagram, now) {
                        Ok(sent) => {
                            homeward.push(sent.to, &[sent.datagram], &mut to_clients, &means.counters);
                            if let Some(announced) = sent.announce {
                                tell(&means, announced);
                            }
                        }
                        Err(why) => means.counters.dropped(why),
                    }
                })?;
            }
            onward.flush(&mut to_workers, &means.counters);
            homeward.flush(&mut to_clients, &means.counters);
            let now = means.started.elapsed();
            looker.look(&relay, now);
            if now >= tend_at {
                tend_at = now + TEND_EVERY;
                relay.tend(TEND_PARTS, now, |announced| tell(&means, announced));
                means.counters.set_flows(relay.flows());
            }
        }
        Ok(())
    }
}

/// Whoever takes what is told may be behind: it is told again.
fn tell(means: &Means, announced: Announced) {
    if means.announce.try_send(announced).is_err() {
        means.counters.untold();
    }
}

/// Takes what has arrived at one socket, a few batches at most.
fn batches(receiver: &mut Receiver, mut take: impl FnMut(&[u8], SocketAddr)) -> io::Result<()> {
    for _ in 0..MAX_BATCHES {
        let count = receiver.recv()?;
        for n in 0..count {
            let (datagram, from) = receiver.datagram(n);
            take(datagram, from);
        }
        if !receiver.is_full() {
            break;
        }
    }
    Ok(())
}

/// What leaves by one socket.
struct Way {
    outbox: Outbox,
    direction: Direction,
}

impl Way {
    fn new(direction: Direction) -> Self {
        Self { outbox: Outbox::new(), direction }
    }

    fn push(&mut self, to: SocketAddr, parts: &[&[u8]], sender: &mut Sender, counters: &Counters) {
        if self.outbox.is_full() {
            self.flush(sender, counters);
        }
        self.outbox.push(to, |octets| {
            parts.iter().for_each(|part| octets.extend_from_slice(part));
            true
        });
    }

    fn flush(&mut self, sender: &mut Sender, counters: &Counters) {
        if !self.outbox.is_empty() {
            let octets = self.outbox.iter().map(|(_, datagram)| datagram.len() as u64).sum();
            let report: SendReport = sender.send(&mut self.outbox);
            counters.sent(self.direction, &report, octets);
        }
    }
}
