//! A service's workers and sessions in a table with a clock as an argument.
//!
//! Whatever is counted is counted in a set of those that are counted, so no way of ending can forget to count down.

mod claim;
mod owner;
mod traffic;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use streamfleet_session::{CloseReason, SessionId, UserId};

use self::traffic::{Client, Counts};
use super::calls::Calls;
use super::table::Table;
use crate::context::{ContextId, Delivery, Issued};
use crate::directory::{
    Asked, Demand, Entry, FleetError, Gate, Heartbeat, MAX_CAPACITY, Orders, SETTLING, Settling, WorkerView,
};
use crate::outputs::Seen;
use crate::sessions::{Account, Phase, Reach, TrackResult};
use crate::wake::Topic;
use crate::words::{Epoch, Order, Owner, PinValue, Terms, Ticket, TrackId, WorkerId};

#[derive(Debug)]
pub(super) struct Fleet {
    terms: Terms,
    last_epoch: u64,
    last_order: u64,
    workers: BTreeMap<WorkerId, Worker>,
    sessions: HashMap<Ticket, Session>,
    /// Who holds an id.
    ids: BTreeMap<SessionId, Ticket>,
    /// Who is taking it over.
    moving: HashMap<SessionId, Ticket>,
    /// Claims that no worker has confirmed, by when they become void.
    reserved: BTreeSet<(Instant, Ticket)>,
    /// The holders of ids, by user.
    users: HashMap<UserId, BTreeSet<SessionId>>,
    pins: BTreeSet<(PinValue, Ticket)>,
    /// When each account could claim all at once again.
    rates: HashMap<Account, Instant>,
    over: HashMap<Ticket, Over>,
    /// The last session of an id that is over.
    last: HashMap<SessionId, Ticket>,
    /// When those that are over are forgotten.
    fading: BTreeSet<(Instant, Ticket)>,
    /// By context: a session that goes on where another one ended has its outputs too.
    outputs: HashMap<ContextId, Kept>,
    pub(super) calls: Calls,
    counts: Counts,
    /// When all workers that have come again have said what they have.
    settled: Option<Instant>,
    /// Who is to be woken after this step.
    wakes: BTreeSet<Topic>,
}

#[derive(Debug)]
struct Worker {
    epoch: Epoch,
    renewed: Instant,
    said: Option<Heartbeat>,
    /// What others want of it.
    asked: Gate,
    order: Order,
    sessions: BTreeSet<Ticket>,
    wants: BTreeMap<Ticket, Wants>,
}

#[derive(Debug, Default)]
struct Wants {
    end: Option<Demand>,
    tracks: BTreeSet<TrackId>,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    worker: WorkerId,
    phase: Phase,
    client: Client,
    since: Instant,
    /// When the claim becomes void, until its worker confirms it.
    due: Option<Instant>,
    user: Option<UserId>,
    pin: Option<PinValue>,
    context: ContextId,
    /// What its client was given for the next session.
    issued: Issued,
    /// It was claimed to take another's place, and how far its token is when its client connects; until that is confirmed.
    moves: Option<Delivery>,
    retention: Duration,
    detail: Map<String, Value>,
    seen_to: BTreeMap<TrackId, TrackResult>,
}

impl Session {
    /// Whose its outputs are, beside whoever has its token: a verified user's, as its owner describes it; until it has, whoever
    /// it counts for. Nobody's where the user is only said to be one.
    fn owner_of_outputs(&self) -> Option<&UserId> {
        let is_verified = self.phase == Phase::Reserved || self.detail.get("verified") == Some(&Value::Bool(true));
        self.user.as_ref().filter(|_| is_verified)
    }
}

#[derive(Debug)]
struct Over {
    id: SessionId,
    context: ContextId,
    reason: CloseReason,
    /// When it is forgotten.
    until: Instant,
}

#[derive(Debug, Default)]
struct Kept {
    mark: u32,
    earlier: Vec<Seen>,
    user: Option<UserId>,
    /// When they are forgotten, once no session holds the context.
    due: Option<Instant>,
    last: u64,
    bytes: usize,
    texts: VecDeque<String>,
}

