//! Real sockets over the loopback interface.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use streamfleet_net::{
    Fragmentation, Offload, Outbox, Poller, Receiver, ReusePort, SendReport, Sender, SocketOptions, SocketSet, Source,
    UdpSocket, Unusable, wait_for,
};

fn bind(address: &str, options: SocketOptions) -> UdpSocket {
    UdpSocket::bind(address.parse().unwrap(), options).unwrap()
}

fn options(gso: Offload, gro: Offload) -> SocketOptions {
    SocketOptions { gso, gro, ..SocketOptions::default() }
}

/// Receives until `count` datagrams are there; each with its sender.
fn receive(receiver: &mut Receiver, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut poller = Poller::new(receiver.socket()).unwrap();
    let mut got = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(5);
    while got.len() < count && Instant::now() < deadline {
        poller.wait(Some(Duration::from_millis(100)));
        loop {
            for i in 0..receiver.recv().unwrap() {
                let (datagram, from) = receiver.datagram(i);
                got.push((from, datagram.to_vec()));
            }
            if !receiver.is_full() {
                break;
            }
        }
    }
    got
}

/// Numbered datagrams of varying lengths, to two receivers in turn and in runs.
fn fill(outbox: &mut Outbox, to: &[SocketAddr], count: u32) -> HashMap<SocketAddr, Vec<Vec<u8>>> {
    let mut expected: HashMap<SocketAddr, Vec<Vec<u8>>> = HashMap::new();
    for i in 0..count {
        let to = to[if i % 7 < 4 { 0 } else { i as usize % to.len() }];
        let mut datagram = i.to_be_bytes().to_vec();
        datagram.resize([100, 100, 100, 60, 100, 1_200][i as usize / 5 % 6], i as u8);
        assert!(outbox.push_slice(to, &datagram));
        expected.entry(to).or_default().push(datagram);
    }
    expected
}

#[track_caller]
fn check_exchange(bind_sender: &str, bind_receivers: [&str; 2], gso: Offload, gro: Offload) {
    let (_, mut sender) = bind(bind_sender, options(gso, Offload::Off)).split();
    let sockets = bind_receivers.map(|address| bind(address, options(Offload::Off, gro)));
    let to: Vec<SocketAddr> = sockets.iter().map(UdpSocket::local_addr).collect();
    let mut outbox = Outbox::new();
    let expected = fill(&mut outbox, &to, 500);
    let report = sender.send(&mut outbox);
    assert!(outbox.is_empty());
    assert_eq!((report.sent, report.dropped), (500, 0));
    for socket in sockets {
        let expected = &expected[&socket.local_addr()];
        let (mut receiver, _) = socket.split();
        let got: Vec<Vec<u8>> = receive(&mut receiver, expected.len()).into_iter().map(|(_, d)| d).collect();
        assert_eq!(&got, expected, "gso {gso:?} gro {gro:?}");
        assert_eq!(receiver.unusable(), Unusable::default());
    }
}

#[test]
fn exchanges_with_and_without_offloads() {
    for gso in [Offload::Off, Offload::On] {
        for gro in [Offload::Off, Offload::On] {
            check_exchange("127.0.0.1:0", ["127.0.0.1:0", "127.0.0.1:0"], gso, gro);
            check_exchange("[::1]:0", ["[::1]:0", "[::1]:0"], gso, gro);
        }
    }
}

#[test]
fn runs_cost_fewer_calls_and_arrive_whole() {
    let send = |gso| {
        let (mut receiver, _) = bind("127.0.0.1:0", options(Offload::Off, Offload::On)).split();
        let (_, mut sender) = bind("127.0.0.1:0", options(gso, Offload::Off)).split();
        let mut outbox = Outbox::new();
        let to = receiver.socket().local_addr();
        (0..640).for_each(|i: u32| assert!(outbox.push_slice(to, &[i as u8; 100])));
        let report = sender.send(&mut outbox);
        assert_eq!(receive(&mut receiver, 640).len(), 640);
        (report, sender.gso())
    };
    assert_eq!(send(Offload::Off), (SendReport { sent: 640, octets: 64_000, dropped: 0, calls: 10 }, Offload::Off));
    assert_eq!(send(Offload::On), (SendReport { sent: 640, octets: 64_000, dropped: 0, calls: 1 }, Offload::On));
}

