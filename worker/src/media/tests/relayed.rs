//! Clients that reach the worker by relays: the relays' own decisions and the loop's, in one virtual time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use streamfleet_net::stun::{BindingRequest, Nomination, Role, TransactionId};
use streamfleet_relay::{Announced, Bounds, Elsewhere, FlowKey, HEADER, Relay, Target, Ufrags};
use streamfleet_session::lifecycle::CloseReason;
use streamfleet_session::ufrag::SessionKey;

use super::client::{Client, Offering};
use super::echo::echo;
use super::network::Conditions;
use super::world::{Opening, World, server};
use crate::media::shared::Stage;

/// The port of the worker's loop, which no client knows.
fn worker() -> SocketAddr {
    ([10, 1, 0, 1], 5000).into()
}

const RETURN_PORT: u16 = 40_000;

/// Where a relay's threads are to the worker.
fn relay(n: usize) -> SocketAddr {
    ([10, 2, 0, n as u8], RETURN_PORT).into()
}

/// Opens what [`World::ufrag`] has made.
struct Minted;

impl Ufrags for Minted {
    fn open(&self, ufrag: &str) -> Option<Target> {
        let number: u64 = ufrag.strip_prefix("ufrag")?.parse().ok()?;
        let mut key = [7; 16];
        key[..8].copy_from_slice(&number.to_be_bytes());
        Some(Target { worker: worker(), key: SessionKey::from_bytes(key) })
    }
}

/// What relays have told each other.
#[derive(Default)]
struct Told(HashMap<FlowKey, Announced>);

impl Elsewhere for Told {
    fn find(&self, key: &FlowKey) -> Option<Announced> {
        self.0.get(key).copied()
    }
}

/// Relays behind one public address.
pub(super) struct Relays {
    relays: Vec<Relay<Minted>>,
    /// Where the load balancer sends what comes now.
    pub(super) serving: usize,
    /// Whether relays tell each other of their flows.
    pub(super) tell: bool,
    told: Told,
    started: Instant,
    /// What they have dropped, by why.
    pub(super) dropped: HashMap<streamfleet_relay::Drop, usize>,
}

impl Relays {
    fn new(count: usize, started: Instant) -> Self {
        let relays = (0..count).map(|_| Relay::new(Minted, Bounds::default(), RETURN_PORT)).collect();
        Self { relays, serving: 0, tell: true, told: Told::default(), started, dropped: HashMap::new() }
    }

    pub(super) fn key(ufrag: &str) -> SessionKey {
        Minted.open(ufrag).unwrap().key
    }

    /// What the worker gets of a datagram of a client's: who from, and what.
    pub(super) fn inward(&mut self, from: SocketAddr, data: &[u8], now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        let (serving, now) = (self.serving, now - self.started);
        match self.relays[serving].from_client(from, server().port(), data, now, &self.told) {
            Ok(onward) => {
                let all = [Some(onward.to), onward.also];
                all.into_iter().flatten().map(|(_, header)| (relay(serving), [&header[..], data].concat())).collect()
            }
            Err(why) => {
                *self.dropped.entry(why).or_default() += 1;
                Vec::new()
            }
        }
    }

    /// Who gets what of a datagram of the worker's.
    pub(super) fn outward(&mut self, to: SocketAddr, data: &[u8], now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        let n = (0..self.relays.len()).find(|n| relay(*n) == to).expect("the worker sends to relays only");
        // A relay that is gone says nothing.
        if n != self.serving {
            return None;
        }
        match self.relays[n].from_worker(data, now - self.started) {
            Ok(homeward) => {
                if let Some(announced) = homeward.announce.filter(|_| self.tell) {
                    self.told.0.insert(FlowKey::new(announced.client, announced.door), announced);
                }
                Some((homeward.to, homeward.datagram.to_vec()))
            }
            Err(why) => {
                *self.dropped.entry(why).or_default() += 1;
                None
            }
        }
    }
}

pub(super) fn world(seed: u64, conditions: Conditions, relays: usize) -> World {
    let mut world = World::new(seed, conditions);
    world.relays = Some(Relays::new(relays, world.started));
    world
}

fn gap(world: &World, client: usize, from: Instant) -> Duration {
    let times: Vec<_> = world.clients[client].echoes.iter().map(|e| e.at).filter(|at| *at >= from).collect();
    times.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(Duration::MAX)
}

