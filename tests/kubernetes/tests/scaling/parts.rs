//! Variants, each with workers of its own, and a peak that is known before.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::json;

use super::fleet::Fleet;
use super::{DOWN, LIMIT};

const NAME: &str = "variants";
/// So many that it is one in 30 000 that all of them have the same.
const CALLS: usize = 16;

pub(crate) async fn has_workers_for_each(fleet: &Fleet<'_>) -> Result<()> {
    fleet.apply(
        NAME,
        &json!({
            "routing": { "variants": [
                { "name": "next", "weight": 50, "workers": { "image": "streamfleet-worker:test" } },
            ] },
            "autoscaling": { "minReplicas": 2, "maxReplicas": 4 },
        }),
    )?;
    fleet.await_figures(NAME, &[("readyReplicas", 2), ("desiredReplicas", 2)], LIMIT).await?;
    let calls = fleet.call(NAME, CALLS, 16).await?;
    let mut sessions = BTreeMap::new();
    for (pod, life) in fleet.chronicle.of_service(NAME) {
        *sessions.entry(life.variant).or_insert(0.0) += fleet.sessions_of(&pod).await?;
    }
    println!("sessions of each variant: {sessions:?}");
    ensure!(sessions.keys().eq(["base", "next"]), "{sessions:?}");
    ensure!(sessions.values().all(|sessions| *sessions > 0.0), "{sessions:?}");
    ensure!(sessions.values().sum::<f64>() == CALLS as f64, "{sessions:?}");
    fleet.compare(NAME).await?;
    fleet.hang_up("variants: calls that were shared out", calls).await?;
    by_schedule(fleet).await
}

/// Workers without a call, for as long as a schedule says so.
async fn by_schedule(fleet: &Fleet<'_>) -> Result<()> {
    const NAME: &str = "office";
    let spec = |schedule| {
        json!({ "autoscaling": {
            "minReplicas": 0, "maxReplicas": 3, "scaleDown": { "stabilizationSeconds": 5 }, "schedule": schedule,
        } })
    };
    fleet.apply(NAME, &spec(json!([])))?;
    fleet.await_figures(NAME, &[("replicas", 0), ("desiredReplicas", 0)], LIMIT).await?;
    // It begins every minute and lasts for two.
    let always = json!([{ "cron": "* * * * *", "durationSeconds": 120, "minReplicas": 1 }]);
    fleet.apply(NAME, &spec(always))?;
    fleet.await_figures(NAME, &[("readyReplicas", 1), ("desiredReplicas", 1)], LIMIT).await?;
    let why = fleet.events(NAME, "WorkersCreated")?;
    ensure!(why.contains("a schedule"), "{why}");
    fleet.apply(NAME, &spec(json!([])))?;
    fleet.await_figures(NAME, &[("replicas", 0), ("drainingReplicas", 0), ("desiredReplicas", 0)], DOWN).await?;
    fleet.compare(NAME).await
}