/// A device with an MTU below the segments' length refuses runs, but fragments single datagrams.
#[test]
fn refused_runs_go_singly() {
    let (mut receiver, _) = bind("127.0.0.1:0", SocketOptions::default()).split();
    let (_, mut sender) = bind("127.0.0.1:0", SocketOptions::default()).split();
    let to = receiver.socket().local_addr();
    let mut outbox = Outbox::new();
    // Port 0 is nobody's: the kernel answers EINVAL to both the run and its members.
    let nobody = SocketAddr::new(to.ip(), 0);
    for i in 0..6u8 {
        assert!(outbox.push_slice(if i % 2 == 0 { nobody } else { to }, &[i; 50]));
    }
    let report = sender.send(&mut outbox);
    assert_eq!((report.sent, report.dropped), (3, 3));
    assert!(report.calls >= 5, "{report:?}"); // the run, its three members, the rest
    let got: Vec<u8> = receive(&mut receiver, 3).iter().map(|(_, datagram)| datagram[0]).collect();
    assert_eq!(got, [1, 3, 5]);
    assert_eq!(sender.gso(), Offload::On);
}

#[test]
fn a_dual_stack_socket_shows_ipv4_as_ipv4() {
    let (mut dual, mut from_dual) = bind("[::]:0", SocketOptions::default()).split();
    let (mut v4, mut from_v4) = bind("127.0.0.1:0", SocketOptions::default()).split();
    let (mut v6, mut from_v6) = bind("[::1]:0", SocketOptions::default()).split();
    let port = dual.socket().local_addr().port();
    let send = |sender: &mut Sender, to: SocketAddr, text: &[u8]| {
        let mut outbox = Outbox::new();
        assert!(outbox.push_slice(to, text));
        assert_eq!(sender.send(&mut outbox).sent, 1);
    };
    send(&mut from_v4, SocketAddr::from(([127, 0, 0, 1], port)), b"4 to dual");
    let got = receive(&mut dual, 1);
    assert_eq!(got, [(v4.socket().local_addr(), b"4 to dual".to_vec())]);
    send(&mut from_v6, format!("[::1]:{port}").parse().unwrap(), b"6 to dual");
    assert_eq!(receive(&mut dual, 1), [(v6.socket().local_addr(), b"6 to dual".to_vec())]);
    send(&mut from_dual, v4.socket().local_addr(), b"dual to 4");
    assert_eq!(receive(&mut v4, 1), [(SocketAddr::from(([127, 0, 0, 1], port)), b"dual to 4".to_vec())]);
    send(&mut from_dual, v6.socket().local_addr(), b"dual to 6");
    assert_eq!(receive(&mut v6, 1)[0].1, b"dual to 6");
}

#[test]
fn an_unreachable_destination_loses_only_its_own() {
    let (mut receiver, _) = bind("127.0.0.1:0", SocketOptions::default()).split();
    let (_, mut sender) = bind("127.0.0.1:0", SocketOptions::default()).split();
    let to = receiver.socket().local_addr();
    let mut outbox = Outbox::new();
    for i in 0..300u32 {
        let to = match i % 3 {
            0 => to,
            // A route that this socket, bound to loopback, has not.
            1 => "192.0.2.55:9".parse().unwrap(),
            // Another family.
            _ => "[2001:db8::55]:9".parse().unwrap(),
        };
        assert!(outbox.push_slice(to, &i.to_be_bytes()));
    }
    let report = sender.send(&mut outbox);
    assert_eq!((report.sent, report.dropped), (100, 200));
    let got: Vec<u32> = receive(&mut receiver, 100)
        .iter()
        .map(|(_, datagram)| u32::from_be_bytes(datagram[..].try_into().unwrap()))
        .collect();
    assert_eq!(got, (0..300).step_by(3).collect::<Vec<u32>>());
}

#[test]
fn a_burst_larger_than_the_buffers_is_taken_in_parts() {
    let (mut receiver, _) = bind("127.0.0.1:0", SocketOptions::default()).split();
    let (_, mut sender) = bind("127.0.0.1:0", options(Offload::Off, Offload::Off)).split();
    let mut outbox = Outbox::new();
    (0..200u8).for_each(|i| assert!(outbox.push_slice(receiver.socket().local_addr(), &[i])));
    assert_eq!(sender.send(&mut outbox).sent, 200);
    let parts: Vec<(usize, bool)> = (0..4).map(|_| (receiver.recv().unwrap(), receiver.is_full())).collect();
    assert_eq!(parts, [(64, true), (64, true), (64, true), (8, false)]);
    assert_eq!(receiver.recv().unwrap(), 0);
    assert!(!receiver.is_full());
}

#[test]
fn what_is_of_no_use_is_dropped_and_counted() {
    let (mut receiver, _) = bind("127.0.0.1:0", SocketOptions::default()).split();
    let (_, mut sender) = bind("127.0.0.1:0", SocketOptions::default()).split();
    let to = receiver.socket().local_addr();
    let mut outbox = Outbox::new();
    for len in [2_049, 2_048, 1] {
        assert!(outbox.push_slice(to, &vec![9; len]));
    }
    assert_eq!(sender.send(&mut outbox).sent, 3);
    let lengths: Vec<usize> = receive(&mut receiver, 2).iter().map(|(_, datagram)| datagram.len()).collect();
    assert_eq!(lengths, [2_048, 1]);
    // An outbox has none without an octet.
    let another = bind("127.0.0.1:0", SocketOptions::default());
    another.send_to(&[], to).unwrap();
    another.send_to(&[9], to).unwrap();
    assert_eq!(receive(&mut receiver, 1).len(), 1);
    assert_eq!(receiver.unusable(), Unusable { giant: 1, empty: 1 });
}

