//! What the rest of the process sees of a session's media.

use std::time::Duration;

use rtc::sansio::Protocol;
use streamfleet_session::lifecycle::CloseReason;

use super::echo::echo;
use super::network::Conditions;
use super::world::World;
use crate::media::shared::Stage;

#[test]
fn figures_are_never_older_than_a_second() {
    let mut world = World::new(1, Conditions::CLEAN);
    let (c, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(1));
    for _ in 0..60 {
        // Whatever the phase between this and the session's timers.
        world.run(Duration::from_millis(137));
        let sent = world.clients[c].sent_at.len() as u64;
        let seen = shared.quality().tracks[0].packets_received;
        assert!(seen + 52 >= sent, "{seen} of {sent}");
    }
}

/// Those that the audit line and whoever looks after the end are given.
#[test]
fn the_last_figures_are_exact() {
    let mut world = World::new(2, Conditions::CLEAN);
    let (c, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_millis(3_333));
    let sent = world.clients[c].sent_at.len() as u64;
    world.clients[c].pc.close().unwrap();
    world.run(Duration::from_millis(100));
    assert_eq!(shared.stage(), Stage::Closed(CloseReason::ClientClosed));
    assert_eq!(shared.quality().tracks[0].packets_received, sent);
}
