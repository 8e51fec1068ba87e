//! Where the world reaches relays, as somebody or a Service says it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::config::MAX_ADDRESSES;
use crate::relay::Advertised;

/// One address, or a name that stands for some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// An address.
    Address(Advertised),
    /// A name, and the port if it is not the relay's.
    Name(String, Option<u16>),
}

/// Neither an address nor a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected IP, IP:PORT, NAME or NAME:PORT, got {0:?}")]
pub(crate) struct Unsaid(String);

impl FromStr for Said {
    type Err = Unsaid;

    fn from_str(text: &str) -> Result<Self, Unsaid> {
        let unsaid = || Unsaid(text.chars().take(64).collect());
        if let Ok(address) = text.parse::<Advertised>() {
            let is_reachable = is_reachable(address.ip) && address.port != Some(0);
            return if is_reachable { Ok(Self::Address(address)) } else { Err(unsaid()) };
        }
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => {
                let port = port.parse().ok().filter(|port| *port != 0);
                (name, Some(port.ok_or_else(unsaid)?))
            }
            None => (text, None),
        };
        let is_label = |label: &str| {
            (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        // What looks like an address and is none is no name either.
        let is_name =
            name.len() <= 253 && name.split('.').all(is_label) && name.bytes().any(|b| b.is_ascii_alphabetic());
        if is_name { Ok(Self::Name(name.to_owned(), port)) } else { Err(unsaid()) }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, None) => f.write_str(name),
            Self::Name(name, Some(port)) => write!(f, "{name}:{port}"),
        }
    }
}

/// What a Service's status says: the addresses and names of its load balancer, with the port that it has for the relay.
pub(crate) fn of_service(service: &Service, relay: u16) -> Vec<Said> {
    let port = service.spec.as_ref().and_then(|spec| port(spec.ports.as_deref().unwrap_or_default(), relay));
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    let mut said = Vec::new();
    for at in ingress {
        let ip = at.ip.as_ref().and_then(|ip| ip.parse::<IpAddr>().ok()).filter(|ip| is_reachable(*ip));
        if let Some(ip) = ip {
            said.push(Said::Address(Advertised { ip, port }));
        } else if let Some(Ok(Said::Name(name, _))) = at.hostname.as_deref().map(str::parse) {
            said.push(Said::Name(name, port));
        }
    }
    said.truncate(MAX_ADDRESSES);
    said
}

/// The port under which a Service has the relay: of its UDP ports the one that leads to the relay's, or is called as its container's, or else
/// the first.
fn port(ports: &[ServicePort], relay: u16) -> Option<u16> {
    let leads = |port: &&ServicePort| match &port.target_port {
        Some(IntOrString::Int(target)) => *target == i32::from(relay),
        Some(IntOrString::String(name)) => matches!(name.as_str(), "relay" | "media"),
        None => port.port == i32::from(relay),
    };
    let udp = || ports.iter().filter(|port| port.protocol.as_deref() == Some("UDP"));
    let port = udp().find(leads).or_else(|| udp().next())?;
    u16::try_from(port.port).ok()
}

fn is_reachable(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast()
}

/// What is said, and what names have led to.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    said: Vec<Said>,
    found: BTreeMap<String, Vec<IpAddr>>,
}

impl Addresses {
    /// Something else is said. What names have led to is kept for those that are still said.
    pub(crate) fn say(&mut self, said: Vec<Said>) {
        self.found.retain(|name, _| said.iter().any(|said| matches!(said, Said::Name(other, _) if other == name)));
        self.said = said;
    }

