//! One service of this worker as a member of its fleet: which sessions it takes, and what each of them holds.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::{Map, Value};
use streamfleet_session::fleet::{Placed, Refused, Standing as Basis};
use streamfleet_session::metadata::MetadataLimits;
use streamfleet_session::{CloseReason, Identity, InvalidMetadata, Metadata, ServiceName, SessionId, Verification};
use streamfleet_store::{
    ContextId, Demand, Document, Epoch, Gate, Generation, Held, Issued, Owner, Phase, Store, StoreError, Ticket, Told,
    Version, WorkerId,
};
use tokio::sync::{Notify, oneshot};

use super::contexts::Contexts;
use super::gauges::{FleetMetrics, State};
use super::journal::Journal;
use super::ledger::{Heard, Ledger, Parting, Word};
use super::remote::Readers;
use crate::history::History;

/// One service of this worker in its fleet.
pub struct Member {
    service: ServiceName,
    worker: WorkerId,
    store: Arc<dyn Store>,
    contexts: Arc<Contexts>,
    ledger: Mutex<Ledger>,
    journal: Arc<Journal>,
    readers: Readers,
    standing: Mutex<Standing>,
    metrics: FleetMetrics,
    /// There is something to tell the store.
    news: Notify,
}

/// What decides whether a session may be placed here.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    epoch: Option<Epoch>,
    /// As it is shown.
    state: State,
    /// What others want of it.
    asked: Gate,
    /// Since when clients are asked to connect elsewhere, if they are.
    leaving: Option<Instant>,
}

impl Standing {
    fn admits(&self, epoch: Epoch) -> Result<(), Refused> {
        match self.asked {
            _ if self.epoch != Some(epoch) => Err(Refused::Stale),
            Gate::Draining | Gate::Leaving => Err(Refused::Draining),
            Gate::Open => Ok(()),
        }
    }
}

impl Member {
    /// A service that the store does not know yet.
    #[must_use]
    pub fn new(service: ServiceName, worker: WorkerId, store: Arc<dyn Store>) -> Self {
        let contexts = Arc::new(Contexts::new(store.clone().contexts(&service)));
        Self {
            service,
            worker,
            store,
            contexts,
            ledger: Mutex::default(),
            journal: Arc::default(),
            readers: Readers::default(),
            standing: Mutex::default(),
            metrics: FleetMetrics::default(),
            news: Notify::new(),
        }
    }

    /// Counts what it does with these.
    #[must_use]
    pub(crate) fn counted(self, metrics: FleetMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// Takes a session that a router has placed here.
    ///
    /// # Errors
    /// [`Refused::Stale`] for a place that was given in another registration than the present one, or has been used;
    /// [`Refused::Draining`] where somebody wants this worker drained. Nothing is kept then. One without a claim is taken in
    /// any registration.
    pub fn take(self: &Arc<Self>, placed: Placed) -> Result<Place, Refused> {
        let ticket = Ticket::from_random(placed.ticket);
        {
            // Held until it is entered: what is counted once an order is obeyed has all that came before it.
            let standing = self.standing.lock();
            let (epoch, heard) = match placed.standing {
                Basis::Claimed => (Epoch(placed.epoch), Heard::Yes),
                Basis::Provisional(_) => (standing.epoch.ok_or(Refused::Stale)?, Heard::No),
            };
            standing.admits(epoch)?;
            if !self.ledger.lock().enter(ticket, heard) {
                return Err(Refused::Stale);
            }
        }
        let context = ContextId::from_random(placed.context.id);
        let document = Document { data: placed.context.data.clone(), version: Version(placed.context.version) };
        self.contexts.hold(context, document, placed.context.token, &placed.session);
        Ok(Place { member: self.clone(), ticket, context, placed: Box::new(placed), parting: Parting::Unbegun })
    }

    /// Whether a place that was given in this registration may be used.
    #[cfg(test)]
    pub(super) fn admits(&self, epoch: Epoch) -> Result<(), Refused> {
        self.standing.lock().admits(epoch)
    }

    /// The service.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    pub(crate) fn worker(&self) -> &WorkerId {
        &self.worker
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(crate) fn contexts(&self) -> &Arc<Contexts> {
        &self.contexts
    }

    pub(super) fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    pub(super) fn readers(&self) -> &Readers {
        &self.readers
    }

    pub(super) fn metrics(&self) -> &FleetMetrics {
        &self.metrics
    }

    pub(super) fn stands(&self, epoch: Option<Epoch>) {
        self.standing.lock().epoch = epoch;
    }

    pub(super) fn shows(&self, state: State) {
        self.standing.lock().state = state;
    }

    /// Where it is.
    pub(super) fn state(&self) -> State {
        self.standing.lock().state
    }

    /// As whom it writes; `None` while nobody knows it.
    pub(super) fn owner(&self) -> Option<Owner> {
        let epoch = self.standing.lock().epoch?;
        Some(Owner { worker: self.worker.clone(), epoch })
    }

    pub(super) fn asked(&self, gate: Gate) {
        let mut standing = self.standing.lock();
        let before = std::mem::replace(&mut standing.asked, gate);
        standing.leaving = (gate == Gate::Leaving).then(|| standing.leaving.unwrap_or_else(Instant::now));
        drop(standing);
        if before != gate {
            tracing::info!(service = %self.service, ?gate, "the fleet asks");
        }
    }

    /// Since when its clients are asked to connect elsewhere, if they are.
    pub(crate) fn leaving(&self) -> Option<Instant> {
        self.standing.lock().leaving
    }

    pub(super) fn ledger<T>(&self, look: impl FnOnce(&mut Ledger) -> T) -> T {
        look(&mut self.ledger.lock())
    }

    /// Waits until there may be something to tell the store.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// Makes the registrar look: something is to be told that concerns the worker as a whole.
    pub(crate) fn nudge(&self) {
        self.news.notify_one();
    }

    /// Asks something of a session, wherever it lives.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn ask(&self, session: &SessionId, demand: &Demand) -> Result<Told, StoreError> {
        self.store.ask(&self.service, session, None, demand).await
    }

