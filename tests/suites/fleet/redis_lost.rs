//! The store is away: stopped, restarted empty, or cut off from some or all.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamfleet_client::EndReason;
use streamfleet_store::{ContextId, Phase, Ticket};
use streamfleet_tests::{Part, Shape, Wires, judged};

use crate::caller::{Caller, Plan, SAID_HZ};
use crate::{HEARTBEAT, LEASE, PATIENCE, SLACK, World, blocking, in_a_fleet, measured, plain, shape, until};

/// Longer than a lease and any deadline of the store's.
pub(crate) const OUTAGE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    /// It does not answer, and has all that it had.
    Stopped,
    /// It is gone, and comes back with nothing.
    Restarted,
    /// Nobody reaches it.
    CutOff,
}

impl Outage {
    pub(crate) fn begin(self, world: &mut World) -> Result<()> {
        match self {
            Self::Stopped => world.fleet.redis.signal("STOP"),
            Self::Restarted => world.fleet.redis.kill(),
            Self::CutOff => each_link(world, |link| link.hold()),
        }
    }

    pub(crate) fn end(self, world: &mut World) -> Result<()> {
        match self {
            Self::Stopped => world.fleet.redis.signal("CONT"),
            Self::Restarted => blocking(|| world.fleet.redis.restart()),
            Self::CutOff => each_link(world, |link| link.release()),
        }
    }
}

fn each_link(world: &World, act: impl Fn(&streamfleet_tests::Link)) -> Result<()> {
    for part in world.fleet.routers.iter().chain(&world.fleet.workers) {
        act(link(part)?);
    }
    Ok(())
}

fn link(part: &Part) -> Result<&streamfleet_tests::Link> {
    part.store.as_ref().context("no link")
}

/// What makes a session that session, by its id.
pub(crate) type Known = BTreeMap<String, (Ticket, ContextId, String, Phase)>;

pub(crate) async fn known(world: &World) -> Result<Known> {
    let held = world.held("memory").await?;
    let entry = |live: streamfleet_store::LiveSession| {
        (live.session.to_string(), (live.ticket, live.context, live.at.worker.to_string(), live.phase))
    };
    Ok(held.into_iter().map(entry).collect())
}

fn outlives(outage: Outage) -> Result<()> {
    let wires = if outage == Outage::CutOff { Wires::Links } else { Wires::Direct };
    in_a_fleet(Shape { wires, ..shape(plain(&["memory"])) }, async |world: &mut World| {
        let mut callers = Vec::new();
        for router in [0, 1, 0] {
            callers.push(world.dial(router, Plan::of("memory")).await?);
        }
        for caller in &callers {
            caller.hears(SAID_HZ, Instant::now()).await?;
        }
        let all_active = async || {
            let known = known(world).await?;
            Ok((known.len() == 3 && known.values().all(|entry| entry.3 == Phase::Active)).then_some(known))
        };
        let (before, _) = until("all are active", PATIENCE, all_active).await?;
        let token = callers[0].token().await?;

        let lost = Instant::now();
        outage.begin(world)?;
        tokio::time::sleep(OUTAGE).await;
        for (caller, router) in callers.iter().zip([0, 1, 0]) {
            caller.check_unbroken(lost)?;
            // The router that has placed it knows where it is, and its worker knows the rest.
            let asked = Instant::now();
            let path = format!("/memory/sessions/{}", caller.id());
            let (status, session) = world.ask(router, "GET", &path, &Value::Null)?;
            ensure!(status == 200 && session["state"] == "active", "{status} {session}");
            let (status, data) = world.ask(router, "GET", &format!("{path}/data"), &Value::Null)?;
            ensure!(status == 200 && data == json!({ "visits": 1 }), "{status} {data}");
            ensure!(asked.elapsed() < PATIENCE / 4, "after {:?}", asked.elapsed());
        }
        outage.end(world)?;
        let back = Instant::now();
        let as_before = async || Ok((known(world).await? == before).then_some(()));
        until("all sessions are known as before", PATIENCE, as_before).await?;
        measured(&format!("store {outage:?}: all sessions are known again"), back.elapsed());
        // A second owner or a lost one would show by now.
        tokio::time::sleep(LEASE + HEARTBEAT).await;
        ensure!(known(world).await? == before, "{:?} was {before:?}", known(world).await?);
        world.await_workers(2).await?;
        ensure!(world.places("memory").await? == 3, "a place for each");
        for router in 0..2 {
            let listed = blocking(|| world.fleet.routers[router].sessions("/memory"))?;
            let ids: Vec<&str> = listed.iter().filter_map(|session| session["id"].as_str()).collect();
            ensure!(ids.len() == 3 && ids.iter().all(|id| before.contains_key(*id)), "{ids:?}");
        }
        for caller in &callers {
            caller.check_unbroken(lost)?;
            let path = format!("/memory/sessions/{}/data", caller.id());
            let (status, data) = world.ask(1, "GET", &path, &Value::Null)?;
            ensure!(status == 200 && data == json!({ "visits": 1 }), "{status} {data}");
        }
        // Its context outlives the outage as well as the session does.
        let first = callers.remove(0);
        let id = first.id().clone();
        first.hang_up().await;
        let over = async || Ok(world.held("memory").await?.iter().all(|live| live.session != id).then_some(()));
        until("it is over", PATIENCE, over).await?;
        let again = world.dial(1, Plan { id: id.clone(), resume: Some(token), ..Plan::of("memory") }).await?;
        ensure!(world.resumed(0, id.as_str(), 2)?, "with its context");
        callers.push(again);
        for (n, caller) in callers.iter().enumerate() {
            world.end(n % 2, "memory", caller.id().as_str())?;
        }
        ensure!(world.held("memory").await?.is_empty(), "nothing is left");
        world.await_no_places().await
    })
}

