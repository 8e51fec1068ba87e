//! Another version, the one before it again, and none.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamfleet_kubernetes_tests::fleet::{self, Calls, Load, await_condition, await_status, stream_services};
use streamfleet_kubernetes_tests::promises::{Promise, Sockets, WebRtc, promise};
use streamfleet_kubernetes_tests::{eventually, tell};

use super::LIMIT;
use super::site::{CERTIFICATE, HOME, HOST, RELEASE, RESOURCE, Site, values};

/// The resource, as the API server calls it.
const DEFINITION: &str = "customresourcedefinition/streamservices.streamfleet.dev";
/// The service that is called through all of it: its packets come back as they are, so that each one that is lost is seen.
pub(crate) const STEADY: &str = "steady";
/// Its path.
pub(crate) const PATH: &str = "/steady";
/// Calls that go on through both.
const CALLS: usize = 8;

/// Applies that service, if it is not there.
pub(crate) fn steady(site: &Site<'_>) -> Result<()> {
    site.stream_service(HOME, STEADY, &json!({ "path": PATH, "handler": { "name": "echo" } }))
}

/// The resource has another version, then all routers and operators are replaced, twice.
pub(crate) async fn with_calls(site: &Site<'_>) -> Result<()> {
    let objects = stream_services(site.cluster, HOME);
    steady(site)?;
    await_condition(&objects, STEADY, ("Ready", "True"), LIMIT).await?;
    let url = format!("https://{HOST}{PATH}");
    let load = Load { url: &url, sessions: CALLS, ramp: 8, seconds: 600, flags: &[] };
    let mut calls = Calls::start(site.cluster, load)?;
    // Its router goes, and it with that: it comes back by its token.
    let socket = site.talk(PATH, &["--transport", "websocket"])?;
    await_status(&objects, STEADY, "activeSessions", LIMIT, |count| count == CALLS as i64 + 1).await?;

    another_resource(site).await?;
    let before = site.routers().await?;
    let mut changed = values();
    for part in ["operator", "router"] {
        changed[part]["podAnnotations"] = json!({ "example.com/version": "2" });
    }
    fleet::install(site.cluster, RELEASE, HOME, &fleet::chart("streamfleet"), &changed)?;
    let between = site.routers().await?;
    site.cluster.helm(&["rollback", RELEASE, "1", "--namespace", HOME, "--wait", "--timeout=120s"])?;
    eventually("the routers before are gone", LIMIT, async || {
        let pods = site.pods(HOME, "app.kubernetes.io/component=router").await?;
        Ok((pods.len() == 2).then_some(()))
    })
    .await?;
    let after = site.routers().await?;
    ensure!(between.iter().all(|router| !before.contains(router)), "{before:?}, then {between:?}");
    ensure!(after.iter().all(|router| !between.contains(router)), "{between:?}, then {after:?}");
    ensure!(calls.are_going_on()?, "they go on");
    let heard = site.call("/voice/echo", &["--wait", "20"])?;
    ensure!(heard["verdict"] == "heard", "new ones are taken: {heard}");
    let promised = promise("`helm upgrade` or `rollback`")?;
    ensure!(
        promised == Promise { webrtc: WebRtc::GoOn, sockets: Sockets::ComeBack },
        "it is judged by another promise: {promised:?}"
    );
    let report = calls.stop().await?;
    tell(site.cluster, &format!("helm upgrade and rollback\n{}", report.table()))?;
    report.undisturbed()?;
    let said = socket.hang_up().await?;
    let reconnects = said["reconnects"].as_u64().unwrap_or_default();
    tell(site.cluster, &format!("        the WebSocket came back {reconnects} times, {}", said["verdict"]))?;
    ensure!(reconnects > 0 && said["verdict"] == "heard", "{said}");
    site.delete(HOME, &[STEADY]).await
}

