//! Random words of two routers and two workers, against a model that says what they mean in the plainest way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use streamfleet_session::{CloseReason, ResumeToken, ServiceName};
use streamfleet_store::{
    Arrangement, Bounds, Claim, ClaimRequest, Claimed, ContextId, ContextKey, Delivery, Demand, EMPTY_RETENTION, Entry,
    FleetError, Gate, HELD_LEASE, Heartbeat, Held, Memory, Order, Owner, Phase, RedisConfig, SETTLING, SessionView,
    Settling, Store, TOKEN_GRACE, Terms, Ticket, Told, Waits,
};

use crate::arrangements::connected;
use crate::server::{Clock, Server, free_port};
use crate::world::{beat, id, limit, name, nothing, request, user};

const WORKERS: [&str; 2] = ["a", "b"];
const IDS: [&str; 3] = ["i", "j", "k"];

#[derive(Debug, Clone)]
enum Word {
    Register { worker: usize, entry: Entry },
    Renew { worker: usize, capacity: u32, gate: Gate },
    AskGate { worker: usize, gate: Gate },
    Claim { id: usize, user: Option<usize>, pinned: bool, limits: bool, shows: Option<Index>, sent: bool, order: usize },
    Report { session: Index, phase: usize },
    Back { id: usize, shows: Index },
    End { session: Index },
    Release { session: Index },
    Ask { id: usize },
    Hold { router: usize, held: u32, refused: u32 },
    Traffic,
    Pass { millis: u64 },
    Reap,
}

fn word() -> impl Strategy<Value = Word> {
    let gate = || prop_oneof![3 => Just(Gate::Open), 1 => Just(Gate::Draining)];
    let claim = (0..IDS.len(), proptest::option::of(0..2_usize), any::<bool>(), any::<bool>());
    let more = (proptest::option::of(any::<Index>()), any::<bool>(), 0..2_usize);
    prop_oneof![
        2 => (0..2_usize, prop_oneof![4 => Just(Entry::New), 1 => Just(Entry::Again)])
            .prop_map(|(worker, entry)| Word::Register { worker, entry }),
        5 => (0..2_usize, 1..4_u32, gate()).prop_map(|(worker, capacity, gate)| Word::Renew { worker, capacity, gate }),
        1 => (0..2_usize, gate()).prop_map(|(worker, gate)| Word::AskGate { worker, gate }),
        12 => (claim, more).prop_map(|((id, user, pinned, limits), (shows, sent, order))| {
            Word::Claim { id, user, pinned, limits, shows, sent, order }
        }),
        8 => (any::<Index>(), 0..3_usize).prop_map(|(session, phase)| Word::Report { session, phase }),
        2 => (0..IDS.len(), any::<Index>()).prop_map(|(id, shows)| Word::Back { id, shows }),
        4 => any::<Index>().prop_map(|session| Word::End { session }),
        1 => any::<Index>().prop_map(|session| Word::Release { session }),
        2 => (0..IDS.len()).prop_map(|id| Word::Ask { id }),
        2 => (0..2_usize, 0..4_u32, 0..2_u32).prop_map(|(router, held, refused)| Word::Hold { router, held, refused }),
        2 => Just(Word::Traffic),
        4 => prop_oneof![Just(500), Just(2500), Just(6100), Just(10_100)].prop_map(|millis| Word::Pass { millis }),
        1 => Just(Word::Reap),
    ]
}

#[derive(Debug, Clone, PartialEq)]
enum Role {
    Holder,
    Taker,
    /// Superseded or moved: it has no id any more.
    Former,
}

#[derive(Debug, Clone)]
struct Live {
    ticket: Ticket,
    id: usize,
    worker: usize,
    role: Role,
    phase: Phase,
    user: Option<usize>,
    pinned: bool,
    /// Void then.
    due: Option<u64>,
    context: ContextId,
    /// What its client was given, if it moves and has not connected.
    moves: Option<(ResumeToken, Delivery)>,
    asked: Option<CloseReason>,
    /// Its client has been counted.
    came: bool,
}

#[derive(Debug, Clone)]
struct Worker {
    /// Which of the registrations it is.
    registration: usize,
    renewed: u64,
    said: Option<(u32, Gate, usize)>,
    asked: Gate,
    /// Which of the orders that it is, counted from 1.
    order: usize,
}

