//! A client whose NAT gives it another port.

use std::net::SocketAddr;
use std::time::Duration;

use super::echo::echo;
use super::network::Conditions;
use super::world::World;

const RTT: Duration = Duration::from_millis(20);

/// The longest time without an echo in what came after `from`.
fn gap(world: &World, client: usize, from: std::time::Instant) -> Duration {
    let times: Vec<_> = world.clients[client].echoes.iter().map(|e| e.at).filter(|at| *at >= from).collect();
    times.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(Duration::MAX)
}

#[test]
fn media_follows_after_one_round_trip() {
    let mut world = World::new(1, Conditions::CLEAN);
    let (c, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(5));
    let moved: SocketAddr = ([192, 0, 2, 10], 7777).into();
    world.clients[c].outside = moved;
    let at = world.now;
    let before = at - Duration::from_millis(100);
    world.run(Duration::from_secs(10));
    // The first packet from the new port triggers a check; its answer takes one round trip; then media comes.
    let gap = gap(&world, c, before);
    // What was under way is lost, and two packets pay for the check: two round trips and three packets at most.
    assert!(gap <= 2 * RTT + 3 * Duration::from_millis(20), "{gap:?}");
    assert_eq!(shared.remote(), Some(moved));
    // Still a live ICE session a minute later, on both sides.
    world.run(Duration::from_secs(60));
    assert_eq!(world.shard.len(), 1);
    let echoed = world.clients[c].echoes.len();
    world.run(Duration::from_secs(1));
    assert!(world.clients[c].echoes.len() >= echoed + 48);
}

#[test]
fn it_may_move_again_and_back() {
    let mut world = World::new(2, Conditions::CLEAN);
    let (c, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(3));
    let home = world.clients[c].outside;
    for port in [7_001, 7_002, 7_003, 7_004, 7_005, 7_006, home.port()] {
        world.clients[c].outside.set_port(port);
        world.run(Duration::from_secs(2));
        assert_eq!(shared.remote().map(|a| a.port()), Some(port));
    }
    let from = world.now;
    world.run(Duration::from_secs(2));
    assert!(gap(&world, c, from) <= Duration::from_millis(25));
}

/// An attacker replays a nominating check of the client's from its own address, and media packets of the client's.
#[test]
fn a_replay_diverts_nothing_and_is_not_amplified() {
    let mut world = World::new(3, Conditions::CLEAN);
    let (c, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(5));
    let home = world.clients[c].outside;
    let attacker: SocketAddr = ([203, 0, 113, 66], 666).into();
    let overheard = std::mem::take(&mut world.overheard);
    let mut sent = 0;
    let from = world.now;
    for (_, data) in overheard.iter().filter(|(_, d)| d.len() > 8) {
        world.inject(attacker, data);
        sent += data.len();
        world.run(Duration::from_millis(7));
    }
    assert_eq!(shared.remote(), Some(home), "media stays where it was");
    assert!(gap(&world, c, from) <= Duration::from_millis(25));
    let received: usize = world.astray.iter().filter(|(to, _)| *to == attacker).map(|(_, n)| n).sum();
    assert!(received <= sent, "the attacker got {received} octets for {sent}");
}

/// An attacker that knows a session's ufrag names a victim as the source of its packets.
#[test]
fn a_spoofed_victim_gets_no_media() {
    let mut world = World::new(4, Conditions::CLEAN);
    let (c, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(3));
    let victim: SocketAddr = ([203, 0, 113, 7], 443).into();
    // A check with a wrong password, and a replayed one with the right integrity.
    let check = world.overheard.iter().map(|(_, d)| d.clone()).rfind(|d| d.starts_with(&[0, 1])).unwrap();
    let mut forged = check.clone();
    *forged.last_mut().unwrap() ^= 1;
    forged[21] ^= 1;
    let mut sent = 0;
    for _ in 0..50 {
        for datagram in [&forged, &check] {
            world.inject(victim, datagram);
            sent += datagram.len();
        }
        world.run(Duration::from_millis(100));
    }
    let received: usize = world.astray.iter().filter(|(to, _)| *to == victim).map(|(_, n)| n).sum();
    assert!(received <= sent, "{received} octets for {sent}");
    // Media is larger than any check or answer to one.
    assert!(world.astray.iter().filter(|(to, _)| *to == victim).all(|(_, n)| *n < 150));
    assert_eq!(shared.remote(), Some(world.clients[c].outside));
}

/// The same with another session's client as the victim: a session may not take its traffic by naming its address.
#[test]
fn a_session_takes_no_address_from_another() {
    let mut world = World::new(5, Conditions::CLEAN);
    let (attacker, _) = world.call(echo(), World::limits());
    let (victim, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(3));
    let home = world.clients[attacker].outside;
    let check = world.overheard.iter().rfind(|(from, d)| *from == home && d.starts_with(&[0, 1])).unwrap().1.clone();
    let at = world.clients[victim].outside;
    let from = world.now;
    for _ in 0..200 {
        world.inject(at, &check);
        world.run(Duration::from_millis(100));
    }
    assert_eq!(shared.stage(), crate::media::shared::Stage::Active);
    assert!(gap(&world, victim, from) <= Duration::from_millis(25), "{:?}", gap(&world, victim, from));
}

#[test]
fn it_may_move_for_ever() {
    let mut world = World::new(6, Conditions::CLEAN);
    let (c, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(3));
    for port in 7_000..7_060 {
        world.clients[c].outside.set_port(port);
        world.run(Duration::from_millis(500));
        assert_eq!(shared.remote().map(|a| a.port()), Some(port), "{:?}", shared.stage());
    }
}
