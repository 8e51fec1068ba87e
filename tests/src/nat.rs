//! A network between clients and a media loop, on the loopback interface: a NAT that can give its clients other ports, and a
//! link that loses packets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// A client has a socket for each of its addresses; more than this are not a client's of these tests.
const MAX_FLOWS: usize = 16;
/// How soon a thread that waits for a datagram sees that it is to end.
const PATIENCE: Duration = Duration::from_millis(50);
/// More than any datagram that fits an Ethernet frame.
const BUFFER: usize = 2048;

/// What the link towards the worker loses.
#[derive(Debug, Clone, Copy)]
pub enum Loss {
    /// Nothing.
    None,
    /// One RTP packet of every so many, at a random place among them that the seed decides. Rate and pattern are then the same
    /// in every run, whatever else the client sends.
    Media {
        /// How many.
        one_in: u32,
        /// Where in each group.
        seed: u64,
    },
}

/// What the network saw.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// RTP packets of clients that were let through.
    pub passed: u64,
    /// RTP packets of clients that were lost.
    pub lost: u64,
    /// Datagrams of the worker to a port that the client no longer has.
    pub misdirected: u64,
    /// From the last move to the first RTP packet for a client that came to its new port.
    pub followed_after: Option<Duration>,
}

/// The network before one media loop. It stands at another address than the loop, with the same port, so that a worker which
/// advertises that address is reached through it: a 1:1 NAT from the worker's side, a port-changing one from the client's.
pub struct Nat {
    inner: Arc<Inner>,
    front: Option<JoinHandle<()>>,
}

struct Inner {
    front: UdpSocket,
    worker: SocketAddr,
    state: Mutex<State>,
    over: AtomicBool,
}

struct State {
    flows: Vec<Flow>,
    dice: Dice,
    figures: Figures,
    moved_at: Option<Instant>,
    readers: Vec<JoinHandle<()>>,
}

struct Flow {
    client: SocketAddr,
    port: Arc<UdpSocket>,
}

impl Nat {
    /// Stands at `outside` before the loop that has the same port at 127.0.0.1.
    ///
    /// # Errors
    /// When the port is taken there.
    pub fn before_worker(outside: SocketAddr, loss: Loss) -> Result<Self> {
        let worker = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), outside.port());
        ensure!(outside != worker, "a worker that is reached directly: set STREAMFLEET_MEDIA_ADVERTISE");
        let front = UdpSocket::bind(outside).with_context(|| outside.to_string())?;
        front.set_read_timeout(Some(PATIENCE))?;
        let state = State {
            flows: Vec::new(),
            dice: Dice::new(loss),
            figures: Figures::default(),
            moved_at: None,
            readers: Vec::new(),
        };
        let inner = Arc::new(Inner { front, worker, state: Mutex::new(state), over: AtomicBool::new(false) });
        let outward = inner.clone();
        let front = thread::Builder::new().name("nat".to_owned()).spawn(move || outward.outward())?;
        Ok(Self { inner, front: Some(front) })
    }

    /// Gives every client another port towards the worker, from this moment on. What comes to the old one is lost, and nobody is
    /// told, as with a NAT that has forgotten its table.
    ///
    /// # Errors
    /// When there is no client, or no socket.
    pub fn move_clients(&self) -> Result<()> {
        let mut state = self.inner.state();
        ensure!(!state.flows.is_empty(), "there is nobody to move");
        for i in 0..state.flows.len() {
            state.flows[i].port = self.inner.open(state.flows[i].client, &mut state)?;
        }
        state.moved_at = Some(Instant::now());
        state.figures.followed_after = None;
        Ok(())
    }

    /// What it saw so far.
    pub fn figures(&self) -> Figures {
        self.inner.state().figures
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        self.inner.over.store(true, Relaxed);
        let readers = std::mem::take(&mut self.inner.state().readers);
        for thread in self.front.take().into_iter().chain(readers) {
            // A thread that panicked has printed why.
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the clients to the worker.
    fn outward(self: &Arc<Self>) {
        let mut buffer = [0; BUFFER];
        while !self.over.load(Relaxed) {
            // A time-out, or a client that is gone: neither ends the network.
            let Ok((length, client)) = self.front.recv_from(&mut buffer) else { continue };
            let datagram = &buffer[..length];
            let mut state = self.state();
            if is_rtp(datagram) {
                if state.dice.loses() {
                    state.figures.lost += 1;
                    continue;
                }
                state.figures.passed += 1;
            }
            let known = state.flows.iter().find(|flow| flow.client == client).map(|flow| flow.port.clone());
            let port = known.map_or_else(|| self.join(client, &mut state), Ok);
            drop(state);
            // What cannot be sent is lost, as on any network.
            let _ = port.and_then(|port| port.send(datagram));
        }
    }

    /// From the worker to one client, by one of the ports that the client had or has.
    fn inward(&self, client: SocketAddr, port: &Arc<UdpSocket>) {
        let mut buffer = [0; BUFFER];
        while !self.over.load(Relaxed) {
            let Ok(length) = port.recv(&mut buffer) else { continue };
            let datagram = &buffer[..length];
            let mut state = self.state();
            if !state.flows.iter().any(|flow| Arc::ptr_eq(&flow.port, port)) {
                state.figures.misdirected += 1;
                continue;
            }
            if is_rtp(datagram) && state.figures.followed_after.is_none() {
                state.figures.followed_after = state.moved_at.map(|at| at.elapsed());
            }
            drop(state);
            let _ = self.front.send_to(datagram, client);
        }
    }

    fn join(self: &Arc<Self>, client: SocketAddr, state: &mut State) -> io::Result<Arc<UdpSocket>> {
        if state.flows.len() == MAX_FLOWS {
            return Err(io::Error::other("too many clients"));
        }
        let port = self.open(client, state)?;
        state.flows.push(Flow { client, port: port.clone() });
        Ok(port)
    }

    /// Another port towards the worker, and a thread that reads it.
    fn open(self: &Arc<Self>, client: SocketAddr, state: &mut State) -> io::Result<Arc<UdpSocket>> {
        let port = UdpSocket::bind((IpAddr::from(Ipv4Addr::LOCALHOST), 0))?;
        port.connect(self.worker)?;
        port.set_read_timeout(Some(PATIENCE))?;
        let port = Arc::new(port);
        let (inner, read) = (self.clone(), port.clone());
        state
            .readers
            .push(thread::Builder::new().name("nat port".to_owned()).spawn(move || inner.inward(client, &read))?);
        Ok(port)
    }
}

/// RTP and not RTCP, on a port that both share (RFC 5761, RFC 7983).
fn is_rtp(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, second, ..] if !(64..=95).contains(&(second & 0x7f)))
}