/// Which tokens of a context are good.
#[derive(Debug, Clone, Copy)]
struct Good {
    current: ResumeToken,
    /// What was given for it to a client that moves.
    offered: Option<ResumeToken>,
    /// The one before it, until then.
    previous: Option<(ResumeToken, u64)>,
    /// When it was opened last, of all that were.
    opened: usize,
}

/// What should be so. Contexts are never written here, so of each only the tokens outlive its last session.
#[derive(Debug, Default)]
struct Model {
    now: u64,
    registrations: usize,
    opens: usize,
    /// When it is sure that all who live are known.
    settled: u64,
    workers: BTreeMap<usize, Worker>,
    live: Vec<Live>,
    tokens: BTreeMap<ContextId, Good>,
    /// Those of an id that no session holds any more, and until when they are known; the one that goes first at the front.
    empty: BTreeMap<usize, Vec<(u64, ContextId)>>,
    /// The last of an id to end, and when.
    over: BTreeMap<usize, (CloseReason, u64)>,
    arrived: u64,
    departed: u64,
    refused: u64,
    /// By router: calls, and until when.
    held: BTreeMap<usize, (u32, u64)>,
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap()
}

impl Model {
    fn terms() -> (u64, u64, u64) {
        let terms = Terms::default();
        (millis(terms.lease), millis(terms.reservation), millis(terms.afterlife))
    }

    /// Nothing speaks against it that it lives at a worker that has not told of it.
    fn may_live(&self, id: usize) -> bool {
        self.over.get(&id).is_none_or(|(reason, _)| *reason == CloseReason::WorkerLost)
    }

    fn compare_settling(&self, seen: Settling) {
        let left = self.settled.saturating_sub(self.now);
        // A server's clock goes on meanwhile.
        let is_so = match seen {
            Settling::Nobody => self.workers.is_empty(),
            Settling::Done => left == 0 && !self.workers.is_empty(),
            Settling::For(seen) => !seen.is_zero() && millis(seen) <= left && millis(seen) + 1000 > left,
        };
        assert!(is_so, "{seen:?} and {left}, {} workers", self.workers.len());
    }

    fn close(&mut self, ticket: Ticket, reason: CloseReason) {
        let Some(at) = self.live.iter().position(|live| live.ticket == ticket) else { return };
        let gone = self.live.remove(at);
        let taker = self.live.iter_mut().find(|live| live.id == gone.id && live.role == Role::Taker);
        match (&gone.role, taker) {
            (Role::Holder, Some(taker)) => (taker.role, taker.came) = (Role::Holder, taker.came || gone.came),
            // A claim that nobody has confirmed has never been.
            (Role::Holder, None) => self.departed += u64::from(gone.came),
            (Role::Taker | Role::Former, _) => {}
        }
        self.over.insert(gone.id, (reason, self.now));
        if self.live.iter().all(|live| live.context != gone.context) {
            let empty = self.empty.entry(gone.id).or_default();
            empty.push((self.now + millis(EMPTY_RETENTION), gone.context));
            empty.sort_unstable();
            if empty.len() > Bounds::default().closed_per_key {
                empty.remove(0);
            }
        }
        self.forget_tokens();
    }

    fn forget_tokens(&mut self) {
        let Self { now, live, empty, tokens, .. } = self;
        empty.values_mut().for_each(|empty| empty.retain(|(until, _)| *now < *until));
        let mut known = live.iter().map(|live| live.context).collect::<Vec<_>>();
        known.extend(empty.values().flatten().map(|(_, context)| *context));
        tokens.retain(|context, _| known.contains(context));
    }

    fn close_all(&mut self, which: impl Fn(&Live) -> bool, reason: CloseReason) -> u32 {
        let tickets: Vec<Ticket> = self.live.iter().filter(|live| which(live)).map(|live| live.ticket).collect();
        tickets.iter().for_each(|ticket| self.close(*ticket, reason));
        u32::try_from(tickets.len()).unwrap()
    }

    fn sweep(&mut self) -> u32 {
        let (now, (lease, _, afterlife)) = (self.now, Self::terms());
        self.close_all(|live| live.due.is_some_and(|due| due <= now), CloseReason::ConnectTimeout);
        self.over.retain(|_, (_, at)| now < *at + afterlife);
        self.forget_tokens();
        let lost: Vec<usize> =
            self.workers.iter().filter(|(_, worker)| worker.renewed + lease <= now).map(|(name, _)| *name).collect();
        lost.into_iter()
            .map(|worker| {
                self.workers.remove(&worker);
                self.close_all(|live| live.worker == worker, CloseReason::WorkerLost)
            })
            .sum()
    }

