#[path = "relay_properties.rs"]
mod properties;

use std::collections::HashMap;
use std::net::IpAddr;

use streamfleet_net::stun::{BindingRequest, BindingSuccess, Nomination, Role, TransactionId};

use super::*;
use crate::header::Header;
use streamfleet_session::ufrag::SessionKey;

const DOOR: u16 = 3478;
const RETURN: u16 = 40_000;
const DTLS: &[u8] = &[22, 254, 253, 0, 1, 2, 3];
const RTP: &[u8] = &[128, 111, 0, 1, 2, 3, 4, 5];

/// Sessions are called by one letter; each is at a worker of its own.
struct Minted;

fn target(letter: u8) -> Target {
    Target { worker: SocketAddr::from(([10, 0, 0, letter], 5000)), key: SessionKey::from_bytes([letter; 16]) }
}

impl Ufrags for Minted {
    fn open(&self, ufrag: &str) -> Option<Target> {
        match ufrag.as_bytes() {
            [letter @ b'a'..=b'z', rest @ ..] if rest.len() == 31 => Some(target(*letter)),
            _ => None,
        }
    }
}

/// What other relays have told.
#[derive(Default)]
struct Told(HashMap<FlowKey, Announced>);

impl Elsewhere for Told {
    fn find(&self, key: &FlowKey) -> Option<Announced> {
        self.0.get(key).copied()
    }
}

fn client(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 1000 + u16::from(n)))
}

fn check(session: &str) -> Vec<u8> {
    let request = BindingRequest {
        transaction: TransactionId([7; 12]),
        remote_ufrag: &session.repeat(32),
        local_ufrag: "theirs",
        priority: 1,
        role: Role::Controlling(1),
        nomination: Nomination::None,
    };
    let mut datagram = Vec::new();
    request.write(b"a password of the session", &mut datagram).unwrap();
    datagram
}

fn response() -> Vec<u8> {
    let mut datagram = Vec::new();
    BindingSuccess { transaction: TransactionId([7; 12]), mapped: client(1) }.write(b"key", &mut datagram);
    datagram
}

fn relay(bounds: Bounds) -> Relay<Minted> {
    Relay::new(Minted, bounds, RETURN)
}

const NOW: Duration = Duration::from_secs(100);

impl Relay<Minted> {
    fn hears(&mut self, n: u8, datagram: &[u8]) -> Result<Onward, Drop> {
        self.from_client(client(n), DOOR, datagram, NOW, &Told::default())
    }

    /// The worker answers what came with this header.
    fn told(
        &mut self,
        to: &(SocketAddr, [u8; HEADER]),
        standing: Standing,
        datagram: &[u8],
    ) -> Result<SocketAddr, Drop> {
        let sent = answer(to, standing, datagram);
        self.from_worker(&sent, NOW).map(|homeward| homeward.to)
    }
}

/// What a worker sends back to where a datagram came from.
fn answer((worker, header): &(SocketAddr, [u8; HEADER]), standing: Standing, datagram: &[u8]) -> Vec<u8> {
    let letter = match worker.ip() {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(_) => panic!("all are IPv4"),
    };
    let came = Sealed::split(header).unwrap().0.open(&target(letter).key).expect("sealed for this worker");
    assert_eq!((came.direction, came.return_port, came.door), (Direction::ToWorker, RETURN, DOOR));
    let session = SessionHandle(u32::from(letter));
    let back = Header { direction: Direction::ToClient, standing, session, ..came };
    [&back.seal(&target(letter).key)[..], datagram].concat()
}

