//! A snapshot, told apart by what may be done with whom.

use std::time::Duration;

use crate::memory::Memory;
use crate::need::Load;
use crate::snapshot::{Figures, Phase, Snapshot, Stay, Worker};
use crate::time::Moment;
use crate::tuning::Tuning;

/// A pod that has been starting for less than this is never overdue.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many times as long as others a pod may take before it is overdue.
const SLOWER: u32 = 3;

/// The workers of a snapshot by what may be done with them.
#[derive(Debug)]
pub(crate) struct Fleet<'s, Id> {
    /// They serve, and may stay.
    pub(crate) serving: Vec<&'s Worker<Id>>,
    /// They serve, and shall go.
    pub(crate) leaving: Vec<&'s Worker<Id>>,
    /// They drain, and may be put back, since they have served.
    pub(crate) draining: Vec<&'s Worker<Id>>,
    /// They start where they cannot stay.
    pub(crate) misplaced: Vec<&'s Worker<Id>>,
    /// They have been starting for too long.
    pub(crate) overdue: Vec<&'s Worker<Id>>,
    /// They drain, and say that they are empty.
    pub(crate) empty: Vec<&'s Worker<Id>>,
    /// Those that start, overdue ones apart; those that do not exist yet are among them.
    pub(crate) starting: u32,
    /// Those that were asked for and do not exist.
    pub(crate) coming: u32,
    /// Those whose lease has run out.
    pub(crate) lost: u32,
    /// Those whose lease holds.
    pub(crate) known: u32,
    /// All pods.
    pub(crate) pods: u32,
    /// Whether what one of those that serve says is old.
    pub(crate) stale: bool,
    /// Sessions of all that are not lost, of those that drain too.
    pub(crate) sessions: u32,
    /// What those that serve carry.
    pub(crate) load: Load,
}

impl<'s, Id> Fleet<'s, Id> {
    pub(crate) fn of(tuning: &Tuning, snapshot: &'s Snapshot<Id>, memory: &Memory, now: Moment) -> Self {
        let patience = memory.start(tuning).saturating_mul(SLOWER).max(PATIENCE);
        let mut fleet = Self {
            serving: Vec::with_capacity(snapshot.workers.len()),
            leaving: Vec::new(),
            draining: Vec::new(),
            misplaced: Vec::new(),
            overdue: Vec::new(),
            empty: Vec::new(),
            starting: snapshot.coming,
            coming: snapshot.coming,
            lost: 0,
            known: 0,
            pods: count(snapshot.workers.len()).saturating_add(snapshot.coming),
            stale: false,
            sessions: 0,
            load: Load { held: snapshot.traffic.map_or(0, |traffic| traffic.held), ..Load::default() },
        };
        for worker in &snapshot.workers {
            fleet.add(worker, now, patience);
        }
        fleet
    }

    fn add(&mut self, worker: &'s Worker<Id>, now: Moment, patience: Duration) {
        if matches!(worker.phase, Phase::Serving | Phase::Draining) {
            self.known = self.known.saturating_add(1);
        }
        if worker.phase != Phase::Lost {
            self.sessions = self.sessions.saturating_add(worker.sessions);
        }
        match (worker.phase, worker.stay) {
            (Phase::Lost, _) => self.lost = self.lost.saturating_add(1),
            // It goes of its own accord, whatever else it is.
            (_, Stay::Ending) => {}
            (Phase::Starting, Stay::Leaving) => self.misplaced.push(worker),
            (Phase::Starting, Stay::Welcome) if now.since(worker.since) > patience => self.overdue.push(worker),
            (Phase::Starting, Stay::Welcome) => self.starting = self.starting.saturating_add(1),
            (Phase::Serving, stay) => {
                self.stale |= worker.figures == Figures::Stale;
                self.load.sessions = self.load.sessions.saturating_add(worker.sessions);
                if stay == Stay::Leaving { self.leaving.push(worker) } else { self.serving.push(worker) }
            }
            (Phase::Draining, stay) => {
                let fresh = worker.figures == Figures::Fresh;
                if worker.empty && fresh {
                    self.empty.push(worker);
                }
                if stay == Stay::Welcome && fresh && has_served(worker) {
                    self.draining.push(worker);
                }
            }
        }
    }

    /// Free places of those that serve and may stay.
    pub(crate) fn free(&self) -> u32 {
        self.serving.iter().fold(0, |free, worker| free.saturating_add(worker.free()))
    }

    /// Those that start, overdue ones included.
    pub(crate) fn all_starting(&self) -> u32 {
        self.starting.saturating_add(count(self.overdue.len()))
    }

    /// Those that serve or start, where they may stay.
    pub(crate) fn all(&self) -> u32 {
        self.all_starting().saturating_add(count(self.serving.len()))
    }

    /// Whether most of those that have served are lost: then the store has rather forgotten them than they have died.
    pub(crate) fn is_mostly_lost(&self) -> bool {
        self.lost > self.known
    }
}

/// Whether it can be put back: a pod that was drained because it never became ready serves nobody then either.
fn has_served<Id>(worker: &Worker<Id>) -> bool {
    worker.start.is_some() || worker.sessions > 0
}

/// A number of workers. A cluster has far fewer than can be counted.
pub(crate) fn count(workers: usize) -> u32 {
    u32::try_from(workers).unwrap_or(u32::MAX)
}