    fn takes(&self, context: ContextId, shown: Option<ResumeToken>) -> bool {
        let Some(good) = self.tokens.get(&context) else { return false };
        let previous = good.previous.filter(|(_, until)| self.now < *until).map(|(token, _)| token);
        shown.is_some() && [Some(good.current), good.offered, previous].contains(&shown)
    }

    fn grace(&self) -> u64 {
        self.now + millis(TOKEN_GRACE)
    }

    /// The token is replaced for whoever showed one.
    fn replace(&mut self, context: ContextId, shown: Option<ResumeToken>, next: ResumeToken) {
        let grace = self.grace();
        let fresh = Good { current: next, offered: None, previous: None, opened: 0 };
        let good = self.tokens.entry(context).or_insert(fresh);
        let is_first = shown.is_some() && [Some(good.current), good.offered].contains(&shown);
        let previous = shown.filter(|_| is_first).map(|shown| (shown, grace));
        *good = Good { current: next, offered: None, previous, ..*good };
    }

    /// One more is given to whoever showed one, beside it.
    fn offer(&mut self, context: ContextId, shown: ResumeToken, next: ResumeToken) {
        let good = self.tokens.get_mut(&context).unwrap();
        if shown == good.current || Some(shown) == good.offered {
            (good.current, good.previous) = (shown, None);
        }
        good.offered = Some(next);
    }

    fn confirm(&mut self, context: ContextId, token: ResumeToken, delivery: Delivery) -> bool {
        let grace = self.grace();
        let Some(good) = self.tokens.get_mut(&context) else { return false };
        if good.offered == Some(token) {
            let shown = good.previous.unwrap_or((good.current, grace));
            let previous = Some(shown).filter(|_| delivery == Delivery::Sent);
            *good = Good { current: token, offered: None, previous, ..*good };
        }
        good.current == token
    }

    /// The client of the session that lives under an id is back on its socket, if it shows this.
    fn back(&mut self, id: usize, shown: ResumeToken, next: ResumeToken) -> bool {
        let theirs = self.live.iter().filter(|live| live.id == id).map(|live| live.context);
        // The one that was opened last, if an earlier one of another client still ends.
        let newest = theirs.max_by_key(|context| self.tokens[context].opened);
        let context = newest.filter(|context| self.takes(*context, Some(shown)));
        if let Some(context) = context {
            self.replace(context, Some(shown), next);
        }
        context.is_some()
    }

    fn holder(&self, id: usize) -> Option<&Live> {
        self.live.iter().find(|live| live.id == id && live.role == Role::Holder)
    }

    fn load(&self, worker: usize) -> usize {
        self.live.iter().filter(|live| live.worker == worker).count()
    }

    fn has_room(&self, worker: usize) -> bool {
        self.workers.get(&worker).is_some_and(|entry| {
            entry.asked == Gate::Open
                && entry
                    .said
                    .is_some_and(|(capacity, gate, _)| gate == Gate::Open && self.load(worker) < capacity as usize)
        })
    }

