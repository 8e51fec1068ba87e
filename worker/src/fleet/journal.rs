//! What the sessions of this worker have put out, on its way to the store, so that others can read it there.
//!
//! Nothing is kept here: what waits is what each session's own history keeps, within that one's bounds. Whoever puts
//! something out leaves a note and goes on; one task writes what has gathered.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use streamfleet_session::ServiceName;
use streamfleet_store::{Appended, Batch, FleetError, Owner, Seen, Store, Ticket};
use tokio::sync::{Mutex as Turn, Notify};
use tokio::time::sleep;

use super::Member;
use crate::history::{History, Notice};

/// How long outputs gather before they are written: at most twenty writes a second for a session, and what a worker that is
/// killed takes with it is what its handlers have put out in this time and a round trip.
const GATHER: Duration = Duration::from_millis(50);
/// Between two attempts to reach a store that is away.
const RETRY: Duration = Duration::from_millis(500);
/// Sessions written at a time: enough to hide a round trip.
const MAX_WRITES: usize = 16;
/// Steps of one session in a row: all that a history keeps, and as much again for what the store has lost.
const MAX_STEPS: usize = 32;

/// How far the store has what a session has put out.
#[derive(Debug)]
struct Told {
    upto: u64,
    sure: Sure,
}

/// Whether the store has all that it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sure {
    Yes,
    /// It may have lost it since.
    No,
}

#[derive(Debug, Clone)]
struct Entry {
    history: Arc<History>,
    /// Batches of one session go one behind the other.
    told: Arc<Turn<Told>>,
}

/// The outputs of one service's sessions: an entry for each that is here, or is over and the store does not know.
#[derive(Debug, Default)]
pub(super) struct Journal {
    entries: Mutex<HashMap<Ticket, Entry>>,
    due: Mutex<BTreeSet<Ticket>>,
    news: Notify,
}

impl Journal {
    /// A session is here. From now on its outputs are noted.
    pub(super) fn enter(self: &Arc<Self>, ticket: Ticket, history: Arc<History>) {
        let (journal, noted) = (self.clone(), ticket);
        history.notify(Notice::new(move || journal.note(noted)));
        let told = Arc::new(Turn::new(Told { upto: 0, sure: Sure::No }));
        self.entries.lock().insert(ticket, Entry { history, told });
        // It may go on where another one has ended.
        self.note(ticket);
    }

    /// It has put something out.
    fn note(&self, ticket: Ticket) {
        if self.due.lock().insert(ticket) {
            self.news.notify_one();
        }
    }

    /// Forgets all but these.
    pub(super) fn retain(&self, mut stays: impl FnMut(Ticket) -> bool) {
        self.entries.lock().retain(|ticket, _| stays(*ticket));
        self.due.lock().retain(|ticket| stays(*ticket));
    }

    /// The store has heard that it is over, or it has never been.
    pub(super) fn leave(self: &Arc<Self>, ticket: Ticket) {
        let heir = {
            let mut entries = self.entries.lock();
            let Some(Entry { history, .. }) = entries.remove(&ticket) else { return };
            // Two sessions have one history while a client moves here, and this may be the one that has never been.
            let heir = entries.iter().find(|(_, other)| Arc::ptr_eq(&other.history, &history));
            heir.map(|(heir, _)| (*heir, history))
        };
        self.due.lock().remove(&ticket);
        if let Some((heir, history)) = heir {
            let journal = self.clone();
            history.notify(Notice::new(move || journal.note(heir)));
            self.note(heir);
        }
    }

    /// The store may have lost what it was told: whatever it has lost is written again.
    pub(super) async fn doubt(&self) {
        let entries: Vec<(Ticket, Entry)> = self.entries.lock().iter().map(|(t, e)| (*t, e.clone())).collect();
        for (ticket, entry) in entries {
            entry.told.lock().await.sure = Sure::No;
            self.note(ticket);
        }
    }

    /// Outputs that wait to be written.
    pub(super) fn waiting(&self) -> u64 {
        let entries = self.entries.lock();
        let waits = |entry: &Entry| {
            // One that is being written is as good as written.
            let upto = entry.told.try_lock().map(|told| told.upto).ok()?;
            Some(entry.history.last().saturating_sub(upto))
        };
        entries.values().filter_map(waits).sum()
    }

    /// Writes all of a session's outputs that the store does not have.
    ///
    /// # Errors
    /// [`FleetError`]; what was not written stays.
    pub(super) async fn flush(
        &self,
        store: &dyn Store,
        service: &ServiceName,
        owner: &Owner,
        ticket: Ticket,
    ) -> Result<(), FleetError> {
        let Some(entry) = self.entries.lock().get(&ticket).cloned() else { return Ok(()) };
        let mut told = entry.told.lock().await;
        for _ in 0..MAX_STEPS {
            let Some(piece) = entry.history.piece(told.upto, told.sure == Sure::No) else { break };
            let earlier: Vec<Seen> = piece.earlier.iter().map(|id| Seen { mark: id.mark, number: id.number }).collect();
            let batch = Batch {
                mark: piece.mark,
                earlier: &earlier,
                first: piece.first,
                oldest: piece.oldest,
                texts: &piece.texts,
            };
            match store.append(service, owner, ticket, &batch).await? {
                Appended::Upto(number) => *told = Told { upto: number, sure: Sure::Yes },
                Appended::Missing(number) => *told = Told { upto: number, sure: Sure::Yes },
                // Nobody will ask this worker for more.
                Appended::Over => {
                    *told = Told { upto: u64::MAX, sure: Sure::Yes };
                    break;
                }
            }
        }
        Ok(())
    }

    fn take_due(&self) -> Vec<Ticket> {
        let mut due = self.due.lock();
        let taken: Vec<Ticket> = due.iter().take(MAX_WRITES).copied().collect();
        for ticket in &taken {
            due.remove(ticket);
        }
        taken
    }
}

/// Writes what sessions put out, as long as it is polled.
pub(super) async fn write(member: Arc<Member>) {
    let journal = member.journal().clone();
    loop {
        journal.news.notified().await;
        sleep(GATHER).await;
        loop {
            let taken = journal.take_due();
            if taken.is_empty() {
                break;
            }
            let written = match member.owner() {
                Some(owner) => {
                    let flush = |ticket: &Ticket| journal.flush(&**member.store(), member.service(), &owner, *ticket);
                    join_all(taken.iter().map(flush)).await
                }
                // Nobody would know whose they are.
                None => taken.iter().map(|_| Err(FleetError::Unregistered)).collect(),
            };
            let failed: Vec<Ticket> = taken.iter().zip(&written).filter(|(_, w)| w.is_err()).map(|(t, _)| *t).collect();
            if !failed.is_empty() {
                sleep(RETRY).await;
                failed.into_iter().for_each(|ticket| journal.note(ticket));
            }
        }
    }
}
