//! Two sockets, a clock and a [`Relay`].
//!
//! Towards clients all carriers of a relay share one port, and the kernel gives each the clients whose addresses it hashes
//! there. Towards workers each has a port of its own, so that what workers send comes back to the one that has the flow.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use streamfleet_net::{
    Fragmentation, LocalAddresses, Offload, Outbox, Receiver, ReusePort, Sender, SocketOptions, Source, UdpSocket,
    Unusable, wait_for,
};
use streamfleet_relay::{Announced, Bounds, Drop, Elsewhere, HEADER, Homeward, Onward, Relay, Ufrags};

use crate::counters::{Counters, Way};
use crate::doors::Doors;

/// Batches taken from one socket before the other has its turn: bounds how long what came first waits.
const MAX_BATCHES: usize = 4;
/// What each socket's buffer is to have, octets: a thread that is held up for 20 ms at 400 000 packets a second loses none, of which
/// the kernel counts 768 octets each where they are small.
pub const RECV_BUFFER: usize = 8 << 20;
/// One batch of so many has its time taken.
pub const SAMPLED: u32 = 16;
/// Packets of which the flows are asked for at once. More would push each other out of the nearest cache again.
const AHEAD: usize = 64;
/// How often the table is looked after, and how long a step lasts at most while nothing comes.
const TEND_EVERY: Duration = Duration::from_millis(100);
/// All of the table in about a second.
const TEND_PARTS: usize = 10;

