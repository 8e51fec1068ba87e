//! Somebody at home: behind a NAT, and at the end of a line that loses packets, delays them and changes their order.

use std::collections::BinaryHeap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::namespaces::{Namespace, Plug};

/// The person's own network.
const PERSON: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
const BOX: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
/// More calls than one person has.
const MAX_CALLS: usize = 64;
/// Datagrams on the line: a second of all calls. Beyond them it loses what comes, as any does.
const MAX_ON_THE_LINE: usize = 10_000;
/// Datagrams of each way that are remembered.
const MAX_OVERHEARD: usize = 512;
/// Octets of each way over connections that are remembered: the signalling of some calls.
const MAX_SAID: usize = 256 << 10;
/// How soon a thread that waits for something sees that it is to end.
const PATIENCE: Duration = Duration::from_millis(50);
/// More than any datagram that fits an Ethernet frame.
const BUFFER: usize = 2_048;

/// What the line is like, each way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Of a thousand datagrams, so many are lost.
    pub lost_per_mille: u32,
    /// Each takes so long.
    pub delay: Duration,
    /// And up to so much longer, each by itself: those that were sent within it may change their order.
    pub jitter: Duration,
}

/// What happened after a call's port was changed, by the time since then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Followed {
    /// A STUN request left by it.
    pub checked: Duration,
    /// Media came there.
    pub media: Duration,
}

/// A network from which nothing leads out but the box: a NAT towards the public address, UDP and TCP.
pub struct Home {
    /// Where the person's programs are.
    pub person: Namespace,
    inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
    /// Goes after the threads.
    _box: Namespace,
}

struct Inner {
    front: UdpSocket,
    door: SocketAddr,
    state: Mutex<State>,
    over: AtomicBool,
}

struct State {
    conditions: Conditions,
    dice: Dice,
    calls: Vec<Call>,
    /// What came from the person, and what came for it.
    overheard: [Vec<Vec<u8>>; 2],
    /// The same over connections.
    said: [Vec<u8>; 2],
    /// Sockets towards the public address are made outside.
    ports: Sender<Wanted>,
}

/// A port for a call of this address of the person's.
#[derive(Clone, Copy)]
enum Wanted {
    First(SocketAddr),
    Another(SocketAddr),
}

/// One address of the person's, and its port outside.
struct Call {
    person: SocketAddr,
    port: Arc<UdpSocket>,
    moved: Option<Instant>,
    checked: Option<Duration>,
    media: Option<Duration>,
}

/// A datagram on the line, and where it comes out.
struct Carried {
    due: Instant,
    number: u64,
    datagram: Vec<u8>,
    out: Out,
}

enum Out {
    Person(SocketAddr),
    Public(SocketAddr),
}

