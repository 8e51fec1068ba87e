//! Datagrams that nobody should send.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::echo::echo;
use super::network::Conditions;
use super::world::World;
use crate::media::counters::Drop;

const STRANGER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9)), 9);

#[test]
fn strangers_are_dropped_and_counted_and_never_answered() {
    let mut world = World::new(1, Conditions::CLEAN);
    world.call(echo(), World::limits());
    world.run(Duration::from_secs(2));
    world.inject(STRANGER, &[]);
    world.inject(STRANGER, &[0xff; 100]);
    world.inject(STRANGER, &[0x16; 100]);
    world.inject(STRANGER, &[0x80; 100]);
    world.inject(STRANGER, &[0x80, 200, 0, 1]);
    world.inject(STRANGER, &[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    world.run(Duration::from_secs(1));
    assert!(world.astray.is_empty(), "{:?}", world.astray);
    assert!(world.counters.drops(Drop::UnknownPeer) >= 3);
    assert!(world.counters.drops(Drop::NotMedia) >= 1);
}

#[test]
fn changed_datagrams_of_a_live_session_hurt_nothing() {
    let mut world = World::new(2, Conditions::CLEAN);
    let (c, _) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(2));
    let home = world.clients[c].outside;
    let overheard = world.overheard.clone();
    for (i, (_, data)) in overheard.iter().enumerate().filter(|(_, (_, d))| !d.is_empty()) {
        let mut changed = data.clone();
        let at = i * 31 % changed.len();
        changed[at] ^= 0x40;
        world.inject(home, &changed);
        changed.truncate(at);
        world.inject(home, &changed);
    }
    let before = world.clients[c].echoes.len();
    world.run(Duration::from_secs(2));
    assert!(world.clients[c].echoes.len() >= before + 98, "media goes on");
    assert_eq!(world.shard.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_datagram_makes_the_loop_panic(
        datagrams in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200), 0u8..4), 0..60)
    ) {
        let mut world = World::new(3, Conditions::CLEAN);
        let (c, _) = world.call(echo(), World::limits());
        world.run(Duration::from_secs(1));
        let home = world.clients[c].outside;
        for (from_home, mut data, kind) in datagrams {
            if let Some(first) = data.first_mut() {
                *first = match kind { 0 => 0, 1 => 22, 2 => 0x80, _ => *first };
            }
            world.inject(if from_home { home } else { STRANGER }, &data);
        }
        world.run(Duration::from_secs(1));
        prop_assert_eq!(world.shard.len(), 1);
        prop_assert!(world.clients[c].echoes.len() > 40);
    }
}
