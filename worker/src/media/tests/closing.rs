//! Ending one track of a session.

use std::time::Duration;

use tokio::sync::mpsc::{self, error::TryRecvError};

use super::client::Offering;
use super::echo::echo;
use super::network::Conditions;
use super::world::World;
use crate::media::shard::Command;
use crate::media::shared::{Shared, Stage, TrackEnd};

fn closed(shared: &Shared) -> Vec<(&'static str, bool)> {
    shared.quality().tracks.iter().map(|track| (track.kind, track.closed)).collect()
}

#[test]
fn one_track_ends_and_the_other_goes_on() {
    for (ends, kind) in [(0, "audio"), (1, "video")] {
        let mut world = World::new(1, Conditions::CLEAN);
        let (c, shared) = world.call_offering(Offering::Vp8, echo(), World::limits());
        world.run(Duration::from_secs(3));
        assert_eq!(closed(&shared), [("audio", false), ("video", false)]);
        let mid = shared.quality().tracks[ends].mid.clone();
        assert_eq!(shared.quality().tracks[ends].kind, kind);

        let (told, mut hears) = mpsc::channel(4);
        for mid in [mid.as_str(), mid.as_str(), "none"] {
            world.command(Command::CloseTrack(shared.token(), mid.into(), told.clone()));
        }
        // A session that is not there drops the order, and with it the sender.
        world.command(Command::CloseTrack(shared.token() + 1, mid.as_str().into(), told));
        let answers: Vec<TrackEnd> = std::iter::from_fn(|| hears.try_recv().ok()).collect();
        assert_eq!(answers, [TrackEnd::Closed, TrackEnd::Closed, TrackEnd::Unknown]);
        assert_eq!(hears.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(closed(&shared), [("audio", ends == 0), ("video", ends == 1)], "seen at once");

        // What is on its way still comes.
        world.run(Duration::from_millis(100));
        let before = (world.clients[c].echoes.len(), world.clients[c].pictures.len());
        world.run(Duration::from_secs(2));
        let after = (world.clients[c].echoes.len(), world.clients[c].pictures.len());
        let (sound, pictures) = (after.0 - before.0, after.1 - before.1);
        assert_eq!((sound == 0, pictures == 0), (ends == 0, ends == 1), "{kind}: {sound} and {pictures}");
        assert!(sound + pictures > 30, "{sound} and {pictures} in two seconds");
        assert_eq!(shared.stage(), Stage::Active);
    }
}
