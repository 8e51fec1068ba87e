//! A worker's process is killed, and its node is well: its calls are over, clients go on with what is remembered of them, and nobody
//! else hears of it.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use streamfleet_kubernetes_tests::promises::{Promise, Sockets, WebRtc, promise};
use streamfleet_kubernetes_tests::tell;

use super::LIMIT;
use super::fleet::Fleet;
use super::talks::{COUNT, Talks};

pub(crate) const NAME: &str = "mortal";
/// Calls at the worker that stays.
const BESIDE: usize = 2;
/// Kills the process of a pod, by its host name, among all of a node's.
const KILL: &str = r#"killed=1
for process in $(pgrep -f '^/streamfleet-worker'); do
    if grep -qzx "HOSTNAME=$0" "/proc/$process/environ"; then kill -KILL "$process" && killed=0; fi
done
exit $killed"#;
/// What is promised of a node's workers is longer than a worker takes that is started again.
const REPLACED: Duration = Duration::from_secs(60);

pub(crate) async fn comes_back(fleet: &Fleet<'_>) -> Result<()> {
    let promised = promise("a worker or its node dies")?;
    let expected = Promise { webrtc: WebRtc::Lost, sockets: Sockets::ComeBack };
    ensure!(promised == expected, "it is judged by another promise: {promised:?}");
    let spec = |replicas: usize| {
        json!({
            "routing": { "packing": "Spread" },
            "workers": { "sessionsPerWorker": 8 },
            "autoscaling": { "mode": "External", "replicas": replicas, "maxReplicas": 3 },
        })
    };
    fleet.apply(NAME, &spec(1))?;
    fleet.await_figures(NAME, &[("readyReplicas", 1)], LIMIT).await?;
    let dies = fleet.only_worker(NAME).await?;
    let talks = Talks::begin(fleet, NAME).await?;
    ensure!(talks.began_at()? == dies, "there is no other");
    // The other one is the emptier, for all of these.
    fleet.apply(NAME, &spec(2))?;
    fleet.await_figures(NAME, &[("readyReplicas", 2)], LIMIT).await?;
    let beside = fleet.call(NAME, BESIDE, (COUNT + BESIDE) as i64).await?;
    let there = fleet.sessions_of(&dies).await?;
    ensure!(there == COUNT as f64, "{there} sessions are at the worker that dies");

    let pod = fleet.pod(&dies).await?;
    let node = pod.spec.and_then(|spec| spec.node_name).context("a pod without a node")?;
    let node = fleet.cluster.nodes().iter().find(|known| known.name() == node).context("no such node")?;
    node.place()?.output(Command::new("sh").args(["-c", KILL, &dies]))?;
    let died = Instant::now();
    // Which may be the next process in the pod of the one that died.
    talks.went_on("they go on at a worker that lives", |_| true).await?;
    let moved = died.elapsed().as_secs_f32();
    fleet.await_figures(NAME, &[("readyReplicas", 2), ("activeSessions", (COUNT + BESIDE) as i64)], LIMIT).await?;
    let whole = died.elapsed();
    tell(fleet.cluster, &format!("a worker dies: its calls go on after {moved:.1} s, two serve after {whole:.1?}"))?;
    ensure!(whole < REPLACED, "two serve after {whole:?}");
    fleet.hang_up("a worker dies: calls at the other one", beside).await?;
    talks.hang_up("a worker dies: its calls").await?;
    let calm = [("replicas", 2), ("readyReplicas", 2), ("drainingReplicas", 0), ("activeSessions", 0)];
    fleet.await_figures(NAME, &calm, LIMIT).await
}
