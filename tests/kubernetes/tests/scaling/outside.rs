//! Somebody else's number (`mode: External`): `kubectl scale`, and a HorizontalPodAutoscaler, both at the StreamService.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamfleet_kubernetes_tests::promises::{Promise, Sockets, WebRtc, promise};
use streamfleet_kubernetes_tests::{built, eventually};

use super::LIMIT;
use super::fleet::{Fleet, NAMESPACE};

const NAME: &str = "external";
/// No node is drained here.
const NOTHING: Promise = Promise { webrtc: WebRtc::GoOn, sockets: Sockets::GoOnUnlessDrained };

pub(crate) async fn obeys_kubectl_and_an_hpa(fleet: &Fleet<'_>) -> Result<()> {
    let spec = |autoscaling: Value| {
        json!({
            "routing": { "packing": "Spread" },
            "workers": { "sessionsPerWorker": 8 },
            "autoscaling": autoscaling,
        })
    };
    fleet.apply(NAME, &spec(json!({ "maxReplicas": 5 })))?;
    fleet.await_figures(NAME, &[("readyReplicas", 1)], LIMIT).await?;
    // Where sessions decide, a number is told to count for nothing; it counts when nobody else decides.
    scale(fleet, 3)?;
    eventually("the number is told to count for nothing", LIMIT, async || {
        let told = fleet.events(NAME, "ReplicasIgnored")?;
        Ok(told.contains("autoscaling.replicas is 3").then_some(()))
    })
    .await?;
    fleet.await_figures(NAME, &[("replicas", 1), ("desiredReplicas", 1)], LIMIT).await?;
    fleet.apply(NAME, &spec(json!({ "mode": "External", "maxReplicas": 5 })))?;
    fleet.await_figures(NAME, &[("replicas", 3), ("readyReplicas", 3)], LIMIT).await?;
    let all = fleet.chronicle.in_state(NAME, "serving");
    ensure!(promise("a StreamService scales down")? == NOTHING, "this is what WebSockets are held to as well");
    let calls = fleet.call(NAME, 9, 9).await?;
    let sockets = fleet.call_by_socket(NAME, 3, 12).await?;

    // Two drain, with the calls that they have.
    scale(fleet, 1)?;
    let draining = [("replicas", 1), ("readyReplicas", 1), ("drainingReplicas", 2), ("activeSessions", 12)];
    fleet.await_figures(NAME, &draining, LIMIT).await?;
    let victims = await_draining(fleet, 2).await?;
    let mut live = 0.0;
    for victim in &victims {
        live += fleet.sessions_of(victim).await?;
    }
    ensure!(live > 0.0, "nobody who drains has a call: it is seen no more than that the empty go");
    top_shows(fleet, &victims, live).await?;
    let said = read_scale(fleet)?;
    // What an HPA averages over are those that take calls.
    ensure!(said["status"]["replicas"] == 1, "{said}");
    let selector = said["status"]["selector"].as_str().context("no selector")?;
    let chosen =
        fleet.cluster.kubectl(&["--namespace", NAMESPACE, "get", "pods", "--selector", selector, "--output=name"])?;
    ensure!(chosen.lines().count() == 1, "{selector}: {chosen}");

    // One is put back before any is made.
    scale(fleet, 2)?;
    fleet.await_figures(NAME, &[("replicas", 2), ("readyReplicas", 2), ("drainingReplicas", 1)], LIMIT).await?;
    let back = await_draining(fleet, 1).await?;
    ensure!(back.iter().all(|name| victims.contains(name)), "{back:?} of {victims:?}");
    let known: Vec<String> = fleet.chronicle.of_service(NAME).into_keys().collect();
    ensure!(known == all, "{known:?}, and there were {all:?}");
    ensure!(!fleet.events(NAME, "WorkersUndrained")?.is_empty(), "no Event WorkersUndrained");

    // It drains again, and those two go when their calls are over: no other, and not before.
    scale(fleet, 1)?;
    fleet.await_figures(NAME, &draining, LIMIT).await?;
    let victims = await_draining(fleet, 2).await?;
    let lives = fleet.chronicle.of_service(NAME);
    ensure!(lives.values().all(|life| life.is_ready && !life.is_ending()), "{lives:?}");
    fleet.hang_up("kubectl scale: calls on workers that drained, came back and drained", calls).await?;
    fleet.hang_up("kubectl scale: WebSockets likewise", sockets).await?;
    let one = [("replicas", 1), ("readyReplicas", 1), ("drainingReplicas", 0), ("activeSessions", 0)];
    fleet.await_figures(NAME, &one, LIMIT).await?;
    for (name, life) in fleet.chronicle.of_service(NAME) {
        ensure!(!life.was_ready || life.is_ending() == victims.contains(&name), "{name}: {life:?}, {victims:?}");
    }
    fleet.compare(NAME).await?;
    by_hpa(fleet).await
}

