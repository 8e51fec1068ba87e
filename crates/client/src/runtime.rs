//! A runtime for the WebRTC stack that looks more often at its timers while a connection is being made.
//!
//! The stack writes the first message of each handshake, DTLS after ICE and SCTP after DTLS, only when its timers are
//! handled, and the next of these is up to 200 ms away. Handling them early does no harm: each checks its own time.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime, TokioRuntime,
};

/// How long to hurry: as long as handshakes over a slow network take. What then still waits is no worse off.
const HURRY: Duration = Duration::from_secs(3);
/// The longest sleep meanwhile: small beside a handshake's round trips, and only 600 wakes in all.
const STEP: Duration = Duration::from_millis(5);

/// Tokio, with short sleeps for a while.
#[derive(Debug)]
pub(crate) struct Prompt {
    tokio: TokioRuntime,
    until: Mutex<Option<Instant>>,
}

impl Prompt {
    pub(crate) fn new() -> Self {
        Self { tokio: TokioRuntime, until: Mutex::new(None) }
    }

    /// The handshakes begin now.
    pub(crate) fn hurry(&self, now: Instant) {
        *self.until.lock() = Some(now + HURRY);
    }

    fn at_most(&self, now: Instant, duration: Duration) -> Duration {
        match *self.until.lock() {
            Some(until) if now < until => duration.min(STEP),
            _ => duration,
        }
    }
}

impl Runtime for Prompt {
    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) -> Box<dyn JoinHandle> {
        self.tokio.spawn(future)
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        self.tokio.wrap_udp_socket(socket)
    }

    fn wrap_tcp_listener(&self, listener: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        self.tokio.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(
        &'a self,
        remote_addr: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = io::Result<Arc<dyn AsyncTcpStream>>> + Send + 'a>> {
        self.tokio.connect_tcp(remote_addr)
    }

    fn resolve_host<'a>(
        &'a self,
        host: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>> {
        self.tokio.resolve_host(host)
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        self.tokio.sleep(self.at_most(Instant::now(), duration))
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        self.tokio.block_on(future);
    }

    fn yield_now(&self) -> Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        self.tokio.yield_now()
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        self.tokio.interval(period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps_are_short_only_while_handshakes_run() {
        let (runtime, start) = (Prompt::new(), Instant::now());
        let check = |after: Duration, asked: u64, expected: u64| {
            let found = runtime.at_most(start + after, Duration::from_millis(asked));
            assert_eq!(found, Duration::from_millis(expected), "{after:?}");
        };
        check(Duration::ZERO, 200, 200);
        runtime.hurry(start);
        check(Duration::ZERO, 200, 5);
        check(Duration::ZERO, 2, 2);
        check(HURRY, 200, 200);
    }
}
