//! The flows of one thread: a bounded table of clients' addresses, and who they talk to.
//!
//! A flow is known by the client's address and the door at which its packets arrive. Nothing keeps others from sending in its
//! name, so that one address may have two: the one that holds, and a *rival* that names another session and has not shown yet
//! that it is there. Only a worker's word that it is makes it the one that holds.

mod flow;

use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use foldhash::fast::RandomState;
use streamfleet_net::{prefer_large_pages, prefetch};

pub(crate) use self::flow::Flow;
pub use self::flow::{FlowKey, Target, Traffic};
use self::flow::{NONE, seconds};
use crate::announce::MOST;
use crate::header::{FlowId, SessionHandle, Standing};
use crate::index::Index;
use crate::shares::Shares;
use crate::told::AGAIN;

/// Places that are looked at for one that may be given up, when all are taken. More would let whoever fills the table also
/// hold up its thread.
const LOOKED_AT: usize = 64;
/// Flows that are read at once: a batch of packets has no more.
pub(crate) const AHEAD: usize = 64;

/// How long, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Flows at a time.
    pub flows: usize,
    /// A flow whose client has not been heard for so long is forgotten, unless it has proven itself: a client whose checks are
    /// answered goes on within a second.
    pub unproven: Duration,
    /// One that has: clients check their consent every 5 s (RFC 7675, 5.1), and may lose a few.
    pub proven: Duration,
    /// Flows of one session at a time that its worker vouches for. A client has a few addresses, and another one each time that its
    /// NAT moves it; whoever holds a session and can send from thousands of addresses takes no more of the table than this. Flows
    /// that nobody vouches for are not counted: whoever has seen a session's ufrag cannot keep its client from moving.
    pub per_session: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { flows: 1 << 17, unproven: Duration::from_secs(10), proven: Duration::from_secs(30), per_session: 32 }
    }
}

/// Why there is no place for a flow: all are taken by clients that are really there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// The table of one thread.
pub(crate) struct Flows {
    places: Vec<Option<Flow>>,
    free: Vec<u32>,
    /// The place of the flow that holds an address.
    index: Index,
    /// Seeded at random: clients choose their addresses.
    hasher: RandomState,
    bounds: Bounds,
    return_port: u16,
    /// Where the next search for places to give up begins.
    hand: usize,
    shares: Shares,
}

/// Flows that others may be told of at once, however small the table is: ten datagrams.
const FEW: usize = 10 * MOST;

