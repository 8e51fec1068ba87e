//! What is known of services and workers, whoever has told it. Times are seconds since the Unix epoch.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use streamfleet_service::StreamService;

/// Label of an operator's pods: the service that they serve.
const SERVICE: &str = "streamfleet.dev/service";
/// Label: which variant of it, or `base`.
const VARIANT: &str = "streamfleet.dev/variant";
/// Label: `serving` or `draining`.
const STATE: &str = "streamfleet.dev/state";
/// Annotation: since when it drains.
const DRAINING_SINCE: &str = "streamfleet.dev/draining-since";
/// Annotation: why.
const DRAIN_REASON: &str = "streamfleet.dev/drain-reason";
/// The worker's container, and its port of probes and metrics.
const CONTAINER: &str = "worker";
const ADMIN_PORT: u16 = 9090;

/// An object of a namespace. A service that is known by its name alone has no namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Name {
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(super) fn of(metadata: &ObjectMeta) -> Self {
        Self::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// All that is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Facts {
    pub(super) services: BTreeMap<Name, Service>,
    pub(super) workers: BTreeMap<Name, Worker>,
    pub(super) said: BTreeMap<Name, Said>,
}

/// A service.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Service {
    /// Whether it is ready; `None` where nobody has said so.
    pub(super) ready: Option<bool>,
    /// What is wrong with it, or under way.
    pub(super) remark: Option<String>,
    pub(super) workers: Option<Count>,
    pub(super) draining: Option<u32>,
    pub(super) sessions: u32,
    pub(super) capacity: Option<u32>,
    /// Sessions that one worker takes.
    pub(super) per_worker: Option<u32>,
    pub(super) url: Option<String>,
}

/// Workers that there are, and that there are to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) ready: u32,
    pub(super) desired: u32,
}

/// A worker.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Worker {
    pub(super) service: Name,
    /// Which variant of it; `None` for the service itself.
    pub(super) variant: Option<String>,
    pub(super) state: State,
    pub(super) sessions: Option<u32>,
    pub(super) created: Option<i64>,
    pub(super) node: Option<String>,
    pub(super) drain: Option<Drain>,
    /// Where its metrics are, if it can be asked.
    pub(super) admin_port: Option<u16>,
}

/// Where a worker is on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It is not ready; why, if anybody says so.
    Starting(Option<String>),
    Serving,
    Draining,
    /// It is being deleted: it finishes its sessions within its grace.
    Ending,
    /// Its container has ended.
    Over(String),
    /// Only its sessions are known.
    Unknown,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting(None) => f.write_str("starting"),
            Self::Starting(Some(why)) => write!(f, "starting ({why})"),
            Self::Serving => f.write_str("serving"),
            Self::Draining => f.write_str("draining"),
            Self::Ending => f.write_str("ending"),
            Self::Over(how) => f.write_str(how),
            Self::Unknown => f.write_str("-"),
        }
    }
}

/// A drain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Drain {
    pub(super) since: Option<i64>,
    pub(super) reason: Option<String>,
}

/// Something that was said of a service: an Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) of: Name,
    pub(super) at: i64,
    pub(super) tone: Tone,
    pub(super) reason: String,
    pub(super) note: String,
    /// How often.
    pub(super) times: u32,
}

/// Whether somebody has to look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Normal,
    Warning,
}

