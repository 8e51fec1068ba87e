//! Ids and places: one space for all transports.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use streamfleet_client::ClientError;
use streamfleet_tests::{Server, judged};

use crate::caller::{Caller, Plan, Via, refusal};
use crate::{PATIENCE, each, pairs, service};

/// Sees that a call is refused with this error. A telephone hears nothing of why: its call ends, and nothing was heard in it.
async fn check_refused(server: &Server, via: Via, plan: Plan, error: &str, limit: Option<u64>) -> Result<()> {
    let dialled = Caller::dial(server, via, plan).await;
    if via != Via::Telephone {
        let refused = refusal(dialled)?;
        ensure!((refused.error.as_str(), refused.limit) == (error, limit), "{refused:?}");
        return Ok(());
    }
    match dialled {
        Ok(caller) => {
            caller.listen_to_the_end(PATIENCE).await.context("the call is not refused")?;
            ensure!(caller.look(|told| told.sound.loud_seconds()) == 0.0, "something is heard");
        }
        Err(ClientError::Refused(_) | ClientError::SocketClosed { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

pub(crate) async fn check_echo(caller: &Caller) -> Result<()> {
    caller.say(440.0, 0.6).await?;
    caller.until("the echo", PATIENCE, |told| (told.sound.tone_seconds(440.0) >= 0.4).then_some(())).await
}

#[test]
fn an_id_in_use_is_refused_whatever_carries_it() -> Result<()> {
    judged(|| {
        let services = vec![service("echo", "plain-echo", json!({}))];
        each(services, pairs(), |server, (first, second)| async move {
            let caller = Caller::dial(&server, first, Plan::of("echo")).await?;
            let plan = Plan { id: caller.id().clone(), ..Plan::of("echo") };
            check_refused(&server, second, plan, "connection_already_exists", None).await?;
            // Whoever came first is not disturbed.
            check_echo(&caller).await?;
            caller.hang_up().await;
            Ok(())
        })
        .map(drop)
    })
}

#[test]
fn a_limit_counts_sessions_of_every_transport() -> Result<()> {
    judged(|| {
        let services =
            (0..9).map(|n| service(&format!("one-{n}"), "plain-echo", json!({ "concurrency": 1 }))).collect();
        let rows = pairs().enumerate().map(|(n, (name, (first, second)))| (name, (n, first, second)));
        each(services, rows, |server, (n, first, second)| async move {
            let path = format!("one-{n}");
            let caller = Caller::dial(&server, first, Plan::of(&path)).await?;
            check_echo(&caller).await?;
            check_refused(&server, second, Plan::of(&path), "concurrency_limit_reached", Some(1)).await?;
            caller.hang_up().await;
            // Its place is free within a second, and is the other's.
            let free = async {
                loop {
                    let next = Caller::dial(&server, second, Plan::of(&path)).await;
                    if let Ok(next) = next
                        && check_echo(&next).await.is_ok()
                    {
                        return next;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(PATIENCE, free).await.context("the place is not given back")?.hang_up().await;
            Ok(())
        })
        .map(drop)
    })
}