#[test]
fn a_call_through_it() {
    let mut relay = relay(Bounds::default());
    assert_eq!(relay.hears(1, RTP), Err(Drop::UnknownFlow));
    let first = relay.hears(1, &check("a")).unwrap();
    assert_eq!((first.to.0, first.also), (target(b'a').worker, None));
    assert_eq!(relay.hears(1, DTLS), Err(Drop::Unconfirmed), "its worker has not answered yet");
    assert_eq!(relay.told(&first.to, Standing::Confirmed, &response()), Ok(client(1)));
    // The worker has said what it calls the session, and hears it from now on.
    for datagram in [DTLS, RTP, &response()] {
        let onward = relay.hears(1, datagram).unwrap();
        assert_eq!(onward.to.0, target(b'a').worker);
        assert_eq!(Sealed::split(&onward.to.1).unwrap().0.said().session, SessionHandle(u32::from(b'a')));
    }
    assert_eq!(relay.told(&first.to, Standing::Proven, &[0; 1200]), Ok(client(1)));
    assert_eq!(relay.hears(2, RTP), Err(Drop::UnknownFlow), "another client's address is another flow");
    assert_eq!(relay.flows(), 1);
}

#[test]
fn what_is_told_to_others_is_told_once() {
    let mut relay = relay(Bounds::default());
    let first = relay.hears(1, &check("a")).unwrap();
    let said = |relay: &mut Relay<Minted>, standing| {
        relay.from_worker(&answer(&first.to, standing, &[1]), NOW).unwrap().announce
    };
    assert_eq!(said(&mut relay, Standing::Confirmed), None);
    let session = SessionHandle(u32::from(b'a'));
    let announced = Announced { client: client(1), door: DOOR, target: target(b'a'), session, silent: Duration::ZERO };
    assert_eq!(said(&mut relay, Standing::Proven), Some(announced));
    assert_eq!(said(&mut relay, Standing::Proven), None);
    // The first packet of any kind goes on at another relay.
    let mut other = Relay::new(Minted, Bounds::default(), RETURN);
    let told = Told([(FlowKey::new(client(1), DOOR), announced)].into());
    for datagram in [RTP, DTLS, &response(), &check("a")] {
        let onward = other.from_client(client(1), DOOR, datagram, NOW, &told).unwrap();
        assert_eq!((onward.to.0, onward.also), (target(b'a').worker, None));
        assert_eq!(Sealed::split(&onward.to.1).unwrap().0.open(&target(b'a').key).unwrap().session, session);
    }
    assert_eq!(other.flows(), 1);
}

#[test]
fn what_lasts_is_told_again() {
    let mut relay = relay(Bounds::default());
    let (a, b) = (relay.hears(1, &check("a")).unwrap(), relay.hears(2, &check("b")).unwrap());
    relay.told(&a.to, Standing::Proven, &[1]).unwrap();
    relay.told(&b.to, Standing::Confirmed, &[1]).unwrap();
    let mut told = Vec::new();
    for seconds in 0..30 {
        relay.tend(1, NOW + Duration::from_secs(seconds), |announced| {
            assert_eq!((announced.client, announced.silent.as_secs()), (client(1), seconds));
            told.push(seconds);
        });
    }
    let [first, rest @ ..] = &told[..] else { panic!("it is never told") };
    assert!((1..=10).contains(first), "{told:?}");
    let expected: Vec<u64> = (1..3).map(|n| first + 10 * n).filter(|seconds| *seconds < 30).collect();
    assert_eq!(rest, expected);
}

