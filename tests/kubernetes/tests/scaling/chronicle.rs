//! The life of every worker's pod, of which no change is missed: who was drained before it went, and who was not.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use futures_util::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use parking_lot::Mutex;
use streamfleet_kubernetes_tests::pods;

/// What pods of workers have.
const WORKERS: &str = "app.kubernetes.io/name=streamfleet-worker";
/// A watch is renewed in time: the API server ends it after five minutes.
const WATCH: u32 = 240;

/// What is known of one pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct Life {
    pub(crate) service: String,
    pub(crate) variant: String,
    /// It has taken calls, or could have.
    pub(crate) was_ready: bool,
    pub(crate) is_ready: bool,
    /// `serving` or `draining`.
    pub(crate) state: String,
    /// The state in which it was told to go.
    ended_as: Option<String>,
    restarts: i32,
}

/// Services to whose workers something is done on purpose.
pub(crate) struct Exceptions<'a> {
    /// A process was killed.
    pub(crate) killed: &'a str,
    /// A worker with a call was evicted.
    pub(crate) evicted: &'a str,
}

impl Life {
    /// Whether it was told to go, or has gone.
    pub(crate) fn is_ending(&self) -> bool {
        self.ended_as.is_some()
    }

    /// Whether it went as one that was drained: also one that was not needed any more before it was ready.
    pub(crate) fn was_drained(&self) -> bool {
        self.ended_as.as_deref() == Some("draining")
    }
}

/// All of them.
pub(crate) struct Chronicle {
    pods: Api<Pod>,
    lives: Mutex<BTreeMap<String, Life>>,
}

impl Chronicle {
    pub(crate) fn of(pods: Api<Pod>) -> Self {
        Self { pods, lives: Mutex::default() }
    }

    /// Writes it, for as long as it is waited for.
    pub(crate) async fn keep(&self) -> Result<()> {
        let listed = self.pods.list(&ListParams::default().labels(WORKERS)).await?;
        let mut version = listed.metadata.resource_version.context("a list without a version")?;
        listed.items.iter().for_each(|pod| self.note(pod));
        loop {
            let params = WatchParams::default().labels(WORKERS).timeout(WATCH);
            let mut changes = std::pin::pin!(self.pods.watch(&params, &version).await?);
            while let Some(change) = changes.try_next().await? {
                match change {
                    WatchEvent::Added(pod) | WatchEvent::Modified(pod) | WatchEvent::Deleted(pod) => {
                        version = pod.metadata.resource_version.clone().context("a pod without a version")?;
                        self.note(&pod);
                    }
                    WatchEvent::Bookmark(mark) => version = mark.metadata.resource_version,
                    WatchEvent::Error(error) => return Err(kube::Error::Api(error).into()),
                }
            }
        }
    }

    fn note(&self, pod: &Pod) {
        let label = |key: &str| pods::label(pod, key).map(str::to_owned);
        let mut lives = self.lives.lock();
        let life = lives.entry(pod.metadata.name.clone().unwrap_or_default()).or_default();
        life.service = label("streamfleet.dev/service").unwrap_or_default();
        life.variant = label("streamfleet.dev/variant").unwrap_or_default();
        life.state = label("streamfleet.dev/state").unwrap_or_default();
        life.is_ready = pods::is_ready(pod);
        if pods::is_ending(pod) {
            life.ended_as.get_or_insert(life.state.clone());
        } else {
            // One that becomes ready while it is told to go takes no calls.
            life.was_ready |= life.is_ready;
        }
        life.restarts = pods::restarts(pod);
    }

    /// Those of a service.
    pub(crate) fn of_service(&self, name: &str) -> BTreeMap<String, Life> {
        let lives = self.lives.lock();
        lives.iter().filter(|(_, life)| life.service == name).map(|(name, life)| (name.clone(), life.clone())).collect()
    }

    /// The names of a service's pods that are there, in a state.
    pub(crate) fn in_state(&self, name: &str, state: &str) -> Vec<String> {
        let lives = self.of_service(name);
        let there = lives.into_iter().filter(|(_, life)| !life.is_ending() && life.state == state);
        there.map(|(name, _)| name).collect()
    }

    /// That nobody went who had not been drained, and nobody died, but for one each to whom it was done.
    pub(crate) fn judge(&self, exceptions: &Exceptions<'_>) -> Result<()> {
        let lives = self.lives.lock();
        let undrained =
            |life: &&Life| life.was_ready && life.ended_as.as_deref().is_some_and(|state| state != "draining");
        let restarts = |killed: bool| {
            let of = lives.iter().filter(move |(_, life)| (life.service == exceptions.killed) == killed);
            of.filter(|(_, life)| life.restarts > 0).collect::<Vec<_>>()
        };
        ensure!(restarts(false).is_empty(), "restarted: {:?}", restarts(false));
        let killed: i32 = restarts(true).iter().map(|(_, life)| life.restarts).sum();
        ensure!(killed == 1, "one was killed, once: {:?}", restarts(true));
        let went: Vec<_> = lives.iter().filter(|(_, life)| undrained(life)).collect();
        let is_so = went.len() == 1 && went.iter().all(|(_, life)| life.service == exceptions.evicted);
        ensure!(is_so, "one was evicted, and went undrained: {went:?}");
        let gone = lives.values().filter(|life| life.was_ready && life.is_ending()).count();
        println!("{} pods, {gone} of which were drained and went", lives.len());
        ensure!(gone > 0, "nobody has gone");
        Ok(())
    }
}
