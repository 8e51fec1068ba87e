//! The flows of one thread: a bounded table of clients' addresses, and who they talk to.
//!
//! A flow is known by the client's address and the door at which its packets arrive. Nothing keeps others from sending in its
//! name, so that one address may have two: the one that holds, and a *rival* that names another session and has not shown yet
//! that it is there. Only a worker's word that it is makes it the one that holds.

use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use foldhash::fast::RandomState;
use streamfleet_net::{prefer_large_pages, prefetch};
use streamfleet_session::ufrag::SessionKey;

use crate::announce::MOST;
use crate::header::{
    Direction, FlowId, HEADER, Header, SEALED, SessionHandle, Standing, TAG, address_octets, address_of, client_of,
};
use crate::index::Index;
use crate::shares::Shares;
use crate::told::AGAIN;

/// The part of a sealed header that says which flow it is: the client's address and port, and the door.
const KEY: Range<usize> = 4..24;
/// The rival of a flow that has none.
const NONE: u32 = u32::MAX;
/// Places that are looked at for one that may be given up, when all are taken. More would let whoever fills the table also
/// hold up its thread.
const LOOKED_AT: usize = 64;
/// Flows that are read at once: a batch of packets has no more.
pub(crate) const AHEAD: usize = 64;

/// What names a flow: the octets of a header that say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey([u8; 20]);

impl FlowKey {
    /// That of a client's address and a door.
    #[must_use]
    pub fn new(client: SocketAddr, door: u16) -> Self {
        let mut key = [0; 20];
        key[..18].copy_from_slice(&address_octets(client));
        key[18..].copy_from_slice(&door.to_be_bytes());
        Self(key)
    }

    /// The client's address and the door.
    pub(crate) fn parts(&self) -> (SocketAddr, u16) {
        let [client @ .., a, b] = self.0;
        (address_of(&client), u16::from_be_bytes([a, b]))
    }
}

/// Where a flow leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The worker's media loop.
    pub worker: SocketAddr,
    /// Seals the headers of the session, and tells it from every other.
    pub key: SessionKey,
}

/// What has passed one way, without headers between relay and worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets; 4 294 967 295 are that many or more.
    pub packets: u32,
    /// What they held.
    pub octets: u64,
}

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

/// One client at one door, and its session: two lines of a cache, of which the first is all that most packets of a client need.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(crate) struct Flow {
    /// What stands before its datagrams, sealed; its [`KEY`] says who it is.
    header: [u8; HEADER],
    worker: [u8; 18],
    standing: Standing,
    /// What the worker says of the client in headers with the tag `home`.
    home_says: Option<Standing>,
    /// When the client was heard last, on the thread's clock.
    heard: u32,
    key: SessionKey,
    /// The tag of a header of the worker's that was valid.
    home: [u8; TAG],
    /// Octets from and to the client.
    received: u64,
    sent: u64,
    packets_received: u32,
    packets_sent: u32,
    /// When it was entered, and when others are to be told of it again.
    since: u32,
    tell_at: u32,
    /// The other flow of this address.
    rival: u32,
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

impl Flow {
    pub(crate) fn name(&self) -> FlowKey {
        let mut key = [0; 20];
        key.copy_from_slice(&self.header[KEY]);
        FlowKey(key)
    }

    pub(crate) fn header(&self) -> &[u8; HEADER] {
        &self.header
    }

    pub(crate) fn worker(&self) -> SocketAddr {
        address_of(&self.worker)
    }

    pub(crate) fn target(&self) -> Target {
        Target { worker: self.worker(), key: self.key }
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing
    }

    pub(crate) fn session(&self) -> SessionHandle {
        let [.., a, b, c, d] = self.header[..SEALED] else { return SessionHandle::default() };
        SessionHandle(u32::from_be_bytes([a, b, c, d]))
    }

    /// The client was heard.
    pub(crate) fn hear(&mut self, octets: usize, now: Duration) {
        self.heard = seconds(now);
        self.received = self.received.saturating_add(octets as u64);
        self.packets_received = self.packets_received.saturating_add(u32::from(octets > 0));
    }

