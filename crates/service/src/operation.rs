//! What of a service only an operator obeys: what its workers are, how many of them run, and what may end them.
//!
//! It is checked wherever a specification is read, in files too: what is wrong is told before somebody depends on it.

use std::collections::BTreeMap;
use std::time::Duration;

use streamfleet_process::config::Mistakes;

use crate::service::at_most;
use crate::spec::{
    AutoscalingSpec, Buffer, Disruption, EnvSpec, ImagePullPolicy, MAX_BUFFER_PERCENT, MAX_DRAIN_SECONDS, MAX_REPLICAS,
    MAX_STABILIZATION_SECONDS, ResourcesSpec, ScalingMode, ScheduleSpec, StreamServiceSpec, Template,
    VariantWorkersSpec, WorkersSpec,
};

/// What the service itself is called among its variants.
pub const BASE: &str = "base";
/// What the names of the operator's own variables begin with.
pub const OWN_VARIABLES: &str = "STREAMFLEET_";

/// How a service is run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Operation {
    /// Its workers.
    pub workers: Workers,
    /// Those of its variants, by name: what a variant does not say is as the service's.
    pub variants: BTreeMap<String, Workers>,
    /// How many run.
    pub autoscaling: Autoscaling,
    /// What may end one that has sessions.
    pub disruption: Disruption,
}

/// What workers are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Workers {
    /// Their image; `None` for the operator's.
    pub image: Option<String>,
    /// When it is pulled; `None` as Kubernetes does.
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Names of the Secrets with which it is pulled.
    pub image_pull_secrets: Vec<String>,
    /// What one may use.
    pub resources: ResourcesSpec,
    /// Their variables, each name once.
    pub env: Vec<EnvSpec>,
    /// Overlays on their pods' template, in the order in which they are laid on.
    pub templates: Vec<Template>,
}

/// How many workers run.
#[derive(Debug, Clone, PartialEq)]
pub struct Autoscaling {
    /// Who says so.
    pub mode: ScalingMode,
    /// At least.
    pub min: u32,
    /// In mode External.
    pub replicas: u32,
    /// At most.
    pub max: u32,
    /// Places kept free.
    pub buffer: Buffer,
    /// For how long fewer have to be enough.
    pub stabilization: Duration,
    /// The longest drain; `None` until the last session is over.
    pub max_drain: Option<Duration>,
    /// Known peaks.
    pub schedule: Vec<ScheduleSpec>,
}

impl Default for Autoscaling {
    fn default() -> Self {
        Self::from(&AutoscalingSpec::default())
    }
}

impl From<&AutoscalingSpec> for Autoscaling {
    fn from(spec: &AutoscalingSpec) -> Self {
        let drain = spec.scale_down.max_drain_seconds;
        Self {
            mode: spec.mode,
            min: spec.min_replicas,
            replicas: spec.replicas,
            max: spec.max_replicas,
            buffer: spec.buffer,
            stabilization: Duration::from_secs(spec.scale_down.stabilization_seconds.into()),
            max_drain: (drain > 0).then(|| Duration::from_secs(drain.into())),
            schedule: spec.schedule.clone(),
        }
    }
}

impl Operation {
    /// Notes what is wrong with the parts of a specification that it is made of.
    pub(crate) fn new(spec: &StreamServiceSpec, mistakes: &mut Mistakes) -> Self {
        let StreamServiceSpec { workers, autoscaling, disruption, routing, .. } = spec;
        check_autoscaling(autoscaling, mistakes);
        check_image("spec.workers.image", workers.image.as_deref(), mistakes);
        check_env("spec.workers.env", &workers.env, mistakes);
        let base = Workers::from(workers);
        let variants = routing.variants.iter().enumerate().map(|(n, variant)| {
            let key = format!("spec.routing.variants[{n}].workers");
            check_image(&format!("{key}.image"), variant.workers.image.as_deref(), mistakes);
            check_env(&format!("{key}.env"), &variant.workers.env, mistakes);
            (variant.name.clone(), base.with(&variant.workers))
        });
        let variants = variants.collect();
        Self { workers: base, variants, autoscaling: autoscaling.into(), disruption: *disruption }
    }
}