/// An HPA holds the number within its bounds, whatever it can measure.
async fn by_hpa(fleet: &Fleet<'_>) -> Result<()> {
    bounds(fleet, 3, 4)?;
    fleet.await_figures(NAME, &[("replicas", 3), ("readyReplicas", 3), ("desiredReplicas", 3)], LIMIT).await?;
    let replicas = fleet.services.get(NAME).await?.data["spec"]["autoscaling"]["replicas"].clone();
    ensure!(replicas == 3, "{replicas}");
    let calls = fleet.call(NAME, 6, 6).await?;
    bounds(fleet, 1, 2)?;
    fleet.await_figures(NAME, &[("replicas", 2), ("desiredReplicas", 2), ("activeSessions", 6)], LIMIT).await?;
    fleet.hang_up("HPA: calls while it took a worker away", calls).await?;
    fleet.await_figures(NAME, &[("replicas", 2), ("readyReplicas", 2), ("drainingReplicas", 0)], LIMIT).await?;
    fleet.cluster.kubectl(&["--namespace", NAMESPACE, "delete", "hpa", NAME])?;
    fleet.compare(NAME).await
}

fn bounds(fleet: &Fleet<'_>, min: u32, max: u32) -> Result<()> {
    let cpu = json!({ "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 60 } });
    fleet.cluster.apply(&json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": { "name": NAME, "namespace": NAMESPACE },
        "spec": {
            "scaleTargetRef": { "apiVersion": "streamfleet.dev/v1alpha1", "kind": "StreamService", "name": NAME },
            "minReplicas": min, "maxReplicas": max, "metrics": [{ "type": "Resource", "resource": cpu }],
        },
    }))
}

fn scale(fleet: &Fleet<'_>, replicas: u32) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    fleet.cluster.kubectl(&["--namespace", NAMESPACE, "scale", "streamservice", NAME, &replicas]).map(drop)
}

fn read_scale(fleet: &Fleet<'_>) -> Result<Value> {
    let path = format!("/apis/streamfleet.dev/v1alpha1/namespaces/{NAMESPACE}/streamservices/{NAME}/scale");
    Ok(serde_json::from_str(&fleet.cluster.kubectl(&["get", "--raw", &path])?)?)
}

/// `streamfleet top` tells that they drain, why, and how many sessions are left. A worker that does not answer in time has no figure in it.
async fn top_shows(fleet: &Fleet<'_>, draining: &[String], sessions: f64) -> Result<()> {
    eventually("a frame has them", LIMIT, async || {
        let mut command = Command::new(built("streamfleet")?);
        command.args(["top", "--namespace", NAMESPACE, "--once"]);
        command.env("KUBECONFIG", fleet.cluster.folder().join("admin.kubeconfig"));
        let frame = fleet.cluster.control().output(&mut command)?;
        let row = |begins: &str| -> Option<Vec<&str>> {
            let mut rows = frame.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            rows.find(|row| row.first() == Some(&begins))
        };
        let service =
            row(&format!("{NAMESPACE}/{NAME}")).is_some_and(|row| row.get(1..4) == Some(&["yes", "1/1", "2"]));
        let workers = draining.iter().all(|name| row(name).is_some_and(|row| row.get(2) == Some(&"draining")));
        let drains: Option<Vec<Vec<&str>>> = draining.iter().map(|name| row(&format!("{NAMESPACE}/{name}"))).collect();
        let left = |row: &Vec<&str>| {
            row.get(2)?.parse::<f64>().ok().filter(|_| row[3..].join(" ").contains("3 workers, 1 wanted"))
        };
        let left: Option<f64> = drains.and_then(|rows| rows.iter().map(left).sum());
        (service && workers && left == Some(sessions)).then_some(Some(())).context(frame)
    })
    .await
}

/// Waits until the chronicle has so many that drain, and answers who.
async fn await_draining(fleet: &Fleet<'_>, count: usize) -> Result<Vec<String>> {
    eventually("they are marked as draining", LIMIT, async || {
        let draining = fleet.chronicle.in_state(NAME, "draining");
        Ok((draining.len() == count).then_some(draining))
    })
    .await
}
