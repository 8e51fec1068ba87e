//! One look at a service: dereference, validate, decide, put back, apply, drain, remove, tell.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use streamfleet_scaling::{Figures, Moment, Phase, Traffic, Worker};
use streamfleet_session::ServiceName;
use streamfleet_store::StoreError;
use tracing::field::Empty;
use tracing::{Instrument as _, info_span};

use crate::apply::{Applied, Built, Writer};
use crate::care::Care;
use crate::cluster::Refusal;
use crate::due::Lane;
use crate::facts::{DeploymentFacts, NodeFacts, PodFacts, now};
use crate::metrics::Outcome;
use crate::names::{FINALIZER, Key, worker};
use crate::operator::Operator;
use crate::prepare::{IDLE, TICK};
use crate::reasons::Word;
use crate::resource::Resource;
use crate::scale::{Run, Scaling};
use crate::status::{Fault, Standing};
use crate::steps::Step;
use crate::traces::{ended, part};
use crate::view::{Item, View};
use crate::workers::{Circumstances, Sight, Views, is_over};

/// A service without workers: a held offer wakes it.
const ASLEEP: Duration = Duration::from_secs(10);

/// What a look has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Looked {
    /// When to look again if nothing happens.
    pub(crate) next: Duration,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// What is to be expected of that.
    pub(crate) lane: Lane,
}

/// A service as the cluster has it.
pub(crate) struct Seen {
    pub(crate) resource: Arc<Resource>,
    pub(crate) pods: Vec<PodFacts>,
    pub(crate) deployments: BTreeMap<String, DeploymentFacts>,
    /// The nodes of its pods that go, and why.
    pub(crate) going: BTreeMap<String, String>,
    /// What of its namespace may not be listed any more.
    pub(crate) unseen: BTreeSet<String>,
    /// Pods that look like its workers, and are left alone.
    pub(crate) alone: usize,
}

impl Seen {
    /// Dereference: what there is. Nothing, as long as not all is known: what is missing would look like what is not there.
    fn of(view: &View, key: &Key) -> Option<Self> {
        let service = view.get(key).filter(|_| view.is_whole(&key.namespace))?;
        let resource = service.resource.clone()?;
        // Labels are anybody's to write: only what we have made is believed, and acted on.
        let deployments = service.deployments.iter().filter(|(name, _)| service.owns(&key.name, &resource.uid, name));
        let deployments: BTreeMap<_, _> = deployments.map(|(name, facts)| (name.clone(), facts.clone())).collect();
        // A Deployment may have gone before its pods, or have lost its labels. Where there is another's of its name they are that one's.
        let looks_so = |pod: &&PodFacts| {
            let name = pod.deployment.as_ref();
            name.is_some_and(|name| {
                deployments.contains_key(name) || *name == worker(&key.name, pod.variant.as_deref())
            })
        };
        let is_anothers = |pod: &&PodFacts| {
            let name = pod.deployment.as_ref();
            name.is_some_and(|name| service.deployments.get(name).is_some() && !deployments.contains_key(name))
        };
        let (others, pods): (Vec<&PodFacts>, Vec<&PodFacts>) =
            service.pods.values().map(|pod| &pod.facts).filter(looks_so).partition(is_anothers);
        let (alone, pods) = (others.len(), pods.into_iter().cloned().collect::<Vec<_>>());
        let nodes: BTreeSet<&String> = pods.iter().filter_map(|pod| pod.node.as_ref()).collect();
        let going = nodes.into_iter().filter_map(|name| {
            let NodeFacts { leaving } = view.node(name)?;
            Some((name.clone(), leaving.clone()?))
        });
        let unseen = view.unseen(&key.namespace);
        Some(Self { going: going.collect(), deployments, pods, resource, unseen, alone })
    }
}

impl Seen {
    /// What is known was so once, and may be otherwise.
    fn blindness(&self) -> Option<Fault> {
        let unseen: Vec<&str> = self.unseen.iter().map(String::as_str).collect();
        let text = || format!("the operator may not list {}: what changes of them is not seen", unseen.join(", "));
        (!unseen.is_empty()).then(|| Fault::new(Word::NotListed, text()))
    }

    /// All of its workers are to go. Where there is no Deployment to be told so, as it bears no label any more or has left its ReplicaSet
    /// behind, somebody may make a pod for each that goes: those go that there were in the beginning, and no others.
    fn leave_new_ones_alone(&mut self, closing: &mut Option<HashSet<String>>) {
        let first = closing.get_or_insert_with(|| self.pods.iter().map(|pod| pod.uid.clone()).collect());
        let before = self.pods.len();
        self.pods.retain(|pod| {
            let has_deployment = pod.deployment.as_ref().is_some_and(|name| self.deployments.contains_key(name));
            has_deployment || first.contains(&pod.uid)
        });
        self.alone += before - self.pods.len();
    }
}

