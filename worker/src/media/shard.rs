//! One media loop without its socket and its clock: sessions, the tables that find them, and their timers.
//!
//! Fed with datagrams, commands and time, it fills an [`Outlet`]. The driver does the same with real sockets as the
//! tests do with a simulated network.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::Hash;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use streamfleet_net::demux::{Kind, classify};
use streamfleet_net::stun;
use streamfleet_relay::{HEADER, Sealed, SessionHandle};
use streamfleet_rtp::rtcp::WallClock;
use streamfleet_session::candidate::RemoteCandidate;
use streamfleet_session::lifecycle::CloseReason;
use streamfleet_session::wire::ServerMessage;
use tokio::sync::mpsc;

use super::counters::{Counters, Drop};
use super::io::{Io, Route};
use super::outlet::Outlet;
use super::session::{NewSession, Session};
use super::shared::{Token, TrackEnd};

type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What the rest of the process asks of a loop.
pub(crate) enum Command {
    Open(Box<NewSession>),
    Candidate(Token, Box<RemoteCandidate>),
    /// End the session for this reason, telling the client so.
    End(Token, CloseReason),
    HandlerFailed(Token, String),
    /// A handler ends this session, with this for its client.
    EndStream(Token, Option<String>),
    Reconnect(Token, Box<ServerMessage>),
    /// End the track of this `mid`, and say what came of it.
    CloseTrack(Token, Box<str>, mpsc::Sender<TrackEnd>),
}

/// Sessions whose handler has something for the client. Bounded: a handler's link wakes only when its queue was empty, and only
/// the loop empties it, which takes this list first.
pub(crate) type Ready = Arc<Mutex<Vec<Token>>>;

/// A media loop's state.
pub(crate) struct Shard {
    sessions: Vec<Option<Box<Session>>>,
    free: Vec<u32>,
    by_token: FastMap<Token, u32>,
    by_ufrag: FastMap<Box<str>, u32>,
    by_address: FastMap<SocketAddr, u32>,
    by_source: FastMap<u32, u32>,
    by_check: FastMap<[u8; 12], u32>,
    timers: BinaryHeap<Reverse<(Instant, u32)>>,
    dirty: VecDeque<u32>,
    routes: Vec<Route>,
    payload: Vec<u8>,
    clock: WallClock,
    counters: Arc<Counters>,
}

impl Shard {
    pub(crate) fn new(counters: Arc<Counters>, clock: WallClock) -> Self {
        Shard {
            sessions: Vec::new(),
            free: Vec::new(),
            by_token: FastMap::default(),
            by_ufrag: FastMap::default(),
            by_address: FastMap::default(),
            by_source: FastMap::default(),
            by_check: FastMap::default(),
            timers: BinaryHeap::new(),
            dirty: VecDeque::new(),
            routes: Vec::new(),
            payload: Vec::new(),
            clock,
            counters,
        }
    }

    /// Sessions that are not over.
    pub(crate) fn len(&self) -> usize {
        self.by_token.len()
    }

    /// Table entries of all kinds: a test of leaks.
    #[cfg(test)]
    pub(crate) fn table_sizes(&self) -> [usize; 5] {
        let addresses = self.by_address.len();
        [self.by_token.len(), self.by_ufrag.len(), addresses, self.by_source.len(), self.by_check.len()]
    }

    /// Carries out a command. What follows from it is done by [`Self::settle`].
    pub(crate) fn handle_command(&mut self, command: Command, now: Instant, out: &mut Outlet) {
        match command {
            Command::Open(new) => self.open(*new, now, out),
            Command::Candidate(token, candidate) => {
                self.with(token, |session| {
                    session.add_candidate(&candidate);
                });
            }
            Command::End(token, reason) => {
                let goodbye = ServerMessage::UpdateConnection;
                self.with(token, |session| session.end(reason, Some(goodbye), now));
            }
            Command::EndStream(token, message) => {
                let goodbye = ServerMessage::end_stream(message);
                self.with(token, |session| session.end(CloseReason::EndStream, Some(goodbye), now));
            }
            Command::HandlerFailed(token, message) => {
                self.with(token, |session| session.handler_failed(&message, now));
            }
            Command::CloseTrack(token, mid, told) => {
                if let Some(end) = self.with(token, |session| session.close_track(&mid, now)) {
                    // Whoever asked may not wait any more.
                    let _ = told.try_send(end);
                }
            }
            Command::Reconnect(token, message) => {
                if let Some(i) = self.by_token.get(&token).copied() {
                    self.run(i, now, out, |session, io| session.ask_to_reconnect(&message, io));
                }
            }
        }
    }

