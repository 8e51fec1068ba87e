//! What each part of a fleet is told. It is the environment that it would be given on a machine of its own, whether it is a
//! process or shares this one: so both read it in the same way, and no secret stands on a command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde_json::json;

use super::layout::{RouterAt, WorkerAt};
use super::redis::RedisAt;

/// Variables, by name.
pub(super) type Environment = BTreeMap<String, String>;

/// What the name of every variable begins with.
const PREFIX: &str = "STREAMFLEET_";
const TOKEN: &str = "STREAMFLEET_ADMIN_TOKEN";
/// Variables that are one part's, or that the fleet decides: those of whoever starts it are for none of its parts.
const OURS: [&str; 10] =
    ["CONFIG", "LISTEN", "SERVICES", "MANIFESTS", "SECRET", "REDIS", "FLEET", "STORE_", "TLS_", "FLEET_"];
/// Workers listen to routers of this machine alone. The port is any that is free; routers read in the store which.
const WORKER_HTTP: &str = "127.0.0.1:0";

/// What all parts have in common.
#[derive(Debug, Clone)]
pub(super) struct Common {
    /// The environment of whoever starts the fleet, without what is ours.
    pub(super) inherited: Environment,
    /// For secrets, and for names that no other fleet on the same Redis has.
    pub(super) random: [[u8; 32]; 3],
    /// What is served.
    pub(super) manifests: Vec<PathBuf>,
    /// The store; absent for one in memory.
    pub(super) redis: Option<RedisAt>,
    /// Addresses to advertise.
    pub(super) advertise: Vec<IpAddr>,
    /// Media loops of a worker.
    pub(super) loops: NonZeroUsize,
    /// Names for the routers' certificate; none for plain HTTP.
    pub(super) names: Vec<String>,
    /// What to log.
    pub(super) log: Option<String>,
}

/// The variables that parts inherit.
pub(super) fn inherited(variables: impl Iterator<Item = (OsString, OsString)>) -> Environment {
    let text = variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    text.filter(|(name, _)| !is_ours(name)).collect()
}

/// Whether a variable is not for every part.
pub(super) fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| {
        OURS.iter().any(|ours| if ours.ends_with('_') { rest.starts_with(ours) } else { rest == *ours })
    })
}

impl Common {
    /// What control routes demand: what the environment says, else made for this fleet.
    pub(super) fn admin_token(&self) -> String {
        self.inherited.get(TOKEN).filter(|token| !token.is_empty()).cloned().unwrap_or_else(|| hex(&self.random[0]))
    }

    /// That token, if nobody knows it yet.
    pub(super) fn made_token(&self) -> Option<String> {
        let is_known = self.inherited.get(TOKEN).is_some_and(|token| !token.is_empty());
        (!is_known).then(|| self.admin_token())
    }

    /// Whether programs read the log: they want its lines as they are.
    pub(super) fn logs_json(&self) -> bool {
        self.inherited.get("STREAMFLEET_LOG_FORMAT").is_some_and(|format| format == "json")
    }

    /// The name of the worker in a place of the layout, in its `life`th life: what a dead one has left belongs to its name.
    pub(super) fn worker_name(&self, place: usize, life: u32) -> String {
        let fleet = hex(&self.random[2][..2]);
        if life == 0 { format!("w{}-{fleet}", place + 1) } else { format!("w{}-{fleet}-{}", place + 1, life + 1) }
    }

    /// A router's environment.
    pub(super) fn router(&self, at: RouterAt) -> Environment {
        let mut own = self.both();
        own.extend(variables([
            ("LISTEN", at.listen.to_string()),
            ("ADMIN_LISTEN", at.admin.to_string()),
            ("SERVICES", json!(self.manifests).to_string()),
            ("SECRET", self.secret()),
            // Nobody stands before a fleet on one machine who would have to notice.
            ("DRAIN_NOTICE", "0s".to_owned()),
        ]));
        if !self.names.is_empty() {
            own.extend(variables([("TLS_SELF_SIGNED", json!(self.names).to_string())]));
        }
        if let Some(redis) = &self.redis {
            let store = redis.store();
            let keys = store["redis"].as_object().into_iter().flatten();
            own.extend(keys.map(|(key, value)| {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                (format!("{PREFIX}STORE_REDIS_{}", key.to_ascii_uppercase()), text)
            }));
        }
        own
    }

