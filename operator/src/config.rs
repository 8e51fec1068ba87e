//! The operator's configuration: serde data with defaults, and the checked plan that is built from it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use streamfleet_process::config::{Layers, Mistakes, Secret, duration};
use streamfleet_process::telemetry::{LogConfig, OtlpConfig, TelemetryConfig};
use streamfleet_session::FleetSecret;
use streamfleet_store::Backend;
use streamfleet_store::config::{RedisSpec, StoreConfig};

use crate::cluster::DEADLINE;
use crate::lease::{LONGEST, Terms};
use crate::objects::{FILES, Site};

/// Everything that whoever installs the operator can say about it. Keys are `camelCase`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct OperatorConfig {
    /// Namespaces whose StreamServices it sees to. Empty: all, for which it needs a ClusterRole.
    pub namespaces: Vec<String>,
    /// The image of workers whose StreamService names none. Required.
    pub worker_image: Option<String>,
    /// What the fleet knows together. Workers get it as it stands here.
    pub store: StoreConfig,
    /// Whether workers log into the store as a user of their service, which the operator makes, and not with the login above.
    pub service_users: bool,
    /// What routers and the operator share; workers get a key of their service that is made of it. Required.
    pub secret: Option<Secret>,
    /// Labels of the routers' pods: who reaches the workers.
    pub router_selector: BTreeMap<String, String>,
    /// The routers' namespace. Absent: the operator's.
    pub router_namespace: Option<String>,
    /// The namespace from which workers' metrics are read. Absent: from none, and no rule allows it.
    pub monitoring_namespace: Option<String>,
    /// Where clients reach the routers, `https://voice.example.com`: the beginning of the URL in a status.
    pub public_url: Option<String>,
    /// The routers' Service, in their namespace: where nobody has said `publicUrl`, the load balancer tells it.
    pub router_service: Option<String>,
    /// StreamServices that are looked at at a time.
    pub concurrency: NonZeroUsize,
    /// Who of several operators acts.
    pub lease: LeaseConfig,
    /// Probes and metrics.
    pub admin: AdminConfig,
    /// Logs.
    pub log: LogConfig,
    /// Traces. Workers get it, too.
    pub otlp: OtlpConfig,
}

impl Default for OperatorConfig {
    fn default() -> Self {
        Self {
            namespaces: Vec::new(),
            worker_image: None,
            store: StoreConfig::default(),
            service_users: false,
            secret: None,
            router_selector: BTreeMap::new(),
            router_namespace: None,
            monitoring_namespace: None,
            public_url: None,
            router_service: None,
            concurrency: NonZeroUsize::new(16).expect("invariant: 16 is not zero"),
            lease: LeaseConfig::default(),
            admin: AdminConfig::default(),
            log: LogConfig::default(),
            otlp: OtlpConfig::default(),
        }
    }
}

/// Who of several operators acts: the one who has a Lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct LeaseConfig {
    /// Its name.
    pub name: String,
    /// Its namespace. Absent: the operator's.
    pub namespace: Option<String>,
    /// What this process is called in it. Absent: `HOSTNAME`, which is a pod's name.
    pub identity: Option<String>,
    /// How long others wait for a sign of the holder's life.
    #[serde(with = "duration")]
    pub duration: Duration,
    /// How long the holder acts without having renewed it; 12 s less than `duration`, for requests that are under way.
    #[serde(with = "duration")]
    pub deadline: Duration,
    /// How often it is renewed, and looked at.
    #[serde(with = "duration")]
    pub retry: Duration,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        let Terms { duration, deadline, retry } = Terms::default();
        Self { name: "streamfleet-operator".to_owned(), namespace: None, identity: None, duration, deadline, retry }
    }
}

/// Probes and metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct AdminConfig {
    /// Where: for the cluster, not for the public.
    pub listen: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::UNSPECIFIED, 9090).into() }
    }
}

/// A configuration without mistakes.
#[derive(Debug)]
pub struct OperatorPlan {
    /// Namespaces, or all if there are none.
    pub namespaces: Vec<String>,
    /// The image of workers whose StreamService names none.
    pub worker_image: String,
    /// The store.
    pub store: Backend,
    /// Whether each service has a user of its own there.
    pub service_users: bool,
    /// What routers show, before it is made into keys of services.
    pub secret: FleetSecret,
    /// What is the same for all workers. The routers' namespace is the operator's where it is empty.
    pub site: Site,
    /// The beginning of URLs.
    pub public_url: Option<String>,
    /// The Service whose load balancer says it otherwise.
    pub router_service: Option<String>,
    /// Looks at a time.
    pub concurrency: NonZeroUsize,
    /// The lease, and how long it lasts.
    pub lease: LeaseConfig,
    /// Admin address.
    pub admin_listen: SocketAddr,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
}

