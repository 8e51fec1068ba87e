//! From a StreamService to what the operator goes by: checked, and in the words of the parts that obey it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    ConfigMapKeySelector, EnvVar, EnvVarSource, PodTemplateSpec, ResourceRequirements, SecretKeySelector,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Map, Value};
use streamfleet_process::config::{Mistakes, Secret};
use streamfleet_scaling::{Buffer, Mode, Schedule, Tuning};
use streamfleet_service::operation::{Autoscaling, Workers};
use streamfleet_service::spec::{self, EnvSpec, ResourcesSpec, ScalingMode, ScheduleSpec, Template};
use streamfleet_session::{FleetSecret, RECONNECT_LEAD, ServiceName};
use streamfleet_store::user_of;

use crate::config;
use crate::names::CONTAINER;
use crate::objects::{Blueprint, Group, LEAVING, Site};
use crate::resource::{Resource, Said};

/// How often a service is looked at while something goes on.
pub const TICK: Duration = Duration::from_secs(2);
/// How often while nothing does, and it has workers. What is seen late is late by this: the first calls after a quiet hour are.
pub const IDLE: Duration = Duration::from_secs(5);
/// From SIGTERM to SIGKILL where nothing bounds a session: the service says that it may be disrupted always.
const UNBOUNDED_GRACE: Duration = Duration::from_secs(60);

/// Beyond the longest call: for one to connect that had just come at SIGTERM, and for the worker to leave.
const BEGINNING: Duration = Duration::from_secs(60);

/// A service that can be run.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Of the specification that this is made from.
    pub generation: i64,
    /// What that says.
    pub said: Arc<Said>,
    /// Its workers, by kind: those of the service itself first.
    pub parts: Vec<Arc<Part>>,
}

/// Workers of one kind.
#[derive(Debug, Clone)]
pub struct Part {
    /// `None` for the service itself.
    pub variant: Option<String>,
    /// Its share of the sessions, in percent.
    pub share: u32,
    /// How it scales.
    pub tuning: Tuning,
    /// What users lay over its pods.
    overlays: Vec<PodTemplateSpec>,
}

impl Prepared {
    /// Checks what only an operator obeys.
    ///
    /// # Errors
    /// Every mistake, by key.
    pub fn new(resource: &Resource) -> Result<Self, Mistakes> {
        let said = resource.said.as_ref().map_err(Clone::clone)?;
        let operation = &said.service.operation;
        let variants = &said.service.variants;
        let mut mistakes = Mistakes::new();
        let taken: u32 = variants.iter().map(|variant| u32::from(variant.weight)).sum();
        let mut shares = vec![(None, 100_u32.saturating_sub(taken))];
        shares.extend(variants.iter().map(|variant| (Some(variant.name.clone()), u32::from(variant.weight))));
        let scaling = &operation.autoscaling;
        let weights: Vec<u32> = shares.iter().map(|(_, share)| *share).collect();
        let tunings = tuning(scaling, &mut mistakes).split(&weights);
        let mut parts = Vec::new();
        for (n, ((variant, share), tuning)) in shares.into_iter().zip(tunings).enumerate() {
            let workers = match &variant {
                None => Some(("spec.workers".to_owned(), &operation.workers)),
                Some(name) => {
                    let key = format!("spec.routing.variants[{}].workers", n - 1);
                    operation.variants.get(name).map(|workers| (key, workers))
                }
            };
            let Some((key, workers)) = workers else { continue };
            let overlays = workers.templates.iter().filter_map(|template| overlay(&key, template, &mut mistakes));
            let overlays = overlays.collect();
            let tuning = Tuning { sessions_per_worker: said.service.sessions_per_worker, ..tuning };
            parts.push(Arc::new(Part { variant, share, tuning, overlays }));
        }
        mistakes.or(Self { generation: resource.generation, said: said.clone(), parts })
    }

    /// From SIGTERM to SIGKILL. Where drains are bounded, calls go on for the longest one before their clients are asked to connect
    /// elsewhere, as in a drain that the operator has begun. Where calls are, the longest one that had just begun comes to its end.
    #[must_use]
    pub fn grace(&self) -> Duration {
        let service = &self.said.service;
        let drain = service.operation.autoscaling.max_drain.map(|drain| drain + RECONNECT_LEAD + LEAVING);
        let call = service.limits.time_limit.map(|longest| longest + BEGINNING);
        drain.or(call).unwrap_or(UNBOUNDED_GRACE)
    }

