//! The router's configuration: serde data with defaults, and the checked plan that is built from it.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamfleet_edge::origin::{Hosts, Origins};
use streamfleet_process::config::{Layers, Mistakes, Secret, duration};
use streamfleet_process::serve::ServeLimits;
use streamfleet_process::telemetry::{LogConfig, OtlpConfig, TelemetryConfig};
use streamfleet_process::tls::{Certificate, TlsConfig};
use streamfleet_relay::Bounds;
use streamfleet_session::ufrag::{RelayKey, RelayKeys, WorkerNetworks, WorkerPrefix};
use streamfleet_session::{AdminToken, FleetSecret, Network};
use streamfleet_store::Backend;
use streamfleet_store::config::{RedisTls, StoreConfig};

use crate::http::Access;
use crate::kubernetes::config::{KubernetesConfig, KubernetesPlan};
use crate::reached::Front;
use crate::relay::{Advertised, Endpoints, PeersPlan, RelayPlan, Sharing};
use crate::sockets::SocketBounds;

/// Everything an operator can say about a router. Keys are `camelCase`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RouterConfig {
    /// HTTP for clients.
    pub listen: SocketAddr,
    /// TLS on `listen`.
    pub tls: TlsConfig,
    /// Files with StreamServices, or folders of them; read again when they change. At least one, without `kubernetes.watch`.
    pub services: Vec<PathBuf>,
    /// What is learned of a cluster's API server.
    pub kubernetes: KubernetesConfig,
    /// What the fleet knows together.
    pub store: StoreConfig,
    /// What routers and workers share. Required.
    pub secret: Option<Secret>,
    /// HTTP beyond its address.
    pub http: HttpConfig,
    /// Media of all clients through one UDP port; without `relay.listen` clients are told the workers' own addresses.
    pub relay: RelayConfig,
    /// Probes, metrics, and who may control sessions.
    pub admin: AdminConfig,
    /// The end of the process.
    pub drain: DrainConfig,
    /// Logs.
    pub log: LogConfig,
    /// Traces.
    pub otlp: OtlpConfig,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::UNSPECIFIED, 8080).into(),
            tls: TlsConfig::default(),
            services: Vec::new(),
            kubernetes: KubernetesConfig::default(),
            store: StoreConfig::default(),
            secret: None,
            http: HttpConfig::default(),
            relay: RelayConfig::default(),
            admin: AdminConfig::default(),
            drain: DrainConfig::default(),
            log: LogConfig::default(),
            otlp: OtlpConfig::default(),
        }
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
    /// Proxies in front, as addresses or ranges: what they say in `X-Forwarded-For` is taken for where a request is from, and in
    /// `X-Forwarded-Proto`, `-Host` and `-Port` for how the world reaches this router. Traces that they bring are continued.
    pub trusted_proxies: Vec<String>,
    /// Sockets at a time.
    pub sockets: NonZeroUsize,
    /// Sockets of one source address that have not said `start`, where half of all have not; an eighth of these if not said.
    pub sockets_per_address: Option<NonZeroUsize>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        let connections = ServeLimits::default().connections;
        let SocketBounds { open, per_address } = SocketBounds::default();
        Self {
            origins: vec!["*".to_owned()],
            hosts: Vec::new(),
            connections,
            trusted_proxies: Vec::new(),
            sockets: open,
            sockets_per_address: per_address,
        }
    }
}

