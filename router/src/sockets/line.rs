//! A client's socket until it is passed on, or refused.

use std::future::pending;
use std::time::{Duration, Instant};

use streamfleet_session::CloseReason;
use streamfleet_session::wire::Failure;
use streamfleet_socket::connection::CLOSE_TIME;
use streamfleet_socket::frames::{Message, Peek, write_close_answer, write_pong, write_transmit};
use streamfleet_socket::{Connection, Event, Opening};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// For the client's side of a closing handshake.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// What a client may say while its worker is sought: a second of audio as JSON. It waits with the rest.
const AHEAD: usize = 64 << 10;

/// What stands for a close frame without a code (RFC 6455, 7.1.5).
const NO_CODE: u16 = 1005;

/// One socket with its protocol.
#[derive(Debug)]
pub struct Line<S> {
    socket: S,
    connection: Connection,
    peek: Peek,
    /// Reused for every frame.
    out: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    /// A socket that has said nothing.
    #[must_use]
    pub fn new(socket: S, connection: Connection) -> Self {
        Self { socket, connection, peek: Peek::default(), out: Vec::new() }
    }

    /// Waits for `start`; `None` if the socket ends before, or is to end. What goes before it is answered, or ignored.
    pub async fn opening(&mut self, stop: &CancellationToken) -> Option<Opening> {
        loop {
            while let Some(event) = self.connection.poll_event() {
                match event {
                    Event::Start(opening) => return Some(opening),
                    Event::Ended(_) => return None,
                    Event::Audio(_) | Event::Digit(_) => {}
                }
            }
            self.send().await;
            if self.connection.is_closed() {
                return None;
            }
            match self.peek.poll() {
                Ok(Some(message)) => self.came(message).await,
                Ok(None) => tokio::select! {
                    () = self.turn() => {}
                    () = stop.cancelled() => self.connection.close(now(), CloseReason::Shutdown),
                },
                Err(error) => self.connection.handle_unreadable(now(), &error),
            }
        }
    }

    /// Waits until the client has gone, while somebody else decides about it. What it says meanwhile is kept.
    pub async fn gone(&mut self) {
        while self.peek.held() < AHEAD {
            if !self.read().await {
                return;
            }
        }
        // It is no longer read, and whoever decides has a deadline.
        pending().await
    }

    /// Says no, and sees the socket closed.
    pub async fn refuse(mut self, failure: Failure) {
        self.connection.refuse(now(), failure);
        self.close().await;
    }

    /// Sends what is left and waits for the end; the connection bounds how long that takes.
    pub async fn close(mut self) {
        loop {
            while self.connection.poll_event().is_some() {}
            self.send().await;
            if self.connection.is_closed() {
                break;
            }
            due(self.connection.poll_timeout()).await;
            self.connection.handle_timeout(now());
        }
        hang_up(&mut self.socket).await;
    }

    /// The socket, and what its client has said: `start` as it came, and what came after it.
    #[must_use]
    pub fn into_parts(self) -> (S, Vec<u8>) {
        (self.socket, self.peek.into_rest())
    }

    /// Waits for the client, or for the time at which something is due.
    async fn turn(&mut self) {
        let until = self.connection.poll_timeout();
        let is_there = tokio::select! {
            is_there = self.read() => is_there,
            () = due(until) => {
                self.connection.handle_timeout(now());
                return;
            }
        };
        if !is_there {
            self.connection.handle_disconnect(None);
        }
    }

    /// Takes what has come; false when nothing will.
    async fn read(&mut self) -> bool {
        let mut buffer = [0; 4 << 10];
        match self.socket.read(&mut buffer).await {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.peek.feed(&buffer[..count]);
                true
            }
        }
    }

    async fn came(&mut self, message: Message) {
        match message {
            Message::Text(text) => self.connection.handle_text(now(), &text),
            Message::Binary(bytes) => self.connection.handle_binary(now(), &bytes),
            Message::Ping(payload) => {
                self.connection.handle_pong(now());
                write_pong(&payload, &mut self.out);
                self.flush().await;
            }
            Message::Pong => self.connection.handle_pong(now()),
            Message::Close(code) => {
                write_close_answer(code, &mut self.out);
                self.flush().await;
                self.connection.handle_disconnect(Some(code.unwrap_or(NO_CODE)));
            }
        }
    }

    /// Sends what there is to send. Only the last words and answers to pings go this way.
    async fn send(&mut self) {
        while let Some(transmit) = self.connection.poll_transmit(now()) {
            write_transmit(&transmit, &mut self.out);
            if !self.flush().await {
                return;
            }
            self.connection.transmitted(now());
        }
    }

    async fn flush(&mut self) -> bool {
        let out = std::mem::take(&mut self.out);
        let written = timeout(CLOSE_TIME, async {
            self.socket.write_all(&out).await?;
            self.socket.flush().await
        });
        let is_written = matches!(written.await, Ok(Ok(())));
        if !is_written {
            self.connection.handle_disconnect(None);
        }
        is_written
    }
}

/// Ends a socket in good order. One that is closed with data unread is reset, which takes with it what the client has not read
/// of our last words: so it is read until its client has closed it too, for a moment.
pub(super) async fn hang_up<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut S) {
    let rest = async {
        let mut buffer = [0; 1 << 10];
        socket.shutdown().await?;
        while socket.read(&mut buffer).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Whoever does not close it has had its time.
    let _ = timeout(LINGER, rest).await;
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}

/// The runtime's clock, so that a test whose time is virtual moves this one too.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