#[test]
fn addresses_are_exclusive_unless_shared() {
    let first = bind("127.0.0.1:0", SocketOptions::default());
    assert!(UdpSocket::bind(first.local_addr(), SocketOptions::default()).is_err());
    let shared = SocketOptions { reuse_port: ReusePort::Shared, ..SocketOptions::default() };
    let first = bind("127.0.0.1:0", shared);
    assert!(UdpSocket::bind(first.local_addr(), shared).is_ok());
}

#[test]
fn connected_and_unfragmented() {
    let forbidden = SocketOptions { fragmentation: Fragmentation::Forbidden, ..SocketOptions::default() };
    let (a, b, c) = (bind("127.0.0.1:0", forbidden), bind("127.0.0.1:0", forbidden), bind("127.0.0.1:0", forbidden));
    a.connect(b.local_addr()).unwrap();
    c.send_to(b"not a's peer", a.local_addr()).unwrap();
    b.send_to(b"a's peer", a.local_addr()).unwrap();
    let (b_address, gone) = (b.local_addr(), b);
    let (mut receiver, mut sender) = a.split();
    assert_eq!(receive(&mut receiver, 1), [(b_address, b"a's peer".to_vec())]);
    receiver.socket().send(b"back").unwrap();
    assert_eq!(receive(&mut gone.split().0, 1), [(receiver.socket().local_addr(), b"back".to_vec())]);
    // The peer goes away: the kernel reports that through errors, which are no end of the world.
    drop(gone);
    let mut outbox = Outbox::new();
    for _ in 0..3 {
        assert!(outbox.push_slice(b_address, b"anyone?"));
        let report = sender.send(&mut outbox);
        assert_eq!(report.sent + report.dropped, 1);
        assert_eq!(receiver.recv().unwrap(), 0);
    }
}

#[test]
fn waits_end_by_packet_by_wake_or_by_time() {
    let socket = bind("127.0.0.1:0", SocketOptions::default());
    let mut poller = Poller::new(&socket).unwrap();
    let waker = poller.waker();
    let wait = |poller: &mut Poller| {
        let ready = poller.wait(Some(Duration::from_millis(1)));
        (ready.socket, ready.wake)
    };
    assert_eq!(wait(&mut poller), (false, false));
    waker.wake();
    waker.clone().wake();
    assert_eq!(wait(&mut poller), (false, true));
    assert_eq!(wait(&mut poller), (false, false));
    waker.wake();
    assert!(poller.take_wake());
    assert!(!poller.take_wake());
    assert_eq!(wait(&mut poller), (false, false));
    socket.send_to(b"x", socket.local_addr()).unwrap();
    waker.wake();
    assert_eq!(wait(&mut poller), (true, true));
    assert_eq!(wait(&mut poller), (true, false));
    socket.split().0.recv().unwrap();
    assert_eq!(wait(&mut poller), (false, false));
}

