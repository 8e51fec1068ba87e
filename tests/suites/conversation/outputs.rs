//! Additional outputs as server-sent events, and what a handler is given from outside.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamfleet_client::Message;
use streamfleet_tests::{Events, Server, http, judged};

use crate::caller::{Caller, Plan, Via};
use crate::{PATIENCE, blocking, on_each, plain};

/// Posts to one of the routes that name a session.
pub(crate) fn post(server: &Server, path: &str, body: &Value) -> Result<http::Response> {
    let url = format!("{}{path}", server.url());
    let headers = [("content-type", "application/json")];
    blocking(|| http::request("POST", &url, &headers, body.to_string().as_bytes()))
}

#[test]
fn outputs_are_announced_read_resumed_and_over() -> Result<()> {
    judged(|| {
        on_each(plain(&["outputs"]), |server, via| async move {
            let caller = Caller::dial(&server, via, Plan::of("outputs")).await?;
            let url = format!("{}/outputs/outputs?webrtc_id={}", server.url(), caller.id());
            let mut events = blocking(|| Events::open(&url, None))?;
            ensure!(events.status() == 200, "{}", events.status());
            let first = blocking(|| events.next(PATIENCE))?.context("no output")?;
            let second = blocking(|| events.next(PATIENCE))?.context("one output")?;
            ensure!((first.name.as_str(), &first.data) == ("output", &json!("ready")), "{first:?}");
            ensure!((second.name.as_str(), &second.data) == ("output", &json!(["with audio", 2])), "{second:?}");

            // Who comes back with the last id that was seen gets what was missed.
            let missed =
                blocking(|| Events::open(&url, Some(&first.id))?.next(PATIENCE))?.context("nothing was missed")?;
            ensure!(missed == second, "{missed:?}");

            if via != Via::Telephone {
                let fetch = |message: &Message| matches!(message, Message::FetchOutput);
                let count = |told: &crate::caller::Told| told.messages().filter(|(_, one)| fetch(one)).count();
                caller.until("two announcements", PATIENCE, |told| (count(told) == 2).then_some(())).await?;
            }
            caller
                .until("the tone beside them", PATIENCE, |told| (told.sound.tone_seconds(660.0) >= 0.4).then_some(()))
                .await?;
            caller.hang_up().await;

            // With the session the stream is over; who comes back gets the rest, and then 204.
            ensure!(blocking(|| events.next(PATIENCE))?.is_none(), "the stream goes on");
            let rest = blocking(|| Events::open(&url, Some(&first.id))?.next(PATIENCE))?;
            ensure!(rest == Some(second.clone()), "the rest: {rest:?}");
            let over = blocking(|| Events::open(&url, Some(&second.id)))?.status();
            ensure!(over == 204, "after the last one: {over}");
            let nobody = format!("{}/outputs/outputs?webrtc_id=nobody", server.url());
            let status = blocking(|| Events::open(&nobody, None))?.status();
            ensure!(status == 404, "outputs of nobody: {status}");
            Ok(())
        })
        .map(drop)
    })
}

#[test]
fn a_handler_gets_the_arguments_that_it_waits_for() -> Result<()> {
    judged(|| {
        on_each(plain(&["arguments"]), |server, via| async move {
            let caller = Caller::dial(&server, via, Plan::of("arguments")).await?;
            if via != Via::Telephone {
                caller.until("the question", PATIENCE, |told| (told.turns() == ["send_input"]).then_some(())).await?;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            ensure!(caller.look(|told| told.sound.loud_seconds()) == 0.0, "it speaks before it was told what to say");
            let answer =
                post(&server, "/arguments/input_hook", &json!({ "webrtc_id": caller.id().as_str(), "inputs": [550] }))?;
            ensure!(answer.status == 200, "{answer:?} {:?}", answer.text());
            caller.until("the tone", PATIENCE, |told| (told.sound.tone_seconds(550.0) >= 0.5).then_some(())).await?;
            caller.hang_up().await;
            Ok(())
        })
        .map(drop)
    })
}
