//! A worker's part in a fleet, as configured.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use streamfleet_process::config::{Mistakes, Secret};
use streamfleet_session::FleetSecret;
use streamfleet_store::{Address, Arrangement, Login, RedisConfig, Tls, WorkerId};

/// A worker's part in a fleet. With it, sessions are placed here by routers, and nobody else is answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct FleetConfig {
    /// Its name: no other worker's of the fleet. A pod's name will do.
    pub worker: Option<String>,
    /// Where routers reach it: `host:port`.
    pub http: Option<String>,
    /// What routers and workers share.
    pub secret: Option<Secret>,
    /// What the fleet knows together.
    pub store: StoreConfig,
}

/// Where a fleet's store is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct StoreConfig {
    /// A Redis 7.
    pub redis: RedisSpec,
}

/// A Redis 7: one of `address`, `sentinels` and `nodes`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RedisSpec {
    /// A single one: `host:port`.
    pub address: Option<String>,
    /// Some of the Sentinels that name the primary: `host:port` each.
    pub sentinels: Vec<String>,
    /// The name that they know it by.
    pub primary: Option<String>,
    /// Some of the nodes of a Cluster: `host:port` each.
    pub nodes: Vec<String>,
    /// The ACL user; absent for the default user.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// TLS to every node; absent for none.
    pub tls: Option<RedisTls>,
}

/// TLS to a Redis.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RedisTls {
    /// PEM file with the authorities to trust; absent for those of the system.
    pub authorities: Option<PathBuf>,
    /// PEM file with our certificate.
    pub certificate: Option<PathBuf>,
    /// PEM file with its key.
    pub key: Option<PathBuf>,
}

/// A checked part in a fleet.
#[derive(Debug, Clone)]
pub struct FleetPlan {
    /// The worker's name.
    pub worker: WorkerId,
    /// Where routers reach it: `host:port`.
    pub http: String,
    /// What routers show.
    pub secret: FleetSecret,
    /// The fleet's store.
    pub store: RedisConfig,
}

impl FleetConfig {
    pub(super) fn build(&self, mistakes: &mut Mistakes) -> Option<FleetPlan> {
        let mut needed = |key: &str, value: Option<&str>| {
            if value.is_none() {
                mistakes.push(key, "a worker of a fleet needs it");
            }
            value.map(str::to_owned)
        };
        let worker = needed("fleet.worker", self.worker.as_deref());
        let http = needed("fleet.http", self.http.as_deref());
        let secret = needed("fleet.secret", self.secret.as_ref().map(Secret::reveal));
        let worker = worker.and_then(|name| mistakes.check("fleet.worker", name.parse::<WorkerId>()));
        let http = http.filter(|http| address("fleet.http", http, mistakes).is_some());
        let secret = secret.and_then(|secret| mistakes.check("fleet.secret", secret.parse::<FleetSecret>()));
        let store = self.store.redis.build(mistakes);
        Some(FleetPlan { worker: worker?, http: http?, secret: secret?, store: store? })
    }
}

impl RedisSpec {
    fn build(&self, mistakes: &mut Mistakes) -> Option<RedisConfig> {
        const KEY: &str = "fleet.store.redis";
        let all = |key: &str, texts: &[String], mistakes: &mut Mistakes| {
            let texts = texts.iter().enumerate();
            texts.filter_map(|(n, text)| address(&format!("{KEY}.{key}[{n}]"), text, mistakes)).collect::<Vec<_>>()
        };
        let login = match (&self.user, &self.password) {
            (_, Some(password)) => Some(Login { user: self.user.clone(), password: password.reveal().to_owned() }),
            (Some(_), None) => {
                mistakes.push(format!("{KEY}.password"), "a user needs its password");
                None
            }
            (None, None) => None,
        };
        let arrangement = match (&self.address, self.sentinels.as_slice(), self.nodes.as_slice()) {
            (Some(text), [], []) => Arrangement::Single(address(&format!("{KEY}.address"), text, mistakes)?),
            (None, [_, ..], []) => {
                let Some(primary) = self.primary.clone() else {
                    mistakes.push(format!("{KEY}.primary"), "Sentinels know the primary by a name");
                    return None;
                };
                let sentinels = all("sentinels", &self.sentinels, mistakes);
                Arrangement::Sentinel { sentinels, primary, login: None }
            }
            (None, [], [_, ..]) => Arrangement::Cluster(all("nodes", &self.nodes, mistakes)),
            _ => {
                mistakes.push(KEY, "needs one of address, sentinels and nodes");
                return None;
            }
        };
        let tls = self.tls.as_ref().map(|tls| tls.build(mistakes));
        Some(RedisConfig { login, tls, ..RedisConfig::new(arrangement) })
    }
}

impl RedisTls {
    fn build(&self, mistakes: &mut Mistakes) -> Tls {
        let mut read = |key: &str, path: &Path| {
            let read = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
            mistakes.check(format!("fleet.store.redis.tls.{key}"), read)
        };
        let authorities = self.authorities.as_deref().and_then(|path| read("authorities", path));
        let chain = self.certificate.as_deref().and_then(|path| read("certificate", path));
        let key = self.key.as_deref().and_then(|path| read("key", path));
        if self.certificate.is_some() != self.key.is_some() {
            mistakes.push("fleet.store.redis.tls", "a certificate and its key come together");
        }
        Tls { authorities, certificate: chain.zip(key) }
    }
}

/// `host:port`; an IPv6 address in brackets.
fn address(key: &str, text: &str, mistakes: &mut Mistakes) -> Option<Address> {
    let parsed = match text.parse::<SocketAddr>() {
        Ok(address) => Some(Address { host: address.ip().to_string(), port: address.port() }),
        Err(_) => text.rsplit_once(':').and_then(|(host, port)| {
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            let port = port.parse().ok().filter(|port| *port != 0)?;
            (!host.is_empty() && host.chars().all(is_name)).then(|| Address { host: host.to_owned(), port })
        }),
    };
    if parsed.is_none() {
        mistakes.push(key, format!("{text:?} is not host:port"));
    }
    parsed
}
