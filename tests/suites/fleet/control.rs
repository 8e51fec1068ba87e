//! Sessions that are ended from elsewhere.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamfleet_client::EndReason;
use streamfleet_tests::{Shape, judged};

use crate::caller::{Plan, SAID_HZ};
use crate::{HEARTBEAT, PATIENCE, SLACK, World, in_a_fleet, measured, plain, shape, until};

#[test]
fn a_session_and_its_tracks_are_ended_by_any_router() -> Result<()> {
    judged(|| {
        in_a_fleet(shape(plain(&["memory"])), async |world: &mut World| {
            for (worker, routers) in [("w0", [0, 1]), ("w1", [1, 0])] {
                let caller = world.dial_on(routers[0], worker, || Plan::of("memory")).await?;
                caller.hears(SAID_HZ, Instant::now()).await?;
                let path = format!("/memory/sessions/{}", caller.id());
                let (status, answer) = world.ask(routers[1], "DELETE", &format!("{path}/tracks/0"), &Value::Null)?;
                ensure!(status == 200 && answer["mid"] == "0", "{status} {answer}");
                let (_, session) = world.ask(routers[0], "GET", &path, &Value::Null)?;
                ensure!(session["tracks"][0]["closed"] == true && session["state"] == "active", "{session}");
                let took = world.end(routers[1], "memory", caller.id().as_str())?;
                measured("DELETE by the other router", took);
                let (_, reason) = caller.ended(PATIENCE).await?;
                ensure!(reason == EndReason::ClosedByServer, "{reason:?}");
            }
            world.await_no_places().await
        })
    })
}

#[test]
fn a_handler_ends_a_session_of_another_worker() -> Result<()> {
    judged(|| {
        in_a_fleet(shape(plain(&["end-named"])), async |world: &mut World| {
            let target = world.dial_on(0, "w0", || Plan::of("end-named")).await?;
            let ending = world.dial_on(1, "w1", || Plan::of("end-named")).await?;
            target.hears(SAID_HZ, Instant::now()).await?;
            let asked = Instant::now();
            let body = json!({ "webrtc_id": ending.id().as_str(), "inputs": [target.id().as_str()] });
            let (status, answer) = world.ask(0, "POST", "/end-named/input_hook", &body)?;
            ensure!(status == 200 && answer["status"] == "success", "{status} {answer}");
            let (at, reason) = target.ended(PATIENCE).await?;
            measured("EndStream by a handler of another worker", at - asked);
            ensure!(matches!(reason, EndReason::EndStream(_)), "{reason:?}");
            ending.hears(SAID_HZ, at).await?;
            ending.hang_up().await;
            world.await_no_places().await
        })
    })
}

/// Its worker's connection to the store is gone when a session's end is asked for, so nobody hears of it then.
#[test]
fn a_wake_up_that_is_lost_costs_a_heartbeat_at_most() -> Result<()> {
    judged(|| {
        /// Of so many wake-ups one is lost for certain: the worker has its connection again after 50 ms.
        const ROUNDS: usize = 5;
        in_a_fleet(Shape { workers: 1, ..shape(plain(&["memory"])) }, async |world: &mut World| {
            let (redis, worker) = (&world.fleet.redis, &world.fleet.workers[0]);
            let channel = format!("sf:{{memory}}:wake:worker:{}", worker.name);
            let listeners = || {
                let told = redis.command(&["PUBSUB", "SHARDNUMSUB", &channel])?;
                told.lines().last().and_then(|count| count.trim().parse::<u32>().ok()).context("no count")
            };
            let mut lost = 0;
            for round in 0..ROUNDS {
                let caller = world.dial(round % 2, Plan::of("memory")).await?;
                caller.hears(SAID_HZ, Instant::now()).await?;
                until("it listens", PATIENCE, async || Ok((listeners()? == 1).then_some(()))).await?;
                let ports = worker.server.tcp_ports()?;
                let clients = redis.command(&["CLIENT", "LIST"])?;
                let addresses =
                    clients.lines().filter_map(|line| line.split(' ').find_map(|word| word.strip_prefix("addr=")));
                let is_its = |address: &&str| {
                    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
                    port.is_some_and(|port| ports.contains(&port))
                };
                let kills: Vec<&str> = addresses.filter(is_its).collect();
                ensure!(!kills.is_empty(), "the worker has no connection: {clients}");
                for address in kills {
                    redis.command(&["CLIENT", "KILL", "ADDR", address])?;
                }
                lost += usize::from(listeners()? == 0);
                let took = world.end(1 - round % 2, "memory", caller.id().as_str())?;
                measured("DELETE while its worker cannot be woken", took);
                ensure!(took < HEARTBEAT + SLACK, "{took:?}");
                let (_, reason) = caller.ended(PATIENCE).await?;
                ensure!(reason == EndReason::ClosedByServer, "{reason:?}");
            }
            ensure!(lost > 0, "every wake-up was heard");
            world.await_no_places().await
        })
    })
}
