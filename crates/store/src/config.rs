//! Where the store is, as people write it: the same keys for every part of a fleet.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use streamfleet_process::config::{Mistakes, Secret};

use crate::Backend;
use crate::redis::{Address, Arrangement, Login, RedisConfig, Tls};

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

impl StoreConfig {
    /// Checks what types cannot say. `key` is where these keys stand in the file.
    pub fn build(&self, key: &str, mistakes: &mut Mistakes) -> Option<Backend> {
        self.redis.build(&format!("{key}.redis"), mistakes).map(|config| Backend::Redis(Box::new(config)))
    }
}

impl RedisSpec {
    fn build(&self, key: &str, mistakes: &mut Mistakes) -> Option<RedisConfig> {
        let all = |name: &str, texts: &[String], mistakes: &mut Mistakes| {
            let texts = texts.iter().enumerate();
            texts.filter_map(|(n, text)| address(&format!("{key}.{name}[{n}]"), text, mistakes)).collect::<Vec<_>>()
        };
        let login = match (&self.user, &self.password) {
            (_, Some(password)) => Some(Login { user: self.user.clone(), password: password.reveal().to_owned() }),
            (Some(_), None) => {
                mistakes.push(format!("{key}.password"), "a user needs its password");
                None
            }
            (None, None) => None,
        };
        let arrangement = match (&self.address, self.sentinels.as_slice(), self.nodes.as_slice()) {
            (Some(text), [], []) => Arrangement::Single(address(&format!("{key}.address"), text, mistakes)?),
            (None, [_, ..], []) => {
                let Some(primary) = self.primary.clone() else {
                    mistakes.push(format!("{key}.primary"), "Sentinels know the primary by a name");
                    return None;
                };
                let sentinels = all("sentinels", &self.sentinels, mistakes);
                Arrangement::Sentinel { sentinels, primary, login: None }
            }
            (None, [], [_, ..]) => Arrangement::Cluster(all("nodes", &self.nodes, mistakes)),
            _ => {
                mistakes.push(key, "needs one of address, sentinels and nodes");
                return None;
            }
        };
        let tls = self.tls.as_ref().map(|tls| tls.build(&format!("{key}.tls"), mistakes));
        Some(RedisConfig { login, tls, ..RedisConfig::new(arrangement) })
    }
}

impl RedisTls {
    fn build(&self, key: &str, mistakes: &mut Mistakes) -> Tls {
        let mut read = |name: &str, path: &Path| {
            let read = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
            mistakes.check(format!("{key}.{name}"), read)
        };
        let authorities = self.authorities.as_deref().and_then(|path| read("authorities", path));
        let chain = self.certificate.as_deref().and_then(|path| read("certificate", path));
        let private = self.key.as_deref().and_then(|path| read("key", path));
        if self.certificate.is_some() != self.key.is_some() {
            mistakes.push(key, "a certificate and its key come together");
        }
        Tls { authorities, certificate: chain.zip(private) }
    }
}

/// `host:port`; an IPv6 address in brackets.
pub fn address(key: &str, text: &str, mistakes: &mut Mistakes) -> Option<Address> {
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