/// A load balancer sends a thousand calls here at once, or a thousand begin: they are not told again all at once.
#[test]
fn what_came_together_is_told_apart() {
    const CLIENTS: u16 = 1_000;
    let at = |n: u16| SocketAddr::from(([192, 0, 2, 1], n));
    let flow = |n| {
        let session = SessionHandle(1);
        Announced { client: at(n), door: DOOR, target: target(b'a'), session, silent: Duration::ZERO }
    };
    let bounds = Bounds { per_session: u32::MAX, ..Bounds::default() };
    let (mut adopted, mut begun) = (relay(bounds), relay(bounds));
    let elsewhere = Told((0..CLIENTS).map(|n| (FlowKey::new(at(n), DOOR), flow(n))).collect());
    for n in 0..CLIENTS {
        adopted.from_client(at(n), DOOR, RTP, NOW, &elsewhere).unwrap();
        let first = begun.from_client(at(n), DOOR, &check("a"), NOW, &Told::default()).unwrap();
        begun.told(&first.to, Standing::Proven, &[1]).unwrap();
    }
    for relay in [&mut adopted, &mut begun] {
        let mut times = HashMap::<SocketAddr, Vec<u64>>::new();
        for seconds in 0..30 {
            let before: usize = times.values().map(Vec::len).sum();
            for _ in 0..10 {
                relay.tend(10, NOW + Duration::from_secs(seconds), |flow| {
                    times.entry(flow.client).or_default().push(seconds)
                });
            }
            let count = times.values().map(Vec::len).sum::<usize>() - before;
            // A tenth of them each second; six standard deviations more.
            assert!(count <= 157, "{count} in second {seconds}");
        }
        assert_eq!(times.len(), usize::from(CLIENTS));
        for times in times.values() {
            assert!(times[0] <= 10 && times.windows(2).all(|pair| pair[1] - pair[0] == 10), "{times:?}");
        }
    }
}

/// A thread that stood still has all of them to tell.
#[test]
fn so_many_are_told_at_once() {
    const CLIENTS: u16 = 10_000;
    let mut relay = relay(Bounds { per_session: u32::MAX, ..Bounds::default() });
    for n in 0..CLIENTS {
        let from = SocketAddr::from(([192, 0, 2, 1], n));
        let first = relay.from_client(from, DOOR, &check("a"), NOW, &Told::default()).unwrap();
        relay.told(&first.to, Standing::Proven, &[1]).unwrap();
    }
    let later = NOW + Duration::from_secs(20);
    let mut rounds = Vec::new();
    while rounds.iter().sum::<usize>() < usize::from(CLIENTS) && rounds.len() < 100 {
        let mut told = 0;
        relay.tend(10, later, |_| told += 1);
        rounds.push(told);
    }
    assert_eq!(rounds, [200; 50], "ten datagrams each time, until all are told");
}

/// A table that was full once has as many places as then.
#[test]
fn what_is_left_of_many_is_looked_after_as_often() {
    let mut relay = relay(Bounds { per_session: u32::MAX, ..Bounds::default() });
    for n in 1..=200 {
        let flow = relay.hears(n, &check("a")).unwrap();
        if n == 200 {
            relay.told(&flow.to, Standing::Proven, &[1]).unwrap();
        }
    }
    let later = NOW + Bounds::default().unproven + Duration::from_secs(1);
    relay.tend(1, later, drop);
    assert_eq!(relay.flows(), 1);
    let mut told = 0;
    for _ in 0..10 {
        relay.tend(10, later + Duration::from_secs(10), |_| told += 1);
    }
    assert_eq!(told, 1, "ten tenths are all of it");
}

#[test]
fn a_forged_source_takes_nobodys_call() {
    let mut relay = relay(Bounds::default());
    let held = relay.hears(1, &check("a")).unwrap();
    relay.told(&held.to, Standing::Proven, &[1]).unwrap();
    // Somebody with a session of his own sends in its name.
    let forged = relay.hears(1, &check("b")).unwrap();
    assert_eq!(forged.to.0, target(b'b').worker);
    // His worker answers, and asks: both is told to whoever is there.
    assert_eq!(relay.told(&forged.to, Standing::Confirmed, &[1]), Ok(client(1)));
    assert_eq!(relay.hears(1, RTP).unwrap().to.0, target(b'a').worker);
    // An answer may be either's.
    let answered = relay.hears(1, &response()).unwrap();
    assert_eq!((answered.to.0, answered.also.unwrap().0), (target(b'a').worker, target(b'b').worker));
    // A third one has the place of the second.
    relay.hears(1, &check("c")).unwrap();
    assert_eq!(relay.told(&forged.to, Standing::Proven, &[1]), Err(Drop::Forged), "its place is the third one's now");
    assert_eq!(relay.flows(), 2);
    // Who is really there has proven it, and has the address.
    let moved = relay.hears(1, &check("c")).unwrap();
    relay.told(&moved.to, Standing::Proven, &[1]).unwrap();
    assert_eq!(relay.hears(1, RTP).unwrap().to.0, target(b'c').worker);
    assert_eq!(relay.told(&held.to, Standing::Proven, &[1]), Err(Drop::StrangeFlow));
    assert_eq!(relay.flows(), 1);
}

