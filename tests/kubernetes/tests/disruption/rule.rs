//! A service that is scaled by its calls (`mode: Sessions`), while nobody scales, or knows how many they are.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use streamfleet_kubernetes_tests::fleet::{Calls, Load, await_condition, await_status, events};
use streamfleet_kubernetes_tests::{eventually, pods, tell};

use super::LIMIT;
use super::workers::{Fleet, NAMESPACE};

const NAME: &str = "ruled";
/// Calls that take more workers than its minimum, and all that it may have: one less is a mistake at any moment.
const CALLS: usize = 3;
const WORKERS: i64 = 2;
/// What is not wanted for so long may go.
const WINDOW: Duration = Duration::from_secs(5);
/// From when the store is back the rule has had all figures for more than its window, and a look at them.
const ACTS: Duration = Duration::from_secs(12);

/// It, with its calls.
pub(crate) struct Ruled<'a> {
    fleet: &'a Fleet<'a>,
    calls: Calls,
    /// Its workers.
    pods: BTreeSet<String>,
}

impl<'a> Ruled<'a> {
    /// Makes it, and begins to call: who finds no place is held until there is a second worker.
    pub(crate) fn begin(fleet: &'a Fleet<'a>) -> Result<Self> {
        fleet.cluster.apply(&json!({
            "apiVersion": "streamfleet.dev/v1alpha1", "kind": "StreamService",
            "metadata": { "name": NAME, "namespace": NAMESPACE },
            "spec": {
                "path": format!("/{NAME}"), "handler": { "name": "echo" }, "limits": { "timeLimitSeconds": 900 },
                "workers": { "sessionsPerWorker": 2 }, "routing": { "offerHoldSeconds": 60 },
                "autoscaling": {
                    "minReplicas": 1, "maxReplicas": WORKERS, "scaleDown": { "stabilizationSeconds": WINDOW.as_secs() },
                },
            },
        }))?;
        let url = fleet.url.replace("/echo", &format!("/{NAME}"));
        let load = Load { url: &url, sessions: CALLS, ramp: 1, seconds: 900, flags: &[] };
        Ok(Self { fleet, calls: Calls::start(fleet.cluster, load)?, pods: BTreeSet::new() })
    }

    /// Waits until it has its workers, and its calls are known.
    pub(crate) async fn grow(&mut self) -> Result<()> {
        let services = self.fleet.services();
        await_status(&services, NAME, "activeSessions", LIMIT, |sessions| sessions == CALLS as i64).await?;
        await_status(&services, NAME, "readyReplicas", LIMIT, |ready| ready == WORKERS).await?;
        for pod in self.there().await? {
            self.pods.extend(pod.metadata.name);
        }
        ensure!(self.pods.len() as i64 == WORKERS, "{:?}", self.pods);
        self.stays().await
    }

    /// That its workers serve as before, and none of them drains or has drained. Another one may be made for one that is late to be heard
    /// of when the store is back, and goes again.
    pub(crate) async fn stays(&self) -> Result<()> {
        let there = self.there().await?;
        let serves = |pod: &Pod| pods::label(pod, "streamfleet.dev/state") == Some("serving") && !pods::is_ending(pod);
        let serving: BTreeSet<&String> =
            there.iter().filter(|pod| serves(pod)).filter_map(|pod| pod.metadata.name.as_ref()).collect();
        ensure!(self.pods.iter().all(|pod| serving.contains(pod)), "there were {:?}, and {serving:?} serve", self.pods);
        for reason in ["WorkersDraining", "WorkersRemoved"] {
            let said = events(self.fleet.cluster, NAMESPACE, NAME, reason)?;
            ensure!(!self.pods.iter().any(|pod| said.contains(pod)), "{reason}: {said}");
        }
        Ok(())
    }

    /// Watches it until the rule has had its time with a store that has known nothing, hangs up, and sees that nobody has heard of it. The
    /// service goes.
    pub(crate) async fn outlives(self, back: Instant) -> Result<()> {
        let services = self.fleet.services();
        await_condition(&services, NAME, ("Degraded", "False"), LIMIT).await?;
        await_status(&services, NAME, "activeSessions", LIMIT, |sessions| sessions == CALLS as i64).await?;
        eventually("the rule has had its time", LIMIT, async || Ok((back.elapsed() > ACTS).then_some(()))).await?;
        self.stays().await?;
        let report = self.calls.stop().await?;
        tell(self.fleet.cluster, &format!("scaled by its calls, which nobody knew\n{}", report.table()))?;
        report.undisturbed().context(NAME)?;
        self.fleet.kubectl(&["delete", "streamservice", NAME, "--wait=false"]).map(drop)
    }

    async fn there(&self) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.fleet.cluster.kube(), NAMESPACE);
        let selected = ListParams::default().labels(&format!("streamfleet.dev/service={NAME}"));
        Ok(pods.list(&selected).await?.items)
    }
}
