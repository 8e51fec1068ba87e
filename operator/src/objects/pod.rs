//! A worker's pod: Pod Security "restricted", no token of the API server, configured by its environment.

use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction,
    KeyToPath, LocalObjectReference, ObjectFieldSelector, PodAffinityTerm, PodAntiAffinity, PodSecurityContext,
    PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecretKeySelector, SecretVolumeSource,
    SecurityContext, TopologySpreadConstraint, Volume, VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use streamfleet_process::config::{Secret, duration};
use streamfleet_service::spec::Exposure;

use super::{ADMIN_PORT, Blueprint, FILES, Group, HTTP_PORT, MAX_LOOPS, MEDIA_PORT, config_map, secret};
use crate::names::{self, CONFIG_HASH, CONTAINER, PROTECTED, SERVING, STATE};

/// The user that images run as.
const USER: i64 = 65532;
/// The folder of what it reads.
const CONFIG: &str = "/etc/streamfleet/config";
/// What a worker needs to leave when its time is over: sessions are told of their end, handlers say goodbye, and the rest stops.
pub(crate) const LEAVING: Duration = Duration::from_secs(15);
/// The variable that has the telephone company's token.
pub(crate) const TELEPHONE_TOKEN: &str = "STREAMFLEET_TELEPHONE_AUTH_TOKEN";

/// The template of a group's pods, without what users lay over it.
pub(super) fn template(of: &Blueprint, group: &Group) -> PodTemplateSpec {
    let mut template = PodTemplateSpec {
        metadata: Some(ObjectMeta::default()),
        spec: Some(PodSpec {
            service_account_name: Some(of.name()),
            automount_service_account_token: Some(false),
            // A variable for every Service of the namespace, of which one might be called STREAMFLEET_…
            enable_service_links: Some(false),
            // The first process of a PID namespace gets no signal that it has no handler for yet. A SIGTERM in the first moments of
            // a worker of its own namespace would be lost, and the kubelet waits then for the whole grace, as long as a call may
            // last; not even a shorter grace hastens it (kubernetes/kubernetes#113606). Here it ends a process that has no calls.
            share_process_namespace: Some(true),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                fs_group: Some(USER),
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
                ..PodSecurityContext::default()
            }),
            termination_grace_period_seconds: Some(i64::try_from(of.grace.as_secs()).unwrap_or(i64::MAX)),
            topology_spread_constraints: Some(over_zones(of, group)),
            affinity: Some(over_nodes(of, group)),
            image_pull_secrets: some(
                group.pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect(),
            ),
            containers: vec![container(of, group)],
            volumes: Some(volumes(of)),
            ..PodSpec::default()
        }),
    };
    identify(of, group, &mut template);
    template
}

/// The labels and annotations by which the operator, the Deployment and the disruption budget find a pod.
pub(super) fn identify(of: &Blueprint, group: &Group, template: &mut PodTemplateSpec) {
    let metadata = template.metadata.get_or_insert_default();
    let labels = metadata.labels.get_or_insert_default();
    labels.extend(names::labels_of_variant(&of.key.name, group.variant.as_deref()));
    labels.insert(STATE.to_owned(), SERVING.to_owned());
    labels.insert(PROTECTED.to_owned(), "true".to_owned());
    metadata.annotations.get_or_insert_default().insert(CONFIG_HASH.to_owned(), of.config_hash());
}

/// Who a pod is to the API server, and that it sees no other's processes: not for laying over either. Whoever may write a
/// StreamService need not be allowed to make pods, and would borrow any ServiceAccount of the namespace. Host networks and the like
/// are for Pod Security to judge.
pub(super) fn confine(of: &Blueprint, template: &mut PodTemplateSpec) {
    let spec = template.spec.get_or_insert_default();
    spec.service_account_name = Some(of.name());
    spec.service_account = None;
    spec.automount_service_account_token = Some(false);
    spec.host_pid = None;
    spec.host_ipc = None;
}

/// Over zones, as far as that goes: a pod that waits for the perfect place serves nobody. Nodes that have no zone count for
/// nothing here, so nodes are not a second constraint beside it.
fn over_zones(of: &Blueprint, group: &Group) -> Vec<TopologySpreadConstraint> {
    vec![TopologySpreadConstraint {
        topology_key: "topology.kubernetes.io/zone".to_owned(),
        max_skew: 1,
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(siblings(of, group)),
        match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
        ..TopologySpreadConstraint::default()
    }]
}

