//! Who reaches the workers: routers, and whoever reads metrics where that is said. What workers reach is theirs: handlers call
//! whom they like.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use streamfleet_service::spec::Exposure;

use super::{ADMIN_PORT, Blueprint, HTTP_PORT, MAX_LOOPS, MEDIA_PORT, Object};
use crate::kind::Kind;
use crate::names::{MANAGED_BY, SERVICE};

pub(super) fn build(of: &Blueprint) -> Object {
    let http = NetworkPolicyPort {
        port: Some(IntOrString::Int(HTTP_PORT)),
        protocol: Some("TCP".to_owned()),
        ..NetworkPolicyPort::default()
    };
    let media = NetworkPolicyPort {
        port: Some(IntOrString::Int(MEDIA_PORT)),
        end_port: Some(MEDIA_PORT + MAX_LOOPS - 1),
        protocol: Some("UDP".to_owned()),
    };
    let admin = NetworkPolicyPort { port: Some(IntOrString::Int(ADMIN_PORT)), ..http.clone() };
    let routers = NetworkPolicyPeer {
        namespace_selector: Some(namespace(&of.site.router_namespace)),
        pod_selector: Some(selector(of.site.routers.clone())),
        ..NetworkPolicyPeer::default()
    };
    let rule = |from: Option<NetworkPolicyPeer>, ports: Vec<NetworkPolicyPort>| NetworkPolicyIngressRule {
        from: from.map(|peer| vec![peer]),
        ports: Some(ports),
    };
    let mut ingress = match of.exposure {
        Exposure::Relay => vec![rule(Some(routers), vec![http, media])],
        // Clients' media comes from anywhere then; a port without `from` is open to all.
        Exposure::HostPort => vec![rule(Some(routers), vec![http]), rule(None, vec![media])],
    };
    if let Some(monitoring) = &of.site.monitoring_namespace {
        let peer =
            NetworkPolicyPeer { namespace_selector: Some(namespace(monitoring)), ..NetworkPolicyPeer::default() };
        ingress.push(rule(Some(peer), vec![admin]));
    }
    let pods = [(SERVICE, of.key.name.as_str()), MANAGED_BY];
    let policy = NetworkPolicy {
        metadata: of.meta(of.name()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(pods.map(|(key, value)| (key.to_owned(), value.to_owned())).into())),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(ingress),
            ..NetworkPolicySpec::default()
        }),
    };
    Object::new(Kind::NetworkPolicy, of.name(), policy)
}

/// Every namespace has its name as a label.
fn namespace(name: &str) -> LabelSelector {
    selector([("kubernetes.io/metadata.name".to_owned(), name.to_owned())].into())
}

fn selector(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}