    /// What its objects are made from, with so many pods of each part.
    #[must_use]
    pub fn blueprint(&self, resource: &Resource, installation: &Installation, replicas: &[i32]) -> Blueprint {
        let service = &self.said.service;
        let groups = self.parts.iter().zip(replicas).filter_map(|(part, replicas)| {
            let workers = match &part.variant {
                None => &service.operation.workers,
                Some(name) => service.operation.variants.get(name)?,
            };
            Some(group(part, workers, installation, *replicas))
        });
        Blueprint {
            key: resource.key.clone(),
            uid: resource.uid.clone(),
            groups: groups.collect(),
            manifest: self.said.manifest.clone(),
            telephone_token: self.said.telephone_token.clone(),
            grace: self.grace(),
            disruption: service.operation.disruption,
            exposure: service.exposure,
            site: installation.site_of(&service.name),
            secret: Secret::new(installation.secret.of_service(&service.name).reveal()),
        }
    }
}

/// What is the same for all services.
#[derive(Debug, Clone)]
pub struct Installation {
    /// Where things are.
    pub site: Site,
    /// What keys of services are made of.
    pub secret: FleetSecret,
    /// Whether each service has a user of its own in the store.
    pub service_users: bool,
    /// The image of workers whose service names none.
    pub image: String,
    /// The beginning of URLs.
    pub public_url: Option<String>,
}

impl Installation {
    /// What is the same for all services, and how one of them gets into the store.
    fn site_of(&self, service: &ServiceName) -> Site {
        let mut site = self.site.clone();
        if self.service_users {
            site.config["fleet"]["store"]["redis"]["user"] = user_of(service).into();
            let password = config::store_password(Secret::new(self.secret.store_password_of(service)));
            site.secret_env.retain(|(variable, ..)| *variable != password.0);
            site.secret_env.push(password);
        }
        site
    }
}

fn group(part: &Part, workers: &Workers, installation: &Installation, replicas: i32) -> Group {
    Group {
        variant: part.variant.clone(),
        image: workers.image.clone().unwrap_or_else(|| installation.image.clone()),
        pull_policy: workers.image_pull_policy.map(|policy| policy.as_str().to_owned()),
        pull_secrets: workers.image_pull_secrets.clone(),
        resources: resources(&workers.resources),
        env: workers.env.iter().map(variable).collect(),
        overlays: part.overlays.clone(),
        replicas,
    }
}

fn resources(spec: &ResourcesSpec) -> ResourceRequirements {
    let amounts = |of: &BTreeMap<String, spec::Amount>| {
        let all: BTreeMap<_, _> =
            of.iter().map(|(name, amount)| (name.clone(), Quantity(amount.as_str().to_owned()))).collect();
        (!all.is_empty()).then_some(all)
    };
    ResourceRequirements { limits: amounts(&spec.limits), requests: amounts(&spec.requests), claims: None }
}

fn variable(spec: &EnvSpec) -> EnvVar {
    let optional = |optional: bool| optional.then_some(true);
    let from = spec.value_from.as_ref().map(|from| EnvVarSource {
        secret_key_ref: from.secret_key_ref.as_ref().map(|of| SecretKeySelector {
            name: of.name.clone(),
            key: of.key.clone(),
            optional: optional(of.optional),
        }),
        config_map_key_ref: from.config_map_key_ref.as_ref().map(|of| ConfigMapKeySelector {
            name: of.name.clone(),
            key: of.key.clone(),
            optional: optional(of.optional),
        }),
        ..EnvVarSource::default()
    });
    EnvVar { name: spec.name.clone(), value: spec.value.clone(), value_from: from }
}

/// How the service scales as a whole.
fn tuning(scaling: &Autoscaling, mistakes: &mut Mistakes) -> Tuning {
    let mut schedules = Vec::new();
    for (n, ScheduleSpec { cron, time_zone, duration_seconds, min_replicas }) in scaling.schedule.iter().enumerate() {
        let length = Duration::from_secs((*duration_seconds).into());
        match Schedule::parse(cron, time_zone, length, *min_replicas) {
            Ok(schedule) => schedules.push(schedule),
            Err(error) => mistakes.push(format!("spec.autoscaling.schedule[{n}]"), error.to_string()),
        }
    }
    Tuning {
        min: scaling.min,
        max: scaling.max,
        buffer: match scaling.buffer {
            spec::Buffer::Percent(percent) => Buffer::Percent(percent),
            spec::Buffer::Sessions(places) => Buffer::Places(places),
        },
        mode: match scaling.mode {
            ScalingMode::Sessions => Mode::Sessions,
            ScalingMode::External => Mode::External(scaling.replicas),
        },
        stabilization: scaling.stabilization,
        idle: scaling.stabilization.max(Duration::from_secs(60)),
        schedules,
        tick: IDLE,
        ..Tuning::default()
    }
}

