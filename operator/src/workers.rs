//! What is known of a service's workers, put together: what the platform says of pods, and what the store says of workers.
//!
//! The platform's word is taken for which pods exist, the store's for which of them serve: a pod of a dead node is "Running" for
//! minutes, and one whose probe is late is not "Ready" and has calls all the same.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use streamfleet_scaling::{Figures, Moment, Phase, Snapshot, Stay, Traffic, Worker};
use streamfleet_store::{Gate, WorkerView};

use crate::facts::{PodFacts, Stage};

/// A worker renews every two seconds or so; one that has missed this much says what was.
const STALE: Duration = Duration::from_secs(5);
/// A node that lives says within a second that it was given a pod.
const UNNOTICED: Duration = Duration::from_secs(3);

/// A process that can register does so within seconds, and one that has lost its lease comes back within as many.
const SILENCE: Duration = Duration::from_secs(5 * 60);
/// A node that lives has told by then that a pod is gone which it had to kill.
const KILLED: Duration = Duration::from_secs(30);
/// A start that took longer, of a pod that was not seen to start, is none: its probe has failed in between, hours later perhaps.
const LONGEST_START: Duration = Duration::from_secs(600);

/// What is carried from one look at a service's pods to the next. One entry for each pod.
#[derive(Debug, Clone, Default)]
pub struct Acquaintance(HashMap<String, Met>);

/// A pod that was met.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Met {
    /// Whether the first sight of it was before any process of it ran: then what was not seen since has not been.
    from_birth: bool,
    /// Whether its worker has ever been in the store's directory, and how often its process had died by then.
    registered: Option<i32>,
    phase: Phase,
    since: Moment,
    /// From its creation until it served first.
    start: Option<Duration>,
    /// Since when the store has answered, each time, that it does not know it.
    unknown: Option<Moment>,
}

impl Met {
    /// It served so long after its creation, if that was for the first time. Both are said by the cluster: this machine's clock may be
    /// another. Where a node's is behind the API server's nothing is learned, as no start takes no time.
    fn started(&mut self, after: Duration) {
        if !after.is_zero() && (self.from_birth || after < LONGEST_START) {
            self.start.get_or_insert(after);
        }
    }
}

/// Workers, as the store has last told of them, by name.
#[derive(Debug, Clone, Default)]
pub struct Views<'a>(HashMap<&'a str, &'a WorkerView>);

impl<'a> Views<'a> {
    /// Of these.
    #[must_use]
    pub fn of(views: &'a [WorkerView]) -> Self {
        views.iter().collect()
    }

    /// What it has told of one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a WorkerView> {
        self.0.get(name).copied()
    }
}

impl<'a> FromIterator<&'a WorkerView> for Views<'a> {
    fn from_iter<T: IntoIterator<Item = &'a WorkerView>>(views: T) -> Self {
        Self(views.into_iter().map(|view| (view.owner.worker.as_str(), view)).collect())
    }
}

/// All that there is to know about a service at one moment, but what it wants.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// Its pods.
    pub pods: &'a [&'a PodFacts],
    /// Its workers, as the store has last told of them.
    pub views: &'a Views<'a>,
    /// Whether that is how things are, or how they were.
    pub figures: Figures,
    /// Now.
    pub now: Moment,
}

/// What is to be known of a pod beside the pod: said by whoever asks, of one pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// Whether it has to go from where it is.
    pub leaving: bool,
}

