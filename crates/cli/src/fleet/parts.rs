//! What each part of a fleet is told. It is the environment that it would be given on a machine of its own, whether it is a
//! process or shares this one: so both read it in the same way, and no secret stands on a command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
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
const OURS: [&str; 11] =
    ["CONFIG", "LISTEN", "SERVICES", "MANIFESTS", "SECRET", "REDIS", "FLEET", "STORE_", "TLS_", "FLEET_", "RELAY_"];
/// Workers listen to routers of this machine alone. The port is any that is free; routers read in the store which.
const WORKER_HTTP: &str = "127.0.0.1:0";
/// What is left of the addresses of this machine's IPv6 workers before the part that a ufrag has room for.
const LOOPBACK_PREFIX: &str = "::/64";

/// What all parts have in common.
#[derive(Debug, Clone)]
pub(super) struct Common {
    /// The environment of whoever starts the fleet, without what is ours.
    pub(super) inherited: Environment,
    /// For secrets, and for names that no other fleet on the same Redis has.
    pub(super) random: [[u8; 32]; 4],
    /// What is served.
    pub(super) manifests: Vec<PathBuf>,
    /// The store; absent for one in memory.
    pub(super) redis: Option<RedisAt>,
    /// Where media comes to routers.
    pub(super) relay: Relays,
    /// Media loops of a worker.
    pub(super) loops: NonZeroUsize,
    /// Names for the routers' certificate; none for plain HTTP.
    pub(super) names: Vec<String>,
    /// What to log.
    pub(super) log: Option<String>,
}

/// The relays of all routers, which have one port: the kernel is the load balancer before them.
#[derive(Debug, Clone)]
pub(super) struct Relays {
    /// Where clients send to.
    pub(super) listen: SocketAddr,
    /// Addresses that they are told.
    pub(super) advertise: Vec<IpAddr>,
    /// Where workers listen: for relays alone, or at any address, for clients whose services want no relay.
    pub(super) loops: IpAddr,
    /// Where each router hears of the others' flows.
    pub(super) peers: Vec<SocketAddr>,
}

impl Relays {
    /// Where workers are found, by relays and by clients that come without.
    fn workers(&self) -> Vec<IpAddr> {
        // The addresses of a machine's IPv6 networks have no prefix in common with each other.
        let found = |ip: &&IpAddr| ip.is_ipv4() || ip.is_loopback();
        if self.loops.is_unspecified() {
            self.advertise.iter().filter(found).copied().collect()
        } else {
            vec![self.loops]
        }
    }
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
        own.extend(self.relay(at));
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

