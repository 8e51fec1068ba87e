//! Whose packet is this: the decisions of one of a relay's threads.
//!
//! A client's first packet is a STUN check, whose USERNAME begins with the ufrag that the router has minted for the session:
//! it says which worker has the session, and nobody else can have made it. From then on the client's address says it. The
//! relay knows nothing of ICE, DTLS or SRTP beyond that: a worker says of whom it has seen that they are there.
//!
//! | rule | why |
//! |---|---|
//! | a STUN check goes where its ufrag says, always | a client may begin another session from the same port |
//! | one whose ufrag says nothing goes on where the flow leads, if its client has proven that it is there | the key may be over before the call is |
//! | everything else goes where the flow leads, once its worker has answered a check | a forged source does not get further than STUN |
//! | an address that is proven stays its session's until another session has proven that it is there | a forged source takes nobody's call |
//! | to a client goes what its worker has sealed, and no more octets than came from there before the worker has answered | nobody is flooded through a relay |

use std::net::SocketAddr;
use std::time::Duration;

use streamfleet_net::demux::{self, Kind};
use streamfleet_net::stun::{BINDING, Class, Message};

use crate::flows::{Bounds, Flow, FlowKey, Flows, Full, Raised, Target};
use crate::header::{self, Direction, FlowId, HEADER, Sealed, SessionHandle, Standing};
use crate::strangers::Strangers;

/// Opens ufrags.
pub trait Ufrags {
    /// Where the session with this ufrag is, if the fleet has minted it.
    fn open(&self, ufrag: &str) -> Option<Target>;
}

/// A flow that a relay has told others of, whose client is really there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// The client.
    pub client: SocketAddr,
    /// The public port at which its packets arrive.
    pub door: u16,
    /// Where they go.
    pub target: Target,
    /// What the worker calls the session.
    pub session: SessionHandle,
    /// How long nothing has come from the client. Of two that have told of one client, it has come by the other last.
    pub silent: Duration,
}

/// Flows that other relays have told of.
pub trait Elsewhere {
    /// The one of this name, if any has.
    fn find(&self, key: &FlowKey) -> Option<Announced>;
}

/// A datagram on its way to a worker, or to two: a response to a check does not say whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Onward {
    /// The flow that it belongs to, whose datagrams stay in their order.
    pub flow: FlowId,
    /// Where to, and what goes before it.
    pub to: (SocketAddr, [u8; HEADER]),
    /// Where else.
    pub also: Option<(SocketAddr, [u8; HEADER])>,
}

/// A datagram on its way to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Homeward<'a> {
    /// The flow that it belongs to, whose datagrams stay in their order.
    pub flow: FlowId,
    /// The client.
    pub to: SocketAddr,
    /// The public port that it is sent from.
    pub door: u16,
    /// What the worker has sent.
    pub datagram: &'a [u8],
    /// What other relays are to know now.
    pub announce: Option<Announced>,
}

/// Why a datagram goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Drop {
    /// Not STUN, and from an address that has no flow.
    UnknownFlow,
    /// No packet of WebRTC.
    Noise,
    /// A check that names no session of ours: its ufrag was not minted here, or by a key that is over.
    UnknownUfrag,
    /// Its source has sent too many of them lately.
    Stranger,
    /// The worker has not answered this client yet.
    Unconfirmed,
    /// All flows are taken.
    Full,
    /// Its session has as many flows as a session may have.
    Crowded,
    /// From a worker's side, and no header, or of another form.
    Malformed,
    /// The header names a flow that is not, or not that client's.
    StrangeFlow,
    /// The header is not sealed with the session's key.
    Forged,
    /// More than the client has sent, and its worker does not know it yet.
    Amplified,
    /// Larger than any of WebRTC: whoever receives drops it, and no decision is asked for.
    Giant,
    /// Without an octet; likewise.
    Empty,
}

/// One thread's side of a relay.
pub struct Relay<U> {
    ufrags: U,
    flows: Flows,
    strangers: Strangers,
}

impl Drop {
    /// Every reason, for metrics.
    pub const ALL: [Self; 13] = [
        Self::UnknownFlow,
        Self::Noise,
        Self::UnknownUfrag,
        Self::Stranger,
        Self::Unconfirmed,
        Self::Full,
        Self::Crowded,
        Self::Malformed,
        Self::StrangeFlow,
        Self::Forged,
        Self::Amplified,
        Self::Giant,
        Self::Empty,
    ];