impl Flows {
    pub(crate) fn new(bounds: Bounds, return_port: u16) -> Self {
        // All at once: a table that grows moves everything while packets wait. What is not used yet is address space.
        let most = bounds.flows.min(NONE as usize);
        let mut places = Vec::with_capacity(most);
        prefer_large_pages(places.spare_capacity_mut());
        Self {
            places,
            free: Vec::with_capacity(most),
            index: Index::new(most),
            hasher: RandomState::default(),
            bounds,
            return_port,
            hand: 0,
            shares: Shares::new(bounds.per_session),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(crate) fn places(&self) -> usize {
        self.places.len()
    }

    /// The flows in a range of places.
    pub(crate) fn within(&self, places: Range<usize>) -> impl Iterator<Item = &Flow> {
        self.places.iter().take(places.end).skip(places.start).flatten()
    }

    /// The flow that holds an address.
    pub(crate) fn find(&self, key: &FlowKey) -> Option<FlowId> {
        let is = |place| at(&self.places, place).is_some_and(|flow| flow.name() == *key);
        self.index.find(self.hash(key), is).map(FlowId)
    }

    /// As much of it as an index takes.
    fn hash(&self, key: &FlowKey) -> u32 {
        self.hasher.hash_one(key) as u32
    }

    /// Asks for what will be needed of the flows of these names, all at once: memory takes as long for many as for one.
    pub(crate) fn look_ahead(&self, names: impl Iterator<Item = FlowKey>) {
        let (mut hashes, mut count) = ([0; AHEAD], 0);
        for (name, hash) in names.zip(&mut hashes) {
            *hash = self.hash(&name);
            self.index.prefetch(*hash);
            count += 1;
        }
        // The first that may be it almost always is, and whether it is takes another look.
        self.look_ahead_at(hashes[..count].iter().filter_map(|hash| self.index.candidate(*hash)).map(FlowId));
    }

    /// Likewise of those in these places.
    pub(crate) fn look_ahead_at(&self, flows: impl Iterator<Item = FlowId>) {
        flows.filter_map(|flow| self.places.get(flow.0 as usize)).for_each(prefetch);
    }

    pub(crate) fn get(&self, flow: FlowId) -> Option<&Flow> {
        at(&self.places, flow.0)
    }

    pub(crate) fn get_mut(&mut self, flow: FlowId) -> Option<&mut Flow> {
        self.places.get_mut(flow.0 as usize).and_then(Option::as_mut)
    }

    /// The flow that has challenged this one.
    pub(crate) fn rival(&self, flow: FlowId) -> Option<FlowId> {
        self.get(flow).map(|flow| flow.rival).filter(|rival| *rival != NONE).map(FlowId)
    }

    /// Enters the flow of an address that none holds.
    ///
    /// # Errors
    /// [`Full`].
    pub(crate) fn enter(
        &mut self,
        client: SocketAddr,
        door: u16,
        target: Target,
        now: Duration,
    ) -> Result<FlowId, Full> {
        let place = self.place(now)?;
        let key = FlowKey::new(client, door);
        debug_assert!(self.find(&key).is_none(), "one holds it");
        self.fill(place, client, door, target, now);
        self.hold(key, place);
        Ok(FlowId(place))
    }

    /// Enters a flow beside the one that holds its address, in the place of an earlier rival.
    ///
    /// # Errors
    /// [`Full`].
    pub(crate) fn challenge(&mut self, held: FlowId, target: Target, now: Duration) -> Result<FlowId, Full> {
        let Some((client, door)) = self.get(held).map(|flow| (flow.client(), flow.door())) else {
            return Err(Full);
        };
        let place = match self.rival(held) {
            Some(earlier) => earlier.0,
            None => self.place(now)?,
        };
        // The search for a place may have given up the one that holds.
        if self.get(held).is_none_or(|flow| flow.client() != client) {
            self.free.push(place);
            return Err(Full);
        }
        self.fill(place, client, door, target, now);
        if let Some(flow) = self.get_mut(FlowId(place)) {
            flow.rival = held.0;
        }
        if let Some(flow) = self.get_mut(held) {
            flow.rival = place;
        }
        Ok(FlowId(place))
    }

    /// Takes the word of a worker. A rival that has proven itself holds the address from then on, and the other goes.
    pub(crate) fn raise(&mut self, id: FlowId, standing: Standing, session: SessionHandle) -> Raised {
        let return_port = self.return_port;
        let Some(flow) = self.places.get_mut(id.0 as usize).and_then(Option::as_mut) else { return Raised::No };
        let before = flow.standing;
        if before == Standing::Unknown && standing != Standing::Unknown && !self.shares.take(&flow.key) {
            return Raised::Crowded;
        }
        flow.standing = before.max(standing);
        if session != SessionHandle::default() && flow.session() != session {
            flow.reseal(id, return_port, session);
        }
        if before == Standing::Proven || standing != Standing::Proven {
            return Raised::No;
        }
        let name = flow.name();
        if let Some(held) = self.find(&name).filter(|held| *held != id) {
            self.forget_alone(held);
            self.hold(name, id.0);
            if let Some(flow) = self.get_mut(id) {
                flow.rival = NONE;
            }
        }
        Raised::Proven
    }

    /// Others know of it, as of many that began or came over together. When each is told again is its own: a second of the next
    /// ten that its name chooses, differently at each relay.
    pub(crate) fn told(&mut self, id: FlowId, now: Duration) {
        let Some(name) = self.get(id).map(Flow::name) else { return };
        let after = 1 + self.hash(&name) % seconds(AGAIN);
        if let Some(flow) = self.get_mut(id) {
            flow.tell_at = seconds(now).saturating_add(after);
        }
    }

    /// Looks at one of so many parts of all places: forgets flows whose clients are silent, and names those that others are to be
    /// told of, twice as many as are due in a part where they are spread evenly: the rest is told with the next rounds.
    pub(crate) fn tend(&mut self, parts: usize, now: Duration, mut tell: impl FnMut(&Flow)) -> usize {
        let mut forgotten = 0;
        // All parts have their turn within a second.
        let part = self.places.len().div_ceil(parts.max(1));
        let mut may_tell = (2 * part / AGAIN.as_secs() as usize).max(FEW);
        // Places, not flows: after many have gone those that are left are far apart.
        for _ in 0..part {
            let place = self.next_place();
            let bounds = self.bounds;
            let Some(flow) = self.get_mut(FlowId(place)) else { continue };
            if flow.is_over(&bounds, now) {
                self.forget(FlowId(place));
                forgotten += 1;
            } else if flow.is_to_be_told(now) && may_tell > 0 {
                may_tell -= 1;
                flow.tell_at = seconds(now + AGAIN);
                tell(flow);
            }
        }
        forgotten
    }

    fn next_place(&mut self) -> u32 {
        self.hand = if self.hand + 1 >= self.places.len() { 0 } else { self.hand + 1 };
        self.hand as u32
    }

    /// A free place: a new one, else that of a flow that is over, else that of a client of which nothing is known.
    fn place(&mut self, now: Duration) -> Result<u32, Full> {
        if let Some(place) = self.free.pop() {
            return Ok(place);
        }
        if self.places.len() < self.bounds.flows.min(NONE as usize) {
            self.places.push(None);
            return Ok((self.places.len() - 1) as u32);
        }
        for _ in 0..LOOKED_AT {
            let place = self.next_place();
            let gives_way = at(&self.places, place)
                .is_some_and(|flow| flow.standing < Standing::Proven || flow.is_over(&self.bounds, now));
            if gives_way {
                self.forget(FlowId(place));
                return self.free.pop().ok_or(Full);
            }
        }
        Err(Full)
    }

    fn fill(&mut self, place: u32, client: SocketAddr, door: u16, target: Target, now: Duration) {
        let flow = Flow::new(FlowId(place), (client, door), self.return_port, target, now);
        if let Some(before) = self.places[place as usize].replace(flow) {
            self.leaves(&before);
        }
    }

    /// A flow that is no more takes no part of its session's share.
    fn leaves(&mut self, flow: &Flow) {
        if flow.standing != Standing::Unknown {
            self.shares.give(&flow.key);
        }
    }

    /// Forgets a flow. Its rival holds the address then.
    pub(crate) fn forget(&mut self, id: FlowId) {
        let Some((name, rival)) = self.get(id).map(|flow| (flow.name(), flow.rival)) else { return };
        let held = self.find(&name) == Some(id);
        self.forget_alone(id);
        if let Some(flow) = self.get_mut(FlowId(rival)) {
            flow.rival = NONE;
            if held {
                self.hold(name, rival);
            }
        }
    }

    /// The flow in this place holds its address, which none did.
    fn hold(&mut self, name: FlowKey, place: u32) {
        self.index.insert(self.hash(&name), place);
    }

    /// Forgets a flow, and says nothing to its rival.
    fn forget_alone(&mut self, id: FlowId) {
        let Some(flow) = self.places.get_mut(id.0 as usize).and_then(Option::take) else { return };
        self.index.remove(self.hash(&flow.name()), id.0);
        self.leaves(&flow);
        self.free.push(id.0);
    }
}

/// What a worker's word has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Raised {
    /// Nothing that others need to know.
    No,
    /// The client is there: other relays may be told.
    Proven,
    /// Nothing: its session has as many flows as a session may have.
    Crowded,
}

fn at(places: &[Option<Flow>], place: u32) -> Option<&Flow> {
    places.get(place as usize).and_then(Option::as_ref)
}