    /// What a claim should give: its place, or the name of the refusal.
    fn claim(
        &mut self,
        claim: &ClaimRequest,
        id: usize,
        who: Option<usize>,
        pinned: bool,
        order: [usize; 2],
    ) -> Result<usize, &'static str> {
        self.sweep();
        let holder = self.holder(id).cloned();
        match &holder {
            Some(holder) if !self.takes(holder.context, claim.claim.token) => return Err("duplicate"),
            Some(holder) if holder.asked.is_some() => return Err("closing"),
            Some(_) => {}
            None if claim.claim.token.is_some() && self.now < self.settled && self.may_live(id) => {
                return Err("settling");
            }
            None => {
                let holders = || self.live.iter().filter(|live| live.role == Role::Holder);
                let over = |bound: Option<std::num::NonZeroU32>, count: usize| {
                    bound.is_some_and(|bound| count >= bound.get() as usize)
                };
                if over(claim.service_limit, holders().count()) {
                    return Err("service");
                }
                if who.is_some() && over(claim.user_limit, holders().filter(|live| live.user == who).count()) {
                    return Err("user");
                }
            }
        }
        // The pin's worker is that of the session with the lowest ticket.
        let bound = self.live.iter().filter(|live| pinned && live.pinned).min_by_key(|live| live.ticket);
        let candidates = bound.map_or(order.to_vec(), |live| vec![live.worker]);
        let worker = candidates.into_iter().find(|worker| self.has_room(*worker)).ok_or("capacity")?;
        let (role, context) = match (&holder, claim.claim.token) {
            (Some(holder), Some(shown)) => {
                self.offer(holder.context, shown, claim.token);
                (Role::Taker, holder.context)
            }
            _ => {
                // One that lost its id still holds its context, and whoever has its token has it back.
                let theirs = self.live.iter().filter(|live| live.id == id).map(|live| live.context);
                // Or of one that is over.
                let empty = self.empty.get(&id).into_iter().flatten().map(|(_, context)| *context);
                let known = theirs.chain(empty).find(|context| self.takes(*context, claim.claim.token));
                let context = known.unwrap_or(claim.context);
                if let Some(empty) = self.empty.get_mut(&id) {
                    empty.retain(|(_, other)| *other != context);
                }
                self.replace(context, claim.claim.token, claim.token);
                self.opens += 1;
                self.tokens.get_mut(&context).unwrap().opened = self.opens;
                (Role::Holder, context)
            }
        };
        let due = Some(self.now + Self::terms().1);
        let moves = holder.as_ref().map(|_| (claim.token, claim.delivery));
        let new = Live {
            ticket: claim.ticket,
            id,
            worker,
            role,
            phase: Phase::Reserved,
            user: who,
            pinned,
            due,
            context,
            moves,
            asked: None,
            came: false,
        };
        let earlier = self.live.iter().position(|live| live.id == id && live.role == Role::Taker);
        if holder.is_some()
            && let Some(earlier) = earlier
        {
            if self.live[earlier].phase == Phase::Reserved {
                self.close(self.live[earlier].ticket, CloseReason::Superseded);
            } else {
                self.live[earlier].role = Role::Former;
                self.live[earlier].asked.get_or_insert(CloseReason::Superseded);
            }
        }
        self.live.push(new);
        Ok(worker)
    }

    fn report(&mut self, worker: usize, ticket: Ticket, phase: Phase) -> Held {
        let Some(at) = self.live.iter().position(|live| live.ticket == ticket && live.worker == worker) else {
            return Held::No;
        };
        if phase == Phase::Active
            && let Some((token, delivery)) = self.live[at].moves
        {
            let context = self.live[at].context;
            if !self.confirm(context, token, delivery) {
                let live = &mut self.live[at];
                live.asked.get_or_insert(CloseReason::Superseded);
                if live.role == Role::Taker {
                    live.role = Role::Former;
                }
                return Held::No;
            }
            self.live[at].moves = None;
        }
        self.live[at].phase = phase;
        self.live[at].due = None;
        if phase == Phase::Active && self.live[at].role == Role::Taker {
            let id = self.live[at].id;
            let old = self.live.iter_mut().find(|live| live.id == id && live.role == Role::Holder).unwrap();
            old.role = Role::Former;
            old.asked.get_or_insert(CloseReason::Moved);
            self.live[at].came |= old.came;
            self.live[at].role = Role::Holder;
        }
        if self.live[at].role == Role::Holder && !std::mem::replace(&mut self.live[at].came, true) {
            self.arrived += 1;
        }
        Held::Yes
    }
}

/// A store, two ways to it, and what is known of it.
struct Run {
    routers: [Arc<dyn Store>; 2],
    service: ServiceName,
    model: Model,
    /// The owner of each worker's latest registration, and which one it is.
    owners: [Option<(Owner, usize)>; 2],
    /// What each has heard last, and which order that was.
    heard: [(Order, usize); 2],
    claims: Vec<ClaimRequest>,
    turn: usize,
}

impl Run {
    fn store(&mut self) -> Arc<dyn Store> {
        self.turn += 1;
        self.routers[self.turn % 2].clone()
    }

    /// Whether the model takes the word of a worker's latest registration.
    fn fence(&self, worker: usize) -> Result<Owner, ()> {
        let (owner, registration) = self.owners[worker].as_ref().ok_or(())?;
        let present = self.model.workers.get(&worker).is_some_and(|entry| entry.registration == *registration);
        if present { Ok(owner.clone()) } else { Err(()) }
    }

