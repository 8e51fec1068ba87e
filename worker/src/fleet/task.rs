//! The task that keeps one service of this worker in its fleet: it asks the machines what to do, and does it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures_util::future::join_all;
use streamfleet_process::readiness::Hold;
use streamfleet_session::CloseReason;
use streamfleet_store::{
    Asked, ContextId, Demand, Entry, Epoch, FleetError, Gate, Heartbeat, Held, LastWords, Listener, Order, Orders,
    Owner, Restoration, Restored, Store, Terms, Ticket, Topic, TrackId, TrackResult,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::contexts::MAX_WRITES;
use super::gauges::{Renewal, State};
use super::journal;
use super::ledger::{Ledger, Word};
use super::member::Member;
use super::registrar::{Registrar, Step};

/// Batches of words that the store is told before the lease is looked at again: as long as sessions come faster than they are told
/// of, a renewal would wait, and with it what the worker is asked.
const MAX_ROUNDS: usize = 8;
/// Demands that are seen to at a time. Others come again with the next renewal.
const MAX_ACTS: usize = 256;

/// Whoever has the sessions.
#[async_trait]
pub(crate) trait Owned: Send + Sync + 'static {
    /// The placed sessions of a service that have their ids.
    fn held(&self, member: &Member) -> Vec<Ticket>;

    /// Those of them that live, as the store is to know them again.
    fn restorable(&self, member: &Member, tickets: &[Ticket]) -> Vec<Restored>;

    /// Ends a session and waits for that, for some seconds at most; with these words for its client, if there are any. False if
    /// there is none.
    async fn end(&self, ticket: Ticket, reason: CloseReason, words: Option<&LastWords>) -> bool;

    /// Asks the clients of a service's sessions to connect elsewhere that have not been asked since the worker was last asked
    /// to serve.
    fn urge(&self, member: &Member, gate: Gate);

    /// Closes one track of a session; `None` if nobody can say what became of it.
    async fn close_track(&self, ticket: Ticket, track: &TrackId) -> Option<TrackResult>;
}

/// What the task is given.
pub(crate) struct Surroundings {
    /// How long leases last.
    pub(crate) terms: Terms,
    /// What the worker says of itself, but for the counts of sessions and what it was asked.
    pub(crate) beat: Box<dyn Fn() -> Heartbeat + Send + Sync>,
    /// Held until the fleet knows of it for the first time.
    pub(crate) joining: Option<Hold>,
    /// Cancelled when the last session is over and the worker leaves.
    pub(crate) stop: CancellationToken,
}

/// How a membership ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fate {
    /// The worker has left.
    #[error("left the fleet")]
    Left,
    /// Its name is another process's.
    #[error("another process has registered under this worker's name: every worker of a fleet needs its own")]
    Fenced,
}

/// Keeps a service in its fleet until the worker leaves, or has to.
pub(crate) async fn run(member: Arc<Member>, owned: Arc<dyn Owned>, surroundings: Surroundings) -> Fate {
    let listener = member.store().listen(member.service(), Topic::Worker(member.worker().clone()));
    let registrar = Registrar::new(surroundings.terms, now());
    let contact = Contact::Unknown;
    let (acts, mut writer) = (JoinSet::new(), JoinSet::new());
    // Ends with this task.
    writer.spawn(journal::write(member.clone()));
    let shell = Shell {
        member,
        owned,
        surroundings,
        registrar,
        listener,
        acts,
        in_hand: HashSet::new(),
        superseded: HashSet::new(),
        told: None,
        asked: Gate::Open,
        heard: Order::default(),
        left_to_say: Left::None,
        missed: VecDeque::new(),
        contact,
    };
    shell.run().await
}

/// Whether the store has answered the last time: each change is logged once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contact {
    Unknown,
    Made,
    Lost,
}

/// A demand, as it is told apart from others: an end, or one track.
type Act = (Ticket, Option<TrackId>);

