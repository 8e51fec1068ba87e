//! Keeps the connection, and the subscriptions on it.
//!
//! While there is none, callers are refused at once: whoever waits for an answer has something better to do without a
//! store than to wait. One task tries again, with waits that grow.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::{PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::backoff::Backoff;
use super::config::RedisConfig;
use super::keys;
use super::link::Link;
use crate::context::StoreError;
use crate::wake::Hub;

/// A connection that stood so long was a good one.
const STEADY: Duration = Duration::from_secs(2);

/// What callers find.
#[derive(Clone)]
pub(super) enum State {
    /// Not tried yet: worth waiting for.
    Starting,
    Up(Link),
    /// Why not.
    Down(Arc<str>),
}

/// What commands have found out about the connection.
#[derive(Default)]
struct Alarm {
    /// It may be no good: ask.
    doubt: Notify,
    /// It is to the wrong server: look for the right one.
    wrong: Notify,
}

/// The connection of a store, and its one task, which ends with it.
pub(super) struct Supervisor {
    state: watch::Receiver<State>,
    alarm: Arc<Alarm>,
    /// How often a server has been connected to.
    connections: Arc<AtomicU64>,
    patience: Duration,
    _task: JoinSet<()>,
}

impl Supervisor {
    /// Begins to connect. Needs a runtime.
    pub(super) fn start(config: Arc<RedisConfig>, hub: Arc<Hub>) -> Self {
        let (sender, state) = watch::channel(State::Starting);
        let (alarm, connections) = (Arc::new(Alarm::default()), Arc::<AtomicU64>::default());
        let patience = config.connect_deadline;
        let mut task = JoinSet::new();
        task.spawn(keep(config, hub, sender, alarm.clone(), connections.clone()));
        Self { state, alarm, connections, patience, _task: task }
    }

    /// The connection, if there is one. Waits only for the first.
    pub(super) async fn link(&self) -> Result<Link, StoreError> {
        let mut state = self.state.clone();
        let tried = state.wait_for(|state| !matches!(state, State::Starting));
        let state = match timeout(self.patience, tried).await {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) | Err(_) => State::Starting,
        };
        match state {
            State::Up(link) => Ok(link),
            State::Down(why) => Err(StoreError::Unavailable(why.to_string())),
            State::Starting => Err(StoreError::Unavailable("not connected yet".to_owned())),
        }
    }

    /// How often a server has been connected to.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// A command failed like that.
    pub(super) fn failed(&self, error: &RedisError) {
        match error.code() {
            // A primary that was deposed, or a replica that has lost its own.
            Some("READONLY" | "MASTERDOWN" | "LOADING") => self.alarm.wrong.notify_one(),
            _ if speaks_against(error) => self.alarm.doubt.notify_one(),
            _ => {}
        }
    }
}

/// Whether an error is about the way to the server and not about what it was told.
fn speaks_against(error: &RedisError) -> bool {
    error.is_io_error() || error.is_timeout() || error.is_connection_dropped() || error.is_unrecoverable_error()
}

async fn keep(
    config: Arc<RedisConfig>,
    hub: Arc<Hub>,
    state: watch::Sender<State>,
    alarm: Arc<Alarm>,
    connections: Arc<AtomicU64>,
) {
    let mut backoff = Backoff::default();
    loop {
        let error = match connect(&config, &hub, &alarm).await {
            Ok(mut link) => {
                tracing::info!("connected to the store");
                connections.fetch_add(1, Ordering::Relaxed);
                state.send_replace(State::Up(link.clone()));
                let since = Instant::now();
                let error = serve(&mut link, &hub, &alarm, &state).await;
                // One that was good for a while was not the failure that waits are for.
                if since.elapsed() > STEADY {
                    backoff.reset();
                }
                error
            }
            Err(error) => error,
        };
        // The text names addresses at most: logins are no part of an error.
        tracing::warn!(%error, "no connection to the store");
        state.send_replace(State::Down(error.to_string().into()));
        sleep(backoff.after_failure(rand::random())).await;
    }
}

async fn connect(config: &RedisConfig, hub: &Arc<Hub>, alarm: &Arc<Alarm>) -> RedisResult<Link> {
    let (hub, alarm) = (hub.clone(), alarm.clone());
    let pushed = move |push: PushInfo| {
        receive(&hub, &alarm, &push);
        Ok(())
    };
    // Several addresses may be tried, each within its own deadline.
    let all = config.connect_deadline * 4;
    let link = timeout(all, Link::connect(config, pushed)).await;
    link.unwrap_or_else(|_| Err((redis::ErrorKind::Io, "no connection within the deadline").into()))
}

fn receive(hub: &Hub, alarm: &Alarm, push: &PushInfo) {
    match push.kind {
        // A confirmation wakes too: what happened before it was not heard.
        PushKind::SMessage | PushKind::SSubscribe => {
            let channel = match push.data.first() {
                Some(Value::BulkString(name)) => keys::parse_channel(name),
                Some(Value::SimpleString(name)) => keys::parse_channel(name.as_bytes()),
                _ => None,
            };
            if let Some(channel) = channel {
                hub.wake(&channel);
            }
        }
        PushKind::Disconnection => alarm.doubt.notify_one(),
        _ => {}
    }
}

/// Subscribes to what is listened to, until the connection is no good any more.
async fn serve(link: &mut Link, hub: &Hub, alarm: &Alarm, state: &watch::Sender<State>) -> RedisError {
    let mut subscribed = HashSet::new();
    loop {
        if let Err(error) = follow(link, hub, &mut subscribed).await {
            return error;
        }
        tokio::select! {
            () = hub.changed() => {}
            () = alarm.wrong.notified() => return (redis::ErrorKind::Io, "the server takes no writes").into(),
            () = alarm.doubt.notified() => {
                // Nobody else shall wait for a server that may be gone, while one asks whether it is.
                state.send_replace(State::Down("in doubt".into()));
                if let Err(error) = link.send(&redis::cmd("PING")).await {
                    return error;
                }
                state.send_replace(State::Up(link.clone()));
                // A cluster's connections come back by themselves; what was said meanwhile is lost.
                hub.wake_all();
            }
        }
    }
}

async fn follow(link: &mut Link, hub: &Hub, subscribed: &mut HashSet<String>) -> RedisResult<()> {
    let wanted: HashSet<String> = hub.channels().iter().map(keys::channel).collect();
    for channel in wanted.difference(subscribed).cloned().collect::<Vec<_>>() {
        link.subscribe(&channel).await?;
        subscribed.insert(channel);
    }
    for channel in subscribed.difference(&wanted).cloned().collect::<Vec<_>>() {
        link.unsubscribe(&channel).await?;
        subscribed.remove(&channel);
    }
    Ok(())
}