    /// The names that are to be looked up.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.said.iter().filter_map(|said| match said {
            Said::Name(name, _) => Some(name.clone()),
            Said::Address(_) => None,
        });
        let mut names: Vec<String> = names.collect();
        names.sort();
        names.dedup();
        names
    }

    /// What a name has led to. A resolver that knows nothing takes nothing away: load balancers outlive it.
    pub(crate) fn found(&mut self, name: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        let mut addresses: Vec<IpAddr> =
            addresses.into_iter().map(|ip| ip.to_canonical()).filter(|ip| is_reachable(*ip)).collect();
        // Resolvers shuffle.
        addresses.sort();
        addresses.dedup();
        if !addresses.is_empty() {
            self.found.insert(name.to_owned(), addresses);
        }
    }

    /// One candidate for each address, of a relay with this port.
    pub(crate) fn candidates(&self, relay: u16) -> Vec<SocketAddr> {
        let mut candidates: Vec<SocketAddr> = Vec::new();
        for said in &self.said {
            let at: Vec<SocketAddr> = match said {
                Said::Address(address) => vec![address.at(relay)],
                Said::Name(name, port) => {
                    let found = self.found.get(name).map_or(&[][..], Vec::as_slice);
                    found.iter().map(|ip| SocketAddr::new(*ip, port.unwrap_or(relay))).collect()
                }
            };
            for at in at {
                if !candidates.contains(&at) {
                    candidates.push(at);
                }
            }
        }
        candidates.truncate(MAX_ADDRESSES);
        candidates
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_said_is_an_address_or_a_name() {
        for (text, is_name) in [
            ("192.0.2.1", false),
            ("192.0.2.1:3478", false),
            ("[2001:db8::1]:443", false),
            ("2001:db8::1", false),
            ("relay.example.com", true),
            ("relay.example.com:3478", true),
            ("a-b", true),
        ] {
            let said: Said = text.parse().unwrap();
            assert_eq!(matches!(said, Said::Name(..)), is_name, "{text}");
            assert_eq!(said.to_string(), text);
        }
        for text in [
            "",
            "0.0.0.0",
            "[::]:1",
            "224.0.0.1",
            "192.0.2.1:0",
            "a:0",
            "a:b",
            "a b",
            "a..b",
            "192.0.2.256",
            "1.2.3",
            "[::1]",
        ] {
            assert!(text.parse::<Said>().is_err(), "{text:?}");
        }
    }

    fn service(ports: Value, ingress: Value) -> Service {
        serde_json::from_value(json!({
            "spec": { "ports": ports }, "status": { "loadBalancer": { "ingress": ingress } },
        }))
        .unwrap()
    }

    #[test]
    fn a_service_says_where_its_load_balancer_is() {
        #[track_caller]
        fn check(ports: Value, ingress: Value, expected: &[&str]) {
            let said = of_service(&service(ports, ingress), 3478);
            assert_eq!(said.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        }
        let http = json!({ "port": 443, "protocol": "TCP", "targetPort": 8080 });
        let udp = |port: u16, target: Value| json!({ "port": port, "protocol": "UDP", "targetPort": target });
        let one = json!([{ "ip": "192.0.2.1" }]);
        check(json!([http, udp(3478, json!(3478))]), one.clone(), &["192.0.2.1:3478"]);
        check(json!([http, udp(443, json!(3478))]), one.clone(), &["192.0.2.1:443"]);
        check(json!([udp(53, json!(5353)), udp(443, json!("relay"))]), one.clone(), &["192.0.2.1:443"]);
        check(json!([udp(53, json!(5353)), udp(443, json!(4443))]), one.clone(), &["192.0.2.1:53"]);
        check(json!([{ "port": 3478, "protocol": "UDP" }]), one.clone(), &["192.0.2.1:3478"]);
        // The relay's own port: nothing is said of another.
        check(json!([http]), one, &["192.0.2.1"]);
        check(
            json!([udp(3478, json!(3478))]),
            json!([{ "ip": "2001:db8::1" }, { "hostname": "lb.example.com" }, { "ip": "0.0.0.0" }, { "hostname": "" }, {}]),
            &["[2001:db8::1]:3478", "lb.example.com:3478"],
        );
        check(json!([udp(3478, json!(3478))]), json!([]), &[]);
        assert_eq!(of_service(&Service::default(), 3478), []);
        let many: Vec<Value> = (0..40).map(|n| json!({ "ip": format!("192.0.2.{n}") })).collect();
        assert_eq!(of_service(&service(json!([]), many.into()), 3478).len(), MAX_ADDRESSES);
    }

    #[test]
    fn names_stand_for_all_of_their_addresses() {
        let mut addresses = Addresses::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let check = |addresses: &Addresses, expected: &[&str]| {
            let candidates = addresses.candidates(3478);
            assert_eq!(candidates.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        check(&addresses, &[]);
        let said = ["lb.example.com:443", "192.0.2.9", "lb.example.com", "192.0.2.9:3478"];
        addresses.say(said.map(|text| text.parse().unwrap()).into());
        assert_eq!(addresses.names(), ["lb.example.com"]);
        check(&addresses, &["192.0.2.9:3478"]);
        addresses.found("lb.example.com", ["192.0.2.2", "::ffff:192.0.2.1", "192.0.2.2", "0.0.0.0"].map(ip));
        let whole = ["192.0.2.1:443", "192.0.2.2:443", "192.0.2.9:3478", "192.0.2.1:3478", "192.0.2.2:3478"];
        check(&addresses, &whole);
        addresses.found("lb.example.com", []);
        check(&addresses, &whole);
        addresses.found("lb.example.com", [ip("192.0.2.3")]);
        check(&addresses, &["192.0.2.3:443", "192.0.2.9:3478", "192.0.2.3:3478"]);
        addresses.say(vec!["192.0.2.9".parse().unwrap()]);
        addresses.say(vec!["lb.example.com".parse().unwrap()]);
        check(&addresses, &[]);
    }
}
