//! Which workers a service has, as this router knows it: read at every wake-up and now and then without one.
//!
//! While the store does not answer, what was read last goes on being used; it is said to be stale.

use std::sync::Arc;
use std::time::{Duration, Instant};

use streamfleet_session::ServiceName;
use streamfleet_store::{SETTLING, Settling, Store, Topic, WorkerView};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::place::Freshness;

/// A lost wake-up costs this; a worker's load, for which nobody is woken, is as old. Half of a worker's heartbeat.
const REFRESH: Duration = Duration::from_secs(1);
/// Beyond this, what was read is no longer how things are: three reads have failed.
const STALE_AFTER: Duration = Duration::from_secs(3);

/// How often somebody looks whether a session is known again.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Who waits does not look more often: whenever somebody has the store read, all who wait are woken.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// The workers of a service.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// By name; those that have not said that they are ready too.
    pub workers: Vec<WorkerView>,
    /// When the store last answered.
    read: Option<Instant>,
    /// When it last might have told of workers, and did not tell of any: it had until then, or had been away.
    missed: Option<Instant>,
}

impl Snapshot {
    /// Workers as the store has told them at `now`.
    #[must_use]
    pub fn read_at(workers: Vec<WorkerView>, now: Instant) -> Self {
        Self { workers, read: Some(now), missed: None }
    }

    /// What it is when the store has told of these workers, and whether it was away before that.
    fn then(&self, workers: Vec<WorkerView>, was_away: bool, now: Instant) -> Self {
        let are_missed = workers.is_empty() && (was_away || !self.workers.is_empty());
        let missed = if are_missed { Some(now) } else { self.missed };
        Self { workers, read: Some(now), missed }
    }

    /// For how long nobody may know of a session that lives, where the store says this of it; `None` where it is known, or there is no
    /// worker that could have it.
    #[must_use]
    pub fn unsure(&self, said: Settling, now: Instant) -> Option<Duration> {
        match said {
            Settling::Done => None,
            Settling::For(left) => Some(left),
            // All that there were a moment ago are about to come again.
            Settling::Nobody => {
                // It has not been read again since.
                let are_known = !self.workers.is_empty();
                let may_be_lost = |missed| now.saturating_duration_since(missed) < 2 * SETTLING;
                (are_known || self.missed.is_some_and(may_be_lost)).then_some(LOOK_AGAIN)
            }
        }
    }

    /// Whether any worker is known that can be asked.
    #[must_use]
    pub fn has_anybody(&self) -> bool {
        self.workers.iter().any(|view| view.said.is_some())
    }

    /// For how long the store has not told anything; `None` if it never has.
    #[must_use]
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.read.map(|read| now.saturating_duration_since(read))
    }

    /// Whether it shows how things are. What was never read is stale for ever.
    #[must_use]
    pub fn freshness(&self, now: Instant) -> Freshness {
        let age = self.read.map_or(Duration::MAX, |read| now.saturating_duration_since(read));
        if age < STALE_AFTER { Freshness::Fresh } else { Freshness::Stale(age) }
    }
}

/// A view of the directory that its task keeps.
#[derive(Debug, Clone)]
pub struct Directory {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    hurry: Arc<Notify>,
}

/// What a directory's task writes.
#[derive(Debug)]
pub struct Keeper {
    snapshots: watch::Sender<Arc<Snapshot>>,
    hurry: Arc<Notify>,
}

/// A directory and its keeper.
#[must_use]
pub fn directory() -> (Directory, Keeper) {
    let (sender, snapshots) = watch::channel(Arc::default());
    let hurry = Arc::new(Notify::new());
    (Directory { snapshots, hurry: hurry.clone() }, Keeper { snapshots: sender, hurry })
}

