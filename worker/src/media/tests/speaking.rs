//! What a handler says beside its audio, to a client that says nothing itself.

use std::time::Duration;

use serde_json::json;
use streamfleet_handler::{Emit, Media, Message, PcmFormat};

use super::client::Offering;
use super::network::Conditions;
use super::world::World;

const FORMAT: PcmFormat = PcmFormat::mono(24_000);
/// One way through the network, and nothing else.
const ONE_WAY: Duration = Duration::from_millis(10);

/// Lets time pass until the loop has nothing to do for a while, so that what is said next has nothing to travel with.
fn until_quiet(world: &mut World) {
    for _ in 0..10_000 {
        world.run(Duration::from_millis(1));
        let timer = world.shard.poll_timeout();
        if timer.is_none_or(|at| at > world.now + 3 * ONE_WAY) && world.network.next_at().is_none() {
            return;
        }
    }
    panic!("there is always something");
}

fn check(offering: Offering, media: Media) {
    let mut world = World::new(1, Conditions::CLEAN);
    let (endpoint, mut hand) = world.task(media);
    let (c, shared) = world.call_offering(offering, endpoint, World::limits());
    world.clients[c].mute = true;
    world.run(Duration::from_secs(6));
    assert!(shared.has_channel());
    for (emit, expected) in [
        (Emit::Output(json!({"n": 1})), r#"{"type":"fetch_output","data":[]}"#),
        (Emit::Message(Message::Log("thinking".to_owned())), r#"{"type":"log","data":"thinking"}"#),
        (Emit::Message(Message::Text("as it is".to_owned())), "as it is"),
        (Emit::EndStream(Some("bye".to_owned())), r#"{"type":"end_stream","data":"bye"}"#),
    ] {
        until_quiet(&mut world);
        let before = world.clients[c].messages.len();
        hand.send(emit);
        world.run(ONE_WAY);
        let messages = &world.clients[c].messages[before..];
        assert_eq!(messages, [expected], "{offering:?} {media:?}");
    }
    assert_eq!(shared.outputs(), [json!({"n": 1})]);
}

#[test]
fn it_reaches_a_client_that_sends_no_media_at_once() {
    for media in [Media::Frames { input: FORMAT, output: FORMAT }, Media::Packets] {
        // Muted, and unable to speak in the first place.
        check(Offering::Audio, media);
        check(Offering::Listening, media);
    }
}