impl Acquaintance {
    /// The workers that there are: a worker for each pod that is not over. Those that drain for too long, or whose node goes,
    /// are for `circumstances` to say.
    pub fn workers(
        &mut self,
        sight: &Sight<'_>,
        capacity: u32,
        circumstances: impl Fn(&PodFacts) -> Circumstances,
    ) -> Vec<Worker<String>> {
        let uids: HashSet<&str> = sight.pods.iter().map(|pod| pod.uid.as_str()).collect();
        self.0.retain(|uid, _| uids.contains(uid.as_str()));
        let there: Vec<&PodFacts> = sight.pods.iter().copied().filter(|pod| pod.stage != Stage::Over).collect();
        let of = |pod: &&PodFacts| self.worker(pod, sight, capacity, circumstances(pod));
        let mut workers: Vec<_> = there.iter().map(of).collect();
        let dead = dead_nodes(&there, &workers);
        for (pod, worker) in there.iter().zip(&mut workers) {
            let is_dead = pod.node.as_deref().is_some_and(|node| dead.contains(node));
            let unnoticed = !pod.noticed && sight.now.since(pod.created) > UNNOTICED;
            if worker.phase == Phase::Starting && worker.stay == Stay::Welcome && unnoticed && is_dead {
                worker.stay = Stay::Leaving;
            }
        }
        workers
    }

    /// Pods that the store has not known for so long, though it has answered all the time, that their workers will never be in it: one
    /// that has the wrong password never was. By name.
    #[must_use]
    pub fn silent(&self, pods: &[PodFacts], now: Moment) -> HashSet<String> {
        let is_silent = |pod: &&PodFacts| {
            let since = self.0.get(&pod.uid).and_then(|met| met.unknown);
            since.is_some_and(|since| now.since(since) >= SILENCE)
        };
        pods.iter().filter(is_silent).map(|pod| pod.name.clone()).collect()
    }

    fn worker(
        &mut self,
        pod: &PodFacts,
        sight: &Sight<'_>,
        capacity: u32,
        circumstances: Circumstances,
    ) -> Worker<String> {
        let view = sight.views.get(&pod.name);
        let met = self.0.entry(pod.uid.clone()).or_insert_with(|| Met {
            from_birth: pod.stage == Stage::Waiting && pod.restarts == 0,
            registered: None,
            phase: Phase::Starting,
            since: pod.created,
            start: None,
            unknown: None,
        });
        if let Stage::Ready(at) = pod.stage {
            // Ready means that it has renewed its lease.
            met.registered.get_or_insert(pod.restarts);
            met.started(at.since(pod.created));
        }
        met.unknown = match (sight.figures, view) {
            (Figures::Fresh, None) => Some(met.unknown.map_or(sight.now, |since| since.min(sight.now))),
            _ => None,
        };
        if pod.was_ready {
            met.registered.get_or_insert(pod.restarts);
        }
        if view.is_some() {
            met.registered = Some(pod.restarts);
        }
        let said = view.and_then(|view| view.said.as_ref());
        let is_ready = matches!(pod.stage, Stage::Ready(_));
        let phase = match view {
            _ if pod.ending || pod.marks.draining => Phase::Draining,
            // One that was ready before anybody here has met it has been in the directory.
            None if sight.figures == Figures::Stale && met.phase == Phase::Starting && is_ready => Phase::Serving,
            // What the store does not say cannot make anybody lost while it says nothing at all.
            None if sight.figures == Figures::Stale && met.phase != Phase::Draining => met.phase,
            Some(view) if said.is_some() && view.gate != Gate::Open => Phase::Draining,
            Some(_) if said.is_some() => Phase::Serving,
            Some(_) => Phase::Starting,
            None => match met.registered {
                Some(restarts) if pod.restarts <= restarts => Phase::Lost,
                // Its process has died since, and the next one has not registered; or there was none.
                _ => Phase::Starting,
            },
        };
        // Since later than now: of a clock that was put back, and no time would pass until it is again where it was.
        if met.phase != phase || met.since > sight.now {
            (met.phase, met.since) = (phase, sight.now);
        }
        let since = match phase {
            Phase::Draining => pod.marks.since.unwrap_or(met.since),
            _ => met.since,
        };
        let figures = match (sight.figures, view) {
            (Figures::Fresh, Some(view)) if view.age <= STALE => Figures::Fresh,
            // It has never said anything, and that is how it is.
            (Figures::Fresh, None) if phase == Phase::Starting || holds_nothing(pod, met) => Figures::Fresh,
            _ => Figures::Stale,
        };
        let empty = figures == Figures::Fresh
            && phase == Phase::Draining
            && match view {
                Some(view) => view.is_drained(),
                None => holds_nothing(pod, met),
            };
        Worker {
            id: pod.name.clone(),
            phase,
            created: pod.created,
            since,
            start: met.start,
            sessions: view
                .map_or(0, |view| view.sessions.max(said.map_or(0, |said| said.active.saturating_add(said.reserved)))),
            capacity: said.map_or(capacity, |said| said.capacity),
            figures,
            stay: match (pod.ending, circumstances.leaving) {
                (true, _) => Stay::Ending,
                (false, true) => Stay::Leaving,
                (false, false) => Stay::Welcome,
            },
            empty,
        }
    }
}

