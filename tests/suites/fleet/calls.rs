//! Calls whose every request goes to another router.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use streamfleet_client::{EndReason, Message};
use streamfleet_tests::{Passed, Replicas, Shape, judged};

use crate::caller::{Caller, Plan, SAID_HZ};
use crate::{PATIENCE, World, blocking, in_a_fleet, plain, shape};

/// Ids that a path, a query, a key of the store or a list may trip over, and the longest.
fn odd_ids() -> Vec<String> {
    let longest = "x".repeat(128);
    ["a.b_c~d:e@f-G", "...", ":sessions:@", "0", &longest].map(str::to_owned).to_vec()
}

#[test]
fn every_request_of_a_call_goes_to_the_next_of_three_routers() -> Result<()> {
    judged(|| {
        let services = plain(&["memory", "arguments"]);
        in_a_fleet(Shape { routers: 3, ..shape(services) }, async |world: &mut World| {
            let replicas = world.fleet.replicas()?;
            for id in odd_ids() {
                a_whole_call(world, &replicas, &id).await.map_err(|error| error.context(id))?;
            }
            arguments_arrive(world, &replicas).await?;
            let passed = replicas.passed();
            for replica in 0..3 {
                let candidates = passed.iter().filter(|one| one.replica == replica && is_candidate(one)).count();
                let offers = passed.iter().filter(|one| one.replica == replica && is_answer(one)).count();
                println!("router {replica}: {candidates} candidates, {offers} offers");
                ensure!(candidates > 0, "no candidate went to router {replica}");
            }
            world.await_no_places().await
        })
    })
}

/// A candidate's answer has no description.
fn is_candidate(passed: &Passed) -> bool {
    passed.what.ends_with("/webrtc/offer") && passed.body.contains("\"success\"")
}

fn is_answer(passed: &Passed) -> bool {
    passed.what.ends_with("/webrtc/offer") && passed.body.contains("\"answer\"")
}

async fn a_whole_call(world: &World, replicas: &Replicas, id: &str) -> Result<()> {
    let before = replicas.passed().len();
    let began = Instant::now();
    let plan = Plan { id: id.parse()?, ..Plan::of("memory") };
    let caller = Caller::dial(&format!("{}/memory", replicas.url()), plan).await?;
    let setup: Vec<Passed> = replicas.passed().split_off(before);
    let (offers, candidates): (Vec<&Passed>, Vec<&Passed>) = setup.iter().partition(|one| is_answer(one));
    ensure!(offers.len() == 1 && !candidates.is_empty(), "{setup:?}");
    ensure!(candidates.iter().all(|one| is_candidate(one)), "a candidate that came first was not taken: {setup:?}");
    ensure!(setup.windows(2).all(|pair| pair[0].replica != pair[1].replica), "{setup:?}");
    // Both ways: it is the echo of what is said.
    caller.hears(SAID_HZ, began).await?;

    caller.call().send_text("hello").await?;
    let said =
        |message: &Message| matches!(message, Message::Log(log) if log == "Server received: hello").then_some(());
    caller.is_told("the acknowledgement", PATIENCE, said).await?;

    let begun = json!({ "resumed": false, "data": { "visits": 1 } });
    for router in 0..3 {
        ensure!(world.outputs(router, "memory", id, 1)? == [begun.clone()], "outputs by router {router}");
        let listed = blocking(|| world.fleet.routers[router].sessions("/memory"))?;
        ensure!(listed.len() == 1 && listed[0]["id"] == id && listed[0]["state"] == "active", "{listed:?}");
    }
    let escaped: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for (n, path) in [id, &escaped].into_iter().enumerate() {
        let (status, session) = world.ask(n, "GET", &format!("/memory/sessions/{path}"), &Value::Null)?;
        ensure!(status == 200 && session["id"] == id && session["transport"] == "webrtc", "{status} {session}");
    }
    let path = format!("/memory/sessions/{id}/data");
    let (status, _) = world.ask(0, "PATCH", &path, &json!({ "note": id }))?;
    let (read, data) = world.ask(1, "GET", &path, &Value::Null)?;
    ensure!((status, read) == (200, 200) && data == json!({ "note": id, "visits": 1 }), "{status} {read} {data}");
    let noted = world.outputs(2, "memory", id, 2)?;
    ensure!(noted[1] == json!({ "note": id, "visits": 1 }), "{noted:?}");

    world.end(2, "memory", id)?;
    let (_, reason) = caller.ended(PATIENCE).await?;
    ensure!(reason == EndReason::ClosedByServer, "{reason:?}");
    for router in 0..3 {
        let listed = blocking(|| world.fleet.routers[router].sessions("/memory"))?;
        ensure!(listed.is_empty(), "router {router} still lists {listed:?}");
    }
    Ok(())
}

/// A handler that waits for arguments gets them by whichever router.
async fn arguments_arrive(world: &World, replicas: &Replicas) -> Result<()> {
    let caller = Caller::dial(&format!("{}/arguments", replicas.url()), Plan::of("arguments")).await?;
    caller.is_told("the question", PATIENCE, |message| (*message == Message::SendInput).then_some(())).await?;
    let asked = Instant::now();
    let body = json!({ "webrtc_id": caller.id().as_str(), "inputs": [550] });
    let (status, answer) = world.ask(1, "POST", "/arguments/input_hook", &body)?;
    ensure!(status == 200 && answer["status"] == "success", "{status} {answer}");
    caller.hears(550.0, asked).await?;
    caller.hang_up().await;
    Ok(())
}