/// Media of all clients through one UDP port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RelayConfig {
    /// Where media arrives: the same port at every router, which a load balancer has in front of it.
    pub listen: Option<SocketAddr>,
    /// Whether the port may be other processes' too: of relays on one machine, among which the kernel spreads the clients. Else
    /// one that has it already is a mistake, as it would get half of them.
    pub share_port: bool,
    /// Where clients are told to send to, the load balancer's addresses: `IP:PORT`, or `IP` where the port is this relay's.
    /// `listen`, if that is an address, when not said.
    pub advertise: Vec<Advertised>,
    /// What all routers of the installation share, and nobody else: 32 bytes or more, in base64 or hexadecimal digits.
    pub key: Option<Secret>,
    /// The other key while they are changed: the next one before every router has it, the last one until its sessions are over.
    pub previous_key: Option<Secret>,
    /// Networks of the workers: media goes nowhere else.
    pub workers: Vec<String>,
    /// What the IPv6 addresses of all workers begin with, such as `fd00:10:244::/64`; needed where `workers` has IPv6 networks.
    pub worker_prefix: Option<String>,
    /// Threads; one for each core if not said.
    pub threads: Option<NonZeroUsize>,
    /// Clients' addresses that one thread knows at a time.
    pub flows: NonZeroUsize,
    /// Where other relays tell of their flows.
    pub peer_listen: SocketAddr,
    /// Other relays, as `HOST:PORT`; a name stands for all of its addresses, and may be this relay's too.
    pub peers: Vec<String>,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            listen: None,
            share_port: false,
            advertise: Vec::new(),
            key: None,
            previous_key: None,
            workers: Vec::new(),
            worker_prefix: None,
            threads: None,
            flows: NonZeroUsize::new(Bounds::default().flows).unwrap_or(NonZeroUsize::MIN),
            peer_listen: (Ipv4Addr::UNSPECIFIED, 3479).into(),
            peers: Vec::new(),
        }
    }
}

/// Flows of a thread at most: what its table's places are numbered with, and 3 GB of memory.
const MAX_FLOWS: usize = 1 << 24;

impl RelayConfig {
    /// The relay, if there is to be one. `kubernetes` may say where clients send to.
    fn build(&self, kubernetes: &KubernetesConfig, mistakes: &mut Mistakes) -> Option<RelayPlan> {
        let Some(listen) = self.listen else {
            // What is said of a relay that is not there would be believed to hold.
            if *self != Self::default() {
                mistakes.push("relay.listen", "a relay needs an address");
            }
            return None;
        };
        let key = |name: &str, key: &Option<Secret>, mistakes: &mut Mistakes| {
            key.as_ref().and_then(|key| mistakes.check(name, key.reveal().parse::<RelayKey>()))
        };
        if self.key.is_none() {
            mistakes.push("relay.key", "a relay needs it");
        }
        let (current, previous) =
            (key("relay.key", &self.key, mistakes), key("relay.previousKey", &self.previous_key, mistakes));
        let prefix = self.worker_prefix.as_ref();
        let prefix = prefix.map(|text| mistakes.check("relay.workerPrefix", text.parse::<WorkerPrefix>()));
        let ranges = self.workers.iter().enumerate();
        let ranges: Vec<Option<Network>> =
            ranges.map(|(n, text)| mistakes.check(format!("relay.workers[{n}]"), text.parse())).collect();
        let ranges: Option<Vec<Network>> = ranges.into_iter().collect();
        let networks = match (ranges, prefix) {
            (Some(ranges), None) => mistakes.check("relay.workers", WorkerNetworks::new(ranges, None)),
            (Some(ranges), Some(Some(prefix))) => {
                mistakes.check("relay.workers", WorkerNetworks::new(ranges, Some(prefix)))
            }
            (None, _) | (_, Some(None)) => None,
        };
        for (n, address) in self.advertise.iter().enumerate() {
            if address.ip.is_unspecified() || address.ip.is_multicast() || address.port == Some(0) {
                mistakes.push(format!("relay.advertise[{n}]"), format!("nobody can reach {address}"));
            }
        }
        if self.advertise.is_empty() && listen.ip().is_unspecified() && !kubernetes.says_where() {
            mistakes.push("relay.advertise", "clients need an address to send to: relay.listen is none");
        }
        if self.flows.get() > MAX_FLOWS {
            mistakes.push("relay.flows", format!("{} is more than {MAX_FLOWS}", self.flows));
        }
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Some(RelayPlan {
            listen,
            sharing: if self.share_port { Sharing::Processes } else { Sharing::Nobody },
            advertise: self.advertise.clone(),
            keys: RelayKeys { current: current?, previous },
            networks: networks?,
            threads: self.threads.unwrap_or(cores),
            bounds: Bounds { flows: self.flows.get(), ..Bounds::default() },
            peers: PeersPlan { listen: self.peer_listen, names: self.peers.clone(), endpoints: Endpoints::default() },
        })
    }
}