    async fn step(&mut self, word: &Word, pass: &impl AsyncFn(Duration)) {
        let (store, service) = (self.store(), self.service.clone());
        match word {
            Word::Register { worker, entry } => {
                let epoch = store.register(&service, &name(WORKERS[*worker]), *entry).await.unwrap();
                if *entry == Entry::Again && self.model.settled <= self.model.now {
                    self.model.settled = self.model.now + millis(SETTLING);
                }
                self.model.close_all(|live| live.worker == *worker, CloseReason::WorkerLost);
                self.model.registrations += 1;
                let (registration, renewed) = (self.model.registrations, self.model.now);
                let new = Worker { registration, renewed, said: None, asked: Gate::Open, order: 0 };
                self.model.workers.insert(*worker, new);
                self.heard[*worker] = (Order::default(), 0);
                if let Some((old, _)) =
                    self.owners[*worker].replace((Owner { worker: name(WORKERS[*worker]), epoch }, registration))
                {
                    assert!(epoch > old.epoch);
                    let fenced = store.renew(&service, &old, &beat(1)).await;
                    assert_eq!(fenced, Err(FleetError::Fenced { current: epoch }));
                }
            }
            Word::Renew { worker, capacity, gate } => {
                let Some((owner, _)) = self.owners[*worker].clone() else { return };
                let (heard, number) = self.heard[*worker];
                let said = Heartbeat { gate: *gate, heard, ..beat(*capacity) };
                let orders = store.renew(&service, &owner, &said).await;
                if self.fence(*worker).is_err() {
                    assert_eq!(orders, Err(FleetError::Unregistered));
                    return;
                }
                let now = self.model.now;
                let entry = self.model.workers.get_mut(worker).unwrap();
                (entry.renewed, entry.said) = (now, Some((*capacity, *gate, number)));
                let (asked_gate, order) = (entry.asked, entry.order);
                self.model.sweep();
                let orders = orders.unwrap();
                assert_eq!(orders.gate, asked_gate);
                assert_eq!(orders.order.cmp(&heard), order.cmp(&number), "{} after {heard}", orders.order);
                self.heard[*worker] = (orders.order, order);
                let mut expected: Vec<(Ticket, Demand)> = self
                    .model
                    .live
                    .iter()
                    .filter(|live| live.worker == *worker)
                    .filter_map(|live| live.asked.map(|reason| (live.ticket, Demand::End(reason))))
                    .collect();
                expected.sort_by_key(|(ticket, _)| *ticket);
                let asked: Vec<(Ticket, Demand)> =
                    orders.asked.into_iter().map(|asked| (asked.ticket, asked.demand)).collect();
                assert_eq!(asked, expected);
            }
            Word::AskGate { worker, gate } => {
                let there = store.ask_gate(&service, &name(WORKERS[*worker]), *gate).await.unwrap();
                let entry = self.model.workers.get_mut(worker);
                assert_eq!(there, entry.is_some());
                if let Some(entry) = entry {
                    entry.order += usize::from(entry.asked != *gate);
                    entry.asked = *gate;
                }
            }
            Word::Claim { id, user: who, pinned, limits, shows, sent, order } => {
                let order = [*order, 1 - *order];
                // Mostly that of the id's last session, or few would ever be taken over.
                let theirs = self.claims.iter().rev().filter(|claim| claim.session == crate::world::id(IDS[*id]));
                let theirs: Vec<ResumeToken> = theirs.take(3).map(|claim| claim.token).collect();
                let shown = shows.filter(|_| !self.claims.is_empty()).map(|at| match at.index(8) {
                    // Or one before that, as by a client that has lost an answer.
                    0 => at.get(&self.claims).token,
                    back @ 1..=2 if back < theirs.len() => theirs[back],
                    _ => theirs.first().copied().unwrap_or(at.get(&self.claims).token),
                });
                let claim = ClaimRequest {
                    user: who.map(|who| user(["ann", "bob"][who])),
                    service_limit: limit(if *limits { 2 } else { 0 }),
                    user_limit: limit(u32::from(*limits)),
                    pin: pinned.then(|| "room".parse().unwrap()),
                    claim: Claim { token: shown, user: None },
                    delivery: if *sent { Delivery::Sent } else { Delivery::Known },
                    ..request(IDS[*id], &order.map(|worker| WORKERS[worker]))
                };
                let expected = self.model.claim(&claim, *id, *who, *pinned, order);
                let claimed = store.claim(&service, &claim).await.unwrap();
                let got = match &claimed {
                    Claimed::Placed(placement) => {
                        Ok(WORKERS.iter().position(|worker| *worker == placement.at.worker.as_str()).unwrap())
                    }
                    Claimed::Duplicate { .. } => Err("duplicate"),
                    Claimed::Closing => Err("closing"),
                    Claimed::Settling(left) => {
                        self.model.compare_settling(Settling::For(*left));
                        Err("settling")
                    }
                    Claimed::RateLimited(_) => Err("rate"),
                    Claimed::ServiceLimit => Err("service"),
                    Claimed::UserLimit => Err("user"),
                    Claimed::NoCapacity { .. } => Err("capacity"),
                };
                assert_eq!(got, expected, "{claimed:?}");
                if let Claimed::Placed(placement) = &claimed {
                    let context = self.model.live.last().map(|live| live.context);
                    let resumed = context != Some(claim.context);
                    assert_eq!((Some(placement.opened.id), placement.opened.resumed), (context, resumed));
                }
                if got.is_ok() {
                    assert_eq!(store.claim(&service, &claim).await.unwrap(), claimed, "said twice, it is the same");
                    self.claims.push(claim);
                }
            }
            Word::Report { session, phase } => {
                let Some((ticket, worker)) = self.some_session(session) else { return };
                let Ok(owner) = self.fence(worker) else { return };
                let phase = [Phase::Connecting, Phase::Active, Phase::Ending][*phase];
                let held = store.report(&service, &owner, ticket, phase, &nothing()).await.unwrap();
                assert_eq!(held, self.model.report(worker, ticket, phase));
            }
            Word::Back { id: at, shows } => {
                // The client's latest token, or an older one.
                let mut theirs = self.claims.iter_mut().filter(|claim| claim.session == id(IDS[*at])).rev();
                let Some(claim) = theirs.nth(shows.index(3)) else { return };
                let (key, shown) = (ContextKey { service: service.clone(), session: id(IDS[*at]) }, claim.token);
                let next = store.clone().contexts(&service).rotate(&key, &shown).await.unwrap();
                let given = next.map_or(shown, |issued| issued.token);
                // What its client shows from now on.
                claim.token = given;
                assert_eq!(self.model.back(*at, shown, given), next.is_some());
            }
            Word::End { session } => {
                let Some((ticket, worker)) = self.some_session(session) else { return };
                let Ok(owner) = self.fence(worker) else { return };
                store.end(&service, &owner, ticket, CloseReason::EndStream).await.unwrap();
                if self.model.live.iter().any(|live| live.ticket == ticket && live.worker == worker) {
                    self.model.close(ticket, CloseReason::EndStream);
                }
            }
            Word::Release { session } => {
                let Some((ticket, _)) = self.some_session(session) else { return };
                store.release(&service, ticket).await.unwrap();
                if self.model.live.iter().any(|live| live.ticket == ticket && live.phase == Phase::Reserved) {
                    self.model.close(ticket, CloseReason::ConnectTimeout);
                }
            }
            Word::Ask { id: at } => {
                let demand = Demand::End(CloseReason::EndedByControl);
                let told = store.ask(&service, &id(IDS[*at]), None, &demand).await.unwrap();
                self.model.sweep();
                let holder = self.model.holder(*at).map(|live| live.ticket);
                match told {
                    Told::Pending(pending) => assert_eq!(Some(pending.ticket), holder),
                    Told::Over(reason) => {
                        assert_eq!((None, Some(reason)), (holder, self.model.over.get(at).map(|over| over.0)));
                    }
                    Told::Unknown => assert_eq!((None, None), (holder, self.model.over.get(at))),
                }
                for live in self.model.live.iter_mut().filter(|live| live.id == *at && live.role != Role::Former) {
                    live.asked.get_or_insert(CloseReason::EndedByControl);
                }
            }
            Word::Hold { router, held, refused } => {
                let id = ["r", "s"][*router].parse().unwrap();
                store.hold(&service, &id, Waits { held: *held, refused: *refused }).await.unwrap();
                self.model.refused += u64::from(*refused);
                let until = self.model.now + millis(HELD_LEASE);
                self.model.held.insert(*router, (*held, until));
            }
            Word::Traffic => self.compare_traffic(&*store).await,
            Word::Pass { millis } => {
                pass(Duration::from_millis(*millis)).await;
                self.model.now += millis;
            }
            Word::Reap => {
                assert_eq!(store.reap(&service).await.unwrap(), self.model.sweep());
            }
        }
    }

