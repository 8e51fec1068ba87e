//! Every way a session can end leaves nothing behind.

use std::time::Duration;

use streamfleet_session::lifecycle::CloseReason;

use super::echo::echo;
use super::network::Conditions;
use super::world::{Opening, World};
use crate::media::shard::Command;
use crate::media::shared::Stage;

fn gone(world: &World) {
    assert_eq!(world.shard.table_sizes(), [0; 5]);
}

#[test]
fn a_client_that_closes_is_gone_at_once() {
    let mut world = World::new(1, Conditions::CLEAN);
    let (c, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(3));
    use rtc::sansio::Protocol;
    world.clients[c].pc.close().unwrap();
    world.run(Duration::from_millis(100));
    assert_eq!(shared.stage(), Stage::Closed(CloseReason::ClientClosed));
    gone(&world);
}

#[test]
fn a_client_that_vanishes_is_lost() {
    let mut world = World::new(2, Conditions::CLEAN);
    let (c, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(3));
    world.clients[c].alive = false;
    world.run(Duration::from_secs(10));
    assert_eq!(shared.stage(), Stage::Active, "a tunnel may be this long");
    world.run(Duration::from_secs(10));
    assert_eq!(shared.stage(), Stage::Closed(CloseReason::ConnectionLost));
    gone(&world);
}

#[test]
fn an_abandoned_offer_frees_its_place() {
    let mut world = World::new(3, Conditions::CLEAN);
    let (c, shared) = world.call(echo(), World::limits());
    world.clients[c].alive = false;
    world.run(Duration::from_secs(29));
    assert_eq!(shared.stage(), Stage::Connecting);
    world.run(Duration::from_secs(2));
    assert_eq!(shared.stage(), Stage::Closed(CloseReason::ConnectTimeout));
    gone(&world);
}

#[test]
fn the_time_limit_counts_from_connected() {
    let mut world = World::new(4, Conditions::CLEAN);
    let mut limits = World::limits();
    limits.time_limit = Some(Duration::from_secs(5));
    let (c, shared) = world.call(echo(), limits);
    world.run(Duration::from_millis(4_900));
    assert_eq!(shared.stage(), Stage::Active);
    world.run(Duration::from_secs(2));
    assert_eq!(shared.stage(), Stage::Closed(CloseReason::TimeLimit));
    let closing = r#"{"type":"update_connection","data":"closed"}"#;
    assert!(world.clients[c].messages.iter().any(|m| m == closing), "{:?}", world.clients[c].messages);
    gone(&world);
}

#[test]
fn control_ends_a_session_within_a_second() {
    let mut world = World::new(5, Conditions::CLEAN);
    let (_, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(2));
    world.command(Command::End(shared.token(), CloseReason::EndedByControl));
    world.run(Duration::from_secs(1));
    assert_eq!(shared.stage(), Stage::Closed(CloseReason::EndedByControl));
    gone(&world);
}

#[test]
fn who_ends_a_session_from_elsewhere_says_goodbye_in_their_own_words() {
    let mut world = World::new(8, Conditions::CLEAN);
    let (c, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(2));
    world.command(Command::EndStream(shared.token(), Some("bye".to_owned())));
    world.run(Duration::from_secs(1));
    assert_eq!(shared.stage(), Stage::Closed(CloseReason::EndStream));
    let goodbye = r#"{"type":"end_stream","data":"bye"}"#;
    assert!(world.clients[c].messages.iter().any(|m| m == goodbye), "{:?}", world.clients[c].messages);
    gone(&world);
}

#[test]
fn a_handler_that_fails_ends_its_session_with_a_reason() {
    let mut world = World::new(6, Conditions::CLEAN);
    let (c, shared) = world.call(echo(), World::limits());
    let (_, other) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(2));
    world.command(Command::HandlerFailed(shared.token(), "the model is gone".to_owned()));
    world.run(Duration::from_secs(1));
    assert_eq!(shared.stage(), Stage::Closed(CloseReason::HandlerError));
    assert_eq!(other.stage(), Stage::Active);
    let error = r#"{"type":"error","message":"the model is gone"}"#;
    assert!(world.clients[c].messages.iter().any(|m| m == error), "{:?}", world.clients[c].messages);
}

#[test]
fn a_thousand_abandoned_offers_leave_nothing() {
    let mut world = World::new(7, Conditions::CLEAN);
    let now = world.now;
    let (_, offer) = super::client::Client::new(([192, 0, 2, 99], 6000).into(), now);
    for _ in 0..1_000 {
        world.open(Opening::new(&offer, echo()));
    }
    assert_eq!(world.shard.len(), 1_000);
    world.run(Duration::from_secs(31));
    gone(&world);
}

/// A packet handler that panics with its tenth packet.
struct Clumsy(u32);

impl streamfleet_handler::PacketHandler for Clumsy {
    fn copy(&self) -> Box<dyn streamfleet_handler::PacketHandler> {
        Box::new(Clumsy(self.0))
    }

    fn packet(&mut self, packet: &streamfleet_handler::Packet<'_>, out: &mut dyn streamfleet_handler::PacketSink) {
        self.0 += 1;
        assert!(self.0 < 10, "the tenth packet");
        out.send(packet);
    }
}

#[test]
fn a_handler_that_panics_on_the_loop_ends_only_its_session() {
    let mut world = World::new(8, Conditions::CLEAN);
    let (c, shared) = world.call(crate::media::session::Endpoint::Packets(Box::new(Clumsy(0))), World::limits());
    let (_, other) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(2));
    assert_eq!(shared.stage(), Stage::Closed(CloseReason::HandlerError));
    assert_eq!(other.stage(), Stage::Active);
    let error = r#"{"type":"error","message":"The handler failed"}"#;
    assert!(world.clients[c].messages.iter().any(|m| m == error), "{:?}", world.clients[c].messages);
}

/// ICE alone keeps no place: a client that sent media and then neither packets nor reports is gone.
#[test]
fn a_client_without_media_or_reports_frees_its_place() {
    let mut world = World::new(9, Conditions::CLEAN);
    let (c, shared) = world.call(echo(), World::limits());
    world.run(Duration::from_secs(3));
    world.clients[c].mute = true;
    world.run(Duration::from_secs(20));
    assert_eq!(shared.stage(), Stage::Active);
    world.run(Duration::from_secs(20));
    assert_eq!(shared.stage(), Stage::Closed(CloseReason::MediaTimeout));
    gone(&world);
}
