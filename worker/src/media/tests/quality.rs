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

/// A network that loses one packet in ten each way is seen from both ends, and heard.
#[test]
fn loss_is_told_by_direction_and_costs_the_score() {
    use streamfleet_handler::{Media, PcmFormat};
    let format = PcmFormat::mono(24_000);
    for (loss, expected) in [(0.0, 0.0), (0.1, 0.1)] {
        let mut world = World::new(3, Conditions::CLEAN);
        let (endpoint, mut hand) = world.task(Media::Frames { input: format, output: format });
        let (c, shared) = world.call(endpoint, World::limits());
        world.clients[c].script = Some(super::frames::tone_packets(440.0, 10));
        world.handler = Some(Box::new(move |_| {
            while hand.ready() {
                let Some(input) = hand.receive() else { break };
                if let streamfleet_handler::Input::Audio(frame) = input {
                    hand.send(streamfleet_handler::Emit::Audio(frame));
                }
            }
        }));
        world.run(Duration::from_secs(2));
        world.network.conditions.loss = loss;
        world.run(Duration::from_secs(28));
        let figures = shared.quality();
        let track = &figures.tracks[0];
        let received = track.packets_lost as f64 / (track.packets_received + track.packets_lost) as f64;
        assert!((received - expected).abs() < 0.03, "{received}");
        let sent = f64::from(track.remote_fraction_lost.unwrap());
        assert!((sent - expected).abs() < 0.06, "{sent}");
        assert!((15.0..40.0).contains(&figures.rtt_ms.unwrap()));
        let playout = figures.playout.unwrap();
        // Its packets carry no redundancy: what was lost was made up.
        assert!((playout.concealed_share - expected).abs() < 0.04, "{playout:?}");
        assert_eq!(playout.concealed == 0, loss == 0.0, "{playout:?}");
    }
}

#[test]
fn what_a_session_goes_through_is_kept_with_its_times() {
    use std::time::SystemTime;

    use crate::media::Event;
    let before = SystemTime::now();
    let mut world = World::new(4, Conditions::CLEAN);
    let (c, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(3));
    // Its NAT gives it another port.
    world.clients[c].outside.set_port(7_001);
    world.run(Duration::from_secs(10));
    world.clients[c].pc.close().unwrap();
    world.run(Duration::from_millis(100));
    let changes = shared.changes();
    let events: Vec<Event> = changes.iter().map(|change| change.event).collect();
    let (ending, closed) = (Event::Ending(CloseReason::ClientClosed), Event::Closed(CloseReason::ClientClosed));
    assert_eq!(events, [Event::Connecting, Event::Active, Event::PathChanged, ending, closed]);
    assert!(changes.is_sorted_by_key(|change| change.at) && changes[0].at >= before);
}