    /// One that lives, or one that was claimed once and may be over.
    fn some_session(&self, at: &Index) -> Option<(Ticket, usize)> {
        if self.claims.is_empty() {
            return None;
        }
        let ticket = at.get(&self.claims).ticket;
        let worker = self.model.live.iter().find(|live| live.ticket == ticket).map(|live| live.worker);
        // The word of a worker about a session that is not its own must change nothing.
        Some((ticket, worker.unwrap_or(at.index(2))))
    }

    async fn compare_traffic(&mut self, store: &dyn Store) {
        self.model.sweep();
        let Model { now, arrived, departed, refused, held, .. } = &self.model;
        let held: u32 = held.values().filter(|(_, until)| until > now).map(|(held, _)| held).sum();
        let seen = store.traffic(&self.service).await.unwrap();
        let seen = (seen.arrived, seen.departed, seen.refused, seen.held);
        assert_eq!(seen, (*arrived, *departed, *refused, held));
    }

    /// Everything that can be seen is as the model says.
    async fn compare(&mut self) {
        let (store, service) = (self.store(), self.service.clone());
        self.model.sweep();
        for (at, text) in IDS.iter().enumerate() {
            let seen = store.session(&service, &id(text)).await.unwrap();
            match (seen, self.model.holder(at)) {
                (Some(SessionView::Live(seen)), Some(live)) => {
                    assert_eq!((seen.ticket, seen.phase, seen.context), (live.ticket, live.phase, live.context));
                    assert_eq!(seen.at.worker.as_str(), WORKERS[live.worker]);
                }
                (Some(SessionView::Over(reason)), None) => {
                    assert_eq!(Some(reason), self.model.over.get(&at).map(|over| over.0));
                }
                (None, None) => assert_eq!(self.model.over.get(&at), None),
                (seen, expected) => panic!("{seen:?} and {expected:?}"),
            }
        }
        self.model.compare_settling(store.settling(&service).await.unwrap());
        let views = store.workers(&service).await.unwrap();
        let seen: Vec<(&str, u32, bool)> =
            views.iter().map(|view| (view.owner.worker.as_str(), view.sessions, view.is_drained())).collect();
        let expected: Vec<(&str, u32, bool)> = self
            .model
            .workers
            .iter()
            .map(|(worker, entry)| {
                let load = self.model.load(*worker);
                let says_so = |(_, gate, heard)| gate != Gate::Open && heard == entry.order;
                (WORKERS[*worker], u32::try_from(load).unwrap(), load == 0 && entry.said.is_some_and(says_so))
            })
            .collect();
        assert_eq!(seen, expected);
    }
}

