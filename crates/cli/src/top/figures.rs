//! How many sessions each worker has, as its own metrics say: asked through the API server, which reaches pods where this machine does
//! not. Who may not ask (`pods/proxy`) is shown no such figures, and everything else.

use std::sync::Arc;
use std::time::Duration;

use axum::http::Request;
use futures_util::{StreamExt as _, stream};
use kube::Client;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::cluster::{Followed, words};
use super::facts::{Facts, Name};

/// The gauge with a worker's sessions.
const GAUGE: &str = "streamfleet_sessions_admitted";
/// Workers that are asked: more rows than any screen has, and an API server has other things to do.
const MAX_ASKED: usize = 100;
/// Of these at a time.
const AT_ONCE: usize = 8;
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often, and how seldom where nobody answers.
const EVERY: Duration = Duration::from_secs(3);
const SELDOM: Duration = Duration::from_secs(30);

/// What is known by asking.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) known: Vec<(Name, u32)>,
    /// Why somebody has not answered: the last reason.
    pub(super) unknown: Option<Refusal>,
}

/// Why there is no figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nobody lets this user ask, and nobody will.
    Forbidden,
    /// Something else.
    Silent(String),
}

/// Asks workers.
pub(super) async fn ask(client: &Client, facts: &Facts) -> Answers {
    let workers = facts.workers.iter().filter_map(|(name, worker)| Some((name.clone(), worker.admin_port?)));
    let asked: Vec<(Name, u16)> = workers.take(MAX_ASKED).collect();
    let mut answers = Answers::default();
    let mut told = stream::iter(asked)
        .map(|(name, port)| async move {
            let told = timeout(PATIENCE, one(client, &name, port)).await;
            (name, told.unwrap_or_else(|_| Err(Refusal::Silent("no answer in time".to_owned()))))
        })
        .buffer_unordered(AT_ONCE);
    while let Some((name, told)) = told.next().await {
        match told {
            Ok(sessions) => answers.known.push((name, sessions)),
            Err(refusal) => {
                let is_final = refusal == Refusal::Forbidden;
                answers.unknown = Some(refusal);
                // All others would say the same.
                if is_final {
                    break;
                }
            }
        }
    }
    answers
}

async fn one(client: &Client, name: &Name, port: u16) -> Result<u32, Refusal> {
    let path = format!("/api/v1/namespaces/{}/pods/{}:{port}/proxy/metrics", name.namespace, name.name);
    let request = Request::get(path).body(Vec::new()).map_err(|error| Refusal::Silent(error.to_string()))?;
    match client.request_text(request).await {
        Ok(text) => sessions(&text).ok_or_else(|| Refusal::Silent("its metrics do not say".to_owned())),
        Err(kube::Error::Api(status)) if status.code == 403 => Err(Refusal::Forbidden),
        Err(error) => Err(Refusal::Silent(words(&error))),
    }
}

/// The sessions of a worker in its metrics (Prometheus' text format).
fn sessions(metrics: &str) -> Option<u32> {
    let line = metrics.lines().find_map(|line| {
        let rest = line.strip_prefix(GAUGE)?;
        rest.starts_with(['{', ' ']).then_some(rest)
    })?;
    // Labels may have spaces; a value has none, and a time may follow it.
    let values = line.rsplit_once('}').map_or(line, |(_, values)| values);
    let value: f64 = values.split_whitespace().next()?.parse().ok()?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
    (0.0..=f64::from(u32::MAX)).contains(&value).then_some(value as u32)
}

/// Asks now and then, for as long as anybody may.
pub(super) async fn follow(client: Client, followed: Arc<watch::Sender<Followed>>) {
    loop {
        let facts = followed.borrow().facts.clone();
        let Answers { known, unknown } = ask(&client, &facts).await;
        let is_silent = known.is_empty() && unknown.is_some();
        if !known.is_empty() {
            followed.send_modify(|followed| {
                for (name, sessions) in known {
                    followed.facts.workers.entry(name).and_modify(|worker| worker.sessions = Some(sessions));
                }
            });
        }
        if unknown == Some(Refusal::Forbidden) {
            return;
        }
        sleep(if is_silent { SELDOM } else { EVERY }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_in_metrics() {
        let check = |text: &str, expected: Option<u32>| assert_eq!(sessions(text), expected, "{text:?}");
        check("# TYPE streamfleet_sessions_admitted gauge\nstreamfleet_sessions_admitted 7\n", Some(7));
        check("a 1\nstreamfleet_sessions_admitted{otel_scope_name=\"worker x\"} 3 1700000000000\n", Some(3));
        check("streamfleet_sessions_admitted_total 7\n", None);
        check("streamfleet_sessions_admitted{a=\"b\"} NaN\n", None);
        check("streamfleet_sessions_admitted -1\n", None);
        check("streamfleet_sessions_admitted\n", None);
        check("", None);
    }
}
