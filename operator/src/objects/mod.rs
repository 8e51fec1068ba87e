//! The objects of a service: pure, from a [`Blueprint`] without mistakes, one file a kind.

mod config_map;
mod deployment;
mod disruption;
mod network_policy;
mod pod;
pub(crate) use self::pod::{LEAVING, TELEPHONE_TOKEN};
mod pod_monitor;
mod secret;
mod service;
mod service_account;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::{EnvVar, PodTemplateSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use ring::digest;
use serde::Serialize;
use serde_json::Value;
use streamfleet_process::config::Secret;
use streamfleet_service::spec::{Disruption, Exposure};

use crate::kind::Kind;
use crate::names::{self, Key};

/// Where a worker's HTTP is, for routers.
pub const HTTP_PORT: i32 = 8081;
/// Probes and metrics.
pub const ADMIN_PORT: i32 = 9090;
/// UDP of the first media loop; each further loop has the next port.
pub const MEDIA_PORT: i32 = 5000;
/// The most media loops of a worker: the cores that it may use, on the largest machines that are sold.
pub const MAX_LOOPS: i32 = 256;

/// All that the objects of a service are made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Blueprint {
    /// The StreamService.
    pub key: Key,
    /// Its uid: it owns what is made.
    pub uid: String,
    /// Its workers: the service's own first, then those of its variants.
    pub groups: Vec<Group>,
    /// What of the StreamService a worker obeys, as a manifest in JSON (which is YAML).
    pub manifest: String,
    /// Where the auth token of the telephone company is: name and key of a Secret.
    pub telephone_token: Option<(String, String)>,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    /// Whether the platform may evict workers that have sessions.
    pub disruption: Disruption,
    /// Which addresses clients are told to send media to.
    pub exposure: Exposure,
    /// What is the same for all services of the installation.
    pub site: Site,
    /// What routers show to the workers of this service.
    pub secret: Secret,
}

/// Workers of one kind: a Deployment.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// `None` for the service itself.
    pub variant: Option<String>,
    /// What runs.
    pub image: String,
    /// `IfNotPresent` and the like; Kubernetes' own choice if absent.
    pub pull_policy: Option<String>,
    /// Names of Secrets that registries ask for.
    pub pull_secrets: Vec<String>,
    /// What it needs and may use.
    pub resources: ResourceRequirements,
    /// Further environment.
    pub env: Vec<EnvVar>,
    /// What users lay over the pod's template, one after the other.
    pub overlays: Vec<PodTemplateSpec>,
    /// Pods of it that there are to be, those included that finish their sessions.
    pub replicas: i32,
}

/// What is the same for all services of an installation.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Every worker's configuration file: where the store is, logs, traces.
    pub config: Value,
    /// Environment of every worker that is secret: variable, key in the Secret, value.
    pub secret_env: Vec<(String, String, Secret)>,
    /// Files of every worker: key in the Secret and text. They are in [`FILES`].
    pub files: Vec<(String, Secret)>,
    /// Labels of the routers' pods.
    pub routers: BTreeMap<String, String>,
    /// Their namespace.
    pub router_namespace: String,
    /// The namespace from which metrics are read; nobody reads them if absent.
    pub monitoring_namespace: Option<String>,
    /// Whether Prometheus' operator serves PodMonitors here.
    pub pod_monitors: bool,
    /// Whether pods have IPv6 addresses only, or first.
    pub ipv6: bool,
    /// What hashes of secrets are keyed with, so that nobody finds them by trying.
    pub salt: Secret,
}

impl Default for Site {
    /// Nothing is said.
    fn default() -> Self {
        Self {
            config: Value::default(),
            secret_env: Vec::new(),
            files: Vec::new(),
            routers: BTreeMap::new(),
            router_namespace: String::new(),
            monitoring_namespace: None,
            pod_monitors: false,
            ipv6: false,
            salt: Secret::new(""),
        }
    }
}

