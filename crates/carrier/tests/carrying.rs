//! A carrier on real sockets, and what it allocates for a packet.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use streamfleet_carrier::{Addresses, Carrier, Doors, Offloads, Way};
use streamfleet_counting::{Counting, calls};
use streamfleet_net::Offload;
use streamfleet_net::stun::{BindingRequest, Nomination, Role, TransactionId};
use streamfleet_relay::{
    Announced, Bounds, Direction, Drop, Elsewhere, FlowKey, HEADER, Header, Sealed, SessionHandle, Standing, Target,
    Ufrags,
};
use streamfleet_session::ufrag::SessionKey;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const KEY: SessionKey = SessionKey::from_bytes([7; 16]);

/// All sessions are at one worker, but for those whose names begin with an `o`.
struct Minted([SocketAddr; 2]);

impl Ufrags for Minted {
    fn open(&self, ufrag: &str) -> Option<Target> {
        Some(Target { worker: self.0[usize::from(ufrag.starts_with('o'))], key: KEY })
    }
}

struct Nowhere;

impl Elsewhere for Nowhere {
    fn find(&self, _: &FlowKey) -> Option<Announced> {
        None
    }
}

struct World {
    carrier: Carrier<Minted>,
    workers: [UdpSocket; 2],
    told: Vec<Announced>,
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Option<Vec<u8>> {
    let mut room = vec![0; 2_048];
    match socket.recv_from(&mut room) {
        Ok((len, _)) => {
            room.truncate(len);
            Some(room)
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            None
        }
    }
}

fn check(ufrag: &str) -> Vec<u8> {
    let request = BindingRequest {
        transaction: TransactionId([7; 12]),
        remote_ufrag: &ufrag.repeat(32),
        local_ufrag: "theirs",
        priority: 1,
        role: Role::Controlling(1),
        nomination: Nomination::None,
    };
    let mut datagram = Vec::new();
    request.write(b"a password of the session", &mut datagram).unwrap();
    datagram
}

impl World {
    fn new(offload: Offload) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), Doors::default(), offload)
    }

    fn at(clients: SocketAddr, doors: Doors, offload: Offload) -> Self {
        let workers = [socket(), socket()];
        let here = "127.0.0.1:0".parse().unwrap();
        let offloads = Offloads { segmentation: offload, coalescing: offload };
        let minted = Minted([0, 1].map(|n: usize| workers[n].local_addr().unwrap()));
        let addresses = Addresses { clients, doors, workers: here };
        let carrier = Carrier::bind(
            addresses,
            offloads,
            minted,
            Bounds { per_session: u32::MAX, ..Bounds::default() },
            Instant::now(),
        )
        .unwrap();
        Self { carrier, workers, told: Vec::new() }
    }

    /// On loopback what was sent has come: one step takes it.
    fn step(&mut self) {
        let told = &mut self.told;
        self.carrier.step(&Nowhere, |announced| told.push(announced)).unwrap();
    }

    /// A client whose worker has answered; and what the worker puts before what it sends it.
    fn client(&mut self, ufrag: &str, worker: usize) -> (UdpSocket, [u8; HEADER]) {
        let client = socket();
        client.connect(self.carrier.door()).unwrap();
        let header = self.check(&client, ufrag, worker);
        self.answer(&header, worker, b"\x01\x01");
        assert_eq!(receive(&client).unwrap(), b"\x01\x01");
        (client, header)
    }

    fn check(&mut self, client: &UdpSocket, ufrag: &str, worker: usize) -> [u8; HEADER] {
        client.send(&check(ufrag)).unwrap();
        self.step();
        let came = receive(&self.workers[worker]).expect("the check comes");
        let said = Sealed::split(&came).unwrap().0.open(&KEY).expect("sealed for this worker");
        assert_eq!(said.client, client.local_addr().unwrap());
        Header { direction: Direction::ToClient, standing: Standing::Proven, session: SessionHandle(1), ..said }
            .seal(&KEY)
    }

    fn answer(&mut self, header: &[u8; HEADER], worker: usize, datagram: &[u8]) {
        self.send(header, worker, datagram);
        self.step();
    }

    fn send(&self, header: &[u8; HEADER], worker: usize, datagram: &[u8]) {
        let back = SocketAddr::from(([127, 0, 0, 1], self.carrier.return_port()));
        self.workers[worker].send_to(&[&header[..], datagram].concat(), back).unwrap();
    }
}