    /// A worker's environment.
    pub(super) fn worker(&self, at: WorkerAt, name: &str) -> Environment {
        let mut fleet = json!({ "worker": name, "http": WORKER_HTTP, "secret": self.secret() });
        if let Some(redis) = &self.redis {
            fleet["store"] = redis.store();
        }
        let mut own = self.both();
        own.extend(variables([
            ("LISTEN", WORKER_HTTP.to_owned()),
            ("ADMIN_LISTEN", at.admin.to_string()),
            ("MEDIA_UDP", at.udp.to_string()),
            ("MEDIA_LOOPS", self.loops.to_string()),
            ("MANIFESTS", json!(self.manifests).to_string()),
            ("FLEET", fleet.to_string()),
        ]));
        if !self.advertise.is_empty() {
            own.extend(variables([("MEDIA_ADVERTISE", json!(self.advertise).to_string())]));
        }
        own
    }

    fn both(&self) -> Environment {
        let mut own = self.inherited.clone();
        own.insert(TOKEN.to_owned(), self.admin_token());
        own.extend(self.log.clone().map(|log| (format!("{PREFIX}LOG_FILTER"), log)));
        own
    }

    /// What routers and workers share.
    fn secret(&self) -> String {
        hex(&self.random[1])
    }
}

fn variables<const N: usize>(named: [(&str, String); N]) -> impl Iterator<Item = (String, String)> {
    named.into_iter().map(|(name, value)| (format!("{PREFIX}{name}"), value))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A text takes whatever is written to it.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use streamfleet_router::config::RouterConfig;
    use streamfleet_worker::config::WorkerConfig;

    use super::*;

    fn common(redis: Option<&str>) -> Common {
        let inherited = [
            ("STREAMFLEET_DRAIN_TERMINATION_GRACE", "4s"),
            ("STREAMFLEET_LISTEN", "1.2.3.4:5"),
            ("STREAMFLEET_TLS_KEY", "k"),
            ("STREAMFLEET_STORE_REDIS_USER", "u"),
            ("HOME", "/root"),
        ];
        Common {
            inherited: super::inherited(inherited.into_iter().map(|(name, value)| (name.into(), value.into()))),
            random: [[7; 32], [8; 32], [9; 32]],
            manifests: vec!["a, b.yaml".into()],
            redis: redis.map(|text| text.parse().unwrap()),
            advertise: vec!["192.0.2.1".parse().unwrap()],
            loops: NonZeroUsize::MIN,
            names: vec!["localhost".to_owned()],
            log: Some("debug".to_owned()),
        }
    }

    #[test]
    fn parts_understand_what_they_are_told() {
        let common = common(Some("rediss://u:p@h:1"));
        let admin = "127.0.0.1:9090".parse().unwrap();
        let at = RouterAt { listen: "127.0.0.1:8080".parse().unwrap(), admin };
        let loaded = RouterConfig::layers().environment(common.router(at)).load::<RouterConfig>();
        assert!(loaded.mistakes.is_empty(), "{}", loaded.mistakes);
        let router = loaded.config;
        assert_eq!((router.listen, router.admin.listen), (at.listen, at.admin));
        assert_eq!(
            (router.services.clone(), router.tls.self_signed.clone()),
            (common.manifests.clone(), common.names.clone())
        );
        assert_eq!(router.tls.key, None, "what is another's does not get in");
        assert_eq!(router.drain.termination_grace.as_secs(), 4);
        assert_eq!(router.drain.notice, Some(std::time::Duration::ZERO));

        let at = WorkerAt { udp: "0.0.0.0:5002".parse().unwrap(), admin };
        let name = common.worker_name(1, 0);
        let loaded = WorkerConfig::layers().environment(common.worker(at, &name)).load::<WorkerConfig>();
        assert!(loaded.mistakes.is_empty(), "{}", loaded.mistakes);
        let worker = loaded.config;
        assert_eq!((worker.media.udp, worker.media.advertise), (at.udp, common.advertise.clone()));
        assert_eq!((worker.manifests, worker.tls.key), (common.manifests.clone(), None));
        let fleet = worker.fleet.unwrap();
        assert_eq!((fleet.worker.as_deref(), fleet.http.as_deref()), (Some("w2-0909"), Some("127.0.0.1:0")));
        assert_eq!(fleet.secret, router.secret);
        assert_eq!((worker.admin.token.as_ref(), fleet.store), (router.admin.token.as_ref(), router.store));
    }

    #[test]
    fn a_worker_that_comes_again_has_another_name() {
        let common = common(None);
        assert_eq!(
            (common.worker_name(0, 0), common.worker_name(0, 1)),
            ("w1-0909".to_owned(), "w1-0909-2".to_owned())
        );
    }

    #[test]
    fn a_token_of_the_operator_is_taken() {
        let mut common = common(None);
        assert_eq!(common.admin_token(), "07".repeat(32));
        common.inherited.insert(TOKEN.to_owned(), "a-token-of-the-operator".to_owned());
        assert_eq!(common.admin_token(), "a-token-of-the-operator");
    }
}