/// Probes, metrics, and who may control sessions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct AdminConfig {
    /// Probes and metrics: for the cluster, not for the public.
    pub listen: SocketAddr,
    /// What the control routes demand; the workers' too. Required.
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
    /// From SIGTERM to the end: what requests and sockets under way have left. Match it to the pod's grace period.
    #[serde(with = "duration")]
    pub termination_grace: Duration,
    /// Of that, for whoever sends requests here to notice: they are served as before meanwhile, and the router says that it is
    /// not ready. A fifth, at most five seconds, if not said: a load balancer that asks every two seconds and believes the second
    /// answer has noticed by then, and endpoints that Kubernetes takes away are gone from its nodes sooner.
    #[serde(with = "duration::optional")]
    pub notice: Option<Duration>,
}

impl DrainConfig {
    fn notice(&self) -> Duration {
        self.notice.unwrap_or_else(|| (self.termination_grace / 5).min(Duration::from_secs(5)))
    }
}

impl Default for DrainConfig {
    /// Kubernetes' own default, less what it takes to leave.
    fn default() -> Self {
        Self { termination_grace: Duration::from_secs(25), notice: None }
    }
}

/// A configuration without mistakes, in terms of the parts that use it.
#[derive(Debug)]
pub struct RouterPlan {
    /// HTTP address.
    pub listen: SocketAddr,
    /// Its certificate, read again when it changes; `None` for plain HTTP.
    pub certificate: Option<Certificate>,
    /// What a stranger may hold of the HTTP listener.
    pub serve: ServeLimits,
    /// Files with services; none where they are the API server's.
    pub services: Vec<PathBuf>,
    /// What is learned of the API server.
    pub(crate) kubernetes: KubernetesPlan,
    /// The store.
    pub store: Backend,
    /// What is shown to workers is made of this.
    pub secret: FleetSecret,
    /// Media of all clients through one port; `None` where clients are told the workers' own addresses.
    pub(crate) relay: Option<RelayPlan>,
    /// Who may do what.
    pub access: Access,
    /// Admin address.
    pub admin_listen: SocketAddr,
    /// How many sockets there may be.
    pub sockets: SocketBounds,
    /// From SIGTERM to the end.
    pub termination_grace: Duration,
    /// Of that, the time in which requests are still taken.
    pub notice: Duration,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
}

impl RouterConfig {
    /// The layers of this configuration, but for file, environment and flags.
    #[must_use]
    pub fn layers() -> Layers {
        Layers::new("STREAMFLEET")
            .section::<RedisTls>("store.redis.tls")
            .alias("STREAMFLEET_LOG", "log.filter")
            .alias("OTEL_EXPORTER_OTLP_ENDPOINT", "otlp.endpoint")
            .secret("admin.token")
            .secret("secret")
            .secret("store.redis.password")
    }

    /// Checks what types cannot say, and builds the plan.
    ///
    /// # Errors
    /// Every mistake, by key.
    pub fn build(self) -> Result<RouterPlan, Mistakes> {
        let mut mistakes = Mistakes::new();
        let store = self.store.build("store", &mut mistakes);
        self.checked(store, mistakes)
    }

    /// Likewise, on the store of a fleet that lives in this process.
    ///
    /// # Errors
    /// As of [`build`](Self::build).
    pub fn build_on(self, store: Backend) -> Result<RouterPlan, Mistakes> {
        self.checked(Some(store), Mistakes::new())
    }