#[test]
fn packets_of_any_length_come_as_they_went_and_in_their_order() {
    for offload in [Offload::On, Offload::Off] {
        let mut world = World::new(offload);
        let clients: Vec<_> = (0..5).map(|_| world.client("a", 0)).collect();
        assert_eq!(world.told.len(), 5);
        let media = |client: usize, n: usize| {
            let mut datagram = vec![n as u8; 20 + (client * 7 + n * 13) % 3 * 50];
            (datagram[0], datagram[1]) = (128, client as u8);
            datagram
        };
        for n in 0..30 {
            for (at, (client, header)) in clients.iter().enumerate() {
                client.send(&media(at, n)).unwrap();
                world.send(header, 0, &media(at, n));
            }
        }
        world.step();
        let mut came = [const { Vec::new() }; 5];
        while let Some(datagram) = receive(&world.workers[0]) {
            let (sealed, datagram) = Sealed::split(&datagram).unwrap();
            assert_eq!(sealed.open(&KEY).unwrap().session, SessionHandle(1));
            came[usize::from(datagram[1])].push(datagram.to_vec());
        }
        for (at, (client, _)) in clients.iter().enumerate() {
            let expected: Vec<_> = (0..30).map(|n| media(at, n)).collect();
            assert_eq!(came[at], expected);
            let home: Vec<_> = std::iter::from_fn(|| receive(client)).collect();
            assert_eq!(home, expected);
        }
        for way in Way::ALL {
            assert_eq!((world.carrier.counters().packets(way), world.carrier.counters().unsent(way)), (155, 0));
        }
    }
}

/// What does not say whose it is goes to both, each with a header of its own.
#[test]
fn what_may_be_two_sessions_is_two_packets() {
    let mut world = World::new(Offload::On);
    let (client, _) = world.client("a", 0);
    let other = world.check(&client, "o", 1);
    world.answer(&other, 1, b"");
    let mut response = Vec::new();
    streamfleet_net::stun::BindingSuccess { transaction: TransactionId([7; 12]), mapped: client.local_addr().unwrap() }
        .write(b"key", &mut response);
    client.send(&response).unwrap();
    world.step();
    for worker in &world.workers {
        let came = receive(worker).expect("it comes");
        let (sealed, datagram) = Sealed::split(&came).unwrap();
        assert!(sealed.open(&KEY).is_some() && datagram == response);
    }
}

/// As of a host behind two load balancers that leave packets as they are; one client asks at both from one port.
#[test]
fn answers_come_from_the_address_that_was_asked() {
    for (listen, client_ip) in [("0.0.0.0:0", "127.0.0.1"), ("[::]:0", "127.0.0.1")] {
        for offload in [Offload::On, Offload::Off] {
            let listen: SocketAddr = listen.parse().unwrap();
            let ips = ["127.0.0.2", "127.0.0.3"].map(|ip| ip.parse::<IpAddr>().unwrap());
            let mut world = World::at(listen, Doors::new(listen, ips), offload);
            let port = world.carrier.door().port();
            let client = UdpSocket::bind((client_ip, 0)).unwrap();
            client.set_nonblocking(true).unwrap();
            let doors = ips.map(|ip| SocketAddr::new(ip, port));
            // And at an address that nobody was told of: a pod's own, which a gateway has put there.
            let other = SocketAddr::from(([127, 0, 0, 1], port));
            let asked: Vec<_> = [doors[0], doors[1], other]
                .into_iter()
                .map(|door| {
                    client.send_to(&check("a"), door).unwrap();
                    world.step();
                    let came = receive(&world.workers[0]).expect("the check comes");
                    let said = Sealed::split(&came).unwrap().0.open(&KEY).unwrap();
                    assert_eq!(said.client, client.local_addr().unwrap());
                    let (session, standing) = (SessionHandle(1), Standing::Proven);
                    (door, Header { direction: Direction::ToClient, standing, session, ..said }.seal(&KEY))
                })
                .collect();
            // As runs, and as single ones.
            for n in [1, 5] {
                for _ in 0..n {
                    asked.iter().for_each(|(_, header)| world.send(header, 0, &[128; 50]));
                }
                world.step();
                let mut room = [0; 100];
                let came: Vec<_> =
                    std::iter::from_fn(|| client.recv_from(&mut room).ok()).map(|(_, from)| from).collect();
                for (door, _) in &asked {
                    assert_eq!(came.iter().filter(|from| *from == door).count(), n, "{door}: {came:?}");
                }
            }
        }
    }
}