impl Home {
    /// Behind `outside`, at the end of a line to the public address `door`, whose services are at `web`.
    ///
    /// # Errors
    /// What `ip` says, and the kernel.
    pub fn behind(outside: &Namespace, door: SocketAddr, web: SocketAddr, seed: u64) -> Result<Self> {
        let (person, inside) = (Namespace::new("person")?, Namespace::new("box")?);
        person.cable(Plug::at("eth0", PERSON, 24), &inside, Plug::at("home", BOX, 24))?;
        person.ip(&format!("route add default via {BOX}"))?;
        // What is sent there ends in the box, which has the address too.
        inside.ip(&format!("address add {}/32 dev lo", door.ip()))?;
        let front = inside.run(|| UdpSocket::bind(door)).context("the box")?;
        front.set_read_timeout(Some(PATIENCE))?;
        let listener = inside.run(|| TcpListener::bind(web)).context("the box")?;
        listener.set_nonblocking(true)?;

        let (ports, wanted) = channel();
        let state = State {
            conditions: Conditions::default(),
            dice: Dice(seed),
            calls: Vec::new(),
            overheard: [Vec::new(), Vec::new()],
            said: [Vec::new(), Vec::new()],
            ports,
        };
        let inner = Arc::new(Inner { front, door, state: Mutex::new(state), over: AtomicBool::new(false) });
        let (line, carried) = channel();
        let spawn = |what: &str, work: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(format!("home {what}")).spawn(work)
        };
        let leaves = {
            let (inner, line) = (inner.clone(), line.clone());
            spawn("out", Box::new(move || inner.leave(&line)))?
        };
        let carries = {
            let inner = inner.clone();
            spawn("line", Box::new(move || inner.carry(&carried)))?
        };
        // What is outside is made by threads that are there.
        let (opens, connects) = outside.run(|| {
            let (of_ports, of_web) = (inner.clone(), inner.clone());
            let opens = spawn("ports", Box::new(move || of_ports.open(&wanted, &line)));
            (opens, spawn("web", Box::new(move || connect(&of_web, &listener, web))))
        });
        Ok(Self { person, inner, threads: vec![leaves, carries, opens?, connects?], _box: inside })
    }

    /// From now on the line is like this.
    pub fn set(&self, conditions: Conditions) {
        self.inner.state().conditions = conditions;
    }

    /// Gives every call another port outside, as a NAT does that has forgotten its table. What comes to the old ones is lost,
    /// and nobody is told.
    ///
    /// # Errors
    /// When there is no call.
    pub fn rebind(&self) -> Result<()> {
        let state = self.inner.state();
        ensure!(!state.calls.is_empty(), "nobody calls");
        for call in &state.calls {
            state.ports.send(Wanted::Another(call.person)).context("the box has ended")?;
        }
        Ok(())
    }

    /// What happened to each call since its port was changed last; `None` while that is not known yet.
    pub fn followed(&self) -> Vec<Option<Followed>> {
        let of = |call: &Call| Some(Followed { checked: call.checked?, media: call.media? });
        self.inner.state().calls.iter().map(of).collect()
    }

    /// The last datagrams that came from the person, and those that came for it.
    pub fn overheard(&self) -> [Vec<Vec<u8>>; 2] {
        self.inner.state().overheard.clone()
    }

    /// The first octets over connections that came from the person, and those that came for it.
    pub fn said(&self) -> [Vec<u8>; 2] {
        self.inner.state().said.clone()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.inner.over.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has printed why.
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    fn leave(&self, line: &Sender<Carried>) {
        let mut buffer = [0; BUFFER];
        let mut number = 0;
        while !self.is_over() {
            let Ok((length, person)) = self.front.recv_from(&mut buffer) else { continue };
            let datagram = &buffer[..length];
            let mut state = self.state();
            if !state.calls.iter().any(|call| call.person == person) {
                // The port is there in a moment; until then it loses what comes.
                let _ = state.ports.send(Wanted::First(person));
            }
            number += 1;
            state.put(datagram, Out::Public(person), number * 2, line);
        }
    }

    /// Makes ports, and reads them all.
    fn open(&self, wanted: &Receiver<Wanted>, line: &Sender<Carried>) {
        let mut buffer = [0; BUFFER];
        let mut number = 0;
        while !self.is_over() {
            while let Ok(wanted) = wanted.try_recv() {
                // Without a port the call is silent, and its test says so.
                drop(self.give(wanted));
            }
            let ports: Vec<_> = self.state().calls.iter().map(|call| (call.person, call.port.clone())).collect();
            for (person, port) in ports {
                while let Ok(length) = port.recv(&mut buffer) {
                    let datagram = &buffer[..length];
                    let mut state = self.state();
                    if let Some(call) = state.calls.iter_mut().find(|call| call.person == person)
                        && is_rtp(datagram)
                    {
                        let since = call.moved.map(|moved| moved.elapsed());
                        call.media = call.media.or(since);
                    }
                    number += 1;
                    state.put(datagram, Out::Person(person), number * 2 + 1, line);
                }
            }
            // A millisecond is part of the line's delay.
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn give(&self, wanted: Wanted) -> io::Result<()> {
        let port = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        port.set_nonblocking(true)?;
        port.connect(self.door)?;
        let port = Arc::new(port);
        let mut state = self.state();
        let known = |person: SocketAddr| move |call: &Call| call.person == person;
        match wanted {
            // It is asked for with each datagram until it is there.
            Wanted::First(person) if state.calls.len() < MAX_CALLS && !state.calls.iter().any(known(person)) => {
                state.calls.push(Call { person, port, moved: None, checked: None, media: None });
            }
            Wanted::First(_) => {}
            Wanted::Another(person) => {
                if let Some(place) = state.calls.iter().position(known(person)) {
                    state.calls[place] = Call { person, port, moved: Some(Instant::now()), checked: None, media: None };
                }
            }
        }
        Ok(())
    }

    /// Lets out what is due.
    fn carry(&self, carried: &Receiver<Carried>) {
        let mut waiting: BinaryHeap<Carried> = BinaryHeap::new();
        while !self.is_over() {
            let now = Instant::now();
            while waiting.peek().is_some_and(|first| first.due <= now) {
                if let Some(Carried { datagram, out, .. }) = waiting.pop() {
                    self.let_out(&datagram, &out);
                }
            }
            let until = waiting.peek().map_or(PATIENCE, |first| first.due.saturating_duration_since(now));
            match carried.recv_timeout(until.min(PATIENCE)) {
                Ok(next) if waiting.len() < MAX_ON_THE_LINE => waiting.push(next),
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// What cannot be sent is lost, as on any network.
    fn let_out(&self, datagram: &[u8], out: &Out) {
        match out {
            Out::Person(person) => drop(self.front.send_to(datagram, person)),
            Out::Public(person) => {
                let mut state = self.state();
                let Some(call) = state.calls.iter_mut().find(|call| call.person == *person) else { return };
                if is_check(datagram) {
                    let since = call.moved.map(|moved| moved.elapsed());
                    call.checked = call.checked.or(since);
                }
                let port = call.port.clone();
                drop(state);
                drop(port.send(datagram));
            }
        }
    }

    fn remember(&self, way: usize, octets: &[u8]) {
        let said = &mut self.state().said[way];
        said.extend_from_slice(&octets[..octets.len().min(MAX_SAID.saturating_sub(said.len()))]);
    }

    /// Passes on what comes over a connection; either side may end it.
    fn pass(&self, way: usize, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            self.remember(way, &buffer[..count]);
            to.write_all(&buffer[..count])?;
        }
    }

    fn join(&self, near: &TcpStream, web: SocketAddr) -> io::Result<()> {
        near.set_nonblocking(false)?;
        let far = TcpStream::connect(web)?;
        let pass = |way, from, to: &TcpStream| {
            let _ = self.pass(way, from, to);
            let _ = to.shutdown(Shutdown::Write);
        };
        thread::scope(|scope| {
            scope.spawn(|| pass(1, &far, near));
            pass(0, near, &far);
        });
        Ok(())
    }
}

/// Connections to the public address.
fn connect(inner: &Arc<Inner>, listener: &TcpListener, web: SocketAddr) {
    while !inner.is_over() {
        match listener.accept() {
            // A connection that cannot be made is closed, as a refusal would close it.
            Ok((near, _)) => {
                let inner = inner.clone();
                drop(thread::spawn(move || inner.join(&near, web)));
            }
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

impl State {
    /// Puts a datagram on the line.
    fn put(&mut self, datagram: &[u8], out: Out, number: u64, line: &Sender<Carried>) {
        let heard = &mut self.overheard[usize::from(matches!(out, Out::Person(_)))];
        match heard.get_mut(number as usize / 2 % MAX_OVERHEARD) {
            Some(slot) => *slot = datagram.to_vec(),
            None => heard.push(datagram.to_vec()),
        }
        let Conditions { lost_per_mille, delay, jitter } = self.conditions;
        if self.dice.roll() % 1_000 < u64::from(lost_per_mille) {
            return;
        }
        let more = jitter.mul_f64(self.dice.roll() as f64 / u32::MAX as f64);
        // The line's thread has ended when nobody needs it any more.
        let _ = line.send(Carried { due: Instant::now() + delay + more, number, datagram: datagram.to_vec(), out });
    }
}

/// What is due first is the greatest.
impl Ord for Carried {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Carried {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Carried {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Carried {}

/// Knuth's MMIX generator; the high bits are the random ones.
struct Dice(u64);

impl Dice {
    /// 32 bits.
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 32
    }
}

/// A STUN binding request (RFC 8489, 5).
fn is_check(datagram: &[u8]) -> bool {
    matches!(datagram, [0, 1, _, _, 0x21, 0x12, 0xA4, 0x42, ..])
}

/// RTP and not RTCP, on a port that both share (RFC 5761, RFC 7983).
pub(crate) fn is_rtp(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, second, ..] if !(64..=95).contains(&(second & 0x7f)))
}