#[test]
fn live_calls_outlive_a_store_that_stops() -> Result<()> {
    judged(|| outlives(Outage::Stopped))
}

#[test]
fn live_calls_outlive_a_store_that_comes_back_empty() -> Result<()> {
    judged(|| outlives(Outage::Restarted))
}

#[test]
fn live_calls_outlive_a_store_that_nobody_reaches() -> Result<()> {
    judged(|| outlives(Outage::CutOff))
}

/// A worker that is cut off for longer than its lease goes on, and its sessions' ids are given to others. When it is back
/// there are two of one id: the one that was there first stays.
#[test]
fn of_two_sessions_of_one_id_the_younger_ends() -> Result<()> {
    judged(|| {
        in_a_fleet(Shape { wires: Wires::Links, ..shape(plain(&["memory"])) }, async |world: &mut World| {
            let elder = world.dial_on(0, "w0", || Plan::of("memory")).await?;
            elder.hears(SAID_HZ, Instant::now()).await?;
            let id = elder.id().clone();
            let all_active = async || {
                let known = known(world).await?;
                Ok((known.len() == 1 && known.values().all(|entry| entry.3 == Phase::Active)).then_some(known))
            };
            let (before, _) = until("it is active", PATIENCE, all_active).await?;

            let lost = Instant::now();
            link(&world.fleet.workers[0])?.hold();
            let free = async || Ok(known(world).await?.is_empty().then_some(()));
            until("the id is free", LEASE + HEARTBEAT + SLACK, free).await?;
            let younger = until("a stranger has the id", PATIENCE, async || {
                Ok(Caller::dial(&world.url(1, "memory"), Plan { id: id.clone(), ..Plan::of("memory") }).await.ok())
            });
            let (younger, _) = younger.await?;
            younger.hears(SAID_HZ, Instant::now()).await?;
            ensure!(world.worker_of("memory", id.as_str()).await? == "w1", "the worker that is known");
            elder.check_unbroken(lost)?;

            link(&world.fleet.workers[0])?.release();
            let back = Instant::now();
            let (_, reason) = younger.ended(PATIENCE).await?;
            ensure!(reason == EndReason::ClosedByServer, "{reason:?}");
            measured("worker cut off and back: the younger session of its id is over", back.elapsed());
            let as_before = async || Ok((known(world).await? == before).then_some(()));
            until("the elder is known as before", PATIENCE, as_before).await?;
            let told_why = async || {
                let audit = world.fleet.workers[1].server.printed();
                let is = |line: &str| line.contains("session ended") && line.contains("superseded");
                Ok(audit.lines().any(is).then_some(()))
            };
            until("its worker says why", PATIENCE, told_why).await?;
            elder.check_unbroken(lost)?;
            world.end(1, "memory", id.as_str())?;
            world.await_no_places().await
        })
    })
}
