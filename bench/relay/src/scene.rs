//! A carrier between clients and workers that know what passes between them.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::ParseIntError;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rand::seq::SliceRandom as _;
use serde_json::Value;
use streamfleet_carrier::{Addresses, Carrier, Doors, Offloads, Way};
use streamfleet_net::stun::{BindingRequest, Nomination, Role, TransactionId};
use streamfleet_net::{Offload, Outbox, Receiver, Sender, SocketOptions, UdpSocket};
use streamfleet_relay::{
    Announced, Bounds, Direction, Drop, Elsewhere, FlowKey, HEADER, Header, Sealed, SessionHandle, Standing, Target,
    Ufrags,
};
use streamfleet_session::ufrag::SessionKey;

use crate::burst::{Burst, MOST};

const KEY: SessionKey = SessionKey::from_bytes([7; 16]);
/// So many packets are sent and received before anything is measured anew.
pub(crate) const ROUND: usize = MOST;

/// Every ufrag is a session's; its first two digits say at which worker.
#[derive(Clone)]
pub(crate) struct Minted(pub(crate) Vec<SocketAddr>);

impl Ufrags for Minted {
    fn open(&self, ufrag: &str) -> Option<Target> {
        let n: usize = ufrag.get(..2)?.parse().ok()?;
        Some(Target { worker: self.0[n % self.0.len()], key: KEY })
    }
}

/// No other relay has told of anything.
pub(crate) struct Nowhere;

impl Elsewhere for Nowhere {
    fn find(&self, _: &FlowKey) -> Option<Announced> {
        None
    }
}

/// The address of client `n`: all have one port, and one socket.
pub(crate) fn client(n: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x7F01_0000 + n as u32)
}

/// A client's first packet, to a session of worker `n`, which is below 100.
pub(crate) fn check(n: usize) -> Vec<u8> {
    let ufrag = format!("{n:02}").repeat(16);
    let request = BindingRequest {
        transaction: TransactionId([7; 12]),
        remote_ufrag: &ufrag,
        local_ufrag: "theirs",
        priority: 1,
        role: Role::Controlling(1),
        nomination: Nomination::None,
    };
    let mut datagram = Vec::new();
    request.write(b"a password of the session", &mut datagram).expect("it is as long as a check may be");
    datagram
}

/// Packets of media: what RTP looks like to whoever does not read it.
pub(crate) struct Media {
    octets: Vec<u8>,
    lengths: Lengths,
    sent: usize,
}

/// How long they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lengths {
    /// All so many octets.
    Of(usize),
    /// 60 to 160, no two neighbours alike: Opus at a variable rate, encrypted.
    Voice,
}

impl FromStr for Lengths {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        if text == "voice" { Ok(Self::Voice) } else { text.parse().map(Self::Of) }
    }
}

impl Lengths {
    pub(crate) fn told(self) -> Value {
        match self {
            Self::Of(length) => length.into(),
            Self::Voice => "voice".into(),
        }
    }
}

impl Media {
    pub(crate) fn new(lengths: Lengths) -> Self {
        let most = match lengths {
            Lengths::Of(length) => length,
            Lengths::Voice => 160,
        };
        Self { octets: vec![128; most], lengths, sent: 0 }
    }

    pub(crate) fn next(&mut self) -> &[u8] {
        self.sent += 1;
        match self.lengths {
            Lengths::Of(_) => &self.octets,
            Lengths::Voice => &self.octets[..60 + self.sent * 37 % 101],
        }
    }
}

pub(crate) fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => unreachable!("everything here is IPv4"),
    }
}

/// All clients: one socket, which has every address of the loopback network.
pub(crate) struct Clients {
    pub(crate) socket: UdpSocket,
    pub(crate) receiver: Receiver,
    pub(crate) burst: Burst,
}

impl Clients {
    pub(crate) fn bind() -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0).into(), SocketOptions::default())?;
        let (receiver, _) = socket.split();
        Ok(Self { socket, receiver, burst: Burst::new() })
    }

    pub(crate) fn send(&mut self) -> io::Result<usize> {
        self.burst.send(self.socket.as_fd())
    }
}

/// A media loop's socket.
pub(crate) struct Worker {
    pub(crate) address: SocketAddr,
    pub(crate) receiver: Receiver,
    sender: Sender,
    outbox: Outbox,
}

