//! What works is away for a while: the operator, the API server, Redis.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use streamfleet_kubernetes_tests::eventually;
use streamfleet_kubernetes_tests::fleet::{Gaps, await_condition, await_status};

use super::LIMIT;
use super::calls::{Carriers, Expected, Live};
use super::rule::Ruled;
use super::workers::{Fleet, NAMESPACE, SERVICE, WORKERS, Worker};

/// What depends on time is over by then: workers' leases (6 s), the controllers' patience with a node that says nothing (15 s here),
/// and the minute after which a router gives up a connection to the API server that leads nowhere. An operator that is told to go
/// gives its lease back.
const OUTAGE: Duration = Duration::from_secs(62);
/// Until a router has been started again where none is left, and the load balancer has noticed both.
const RESTARTED: Gaps = Gaps { outage_ms: 20_000.0, pause_ms: 20_000.0 };
/// Each half of Redis' outage: longer than workers' leases, and many times what scaling takes while it is there.
const HALF: Duration = Duration::from_secs(15);

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
pub(crate) async fn operator(fleet: &Fleet<'_>, ruled: &mut Ruled<'_>) -> Result<()> {
    let live = Live::begin(fleet, Carriers::Lasting).await?;
    ruled.grow().await?;
    fleet.scale("operator", 0).await?;
    fleet.patch(&json!({ "autoscaling": { "replicas": WORKERS + 1 } }))?;
    calls_for(fleet, OUTAGE, "without an operator")?;
    live.are_where_they_began().await?;
    ensure!(fleet.workers().await?.len() == WORKERS, "who has made a worker?");
    fleet.scale("operator", 2).await?;
    let serve =
        |count: usize| move |workers: &[Worker]| workers.iter().filter(|worker| worker.serves()).count() == count;
    fleet.await_workers("it does what was asked for meanwhile", serve(WORKERS + 1)).await?;
    fleet.patch(&json!({ "autoscaling": { "replicas": WORKERS } }))?;
    fleet.await_workers("and the other way", serve(WORKERS)).await?;
    ruled.stays().await?;
    live.are_where_they_began().await?;
    live.end("the operator is away", Expected::default()).await
}

/// No API server, and its clients' leases run out.
pub(crate) async fn api_server(fleet: &Fleet<'_>) -> Result<()> {
    let live = Live::begin(fleet, Carriers::Lasting).await?;
    let cluster = fleet.cluster;
    cluster.api.kill()?;
    // They end when they lose their leases, which these have none of; what they had read of nodes would be old when it is back.
    for part in [&cluster.controllers, &cluster.scheduler] {
        part.kill()?;
    }
    calls_for(fleet, OUTAGE, "without an API server")?;
    live.are_where_they_began().await?;
    let back = Instant::now();
    fleet.cluster.api.start(fleet.cluster.control())?;
    fleet.cluster.await_ready().await?;
    for part in [&cluster.controllers, &cluster.scheduler] {
        part.start(cluster.control())?;
    }
    println!("it answers after {:.1} s", back.elapsed().as_secs_f32());
    fleet.cluster.await_nodes(fleet.cluster.nodes().len()).await?;
    println!("all nodes are Ready after {:.1} s", back.elapsed().as_secs_f32());
    // The operator works again: it makes a worker, and takes one away.
    fleet.patch(&json!({ "autoscaling": { "replicas": WORKERS + 1 } }))?;
    let more = |workers: &[Worker]| workers.iter().filter(|worker| worker.serves()).count() > WORKERS;
    fleet.await_workers("another worker", more).await?;
    println!("another worker serves after {:.1} s", back.elapsed().as_secs_f32());
    fleet.patch(&json!({ "autoscaling": { "replicas": WORKERS } }))?;
    live.are_where_they_began().await?;
    live.end("the API server is away", Expected::default()).await
}

async fn redis_is_killed(fleet: &Fleet<'_>) -> Result<()> {
    fleet.kubectl(&["scale", "deployment", "streamfleet-redis", "--replicas=0"])?;
    for pod in fleet.pods_of("redis")? {
        fleet.kubectl(&["delete", &pod, "--force", "--grace-period=0", "--ignore-not-found"])?;
    }
    let said = await_condition(&fleet.services(), SERVICE, ("Degraded", "True"), LIMIT).await?;
    ensure!(said.contains("StoreUnavailable"), "{said}");
    Ok(())
}

