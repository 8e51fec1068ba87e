//! What is to be done.

use std::cmp::Reverse;
use std::time::Duration;

use crate::fleet::{Fleet, count};
use crate::memory::Memory;
use crate::need::{Load, Need, Rule};
use crate::plan::{Limit, Plan, Why};
use crate::schedule;
use crate::snapshot::{Snapshot, Worker};
use crate::time::Moment;
use crate::tuning::{Mode, Tuning};
use crate::victims::Victims;

/// For how long a store is given the time to be told again of most of the workers: three renewals, and then some.
const FORGOTTEN: Duration = Duration::from_secs(15);

/// Pods that may start at a time, whatever there is: beyond it as many as there are, so that a fleet doubles.
const STARTING: u32 = 8;

/// Of so many workers one may be made in place of one that is overdue, and one at least.
const SPARE: u32 = 10;

/// Decides what is to be done with a service, or with one of its variants, at `now`.
///
/// Whatever it is told: it drains only where the figures are fresh, it removes only who has said to be empty, and it makes no
/// more than [`Tuning::max`] workers that serve and [`Tuning::ceiling`] pods.
#[must_use]
pub fn decide<Id: Clone + Ord>(tuning: &Tuning, snapshot: &Snapshot<Id>, memory: &mut Memory, now: Moment) -> Plan<Id> {
    memory.starts.learn(&snapshot.workers);
    memory.turn_back(now);
    let fleet = Fleet::of(tuning, snapshot, memory, now);
    if sees(snapshot, &fleet, memory, now) {
        learn(snapshot, &fleet, memory, now);
        change(tuning, &fleet, memory, now)
    } else {
        let (why, limited) = match snapshot.traffic {
            None => (Why::Unknown, Limit::Unknown),
            Some(_) => (Why::Lost, Limit::Lost),
        };
        stay(tuning, &fleet, (why, limited), memory, now)
    }
}

/// Whether the snapshot shows how things are.
fn sees<Id>(snapshot: &Snapshot<Id>, fleet: &Fleet<'_, Id>, memory: &mut Memory, now: Moment) -> bool {
    if snapshot.traffic.is_none() {
        return false;
    }
    if !fleet.is_mostly_lost() {
        memory.mostly_lost = None;
        return true;
    }
    now.since(*memory.mostly_lost.get_or_insert(now)) >= FORGOTTEN
}

/// What a snapshot teaches that shows how things are.
fn learn<Id>(snapshot: &Snapshot<Id>, fleet: &Fleet<'_, Id>, memory: &mut Memory, now: Moment) {
    let came = snapshot.traffic.is_some_and(|traffic| memory.rates.read(traffic, now));
    // Of a service that has no workers nobody knows when it was called: it is not, by all that is seen.
    let has_begun = memory.busy.is_none() && fleet.all() > 0;
    if came || fleet.sessions > 0 || fleet.load.held > 0 || has_begun {
        memory.busy = Some(now);
    }
    memory.looking.get_or_insert(now);
}

/// Nothing is known: what is there stays, and what has never been there is made only as far as it always is.
fn stay<Id>(
    tuning: &Tuning,
    fleet: &Fleet<'_, Id>,
    (why, limited): (Why, Limit),
    memory: &mut Memory,
    now: Moment,
) -> Plan<Id> {
    // What was wanted before says little afterwards.
    memory.looking = None;
    let floor = Rule::new(tuning, memory, now).floor();
    let there = fleet.all().saturating_add(fleet.lost);
    Plan {
        want: there.clamp(floor, tuning.max),
        why,
        buffer: 0,
        create: floor.saturating_sub(there).min(may_exist(tuning, fleet)),
        withdraw: 0,
        undrain: Vec::new(),
        drain: Vec::new(),
        remove: Vec::new(),
        limited: Some(limited),
        wake: memory.mostly_lost.map(|since| since + FORGOTTEN).filter(|wake| *wake > now),
    }
}

