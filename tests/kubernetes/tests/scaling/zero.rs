//! No worker while nobody calls: the first call is held and answered, and a quiet minute later the worker goes again.

use anyhow::{Result, ensure};
use serde_json::json;
use streamfleet_kubernetes_tests::fleet::await_condition;

use super::fleet::Fleet;
use super::{DOWN, LIMIT};

const NAME: &str = "seldom";
const NOBODY: [(&str, i64); 4] =
    [("replicas", 0), ("readyReplicas", 0), ("drainingReplicas", 0), ("desiredReplicas", 0)];

pub(crate) async fn comes_from_zero_and_goes_back(fleet: &Fleet<'_>) -> Result<()> {
    fleet.apply(
        NAME,
        &json!({
            "routing": { "offerHoldSeconds": 60 },
            "autoscaling": { "minReplicas": 0, "maxReplicas": 2, "scaleDown": { "stabilizationSeconds": 5 } },
        }),
    )?;
    for time in ["the first call", "the first call after it went back to zero"] {
        let ready = await_condition(&fleet.services, NAME, ("Ready", "True"), DOWN).await?;
        ensure!(ready.contains("ScaledToZero"), "{ready}");
        fleet.await_figures(NAME, &NOBODY, LIMIT).await?;
        let calls = fleet.call(NAME, 1, 1).await?;
        fleet.await_figures(NAME, &[("readyReplicas", 1)], LIMIT).await?;
        fleet.hang_up(&format!("from zero: {time}"), calls).await?;
        // The pod goes a minute later, and then it is as before.
        fleet.await_figures(NAME, &NOBODY, DOWN).await?;
    }
    fleet.compare(NAME).await?;
    let lives = fleet.chronicle.of_service(NAME);
    ensure!(lives.values().filter(|life| life.was_ready).count() == 2, "{lives:?}");
    let why = fleet.events(NAME, "WorkersCreated")?;
    ensure!(why.contains("offers are held"), "{why}");
    Ok(())
}