struct Shell {
    member: Arc<Member>,
    owned: Arc<dyn Owned>,
    surroundings: Surroundings,
    registrar: Registrar,
    listener: Listener,
    acts: JoinSet<Act>,
    in_hand: HashSet<Act>,
    /// Sessions that are not this worker's any more and have not ended: the store does not ask for their end again.
    superseded: HashSet<Ticket>,
    /// What the store has last been told.
    told: Option<Shown>,
    /// What others want of the worker.
    asked: Gate,
    /// Which order that was.
    heard: Order,
    left_to_say: Left,
    /// Contexts that the store had missed at a renewal, and that are still to be written.
    missed: VecDeque<ContextId>,
    contact: Contact,
}

/// What routers, and whoever waits for the end of a drain, go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    gate: Gate,
    heard: Order,
    load: Load,
}

/// Whether a worker has anything to finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    None,
    Some,
}

/// Whether there may be more to say of sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Left {
    #[default]
    None,
    Some,
}

/// What ends a wait.
enum Event {
    Time,
    Woken,
    Acted(Option<Act>),
    Stop,
}

impl Shell {
    async fn run(mut self) -> Fate {
        loop {
            if self.told.is_some_and(|told| told != self.shown(told)) {
                self.registrar.woken(now());
            }
            let event = match self.registrar.poll(now()) {
                Step::Register(entry) => self.register(entry).await,
                Step::Restore(epoch, tickets) => self.restore(epoch, tickets).await,
                Step::Renew(epoch) => self.renew(epoch).await,
                Step::Wait(until) => self.wait(until).await,
                Step::Stop => return self.give_up().await,
            };
            match event {
                Event::Time => {}
                Event::Woken => self.registrar.woken(now()),
                Event::Acted(act) => drop(act.map(|act| self.in_hand.remove(&act))),
                Event::Stop => return self.farewell().await,
            }
            self.member.stands(self.registrar.epoch());
            self.speak().await;
            self.catch_up().await;
            self.member.stands(self.registrar.epoch());
            self.pursue();
            self.member.shows(self.state());
        }
    }

    /// What there is to show now. That sessions come is told in time; that the last one has gone, somebody waits for.
    fn shown(&self, told: Shown) -> Shown {
        let gate = self.gate();
        let is_empty = self.member.ledger(|ledger| ledger.is_empty());
        let load = if gate != Gate::Open && is_empty { Load::None } else { told.load };
        Shown { gate, heard: self.heard, load }
    }

    /// Whether it takes sessions: of its own accord, and by the last order that it has heard.
    fn gate(&self) -> Gate {
        (self.surroundings.beat)().gate.max(self.asked)
    }

    /// What it says of itself. The gate is read before sessions are counted: when it says that it takes none, all that it has taken
    /// are among them.
    fn beat(&self) -> Heartbeat {
        let said = (self.surroundings.beat)();
        let (gate, heard) = (said.gate.max(self.asked), self.heard);
        let (active, reserved) = self.member.ledger(|ledger| ledger.counts());
        Heartbeat { active, reserved, gate, heard, ..said }
    }

    fn state(&self) -> State {
        match self.registrar.epoch() {
            _ if self.registrar.is_restoring() => State::Restoring,
            None => State::Outside,
            Some(_) if self.gate() == Gate::Open => State::Serving,
            Some(_) if self.member.ledger(|ledger| ledger.is_empty()) => State::Drained,
            Some(_) => State::Draining,
        }
    }

    fn owner(&self, epoch: Epoch) -> Owner {
        Owner { worker: self.member.worker().clone(), epoch }
    }

    fn store(&self) -> Arc<dyn Store> {
        self.member.store().clone()
    }