    /// Whether this header is the worker's as it was when it was found to be valid: it then needs no other proof, and says nothing
    /// new.
    pub(crate) fn knows(&self, octets: &[u8; HEADER]) -> bool {
        // What is between the marks and the tag is the same both ways.
        self.home_says.is_some_and(|standing| standing as u8 == octets[1])
            && u64::from_ne_bytes(self.home) == u64::from_ne_bytes(*tag_of(octets))
            && self.header[2..SEALED] == octets[2..SEALED]
    }

    /// A valid header of the worker's, which says this of the client.
    pub(crate) fn learn(&mut self, octets: &[u8; HEADER], standing: Standing) {
        if self.header[2..SEALED] == octets[2..SEALED] {
            (self.home, self.home_says) = (*tag_of(octets), Some(standing));
        }
    }

    /// How long the client has not been heard.
    pub(crate) fn silent(&self, now: Duration) -> Duration {
        Duration::from_secs(seconds(now).saturating_sub(self.heard).into())
    }

    /// How long ago it was entered.
    pub(crate) fn age(&self, now: Duration) -> Duration {
        Duration::from_secs(seconds(now).saturating_sub(self.since).into())
    }

    /// What has come from the client.
    pub(crate) fn received(&self) -> Traffic {
        Traffic { packets: self.packets_received, octets: self.received }
    }

    /// What has gone to it.
    pub(crate) fn sent(&self) -> Traffic {
        Traffic { packets: self.packets_sent, octets: self.sent }
    }

    /// Whether others are to be told of it again.
    fn is_to_be_told(&self, now: Duration) -> bool {
        self.standing == Standing::Proven && seconds(now) >= self.tell_at
    }

    /// Whether so many octets may go to the client; counts them.
    pub(crate) fn spend(&mut self, octets: usize) -> bool {
        let sent = self.sent.saturating_add(octets as u64);
        let may = self.standing > Standing::Unknown || sent <= self.received;
        if may {
            self.sent = sent;
            self.packets_sent = self.packets_sent.saturating_add(1);
        }
        may
    }

    fn is_over(&self, bounds: &Bounds, now: Duration) -> bool {
        let silent = seconds(now).saturating_sub(self.heard);
        let limit = if self.standing == Standing::Proven { bounds.proven } else { bounds.unproven };
        silent > seconds(limit)
    }
}

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
        let Target { worker, key } = target;
        let session = SessionHandle::default();
        let header = header(client, door, self.return_port, FlowId(place), session).seal(&key);
        let standing = Standing::Unknown;
        let heard = seconds(now);
        let flow = Flow {
            header,
            worker: address_octets(worker),
            standing,
            home_says: None,
            heard,
            key,
            home: [0; TAG],
            received: 0,
            sent: 0,
            packets_received: 0,
            packets_sent: 0,
            since: heard,
            tell_at: 0,
            rival: NONE,
        };
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

impl Flow {
    pub(crate) fn client(&self) -> SocketAddr {
        client_of(&self.header)
    }

    pub(crate) fn door(&self) -> u16 {
        u16::from_be_bytes([self.header[22], self.header[23]])
    }

    pub(crate) fn key(&self) -> &SessionKey {
        &self.key
    }

    fn reseal(&mut self, id: FlowId, return_port: u16, session: SessionHandle) {
        self.header = header(self.client(), self.door(), return_port, id, session).seal(&self.key);
    }
}

fn tag_of(octets: &[u8; HEADER]) -> &[u8; TAG] {
    octets.last_chunk().unwrap_or_else(|| unreachable!("a header is longer than its tag"))
}

fn at(places: &[Option<Flow>], place: u32) -> Option<&Flow> {
    places.get(place as usize).and_then(Option::as_ref)
}

fn header(client: SocketAddr, door: u16, return_port: u16, flow: FlowId, session: SessionHandle) -> Header {
    Header { direction: Direction::ToWorker, standing: Standing::Unknown, return_port, client, door, flow, session }
}

/// The table counts whole seconds: it forgets after many.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a relay with 100 000 clients needs: with the lists and the index at their fullest, under 200 octets a flow.
    #[test]
    fn a_flow_is_small() {
        assert_eq!(size_of::<Option<Flow>>(), 128);
        // An index has two to four places of 8 octets for each.
        assert!(size_of::<Option<Flow>>() + size_of::<u32>() + 4 * 8 <= 170);
        assert_eq!(std::mem::offset_of!(Flow, key), 64, "what a client's packet needs is one line");
    }
}
