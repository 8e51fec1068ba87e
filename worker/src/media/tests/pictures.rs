//! Pictures on the encoded path, and who is asked for a whole one.

use std::time::Duration;

use super::client::{Offering, VIDEO_SSRC};
use super::echo::echo;
use super::network::Conditions;
use super::world::World;

#[test]
fn pictures_come_back_and_a_request_for_a_key_frame_reaches_their_encoder() {
    for offering in [Offering::Vp8, Offering::H264] {
        let mut world = World::new(1, Conditions::CLEAN);
        let (c, _) = world.call_offering(offering, echo(), World::limits());
        world.run(Duration::from_secs(3));
        let client = &mut world.clients[c];
        assert!(client.pictures.len() > 50, "{offering:?}: {}", client.pictures.len());
        assert!(client.pictures.windows(2).all(|w| w[1].number == w[0].number + 1));
        assert!(client.echoes.len() > 100, "sound goes on beside them");
        let ours = client.pictures[0].ssrc;
        assert!(client.key_frames_asked().is_empty(), "{offering:?}: nobody needs one yet");

        // What this client cannot decode is what it sent, so its own encoder is asked: after one round trip.
        client.ask_key_frame(ours, world.now);
        world.run(Duration::from_millis(21));
        assert_eq!(world.clients[c].key_frames_asked(), [VIDEO_SSRC], "{offering:?}");

        // However often it asks, a key frame is a large thing and is asked for twice a second.
        for _ in 0..100 {
            let now = world.now;
            world.clients[c].ask_key_frame(ours, now);
            world.run(Duration::from_millis(20));
        }
        let asked = world.clients[c].key_frames_asked().len();
        assert!((4..=5).contains(&asked), "{offering:?}: {asked} in two seconds");

        // For a source that is not the worker's nobody is asked.
        world.run(Duration::from_secs(1));
        let now = world.now;
        let before = world.clients[c].key_frames_asked().len();
        world.clients[c].ask_key_frame(ours ^ 1, now);
        world.run(Duration::from_secs(1));
        assert_eq!(world.clients[c].key_frames_asked().len(), before);
    }
}
