//! From configuration to plan: what types cannot say is checked here, and every mistake is collected.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use streamfleet_edge::proxy::Network;
use streamfleet_process::config::{Layers, Mistakes, Secret};
use streamfleet_process::serve::ServeLimits;
use streamfleet_process::telemetry::TelemetryConfig;
use streamfleet_process::tls::Certificate;
use streamfleet_service::Service as Manifest;
use streamfleet_service::ice::IceServers;
use streamfleet_session::fleet::MAX_PLACED;
use streamfleet_session::{AdminToken, FleetKey, IdentityPolicy, Limits, PathPrefix, UserIdSource};
use streamfleet_store::Backend;
use streamfleet_store::config::RedisTls;

use super::{
    FleetConfig, FleetPlan, IdentityConfig, MediaConfig, ServiceConfig, TelephoneConfig, WorkerConfig, manifests,
};
use crate::http::{Callers, Hosts, Origins, Proxy, Service, Telephone};

/// More loops than any machine has cores for; a larger number is a slip.
const MAX_LOOPS: usize = 256;
/// Handlers that block may need more threads than there are cores; a larger number is a slip.
const MAX_HANDLER_THREADS: usize = 4_096;

/// Threads for handlers if nobody says how many: replies that block hold up one each, and a session has up to four that it
/// has interrupted and that have not noticed. So it takes several sessions of the worst kind to hold up another's handler.
fn handler_threads(cores: NonZeroUsize) -> NonZeroUsize {
    const LEAST: usize = 16;
    const PER_CORE: usize = 4;
    cores
        .saturating_mul(NonZeroUsize::MIN.saturating_add(PER_CORE - 1))
        .max(NonZeroUsize::MIN.saturating_add(LEAST - 1))
}

/// What the machine and the program bring to a configuration.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Cores that the process may use.
    pub cores: NonZeroUsize,
    /// Random bytes, for an admin token if none is configured.
    pub random: [u8; 32],
    /// Whether a handler can be made of this name and configuration.
    pub handler: HandlerCheck<'a>,
    /// Reads manifests: files, or folders of them.
    pub manifests: ManifestReader<'a>,
    /// The store of a fleet that lives in this process; it goes before the configured one.
    pub store: Option<&'a Backend>,
}

/// Reads manifests, files or folders of them: each that can be used with the name of its file, no two for one service. What is wrong
/// with the others is noted.
pub type ManifestReader<'a> = &'a dyn Fn(&[PathBuf], &mut Mistakes) -> Vec<(String, Manifest)>;

/// Whether a handler can be made of a name and a configuration; the error completes "services[0].handler: …".
pub type HandlerCheck<'a> = &'a dyn Fn(&str, &Value) -> Result<(), String>;

/// A configuration without mistakes, in terms of the parts that use it.
#[derive(Debug)]
pub struct WorkerPlan {
    /// HTTP address.
    pub listen: SocketAddr,
    /// Its certificate; `None` for plain HTTP.
    pub certificate: Option<Certificate>,
    /// What a stranger may hold of the HTTP listener.
    pub serve: ServeLimits,
    /// Address of the first media loop.
    pub udp: SocketAddr,
    /// Addresses to advertise; empty for those of this machine.
    pub advertise: Vec<IpAddr>,
    /// Media loops.
    pub loops: NonZeroUsize,
    /// At least one; names and paths are unique.
    pub services: Vec<Arc<Service>>,
    /// Threads that all handlers share.
    pub handler_threads: NonZeroUsize,
    /// Sessions of all services together.
    pub max_sessions: NonZeroU32,
    /// Pages that may offer.
    pub origins: Origins,
    /// Names of the control routes.
    pub hosts: Hosts,
    /// Sockets of one source address that may wait for their `start` where places are scarce.
    pub sockets_per_address: Option<NonZeroUsize>,
    /// Proxies whose word is taken.
    pub trusted: Vec<Network>,
    /// ICE servers for clients.
    pub ice: IceServers,
    /// Admin address.
    pub admin_listen: SocketAddr,
    /// What the control routes demand.
    pub admin_token: AdminToken,
    /// Whether the operator knows it already.
    pub admin_token_origin: TokenOrigin,
    /// Its part in a fleet.
    pub fleet: Option<FleetPlan>,
    /// From SIGTERM to the end.
    pub termination_grace: Duration,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
}

