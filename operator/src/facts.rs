//! What is remembered of pods, Deployments and nodes: the few things that decisions are made of. A thousand services have
//! thousands of pods, and a whole pod is ten kilobytes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use streamfleet_scaling::Moment;

use crate::names::{BASE, CONTAINER, DRAIN_REASON, DRAINING, DRAINING_SINCE, PROTECTED, STATE, VARIANT};

/// A worker's pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// Its name, and its worker's.
    pub name: String,
    /// Which pod of this name it is.
    pub uid: String,
    /// `None` for the service's own workers.
    pub variant: Option<String>,
    /// The Deployment whose ReplicaSet has made it. Anybody can write labels: a pod of another's Deployment, or of none, is no worker,
    /// and nothing is done to it.
    pub deployment: Option<String>,
    /// When it was created.
    pub created: Moment,
    /// Where it runs; `None` until that is decided.
    pub node: Option<String>,
    /// Whether that node has ever said anything of it.
    pub noticed: bool,
    /// How far it is.
    pub stage: Stage,
    /// Whether its process, as its node has last said, was ready: the platform calls a pod of a dead node not ready, whatever that
    /// node had said of its containers.
    pub was_ready: bool,
    /// How often its process has died and begun again.
    pub restarts: i32,
    /// Whether it is being deleted.
    pub ending: bool,
    /// By when it is to be gone: its node kills what is left of it then.
    pub gone_by: Option<Moment>,
    /// What its labels say.
    pub marks: Marks,
    /// Why it does not start, or why its node has given it up, in the platform's words.
    pub trouble: Option<Trouble>,
}

/// How far a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// No process of it runs, as far as its node has said.
    Waiting,
    /// Its process runs and has not said that it is ready.
    Running,
    /// It was ready at that time, and is still.
    Ready(Moment),
    /// All of it is over: it will never run again.
    Over,
}

/// What its labels and annotations say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// Whether it was asked to drain.
    pub draining: bool,
    /// Since when; `None` if nobody has written it down.
    pub since: Option<Moment>,
    /// Why.
    pub reason: Option<String>,
    /// Whether an eviction must not take it.
    pub protected: bool,
}

/// Why a pod does not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// One word: `ImagePullBackOff`, `Unschedulable`.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// A Deployment's figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeploymentFacts {
    /// The uid of the StreamService that owns it. Whatever else bears its labels is not scaled.
    pub owner: Option<String>,
    /// `None` for the service's own workers.
    pub variant: Option<String>,
    /// Pods that there shall be.
    pub replicas: i32,
    /// Pods of the present template.
    pub updated: i32,
    /// Pods that there are.
    pub existing: i32,
    /// Whether the platform has seen what was written last.
    pub observed: bool,
    /// Why pods cannot be made, in the platform's words: a quota, Pod Security, a webhook.
    pub failure: Option<Trouble>,
}

impl DeploymentFacts {
    /// Whether all pods that there are, are of the present template. That there are fewer than there shall be is no rollout.
    #[must_use]
    pub fn is_rolled_out(&self) -> bool {
        self.observed && self.existing <= self.updated
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// Why its pods have to go; `None` if they need not.
    pub leaving: Option<String>,
}

/// Taints that say that a node goes, whatever their effect: of the cluster autoscaler, Karpenter, GKE, and AWS' termination
/// handler. Each is the beginning of a key.
const GOING: [&str; 5] = [
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupted",
    "karpenter.sh/disruption",
    "cloud.google.com/impending-node-termination",
    "aws-node-termination-handler/",
];
/// Taints by which Kubernetes says that a node does not answer. That is what leases are for: whoever is there is not drained.
const SILENT: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

fn moment(time: &Time) -> Moment {
    Moment::from_millis(u64::try_from(time.0.as_millisecond()).unwrap_or(0))
}

/// As annotations have it.
#[must_use]
pub fn rfc3339(at: Moment) -> String {
    let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    let time = k8s_openapi::jiff::Timestamp::from_millisecond(millis).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The time by this machine's clock.
#[must_use]
pub fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Moment::default() + since
}

impl PodFacts {
    /// What is remembered of a pod.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let metadata = &pod.metadata;
        let status = pod.status.as_ref();
        let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
        let ready = status
            .and_then(|status| status.conditions.as_ref())
            .and_then(|all| all.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True"));
        let runs = |container: &&ContainerStatus| container.state.as_ref().is_some_and(|state| state.running.is_some());
        let process = containers.iter().find(|container| container.name == CONTAINER);
        let runs = process.is_some_and(|process| runs(&process));
        let created = metadata.creation_timestamp.as_ref().map(moment).unwrap_or_default();
        let stage = match (status.and_then(|status| status.phase.as_deref()), ready) {
            (Some("Succeeded" | "Failed"), _) => Stage::Over,
            (_, Some(ready)) => Stage::Ready(ready.last_transition_time.as_ref().map_or(created, moment)),
            // A node that has not spoken of containers may have started them.
            (_, None)
                if runs || (containers.is_empty() && status.is_some_and(|status| status.start_time.is_some())) =>
            {
                Stage::Running
            }
            (_, None) => Stage::Waiting,
        };
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            variant: label(metadata, VARIANT).filter(|variant| *variant != BASE).map(str::to_owned),
            deployment: deployment(metadata),
            created,
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            noticed: status.is_some_and(|status| status.start_time.is_some()),
            stage,
            was_ready: process.is_some_and(|process| process.ready),
            restarts: containers
                .iter()
                .filter(|container| container.name == CONTAINER)
                .map(|it| it.restart_count)
                .sum(),
            ending: metadata.deletion_timestamp.is_some(),
            // The timestamp is the end of its grace.
            gone_by: metadata.deletion_timestamp.as_ref().map(moment),
            marks: Marks::of(metadata),
            trouble: trouble(pod, containers),
        }
    }
}

