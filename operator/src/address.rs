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
    loop {
        match follow.next().await {
            Ok(Event::Apply(service) | Event::InitApply(service)) => operator.is_reached_at(base(&service)),
            Ok(Event::Delete(_)) => operator.is_reached_at(None),
            Ok(Event::InitDone) => silent = false,
            // Said before anybody has answered.
            Ok(Event::Init) => {}
            Err(error) => {
                // The first failure is news.
                if !std::mem::replace(&mut silent, true) {
                    tracing::warn!(%error, service = name, "the routers' address is not told");
                }
            }
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
