//! How many workers of each kind, and what is done to have them: decided, then carried out.

mod replicas;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use streamfleet_scaling::{DrainReason, Figures, Limit, Moment, Plan, Traffic, Worker, decide};
use streamfleet_session::ServiceName;
use streamfleet_store::{Gate, StoreError, WorkerId};

use crate::care::{Care, Rest};
use crate::cluster::Refusal;
use crate::facts::{DeploymentFacts, PodFacts, Stage, rfc3339};
use crate::look::{Findings, Seen, Stop};
use crate::metrics::Outcome;
use crate::names::{DELETION_COST, DRAIN_REASON, DRAINING, DRAINING_SINCE, Key, PROTECTED, SERVING, STATE, worker};
use crate::objects::LEAVING;
use crate::operator::Operator;
use crate::prepare::{Part, Prepared};
use crate::reasons::Word;
use crate::status::{Fault, Standing};
use crate::steps::{Deeds, PodId, Rules, Step, Steps, Wanted, close, steps};
use crate::view::{Item, KnownPod};
use crate::workers::{Rolling, Views, of_deployment, snapshot};

/// Pods of one Deployment.
#[derive(Debug)]
pub(crate) struct Run {
    /// Its name.
    name: String,
    variant: Option<String>,
    /// `None` if the specification does not know it any more: all of it goes.
    part: Option<Arc<Part>>,
    facts: Option<DeploymentFacts>,
    /// Pods that there shall be, as it was last said.
    target: i32,
    wanted: Wanted,
    /// Pods that were asked for and do not exist.
    coming: u32,
    /// Pods that were asked for in this look, and may be.
    created: u32,
    /// Pods that go in this look, and how many of them did.
    removing: HashSet<String>,
    removed: i32,
}

/// Pods that a Deployment shall have until something else is decided: what was said last, which somebody else may have changed. Of
/// fewer there are as many again. More are left, as far as they exist, until they are drained: told to have fewer, its ReplicaSet would
/// choose, and could choose some with calls.
fn target(said: Option<i32>, facts: Option<&DeploymentFacts>, pods: i32) -> i32 {
    match (said, facts) {
        (None, Some(facts)) => facts.replicas,
        (Some(said), Some(facts)) => said.max(facts.replicas.min(pods.max(facts.existing))),
        // It is not there, or not known by its labels, and its pods may be.
        (said, None) => said.unwrap_or(0).max(pods),
    }
}

/// Pods that a Deployment counts.
fn pods(seen: &Seen, name: &str) -> i32 {
    let counts = |pod: &&PodFacts| pod.deployment.as_deref() == Some(name) && !pod.ending && pod.stage != Stage::Over;
    i32::try_from(seen.pods.iter().filter(counts).count()).unwrap_or(i32::MAX)
}

impl Run {
    /// Those that the specification knows, and those that are still there.
    pub(crate) fn all(seen: &Seen, prepared: Option<&Prepared>, care: &Care) -> Vec<Self> {
        let service = &seen.resource.key.name;
        let run = |name: String, variant: Option<String>, part: Option<Arc<Part>>| {
            let facts = seen.deployments.get(&name).cloned();
            let target = target(care.replicas.get(&name).copied(), facts.as_ref(), pods(seen, &name));
            Self {
                name,
                variant,
                part,
                facts,
                target,
                wanted: Wanted::default(),
                coming: 0,
                created: 0,
                removing: HashSet::new(),
                removed: 0,
            }
        };
        let parts = prepared.map(|prepared| prepared.parts.as_slice()).unwrap_or_default();
        let mut runs: Vec<Self> = parts
            .iter()
            .map(|part| run(worker(service, part.variant.as_deref()), part.variant.clone(), Some(part.clone())))
            .collect();
        for (name, facts) in &seen.deployments {
            if runs.iter().all(|known| known.name != *name) {
                runs.push(run(name.clone(), facts.variant.clone(), None));
            }
        }
        for pod in &seen.pods {
            if let Some(name) = pod.deployment.as_ref().filter(|name| runs.iter().all(|known| known.name != **name)) {
                runs.push(run(name.clone(), pod.variant.clone(), None));
            }
        }
        runs
    }

    /// The variant's name, and the Deployment's.
    pub(crate) fn names(&self) -> (Option<&str>, &str) {
        (self.variant.as_deref(), &self.name)
    }

    fn rolling(&self) -> Rolling {
        match &self.facts {
            Some(facts) if !facts.is_rolled_out() => Rolling::Yes,
            _ => Rolling::No,
        }
    }

    /// Whether it is to go as a whole.
    fn is_retiring(&self) -> bool {
        self.part.is_none()
    }
}

