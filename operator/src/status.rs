//! What is said of a service in its status: counts, and five conditions. Pure.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use streamfleet_process::config::Mistakes;
use streamfleet_scaling::{Figures, Limit, Moment, Phase, Stay, Worker};
use streamfleet_service::resource::{StreamServiceStatus, is_printable};
use streamfleet_store::StoreError;

use crate::facts::{DeploymentFacts, PodFacts, Trouble, cut};
use crate::names;
use crate::precedence::Conflict;
use crate::reasons::{Place, Reason, Word};

/// A drain that waits for sessions is news after this: most are over sooner.
const PATIENCE: Duration = Duration::from_secs(60);
/// Faults that are told at a time. The first ones are those that most likely make the others.
const MAX_FAULTS: usize = 4;
/// The scheduler's word for a pod that no node has room for.
const UNSCHEDULABLE: &str = "Unschedulable";
/// The longest message, in bytes (the API server takes 32 KiB).
const MAX_MESSAGE: usize = 2048;

/// Whether a service is served at all, and if not, why.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// It is.
    Served,
    /// Its specification is wrong.
    Invalid(Mistakes),
    /// Somebody else has its path.
    Displaced(Conflict),
    /// It is being deleted.
    Ending,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// One word.
    pub reason: Reason,
    /// A sentence.
    pub message: String,
    /// Whether routers refuse every call for it, however many workers there are.
    pub refuses: bool,
}

impl Fault {
    /// A fault.
    pub fn new(reason: impl Into<Reason>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), refuses: false }
    }

    /// What Kubernetes says of a pod, in its word; the sentence is ours.
    pub fn told(trouble: &Trouble, message: impl Into<String>) -> Self {
        Self::new(Reason::Told(trouble.reason.clone()), message)
    }

    /// The same as one for which routers refuse every call.
    #[must_use]
    pub fn refusing(self) -> Self {
        Self { refuses: true, ..self }
    }
}

/// All that a status is made from.
#[derive(Debug, Clone)]
pub struct Picture<'a> {
    /// Of the service.
    pub name: &'a str,
    /// Of its specification.
    pub generation: i64,
    /// Whether it is served.
    pub standing: &'a Standing,
    /// Its workers.
    pub workers: &'a [Worker<String>],
    /// Their pods.
    pub pods: &'a [&'a PodFacts],
    /// Pods that were asked for and do not exist.
    pub coming: u32,
    /// Its Deployments.
    pub deployments: &'a [DeploymentFacts],
    /// Whether what workers said is how things are.
    pub figures: Figures,
    /// Why the store has not told how things are.
    pub silence: Option<&'a StoreError>,
    /// Workers that there shall be.
    pub want: u32,
    /// What keeps it from having them.
    pub limited: Option<Limit>,
    /// What is not as it should be.
    pub faults: &'a [Fault],
    /// Where clients reach it.
    pub url: Option<String>,
    /// Now.
    pub now: Moment,
}

struct Finding {
    is: bool,
    reason: Reason,
    message: String,
}

fn finding(is: bool, reason: impl Into<Reason>, message: impl Into<String>) -> Finding {
    Finding { is, reason: reason.into(), message: message.into() }
}

