//! Workers that are to have no more sessions.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamfleet_client::{EndReason, Message, Reconnect};
use streamfleet_store::Gate;
use streamfleet_tests::{Shape, judged};

use crate::caller::{Plan, SAID_HZ};
use crate::{HEARTBEAT, PATIENCE, SLACK, World, blocking, in_a_fleet, measured, offer, plain, shape, until};

/// Enough that each of two workers would have some: all go to one of them once in 30 000 times.
const OFFERS: u32 = 16;

/// The workers that take new sessions.
async fn takers(world: &World) -> Result<BTreeSet<String>> {
    let mut takers = BTreeSet::new();
    for n in 0..OFFERS {
        let id = format!("offer-{n}");
        let (status, answer) = world.ask(n as usize % 2, "POST", "/memory/webrtc/offer", &offer(&id, n))?;
        ensure!(answer["type"] == "answer", "{status} {answer}");
        takers.insert(world.worker_of("memory", &id).await?);
        world.end(0, "memory", &id)?;
    }
    Ok(takers)
}

#[test]
fn a_worker_that_the_fleet_drains_takes_nobody_and_keeps_whom_it_has() -> Result<()> {
    judged(|| {
        in_a_fleet(shape(plain(&["memory"])), async |world: &mut World| {
            let caller = world.dial_on(0, "w0", || Plan::of("memory")).await?;
            caller.hears(SAID_HZ, Instant::now()).await?;
            let both = BTreeSet::from(["w0".to_owned(), "w1".to_owned()]);
            ensure!(takers(world).await? == both, "both, before");

            let since = Instant::now();
            let (service, worker) = ("memory".parse()?, "w0".parse()?);
            ensure!(world.store.ask_gate(&service, &worker, Gate::Draining).await?, "it is there");
            let found = takers(world).await?;
            ensure!(found == BTreeSet::from(["w1".to_owned()]), "{found:?}");
            // The worker itself has heard of it by now, and its sessions stay.
            tokio::time::sleep(HEARTBEAT).await;
            caller.check_unbroken(since)?;
            ensure!(!caller.was_told(|message| matches!(message, Message::Reconnect { .. })), "nobody asks it to go");

            ensure!(world.store.ask_gate(&service, &worker, Gate::Open).await?, "it is there");
            let serves = async || Ok((takers(world).await? == both).then_some(()));
            let (_, took) = until("it serves again", PATIENCE, serves).await?;
            measured("worker drained by the fleet and asked to serve again: it does", took);
            caller.check_unbroken(since)?;
            world.end(1, "memory", caller.id().as_str())?;
            world.await_no_places().await
        })
    })
}

/// Why a client is asked to connect elsewhere, if it is.
fn asked(message: &Message) -> Option<String> {
    match message {
        Message::Reconnect { reason, .. } => Some(reason.clone()),
        _ => None,
    }
}

/// What an operator does where calls last longer than `maxDrainSeconds`.
#[test]
fn a_worker_that_is_to_be_empty_asks_each_client_once_and_throws_nobody_out() -> Result<()> {
    judged(|| {
        in_a_fleet(shape(plain(&["memory"])), async |world: &mut World| {
            let follows = || Plan { reconnect: Reconnect::Follow, ..Plan::of("memory") };
            let goes = world.dial_on(0, "w0", follows).await?;
            let stays = world.dial_on(1, "w0", || Plan::of("memory")).await?;
            for caller in [&goes, &stays] {
                caller.hears(SAID_HZ, Instant::now()).await?;
            }
            let (service, worker) = ("memory".parse()?, "w0".parse()?);
            let since = Instant::now();
            ensure!(world.store.ask_gate(&service, &worker, Gate::Leaving).await?, "it is there");
            for caller in [&goes, &stays] {
                let (at, reason) = caller.is_told("to move", HEARTBEAT + SLACK, asked).await?;
                ensure!(reason == "draining", "{reason}");
                measured("worker that is to be empty: a client is asked to move", at - since);
            }
            let there = goes.hears(SAID_HZ, goes.reconnects(PATIENCE).await?).await?;
            measured("worker that is to be empty: a client is heard at another", there - since);
            ensure!(world.resumed(1, goes.id().as_str(), 2)?, "with its context");
            ensure!(world.worker_of("memory", goes.id().as_str()).await? == "w1", "the other one");
            // The worker is told so with each renewal.
            tokio::time::sleep(2 * HEARTBEAT).await;
            stays.check_unbroken(since)?;
            for caller in [&goes, &stays] {
                let times = caller.times_told(|message| asked(message).is_some());
                ensure!(times == 1, "{times} times");
            }
            let views = world.workers(&service).await?;
            let view = views.iter().find(|view| view.owner.worker == worker).context("it has gone")?;
            ensure!((view.gate, view.sessions) == (Gate::Leaving, 1), "{view:?}");
            goes.hang_up().await.context("it was shared")?;
            stays.hang_up().await.context("it was shared")?;
            world.await_no_places().await
        })
    })
}

