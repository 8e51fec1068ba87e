//! Conversations in turns: `ReplyOnPause`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use streamfleet_client::{Event, Message};

use crate::caller::{Caller, Plan, Told, Via};
use crate::outputs::post;
use crate::{PATIENCE, on_each, plain};

const TURN: [&str; 3] = ["started_talking", "pause_detected", "response_starting"];
/// This much speech is sure to fill 0.2 s of a chunk of 0.6 s, and this much silence to be a whole one.
const SPEECH_S: f64 = 0.9;
const SILENCE_S: f64 = 1.2;
/// An interruption takes effect within 60 ms of the decision. What is added to it here is the way to the client and its
/// jitter buffer, on a machine that does more than this; what waited for the client without `clear` would be 400 ms and more.
const INTERRUPTED_WITHIN: Duration = Duration::from_millis(300);

const HANDLER_ERROR: &str = "reason=\"handler_error\"";

/// Says something and pauses.
async fn turn(caller: &Caller, hz: f64) -> Result<()> {
    caller.say(hz, SPEECH_S).await?;
    caller.say(0.0, SILENCE_S).await
}

/// What a client of this transport is told of the turns: telephones of none.
fn expected<'a>(via: Via, words: &[&'a str]) -> Vec<&'a str> {
    if via == Via::Telephone { Vec::new() } else { words.to_vec() }
}

fn check_turns(caller: &Caller, via: Via, words: &[&str]) -> Result<()> {
    caller.look(|told| {
        let (told, expected) = (told.turns(), expected(via, words));
        ensure!(told == expected, "{told:?} is not {expected:?}");
        Ok(())
    })
}

#[test]
fn a_pause_is_answered_in_order_and_with_the_whole_reply() -> Result<()> {
    on_each(plain(&["pause"]), |server, via| async move {
        let caller = Caller::dial(&server, via, Plan::of("pause")).await?;
        for (n, hz) in [(1, 440.0), (2, 330.0)] {
            turn(&caller, hz).await?;
            let reply = 2.0 * hz as f32;
            caller.until("the reply", PATIENCE, |told| (told.sound.tone_seconds(reply) >= 0.94).then_some(())).await?;
            // Its end, if there is more of it than there should be.
            caller.say(0.0, 0.3).await?;
            check_turns(&caller, via, &TURN.repeat(n))?;
            let whole = caller.look(|told| told.sound.tone_seconds(reply));
            ensure!((0.94..=1.2).contains(&whole), "{whole} s of a reply of one second");
        }
        caller.hang_up().await;
        Ok(())
    })
    .map(drop)
}

#[test]
fn who_says_nothing_gets_no_reply() -> Result<()> {
    on_each(plain(&["pause"]), |server, via| async move {
        let caller = Caller::dial(&server, via, Plan::of("pause")).await?;
        caller.say(0.0, 2.0).await?;
        check_turns(&caller, via, &[])?;
        ensure!(caller.look(|told| told.sound.loud_seconds()) == 0.0, "a reply to nothing");
        caller.hang_up().await;
        Ok(())
    })
    .map(drop)
}

/// When the client was told that the turn which interrupts was over: by words, or by Twilio's `clear`.
fn interrupted_at(via: Via, told: &Told) -> Option<Instant> {
    if via == Via::Telephone {
        // The first turn clears too, when there is nothing to clear.
        return told.events.iter().rev().find(|(_, event)| *event == Event::Cleared).map(|(at, _)| *at);
    }
    let pause = |message: &Message| *message == Message::Log("pause_detected".to_owned());
    told.messages().filter(|(_, message)| pause(message)).nth(1).map(|(at, _)| at)
}

#[test]
fn an_interruption_takes_back_what_was_not_heard() -> Result<()> {
    on_each(plain(&["pause-long"]), |server, via| async move {
        let caller = Caller::dial(&server, via, Plan::of("pause-long")).await?;
        turn(&caller, 440.0).await?;
        // The reply is said faster than it plays: by now what may be ahead is.
        caller.until("the reply", PATIENCE, |told| (told.sound.tone_seconds(880.0) >= 0.5).then_some(())).await?;
        caller.say(0.0, 1.2).await?;
        turn(&caller, 330.0).await?;
        caller
            .until("the second reply", PATIENCE, |told| (told.sound.tone_seconds(660.0) >= 0.5).then_some(()))
            .await?;
        check_turns(&caller, via, &TURN.repeat(2))?;
        let at = caller.look(|told| interrupted_at(via, told)).context("the interruption was not told")?;
        let (_, last) = caller.look(|told| told.sound.when(880.0)).context("no first reply")?;
        let after = last.saturating_duration_since(at);
        ensure!(after <= INTERRUPTED_WITHIN, "the first reply went on for {after:?}");
        let (first, _) = caller.look(|told| told.sound.when(660.0)).context("no second reply")?;
        ensure!(first + Duration::from_millis(40) > last, "the two replies are mixed");
        caller.hang_up().await;
        Ok(())
    })
    .map(drop)
}

