//! Where the fleet's store is, as configured.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use streamfleet_process::config::{Mistakes, Secret};
use streamfleet_store::{Address, Arrangement, Login, RedisConfig, Tls};

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

impl RedisSpec {
    pub(super) fn build(&self, mistakes: &mut Mistakes) -> Option<RedisConfig> {
        const KEY: &str = "store.redis";
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
            mistakes.check(format!("store.redis.tls.{key}"), read)
        };
        let authorities = self.authorities.as_deref().and_then(|path| read("authorities", path));
        let chain = self.certificate.as_deref().and_then(|path| read("certificate", path));
        let key = self.key.as_deref().and_then(|path| read("key", path));
        if self.certificate.is_some() != self.key.is_some() {
            mistakes.push("store.redis.tls", "a certificate and its key come together");
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
