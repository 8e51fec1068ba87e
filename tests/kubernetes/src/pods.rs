//! Pods, as the suites ask after them.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use streamfleet_tests::http;
use streamfleet_tests::metrics::Metrics;

use crate::cluster::Cluster;

/// Where the product's pods tell how they are.
const ADMIN: u16 = 9090;

/// Whether it is Ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True")
}

/// Whether it was told to end.
pub fn is_ending(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// How often its containers were started again.
pub fn restarts(pod: &Pod) -> i32 {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    containers.map(|container| container.restart_count).sum()
}

/// One of its labels.
pub fn label<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// Where it is.
///
/// # Errors
/// When it has no address yet, or none of IPv4, which is all that clusters here have.
pub fn address(pod: &Pod) -> Result<Ipv4Addr> {
    let text = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).context("a pod without an address")?;
    text.parse().with_context(|| format!("{text} in a cluster of IPv4"))
}

/// The metrics of the product's pod at this address, asked for without the API server.
///
/// # Errors
/// When it does not answer.
pub fn metrics(cluster: &Cluster, pod: Ipv4Addr) -> Result<Metrics> {
    let url = format!("http://{pod}:{ADMIN}/metrics");
    let said = cluster.control().in_network(|| http::request("GET", &url, &[], b""))?;
    Ok(Metrics::parse(&said.text()?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "labels": { "a": "b" } }, "status": status })).unwrap()
    }

    #[test]
    fn what_a_pod_says() {
        let condition = |kind: &str, status: &str| json!({ "type": kind, "status": status });
        for (conditions, ready) in [
            (json!([]), false),
            (json!([condition("Ready", "True")]), true),
            (json!([condition("Ready", "False"), condition("Initialized", "True")]), false),
            (json!([condition("Ready", "Unknown")]), false),
        ] {
            assert_eq!(is_ready(&pod(&json!({ "conditions": conditions }))), ready, "{conditions}");
        }
        let pod = |address: Value| pod(&json!({ "podIP": address }));
        assert_eq!(address(&pod(json!("10.244.1.2"))).unwrap(), Ipv4Addr::new(10, 244, 1, 2));
        assert!(address(&pod(Value::Null)).is_err() && address(&pod(json!("fd00::1"))).is_err());
        assert_eq!((label(&pod(Value::Null), "a"), label(&pod(Value::Null), "b")), (Some("b"), None));
    }
}
