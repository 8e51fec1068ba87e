//! The thread of one media loop: a socket, a clock and a [`Shard`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver as CommandReceiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use streamfleet_net::{Poller, SocketOptions, UdpSocket, Waker, set_timer_slack};
use streamfleet_rtp::rtcp::WallClock;

use super::counters::Counters;
use super::outlet::Outlet;
use super::session::NewSession;
use super::shard::{Command, Ready, Shard};
use super::shared::Token;
use super::tick::Ticker;

/// Commands that may wait for a loop. A full queue means a loop that is a second behind its offers.
const MAX_COMMANDS: usize = 4096;
/// Batches taken from the socket before what they led to is sent: bounds the delay of the first of them.
const MAX_BATCHES: usize = 4;
/// The loop looks around at least this often, whatever its timers say.
const IDLE: Duration = Duration::from_millis(500);
/// Sleeping for a tick must not take the 50 µs that the kernel adds by default.
const TIMER_SLACK: Duration = Duration::from_micros(5);

/// The rest of the process' end of a loop.
#[derive(Clone)]
pub(crate) struct LoopHandle {
    commands: SyncSender<Command>,
    ready: Ready,
    waker: Waker,
    pub(crate) counters: Arc<Counters>,
    pub(crate) port: u16,
}

/// The loop has more to do than it can, or has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the media loop does not take commands")]
pub(crate) struct Overloaded;

impl LoopHandle {
    pub(crate) fn send(&self, command: Command) -> Result<(), Overloaded> {
        match self.commands.try_send(command) {
            Ok(()) => {
                self.waker.wake();
                Ok(())
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Overloaded),
        }
    }

    /// The same for a new session, which comes back if the loop does not take it: dropping it gives back what it holds.
    pub(crate) fn open(&self, session: Box<NewSession>) -> Result<(), Box<NewSession>> {
        match self.commands.try_send(Command::Open(session)) {
            Ok(()) => {
                self.waker.wake();
                Ok(())
            }
            Err(TrySendError::Full(Command::Open(session)) | TrySendError::Disconnected(Command::Open(session))) => {
                Err(session)
            }
            Err(_) => unreachable!("a queue gives back what it was given"),
        }
    }

    /// Ends the loop's wait.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// What a handler's link calls when it has something for the client.
    pub(crate) fn ready(&self, token: Token) -> Arc<dyn Fn() + Send + Sync> {
        let (ready, waker) = (self.ready.clone(), self.waker.clone());
        Arc::new(move || {
            ready.lock().push(token);
            waker.wake();
        })
    }
}

/// A loop whose socket is bound and that has not begun.
pub(crate) struct Loop {
    socket: UdpSocket,
    poller: Poller,
    commands: CommandReceiver<Command>,
    ready: Ready,
    shard: Shard,
    counters: Arc<Counters>,
}

impl Loop {
    /// Binds the socket.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn bind(address: SocketAddr, options: SocketOptions) -> io::Result<(Loop, LoopHandle)> {
        let socket = UdpSocket::bind(address, options)?;
        let poller = Poller::new(&socket)?;
        let (sender, commands) = sync_channel(MAX_COMMANDS);
        let counters = Arc::new(Counters::default());
        let ready = Ready::default();
        let handle = LoopHandle {
            commands: sender,
            ready: ready.clone(),
            waker: poller.waker(),
            counters: counters.clone(),
            port: socket.local_addr().port(),
        };
        let shard = Shard::new(counters.clone(), WallClock::new(Instant::now(), std::time::SystemTime::now()));
        Ok((Loop { socket, poller, commands, ready, shard, counters }, handle))
    }

    /// Runs until `stop` is set and the loop is woken.
    ///
    /// # Errors
    /// The socket cannot be received from any more.
    pub(crate) fn run(mut self, stop: &AtomicBool) -> io::Result<()> {
        // Without it ticks are longer than meant, which costs delay but nothing else.
        drop(set_timer_slack(TIMER_SLACK));
        let (mut receiver, mut sender) = self.socket.split();
        let mut out = Outlet::new();
        let mut ready: Vec<Token> = Vec::new();
        let mut ticker = Ticker::default();
        let mut last = Instant::now();
        while !stop.load(Relaxed) {
            let tick = ticker.tick();
            if self.shard.has_work() {
                self.poller.take_wake();
            } else if tick.is_zero() {
                let now = Instant::now();
                let due = self.shard.poll_timeout().map_or(IDLE, |at| at.saturating_duration_since(now));
                self.poller.wait(Some(due.min(IDLE)));
            } else {
                std::thread::sleep(tick);
                self.poller.take_wake();
            }
            self.counters.woke();

            let mut now = Instant::now();
            while let Ok(command) = self.commands.try_recv() {
                self.shard.handle_command(command, now, &mut out);
            }
            std::mem::swap(&mut *self.ready.lock(), &mut ready);
            self.shard.handle_ready(&ready);
            let mut work = ready.len();
            ready.clear();
            for _ in 0..MAX_BATCHES {
                let n = receiver.recv()?;
                for i in 0..n {
                    let (data, from) = receiver.datagram(i);
                    self.shard.handle_datagram(from, data, now, &mut out);
                    if out.is_full() {
                        self.counters.report(sender.send(&mut out));
                    }
                }
                work += n;
                if !receiver.is_full() {
                    break;
                }
                now = Instant::now();
            }
            self.shard.settle(now, &mut out);
            if !out.is_empty() {
                self.counters.report(sender.send(&mut out));
            }
            ticker.observe(work, now - last);
            last = now;
        }
        Ok(())
    }
}