    /// The metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownFlow => "unknown_flow",
            Self::Noise => "noise",
            Self::UnknownUfrag => "unknown_ufrag",
            Self::Stranger => "stranger",
            Self::Unconfirmed => "unconfirmed",
            Self::Full => "full",
            Self::Crowded => "crowded",
            Self::Malformed => "malformed",
            Self::StrangeFlow => "strange_flow",
            Self::Forged => "forged",
            Self::Amplified => "amplified",
            Self::Giant => "giant",
            Self::Empty => "empty",
        }
    }
}

impl<U> Relay<U> {
    pub(crate) fn table(&self) -> &Flows {
        &self.flows
    }
}

impl<U: Ufrags> Relay<U> {
    /// `return_port` is the port of this thread that workers send to.
    pub fn new(ufrags: U, bounds: Bounds, return_port: u16) -> Self {
        Self { ufrags, flows: Flows::new(bounds, return_port), strangers: Strangers::new() }
    }

    /// Flows at the moment.
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// A datagram from a client, at a public port. `now` is the thread's clock, and never goes back.
    ///
    /// # Errors
    /// [`Drop`] says why it goes no further.
    pub fn from_client(
        &mut self,
        from: SocketAddr,
        door: u16,
        datagram: &[u8],
        now: Duration,
        elsewhere: &impl Elsewhere,
    ) -> Result<Onward, Drop> {
        let kind = demux::classify(datagram);
        if matches!(kind, Kind::Unknown | Kind::TurnChannel) {
            return Err(Drop::Noise);
        }
        let key = FlowKey::new(from, door);
        let held = match self.flows.find(&key) {
            Some(held) => Some(held),
            None => elsewhere.find(&key).and_then(|announced| self.adopt(&announced, now).ok()),
        };
        if kind == Kind::Stun {
            return self.stun(from, door, datagram, held, now);
        }
        let held = held.ok_or(Drop::UnknownFlow)?;
        let flow = self.flows.get_mut(held).ok_or(Drop::UnknownFlow)?;
        if flow.standing() == Standing::Unknown {
            return Err(Drop::Unconfirmed);
        }
        flow.hear(datagram.len(), now);
        Ok(Onward { flow: held, to: onward(flow), also: None })
    }

    fn stun(
        &mut self,
        from: SocketAddr,
        door: u16,
        datagram: &[u8],
        held: Option<FlowId>,
        now: Duration,
    ) -> Result<Onward, Drop> {
        let message = Message::parse(datagram).map_err(|_| Drop::Noise)?;
        if message.method() != BINDING {
            return Err(Drop::Noise);
        }
        let flow = match (message.class(), held) {
            (Class::Request, _) => self.asked(from, door, &message, held, now)?,
            // Whose it answers is not in it.
            (_, Some(held)) => {
                let rival = self.flows.rival(held);
                let also = rival.and_then(|rival| self.flows.get_mut(rival)).map(|flow| {
                    // Its octets are counted once: both workers could send as many back.
                    flow.hear(0, now);
                    onward(flow)
                });
                let flow = self.flows.get_mut(held).ok_or(Drop::UnknownFlow)?;
                flow.hear(datagram.len(), now);
                return Ok(Onward { flow: held, to: onward(flow), also });
            }
            (_, None) => return Err(Drop::UnknownFlow),
        };
        let id = flow;
        let flow = self.flows.get_mut(id).ok_or(Drop::UnknownFlow)?;
        flow.hear(datagram.len(), now);
        Ok(Onward { flow: id, to: onward(flow), also: None })
    }

