//! Another version, the one before it again, and none.

use anyhow::{Result, ensure};
use serde_json::json;
use streamfleet_kubernetes_tests::eventually;
use streamfleet_kubernetes_tests::fleet::{self, Calls, Load, await_condition, await_status, stream_services};
use streamfleet_kubernetes_tests::promises::{Promise, Sockets, WebRtc, promise};

use super::LIMIT;
use super::site::{HOME, HOST, RELEASE, Site, values};

/// The service that is called through both: its packets come back as they are, so that each one that is lost is seen.
const STEADY: &str = "steady";
/// Calls that go on through both.
const CALLS: usize = 8;

/// All routers and operators are replaced, twice.
pub(crate) async fn with_calls(site: &Site<'_>) -> Result<()> {
    let objects = stream_services(site.cluster, HOME);
    site.stream_service(HOME, STEADY, &json!({ "path": "/steady", "handler": { "name": "echo" } }))?;
    await_condition(&objects, STEADY, ("Ready", "True"), LIMIT).await?;
    let url = format!("https://{HOST}/steady");
    let load = Load { url: &url, sessions: CALLS, ramp: 8, seconds: 600, flags: &[] };
    let mut calls = Calls::start(site.cluster, load)?;
    // Its router goes, and it with that: it comes back by its token.
    let socket = site.talk("/steady", &["--transport", "websocket"])?;
    await_status(&objects, STEADY, "activeSessions", LIMIT, |count| count == CALLS as i64 + 1).await?;

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
    println!("{}", report.table());
    report.undisturbed()?;
    let said = socket.hang_up().await?;
    let reconnects = said["reconnects"].as_u64().unwrap_or_default();
    println!("        the WebSocket came back {reconnects} times");
    ensure!(reconnects > 0 && said["verdict"] == "heard", "{said}");
    site.delete(HOME, &[STEADY]).await
}

/// Not while there are StreamServices; then altogether.
pub(crate) async fn uninstalled(site: &Site<'_>) -> Result<()> {
    let uninstall = ["uninstall", RELEASE, "--namespace", HOME, "--timeout=60s"];
    let refused = site.cluster.helm(&uninstall).map_err(|error| format!("{error:#}"));
    ensure!(refused.as_ref().is_err_and(|said| said.contains("voice/echo")), "it names them: {refused:?}");
    let heard = site.call("/voice/echo", &["--wait", "20"])?;
    ensure!(heard["verdict"] == "heard", "nothing has changed: {heard}");
    site.delete(HOME, &["echo"]).await?;
    site.cluster.helm(&uninstall)?;
    let kinds = "all,configmaps,secrets,serviceaccounts,networkpolicies,poddisruptionbudgets,roles,rolebindings,leases";
    eventually("nothing stays", LIMIT, async || {
        let mut left = Vec::new();
        for namespace in [HOME, "sales", "tight", "guarded"] {
            left.push(site.cluster.kubectl(&["--namespace", namespace, "get", kinds, "--output=name"])?);
        }
        left.push(site.cluster.kubectl(&["get", "clusterroles,clusterrolebindings", "--output=name"])?);
        // Of Kubernetes, and what was put there before: the certificate, and the chart of the resource.
        let others = [
            "kube-root-ca.crt",
            "serviceaccount/default",
            "voice-tls",
            "sh.helm.release.v1.streamfleet-crds",
            "resourcequota",
        ];
        let ours = |line: &&str| !others.iter().any(|other| line.contains(other));
        let is_cluster = |line: &&str| line.starts_with("clusterrole") && !line.contains("streamfleet");
        let left: Vec<&str> =
            left.iter().flat_map(|said| said.lines()).filter(ours).filter(|line| !is_cluster(line)).collect();
        if left.is_empty() { Ok(Some(())) } else { Err(anyhow::anyhow!("{left:?}")) }
    })
    .await?;
    // The resource stays on purpose.
    site.cluster.kubectl(&["get", "crd", "streamservices.streamfleet.dev"]).map(drop)
}
