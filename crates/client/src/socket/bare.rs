//! A session on a socket without audio of its own: for those who drive thousands, and encode once for all.

use std::io;
use std::time::Instant;

use super::attach;
use super::open::{End, Received, Socket};
use super::options::SocketOptions;
use super::words::{self, Frame, Heard, Say};
use crate::error::ClientError;
use crate::message::Message;

/// An open session. The user paces, encodes and decodes; nothing is measured, nothing is joined again.
pub struct BareSocket {
    socket: Socket,
    first: Option<Frame>,
}

/// What a [`BareSocket`] received.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum BareEvent {
    /// The payload of a media frame, in the session's codec.
    Audio(Vec<u8>),
    /// A message.
    Message(Message),
    /// Words of the protocol that change nothing here.
    Other,
    /// The server ended the session, with its reason where it gave one. Nothing follows.
    Ended(Option<String>),
}

impl BareSocket {
    /// Opens a session, once: no refusal is waited for to pass.
    ///
    /// # Errors
    /// As [`crate::Client::connect_socket`].
    pub async fn connect(options: &SocketOptions) -> Result<Self, ClientError> {
        let attached = attach::once(options, options.resume.as_ref(), options.timeouts.answer).await?;
        Ok(Self { socket: attached.socket, first: attached.first })
    }

    /// The next thing that the server says, and when it came. Safe to cancel.
    pub async fn next(&mut self) -> (BareEvent, Instant) {
        let received = match self.first.take() {
            Some(frame) => Received::Frame(frame),
            None => self.socket.next().await,
        };
        let now = Instant::now();
        let event = match received {
            Received::Frame(Frame::Binary(payload)) => BareEvent::Audio(payload),
            Received::Frame(Frame::Text(text)) => match words::read(&text) {
                Heard::Media(payload) => BareEvent::Audio(payload),
                Heard::Message(message) => BareEvent::Message(message),
                Heard::Refused(refusal) => BareEvent::Ended(Some(refusal.error)),
                Heard::Pong | Heard::Session(..) | Heard::Mark(_) | Heard::Clear => BareEvent::Other,
            },
            Received::Alive => BareEvent::Other,
            Received::Ended(End::Closed) => BareEvent::Ended(None),
            Received::Ended(End::Fault(why) | End::Vanished(why)) => BareEvent::Ended(Some(why)),
        };
        (event, now)
    }

    /// Sends a text, such as [`crate::media_text`].
    ///
    /// # Errors
    /// The socket is broken, or the server has not read for five seconds.
    pub async fn send(&mut self, text: String) -> io::Result<()> {
        self.socket.send(Frame::Text(text)).await
    }

    /// Says goodbye and closes the socket.
    pub async fn hang_up(mut self) {
        // A server that is gone needs no goodbye.
        if self.send(Say::Stop.text()).await.is_ok() {
            self.socket.close().await;
        }
    }
}

impl std::fmt::Debug for BareSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BareSocket").finish_non_exhaustive()
    }
}