    /// The flow that a check belongs to, entered if it is the first.
    fn asked(
        &mut self,
        from: SocketAddr,
        door: u16,
        message: &Message<'_>,
        held: Option<FlowId>,
        now: Duration,
    ) -> Result<FlowId, Drop> {
        let target = message.local_ufrag().and_then(|ufrag| self.ufrags.open(ufrag));
        let Some(target) = target else {
            // Who is there goes on with the session that he has, after the key is over that its ufrag was minted with.
            let is_there =
                |held: &FlowId| self.flows.get(*held).is_some_and(|flow| flow.standing() == Standing::Proven);
            if let Some(held) = held.filter(is_there) {
                return Ok(held);
            }
            // Who sends what can be opened is heard, whoever else sends in the name of that address: two blocks of a cipher are
            // less than anybody's call.
            if self.strangers.is_shut(from.ip(), now) {
                return Err(Drop::Stranger);
            }
            self.strangers.knocked(from.ip(), now);
            return Err(Drop::UnknownUfrag);
        };
        let Some(held) = held else {
            return self.flows.enter(from, door, target, now).map_err(|Full| Drop::Full);
        };
        let is_of = |flow: Option<&Flow>| flow.is_some_and(|flow| flow.target() == target);
        if is_of(self.flows.get(held)) {
            return Ok(held);
        }
        match self.flows.rival(held) {
            Some(rival) if is_of(self.flows.get(rival)) => Ok(rival),
            _ => self.flows.challenge(held, target, now).map_err(|Full| Drop::Full),
        }
    }

    /// Takes up a flow that another relay has told of: as one of which nothing is known, where its session has its share.
    fn adopt(&mut self, announced: &Announced, now: Duration) -> Result<FlowId, Full> {
        let flow = self.flows.enter(announced.client, announced.door, announced.target, now)?;
        self.flows.raise(flow, Standing::Proven, announced.session);
        self.flows.told(flow, now);
        Ok(flow)
    }

    /// A datagram that arrived where workers send to.
    ///
    /// # Errors
    /// [`Drop`] says why it goes no further.
    pub fn from_worker<'a>(&mut self, datagram: &'a [u8], now: Duration) -> Result<Homeward<'a>, Drop> {
        let (sealed, datagram) = Sealed::split(datagram).map_err(|_| Drop::Malformed)?;
        let said = *sealed.said();
        if said.direction != Direction::ToClient || datagram.is_empty() {
            return Err(Drop::Malformed);
        }
        let flow =
            self.flows.get_mut(said.flow).filter(|flow| flow.client() == said.client && flow.door() == said.door);
        let flow = flow.ok_or(Drop::StrangeFlow)?;
        let mut announce = None;
        if !flow.knows(sealed.octets()) {
            let said = sealed.open(flow.key()).ok_or(Drop::Forged)?;
            let raised = self.flows.raise(said.flow, said.standing, said.session);
            if raised == Raised::Crowded {
                return Err(Drop::Crowded);
            }
            let flow = self.flows.get_mut(said.flow).ok_or(Drop::StrangeFlow)?;
            flow.learn(sealed.octets(), said.standing);
            if raised == Raised::Proven {
                announce = Some(announced(flow, now));
                self.flows.told(said.flow, now);
            }
        }
        let may = self.flows.get_mut(said.flow).is_some_and(|flow| flow.spend(datagram.len()));
        if !may {
            return Err(Drop::Amplified);
        }
        Ok(Homeward { flow: said.flow, to: said.client, door: said.door, datagram, announce })
    }

    /// What comes next at a public port is from these clients: their flows are read at once, 64 at most, and what is decided of
    /// their datagrams waits for memory no more. Nothing else changes.
    pub fn look_ahead(&self, clients: impl Iterator<Item = SocketAddr>, door: u16) {
        self.flows.look_ahead(clients.map(|client| FlowKey::new(client, door)));
    }

    /// Likewise of datagrams that have arrived where workers send to.
    pub fn look_ahead_home<'a>(&self, datagrams: impl Iterator<Item = &'a [u8]>) {
        self.flows.look_ahead_at(datagrams.filter_map(header::flow_of));
    }

    /// Looks at one of so many parts of the table: forgets flows whose clients are silent, and tells of those that other relays
    /// are to hear of again. To be called so often that all parts have had their turn within seconds. Returns how many were
    /// forgotten.
    pub fn tend(&mut self, parts: usize, now: Duration, mut tell: impl FnMut(Announced)) -> usize {
        self.flows.tend(parts, now, |flow| tell(announced(flow, now)))
    }
}

fn announced(flow: &Flow, now: Duration) -> Announced {
    let (target, session, silent) = (flow.target(), flow.session(), flow.silent(now));
    Announced { client: flow.client(), door: flow.door(), target, session, silent }
}

fn onward(flow: &Flow) -> (SocketAddr, [u8; HEADER]) {
    (flow.worker(), *flow.header())
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