    async fn register(&mut self, entry: Entry) -> Event {
        let answer = self.store().register(self.member.service(), self.member.worker(), entry).await;
        if answer.is_ok() {
            // Orders are a registration's: what it was asked before nobody asks any more, and what it says of that proves nothing.
            if self.asked != Gate::Open {
                self.obey(Gate::Open, Order::default());
                self.owned.urge(&self.member, Gate::Open);
            }
            self.heard = Order::default();
            // Before it is asked who lives: who ends in between is known to be over.
            self.member.ledger(Ledger::forgotten);
            self.member.journal().retain(|ticket| self.member.ledger(|ledger| ledger.knows(ticket)));
            self.member.journal().doubt().await;
        }
        self.heard(answer.as_ref().err().map(|error| error as &dyn std::error::Error));
        let held = self.owned.held(&self.member);
        self.registrar.registered(answer, held, now());
        Event::Time
    }

    async fn restore(&mut self, epoch: Epoch, tickets: Vec<Ticket>) -> Event {
        let sessions = self.owned.restorable(&self.member, &tickets);
        let answer = match sessions.as_slice() {
            [] => Ok(Vec::new()),
            sessions => self.store().restore(self.member.service(), &self.owner(epoch), sessions).await,
        };
        if let Ok(outcomes) = &answer {
            for (session, outcome) in sessions.iter().zip(outcomes) {
                match outcome {
                    Restoration::Kept => {
                        self.member.metrics().restored();
                        self.member.ledger(|ledger| ledger.restored(&[session.ticket]));
                    }
                    Restoration::Superseded => self.supersede(session.ticket),
                }
            }
        }
        self.registrar.restored(answer.map(|_| tickets.len()), now());
        Event::Time
    }

    async fn renew(&mut self, epoch: Epoch) -> Event {
        let beat = self.beat();
        let owner = self.owner(epoch);
        let answer = self.store().renew(self.member.service(), &owner, &beat).await;
        self.heard(answer.as_ref().err().map(|error| error as &dyn std::error::Error));
        self.member.metrics().renewed(match &answer {
            Ok(_) => Renewal::Renewed,
            Err(FleetError::Unregistered) => Renewal::Unregistered,
            Err(FleetError::Fenced { .. }) => Renewal::Fenced,
            Err(FleetError::Store(_)) => Renewal::Away,
        });
        let answer = answer.map(|orders| {
            let load = if beat.active + beat.reserved == 0 { Load::None } else { Load::Some };
            self.told = Some(Shown { gate: beat.gate, heard: beat.heard, load });
            drop(self.surroundings.joining.take());
            if self.missed.is_empty() {
                self.missed = self.member.contexts().unwritten().into();
            }
            self.apply(&owner, orders);
        });
        self.registrar.renewed(answer, now());
        Event::Time
    }

    /// Whether there are contexts to be written, and they can be. One that the store has never known is made known with its session,
    /// and can be written from then on.
    fn may_catch_up(&self) -> bool {
        !self.missed.is_empty() && self.left_to_say == Left::None && self.registrar.may_speak(now()).is_ok()
    }

    /// Writes some of the contexts that the store has missed, between two looks at the lease: all sessions may have written while it was
    /// away, and writing all at once would cost them the lease.
    async fn catch_up(&mut self) {
        if !self.may_catch_up() {
            return;
        }
        let some: Vec<ContextId> = self.missed.drain(..self.missed.len().min(MAX_WRITES)).collect();
        if let Err(error) = self.member.contexts().catch_up(&some).await {
            // The next renewal that is taken begins anew.
            self.missed.clear();
            self.registrar.refused(&FleetError::Store(error), now());
        }
    }

    /// From here on nothing is taken that an order forbids: what is counted after this is all that there is.
    fn obey(&mut self, gate: Gate, order: Order) {
        self.member.asked(gate);
        (self.asked, self.heard) = (gate, order);
    }

