//! A router is killed, or told to go.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamfleet_client::EndReason;
use streamfleet_tests::{Shape, Wires, browser_offer, http, judged};

use crate::caller::{PLAYED_HZ, Plan, SAID_HZ};
use crate::{
    HEARTBEAT, PATIENCE, RESERVATION, SLACK, World, blocking, in_a_fleet, measured, plain, service, shape, until,
};

/// How long media is watched after a router has gone.
const WATCHED: Duration = Duration::from_secs(5);

#[test]
fn a_killed_router_is_not_noticed_by_webrtc_and_the_other_one_does_all() -> Result<()> {
    judged(|| {
        in_a_fleet(Shape { workers: 1, ..shape(vec![service("tone", "plain-tone")]) }, async |world: &mut World| {
            let caller = world.dial(0, Plan::of("tone")).await?;
            caller.hears(PLAYED_HZ, Instant::now()).await?;
            let killed = Instant::now();
            world.fleet.routers[0].server.kill()?;
            tokio::time::sleep(WATCHED).await;
            caller.check_unbroken(killed)?;
            println!("router killed: {:?}", caller.media_since(killed));
            let took = world.end(1, "tone", caller.id().as_str())?;
            measured("router killed: DELETE through the other", took);
            let (_, reason) = caller.ended(PATIENCE).await?;
            ensure!(reason == EndReason::ClosedByServer, "{reason:?}");
            world.await_no_places().await
        })
    })
}

#[test]
fn a_router_that_is_told_to_go_leaves_with_nothing_lost() -> Result<()> {
    judged(|| {
        in_a_fleet(Shape { workers: 1, ..shape(vec![service("tone", "plain-tone")]) }, async |world: &mut World| {
            let caller = world.dial(0, Plan::of("tone")).await?;
            caller.hears(PLAYED_HZ, Instant::now()).await?;
            let told = Instant::now();
            let router = &mut world.fleet.routers[0].server;
            ensure!(router.admin_status("/readyz")? == 200, "ready before");
            router.terminate()?;
            // Not ready from then on, or gone.
            until("it is not ready", PATIENCE, async || {
                let ready = blocking(|| router.admin_status("/readyz")).unwrap_or(503);
                Ok((ready != 200).then_some(()))
            })
            .await?;
            let status = blocking(|| router.wait(PATIENCE))?;
            ensure!(status.success(), "{status}");
            measured("router told to go: it is gone", told.elapsed());
            caller.check_unbroken(told)?;
            world.end(1, "tone", caller.id().as_str())?;
            world.await_no_places().await
        })
    })
}

/// The claim of a router that dies before its worker has heard of it: the id is held until the claim is void, by everybody's
/// clock but a dead router's, and what reaches the worker later begins nothing that stays.
#[test]
fn a_claim_of_a_router_that_dies_before_its_worker_hears_of_it_runs_out() -> Result<()> {
    judged(|| {
        let shape = Shape { workers: 1, wires: Wires::Links, ..shape(plain(&["memory"])) };
        in_a_fleet(shape, async |world: &mut World| {
            let plan = Plan::of("memory");
            let id = plan.id.to_string();
            let link = world.fleet.workers[0].http.as_ref().context("no link")?;
            link.hold();
            let url = format!("{}/webrtc/offer", world.url(0, "memory"));
            let body = json!({ "type": "offer", "webrtc_id": id, "sdp": browser_offer(1) });
            // It gets no answer: its router dies.
            let offered = thread::spawn(move || {
                http::request("POST", &url, &[("content-type", "application/json")], body.to_string().as_bytes())
            });
            let claimed = Instant::now();
            let one = async || Ok((world.places("memory").await? == 1).then_some(()));
            until("the claim", PATIENCE, one).await?;
            world.fleet.routers[0].server.kill()?;
            ensure!(offered.join().is_ok_and(|answer| answer.is_err()), "nobody answers");

            let body = json!({ "type": "offer", "webrtc_id": id, "sdp": "v=0\r\n" });
            let (_, answer) = world.ask(1, "POST", "/memory/webrtc/offer", &body)?;
            ensure!(answer["meta"]["error"] == "connection_already_exists", "{answer}");
            let none = async || Ok((world.places("memory").await? == 0).then_some(()));
            until("the claim is void", RESERVATION + HEARTBEAT + SLACK, none).await?;
            let took = claimed.elapsed();
            measured("router killed between claim and offer: the id is free", took);
            ensure!(took + SLACK > RESERVATION, "it was void after {took:?}");

            // What the dead router has sent arrives now: too late.
            world.fleet.workers[0].http.as_ref().context("no link")?.release();
            let again = world.dial(1, plan).await?;
            again.hears(SAID_HZ, Instant::now()).await?;
            let held = world.held("memory").await?;
            ensure!(held.len() == 1 && held[0].session.as_str() == id, "{held:?}");
            let (status, session) = world.ask(1, "GET", &format!("/memory/sessions/{id}"), &Value::Null)?;
            ensure!(status == 200 && session["state"] == "active", "{status} {session}");
            again.hang_up().await;
            world.await_no_places().await
        })
    })
}