/// An overlay on a pod's template. Keys that Kubernetes does not know are mistakes: they would vanish without a word.
fn overlay(key: &str, template: &Template, mistakes: &mut Mistakes) -> Option<PodTemplateSpec> {
    let whole = Value::Object(template.0.clone());
    let typed: PodTemplateSpec = match serde_json::from_value(whole) {
        Ok(typed) => typed,
        Err(error) => {
            mistakes.push(format!("{key}.template"), format!("is no part of a pod's template: {error}"));
            return None;
        }
    };
    let known = serde_json::to_value(&typed).unwrap_or_default();
    let mut unknown = Vec::new();
    missing(&template.0, &known, &mut format!("{key}.template"), &mut unknown);
    for path in unknown {
        mistakes.push(path, "there is no such field in a pod's template");
    }
    what_drains_go_by(&format!("{key}.template"), &typed, mistakes);
    Some(typed)
}

/// What says how long calls have is said elsewhere, and once: a worker that believes in another time than its kubelet would be killed with
/// its calls.
fn what_drains_go_by(key: &str, template: &PodTemplateSpec, mistakes: &mut Mistakes) {
    const OWN: &str = "STREAMFLEET_DRAIN_";
    let Some(spec) = &template.spec else { return };
    if spec.termination_grace_period_seconds.is_some() {
        let why = "is as long as calls may last: say spec.autoscaling.scaleDown.maxDrainSeconds or spec.limits.timeLimitSeconds";
        mistakes.push(format!("{key}.spec.terminationGracePeriodSeconds"), why);
    }
    for (n, container) in spec.containers.iter().enumerate().filter(|(_, container)| container.name == CONTAINER) {
        let lifecycle = container.lifecycle.as_ref();
        if lifecycle.is_some_and(|lifecycle| lifecycle.stop_signal.is_some()) {
            let why = "is SIGTERM: a worker that is ended by another signal ends its calls";
            mistakes.push(format!("{key}.spec.containers[{n}].lifecycle.stopSignal"), why);
        }
        if lifecycle.is_some_and(|lifecycle| lifecycle.pre_stop.is_some()) {
            let why = "would take its time from that of calls, without the worker's knowing: leave it out, routers hear of a worker that goes at once; what else is to be done then is for another container";
            mistakes.push(format!("{key}.spec.containers[{n}].lifecycle.preStop"), why);
        }
        for (m, variable) in container.env.iter().flatten().enumerate() {
            if variable.name.starts_with(OWN) {
                let why = format!("variables that begin with {OWN} are the operator's");
                mistakes.push(format!("{key}.spec.containers[{n}].env[{m}].name"), why);
            }
        }
    }
}

/// Keys of `said` that are not in `known`, with their paths.
fn missing(said: &Map<String, Value>, known: &Value, path: &mut String, found: &mut Vec<String>) {
    /// Nobody corrects more than this at once.
    const ENOUGH: usize = 20;
    for (key, value) in said {
        if found.len() >= ENOUGH {
            return;
        }
        let length = path.len();
        path.push('.');
        path.push_str(key);
        match known.get(key) {
            None if value.is_null() => {}
            None => found.push(path.clone()),
            Some(known) => look_into(value, known, path, found),
        }
        path.truncate(length);
    }
}