impl OperatorConfig {
    /// The layers of this configuration, but for file, environment and flags.
    #[must_use]
    pub fn layers() -> Layers {
        Layers::new("STREAMFLEET")
            .alias("STREAMFLEET_LOG", "log.filter")
            .alias("OTEL_EXPORTER_OTLP_ENDPOINT", "otlp.endpoint")
            .alias("HOSTNAME", "lease.identity")
            .alias("POD_NAME", "lease.identity")
            .secret("secret")
            .secret("store.redis.password")
    }

    /// Checks what types cannot say, and builds the plan.
    ///
    /// # Errors
    /// Every mistake, by key.
    pub fn build(self) -> Result<OperatorPlan, Mistakes> {
        let mut mistakes = Mistakes::new();
        let store = self.store.build("store", &mut mistakes);
        if self.worker_image.as_ref().is_none_or(String::is_empty) {
            mistakes.push("workerImage", "an operator needs it");
        }
        if self.secret.is_none() {
            mistakes.push("secret", "an operator needs it");
        }
        let secret =
            self.secret.as_ref().and_then(|text| mistakes.check("secret", text.reveal().parse::<FleetSecret>()));
        if self.router_selector.is_empty() {
            mistakes.push("routerSelector", "needs a label: an empty selector would let every pod reach the workers");
        }
        let LeaseConfig { duration, deadline, retry, .. } = &self.lease;
        if *duration < deadline.saturating_add(DEADLINE) {
            let text = format!(
                "must be {} s less than lease.duration, which is how long a request may take: two would act at a time",
                DEADLINE.as_secs()
            );
            mistakes.push("lease.deadline", text);
        }
        if *duration > LONGEST {
            mistakes.push("lease.duration", format!("must be at most {} s", LONGEST.as_secs()));
        }
        if retry >= deadline || retry.is_zero() {
            mistakes.push("lease.retry", "must be more than nothing and less than lease.deadline");
        }
        if let Some(url) = &self.public_url {
            let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
            if rest.is_none_or(|rest| rest.is_empty() || rest.trim_end_matches('/').contains('/')) {
                mistakes.push("publicUrl", "must be https:// or http:// and a host, without a path");
            }
        }
        if self.service_users && self.store.redis.password.is_none() {
            mistakes.push(
                "serviceUsers",
                "needs store.redis.password: a Redis that asks nobody who he is keeps nobody apart",
            );
        }
        let files = files(&self.store.redis, &mut mistakes);
        let salt = self.secret.clone().unwrap_or_else(|| Secret::new(""));
        let password = self.store.redis.password.clone().map(store_password);
        let site = Site {
            config: worker_config(&self.store.redis, &self.log, &self.otlp),
            secret_env: password.into_iter().collect(),
            files,
            routers: self.router_selector,
            router_namespace: self.router_namespace.unwrap_or_default(),
            monitoring_namespace: self.monitoring_namespace,
            pod_monitors: false,
            ipv6: false,
            salt,
        };
        let (Some(store), Some(secret), Some(worker_image)) = (store, secret, self.worker_image) else {
            return Err(mistakes);
        };
        mistakes.or(OperatorPlan {
            namespaces: self.namespaces,
            worker_image,
            store,
            service_users: self.service_users,
            secret,
            site,
            public_url: self.public_url.map(|url| url.trim_end_matches('/').to_owned()),
            router_service: self.router_service,
            concurrency: self.concurrency,
            lease: self.lease,
            admin_listen: self.admin.listen,
            telemetry: TelemetryConfig { log: self.log, otlp: self.otlp },
        })
    }
}

/// The password that a worker shows the store: variable, key in its Secret, value.
pub(crate) fn store_password(password: Secret) -> (String, String, Secret) {
    ("STREAMFLEET_FLEET_STORE_REDIS_PASSWORD".to_owned(), "store-password".to_owned(), password)
}

/// The files that say how TLS to the store is spoken, which workers need as well: name and text.
fn files(redis: &RedisSpec, mistakes: &mut Mistakes) -> Vec<(String, Secret)> {
    let Some(tls) = &redis.tls else { return Vec::new() };
    let named = [
        ("authorities", "authorities.pem", &tls.authorities),
        ("certificate", "certificate.pem", &tls.certificate),
        ("key", "key.pem", &tls.key),
    ];
    let read = |(key, name, path): (&str, &str, &Option<std::path::PathBuf>)| {
        let path = path.as_ref()?;
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
        Some((name.to_owned(), Secret::new(mistakes.check(format!("store.redis.tls.{key}"), text)?)))
    };
    named.into_iter().filter_map(read).collect()
}