    fn open(&mut self, new: NewSession, now: Instant, out: &mut Outlet) {
        let relay = new.relay;
        if self.by_ufrag.contains_key(new.answered.local.ufrag.as_str()) {
            // Whoever minted it has had no luck: its client offers again, and gets another.
            tracing::warn!(session = %new.shared.id(), "a ufrag came twice");
            let shared = new.shared.clone();
            shared.ending(CloseReason::InternalError);
            drop(new);
            shared.closed(CloseReason::InternalError);
            return;
        }
        let session = Box::new(Session::new(new, now));
        let i = match self.free.pop() {
            Some(i) => i,
            None => {
                self.sessions.push(None);
                u32::try_from(self.sessions.len() - 1).expect("fewer than 2^32 sessions fit in memory")
            }
        };
        if let Some(key) = relay {
            out.open(i, key);
        }
        self.by_ufrag.insert(session.ufrag().into(), i);
        self.by_token.insert(session.shared.token(), i);
        self.sessions[i as usize] = Some(session);
        self.mark(i);
        self.counters.set_sessions(self.len());
    }

    fn with<T>(&mut self, token: Token, f: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let i = *self.by_token.get(&token)?;
        let done = f(self.sessions[i as usize].as_deref_mut()?);
        self.mark(i);
        Some(done)
    }

    /// These sessions' handlers have something to send.
    pub(crate) fn handle_ready(&mut self, tokens: &[Token]) {
        for token in tokens {
            if let Some(i) = self.by_token.get(token).copied() {
                self.mark(i);
            }
        }
    }