impl Marks {
    fn of(metadata: &ObjectMeta) -> Self {
        let annotation = |name: &str| metadata.annotations.as_ref().and_then(|all| all.get(name));
        let since = annotation(DRAINING_SINCE).and_then(|text| text.parse::<k8s_openapi::jiff::Timestamp>().ok());
        Self {
            draining: label(metadata, STATE) == Some(DRAINING),
            since: since.map(|time| moment(&Time(time))),
            reason: annotation(DRAIN_REASON).cloned(),
            // As the disruption budget selects it.
            protected: label(metadata, PROTECTED) == Some("true"),
        }
    }
}

/// Whoever controls an object.
fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.as_deref()?.iter().find(|owner| owner.controller == Some(true))
}

/// A ReplicaSet is called after its Deployment: `NAME-HASH`.
fn deployment(metadata: &ObjectMeta) -> Option<String> {
    let set = controller(metadata).filter(|owner| owner.kind == "ReplicaSet")?;
    set.name.rsplit_once('-').map(|(deployment, _)| deployment.to_owned())
}

fn label<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// The longest text of others that is passed on.
const MAX_MESSAGE: usize = 512;

/// As much of a text of others as is passed on.
pub(crate) fn cut(text: &str) -> String {
    let text = steady(text);
    text[..text.floor_char_boundary(MAX_MESSAGE)].to_owned()
}

/// The same without the port that a connection had at this end (`10.0.0.1:38291->10.0.0.2:53`): it is another one each time, and what is
/// said again would be news.
fn steady(text: &str) -> String {
    let mut parts = text.split("->");
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let before = all.trim_end_matches(|c: char| c.is_ascii_digit());
        if before.len() < all.len() && before.ends_with(':') {
            all.truncate(before.len() - 1);
        }
        all.push_str("->");
        all.push_str(part);
    }
    all
}

fn trouble(pod: &Pod, containers: &[ContainerStatus]) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let init = status.init_container_statuses.as_deref().unwrap_or_default();
    let waiting = init.iter().chain(containers).find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.clone()?;
        let reason = match reason.as_str() {
            // These are how every pod starts.
            "ContainerCreating" | "PodInitializing" => return None,
            // One and the other by turns.
            "ErrImagePull" => "ImagePullBackOff".to_owned(),
            _ => reason,
        };
        let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let last = last.and_then(|last| last.message.as_deref()).map(str::trim).filter(|text| !text.is_empty());
        let message = match (waiting.message.as_deref(), last) {
            (Some(message), Some(last)) => format!("{message}; it said last: {last}"),
            (Some(text), None) | (None, Some(text)) => text.to_owned(),
            (None, None) => String::new(),
        };
        Some(Trouble { reason, message: cut(&message) })
    });
    // It runs again, and nothing says that it will not end as it did before.
    let crashed = || {
        let container = containers.iter().find(|container| !container.ready && container.restart_count > 0)?;
        let last = container.last_state.as_ref()?.terminated.as_ref().filter(|last| last.exit_code != 0)?;
        let said = last.message.as_deref().map(str::trim).filter(|text| !text.is_empty()).unwrap_or("nothing");
        let message = format!("it ended with {} and is started again; it said last: {said}", last.exit_code);
        Some(Trouble { reason: "CrashLoopBackOff".to_owned(), message: cut(&message) })
    };
    let unschedulable = || {
        let conditions = status.conditions.as_deref().unwrap_or_default();
        let found = conditions.iter().find(|condition| {
            condition.type_ == "PodScheduled" && condition.status == "False" && condition.reason.is_some()
        })?;
        let (reason, message) = (found.reason.clone()?, cut(found.message.as_deref().unwrap_or_default()));
        Some(Trouble { reason, message })
    };
    let over = || {
        let failed = status.phase.as_deref() == Some("Failed");
        let reason = status.reason.clone().filter(|_| failed)?;
        Some(Trouble { reason, message: cut(status.message.as_deref().unwrap_or_default()) })
    };
    over().or(waiting).or_else(crashed).or_else(unschedulable)
}