impl From<&WorkersSpec> for Workers {
    fn from(spec: &WorkersSpec) -> Self {
        Self {
            image: spec.image.clone(),
            image_pull_policy: spec.image_pull_policy,
            image_pull_secrets: spec.image_pull_secrets.iter().map(|secret| secret.name.clone()).collect(),
            resources: spec.resources.clone(),
            env: spec.env.clone(),
            templates: Some(&spec.template).filter(|template| !template.is_empty()).cloned().into_iter().collect(),
        }
    }
}

impl Workers {
    /// These, but for what a variant says.
    fn with(&self, said: &VariantWorkersSpec) -> Self {
        let mut these = self.clone();
        let VariantWorkersSpec { image, resources, env, template } = said.clone();
        these.image = image.or(these.image);
        these.resources = resources.unwrap_or(these.resources);
        these.env.retain(|variable| env.iter().all(|own| own.name != variable.name));
        these.env.extend(env);
        these.templates.extend(Some(template).filter(|template| !template.is_empty()));
        these
    }
}

fn check_autoscaling(spec: &AutoscalingSpec, mistakes: &mut Mistakes) {
    let AutoscalingSpec { mode: _, min_replicas, replicas, max_replicas, buffer, scale_down, schedule } = spec;
    for (key, value) in [("minReplicas", *min_replicas), ("replicas", *replicas), ("maxReplicas", *max_replicas)] {
        at_most(&format!("spec.autoscaling.{key}"), value, MAX_REPLICAS, mistakes);
    }
    if *max_replicas == 0 {
        mistakes.push("spec.autoscaling.maxReplicas", "must be 1 at least");
    }
    if min_replicas > max_replicas {
        mistakes
            .push("spec.autoscaling.minReplicas", format!("{min_replicas} is more than maxReplicas {max_replicas}"));
    }
    if let Buffer::Percent(percent) = buffer {
        at_most("spec.autoscaling.buffer", *percent, MAX_BUFFER_PERCENT, mistakes);
    }
    let (window, drain) = (scale_down.stabilization_seconds, scale_down.max_drain_seconds);
    at_most("spec.autoscaling.scaleDown.stabilizationSeconds", window, MAX_STABILIZATION_SECONDS, mistakes);
    at_most("spec.autoscaling.scaleDown.maxDrainSeconds", drain, MAX_DRAIN_SECONDS, mistakes);
    for (n, peak) in schedule.iter().enumerate() {
        let key = format!("spec.autoscaling.schedule[{n}]");
        for (field, fault) in peak.faults() {
            mistakes.push(format!("{key}.{field}"), fault);
        }
        if !(60..=604_800).contains(&peak.duration_seconds) {
            let fault = format!("{} is not between 60 and 604800", peak.duration_seconds);
            mistakes.push(format!("{key}.durationSeconds"), fault);
        }
        if peak.min_replicas > *max_replicas {
            let fault = format!("{} is more than maxReplicas {max_replicas}", peak.min_replicas);
            mistakes.push(format!("{key}.minReplicas"), fault);
        }
    }
}

fn check_image(key: &str, image: Option<&str>, mistakes: &mut Mistakes) {
    let is_name = |name: &str| {
        (1..=512).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'/' | b'@' | b'-'))
    };
    if image.is_some_and(|image| !is_name(image)) {
        mistakes.push(key, "is no name of an image such as registry.example.com/worker:1.2");
    }
}