fn count(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

fn seconds(time: Option<&Time>) -> Option<i64> {
    time.map(|time| time.0.as_second())
}

fn text(map: Option<&BTreeMap<String, String>>, key: &str) -> Option<String> {
    map.and_then(|map| map.get(key)).filter(|text| !text.is_empty()).cloned()
}

impl Service {
    pub(super) fn read(resource: &StreamService) -> Self {
        let status = &resource.status;
        let is_seen = status.observed_generation.is_some();
        let condition = |name: &str| status.conditions.iter().find(|condition| condition.type_ == name);
        let ready = condition("Ready").map(|condition| condition.status == "True");
        // What hinders it first, then what is under way.
        let holds = |name: &&str| condition(name).filter(|condition| condition.status == "True");
        let bad = ["Degraded", "DrainBlocked", "ScalingLimited", "Progressing"].iter().find_map(holds);
        let not_ready = condition("Ready").filter(|condition| condition.status != "True");
        let accepted = condition("Accepted").filter(|condition| condition.status != "True");
        let remark = accepted.or(bad).or(not_ready).map(|condition| {
            let word = if condition.status == "True" { condition.type_.as_str() } else { "" };
            let parts = [word, condition.reason.as_str(), condition.message.as_str()];
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
        });
        let spec = resource.spec.as_ref().ok();
        let mistakes = resource.spec.as_ref().err().map(ToString::to_string);
        Self {
            ready,
            remark: mistakes.or(remark).map(|text| text.replace('\n', "; ")),
            workers: is_seen.then(|| Count {
                ready: count(status.ready_replicas.into()),
                desired: count(status.desired_replicas.into()),
            }),
            draining: is_seen.then(|| count(status.draining_replicas.into())),
            sessions: count(status.active_sessions),
            capacity: is_seen.then(|| count(status.capacity)),
            per_worker: spec.map(|spec| spec.workers.sessions_per_worker.get()),
            url: status.url.clone(),
        }
    }
}

impl Worker {
    /// `None` for a pod that is no service's.
    pub(super) fn read(pod: &Pod) -> Option<Self> {
        let (labels, annotations) = (pod.metadata.labels.as_ref(), pod.metadata.annotations.as_ref());
        let service = Name { name: text(labels, SERVICE)?, namespace: Name::of(&pod.metadata).namespace };
        let status = pod.status.clone().unwrap_or_default();
        let phase = status.phase.unwrap_or_default();
        let is_ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        let waiting = status.container_statuses.iter().flatten().find_map(|container| {
            let waiting = container.state.as_ref()?.waiting.as_ref()?;
            waiting.reason.clone()
        });
        let unschedulable =
            status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status != "True");
        let why = waiting.or(unschedulable.and_then(|c| c.reason.clone())).filter(|why| why != "ContainerCreating");
        let state = match phase.as_str() {
            "Failed" | "Succeeded" => State::Over(status.reason.as_ref().unwrap_or(&phase).to_lowercase()),
            _ if pod.metadata.deletion_timestamp.is_some() => State::Ending,
            _ if text(labels, STATE).as_deref() == Some("draining") => State::Draining,
            _ if is_ready => State::Serving,
            _ => State::Starting(why),
        };
        let since = text(annotations, DRAINING_SINCE).and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let drain = Drain { since: since.map(jiff::Timestamp::as_second), reason: text(annotations, DRAIN_REASON) };
        let is_leaving = matches!(state, State::Draining | State::Ending);
        // What Kubernetes writes down is when the pod is to be gone at the latest.
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        let told = seconds(pod.metadata.deletion_timestamp.as_ref()).map(|by| by - grace);
        let ended = || Drain { since: told, reason: None };
        let drain = if drain == Drain::default() && state == State::Ending { ended() } else { drain };
        let spec = pod.spec.as_ref();
        let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
        let ports =
            containers.iter().filter(|container| container.name == CONTAINER).flat_map(|c| c.ports.iter().flatten());
        let named = ports.filter(|port| port.name.as_deref() == Some("admin")).map(|port| port.container_port).next();
        let is_running = phase == "Running" && status.pod_ip.is_some();
        Some(Self {
            service,
            variant: text(labels, VARIANT).filter(|variant| variant != "base"),
            state,
            sessions: None,
            created: seconds(pod.metadata.creation_timestamp.as_ref()),
            node: spec.and_then(|spec| spec.node_name.clone()),
            drain: is_leaving.then_some(drain),
            admin_port: is_running.then(|| named.and_then(|port| u16::try_from(port).ok()).unwrap_or(ADMIN_PORT)),
        })
    }
}

