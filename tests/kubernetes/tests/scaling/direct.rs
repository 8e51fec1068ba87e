//! Media by the nodes' own addresses (`media.exposure: HostPort`), past the relays.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use streamfleet_kubernetes_tests::{addresses, eventually};

use super::LIMIT;
use super::fleet::Fleet;

const NAME: &str = "direct";

pub(crate) async fn has_ports_of_its_node(fleet: &Fleet<'_>) -> Result<()> {
    fleet.apply(
        NAME,
        &json!({
            "media": { "exposure": "HostPort" },
            "autoscaling": { "mode": "External", "replicas": 1, "maxReplicas": 2 },
        }),
    )?;
    fleet.await_figures(NAME, &[("readyReplicas", 1)], LIMIT).await?;
    let worker = fleet.only_worker(NAME).await?;
    let pod = fleet.pod(&worker).await?;
    let node = pod.status.as_ref().and_then(|status| status.host_ip.clone()).context("a pod without a node")?;
    let ports = pod.spec.iter().flat_map(|spec| spec.containers.iter().flat_map(|one| one.ports.iter().flatten()));
    let ports: Vec<i32> = ports.filter_map(|port| port.host_port).collect();
    ensure!(!ports.is_empty(), "{worker} has no port of its node");

    let calls = fleet.call(NAME, 2, 2).await?;
    // What passes the edge from the client to that port of the node, and not to a relay's address.
    let is_media = |line: &str| {
        let there =
            ports.iter().any(|port| line.contains(&format!("dst={node} ")) && line.contains(&format!("dport={port} ")));
        there && line.contains("udp") && line.contains(&format!("src={} ", addresses::CLIENT))
    };
    eventually("media goes to the node", LIMIT, async || {
        let flows = fleet.cluster.edge().in_network(|| fs::read_to_string("/proc/thread-self/net/nf_conntrack"))?;
        let found = flows.lines().any(is_media);
        found.then_some(Some(())).with_context(|| format!("to {node}, ports {ports:?}:\n{flows}"))
    })
    .await?;
    fleet.hang_up("media by the node's own port", calls).await?;
    fleet.compare(NAME).await
}