/// Whether nothing of a pod is left to wait for. Where its node has died nobody says so: it stays until the node's object goes. It
/// counts as over when its grace is, as its node has been told to end whatever it has, and the store answers that it knows of no such
/// worker: one with a call renews its lease.
#[must_use]
pub fn is_over(pod: &PodFacts, views: &Views<'_>, figures: Figures, now: Moment) -> bool {
    let is_known = || views.get(&pod.name).is_some();
    let is_late = || pod.ending && pod.gone_by.is_some_and(|by| now.since(by) > KILLED);
    pod.stage == Stage::Over || (figures == Figures::Fresh && is_late() && !is_known())
}

/// Nodes that look dead before the platform says so, which takes it the better part of a minute: a worker there is lost, and none is
/// heard of. Meanwhile it goes on giving them pods, which nobody starts: the replacement of the lost worker first of all.
fn dead_nodes<'a>(pods: &[&'a PodFacts], workers: &[Worker<String>]) -> HashSet<&'a str> {
    let on = |phases: &[Phase]| -> HashSet<&'a str> {
        let there = pods.iter().zip(workers).filter(|(_, worker)| phases.contains(&worker.phase));
        there.filter_map(|(pod, _)| pod.node.as_deref()).collect()
    };
    &on(&[Phase::Lost]) - &on(&[Phase::Serving])
}

/// Whether a pod that the store does not know holds nothing: no process of it runs, or none has ever been in the directory.
fn holds_nothing(pod: &PodFacts, met: &Met) -> bool {
    pod.stage == Stage::Waiting || (met.from_birth && met.registered.is_none())
}

/// Those of them that are of one Deployment.
#[must_use]
pub fn of_deployment<'a>(pods: &[&'a PodFacts], name: &str) -> Vec<&'a PodFacts> {
    pods.iter().copied().filter(|pod| pod.deployment.as_deref() == Some(name)).collect()
}

/// A snapshot of workers of which `replicas` have been asked for. While a Deployment replaces its pods there are more for a
/// moment: those that have just been made stand in for others that go, and are no surplus.
#[must_use]
pub fn snapshot(
    mut workers: Vec<Worker<String>>,
    replicas: u32,
    rolling: Rolling,
    traffic: Option<Traffic>,
) -> Snapshot<String> {
    let exist = |workers: &[Worker<String>]| {
        let there = workers.iter().filter(|worker| worker.stay != Stay::Ending).count();
        u32::try_from(there).unwrap_or(u32::MAX)
    };
    if rolling == Rolling::Yes {
        let surplus = exist(&workers).saturating_sub(replicas);
        // The youngest first.
        workers.sort_by_key(|worker| worker.created);
        let starting = workers.iter().filter(|worker| worker.phase == Phase::Starting).count();
        let mut kept = starting.saturating_sub(usize::try_from(surplus).unwrap_or(usize::MAX));
        workers.retain(|worker| {
            let keep = worker.phase != Phase::Starting || kept > 0;
            kept = kept.saturating_sub(usize::from(worker.phase == Phase::Starting));
            keep
        });
    }
    let coming = replicas.saturating_sub(exist(&workers));
    Snapshot { workers, coming, traffic }
}

/// Whether a Deployment replaces its pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rolling {
    /// It does.
    Yes,
    /// All are of the present template.
    No,
}

#[cfg(test)]
mod tests;