/// What was queued before a wake is always seen after the wait that reports it.
#[test]
fn no_wake_is_lost() {
    let socket = bind("127.0.0.1:0", SocketOptions::default());
    let mut poller = Poller::new(&socket).unwrap();
    let (queue, seen) = std::sync::mpsc::channel();
    let producers: Vec<_> = (0..3)
        .map(|_| {
            let (waker, queue) = (poller.waker(), queue.clone());
            std::thread::spawn(move || {
                for i in 0..5_000 {
                    queue.send(i).unwrap();
                    waker.wake();
                    if i % 64 == 0 {
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let mut count = 0;
    while count < 15_000 {
        // A lost wake would leave the queue non-empty and this waiting.
        let ready = poller.wait(Some(Duration::from_secs(10)));
        assert!(ready.wake, "lost after {count}");
        count += seen.try_iter().count();
        // A wake may follow what was taken already.
        poller.take_wake();
        count += seen.try_iter().count();
    }
    producers.into_iter().for_each(|producer| producer.join().unwrap());
}

#[test]
fn a_set_reports_the_sockets_that_have_something() {
    let set = SocketSet::new().unwrap();
    let sockets: Vec<UdpSocket> = (0..10).map(|_| bind("127.0.0.1:0", SocketOptions::default())).collect();
    for (i, socket) in sockets.iter().enumerate() {
        set.add(socket, i as u64).unwrap();
    }
    let mut ready = vec![];
    set.wait(Duration::from_micros(200), &mut ready).unwrap();
    assert!(ready.is_empty());
    for i in [3, 7] {
        sockets[0].send_to(b"x", sockets[i].local_addr()).unwrap();
    }
    set.wait(Duration::from_secs(1), &mut ready).unwrap();
    ready.sort_unstable();
    assert_eq!(ready, [3, 7]);
    drop(sockets);
    set.wait(Duration::from_micros(200), &mut ready).unwrap();
    assert!(ready.is_empty());
}

/// A datagram is sent on from where it lies, once, with a header before it or without its beginning.
#[test]
fn what_has_come_is_passed_on() {
    for gso in [Offload::Off, Offload::On] {
        let (mut ends, mut from_end) = bind("127.0.0.1:0", SocketOptions::default()).split();
        let between = bind("127.0.0.1:0", options(gso, Offload::Off));
        let (mut receiver, mut sender) = between.split_with_headroom(4);
        let (to, back) = (between.local_addr(), ends.socket().local_addr());
        let mut outbox = Outbox::new();
        (0..6u8).for_each(|i| assert!(outbox.push_slice(to, &[i; 30])));
        assert_eq!(from_end.send(&mut outbox).sent, 6);
        assert_eq!(receiver.recv().unwrap(), 6);
        for i in 0..6 {
            let passes = match i {
                0 => receiver.pass_without(i, 10, Source::ANY, back, 0),
                1 => !receiver.pass_without(i, 30, Source::ANY, back, 0) && !receiver.pass_with(i, &[7; 5], back, 0),
                _ => receiver.pass_with(i, &[i as u8; 4], back, 0) && !receiver.pass_with(i, &[9; 4], back, 0),
            };
            assert!(passes, "{i}");
        }
        assert_eq!(sender.pass_on(&mut receiver).sent, 5);
        assert_eq!(sender.pass_on(&mut receiver), Default::default(), "once");
        let got: Vec<Vec<u8>> = receive(&mut ends, 5).into_iter().map(|(_, datagram)| datagram).collect();
        let expected: Vec<Vec<u8>> = [(0, 20), (2, 34), (3, 34), (4, 34), (5, 34)].map(|(i, len)| vec![i; len]).into();
        assert_eq!(got, expected);
    }
}

/// What lies before the second datagram of a run is the first.
#[test]
fn there_is_room_before_the_first_of_a_run_alone() {
    let (_, mut from_end) = bind("127.0.0.1:0", options(Offload::On, Offload::Off)).split();
    let between = bind("127.0.0.1:0", options(Offload::On, Offload::On));
    let (mut receiver, _) = between.split_with_headroom(4);
    let mut outbox = Outbox::new();
    (0..3u8).for_each(|i| assert!(outbox.push_slice(between.local_addr(), &[i; 30])));
    assert_eq!(from_end.send(&mut outbox).calls, 1, "as a run");
    assert_eq!(receiver.recv().unwrap(), 3);
    let nobody = "127.0.0.1:9".parse().unwrap();
    assert_eq!([0, 1, 2].map(|i| receiver.pass_with(i, &[9; 4], nobody, 0)), [true, false, false]);
    assert_eq!([1, 2].map(|i| receiver.datagram(i).0[0]), [1, 2]);
}

#[test]
fn what_nobody_takes_is_counted() {
    let small = SocketOptions { recv_buffer: 8_192, ..SocketOptions::default() };
    let (receiver, _) = bind("127.0.0.1:0", small).split();
    let (_, mut sender) = bind("127.0.0.1:0", options(Offload::Off, Offload::Off)).split();
    assert_eq!(receiver.socket().receive_drops().unwrap(), 0);
    assert!((4_096..=65_536).contains(&receiver.socket().recv_buffer().unwrap()));
    let mut outbox = Outbox::new();
    (0..200u8).for_each(|i| assert!(outbox.push_slice(receiver.socket().local_addr(), &[i; 1_000])));
    assert_eq!(sender.send(&mut outbox).sent, 200);
    let (mut receiver, mut taken) = (receiver, 0);
    while let came @ 1.. = receiver.recv().unwrap() {
        taken += came as u32;
    }
    assert!(taken < 100, "{taken}");
    assert_eq!(receiver.socket().receive_drops().unwrap(), 200 - taken);
}

#[test]
fn only_those_that_have_something_are_ready() {
    let (one, other) = (bind("127.0.0.1:0", SocketOptions::default()), bind("127.0.0.1:0", SocketOptions::default()));
    assert_eq!(wait_for([&one, &other], Duration::ZERO), [false, false]);
    one.send_to(b"x", other.local_addr()).unwrap();
    assert_eq!(wait_for([&one, &other], Duration::from_secs(10)), [false, true]);
    other.send_to(b"x", one.local_addr()).unwrap();
    assert_eq!(wait_for([&one, &other], Duration::from_secs(10)), [true, true]);
}
