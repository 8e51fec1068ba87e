//! Somebody evicts a worker that has a call: not unless the service lets him (`disruption`), and then the call has its grace.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::EvictParams;
use serde_json::json;
use streamfleet_kubernetes_tests::eventually;
use streamfleet_kubernetes_tests::promises::{Promise, Sockets, WebRtc, promise};

use super::LIMIT;
use super::fleet::{Fleet, NAMESPACE};

pub(crate) const NAME: &str = "evicted";
/// So often it is refused, a second apart.
const TRIES: usize = 3;

pub(crate) async fn only_where_that_may_be(fleet: &Fleet<'_>) -> Result<()> {
    // As of whoever is told to go by somebody else than the operator.
    let promised = promise("`kubectl delete pod`")?;
    ensure!(promised == Promise { webrtc: WebRtc::GoOn, sockets: Sockets::GoOn }, "another promise: {promised:?}");
    let spec = |disruption: &str| {
        json!({
            "disruption": disruption,
            "autoscaling": { "mode": "External", "replicas": 1, "maxReplicas": 2 },
        })
    };
    fleet.apply(NAME, &spec("Never"))?;
    fleet.await_figures(NAME, &[("readyReplicas", 1)], LIMIT).await?;
    let worker = fleet.only_worker(NAME).await?;
    let calls = fleet.call(NAME, 2, 2).await?;
    let pods: Api<Pod> = Api::namespaced(fleet.cluster.kube(), NAMESPACE);
    let evict = async || match pods.evict(&worker, &EvictParams::default()).await {
        Err(kube::Error::Api(refused)) if refused.code == 429 => Ok(Some(refused.message)),
        outcome => outcome.map(|_| None).map_err(anyhow::Error::from),
    };
    for _ in 0..TRIES {
        let said = evict().await?.context("it was let")?;
        ensure!(said.contains("would violate the pod's disruption budget"), "{said}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    fleet.apply(NAME, &spec("Always"))?;
    eventually("it is let", LIMIT, async || Ok(evict().await?.is_none().then_some(()))).await?;
    eventually("another one serves, and it finishes its calls", LIMIT, async || {
        let lives = fleet.chronicle.of_service(NAME);
        let others = lives.iter().filter(|(name, life)| **name != worker && life.is_ready && !life.is_ending()).count();
        ensure!(others == 1 && lives[&worker].is_ending(), "{lives:?}");
        Ok(Some(()))
    })
    .await?;
    ensure!(fleet.sessions_of(&worker).await? == 2.0, "its calls are there");
    fleet.hang_up("an eviction: calls of the worker that was evicted", calls).await?;
    eventually("it has gone", LIMIT, async || Ok(pods.get_opt(&worker).await?.is_none().then_some(()))).await?;
    fleet.await_figures(NAME, &[("replicas", 1), ("readyReplicas", 1), ("activeSessions", 0)], LIMIT).await
}