/// Why a look ends early.
pub(crate) enum Stop {
    /// The API server cannot be reached.
    Away(String),
    /// Something was not answered in time, and is told of. What else there was to write waits.
    TimedOut,
    /// Another operator may be acting.
    NotLeading,
    /// It does not wait for us before it is gone, yet: whatever was made for it would go with it, in the middle of a call.
    Unfinalized,
}

impl From<Applied> for Result<(), Stop> {
    fn from(applied: Applied) -> Self {
        match applied {
            Applied::Done => Ok(()),
            Applied::Away(text) => Err(Stop::Away(text)),
            Applied::TimedOut => Err(Stop::TimedOut),
            Applied::Stopped => Err(Stop::NotLeading),
        }
    }
}

/// What one look has found and done, for whoever tells of it.
pub(crate) struct Findings {
    pub(crate) standing: Standing,
    pub(crate) figures: Figures,
    /// Why the store has not told how things are.
    pub(crate) silence: Option<StoreError>,
    pub(crate) traffic: Option<Traffic>,
    pub(crate) workers: Vec<Worker<String>>,
    pub(crate) scaling: Scaling,
    pub(crate) faults: Vec<Fault>,
    pub(crate) now: Moment,
}

impl Operator {
    /// Looks at a service and does what is to be done. `None` if there is none.
    pub(crate) async fn look(&self, key: &Key, care: &mut Care) -> Option<Looked> {
        let mut seen = Seen::of(&self.view.lock(), key)?;
        care.ledger.prune(Instant::now());
        if care.uid != seen.resource.uid {
            *care = Care { uid: seen.resource.uid.clone(), ..Care::default() };
        }
        // Others have to agree before it is gone; there is nothing left for us.
        if seen.resource.ending && !seen.resource.is_finalized() {
            return None;
        }
        let service: ServiceName = key.to_string().parse().ok()?;
        let standing = self.validate(&seen.resource, care);
        if is_closing(&standing) {
            seen.leave_new_ones_alone(&mut care.closing);
        } else {
            care.closing = None;
        }
        let told = self.ask_store(&service, care).await;
        let unadmitted = self.admit(&service, &seen, care).await;
        let mut findings = find(&seen, standing, told, care);
        let done = self.act(key, &service, &seen, &mut findings, care).await;
        self.count(key, &findings);
        let mut outcome = match findings.standing {
            Standing::Served | Standing::Ending => Outcome::Ok,
            Standing::Invalid(_) | Standing::Displaced(_) => Outcome::Invalid,
        };
        if matches!(done, Err(Stop::TimedOut)) {
            care.timed_out = Some(Instant::now());
            findings.faults.extend(care.refused.faults().cloned());
        }
        let mut next = next(&findings, care);
        match done {
            Ok(()) if findings.faults.is_empty() => care.failures = 0,
            Ok(()) | Err(Stop::TimedOut) => outcome = Outcome::Error,
            // It has changed since it was seen.
            Err(Stop::Unfinalized) if findings.faults.is_empty() => next = next.min(TICK),
            Err(Stop::Unfinalized) => {
                outcome = Outcome::Error;
                next = care.backoff(rand::random());
            }
            Err(Stop::NotLeading) => {
                return Some(Looked { next, outcome: Outcome::Error, lane: care.lane(Instant::now()) });
            }
            Err(Stop::Away(text)) => {
                tracing::debug!(service = %key, error = text, "the API server does not answer");
                next = care.backoff(rand::random());
                self.show(key, &findings, care);
                self.tell_deeds(key, &seen, &findings, care).await;
                return Some(Looked { next, outcome: Outcome::Error, lane: care.lane(Instant::now()) });
            }
        }
        // These are no looks that failed: nodes run its pods, whoever owns a service makes its Secrets, and the store has its users.
        findings.faults.extend(care.failure(&seen.pods, findings.now));
        findings.faults.extend(unadmitted);
        findings.faults.extend(self.secrets(&seen, &findings.standing, care).await);
        self.show(key, &findings, care);
        if let Some(at) = self.tell(key, &seen, &findings, care).await {
            next = next.min(at.saturating_duration_since(Instant::now()));
        }
        Some(Looked { next, outcome, lane: care.lane(Instant::now()) })
    }