/// What is wanted of all workers of a service.
#[derive(Debug)]
pub(crate) struct Scaling {
    runs: Vec<Run>,
    want: u32,
    limited: Option<Limit>,
    wake: Option<Moment>,
    why: Option<String>,
    /// What was done, for people.
    pub(crate) done: Deeds,
}

/// How a service's drains are bounded.
pub(crate) fn rules(prepared: Option<&Prepared>, now: Moment) -> Rules {
    let operation = prepared.map(|prepared| &prepared.said.service.operation);
    Rules {
        max_drain: operation.and_then(|operation| operation.autoscaling.max_drain),
        disruption: operation.map(|operation| operation.disruption).unwrap_or_default(),
        now,
    }
}

impl Scaling {
    /// Decides.
    pub(crate) fn decide(
        mut runs: Vec<Run>,
        standing: &Standing,
        pods: &[PodFacts],
        workers: &[Worker<String>],
        traffic: Option<Traffic>,
        care: &mut Care,
        now: Moment,
    ) -> Self {
        let mut all = Self { runs: Vec::new(), want: 0, limited: None, wake: None, why: None, done: Deeds::default() };
        let weights: Vec<u32> = runs.iter().filter_map(|run| run.part.as_ref()).map(|part| part.share).collect();
        let mut shares = traffic.map(|traffic| traffic.split(&weights)).into_iter().flatten();
        // Whose service is being deleted and is never heard of is not waited for: there is nobody to put it back for.
        let silent = match standing {
            Standing::Ending => care.met.silent(pods, now),
            _ => HashSet::new(),
        };
        for run in &mut runs {
            let traffic = run.part.as_ref().and_then(|_| shares.next());
            let is_of_run = |pod: &&PodFacts| pod.deployment.as_ref() == Some(&run.name);
            let names: HashSet<&str> = pods.iter().filter(is_of_run).map(|pod| pod.name.as_str()).collect();
            let of = |worker: &&Worker<String>| names.contains(worker.id.as_str());
            let workers: Vec<Worker<String>> = workers.iter().filter(of).cloned().collect();
            let closing = match standing {
                Standing::Ending => Some("its service is being deleted"),
                Standing::Displaced(_) => Some("another service has its path"),
                Standing::Served | Standing::Invalid(_) => None,
            };
            match (closing, &run.part) {
                (Some(why), _) => run.wanted = close(&workers, &silent, why),
                (None, None) if care.prepared.is_some() => {
                    run.wanted = close(&workers, &silent, "its variant is not there any more");
                }
                // Nothing is known of what it should be.
                (None, None) => {}
                (None, Some(part)) => {
                    let replicas = u32::try_from(run.target).unwrap_or(0);
                    let snapshot = snapshot(workers, replicas, run.rolling(), traffic);
                    run.coming = snapshot.coming;
                    let memory = care.scaling.entry(run.variant.clone()).or_default();
                    let share = care.shares.insert(run.variant.clone(), part.share);
                    if share.is_some_and(|share| share != part.share) {
                        // Its counters are the service's of all time, times its share: they have jumped, and nobody has come.
                        memory.recount();
                    }
                    let mut plan = decide(&part.tuning, &snapshot, memory, now);
                    if part.share == 0 && matches!(plan.limited, Some(Limit::Max { .. })) {
                        // It has calls that it had before, and is to have no more of them: nothing keeps it from what it needs.
                        plan.limited = None;
                    }
                    if run.rolling() == Rolling::Yes {
                        // Pods go and come by themselves: which of them are too many shows when that is over.
                        plan.drain.retain(|(_, why)| matches!(why, DrainReason::Leaving | DrainReason::NeverReady));
                    }
                    all.take(&plan);
                    run.wanted = Wanted::from(&plan);
                }
            }
            // Whoever makes its pods cannot be told to make fewer: another one would come for each that goes.
            if closing.is_none() && run.facts.is_none() {
                run.wanted.drain.clear();
                run.wanted.remove.clear();
            }
            if run.denied(care).is_some() {
                run.wanted.remove.clear();
            }
            // The next of those that can be made may be there already, and take calls before its ReplicaSet hears that it is one too many.
            let can_be_made = run.facts.as_ref().is_none_or(|facts| facts.failure.is_none());
            if can_be_made || run.rolling() == Rolling::Yes {
                run.wanted.withdraw = 0;
            }
        }
        all.runs = runs;
        all
    }

    fn take(&mut self, plan: &Plan<String>) {
        self.want = self.want.saturating_add(plan.want);
        self.limited = self.limited.or(plan.limited);
        self.wake = [self.wake, plan.wake].into_iter().flatten().min();
        if plan.create > 0 || self.why.is_none() {
            self.why = Some(plan.why.to_string());
        }
    }

