//! A headless Service: the names of workers for whoever looks for them by DNS. Routers go by the store.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{ADMIN_PORT, Blueprint, HTTP_PORT, Object};
use crate::kind::Kind;
use crate::names::{MANAGED_BY, SERVICE};

pub(super) fn build(of: &Blueprint) -> Object {
    let port = |name: &str, port: i32| ServicePort {
        name: Some(name.to_owned()),
        port,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String(name.to_owned())),
        ..ServicePort::default()
    };
    let selector = [(SERVICE, of.key.name.as_str()), MANAGED_BY];
    let service = Service {
        metadata: of.meta(of.name()),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some(selector.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ports: Some(vec![port("http", HTTP_PORT), port("admin", ADMIN_PORT)]),
            // One that is not ready has sessions all the same.
            publish_not_ready_addresses: Some(true),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    Object::new(Kind::Service, of.name(), service)
}
