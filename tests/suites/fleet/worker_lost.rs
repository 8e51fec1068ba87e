//! A worker is killed.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use streamfleet_client::Reconnect;
use streamfleet_tests::{Shape, judged};

use crate::caller::{Plan, SAID_HZ};
use crate::{HEARTBEAT, LEASE, PATIENCE, SLACK, World, blocking, in_a_fleet, measured, plain, shape, until};

#[test]
fn a_killed_workers_sessions_are_over_with_its_lease_and_their_clients_go_on_elsewhere() -> Result<()> {
    judged(|| {
        in_a_fleet(Shape { workers: 1, ..shape(plain(&["memory"])) }, async |world: &mut World| {
            // One client comes back by itself, as soon as it misses its worker: its token has it move, lease or no lease.
            let plan = Plan { reconnect: Reconnect::Follow, liveness: Duration::from_secs(2), ..Plan::of("memory") };
            let returning = world.dial(0, plan).await?;
            let lost = world.dial(1, Plan::of("memory")).await?;
            for caller in [&returning, &lost] {
                caller.hears(SAID_HZ, Instant::now()).await?;
            }
            let (id, other) = (returning.id().as_str(), lost.id().as_str().to_owned());
            ensure!(!world.resumed(0, id, 1)?, "the first visit");
            blocking(|| world.fleet.add_worker())?;
            world.await_workers(2).await?;

            let killed = Instant::now();
            world.fleet.workers[0].server.kill()?;
            // Until its worker's lease is over nobody gets an id, by any router. A description that is none keeps it free then.
            let body = json!({ "type": "offer", "webrtc_id": other, "sdp": "v=0\r\n" });
            let mut offers = 0;
            let (freed, free) = until("the id is free", LEASE + HEARTBEAT + SLACK, async || {
                offers += 1;
                let (status, answer) = world.ask(offers % 2, "POST", "/memory/webrtc/offer", &body)?;
                let error = answer["meta"]["error"].as_str().unwrap_or_default();
                match (status, error) {
                    (200, "connection_already_exists") => Ok(None),
                    (400, "invalid_offer") => Ok(Some(Ok(Instant::now()))),
                    _ => Ok(Some(Err(format!("{status} {answer}")))),
                }
            })
            .await?;
            let freed = freed.map_err(anyhow::Error::msg)?;
            measured("worker killed: its ids are free", free);
            ensure!(offers > 1 && freed - killed > LEASE - HEARTBEAT - SLACK, "no lease lasts only {free:?}");

            let heard =
                returning.hears_within(SAID_HZ, returning.reconnects(LEASE + PATIENCE).await?, PATIENCE).await?;
            measured("worker killed: its client is heard again, elsewhere", heard - killed);
            ensure!(world.resumed(1, id, 2)?, "with its context");
            ensure!(world.worker_of("memory", id).await? == "w1", "on the worker that is left");
            let held = world.held("memory").await?;
            ensure!(held.len() == 1, "nothing is left of the dead worker: {held:?}");
            returning.hang_up().await;
            drop(lost);
            world.await_no_places().await
        })
    })
}