fn look_into(value: &Value, known: &Value, path: &mut String, found: &mut Vec<String>) {
    match (value, known) {
        (Value::Object(said), Value::Object(_)) => missing(said, known, path, found),
        (Value::Array(said), Value::Array(known)) => {
            for (n, (said, known)) in said.iter().zip(known).enumerate() {
                let length = path.len();
                path.push_str(&format!("[{n}]"));
                look_into(said, known, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn prepare(spec: Value) -> Result<Prepared, Vec<String>> {
        let mut whole = json!({ "handler": { "name": "echo" }, "limits": { "timeLimitSeconds": 600 } });
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let object = json!({ "metadata": { "namespace": "voice", "name": "a", "generation": 2 }, "spec": whole });
        let resource = Resource::of(&serde_json::from_value(object).unwrap()).unwrap();
        Prepared::new(&resource).map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn workers_log_into_the_store_as_the_fleet_or_as_their_service() {
        let prepared = prepare(json!({})).unwrap();
        let object = json!({ "metadata": { "namespace": "voice", "name": "a" }, "spec": {} });
        let resource = Resource::of(&serde_json::from_value(object).unwrap()).unwrap();
        let site = Site {
            config: json!({ "fleet": { "store": { "redis": { "address": "redis:6379", "user": "fleet" } } } }),
            secret_env: vec![config::store_password(Secret::new("the-fleet's"))],
            ..Site::default()
        };
        let secret: FleetSecret = "a-secret-of-the-fleet".parse().unwrap();
        let password = secret.store_password_of(&"voice/a".parse().unwrap());
        let (image, public_url) = ("worker:1".to_owned(), None);
        let mut installation = Installation { site, secret, service_users: false, image, public_url };
        for (service_users, user, shown) in [(false, "fleet", "the-fleet's"), (true, "sf:voice/a", &*password)] {
            installation.service_users = service_users;
            let site = prepared.blueprint(&resource, &installation, &[1]).site;
            let redis = json!({ "address": "redis:6379", "user": user });
            assert_eq!(site.config, json!({ "fleet": { "store": { "redis": redis } } }));
            let passwords: Vec<_> = site.secret_env.iter().map(|(.., password)| password.reveal()).collect();
            assert_eq!(passwords, [shown]);
        }
        // A Redis that asked nobody who he is knows users all the same.
        installation.site.secret_env.clear();
        let site = prepared.blueprint(&resource, &installation, &[1]).site;
        assert_eq!(site.secret_env, [config::store_password(Secret::new(password))]);
    }

    #[test]
    fn a_service_and_its_variants() {
        let prepared = prepare(json!({
            "autoscaling": { "minReplicas": 2, "maxReplicas": 20, "buffer": 30,
                "schedule": [{ "cron": "0 8 * * *", "durationSeconds": 3600, "minReplicas": 10 }] },
            "routing": { "variants": [{ "name": "b", "weight": 10 }, { "name": "off", "weight": 0 }] },
        }))
        .unwrap();
        let of = |n: usize| (prepared.parts[n].share, prepared.parts[n].tuning.min, prepared.parts[n].tuning.max);
        assert_eq!((of(0), of(1), of(2)), ((90, 1, 18), (10, 1, 2), (0, 0, 0)));
        assert_eq!(prepared.parts[1].tuning.buffer, Buffer::Places(3));
        assert_eq!(prepared.parts[0].tuning.schedules[0].min(), 9);
        assert_eq!(prepared.grace().as_secs(), 660);
        let drain = json!({ "autoscaling": { "scaleDown": { "maxDrainSeconds": 40 } } });
        assert_eq!(prepare(drain).unwrap().grace().as_secs(), 65, "10 s to go elsewhere, and 15 to leave");
        let neither = json!({ "limits": {}, "disruption": "Always" });
        assert_eq!(prepare(neither).unwrap().grace(), UNBOUNDED_GRACE);
        assert_eq!(prepared.parts[0].tuning.tick, IDLE, "a service at rest is not looked at more often");
    }

    #[test]
    fn what_only_an_operator_finds_out() {
        let template = |template: Value| prepare(json!({ "workers": { "template": template } })).map(drop);
        assert_eq!(template(json!({ "spec": { "nodeSelector": { "a": "b" } } })), Ok(()));
        assert_eq!(
            template(json!({ "spec": { "nodeSelektor": {}, "containers": [{ "name": "worker", "imag": "x" }] } })),
            Err(vec![
                "spec.workers.template.spec.containers[0].imag: there is no such field in a pod's template".to_owned(),
                "spec.workers.template.spec.nodeSelektor: there is no such field in a pod's template".to_owned(),
            ])
        );
        let waits = json!({ "postStart": { "sleep": { "seconds": 1 } }, "preStop": { "sleep": { "seconds": 5 } }, "stopSignal": "SIGINT" });
        let drained = json!({ "terminationGracePeriodSeconds": 30, "containers": [
            { "name": "sidecar", "env": [{ "name": "STREAMFLEET_DRAIN_NOTICE" }], "lifecycle": waits },
            { "name": "worker", "env": [{ "name": "STREAMFLEET_LOG" }, { "name": "STREAMFLEET_DRAIN_TERMINATION_GRACE", "value": "1h" }],
              "lifecycle": waits },
        ] });
        let mistakes = template(json!({ "spec": drained })).unwrap_err();
        assert_eq!(mistakes.len(), 4, "{mistakes:?}");
        for key in [
            "containers[1].env[1].name: ",
            "containers[1].lifecycle.preStop: ",
            "containers[1].lifecycle.stopSignal: ",
            "terminationGracePeriodSeconds: ",
        ] {
            let key = format!("spec.workers.template.spec.{key}");
            assert!(mistakes.iter().any(|mistake| mistake.starts_with(&key)), "{key} {mistakes:?}");
        }
        let wrong = template(json!({ "spec": { "containers": 1 } })).unwrap_err();
        assert!(wrong[0].starts_with("spec.workers.template: is no part of a pod's template"), "{wrong:?}");
        let never = json!({ "autoscaling": { "schedule": [{ "cron": "0 0 30 2 *", "durationSeconds": 60, "minReplicas": 1 }] } });
        assert!(prepare(never).is_err_and(|mistakes| mistakes[0].starts_with("spec.autoscaling.schedule[0]")));
    }
}
