//! The worker's configuration: serde data with defaults, and the checked plan that is built from it.
//!
//! The keys of a service are those of a StreamService's `spec`, so that the same lines can be written in either.

mod fleet;
mod ice;
mod manifests;
mod plan;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use streamfleet_process::config::{Secret, duration};
use streamfleet_process::serve::ServeLimits;
use streamfleet_process::telemetry::{LogConfig, OtlpConfig};
use streamfleet_process::tls::TlsConfig;
use streamfleet_service::spec::{LimitsSpec, MetadataSpec, Modality};
use streamfleet_session::{IdentityPolicy, PathPrefix, ServiceName};

pub use self::fleet::{FleetConfig, FleetPlan};
pub use self::ice::{IceConfig, TurnConfig};
pub use self::plan::{HandlerCheck, ManifestReader, Surroundings, TokenOrigin, WorkerPlan};

use crate::admission;
use crate::http::Telephone;

/// Everything an operator can say about a worker. Keys are `camelCase`; every key has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct WorkerConfig {
    /// HTTP: offers, candidates, control.
    pub listen: SocketAddr,
    /// TLS on `listen`.
    pub tls: TlsConfig,
    /// Media: UDP.
    pub media: MediaConfig,
    /// What is served. At least one.
    pub services: Vec<ServiceConfig>,
    /// Files with StreamServices, or folders of them, as routers read them: what is served instead of `services`. For a
    /// worker of a fleet: what they say of callers and paths is obeyed by routers.
    pub manifests: Vec<PathBuf>,
    /// Where they run.
    pub handlers: HandlersConfig,
    /// Sessions of all services together.
    pub max_sessions: NonZeroU32,
    /// HTTP beyond its address.
    pub http: HttpConfig,
    /// ICE servers for clients.
    pub ice: IceConfig,
    /// Probes, metrics, and who may control sessions.
    pub admin: AdminConfig,
    /// Its part in a fleet; absent for a worker that stands alone.
    pub fleet: Option<FleetConfig>,
    /// The end of the process.
    pub drain: DrainConfig,
    /// Logs.
    pub log: LogConfig,
    /// Traces.
    pub otlp: OtlpConfig,
}

impl Default for WorkerConfig {
    /// A worker that echoes at the root, with the ports that Streamfleet's charts expect.
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::UNSPECIFIED, 8081).into(),
            tls: TlsConfig::default(),
            media: MediaConfig::default(),
            services: vec![ServiceConfig { name: Some(name("echo")), ..ServiceConfig::default() }],
            manifests: Vec::new(),
            handlers: HandlersConfig::default(),
            max_sessions: admission::Occupancy::DEFAULT_CAPACITY,
            http: HttpConfig::default(),
            ice: IceConfig::default(),
            admin: AdminConfig::default(),
            fleet: None,
            drain: DrainConfig::default(),
            log: LogConfig::default(),
            otlp: OtlpConfig::default(),
        }
    }
}

fn name(text: &str) -> ServiceName {
    text.parse().expect("invariant: our own names are valid")
}

/// Media: UDP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct MediaConfig {
    /// Address of the first loop; each further loop takes the next port.
    pub udp: SocketAddr,
    /// Addresses to put into answers, where clients can reach `udp`: several for IPv4 and IPv6, or behind a 1:1 NAT.
    /// Empty: those of this machine.
    pub advertise: Vec<IpAddr>,
    /// Media loops, one thread and one port each. Absent: one for each core that the process may use.
    pub loops: Option<NonZeroUsize>,
}

impl Default for MediaConfig {
    fn default() -> Self {
        Self { udp: (Ipv4Addr::UNSPECIFIED, 5000).into(), advertise: Vec::new(), loops: None }
    }
}

/// Where handlers run: on threads of their own, so that one that holds its thread up holds up nothing but handlers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct HandlersConfig {
    /// Threads that all handlers share. Absent: four for each core that the process may use, sixteen at least.
    pub threads: Option<NonZeroUsize>,
}

