//! Which Services there are, which address each has, and which nodes serve it. No sockets, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Service;

use super::health::Health;
use super::rules::{self, Front, Port};
use crate::plan::addresses;

/// Where kube-proxy says that it is well, which is asked where every node takes flows for every pod.
const PROXY: u16 = 10256;

/// What a Service asks of a load balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    ports: Vec<Port>,
    /// The port at which nodes with a pod of its answer.
    check: u16,
    /// The address that it asks for; others may have the same one at other ports.
    asks: Option<Ipv4Addr>,
    /// The address that its status has.
    has: Option<Ipv4Addr>,
}

impl Wanted {
    /// `None` where it asks nothing of this one.
    pub(super) fn of(service: &Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() != Some("LoadBalancer") || spec.load_balancer_class.is_some() {
            return None;
        }
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let has = status.and_then(|status| status.ingress.as_ref()?.first()?.ip.as_ref()?.parse().ok());
        let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
            let number = u16::try_from(port.port).ok()?;
            Some(Port { udp: port.protocol.as_deref() == Some("UDP"), number })
        };
        let own = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
        Some(Self {
            ports: spec.ports.iter().flatten().filter_map(port).collect(),
            check: spec.health_check_node_port.and_then(own).unwrap_or(PROXY),
            asks: spec.load_balancer_ip.as_ref().and_then(|address| address.parse().ok()),
            has,
        })
    }
}

#[derive(Debug)]
struct Served {
    wanted: Wanted,
    address: Ipv4Addr,
    /// Somebody is writing the address into its status.
    telling: bool,
    /// The list of all Services has it.
    listed: bool,
}

/// What came of telling an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) key: String,
    pub(super) address: Option<Ipv4Addr>,
    pub(super) done: bool,
}

/// All of it.
pub(super) struct Pool {
    nodes: Vec<Ipv4Addr>,
    services: BTreeMap<String, Served>,
    health: BTreeMap<(usize, u16), Health>,
    /// The nodes of each Service that the edge's rules have.
    in_force: BTreeMap<String, Vec<usize>>,
}

impl Pool {
    pub(super) fn new(nodes: Vec<Ipv4Addr>) -> Self {
        Self { nodes, services: BTreeMap::new(), health: BTreeMap::new(), in_force: BTreeMap::new() }
    }

    /// A Service is there, or has changed.
    pub(super) fn want(&mut self, key: String, wanted: Wanted) {
        let known = self.services.get(&key);
        let keeps = known.map(|served| served.address).or(wanted.has.filter(|has| self.is_free(*has)));
        let Some(address) = wanted.asks.or(keeps).or_else(|| self.free()) else {
            tracing::error!("no address is left for {key}");
            return;
        };
        let telling = known.is_some_and(|served| served.telling);
        self.services.insert(key, Served { wanted, address, telling, listed: true });
    }

    /// A Service is gone, or asks for nothing any more.
    pub(super) fn forget(&mut self, key: &str) {
        self.services.remove(key);
        let checked: BTreeSet<u16> = self.services.values().map(|served| served.wanted.check).collect();
        self.health.retain(|(_, port), _| checked.contains(port));
    }

    /// All Services are about to be listed.
    pub(super) fn begin_again(&mut self) {
        self.services.values_mut().for_each(|served| served.listed = false);
    }

    /// They were: others are gone.
    pub(super) fn these_are_all(&mut self) {
        let gone = self.services.iter().filter(|(_, served)| !served.listed).map(|(key, _)| key.clone());
        for key in gone.collect::<Vec<_>>() {
            self.forget(&key);
        }
    }

    /// The addresses that Services have to be told, each of them once.
    pub(super) fn untold(&mut self) -> Vec<(String, Option<Ipv4Addr>)> {
        let untold =
            self.services.iter_mut().filter(|(_, served)| !served.telling && served.wanted.has != Some(served.address));
        let tell = |(key, served): (&String, &mut Served)| {
            served.telling = true;
            (key.clone(), Some(served.address))
        };
        untold.map(tell).collect()
    }

    /// One was told, or could not be.
    pub(super) fn told(&mut self, told: &Told) {
        if let Some(served) = self.services.get_mut(&told.key) {
            served.telling = false;
            if told.done {
                served.wanted.has = told.address;
            }
        }
    }

    /// Whom to ask, at which port.
    pub(super) fn checks(&self) -> Vec<(usize, u16)> {
        let ports: BTreeSet<u16> = self.services.values().map(|served| served.wanted.check).collect();
        (0..self.nodes.len()).flat_map(|node| ports.iter().map(move |port| (node, *port))).collect()
    }

    /// What one has answered.
    pub(super) fn heard(&mut self, node: usize, port: u16, healthy: bool) {
        self.health.entry((node, port)).or_default().heard(healthy);
    }

    pub(super) fn address(&self, key: &str) -> Option<Ipv4Addr> {
        self.services.get(key).map(|served| served.address)
    }

    /// The rules of all Services are now at the edge as [`rules`](Self::rules) has them.
    pub(super) fn applied(&mut self) {
        self.in_force = self.services.keys().map(|key| (key.clone(), self.healthy(key))).collect();
    }

    /// The nodes that flows of a Service are passed on to.
    pub(super) fn in_force(&self, key: &str) -> Vec<usize> {
        self.in_force.get(key).cloned().unwrap_or_default()
    }

    fn healthy(&self, key: &str) -> Vec<usize> {
        let Some(served) = self.services.get(key) else { return Vec::new() };
        let up = |node: &usize| self.health.get(&(*node, served.wanted.check)).is_some_and(|health| health.is_up());
        (0..self.nodes.len()).filter(up).collect()
    }

