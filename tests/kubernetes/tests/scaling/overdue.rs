//! A drain that lasts for longer than `maxDrainSeconds`: clients are asked to connect elsewhere, and whoever stays has another minute.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use streamfleet_kubernetes_tests::{eventually, tell};

use super::LIMIT;
use super::fleet::Fleet;
use super::talks::{COUNT, Talks};

const NAME: &str = "overdue";
/// Calls at the worker that stays: so many that it is beyond its bound (docs/placement.md) for all that come later.
const BESIDE: usize = 2 * (COUNT + 1);
/// So long drains may last.
const DRAINS: Duration = Duration::from_secs(10);
/// docs/kubernetes.md: the pod goes so long after its worker has heard that its clients are to go.
const STAYS: Duration = Duration::from_secs(60);
/// Times of drains are whole seconds.
const SLACK: Duration = Duration::from_secs(1);

pub(crate) async fn sends_its_clients_elsewhere(fleet: &Fleet<'_>) -> Result<()> {
    let spec = |replicas: usize| {
        json!({
            "routing": { "packing": "Spread" },
            "autoscaling": {
                "mode": "External", "replicas": replicas, "maxReplicas": 2,
                "scaleDown": { "maxDrainSeconds": DRAINS.as_secs() },
            },
        })
    };
    fleet.apply(NAME, &spec(1))?;
    fleet.await_figures(NAME, &[("readyReplicas", 1)], LIMIT).await?;
    let beside = fleet.call(NAME, BESIDE, BESIDE as i64).await?;
    let other = fleet.only_worker(NAME).await?;
    fleet.apply(NAME, &spec(2))?;
    fleet.await_figures(NAME, &[("readyReplicas", 2)], LIMIT).await?;
    let talks = Talks::begin(fleet, NAME).await?;
    let old = talks.began_at()?;
    ensure!(old != other, "they are where all others are");
    let mut stays = fleet.talk(NAME, "overdue-stays", &["--no-reconnect"]).await?;
    fleet.await_figures(NAME, &[("activeSessions", (BESIDE + COUNT + 1) as i64)], LIMIT).await?;
    let there = fleet.sessions_of(&old).await?;
    ensure!(there == (COUNT + 1) as f64, "{there} sessions are at the worker that is to drain");

    let drains = Instant::now();
    fleet.apply(NAME, &spec(1))?;
    eventually("it drains", LIMIT, async || {
        Ok(fleet.chronicle.in_state(NAME, "draining").contains(&old).then_some(()))
    })
    .await?;
    let expired = fleet.events(NAME, "DrainExpired")?;
    ensure!(expired.is_empty(), "before its time: {expired}");
    talks.went_on("they go on at another worker", |session| session["worker"] == other.as_str()).await?;
    let moved = drains.elapsed();
    ensure!(moved + SLACK > DRAINS, "before its time: after {moved:?}");
    eventually("people are told", LIMIT, async || {
        let said = fleet.events(NAME, "DrainExpired")?;
        let is_so = said.starts_with("Warning 1 worker told to send their clients elsewhere") && said.contains(&old);
        is_so.then_some(Some(())).context(said)
    })
    .await?;

    // Who does not follow is not thrown out before the minute is over.
    eventually("its pod is told to go", LIMIT, async || {
        Ok(fleet.chronicle.of_service(NAME).get(&old).is_some_and(|life| life.is_ending()).then_some(()))
    })
    .await?;
    let kept = drains.elapsed();
    ensure!(kept + SLACK > DRAINS + STAYS, "it was told to go after {kept:?}");
    eventually("who has not followed is cut off", LIMIT, async || Ok(stays.has_ended()?.then_some(()))).await?;
    let over = drains.elapsed();
    let said = stays.hang_up().await?;
    ensure!(said["end"] != "hung up" && said["reconnects"] == 0, "{said}");
    let [moved, kept, over] = [moved, kept, over].map(|time| time.as_secs_f32());
    let about = format!("maxDrainSeconds: moved after {moved:.1} s, the pod told to go after {kept:.1} s");
    tell(fleet.cluster, &format!("{about}; who stayed: {} after {over:.1} s", said["end"]))?;
    let all = (BESIDE + COUNT) as i64;
    let left = [("replicas", 1), ("readyReplicas", 1), ("drainingReplicas", 0), ("activeSessions", all)];
    fleet.await_figures(NAME, &left, LIMIT).await?;
    fleet.hang_up("maxDrainSeconds: calls at the other worker", beside).await?;
    talks.hang_up("maxDrainSeconds: calls that were asked to go elsewhere").await
}
