//! What a connection is given, and what it says to its driver.

use std::time::Duration;

use streamfleet_session::CloseReason;
use streamfleet_session::wire::ServerMessage;

use crate::close::{CloseFrame, End};
use crate::protocol::{CallStart, Digit, Start};

/// What one service allows its sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// From the socket to `start`.
    pub start_timeout: Duration,
}

impl Default for ConnectionLimits {
    /// 30 s, as other transports have to connect: pages open the socket and then ask for the microphone.
    fn default() -> Self {
        Self { start_timeout: Duration::from_secs(30) }
    }
}

/// What the driver's session is told.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// Who it is. To be answered by [`Connection::accept`] or [`Connection::refuse`]; what comes before that is ignored,
    /// so a driver should not read on.
    Start(Opening),
    /// Mono PCM, 20 ms at the handler's input rate; the last one may be shorter.
    Audio(Vec<i16>),
    /// A key was pressed.
    Digit(Digit),
    /// The last event: nothing comes any more. Frames may still be there to be sent.
    Ended(End),
}

/// The `start` of either protocol.
#[derive(Debug, PartialEq)]
pub enum Opening {
    /// Of a client of `{p}/websocket/offer`.
    Client(Box<Start>),
    /// Of a telephone call.
    Call(Box<CallStart>),
}

/// What the driver's transport is to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmit {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping (RFC 6455, 5.5.2), empty.
    Ping,
    /// A close frame. The last one; the driver closes its side after it.
    Close(CloseFrame),
}

/// How a session says goodbye.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Farewell {
    /// Why it ends.
    pub reason: CloseReason,
    /// What is said after the last audio has played: `end_stream`.
    pub message: Option<ServerMessage>,
}