    /// Validate: whether it can be served. What ran goes on if not, by the last specification that could be used.
    fn validate(&self, resource: &Arc<Resource>, care: &mut Care) -> Standing {
        match care.judge(resource) {
            _ if resource.ending => Standing::Ending,
            Err(mistakes) => Standing::Invalid(mistakes.clone()),
            Ok(()) => self.conflict(&resource.key).map_or(Standing::Served, Standing::Displaced),
        }
    }

    async fn ask_store(&self, service: &ServiceName, care: &mut Care) -> Result<Traffic, StoreError> {
        let both = futures_util::future::try_join(self.store.workers(service), self.store.traffic(service));
        let asked = part(info_span!("store", outcome = Empty), both).await;
        let kind = |error: &StoreError| std::mem::discriminant(error);
        match (&asked, &care.store) {
            // Its words may be others each time, and are news once.
            (Err(error), before) if before.as_ref().map(|(error, _)| kind(error)) != Some(kind(error)) => {
                tracing::warn!(%error, "the store does not say how things are");
            }
            (Ok(_), Some(_)) => tracing::info!("the store says how things are again"),
            _ => {}
        }
        let told = care.heard(asked.as_ref().err().cloned(), Instant::now());
        let (workers, traffic) = asked.map_err(|error| told.unwrap_or(error))?;
        care.views = workers;
        let traffic = Traffic {
            arrived: traffic.arrived,
            departed: traffic.departed,
            refused: traffic.refused,
            held: traffic.held,
        };
        Ok(traffic)
    }

    /// What is done, in its order.
    async fn act(
        &self,
        key: &Key,
        service: &ServiceName,
        seen: &Seen,
        findings: &mut Findings,
        care: &mut Care,
    ) -> Result<(), Stop> {
        let closing = is_closing(&findings.standing);
        if !closing && care.prepared.is_some() && !seen.resource.is_finalized() {
            let finalizers = seen.resource.finalizers.iter().cloned().chain([FINALIZER.to_owned()]);
            if !self.finalize(key, seen, finalizers.collect(), findings).await? {
                return Err(Stop::Unfinalized);
            }
        }
        let steps = findings.scaling.steps(seen, care, findings.figures, findings.now, Instant::now());
        self.take(key, service, &steps.first, findings, care).await?;
        if !closing {
            self.apply(key, seen, findings, care).await?;
        }
        self.raise(key, findings, care).await?;
        self.take(key, service, &steps.then, findings, care).await?;
        self.lower(key, seen, findings, care).await?;
        let views = Views::of(&care.views);
        let is_over = |pod: &PodFacts| is_over(pod, &views, findings.figures, findings.now);
        if findings.standing == Standing::Ending && seen.pods.iter().all(is_over) && findings.scaling.is_at_zero() {
            self.dismiss(service, care).await;
            let finalizers = seen.resource.finalizers.iter().filter(|name| *name != FINALIZER).cloned();
            self.finalize(key, seen, finalizers.collect(), findings).await?;
        }
        Ok(())
    }

    /// Takes steps, where there are any.
    async fn take(
        &self,
        key: &Key,
        service: &ServiceName,
        steps: &[Step],
        findings: &mut Findings,
        care: &mut Care,
    ) -> Result<(), Stop> {
        if steps.is_empty() {
            return Ok(());
        }
        let span = info_span!("steps", steps = steps.len(), outcome = Empty);
        let taken = self.carry_out(key, service, steps, findings, care).instrument(span.clone()).await;
        ended(&span, taken.as_ref().map_or(Outcome::Error, |outcome| *outcome));
        taken.map(drop)
    }

    /// Says who has to agree before it is gone. Returns whether we are among them by what was answered.
    async fn finalize(
        &self,
        key: &Key,
        seen: &Seen,
        finalizers: Vec<String>,
        findings: &mut Findings,
    ) -> Result<bool, Stop> {
        if !self.may_act() {
            return Err(Stop::NotLeading);
        }
        let written = self.cluster.set_finalizers(key, &seen.resource.version, &finalizers);
        match part(info_span!("finalizers", outcome = Empty), written).await {
            Ok(written) => {
                let Some(resource) = Resource::of(&written) else { return Ok(false) };
                let is_finalized = resource.is_finalized();
                self.view.lock().answer(Item::Service(resource));
                Ok(is_finalized)
            }
            // It has changed, or is gone: the next look sees how.
            Err(Refusal::Absent | Refusal::Conflict(_)) => Ok(false),
            Err(Refusal::Away(text)) => Err(Stop::Away(text)),
            Err(refusal) => {
                findings.faults.push(Fault::new(Word::ObjectRefused, format!("its finalizers: {refusal}")));
                if matches!(refusal, Refusal::TimedOut(_)) { Err(Stop::TimedOut) } else { Ok(false) }
            }
        }
    }

