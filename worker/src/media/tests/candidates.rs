//! Candidates that are told by themselves, whenever they come.

use std::net::SocketAddr;
use std::time::Duration;

use streamfleet_session::candidate::RemoteCandidate;

use super::client::Client;
use super::echo::echo;
use super::network::Conditions;
use super::world::{Opening, World};
use crate::media::shard::Command;

fn candidate(address: SocketAddr) -> RemoteCandidate {
    let line = format!("candidate:1 1 udp 2130706431 {} {} typ host", address.ip(), address.port());
    RemoteCandidate::from_line(&line).unwrap()
}

fn without_candidates(offer: &str) -> String {
    offer.lines().filter(|line| !line.starts_with("a=candidate:")).map(|line| format!("{line}\r\n")).collect()
}

/// Checks that went to this address. The client is silent: nothing else could tell the worker of it.
fn checks_to(world: &World, address: SocketAddr) -> usize {
    world.sent.iter().filter(|(to, data)| *to == address && data.starts_with(&[0, 1])).count()
}

#[test]
fn none_is_lost_whenever_it_comes() {
    let mut world = World::new(1, Conditions::CLEAN);
    let at = |port: u16| SocketAddr::from(([192, 0, 2, 77], port));
    let (_, offer) = Client::new(([192, 0, 2, 10], 6000).into(), world.now);
    let offer = without_candidates(&offer);
    // Before the offer.
    let early = [candidate(at(1)), candidate(at(2))];
    let (shared, _) = world.open(Opening { early: &early, ..Opening::new(&offer, echo()) });
    // In the same batch as the session itself, before the loop has looked at it.
    world.command(Command::Candidate(shared.token(), Box::new(candidate(at(3)))));
    world.command(Command::Candidate(shared.token(), Box::new(candidate(at(4)))));
    world.run(Duration::from_secs(1));
    // And in its own time.
    world.command(Command::Candidate(shared.token(), Box::new(candidate(at(5)))));
    world.run(Duration::from_secs(1));
    for port in 1..=5 {
        assert!(checks_to(&world, at(port)) >= 2, "{port}: {}", checks_to(&world, at(port)));
    }
    // Those for a session that is not there, or not any more, are nobody's.
    world.command(Command::Candidate(shared.token() + 1, Box::new(candidate(at(6)))));
    world.run(Duration::from_secs(40));
    world.command(Command::Candidate(shared.token(), Box::new(candidate(at(6)))));
    world.run(Duration::from_secs(1));
    assert_eq!(checks_to(&world, at(6)), 0);
    assert_eq!(world.shard.table_sizes(), [0; 5]);
}

/// FastRTC's client for Next.js: its checks are all that the worker ever learns of its address.
#[test]
fn a_client_that_names_none_connects() {
    let mut world = World::new(2, Conditions::CLEAN);
    let (client, offer) = Client::new(([192, 0, 2, 10], 6000).into(), world.now);
    let (c, shared) = world.call_as(client, Opening::new(&without_candidates(&offer), echo()));
    world.run(Duration::from_secs(2));
    assert!(world.clients[c].echoes.len() > 50, "{}", world.clients[c].echoes.len());
    assert_eq!(shared.remote(), Some(world.clients[c].outside));
}
