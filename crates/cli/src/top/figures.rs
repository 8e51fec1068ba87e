//! How many sessions each worker has, as its own metrics say: asked through the API server, which reaches pods where this machine does
//! not. Who may not ask (`pods/proxy`) is shown no such figures, and everything else.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::Request;
use futures_util::{StreamExt as _, stream};
use kube::Client;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::cluster::Followed;
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

/// What is known by asking: who has not answered, or was not asked, has no figure.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) known: BTreeMap<Name, u32>,
    /// Whether anybody was asked.
    asked: bool,
}

/// Why there is no figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// Nobody lets this user ask in that namespace.
    Forbidden,
    /// Something else.
    Silent,
}

/// Asks workers.
pub(super) async fn ask(client: &Client, facts: &Facts) -> Answers {
    let workers = facts.workers.iter().filter_map(|(name, worker)| Some((name.clone(), worker.admin_port?)));
    let asked: Vec<(Name, u16)> = workers.take(MAX_ASKED).collect();
    let mut answers = Answers { asked: !asked.is_empty(), ..Answers::default() };
    // Who may not ask one of a namespace may ask none of it, and perhaps those of others.
    let forbidden = &Mutex::new(HashSet::new());
    let mut told = stream::iter(asked)
        .map(|(name, port)| async move {
            if namespaces(forbidden).contains(&name.namespace) {
                return (name, Err(Refusal::Forbidden));
            }
            let told = timeout(PATIENCE, one(client, &name, port)).await;
            (name, told.unwrap_or(Err(Refusal::Silent)))
        })
        .buffer_unordered(AT_ONCE);
    while let Some((name, told)) = told.next().await {
        match told {
            Ok(sessions) => _ = answers.known.insert(name, sessions),
            Err(Refusal::Forbidden) => _ = namespaces(forbidden).insert(name.namespace),
            Err(Refusal::Silent) => {}
        }
    }
    answers
}

/// What is in it is whole, whoever panicked.
fn namespaces(forbidden: &Mutex<HashSet<String>>) -> MutexGuard<'_, HashSet<String>> {
    forbidden.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn one(client: &Client, name: &Name, port: u16) -> Result<u32, Refusal> {
    let path = format!("/api/v1/namespaces/{}/pods/{}:{port}/proxy/metrics", name.namespace, name.name);
    let request = Request::get(path).body(Vec::new()).map_err(|_| Refusal::Silent)?;
    match client.request_text(request).await {
        Ok(text) => sessions(&text).ok_or(Refusal::Silent),
        Err(kube::Error::Api(status)) if status.code == 403 => Err(Refusal::Forbidden),
        Err(_) => Err(Refusal::Silent),
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

/// Asks now and then: what somebody may not today he may tomorrow.
pub(super) async fn follow(client: Client, followed: Arc<watch::Sender<Followed>>) {
    loop {
        let facts = followed.borrow().facts.clone();
        let answers = ask(&client, &facts).await;
        followed.send_if_modified(|followed| answers.put(&mut followed.facts));
        sleep(answers.pause()).await;
    }
}

impl Answers {
    /// The figure of each worker, or none where an old one would be taken for how things are. Returns whether any is another.
    pub(super) fn put(&self, facts: &mut Facts) -> bool {
        let mut changed = false;
        for (name, worker) in &mut facts.workers {
            let sessions = self.known.get(name).copied();
            changed |= worker.sessions != sessions;
            worker.sessions = sessions;
        }
        changed
    }

    /// Until they are asked again.
    fn pause(&self) -> Duration {
        if self.asked && self.known.is_empty() { SELDOM } else { EVERY }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::http::Response;
    use kube::client::Body;
    use serde_json::json;

    use super::*;
    use crate::top::facts::Worker;
    use crate::top::facts::tests::pod;

    /// Pods of the namespaces `a` and `b`, and of whoever asks what he gets: the status, by the path; and how often he asked.
    async fn asked(names: &[(&str, &str)], status: fn(&str) -> u16) -> (Answers, Facts, u32) {
        let mut facts = Facts::default();
        for (namespace, name) in names {
            let worker = Worker::read(&pod(name, &json!({}))).unwrap();
            facts.workers.insert(Name::new(namespace, name), worker);
        }
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        let server = tower::service_fn(move |request: Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let status = status(request.uri().path());
            let failure = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": "", "code": status });
            let text = if status == 200 { format!("{GAUGE} 7\n") } else { failure.to_string() };
            let answer = Response::builder().status(status).body(Body::from(text.into_bytes())).unwrap();
            async move { Ok::<_, Infallible>(answer) }
        });
        let answers = ask(&Client::new(server, "a"), &facts).await;
        (answers, facts, count.load(Ordering::Relaxed))
    }

    fn known(answers: &Answers) -> Vec<String> {
        let mut known: Vec<String> = answers.known.keys().map(Name::to_string).collect();
        known.sort_unstable();
        known
    }

    /// One pod that nobody let this user ask left all after it without a figure, for ever.
    #[tokio::test]
    async fn who_may_not_ask_in_one_namespace_asks_in_others() {
        let many: Vec<String> = (0..40).map(|n| format!("w{n:02}")).collect();
        let mut names: Vec<(&str, &str)> = many.iter().map(|name| ("a", name.as_str())).collect();
        names.extend([("b", "x"), ("b", "y")]);
        let only_b = |path: &str| if path.contains("/namespaces/a/") { 403 } else { 200 };
        let (answers, _, requests) = asked(&names, only_b).await;
        assert_eq!((known(&answers), answers.pause()), (vec!["b/x".to_owned(), "b/y".to_owned()], EVERY));
        assert!(requests <= 2 + 2 * u32::try_from(AT_ONCE).unwrap(), "all others would say the same: {requests}");
        let (answers, ..) = asked(&names, |_| 403).await;
        assert_eq!((answers.known.len(), answers.pause()), (0, SELDOM), "he may tomorrow");
    }

    /// A dead worker had for ever the sessions that it had last told of.
    #[tokio::test]
    async fn an_old_figure_is_none() {
        let (answers, mut facts, _) =
            asked(&[("a", "x"), ("b", "y")], |path| if path.contains("/x:") { 503 } else { 200 }).await;
        facts.workers.values_mut().for_each(|worker| worker.sessions = Some(3));
        assert!(answers.put(&mut facts));
        let sessions: Vec<Option<u32>> = facts.workers.values().map(|worker| worker.sessions).collect();
        assert_eq!(sessions, [None, Some(7)]);
        assert!(!answers.put(&mut facts), "nothing new, nothing to draw");
        assert_eq!(Answers::default().pause(), EVERY, "nobody is known yet");
    }

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