/// Over nodes, likewise.
fn over_nodes(of: &Blueprint, group: &Group) -> Affinity {
    let term = WeightedPodAffinityTerm {
        weight: 100,
        pod_affinity_term: PodAffinityTerm {
            topology_key: "kubernetes.io/hostname".to_owned(),
            label_selector: Some(siblings(of, group)),
            ..PodAffinityTerm::default()
        },
    };
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![term]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

fn siblings(of: &Blueprint, group: &Group) -> LabelSelector {
    LabelSelector {
        match_labels: Some(names::selector_of_variant(&of.key.name, group.variant.as_deref())),
        ..LabelSelector::default()
    }
}

fn container(of: &Blueprint, group: &Group) -> Container {
    let port = |name: &str, port: i32, protocol: &str| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some(protocol.to_owned()),
        ..ContainerPort::default()
    };
    let mut ports = vec![port("http", HTTP_PORT, "TCP"), port("admin", ADMIN_PORT, "TCP")];
    let loops = loops(of, group);
    ports.extend((0..loops.unwrap_or(1)).map(|n| {
        let media = port(&if n == 0 { "media".to_owned() } else { format!("media-{n}") }, MEDIA_PORT + n, "UDP");
        match of.exposure {
            Exposure::Relay => media,
            Exposure::HostPort => ContainerPort { host_port: Some(MEDIA_PORT + n), ..media },
        }
    }));
    let mount = |name: &str, path: &str| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    };
    let mut mounts = vec![mount("config", CONFIG)];
    if !of.site.files.is_empty() {
        mounts.push(mount("store", FILES));
    }
    Container {
        name: CONTAINER.to_owned(),
        image: Some(group.image.clone()),
        image_pull_policy: group.pull_policy.clone(),
        ports: Some(ports),
        env: Some(environment(of, group, loops)),
        resources: (group.resources != ResourceRequirements::default()).then(|| group.resources.clone()),
        volume_mounts: Some(mounts),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        // One that has not begun after a minute never will.
        startup_probe: Some(probe("/healthz", 1, 60)),
        // A worker that is busy is healthy: killing it for a late answer would end the sessions that keep it busy.
        liveness_probe: Some(probe("/healthz", 10, 6)),
        readiness_probe: Some(probe("/readyz", 2, 3)),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("admin".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(if period > 5 { 5 } else { 2 }),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn environment(of: &Blueprint, group: &Group, loops: Option<i32>) -> Vec<EnvVar> {
    let plain = |name: &str, value: String| EnvVar { name: name.to_owned(), value: Some(value), value_from: None };
    let from =
        |name: &str, source: EnvVarSource| EnvVar { name: name.to_owned(), value: None, value_from: Some(source) };
    let field = |name: &str, path: &str| {
        let field_ref = ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: path.to_owned() };
        from(name, EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() })
    };
    let secret = |name: &str, of: String, key: &str| {
        let secret_key_ref = SecretKeySelector { name: of, key: key.to_owned(), optional: None };
        from(name, EnvVarSource { secret_key_ref: Some(secret_key_ref), ..EnvVarSource::default() })
    };
    let advertise = match of.exposure {
        Exposure::Relay => "status.podIP",
        Exposure::HostPort => "status.hostIP",
    };
    let mut env = vec![
        field("STREAMFLEET_FLEET_WORKER", "metadata.name"),
        field("STREAMFLEET_FLEET_HTTP", "status.podIP"),
        field("STREAMFLEET_MEDIA_ADVERTISE", advertise),
        secret("STREAMFLEET_FLEET_SECRET", of.name(), secret::FLEET),
        plain("STREAMFLEET_CONFIG", format!("{CONFIG}/{}", config_map::CONFIG)),
        plain("STREAMFLEET_MANIFESTS", format!("{CONFIG}/{}", config_map::MANIFEST)),
        plain("STREAMFLEET_DRAIN_TERMINATION_GRACE", duration::format(drain(of.grace))),
    ];
    env.extend(group.variant.as_ref().map(|variant| plain("STREAMFLEET_FLEET_VARIANT", variant.clone())));
    env.extend(loops.map(|loops| plain("STREAMFLEET_MEDIA_LOOPS", loops.to_string())));
    if of.site.ipv6 {
        env.push(plain("STREAMFLEET_LISTEN", format!("[::]:{HTTP_PORT}")));
        env.push(plain("STREAMFLEET_ADMIN_LISTEN", format!("[::]:{ADMIN_PORT}")));
        env.push(plain("STREAMFLEET_MEDIA_UDP", format!("[::]:{MEDIA_PORT}")));
    }
    env.extend(of.telephone_token.iter().map(|(name, key)| secret(TELEPHONE_TOKEN, name.clone(), key)));
    env.extend(of.site.secret_env.iter().map(|(name, key, _)| secret(name, of.name(), key)));
    // What users say comes last, and instead of ours of the same name.
    env.retain(|ours| group.env.iter().all(|theirs| theirs.name != ours.name));
    env.extend(group.env.iter().cloned());
    env
}

