//! What an operator can say about a router in a cluster.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use streamfleet_process::config::Mistakes;
use streamfleet_session::ServiceName;

use super::addresses::Said;
use crate::config::RelayConfig;

/// The router in a cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct KubernetesConfig {
    /// Whether services are the StreamServices of the API server, instead of files.
    pub watch: bool,
    /// Namespaces whose StreamServices are served; all if none is named.
    pub namespaces: Vec<String>,
    /// Where clients are told to send media to: `IP`, `IP:PORT`, `NAME` or `NAME:PORT`. Names are looked up again and again, and stand for
    /// all of their addresses; without a port it is the relay's.
    pub media_addresses: Vec<String>,
    /// Else: the Service before the relays, `NAMESPACE/NAME`. Its load balancer's addresses are taken, with the port of its UDP.
    pub public_service: Option<String>,
    /// The headless Service of all relays, `NAMESPACE/NAME`: its endpoints are told of flows, beside `relay.peers`.
    pub peers_service: Option<String>,
}

/// Without mistakes.
#[derive(Debug, Clone, Default)]
pub(crate) struct KubernetesPlan {
    /// Which StreamServices are served; `None` where services are files'.
    pub(crate) services: Option<Scope>,
    /// Where clients send media to; `None` where that is said once and for all.
    pub(crate) public: Option<Public>,
    /// The Service of all relays.
    pub(crate) peers: Option<At>,
}

/// Which namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All of them.
    All,
    /// These, each once.
    Only(Vec<String>),
}

impl Scope {
    /// What the nth watch is over.
    pub(crate) fn name(&self, n: usize) -> &str {
        match self {
            Self::All => "all",
            Self::Only(only) => only.get(n).map_or("", String::as_str),
        }
    }
}

/// Who says where clients send media to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Public {
    /// The operator.
    Said(Vec<Said>),
    /// The status of this Service.
    Service(At),
}

/// An object of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl KubernetesPlan {
    /// Whether the API server is asked for anything.
    pub(crate) fn asks(&self) -> bool {
        self.services.is_some() || matches!(self.public, Some(Public::Service(_))) || self.peers.is_some()
    }
}

/// Namespaces at most: each has a watch of its own.
const MAX_NAMESPACES: usize = 100;
/// Addresses and names at most: each is looked up, and each address is a candidate of every client's.
pub(super) const MAX_ADDRESSES: usize = 16;

impl KubernetesConfig {
    /// Whether it says where clients send media to.
    pub(crate) fn says_where(&self) -> bool {
        !self.media_addresses.is_empty() || self.public_service.is_some()
    }

    /// `files` and `relay` are what the rest of the configuration says.
    pub(crate) fn build(&self, files: &[PathBuf], relay: &RelayConfig, mistakes: &mut Mistakes) -> KubernetesPlan {
        if self.watch && !files.is_empty() {
            mistakes.push("kubernetes.watch", "services come from files already; choose one of both");
        }
        if !self.watch && files.is_empty() {
            mistakes.push("services", "at least one file or folder with services is needed, or kubernetes.watch");
        }
        if !self.watch && !self.namespaces.is_empty() {
            mistakes.push("kubernetes.namespaces", "nothing is watched there without kubernetes.watch");
        }
        let scope = self.scope(mistakes);
        let has_relay = relay.listen.is_some();
        let without_relay = |key: &str, is_said: bool, mistakes: &mut Mistakes| {
            if is_said && !has_relay {
                mistakes.push(key, "there is no relay without relay.listen");
            }
        };
        without_relay("kubernetes.mediaAddresses", !self.media_addresses.is_empty(), mistakes);
        without_relay("kubernetes.publicService", self.public_service.is_some(), mistakes);
        without_relay("kubernetes.peersService", self.peers_service.is_some(), mistakes);
        if self.says_where() && !relay.advertise.is_empty() {
            mistakes.push("relay.advertise", "kubernetes says where clients send media to; choose one of both");
        }
        KubernetesPlan {
            services: scope.filter(|_| self.watch),
            public: self.public(mistakes),
            peers: at("kubernetes.peersService", self.peers_service.as_deref(), mistakes),
        }
    }

    fn scope(&self, mistakes: &mut Mistakes) -> Option<Scope> {
        let mut only: Vec<String> = Vec::new();
        for (n, namespace) in self.namespaces.iter().enumerate() {
            let key = format!("kubernetes.namespaces[{n}]");
            if namespace.contains('/') || namespace.parse::<ServiceName>().is_err() {
                mistakes.push(key, "is no name of a namespace");
            } else if !only.contains(namespace) {
                only.push(namespace.clone());
            }
        }
        if only.len() > MAX_NAMESPACES {
            mistakes.push("kubernetes.namespaces", format!("more than {MAX_NAMESPACES}: name none to watch all"));
        }
        if self.namespaces.is_empty() { Some(Scope::All) } else { Some(Scope::Only(only)) }
    }

