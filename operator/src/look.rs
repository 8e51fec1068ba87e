//! One look at a service: dereference, validate, decide, put back, apply, drain, remove, tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use streamfleet_scaling::{Figures, Moment, Phase, Traffic, Worker};
use streamfleet_session::ServiceName;

use crate::apply::{Applied, Built, Writer};
use crate::care::Care;
use crate::cluster::Refusal;
use crate::facts::{DeploymentFacts, NodeFacts, PodFacts, Stage, now};
use crate::metrics::Outcome;
use crate::names::{FINALIZER, Key};
use crate::operator::Operator;
use crate::prepare::Prepared;
use crate::resource::Resource;
use crate::scale::{Run, Scaling};
use crate::status::{Fault, Standing};
use crate::view::Item;
use crate::workers::{Circumstances, Sight};

/// A service with workers and nobody to talk to.
const IDLE: Duration = Duration::from_secs(5);
/// A service without workers: a held offer wakes it.
const ASLEEP: Duration = Duration::from_secs(10);

/// What a look has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Looked {
    /// When to look again if nothing happens.
    pub(crate) next: Duration,
    /// How it ended.
    pub(crate) outcome: Outcome,
}

/// A service as the cluster has it.
pub(crate) struct Seen {
    pub(crate) resource: Arc<Resource>,
    pub(crate) pods: Vec<PodFacts>,
    pub(crate) deployments: BTreeMap<String, DeploymentFacts>,
    /// The nodes of its pods that go, and why.
    pub(crate) going: BTreeMap<String, String>,
}

/// Why a look ends early.
pub(crate) enum Stop {
    /// The API server does not answer.
    Away(String),
    /// Another operator may be acting.
    NotLeading,
}

impl From<Applied> for Result<(), Stop> {
    fn from(applied: Applied) -> Self {
        match applied {
            Applied::Done => Ok(()),
            Applied::Away(text) => Err(Stop::Away(text)),
            Applied::Stopped => Err(Stop::NotLeading),
        }
    }
}

/// What one look has found and done, for whoever tells of it.
pub(crate) struct Findings {
    pub(crate) standing: Standing,
    pub(crate) figures: Figures,
    pub(crate) traffic: Option<Traffic>,
    pub(crate) workers: Vec<Worker<String>>,
    pub(crate) scaling: Scaling,
    pub(crate) faults: Vec<Fault>,
    pub(crate) now: Moment,
}

impl Operator {
    /// Looks at a service and does what is to be done. `None` if there is none.
    pub(crate) async fn look(&self, key: &Key, care: &mut Care) -> Option<Looked> {
        let seen = self.see(key)?;
        if care.uid != seen.resource.uid {
            *care = Care { uid: seen.resource.uid.clone(), ..Care::default() };
        }
        // Others have to agree before it is gone; there is nothing left for us.
        if seen.resource.ending && !seen.resource.is_finalized() {
            return None;
        }
        let service: ServiceName = key.to_string().parse().ok()?;
        let standing = self.validate(&seen.resource, care);
        let (figures, traffic) = self.ask_store(&service, care).await;
        let mut findings = find(&seen, standing, figures, traffic, care);
        let done = self.act(key, &service, &seen, &mut findings, care).await;
        let mut outcome = match findings.standing {
            Standing::Served | Standing::Ending => Outcome::Ok,
            Standing::Invalid(_) | Standing::Displaced(_) => Outcome::Invalid,
        };
        let mut next = next(&findings, care);
        match done {
            Ok(()) if findings.faults.is_empty() => care.failures = 0,
            Ok(()) => outcome = Outcome::Error,
            Err(Stop::NotLeading) => return Some(Looked { next, outcome: Outcome::Error }),
            Err(Stop::Away(text)) => {
                tracing::debug!(service = %key, error = text, "the API server does not answer");
                next = care.backoff(rand::random());
                self.show(key, &findings, care);
                return Some(Looked { next, outcome: Outcome::Error });
            }
        }
        self.show(key, &findings, care);
        if let Some(at) = self.tell(key, &seen, &findings, care).await {
            next = next.min(at.saturating_duration_since(Instant::now()));
        }
        Some(Looked { next, outcome })
    }

    /// Dereference: what there is.
    fn see(&self, key: &Key) -> Option<Seen> {
        let view = self.view.lock();
        let service = view.get(key)?;
        let resource = service.resource.clone()?;
        let nodes: BTreeSet<&String> = service.pods.values().filter_map(|pod| pod.node.as_ref()).collect();
        let going = nodes.into_iter().filter_map(|name| {
            let NodeFacts { leaving, .. } = view.node(name)?;
            Some((name.clone(), leaving.clone()?))
        });
        Some(Seen {
            going: going.collect(),
            pods: service.pods.values().cloned().collect(),
            deployments: service.deployments.clone(),
            resource,
        })
    }

    /// Validate: whether it can be served. What ran goes on if not, by the last specification that could be used.
    fn validate(&self, resource: &Arc<Resource>, care: &mut Care) -> Standing {
        let is_known = care.prepared.as_ref().is_some_and(|known| known.generation == resource.generation);
        let prepared =
            if is_known { Ok(()) } else { Prepared::new(resource).map(|new| care.prepared = Some(Arc::new(new))) };
        match prepared {
            _ if resource.ending => Standing::Ending,
            Err(mistakes) => Standing::Invalid(mistakes),
            Ok(()) => self.conflict(&resource.key).map_or(Standing::Served, Standing::Displaced),
        }
    }