/// How long sessions have of the grace that Kubernetes gives. Of a short one they have half.
fn drain(grace: Duration) -> Duration {
    grace.saturating_sub(LEAVING.min(Duration::from_secs(grace.as_secs() / 2)))
}

/// A worker of which nobody says what it may use asks for a little and not for nothing: whoever asks for nothing gets a busy node's
/// processor last, and is the first that a node without memory gives up, with all calls. Beside a limit it would be another request than
/// Kubernetes makes of that.
pub(super) fn ask(template: &mut PodTemplateSpec) {
    let containers = template.spec.iter_mut().flat_map(|spec| &mut spec.containers);
    for worker in containers.filter(|container| container.name == CONTAINER) {
        let resources = worker.resources.get_or_insert_default();
        if *resources == ResourceRequirements::default() {
            let asks = [("cpu", "100m"), ("memory", "64Mi")];
            let asks = asks.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())));
            resources.requests = Some(asks.into());
        }
    }
}

/// A media loop for each core that the pod is given. Without a word about that it may use them all: the worker counts them.
fn loops(of: &Blueprint, group: &Group) -> Option<i32> {
    let resources = &group.resources;
    let named = |list: &Option<_>| {
        let list: Option<&std::collections::BTreeMap<String, _>> = list.as_ref();
        list.and_then(|list| list.get("cpu")).and_then(|quantity: &Quantity| cores(&quantity.0))
    };
    let given = named(&resources.limits).or_else(|| named(&resources.requests));
    match of.exposure {
        Exposure::Relay => given,
        // Each loop takes a port of the node, and has to be known beforehand.
        Exposure::HostPort => Some(given.unwrap_or(1)),
    }
}

/// `1500m`, `2`, `0.5`: cores, rounded up.
fn cores(text: &str) -> Option<i32> {
    let cores = match text.strip_suffix('m') {
        Some(milli) => milli.parse::<f64>().ok()? / 1000.0,
        None => text.parse::<f64>().ok()?,
    };
    // A saturating cast: whatever it is, it ends up between the bounds.
    (cores.is_finite() && cores > 0.0).then(|| (cores.ceil() as i32).clamp(1, MAX_LOOPS))
}

fn volumes(of: &Blueprint) -> Vec<Volume> {
    let mut volumes = vec![Volume {
        name: "config".to_owned(),
        config_map: Some(ConfigMapVolumeSource { name: of.name(), ..ConfigMapVolumeSource::default() }),
        ..Volume::default()
    }];
    if !of.site.files.is_empty() {
        let item = |(key, _): &(String, Secret)| KeyToPath { key: key.clone(), path: key.clone(), mode: None };
        volumes.push(Volume {
            name: "store".to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(of.name()),
                items: Some(of.site.files.iter().map(item).collect()),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        });
    }
    volumes
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Workers whose time was over were killed while their handlers said goodbye.
    #[test]
    fn a_grace_leaves_time_to_leave() {
        for (grace, expected) in [(7_200, 7_185), (60, 45), (30, 15), (10, 5), (7, 4), (1, 1)] {
            assert_eq!(drain(Duration::from_secs(grace)), Duration::from_secs(expected), "{grace}");
        }
    }

    #[test]
    fn cores_of_a_quantity() {
        for (text, expected) in [
            ("2", Some(2)),
            ("1500m", Some(2)),
            ("0.5", Some(1)),
            ("100m", Some(1)),
            ("1e3", Some(256)),
            ("x", None),
            ("0", None),
            ("-1", None),
        ] {
            assert_eq!(cores(text), expected, "{text}");
        }
    }
}
