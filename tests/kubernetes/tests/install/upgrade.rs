//! Another version, the one before it again, and none.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamfleet_kubernetes_tests::fleet::{self, Calls, Load, await_condition, await_status, stream_services};
use streamfleet_kubernetes_tests::promises::{Promise, Sockets, WebRtc, promise};
use streamfleet_kubernetes_tests::{Image, Product, built, eventually, pods, tell};

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
/// What has another version, and how many of each there are.
const PARTS: [(&str, Product); 2] = [("operator", Product::Operator), ("router", Product::Router)];
const EACH: usize = 2;

/// A pod of operator or router.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Running {
    uid: String,
    part: &'static str,
    image: String,
    ending: bool,
}

/// Applies that service, if it is not there.
pub(crate) fn steady(site: &Site<'_>) -> Result<()> {
    site.stream_service(HOME, STEADY, &json!({ "path": PATH, "handler": { "name": "echo" } }))
}

/// The resource has another version, then all routers and operators have another image and the first one again: none of their pods is
/// left of those before, and no worker's is another one.
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
    let (before, workers) = (running(site).await?, workers(site).await?);
    are_all(&before, "test")?;
    let mut changed = values();
    for (part, product) in PARTS {
        let next = format!("{}:next", product.name());
        site.cluster.load(&Image::of(&next, &built(product.name())?)?)?;
        changed["images"][part] = json!(next);
    }
    fleet::install(site.cluster, RELEASE, HOME, &fleet::chart("streamfleet"), &changed)?;
    // Those that go may still be handing over.
    let between: Vec<Running> = running(site).await?.into_iter().filter(|pod| !pod.ending).collect();
    are_all(&between, "next")?;
    site.cluster.helm(&["rollback", RELEASE, "1", "--namespace", HOME, "--wait", "--timeout=120s"])?;
    let after = eventually("all operators and routers before are gone", LIMIT, async || {
        let there = running(site).await?;
        let is_so = there.len() == PARTS.len() * EACH && there.iter().all(|pod| !pod.ending);
        is_so.then(|| Some(there.clone())).with_context(|| format!("{there:?}"))
    })
    .await?;
    are_all(&after, "test")?;
    let earlier: Vec<&Running> = before.iter().chain(&between).collect();
    let stayed = after.iter().filter(|pod| earlier.iter().any(|earlier| earlier.uid == pod.uid)).count();
    ensure!(stayed == 0, "{before:?}, then {between:?}, then {after:?}");
    let kept = self::workers(site).await?;
    ensure!(kept == workers, "workers have what they had: {workers:?}, then {kept:?}");
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

/// The pods of operator and routers, those that are going as well.
async fn running(site: &Site<'_>) -> Result<Vec<Running>> {
    let mut running = Vec::new();
    for (part, _) in PARTS {
        for pod in site.pods(HOME, &format!("app.kubernetes.io/component={part}")).await? {
            let ending = pods::is_ending(&pod);
            let image = pod.spec.as_ref().and_then(|spec| spec.containers.first()?.image.clone());
            let (uid, image) =
                (pod.metadata.uid.context("a pod without a uid")?, image.context("a pod without an image")?);
            running.push(Running { uid, part, image, ending });
        }
    }
    Ok(running)
}

/// That there are as many of each as there are to be, all of the image with this tag.
fn are_all(running: &[Running], tag: &str) -> Result<()> {
    for (part, product) in PARTS {
        let image = format!("{}:{tag}", product.name());
        let there: Vec<&Running> = running.iter().filter(|pod| pod.part == part).collect();
        ensure!(there.len() == EACH && there.iter().all(|pod| pod.image == image), "{EACH} of {image}: {there:?}");
    }
    Ok(())
}

/// The pods of the service that is called, by uid.
async fn workers(site: &Site<'_>) -> Result<Vec<String>> {
    let workers = site.pods(HOME, &format!("streamfleet.dev/service={STEADY}")).await?;
    Ok(workers.into_iter().filter_map(|pod| pod.metadata.uid).collect())
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
