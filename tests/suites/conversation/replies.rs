//! Replies that are slow, fail or never come: what becomes of their session, and of everybody else.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamfleet_client::EndReason;
use streamfleet_tests::{Server, judged};

use crate::caller::{Caller, Plan, Via};
use crate::endings::check_reason;
use crate::turns::{TURN, check_turns, turn};
use crate::{PATIENCE, blocking, on_each, plain, service};

/// What the protocol promises of `DELETE`: a session does not wait for its handler to be ended.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// What becomes of a session whose reply does this.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It ends with its handler's error.
    Fails,
    /// It goes on, and the reply comes late.
    Waits,
    /// It goes on, and nothing ever comes.
    Hangs,
}

const ROWS: [(&str, Fate); 4] = [
    ("pause-broken", Fate::Fails),
    ("pause-panic", Fate::Fails),
    ("pause-slow", Fate::Waits),
    ("pause-stuck", Fate::Hangs),
];

fn services(name: &str) -> Vec<Value> {
    [plain(&[name]), vec![service("echo", "plain-echo", json!({}))]].concat()
}

/// A request of control, answered in time.
pub(crate) fn control(server: &Server, method: &str, path: &str) -> Result<Value> {
    let began = Instant::now();
    let answer = blocking(|| server.control(method, path))?;
    let took = began.elapsed();
    ensure!(answer.status == 200, "{method} {path}: {answer:?}");
    ensure!(took <= ANSWERED_WITHIN, "{method} {path}: answered after {took:?}");
    answer.json()
}

/// Ends a session whatever its handler does.
pub(crate) async fn end(server: &Server, service: &str, caller: &Caller) -> Result<()> {
    let ended = control(server, "DELETE", &format!("/{service}/sessions/{}", caller.id()))?;
    ensure!(ended["reason"] == "ended_by_control", "{ended}");
    let (_, reason) = caller.ended(PATIENCE).await?;
    ensure!(reason == EndReason::ClosedByServer, "{reason:?}");
    Ok(())
}

/// Says a tone while `story` is told, and sees that all of it has come back by then: nobody who is quiet is heard.
pub(crate) async fn unbroken<T>(neighbour: &Caller, story: impl Future<Output = Result<T>>) -> Result<T> {
    let (mut said, heard_before) = (0.0, neighbour.look(|told| told.sound.loud_seconds()));
    let speaks = async {
        loop {
            neighbour.say(440.0, 0.2).await?;
            said += 0.2;
        }
    };
    let told = tokio::select! {
        never = speaks => return never,
        told = story => told?,
    };
    let heard = neighbour.look(|told| told.sound.loud_seconds()) - heard_before;
    // The client takes up to a fifth of a second ahead, and its jitter buffer holds three tenths.
    ensure!(heard >= 0.97 * said - 0.6, "the neighbour heard {heard:.2} s of {said:.2} s");
    Ok(told)
}

/// Whatever becomes of one session's reply: another has its echo, control answers, and the place is given back.
#[test]
fn a_reply_that_is_slow_fails_or_never_comes_harms_no_neighbour() -> Result<()> {
    judged(|| {
        for (name, fate) in ROWS {
            let server = on_each(services(name), |server, via| async move {
                let neighbour = Caller::dial(&server, via, Plan::of("echo")).await?;
                let caller = Caller::dial(&server, via, Plan::of(name)).await?;
                let story = async {
                    turn(&caller, 330.0).await?;
                    control(&server, "GET", &format!("/{name}/sessions"))?;
                    match fate {
                        Fate::Fails => caller.ended(PATIENCE).await.map(drop),
                        Fate::Waits => {
                            let reply =
                                |told: &crate::caller::Told| (told.sound.tone_seconds(660.0) >= 0.9).then_some(());
                            caller.until("the late reply", PATIENCE, reply).await?;
                            check_turns(&caller, via, &TURN)?;
                            end(&server, name, &caller).await
                        }
                        Fate::Hangs => {
                            check_turns(&caller, via, &["started_talking", "pause_detected"])?;
                            ensure!(caller.look(|told| told.end().is_none()), "a reply that never comes ends nothing");
                            end(&server, name, &caller).await
                        }
                    }
                };
                unbroken(&neighbour, story).await?;
                caller.hang_up().await;
                neighbour.hang_up().await;
                Ok(())
            })
            .context(name)?;
            let reason = if fate == Fate::Fails { "handler_error" } else { "ended_by_control" };
            check_reason(&server, reason, Via::ALL.len()).context(name)?;
        }
        Ok(())
    })
}