    fn public(&self, mistakes: &mut Mistakes) -> Option<Public> {
        let service = at("kubernetes.publicService", self.public_service.as_deref(), mistakes);
        let said = self.media_addresses.iter().enumerate();
        let said: Vec<Said> = said
            .filter_map(|(n, text)| mistakes.check(format!("kubernetes.mediaAddresses[{n}]"), text.parse()))
            .collect();
        if said.len() > MAX_ADDRESSES {
            mistakes.push("kubernetes.mediaAddresses", format!("more than {MAX_ADDRESSES}"));
        }
        match (self.media_addresses.is_empty(), service) {
            (false, _) => Some(Public::Said(said)),
            (true, Some(service)) => Some(Public::Service(service)),
            (true, None) => None,
        }
    }
}

fn at(key: &str, text: Option<&str>, mistakes: &mut Mistakes) -> Option<At> {
    let name = text.map(str::parse::<ServiceName>)?;
    match name {
        Ok(name) if name.namespace().is_some() => {
            let namespace = name.namespace().unwrap_or_default().to_owned();
            Some(At { namespace, name: name.name().to_owned() })
        }
        _ => {
            mistakes.push(key, "must be NAMESPACE/NAME");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(config: &KubernetesConfig, files: &[&str], relay: bool) -> Result<KubernetesPlan, Vec<String>> {
        let files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
        let listen = relay.then(|| ([0, 0, 0, 0], 3478).into());
        let mut mistakes = Mistakes::new();
        let plan = config.build(&files, &RelayConfig { listen, ..RelayConfig::default() }, &mut mistakes);
        mistakes.or(plan).map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_router_without_a_cluster_asks_nobody() {
        let plan = build(&KubernetesConfig::default(), &["a.yaml"], true).unwrap();
        assert!(!plan.asks() && plan.services.is_none() && plan.public.is_none());
        let said = KubernetesConfig { media_addresses: strings(&["relay.example.com"]), ..KubernetesConfig::default() };
        assert!(!build(&said, &["a.yaml"], true).unwrap().asks(), "a name is asked of a resolver");
    }

    #[test]
    fn what_is_said_is_obeyed() {
        let config = KubernetesConfig {
            watch: true,
            namespaces: strings(&["a", "b", "a"]),
            media_addresses: Vec::new(),
            public_service: Some("streamfleet/media".to_owned()),
            peers_service: Some("streamfleet/relays".to_owned()),
        };
        let plan = build(&config, &[], true).unwrap();
        assert!(plan.asks());
        assert_eq!(plan.services, Some(Scope::Only(strings(&["a", "b"]))));
        let named = |name: &str| At { namespace: "streamfleet".to_owned(), name: name.to_owned() };
        assert_eq!(plan.public, Some(Public::Service(named("media"))));
        assert_eq!(plan.peers, Some(named("relays")));
        let all = KubernetesConfig { watch: true, ..KubernetesConfig::default() };
        assert_eq!(build(&all, &[], false).unwrap().services, Some(Scope::All));
        // What somebody says wins over what a Service does.
        let both = KubernetesConfig { media_addresses: strings(&["192.0.2.1"]), ..config };
        assert!(matches!(build(&both, &[], true).unwrap().public, Some(Public::Said(said)) if said.len() == 1));
    }

    #[test]
    fn every_mistake_names_its_key() {
        #[track_caller]
        fn check(config: KubernetesConfig, files: &[&str], relay: bool, expected: &[&str]) {
            let found = build(&config, files, relay).unwrap_err();
            let keys: Vec<&str> = found.iter().map(|found| found.split(": ").next().unwrap()).collect();
            assert_eq!(keys, expected, "{found:#?}");
        }
        let none = KubernetesConfig::default();
        check(none.clone(), &[], false, &["services"]);
        check(KubernetesConfig { watch: true, ..none.clone() }, &["a"], false, &["kubernetes.watch"]);
        check(
            KubernetesConfig { namespaces: strings(&["a"]), ..none.clone() },
            &["a"],
            false,
            &["kubernetes.namespaces"],
        );
        check(
            KubernetesConfig { watch: true, namespaces: strings(&["a/b", "A", ""]), ..none.clone() },
            &[],
            false,
            &["kubernetes.namespaces[0]", "kubernetes.namespaces[1]", "kubernetes.namespaces[2]"],
        );
        let there = KubernetesConfig {
            public_service: Some("media".to_owned()),
            peers_service: Some("a/b/c".to_owned()),
            media_addresses: strings(&["192.0.2.1:0", "a b"]),
            ..none
        };
        check(
            there,
            &["a"],
            false,
            &[
                "kubernetes.mediaAddresses",
                "kubernetes.publicService",
                "kubernetes.peersService",
                "kubernetes.publicService",
                "kubernetes.mediaAddresses[0]",
                "kubernetes.mediaAddresses[1]",
                "kubernetes.peersService",
            ],
        );
    }
}