    fn apply(&mut self, owner: &Owner, orders: Orders) {
        let before = self.asked;
        self.obey(orders.gate, orders.order);
        if orders.gate == Gate::Leaving || before != orders.gate {
            self.owned.urge(&self.member, orders.gate);
        }
        for Asked { ticket, demand, .. } in orders.asked {
            match demand {
                Demand::End(reason) => self.end(owner.clone(), ticket, reason, None),
                Demand::EndStream(words) => self.end(owner.clone(), ticket, CloseReason::EndStream, Some(words)),
                Demand::CloseTrack(track) => self.close_track(owner.clone(), ticket, track),
            }
        }
    }

    fn takes(&mut self, act: &Act) -> bool {
        self.in_hand.len() < MAX_ACTS && self.in_hand.insert(act.clone())
    }

    /// A session is another one's by now, or its client has gone another way.
    fn supersede(&mut self, ticket: Ticket) {
        if self.superseded.insert(ticket) {
            self.member.metrics().superseded();
        }
    }

    /// Ends what is to end without the store asking for it, until it is over.
    fn pursue(&mut self) {
        let mut left = std::mem::take(&mut self.superseded);
        left.retain(|ticket| self.member.ledger(|ledger| ledger.lives(*ticket)));
        let Some(owner) = self.registrar.epoch().map(|epoch| self.owner(epoch)) else {
            self.superseded = left;
            return;
        };
        for ticket in &left {
            self.end(owner.clone(), *ticket, CloseReason::Superseded, None);
        }
        self.superseded = left;
    }

    fn end(&mut self, owner: Owner, ticket: Ticket, reason: CloseReason, words: Option<LastWords>) {
        if !self.takes(&(ticket, None)) {
            return;
        }
        let (owned, member) = (self.owned.clone(), self.member.clone());
        self.acts.spawn(async move {
            // One that is known here and not there has not begun, or is over and the store will hear of it.
            if !owned.end(ticket, reason, words.as_ref()).await && !member.ledger(|ledger| ledger.knows(ticket)) {
                let told = member.store().end(member.service(), &owner, ticket, reason).await;
                // It is asked again with the next renewal.
                drop(told.inspect_err(|error| tracing::debug!(%error, "an end was not told")));
            }
            (ticket, None)
        });
    }

    fn close_track(&mut self, owner: Owner, ticket: Ticket, track: TrackId) {
        let act = (ticket, Some(track.clone()));
        if !self.takes(&act) {
            return;
        }
        let (owned, member) = (self.owned.clone(), self.member.clone());
        self.acts.spawn(async move {
            if let Some(result) = owned.close_track(ticket, &track).await {
                let told = member.store().acknowledge(member.service(), &owner, ticket, &track, result).await;
                drop(told.inspect_err(|error| tracing::debug!(%error, "a track's end was not told")));
            }
            act
        });
    }

    async fn wait(&mut self, until: Instant) -> Event {
        // However much there is to tell: whoever leaves has little time.
        if self.surroundings.stop.is_cancelled() {
            return Event::Stop;
        }
        if std::mem::take(&mut self.left_to_say) == Left::Some || self.may_catch_up() {
            return Event::Time;
        }
        let until = match self.registrar.may_speak(now()) {
            Err(later) if !self.member.ledger(|ledger| ledger.is_settled()) => until.min(later),
            _ => until,
        };
        tokio::select! {
            () = self.surroundings.stop.cancelled() => Event::Stop,
            () = tokio::time::sleep_until(until.into()) => Event::Time,
            () = self.listener.woken() => Event::Woken,
            () = self.member.news() => Event::Time,
            Some(acted) = self.acts.join_next() => Event::Acted(acted.ok()),
        }
    }