/// The folder of [`Site::files`].
pub const FILES: &str = "/etc/streamfleet/store";

/// One object, as it is to be.
#[derive(Clone, PartialEq)]
pub struct Object {
    /// Which kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// All of it.
    pub value: Value,
    /// Whether it is tried before anything is written.
    pub trial: Trial,
}

/// Whether an object is tried before anything is written: whether the API server would take it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Trial {
    /// It is all our own.
    #[default]
    None,
    /// Users have laid something over it.
    First,
}

impl fmt::Debug for Object {
    /// Not all of it: that of a Secret is nobody's to read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.name)
    }
}

impl Object {
    fn new<T: Serialize>(kind: Kind, name: String, object: T) -> Self {
        let mut value = serde_json::to_value(object).expect("invariant: objects have text keys and can be serialised");
        // Typed objects say so themselves; others do not.
        value["apiVersion"] = kind.api_version().into();
        value["kind"] = kind.name().into();
        Self { kind, name, value, trial: Trial::None }
    }

    /// A hash of what it is to be.
    #[must_use]
    pub fn hash(&self) -> [u8; 16] {
        let hash = digest::digest(&digest::SHA256, self.value.to_string().as_bytes());
        hash.as_ref()[..16].try_into().expect("invariant: SHA-256 has 32 bytes")
    }
}

impl Blueprint {
    /// All objects, in the order in which they are made: what a pod refers to comes before its Deployment.
    #[must_use]
    pub fn objects(&self) -> Vec<Object> {
        let mut objects = vec![
            service_account::build(self),
            secret::build(self),
            config_map::build(self),
            network_policy::build(self),
            service::build(self),
            disruption::build(self),
        ];
        objects.extend(self.groups.iter().map(|group| deployment::build(self, group)));
        objects.extend(self.site.pod_monitors.then(|| pod_monitor::build(self)));
        objects.iter_mut().for_each(|object| self.seal(object));
        objects
    }

    /// Notes on an object what it is to be: what was there before and is not wanted any more is not found by looking for what is
    /// wanted. How many pods there are is said by itself, and no part of it. The hash is keyed: there are secrets in it.
    fn seal(&self, object: &mut Object) {
        let replicas =
            object.value.get_mut("spec").and_then(Value::as_object_mut).and_then(|spec| spec.remove("replicas"));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.site.salt.reveal().as_bytes());
        let hash = ring::hmac::sign(&key, object.value.to_string().as_bytes());
        object.value["metadata"]["annotations"][names::APPLIED] = names::hex(&hash.as_ref()[..8]).into();
        if let Some(replicas) = replicas {
            object.value["spec"]["replicas"] = replicas;
        }
    }

    /// The name of all objects but variants' Deployments.
    #[must_use]
    pub fn name(&self) -> String {
        names::worker(&self.key.name, None)
    }

    fn meta(&self, name: String) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.key.namespace.clone()),
            labels: Some(names::labels(&self.key.name)),
            owner_references: Some(vec![OwnerReference {
                api_version: streamfleet_service::API_VERSION.to_owned(),
                kind: streamfleet_service::KIND.to_owned(),
                name: self.key.name.clone(),
                uid: self.uid.clone(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        }
    }

    /// A hash of all that a worker reads when it starts and that its pod's template does not show.
    fn config_hash(&self) -> String {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.site.salt.reveal().as_bytes());
        let mut hash = ring::hmac::Context::with_key(&key);
        let config = self.site.config.to_string();
        let secrets = self.site.secret_env.iter().map(|(_, _, value)| value.reveal());
        let files = self.site.files.iter().flat_map(|(name, text)| [name.as_str(), text.reveal()]);
        for text in [self.manifest.as_str(), &config, self.secret.reveal()].into_iter().chain(secrets).chain(files) {
            hash.update(&(text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        }
        names::hex(&hash.sign().as_ref()[..8])
    }
}

#[cfg(test)]
mod tests;