fn check_env(key: &str, env: &[EnvSpec], mistakes: &mut Mistakes) {
    for (n, variable) in env.iter().enumerate() {
        let name = &variable.name;
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if !is_name || name.len() > 253 {
            mistakes.push(format!("{key}[{n}].name"), "is no name of a variable");
        }
        if name.starts_with(OWN_VARIABLES) {
            mistakes.push(
                format!("{key}[{n}].name"),
                format!("variables that begin with {OWN_VARIABLES} are the operator's"),
            );
        }
        if env[..n].iter().any(|other| other.name == *name) {
            mistakes.push(format!("{key}[{n}].name"), format!("{name} is the name of another variable already"));
        }
        let sources = variable
            .value_from
            .as_ref()
            .map(|from| usize::from(from.secret_key_ref.is_some()) + usize::from(from.config_map_key_ref.is_some()));
        match (&variable.value, sources) {
            (Some(_), None) | (None, Some(1)) => {}
            (Some(_), Some(_)) => mistakes.push(format!("{key}[{n}]"), "has a value and says where it is; choose one"),
            (None, None) => mistakes.push(format!("{key}[{n}].value"), "a variable needs a value, or valueFrom"),
            (None, Some(_)) => {
                mistakes.push(format!("{key}[{n}].valueFrom"), "needs one of secretKeyRef and configMapKeyRef");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::service::tests::service;

    #[test]
    fn a_variant_is_the_service_but_for_what_it_says() {
        let variable = |name: &str, value: &str| json!({ "name": name, "value": value });
        let whole = service(json!({
            "workers": {
                "image": "a:1", "imagePullPolicy": "Never", "imagePullSecrets": [{ "name": "pull" }],
                "resources": { "requests": { "cpu": 1, "memory": "1Gi" } },
                "env": [variable("A", "1"), variable("B", "1")],
                "template": { "metadata": { "labels": { "a": "b" } } },
            },
            "routing": { "variants": [
                { "name": "same", "weight": 10 },
                { "name": "other", "weight": 10, "workers": {
                    "image": "a:2", "resources": { "limits": { "cpu": "500m" } }, "env": [variable("B", "2"), variable("C", "2")],
                    "template": { "spec": { "nodeSelector": { "gpu": "yes" } } },
                } },
            ] },
        }))
        .unwrap();
        let operation = &whole.operation;
        assert_eq!(operation.variants["same"], operation.workers);
        let other = &operation.variants["other"];
        assert_eq!((other.image.as_deref(), other.image_pull_policy), (Some("a:2"), Some(ImagePullPolicy::Never)));
        assert_eq!(other.image_pull_secrets, ["pull"]);
        assert!(
            other.resources.requests.is_empty(),
            "as a whole: a limit under the service's request would be refused"
        );
        assert_eq!(other.resources.limits["cpu"].as_str(), "500m");
        let env: Vec<_> = other.env.iter().map(|env| (env.name.as_str(), env.value.as_deref().unwrap())).collect();
        assert_eq!(env, [("A", "1"), ("B", "2"), ("C", "2")]);
        assert_eq!(other.templates.len(), 2);
        assert_eq!(operation.workers.templates.len(), 1);
    }

    #[test]
    fn calls_do_not_notice_an_operator() {
        let of = |spec: Value| service(spec).unwrap();
        let one = of(json!({}));
        let scaled = of(json!({ "autoscaling": { "mode": "External", "replicas": 7 }, "workers": { "image": "a:2" } }));
        assert_ne!(one, scaled);
        assert!(one.serves_as(&scaled) && scaled.serves_as(&one) && one.serves_as(&one));
        for other in [json!({ "limits": { "concurrency": 1 } }), json!({ "workers": { "sessionsPerWorker": 1 } })] {
            assert!(!one.serves_as(&of(other)));
        }
    }

    #[test]
    fn what_bounds_drains() {
        let is_bounded = |spec: Value| service(spec).unwrap().has_bounded_drains();
        assert!(!is_bounded(json!({})));
        assert!(is_bounded(json!({ "limits": { "timeLimitSeconds": 600 } })));
        assert!(is_bounded(json!({ "autoscaling": { "scaleDown": { "maxDrainSeconds": 30 } } })));
    }

    #[test]
    fn every_mistake_names_its_key() {
        #[track_caller]
        fn check(spec: Value, expected: &[&str]) {
            let found = service(spec.clone()).map_or_else(|mistakes| mistakes, |_| Vec::new());
            assert_eq!(found.len(), expected.len(), "{spec}: {found:#?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.starts_with(expected), "{spec}: {found} instead of {expected}");
            }
        }
        let scaling = |autoscaling: Value| json!({ "autoscaling": autoscaling });
        check(scaling(json!({ "minReplicas": 11 })), &["spec.autoscaling.minReplicas: 11 is more than maxReplicas 10"]);
        check(scaling(json!({ "minReplicas": 10, "buffer": 0, "replicas": 5000 })), &[]);
        check(
            scaling(json!({ "minReplicas": 0, "maxReplicas": 0 })),
            &["spec.autoscaling.maxReplicas: must be 1 at least"],
        );
        check(
            scaling(
                json!({ "replicas": 5001, "scaleDown": { "stabilizationSeconds": 86_401, "maxDrainSeconds": 604_801 } }),
            ),
            &[
                "spec.autoscaling.replicas: 5001 is more than 5000",
                "spec.autoscaling.scaleDown.stabilizationSeconds: 86401 is more than 86400",
                "spec.autoscaling.scaleDown.maxDrainSeconds: 604801 is more than 604800",
            ],
        );
        let peak = |cron: &str, zone: &str, duration: u32, min: u32| json!({ "cron": cron, "timeZone": zone, "durationSeconds": duration, "minReplicas": min });
        check(scaling(json!({ "schedule": [peak("30 8 * * MON-FRI", "Europe/Berlin", 3600, 10)] })), &[]);
        check(
            scaling(json!({ "schedule": [peak("30 8 * *", "UTC", 59, 11), peak("0 0 1 1", "../etc", 60, 0)] })),
            &[
                "spec.autoscaling.schedule[0].cron: must be five fields",
                "spec.autoscaling.schedule[0].durationSeconds: 59 is not between",
                "spec.autoscaling.schedule[0].minReplicas: 11 is more than maxReplicas 10",
                "spec.autoscaling.schedule[1].cron: must be five fields",
                "spec.autoscaling.schedule[1].timeZone: is no name",
            ],
        );
        let env = |env: Value| json!({ "workers": { "env": env } });
        let key = json!({ "name": "n", "key": "k" });
        check(env(json!([{ "name": "A", "value": "" }, { "name": "B", "valueFrom": { "secretKeyRef": key } }])), &[]);
        check(
            env(json!([
                { "name": "A" },
                { "name": "A", "value": "1", "valueFrom": {} },
                { "name": "B", "valueFrom": {} },
                { "name": "C", "valueFrom": { "secretKeyRef": key, "configMapKeyRef": key } },
                { "name": "STREAMFLEET_SECRET", "value": "mine" },
                { "name": "9", "value": "" },
            ])),
            &[
                "spec.workers.env[0].value: a variable needs",
                "spec.workers.env[1].name: A is the name of another",
                "spec.workers.env[1]: has a value and says",
                "spec.workers.env[2].valueFrom: needs one",
                "spec.workers.env[3].valueFrom: needs one",
                "spec.workers.env[4].name: variables that begin with STREAMFLEET_",
                "spec.workers.env[5].name: is no name",
            ],
        );
        check(json!({ "workers": { "image": "a b" } }), &["spec.workers.image: is no name of an image"]);
        check(
            json!({ "routing": { "variants": [{ "name": "base", "weight": 1, "workers": { "image": "" } }] } }),
            &[
                "spec.routing.variants[0].workers.image: is no name",
                "spec.routing.variants[0].name: base is the service itself",
            ],
        );
    }

    #[test]
    fn what_a_buffer_and_an_amount_are() {
        for (text, expected) in [
            (json!("25%"), Some(Buffer::Percent(25))),
            (json!("0%"), Some(Buffer::Percent(0))),
            (json!("1000%"), Some(Buffer::Percent(1000))),
            (json!(0), Some(Buffer::Sessions(0))),
            (json!(12), Some(Buffer::Sessions(12))),
            (json!("1001%"), None),
            (json!("025%"), None),
            (json!("+5%"), None),
            (json!("12"), None),
            (json!("%"), None),
            (json!(-1), None),
            (json!(1.5), None),
            (json!(null), None),
        ] {
            let read = serde_json::from_value::<Buffer>(text.clone()).ok();
            assert_eq!(read, expected, "{text}");
            assert!(read.is_none_or(|read| serde_json::to_value(read).unwrap() == text));
        }
        use crate::spec::Amount;
        for (text, expected) in [
            (json!("500m"), Some("500m")),
            (json!(2), Some("2")),
            (json!(0.5), Some("0.5")),
            (json!("1.5Gi"), Some("1.5Gi")),
            (json!(".5"), Some(".5")),
            (json!("1e3"), Some("1e3")),
            (json!("1E"), Some("1E")),
            (json!("-1"), None),
            (json!(-1), None),
            (json!("1.2.3"), None),
            (json!("."), None),
            (json!("Gi"), None),
            (json!("1gi"), None),
            (json!("1e"), None),
            (json!(""), None),
            (json!({}), None),
        ] {
            let read = serde_json::from_value::<Amount>(text.clone()).ok();
            assert_eq!(read.as_ref().map(Amount::as_str), expected, "{text}");
        }
    }
}