/// No router is left that has ever read the store: media goes on all the same, through ones that begin without it.
pub(crate) async fn redis_and_routers(fleet: &Fleet<'_>) -> Result<()> {
    let live = Live::begin(fleet, Carriers::Relayed).await?;
    redis_is_killed(fleet).await?;
    let restarts = || fleet.restarts_of("router");
    let (before, routers) = (restarts()?, fleet.pods_of("router")?.len());
    for node in fleet.cluster.nodes() {
        // On whichever nodes they are.
        drop(node.place()?.output(Command::new("pkill").args(["-KILL", "-f", "^/streamfleet-router "])));
    }
    let died = Instant::now();
    eventually("all routers have died", LIMIT, async || Ok((restarts()? >= before + routers).then_some(()))).await?;
    eventually("one is ready", LIMIT, async || Ok(fleet.ready_of("router")?.contains(&true).then_some(()))).await?;
    println!("a router is ready again after {:.1} s", died.elapsed().as_secs_f32());
    // A caller who hears nothing for ten seconds would have given up by then.
    let given_up = || died.elapsed() > Duration::from_secs(20);
    eventually("callers would have given up", LIMIT, async || Ok(given_up().then_some(()))).await?;
    live.are_where_they_began().await?;
    fleet.scale("redis", 1).await?;
    fleet.cluster.await_available(NAMESPACE, "streamfleet-router", LIMIT).await?;
    await_condition(&fleet.services(), SERVICE, ("Degraded", "False"), LIMIT).await?;
    fleet.call("with routers that began without a store")?;
    live.end("a router dies", Expected { noticed: RESTARTED, ..Expected::default() }).await
}

/// Redis is killed, is away for longer than workers' leases last, and comes back with nothing.
pub(crate) async fn redis(fleet: &Fleet<'_>, ruled: Ruled<'_>) -> Result<()> {
    let live = Live::begin(fleet, Carriers::Lasting).await?;
    redis_is_killed(fleet).await?;
    // Nobody drains, and none is made but for a minimum: docs/scaling.md.
    let all_stay = async |asked: &str| -> Result<()> {
        let workers = fleet.workers().await?;
        let stay = workers.len() == WORKERS && workers.iter().all(Worker::serves);
        ensure!(stay, "{asked} were asked for, and without a store nothing scales: {workers:#?}");
        Ok(())
    };
    for (replicas, asked) in [(WORKERS - 1, "fewer"), (WORKERS + 1, "more")] {
        fleet.patch(&json!({ "autoscaling": { "replicas": replicas } }))?;
        calls_for(fleet, HALF, "without a store")?;
        all_stay(asked).await?;
    }
    let said = await_condition(&fleet.services(), SERVICE, ("ScalingLimited", "True"), LIMIT).await?;
    ensure!(said.contains("StoreUnavailable"), "{said}");
    fleet.patch(&json!({ "autoscaling": { "minReplicas": WORKERS + 1 } }))?;
    fleet.await_workers("a minimum is made all the same", |workers| workers.len() == WORKERS + 1).await?;
    live.are_where_they_began().await?;
    ruled.stays().await?;
    fleet.scale("redis", 1).await?;
    await_condition(&fleet.services(), SERVICE, ("Degraded", "False"), LIMIT).await?;
    let back = Instant::now();
    let serve = |workers: &[Worker]| workers.iter().filter(|worker| worker.serves()).count() == WORKERS + 1;
    fleet.await_workers("it does what was asked for meanwhile", serve).await?;
    let count = i64::try_from(live.count())?;
    await_status(&fleet.services(), SERVICE, "activeSessions", LIMIT, |sessions| sessions == count).await?;
    fleet.call("with a store that was empty")?;
    fleet.patch(&json!({ "autoscaling": { "replicas": WORKERS, "minReplicas": null } }))?;
    live.are_where_they_began().await?;
    ruled.outlives(back).await?;
    live.end("Redis is away", Expected::default()).await
}