/// From SIGTERM to the end. Clients are asked to move ten seconds before it.
const GRACE: Duration = Duration::from_secs(14);
const ASKED_AFTER: Duration = Duration::from_secs(4);
/// Of a service whose calls are over before that.
const BRIEF_SECONDS: u64 = 12;

#[test]
fn a_worker_that_is_told_to_go_moves_its_clients_and_leaves_when_it_is_empty() -> Result<()> {
    judged(|| {
        let mut services = plain(&["memory"]);
        services.push(json!({
            "name": "brief", "path": "/brief", "handler": { "name": "memory" }, "limits": { "timeLimitSeconds": BRIEF_SECONDS },
        }));
        let shape = Shape { workers: 1, grace: GRACE, ..shape(services) };
        in_a_fleet(shape, async |world: &mut World| {
            let moved = world.dial(0, Plan { reconnect: Reconnect::Follow, ..Plan::of("memory") }).await?;
            let brief = world.dial(1, Plan::of("brief")).await?;
            for caller in [&moved, &brief] {
                caller.hears(SAID_HZ, Instant::now()).await?;
            }
            blocking(|| world.fleet.add_worker())?;
            world.await_workers(2).await?;

            let told = Instant::now();
            world.fleet.workers[0].server.terminate()?;
            let is_shut = async || {
                let workers = world.workers(&"memory".parse()?).await?;
                Ok(workers
                    .iter()
                    .any(|view| view.owner.worker.as_str() == "w0" && view.gate == Gate::Draining)
                    .then_some(()))
            };
            let (_, took) = until("the fleet knows", HEARTBEAT + SLACK, is_shut).await?;
            measured("worker told to go: routers know", took);
            let found = takers(world).await?;
            ensure!(found == BTreeSet::from(["w1".to_owned()]), "{found:?}");

            let (at, reason) = moved.is_told("to move", GRACE, asked).await?;
            ensure!(reason == "draining" && at - told + SLACK > ASKED_AFTER, "{reason} after {:?}", at - told);
            measured("worker told to go: its clients are asked to move", at - told);
            let there = moved.hears(SAID_HZ, moved.reconnects(PATIENCE).await?).await?;
            measured("worker told to go: a client is heard at another", there - told);
            ensure!(world.resumed(1, moved.id().as_str(), 2)?, "with its context");
            ensure!(world.worker_of("memory", moved.id().as_str()).await? == "w1", "the other one");

            let (_, reason) = brief.ended(GRACE).await?;
            ensure!(reason == EndReason::ClosedByServer, "{reason:?}");
            let was_asked = brief.was_told(|message| matches!(message, Message::Reconnect { .. }));
            ensure!(!was_asked, "its own limit came first");
            let status = blocking(|| world.fleet.workers[0].server.wait(GRACE + SLACK))?;
            ensure!(status.success(), "{status}");
            measured("worker told to go: empty, it is gone", told.elapsed());
            let audit = world.fleet.workers[0].server.printed();
            let ended =
                |reason: &str| audit.lines().any(|line| line.contains("session ended") && line.contains(reason));
            // Whichever of the two is quicker closes the connection that is no longer needed.
            ensure!((ended("moved") || ended("client_closed")) && ended("time_limit"), "{audit}");
            let views = world.workers(&"memory".parse()?).await?;
            ensure!(views.len() == 1 && views[0].sessions == 1, "it has left: {views:?}");
            let (status, session) = world.ask(0, "GET", &format!("/memory/sessions/{}", moved.id()), &Value::Null)?;
            ensure!(status == 200 && session["state"] == "active", "{status} {session}");
            moved.hang_up().await.context("it was shared")?;
            world.await_no_places().await
        })
    })
}
