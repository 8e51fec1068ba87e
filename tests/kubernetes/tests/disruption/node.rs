//! Nodes that go, with notice and without.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use streamfleet_kubernetes_tests::fleet::{await_status, events};
use streamfleet_kubernetes_tests::{eventually, kubectl};

use super::LIMIT;
use super::calls::{Carriers, Expected, Live};
use super::workers::{Fleet, GOES, NAMESPACE, SERVICE, WORKERS, Worker};

/// docs/kubernetes.md: what replaces the workers of a dead node takes calls within this.
const REPLACED: Duration = Duration::from_secs(60);

/// The worker of the node that goes, and the other one.
fn of_nodes<'a>(live: &'a Live<'_>, name: &str) -> Result<(&'a Worker, &'a Worker)> {
    let goes = live.workers.iter().find(|worker| worker.node == name).context("a worker on it")?;
    let stays = live.workers.iter().find(|worker| worker.node != name).context("a worker elsewhere")?;
    Ok((goes, stays))
}

/// Kubelet, containers and cable at once.
pub(crate) async fn dies(fleet: &Fleet<'_>) -> Result<()> {
    let live = Live::begin(fleet, Carriers::Returning).await?;
    let node = fleet.cluster.nodes()[GOES].name();
    let expected = of_lost(fleet, &live, node).await?;
    let died = Instant::now();
    fleet.cluster.switch_off(GOES)?;
    replaced(fleet, node, died).await?;
    fleet.call("after a node has died")?;
    are_over(fleet, &live, node, died).await?;
    live.end("a worker or its node dies", expected).await?;
    fleet.cluster.bring_back(GOES)?;
    whole_again(fleet).await
}

/// All that is on it goes on, and reaches nobody for a while.
pub(crate) async fn is_cut_off(fleet: &Fleet<'_>) -> Result<()> {
    let live = Live::begin(fleet, Carriers::Returning).await?;
    let node = fleet.cluster.nodes()[GOES].name();
    let expected = of_lost(fleet, &live, node).await?;
    let (away, _) = of_nodes(&live, node)?;
    let away = away.clone();
    let cut = Instant::now();
    fleet.cluster.cut_off(GOES)?;
    replaced(fleet, node, cut).await?;
    are_over(fleet, &live, node, cut).await?;
    fleet.cluster.connect(GOES)?;
    fleet.cluster.await_nodes(fleet.cluster.nodes().len()).await?;
    // What it had is at other workers, or over: it is there once, in the figures too, and the worker goes, which is one too many.
    let left = i64::try_from(live.count() - expected.lost)?;
    await_status(&fleet.services(), SERVICE, "activeSessions", LIMIT, |sessions| sessions == left).await?;
    let alone = |workers: &[Worker]| workers.len() == WORKERS && workers.iter().all(Worker::serves);
    let workers = fleet.await_workers("there are no more workers than were asked for", alone).await?;
    let there: u64 = fleet.sessions(&workers)?.values().sum();
    ensure!(there == live.count() - expected.lost, "{there} sessions of {:?}", live.at);
    println!("{} is {}", away.name, if workers.iter().any(|known| known.name == away.name) { "kept" } else { "gone" });
    await_status(&fleet.services(), SERVICE, "activeSessions", LIMIT, |sessions| sessions == left).await?;
    live.end("a worker or its node dies", expected).await?;
    whole_again(fleet).await
}

/// What becomes of calls when this node is gone: those by WebRTC to its worker are lost, WebSockets to it or by its router come back.
async fn of_lost(fleet: &Fleet<'_>, live: &Live<'_>, node: &str) -> Result<Expected> {
    let (gone, _) = of_nodes(live, node)?;
    // Nobody knows which of those to its worker came by its router.
    let (to, by) = (live.sockets_at(gone), fleet.sockets_through(node).await?);
    Ok(Expected { lost: live.webrtc_at[&gone.name], back: (to.max(by), to + by), ..Expected::default() })
}

/// Waits until other nodes have as many workers as there are to be.
async fn replaced(fleet: &Fleet<'_>, node: &str, since: Instant) -> Result<()> {
    let serve_elsewhere =
        |workers: &[Worker]| workers.iter().filter(|worker| worker.node != node && worker.serves()).count() == WORKERS;
    fleet.await_workers("its worker is replaced", serve_elsewhere).await?;
    let replaced = since.elapsed();
    println!("replaced {:.1} s after the node was gone", replaced.as_secs_f32());
    ensure!(replaced < REPLACED, "replaced after {replaced:?}");
    Ok(())
}

/// Waits until the node's calls by WebRTC are over, and all WebSockets are at other workers.
async fn are_over(fleet: &Fleet<'_>, live: &Live<'_>, node: &str, since: Instant) -> Result<()> {
    // Clients find out when nobody agrees any more to be sent to (RFC 7675: 30 s).
    eventually("the node's calls are over", LIMIT, async || {
        Ok((since.elapsed() > Duration::from_secs(32)).then_some(()))
    })
    .await?;
    let (gone, stays) = of_nodes(live, node)?;
    let left = live.count() - live.webrtc_at[&gone.name];
    eventually("all others are at workers that are there", LIMIT, async || {
        let mut workers = fleet.workers().await?;
        workers.retain(|worker| worker.node != node);
        let sessions = fleet.sessions(&workers)?;
        let kept = sessions.get(&stays.name).is_some_and(|there| *there >= live.at[&stays.name]);
        let all = kept && sessions.values().sum::<u64>() == left;
        all.then_some(Some(())).with_context(|| format!("{sessions:?}, {left} of {:?}", live.at))
    })
    .await
}

/// Waits until the node has what it had.
async fn whole_again(fleet: &Fleet<'_>) -> Result<()> {
    fleet.cluster.await_nodes(fleet.cluster.nodes().len()).await?;
    for (component, count) in [("router", 2), ("operator", 2)] {
        fleet.scale(component, count).await?;
    }
    fleet.await_routers_apart().await?;
    fleet.settled().await.map(drop)
}

/// `kubectl drain` waits for the calls, and no longer.
pub(crate) async fn is_drained(fleet: &Fleet<'_>) -> Result<()> {
    let live = Live::begin(fleet, Carriers::Returning).await?;
    let cluster = fleet.cluster;
    let node = cluster.nodes()[GOES].name();
    let (goes, _) = of_nodes(&live, node)?;
    let back = fleet.sockets_through(node).await?;
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
    eventually("people are told", LIMIT, async || {
        let said = events(cluster, NAMESPACE, SERVICE, "NodeLeaving")?;
        Ok(said.contains(node).then_some(()))
    })
    .await?;
    live.are_where_they_began().await?;
    ensure!(drain.try_wait()?.is_none(), "the drain did not wait for the calls");
    live.end("a node is drained", Expected { back: (back, back), ..Expected::default() }).await?;
    let status = eventually("the drain completes", LIMIT, async || Ok(drain.try_wait()?)).await?;
    let said = std::fs::read_to_string(&told)?;
    ensure!(status.success(), "{status}: {said}");
    ensure!(fleet.workers().await?.iter().all(|worker| worker.node != node), "a worker is on a drained node");
    cluster.kubectl(&["uncordon", node])?;
    fleet.settled().await.map(drop)
}