async fn follow(routers: [Arc<dyn Store>; 2], words: &[Word], pass: impl AsyncFn(Duration)) {
    let service = format!("test-model/m{:x}", rand::random::<u64>()).parse().unwrap();
    let owners = [None, None];
    let (model, claims, heard) = (Model::default(), Vec::new(), Default::default());
    let mut run = Run { routers, service, model, owners, heard, claims, turn: 0 };
    for worker in 0..2 {
        run.step(&Word::Register { worker, entry: Entry::New }, &pass).await;
        run.step(&Word::Renew { worker, capacity: 3, gate: Gate::Open }, &pass).await;
    }
    for word in words {
        run.step(word, &pass).await;
        run.compare().await;
    }
    let store = run.store();
    run.compare_traffic(&*store).await;
}

fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}

#[test]
fn in_process() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    TestRunner::new(config(400))
        .run(&proptest::collection::vec(word(), 1..80), |words| {
            runtime.block_on(async {
                let store: Arc<dyn Store> = Arc::new(Memory::default());
                follow([store.clone(), store], &words, tokio::time::advance).await;
            });
            Ok(())
        })
        .unwrap();
}

#[test]
fn on_redis() {
    let clock = Clock::new();
    let server = Server::start(Some(&clock), free_port(), &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let to = RedisConfig::new(Arrangement::Single(server.address()));
    let (one, two) = runtime.block_on(async { (connected(to.clone()).await, connected(to).await) });
    let (one, two): (Arc<dyn Store>, Arc<dyn Store>) = (Arc::new(one), Arc::new(two));
    TestRunner::new(config(120))
        .run(&proptest::collection::vec(word(), 1..80), |words| {
            runtime.block_on(follow([one.clone(), two.clone()], &words, async |span| clock.forward(span)));
            Ok(())
        })
        .unwrap();
}
