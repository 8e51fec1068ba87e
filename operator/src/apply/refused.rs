//! What was refused, and when it is tried again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::is_for_pods;
use crate::kind::Kind;
use crate::objects::Object;
use crate::status::Fault;

/// What was refused is tried again after this, and then after twice as long, up to [`MAX_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// The longest wait: whoever has removed the cause (a quota, a webhook) should not wait long.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// After a request that was not answered in time, the service's others of its sort wait for this: each may take as long, and there are
/// better uses of a look.
pub const REST: Duration = Duration::from_secs(10);
/// Garbage collection takes moments. What has not gone by then will not go by itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What could not be written, by kind and name.
#[derive(Debug, Clone, Default)]
pub struct Refused {
    pub(super) objects: BTreeMap<(Kind, String), Once>,
    /// What is not wanted any more and could not be deleted.
    pub(super) kept: BTreeMap<(Kind, String), (Wait, Fault)>,
    /// What is to go before it can be made: since when that is awaited, and how that is told.
    pub(super) awaited: BTreeMap<(Kind, String), (Instant, Fault)>,
    /// Until when nothing is written at all, as somebody has not answered in time.
    rests: Option<Instant>,
}

/// An object as it was refused.
#[derive(Debug, Clone)]
pub(super) struct Once {
    hash: [u8; 16],
    wait: Wait,
    fault: Fault,
}

/// How long something that was refused is not tried again: longer each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Until then.
    pub until: Instant,
    length: Duration,
}

impl Wait {
    /// It was refused, `before` too perhaps. `luck` between 0 and 1 spreads the next tries of many.
    #[must_use]
    pub fn after(before: Option<Self>, now: Instant, luck: f64) -> Self {
        let length = before.map_or(FIRST_WAIT, |before| (before.length * 2).min(MAX_WAIT));
        Self { until: now + length.mul_f64(0.75 + luck / 2.0), length }
    }
}

impl Refused {
    /// Whether an object was refused as it is now, and is not to be tried yet.
    pub(super) fn waits(&self, object: &Object, hash: [u8; 16], now: Instant) -> bool {
        self.objects
            .get(&(object.kind, object.name.clone()))
            .is_some_and(|once| once.hash == hash && now < once.wait.until)
    }

    /// Whether one of them is what pods refer to.
    pub(super) fn keeps_pods_from_starting(&self) -> bool {
        self.objects.keys().any(|(kind, _)| is_for_pods(*kind))
    }

    pub(super) fn has(&self, object: &Object) -> bool {
        self.objects.contains_key(&(object.kind, object.name.clone()))
    }

    /// An object was refused. `luck` between 0 and 1 spreads the next tries of many.
    pub(super) fn note(&mut self, object: &Object, hash: [u8; 16], fault: Fault, now: Instant, luck: f64) {
        let key = (object.kind, object.name.clone());
        let before = self.objects.get(&key).filter(|once| once.hash == hash).map(|once| once.wait);
        self.objects.insert(key, Once { hash, wait: Wait::after(before, now, luck), fault });
    }

    /// What is not wanted any more could not be deleted.
    pub(super) fn keeps(&mut self, kind: Kind, name: String, fault: Fault, luck: f64) {
        let before = self.kept.get(&(kind, name.clone())).map(|(wait, _)| *wait);
        self.kept.insert((kind, name), (Wait::after(before, Instant::now(), luck), fault));
    }

    #[cfg(test)]
    pub(crate) fn refused_long_ago(&mut self) {
        let (value, trial) = (serde_json::Value::Null, crate::objects::Trial::None);
        let object = Object { kind: Kind::Service, name: "a".to_owned(), value, trial };
        let long_ago = Instant::now().checked_sub(MAX_WAIT * 2).unwrap_or_else(Instant::now);
        self.note(&object, object.hash(), Fault::new(crate::reasons::Word::ObjectRefused, ""), long_ago, 0.5);
    }

    /// What is wrong.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        let now = Instant::now();
        let late = self.awaited.values().filter(move |(since, _)| now.saturating_duration_since(*since) >= PATIENCE);
        let kept = self.kept.values().map(|(_, fault)| fault);
        self.objects.values().map(|once| &once.fault).chain(late.map(|(_, fault)| fault)).chain(kept)
    }

    /// It is as it should be, or will be.
    pub(super) fn forget(&mut self, object: &Object) {
        self.objects.remove(&(object.kind, object.name.clone()));
    }

    /// What is there is to go first.
    pub(super) fn awaits(&mut self, object: &Object, fault: Fault, now: Instant) {
        let name = (object.kind, object.name.clone());
        let since = self.awaited.get(&name).map_or(now, |(since, _)| *since);
        self.awaited.insert(name, (since, fault));
    }

    /// When the next one is tried again.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        let kept = self.kept.values().map(|(wait, _)| wait.until);
        let next = self.objects.values().map(|once| once.wait.until).chain(kept).min()?;
        Some(self.rests.map_or(next, |rests| rests.max(next)))
    }

    /// Whether nothing is to be written yet.
    #[must_use]
    pub fn rests(&self, now: Instant) -> bool {
        self.rests.is_some_and(|until| now < until)
    }

    /// Nobody has said in time whether an object is taken.
    pub(super) fn hangs(&mut self, object: &Object, hash: [u8; 16], fault: Fault) {
        self.note(object, hash, fault, Instant::now(), rand::random());
        self.rest();
    }

    /// Nothing is written for a while.
    pub(super) fn rest(&mut self) {
        self.rests = Some(Instant::now() + REST);
    }
}