    /// Build and apply: its objects, unless everything is known to be as it shall be.
    async fn apply(&self, key: &Key, seen: &Seen, findings: &mut Findings, care: &mut Care) -> Result<(), Stop> {
        let Some(prepared) = care.prepared.clone() else { return Ok(()) };
        let replicas = findings.scaling.to_write();
        let uid = &seen.resource.uid;
        let is_same =
            |built: &&Built| (built.generation, &built.uid, &built.replicas) == (prepared.generation, uid, &replicas);
        if let Some(built) = care.built.as_ref().filter(is_same) {
            let view = self.view.lock();
            if view.get(key).is_some_and(|service| built.is_settled(&service.objects)) {
                return Ok(());
            }
        }
        if care.refused.rests(Instant::now()) {
            findings.faults.extend(care.refused.faults().cloned());
            return Ok(());
        }
        let objects = prepared.blueprint(&seen.resource, &self.installation, &replicas).objects();
        let may_act = || self.may_act();
        let writer = Writer { cluster: &self.cluster, view: &self.view, key, owner: uid, may_act: &may_act };
        let retiring = findings.scaling.retiring();
        let span = info_span!("apply", outcome = Empty);
        let applied = writer.apply(&objects, &retiring, &mut care.refused).instrument(span.clone()).await;
        let outcome = match applied {
            Applied::Done if care.refused.faults().next().is_none() => Outcome::Ok,
            _ => Outcome::Error,
        };
        ended(&span, outcome);
        care.built = Some(Built::of(prepared.generation, uid, &replicas, &objects));
        findings.faults.extend(care.refused.faults().cloned());
        applied.into()
    }
}

/// Whether all of its workers are to go.
pub(crate) fn is_closing(standing: &Standing) -> bool {
    matches!(standing, Standing::Ending | Standing::Displaced(_))
}

/// What is known of its workers, and what is wanted of them.
fn find(seen: &Seen, standing: Standing, told: Result<Traffic, StoreError>, care: &mut Care) -> Findings {
    let now = now();
    let (traffic, silence) = match told {
        Ok(traffic) => (Some(traffic), None),
        Err(error) => (None, Some(error)),
    };
    let figures = if silence.is_some() { Figures::Stale } else { Figures::Fresh };
    let pods: Vec<&PodFacts> = seen.pods.iter().collect();
    let views = Views::of(&care.views);
    let sight = Sight { pods: &pods, views: &views, figures, now };
    let prepared = care.prepared.clone();
    let capacity = prepared.as_ref().map_or(0, |prepared| prepared.said.service.sessions_per_worker.get());
    let rules = crate::scale::rules(prepared.as_deref(), now);
    let workers = care.met.workers(&sight, capacity, |pod| Circumstances {
        leaving: pod.node.as_ref().is_some_and(|node| seen.going.contains_key(node)) || rules.is_overdue(pod),
    });
    let runs = Run::all(seen, prepared.as_deref(), care);
    care.keep_only(&runs.iter().map(Run::names).collect::<Vec<_>>());
    let scaling = Scaling::decide(runs, &standing, &seen.pods, &workers, traffic, care, now);
    let mut faults: Vec<Fault> = seen.blindness().into_iter().collect();
    if is_closing(&standing) && seen.alone > 0 {
        let text = format!(
            "{} that bear its labels are left alone: no Deployment of its own makes them, or none that is known",
            crate::status::plural(seen.alone, "pod", "pods")
        );
        faults.push(Fault::new(Word::PodsLeftAlone, text));
    }
    Findings { standing, figures, silence, traffic, workers, scaling, faults, now }
}

/// When to look again if nothing happens.
fn next(findings: &Findings, care: &Care) -> Duration {
    let moves = |worker: &Worker<String>| worker.phase != Phase::Serving || worker.sessions > 0;
    let held = findings.traffic.is_some_and(|traffic| traffic.held > 0);
    let base = if held || findings.workers.iter().any(moves) || findings.scaling.is_moving() {
        TICK
    } else if findings.workers.is_empty() {
        ASLEEP
    } else {
        IDLE
    };
    let by_time = findings.scaling.wake().map(|wake| wake.since(findings.now));
    // Whoever closes writes no objects: what was refused before stays so.
    let refused = care.refused.next().filter(|_| !is_closing(&findings.standing));
    let again = refused.map(|at| at.saturating_duration_since(Instant::now()).max(TICK));
    [Some(base), by_time, again].into_iter().flatten().min().unwrap_or(base)
}

#[cfg(test)]
mod deletion;

#[cfg(test)]
mod tests;
