//! Every reason that a session over WebRTC can end for, and that its view and its client say the same.

use std::sync::Arc;
use std::time::Duration;

use rtc::sansio::Protocol as _;
use streamfleet_handler::{Emit, Media, PcmFormat};
use streamfleet_session::lifecycle::CloseReason;

use super::client::Offering;
use super::hand::Hand;
use super::network::Conditions;
use super::world::World;
use crate::media::Event;
use crate::media::shard::Command;
use crate::media::shared::{Shared, Stage};

/// What the client is told last.
#[derive(Debug, PartialEq)]
enum Told {
    /// Nothing: it has said so itself, or is not there.
    Nothing,
    Closed,
    EndStream,
    Error,
}

impl Told {
    fn text(&self) -> Option<&str> {
        match self {
            Told::Nothing => None,
            Told::Closed => Some(r#"{"type":"update_connection","data":"closed"}"#),
            Told::EndStream => Some(r#"{"type":"end_stream","data":"Stream closed"}"#),
            Told::Error => Some(r#"{"type":"error","message":"gone"}"#),
        }
    }
}

/// A session that has been connected for two seconds.
struct Call {
    world: World,
    client: usize,
    shared: Arc<Shared>,
    hand: Hand,
}

impl Call {
    fn command(&mut self, command: impl FnOnce(u64) -> Command) {
        self.world.command(command(self.shared.token()));
    }
}

type Story = (fn(&mut Call), u64, Told);

/// What ends it, how long that takes at most, and what the client hears of it. `None` for what this transport does not have.
fn story(reason: CloseReason) -> Option<Story> {
    Some(match reason {
        CloseReason::ClientClosed => (|call| call.world.clients[call.client].pc.close().unwrap(), 1, Told::Nothing),
        CloseReason::EndStream => (|call| call.hand.send(Emit::EndStream(None)), 1, Told::EndStream),
        // It has begun with a limit of ten seconds, of which two are over.
        CloseReason::TimeLimit => (|_| {}, 9, Told::Closed),
        CloseReason::ConnectionLost => (|call| call.world.clients[call.client].alive = false, 20, Told::Nothing),
        CloseReason::MediaTimeout => (|call| call.world.clients[call.client].mute = true, 40, Told::Closed),
        CloseReason::HandlerError => {
            (|call| call.command(|token| Command::HandlerFailed(token, "gone".to_owned())), 1, Told::Error)
        }
        // Decided elsewhere, and all told by one command.
        CloseReason::EndedByControl => {
            (|call| call.command(|token| Command::End(token, CloseReason::EndedByControl)), 1, Told::Closed)
        }
        CloseReason::Draining => {
            (|call| call.command(|token| Command::End(token, CloseReason::Draining)), 1, Told::Closed)
        }
        CloseReason::Shutdown => {
            (|call| call.command(|token| Command::End(token, CloseReason::Shutdown)), 1, Told::Closed)
        }
        CloseReason::Moved => (|call| call.command(|token| Command::End(token, CloseReason::Moved)), 1, Told::Closed),
        CloseReason::Superseded => {
            (|call| call.command(|token| Command::End(token, CloseReason::Superseded)), 1, Told::Closed)
        }
        // Said of a worker by others.
        CloseReason::WorkerLost => return None,
        CloseReason::ConnectTimeout | CloseReason::InternalError | CloseReason::Invalid | CloseReason::SlowClient => {
            return None;
        }
    })
}

#[test]
fn every_reason_is_shown_told_and_leaves_nothing() {
    let format = PcmFormat::mono(24_000);
    for reason in CloseReason::ALL {
        let Some((end, seconds, told)) = story(reason) else { continue };
        let mut world = World::new(1, Conditions::CLEAN);
        let (endpoint, hand) = world.task(Media::Frames { input: format, output: format });
        let mut limits = World::limits();
        limits.time_limit = (reason == CloseReason::TimeLimit).then_some(Duration::from_secs(10));
        let (client, shared) = world.call_offering(Offering::Audio, endpoint, limits);
        world.run(Duration::from_secs(2));
        assert_eq!(shared.stage(), Stage::Active, "{reason}");
        let mut call = Call { world, client, shared, hand };
        end(&mut call);
        call.world.run(Duration::from_secs(seconds));
        let Call { world, shared, .. } = call;
        assert_eq!(shared.stage(), Stage::Closed(reason), "{reason}");
        assert_eq!(world.shard.table_sizes(), [0; 5], "{reason}");
        let events: Vec<Event> = shared.changes().iter().map(|change| change.event).collect();
        let expected = [Event::Connecting, Event::Active, Event::Ending(reason), Event::Closed(reason)];
        assert_eq!(events, expected, "{reason}");
        // A client that is mute hears all the same.
        let last = world.clients[client].messages.last().map(String::as_str);
        assert_eq!(last, told.text(), "{reason}");
    }
}

/// Those of a session that never was active.
#[test]
fn a_session_that_never_began_says_why() {
    // A format that no codec is decoded to: the configuration lets none through.
    let format = PcmFormat { rate: 1, channels: 1 };
    for (reason, alive) in [(CloseReason::ConnectTimeout, false), (CloseReason::InternalError, true)] {
        let mut world = World::new(2, Conditions::CLEAN);
        let (endpoint, _hand) = world.task(Media::Frames { input: format, output: format });
        let (client, shared) = world.call(endpoint, World::limits());
        world.clients[client].alive = alive;
        world.run(Duration::from_secs(31));
        assert_eq!(shared.stage(), Stage::Closed(reason));
        assert_eq!(world.shard.table_sizes(), [0; 5], "{reason}");
    }
}

/// Where the reasons are tried that are not here.
#[test]
fn no_reason_is_forgotten() {
    let elsewhere = [
        // Above.
        CloseReason::ConnectTimeout,
        CloseReason::InternalError,
        // What cannot be read, and who does not read, is there over sockets: such datagrams are dropped.
        CloseReason::Invalid,
        CloseReason::SlowClient,
        // Said of a worker by others: the rules of the store.
        CloseReason::WorkerLost,
    ];
    for reason in CloseReason::ALL {
        assert_eq!(story(reason).is_none(), elsewhere.contains(&reason), "{reason}");
    }
}
