//! Workers that come and go with calls, on a real cluster: by the operator's own rule, by somebody else's number, by a schedule, from
//! and to zero. All calls are real, come from outside through the load balancer, and none of them may be ended, but for those of a
//! worker that is killed and of one that drains for longer than it may: they go on elsewhere.
//!
//! The services scale side by side, because they mostly wait: for a minute that has to be quiet, for one worker in a minute.
//!
//! What they scale on is an installation as one for work is: of all namespaces, with a Redis of its own far from the cluster, with keys
//! that somebody else has made, and with one load balancer for HTTP and media, which clients are told of by what its name stands for.

#![expect(clippy::print_stdout, reason = "helpers of tests print their figures for the log")]

mod busy;
mod chronicle;
mod direct;
mod evicted;
mod fleet;
mod killed;
mod outside;
mod overdue;
mod parts;
mod quiet;
mod talks;
mod unready;
mod zero;

use std::time::{Duration, Instant};

use anyhow::Result;
use streamfleet_kubernetes_tests::{Plan, on_cluster};

use chronicle::Exceptions;
use fleet::Fleet;

/// Of one step. Workers start in seconds, and later on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
/// Of a scale down: one worker goes in a minute, and the last one after a minute without calls.
const DOWN: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn workers_come_and_go_and_no_call_is_ended() -> Result<()> {
    on_cluster("scaling", Plan::of(2), async |cluster| {
        let began = Instant::now();
        let fleet = Fleet::install(cluster).await?;
        println!("installed after {:.0} s", began.elapsed().as_secs_f32());
        let scenarios = Box::pin(async {
            tokio::try_join!(
                fleet.timed("load up and down", busy::goes_up_and_down(&fleet)),
                fleet.timed("from zero and back", zero::comes_from_zero_and_goes_back(&fleet)),
                fleet.timed("a number from outside", outside::obeys_kubectl_and_an_hpa(&fleet)),
                fleet.timed("variants and a schedule", parts::has_workers_for_each(&fleet)),
                // Not all at once: short ones wait for each other.
                async {
                    fleet.timed("media by a port of the node", direct::has_ports_of_its_node(&fleet)).await?;
                    fleet.timed("a drain that lasts too long", overdue::sends_its_clients_elsewhere(&fleet)).await
                },
                async {
                    fleet.timed("a worker is not Ready", unready::goes_only_when_empty(&fleet)).await?;
                    fleet.timed("a worker dies", killed::comes_back(&fleet)).await?;
                    fleet.timed("an eviction", evicted::only_where_that_may_be(&fleet)).await
                },
            )?;
            fleet.timed("nothing happens", quiet::writes_nothing(&fleet)).await
        });
        tokio::select! {
            outcome = scenarios => outcome?,
            error = fleet.chronicle.keep() => error?,
        }
        fleet.chronicle.judge(&Exceptions { killed: killed::NAME, evicted: evicted::NAME })?;
        println!("all of it {:.0} s", began.elapsed().as_secs_f32());
        cluster.check()
    })
    .await
}