/// What a worker's configuration file says: where the store is, and how it tells what it does. Secrets are not in it.
fn worker_config(redis: &RedisSpec, log: &LogConfig, otlp: &OtlpConfig) -> Value {
    let mut store = Map::new();
    let texts = [("address", &redis.address), ("primary", &redis.primary), ("user", &redis.user)];
    for (key, text) in texts {
        store.extend(text.iter().map(|text| (key.to_owned(), json!(text))));
    }
    for (key, list) in [("sentinels", &redis.sentinels), ("nodes", &redis.nodes)] {
        if !list.is_empty() {
            store.insert(key.to_owned(), json!(list));
        }
    }
    if let Some(tls) = &redis.tls {
        let file = |given: bool, name: &str| given.then(|| format!("{FILES}/{name}"));
        let files = [
            ("authorities", file(tls.authorities.is_some(), "authorities.pem")),
            ("certificate", file(tls.certificate.is_some(), "certificate.pem")),
            ("key", file(tls.key.is_some(), "key.pem")),
        ];
        let files = files.into_iter().filter_map(|(key, path)| Some((key.to_owned(), json!(path?))));
        store.insert("tls".to_owned(), Value::Object(files.collect()));
    }
    let mut config = json!({ "fleet": { "store": { "redis": store } } });
    // What is as it is by default is left out: another default is no reason to replace workers.
    if log.format != LogConfig::default().format {
        config["log"] = json!({ "format": log.format });
    }
    if *otlp != OtlpConfig::default() {
        config["otlp"] = json!(otlp);
    }
    config
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod chart;

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<OperatorPlan, Vec<String>> {
        let loaded = OperatorConfig::layers().yaml("operator.yaml", text).load::<OperatorConfig>();
        loaded.build(OperatorConfig::build).map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
    }

    const WHOLE: &str = "
workerImage: registry.example.com/streamfleet-worker:1
secret: a-secret-of-the-fleet
store: {redis: {address: \"redis:6379\", password: quite-secret}}
routerSelector: {app.kubernetes.io/name: streamfleet-router}
publicUrl: https://voice.example.com/
";

    #[test]
    fn a_whole_configuration() {
        let plan = load(WHOLE).unwrap();
        assert_eq!(plan.public_url.as_deref(), Some("https://voice.example.com"));
        assert_eq!(plan.site.config, json!({ "fleet": { "store": { "redis": { "address": "redis:6379" } } } }));
        assert_eq!(plan.site.secret_env[0].2.reveal(), "quite-secret");
        let shown = format!("{plan:?}");
        assert!(!shown.contains("quite-secret") && !shown.contains("a-secret-of-the-fleet"), "{shown}");
        assert_eq!(plan.lease.duration.as_secs(), 25);
        assert!(load(&format!("{WHOLE}serviceUsers: true\n")).is_ok());
        let open = WHOLE.replace(", password: quite-secret", "");
        let mistakes = load(&format!("{open}serviceUsers: true\n")).unwrap_err();
        assert!(mistakes[0].starts_with("serviceUsers: needs store.redis.password"), "{mistakes:?}");
        let traced = load(&format!("{WHOLE}otlp: {{endpoint: \"http://collector:4318\", sample: 0.5}}\n")).unwrap();
        let otlp = json!({ "endpoint": "http://collector:4318", "sample": 0.5 });
        assert_eq!(serde_json::to_value(&traced.telemetry.otlp).unwrap(), otlp);
        assert!(load(&format!("{WHOLE}lease: {{duration: 22s}}\n")).is_ok());
        let short = load(&format!("{WHOLE}lease: {{duration: 21s}}\n")).unwrap_err();
        assert!(short[0].starts_with("lease.deadline: must be 12 s less than lease.duration"), "{short:?}");
    }

    #[test]
    fn everything_that_is_missing_is_told() {
        let mistakes = load("lease: {deadline: 20s, retry: 0s}\npublicUrl: voice.example.com").unwrap_err();
        for key in [
            "store.redis: ",
            "workerImage: ",
            "secret: ",
            "routerSelector: ",
            "lease.deadline: ",
            "lease.retry: ",
            "publicUrl: ",
        ] {
            assert!(mistakes.iter().any(|mistake| mistake.starts_with(key)), "{key} of {mistakes:#?}");
        }
        assert_eq!(mistakes.len(), 7, "{mistakes:#?}");
    }

    #[test]
    fn a_map_may_stand_in_a_variable() {
        let text = WHOLE.lines().filter(|line| !line.starts_with("routerSelector")).collect::<Vec<_>>().join("\n");
        let selector = r#"{"app.kubernetes.io/name":"streamfleet-router"}"#.to_owned();
        let variables =
            [("STREAMFLEET_ROUTER_SELECTOR".to_owned(), selector), ("HOSTNAME".to_owned(), "op-1".to_owned())];
        let loaded =
            OperatorConfig::layers().yaml("operator.yaml", text).environment(variables).load::<OperatorConfig>();
        let plan = loaded.build(OperatorConfig::build).unwrap();
        assert_eq!(plan.site.routers["app.kubernetes.io/name"], "streamfleet-router");
        assert_eq!(plan.lease.identity.as_deref(), Some("op-1"));
    }
}
