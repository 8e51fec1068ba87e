//! A WebSocket and its connection: frames in, frames out, time.

use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use streamfleet_session::wire::Failure;
use streamfleet_socket::protocol::BadFrame;
use streamfleet_socket::{Connection, Event, Transmit};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_tungstenite::tungstenite::error::ProtocolError;

/// For the client's side of a closing handshake.
const LINGER: Duration = Duration::from_secs(1);

/// What stands for a close frame without a code (RFC 6455, 7.1.5).
const NO_CODE: u16 = 1005;

/// One socket with its protocol.
pub struct Line {
    sink: SplitSink<WebSocket, Message>,
    stream: SplitStream<WebSocket>,
    pub(crate) connection: Connection,
    transport: Transport,
    /// The library has given up reading: what would come next is no sign of the client's.
    deaf: bool,
}

/// What the socket itself can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    /// Take a frame.
    Idle,
    /// Nothing until the frame that it has is on its way.
    Sending,
    /// Nothing any more.
    Gone,
}

impl Line {
    pub(crate) fn new(socket: WebSocket, connection: Connection) -> Self {
        let (sink, stream) = socket.split();
        Self { sink, stream, connection, transport: Transport::Idle, deaf: false }
    }

    /// Waits until something has happened on the line, `until` has come, or `other` is done, and gives what `other` gave.
    pub(crate) async fn turn<T>(&mut self, until: Option<Instant>, other: impl Future<Output = T>) -> Option<T> {
        let now = Instant::now();
        self.connection.handle_timeout(now);
        if self.transport == Transport::Idle
            && let Some(transmit) = self.connection.poll_transmit(now)
        {
            // A socket that has flushed has room for a message: this does not wait.
            match self.sink.feed(message(transmit)).await {
                Ok(()) => self.transport = Transport::Sending,
                Err(_) => self.gone(None),
            }
        }
        let deadline = [self.connection.poll_timeout(), until].into_iter().flatten().min();
        tokio::select! {
            biased;
            other = other => return Some(other),
            sent = self.sink.flush(), if self.transport == Transport::Sending => match sent {
                Ok(()) => {
                    self.transport = Transport::Idle;
                    self.connection.transmitted(Instant::now());
                }
                Err(_) => self.gone(None),
            },
            came = self.stream.next(), if self.transport != Transport::Gone && !self.deaf => self.came(came),
            () = sleep_until(deadline.unwrap_or(now).into()), if deadline.is_some() => {}
            // Nothing can happen any more; whoever waits looks at the connection again.
            else => {}
        }
        None
    }

    /// Waits for the next event; `None` when the connection is closed.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.connection.poll_event() {
                return Some(event);
            }
            if self.connection.is_closed() {
                return None;
            }
            self.turn(None, std::future::pending::<()>()).await;
        }
    }

    /// Says no, and sees the socket closed.
    pub(crate) async fn refuse(&mut self, failure: Failure) {
        self.connection.refuse(Instant::now(), failure);
        self.close().await;
    }

    /// Sends what is left and waits for the end; the connection bounds how long that takes.
    pub(crate) async fn close(&mut self) {
        while self.event().await.is_some() {}
        // A socket that is closed with data unread is reset, which takes with it what the client has not read of our last
        // words. Where nothing can be read, it has this long to read them.
        if self.deaf {
            return sleep(LINGER).await;
        }
        // The answer to the client's close frame is written by reading on.
        let rest = async { while let Some(Ok(_)) = self.stream.next().await {} };
        drop(timeout(LINGER, rest).await);
    }

    fn came(&mut self, came: Option<Result<Message, axum::Error>>) {
        let now = Instant::now();
        match came {
            Some(Ok(Message::Text(text))) => self.connection.handle_text(now, text.as_str()),
            Some(Ok(Message::Binary(bytes))) => self.connection.handle_binary(now, &bytes),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => self.connection.handle_pong(now),
            Some(Ok(Message::Close(frame))) => self.gone(Some(frame.map_or(NO_CODE, |frame| frame.code))),
            Some(Err(error)) => match unreadable(&error) {
                Some(error) => {
                    self.deaf = true;
                    self.connection.handle_unreadable(now, &error);
                }
                None => self.gone(None),
            },
            None => self.gone(None),
        }
    }

    fn gone(&mut self, code: Option<u16>) {
        self.transport = Transport::Gone;
        self.connection.handle_disconnect(code);
    }
}

/// What is wrong with what the client has sent, who can still be told so; `None` if the socket itself is at its end.
fn unreadable(error: &axum::Error) -> Option<BadFrame> {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref())?;
    match source {
        SocketError::Capacity(_) => Some(BadFrame::TooLarge),
        SocketError::Utf8(_) => Some(BadFrame::NotUtf8),
        SocketError::Protocol(
            ProtocolError::ResetWithoutClosingHandshake
            | ProtocolError::ReceivedAfterClosing
            | ProtocolError::SendAfterClosing,
        ) => None,
        SocketError::Protocol(_) => Some(BadFrame::Malformed),
        _ => None,
    }
}

fn message(transmit: Transmit) -> Message {
    match transmit {
        Transmit::Text(text) => Message::Text(text.into()),
        Transmit::Binary(bytes) => Message::Binary(bytes.into()),
        Transmit::Ping => Message::Ping(Bytes::new()),
        Transmit::Close(frame) => {
            Message::Close(Some(CloseFrame { code: frame.code.as_u16(), reason: Utf8Bytes::from_static(frame.reason) }))
        }
    }
}