    /// The steps of all of them.
    pub(crate) fn steps(
        &mut self,
        seen: &Seen,
        care: &mut Care,
        figures: Figures,
        now: Moment,
        instant: Instant,
    ) -> Steps {
        let mut all = Steps::default();
        let pods: Vec<&PodFacts> = seen.pods.iter().collect();
        let rules = rules(care.prepared.as_deref(), now);
        // What the store has said before it fell silent is how things were: a worker that was empty then may have calls.
        let views = (figures == Figures::Fresh).then(|| Views::of(&care.views));
        let overdue = pods.iter().copied().filter(|pod| rules.is_overdue(pod));
        let over = views.as_ref().map(|views| care.farewells.look(overdue, views, instant)).unwrap_or_default();
        for run in &mut self.runs {
            let pods = of_deployment(&pods, &run.name);
            let goes = |pod: &PodFacts| pod.node.as_ref().is_some_and(|node| seen.going.contains_key(node));
            let mut of_run =
                steps(&run.wanted, &pods, views.as_ref(), &rules, goes, |pod| over.contains(pod.uid.as_str()));
            all.first.append(&mut of_run.first);
            all.then.append(&mut of_run.then);
            run.removing = of_run.removed;
        }
        all
    }

    /// Pods of each Deployment, as they stand when its other fields are written: how many there shall be is said by itself, but of
    /// one that is made.
    pub(crate) fn to_write(&self) -> Vec<i32> {
        let known = self.runs.iter().filter(|run| !run.is_retiring());
        known.map(|run| run.facts.as_ref().map_or_else(|| run.raised(), |facts| facts.replicas)).collect()
    }

    /// Names of the Deployments that have pods and are not wanted: they go when those have gone.
    pub(crate) fn retiring(&self) -> Vec<String> {
        let retiring = self.runs.iter().filter(|run| run.is_retiring() && run.target > 0);
        retiring.map(|run| run.name.clone()).collect()
    }

    /// A step was done, and not only wanted.
    pub(crate) fn did(&mut self, step: &Step) {
        match step {
            Step::MarkServing(pod) => self.done.undrained.push(pod.name.clone()),
            Step::MarkDraining(pod, _, why) => self.done.drained.push((pod.name.clone(), why.clone())),
            Step::Ask(worker, Gate::Leaving) => self.done.expired.push(worker.clone()),
            Step::Delete(pod) | Step::Expel(pod) => {
                // One that was over was not counted by its Deployment any more.
                if let Some(run) = self.runs.iter_mut().find(|run| run.removing.contains(&pod.name)) {
                    run.removed += 1;
                    self.done.removed.push(pod.name.clone());
                }
            }
            Step::Ask(..) | Step::Unprotect(_) | Step::Protect(_) => {}
        }
    }

    /// Whether no pod is asked for.
    pub(crate) fn is_at_zero(&self) -> bool {
        self.runs.iter().all(|run| run.target == 0 || run.facts.is_none())
    }

    /// Whether anything is on its way.
    pub(crate) fn is_moving(&self) -> bool {
        self.runs.iter().any(|run| run.coming > 0 || run.wanted.create > 0 || run.rolling() == Rolling::Yes)
    }

    /// When something changes by time alone.
    pub(crate) fn wake(&self) -> Option<Moment> {
        self.wake
    }

    /// Workers that there shall be.
    pub(crate) fn want(&self) -> u32 {
        self.want
    }

    /// What keeps it from having them.
    pub(crate) fn limited(&self) -> Option<Limit> {
        self.limited
    }

    /// Why so many.
    pub(crate) fn why(&self) -> &str {
        self.why.as_deref().unwrap_or_default()
    }

    /// Pods that were asked for and do not exist, or were asked for now.
    pub(crate) fn coming(&self) -> u32 {
        self.runs.iter().map(|run| run.coming + run.wanted.create).sum()
    }

    /// Pods that were asked for now, and may be.
    pub(crate) fn created(&self) -> u32 {
        self.runs.iter().map(|run| run.created).sum()
    }

    /// The figures of its Deployments.
    pub(crate) fn deployments(&self) -> Vec<DeploymentFacts> {
        self.runs.iter().filter_map(|run| run.facts.clone()).collect()
    }
}

impl Run {
    /// Pods that there shall be before any goes.
    fn raised(&self) -> i32 {
        self.target.saturating_add(i32::try_from(self.wanted.create).unwrap_or(i32::MAX))
    }
}

