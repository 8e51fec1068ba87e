//! Calls that begin, and are asked for, while the store is away.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use streamfleet_client::EndReason;
use streamfleet_store::Phase;
use streamfleet_tests::{Shape, Wires, judged};

use crate::caller::{Plan, SAID_HZ};
use crate::redis_lost::{OUTAGE, Outage, known};
use crate::{HEARTBEAT, LEASE, PATIENCE, World, blocking, in_a_fleet, measured, offer, plain, shape, until};

fn calls_begin(outage: Outage) -> Result<()> {
    let wires = if outage == Outage::CutOff { Wires::Links } else { Wires::Direct };
    in_a_fleet(Shape { wires, ..shape(plain(&["memory"])) }, async |world: &mut World| {
        let elder = world.dial(0, Plan::of("memory")).await?;
        elder.hears(SAID_HZ, Instant::now()).await?;
        let active = async || {
            let known = known(world).await?;
            Ok((known.len() == 1 && known.values().all(|entry| entry.3 == Phase::Active)).then_some(known))
        };
        let (before, _) = until("it is active", PATIENCE, active).await?;

        let lost = Instant::now();
        outage.begin(world)?;
        let mut begun = Vec::new();
        for router in [0, 1] {
            let asked = Instant::now();
            let caller = world.dial(router, Plan::of("memory")).await?;
            measured(&format!("store {outage:?}: a call begins"), asked.elapsed());
            caller.hears(SAID_HZ, asked).await?;
            begun.push(caller);
        }
        for router in [0, 1] {
            for caller in begun.iter().chain([&elder]) {
                let id = caller.id().as_str();
                let (status, answer) = world.ask(router, "POST", "/memory/webrtc/offer", &offer(id, 1))?;
                ensure!(answer["meta"]["error"] == "connection_already_exists", "{id}: {status} {answer}");
                let (status, session) = world.ask(router, "GET", &format!("/memory/sessions/{id}"), &Value::Null)?;
                ensure!(
                    status == 200 && session["id"] == id && session["state"] == "active",
                    "session by router {router}: {status} {session}"
                );
                let (status, data) = world.ask(router, "GET", &format!("/memory/sessions/{id}/data"), &Value::Null)?;
                ensure!(status == 200 && data == json!({ "visits": 1 }), "data by router {router}: {status} {data}");
            }
            let ready = blocking(|| world.fleet.routers[router].server.admin_status("/readyz"))?;
            ensure!(ready == 200, "router {router} may still serve, and says {ready}");
            let (status, _) = world.ask(router, "GET", "/memory/sessions/nobody", &Value::Null)?;
            ensure!(status == 404, "every worker says that nobody has it: {status}");
        }
        // By the router that has not placed it.
        let ended = begun.remove(1);
        world.end(0, "memory", ended.id().as_str())?;
        let (_, reason) = ended.ended(PATIENCE).await?;
        ensure!(reason == EndReason::ClosedByServer, "{reason:?}");
        tokio::time::sleep(OUTAGE.saturating_sub(lost.elapsed())).await;

        outage.end(world)?;
        let back = Instant::now();
        let (stays, old) = (begun.remove(0), elder.id().as_str());
        let both = async || {
            let known = known(world).await?;
            let entry = known.get(stays.id().as_str());
            let is_there = known.len() == 2 && entry.is_some_and(|entry| entry.3 == Phase::Active);
            Ok((is_there && known.get(old) == before.get(old)).then_some(known))
        };
        let (all, _) = until("both are known", PATIENCE, both).await?;
        measured(&format!("store {outage:?}: a call that began meanwhile is known"), back.elapsed());
        // A second owner or a lost one would show by now.
        tokio::time::sleep(LEASE + HEARTBEAT).await;
        ensure!(known(world).await? == all, "{:?} was {all:?}", known(world).await?);
        elder.check_unbroken(lost)?;
        stays.check_unbroken(back)?;
        for (router, caller) in [(1, &elder), (1, &stays)] {
            world.end(router, "memory", caller.id().as_str())?;
        }
        world.await_no_places().await
    })
}

#[test]
fn calls_begin_while_the_store_is_stopped() -> Result<()> {
    judged(|| calls_begin(Outage::Stopped))
}

#[test]
fn calls_begin_while_the_store_is_gone() -> Result<()> {
    judged(|| calls_begin(Outage::Restarted))
}

#[test]
fn calls_begin_while_nobody_reaches_the_store() -> Result<()> {
    judged(|| calls_begin(Outage::CutOff))
}
