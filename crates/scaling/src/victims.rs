//! Who is drained.

use std::cmp::Reverse;
use std::time::Duration;

use crate::fleet::{Fleet, count};
use crate::memory::Memory;
use crate::need::{Load, Rule};
use crate::plan::{DrainReason, Why};
use crate::snapshot::{Figures, Worker};
use crate::time::Moment;
use crate::tuning::{Mode, Tuning};

/// The time over which drains are counted.
const MINUTE: Duration = Duration::from_secs(60);

/// Of so many workers that serve one may be drained in a minute, and one at least.
const DRAINED_IN_A_MINUTE: u32 = 10;

/// What the choice is made from.
pub(crate) struct Victims<'a, 's, Id> {
    pub(crate) tuning: &'a Tuning,
    pub(crate) fleet: &'a Fleet<'s, Id>,
    pub(crate) rule: &'a Rule,
    /// What those that serve carry.
    pub(crate) load: Load,
    /// The most that was wanted within the stabilization window.
    pub(crate) wanted: u32,
    pub(crate) now: Moment,
}

impl<Id: Clone + Ord> Victims<'_, '_, Id> {
    /// Who is drained, and why. `want` workers are to serve; `may_shrink` says whether none is lacking.
    pub(crate) fn choose(&self, memory: &mut Memory, want: u32, may_shrink: bool) -> Vec<(Id, DrainReason)> {
        let mut drain: Vec<(Id, DrainReason)> =
            self.fleet.misplaced.iter().map(|worker| (worker.id.clone(), DrainReason::Leaving)).collect();
        drain.extend(self.leaving(want));
        if may_shrink && !self.fleet.stale {
            drain.extend(self.never_ready());
        }
        if may_shrink && self.may_judge(memory) {
            drain.extend(self.surplus(memory));
        }
        drain
    }

    /// Whether it can be told who is one too many: where one of those that serve is not heard of, nobody knows whether enough do.
    pub(crate) fn may_judge(&self, memory: &Memory) -> bool {
        !self.fleet.stale && self.has_looked_on(memory)
    }

    /// Workers that do not become ready, once enough serve without them. They have never been of use: no window keeps them.
    fn never_ready(&self) -> impl Iterator<Item = (Id, DrainReason)> {
        let enough = count(self.fleet.serving.len()) >= self.least();
        let overdue = self.fleet.overdue.iter().filter(move |_| enough);
        overdue.map(|worker| (worker.id.clone(), DrainReason::NeverReady))
    }

    /// Workers whose node goes: each as soon as there is another one for it.
    fn leaving(&self, want: u32) -> impl Iterator<Item = (Id, DrainReason)> {
        let fresh = self.fleet.serving.iter().filter(|worker| worker.figures == Figures::Fresh).count();
        let open = count(fresh + self.fleet.leaving.len());
        let spared = open.saturating_sub(want) as usize;
        self.order(&self.fleet.leaving).into_iter().take(spared).map(|worker| (worker.id.clone(), DrainReason::Leaving))
    }

    /// Whether enough is known to call a worker that serves one too many.
    fn has_looked_on(&self, memory: &Memory) -> bool {
        self.tuning.mode != Mode::Sessions
            || memory.looking.is_some_and(|since| self.now.since(since) >= self.tuning.stabilization)
    }

    /// Workers that are too many.
    fn surplus(&self, memory: &mut Memory) -> Vec<(Id, DrainReason)> {
        let (mut have, least) = (count(self.fleet.serving.len()), self.least());
        let mut drain = Vec::new();
        if have <= least {
            return drain;
        }
        let mut budget = self.budget(memory, have);
        let (mut load, mut free) = (self.load, self.fleet.free());
        let all = have;
        for worker in self.order(&self.fleet.serving) {
            let left = Load { sessions: load.sessions.saturating_sub(worker.sessions), ..load };
            let need = self.rule.need(left);
            // Above the maximum nobody asks what is free.
            let is_needed = have <= self.tuning.max && free.saturating_sub(worker.free()) < need.buffer;
            if have == least || budget == 0 || is_needed {
                break;
            }
            (load, free) = (left, free.saturating_sub(worker.free()));
            have -= 1;
            budget -= 1;
            let reason = match need.why {
                Why::Idle => DrainReason::Idle,
                _ => DrainReason::Surplus { have: all, want: least },
            };
            drain.push((worker.id.clone(), reason));
        }
        if self.tuning.mode == Mode::Sessions {
            memory.drained.count(all - have, MINUTE, self.now);
        }
        drain
    }

    /// Workers that are left at least.
    pub(crate) fn least(&self) -> u32 {
        let need = self.rule.need(self.load);
        match need.why {
            // Whoever sets the number has his own window, and idleness is one.
            Why::External | Why::Idle => need.want,
            _ => self.wanted.min(self.tuning.max),
        }
    }

    /// Workers that may still be drained in this minute.
    fn budget(&self, memory: &mut Memory, have: u32) -> u32 {
        match self.tuning.mode {
            Mode::Sessions => {
                let drained = memory.drained.sum(MINUTE, self.now);
                ((have + drained) / DRAINED_IN_A_MINUTE).max(1).saturating_sub(drained)
            }
            Mode::External(_) => u32::MAX,
        }
    }

    /// The order in which they go: who has the fewest sessions, and of those who is the youngest.
    fn order<'s>(&self, workers: &[&'s Worker<Id>]) -> Vec<&'s Worker<Id>> {
        let mut order = workers.to_vec();
        order.sort_unstable_by_key(|worker| (worker.sessions, Reverse(worker.created), &worker.id));
        order
    }
}
