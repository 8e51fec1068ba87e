//! Workers that go because somebody wants it so: another image, a deleted pod, a deleted service.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use streamfleet_kubernetes_tests::eventually;
use streamfleet_kubernetes_tests::fleet::{await_condition, events};

use super::LIMIT;
use super::calls::{Carriers, Expected, Live};
use super::workers::{Fleet, NAMESPACE, NEXT_IMAGE, SERVICE, WORKERS, Worker};

/// All workers get another image. The calls last longer than that: nothing but they keeps the old ones.
pub(crate) async fn rollout(fleet: &Fleet<'_>) -> Result<()> {
    let live = Live::begin(fleet, Carriers::Lasting).await?;
    let told = |reason: &str| events(fleet.cluster, NAMESPACE, SERVICE, reason);
    let await_told = async |reason: &str| {
        eventually(&format!("people are told: {reason}"), LIMIT, async || Ok((!told(reason)?.is_empty()).then_some(())))
            .await
    };
    for reason in ["RollingOut", "RolledOut"] {
        ensure!(told(reason)?.is_empty(), "nothing is rolled out yet: {reason}");
    }
    fleet.patch(&json!({ "workers": { "image": NEXT_IMAGE } }))?;
    let is_new = |worker: &Worker| worker.image == NEXT_IMAGE;
    fleet
        .await_workers("two new workers serve, and the old ones only finish their calls", |workers| {
            let new = workers.iter().filter(|worker| is_new(worker) && worker.serves()).count();
            let old = workers.iter().filter(|worker| !is_new(worker));
            new == WORKERS && old.clone().count() == WORKERS && old.clone().all(|worker| !worker.serves())
        })
        .await?;
    // Those that only finish their calls have been replaced.
    for reason in ["RollingOut", "RolledOut"] {
        await_told(reason).await?;
    }
    live.are_where_they_began().await?;
    fleet.call("to a new worker")?;
    let old = fleet.sessions(&live.workers)?;
    println!("rolled out; the old ones have {old:?}");
    live.end("workers get another image", Expected::default()).await?;
    let all_new = |workers: &[Worker]| workers.len() == WORKERS && workers.iter().all(is_new);
    fleet.await_workers("the old ones have gone", all_new).await.map(drop)
}

/// Somebody deletes a worker's pod.
pub(crate) async fn delete_pod(fleet: &Fleet<'_>) -> Result<()> {
    let live = Live::begin(fleet, Carriers::Lasting).await?;
    let goes = live.workers[0].name.clone();
    fleet.kubectl(&["delete", "pod", &goes, "--wait=false"])?;
    fleet
        .await_workers("another one is there, and it finishes its calls", |workers| {
            let serving = workers.iter().filter(|worker| worker.serves()).count();
            serving == WORKERS && workers.iter().any(|worker| worker.name == goes && worker.ending)
        })
        .await?;
    live.are_where_they_began().await?;
    fleet.call("beside a worker that ends")?;
    live.are_where_they_began().await?;
    live.end("`kubectl delete pod`", Expected::default()).await?;
    let gone = |workers: &[Worker]| workers.iter().all(|worker| worker.name != goes);
    fleet.await_workers("it has gone", gone).await.map(drop)
}

/// The service is deleted: it takes no more calls, and is gone when the last has ended.
pub(crate) async fn deleted(fleet: &Fleet<'_>) -> Result<()> {
    let live = Live::begin(fleet, Carriers::Lasting).await?;
    fleet.kubectl(&["delete", "streamservice", SERVICE, "--wait=false"])?;
    let said = await_condition(&fleet.services(), SERVICE, ("Ready", "False"), LIMIT).await?;
    ensure!(said.contains("Deleting"), "{said}");
    fleet.await_workers("all drain", |workers| workers.iter().all(|worker| worker.draining)).await?;
    eventually("a new call is refused", LIMIT, async || Ok(fleet.refused()?.then_some(()))).await?;
    live.are_where_they_began().await?;
    live.end("a StreamService is deleted", Expected::default()).await?;
    eventually("it has gone with its workers", LIMIT, async || {
        let there = fleet.services().get_opt(SERVICE).await?.is_some();
        Ok((!there && fleet.workers().await?.is_empty()).then_some(()))
    })
    .await
    .with_context(|| format!("{NAMESPACE}/{SERVICE}"))
}