#[test]
fn nobody_is_flooded_through_it() {
    let mut relay = relay(Bounds::default());
    let asked = check("a");
    let flow = relay.hears(1, &asked).unwrap();
    let large = vec![1; asked.len() + 1];
    assert_eq!(relay.told(&flow.to, Standing::Unknown, &large), Err(Drop::Amplified));
    assert_eq!(relay.told(&flow.to, Standing::Unknown, &large[1..]), Ok(client(1)));
    assert_eq!(relay.told(&flow.to, Standing::Unknown, &[1]), Err(Drop::Amplified));
    relay.hears(1, &asked).unwrap();
    assert_eq!(relay.told(&flow.to, Standing::Unknown, &large[1..]), Ok(client(1)));
}

#[test]
fn what_a_worker_may_not_send() {
    let mut relay = relay(Bounds::default());
    let (a, b) = (relay.hears(1, &check("a")).unwrap().to, relay.hears(2, &check("b")).unwrap().to);
    let sent = answer(&a, Standing::Confirmed, &[1, 2, 3]);
    assert_eq!(relay.from_worker(&sent[..HEADER], NOW), Err(Drop::Malformed), "nothing in it");
    assert_eq!(relay.from_worker(&sent[..20], NOW), Err(Drop::Malformed));
    let towards_it = [&a.1[..], &[1]].concat();
    assert_eq!(relay.from_worker(&towards_it, NOW), Err(Drop::Malformed), "its own header comes back");
    // Another session's worker, with another session's key.
    let of_a = Header { direction: Direction::ToClient, ..*Sealed::split(&a.1).unwrap().0.said() };
    let forged = [&of_a.seal(&target(b'b').key)[..], &[1]].concat();
    assert_eq!(relay.from_worker(&forged, NOW), Err(Drop::Forged));
    // Its own flow, and another's client.
    let elsewhere = Header { client: client(9), ..of_a };
    let sealed = [&elsewhere.seal(&target(b'a').key)[..], &[1]].concat();
    assert_eq!(relay.from_worker(&sealed, NOW), Err(Drop::StrangeFlow));
    let unknown = Header { flow: FlowId(77), ..of_a };
    let sealed = [&unknown.seal(&target(b'a').key)[..], &[1]].concat();
    assert_eq!(relay.from_worker(&sealed, NOW), Err(Drop::StrangeFlow));
    assert_eq!(relay.told(&b, Standing::Confirmed, &[1]), Ok(client(2)));
}

/// A header that is the last valid one is not sealed again to find out; one that differs anywhere is.
#[test]
fn a_header_that_was_valid_is_no_pattern_for_others() {
    let mut relay = relay(Bounds::default());
    let flow = relay.hears(1, &check("a")).unwrap();
    for standing in [Standing::Confirmed, Standing::Proven] {
        let valid = answer(&flow.to, standing, &[1]);
        for _ in 0..3 {
            assert!(relay.from_worker(&valid, NOW).is_ok());
        }
        for bit in 0..HEADER * 8 {
            let mut changed = valid.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(relay.from_worker(&changed, NOW).is_err(), "{bit}");
        }
        assert!(relay.from_worker(&valid, NOW).is_ok());
    }
    // Another session has the address now.
    let other = relay.hears(1, &check("b")).unwrap();
    relay.told(&other.to, Standing::Proven, &[1]).unwrap();
    assert_eq!(relay.told(&flow.to, Standing::Proven, &[1]), Err(Drop::StrangeFlow));
}

