//! What becomes of calls when something goes: workers, nodes, the operator, the API server, Redis, the service itself. Each
//! scenario has real calls from outside, and what became of each is held against what docs/kubernetes.md promises.

#![expect(clippy::print_stdout, reason = "helpers of tests print their figures for the log")]

mod calls;
mod node;
mod outages;
mod rule;
mod service;
mod workers;

use std::time::{Duration, Instant};

use anyhow::Result;
use streamfleet_kubernetes_tests::{Cluster, Plan, on_cluster, tell};

use self::rule::Ruled;
use self::workers::Fleet;

/// Whatever is waited for is there within this, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(120);

/// One after the other on one cluster: each leaves two workers behind, and the last none.
#[tokio::test(flavor = "multi_thread")]
async fn calls_outlive_what_is_not_theirs() -> Result<()> {
    on_cluster("disruption", Plan::of(2), async |cluster| {
        let began = Instant::now();
        let fleet = Fleet::install(cluster).await?;
        println!("installed after {:.1} s", began.elapsed().as_secs_f32());
        timed(cluster, "workers get another image", service::rollout(&fleet)).await?;
        timed(cluster, "kubectl delete pod", service::delete_pod(&fleet)).await?;
        timed(cluster, "a node dies", node::dies(&fleet)).await?;
        timed(cluster, "a node is cut off, and returns", node::is_cut_off(&fleet)).await?;
        timed(cluster, "kubectl drain", node::is_drained(&fleet)).await?;
        // Scaled by its calls, through both.
        let mut ruled = Ruled::begin(&fleet)?;
        timed(cluster, "the operator is away", outages::operator(&fleet, &mut ruled)).await?;
        timed(cluster, "Redis is away, and comes back empty", outages::redis(&fleet, ruled)).await?;
        timed(cluster, "Redis is away, and all routers die", outages::redis_and_routers(&fleet)).await?;
        timed(cluster, "the API server is away", outages::api_server(&fleet)).await?;
        timed(cluster, "kubectl delete streamservice", service::deleted(&fleet)).await?;
        println!("all after {:.1} s", began.elapsed().as_secs_f32());
        cluster.check()
    })
    .await
}

async fn timed(cluster: &Cluster, name: &str, scenario: impl Future<Output = Result<()>>) -> Result<()> {
    tell(cluster, &format!("== {name}"))?;
    let began = Instant::now();
    let outcome = Box::pin(scenario).await.map_err(|error| error.context(name.to_owned()));
    tell(cluster, &format!("-- {name}: {:.1} s", began.elapsed().as_secs_f32()))?;
    outcome
}
