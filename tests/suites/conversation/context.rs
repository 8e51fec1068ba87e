//! Who is calling, and what is remembered of them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamfleet_client::Resume;
use streamfleet_tests::{Events, Server, http, judged};

use crate::caller::{Caller, Plan};
use crate::moves::Owner;
use crate::{PATIENCE, blocking, on_each, plain};

/// The next additional outputs of a session, in their order.
pub(crate) fn outputs(server: &Server, service: &str, caller: &Caller, count: usize) -> Result<Vec<Value>> {
    let url = format!("{}/{service}/outputs?webrtc_id={}", server.url(), caller.id());
    blocking(|| {
        let mut events = Events::open(&url, None)?;
        ensure!(events.status() == 200, "{}", events.status());
        (0..count).map(|_| Ok(events.next(PATIENCE)?.context("the outputs are over")?.data)).collect()
    })
}

#[test]
fn the_context_is_the_same_in_every_call_and_on_every_transport() -> Result<()> {
    judged(|| {
        on_each(plain(&["context"]), |server, via| async move {
            let metadata = vec![("colour", "red".to_owned()), ("user_id", "ann".to_owned())];
            let caller = Caller::dial(&server, via, Plan { metadata, ..Plan::of("context") }).await?;
            caller.say(440.0, 0.3).await?;
            let mut told = outputs(&server, "context", &caller, 3)?;
            told.sort_by_key(|told| told["in"].as_str().map(str::to_owned));
            for (told, place) in told.iter().zip(["emit", "receive", "task"]) {
                // No trace is made where nobody collects them, and nothing proves who calls.
                let expected = json!({
                    "in": place, "session": caller.id().as_str(), "transport": via.name(), "service": "context",
                    "user": "ann", "verified": false, "metadata": "red", "claims": {}, "variant": null, "resumed": false,
                    "trace": told["trace"],
                });
                ensure!(*told == expected, "{told} is not {expected}");
            }
            caller.hang_up().await;
            Ok(())
        })
        .map(drop)
    })
}

/// A request of the application's backend for the session's data.
fn backend(server: &Server, method: &str, caller: &Caller, tag: Option<&str>, body: &Value) -> Result<http::Response> {
    let url = format!("{}/memory/sessions/{}/data", server.url(), caller.id());
    let authorization = format!("Bearer {}", server.token());
    let mut headers = vec![("authorization", authorization.as_str())];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    if !body.is_empty() {
        headers.push(("content-type", "application/merge-patch+json"));
    }
    headers.extend(tag.map(|tag| ("if-match", tag)));
    blocking(|| http::request(method, &url, &headers, body.as_bytes()))
}

fn tag(response: &http::Response) -> Result<String> {
    let line = response.head.lines().find(|line| line.to_ascii_lowercase().starts_with("etag:"));
    Ok(line.with_context(|| format!("no ETag: {response:?}"))?[5..].trim().to_owned())
}

#[test]
fn the_handler_and_the_backend_share_the_data() -> Result<()> {
    judged(|| {
        on_each(plain(&["memory"]), |server, via| async move {
            let caller = Caller::dial(&server, via, Plan::of("memory")).await?;
            let first = outputs(&server, "memory", &caller, 1)?;
            ensure!(first == [json!({ "resumed": false, "data": { "visits": 1 } })], "{first:?}");

            let read = backend(&server, "GET", &caller, None, &Value::Null)?;
            ensure!(read.status == 200, "{read:?}");
            let read_tag = tag(&read)?;
            ensure!(read.json()?.to_string().contains("\"visits\":1"), "{read:?} {:?}", read.text());
            let written = backend(&server, "PATCH", &caller, Some(&read_tag), &json!({ "note": "call back" }))?;
            ensure!(written.status == 200 && tag(&written)? != read_tag, "{written:?} {:?}", written.text());
            // Whoever has read the version before has not seen this one.
            let late = backend(&server, "PATCH", &caller, Some(&read_tag), &json!({ "note": "too late" }))?;
            ensure!(late.status == 412, "{late:?}");

            let seen = outputs(&server, "memory", &caller, 2)?;
            ensure!(seen[1] == json!({ "note": "call back", "visits": 1 }), "{seen:?}");

            let anybody = format!("{}/memory/sessions/{}/data", server.url(), caller.id());
            let stranger = blocking(|| http::request("GET", &anybody, &[], b""))?;
            ensure!(stranger.status == 401, "data for who shows nothing: {stranger:?}");
            caller.hang_up().await;
            Ok(())
        })
        .map(drop)
    })
}

/// A session's context comes back to its token alone: the id, which can be guessed, gives nothing away.
#[test]
fn a_context_comes_back_by_its_token_and_not_by_its_id() -> Result<()> {
    judged(|| {
        on_each(plain(&["memory"]), |server, via| async move {
            let owner = Owner::dial(&server, via, Plan::of("memory")).await?;
            let first = &owner.caller;
            let id = first.id().clone();
            ensure!(outputs(&server, "memory", first, 1)?[0]["data"]["visits"] == 1, "the first visit");
            let secret = backend(&server, "PATCH", first, None, &json!({ "note": "secret" }))?;
            ensure!(secret.status == 200, "{secret:?}");
            let token = owner.token().await?;
            owner.caller.hang_up().await;
            free(&server, id.as_str())?;

            // The same id, and no token or a wrong one.
            for resume in [None, Resume::new("0".repeat(token.expose().len()))] {
                let stranger =
                    Caller::dial(&server, via, Plan { id: id.clone(), resume, ..Plan::of("memory") }).await?;
                let told = outputs(&server, "memory", &stranger, 1)?;
                ensure!(told == [json!({ "resumed": false, "data": { "visits": 1 } })], "a stranger sees {told:?}");
                stranger.hang_up().await;
                free(&server, id.as_str())?;
            }

            // A telephone shows it in a second call.
            let plan = Plan { id: id.clone(), resume: Some(token), ..Plan::of("memory") };
            let again = Caller::dial(&server, via, plan).await?;
            let told = outputs(&server, "memory", &again, 1)?;
            ensure!(told == [json!({ "resumed": true, "data": { "visits": 2, "note": "secret" } })], "{told:?}");
            again.hang_up().await;
            free(&server, id.as_str())?;
            Ok(())
        })
        .map(drop)
    })
}

/// Waits until an id is nobody's.
fn free(server: &Server, id: &str) -> Result<()> {
    blocking(|| {
        let began = std::time::Instant::now();
        while server.control("GET", &format!("/memory/sessions/{id}"))?.status != 404 {
            ensure!(began.elapsed() < PATIENCE, "the session goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    })
}
