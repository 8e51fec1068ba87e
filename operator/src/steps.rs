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

/// How long the sessions of an overdue worker have after their clients were told to go elsewhere.
pub const FAREWELL: Duration = Duration::from_secs(60);

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
        self.overdue_for(pod).is_some()
    }

    /// For how long.
    fn overdue_for(&self, pod: &PodFacts) -> Option<Duration> {
        let since = pod.marks.since.filter(|_| pod.marks.draining && !pod.ending)?;
        let over = self.now.since(since + self.max_drain?);
        (over > Duration::ZERO).then_some(over)
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
/// the store does not answer: what it has said before is no reason to end anything.
#[must_use]
pub fn steps(
    wanted: &Wanted,
    pods: &[&PodFacts],
    views: &Views<'_>,
    rules: &Rules,
    goes: impl Fn(&PodFacts) -> bool,
) -> Steps {
    let mut steps = Steps::default();
    let wanted = Wishes::of(wanted);
    for pod in pods {
        let of_pod = OfPod { pod, view: views.get(&pod.name), rules, leaving: goes(pod) };
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
    view: Option<&'a WorkerView>,
    rules: &'a Rules,
    /// Its node goes.
    leaving: bool,
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
        match self.rules.overdue_for(self.pod) {
            Some(over) if over > FAREWELL => {
                self.remove(Step::Expel, steps);
                return;
            }
            Some(_) => self.ask(Gate::Leaving, steps),
            None => self.ask(Gate::Draining, steps),
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

    fn remove(&self, how: fn(PodId) -> Step, steps: &mut Steps) {
        if self.pod.marks.protected {
            steps.then.push(Step::Unprotect(PodId::of(self.pod)));
        }
        steps.then.push(how(PodId::of(self.pod)));
        steps.removed.insert(self.pod.name.clone());
    }

    /// Asks it, unless that was done. One that the store does not know has nobody to ask.
    fn ask(&self, gate: Gate, steps: &mut Steps) {
        if self.view.is_some_and(|view| view.gate < gate) {
            steps.then.push(Step::Ask(self.pod.name.clone(), gate));
        }
    }

    /// Somebody else has asked it to drain, and it does: its pod is to say so.
    fn asked_elsewhere(&self) -> Option<String> {
        let view = self.view?;
        let said = view.said.as_ref()?;
        let drains = view.gate != Gate::Open && said.gate != Gate::Open && said.heard == view.order;
        drains.then(|| "it was asked to by somebody else".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doubles::{self, NOW};
    use crate::facts::Marks;

    const RULES: Rules = Rules { max_drain: None, disruption: Disruption::Never, now: NOW };

    fn pod(marks: Marks) -> PodFacts {
        PodFacts { marks, ..doubles::pod("a", Stage::Ready(NOW)) }
    }

    fn serving() -> PodFacts {
        pod(Marks { protected: true, ..Marks::default() })
    }

    fn draining(for_seconds: u64) -> PodFacts {
        let since = Some(NOW - Duration::from_secs(for_seconds));
        pod(Marks { draining: true, since, reason: None, protected: true })
    }

    fn view(gate: Gate) -> WorkerView {
        doubles::view("a", gate, 1)
    }

    fn id() -> PodId {
        PodId { name: "a".to_owned(), uid: "uid-a".to_owned() }
    }

    fn of(wanted: &Wanted, pod: &PodFacts, gate: Gate, rules: &Rules) -> (Vec<Step>, Vec<Step>) {
        let steps = steps(wanted, &[pod], &Views::of(&[view(gate)]), rules, |_| true);
        (steps.first, steps.then)
    }

    fn ask(gate: Gate) -> Step {
        Step::Ask("a".to_owned(), gate)
    }

    #[test]
    fn each_way_has_its_order() {
        let none = Wanted::default();
        let drain = Wanted { drain: vec![("a".to_owned(), "why".to_owned())], ..Wanted::default() };
        let undrain = Wanted { undrain: vec!["a".to_owned()], ..Wanted::default() };
        let remove = Wanted { remove: vec!["a".to_owned()], ..Wanted::default() };
        let mark = Step::MarkDraining(id(), NOW, "why".to_owned());
        assert_eq!(of(&none, &serving(), Gate::Open, &RULES), (vec![], vec![]), "nothing to do is nothing done");
        assert_eq!(of(&none, &draining(9), Gate::Draining, &RULES), (vec![], vec![]));
        assert_eq!(of(&drain, &serving(), Gate::Open, &RULES), (vec![], vec![mark, ask(Gate::Draining)]));
        // The process that marked it died before it could ask.
        assert_eq!(of(&none, &draining(9), Gate::Open, &RULES), (vec![], vec![ask(Gate::Draining)]));
        assert_eq!(
            of(&undrain, &draining(9), Gate::Draining, &RULES),
            (vec![Step::MarkServing(id()), ask(Gate::Open)], vec![])
        );
        assert_eq!(
            of(&undrain, &serving(), Gate::Draining, &RULES),
            (vec![ask(Gate::Open)], vec![]),
            "it has not heard"
        );
        assert_eq!(
            of(&remove, &draining(9), Gate::Draining, &RULES),
            (vec![], vec![Step::Unprotect(id()), Step::Delete(id())])
        );
        let bare = pod(Marks::default());
        assert_eq!(of(&none, &bare, Gate::Open, &RULES).1, [Step::Protect(id())], "taken away by hand");
        let ending = PodFacts { ending: true, ..draining(9) };
        assert_eq!(of(&remove, &ending, Gate::Draining, &RULES), (vec![], vec![]), "it goes already");
        let over = PodFacts { stage: Stage::Over, ..serving() };
        assert_eq!(of(&none, &over, Gate::Open, &RULES).1, [Step::Delete(id())]);
    }

    #[test]
    fn who_ends_takes_no_more_sessions() {
        let ending = PodFacts { ending: true, ..serving() };
        let of_view =
            |view: WorkerView| steps(&Wanted::default(), &[&ending], &Views::of(&[view]), &RULES, |_| false).then;
        assert_eq!(of_view(view(Gate::Open)), [ask(Gate::Draining)], "it may not have heard of it");
        assert_eq!(of_view(view(Gate::Draining)), []);
    }

    #[test]
    fn a_drain_may_be_bounded() {
        let none = Wanted::default();
        let rules = Rules { max_drain: Some(Duration::from_secs(30)), ..RULES };
        assert_eq!(of(&none, &draining(30), Gate::Draining, &rules).1, []);
        assert_eq!(of(&none, &draining(31), Gate::Draining, &rules).1, [ask(Gate::Leaving)]);
        assert_eq!(of(&none, &draining(31), Gate::Leaving, &rules).1, [], "once");
        // With its own grace it would drain for as long once more.
        assert_eq!(of(&none, &draining(91), Gate::Leaving, &rules).1, [Step::Unprotect(id()), Step::Expel(id())]);
        assert!(rules.is_overdue(&draining(31)) && !rules.is_overdue(&draining(30)));
        assert!(!RULES.is_overdue(&draining(1_000_000)));
    }

    #[test]
    fn upgrades_wait_for_calls_unless_the_service_says_otherwise() {
        let none = Wanted::default();
        let rules = Rules { disruption: Disruption::OnUpgrade, ..RULES };
        assert_eq!(of(&none, &draining(9), Gate::Draining, &rules).1, [Step::Unprotect(id())]);
        assert_eq!(of(&none, &serving(), Gate::Open, &rules).1, [], "its replacement is not there yet");
        let mut bare = draining(9);
        bare.marks.protected = false;
        let then = |goes| steps(&none, &[&bare], &Views::of(&[view(Gate::Draining)]), &rules, |_| goes).then;
        assert_eq!(then(true), []);
        assert_eq!(then(false), [Step::Protect(id())], "the node stays after all, and it has calls");
    }

    #[test]
    fn somebody_else_may_drain_a_worker() {
        let why = "it was asked to by somebody else".to_owned();
        let found = of(&Wanted::default(), &serving(), Gate::Draining, &RULES).1;
        assert_eq!(found, [Step::MarkDraining(id(), NOW, why)]);
    }

    #[test]
    fn a_service_that_goes_drains_all_and_removes_who_is_empty() {
        let worker = |id: &str, phase, empty| Worker {
            phase,
            empty,
            ..Worker::serving(id.to_owned(), Moment::default(), Duration::ZERO, 0, 20)
        };
        let lost = worker("lost", Phase::Lost, false);
        let ending = Worker { stay: Stay::Ending, ..worker("ending", Phase::Draining, true) };
        let workers = [
            worker("serving", Phase::Serving, false),
            worker("busy", Phase::Draining, false),
            worker("empty", Phase::Draining, true),
            lost,
            ending,
        ];
        let silent = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(close(&workers, &silent(&["busy", "serving"]), "deleted").remove, ["busy", "empty"]);
        let wanted = close(&workers, &silent(&[]), "deleted");
        assert_eq!(wanted.remove, ["empty"]);
        assert_eq!(wanted.drain.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["serving", "lost"]);
        assert_eq!((wanted.create, wanted.undrain.len()), (0, 0));
    }
}