#[test]
fn a_call_by_a_relay_is_as_good_as_a_direct_one() {
    let mut world = world(1, Conditions::CLEAN, 1);
    let (c, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(30));
    let client = &world.clients[c];
    let connected = client.connected_at.expect("connected") - world.started;
    assert!(connected < Duration::from_millis(400), "{connected:?}");
    let sent = client.sent_at.len();
    assert!(client.echoes.len() >= sent - 4, "{} of {sent}", client.echoes.len());
    assert!(client.echoes.windows(2).all(|w| w[1].number == w[0].number + 1));
    assert_eq!(shared.remote(), Some(client.outside), "the session knows its client, not its relay");
    assert!(world.sent.iter().all(|(to, data)| *to == relay(0) && data.len() > HEADER), "and nobody else is sent to");
}

#[test]
fn a_relay_that_dies_costs_what_was_on_its_way() {
    let mut world = world(2, Conditions::CLEAN, 3);
    let (c, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(5));
    for serving in [1, 2, 0] {
        let before = world.now - Duration::from_millis(100);
        world.relays.as_mut().unwrap().serving = serving;
        world.run(Duration::from_secs(3));
        // One packet, every 20 ms, may have been at the dead relay on its way back.
        let gap = gap(&world, c, before);
        assert!(gap <= Duration::from_millis(45), "{gap:?}");
    }
    assert_eq!(shared.stage(), Stage::Active);
    assert_eq!(world.relays.unwrap().dropped, HashMap::new());
}

/// The next check finds the way without it: the client has consent to renew every few seconds.
#[test]
fn a_relay_that_was_told_nothing_learns_it_from_the_next_check() {
    let mut world = world(3, Conditions::CLEAN, 2);
    world.relays.as_mut().unwrap().tell = false;
    let (c, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(5));
    let before = world.now - Duration::from_millis(100);
    world.relays.as_mut().unwrap().serving = 1;
    world.run(Duration::from_secs(10));
    let gap = gap(&world, c, before);
    assert!((Duration::from_millis(50)..Duration::from_secs(6)).contains(&gap), "{gap:?}");
    assert_eq!(shared.stage(), Stage::Active);
}

/// What comes from a new port is nobody's until a check has come from there.
#[test]
fn a_client_whose_nat_moves_it_is_found_by_its_next_check() {
    let mut world = world(4, Conditions::CLEAN, 1);
    let (c, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(5));
    let moved: SocketAddr = ([192, 0, 2, 10], 7777).into();
    world.clients[c].outside = moved;
    let before = world.now - Duration::from_millis(100);
    world.run(Duration::from_secs(10));
    let gap = gap(&world, c, before);
    assert!(gap < Duration::from_secs(6), "{gap:?}");
    assert_eq!((shared.remote(), shared.stage()), (Some(moved), Stage::Active));
}

/// Somebody with a session of his own sends in another client's name, and to the worker past the relay.
#[test]
fn nobody_takes_a_call_from_its_client() {
    let mut world = world(5, Conditions::CLEAN, 1);
    let (c, shared) = world.call(echo(), World::limits());
    let (_, others) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(5));
    let (victim, attacker) = (world.clients[c].outside, world.clients[c + 1].outside);
    let overheard: Vec<_> = world.overheard.iter().filter(|(from, _)| *from == attacker).cloned().collect();
    let from = world.now;
    for (_, data) in &overheard {
        let arrived = world.relays.as_mut().unwrap().inward(victim, data, world.now);
        for (relay, data) in arrived {
            world.inject(relay, &data);
        }
        world.inject(victim, data);
        world.inject(attacker, data);
        world.run(Duration::from_millis(5));
    }
    world.run(Duration::from_secs(3));
    let gap = gap(&world, c, from);
    assert!(gap <= Duration::from_millis(45), "{gap:?}");
    assert_eq!((shared.remote(), others.remote()), (Some(victim), Some(attacker)));
    assert!(world.sent.iter().all(|(to, _)| *to == relay(0)), "nobody is sent to past the relay");
}

/// By which relay the only session's answers to a client go.
fn way(world: &mut World, client: usize) -> SocketAddr {
    let to = world.clients[client].outside;
    world.out.turn(0);
    assert!(world.out.is_empty() && world.out.push_slice(to, b"datagram"));
    let by = world.out.iter().next().unwrap().0;
    world.out.clear();
    by
}