impl Directory {
    /// What is known now.
    #[must_use]
    pub fn now(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// Waits until the store has been read again, for `patience` at most; has it read at once.
    pub async fn next(&mut self, patience: Duration) -> Arc<Snapshot> {
        // What is there already has been looked at.
        self.snapshots.mark_unchanged();
        self.hurry.notify_one();
        // Without a keeper nothing more comes: the service is gone.
        let _ = timeout(patience, self.snapshots.changed()).await;
        self.look()
    }

    /// What is known now; [`later`](Self::later) is after it.
    pub fn look(&mut self) -> Arc<Snapshot> {
        self.snapshots.borrow_and_update().clone()
    }

    /// Waits until the store has been read after what was looked at last, for `patience` at most, and a moment at least. Has nothing
    /// read: whoever is there for long, and perhaps with many, would have it read all the time.
    pub async fn later(&mut self, patience: Duration) -> Arc<Snapshot> {
        let read = async {
            sleep(BETWEEN_LOOKS).await;
            // Without a keeper nothing more comes.
            if self.snapshots.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let _ = timeout(patience, read).await;
        self.look()
    }
}

impl Keeper {
    /// Keeps the directory of a service until it is dropped.
    pub async fn keep(self, store: Arc<dyn Store>, service: ServiceName) {
        let mut listener = store.listen(&service, Topic::Directory);
        let mut away = false;
        loop {
            match store.workers(&service).await {
                Ok(workers) => {
                    let was_away = std::mem::take(&mut away);
                    if was_away {
                        tracing::info!(%service, "the directory is read again");
                    }
                    let next = self.snapshots.borrow().then(workers, was_away, Instant::now());
                    self.snapshots.send_replace(Arc::new(next));
                }
                // The first failure is news.
                Err(error) if !std::mem::replace(&mut away, true) => {
                    tracing::warn!(%service, %error, "the directory cannot be read");
                }
                Err(_) => {}
            }
            tokio::select! {
                () = listener.woken() => {}
                () = self.hurry.notified() => {}
                () = sleep(REFRESH) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use streamfleet_store::{Epoch, Gate, Order, Owner};

    use super::*;

    #[test]
    fn what_is_not_read_again_is_stale() {
        let now = Instant::now();
        let snapshot = Snapshot::read_at(Vec::new(), now);
        assert_eq!(snapshot.freshness(now + STALE_AFTER / 2), Freshness::Fresh);
        assert_eq!(snapshot.freshness(now + STALE_AFTER), Freshness::Stale(STALE_AFTER));
        assert!(matches!(Snapshot::default().freshness(now), Freshness::Stale(_)));
    }

    #[test]
    fn workers_of_a_moment_ago_may_be_there() {
        let (now, short) = (Instant::now(), Duration::from_secs(1));
        let worker = WorkerView {
            owner: Owner { worker: "w".parse().unwrap(), epoch: Epoch(1) },
            said: None,
            gate: Gate::Open,
            order: Order::default(),
            sessions: 0,
            age: Duration::ZERO,
        };
        let check = |snapshot: &Snapshot, since: Instant| {
            assert_eq!(snapshot.unsure(Settling::Nobody, since + 2 * SETTLING - short), Some(LOOK_AGAIN));
            assert_eq!(snapshot.unsure(Settling::Nobody, since + 2 * SETTLING), None);
        };
        let known = Snapshot::read_at(vec![worker.clone()], now);
        let late = now + 100 * short;
        assert_eq!(known.unsure(Settling::Nobody, late), Some(LOOK_AGAIN), "and it has not been read again");
        assert_eq!(known.unsure(Settling::For(short), late), Some(short));
        assert_eq!(known.unsure(Settling::Done, late), None, "whoever is known there");
        // However long it was away.
        for was_away in [false, true] {
            check(&known.then(Vec::new(), was_away, late).then(Vec::new(), false, late + short), late);
        }
        // Who has begun without it knows nobody.
        check(&Snapshot::default().then(Vec::new(), true, late), late);
        let new = Snapshot::default().then(Vec::new(), false, now);
        assert_eq!(new.unsure(Settling::Nobody, now), None, "nobody ever was there");
        assert_eq!(new.then(vec![worker], false, now).unsure(Settling::Nobody, now), Some(LOOK_AGAIN));
    }

    /// Many who wait do not have the store read again and again, and do not look at each read of it.
    #[tokio::test(start_paused = true)]
    async fn who_waits_does_not_spin() {
        let (mut directory, keeper) = directory();
        let tells = || keeper.snapshots.send_replace(Arc::default());
        directory.look();
        let patience = Duration::from_secs(5);
        let took = async |directory: &mut Directory| {
            let began = tokio::time::Instant::now();
            directory.later(patience).await;
            began.elapsed()
        };
        tells();
        assert_eq!(took(&mut directory).await, BETWEEN_LOOKS, "what was read meanwhile is seen");
        assert_eq!(took(&mut directory).await, patience, "nothing is read for it");
        tells();
        directory.look();
        assert_eq!(took(&mut directory).await, patience, "what was looked at is not news");
        drop(keeper);
        assert_eq!(took(&mut directory).await, patience, "without a keeper it waits all the same");
    }
}