#[test]
fn a_patient_handler_finishes_its_reply() -> Result<()> {
    on_each(plain(&["pause-patient"]), |server, via| async move {
        let caller = Caller::dial(&server, via, Plan::of("pause-patient")).await?;
        turn(&caller, 440.0).await?;
        turn(&caller, 330.0).await?;
        caller.until("the reply", PATIENCE, |told| (told.sound.tone_seconds(880.0) >= 2.0).then_some(())).await?;
        check_turns(&caller, via, &TURN)?;
        ensure!(caller.look(|told| told.sound.tone_seconds(660.0)) < 0.1, "the interruption was heard");
        caller.hang_up().await;
        Ok(())
    })
    .map(drop)
}

#[test]
fn a_greeting_comes_before_anything_was_said() -> Result<()> {
    on_each(plain(&["pause-greeting"]), |server, via| async move {
        let caller = Caller::dial(&server, via, Plan::of("pause-greeting")).await?;
        caller.until("the greeting", PATIENCE, |told| (told.sound.tone_seconds(990.0) >= 0.9).then_some(())).await?;
        check_turns(&caller, via, &["response_starting"])?;
        caller.hang_up().await;
        Ok(())
    })
    .map(drop)
}

#[test]
fn a_reply_waits_for_its_arguments() -> Result<()> {
    on_each(plain(&["pause-arguments"]), |server, via| async move {
        let caller = Caller::dial(&server, via, Plan::of("pause-arguments")).await?;
        turn(&caller, 440.0).await?;
        if via == Via::Telephone {
            // A telephone has nobody who could send them: it is not asked.
            caller.until("the reply", PATIENCE, |told| (told.sound.tone_seconds(770.0) >= 0.9).then_some(())).await?;
            caller.hang_up().await;
            return Ok(());
        }
        check_turns(&caller, via, &["started_talking", "pause_detected", "send_input"])?;
        ensure!(caller.look(|told| told.sound.loud_seconds()) == 0.0, "a reply without its arguments");
        let inputs = json!({ "webrtc_id": caller.id().as_str(), "inputs": [550] });
        ensure!(post(&server, "/pause-arguments/input_hook", &inputs)?.status == 200, "the arguments are refused");
        caller.until("the reply", PATIENCE, |told| (told.sound.tone_seconds(550.0) >= 0.9).then_some(())).await?;
        check_turns(&caller, via, &["started_talking", "pause_detected", "send_input", "response_starting"])?;
        caller.hang_up().await;
        Ok(())
    })
    .map(drop)
}

#[test]
fn a_reply_can_be_asked_for() -> Result<()> {
    let mut services = plain(&["pause"]);
    services.push(crate::service("echo", "plain-echo", json!({})));
    on_each(services, |server, via| async move {
        let caller = Caller::dial(&server, via, Plan::of("pause")).await?;
        let other = Caller::dial(&server, via, Plan::of("echo")).await?;
        let answer = post(&server, "/pause/trigger_response", &json!({ "webrtc_id": caller.id().as_str() }))?;
        ensure!(answer.status == 200 && answer.json()? == json!({ "status": "success" }), "{:?}", answer.text());
        let refused = post(&server, "/echo/trigger_response", &json!({ "webrtc_id": other.id().as_str() }))?;
        ensure!(refused.refusal() == "not_a_reply_on_pause", "{:?}", refused.text());
        // Nothing was said: it answers 440 Hz.
        caller.until("the reply", PATIENCE, |told| (told.sound.tone_seconds(880.0) >= 0.9).then_some(())).await?;
        caller.hang_up().await;
        other.hang_up().await;
        Ok(())
    })
    .map(drop)
}

/// Whatever becomes of one session's reply: another has its 50 packets a second, and the place is given back.
#[test]
fn a_reply_that_fails_or_never_comes_harms_no_neighbour() -> Result<()> {
    for (name, errors) in [("pause-broken", 3.0), ("pause-panic", 3.0), ("pause-stuck", 0.0)] {
        let server = on_each(plain(&[name, "plain-tone"]), |server, via| async move {
            let neighbour = Caller::dial(&server, via, Plan::of("plain-tone")).await?;
            let caller = Caller::dial(&server, via, Plan::of(name)).await?;
            let (began, before) = (Instant::now(), neighbour.look(|told| told.sound.tone_seconds(660.0)));
            turn(&caller, 440.0).await?;
            if name == "pause-stuck" {
                check_turns(&caller, via, &["started_talking", "pause_detected"])?;
                ensure!(caller.look(|told| told.end().is_none()), "a reply that never comes ends nothing");
            } else {
                caller.ended(PATIENCE).await?;
            }
            let took = began.elapsed().as_secs_f64();
            let heard = neighbour.look(|told| told.sound.tone_seconds(660.0)) - before;
            // What is on its way and what a client buffers at first is a quarter of a second.
            ensure!(heard >= 0.97 * took - 0.25, "the neighbour heard {heard:.2} s in {took:.2} s");
            caller.hang_up().await;
            neighbour.hang_up().await;
            Ok(())
        });
        let ended = server.context(name)?.metrics()?.sum_where("streamfleet_sessions_ended_total", HANDLER_ERROR);
        ensure!(ended.unwrap_or(0.0) == errors, "{name}: {ended:?} sessions ended for their handler's error");
    }
    Ok(())
}