    /// What the edge is to do.
    pub(super) fn rules(&self) -> String {
        let front = |(key, served): (&String, &Served)| Front {
            address: served.address,
            ports: served.wanted.ports.clone(),
            healthy: self.healthy(key),
        };
        rules::balanced(&self.services.iter().map(front).collect::<Vec<_>>(), self.nodes.len())
    }

    fn is_free(&self, address: Ipv4Addr) -> bool {
        let pool = addresses::FIRST_PUBLIC..=addresses::LAST_PUBLIC;
        pool.contains(&address) && self.services.values().all(|served| served.address != address)
    }

    fn free(&self) -> Option<Ipv4Addr> {
        let all = u32::from(addresses::FIRST_PUBLIC)..=u32::from(addresses::LAST_PUBLIC);
        all.map(Ipv4Addr::from).find(|address| self.is_free(*address))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value, ip: Option<&str>) -> Service {
        let ingress = ip.map(|ip| json!([{ "ip": ip }]));
        serde_json::from_value(
            json!({ "metadata": {}, "spec": spec, "status": { "loadBalancer": { "ingress": ingress } } }),
        )
        .unwrap()
    }

    fn wanted(check: u16, has: Option<&str>) -> Wanted {
        let spec = json!({ "type": "LoadBalancer", "healthCheckNodePort": check, "ports": [{ "port": 80 }] });
        Wanted::of(&service(spec, has)).unwrap()
    }

    fn pool() -> Pool {
        Pool::new(vec![addresses::node(0), addresses::node(1)])
    }

    #[test]
    fn only_services_of_the_type_are_taken() {
        let takes = |spec: Value| Wanted::of(&service(spec, None)).map(|wanted| (wanted.check, wanted.ports));
        assert_eq!(takes(json!({ "type": "ClusterIP" })), None);
        assert_eq!(takes(json!({ "type": "LoadBalancer", "loadBalancerClass": "other" })), None);
        let ports = json!([{ "port": 443 }, { "port": 3478, "protocol": "UDP" }]);
        let expected = vec![Port { udp: false, number: 443 }, Port { udp: true, number: 3478 }];
        let local = json!({ "type": "LoadBalancer", "healthCheckNodePort": 31_000, "ports": ports });
        assert_eq!(takes(local), Some((31_000, expected.clone())));
        assert_eq!(takes(json!({ "type": "LoadBalancer", "ports": ports })), Some((PROXY, expected)));
    }

    #[test]
    fn each_has_an_address_of_its_own_and_is_told_it_once() {
        let mut pool = pool();
        let [first, second] = [10, 11].map(|last| Ipv4Addr::new(203, 0, 113, last));
        pool.want("a/a".to_owned(), wanted(1, None));
        pool.want("a/b".to_owned(), wanted(2, None));
        assert_eq!(pool.untold(), [("a/a".to_owned(), Some(first)), ("a/b".to_owned(), Some(second))]);
        assert_eq!(pool.untold(), []);
        pool.told(&Told { key: "a/a".to_owned(), address: Some(first), done: true });
        pool.told(&Told { key: "a/b".to_owned(), address: Some(second), done: false });
        assert_eq!(pool.untold(), [("a/b".to_owned(), Some(second))], "what could not be told is told again");
        pool.want("a/a".to_owned(), wanted(1, Some("203.0.113.10")));
        assert_eq!(pool.untold(), []);
        pool.forget("a/a");
        pool.want("a/c".to_owned(), wanted(1, None));
        assert_eq!(pool.address("a/c"), Some(first), "addresses are used again");
        pool.want("a/d".to_owned(), wanted(1, Some("203.0.113.99")));
        assert_eq!(pool.address("a/d"), Some(Ipv4Addr::new(203, 0, 113, 99)), "and kept by whom had them before");
    }

    #[test]
    fn two_may_ask_for_one_address() {
        let mut pool = pool();
        for key in ["a/a", "a/b"] {
            let wanted = Wanted { asks: Some(Ipv4Addr::new(203, 0, 113, 50)), ..wanted(1, None) };
            pool.want(key.to_owned(), wanted);
        }
        assert_eq!(pool.address("a/a"), pool.address("a/b"));
    }

    #[test]
    fn what_a_list_does_not_have_is_gone() {
        let mut pool = pool();
        pool.want("a/a".to_owned(), wanted(1, None));
        pool.want("a/b".to_owned(), wanted(2, None));
        pool.begin_again();
        pool.want("a/b".to_owned(), wanted(2, None));
        pool.these_are_all();
        assert_eq!(pool.checks(), [(0, 2), (1, 2)]);
    }

    #[test]
    fn a_node_serves_while_it_says_so() {
        let mut pool = pool();
        pool.want("a/a".to_owned(), wanted(7, None));
        assert_eq!(pool.healthy("a/a"), [0; 0]);
        pool.heard(1, 7, true);
        assert_eq!(pool.healthy("a/a"), [1]);
        assert_eq!(pool.in_force("a/a"), [0; 0], "before the edge has been told");
        pool.applied();
        assert_eq!(pool.in_force("a/a"), [1]);
        let before = pool.rules();
        pool.heard(1, 7, false);
        assert_eq!(pool.rules(), before);
        pool.heard(0, 7, true);
        assert_eq!(pool.healthy("a/a"), [0, 1]);
        (0..3).for_each(|_| pool.heard(1, 7, false));
        assert_eq!(pool.healthy("a/a"), [0]);
    }
}
