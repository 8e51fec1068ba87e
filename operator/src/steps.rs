//! What is done, in which order, so that a plan is carried out without ending a session.
//!
//! 1. Workers are put back: first nobody may evict them, then they take sessions.
//! 2. Objects are written, with as many replicas as there shall be at most.
//! 3. Workers are drained: first their pods say so, then they are asked to. What was left undone by a process that died is
//!    seen in the pods, and done again.
//! 4. Drained workers go: an eviction may take them, they are deleted by name and uid, and only then `replicas` is lowered. A
//!    ReplicaSet that has too many pods takes pending ones first: the replacement that it has just made of the deleted pod. The
//!    other way round it would choose by readiness, and could choose one with calls.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use streamfleet_scaling::{Moment, Phase, Plan, Stay, Worker};
use streamfleet_service::spec::Disruption;
use streamfleet_store::{Gate, WorkerView};

use crate::facts::{PodFacts, Stage};
use crate::workers::Views;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A pod says that it serves, and nobody may evict it.
    MarkServing(PodId),
    /// A pod says that it drains, since when and why.
    MarkDraining(PodId, Moment, String),
    /// The store is told what is wanted of a worker.
    Ask(String, Gate),
    /// An eviction may take a pod.
    Unprotect(PodId),
    /// It may not.
    Protect(PodId),
    /// A pod is deleted, gracefully.
    Delete(PodId),
    /// A pod is deleted whose sessions have had their time: with what it needs to leave, and no more.
    Expel(PodId),
}

impl Step {
    /// The pod that it is about.
    #[must_use]
    pub fn pod(&self) -> &str {
        match self {
            Self::MarkServing(pod)
            | Self::MarkDraining(pod, ..)
            | Self::Unprotect(pod)
            | Self::Protect(pod)
            | Self::Delete(pod)
            | Self::Expel(pod) => &pod.name,
            Self::Ask(worker, _) => worker,
        }
    }
}

/// Exactly one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodId {
    /// Its name.
    pub name: String,
    /// Its uid: another pod of the same name is not meant.
    pub uid: String,
}

impl PodId {
    fn of(pod: &PodFacts) -> Self {
        Self { name: pod.name.clone(), uid: pod.uid.clone() }
    }
}

/// What is to be done with workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Pods to create.
    pub create: u32,
    /// Pods that were asked for, cannot be made and are not wanted any more.
    pub withdraw: u32,
    /// Workers to put back.
    pub undrain: Vec<String>,
    /// Workers to drain, and why.
    pub drain: Vec<(String, String)>,
    /// Workers to remove.
    pub remove: Vec<String>,
}

impl From<&Plan<String>> for Wanted {
    fn from(plan: &Plan<String>) -> Self {
        Self {
            create: plan.create,
            withdraw: plan.withdraw,
            undrain: plan.undrain.clone(),
            drain: plan.drain.iter().map(|(id, why)| (id.clone(), why.to_string())).collect(),
            remove: plan.remove.clone(),
        }
    }
}

/// What is to be done with workers that shall all go, because their service does. Of those that are `silent` nobody will ever say that
/// they are empty: they go as if somebody had, with all of their grace.
#[must_use]
pub fn close(workers: &[Worker<String>], silent: &HashSet<String>, why: &str) -> Wanted {
    let mut wanted = Wanted::default();
    for worker in workers.iter().filter(|worker| worker.stay != Stay::Ending) {
        if worker.phase == Phase::Draining {
            if worker.empty || silent.contains(&worker.id) {
                wanted.remove.push(worker.id.clone());
            }
        } else {
            wanted.drain.push((worker.id.clone(), why.to_owned()));
        }
    }
    wanted
}

/// How drains are bounded, and what evictions may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The longest drain; `None` until the last session is over.
    pub max_drain: Option<Duration>,
    /// Whom the platform may evict.
    pub disruption: Disruption,
    /// Now.
    pub now: Moment,
}

impl Rules {
    /// Whether a worker drains for longer than it may.
    #[must_use]
    pub fn is_overdue(&self, pod: &PodFacts) -> bool {
        let since = pod.marks.since.filter(|_| pod.marks.draining && !pod.ending);
        since.zip(self.max_drain).is_some_and(|(since, most)| self.now > since + most)
    }
}

/// The steps of one look at some workers, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steps {
    /// Before objects are written.
    pub first: Vec<Step>,
    /// After that.
    pub then: Vec<Step>,
    /// Workers that go; pods that are over are deleted as well, and were not counted any more.
    pub removed: HashSet<String>,
}

/// What was done, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deeds {
    /// Workers put back.
    pub undrained: Vec<String>,
    /// Workers that drain from now on, and why.
    pub drained: Vec<(String, String)>,
    /// Workers that go.
    pub removed: Vec<String>,
    /// Workers whose clients are told to go elsewhere, because they drain for longer than they may.
    pub expired: Vec<String>,
}

/// The steps that carry out what is wanted of these workers, and those that an earlier look did not get to. `views` are none where
/// the store does not answer: what it has said before is no reason to end anything, and nor is the time. `goes` is whether a pod's node
/// does; `over` whether a worker that drains for too long has had its [last time](crate::farewell).
#[must_use]
pub fn steps(
    wanted: &Wanted,
    pods: &[&PodFacts],
    views: Option<&Views<'_>>,
    rules: &Rules,
    goes: impl Fn(&PodFacts) -> bool,
    over: impl Fn(&PodFacts) -> bool,
) -> Steps {
    let mut steps = Steps::default();
    let wanted = Wishes::of(wanted);
    for pod in pods {
        let known = views.map(|views| views.get(&pod.name));
        let of_pod = OfPod { pod, known, rules, leaving: goes(pod), over: over(pod) };
        of_pod.steps(&wanted, &mut steps);
    }
    steps
}