    /// One datagram; it is decrypted where it lies.
    pub(crate) fn handle_datagram(&mut self, from: SocketAddr, data: &mut [u8], now: Instant, out: &mut Outlet) {
        let found = match classify(data) {
            Kind::Stun => match stun::Message::parse(data) {
                Ok(message) => self.named(&message),
                Err(_) => return self.counters.dropped(Drop::StunMalformed),
            },
            Kind::Dtls | Kind::Rtcp => self.by_address.get(&from).copied(),
            // A client whose NAT gave it a new port is known by its source, if the packet then proves to be its.
            Kind::Rtp => self.by_address.get(&from).copied().or_else(|| {
                let ssrc = data.get(8..12).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)?;
                self.by_source.get(&ssrc).copied()
            }),
            Kind::Unknown if Sealed::split(data).is_ok() => return self.relayed(from, data, now, out),
            Kind::Unknown | Kind::TurnChannel => return self.counters.dropped(Drop::NotMedia),
        };
        // Whoever has a relay is not to be reached past it.
        match found.filter(|i| !out.is_relayed(*i)) {
            Some(i) => self.deliver(i, from, data, now, out),
            None => self.counters.dropped(Drop::UnknownPeer),
        }
    }

    /// One datagram that came by a relay.
    fn relayed(&mut self, relay: SocketAddr, data: &mut [u8], now: Instant, out: &mut Outlet) {
        let Some((head, data)) = data.split_at_mut_checked(HEADER) else { return };
        let Ok((sealed, _)) = Sealed::split(head) else { return };
        // A relay that has not heard yet what the session is called here has a check, which says whose it is.
        let found = match sealed.said().session {
            SessionHandle(0) => stun::Message::parse(data).ok().and_then(|message| self.named(&message)),
            SessionHandle(n) => Some(n - 1),
        };
        let Some((i, from)) = found.and_then(|i| Some((i, out.arrived(i, relay, &sealed)?))) else {
            return self.counters.dropped(Drop::NotRelayed);
        };
        self.deliver(i, from, data, now, out);
    }

    /// The session that a STUN message is for. Requests name it; answers to our own checks do not.
    fn named(&self, message: &stun::Message<'_>) -> Option<u32> {
        match message.local_ufrag() {
            Some(ufrag) => self.by_ufrag.get(ufrag).copied(),
            None => self.by_check.get(&message.transaction().0).copied(),
        }
    }

    /// Gives a session what is its own.
    fn deliver(&mut self, i: u32, from: SocketAddr, data: &mut [u8], now: Instant, out: &mut Outlet) {
        match classify(data) {
            Kind::Stun => match stun::Message::parse(data) {
                Ok(message) => self.run(i, now, out, |session, io| session.stun(from, data, &message, io)),
                Err(_) => self.counters.dropped(Drop::StunMalformed),
            },
            Kind::Dtls => self.run(i, now, out, |session, io| session.dtls(from, data, io)),
            Kind::Rtcp => self.run(i, now, out, |session, io| session.rtcp(from, data, io)),
            Kind::Rtp => {
                // Most packets change nothing but their track: the session is not put on the list of those to settle.
                let wants = self.contained(i, now, out, |session, io| {
                    session.rtp(from, data, io);
                    session.wants_settling()
                });
                if wants == Some(true) {
                    self.mark(i);
                }
            }
            Kind::Unknown | Kind::TurnChannel => self.counters.dropped(Drop::NotMedia),
        }
    }

    fn run(&mut self, i: u32, now: Instant, out: &mut Outlet, f: impl FnOnce(&mut Session, &mut Io<'_>)) {
        self.contained(i, now, out, f);
        self.mark(i);
    }

    fn learn(&mut self, i: u32) {
        for route in self.routes.drain(..) {
            match route {
                Route::Claimed(address) => {
                    self.by_address.entry(address).or_insert(i);
                }
                Route::Proven(address) => {
                    self.by_address.insert(address, i);
                }
                Route::Forgotten(address) => forget(&mut self.by_address, &address, i),
                Route::Asked(id) => {
                    self.by_check.insert(id.0, i);
                }
                Route::Answered(id) => forget(&mut self.by_check, &id.0, i),
                Route::Source(ssrc) => {
                    self.by_source.entry(ssrc).or_insert(i);
                }
            }
        }
    }

    /// Puts a session on the list of those to settle, once.
    fn mark(&mut self, i: u32) {
        if let Some(session) = self.sessions.get_mut(i as usize).and_then(Option::as_deref_mut)
            && !session.queued
        {
            session.queued = true;
            self.dirty.push_back(i);
        }
    }

    /// One session's share of work. A fault in it ends that session and no other.
    fn contained<T>(
        &mut self,
        i: u32,
        now: Instant,
        out: &mut Outlet,
        work: impl FnOnce(&mut Session, &mut Io<'_>) -> T,
    ) -> Option<T> {
        let session = self.sessions.get_mut(i as usize)?.as_deref_mut()?;
        out.turn(i);
        let mut io = Io {
            now,
            clock: &self.clock,
            out,
            counters: &self.counters,
            routes: &mut self.routes,
            payload: &mut self.payload,
        };
        let done = catch_unwind(AssertUnwindSafe(|| work(session, &mut io))).ok();
        if !self.routes.is_empty() {
            self.learn(i);
        }
        if done.is_none() {
            tracing::error!(session = i, "a session panicked on the media loop");
            self.remove(i, CloseReason::InternalError, out);
        }
        done
    }

    /// Runs timers that are due and everything that the inputs since the last call led to.
    pub(crate) fn settle(&mut self, now: Instant, out: &mut Outlet) {
        while let Some(Reverse((at, i))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            let due = self.sessions[i as usize].as_deref_mut().is_some_and(|s| s.deadline == Some(at));
            if due {
                if let Some(session) = self.sessions[i as usize].as_deref_mut() {
                    session.deadline = None;
                }
                self.run(i, now, out, |session, io| session.handle_timeout(io));
            }
        }
        // Those that come onto the list meanwhile have their turn in the next one.
        for _ in 0..self.dirty.len() {
            if out.is_full() {
                // The rest waits until what is queued has been sent.
                break;
            }
            let Some(i) = self.dirty.pop_front() else { break };
            let Some(session) = self.sessions[i as usize].as_deref_mut() else { continue };
            session.queued = false;
            let settled = self.contained(i, now, out, |session, io| {
                session.settle(io);
                let next = session.poll_timeout(now);
                let timer = next.filter(|_| next != session.deadline);
                session.deadline = next;
                (session.closed(), timer, session.more)
            });
            let Some((closed, timer, more)) = settled else { continue };
            if let Some(at) = timer {
                self.timers.push(Reverse((at, i)));
            }
            match closed {
                // Its last words wait for room in the outbox.
                _ if more => self.mark(i),
                Some(reason) => self.remove(i, reason, out),
                None => {}
            }
        }
    }

    fn remove(&mut self, i: u32, reason: CloseReason, out: &mut Outlet) {
        let Some(session) = self.sessions[i as usize].take() else { return };
        out.close(i);
        self.by_ufrag.remove(session.ufrag());
        self.by_token.remove(&session.shared.token());
        for route in session.routes() {
            match route {
                Route::Claimed(address) | Route::Proven(address) | Route::Forgotten(address) => {
                    forget(&mut self.by_address, &address, i);
                }
                Route::Asked(id) | Route::Answered(id) => forget(&mut self.by_check, &id.0, i),
                Route::Source(ssrc) => forget(&mut self.by_source, &ssrc, i),
            }
        }
        self.free.push(i);
        self.counters.set_sessions(self.len());
        // Whoever waits for the end may offer the same id at once: its place must be free by then.
        let shared = session.shared.clone();
        shared.ending(reason);
        if catch_unwind(AssertUnwindSafe(|| drop(session))).is_err() {
            tracing::error!(session = %shared.id(), "a handler panicked while it was dropped");
        }
        shared.closed(reason);
    }

    /// Whether [`Self::settle`] is to be called again at once.
    pub(crate) fn has_work(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// When [`Self::settle`] is to be called if nothing comes.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }
}

/// Removes an entry unless it is another session's by now.
fn forget<K: Eq + Hash>(table: &mut FastMap<K, u32>, key: &K, i: u32) {
    if table.get(key) == Some(&i) {
        table.remove(key);
    }
}
