//! The operator at work: what it is told wakes services, services that are due are looked at, so many at a time.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use streamfleet_store::{Store, Topic as StoreTopic, Users};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use crate::care::Care;
use crate::cluster::Cluster;
use crate::due::{Due, Lane};
use crate::events::Reporter;
use crate::look::Looked;
use crate::metrics::{Instruments, Outcome};
use crate::names::Key;
use crate::precedence::{self, Conflict};
use crate::prepare::Installation;
use crate::traces::ended;
use crate::view::{Item, Name, Stray, Topic, View};
use crate::watch::Told;

/// Looks at services that are not answered in time hold at most one slot of so many: a look at another takes a moment.
const SLOW_SHARE: usize = 4;

/// For how long this operator has led without a pause.
#[derive(Debug, Default)]
struct Tenure {
    until: Option<Instant>,
    pauses: u64,
}

impl Tenure {
    /// Until when it may act, as it is told now. Returns whether there was a pause, in which another one may have acted.
    fn hear(&mut self, until: Option<Instant>, now: Instant) -> bool {
        let has_paused = self.until.is_some_and(|before| before <= now || until.is_none());
        self.until = until;
        self.pauses += u64::from(has_paused);
        has_paused
    }
}

/// What all looks share.
pub struct Operator {
    pub(crate) cluster: Cluster,
    pub(crate) store: Arc<dyn Store>,
    /// Whoever makes users of services in it, where they have such.
    pub(crate) users: Option<Arc<dyn Users>>,
    pub(crate) installation: Installation,
    pub(crate) view: Mutex<View>,
    pub(crate) instruments: Instruments,
    pub(crate) reporter: Reporter,
    due: Arc<Mutex<Due>>,
    hurry: Notify,
    losers: Mutex<Losers>,
    /// Where clients reach the routers, as their load balancer says.
    address: Mutex<Option<String>>,
    /// Until when it may act; `None` while it does not lead.
    leads: watch::Receiver<Option<Instant>>,
    /// Nothing is begun any more: what is under way ends.
    stops: AtomicBool,
    unique: AtomicU64,
}

#[derive(Debug, Default)]
struct Losers {
    /// A service came, went or changed since.
    stale: bool,
    by: HashMap<Key, Conflict>,
}

impl Operator {
    /// One that has been told nothing, with the store and whoever makes users in it. `due` is also what is measured.
    #[must_use]
    pub fn new(
        cluster: Cluster,
        (store, users): (Arc<dyn Store>, Option<Arc<dyn Users>>),
        installation: Installation,
        instruments: Instruments,
        due: Arc<Mutex<Due>>,
        leads: watch::Receiver<Option<Instant>>,
        reporter: Reporter,
    ) -> Self {
        Self {
            cluster,
            store,
            users,
            installation,
            view: Mutex::default(),
            instruments,
            reporter,
            due,
            hurry: Notify::new(),
            losers: Mutex::default(),
            address: Mutex::default(),
            leads,
            stops: AtomicBool::new(false),
            // Names of Events differ from those of an operator before.
            unique: AtomicU64::new(crate::facts::now().as_millis() << 16),
        }
    }

