//! Conversations in turns: `ReplyOnPause`.

use anyhow::{Result, ensure};
use serde_json::json;
use streamfleet_tests::judged;

use crate::caller::{Caller, Plan, Via};
use crate::outputs::post;
use crate::{PATIENCE, on_each, plain};

pub(crate) const TURN: [&str; 3] = ["started_talking", "pause_detected", "response_starting"];
/// This much speech is sure to fill 0.2 s of a chunk of 0.6 s, and this much silence to be a whole one.
pub(crate) const SPEECH_S: f64 = 0.9;
const SILENCE_S: f64 = 1.2;
/// Says something and pauses.
pub(crate) async fn turn(caller: &Caller, hz: f64) -> Result<()> {
    caller.say(hz, SPEECH_S).await?;
    caller.say(0.0, SILENCE_S).await
}

/// What a client of this transport is told of the turns: telephones of none.
fn expected<'a>(via: Via, words: &[&'a str]) -> Vec<&'a str> {
    if via == Via::Telephone { Vec::new() } else { words.to_vec() }
}

pub(crate) fn check_turns(caller: &Caller, via: Via, words: &[&str]) -> Result<()> {
    caller.look(|told| {
        let (told, expected) = (told.turns(), expected(via, words));
        ensure!(told == expected, "{told:?} is not {expected:?}");
        Ok(())
    })
}

#[test]
fn a_pause_is_answered_in_order_and_with_the_whole_reply() -> Result<()> {
    judged(|| {
        on_each(plain(&["pause"]), |server, via| async move {
            let caller = Caller::dial(&server, via, Plan::of("pause")).await?;
            for (n, hz) in [(1, 440.0), (2, 330.0)] {
                turn(&caller, hz).await?;
                let reply = 2.0 * hz as f32;
                caller
                    .until("the reply", PATIENCE, |told| (told.sound.tone_seconds(reply) >= 0.94).then_some(()))
                    .await?;
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
    })
}

#[test]
fn who_says_nothing_gets_no_reply() -> Result<()> {
    judged(|| {
        on_each(plain(&["pause"]), |server, via| async move {
            let caller = Caller::dial(&server, via, Plan::of("pause")).await?;
            caller.say(0.0, 2.0).await?;
            check_turns(&caller, via, &[])?;
            ensure!(caller.look(|told| told.sound.loud_seconds()) == 0.0, "a reply to nothing");
            caller.hang_up().await;
            Ok(())
        })
        .map(drop)
    })
}

#[test]
fn a_patient_handler_finishes_its_reply() -> Result<()> {
    judged(|| {
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
    })
}

#[test]
fn a_greeting_comes_before_anything_was_said() -> Result<()> {
    judged(|| {
        on_each(plain(&["pause-greeting"]), |server, via| async move {
            let caller = Caller::dial(&server, via, Plan::of("pause-greeting")).await?;
            caller
                .until("the greeting", PATIENCE, |told| (told.sound.tone_seconds(990.0) >= 0.9).then_some(()))
                .await?;
            check_turns(&caller, via, &["response_starting"])?;
            caller.hang_up().await;
            Ok(())
        })
        .map(drop)
    })
}

#[test]
fn a_reply_waits_for_its_arguments() -> Result<()> {
    judged(|| {
        on_each(plain(&["pause-arguments"]), |server, via| async move {
            let caller = Caller::dial(&server, via, Plan::of("pause-arguments")).await?;
            turn(&caller, 440.0).await?;
            if via == Via::Telephone {
                // A telephone has nobody who could send them: it is not asked.
                caller
                    .until("the reply", PATIENCE, |told| (told.sound.tone_seconds(770.0) >= 0.9).then_some(()))
                    .await?;
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
    })
}

#[test]
fn a_reply_can_be_asked_for() -> Result<()> {
    judged(|| {
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
    })
}
