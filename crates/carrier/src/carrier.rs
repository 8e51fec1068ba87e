//! Two sockets, a clock and a [`Relay`].
//!
//! Towards clients all carriers of a relay share one port, and the kernel gives each the clients whose addresses it hashes
//! there. Towards workers each has a port of its own, so that what workers send comes back to the one that has the flow.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use streamfleet_net::{
    Fragmentation, Offload, Outbox, Receiver, ReusePort, SendReport, Sender, SocketOptions, SocketSet, UdpSocket,
};
use streamfleet_relay::{Announced, Bounds, Elsewhere, Relay, Ufrags};

use crate::counters::{Counters, Way};

/// Batches taken from one socket before the other has its turn: bounds how long what came first waits.
const MAX_BATCHES: usize = 4;
/// How often the table is looked after, and how long a step lasts at most while nothing comes.
const TEND_EVERY: Duration = Duration::from_millis(100);
/// All of the table in about a second.
const TEND_PARTS: usize = 10;
const CLIENTS: u64 = 0;
const WORKERS: u64 = 1;

/// Where a carrier's sockets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Where clients send to: all carriers of a relay share it.
    pub clients: SocketAddr,
    /// The side of the workers.
    pub workers: SocketAddr,
}

/// What the kernel is asked to do with runs of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads {
    /// Sends them as one.
    pub segmentation: Offload,
    /// Gives those of one worker as one.
    pub coalescing: Offload,
}

impl Default for Offloads {
    /// Both, where the kernel can.
    fn default() -> Self {
        Self { segmentation: Offload::On, coalescing: Offload::On }
    }
}

/// One of a relay's threads.
pub struct Carrier<U> {
    door: SocketAddr,
    return_port: u16,
    ready: SocketSet,
    tokens: Vec<u64>,
    relay: Relay<U>,
    from_clients: Receiver,
    from_workers: Receiver,
    onward: Out,
    homeward: Out,
    started: Instant,
    tend_at: Duration,
    counters: Arc<Counters>,
}

impl<U: Ufrags> Carrier<U> {
    /// Binds the sockets. Its clock began at `started`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn bind(
        addresses: Addresses,
        offloads: Offloads,
        ufrags: U,
        bounds: Bounds,
        started: Instant,
    ) -> io::Result<Self> {
        // A client's packet that is too large for the way to its worker is dropped, as on any way (RFC 8085, 3.2).
        let common = SocketOptions {
            fragmentation: Fragmentation::Forbidden,
            gso: offloads.segmentation,
            ..SocketOptions::default()
        };
        let clients = UdpSocket::bind(addresses.clients, SocketOptions { reuse_port: ReusePort::Shared, ..common })?;
        let workers = UdpSocket::bind(addresses.workers, SocketOptions { gro: offloads.coalescing, ..common })?;
        let ready = SocketSet::new()?;
        ready.add(&clients, CLIENTS)?;
        ready.add(&workers, WORKERS)?;
        let (door, return_port) = (clients.local_addr(), workers.local_addr().port());
        let (from_clients, to_clients) = clients.split();
        let (from_workers, to_workers) = workers.split();
        Ok(Self {
            door,
            return_port,
            ready,
            tokens: Vec::new(),
            relay: Relay::new(ufrags, bounds, return_port),
            from_clients,
            from_workers,
            onward: Out::new(to_workers, Way::ToWorker),
            homeward: Out::new(to_clients, Way::ToClient),
            started,
            tend_at: Duration::ZERO,
            counters: Arc::default(),
        })
    }

    /// The address that clients send to.
    pub fn door(&self) -> SocketAddr {
        self.door
    }

    /// The port that workers send to.
    pub fn return_port(&self) -> u16 {
        self.return_port
    }

    /// Whose decisions it carries out.
    pub fn relay(&self) -> &Relay<U> {
        &self.relay
    }

    /// What its clock says.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// What it counts.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Waits for something to come, for a tenth of a second at most, passes it on, and looks after the table when it is time to.
    /// What others are to know of is told by `tell`.
    ///
    /// # Errors
    /// A socket cannot be received from any more.
    pub fn step(&mut self, elsewhere: &impl Elsewhere, mut tell: impl FnMut(Announced)) -> io::Result<()> {
        self.ready.wait(TEND_EVERY, &mut self.tokens)?;
        if self.tokens.contains(&CLIENTS) {
            self.from_clients(elsewhere)?;
        }
        if self.tokens.contains(&WORKERS) {
            self.from_workers(&mut tell)?;
        }
        self.onward.flush(&self.counters);
        self.homeward.flush(&self.counters);
        let now = self.started.elapsed();
        if now >= self.tend_at {
            self.tend_at = now + TEND_EVERY;
            self.relay.tend(TEND_PARTS, now, tell);
            self.counters.set_flows(self.relay.flows());
        }
        Ok(())
    }

    fn from_clients(&mut self, elsewhere: &impl Elsewhere) -> io::Result<()> {
        let (relay, onward, counters) = (&mut self.relay, &mut self.onward, &self.counters);
        let (door, started) = (self.door.port(), self.started);
        batches(&mut self.from_clients, |datagram, from| {
            match relay.from_client(from, door, datagram, started.elapsed(), elsewhere) {
                Ok(sent) => {
                    for (worker, header) in [Some(sent.to), sent.also].into_iter().flatten() {
                        onward.push(worker, &[&header, datagram], counters);
                    }
                }
                Err(why) => counters.count_drop(why),
            }
        })
    }

    fn from_workers(&mut self, tell: &mut impl FnMut(Announced)) -> io::Result<()> {
        let (relay, homeward, counters) = (&mut self.relay, &mut self.homeward, &self.counters);
        let started = self.started;
        batches(&mut self.from_workers, |datagram, _| match relay.from_worker(datagram, started.elapsed()) {
            Ok(sent) => {
                homeward.push(sent.to, &[sent.datagram], counters);
                if let Some(announced) = sent.announce {
                    tell(announced);
                }
            }
            Err(why) => counters.count_drop(why),
        })
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
struct Out {
    sender: Sender,
    outbox: Outbox,
    way: Way,
}

impl Out {
    fn new(sender: Sender, way: Way) -> Self {
        Self { sender, outbox: Outbox::new(), way }
    }

    fn push(&mut self, to: SocketAddr, parts: &[&[u8]], counters: &Counters) {
        if self.outbox.is_full() {
            self.flush(counters);
        }
        self.outbox.push(to, |octets| {
            parts.iter().for_each(|part| octets.extend_from_slice(part));
            true
        });
    }

    fn flush(&mut self, counters: &Counters) {
        if !self.outbox.is_empty() {
            let octets = self.outbox.iter().map(|(_, datagram)| datagram.len() as u64).sum();
            let report: SendReport = self.sender.send(&mut self.outbox);
            counters.sent(self.way, &report, octets);
        }
    }
}
