//! A WebSocket and its connection: frames in, frames out, time.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::{SinkExt as _, StreamExt as _};
use streamfleet_session::wire::Failure;
use streamfleet_socket::protocol::BadFrame;
use streamfleet_socket::{Connection, Event, Transmit};
use tokio::task::coop;
use tokio::time::{Sleep, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_tungstenite::tungstenite::error::ProtocolError;

use super::bell::Ear;

/// For the client's side of a closing handshake.
const LINGER: Duration = Duration::from_secs(1);

/// What stands for a close frame without a code (RFC 6455, 7.1.5).
const NO_CODE: u16 = 1005;

/// One socket with its protocol.
pub struct Line {
    socket: WebSocket,
    pub(crate) connection: Connection,
    transport: Transport,
    /// The library has given up reading: what would come next is no sign of the client's.
    deaf: bool,
    reading: Ear,
    writing: Ear,
    clock: Clock,
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
        Self {
            socket,
            connection,
            transport: Transport::Idle,
            deaf: false,
            reading: Ear::new(),
            writing: Ear::new(),
            clock: Clock::new(),
        }
    }

    /// Waits until something has happened on the line, `until` has come, or `other` is done, and gives what `other` gave. What
    /// `other` polls has to wake by an [`Ear`], or to be polled anew in each turn.
    pub(crate) async fn turn<T>(
        &mut self,
        until: Option<Instant>,
        mut other: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Option<T> {
        poll_fn(|cx| self.poll_turn(cx, until, &mut other)).await
    }

    fn poll_turn<T>(
        &mut self,
        cx: &mut Context<'_>,
        until: Option<Instant>,
        other: &mut impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<Option<T>> {
        let now = Instant::now();
        self.connection.handle_timeout(now);
        if let Poll::Ready(other) = other(cx) {
            return Poll::Ready(Some(other));
        }
        let sent = self.poll_send(cx, now);
        let came = match self.transport {
            Transport::Idle | Transport::Sending if !self.deaf => {
                self.reading.poll(cx, |cx| self.socket.poll_next_unpin(cx)).map(|came| self.came(now, came))
            }
            _ => Poll::Pending,
        };
        if sent.is_ready() || came.is_ready() {
            // Whoever waits looks at the connection again.
            return Poll::Ready(None);
        }
        let deadline = [self.connection.poll_timeout(), until].into_iter().flatten().min();
        self.clock.poll(cx, now, deadline).map(|()| None)
    }

    /// Sends what there is to send, one frame after the other. Ready if something was sent, or nothing can be any more.
    fn poll_send(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let mut polled = Poll::Pending;
        loop {
            let step = match self.transport {
                // A socket that has flushed has room for a message.
                Transport::Idle => match self.socket.poll_ready_unpin(&mut self.writing.context()) {
                    Poll::Ready(Ok(())) => match self.connection.poll_transmit(now) {
                        Some(transmit) => {
                            self.transport = Transport::Sending;
                            self.socket.start_send_unpin(message(transmit))
                        }
                        None => return polled,
                    },
                    Poll::Ready(Err(error)) => Err(error),
                    Poll::Pending => return polled,
                },
                Transport::Sending => match self.writing.poll(cx, |cx| self.socket.poll_flush_unpin(cx)) {
                    Poll::Ready(Ok(())) => {
                        self.transport = Transport::Idle;
                        self.connection.transmitted(now);
                        polled = Poll::Ready(());
                        Ok(())
                    }
                    Poll::Ready(Err(error)) => Err(error),
                    Poll::Pending => return polled,
                },
                Transport::Gone => return polled,
            };
            if step.is_err() {
                self.gone(None);
                polled = Poll::Ready(());
            }
        }
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
            self.turn(None, |_| Poll::<()>::Pending).await;
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
        let rest = async { while let Some(Ok(_)) = self.socket.next().await {} };
        drop(timeout(LINGER, rest).await);
    }

    fn came(&mut self, now: Instant, came: Option<Result<Message, axum::Error>>) {
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

/// One timer, set as rarely as can be: that a deadline has moved on is found out when the old one comes.
#[derive(Debug)]
struct Clock {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When it calls, if it has not.
    armed: Option<Instant>,
    ear: Ear,
}

impl Clock {
    fn new() -> Self {
        Self { sleep: None, armed: None, ear: Ear::new() }
    }

    /// Ready when `deadline` has come, or an earlier one.
    fn poll(&mut self, cx: &mut Context<'_>, now: Instant, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        if deadline <= now {
            // A session that always has more to do shares its thread.
            return pin!(coop::consume_budget()).poll(cx);
        }
        let is_earlier = self.armed.is_none_or(|armed| deadline < armed);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
        if is_earlier {
            sleep.as_mut().reset(deadline.into());
            self.armed = Some(deadline);
            self.ear.look();
        }
        ready!(self.ear.poll(cx, |cx| sleep.as_mut().poll(cx)));
        self.armed = None;
        Poll::Ready(())
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