/// Where the admin token comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenOrigin {
    /// The configuration.
    Configured,
    /// It was made just now: print it once, or nobody will ever know it.
    Made,
}

impl WorkerConfig {
    /// The layers of this configuration with everything that is the same for every program which loads it: the
    /// prefix, the well-known variables, the secrets. Add file, environment and flags.
    pub fn layers() -> Layers {
        Layers::new("STREAMFLEET")
            .section::<FleetConfig>("fleet")
            .section::<RedisTls>("fleet.store.redis.tls")
            .alias("STREAMFLEET_LOG", "log.filter")
            .alias("OTEL_EXPORTER_OTLP_ENDPOINT", "otlp.endpoint")
            .secret("admin.token")
            .secret("ice.turn.secret")
            .secret("fleet.secret")
            .secret("fleet.store.redis.password")
            .secret("services[].telephone.authToken")
    }

    /// Checks what types cannot say, and builds the plan.
    ///
    /// # Errors
    /// Every mistake, by key.
    pub fn build(self, surroundings: Surroundings<'_>) -> Result<WorkerPlan, Mistakes> {
        let mut mistakes = Mistakes::new();
        let services = self.served(surroundings, &mut mistakes);
        let loops = self.media.loops.unwrap_or(surroundings.cores);
        check_media(&self.media, loops, &mut mistakes);
        let handler_threads = self.handlers.threads.unwrap_or_else(|| handler_threads(surroundings.cores));
        if handler_threads.get() > MAX_HANDLER_THREADS {
            let problem = format!("{handler_threads} threads are more than {MAX_HANDLER_THREADS}");
            mistakes.push("handlers.threads", problem);
        }
        let certificate = self.tls.build("tls", &mut mistakes);
        let origins = Origins::read(&self.http.origins, |n, wrong| {
            mistakes.push(format!("http.origins[{n}]"), wrong.to_string())
        });
        let hosts =
            Hosts::read(&self.http.hosts, |n, wrong| mistakes.push(format!("http.hosts[{n}]"), wrong.to_string()));
        let trusted = self.http.trusted_proxies.iter().enumerate();
        let trusted =
            trusted.filter_map(|(n, text)| mistakes.check(format!("http.trustedProxies[{n}]"), text.parse())).collect();
        let ice = self.ice.build(&mut mistakes);
        let fleet = self.fleet.as_ref().and_then(|fleet| fleet.build(surroundings.store, &mut mistakes));
        if fleet.as_ref().is_some_and(|fleet| matches!(fleet.key, FleetKey::Service(_))) && services.len() > 1 {
            let problem =
                format!("is the key of one service, and {} are served: it needs the fleet's secret", services.len());
            mistakes.push("fleet.secret", problem);
        }
        let (admin_token, admin_token_origin) = match &self.admin.token {
            None => (AdminToken::from_random(surroundings.random), TokenOrigin::Made),
            Some(token) => {
                let token = mistakes.check("admin.token", token.reveal().parse());
                (token.unwrap_or_else(|| AdminToken::from_random([0; 32])), TokenOrigin::Configured)
            }
        };
        mistakes.or(WorkerPlan {
            listen: self.listen,
            certificate,
            serve: serve(self.http.connections, fleet.as_ref()),
            udp: self.media.udp,
            advertise: self.media.advertise,
            loops,
            services,
            handler_threads,
            max_sessions: self.max_sessions,
            origins,
            hosts,
            sockets_per_address: self.http.sockets_per_address,
            trusted,
            ice,
            admin_listen: self.admin.listen,
            admin_token,
            admin_token_origin,
            fleet,
            termination_grace: self.drain.termination_grace,
            telemetry: TelemetryConfig { log: self.log, otlp: self.otlp },
        })
    }

    fn served(&self, surroundings: Surroundings<'_>, mistakes: &mut Mistakes) -> Vec<Arc<Service>> {
        if self.manifests.is_empty() {
            return services(&self.services, surroundings.handler, mistakes);
        }
        if self.services != Self::default().services {
            mistakes.push("manifests", "services are given already; choose one");
        }
        // Alone, it would let in whom the manifests keep out.
        if self.fleet.is_none() {
            mistakes.push("manifests", "only a worker of a fleet can serve them: routers do what they say of callers");
        }
        let mut unusable = Mistakes::new();
        let found = (surroundings.manifests)(&self.manifests, &mut unusable);
        if found.is_empty() && unusable.is_empty() {
            mistakes.push("manifests", "there is no service in them");
        }
        mistakes.extend(unusable);
        manifests::services(found, surroundings.handler, mistakes)
    }
}

