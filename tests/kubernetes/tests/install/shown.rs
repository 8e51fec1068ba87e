//! What people and their Prometheus are shown.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use streamfleet_kubernetes_tests::{eventually, fleet, pods};

use super::LIMIT;
use super::site::{HOME, Site};

/// With kubectl.
pub(crate) async fn to_people(site: &Site<'_>) -> Result<()> {
    let table = |arguments: &[&str]| -> Result<Vec<Vec<String>>> {
        let said = site.cluster.kubectl(&[&["--namespace", HOME], arguments].concat())?;
        Ok(said.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect())
    };
    eventually("the columns are as documented", LIMIT, async || {
        let shown = table(&["get", "ss", "echo"])?;
        let head = ["NAME", "READY", "WORKERS", "READY-WORKERS", "DRAINING", "SESSIONS", "CAPACITY", "URL", "AGE"];
        let row = ["echo", "True", "1", "1", "0", "0", "50", "https://voice.example/voice/echo"];
        let is_so = shown.len() == 2 && shown[0] == head && shown[1][..8] == row;
        is_so.then_some(Some(())).with_context(|| format!("{shown:?}"))
    })
    .await?;
    let wide = table(&["get", "streamservices", "echo", "--output=wide"])?;
    ensure!(
        wide[0][9..] == ["DESIRED", "HANDLER", "REASON"] && wide[1][9..] == ["1", "echo-frames", "WorkersReady"],
        "{wide:?}"
    );
    let all = site.cluster.kubectl(&["--namespace", HOME, "get", "all", "--output=name"])?;
    ensure!(all.contains("streamservice.streamfleet.dev/echo"), "{all}");
    let explained = site.cluster.kubectl(&["explain", "streamservice.spec.autoscaling.buffer"])?;
    ensure!(explained.contains("Places kept free for calls to come"), "{explained}");
    let events = site.cluster.kubectl(&["--namespace", HOME, "events", "--for", "streamservice/echo"])?;
    ensure!(events.contains("WorkersCreated") && events.contains("1 worker created, 1 wanted"), "{events}");
    let scale = ["--namespace", HOME, "get", "--raw"];
    let path = format!("/apis/streamfleet.dev/v1alpha1/namespaces/{HOME}/streamservices/echo/scale");
    let scale: serde_json::Value =
        serde_json::from_str(&site.cluster.kubectl(&[scale.as_slice(), &[&path]].concat())?)?;
    let selector = scale["status"]["selector"].as_str().context("no selector")?.to_owned();
    ensure!(selector.contains("streamfleet.dev/state=serving"), "those that drain are not counted: {scale}");
    ensure!(site.pods(HOME, &selector).await?.len() == 1 && scale["status"]["replicas"] == 1, "{scale}");
    Ok(())
}

/// The metrics that a file of the chart's names.
fn named(file: &str) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(fleet::chart("streamfleet").join("files").join(file))?;
    let words = text.split(|letter: char| !(letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_'));
    Ok(words.filter(|word| word.starts_with("streamfleet_")).map(str::to_owned).collect())
}

/// By all pods together: what a dashboard or an alert names, somebody exports.
pub(crate) async fn to_prometheus(site: &Site<'_>) -> Result<()> {
    let wanted: BTreeSet<String> = named("dashboard.json")?.into_iter().chain(named("alerts.yaml")?).collect();
    ensure!(wanted.len() > 40, "{wanted:?}");
    eventually("all are exported", LIMIT, async || {
        let mut missing = wanted.clone();
        for pod in site.pods(HOME, "app.kubernetes.io/part-of=streamfleet").await? {
            let is_ours = |name| ["operator", "router"].contains(&name);
            let has_metrics = pods::label(&pod, "app.kubernetes.io/component").is_none_or(is_ours);
            let runs = pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
            if has_metrics && runs && !pods::is_ending(&pod) {
                let exported = pods::metrics(site.cluster, pods::address(&pod)?)?;
                missing.retain(|name| exported.sum(name).is_none());
            }
        }
        missing.is_empty().then_some(Some(())).with_context(|| format!("nobody exports {missing:?}"))
    })
    .await
}