/// Where a carrier's sockets are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Where clients send to: all carriers of a relay share it.
    pub clients: SocketAddr,
    /// Which of the machine's addresses they are, if they are several.
    pub doors: Doors,
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
    doors: Doors,
    return_port: u16,
    relay: Relay<U>,
    from_clients: Receiver,
    from_workers: Receiver,
    to_clients: Sender,
    to_workers: Sender,
    /// What goes to a second worker: seldom anything.
    also: Outbox,
    started: Instant,
    tend_at: Duration,
    /// Batches until the next whose time is taken.
    unsampled: u32,
    /// What the kernel has dropped at each socket so far, as it counts.
    overflowed: [u32; 2],
    /// What was received of no use so far.
    unusable: [Unusable; 2],
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
            recv_buffer: RECV_BUFFER,
            ..SocketOptions::default()
        };
        let local_addresses =
            if addresses.doors.are_several() { LocalAddresses::Told } else { LocalAddresses::Unasked };
        let clients = SocketOptions { reuse_port: ReusePort::Shared, local_addresses, ..common };
        let clients = UdpSocket::bind(addresses.clients, clients)?;
        let workers = UdpSocket::bind(addresses.workers, SocketOptions { gro: offloads.coalescing, ..common })?;
        let (door, return_port) = (clients.local_addr(), workers.local_addr().port());
        let (from_clients, to_clients) = clients.split_with_headroom(HEADER);
        let (from_workers, to_workers) = workers.split();
        Ok(Self {
            door,
            doors: addresses.doors,
            return_port,
            relay: Relay::new(ufrags, bounds, return_port),
            from_clients,
            from_workers,
            to_clients,
            to_workers,
            also: Outbox::new(),
            started,
            tend_at: Duration::ZERO,
            unsampled: 0,
            overflowed: [0; 2],
            unusable: Default::default(),
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

    /// The smaller of the buffers that the kernel has granted its sockets, octets; [`RECV_BUFFER`] was asked for.
    ///
    /// # Errors
    /// The kernel's.
    pub fn recv_buffer(&self) -> io::Result<usize> {
        Ok(self.from_clients.socket().recv_buffer()?.min(self.from_workers.socket().recv_buffer()?))
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
        let [clients, workers] = wait_for([self.from_clients.socket(), self.from_workers.socket()], TEND_EVERY);
        if clients {
            self.carry_onward(elsewhere)?;
        }
        if workers {
            self.carry_home(&mut tell)?;
        }
        let now = self.started.elapsed();
        if now >= self.tend_at {
            self.tend_at = now + TEND_EVERY;
            self.relay.tend(TEND_PARTS, now, tell);
            self.counters.set_flows(self.relay.flows());
            for (way, receiver) in Way::ALL.into_iter().zip([&self.from_clients, &self.from_workers]) {
                // A kernel that does not say it counts nothing.
                if let Ok(drops) = receiver.socket().receive_drops() {
                    let before = std::mem::replace(&mut self.overflowed[way as usize], drops);
                    self.counters.add_overflowed(way, drops.wrapping_sub(before));
                }
            }
        }
        Ok(())
    }

    /// What was received and cannot be had.
    fn count_unusable(&mut self, way: Way) {
        let now = match way {
            Way::ToWorker => self.from_clients.unusable(),
            Way::ToClient => self.from_workers.unusable(),
        };
        let before = std::mem::replace(&mut self.unusable[way as usize], now);
        if now != before {
            self.counters.count_drops(Drop::Giant, now.giant - before.giant);
            self.counters.count_drops(Drop::Empty, now.empty - before.empty);
        }
    }

    /// When a batch is begun whose time is taken.
    fn sample(&mut self) -> Option<Duration> {
        match self.unsampled.checked_sub(1) {
            Some(unsampled) => {
                self.unsampled = unsampled;
                None
            }
            None => {
                self.unsampled = SAMPLED - 1;
                Some(self.now())
            }
        }
    }

    /// A batch has been passed on.
    fn passed(&self, way: Way, packets: usize, begun: Option<Duration>) {
        if packets > 0 {
            self.counters.took(way, packets);
            if let Some(begun) = begun {
                self.counters.delayed(way, packets, self.now() - begun);
            }
        }
    }

    fn carry_onward(&mut self, elsewhere: &impl Elsewhere) -> io::Result<()> {
        for _ in 0..MAX_BATCHES {
            let begun = self.sample();
            let count = self.from_clients.recv()?;
            self.count_unusable(Way::ToWorker);
            let now = self.started.elapsed();
            self.relay.look_ahead(self.from_clients.datagrams().map(|(_, from)| from), self.door.port());
            for n in 0..count {
                let door = self.doors.number(self.from_clients.arrived_at(n), self.door.port());
                let (datagram, from) = self.from_clients.datagram(n);
                match self.relay.from_client(from, door, datagram, now, elsewhere) {
                    Ok(Onward { flow, to: (worker, header), also }) => {
                        if let Some((other, header)) = also {
                            push(&mut self.also, other, &header, datagram);
                        }
                        self.from_clients.pass_with(n, &header, worker, flow.0);
                    }
                    Err(why) => self.counters.count_drop(why),
                }
            }
            let mut report = self.to_workers.pass_on(&mut self.from_clients);
            if !self.also.is_empty() {
                report += self.to_workers.send(&mut self.also);
            }
            self.counters.sent(Way::ToWorker, &report);
            self.passed(Way::ToWorker, count, begun);
            if !self.from_clients.is_full() {
                break;
            }
        }
        Ok(())
    }

    fn carry_home(&mut self, tell: &mut impl FnMut(Announced)) -> io::Result<()> {
        for _ in 0..MAX_BATCHES {
            let begun = self.sample();
            let count = self.from_workers.recv()?;
            self.count_unusable(Way::ToClient);
            let now = self.started.elapsed();
            for n in 0..count {
                if n % AHEAD == 0 {
                    let ahead = self.from_workers.datagrams().skip(n).take(AHEAD);
                    self.relay.look_ahead_home(ahead.map(|(datagram, _)| datagram));
                }
                let (datagram, _) = self.from_workers.datagram(n);
                match self.relay.from_worker(datagram, now) {
                    Ok(Homeward { flow, to, door, announce, datagram: _ }) => {
                        if let Some(announced) = announce {
                            tell(announced);
                        }
                        let from = self.doors.address(door).map_or(Source::ANY, |ip| self.to_clients.source(ip));
                        self.from_workers.pass_without(n, HEADER, from, to, flow.0);
                    }
                    Err(why) => self.counters.count_drop(why),
                }
            }
            let report = self.to_clients.pass_on(&mut self.from_workers);
            self.counters.sent(Way::ToClient, &report);
            self.passed(Way::ToClient, count, begun);
            if !self.from_workers.is_full() {
                break;
            }
        }
        Ok(())
    }
}

/// A datagram that goes to a second worker too, with another header.
fn push(outbox: &mut Outbox, to: SocketAddr, header: &[u8; HEADER], datagram: &[u8]) {
    outbox.push(to, |octets| {
        octets.extend_from_slice(header);
        octets.extend_from_slice(datagram);
        true
    });
}