    fn checked(self, store: Option<Backend>, mut mistakes: Mistakes) -> Result<RouterPlan, Mistakes> {
        let kubernetes = self.kubernetes.build(&self.services, &self.relay, &mut mistakes);
        let needed = |key: &str, value: &Option<Secret>, mistakes: &mut Mistakes| {
            if value.is_none() {
                mistakes.push(key, "a router needs it");
            }
            value.as_ref().map(|value| value.reveal().to_owned())
        };
        let secret = needed("secret", &self.secret, &mut mistakes);
        let secret = secret.and_then(|text| mistakes.check("secret", text.parse::<FleetSecret>()));
        let token = needed("admin.token", &self.admin.token, &mut mistakes);
        let token = token.and_then(|text| mistakes.check("admin.token", text.parse::<AdminToken>()));
        let certificate = self.tls.build("tls", &mut mistakes);
        let relay = self.relay.build(&self.kubernetes, &mut mistakes);
        let notice = self.drain.notice();
        if notice > self.drain.termination_grace {
            mistakes.push("drain.notice", "must be no longer than drain.terminationGrace, of which it is a part");
        }
        let front = if certificate.is_some() { Front::Tls } else { Front::Plain };
        let origins = Origins::read(&self.http.origins, |n, wrong| {
            mistakes.push(format!("http.origins[{n}]"), wrong.to_string())
        });
        let hosts =
            Hosts::read(&self.http.hosts, |n, wrong| mistakes.push(format!("http.hosts[{n}]"), wrong.to_string()));
        let trusted = self.http.trusted_proxies.iter().enumerate();
        let trusted =
            trusted.filter_map(|(n, text)| mistakes.check(format!("http.trustedProxies[{n}]"), text.parse())).collect();
        let (Some(secret), Some(admin_token), Some(store)) = (secret, token, store) else { return Err(mistakes) };
        mistakes.or(RouterPlan {
            listen: self.listen,
            certificate,
            serve: ServeLimits { connections: self.http.connections, ..ServeLimits::default() },
            services: self.services,
            kubernetes,
            store,
            secret,
            relay,
            access: Access { origins, hosts, admin_token, trusted, front },
            admin_listen: self.admin.listen,
            sockets: SocketBounds { open: self.http.sockets, per_address: self.http.sockets_per_address },
            termination_grace: self.drain.termination_grace,
            notice,
            telemetry: TelemetryConfig { log: self.log, otlp: self.otlp },
        })
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod chart;

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<RouterPlan, Vec<String>> {
        let built = RouterConfig::layers().yaml("router.yaml", text).load::<RouterConfig>().build(RouterConfig::build);
        built.map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
    }

    const WHOLE: &str = "
services: [services.yaml]
secret: a-secret-of-the-fleet
admin: {token: a-token-of-the-operator}
store: {redis: {address: \"127.0.0.1:6379\"}}
http: {trustedProxies: [10.0.0.0/8], origins: [https://app.example.com]}
";

    #[test]
    fn a_whole_configuration() {
        let plan = load(WHOLE).unwrap();
        assert_eq!(plan.listen.port(), 8080);
        assert_eq!(plan.access.trusted, ["10.0.0.0/8".parse().unwrap()]);
        assert!(plan.certificate.is_none());
        assert_eq!(plan.notice.as_secs(), 5);
        let short = load(&format!("{WHOLE}\ndrain: {{terminationGrace: 1s}}")).unwrap();
        assert_eq!(short.notice.as_millis(), 200);
    }

    #[test]
    fn everything_that_is_missing_is_told() {
        let mistakes =
            load("http: {trustedProxies: [10.0.0.0/40]}\ntls: {key: k.pem}\ndrain: {notice: 30s}").unwrap_err();
        for key in [
            "services: ",
            "secret: ",
            "admin.token: ",
            "store.redis: ",
            "tls.certificate: ",
            "http.trustedProxies[0]: ",
            "drain.notice: ",
        ] {
            assert!(mistakes.iter().any(|mistake| mistake.starts_with(key)), "{key} of {mistakes:#?}");
        }
        assert_eq!(mistakes.len(), 7, "{mistakes:#?}");
    }

    #[test]
    fn a_cluster_says_where_services_and_addresses_are() {
        let cluster = WHOLE.replace("services: [services.yaml]", "kubernetes: {watch: true, publicService: a/b}");
        let relay = "relay: {listen: \"0.0.0.0:3478\", key: \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\", workers: [10.0.0.0/8]}";
        let plan = load(&format!("{cluster}{relay}")).unwrap();
        assert!(plan.kubernetes.asks() && plan.services.is_empty() && plan.relay.unwrap().advertise.is_empty());
        let mistakes = load(&cluster).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].starts_with("kubernetes.publicService: "), "{mistakes:#?}");
    }

    #[test]
    fn secrets_stay_out_of_messages() {
        let mistakes = load(&WHOLE.replace("a-secret-of-the-fleet", "[quite-secret]")).unwrap_err();
        assert!(mistakes.iter().all(|mistake| !mistake.contains("quite-secret")), "{mistakes:#?}");
    }
}