/// A record of application data, in the first epoch that is encrypted.
fn record(content: &[u8]) -> Vec<u8> {
    [&[23, 254, 253, 0, 1, 0, 0, 0, 0, 1, 0, 0, content.len() as u8][..], content].concat()
}

/// Whoever knows where a client is can have another relay bring the worker whatever he likes in its name.
#[test]
fn only_what_is_the_clients_own_changes_the_relay() {
    let mut world = world(7, Conditions::CLEAN, 2);
    let (c, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(1));
    let now = world.now;
    world.clients[c].say("a record of DTLS", now);
    world.run(Duration::from_secs(4));
    let at = world.clients[c].outside;
    let mut check = Vec::new();
    let request = BindingRequest {
        transaction: TransactionId([7; 12]),
        remote_ufrag: &world.ufrag(),
        local_ufrag: &world.clients[c].ufrag,
        priority: 1,
        role: Role::Controlling(1),
        nomination: Nomination::UseCandidate,
    };
    request.write(b"not the session's password", &mut check).unwrap();
    let mut false_ones = vec![check, record(&[7; 40])];
    for (_, data) in world.overheard.clone() {
        // Of media and records, the tag is changed.
        if data[0] >= 20 {
            let (mut changed, place) = (data.clone(), data.len() - 6);
            changed[place] ^= 1;
            false_ones.push(changed);
        }
        // A check that is played back is a check: see docs/security.md.
        if !data.starts_with(&[0, 1]) {
            false_ones.push(data);
        }
    }
    let of = |first: std::ops::Range<u8>| false_ones.iter().filter(|data| first.contains(&data[0])).count();
    let counts = [of(0..2), of(20..64), of(128..192)];
    assert!(counts[0] > 1 && counts[1] > 8 && counts[2] > 300, "{counts:?} of STUN, DTLS and media");
    let (from, already) = (world.now, world.sent.len());
    for data in false_ones {
        let relays = world.relays.as_mut().unwrap();
        relays.serving = 1;
        let arrived = relays.inward(at, &data, world.now);
        relays.serving = 0;
        assert_eq!(arrived.len(), 1, "the other relay knows the client, and carries it");
        for (relay, data) in arrived {
            world.inject(relay, &data);
        }
        assert_eq!(way(&mut world, c), relay(0));
        world.run(Duration::from_millis(3));
    }
    assert!(world.sent[already..].iter().all(|(to, _)| *to == relay(0)));
    let gap = gap(&world, c, from);
    assert!(gap <= Duration::from_millis(25), "{gap:?}");
    assert_eq!(shared.stage(), Stage::Active);
}

/// It may be a report or a message as well as media: a client that only listens is followed, too.
#[test]
fn a_client_that_sends_no_media_is_followed_by_what_it_sends() {
    let mut world = world(8, Conditions::CLEAN, 2);
    let (c, _) = world.call_offering(Offering::Listening, echo(), World::limits());
    world.run(Duration::from_secs(5));
    let acts: [fn(&mut Client, Instant); 2] =
        [|client, now| client.say("a record of DTLS", now), |client, now| client.ask_key_frame(1, now)];
    for (serving, act) in [1, 0].into_iter().zip(acts) {
        world.relays.as_mut().unwrap().serving = serving;
        assert_eq!(way(&mut world, c), relay(1 - serving));
        let (now, already) = (world.now, world.overheard.len());
        act(&mut world.clients[c], now);
        // One way takes 10 ms.
        world.run(Duration::from_millis(11));
        assert_eq!(way(&mut world, c), relay(serving));
        assert!(world.overheard[already..].iter().all(|(_, data)| data[0] >= 20), "not by a check");
        world.run(Duration::from_secs(1));
    }
}

/// Nonces are drawn at random: the session that has the name keeps it.
#[test]
fn a_ufrag_that_comes_twice_is_the_first_ones() {
    let mut world = world(6, Conditions::CLEAN, 1);
    let (_, offer) = Client::new(([192, 0, 2, 10], 6000).into(), world.now);
    let (first, _) = world.open(Opening::new(&offer, echo()));
    world.tokens -= 1;
    let (second, _) = world.open(Opening::new(&offer, echo()));
    assert_eq!(second.stage(), Stage::Closed(CloseReason::InternalError));
    assert!(!matches!(first.stage(), Stage::Closed(_)));
    assert_eq!(world.shard.len(), 1);
}
