//! One service by way of its sessions, as a router shows them, or a worker that stands alone: where there is no cluster.

use std::time::SystemTime;

use streamfleet_client::ServiceUrl;

use super::facts::{Facts, Name, Service, State, Worker};
use super::view::{Scope, Teller};
use crate::sessions::control::{Control, Filter, Problem};
use crate::sessions::session::Session;

/// The sessions of a service.
pub(super) struct Router {
    control: Control,
    service: Name,
    shown: String,
}

impl Router {
    pub(super) fn new(url: &ServiceUrl, token: &str, insecure: bool) -> Result<Self, Problem> {
        let shown = url.to_string();
        let path = shown.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
        let name = if path.is_empty() { "/" } else { path };
        Ok(Self { control: Control::new(url, token, insecure)?, service: Name::new("", name), shown })
    }

    pub(super) fn teller(&self) -> Teller {
        Teller { name: self.shown.clone(), scope: Scope::Service, note: None }
    }

    pub(super) async fn look(&self) -> Result<Facts, Problem> {
        let sessions = self.control.list(&Filter::default()).await?;
        Ok(facts(&self.service, &sessions, SystemTime::now()))
    }
}

/// A worker is as old as its oldest session, at least; nothing else is known of it.
fn facts(of: &Name, sessions: &[Session], now: SystemTime) -> Facts {
    let mut facts = Facts::default();
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    for session in sessions {
        let name = Name::new("", session.worker.as_deref().unwrap_or("this worker"));
        let worker = facts.workers.entry(name).or_insert_with(|| Worker {
            service: of.clone(),
            variant: None,
            state: State::Unknown,
            sessions: Some(0),
            created: None,
            node: None,
            drain: None,
            admin_port: None,
        });
        worker.sessions = worker.sessions.map(|sessions| sessions + 1);
        let began = session.age(now).and_then(|age| i64::try_from(seconds.saturating_sub(age.as_secs())).ok());
        worker.created = worker.created.into_iter().chain(began).min();
    }
    let in_state = |state: &str| sessions.iter().filter(|session| session.state == state).count();
    let states = ["reserved", "connecting", "active", "ending"].map(|state| (state, in_state(state)));
    let states: Vec<String> =
        states.iter().filter(|(_, number)| *number > 0).map(|(state, number)| format!("{number} {state}")).collect();
    let service = Service {
        remark: (!states.is_empty()).then(|| states.join(", ")),
        sessions: u32::try_from(sessions.len()).unwrap_or(u32::MAX),
        ..Service::default()
    };
    facts.services.insert(of.clone(), service);
    facts
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn workers_are_known_by_their_sessions() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let sessions = [
            json!({ "id": "a", "state": "active", "age_ms": 90_000, "worker": "w1" }),
            json!({ "id": "b", "state": "active", "age_ms": 7_000, "worker": "w1" }),
            json!({ "id": "c", "state": "connecting", "since": 999, "worker": "w2" }),
            json!({ "id": "d", "state": "active" }),
        ];
        let sessions: Vec<Session> = sessions.into_iter().filter_map(Session::read).collect();
        let of = Name::new("", "assistant");
        let facts = facts(&of, &sessions, now);
        let seen: Vec<(&str, Option<u32>, Option<i64>)> =
            facts.workers.iter().map(|(name, worker)| (name.name.as_str(), worker.sessions, worker.created)).collect();
        assert_eq!(seen, [("this worker", Some(1), None), ("w1", Some(2), Some(910)), ("w2", Some(1), Some(999))]);
        let service = &facts.services[&of];
        assert_eq!((service.sessions, service.remark.as_deref()), (4, Some("1 connecting, 3 active")));
    }

    #[test]
    fn a_service_is_called_as_its_path() {
        streamfleet_process::crypto::install();
        for (url, expected) in [("http://h:1/voice/bot", "voice/bot"), ("http://h:1/", "/"), ("https://h", "/")] {
            let router = Router::new(&url.parse().unwrap(), "a-token-of-the-operator", false).unwrap();
            assert_eq!(router.service.to_string(), expected, "{url}");
        }
    }
}
