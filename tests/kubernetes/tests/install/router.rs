//! A router that dies alone: the other one is there, and so is the store.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use streamfleet_kubernetes_tests::fleet::{Calls, Gaps, Load, await_status, stream_services};
use streamfleet_kubernetes_tests::promises::{Promise, Sockets, WebRtc, promise};
use streamfleet_kubernetes_tests::{Talk, eventually, pods, tell};

use super::LIMIT;
use super::site::{HOME, HOST, Site};

/// The service that is called. Of its two workers each socket has to find its own again.
const NAME: &str = "through";
const PATH: &str = "/through";
/// Calls of each kind: it is one in a thousand that none of one kind goes through a router through which some of the other go.
const CALLS: usize = 8;
const SOCKETS: usize = 4;
/// docs/kubernetes.md: sockets come back within this.
const BACK: Duration = Duration::from_secs(30);
/// A call that has ended with the router has been silent by then for longer than any may be.
const SEEN: Duration = Duration::from_secs(15);

/// What a router carries.
#[derive(Debug)]
struct Carries {
    pod: String,
    node: String,
    flows: f64,
    sockets: f64,
    restarts: i32,
}

/// The process is killed, and is there again soon. Calls go on by the other relay or by the next one in its place, sockets come back to
/// the sessions that they had.
pub(crate) async fn dies(site: &Site<'_>) -> Result<()> {
    let promised = promise("a router dies")?;
    let expected = Promise { webrtc: WebRtc::Interrupted, sockets: Sockets::ComeBack };
    ensure!(promised == expected, "it is judged by another promise: {promised:?}");
    let objects = stream_services(site.cluster, HOME);
    let autoscaling = json!({ "mode": "External", "replicas": 2, "maxReplicas": 2 });
    let packing = json!({ "packing": "Spread" });
    let spec = json!({ "path": PATH, "handler": { "name": "echo" }, "routing": packing, "autoscaling": autoscaling });
    site.stream_service(HOME, NAME, &spec)?;
    await_status(&objects, NAME, "readyReplicas", LIMIT, |ready| ready == 2).await?;

    let url = format!("https://{HOST}{PATH}");
    let calls = Calls::start(site.cluster, Load { url: &url, sessions: CALLS, ramp: 4, seconds: 600, flags: &[] })?;
    let talk = |number| -> Result<(String, Talk)> {
        let id = format!("socket-{number}");
        let talk = site.talk(PATH, &["--transport", "websocket", "--id", &id])?;
        Ok((id, talk))
    };
    let talks: BTreeMap<String, Talk> = (0..SOCKETS).map(talk).collect::<Result<_>>()?;
    let all = (CALLS + SOCKETS) as i64;
    await_status(&objects, NAME, "activeSessions", LIMIT, |count| count == all).await?;
    let before = sessions(site, talks.keys()).await?;

    let routers = carry(site).await?;
    let dies =
        routers.iter().filter(|router| router.flows > 0.0).max_by(|one, two| one.sockets.total_cmp(&two.sockets));
    let dies =
        dies.filter(|router| router.sockets > 0.0).with_context(|| format!("through one go both: {routers:?}"))?;
    ensure!(routers.iter().filter(|router| router.node == dies.node).count() == 1, "one on each node: {routers:?}");
    let node = site.cluster.nodes().iter().find(|node| node.name() == dies.node).context("no such node")?;
    node.place()?.output(Command::new("pkill").args(["-KILL", "-f", "^/streamfleet-router "]))?;
    let died = Instant::now();
    eventually("its sockets are back", LIMIT, async || {
        let routers = carry(site).await?;
        let there: f64 = routers.iter().map(|router| router.sockets).sum();
        (there == SOCKETS as f64).then_some(Some(())).with_context(|| format!("{routers:?}"))
    })
    .await?;
    let back = died.elapsed();
    ensure!(back < BACK, "the sockets were back after {back:?}");
    eventually("it has been started again, and no other", LIMIT, async || {
        let is_again = |router: &Carries| {
            let expected = i32::from(router.pod == dies.pod);
            routers.iter().any(|known| known.pod == router.pod && router.restarts == known.restarts + expected)
        };
        let there = carry(site).await?;
        (there.len() == routers.len() && there.iter().all(is_again))
            .then_some(Some(()))
            .with_context(|| format!("{there:?}"))
    })
    .await?;
    let heard = site.call(PATH, &["--wait", "20"])?;
    ensure!(heard["verdict"] == "heard", "new ones are taken: {heard}");
    eventually("it would be heard whether a call is over", LIMIT, async || Ok((died.elapsed() > SEEN).then_some(())))
        .await?;

    let after = sessions(site, talks.keys()).await?;
    are_the_same(&before, &after, dies.sockets as usize)?;
    let report = calls.stop().await?;
    let about = format!(
        "a router dies, with {} sockets and {} flows; sockets were back after {back:.1?}",
        dies.sockets, dies.flows
    );
    tell(site.cluster, &format!("{about}\n{}", report.table()))?;
    let gaps = report.allowing(Gaps::NOTICED);
    ensure!(report.each.len() == CALLS && report.each.iter().all(|each| each.is_well(gaps)), "beyond {gaps:?}");
    let mut returned = 0;
    for (id, talk) in talks {
        let said = talk.hang_up().await?;
        let reconnects = said["reconnects"].as_u64().unwrap_or_default();
        tell(site.cluster, &format!("        {id} came back {reconnects} times, {}", said["verdict"]))?;
        ensure!(said["verdict"] == "heard", "{id} was lost: {said}");
        returned += usize::from(reconnects > 0);
    }
    ensure!(returned == dies.sockets as usize, "{returned} sockets have come back, of {} that had to", dies.sockets);
    site.cluster.kubectl(&["--namespace", HOME, "delete", "streamservice", NAME, "--wait=false"]).map(drop)
}