    fn relay(&self, at: RouterAt) -> impl Iterator<Item = (String, String)> {
        let Relays { listen, advertise, peers, .. } = &self.relay;
        let others: Vec<String> = peers.iter().filter(|peer| **peer != at.peers).map(ToString::to_string).collect();
        let workers = self.relay.workers();
        let networks: Vec<String> =
            workers.iter().map(|ip| format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })).collect();
        let has_ipv6 = workers.iter().any(IpAddr::is_ipv6);
        let prefix = has_ipv6.then(|| ("RELAY_WORKER_PREFIX", LOOPBACK_PREFIX.to_owned()));
        let said = variables([
            ("RELAY_LISTEN", listen.to_string()),
            ("RELAY_SHARE_PORT", (peers.len() > 1).to_string()),
            ("RELAY_ADVERTISE", json!(advertise).to_string()),
            ("RELAY_KEY", hex(&self.random[3])),
            ("RELAY_WORKERS", json!(networks).to_string()),
            ("RELAY_PEER_LISTEN", at.peers.to_string()),
            ("RELAY_PEERS", json!(others).to_string()),
        ]);
        said.chain(prefix.into_iter().flat_map(|named| variables([named])))
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
            ("MEDIA_UDP", SocketAddr::new(self.relay.loops, 0).to_string()),
            ("MEDIA_ADVERTISE", json!(self.relay.workers()).to_string()),
            ("MEDIA_LOOPS", self.loops.to_string()),
            ("MANIFESTS", json!(self.manifests).to_string()),
            ("FLEET", fleet.to_string()),
        ]));
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
            ("STREAMFLEET_RELAY_THREADS", "9"),
            ("STREAMFLEET_STORE_REDIS_USER", "u"),
            ("HOME", "/root"),
        ];
        Common {
            inherited: super::inherited(inherited.into_iter().map(|(name, value)| (name.into(), value.into()))),
            random: [[7; 32], [8; 32], [9; 32], [10; 32]],
            manifests: vec!["a, b.yaml".into()],
            redis: redis.map(|text| text.parse().unwrap()),
            relay: Relays {
                listen: "0.0.0.0:5000".parse().unwrap(),
                advertise: vec!["192.0.2.1".parse().unwrap()],
                loops: "127.0.0.1".parse().unwrap(),
                peers: ["127.0.0.1:5001", "127.0.0.1:5002"].map(|peer| peer.parse().unwrap()).into(),
            },
            loops: NonZeroUsize::MIN,
            names: vec!["localhost".to_owned()],
            log: Some("debug".to_owned()),
        }
    }

    #[test]
    fn parts_understand_what_they_are_told() {
        let common = common(Some("rediss://u:p@h:1"));
        let admin = "127.0.0.1:9090".parse().unwrap();
        let at =
            RouterAt { listen: "127.0.0.1:8080".parse().unwrap(), admin, peers: "127.0.0.1:5002".parse().unwrap() };
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

        let relay = &router.relay;
        assert_eq!((relay.listen, relay.share_port), (Some("0.0.0.0:5000".parse().unwrap()), true));
        assert_eq!(relay.advertise, ["192.0.2.1".parse().unwrap()]);
        assert_eq!(relay.key.as_ref().map(|key| key.reveal().to_owned()), Some("0a".repeat(32)));
        assert_eq!((relay.workers.clone(), relay.worker_prefix.clone()), (vec!["127.0.0.1/32".to_owned()], None));
        assert_eq!((relay.peer_listen, relay.peers.clone()), (at.peers, vec!["127.0.0.1:5001".to_owned()]));
        assert_eq!(relay.threads, None);

        let at = WorkerAt { admin };
        let name = common.worker_name(1, 0);
        let loaded = WorkerConfig::layers().environment(common.worker(at, &name)).load::<WorkerConfig>();
        assert!(loaded.mistakes.is_empty(), "{}", loaded.mistakes);
        let worker = loaded.config;
        let loops = (worker.media.udp.to_string(), worker.media.advertise);
        assert_eq!(loops, ("127.0.0.1:0".to_owned(), vec![common.relay.loops]));
        assert_eq!((worker.manifests, worker.tls.key), (common.manifests.clone(), None));
        let fleet = worker.fleet.unwrap();
        assert_eq!((fleet.worker.as_deref(), fleet.http.as_deref()), (Some("w2-0909"), Some("127.0.0.1:0")));
        assert_eq!(fleet.secret, router.secret);
        assert_eq!((worker.admin.token.as_ref(), fleet.store), (router.admin.token.as_ref(), router.store));
    }

    #[test]
    fn workers_are_where_relays_look_for_them() {
        let check = |listen: &str, loops: &str, advertise: &[&str], networks: &[&str], prefix: Option<&str>| {
            let common = Common {
                relay: Relays {
                    listen: listen.parse().unwrap(),
                    advertise: advertise.iter().map(|ip| ip.parse().unwrap()).collect(),
                    loops: loops.parse().unwrap(),
                    peers: vec!["127.0.0.1:0".parse().unwrap()],
                },
                ..common(None)
            };
            let any = "127.0.0.1:0".parse().unwrap();
            let at = RouterAt { listen: any, admin: any, peers: any };
            let loaded = RouterConfig::layers().environment(common.router(at)).load::<RouterConfig>();
            assert!(loaded.mistakes.is_empty(), "{}", loaded.mistakes);
            let relay = loaded.config.relay;
            assert_eq!(
                (relay.workers, relay.worker_prefix.as_deref()),
                (networks.iter().map(ToString::to_string).collect(), prefix)
            );
            assert!((!relay.share_port) && relay.peers.is_empty());
        };
        check("127.0.0.1:0", "127.0.0.1", &["127.0.0.1"], &["127.0.0.1/32"], None);
        check("[::]:0", "::1", &["2001:db8::1"], &["::1/128"], Some("::/64"));
        let all = ["192.0.2.1", "2001:db8::1", "127.0.0.1"];
        check("0.0.0.0:0", "0.0.0.0", &all, &["192.0.2.1/32", "127.0.0.1/32"], None);
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