/// Asking for memory changes nothing.
#[test]
fn looking_ahead_is_no_decision() {
    let mut relay = relay(Bounds::default());
    let first = relay.hears(1, &check("a")).unwrap();
    relay.look_ahead((0..200).map(client), DOOR);
    relay.look_ahead_home([&answer(&first.to, Standing::Confirmed, &[1])[..], &[], &[255; 64]].into_iter());
    assert_eq!((relay.hears(1, RTP), relay.hears(2, RTP)), (Err(Drop::Unconfirmed), Err(Drop::UnknownFlow)));
}

#[test]
fn what_a_client_may_not_send() {
    let mut relay = relay(Bounds::default());
    for noise in [&[][..], &[0], &[0; 20], &[64, 0, 0, 0], &[200, 1, 2], &response()[..19]] {
        assert_eq!(relay.hears(1, noise), Err(Drop::Noise), "{noise:?}");
    }
    assert_eq!(relay.hears(1, &response()), Err(Drop::UnknownFlow));
    for _ in 0..50 {
        assert_eq!(relay.hears(1, &check("A")), Err(Drop::UnknownUfrag));
    }
    assert_eq!(relay.hears(1, &check("A")), Err(Drop::Stranger));
    assert!(relay.hears(1, &check("a")).is_ok(), "somebody else may have sent the others in its name");
    // Whose call is up is not shut out by who sends in its name.
    for _ in 0..60 {
        assert!(relay.hears(2, &check("A")).is_err());
    }
    assert!(relay.hears(2, &check("a")).is_ok());
}

/// Whoever holds a session, and can send from as many addresses as he likes, takes no more than a session's share.
#[test]
fn one_session_does_not_take_the_table() {
    let bounds = Bounds { per_session: 5, ..Bounds::default() };
    let mut relay = relay(bounds);
    for n in 1..=5 {
        let onward = relay.hears(n, &check("a")).unwrap();
        relay.told(&onward.to, Standing::Proven, &response()).unwrap();
    }
    let sixth = relay.hears(6, &check("a")).unwrap();
    assert_eq!(relay.told(&sixth.to, Standing::Confirmed, &response()), Err(Drop::Crowded));
    assert_eq!(relay.hears(6, RTP), Err(Drop::Unconfirmed));
    let other = relay.hears(6, &check("b")).unwrap();
    relay.told(&other.to, Standing::Proven, &response()).expect("another session has its own");
    // One of another's announcements is taken up as one that nobody vouches for.
    let (session, silent) = (SessionHandle::default(), Duration::ZERO);
    let seventh = Announced { client: client(7), door: DOOR, target: target(b'a'), session, silent };
    let told = Told(HashMap::from([(FlowKey::new(client(7), DOOR), seventh)]));
    assert_eq!(relay.from_client(client(7), DOOR, RTP, NOW, &told), Err(Drop::Unconfirmed));
    // Those that are forgotten make room.
    let later = NOW + bounds.proven + Duration::from_secs(2);
    relay.tend(1, later, |_| ());
    assert_eq!(relay.flows(), 0);
    for n in 1..=5 {
        let onward = relay.from_client(client(n), DOOR, &check("a"), later, &Told::default()).unwrap();
        relay.told(&onward.to, Standing::Confirmed, &response()).unwrap();
    }
}

/// Whoever has seen a session's ufrag, and has no password, keeps its client from nothing.
#[test]
fn a_ufrag_alone_crowds_nobody_out() {
    let mut relay = relay(Bounds { per_session: 2, ..Bounds::default() });
    for n in 1..100 {
        relay.hears(n, &check("a")).unwrap();
    }
    for n in [3, 101] {
        let onward = relay.hears(n, &check("a")).unwrap();
        relay.told(&onward.to, Standing::Proven, &response()).unwrap();
    }
}