impl Said {
    /// `None` for what is said of anything but a StreamService.
    pub(super) fn read(event: &Event) -> Option<Self> {
        let of = event.regarding.as_ref().filter(|of| of.kind.as_deref() == Some(streamfleet_service::KIND))?;
        let series = event.series.as_ref();
        let at = series.map(|series| series.last_observed_time.0.as_second());
        let at = at.or(event.event_time.as_ref().map(|time| time.0.as_second()));
        let deprecated = || seconds(event.deprecated_last_timestamp.as_ref());
        let times = series.map(|series| series.count).or(event.deprecated_count);
        Some(Self {
            of: Name::new(of.namespace.as_deref().unwrap_or_default(), of.name.as_deref().unwrap_or_default()),
            at: at.or_else(deprecated).or(seconds(event.metadata.creation_timestamp.as_ref()))?,
            tone: if event.type_.as_deref() == Some("Warning") { Tone::Warning } else { Tone::Normal },
            reason: event.reason.clone().unwrap_or_default(),
            note: event.note.as_deref().unwrap_or_default().replace('\n', " "),
            times: times.map_or(1, |times| count(times.into())).max(1),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A pod of the service `voice/assistant`, with what is different about it.
    pub(in crate::top) fn pod(name: &str, more: &Value) -> Pod {
        let mut whole = json!({
            "metadata": {
                "name": name, "namespace": "voice", "creationTimestamp": "2026-11-22T10:00:00Z",
                "labels": { SERVICE: "assistant", VARIANT: "base", STATE: "serving" },
            },
            "spec": { "nodeName": "node-1", "containers": [{ "name": "worker", "ports": [{ "containerPort": 8081 }] }] },
            "status": { "phase": "Running", "podIP": "10.244.1.7", "conditions": [{ "type": "Ready", "status": "True" }] },
        });
        merge(&mut whole, more);
        serde_json::from_value(whole).unwrap()
    }

    fn merge(into: &mut Value, more: &Value) {
        match (into, more) {
            (Value::Object(into), Value::Object(more)) => {
                for (key, value) in more {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
            (into, more) => *into = more.clone(),
        }
    }

    #[test]
    fn where_a_pod_is() {
        let check = |more: Value, expected: State, text: &str| {
            let worker = Worker::read(&pod("w", &more)).unwrap();
            assert_eq!((&worker.state, worker.state.to_string().as_str()), (&expected, text), "{more}");
        };
        let unready = json!([{ "type": "Ready", "status": "False" }]);
        let waits = |reason: &str| {
            let waiting = json!([{ "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "waiting": { "reason": reason } } }]);
            json!({ "status": { "phase": "Pending", "conditions": unready, "containerStatuses": waiting } })
        };
        check(json!({}), State::Serving, "serving");
        check(json!({ "metadata": { "labels": { STATE: "draining" } } }), State::Draining, "draining");
        let deleted =
            json!({ "metadata": { "deletionTimestamp": "2026-11-22T11:00:00Z", "labels": { STATE: "draining" } } });
        check(deleted, State::Ending, "ending");
        check(json!({ "status": { "conditions": unready } }), State::Starting(None), "starting");
        check(waits("ContainerCreating"), State::Starting(None), "starting");
        let image = Some("ImagePullBackOff".to_owned());
        check(waits("ImagePullBackOff"), State::Starting(image), "starting (ImagePullBackOff)");
        let unschedulable = json!([{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable" }]);
        let pending = json!({ "status": { "phase": "Pending", "conditions": unschedulable } });
        check(pending, State::Starting(Some("Unschedulable".to_owned())), "starting (Unschedulable)");
        let evicted = json!({ "status": { "phase": "Failed", "reason": "Evicted" } });
        check(evicted, State::Over("evicted".to_owned()), "evicted");
        assert_eq!(Worker::read(&pod("w", &json!({ "metadata": { "labels": { SERVICE: "" } } }))), None);
    }

    #[test]
    fn what_a_pod_says_of_itself() {
        let more = json!({
            "metadata": {
                "labels": { STATE: "draining", VARIANT: "b" },
                "annotations": { DRAINING_SINCE: "2026-11-22T11:00:00Z", DRAIN_REASON: "scale down" },
            },
            "spec": { "containers": [{ "name": "worker", "ports": [{ "name": "admin", "containerPort": 9191 }] }] },
        });
        let worker = Worker::read(&pod("w", &more)).unwrap();
        let drain = Drain { since: Some(1_795_345_200), reason: Some("scale down".to_owned()) };
        assert_eq!((worker.drain, worker.variant.as_deref(), worker.admin_port), (Some(drain), Some("b"), Some(9191)));
        assert_eq!((worker.created, worker.node.as_deref()), (Some(1_795_341_600), Some("node-1")));
        let serving = Worker::read(&pod("w", &json!({}))).unwrap();
        assert_eq!((serving.drain, serving.variant, serving.admin_port), (None, None, Some(ADMIN_PORT)));
        let deleted = json!({ "deletionTimestamp": "2026-11-22T11:00:00Z", "deletionGracePeriodSeconds": 3_600 });
        let ending = Worker::read(&pod("w", &json!({ "metadata": deleted }))).unwrap();
        assert_eq!(ending.drain, Some(Drain { since: Some(1_795_341_600), reason: None }));
    }

    /// A StreamService as the API server shows it.
    pub(in crate::top) fn service(namespace: &str, name: &str, status: &Value) -> StreamService {
        serde_json::from_value(json!({
            "apiVersion": "streamfleet.dev/v1alpha1", "kind": "StreamService",
            "metadata": { "name": name, "namespace": namespace },
            "spec": { "handler": { "name": "echo" }, "workers": { "sessionsPerWorker": 20 } },
            "status": status,
        }))
        .unwrap()
    }

    fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({ "type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2026-11-22T11:00:00Z" })
    }

    #[test]
    fn what_an_operator_says_of_a_service() {
        let check = |conditions: Value, ready: Option<bool>, remark: Option<&str>| {
            let read = Service::read(&service("voice", "a", &json!({ "conditions": conditions })));
            assert_eq!((read.ready, read.remark.as_deref()), (ready, remark), "{conditions}");
        };
        check(json!([]), None, None);
        check(json!([condition("Ready", "True", "Ready", "all is well")]), Some(true), None);
        let unready = condition("Ready", "False", "NoWorkers", "no worker is ready");
        check(json!([unready]), Some(false), Some("NoWorkers: no worker is ready"));
        let degraded = condition("Degraded", "True", "ImagePullBackOff", "no such image");
        check(json!([unready, degraded]), Some(false), Some("Degraded: ImagePullBackOff: no such image"));
        let refused = condition("Accepted", "False", "PathTaken", "/a is voice/b's");
        check(json!([unready, degraded, refused]), Some(false), Some("PathTaken: /a is voice/b's"));
        let fine = condition("Degraded", "False", "Fine", "");
        check(json!([fine]), None, None);
        let status = json!({ "observedGeneration": 1, "readyReplicas": 2, "desiredReplicas": 3, "drainingReplicas": 1,
            "activeSessions": 31, "capacity": 40, "url": "https://v.example.com/a" });
        let read = Service::read(&service("voice", "a", &status));
        assert_eq!((read.workers, read.draining), (Some(Count { ready: 2, desired: 3 }), Some(1)));
        assert_eq!((read.sessions, read.capacity, read.per_worker), (31, Some(40), Some(20)));
        assert_eq!(read.url.as_deref(), Some("https://v.example.com/a"));
    }

    #[test]
    fn what_was_said_of_services() {
        let event = |more: Value| {
            let mut whole = json!({
                "metadata": { "name": "e", "namespace": "voice" },
                "regarding": { "kind": "StreamService", "namespace": "voice", "name": "assistant" },
                "type": "Normal", "reason": "ScaledUp", "note": "2 workers\nmore", "eventTime": "2026-11-22T11:00:00.5Z",
            });
            merge(&mut whole, &more);
            Said::read(&serde_json::from_value(whole).unwrap())
        };
        let said = event(json!({})).unwrap();
        assert_eq!(
            (said.at, said.times, said.tone, said.note.as_str()),
            (1_795_345_200, 1, Tone::Normal, "2 workers more")
        );
        let series =
            json!({ "type": "Warning", "series": { "count": 4, "lastObservedTime": "2026-11-22T11:01:00.0Z" } });
        let said = event(series).unwrap();
        assert_eq!((said.at, said.times, said.tone), (1_795_345_260, 4, Tone::Warning));
        assert_eq!(event(json!({ "regarding": { "kind": "Pod" } })), None);
    }
}