    /// Tells the store what there is to tell of sessions, if it can be told now.
    async fn speak(&mut self) {
        self.left_to_say = Left::None;
        for _ in 0..MAX_ROUNDS {
            let Ok(epoch) = self.registrar.may_speak(now()) else { return };
            if self.member.ledger(|ledger| ledger.is_overdrawn()) {
                tracing::warn!("more sessions have ended than are remembered: everything is told anew");
                return self.registrar.begin_again(now());
            }
            let words = self.member.words();
            if words.is_empty() {
                return;
            }
            let owner = self.owner(epoch);
            let ends = words.iter().any(|(_, word)| matches!(word, Word::End(_)));
            // What a session has written last comes before its end.
            let contexts = self.member.contexts();
            let ready = if ends { contexts.catch_up(&contexts.left_behind()).await } else { Ok(()) };
            let answers = match &ready {
                Ok(()) => join_all(words.iter().map(|(ticket, word)| self.say(&owner, *ticket, word))).await,
                Err(error) => words.iter().map(|_| Err(FleetError::Store(error.clone()))).collect(),
            };
            for ((ticket, word), answer) in words.iter().zip(answers) {
                match answer {
                    Ok(held) => {
                        self.member.ledger(|ledger| ledger.settle(*ticket, word, Some(held)));
                        if matches!(word, Word::End(_) | Word::Release) {
                            self.member.journal().leave(*ticket);
                        }
                        if held == Held::No {
                            self.supersede(*ticket);
                        }
                    }
                    Err(error) => {
                        self.member.ledger(|ledger| ledger.settle(*ticket, word, None));
                        self.registrar.refused(&error, now());
                    }
                }
            }
        }
        self.left_to_say = Left::Some;
    }

    async fn say(&self, owner: &Owner, ticket: Ticket, word: &Word) -> Result<Held, FleetError> {
        let (store, service) = (self.member.store(), self.member.service());
        match word {
            Word::Restore => {
                let sessions = self.owned.restorable(&self.member, &[ticket]);
                // One that is over by now says so itself.
                let outcomes = match sessions.as_slice() {
                    [] => Vec::new(),
                    sessions => store.restore(service, owner, sessions).await?,
                };
                Ok(if outcomes.contains(&Restoration::Superseded) { Held::No } else { Held::Yes })
            }
            Word::Report(phase, detail) => store.report(service, owner, ticket, *phase, detail).await,
            Word::End(reason) => {
                // What it has put out last comes before its end, behind which nothing is taken.
                self.member.journal().flush(&**store, service, owner, ticket).await?;
                store.end(service, owner, ticket, *reason).await.map(|()| Held::Yes)
            }
            Word::Release => store.release(service, ticket).await.map(|()| Held::Yes).map_err(FleetError::Store),
        }
    }

    /// The worker leaves: the store hears of what is over, and of that.
    async fn farewell(mut self) -> Fate {
        let epoch = self.registrar.epoch();
        self.member.stands(None);
        self.speak().await;
        while self.left_to_say == Left::Some {
            self.speak().await;
        }
        self.member.shows(State::Outside);
        if let Some(epoch) = epoch {
            let left = self.store().leave(self.member.service(), &self.owner(epoch)).await;
            if let Err(error) = left {
                tracing::warn!(%error, "the fleet was not told that this worker leaves: its lease runs out");
            }
        }
        Fate::Left
    }

    /// The sessions of a worker that is none any more may live elsewhere by now.
    async fn give_up(self) -> Fate {
        self.member.stands(None);
        self.member.shows(State::Fenced);
        tracing::error!(worker = %self.member.worker(), "{}", Fate::Fenced);
        let held = self.owned.held(&self.member);
        join_all(held.into_iter().map(|ticket| self.owned.end(ticket, CloseReason::WorkerLost, None))).await;
        Fate::Fenced
    }

    fn heard(&mut self, error: Option<&dyn std::error::Error>) {
        let service = self.member.service();
        let contact = if error.is_some() { Contact::Lost } else { Contact::Made };
        if std::mem::replace(&mut self.contact, contact) == contact {
            return;
        }
        match error {
            Some(error) => tracing::warn!(%service, %error, "the fleet cannot be reached"),
            None => tracing::info!(%service, worker = %self.member.worker(), "in touch with the fleet"),
        }
    }
}

/// The runtime's clock, so that a test whose time is virtual moves this one too.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