/// `helm upgrade` of the resource alone: a version with another short name, so that the API server serves it anew and whoever watches
/// StreamServices has to begin again.
async fn another_resource(site: &Site<'_>) -> Result<()> {
    let chart = site.cluster.folder().join("charts").join(RESOURCE);
    let parent = chart.parent().context("a chart without a folder")?;
    fs::create_dir_all(parent)?;
    let copied = Command::new("cp").arg("--recursive").arg(fleet::chart(RESOURCE)).arg(parent).status()?;
    ensure!(copied.success(), "cp: {copied}");
    let file = chart.join("files/streamservices.yaml");
    let definition = fs::read_to_string(&file)?;
    let changed = definition.replacen("    - ss\n", "    - ss\n    - sfs\n", 1);
    ensure!(changed != definition, "no short name in {}", file.display());
    fs::write(&file, changed)?;
    fleet::install(site.cluster, RESOURCE, HOME, &chart, &json!({}))?;
    eventually("the other version is served", LIMIT, async || {
        let names = ["get", DEFINITION, "--output=jsonpath={.status.acceptedNames.shortNames}"];
        let said = site.cluster.kubectl(&names)?;
        said.contains("sfs").then_some(Some(())).context(said)
    })
    .await
}

/// What Helm has a release as, and its last revision.
fn state(site: &Site<'_>) -> Result<(String, u64)> {
    let said = site.cluster.helm(&["status", RELEASE, "--namespace", HOME, "--output", "json"])?;
    let status: Value = serde_json::from_str(&said)?;
    let (name, revision) = (status["info"]["status"].as_str(), status["version"].as_u64());
    name.map(str::to_owned).zip(revision).with_context(|| format!("no state in {}", status["info"]))
}

/// Not while there are StreamServices; then altogether.
pub(crate) async fn uninstalled(site: &Site<'_>) -> Result<()> {
    let uninstall = ["uninstall", RELEASE, "--namespace", HOME, "--timeout=60s"];
    let refused = site.cluster.helm(&uninstall).map_err(|error| format!("{error:#}"));
    ensure!(refused.as_ref().is_err_and(|said| said.contains("voice/echo")), "it names them: {refused:?}");
    let heard = site.call("/voice/echo", &["--wait", "20"])?;
    ensure!(heard["verdict"] == "heard", "nothing has changed: {heard}");
    // docs/kubernetes.md: the way back from a refusal.
    let (name, revision) = state(site)?;
    ensure!(name == "uninstalling", "{name} after a refusal");
    let revision = revision.to_string();
    site.cluster.helm(&["rollback", RELEASE, &revision, "--namespace", HOME, "--wait", "--timeout=120s"])?;
    let (name, _) = state(site)?;
    ensure!(name == "deployed", "{name} after a rollback");
    // The resource stays on purpose, and what is of it.
    site.cluster.helm(&["uninstall", RESOURCE, "--namespace", HOME, "--timeout=60s"])?;
    let echo = stream_services(site.cluster, HOME).get("echo").await?;
    ensure!(echo.metadata.deletion_timestamp.is_none(), "{:?}", echo.metadata);
    site.delete(HOME, &["echo"]).await?;
    site.cluster.helm(&uninstall)?;
    let kinds = "all,configmaps,secrets,serviceaccounts,networkpolicies,poddisruptionbudgets,roles,rolebindings,leases";
    eventually("nothing stays", LIMIT, async || {
        let mut left = Vec::new();
        for namespace in [HOME, "sales", "tight", "guarded"] {
            left.push(site.cluster.kubectl(&["--namespace", namespace, "get", kinds, "--output=name"])?);
        }
        left.push(site.cluster.kubectl(&["get", "clusterroles,clusterrolebindings", "--output=name"])?);
        // Of Kubernetes, and what was put there before: the certificate.
        let others = ["kube-root-ca.crt", "serviceaccount/default", CERTIFICATE, "resourcequota"];
        let ours = |line: &&str| !others.iter().any(|other| line.contains(other));
        let is_cluster = |line: &&str| line.starts_with("clusterrole") && !line.contains("streamfleet");
        let left: Vec<&str> =
            left.iter().flat_map(|said| said.lines()).filter(ours).filter(|line| !is_cluster(line)).collect();
        if left.is_empty() { Ok(Some(())) } else { Err(anyhow::anyhow!("{left:?}")) }
    })
    .await?;
    site.cluster.kubectl(&["get", DEFINITION]).map(drop)
}
