//! Conversations: each point of the protocol on each transport, by one table of calls.
//!
//! The client is `crates/client`, which shares no code with the worker's transports; its telephone is a double of Twilio's
//! side. Sound is judged by content: which tone, for how long, how loud.

mod blocked;
mod caller;
mod context;
mod endings;
mod hostile;
mod interruptions;
mod limits;
mod moves;
mod outputs;
mod replies;
mod slow;
mod sound;
mod turns;
mod twiml;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamfleet_tests::{Server, judged};
use tokio::task::JoinSet;

use self::caller::{Caller, Plan, Via};

/// Longer than any step takes on a busy machine, shorter than anybody waits for a hanging test.
const PATIENCE: Duration = Duration::from_secs(10);
/// "Within a second", and what the client itself plays out before it says that the call is over.
const AT_ONCE: Duration = Duration::from_millis(1_500);

/// Held by whoever judges time, and by the crowd of `hostile` alone: a thousand hostile clients and those that listen to a
/// conversation would otherwise share the cores of one machine.
static MACHINE: RwLock<()> = RwLock::new(());

/// A service whose path is its name and whose handler is `handler`.
fn service(name: &str, handler: &str, limits: Value) -> Value {
    json!({ "name": name, "path": format!("/{name}"), "handler": { "name": handler }, "limits": limits })
}

/// Services without limits that are called as their handlers.
fn plain(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| service(name, name, json!({}))).collect()
}

/// Runs `topic` on every transport at once, against one server, and sees that every session has given its place back.
fn on_each<F>(services: Vec<Value>, topic: impl Fn(Arc<Server>, Via) -> F) -> Result<Arc<Server>>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    each(services, Via::ALL.map(|via| (via.name().to_owned(), via)), topic)
}

/// The same for any table of rows.
fn each<R, F>(
    services: Vec<Value>,
    rows: impl IntoIterator<Item = (String, R)>,
    topic: impl Fn(Arc<Server>, R) -> F,
) -> Result<Arc<Server>>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    each_with(&[], services, rows, topic)
}

/// The same with settings of the server's (`STREAMFLEET_*`).
fn each_with<R, F>(
    settings: &[(&str, &str)],
    services: Vec<Value>,
    rows: impl IntoIterator<Item = (String, R)>,
    topic: impl Fn(Arc<Server>, R) -> F,
) -> Result<Arc<Server>>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let _machine = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    let paths: Vec<String> = services.iter().filter_map(|one| one["path"].as_str().map(str::to_owned)).collect();
    let server = Arc::new(Server::start_services(&services.into(), settings)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let failures = runtime.block_on(async {
        let mut running = JoinSet::new();
        for (name, row) in rows {
            let topic = topic(server.clone(), row);
            running.spawn(async move { topic.await.with_context(|| name) });
        }
        let mut failures = Vec::new();
        while let Some(outcome) = running.join_next().await {
            failures.extend(outcome.map_err(anyhow::Error::new).and_then(|outcome| outcome).err());
        }
        failures
    });
    let told: Vec<String> = failures.iter().map(|failure| format!("{failure:#}")).collect();
    ensure!(told.is_empty(), "{}\n{}", told.join("\n"), server.printed());
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    server.await_no_sessions(&paths, PATIENCE)?;
    await_no_places(&server)?;
    Ok(server)
}

/// Waits until every place is given back: a moment after control has last seen the session.
fn await_no_places(server: &Server) -> Result<()> {
    let began = Instant::now();
    loop {
        let admitted = server.metrics()?.sum("streamfleet_sessions_admitted").context("no gauge of places")?;
        if admitted == 0.0 {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "{admitted} places are still held");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Every transport before every transport.
fn pairs() -> impl Iterator<Item = (String, (Via, Via))> {
    let pairs = Via::ALL.into_iter().flat_map(|first| Via::ALL.map(|second| (first, second)));
    pairs.map(|(first, second)| (format!("{} then {}", first.name(), second.name()), (first, second)))
}

/// A blocking call, such as one of control, in a task.
fn blocking<T>(call: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(call)
}

/// What is said comes back: the same tone, as long, on every transport.
#[test]
fn an_echo_comes_back() -> Result<()> {
    judged(|| {
        on_each(vec![service("echo", "plain-echo", json!({}))], |server, via| async move {
            let caller = Caller::dial(&server, via, Plan::of("echo")).await?;
            caller.say(440.0, 1.2).await?;
            let heard = caller.until("the echo", PATIENCE, |told| {
                let seconds = told.sound.tone_seconds(440.0);
                (seconds >= 1.0).then(|| (seconds, told.sound.loud_seconds(), told.sound.level()))
            });
            let (tone, loud, level) = heard.await?;
            // Of what was loud, nearly all is the tone: nothing else is said. What the server's jitter buffer makes of a client that
            // is late has seams.
            let share = if via == Via::WebRtc { 0.8 } else { 0.9 };
            ensure!(tone >= loud * share, "{tone} s of {loud} s are the tone");
            ensure!((-18.0..=-12.0).contains(&level), "{level} dBFS");
            caller.hang_up().await;
            Ok(())
        })
        .map(drop)
    })
}