impl Operator {
    /// Does one step after the other. What fails for one pod ends that pod's steps, not the others'. Returns whether any has.
    pub(crate) async fn carry_out(
        &self,
        key: &Key,
        service: &ServiceName,
        steps: &[Step],
        findings: &mut Findings,
        care: &mut Care,
    ) -> Result<Outcome, Stop> {
        let mut failed: HashSet<&str> = HashSet::new();
        let (mut outcome, mut unasked) = (Outcome::Ok, false);
        let rests = care.pods_rest.as_ref().filter(|rest| Instant::now() < rest.until).map(|rest| rest.fault.clone());
        for step in steps {
            if failed.contains(step.pod()) {
                continue;
            }
            if let Some(fault) = rests.as_ref().filter(|_| !matches!(step, Step::Ask(..))) {
                if failed.is_empty() {
                    findings.faults.push(fault.clone());
                }
                outcome = Outcome::Error;
                failed.insert(step.pod());
                continue;
            }
            if !self.may_act() {
                return Err(Stop::NotLeading);
            }
            match self.step(key, service, step).await {
                Ok(Done::Yes) => findings.scaling.did(step),
                // It is gone, or another one: the watch tells.
                Ok(Done::Moot) => {
                    failed.insert(step.pod());
                }
                // It is asked again with the next look: the pod says what is wanted. The store has one trouble with all of them.
                Ok(Done::Unasked(error)) => {
                    if !unasked {
                        tracing::warn!(service = %key, worker = step.pod(), %error, "a worker is not asked yet");
                    }
                    (outcome, unasked) = (Outcome::Error, true);
                    failed.insert(step.pod());
                }
                Err(Refusal::Away(text)) => return Err(Stop::Away(text)),
                Err(refusal) => {
                    let fault = Fault::new(Word::PodRefused, format!("pod {}: {refusal}", step.pod()));
                    outcome = Outcome::Error;
                    findings.faults.push(fault.clone());
                    failed.insert(step.pod());
                    if matches!(refusal, Refusal::TimedOut(_)) {
                        care.pods_rest = Some(Box::new(Rest::after(fault, Instant::now())));
                        return Err(Stop::TimedOut);
                    }
                }
            }
        }
        Ok(outcome)
    }

    async fn step(&self, key: &Key, service: &ServiceName, step: &Step) -> Result<Done, Refusal> {
        let namespace = &key.namespace;
        let none = json!({});
        let marked = |pod: PodId, labels: Value, annotations: Value| async move {
            let written = self.cluster.mark_pod(namespace, &pod, &labels, &annotations).await?;
            self.view.lock().answer(Item::Pod(key.clone(), Box::new(KnownPod::of(&written))));
            Ok(())
        };
        let done = match step {
            Step::MarkServing(pod) => {
                let labels = json!({ STATE: SERVING, PROTECTED: "true" });
                let gone = json!({ DRAINING_SINCE: null, DRAIN_REASON: null, DELETION_COST: null });
                marked(pod.clone(), labels, gone).await
            }
            Step::MarkDraining(pod, since, why) => {
                let notes = json!({ DRAINING_SINCE: rfc3339(*since), DRAIN_REASON: why, DELETION_COST: "-1000" });
                marked(pod.clone(), json!({ STATE: DRAINING }), notes).await
            }
            Step::Unprotect(pod) => marked(pod.clone(), json!({ PROTECTED: null }), none).await,
            Step::Protect(pod) => marked(pod.clone(), json!({ PROTECTED: "true" }), none).await,
            Step::Delete(pod) | Step::Expel(pod) => {
                let grace = matches!(step, Step::Expel(_)).then_some(LEAVING);
                self.cluster.delete_pod(namespace, pod, grace).await.map(|written| {
                    // The watch may tell of it after the next look, which would count it again.
                    if let Some(written) = written.filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
                        self.view.lock().answer(Item::Pod(key.clone(), Box::new(KnownPod::of(&written))));
                    }
                })
            }
            Step::Ask(worker, gate) => {
                let Ok(id) = worker.parse::<WorkerId>() else { return Ok(Done::Moot) };
                return match self.store.ask_gate(service, &id, *gate).await {
                    Ok(_) => Ok(Done::Yes),
                    Err(error) => Ok(Done::Unasked(error)),
                };
            }
        };
        match done {
            Ok(()) => Ok(Done::Yes),
            Err(Refusal::Absent | Refusal::Conflict(_)) => Ok(Done::Moot),
            Err(other) => Err(other),
        }
    }
}

enum Done {
    Yes,
    /// There is nobody to do it to.
    Moot,
    /// The store did not take it.
    Unasked(StoreError),
}

#[cfg(test)]
mod tests;
