//! A client's socket and a worker's, each passed on to the other as it comes.
//!
//! Nothing is read of what passes but where frames end, so that a last word of ours can come between two. What has been read
//! and not written is at most one read, of either side: nobody reads on for a side that does not take. A pair at rest keeps
//! no buffer: what is read goes through one that all pairs of a thread have.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use streamfleet_socket::CloseCode;
use streamfleet_socket::frames::{Trace, write_end};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Octets;
use super::line::{LINGER, hang_up, now};

/// Bytes read at a time: a hundred milliseconds of the widest audio as JSON.
const READ: usize = 16 << 10;
/// A side that takes nothing for so long is gone. A worker gives a client up after ten seconds, which it can say only to one
/// that reads again.
const STALLED: Duration = Duration::from_secs(20);
/// Without a byte either way: a worker asks a silent client for a sign of life every 20 s and gives it up after 60 s, so one that
/// does not is gone.
const IDLE: Duration = Duration::from_secs(90);
/// How often these are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// For the other side to end when one has.
const END_TIME: Duration = Duration::from_secs(5);
/// For a frame that is under way to be whole, before a last word.
const FRAME_TIME: Duration = Duration::from_millis(500);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// How a pair ended. A closed set: a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parted {
    /// The worker closed it.
    Worker,
    /// The client did.
    Client,
    /// The client is gone without a word.
    ClientLost,
    /// The client takes nothing.
    ClientStalled,
    /// The worker is gone without a word.
    WorkerLost,
    /// This process stops.
    Restart,
}

impl Parted {
    /// The stable label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Client => "client",
            Self::ClientLost => "client_lost",
            Self::ClientStalled => "client_stalled",
            Self::WorkerLost => "worker_lost",
            Self::Restart => "restart",
        }
    }
}

/// Passes each side's bytes on to the other until one of them ends: first those of the client's that were `read` already.
///
/// A client whose worker is gone is told so (1011 `worker_lost`), and when `stop` says so, that it may come back (1012
/// `service_restart`), where a frame may begin.
pub async fn splice<C, W>(client: C, worker: W, read: Vec<u8>, stop: &CancellationToken, octets: &Octets) -> Parted
where
    C: AsyncRead + AsyncWrite + Unpin,
    W: AsyncRead + AsyncWrite + Unpin,
{
    let up = Flow::new(&octets.up, read);
    let down = Flow::new(&octets.down, Vec::new());
    Pair { client, worker, up, down, closed_by: None }.run(stop).await
}

/// How one direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// Nothing more comes.
    Finished,
    /// It cannot be read.
    Unread,
    /// It is not taken.
    Unwritten,
}

/// One direction.
struct Flow<'a> {
    /// Read and not written.
    waits: Vec<u8>,
    /// How much of it is written.
    written: usize,
    is_unflushed: bool,
    trace: Trace,
    /// Since when the other side has taken nothing of what waits.
    stalled: Option<Instant>,
    heard: Instant,
    octets: &'a AtomicU64,
}

impl<'a> Flow<'a> {
    fn new(octets: &'a AtomicU64, read: Vec<u8>) -> Self {
        let mut trace = Trace::default();
        trace.pass(&read);
        Self { waits: read, written: 0, is_unflushed: false, trace, stalled: None, heard: now(), octets }
    }

