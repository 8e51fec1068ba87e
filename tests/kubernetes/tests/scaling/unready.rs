//! Who is not Ready may have calls: a ReplicaSet would take exactly that one away. The operator takes who is empty.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::json;
use streamfleet_kubernetes_tests::eventually;
use streamfleet_kubernetes_tests::fleet::Calls;

use super::LIMIT;
use super::fleet::{Fleet, NAMESPACE};

const NAME: &str = "unready";
/// What says whether its pods are Ready, besides their own answers.
const GATE: &str = "example.com/in-service";
/// How often calls are begun again.
const TRIES: usize = 5;

pub(crate) async fn goes_only_when_empty(fleet: &Fleet<'_>) -> Result<()> {
    fleet.apply(
        NAME,
        &json!({
            "routing": { "packing": "Spread" },
            "workers": { "sessionsPerWorker": 8, "template": { "spec": { "readinessGates": [{ "conditionType": GATE }] } } },
            "autoscaling": { "mode": "External", "replicas": 2, "maxReplicas": 4 },
        }),
    )?;
    let called = let_in(fleet, 2).await?;
    let calls = at_each(fleet, &called).await?;
    scale(fleet, 3)?;
    let all = let_in(fleet, 3).await?;
    let empty = all.difference(&called).next().context("no third worker")?;

    let unready = called.first().context("no worker")?;
    set(fleet, unready, "False")?;
    eventually("it is not Ready", LIMIT, async || {
        Ok(fleet.chronicle.of_service(NAME).get(unready).is_some_and(|life| !life.is_ready).then_some(()))
    })
    .await?;
    scale(fleet, 2)?;
    eventually("the empty one goes", LIMIT, async || {
        let lives = fleet.chronicle.of_service(NAME);
        ensure!(called.iter().all(|pod| !lives[pod].is_ending()), "one with calls goes: {lives:?}");
        Ok(lives[empty].is_ending().then_some(()))
    })
    .await?;
    // Nobody else goes while there are calls, Ready or not.
    for pod in &called {
        let life = fleet.chronicle.of_service(NAME).remove(pod).context("no such worker")?;
        ensure!(!life.is_ending() && fleet.sessions_of(pod).await? > 0.0, "{pod}: {life:?}");
    }
    set(fleet, unready, "True")?;
    fleet.await_figures(NAME, &[("replicas", 2), ("readyReplicas", 2), ("activeSessions", 4)], LIMIT).await?;
    fleet.hang_up("a worker that was not Ready: calls", calls).await?;
    fleet.compare(NAME).await
}

/// Calls, of which each worker has some. A router's figures are as old as a worker's last word: calls that come within that may all go to
/// one, and are begun again.
async fn at_each(fleet: &Fleet<'_>, workers: &BTreeSet<String>) -> Result<Calls> {
    for _ in 0..TRIES {
        let calls = fleet.call(NAME, 4, 4).await?;
        let mut is_at_each = true;
        for pod in workers {
            is_at_each &= fleet.sessions_of(pod).await? > 0.0;
        }
        if is_at_each {
            return Ok(calls);
        }
        fleet.hang_up("calls at one worker alone", calls).await?;
        fleet.await_figures(NAME, &[("activeSessions", 0)], LIMIT).await?;
    }
    Err(anyhow!("all calls were at one worker, {TRIES} times"))
}

/// Lets workers be Ready as they come, until there are so many.
async fn let_in(fleet: &Fleet<'_>, count: usize) -> Result<BTreeSet<String>> {
    eventually(&format!("{count} workers are Ready"), LIMIT, async || {
        let lives = fleet.chronicle.of_service(NAME);
        for (pod, _) in lives.iter().filter(|(_, life)| !life.is_ready && !life.is_ending()) {
            set(fleet, pod, "True")?;
        }
        let ready = lives.into_iter().filter(|(_, life)| life.is_ready && !life.is_ending());
        let ready: BTreeSet<String> = ready.map(|(pod, _)| pod).collect();
        Ok((ready.len() == count).then_some(ready))
    })
    .await
}

fn set(fleet: &Fleet<'_>, pod: &str, status: &str) -> Result<()> {
    let patch = json!({ "status": { "conditions": [{ "type": GATE, "status": status }] } }).to_string();
    let arguments = ["--namespace", NAMESPACE, "patch", "pod", pod, "--subresource=status", "--patch", &patch];
    fleet.cluster.kubectl(&arguments).map(drop)
}

fn scale(fleet: &Fleet<'_>, replicas: u32) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    fleet.cluster.kubectl(&["--namespace", NAMESPACE, "scale", "streamservice", NAME, &replicas]).map(drop)
}