#[test]
fn what_goes_no_further_is_counted() {
    let mut world = World::new(Offload::On);
    let stranger = socket();
    stranger.send_to(&[128, 1, 2], world.carrier.door()).unwrap();
    world.step();
    world.send(&[0; HEADER], 0, b"x");
    world.step();
    let counters = world.carrier.counters();
    assert_eq!((counters.dropped(Drop::UnknownFlow), counters.dropped(Drop::Malformed)), (1, 1));
    assert_eq!(Way::ALL.map(|way| counters.batches(way).sum()), [1, 1]);
    assert!(counters.delays(Way::ToWorker).counts().sum::<u64>() == 1, "the first batch is looked at");
    // Larger than the buffers, and without anything in it; from both sides.
    stranger.send_to(&[128; 2_049], world.carrier.door()).unwrap();
    let back = SocketAddr::from(([127, 0, 0, 1], world.carrier.return_port()));
    for to in [world.carrier.door(), back] {
        stranger.send_to(&[], to).unwrap();
    }
    world.step();
    let counters = world.carrier.counters();
    assert_eq!((counters.dropped(Drop::Giant), counters.dropped(Drop::Empty)), (1, 2));
}

/// As clients send and receive it.
#[test]
fn octets_are_those_of_what_was_passed_on() {
    let mut world = World::new(Offload::On);
    let (client, header) = world.client("a", 0);
    let before = Way::ALL.map(|way| world.carrier.counters().octets(way));
    for n in 0..10 {
        client.send(&vec![128; 100 + n]).unwrap();
        world.send(&header, 0, &vec![128; 200 + n]);
    }
    world.step();
    let told = Way::ALL.map(|way| world.carrier.counters().octets(way));
    assert_eq!([told[0] - before[0], told[1] - before[1]], [1_045, 2_045]);
}

/// From the first wait to the last packet sent, both ways, whatever runs there are.
#[test]
fn nothing_is_allocated_for_a_packet() {
    for offload in [Offload::On, Offload::Off] {
        let mut world = World::new(offload);
        let clients: Vec<_> = (0..8).map(|_| world.client("a", 0)).collect();
        for round in 0..20 {
            for n in 0..100 {
                let (client, header) = &clients[n % 8];
                let media = vec![128; 40 + n % 3 * 10];
                client.send(&media).unwrap();
                world.send(header, 0, &media);
            }
            let before = calls();
            world.step();
            // The first rounds may be the largest so far.
            assert!(round < 2 || calls() == before, "{} allocations in round {round}", calls() - before);
            while clients.iter().any(|(client, _)| receive(client).is_some()) {}
            while receive(&world.workers[0]).is_some() {}
        }
        assert!(world.carrier.counters().packets(Way::ToClient) >= 2_000);
    }
}

/// A step with nothing to do ends by itself, so that whoever runs it may stop.
#[test]
fn a_step_ends_although_nothing_comes() {
    let mut world = World::new(Offload::On);
    let begun = Instant::now();
    world.step();
    assert!(begun.elapsed() >= Duration::from_millis(50));
}
