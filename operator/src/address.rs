//! Where clients reach the routers, where nobody has said so: what the load balancer has told the routers' Service.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client};

use crate::follow::Follow;
use crate::operator::Operator;

/// Follows the routers' Service, as long as this runs.
pub async fn follow(client: Client, namespace: String, name: String, operator: Arc<Operator>) {
    let api: Api<Service> = Api::namespaced(client, &namespace);
    let config = Config::default().fields(&format!("metadata.name={name}"));
    let mut follow = Follow::new(api, config);
    let mut silent = false;
    let mut listing = Listing::default();
    loop {
        match follow.next().await {
            Ok(None) => silent = false,
            Ok(Some(event)) => {
                // The beginning of a list is said before anybody has answered.
                silent &= matches!(event, Event::Init | Event::InitApply(_));
                if let Some(address) = listing.take(&event) {
                    operator.is_reached_at(address);
                }
            }
            Err(error) => {
                // The first failure is news.
                if !std::mem::replace(&mut silent, true) {
                    tracing::warn!(%error, service = name, "the routers' address is not told");
                }
            }
        }
    }
}

/// Whether the list that is being told has it: a Service that was deleted while nobody looked is not in it.
#[derive(Debug, Default)]
struct Listing {
    has_it: bool,
}

impl Listing {
    /// What follows for the address; `None` if nothing does.
    fn take(&mut self, event: &Event<Service>) -> Option<Option<String>> {
        match event {
            Event::Apply(service) => Some(base(service)),
            Event::InitApply(service) => {
                self.has_it = true;
                Some(base(service))
            }
            Event::Init => {
                self.has_it = false;
                None
            }
            Event::InitDone => (!self.has_it).then_some(None),
            Event::Delete(_) => Some(None),
        }
    }
}

/// The beginning of URLs under a Service: its first address, and the port called `https` or `http`.
#[must_use]
pub fn base(service: &Service) -> Option<String> {
    let balancer = service.status.as_ref()?.load_balancer.as_ref()?;
    let told = balancer.ingress.as_ref()?.iter();
    // A name is what a certificate may be for.
    let host = told.clone().find_map(|told| told.hostname.clone()).or_else(|| {
        let ip = told.clone().find_map(|told| told.ip.clone())?;
        Some(if ip.contains(':') { format!("[{ip}]") } else { ip })
    })?;
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    let (scheme, usual) = [("https", 443), ("http", 80)]
        .into_iter()
        .find(|(scheme, _)| ports.iter().any(|port| port.name.as_deref() == Some(scheme)))?;
    let port = ports.iter().find(|port| port.name.as_deref() == Some(scheme))?.port;
    Some(if port == usual { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{port}") })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Statuses kept the URL of a Service that was deleted while the API server was away.
    #[test]
    fn a_service_that_is_not_listed_any_more_has_no_address() {
        let service: Service = serde_json::from_value(json!({
            "spec": { "ports": [{ "name": "https", "port": 443 }] },
            "status": { "loadBalancer": { "ingress": [{ "ip": "203.0.113.10" }] } },
        }))
        .unwrap();
        let mut listing = Listing::default();
        let mut check = |event, expected: Option<Option<&str>>| {
            let found = listing.take(&event);
            assert_eq!(found.as_ref().map(Option::as_deref), expected, "{event:?}");
        };
        let there = || service.clone();
        check(Event::Init, None);
        check(Event::InitApply(there()), Some(Some("https://203.0.113.10")));
        check(Event::InitDone, None);
        check(Event::Apply(there()), Some(Some("https://203.0.113.10")));
        check(Event::Init, None);
        check(Event::InitDone, Some(None));
        check(Event::Apply(there()), Some(Some("https://203.0.113.10")));
        check(Event::Delete(there()), Some(None));
    }

    #[test]
    fn the_address_that_a_load_balancer_tells() {
        let check = |ports: Value, ingress: Value, expected: Option<&str>| {
            let service = json!({ "spec": { "ports": ports }, "status": { "loadBalancer": { "ingress": ingress } } });
            let service: Service = serde_json::from_value(service).unwrap();
            assert_eq!(base(&service).as_deref(), expected);
        };
        let https = json!([{ "name": "media", "port": 3478 }, { "name": "https", "port": 443 }]);
        check(https.clone(), json!([{ "ip": "203.0.113.10" }]), Some("https://203.0.113.10"));
        check(https.clone(), json!([{ "ip": "2001:db8::1" }]), Some("https://[2001:db8::1]"));
        check(
            https.clone(),
            json!([{ "ip": "203.0.113.10", "hostname": "lb.example.com" }]),
            Some("https://lb.example.com"),
        );
        check(https, json!([]), None);
        let http = json!([{ "name": "http", "port": 8080 }]);
        check(http, json!([{ "ip": "203.0.113.10" }]), Some("http://203.0.113.10:8080"));
        check(json!([{ "name": "x", "port": 1 }]), json!([{ "ip": "203.0.113.10" }]), None);
    }
}
