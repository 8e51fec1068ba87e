//! How a session is reached, whatever carries it.

use std::time::Duration;

use streamfleet_session::CloseReason;
use streamfleet_session::wire::ServerMessage;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::media::TrackEnd;
use crate::media::driver::{LoopHandle, Overloaded};
use crate::media::shard;
use crate::media::shared::Token;
use crate::sockets::session;

/// Between two attempts to give a loop that is behind a command which must not get lost.
const REDELIVERY: Duration = Duration::from_millis(20);

/// Why a session was not told something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Untold {
    /// It may be told later.
    #[error("whoever runs the session is behind, or has stopped")]
    Behind,
    /// It has ended, and hears nothing any more.
    #[error("the session is over")]
    Over,
}

/// Whoever runs a session.
#[derive(Clone)]
pub(super) enum Via {
    /// A media loop.
    Loop(LoopHandle),
    /// A task of its own, over a WebSocket.
    Socket(mpsc::Sender<session::Command>),
}

/// What every session understands.
pub(super) enum Order {
    /// It is to end.
    End(CloseReason),
    /// A handler has ended it, with this for its client; for a session whose own handler has no handle to it.
    EndStream(Option<String>),
    /// Its handler has failed, and this is what the client is told.
    HandlerFailed(String),
    /// The client is to come back elsewhere.
    Reconnect(Box<ServerMessage>),
    /// A track is to end; the sender is told what came of it.
    CloseTrack(Box<str>, mpsc::Sender<TrackEnd>),
}

impl Via {
    /// Tells the session `token`.
    ///
    /// # Errors
    /// [`Untold`]. A loop takes orders to sessions that are over, and forgets them.
    pub(super) fn send(&self, token: Token, order: Order) -> Result<(), Untold> {
        match self {
            Self::Loop(media) => media
                .send(match order {
                    Order::End(reason) => shard::Command::End(token, reason),
                    Order::EndStream(message) => shard::Command::EndStream(token, message),
                    Order::HandlerFailed(message) => shard::Command::HandlerFailed(token, message),
                    Order::Reconnect(message) => shard::Command::Reconnect(token, message),
                    Order::CloseTrack(mid, told) => shard::Command::CloseTrack(token, mid, told),
                })
                .map_err(|Overloaded| Untold::Behind),
            Self::Socket(commands) => commands
                .try_send(match order {
                    Order::End(reason) => session::Command::End(reason),
                    Order::EndStream(_) => session::Command::End(CloseReason::EndStream),
                    Order::HandlerFailed(message) => session::Command::HandlerFailed(message),
                    Order::Reconnect(message) => session::Command::Reconnect(message),
                    Order::CloseTrack(mid, told) => session::Command::CloseTrack(mid, told),
                })
                .map_err(|refused| match refused {
                    TrySendError::Full(_) => Untold::Behind,
                    TrySendError::Closed(_) => Untold::Over,
                }),
        }
    }
}

/// Tells a session what must not get lost: whoever is behind takes it a little later. One that is over need not know.
pub(super) async fn deliver(via: &Via, token: Token, order: impl Fn() -> Order) {
    while via.send(token, order()) == Err(Untold::Behind) {
        tokio::time::sleep(REDELIVERY).await;
    }
}
