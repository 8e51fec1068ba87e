//! Where one session's client is: the connectivity checks in both directions, and what they prove (RFC 8445, RFC 7675).
//!
//! While the session connects the ICE agent answers checks and makes its own; it sees only what is authentic, and what it
//! sends goes only where it may. Once connected the loop answers them itself: the agent believes in one address for ever,
//! and [`Paths`] says what that address is by now.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use streamfleet_net::stun::{self, TransactionId};
use streamfleet_relay::Standing;

use super::addresses::Addresses;
use super::answer::IceCredentials;
use super::counters::Drop;
use super::io::{Io, Route};
use super::path::{Newest, Nominates, PathAction, Paths};
use super::peer::StunKind;

/// Checks of ours that may be answered: the agent sends one to each candidate every 200 ms and gives each up after 4 s.
const MAX_ASKED: usize = 64;
/// An answered check counts as the client's consent for this long.
const CONSENT: Duration = Duration::from_secs(10);
/// RFC 8445 5.1.2.1 for a peer-reflexive candidate, which a check from a moved path makes ours in the client's eyes.
const PEER_REFLEXIVE_PRIORITY: u32 = 110 << 24 | 65_535 << 8 | 255;

/// One session's addresses, checks and paths.
pub(crate) struct Reach {
    local: IceCredentials,
    remote: IceCredentials,
    addresses: Addresses,
    /// Checks of ours that nobody has answered yet, the oldest first.
    asked: VecDeque<(TransactionId, SocketAddr)>,
    connected: Option<Connected>,
}

struct Connected {
    paths: Paths,
    /// The current path's address as the ICE agent knows it, whatever it is by now.
    selected: SocketAddr,
}

/// What follows from a datagram for the rest of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing.
    Done,
    /// The agent is to see it, as if it came from this address.
    ForAgent(SocketAddr, StunKind),
    /// Media goes to this address from now on.
    Moved(SocketAddr),
}

impl Reach {
    pub(crate) fn new(local: IceCredentials, remote: IceCredentials) -> Self {
        Reach { local, remote, addresses: Addresses::default(), asked: VecDeque::new(), connected: None }
    }

    pub(crate) fn ufrag(&self) -> &str {
        &self.local.ufrag
    }

    /// Where media goes, once the session is connected.
    pub(crate) fn current(&self) -> Option<SocketAddr> {
        self.connected.as_ref().map(|c| c.paths.current())
    }

    /// Whether the client has lately consented to be sent to, whatever the agent has heard.
    pub(crate) fn has_consent(&self, now: Instant) -> bool {
        self.connected.as_ref().is_some_and(|c| now.saturating_duration_since(c.paths.proved_at()) < CONSENT)
    }

    /// The address as the ICE agent knows it.
    pub(crate) fn as_known(&self, from: SocketAddr) -> SocketAddr {
        match &self.connected {
            Some(c) if c.paths.is_validated(from) => c.selected,
            _ => from,
        }
    }

    /// What the loop's tables have learnt of this session and are to forget with it.
    pub(crate) fn routes(&self) -> impl Iterator<Item = Route> {
        let addresses = self.addresses.iter().map(Route::Forgotten);
        addresses.chain(self.asked.iter().map(|(id, _)| Route::Answered(*id)))
    }

    /// ICE and DTLS are up with the client at this address.
    pub(crate) fn connected(&mut self, remote: SocketAddr, io: &mut Io<'_>) {
        self.prove(remote, io);
        self.addresses.connected();
        self.connected = Some(Connected { paths: Paths::new(remote, io.now), selected: remote });
    }

    /// A STUN message for this session, by its ufrag or by the check that it answers.
    pub(crate) fn stun(
        &mut self,
        from: SocketAddr,
        data: &[u8],
        message: &stun::Message<'_>,
        io: &mut Io<'_>,
    ) -> Outcome {
        match message.class() {
            stun::Class::Request => self.request(from, data, message, io),
            stun::Class::Success => self.success(from, message, io),
            // The agent would take an indication for a sign of life without asking who it is from; it has no use for errors.
            stun::Class::Indication | stun::Class::Error => {
                io.counters.dropped(Drop::StunUnasked);
                Outcome::Done
            }
        }
    }

    fn request(&mut self, from: SocketAddr, data: &[u8], message: &stun::Message<'_>, io: &mut Io<'_>) -> Outcome {
        // The core looks at roles before it looks at integrity; nothing unauthenticated may reach it.
        let named = message.username().is_some_and(|name| {
            name.split_once(':').is_some_and(|(local, remote)| local == self.local.ufrag && remote == self.remote.ufrag)
        });
        if !named || !message.verify_integrity(self.local.pwd.as_bytes()) {
            io.counters.dropped(Drop::StunIntegrity);
            return Outcome::Done;
        }
        if !self.claim(from, data.len(), io) {
            return Outcome::Done;
        }
        io.out.authentic();
        io.out.stands(from, Standing::Confirmed);
        let nominates = if message.use_candidate() { Nominates::Yes } else { Nominates::No };
        let allowance = self.addresses.allowance(from);
        let Some(connected) = &mut self.connected else {
            let kind = match nominates {
                Nominates::Yes => StunKind::NominatingRequest,
                Nominates::No => StunKind::Other,
            };
            return Outcome::ForAgent(from, kind);
        };
        // Once connected the loop answers checks itself: to the agent the path never changes.
        let action = connected.paths.request(from, nominates, allowance, io.now);
        // Our own check goes first: an unproven address has not paid for both, and only the check's answer proves it.
        let outcome = self.act(action, io);
        self.respond(from, message.transaction(), io);
        outcome
    }