/// One service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ServiceConfig {
    /// Unique name; required.
    pub name: Option<ServiceName>,
    /// Path prefix of its routes; absent for the root.
    pub path: Option<PathPrefix>,
    /// Further prefixes with the same routes.
    pub aliases: Vec<PathPrefix>,
    /// Which media it takes part in.
    pub modality: Modality,
    /// What answers.
    pub handler: HandlerConfig,
    /// What is allowed.
    pub limits: LimitsSpec,
    /// Who is calling.
    pub identity: IdentityConfig,
    /// Telephone calls.
    pub telephone: TelephoneConfig,
}

/// A registered handler and its configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct HandlerConfig {
    /// Registered name.
    pub name: String,
    /// The handler's own keys.
    pub config: Value,
}

impl Default for HandlerConfig {
    fn default() -> Self {
        Self { name: "echo".to_owned(), config: Value::Null }
    }
}

/// How a service learns who is calling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct IdentityConfig {
    /// Where the user id comes from, the first that has one: `metadata:KEY`, `header:NAME`.
    pub user_id_from: Vec<String>,
    /// What is kept of a client's metadata.
    pub metadata: MetadataSpec,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        let user_id_from = IdentityPolicy::default().user_id_from.iter().map(ToString::to_string).collect();
        Self { user_id_from, metadata: MetadataSpec::default() }
    }
}

/// Telephone calls (Twilio).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct TelephoneConfig {
    /// Said to the caller before the call is put through; nothing if empty.
    pub before: String,
    /// Said when the conversation is over and the caller is still there; nothing if empty.
    pub after: String,
    /// The auth token of the Twilio account. With it, only requests that are signed with it and calls that they lead here
    /// are taken.
    pub auth_token: Option<Secret>,
    /// Whether `X-Forwarded-Proto`, `-Host` and `-Port` say how the world reaches the service. Set it only behind a proxy
    /// that writes them.
    pub trust_forwarded: bool,
}

impl Default for TelephoneConfig {
    fn default() -> Self {
        let Telephone { before, after, .. } = Telephone::default();
        Self { before, after, auth_token: None, trust_forwarded: false }
    }
}

/// HTTP beyond its address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpConfig {
    /// Pages that may offer: `*`, or origins such as `https://app.example.com`.
    pub origins: Vec<String>,
    /// Names under which the control routes may be called, besides `localhost` and addresses; `*` for every name.
    pub hosts: Vec<String>,
    /// Connections at a time; further ones wait.
    pub connections: NonZeroUsize,
    /// Proxies in front, as addresses or ranges: what they say in `X-Forwarded-For` is taken for where a request is from, and
    /// traces that they bring are continued. Of no meaning in a fleet, where routers ask.
    pub trusted_proxies: Vec<String>,
    /// Sockets of one source address that may wait for their `start` once half of all places for such sockets are taken;
    /// absent: an eighth of the places. As many as there are where a proxy that is not trusted lends its address to every client.
    pub sockets_per_address: Option<NonZeroUsize>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        let connections = ServeLimits::default().connections;
        Self {
            origins: vec!["*".to_owned()],
            hosts: Vec::new(),
            connections,
            trusted_proxies: Vec::new(),
            sockets_per_address: None,
        }
    }
}

/// Probes, metrics, and who may control sessions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct AdminConfig {
    /// Probes and metrics: for the cluster, not for the public.
    pub listen: SocketAddr,
    /// What the control routes demand. Absent: one is made and printed once.
    pub token: Option<Secret>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::UNSPECIFIED, 9090).into(), token: None }
    }
}

/// The end of the process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct DrainConfig {
    /// From SIGTERM to the end: what sessions have left to finish. Match it to the pod's grace period.
    #[serde(with = "duration")]
    pub termination_grace: Duration,
}

impl Default for DrainConfig {
    /// Kubernetes' own default, less what it takes to leave.
    fn default() -> Self {
        Self { termination_grace: Duration::from_secs(25) }
    }
}

#[cfg(test)]
mod tests;
