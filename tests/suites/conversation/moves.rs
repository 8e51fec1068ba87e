//! Clients that take their live session to another connection.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamfleet_client::{EndReason, Resume};
use streamfleet_tests::{Server, judged};

use crate::caller::{Caller, Plan, Via};
use crate::context::outputs;
use crate::endings::check_reason;
use crate::limits::check_echo;
use crate::twiml::PutThrough;
use crate::{PATIENCE, blocking, each, pairs, plain};

/// A call whose token can be asked for, whatever carries it.
pub(crate) struct Owner {
    pub(crate) caller: Caller,
    call: Option<PutThrough>,
}

impl Owner {
    /// Calls; a telephone as its TwiML says.
    pub(crate) async fn dial(server: &Server, via: Via, plan: Plan) -> Result<Self> {
        let call = match via {
            Via::Telephone => Some(PutThrough::ask(server, &plan.service, &format!("CA{}", plan.id))?),
            Via::WebRtc | Via::WebSocket => None,
        };
        let caller = Caller::dial(server, via, Plan { call: call.clone(), ..plan }).await?;
        Ok(Self { caller, call })
    }

    /// What its client shows to go on elsewhere.
    pub(crate) async fn token(&self) -> Result<Resume> {
        match &self.call {
            Some(call) => call.resume_token(),
            None => self.caller.call().resume_token().await?.context("the server gave no token"),
        }
    }
}

/// Over the same kind of socket a client has its very session again; else a new one that goes on where the old one was.
fn is_attached(from: Via, to: Via) -> bool {
    from == to && from != Via::WebRtc
}

#[test]
fn a_session_is_taken_over_from_every_transport_to_every_transport() -> Result<()> {
    judged(|| {
        let server = each(plain(&["memory"]), pairs(), |server, (from, to)| async move {
            let first = Owner::dial(&server, from, Plan::of("memory")).await?;
            check_echo(&first.caller).await?;
            let id = first.caller.id().clone();
            let begun = json!({ "resumed": false, "data": { "visits": 1 } });
            ensure!(outputs(&server, "memory", &first.caller, 1)? == [begun.clone()], "the first visit");

            let token = first.token().await?;
            let plan = Plan { id: id.clone(), resume: Some(token), ..Plan::of("memory") };
            let second = Caller::dial(&server, to, plan).await?;
            let (_, reason) = first.caller.ended(PATIENCE).await?;
            ensure!(reason == EndReason::ClosedByServer, "{reason:?}");
            check_echo(&second).await?;

            let gone_on = json!({ "resumed": true, "data": { "visits": 2 } });
            let (expected, change) =
                if is_attached(from, to) { (vec![begun], "attached") } else { (vec![begun, gone_on], "resumed") };
            let told = outputs(&server, "memory", &second, expected.len())?;
            ensure!(told == expected, "{told:?}");
            let session = only_session(&server, id.as_str())?;
            ensure!(session["transport"] == to.name() && session["state"] == "active", "{session}");
            let changes = session["changes"].as_array().context("no changes")?;
            ensure!(changes.iter().any(|told| told["change"] == change), "{session}");
            ensure!(second.look(|told| told.end().is_none()), "the client has lost its session");
            second.hang_up().await;
            first.caller.hang_up().await;
            Ok(())
        })?;
        let moved = pairs().filter(|(_, (from, to))| !is_attached(*from, *to)).count();
        check_reason(&server, "moved", moved)
    })
}

/// The one session of this id that control lists, when the old one is gone.
fn only_session(server: &Server, id: &str) -> Result<Value> {
    let began = Instant::now();
    blocking(|| {
        loop {
            let mut listed = server.sessions("/memory")?;
            listed.retain(|session| session["id"] == id);
            match <[Value; 1]>::try_from(listed) {
                Ok([session]) => return Ok(session),
                Err(listed) => ensure!(began.elapsed() < PATIENCE, "{} sessions of one id", listed.len()),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    })
}