/// A check with the right password is no proof that its client is where it says it is.
#[test]
fn who_has_not_answered_gives_way() {
    let mut relay = relay(Bounds { flows: 3, ..Bounds::default() });
    let proven = relay.hears(1, &check("a")).unwrap();
    relay.told(&proven.to, Standing::Proven, &response()).unwrap();
    for n in 2..40 {
        let onward = relay.hears(n, &check("b")).unwrap();
        relay.told(&onward.to, Standing::Confirmed, &response()).unwrap();
    }
    assert!(relay.hears(50, &check("c")).is_ok());
    assert!(relay.hears(1, RTP).is_ok(), "who is there stays");
}

/// The key that a call's ufrag was minted with is over: its own checks cannot be opened any more, and go on.
#[test]
fn a_call_outlives_its_key() {
    let mut relay = relay(Bounds::default());
    let first = relay.hears(1, &check("a")).unwrap();
    assert_eq!(relay.hears(1, &check("A")), Err(Drop::UnknownUfrag), "nothing is known of the client yet");
    relay.told(&first.to, Standing::Confirmed, &response()).unwrap();
    assert_eq!(relay.hears(1, &check("A")), Err(Drop::UnknownUfrag), "it has not shown that it is there");
    relay.told(&first.to, Standing::Proven, &response()).unwrap();
    let on = relay.hears(1, &check("A")).unwrap();
    assert_eq!((on.to.0, on.also), (target(b'a').worker, None));
    assert_eq!(relay.hears(1, &check("b")).unwrap().to.0, target(b'b').worker, "what can be opened says where to");
    // Told by another relay, which has still opened it.
    let (session, silent) = (SessionHandle(1), Duration::ZERO);
    let announced = Announced { client: client(3), door: DOOR, target: target(b'c'), session, silent };
    let told = Told(HashMap::from([(FlowKey::new(client(3), DOOR), announced)]));
    let on = relay.from_client(client(3), DOOR, &check("C"), NOW, &told).unwrap();
    assert_eq!(on.to.0, target(b'c').worker);
}

#[test]
fn silent_flows_are_forgotten() {
    let bounds = Bounds { flows: 3, ..Bounds::default() };
    let mut relay = relay(bounds);
    let proven = relay.hears(1, &check("a")).unwrap();
    relay.told(&proven.to, Standing::Proven, &[1]).unwrap();
    relay.hears(2, &check("b")).unwrap();
    assert_eq!(relay.tend(1, NOW + bounds.unproven, drop), 0);
    assert_eq!(relay.tend(1, NOW + bounds.unproven + Duration::from_secs(1), drop), 1);
    assert_eq!(relay.hears(1, RTP).unwrap().to.0, target(b'a').worker);
    assert_eq!(relay.tend(1, NOW + bounds.proven + Duration::from_secs(1), drop), 1);
    assert_eq!((relay.flows(), relay.hears(1, RTP)), (0, Err(Drop::UnknownFlow)));
}

#[test]
fn a_full_table_gives_up_those_who_are_not_proven() {
    let mut relay = relay(Bounds { flows: 3, ..Bounds::default() });
    for (n, letter) in [(1, "a"), (2, "b")] {
        let flow = relay.hears(n, &check(letter)).unwrap();
        relay.told(&flow.to, Standing::Proven, &[1]).unwrap();
    }
    for n in 3..9 {
        relay.hears(n, &check("c")).unwrap();
        assert_eq!(relay.flows(), 3);
    }
    assert_eq!(relay.hears(1, RTP).unwrap().to.0, target(b'a').worker);
    let last = relay.hears(8, &check("c")).unwrap();
    relay.told(&last.to, Standing::Proven, &[1]).unwrap();
    assert_eq!(relay.hears(9, &check("d")), Err(Drop::Full), "all are there");
    assert_eq!(relay.hears(1, &check("d")), Err(Drop::Full));
}