/// What others said, a container's last words among it, may have characters for which the API server refuses the whole status.
fn printable(text: &str) -> String {
    text.chars().map(|c| if is_printable(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

impl Picture<'_> {
    fn in_phase(&self, phase: Phase) -> usize {
        self.workers.iter().filter(|worker| worker.phase == phase).count()
    }

    /// The status that follows on `before`: what has not changed keeps the time at which it last did.
    #[must_use]
    pub fn status(&self, before: &StreamServiceStatus) -> StreamServiceStatus {
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let sum = |of: &dyn Fn(&Worker<String>) -> u32| self.workers.iter().map(|worker| i64::from(of(worker))).sum();
        let serves = |worker: &Worker<String>| worker.phase == Phase::Serving;
        let selected = self.pods.iter().filter(|pod| !pod.marks.draining && !pod.ending);
        let findings = [
            (Place::Ready, self.ready()),
            (Place::Progressing, self.progressing()),
            (Place::Degraded, self.degraded()),
            (Place::ScalingLimited, self.limited()),
            (Place::DrainBlocked, self.drain_blocked()),
        ];
        let conditions = findings.map(|(kind, finding)| self.condition(kind, finding, before));
        StreamServiceStatus {
            observed_generation: Some(self.generation),
            conditions: conditions.into(),
            replicas: count(selected.count()),
            ready_replicas: count(self.in_phase(Phase::Serving)),
            draining_replicas: count(self.in_phase(Phase::Draining)),
            desired_replicas: i32::try_from(self.want).unwrap_or(i32::MAX),
            active_sessions: sum(&|worker| worker.sessions),
            capacity: sum(&|worker| if serves(worker) { worker.capacity } else { 0 }),
            selector: names::scale_selector(self.name),
            url: self.url.clone(),
        }
    }

    fn condition(&self, kind: Place, finding: Finding, before: &StreamServiceStatus) -> Condition {
        debug_assert!(finding.reason.may_be(kind), "{:?} of {kind:?}", finding.reason);
        let kind = kind.as_str();
        let status = if finding.is { "True" } else { "False" };
        let before = before.conditions.iter().find(|condition| condition.type_ == kind && condition.status == status);
        let millis = i64::try_from(self.now.as_millis()).unwrap_or(i64::MAX);
        let seconds = Timestamp::from_second(millis / 1000).unwrap_or_default();
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: one_word(finding.reason.as_str()),
            message: printable(&finding.message[..finding.message.floor_char_boundary(MAX_MESSAGE)]),
            observed_generation: Some(self.generation),
            last_transition_time: before.map_or(Time(seconds), |before| before.last_transition_time.clone()),
        }
    }

    fn ready(&self) -> Finding {
        let serving = self.in_phase(Phase::Serving);
        let refused = self.faults.iter().find(|fault| fault.refuses);
        match self.standing {
            Standing::Invalid(mistakes) => finding(false, Word::Invalid, said(mistakes)),
            Standing::Displaced(conflict) => finding(
                false,
                Word::PathConflict,
                format!("{} is served by {}, which was there before", conflict.path, conflict.by),
            ),
            Standing::Ending => finding(false, Word::Deleting, "it takes no more calls"),
            Standing::Served if let Some(fault) = refused => finding(false, fault.reason.clone(), &fault.message),
            Standing::Served if serving > 0 => {
                finding(true, Word::WorkersReady, format!("{} calls", plural(serving, "worker takes", "workers take")))
            }
            Standing::Served if self.want == 0 => finding(true, Word::ScaledToZero, "the next call starts a worker"),
            Standing::Served => finding(false, Word::NoWorkers, "no worker takes calls yet"),
        }
    }

    fn progressing(&self) -> Finding {
        let (starting, draining) =
            (self.in_phase(Phase::Starting) + self.coming as usize, self.in_phase(Phase::Draining));
        let rolling = self.deployments.iter().find(|deployment| !deployment.is_rolled_out());
        match (self.standing, rolling) {
            (Standing::Ending, _) => finding(
                true,
                Word::Deleting,
                format!("{} left", plural(self.workers.len(), "worker is", "workers are")),
            ),
            (_, Some(rolling)) => finding(
                true,
                Word::RollingOut,
                format!(
                    "{} of {} pods are of the present template",
                    rolling.updated,
                    rolling.existing.max(rolling.replicas)
                ),
            ),
            _ if self.coming > 0 && self.in_phase(Phase::Starting) == 0 && self.is_refused() => {
                let coming = plural(self.coming as usize, "worker is", "workers are");
                finding(false, Word::NotMade, format!("{coming} wanted and cannot be made: Degraded says why"))
            }
            _ if starting > 0 => {
                finding(true, Word::Starting, format!("{} starting", plural(starting, "worker is", "workers are")))
            }
            _ if draining > 0 => {
                finding(true, Word::Draining, format!("{} draining", plural(draining, "worker is", "workers are")))
            }
            _ => finding(false, Word::Settled, "as many workers as there shall be"),
        }
    }

    fn degraded(&self) -> Finding {
        let mut faults: Vec<Fault> = Vec::new();
        if let Standing::Invalid(_) = self.standing {
            faults.push(Fault::new(Word::Invalid, "the specification is wrong; what runs goes on as it was"));
        }
        if self.figures == Figures::Stale {
            let what = match self.silence {
                None => "the store does not answer".to_owned(),
                Some(StoreError::Unavailable(why)) => format!("the store does not answer ({})", cut(why)),
                Some(error) => error.to_string(),
            };
            faults.push(Fault::new(
                self.store_reason(),
                format!("{what}: calls go on; no worker is drained or removed, and none is made beyond minReplicas"),
            ));
        }
        faults.extend(self.faults.iter().cloned());
        let failures = self.deployments.iter().filter_map(|deployment| deployment.failure.as_ref());
        faults.extend(failures.map(|failure| Fault::told(failure, &failure.message)));
        let lost = self.in_phase(Phase::Lost);
        if lost > 0 && self.figures == Figures::Fresh {
            let text = format!("{} not heard of: others are made", plural(lost, "worker is", "workers are"));
            faults.push(Fault::new(Word::WorkersLost, text));
        }
        let stuck = self.pods.iter().filter(|pod| !pod.ending);
        let mut stuck: Vec<_> = stuck.filter_map(|pod| Some((pod.created, pod.trouble.as_ref()?))).collect();
        // What is wrong with its template is told before that there is no room for one more like it, or the reason would change with
        // each pod that is made beside one that does not start.
        stuck.sort_by_key(|(created, trouble)| (trouble.reason == UNSCHEDULABLE, *created));
        for (_, trouble) in stuck {
            faults.push(Fault::told(trouble, format!("a worker does not start: {}", trouble.message)));
        }
        // A hundred pods that cannot be pulled are one fault.
        let mut told: Vec<Fault> = Vec::new();
        for fault in faults {
            if told.len() < MAX_FAULTS && told.iter().all(|known| known.reason != fault.reason) {
                told.push(fault);
            }
        }
        let Some(first) = told.first() else { return finding(false, Word::AsExpected, "nothing is wrong") };
        let messages: Vec<_> = told.iter().map(|fault| fault.message.as_str()).collect();
        finding(true, first.reason.clone(), messages.join("; "))
    }

    /// Why the store does not tell how things are, in a word.
    fn store_reason(&self) -> Word {
        match self.silence {
            None | Some(StoreError::Unavailable(_)) => Word::StoreUnavailable,
            Some(StoreError::Full | StoreError::NoMemory) => Word::StoreFull,
            Some(StoreError::Schema { .. }) => Word::StoreSchema,
            Some(StoreError::Refused(_)) => Word::StoreRefuses,
        }
    }

    /// Whether none of the workers that shall come can: the platform refuses their pods, or whatever makes them.
    fn is_refused(&self) -> bool {
        let is_refusal = |fault: &Fault| matches!(fault.reason, Reason::Own(Word::ForeignObject | Word::ObjectRefused));
        let has_no_deployment = self.deployments.is_empty() && self.faults.iter().any(is_refusal);
        has_no_deployment || self.deployments.iter().any(|deployment| deployment.failure.is_some())
    }

    fn limited(&self) -> Finding {
        let reason = match self.limited {
            None => return finding(false, Word::NotLimited, "it has what it needs"),
            Some(Limit::Max { .. }) => Word::MaxReplicas,
            Some(Limit::Starting { .. }) => Word::Starting,
            Some(Limit::NotReady { .. }) => Word::NotReady,
            Some(Limit::Pods { .. }) => Word::Pods,
            Some(Limit::Lost) => Word::WorkersLost,
            Some(Limit::Unknown) => self.store_reason(),
        };
        finding(true, reason, self.limited.map(|limit| limit.to_string()).unwrap_or_default())
    }

    fn drain_blocked(&self) -> Finding {
        let must_go = |worker: &&Worker<String>| *self.standing == Standing::Ending || worker.stay == Stay::Leaving;
        let draining: Vec<_> = self.workers.iter().filter(|worker| worker.phase == Phase::Draining).collect();
        if self.figures == Figures::Stale && !draining.is_empty() {
            let text = format!(
                "{} draining, and the store does not say whether {} empty",
                plural(draining.len(), "worker is", "workers are"),
                if draining.len() == 1 { "it is" } else { "they are" }
            );
            return finding(true, self.store_reason(), text);
        }
        let waits = |worker: &&&Worker<String>| {
            self.now.since(worker.since) >= PATIENCE && !worker.empty && worker.stay != Stay::Ending
        };
        let live: Vec<_> = draining.iter().copied().filter(must_go).filter(|worker| waits(&worker)).collect();
        if !live.is_empty() {
            let sessions: u32 = live.iter().map(|worker| worker.sessions).sum();
            let text = format!(
                "{} {}",
                plural(live.len(), "worker is to go and has", "workers are to go and have"),
                plural(sessions as usize, "session", "sessions")
            );
            return finding(true, Word::SessionsLive, text);
        }
        // Those that end by themselves have their grace; but one that holds nothing, or of which nothing is heard, is gone soon or
        // is not there.
        let is_unheard = |worker: &&&Worker<String>| {
            let waits = self.now.since(worker.since) >= PATIENCE;
            worker.stay == Stay::Ending && waits && (worker.empty || worker.figures == Figures::Stale)
        };
        let unheard = draining.iter().filter(is_unheard).count();
        if *self.standing == Standing::Ending && unheard > 0 {
            let text = format!(
                "{} being deleted, and no node says that it is done: until the grace is over it is waited for",
                plural(unheard, "worker is", "workers are")
            );
            return finding(true, Word::NodeSilent, text);
        }
        let staying =
            self.workers.iter().filter(|worker| worker.phase == Phase::Serving && worker.stay == Stay::Leaving);
        match staying.count() {
            0 => finding(false, Word::NotBlocked, "no drain waits"),
            n => finding(
                true,
                Word::WaitsForReplacement,
                format!("{} on a node that goes, until others are ready", plural(n, "worker stays", "workers stay")),
            ),
        }
    }
}

pub(crate) fn plural(n: usize, one: &str, many: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {many}") }
}

fn said(mistakes: &Mistakes) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A reason as the API server takes it: letters, digits and underscores, beginning with a letter.
fn one_word(text: &str) -> String {
    let kept: String = text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(128).collect();
    if kept.starts_with(|c: char| c.is_ascii_alphabetic()) { kept } else { format!("R{kept}") }
}

/// How a service stands: type, status and reason of each of its conditions.
pub type Stands = Vec<(String, String, String)>;

/// How a service stands by its status.
#[must_use]
pub fn stands(status: &StreamServiceStatus) -> Stands {
    let conditions = status.conditions.iter();
    conditions.map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone())).collect()
}

/// Whether it is news that is told at once: not how many sessions there are, but how the service stands.
#[must_use]
pub fn is_news(before: &StreamServiceStatus, after: &StreamServiceStatus) -> bool {
    before.observed_generation != after.observed_generation || stands(before) != stands(after)
}

#[cfg(test)]
mod tests;
