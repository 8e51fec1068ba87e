//! What works is away for a while: the operator, the API server, Redis.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use streamfleet_kubernetes_tests::fleet::{await_condition, await_status};

use super::LIMIT;
use super::calls::{Carriers, Live};
use super::workers::{Fleet, SERVICE, WORKERS, Worker};

/// An outage. What depends on time is over by then: workers' leases (6 s), the controllers' patience with a node that says nothing
/// (15 s here); an operator that is told to go gives its lease back. The API server is away for longer, see below.
const OUTAGE: Duration = Duration::from_secs(20);
/// The minute after which a router gives up a connection to the API server that leads nowhere, and what the others have.
const LONG_OUTAGE: Duration = Duration::from_secs(62);

/// New calls are taken, one after the other, for as long as it lasts.
fn calls_for(fleet: &Fleet<'_>, outage: Duration, when: &str) -> Result<()> {
    let (began, mut taken) = (Instant::now(), 0);
    while began.elapsed() < outage {
        fleet.call(when)?;
        taken += 1;
    }
    println!("{taken} new calls in {:.0} s", began.elapsed().as_secs_f32());
    Ok(())
}

/// No operator. What is asked for meanwhile is done when it is back.
pub(crate) async fn operator(fleet: &Fleet<'_>) -> Result<()> {
    let live = Live::begin(fleet, Carriers::All).await?;
    fleet.scale("operator", 0).await?;
    fleet.patch(&json!({ "autoscaling": { "replicas": WORKERS + 1 } }))?;
    calls_for(fleet, OUTAGE, "without an operator")?;
    live.are_where_they_began()?;
    ensure!(fleet.workers().await?.len() == WORKERS, "who has made a worker?");
    fleet.scale("operator", 2).await?;
    let serve =
        |count: usize| move |workers: &[Worker]| workers.iter().filter(|worker| worker.serves()).count() == count;
    fleet.await_workers("it does what was asked for meanwhile", serve(WORKERS + 1)).await?;
    fleet.patch(&json!({ "autoscaling": { "replicas": WORKERS } }))?;
    fleet.await_workers("and the other way", serve(WORKERS)).await?;
    live.are_where_they_began()?;
    live.end("the operator is away", 0).await
}

/// No API server, and its clients' leases run out.
pub(crate) async fn api_server(fleet: &Fleet<'_>) -> Result<()> {
    let live = Live::begin(fleet, Carriers::All).await?;
    fleet.cluster.api.kill()?;
    calls_for(fleet, LONG_OUTAGE, "without an API server")?;
    live.are_where_they_began()?;
    let back = Instant::now();
    fleet.cluster.api.start(fleet.cluster.control())?;
    fleet.cluster.await_ready().await?;
    println!("it answers after {:.1} s", back.elapsed().as_secs_f32());
    fleet.cluster.await_nodes(fleet.cluster.nodes().len()).await?;
    println!("all nodes are Ready after {:.1} s", back.elapsed().as_secs_f32());
    // The operator works again: it makes a worker, and takes one away.
    fleet.patch(&json!({ "autoscaling": { "replicas": WORKERS + 1 } }))?;
    let more = |workers: &[Worker]| workers.iter().filter(|worker| worker.serves()).count() > WORKERS;
    fleet.await_workers("another worker", more).await?;
    println!("another worker serves after {:.1} s", back.elapsed().as_secs_f32());
    fleet.patch(&json!({ "autoscaling": { "replicas": WORKERS } }))?;
    live.are_where_they_began()?;
    live.end("the API server is away", 0).await
}

/// Redis is killed, is away for longer than workers' leases last, and comes back with nothing.
pub(crate) async fn redis(fleet: &Fleet<'_>) -> Result<()> {
    let live = Live::begin(fleet, Carriers::All).await?;
    fleet.kubectl(&["scale", "deployment", "streamfleet-redis", "--replicas=0"])?;
    for pod in fleet.pods_of("redis")? {
        fleet.kubectl(&["delete", &pod, "--force", "--grace-period=0", "--ignore-not-found"])?;
    }
    let said = await_condition(&fleet.services(), SERVICE, ("Degraded", "True"), LIMIT).await?;
    ensure!(said.contains("StoreUnavailable"), "{said}");
    calls_for(fleet, OUTAGE, "without a store")?;
    live.are_where_they_began()?;
    ensure!(fleet.workers().await?.iter().filter(|worker| worker.serves()).count() == WORKERS, "nothing scales");
    fleet.scale("redis", 1).await?;
    await_condition(&fleet.services(), SERVICE, ("Degraded", "False"), LIMIT).await?;
    let count = i64::try_from(live.count())?;
    await_status(&fleet.services(), SERVICE, "activeSessions", LIMIT, |sessions| sessions == count).await?;
    fleet.call("with a store that was empty")?;
    live.are_where_they_began()?;
    live.end("Redis is away", 0).await
}