    fn tell(&self, look: impl FnOnce(&mut Ledger)) {
        look(&mut self.ledger.lock());
        self.news.notify_one();
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("service", &self.service).field("worker", &self.worker).finish_non_exhaustive()
    }
}

/// A session's hold on its place in the fleet. Dropped, it gives the place back: as that of a session that has ended, or of
/// one that has never begun.
pub struct Place {
    member: Arc<Member>,
    ticket: Ticket,
    context: ContextId,
    placed: Box<Placed>,
    parting: Parting,
}

impl Place {
    pub(crate) fn member(&self) -> &Arc<Member> {
        &self.member
    }

    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket
    }

    pub(crate) fn placed(&self) -> &Placed {
        &self.placed
    }

    /// Its context's name.
    pub(crate) fn context(&self) -> ContextId {
        self.context
    }

    /// What its client must show the next time.
    pub(crate) fn issued(&self) -> Issued {
        let context = &self.placed.context;
        Issued { token: context.token, generation: Generation::from_number(context.generation) }
    }

    /// Who its client is.
    ///
    /// # Errors
    /// The metadata is not what this service takes: router and worker have been given different services.
    pub(crate) fn identity(&self, limits: &MetadataLimits) -> Result<Identity, InvalidMetadata> {
        let metadata = Metadata::parse(&Value::Object(self.placed.metadata.clone()), limits)?;
        let verified = if self.placed.verified { Verification::Verified } else { Verification::Unverified };
        Ok(Identity { user_id: self.placed.user.clone(), verified, metadata })
    }

    /// What a verified token says of its client.
    pub(crate) fn claims(&self) -> Map<String, Value> {
        self.placed.claims.clone()
    }

    /// What there is to hear when its client has arrived: whether the session is its own by then.
    pub(crate) fn arrival(&self) -> oneshot::Receiver<Held> {
        self.member.ledger.lock().await_arrival(self.ticket)
    }

    /// Has what it puts out kept by the store too.
    pub(crate) fn publish(&self, history: Arc<History>) {
        self.member.journal.enter(self.ticket, history);
    }

    /// What the store shows of it.
    pub(crate) fn describe(&self, detail: Map<String, Value>) {
        self.member.ledger.lock().describe(self.ticket, detail);
    }

    /// It has ended, for this reason.
    pub(crate) fn over(&mut self, reason: CloseReason) {
        self.parting = Parting::Over(reason);
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("ticket", &self.ticket).field("parting", &self.parting).finish_non_exhaustive()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (ticket, parting) = (self.ticket, self.parting);
        self.member.contexts.let_go(self.context);
        self.member.tell(|ledger| ledger.leave(ticket, parting));
    }
}

/// Says where a session is, as long as it lives.
#[derive(Clone)]
pub(crate) struct Reporter {
    member: Arc<Member>,
    ticket: Ticket,
}

impl Place {
    pub(crate) fn reporter(&self) -> Reporter {
        Reporter { member: self.member.clone(), ticket: self.ticket }
    }
}

impl Reporter {
    pub(crate) fn say(&self, phase: Phase) {
        self.member.tell(|ledger| ledger.moved_on(self.ticket, phase));
    }
}

impl Member {
    /// What the store is to be told now.
    pub(super) fn words(&self) -> Vec<(Ticket, Word)> {
        self.ledger.lock().take()
    }
}
