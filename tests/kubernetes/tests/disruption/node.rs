//! Nodes that go, with notice and without.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use streamfleet_kubernetes_tests::{eventually, kubectl};

use super::LIMIT;
use super::calls::{Carriers, Live};
use super::workers::{Fleet, GOES, WORKERS, Worker};

/// docs/kubernetes.md: replacements of a dead node's workers are Ready within this.
const REPLACED: Duration = Duration::from_secs(60);

/// The worker of the node that goes, and the other one.
fn of_nodes<'a>(live: &'a Live<'_>, name: &str) -> Result<(&'a Worker, &'a Worker)> {
    let goes = live.workers.iter().find(|worker| worker.node == name).context("a worker on it")?;
    let stays = live.workers.iter().find(|worker| worker.node != name).context("a worker elsewhere")?;
    Ok((goes, stays))
}

/// Kubelet, containers and cable at once.
pub(crate) async fn dies(fleet: &Fleet<'_>) -> Result<()> {
    let live = Live::begin(fleet, Carriers::WebRtc).await?;
    let node = fleet.cluster.nodes()[GOES].name();
    let (dead, stays) = of_nodes(&live, node)?;
    let sessions = fleet.sessions(&live.workers)?;
    let lost = usize::try_from(sessions[&dead.name])?;
    let died = Instant::now();
    fleet.cluster.switch_off(GOES)?;
    let serve_elsewhere =
        |workers: &[Worker]| workers.iter().filter(|worker| worker.node != node && worker.serves()).count() == WORKERS;
    fleet.await_workers("its worker is replaced", serve_elsewhere).await?;
    let replaced = died.elapsed();
    println!("replaced {:.1} s after the node died", replaced.as_secs_f32());
    ensure!(replaced < REPLACED, "replaced after {replaced:?}");
    fleet.call("after a node has died")?;
    // Clients find out when nobody agrees any more to be sent to (RFC 7675: 30 s).
    let left = fleet.sessions(std::slice::from_ref(stays))?;
    ensure!(left[&stays.name] >= sessions[&stays.name], "{left:?} of {sessions:?}");
    eventually("the dead node's calls are over", LIMIT, async || {
        Ok((died.elapsed() > Duration::from_secs(32)).then_some(()))
    })
    .await?;
    live.end("a worker or its node dies", lost).await?;
    fleet.cluster.bring_back(GOES)?;
    fleet.cluster.await_nodes(fleet.cluster.nodes().len()).await?;
    for (component, count) in [("router", 2), ("operator", 2)] {
        fleet.scale(component, count).await?;
    }
    fleet.settled().await.map(drop)
}

/// `kubectl drain` waits for the calls, and no longer.
pub(crate) async fn is_drained(fleet: &Fleet<'_>) -> Result<()> {
    let live = Live::begin(fleet, Carriers::WebRtc).await?;
    let cluster = fleet.cluster;
    let node = cluster.nodes()[GOES].name();
    let (goes, _) = of_nodes(&live, node)?;
    let arguments = ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s"];
    let told = cluster.folder().join("drain.log");
    let log = std::fs::File::create(&told)?;
    let mut command = kubectl(cluster.programs(), cluster.folder(), &arguments);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut drain = cluster.control().spawn(&mut command)?;
    fleet
        .await_workers("its worker drains when there is another", |workers| {
            let elsewhere = workers.iter().filter(|worker| worker.node != node && worker.serves()).count();
            elsewhere == WORKERS && workers.iter().any(|worker| worker.name == goes.name && worker.draining)
        })
        .await?;
    fleet.call("while a node is drained")?;
    eventually("the eviction of a worker with calls is refused", LIMIT, async || {
        Ok(std::fs::read_to_string(&told)?
            .contains(&format!("error when evicting pods/\"{}\"", goes.name))
            .then_some(()))
    })
    .await?;
    live.are_where_they_began()?;
    ensure!(drain.try_wait()?.is_none(), "the drain did not wait for the calls");
    live.end("a node is drained", 0).await?;
    let status = eventually("the drain completes", LIMIT, async || Ok(drain.try_wait()?)).await?;
    let said = std::fs::read_to_string(&told)?;
    ensure!(status.success(), "{status}: {said}");
    ensure!(fleet.workers().await?.iter().all(|worker| worker.node != node), "a worker is on a drained node");
    cluster.kubectl(&["uncordon", node])?;
    fleet.settled().await.map(drop)
}