impl Worker {
    /// In another network namespace, if one is named.
    pub(crate) fn bind_in(space: Option<&Path>, ip: Ipv4Addr, coalescing: Offload) -> io::Result<Self> {
        let Some(space) = space else { return Self::bind(ip, coalescing) };
        let space = File::open(space)?;
        // A thread that has gone there does not come back; its socket does.
        let bound = std::thread::spawn(move || {
            // SAFETY: a live descriptor.
            match unsafe { libc::setns(space.as_raw_fd(), libc::CLONE_NEWNET) } {
                0 => Self::bind(ip, coalescing),
                _ => Err(io::Error::last_os_error()),
            }
        });
        bound.join().map_err(|_| io::Error::other("the thread has panicked"))?
    }

    pub(crate) fn bind(ip: Ipv4Addr, coalescing: Offload) -> io::Result<Self> {
        let options = SocketOptions { gro: coalescing, ..SocketOptions::default() };
        let socket = UdpSocket::bind((ip, 0).into(), options)?;
        let (receiver, sender) = socket.split();
        Ok(Self { address: socket.local_addr(), receiver, sender, outbox: Outbox::new() })
    }
}

impl Worker {
    pub(crate) fn send(&mut self, outbox: &mut Outbox) -> anyhow::Result<()> {
        let report = self.sender.send(outbox);
        anyhow::ensure!(report.dropped == 0, "{report:?}");
        Ok(())
    }
}

/// Empties a socket; how many datagrams it had.
pub(crate) fn drain(receiver: &mut Receiver) -> io::Result<usize> {
    let mut all = 0;
    loop {
        let came = receiver.recv()?;
        all += came;
        if came == 0 {
            return Ok(all);
        }
    }
}

/// What is to be measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) flows: usize,
    pub(crate) offloads: Offloads,
}

/// Clients' flows and their workers, around a carrier.
pub(crate) struct Cast {
    pub(crate) workers: Vec<Worker>,
    /// Where the carrier is to clients, and to workers.
    pub(crate) door: SocketAddrV4,
    pub(crate) back: SocketAddr,
    /// What each flow's worker puts before what it sends.
    headers: Vec<[u8; HEADER]>,
    /// Flows as they come: in no order that a cache could know.
    order: Vec<u32>,
    at: usize,
}

impl Cast {
    pub(crate) fn new(workers: Vec<Worker>, flows: usize, door: SocketAddrV4, back: SocketAddr) -> Self {
        let mut order: Vec<u32> = (0..flows as u32).collect();
        order.shuffle(&mut rand::rng());
        Self { workers, door, back, headers: vec![[0; HEADER]; flows], order, at: 0 }
    }

    /// Every client sends its check, and every worker answers. `carry` lets the carrier work.
    pub(crate) fn begin(
        &mut self,
        clients: &mut Clients,
        mut carry: impl FnMut(usize) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for some in (0..self.headers.len()).collect::<Vec<_>>().chunks(ROUND) {
            for n in some {
                clients.burst.push(client(*n), self.door, &[&check(*n % self.workers.len())]);
            }
            clients.send()?;
            carry(some.len())?;
            wait_until(some.len(), || self.answer()).context("checks")?;
            carry(some.len())?;
            wait_until(some.len(), || Ok(drain(&mut clients.receiver)?)).context("answers")?;
        }
        Ok(())
    }

    /// Answers the checks that have come.
    fn answer(&mut self) -> anyhow::Result<usize> {
        let mut answered = 0;
        for worker in &mut self.workers {
            while let came @ 1.. = worker.receiver.recv()? {
                for n in 0..came {
                    let (datagram, _) = worker.receiver.datagram(n);
                    let (sealed, _) = Sealed::split(datagram)?;
                    let said = sealed.open(&KEY).context("it is not sealed for this worker")?;
                    let flow = flow_of(said.client);
                    let session = SessionHandle(flow as u32 + 1);
                    let header = Header { direction: Direction::ToClient, standing: Standing::Proven, session, ..said };
                    self.headers[flow] = header.seal(&KEY);
                    worker.outbox.push_slice(self.back, &[&self.headers[flow][..], b"\x01\x01"].concat());
                }
                answered += came;
            }
            let report = worker.sender.send(&mut worker.outbox);
            anyhow::ensure!(report.dropped == 0, "{report:?}");
        }
        Ok(answered)
    }

    /// The next flow.
    fn next(&mut self) -> usize {
        self.at = if self.at + 1 >= self.order.len() { 0 } else { self.at + 1 };
        self.order[self.at] as usize
    }

