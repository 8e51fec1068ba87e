//! The words, as a store and the model are told them, and the comparison of both.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use streamfleet_session::{CloseReason, ServiceName};
use streamfleet_store::{
    Arrangement, Claim, ClaimRequest, Claimed, ContextKey, Delivery, Demand, EMPTY_RETENTION, Entry, FleetError, Gate,
    Generation, HELD_LEASE, Heartbeat, Held, Issued, Kept, MAX_BATCH, Memory, Order, Owner, Phase, RedisConfig,
    Restored, SETTLING, SessionView, Settling, Store, Terms, Ticket, Told, Version, Waits,
};

use super::{Live, Mine, Model, Role, Worker, millis};
use crate::arrangements::connected;
use crate::server::{Clock, Server, free_port};
use crate::world::{beat, id, limit, name, nothing, request, user};

const WORKERS: [&str; 2] = ["a", "b"];
const IDS: [&str; 3] = ["i", "j", "k"];
const USERS: [&str; 2] = ["ann", "bob"];
const ROOM: &str = "room";

#[derive(Debug, Clone)]
enum Word {
    Register { worker: usize, entry: Entry },
    Restore { worker: usize },
    Return { first: usize },
    Renew { worker: usize, capacity: u32, gate: Gate },
    AskGate { worker: usize, gate: Gate },
    Claim { id: usize, user: Option<usize>, pinned: bool, limits: bool, shows: Shows, sent: bool, order: usize },
    Report { session: Index, foreign: bool, phase: usize },
    Back { id: usize, back: usize },
    End { session: Index, foreign: bool },
    Release { session: Index },
    Ask { id: usize },
    Hold { router: usize, held: u32, refused: u32 },
    Traffic,
    Pass { millis: u64 },
    Reap,
}

/// Which token somebody shows.
#[derive(Debug, Clone)]
enum Shows {
    None,
    /// That of the id's last claim but so many, as of a client that has lost an answer.
    Theirs(usize),
    /// Anybody's.
    Some(Index),
}

fn word() -> impl Strategy<Value = Word> {
    let gate = || prop_oneof![3 => Just(Gate::Open), 1 => Just(Gate::Draining)];
    let claim = (0..IDS.len(), proptest::option::of(0..2_usize), any::<bool>(), any::<bool>());
    let shows = prop_oneof![
        8 => Just(Shows::None),
        // Or few would ever be taken over.
        5 => Just(Shows::Theirs(0)),
        2 => (1..3_usize).prop_map(Shows::Theirs),
        1 => any::<Index>().prop_map(Shows::Some),
    ];
    let more = (shows, any::<bool>(), 0..2_usize);
    let foreign = || proptest::bool::weighted(0.1);
    prop_oneof![
        2 => (0..2_usize, prop_oneof![1 => Just(Entry::New), 1 => Just(Entry::Again)])
            .prop_map(|(worker, entry)| Word::Register { worker, entry }),
        5 => (0..2_usize).prop_map(|worker| Word::Restore { worker }),
        5 => (0..2_usize, 1..4_u32, gate()).prop_map(|(worker, capacity, gate)| Word::Renew { worker, capacity, gate }),
        1 => (0..2_usize, gate()).prop_map(|(worker, gate)| Word::AskGate { worker, gate }),
        12 => (claim, more).prop_map(|((id, user, pinned, limits), (shows, sent, order))| {
            Word::Claim { id, user, pinned, limits, shows, sent, order }
        }),
        8 => (any::<Index>(), foreign(), 0..3_usize)
            .prop_map(|(session, foreign, phase)| Word::Report { session, foreign, phase }),
        2 => (0..IDS.len(), 0..3_usize).prop_map(|(id, back)| Word::Back { id, back }),
        4 => (any::<Index>(), foreign()).prop_map(|(session, foreign)| Word::End { session, foreign }),
        1 => any::<Index>().prop_map(|session| Word::Release { session }),
        2 => (0..IDS.len()).prop_map(|id| Word::Ask { id }),
        2 => (0..2_usize, 0..4_u32, 0..2_u32).prop_map(|(router, held, refused)| Word::Hold { router, held, refused }),
        2 => Just(Word::Traffic),
        1 => (0..2_usize).prop_map(|first| Word::Return { first }),
        4 => prop_oneof![Just(1), Just(3), Just(6), Just(10), Just(40)].prop_map(|seconds: u64| Word::Pass { millis: 1000 * seconds }),
        1 => Just(Word::Reap),
    ]
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
    /// Where each of them was placed.
    placed: Vec<usize>,
    /// What workers know of those.
    mine: Vec<Mine>,
    turn: usize,
}