/// What is wanted, by worker: a large fleet is looked through every two seconds.
struct Wishes<'a> {
    undrain: HashSet<&'a str>,
    drain: HashMap<&'a str, &'a str>,
    remove: HashSet<&'a str>,
}

impl<'a> Wishes<'a> {
    fn of(wanted: &'a Wanted) -> Self {
        Self {
            undrain: wanted.undrain.iter().map(String::as_str).collect(),
            drain: wanted.drain.iter().map(|(id, why)| (id.as_str(), why.as_str())).collect(),
            remove: wanted.remove.iter().map(String::as_str).collect(),
        }
    }
}

struct OfPod<'a> {
    pod: &'a PodFacts,
    /// What the store tells of its worker, which may be nothing; `None` where the store does not answer.
    known: Option<Option<&'a WorkerView>>,
    rules: &'a Rules,
    /// Its node goes.
    leaving: bool,
    /// It has had its last time.
    over: bool,
}

impl OfPod<'_> {
    fn steps(&self, wanted: &Wishes<'_>, steps: &mut Steps) {
        let pod = self.pod;
        let id = || PodId::of(pod);
        let name = || pod.name.clone();
        if pod.ending {
            self.end(steps);
            return;
        }
        if pod.stage == Stage::Over {
            steps.then.push(Step::Delete(id()));
            return;
        }
        if wanted.undrain.contains(pod.name.as_str()) {
            if pod.marks.draining {
                steps.first.push(Step::MarkServing(id()));
            }
            steps.first.push(Step::Ask(name(), Gate::Open));
            return;
        }
        if wanted.remove.contains(pod.name.as_str()) {
            self.remove(Step::Delete, steps);
            return;
        }
        let why = wanted.drain.get(pod.name.as_str()).map(|why| (*why).to_owned());
        match why.or_else(|| self.asked_elsewhere()) {
            Some(why) if !pod.marks.draining => {
                steps.then.push(Step::MarkDraining(id(), self.rules.now, why));
                self.ask(Gate::Draining, steps);
            }
            None if !pod.marks.draining => {
                if !pod.marks.protected {
                    steps.then.push(Step::Protect(id()));
                }
            }
            _ => self.go_on(steps),
        }
    }

    /// It is being deleted, and drains of its own accord. That it takes no more sessions is said for it: it may not have heard.
    fn end(&self, steps: &mut Steps) {
        self.ask(Gate::Draining, steps);
    }

    /// It drains already.
    fn go_on(&self, steps: &mut Steps) {
        if !self.rules.is_overdue(self.pod) {
            self.ask(Gate::Draining, steps);
        } else if let Some(how) = self.overdue(steps) {
            self.remove(how, steps);
            return;
        }
        // Whoever upgrades a cluster does not wait for calls to end, where the service says that this is all right. They have
        // their grace. A node that stays after all does not take the others' with it.
        let may_be_evicted = self.rules.disruption == Disruption::OnUpgrade && self.leaving;
        match (may_be_evicted, self.pod.marks.protected) {
            (true, true) => steps.then.push(Step::Unprotect(PodId::of(self.pod))),
            (false, false) => steps.then.push(Step::Protect(PodId::of(self.pod))),
            (true, false) | (false, true) => {}
        }
    }

    /// It has drained for longer than it may. Its clients are asked to go elsewhere, and have their last time from when its worker has
    /// heard of that: how long it drains does not say so, where the store or all operators were away, or the bound is a new one. Returns
    /// how it goes, if it does now.
    fn overdue(&self, steps: &mut Steps) -> Option<fn(PodId) -> Step> {
        let how: fn(PodId) -> Step = match self.known? {
            // With its own grace it would drain for as long once more.
            Some(_) => Step::Expel,
            // Nobody can ask one that the store does not know. SIGTERM does, with all of its grace.
            None => Step::Delete,
        };
        self.ask(Gate::Leaving, steps);
        self.over.then_some(how)
    }

    fn remove(&self, how: fn(PodId) -> Step, steps: &mut Steps) {
        if self.pod.marks.protected {
            steps.then.push(Step::Unprotect(PodId::of(self.pod)));
        }
        steps.then.push(how(PodId::of(self.pod)));
        steps.removed.insert(self.pod.name.clone());
    }

    fn view(&self) -> Option<&WorkerView> {
        self.known.flatten()
    }

    /// Asks it, unless that was done. One that the store does not know has nobody to ask.
    fn ask(&self, gate: Gate, steps: &mut Steps) {
        if self.view().is_some_and(|view| view.gate < gate) {
            steps.then.push(Step::Ask(self.pod.name.clone(), gate));
        }
    }

    /// Somebody else has asked it to drain, and it does: its pod is to say so.
    fn asked_elsewhere(&self) -> Option<String> {
        let view = self.view()?;
        let said = view.said.as_ref()?;
        let drains = view.gate != Gate::Open && said.gate != Gate::Open && view.has_heard();
        drains.then(|| "it was asked to by somebody else".to_owned())
    }
}

#[cfg(test)]
mod played;
#[cfg(test)]
mod tests;