/// Which packets are lost.
struct Dice {
    loss: Loss,
    /// Position in the group, and the one that is lost.
    at: u32,
    chosen: u32,
    state: u64,
}

impl Dice {
    fn new(loss: Loss) -> Self {
        let state = match loss {
            Loss::None => 0,
            Loss::Media { seed, .. } => seed,
        };
        Self { loss, at: 0, chosen: 0, state }
    }

    fn loses(&mut self) -> bool {
        let Loss::Media { one_in, .. } = self.loss else { return false };
        if self.at == 0 {
            // Knuth's MMIX constants; the high bits are the random ones.
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.chosen = ((self.state >> 33) as u32) % one_in;
        }
        let lost = self.at == self.chosen;
        self.at = (self.at + 1) % one_in;
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_even_and_repeatable() {
        let roll = |seed| {
            let mut dice = Dice::new(Loss::Media { one_in: 20, seed });
            (0..1_000).map(|_| dice.loses()).collect::<Vec<_>>()
        };
        let pattern = roll(1);
        assert!(pattern.chunks(20).all(|group| group.iter().filter(|lost| **lost).count() == 1));
        assert_eq!(pattern, roll(1));
        assert_ne!(pattern, roll(2));
        assert!(!Dice::new(Loss::None).loses());
    }

    #[test]
    fn media_is_told_from_what_shares_its_port() {
        #[track_caller]
        fn check(datagram: &[u8], expected: bool) {
            assert_eq!(is_rtp(datagram), expected, "{datagram:?}");
        }
        check(&[0x80, 111, 0], true);
        check(&[0x90, 0x80 | 111], true);
        check(&[0x80, 200], false);
        check(&[0x81, 206], false);
        check(&[22, 111], false);
        check(&[0, 1], false);
        check(&[0x80], false);
    }

    /// A worker that answers each datagram with where it came from.
    #[test]
    fn a_moved_client_comes_from_another_port_and_hears_nothing_by_the_old_one() {
        let worker = UdpSocket::bind("127.0.0.1:0").unwrap();
        worker.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let outside = SocketAddr::new("127.0.0.2".parse().unwrap(), worker.local_addr().unwrap().port());
        let nat = Nat::before_worker(outside, Loss::None).unwrap();
        assert!(nat.move_clients().is_err(), "nobody is there yet");
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut buffer = [0; 100];
        let rtp = [0x80, 111, 0, 0];

        client.send_to(&rtp, outside).unwrap();
        let (_, before) = worker.recv_from(&mut buffer).unwrap();
        nat.move_clients().unwrap();
        client.send_to(&rtp, outside).unwrap();
        let (_, after) = worker.recv_from(&mut buffer).unwrap();
        assert_ne!(before, after);
        worker.send_to(&[0x80, 0], before).unwrap();
        worker.send_to(&[0x80, 1], after).unwrap();
        assert_eq!(client.recv_from(&mut buffer).unwrap(), (2, outside));
        assert_eq!(buffer[1], 1, "by the new port alone");
        let deadline = Instant::now() + Duration::from_secs(10);
        while nat.figures().misdirected == 0 {
            assert!(Instant::now() < deadline, "{:?}", nat.figures());
            thread::yield_now();
        }
        assert!(nat.figures().followed_after.is_some());
        assert_eq!(nat.figures().passed, 2);
    }
}
