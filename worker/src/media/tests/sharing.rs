//! Sessions that share a loop with one that always has more.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use streamfleet_handler::{CodecName, Emit, EncodedPacket, Media, TrackKind};
use streamfleet_session::wire::ServerMessage;

use super::client::Offering;
use super::echo::echo;
use super::network::Conditions;
use super::world::World;
use crate::media::counters::Drop;
use crate::media::shard::Command;

#[test]
fn a_handler_that_always_has_more_starves_nobody() {
    let mut world = World::new(1, Conditions::CLEAN);
    let (endpoint, mut hand) = world.task(Media::Packets);
    let (greedy, _) = world.call_offering(Offering::Vp8, endpoint, World::limits());
    let (neighbour, _) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(1));
    let mut index = 0;
    world.handler = Some(Box::new(move |_| {
        while hand.ready() {
            let payload = Bytes::copy_from_slice(&[&u32::to_be_bytes(index)[..], &[7; 60]].concat());
            hand.send(Emit::Packet(EncodedPacket {
                kind: TrackKind::Video,
                codec: CodecName::Vp8,
                index: index.into(),
                timestamp: index,
                marker: true,
                payload,
            }));
            index += 1;
        }
    }));
    world.for_turns.clear();
    let seconds = 2;
    world.run(Duration::from_secs(seconds));

    let client = &world.clients[neighbour];
    let late = client.echoes.iter().filter(|e| e.at - client.sent_at[e.number as usize] > Duration::from_millis(21));
    assert_eq!(late.count(), 0, "echoes of the neighbour's that came late");
    assert!(client.echoes.len() + 3 >= client.sent_at.len());
    // The greedy one has what it may have, in order, and lost nothing: what is too much waits in its link.
    let pictures = &world.clients[greedy].pictures;
    let most = 512 + 8_000 * seconds as usize;
    assert!((most - 800..=most).contains(&pictures.len()), "{} of {most}", pictures.len());
    assert!(pictures.windows(2).all(|w| w[1].number == w[0].number + 1));
    assert_eq!(world.counters.drops(Drop::HandlerPackets), 0);
    // And the loop rests in between: it is called for batches and not for packets, which would be 8 000 turns a second
    // (and without any pace 20 000, as the simulation counts them).
    let turns = world.for_turns.len();
    assert!(turns < 3_000 * seconds as usize, "{turns} turns in {seconds} s");
    // However much it has, in one turn it sends a share.
    assert!((64..80).contains(&world.most_sent), "{} datagrams in one turn", world.most_sent);
}

/// What the core wants sent waits when there is no room for it, as everything else does.
#[test]
fn a_full_outbox_loses_no_message() {
    let mut world = World::new(2, Conditions::CLEAN);
    let (c, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(2));
    let others: SocketAddr = ([203, 0, 113, 1], 9).into();
    world.clients[c].mute = true;
    world.run(Duration::from_secs(5));
    // Room for one datagram is left, and the message needs several.
    while !world.out.is_full() {
        world.out.push_slice(others, &[0]);
    }
    let all = world.out.len();
    world.out.clear();
    for _ in 0..all - 1 {
        world.out.push_slice(others, &[0]);
    }
    let long = "a message of several packets ".repeat(100);
    world.command(Command::Reconnect(shared.token(), Box::new(ServerMessage::Log(long.clone()))));
    // One way, and a few turns of the loop: no retransmission.
    world.run(Duration::from_millis(11));
    let expected = ServerMessage::Log(long).to_json();
    assert!(world.clients[c].messages.contains(&expected), "{} messages", world.clients[c].messages.len());
}