impl Worker {
    fn holds(&self, terms: &Terms, now: Instant) -> bool {
        now.saturating_duration_since(self.renewed) < terms.lease
    }

    fn gate(&self) -> Gate {
        match self.said.as_ref().map(|said| said.gate) {
            Some(Gate::Open) => self.asked,
            Some(Gate::Draining | Gate::Leaving) | None => self.asked.max(Gate::Draining),
        }
    }

    fn has_room(&self) -> bool {
        let capacity = self.said.as_ref().map_or(0, |said| said.capacity.min(MAX_CAPACITY));
        self.gate() == Gate::Open && self.sessions.len() < capacity as usize
    }
}

impl Fleet {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            terms,
            last_epoch: 0,
            last_order: 0,
            workers: BTreeMap::new(),
            sessions: HashMap::new(),
            ids: BTreeMap::new(),
            moving: HashMap::new(),
            reserved: BTreeSet::new(),
            users: HashMap::new(),
            pins: BTreeSet::new(),
            rates: HashMap::new(),
            over: HashMap::new(),
            last: HashMap::new(),
            fading: BTreeSet::new(),
            outputs: HashMap::new(),
            calls: Calls::default(),
            counts: Counts::default(),
            settled: None,
            wakes: BTreeSet::new(),
        }
    }

    pub(super) fn take_wakes(&mut self) -> BTreeSet<Topic> {
        std::mem::take(&mut self.wakes)
    }

    pub(super) fn register(&mut self, contexts: &mut Table, worker: &WorkerId, entry: Entry, now: Instant) -> Epoch {
        self.discard(contexts, worker, CloseReason::WorkerLost, now);
        // From the first of them on: each that comes later must not begin it anew.
        if entry == Entry::Again && self.settles(now).is_zero() {
            self.settled = Some(now + SETTLING);
        }
        self.counts.begin(now);
        self.last_epoch += 1;
        let epoch = Epoch(self.last_epoch);
        let entry = Worker {
            epoch,
            renewed: now,
            said: None,
            asked: Gate::Open,
            order: Order::default(),
            sessions: BTreeSet::new(),
            wants: BTreeMap::new(),
        };
        self.workers.insert(worker.clone(), entry);
        self.wakes.insert(Topic::Directory);
        epoch
    }

    pub(super) fn renew(
        &mut self,
        contexts: &mut Table,
        owner: &Owner,
        beat: &Heartbeat,
        now: Instant,
    ) -> Result<Orders, FleetError> {
        let worker = self.fenced(owner)?;
        let before = worker.said.replace(beat.clone());
        worker.renewed = now;
        if before.is_none_or(|before| before.gate != beat.gate) {
            self.wakes.insert(Topic::Directory);
        }
        self.sweep(contexts, now);
        self.orders(owner)
    }

    /// For how long an id that nobody has may be somebody's.
    fn settles(&self, now: Instant) -> Duration {
        self.settled.map_or(Duration::ZERO, |settled| settled.saturating_duration_since(now))
    }

    pub(super) fn settling(&mut self, contexts: &mut Table, now: Instant) -> Settling {
        self.sweep(contexts, now);
        match self.settles(now) {
            _ if self.workers.is_empty() => Settling::Nobody,
            Duration::ZERO => Settling::Done,
            left => Settling::For(left),
        }
    }

    fn orders(&mut self, owner: &Owner) -> Result<Orders, FleetError> {
        let worker = self.fenced(owner)?;
        let (gate, order, wants) = (worker.asked, worker.order, std::mem::take(&mut worker.wants));
        let mut asked = Vec::new();
        for (ticket, wants) in &wants {
            let Some(session) = self.sessions.get(ticket) else { continue };
            let ask = |demand| Asked { ticket: *ticket, session: session.id.clone(), demand };
            asked.extend(wants.end.clone().map(ask));
            asked.extend(wants.tracks.iter().map(|track| ask(Demand::CloseTrack(track.clone()))));
        }
        self.fenced(owner)?.wants = wants;
        Ok(Orders { gate, order, asked })
    }

    pub(super) fn leave(&mut self, contexts: &mut Table, owner: &Owner, now: Instant) -> Result<(), FleetError> {
        self.fenced(owner)?;
        self.discard(contexts, &owner.worker, CloseReason::Shutdown, now);
        Ok(())
    }

    pub(super) fn workers(&self, now: Instant) -> Vec<WorkerView> {
        let live = self.workers.iter().filter(|(_, worker)| worker.holds(&self.terms, now));
        live.map(|(name, worker)| WorkerView {
            owner: Owner { worker: name.clone(), epoch: worker.epoch },
            said: worker.said.clone(),
            gate: worker.gate(),
            order: worker.order,
            sessions: u32::try_from(worker.sessions.len()).unwrap_or(u32::MAX),
            age: now.saturating_duration_since(worker.renewed),
        })
        .collect()
    }

    pub(super) fn ask_gate(&mut self, worker: &WorkerId, gate: Gate) -> bool {
        let Some(entry) = self.workers.get_mut(worker) else { return false };
        if entry.asked != gate {
            self.last_order += 1;
            (entry.asked, entry.order) = (gate, Order(self.last_order));
            self.wakes.extend([Topic::Worker(worker.clone()), Topic::Directory]);
        }
        true
    }

    /// Ends what lost workers held, and forgets what is due. Returns how many sessions were lost.
    pub(super) fn sweep(&mut self, contexts: &mut Table, now: Instant) -> u32 {
        while let Some((_, ticket)) = self.reserved.first().filter(|(due, _)| *due <= now).copied() {
            self.finish(contexts, ticket, CloseReason::ConnectTimeout, now);
        }
        while let Some((_, ticket)) = self.fading.first().filter(|(due, _)| *due <= now).copied() {
            self.fading.pop_first();
            let Some(over) = self.over.remove(&ticket) else { continue };
            if self.last.get(&over.id) == Some(&ticket) {
                self.last.remove(&over.id);
            }
            if self.outputs.get(&over.context).and_then(|kept| kept.due).is_some_and(|due| due <= now) {
                self.outputs.remove(&over.context);
            }
        }
        let lost: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, worker)| !worker.holds(&self.terms, now))
            .map(|(name, _)| name.clone())
            .collect();
        lost.iter().map(|worker| self.discard(contexts, worker, CloseReason::WorkerLost, now)).sum()
    }

    /// A worker is gone, whatever it held is over.
    fn discard(&mut self, contexts: &mut Table, worker: &WorkerId, reason: CloseReason, now: Instant) -> u32 {
        let tickets = self.workers.get(worker).map(|worker| worker.sessions.clone());
        let Some(tickets) = tickets else { return 0 };
        for ticket in &tickets {
            self.finish(contexts, *ticket, reason, now);
        }
        self.workers.remove(worker);
        self.wakes.insert(Topic::Directory);
        u32::try_from(tickets.len()).unwrap_or(u32::MAX)
    }

    /// A session is over: the one place where anything is given back.
    fn finish(&mut self, contexts: &mut Table, ticket: Ticket, reason: CloseReason, now: Instant) {
        let Some(session) = self.sessions.remove(&ticket) else { return };
        if let Some(due) = session.due {
            self.reserved.remove(&(due, ticket));
        }
        if let Some(worker) = self.workers.get_mut(&session.worker) {
            worker.sessions.remove(&ticket);
            worker.wants.remove(&ticket);
        }
        if let Some(pin) = session.pin.clone() {
            self.pins.remove(&(pin, ticket));
        }
        if self.ids.get(&session.id) == Some(&ticket) {
            let goes_on = self.moving.contains_key(&session.id);
            self.vacate(&session.id, session.user.as_ref(), session.client);
            if !goes_on && session.client == Client::There {
                self.counts.departed += 1;
            }
        } else if self.moving.get(&session.id) == Some(&ticket) {
            self.moving.remove(&session.id);
        }
        contexts.close_for(session.context, session.retention, now);
        // Another session may hold the context, and its outputs.
        if !contexts.is_open(session.context)
            && let Some(kept) = self.outputs.get_mut(&session.context)
        {
            kept.due = Some(now + self.terms.afterlife);
        }
        self.wakes.insert(Topic::Session(session.id.clone()));
        self.last.insert(session.id.clone(), ticket);
        let until = now + self.terms.afterlife;
        let before = self.over.insert(ticket, Over { id: session.id, context: session.context, reason, until });
        // It was over already, and was written again.
        if let Some(before) = before {
            self.fading.remove(&(before.until, ticket));
        }
        self.fading.insert((until, ticket));
    }

    /// How the last session of an id ended, if that is remembered.
    fn last_end(&self, id: &SessionId) -> Option<&Over> {
        self.last.get(id).and_then(|ticket| self.over.get(ticket))
    }

    /// An id has lost its holder; whoever is taking it over has it now, and is the same client.
    fn vacate(&mut self, id: &SessionId, user: Option<&UserId>, client: Client) {
        if let Some(user) = user
            && let Some(ids) = self.users.get_mut(user)
        {
            ids.remove(id);
            if ids.is_empty() {
                self.users.remove(user);
            }
        }
        match self.moving.remove(id) {
            Some(next) => {
                self.occupy(id, next);
                if let Some(heir) = self.sessions.get_mut(&next) {
                    heir.client = heir.client.max(client);
                }
            }
            None => {
                self.ids.remove(id);
            }
        }
    }

    fn occupy(&mut self, id: &SessionId, ticket: Ticket) {
        self.ids.insert(id.clone(), ticket);
        if let Some(user) = self.sessions.get(&ticket).and_then(|session| session.user.clone()) {
            self.users.entry(user).or_default().insert(id.clone());
        }
    }

    fn want(&mut self, ticket: Ticket, demand: &Demand) {
        let Some(session) = self.sessions.get_mut(&ticket) else { return };
        let Some(worker) = self.workers.get_mut(&session.worker) else { return };
        let wants = worker.wants.entry(ticket).or_default();
        match demand {
            // The first reason stays: the owner may have acted on it already.
            Demand::End(_) | Demand::EndStream(_) => {
                wants.end.get_or_insert_with(|| demand.clone());
            }
            Demand::CloseTrack(track) => {
                session.seen_to.remove(track);
                if wants.tracks.len() < MAX_TRACKS {
                    wants.tracks.insert(track.clone());
                }
            }
        }
        self.wakes.insert(Topic::Worker(session.worker.clone()));
    }

    /// Whether the end of a session is asked for.
    fn is_closing(&self, ticket: Ticket) -> bool {
        let worker = self.sessions.get(&ticket).and_then(|session| self.workers.get(&session.worker));
        worker.and_then(|worker| worker.wants.get(&ticket)).is_some_and(|wants| wants.end.is_some())
    }

    fn fenced(&mut self, owner: &Owner) -> Result<&mut Worker, FleetError> {
        let worker = self.workers.get_mut(&owner.worker).ok_or(FleetError::Unregistered)?;
        if worker.epoch == owner.epoch { Ok(worker) } else { Err(FleetError::Fenced { current: worker.epoch }) }
    }

    /// The session of a ticket, if it is this owner's.
    fn owned(&mut self, owner: &Owner, ticket: Ticket) -> Option<&mut Session> {
        self.sessions.get_mut(&ticket).filter(|session| session.worker == owner.worker)
    }

    fn reach(&self, worker: &WorkerId) -> Reach {
        let said = self.workers.get(worker).and_then(|worker| worker.said.as_ref());
        Reach { worker: worker.clone(), http: said.map(|said| said.http.clone()).unwrap_or_default() }
    }
}

/// Tracks of one session that wait to be closed: more than an offer may have m-lines (16), so nobody needs more.
const MAX_TRACKS: usize = 32;