    async fn ask_store(&self, service: &ServiceName, care: &mut Care) -> (Figures, Option<Traffic>) {
        let asked = futures_util::future::join(self.store.workers(service), self.store.traffic(service)).await;
        let (Ok(workers), Ok(traffic)) = asked else { return (Figures::Stale, None) };
        care.views = workers;
        let traffic = Traffic {
            arrived: traffic.arrived,
            departed: traffic.departed,
            refused: traffic.refused,
            held: traffic.held,
        };
        (Figures::Fresh, Some(traffic))
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
        let closing = matches!(findings.standing, Standing::Ending | Standing::Displaced(_));
        if !closing && care.prepared.is_some() && !seen.resource.is_finalized() {
            let finalizers = seen.resource.finalizers.iter().cloned().chain([FINALIZER.to_owned()]);
            self.finalize(key, seen, finalizers.collect(), findings).await?;
        }
        let steps = findings.scaling.steps(seen, care, findings.now);
        self.carry_out(key, service, &steps.first, findings).await?;
        if !closing {
            self.apply(key, seen, findings, care).await?;
        }
        self.raise(key, findings, care).await?;
        self.carry_out(key, service, &steps.then, findings).await?;
        self.lower(key, seen, findings, care).await?;
        findings.scaling.done = steps;
        let is_over = |pod: &PodFacts| pod.stage == Stage::Over;
        if findings.standing == Standing::Ending && seen.pods.iter().all(is_over) && findings.scaling.is_at_zero() {
            let finalizers = seen.resource.finalizers.iter().filter(|name| *name != FINALIZER).cloned();
            self.finalize(key, seen, finalizers.collect(), findings).await?;
        }
        Ok(())
    }

    async fn finalize(
        &self,
        key: &Key,
        seen: &Seen,
        finalizers: Vec<String>,
        findings: &mut Findings,
    ) -> Result<(), Stop> {
        if !self.may_act() {
            return Err(Stop::NotLeading);
        }
        match self.cluster.set_finalizers(key, &seen.resource.version, &finalizers).await {
            Ok(written) => {
                if let Some(resource) = Resource::of(&written) {
                    self.view.lock().put(Item::Service(resource));
                }
                Ok(())
            }
            // It has changed, or is gone: the next look sees how.
            Err(Refusal::Absent | Refusal::Conflict(_)) => Ok(()),
            Err(Refusal::Away(text)) => Err(Stop::Away(text)),
            Err(Refusal::Refused(text)) => {
                findings.faults.push(Fault::new("ObjectRefused", format!("its finalizers: {text}")));
                Ok(())
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
        let objects = prepared.blueprint(&seen.resource, &self.installation, &replicas).objects();
        let may_act = || self.may_act();
        let writer = Writer { cluster: &self.cluster, view: &self.view, key, owner: uid, may_act: &may_act };
        let retiring = findings.scaling.retiring();
        let applied = writer.apply(&objects, &retiring, &mut care.refused).await;
        care.built = Some(Built::of(prepared.generation, uid, &replicas, &objects));
        findings.faults.extend(care.refused.faults().cloned());
        applied.into()
    }
}

/// What is known of its workers, and what is wanted of them.
fn find(seen: &Seen, standing: Standing, figures: Figures, traffic: Option<Traffic>, care: &mut Care) -> Findings {
    let now = now();
    let pods: Vec<&PodFacts> = seen.pods.iter().collect();
    let sight = Sight { pods: &pods, views: &care.views, figures, now };
    let prepared = care.prepared.clone();
    let capacity = prepared.as_ref().map_or(0, |prepared| prepared.said.service.sessions_per_worker.get());
    let rules = crate::scale::rules(prepared.as_deref(), now);
    let workers = care.met.workers(&sight, capacity, |pod| Circumstances {
        leaving: pod.node.as_ref().is_some_and(|node| seen.going.contains_key(node)) || rules.is_overdue(pod),
    });
    let runs = Run::all(seen, prepared.as_deref(), care);
    let scaling = Scaling::decide(runs, &standing, &seen.pods, &workers, traffic, care, now);
    Findings { standing, figures, traffic, workers, scaling, faults: Vec::new(), now }
}

/// When to look again if nothing happens.
fn next(findings: &Findings, care: &Care) -> Duration {
    let moves = |worker: &Worker<String>| worker.phase != Phase::Serving || worker.sessions > 0;
    let held = findings.traffic.is_some_and(|traffic| traffic.held > 0);
    let base = if held || findings.workers.iter().any(moves) || findings.scaling.is_moving() {
        crate::prepare::TICK
    } else if findings.workers.is_empty() {
        ASLEEP
    } else {
        IDLE
    };
    let by_time = findings.scaling.wake().map(|wake| wake.since(findings.now));
    let again = care.refused.next().map(|at| at.saturating_duration_since(Instant::now()));
    [Some(base), by_time, again].into_iter().flatten().min().unwrap_or(base)
}
