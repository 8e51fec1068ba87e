//! Single calls as people make them, who go on elsewhere when they are asked to, or when nothing is heard any more: each with an id,
//! and with something that is remembered of it.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use streamfleet_kubernetes_tests::{Talk, eventually, tell};

use super::LIMIT;
use super::fleet::Fleet;

/// How they call, by what their ids end with.
const TRANSPORTS: [(&str, &str); 4] =
    [("call-1", "webrtc"), ("call-2", "webrtc"), ("socket-1", "websocket"), ("socket-2", "websocket")];
/// As many as there are.
pub(crate) const COUNT: usize = TRANSPORTS.len();

/// Calls of a service, by their ids.
pub(crate) struct Talks<'a> {
    fleet: &'a Fleet<'a>,
    service: &'a str,
    talks: BTreeMap<String, Talk>,
    /// What routers said of their sessions at first.
    began: BTreeMap<String, Value>,
}

impl<'a> Talks<'a> {
    /// Begins to call, and answers when all are live and something is remembered of each.
    pub(crate) async fn begin(fleet: &'a Fleet<'a>, service: &'a str) -> Result<Self> {
        let mut talks = BTreeMap::new();
        for (ends, transport) in TRANSPORTS {
            let id = format!("{service}-{ends}");
            let talk = fleet.talk(service, &id, &["--transport", transport]).await?;
            talks.insert(id, talk);
        }
        let mut begun = Self { fleet, service, talks, began: BTreeMap::new() };
        begun.began = begun.await_sessions("all are live", |_, _| true).await?;
        for id in begun.talks.keys() {
            fleet.control("PATCH", &format!("{service}/sessions/{id}/data"), &json!({ "remembered": id }))?;
        }
        Ok(begun)
    }

    /// Waits until each has another session that is as wanted, of which is remembered what was of the one before.
    pub(crate) async fn went_on(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<()> {
        let is_another = |id: &str, session: &Value| session["since"] != self.began[id]["since"] && wanted(session);
        self.await_sessions(what, is_another).await?;
        for id in self.talks.keys() {
            let data = self.fleet.control("GET", &format!("{}/sessions/{id}/data", self.service), &Value::Null)?;
            ensure!(data["remembered"] == id.as_str(), "{id} is not remembered: {data}");
        }
        Ok(())
    }

    /// Waits until all sessions are active and as wanted.
    async fn await_sessions(
        &self,
        what: &str,
        wanted: impl Fn(&str, &Value) -> bool,
    ) -> Result<BTreeMap<String, Value>> {
        eventually(what, LIMIT, async || {
            let mut sessions = BTreeMap::new();
            for id in self.talks.keys() {
                let session = self.fleet.control("GET", &format!("{}/sessions/{id}", self.service), &Value::Null)?;
                ensure!(session["state"] == "active" && wanted(id, &session), "{session}");
                sessions.insert(id.clone(), session);
            }
            Ok(Some(sessions))
        })
        .await
    }

    /// Hangs up: each was heard to its end, and has come back once.
    pub(crate) async fn hang_up(self, about: &str) -> Result<()> {
        tell(self.fleet.cluster, about)?;
        for (id, talk) in self.talks {
            let said = talk.hang_up().await?;
            tell(
                self.fleet.cluster,
                &format!("        {id} came back {} times, {}", said["reconnects"], said["verdict"]),
            )?;
            ensure!(said["verdict"] == "heard" && said["reconnects"] == 1, "{id}: {said}");
        }
        Ok(())
    }

    /// The worker at which all of them began.
    pub(crate) fn began_at(&self) -> Result<String> {
        let mut workers: Vec<&str> = self.began.values().filter_map(|session| session["worker"].as_str()).collect();
        workers.dedup();
        ensure!(workers.len() == 1, "at several: {:?}", self.began);
        Ok(workers.concat())
    }
}