/// It is known how things are.
fn change<Id: Clone + Ord>(tuning: &Tuning, fleet: &Fleet<'_, Id>, memory: &mut Memory, now: Moment) -> Plan<Id> {
    let rule = Rule::new(tuning, memory, now);
    // Some of those that are overdue get another one in their place.
    let spare = count(fleet.overdue.len()).min((rule.need(fleet.load).want / SPARE).max(1));
    let mut fill = Fill { load: fleet.load, have: fleet.all() - spare };
    let undrain = fill.undrain(&rule, fleet);
    let need = rule.need(fill.load);
    let lacking = need.want.saturating_sub(fill.have);
    let create = lacking.min(may_start(tuning, fleet, &rule, spare)).min(may_exist(tuning, fleet));

    let wanted = memory.wanted.most(need.want, tuning.stabilization, now);
    let victims = Victims { tuning, fleet, rule: &rule, load: fill.load, wanted, now };
    let may_shrink = undrain.is_empty() && lacking == 0;
    let drain = victims.choose(memory, need.want, may_shrink);

    let kept = victims.least().min(fill.have).max(need.want);
    let withdraw =
        if may_shrink && victims.may_judge(memory) { fleet.coming.min(fill.have.saturating_sub(kept)) } else { 0 };
    let undrained = |worker: &&&Worker<Id>| undrain.contains(&worker.id);
    let remove = fleet.empty.iter().filter(|worker| !undrained(worker)).map(|worker| worker.id.clone()).collect();
    Plan {
        want: kept,
        why: if kept > need.want { Why::Stabilizing } else { need.why },
        buffer: need.buffer,
        create,
        withdraw,
        undrain,
        drain,
        remove,
        limited: limit(tuning, fleet, &need, lacking - create),
        wake: wake(tuning, memory, &rule, now),
    }
}

/// How a fleet fills up with workers that drain.
struct Fill {
    /// What those that serve carry.
    load: Load,
    /// Workers that serve or start.
    have: u32,
}

impl Fill {
    /// Puts back who drains while too few serve: the fullest first, which would go last and costs no pod more.
    fn undrain<Id: Clone + Ord>(&mut self, rule: &Rule, fleet: &Fleet<'_, Id>) -> Vec<Id> {
        let mut back = Vec::new();
        if self.have >= rule.need(self.load).want {
            return back;
        }
        let mut order = fleet.draining.clone();
        order.sort_unstable_by_key(|worker| (Reverse(worker.sessions), worker.created, &worker.id));
        for worker in order {
            if self.have >= rule.need(self.load).want {
                break;
            }
            self.have += 1;
            self.load.sessions = self.load.sessions.saturating_add(worker.sessions);
            back.push(worker.id.clone());
        }
        back
    }
}

/// Pods that may still be started: those that are overdue take up room as others that start, but for as many as get another one in
/// their place. Those who have set the number from outside, or as a minimum, mean it.
fn may_start<Id>(tuning: &Tuning, fleet: &Fleet<'_, Id>, rule: &Rule, spare: u32) -> u32 {
    match tuning.mode {
        Mode::External(_) => u32::MAX,
        Mode::Sessions => {
            let double = count(fleet.serving.len() + fleet.leaving.len());
            let at_a_time = STARTING.max(double).max(rule.floor());
            at_a_time.saturating_add(spare).saturating_sub(fleet.all_starting())
        }
    }
}

/// Pods that may still exist.
fn may_exist<Id>(tuning: &Tuning, fleet: &Fleet<'_, Id>) -> u32 {
    tuning.max.saturating_sub(fleet.all()).min(tuning.ceiling().saturating_sub(fleet.pods))
}

/// What keeps the service from having what it needs, with so many workers not made that it lacks.
fn limit<Id>(tuning: &Tuning, fleet: &Fleet<'_, Id>, need: &Need, lacking: u32) -> Option<Limit> {
    let overdue = count(fleet.overdue.len());
    if need.needs > tuning.max {
        Some(Limit::Max { needs: need.needs, max: tuning.max })
    } else if overdue > 0 {
        Some(Limit::NotReady { overdue })
    } else if lacking > 0 && fleet.pods >= tuning.ceiling() {
        Some(Limit::Pods { pods: fleet.pods })
    } else if lacking > 0 {
        Some(Limit::Starting { starting: fleet.starting })
    } else {
        None
    }
}

/// When time alone changes what is decided.
fn wake(tuning: &Tuning, memory: &Memory, rule: &Rule, now: Moment) -> Option<Moment> {
    let scheduled = schedule::next_change(&tuning.schedules, now, memory.lead(tuning));
    let idle = memory.busy.filter(|_| rule.floor() == 0).map(|busy| busy + tuning.idle);
    [scheduled, idle].into_iter().flatten().filter(|wake| *wake > now).min()
}

#[cfg(test)]
#[path = "decide_tests/mod.rs"]
mod tests;
