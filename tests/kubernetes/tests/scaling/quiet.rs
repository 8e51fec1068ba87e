//! Nothing happens: the operator writes nothing but its lease.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use streamfleet_kubernetes_tests::eventually;

use super::LIMIT;
use super::fleet::Fleet;

/// For so long it is counted. Two statuses could be written in it, and two looks at an idle service are.
const COUNTED: Duration = Duration::from_secs(20);
/// So often it is counted again where something has happened: a kubelet that finds a pod slow says so, and the operator repeats it.
const TRIES: usize = 3;
/// What others write without anything happening: leases, what nodes say of themselves, questions about rights, what was seen.
const OTHERS: [&str; 5] = ["leases", "nodes", "tokenreviews", "subjectaccessreviews", "events"];

pub(crate) async fn writes_nothing(fleet: &Fleet<'_>) -> Result<()> {
    // Whatever was on its way is there, such as a status that waits for its ten seconds.
    eventually("all is settled", LIMIT, async || {
        let before = of_all(fleet).await?;
        tokio::time::sleep(Duration::from_secs(11)).await;
        Ok((wrote(&before, &of_all(fleet).await?).is_empty()).then_some(()))
    })
    .await?;
    let mut happened = BTreeMap::new();
    for _ in 0..TRIES {
        let (before, own) = (of_all(fleet).await?, of_operators(fleet).await?);
        tokio::time::sleep(COUNTED).await;
        let (after, own_after) = (of_all(fleet).await?, of_operators(fleet).await?);
        let (all, own) = (wrote(&before, &after), difference(&own, &own_after));
        println!("in {COUNTED:?} operators have written {own:?}, and all {:?}", difference(&before, &after));
        happened = difference(&own, &all);
        // What operators write of themselves has no excuse.
        if happened.is_empty() {
            ensure!(own.keys().eq(["leases"]), "operators have written {own:?}");
            return Ok(());
        }
    }
    bail!("somebody writes all the time: {happened:?}")
}

/// Writes that the API server has counted, by resource, but for those that are made while nothing happens.
fn wrote(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let mut wrote = difference(before, after);
    wrote.retain(|resource, _| !OTHERS.contains(&resource.as_str()));
    wrote
}

fn difference(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let more = |(resource, count): (&String, &f64)| {
        let more = count - before.get(resource).copied().unwrap_or_default();
        (more > 0.0).then(|| (resource.clone(), more))
    };
    after.iter().filter_map(more).collect()
}

/// Writes by anybody, by resource. A token that is given out is none.
async fn of_all(fleet: &Fleet<'_>) -> Result<BTreeMap<String, f64>> {
    let metrics = fleet.scrape("/metrics").await?;
    let writes = metrics.into_iter().filter(|(of, _)| {
        let is_write =
            ["POST", "PUT", "PATCH", "APPLY", "DELETE"].iter().any(|verb| of.contains(&format!("verb=\"{verb}\"")));
        of.starts_with("apiserver_request_total{") && is_write && !of.contains("subresource=\"token\"")
    });
    Ok(by_resource(writes))
}

/// Writes by operators, by resource, as they count them themselves.
async fn of_operators(fleet: &Fleet<'_>) -> Result<BTreeMap<String, f64>> {
    let metrics = fleet.metrics("app.kubernetes.io/component=operator").await?;
    let writes = metrics.into_iter().filter(|(of, _)| {
        let is_read = ["get", "list", "watch"].iter().any(|verb| of.contains(&format!("verb=\"{verb}\"")));
        of.starts_with("streamfleet_operator_requests_total{") && !is_read
    });
    Ok(by_resource(writes))
}

fn by_resource(counts: impl Iterator<Item = (String, f64)>) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for (of, count) in counts {
        let resource =
            of.split_once("resource=\"").and_then(|(_, rest)| rest.split_once('"')).map_or("", |(name, _)| name);
        *sums.entry(resource.to_owned()).or_default() += count;
    }
    sums
}