    /// Whether it may act at this moment.
    pub(crate) fn may_act(&self) -> bool {
        !self.stops.load(Ordering::Relaxed) && self.leads.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// A number that nobody gets twice.
    pub(crate) fn unique(&self) -> u64 {
        self.unique.fetch_add(1, Ordering::Relaxed)
    }

    /// Who has a path that this service wants.
    pub(crate) fn conflict(&self, key: &Key) -> Option<Conflict> {
        let mut losers = self.losers.lock();
        if std::mem::take(&mut losers.stale) {
            let wishes: Vec<_> = {
                let view = self.view.lock();
                view.iter().filter_map(|(_, service)| service.resource.as_ref().and(service.wish.clone())).collect()
            };
            let now = precedence::losers(&wishes);
            let changed: Vec<Key> =
                now.keys().chain(losers.by.keys()).filter(|key| now.get(key) != losers.by.get(key)).cloned().collect();
            losers.by = now;
            self.wake(&changed);
        }
        losers.by.get(key).cloned()
    }

    /// The beginning of URLs, where anybody has said it.
    pub(crate) fn public_url(&self) -> Option<String> {
        self.installation.public_url.clone().or_else(|| self.address.lock().clone())
    }

    /// Where clients reach the routers, as their load balancer says.
    pub(crate) fn is_reached_at(&self, address: Option<String>) {
        if std::mem::replace(&mut *self.address.lock(), address.clone()) == address {
            return;
        }
        let all: Vec<Key> = self.view.lock().iter().map(|(key, _)| key.clone()).collect();
        self.wake(&all);
    }

    fn wake(&self, keys: &[Key]) {
        if keys.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut due = self.due.lock();
        keys.iter().for_each(|key| due.wake(key, now));
        drop(due);
        self.hurry.notify_one();
    }

    /// Looks at services as they become due, at most so many at a time, until `stop`. Returns when nothing is under way any more: a request
    /// that nobody waits for may still be obeyed, when another operator acts already.
    pub async fn run(self: Arc<Self>, concurrency: NonZeroUsize, stop: CancellationToken) {
        let mut running: JoinSet<(Key, Lane, u64, Care, Option<Looked>)> = JoinSet::new();
        let (mut slow, most_slow) = (0, (concurrency.get() / SLOW_SHARE).max(1));
        let mut cares: HashMap<Key, Care> = HashMap::new();
        let mut listeners = Listeners::default();
        let (mut leads, mut tenure) = (self.leads.clone(), Tenure::default());
        loop {
            let until = *leads.borrow_and_update();
            if tenure.hear(until, Instant::now()) {
                cares.values_mut().for_each(Care::paused);
            }
            while running.len() < concurrency.get() && self.may_act() {
                let up_to = if slow < most_slow { Lane::Slow } else { Lane::Quick };
                let Some((key, lane)) = self.due.lock().take(Instant::now(), up_to) else { break };
                slow += usize::from(lane == Lane::Slow);
                listeners.listen(&self, &key);
                let care = cares.remove(&key).unwrap_or_default();
                let (this, pauses) = (self.clone(), tenure.pauses);
                let span = tracing::info_span!("look", service = %key, outcome = Empty);
                let look = async move {
                    let (care, looked) = this.look_once(&key, care).await;
                    (key, lane, pauses, care, looked)
                };
                running.spawn(look.instrument(span));
            }
            let up_to = if slow < most_slow { Lane::Slow } else { Lane::Quick };
            let next = self.due.lock().next(up_to).filter(|_| running.len() < concurrency.get());
            tokio::select! {
                () = stop.cancelled() => break,
                Some(done) = running.join_next() => match done {
                    Ok((key, lane, pauses, mut care, looked)) => {
                        if pauses != tenure.pauses {
                            care.paused();
                        }
                        slow -= usize::from(lane == Lane::Slow);
                        let now = Instant::now();
                        match looked {
                            Some(looked) => {
                                cares.insert(key.clone(), care);
                                self.due.lock().done(&key, Some(now + looked.next), looked.lane);
                            }
                            None => {
                                self.instruments.forget(&key);
                                listeners.forget(&key);
                                self.due.lock().done(&key, None, Lane::Quick);
                            }
                        }
                    }
                    // A look that panics would leave its service alone for ever: better to begin again.
                    Err(error) => std::panic::resume_unwind(error.try_into_panic().unwrap_or_else(|error| Box::new(error.to_string()))),
                },
                // Without leave to act nothing is done, however long it is due.
                () = sleep_until(next), if self.may_act() => {}
                () = self.hurry.notified() => {}
                _ = leads.changed() => {}
            }
        }
        // Each look ends with the request that it waits for.
        self.stops.store(true, Ordering::Relaxed);
        while running.join_next().await.is_some() {}
    }

    async fn look_once(&self, key: &Key, mut care: Care) -> (Care, Option<Looked>) {
        let begun = Instant::now();
        let looked = self.look(key, &mut care).await;
        let outcome = looked.as_ref().map_or(Outcome::Ok, |looked| looked.outcome);
        self.instruments.looked(outcome, begun.elapsed());
        ended(&Span::current(), outcome);
        (care, looked)
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

impl Told for Operator {
    fn put(&self, item: Item) {
        let is_service = matches!(item, Item::Service(_));
        let keys = self.view.lock().put(item);
        if is_service && !keys.is_empty() {
            self.losers.lock().stale = true;
        }
        self.wake(&keys);
    }

    fn remove(&self, topic: Topic, name: &Name) {
        let keys = self.view.lock().remove(topic, name);
        if topic == Topic::Service {
            self.losers.lock().stale = true;
            // Whoever was in the way of others is not any more; they are found when anybody is looked at.
            let displaced: Vec<Key> = self.losers.lock().by.keys().cloned().collect();
            self.wake(&displaced);
        }
        self.wake(&keys);
    }

    fn lose(&self, topic: Topic, stray: Stray) {
        let keys = self.view.lock().lose(topic, stray);
        self.wake(&keys);
    }

    fn told_all(&self, namespace: Option<&str>) {
        let keys = self.view.lock().told_all(namespace);
        self.wake(&keys);
    }

    fn blind(&self, topic: Topic, namespace: Option<&str>, is: bool) {
        let keys = self.view.lock().blind(topic, namespace, is);
        self.wake(&keys);
    }

    fn keep_only(&self, topic: Topic, namespace: Option<&str>, told: &HashSet<Name>) {
        let keys = self.view.lock().keep_only(topic, namespace, told);
        if topic == Topic::Service {
            self.losers.lock().stale = true;
        }
        self.wake(&keys);
    }
}

/// Who listens to the store: a task for each service, which wakes it when an offer is held or a worker comes or goes.
#[derive(Default)]
struct Listeners {
    tasks: JoinSet<()>,
    by_key: HashMap<Key, AbortHandle>,
}

impl Listeners {
    fn listen(&mut self, operator: &Arc<Operator>, key: &Key) {
        if self.by_key.contains_key(key) {
            return;
        }
        let Ok(service) = key.to_string().parse() else { return };
        let mut listener = operator.store.listen(&service, StoreTopic::Directory);
        let (operator, of) = (operator.clone(), key.clone());
        let task = self.tasks.spawn(async move {
            loop {
                listener.woken().await;
                operator.wake(std::slice::from_ref(&of));
            }
        });
        self.by_key.insert(key.clone(), task);
    }

    fn forget(&mut self, key: &Key) {
        if let Some(task) = self.by_key.remove(key) {
            task.abort();
        }
        // Their ends are of no interest, and would be kept.
        while self.tasks.try_join_next().is_some() {}
    }
}

#[cfg(test)]
mod tests;