/// What each router carries at present; one that does not answer carries nothing.
async fn carry(site: &Site<'_>) -> Result<Vec<Carries>> {
    let carries = |pod: Pod| -> Result<Carries> {
        let metrics = pods::metrics(site.cluster, pods::address(&pod)?).unwrap_or_default();
        let restarts = pods::restarts(&pod);
        Ok(Carries {
            pod: pod.metadata.name.context("a pod without a name")?,
            node: pod.spec.and_then(|spec| spec.node_name).context("a pod without a node")?,
            flows: metrics.sum_where("streamfleet_relay_flows", "of=\"own\"").unwrap_or_default(),
            sockets: metrics.sum_where("streamfleet_router_sockets", "state=\"spliced\"").unwrap_or_default(),
            restarts,
        })
    };
    site.pods(HOME, "app.kubernetes.io/component=router").await?.into_iter().map(carries).collect()
}

/// The sessions of these, once all are active.
async fn sessions(site: &Site<'_>, ids: impl Iterator<Item = &String> + Clone) -> Result<BTreeMap<String, Value>> {
    eventually("all sessions of sockets are active", LIMIT, async || {
        let mut sessions = BTreeMap::new();
        for id in ids.clone() {
            let session = site.session(PATH, id).await?;
            ensure!(session["state"] == "active", "{session}");
            sessions.insert(id.clone(), session);
        }
        Ok(Some(sessions))
    })
    .await
}

/// That all are the sessions that they were, at their workers, and that so many sockets had broken and were attached again.
fn are_the_same(before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>, broken: usize) -> Result<()> {
    let mut attached = 0;
    for (id, was) in before {
        let is = after.get(id).with_context(|| format!("no {id}"))?;
        ensure!(["worker", "since"].iter().all(|key| is[key] == was[key] && !is[key].is_null()), "{was}, then {is}");
        let changes = is["changes"].as_array().into_iter().flatten();
        attached += usize::from(changes.filter(|change| change["change"] == "attached").count() > 0);
    }
    ensure!(attached == broken, "{attached} sockets were attached again, of {broken} that had broken: {after:?}");
    Ok(())
}