impl DeploymentFacts {
    /// What is remembered of a Deployment.
    #[must_use]
    pub fn of(deployment: &Deployment) -> Self {
        let status = deployment.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let failure =
            conditions.iter().find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True");
        let observed = status.and_then(|status| status.observed_generation).unwrap_or(0);
        Self {
            owner: controller(&deployment.metadata).map(|owner| owner.uid.clone()),
            variant: label(&deployment.metadata, VARIANT).filter(|variant| *variant != BASE).map(str::to_owned),
            replicas: deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
            updated: status.and_then(|status| status.updated_replicas).unwrap_or(0),
            existing: status.and_then(|status| status.replicas).unwrap_or(0),
            observed: observed >= deployment.metadata.generation.unwrap_or(0),
            failure: failure.map(|failure| Trouble {
                reason: failure.reason.clone().unwrap_or_else(|| "ReplicaFailure".to_owned()),
                message: cut(failure.message.as_deref().unwrap_or_default()),
            }),
        }
    }
}

impl NodeFacts {
    /// What is remembered of a node.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let going = taints.iter().find(|taint| {
            GOING.iter().any(|key| taint.key.starts_with(key))
                || (taint.effect == "NoExecute" && !SILENT.contains(&taint.key.as_str()))
        });
        let unschedulable = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
        let leaving = match going {
            Some(taint) => Some(format!("taint {}", taint.key)),
            None if unschedulable => Some("unschedulable".to_owned()),
            None if node.metadata.deletion_timestamp.is_some() => Some("being deleted".to_owned()),
            None => None,
        };
        Self { leaving }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Five attempts to pull one image were five Events, each with another port.
    #[test]
    fn what_is_another_number_each_time_is_left_out() {
        let text = |port: u32| format!("pull: lookup r.example: read udp 10.0.0.3:{port}->10.96.0.10:53: i/o timeout");
        assert_eq!(cut(&text(38291)), "pull: lookup r.example: read udp 10.0.0.3->10.96.0.10:53: i/o timeout");
        assert_eq!(cut(&text(9)), cut(&text(48000)));
        for plain in ["a -> b", "v2->v3", "->", ""] {
            assert_eq!(cut(plain), plain);
        }
    }

    fn pod(status: Value) -> PodFacts {
        let pod = json!({
            "metadata": {
                "name": "a", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": { STATE: DRAINING, VARIANT: "b" },
                "annotations": { DRAINING_SINCE: "2026-01-01T00:01:00Z" },
            },
            "status": status,
        });
        PodFacts::of(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn stages_of_a_pod() {
        let running = json!([{ "name": "worker", "ready": false, "image": "", "imageID": "", "restartCount": 0, "state": { "running": {} } }]);
        let ready = json!([{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:20Z" }]);
        let not_ready = json!([{ "type": "Ready", "status": "False" }]);
        let begun = facts_time("2026-01-01T00:00:00Z");
        for (status, expected) in [
            (json!({}), Stage::Waiting),
            (json!({ "phase": "Pending", "conditions": not_ready }), Stage::Waiting),
            (json!({ "phase": "Running", "containerStatuses": running, "conditions": not_ready }), Stage::Running),
            (json!({ "phase": "Pending", "startTime": "2026-01-01T00:00:01Z" }), Stage::Running),
            (
                json!({ "phase": "Running", "containerStatuses": running, "conditions": ready }),
                Stage::Ready(begun + Duration::from_secs(20)),
            ),
            (json!({ "phase": "Failed", "conditions": not_ready }), Stage::Over),
            (json!({ "phase": "Succeeded", "conditions": not_ready }), Stage::Over),
        ] {
            assert_eq!(pod(status.clone()).stage, expected, "{status}");
        }
        let facts = pod(json!({}));
        assert_eq!(facts.marks.since, Some(begun + Duration::from_secs(60)));
        assert!(facts.marks.draining && !facts.marks.protected);
        assert_eq!(facts.variant.as_deref(), Some("b"));
        assert_eq!(rfc3339(begun + Duration::from_millis(1_500)), "2026-01-01T00:00:01Z");
    }

    #[test]
    fn whose_pod_it_is() {
        let check = |kind: &str, name: &str, controls: bool, expected: Option<&str>| {
            let owner =
                json!({ "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u", "controller": controls });
            let pod = json!({ "metadata": { "name": "a", "ownerReferences": [owner] } });
            let facts = PodFacts::of(&serde_json::from_value(pod).unwrap());
            assert_eq!(facts.deployment.as_deref(), expected, "{kind} {name}");
        };
        check("ReplicaSet", "assistant-worker-5d8f", true, Some("assistant-worker"));
        check("ReplicaSet", "assistant-worker-5d8f", false, None);
        check("ReplicaSet", "mine", true, None);
        check("Job", "assistant-worker-5d8f", true, None);
        assert_eq!(pod(json!({})).deployment, None, "made by hand");
    }

    #[test]
    fn protected_is_what_the_disruption_budget_selects() {
        let check = |value: &str, expected: bool| {
            let pod = json!({ "metadata": { "name": "a", "labels": { PROTECTED: value } } });
            assert_eq!(PodFacts::of(&serde_json::from_value(pod).unwrap()).marks.protected, expected, "{value:?}");
        };
        check("true", true);
        check("false", false);
        check("", false);
    }

    fn facts_time(text: &str) -> Moment {
        moment(&Time(text.parse().unwrap()))
    }

    #[test]
    fn why_a_pod_does_not_start() {
        let container = |state: Value| {
            json!({ "containerStatuses": [{ "name": "worker", "ready": false, "image": "", "imageID": "", "restartCount": 3, "state": state,
                "lastState": { "terminated": { "exitCode": 64, "message": "fleet.secret: too short\n" } } }] })
        };
        let crash = pod(container(json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 10s" } })));
        let crash = crash.trouble.unwrap();
        assert_eq!(crash.reason, "CrashLoopBackOff");
        assert_eq!(crash.message, "back-off 10s; it said last: fleet.secret: too short");
        let again = pod(container(json!({ "running": {} }))).trouble.unwrap();
        assert_eq!(again.message, "it ended with 64 and is started again; it said last: fleet.secret: too short");
        assert_eq!(again.reason, crash.reason, "one and the other by turns");
        let born = json!({ "containerStatuses": [{ "name": "worker", "ready": false, "image": "", "imageID": "", "restartCount": 0,
            "state": { "waiting": { "reason": "ContainerCreating" } } }] });
        assert_eq!(pod(born).trouble, None);
        let conditions =
            json!([{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes" }]);
        assert_eq!(pod(json!({ "conditions": conditions })).trouble.unwrap().reason, "Unschedulable");
        let waits = container(json!({ "waiting": { "reason": "ContainerCreating" } }))["containerStatuses"].clone();
        let failed =
            json!({ "phase": "Failed", "reason": "OutOfcpu", "message": "too little", "containerStatuses": waits });
        assert_eq!(pod(failed).trouble.unwrap().message, "too little");
    }

    #[test]
    fn a_quota_is_no_rollout() {
        let of = |observed, existing, updated| DeploymentFacts {
            replicas: 5,
            observed,
            existing,
            updated,
            ..DeploymentFacts::default()
        };
        assert!(of(true, 2, 2).is_rolled_out() && of(true, 5, 5).is_rolled_out());
        assert!(!of(true, 5, 4).is_rolled_out() && !of(false, 5, 5).is_rolled_out() && !of(true, 5, 0).is_rolled_out());
    }

    #[test]
    fn nodes_that_go() {
        let check = |spec: Value, expected: Option<&str>| {
            let node = json!({ "spec": spec });
            let facts = NodeFacts::of(&serde_json::from_value(node).unwrap());
            assert_eq!(facts.leaving.as_deref(), expected, "{spec}");
        };
        let taint = |key: &str, effect: &str| json!({ "taints": [{ "key": key, "effect": effect }] });
        check(json!({}), None);
        check(json!({ "unschedulable": true }), Some("unschedulable"));
        check(taint("example.com/gpu", "NoSchedule"), None);
        check(taint("example.com/maintenance", "NoExecute"), Some("taint example.com/maintenance"));
        check(taint("ToBeDeletedByClusterAutoscaler", "NoSchedule"), Some("taint ToBeDeletedByClusterAutoscaler"));
        check(taint("node.kubernetes.io/unreachable", "NoExecute"), None);
    }
}
