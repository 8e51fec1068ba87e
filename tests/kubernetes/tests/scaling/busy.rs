//! The operator's own rule: more workers before the places are taken, fewer when the calls are over.

use anyhow::{Result, ensure};
use serde_json::json;

use super::fleet::Fleet;
use super::{DOWN, LIMIT};

const NAME: &str = "busy";
/// Calls that stay.
const FEW: usize = 3;
/// Calls that make it grow: with the others more than the workers have places for that are there before.
const MANY: usize = 17;

pub(crate) async fn goes_up_and_down(fleet: &Fleet<'_>) -> Result<()> {
    fleet.apply(
        NAME,
        &json!({
            "workers": { "sessionsPerWorker": 8 },
            "autoscaling": { "minReplicas": 1, "maxReplicas": 8, "buffer": 12, "scaleDown": { "stabilizationSeconds": 5 } },
        }),
    )?;
    // ceil((0 + 12) / 8)
    fleet.await_figures(NAME, &[("readyReplicas", 2), ("capacity", 16)], LIMIT).await?;

    let few = fleet.call(NAME, FEW, 3).await?;
    let many = fleet.call(NAME, MANY, 20).await?;
    // ceil((20 + 12) / 8); a slow machine takes its workers' time to start into account.
    let top = eventually_at_least(fleet, 4).await?;
    let report = fleet.hang_up("up: calls that made it grow", many).await?;
    println!("{NAME}: 2 workers, then {top}; none of {} calls was refused", report.sessions.asked + FEW);

    // ceil((3 + 12) / 8), a worker in a minute.
    fleet.await_figures(NAME, &[("replicas", 2), ("readyReplicas", 2), ("drainingReplicas", 0)], DOWN).await?;
    fleet.compare(NAME).await?;
    let gone = fleet.chronicle.of_service(NAME).values().filter(|life| life.was_ready && life.is_ending()).count();
    ensure!(gone as i64 >= top - 2, "{gone} of {top} have gone");
    for reason in ["WorkersCreated", "WorkersDraining", "WorkersRemoved"] {
        ensure!(!fleet.events(NAME, reason)?.is_empty(), "no Event {reason}");
    }
    fleet.hang_up("down: calls that stayed while it shrank", few).await?;
    Ok(())
}

/// Waits until so many workers serve, or more.
async fn eventually_at_least(fleet: &Fleet<'_>, workers: i64) -> Result<i64> {
    use streamfleet_kubernetes_tests::fleet::await_status;

    await_status(&fleet.services, NAME, "readyReplicas", LIMIT, |ready| ready >= workers).await
}