    fn success(&mut self, from: SocketAddr, message: &stun::Message<'_>, io: &mut Io<'_>) -> Outcome {
        if !message.verify_integrity(self.remote.pwd.as_bytes()) {
            io.counters.dropped(Drop::StunIntegrity);
            return Outcome::Done;
        }
        let id = message.transaction();
        // RFC 8445 7.2.5.2.1: the answer comes from where the check went. A client knows the ids of the checks that reached
        // it, and could answer one of them in another's name.
        let Some(asked) = self.asked.iter().position(|asked| *asked == (id, from)) else {
            io.counters.dropped(Drop::StunUnasked);
            return Outcome::Done;
        };
        self.asked.remove(asked);
        io.out.authentic();
        io.routes.push(Route::Answered(id));
        self.prove(from, io);
        let action = self.connected.as_mut().and_then(|c| c.paths.response(from, &id, io.now));
        match action {
            Some(action) => self.act(action, io),
            None => Outcome::ForAgent(self.as_known(from), StunKind::Success),
        }
    }

    /// An authentic RTP packet. Where media goes from now on, if that has changed.
    pub(crate) fn media(
        &mut self,
        from: SocketAddr,
        newest: Newest,
        octets: usize,
        io: &mut Io<'_>,
    ) -> Option<SocketAddr> {
        let connected = self.connected.as_mut()?;
        // Most packets, at the cost of one comparison.
        let allowance = if from == connected.paths.current() || newest == Newest::No {
            usize::MAX
        } else {
            self.claim(from, octets, io);
            self.addresses.allowance(from)
        };
        let action = self.connected.as_mut()?.paths.media(from, newest, allowance, io.now);
        match self.act(action, io) {
            Outcome::Moved(to) => Some(to),
            Outcome::Done | Outcome::ForAgent(..) => None,
        }
    }

    /// Sends a datagram of the core's, if it may go where it is to go.
    pub(crate) fn send(&mut self, to: SocketAddr, data: &[u8], io: &mut Io<'_>) {
        let to = match &self.connected {
            Some(c) if c.selected == to => c.paths.current(),
            _ => to,
        };
        if !self.addresses.spend(to, data.len()) {
            io.counters.dropped(Drop::Unaffordable);
            return;
        }
        if data.starts_with(&[0, 1])
            && let Some(id) = data.get(8..20).and_then(|id| id.try_into().ok())
        {
            self.ask(TransactionId(id), to, io);
        }
        io.out.push_slice(to, data);
    }

    fn act(&mut self, action: PathAction, io: &mut Io<'_>) -> Outcome {
        match action {
            PathAction::Keep => Outcome::Done,
            PathAction::Check(to) => {
                self.check(to, io);
                Outcome::Done
            }
            PathAction::Moved(to) => {
                self.prove(to, io);
                Outcome::Moved(to)
            }
        }
    }

    fn check(&mut self, to: SocketAddr, io: &mut Io<'_>) {
        let id = TransactionId(rand::random());
        let request = stun::BindingRequest {
            transaction: id,
            remote_ufrag: &self.remote.ufrag,
            local_ufrag: &self.local.ufrag,
            priority: PEER_REFLEXIVE_PRIORITY,
            role: stun::Role::Controlled(rand::random()),
            nomination: stun::Nomination::None,
        };
        let (key, addresses) = (self.remote.pwd.as_bytes(), &mut self.addresses);
        let sent = io.out.push(to, |buffer| {
            let start = buffer.len();
            request.write(key, buffer).is_ok() && addresses.spend(to, buffer.len() - start)
        });
        if sent && let Some(connected) = &mut self.connected {
            connected.paths.checked(to, id, io.now);
            self.ask(id, to, io);
        }
    }

    fn respond(&mut self, to: SocketAddr, transaction: TransactionId, io: &mut Io<'_>) {
        let response = stun::BindingSuccess { transaction, mapped: to };
        let (key, addresses) = (self.local.pwd.as_bytes(), &mut self.addresses);
        io.out.push(to, |buffer| {
            let start = buffer.len();
            response.write(key, buffer);
            addresses.spend(to, buffer.len() - start)
        });
    }

    /// A check leaves with this id, for this address.
    fn ask(&mut self, id: TransactionId, to: SocketAddr, io: &mut Io<'_>) {
        if self.asked.len() == MAX_ASKED {
            io.routes.extend(self.asked.pop_front().map(|(old, _)| Route::Answered(old)));
        }
        self.asked.push_back((id, to));
        io.routes.push(Route::Asked(id));
    }

    /// Something authentic came from there. False if it is one address too many.
    fn claim(&mut self, from: SocketAddr, octets: usize, io: &mut Io<'_>) -> bool {
        let paths = self.connected.as_ref().map(|c| &c.paths);
        match self.addresses.received(from, octets, |a| paths.is_some_and(|p| p.knows(a))) {
            Ok(evicted) => {
                io.routes.extend(evicted.map(Route::Forgotten));
                io.routes.push(Route::Claimed(from));
                true
            }
            Err(_) => {
                io.counters.dropped(Drop::Unaffordable);
                false
            }
        }
    }

    /// A check of ours was answered from there.
    fn prove(&mut self, address: SocketAddr, io: &mut Io<'_>) {
        let paths = self.connected.as_ref().map(|c| &c.paths);
        let evicted = self.addresses.prove(address, |a| paths.is_some_and(|p| p.knows(a)));
        io.out.stands(address, Standing::Proven);
        io.routes.extend(evicted.map(Route::Forgotten));
        io.routes.push(Route::Proven(address));
    }
}

#[cfg(test)]
#[path = "reach_tests.rs"]
mod tests;