    /// Passes on what there is. Ready when the direction has ended, and everything of it is written.
    fn poll<R, T>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut T) -> Poll<Over>
    where
        R: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        loop {
            if ready!(self.poll_drain(cx, to)).is_err() {
                return Poll::Ready(Over::Unwritten);
            }
            let count = SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer))?;
                // Whatever is not taken at once waits, and nothing is read until it is.
                self.take(cx, buffer.filled(), to)?;
                Poll::Ready(io::Result::Ok(buffer.filled().len()))
            });
            match count {
                Poll::Ready(Ok(0)) => return self.poll_flush(cx, to).map(|_| Over::Finished),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Over::Unread),
                Poll::Pending => {
                    let flushed = ready!(self.poll_flush(cx, to));
                    return if flushed.is_err() { Poll::Ready(Over::Unwritten) } else { Poll::Pending };
                }
            }
        }
    }

    fn take<T: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, bytes: &[u8], to: &mut T) -> io::Result<()> {
        self.trace.pass(bytes);
        self.heard = now();
        let written = match Pin::new(to).poll_write(cx, bytes) {
            Poll::Ready(written) => written.unwrap_or(0),
            Poll::Pending => 0,
        };
        self.octets.fetch_add(written as u64, Relaxed);
        self.is_unflushed |= written > 0;
        // An error is met again by whoever writes the rest.
        self.waits.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// Writes what waits.
    fn poll_drain<T: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut T) -> Poll<io::Result<()>> {
        while self.written < self.waits.len() {
            match Pin::new(&mut *to).poll_write(cx, &self.waits[self.written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.written += count;
                    self.octets.fetch_add(count as u64, Relaxed);
                    self.is_unflushed = true;
                    self.stalled = None;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.stalled.get_or_insert_with(now);
                    return Poll::Pending;
                }
            }
        }
        if self.written > 0 {
            // Given back, not kept for the next time.
            (self.waits, self.written) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush<T: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut T) -> Poll<io::Result<()>> {
        if self.is_unflushed {
            ready!(Pin::new(to).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the next byte may be the first of a frame of ours.
    fn takes_a_frame(&self) -> bool {
        self.waits.is_empty() && self.trace.is_between_frames() && !self.trace.has_ended()
    }

    fn is_stalled(&self, now: Instant) -> bool {
        self.stalled.is_some_and(|since| now.saturating_duration_since(since) >= STALLED)
    }
}

/// What happened first.
#[derive(Debug)]
enum Turn {
    Up(Over),
    Down(Over),
    ClientStalled,
    WorkerStalled,
    Stop,
}

struct Pair<'a, C, W> {
    client: C,
    worker: W,
    up: Flow<'a>,
    down: Flow<'a>,
    /// Whose close frame came first; the other one is its answer.
    closed_by: Option<Parted>,
}

impl<C, W> Pair<'_, C, W>
where
    C: AsyncRead + AsyncWrite + Unpin,
    W: AsyncRead + AsyncWrite + Unpin,
{
    async fn run(mut self, stop: &CancellationToken) -> Parted {
        match self.first(stop).await {
            // The client has said its last: the worker's last is waited for.
            Turn::Up(Over::Finished) => {
                let rest = async {
                    self.worker.shutdown().await?;
                    poll_fn(|cx| self.down.poll(cx, &mut self.worker, &mut self.client)).await;
                    self.client.shutdown().await
                };
                let _ = timeout(END_TIME, rest).await;
                self.look();
                self.closed_by.unwrap_or(Parted::ClientLost)
            }
            Turn::Up(Over::Unread) | Turn::Down(Over::Unwritten) => Parted::ClientLost,
            // The worker takes nothing any more, and may have said why.
            Turn::Up(Over::Unwritten) => {
                let rest = poll_fn(|cx| self.down.poll(cx, &mut self.worker, &mut self.client));
                let _ = timeout(END_TIME, rest).await;
                self.after_worker().await
            }
            Turn::Down(Over::Finished | Over::Unread) => self.after_worker().await,
            Turn::ClientStalled => Parted::ClientStalled,
            Turn::WorkerStalled => self.after_worker().await,
            Turn::Stop => {
                // A frame that is under way is let through.
                let whole = poll_fn(|cx| {
                    if self.down.takes_a_frame() {
                        return Poll::Ready(());
                    }
                    let over = self.down.poll(cx, &mut self.worker, &mut self.client);
                    if over.is_ready() || self.down.takes_a_frame() { Poll::Ready(()) } else { Poll::Pending }
                });
                let _ = timeout(FRAME_TIME, whole).await;
                self.say(CloseCode::ServiceRestart, "service_restart").await;
                Parted::Restart
            }
        }
    }

    /// Passes on both ways until something ends.
    async fn first(&mut self, stop: &CancellationToken) -> Turn {
        loop {
            let passed = poll_fn(|cx| {
                let up = self.up.poll(cx, &mut self.client, &mut self.worker);
                self.look();
                if let Poll::Ready(over) = up {
                    return Poll::Ready(Turn::Up(over));
                }
                let down = self.down.poll(cx, &mut self.worker, &mut self.client);
                self.look();
                down.map(Turn::Down)
            });
            tokio::select! {
                turn = passed => return turn,
                () = stop.cancelled() => return Turn::Stop,
                () = sleep(LOOK) => {}
            }
            let now = now();
            let heard = self.up.heard.max(self.down.heard);
            if self.down.is_stalled(now) {
                return Turn::ClientStalled;
            }
            if self.up.is_stalled(now) || now.saturating_duration_since(heard) >= IDLE {
                return Turn::WorkerStalled;
            }
        }
    }

    /// Notes who closes it.
    fn look(&mut self) {
        if self.closed_by.is_none() {
            self.closed_by = match (self.up.trace.has_ended(), self.down.trace.has_ended()) {
                (true, _) => Some(Parted::Client),
                (false, true) => Some(Parted::Worker),
                (false, false) => None,
            };
        }
    }

    /// Nothing more comes from the worker.
    async fn after_worker(&mut self) -> Parted {
        self.look();
        if self.down.trace.has_ended() {
            hang_up(&mut self.client).await;
            return self.closed_by.unwrap_or(Parted::Worker);
        }
        self.say(CloseCode::Internal, "worker_lost").await;
        Parted::WorkerLost
    }

    /// Says a last word where a frame may begin; where none may, there is only the end.
    async fn say(&mut self, code: CloseCode, reason: &'static str) {
        if self.down.takes_a_frame() {
            let mut frame = Vec::new();
            write_end(code, reason, &mut frame);
            let said = async {
                self.client.write_all(&frame).await?;
                self.client.flush().await
            };
            let _ = timeout(LINGER, said).await;
        }
        hang_up(&mut self.client).await;
    }
}

#[cfg(test)]
#[path = "splice_tests.rs"]
mod tests;