/// As its worker writes it again.
fn restored(mine: &Mine, now: u64) -> Restored {
    let issued = Issued { token: mine.token, generation: Generation::from_number(mine.generation) };
    let version = Version::default();
    Restored {
        ticket: mine.ticket,
        session: id(IDS[mine.id]),
        user: mine.user.map(|who| user(USERS[who])),
        pin: mine.pinned.then(|| ROOM.parse().unwrap()),
        phase: mine.phase.unwrap(),
        age: Duration::from_millis(now - mine.since),
        retention: request(IDS[mine.id], &[]).retention,
        detail: nothing(),
        context: Kept { id: mine.context, user: None, issued, data: nothing(), version },
    }
}

impl Run {
    fn store(&mut self) -> Arc<dyn Store> {
        self.turn += 1;
        self.routers[self.turn % 2].clone()
    }

    /// Whether the model takes the word of a worker's latest registration.
    fn fence(&self, worker: usize) -> Option<Owner> {
        let (owner, registration) = self.owners[worker].as_ref()?;
        let present = self.model.workers.get(&worker).is_some_and(|entry| entry.registration == *registration);
        present.then(|| owner.clone())
    }

    /// What was claimed for an id, the last at the front; each with the token that its client has by now.
    fn theirs(&self, at: usize) -> impl Iterator<Item = &ClaimRequest> {
        self.claims.iter().rev().filter(move |claim| claim.session == id(IDS[at]))
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
                if *entry == Entry::New {
                    self.mine.retain(|mine| mine.worker != *worker);
                }
                if let Some((old, _)) =
                    self.owners[*worker].replace((Owner { worker: name(WORKERS[*worker]), epoch }, registration))
                {
                    assert!(epoch > old.epoch);
                    let fenced = store.renew(&service, &old, &beat(1)).await;
                    assert_eq!(fenced, Err(FleetError::Fenced { current: epoch }));
                }
            }
            Word::Restore { worker } => {
                let Some((owner, _)) = self.owners[*worker].clone() else { return };
                let theirs = |mine: &&Mine| mine.worker == *worker && mine.phase.is_some();
                let theirs: Vec<Mine> = self.mine.iter().filter(theirs).take(MAX_BATCH).cloned().collect();
                if theirs.is_empty() {
                    return;
                }
                let now = self.model.now;
                let written: Vec<Restored> = theirs.iter().map(|mine| restored(mine, now)).collect();
                let told = store.restore(&service, &owner, &written).await;
                if self.fence(*worker).is_none() {
                    assert_eq!(told, Err(FleetError::Unregistered));
                    return;
                }
                let expected: Vec<_> = theirs.iter().map(|mine| self.model.restore(mine)).collect();
                assert_eq!(told, Ok(expected));
            }
            Word::Return { first } => {
                // Nobody is there for so long that nothing is known of anybody, and they come again one after the other with what they have.
                // What is over at the first of the two is forgotten at the second.
                let forgets = Word::Pass { millis: millis(EMPTY_RETENTION.max(Terms::default().afterlife)) };
                let comes = |worker| [Word::Register { worker, entry: Entry::Again }, Word::Restore { worker }];
                for forgets in [forgets.clone(), forgets] {
                    Box::pin(self.step(&forgets, pass)).await;
                    self.compare().await;
                }
                assert!(self.model.knows_nobody());
                for word in [comes(*first), comes(1 - first)].into_iter().flatten() {
                    Box::pin(self.step(&word, pass)).await;
                    self.compare().await;
                }
            }
            Word::Renew { worker, capacity, gate } => {
                let Some((owner, _)) = self.owners[*worker].clone() else { return };
                let (heard, number) = self.heard[*worker];
                let said = Heartbeat { gate: *gate, heard, ..beat(*capacity) };
                let orders = store.renew(&service, &owner, &said).await;
                if self.fence(*worker).is_none() {
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
                let shown = match shows {
                    Shows::None => None,
                    Shows::Theirs(back) => self.theirs(*id).nth(*back).map(|claim| claim.token),
                    Shows::Some(_) if self.claims.is_empty() => None,
                    Shows::Some(at) => Some(at.get(&self.claims).token),
                };
                let claim = ClaimRequest {
                    user: who.map(|who| user(USERS[who])),
                    service_limit: limit(if *limits { 2 } else { 0 }),
                    user_limit: limit(u32::from(*limits)),
                    pin: pinned.then(|| ROOM.parse().unwrap()),
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
                    let generation = placement.opened.generation.number();
                    assert_eq!(generation, self.model.generation(placement.opened.id));
                    self.mine.push(Mine {
                        ticket: claim.ticket,
                        id: *id,
                        worker: expected.unwrap(),
                        user: *who,
                        pinned: *pinned,
                        phase: None,
                        since: self.model.now,
                        context: placement.opened.id,
                        token: claim.token,
                        generation,
                    });
                    assert_eq!(store.claim(&service, &claim).await.unwrap(), claimed, "said twice, it is the same");
                    self.claims.push(claim);
                    self.placed.push(expected.unwrap());
                }
            }
            Word::Report { session, foreign, phase } => {
                let Some((ticket, worker)) = self.some_session(session, *foreign) else { return };
                let Some(owner) = self.fence(worker) else { return };
                let phase = [Phase::Connecting, Phase::Active, Phase::Ending][*phase];
                let held = store.report(&service, &owner, ticket, phase, &nothing()).await.unwrap();
                assert_eq!(held, self.model.report(worker, ticket, phase));
                let mine = self.mine.iter_mut().find(|mine| mine.ticket == ticket && mine.worker == worker);
                // Of one that it has not begun it never says that it has it.
                if let Some(mine) = mine.filter(|mine| held == Held::Yes || mine.phase.is_some()) {
                    mine.phase = Some(phase);
                }
            }
            Word::Back { id: at, back } => {
                // The client's latest token, or an older one.
                let mut theirs = self.claims.iter_mut().filter(|claim| claim.session == id(IDS[*at])).rev();
                let Some(claim) = theirs.nth(*back) else { return };
                let (key, shown) = (ContextKey { service: service.clone(), session: id(IDS[*at]) }, claim.token);
                let next = store.clone().contexts(&service).rotate(&key, &shown).await.unwrap();
                let given = next.map_or(shown, |issued| issued.token);
                // What its client shows from now on.
                claim.token = given;
                let context = self.model.back(*at, shown, given);
                assert_eq!(context.is_some(), next.is_some());
                let holder = self.model.holder(*at).filter(|live| Some(live.context) == context);
                let ticket = holder.map(|live| live.ticket);
                if let Some(issued) = next
                    && let Some(mine) = self.mine.iter_mut().find(|mine| Some(mine.ticket) == ticket)
                {
                    (mine.token, mine.generation) = (issued.token, issued.generation.number());
                }
            }
            Word::End { session, foreign } => {
                let Some((ticket, worker)) = self.some_session(session, *foreign) else { return };
                let Some(owner) = self.fence(worker) else { return };
                store.end(&service, &owner, ticket, CloseReason::EndStream).await.unwrap();
                self.mine.retain(|mine| mine.ticket != ticket || mine.worker != worker);
                if self.model.live.iter().any(|live| live.ticket == ticket && live.worker == worker) {
                    self.model.close(ticket, CloseReason::EndStream);
                }
            }
            Word::Release { session } => {
                let Some((ticket, _)) = self.some_session(session, false) else { return };
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

    /// One that lives, or that was claimed once and may be over, and the worker that speaks of it: its own, or the other one, whose word about
    /// it must change nothing.
    fn some_session(&self, at: &Index, foreign: bool) -> Option<(Ticket, usize)> {
        if self.claims.is_empty() {
            return None;
        }
        let at = at.index(self.claims.len());
        let own = self.placed[at];
        Some((self.claims[at].ticket, if foreign { 1 - own } else { own }))
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
        for (at, text) in IDS.iter().enumerate() {
            let key = ContextKey { service: service.clone(), session: id(text) };
            for claim in self.theirs(at).take(2) {
                let seen = store.clone().contexts(&service).verify(&key, &claim.token).await.unwrap();
                assert_eq!(seen, self.model.context_of(at, claim.token));
            }
        }
        // The client of a session that is connected has what was given last, unless more was given of which its worker does not know.
        for mine in &self.mine {
            let is_it =
                |live: &&Live| live.ticket == mine.ticket && live.role == Role::Holder && live.phase == Phase::Active;
            if let Some(live) = self.model.live.iter().find(is_it)
                && self.model.generation(live.context) == mine.generation
            {
                assert_eq!(self.model.context_of(mine.id, mine.token), Some(mine.context));
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
    let mut run = Run { routers, service, model, owners, heard, claims, placed: Vec::new(), mine: Vec::new(), turn: 0 };
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
    TestRunner::new(config(600))
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
