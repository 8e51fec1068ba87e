//! What the loop allocates for a packet.

use std::ops::Sub;
use std::time::Duration;

use streamfleet_counting::{Counting, calls};
use streamfleet_handler::{Emit, Input, Media, PcmFormat};

use super::echo::echo;
use super::network::Conditions;
use super::world::World;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls of the allocator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spent(pub(crate) u64);

/// By this thread, since it began.
pub(crate) fn spent() -> Spent {
    Spent(calls())
}

impl Sub for Spent {
    type Output = Spent;

    fn sub(self, before: Spent) -> Spent {
        Spent(self.0 - before.0)
    }
}

/// From then on nothing is met for the first time.
const WARM: Duration = Duration::from_secs(5);
const PACKETS: usize = 1_000;

/// Lets a world run until `PACKETS` more packets have come.
fn measure(world: &mut World) {
    world.run(WARM);
    world.for_packets.clear();
    world.for_turns.clear();
    while world.for_packets.len() < PACKETS {
        world.run(Duration::from_millis(20));
    }
}

/// Which of them allocated anything.
fn costly(spent: &[Spent]) -> Vec<Spent> {
    spent.iter().copied().filter(|spent| spent.0 > 0).collect()
}

#[test]
fn the_encoded_path_allocates_nothing_for_a_packet() {
    let mut world = World::new(1, Conditions::CLEAN);
    let (c, _) = world.call(echo(), World::limits());
    measure(&mut world);
    assert!(world.clients[c].echoes.len() >= PACKETS);
    assert_eq!(costly(&world.for_packets), [], "from the datagram to the sealed answer");
}

/// Whichever relay it comes by.
#[test]
fn a_change_of_relays_allocates_nothing() {
    let mut world = super::relayed::world(3, Conditions::CLEAN, 2);
    world.call(echo(), World::limits());
    world.run(WARM);
    world.for_packets.clear();
    while world.for_packets.len() < PACKETS {
        let serving = &mut world.relays.as_mut().unwrap().serving;
        *serving = 1 - *serving;
        world.run(Duration::from_millis(20));
    }
    assert_eq!(costly(&world.for_packets), []);
}

/// Neither for a packet nor for the turns that play it out, encode the handler's answer and send it. What allocates is what
/// time brings: the core's checks and reports, and the figures that are published twice a second. That is seven turns a
/// second of 250, and 27 allocations a second: half a one for a packet.
#[test]
fn the_frames_path_allocates_nothing_for_a_packet() {
    let mut world = World::new(2, Conditions::CLEAN);
    let format = PcmFormat::mono(24_000);
    let (endpoint, mut hand) = world.task(Media::Frames { input: format, output: format });
    let (c, _) = world.call(endpoint, World::limits());
    world.clients[c].script = Some(super::frames::tone_packets(440.0, 2));
    world.handler = Some(Box::new(move |_| {
        while hand.ready() {
            let Some(input) = hand.receive() else { break };
            if let Input::Audio(frame) = input {
                hand.send(Emit::Audio(frame));
            }
        }
    }));
    measure(&mut world);
    assert!(world.clients[c].payloads.len() >= PACKETS);
    assert_eq!(costly(&world.for_packets), [], "from the datagram to the jitter buffer");
    let seconds = PACKETS / 50;
    let costly = costly(&world.for_turns);
    assert!(costly.len() <= 8 * seconds, "{} turns of {} allocated", costly.len(), world.for_turns.len());
    let all: u64 = costly.iter().map(|spent| spent.0).sum();
    assert!(all <= 30 * seconds as u64, "{all} allocations in {seconds} s");
}