/// What a stranger may hold; a router brings a session's place beside its client's headers.
fn serve(connections: NonZeroUsize, fleet: Option<&FleetPlan>) -> ServeLimits {
    let usual = ServeLimits::default();
    let placed = if fleet.is_some() { MAX_PLACED } else { 0 };
    ServeLimits { connections, header_bytes: usual.header_bytes + placed, ..usual }
}

fn services(configured: &[ServiceConfig], handler: HandlerCheck<'_>, mistakes: &mut Mistakes) -> Vec<Arc<Service>> {
    if configured.is_empty() {
        mistakes.push("services", "at least one service is needed");
    }
    let mut names = BTreeMap::new();
    let mut paths = BTreeMap::new();
    let mut services = Vec::new();
    for (n, config) in configured.iter().enumerate() {
        let key = |key: &str| format!("services[{n}].{key}");
        let path = config.path.clone().unwrap_or_else(PathPrefix::root);
        let prefixes = std::iter::once((key("path"), &path));
        let aliases = config.aliases.iter().enumerate().map(|(a, alias)| (key(&format!("aliases[{a}]")), alias));
        for (key, path) in prefixes.chain(aliases) {
            if let Some(first) = paths.insert(path.clone(), n) {
                let path = if path.is_root() { "/" } else { path.as_str() };
                mistakes.push(key, format!("{path} is taken already by services[{first}]"));
            }
        }
        if let Err(problem) = handler(&config.handler.name, &config.handler.config) {
            mistakes.push(key("handler"), problem);
        }
        let identity = identity(&config.identity, &key("identity"), mistakes);
        let Some(name) = config.name.clone() else {
            mistakes.push(key("name"), "a service needs a name");
            continue;
        };
        if let Some(first) = names.insert(name.clone(), n) {
            mistakes.push(key("name"), format!("{name} is the name of services[{first}] already"));
        }
        services.push(Arc::new(Service {
            name,
            path,
            aliases: config.aliases.clone(),
            handler: config.handler.name.clone(),
            handler_config: config.handler.config.clone(),
            modality: config.modality,
            limits: Limits::from(&config.limits),
            identity,
            telephone: telephone(&config.telephone, &key("telephone.authToken"), mistakes),
            capacity: None,
        }));
    }
    services
}

fn identity(config: &IdentityConfig, key: &str, mistakes: &mut Mistakes) -> IdentityPolicy {
    let sources = config.user_id_from.iter().enumerate();
    let user_id_from = sources
        .filter_map(|(n, text)| mistakes.check(format!("{key}.userIdFrom[{n}]"), text.parse::<UserIdSource>()))
        .collect();
    IdentityPolicy { user_id_from, metadata: config.metadata.limits(&format!("{key}.metadata"), mistakes) }
}

fn telephone(config: &TelephoneConfig, key: &str, mistakes: &mut Mistakes) -> Telephone {
    let TelephoneConfig { before, after, auth_token, trust_forwarded } = config;
    let callers = match auth_token.as_ref().map(Secret::reveal) {
        None => Callers::Anybody,
        Some(token) => {
            // Anybody can sign with nothing.
            if token.trim().is_empty() {
                mistakes.push(key, "the auth token must not be empty; leave it out if calls need no signature");
            }
            Callers::Signed(token.into())
        }
    };
    let proxy = if *trust_forwarded { Proxy::Trusted } else { Proxy::None };
    Telephone { before: before.clone(), after: after.clone(), callers, proxy }
}

fn check_media(media: &MediaConfig, loops: NonZeroUsize, mistakes: &mut Mistakes) {
    if loops.get() > MAX_LOOPS {
        mistakes.push("media.loops", format!("{loops} loops are more than {MAX_LOOPS}"));
    }
    // Port 0 takes free ports, one by one, and needs no room above it.
    let last = usize::from(media.udp.port()) + loops.get().min(MAX_LOOPS) - 1;
    if media.udp.port() != 0 && last > usize::from(u16::MAX) {
        mistakes.push("media.udp", format!("{loops} loops would need ports up to {last}"));
    }
    for (n, address) in media.advertise.iter().enumerate() {
        if address.is_unspecified() || address.is_multicast() {
            mistakes.push(format!("media.advertise[{n}]"), format!("nobody can reach {address}"));
        }
    }
}