    /// Sends a round of media.
    pub(crate) fn send(&mut self, way: Way, media: &mut Media, clients: &mut Clients) -> anyhow::Result<()> {
        match way {
            Way::ToWorker => {
                for _ in 0..ROUND {
                    clients.burst.push(client(self.next()), self.door, &[media.next()]);
                }
                clients.send()?;
            }
            Way::ToClient => {
                for _ in 0..ROUND {
                    let flow = self.next();
                    let (header, count) = (&self.headers[flow], self.workers.len());
                    self.workers[flow % count].outbox.push_in_order(flow as u32, self.back, |octets| {
                        octets.extend_from_slice(header);
                        octets.extend_from_slice(media.next());
                        true
                    });
                }
                for worker in &mut self.workers {
                    let report = worker.sender.send(&mut worker.outbox);
                    anyhow::ensure!(report.dropped == 0, "{report:?}");
                }
            }
        }
        Ok(())
    }

    /// How many of them have come.
    pub(crate) fn came(&mut self, way: Way, clients: &mut Clients) -> anyhow::Result<usize> {
        match way {
            Way::ToWorker => {
                let mut came = 0;
                for worker in &mut self.workers {
                    came += drain(&mut worker.receiver)?;
                }
                Ok(came)
            }
            Way::ToClient => Ok(drain(&mut clients.receiver)?),
        }
    }
}

/// Asks until so many have come.
pub(crate) fn wait_until(count: usize, mut more: impl FnMut() -> anyhow::Result<usize>) -> anyhow::Result<()> {
    let (begun, mut all) = (Instant::now(), 0);
    loop {
        all += more()?;
        if all >= count {
            return Ok(());
        }
        anyhow::ensure!(begun.elapsed() < PATIENCE, "{all} of {count} came");
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// A carrier whose flows are all there.
pub(crate) struct Scene {
    pub(crate) carrier: Carrier<Minted>,
    pub(crate) cast: Cast,
}

impl Scene {
    /// The carrier's address towards the workers is `own`.
    pub(crate) fn make(plan: Plan, workers: Vec<Worker>, own: Ipv4Addr, clients: &mut Clients) -> anyhow::Result<Self> {
        let mut carrier = carrier(plan.offloads, workers.iter().map(|worker| worker.address).collect(), own)?;
        let back = SocketAddr::from((own, carrier.return_port()));
        let mut cast = Cast::new(workers, plan.flows, v4(carrier.door()), back);
        cast.begin(clients, |packets| carry(&mut carrier, packets)).context("flows could not be made")?;
        Ok(Self { carrier, cast })
    }

    /// A round of media, of which the carrier's part is `measured`.
    pub(crate) fn round(
        &mut self,
        way: Way,
        media: &mut Media,
        clients: &mut Clients,
        measured: impl FnOnce(&mut Carrier<Minted>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.cast.send(way, media, clients)?;
        measured(&mut self.carrier)?;
        let came = self.cast.came(way, clients)?;
        anyhow::ensure!(came == ROUND, "{came} of {ROUND} came");
        Ok(())
    }
}

/// A carrier for sessions of these workers.
pub(crate) fn carrier(offloads: Offloads, workers: Vec<SocketAddr>, own: Ipv4Addr) -> anyhow::Result<Carrier<Minted>> {
    let addresses =
        Addresses { clients: (Ipv4Addr::LOCALHOST, 0).into(), doors: Doors::default(), workers: (own, 0).into() };
    let bounds = Bounds { flows: 1 << 17, unproven: HOUR, proven: HOUR, per_session: u32::MAX };
    Ok(Carrier::bind(addresses, offloads, Minted(workers), bounds, Instant::now())?)
}

/// Steps until so many packets have been passed on or dropped.
pub(crate) fn carry(carrier: &mut Carrier<Minted>, packets: usize) -> anyhow::Result<()> {
    let before = done(carrier);
    while done(carrier) < before + packets as u64 {
        let seen = done(carrier);
        carrier.step(&Nowhere, |_| {})?;
        if done(carrier) == seen {
            let why: Vec<_> = Drop::ALL.iter().map(|why| (why.as_str(), carrier.counters().dropped(*why))).collect();
            bail!("{} of {packets} came; dropped {why:?}", seen - before);
        }
    }
    Ok(())
}

fn done(carrier: &Carrier<Minted>) -> u64 {
    let counters = carrier.counters();
    let passed = Way::ALL.into_iter().map(|way| counters.packets(way) + counters.unsent(way)).sum::<u64>();
    passed + Drop::ALL.into_iter().map(|why| counters.dropped(why)).sum::<u64>()
}

fn flow_of(client: SocketAddr) -> usize {
    match client.ip() {
        IpAddr::V4(ip) => (u32::from(ip) - 0x7F01_0000) as usize,
        IpAddr::V6(_) => unreachable!("everything here is IPv4"),
    }
}

const HOUR: Duration = Duration::from_secs(3_600);
/// What has not come by then is lost.
const PATIENCE: Duration = Duration::from_secs(2);
