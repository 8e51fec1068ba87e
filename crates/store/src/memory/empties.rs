//! Contexts that nothing was written to and nobody holds: a client whose worker is lost is known by its token where it comes back.
//!
//! They are beside all others, a few of a key, and not for long: who offers in vain takes no room from anybody.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use streamfleet_session::UserId;

use super::EMPTY_RETENTION;
use super::tokens::Tokens;
use crate::context::{ContextId, ContextKey};

#[derive(Debug)]
pub(super) struct Empty {
    pub(super) id: ContextId,
    pub(super) user: Option<UserId>,
    pub(super) tokens: Tokens,
}

#[derive(Debug)]
pub(super) struct Empties {
    /// Of one key, and in all, at most.
    per_key: usize,
    most: usize,
    by_key: HashMap<ContextKey, Vec<(Instant, Empty)>>,
    /// Whose each is; the one that expires first at the front.
    order: BTreeMap<(Instant, ContextId), ContextKey>,
}

impl Empties {
    pub(super) fn new(per_key: usize, most: usize) -> Self {
        Self { per_key, most, by_key: HashMap::new(), order: BTreeMap::new() }
    }

    /// One is closed that would be kept for `retention` if anything had been written to it.
    pub(super) fn put(&mut self, key: ContextKey, empty: Empty, retention: Duration, now: Instant) {
        let expires = now + retention.min(EMPTY_RETENTION);
        self.order.insert((expires, empty.id), key.clone());
        let theirs = self.by_key.entry(key.clone()).or_default();
        theirs.push((expires, empty));
        theirs.sort_by_key(|(expires, empty)| (*expires, empty.id));
        if theirs.len() > self.per_key {
            let id = theirs[0].1.id;
            self.remove(&key, id, now);
        }
        if self.order.len() > self.most {
            self.forget_first(now);
        }
    }

    /// The first of a key of which this is so.
    pub(super) fn find(&self, key: &ContextKey, is_it: impl Fn(&Empty) -> bool, now: Instant) -> Option<ContextId> {
        let mut theirs = self.by_key.get(key)?.iter().filter(|(expires, _)| *expires > now);
        theirs.find(|(_, empty)| is_it(empty)).map(|(_, empty)| empty.id)
    }

    /// Takes out the first of a key of which this is so.
    pub(super) fn take(&mut self, key: &ContextKey, is_it: impl Fn(&Empty) -> bool, now: Instant) -> Option<Empty> {
        let id = self.find(key, is_it, now)?;
        self.remove(key, id, now)
    }

    /// Takes this one out. It is gone from then on, and is returned if it was still known.
    pub(super) fn remove(&mut self, key: &ContextKey, id: ContextId, now: Instant) -> Option<Empty> {
        let theirs = self.by_key.get_mut(key)?;
        let at = theirs.iter().position(|(_, empty)| empty.id == id)?;
        let (expires, empty) = theirs.remove(at);
        if theirs.is_empty() {
            self.by_key.remove(key);
        }
        self.order.remove(&(expires, id));
        (expires > now).then_some(empty)
    }

    fn forget_first(&mut self, now: Instant) {
        if let Some(((_, id), key)) = self.order.pop_first() {
            self.remove(&key, id, now);
        }
    }

    /// Forgets a few that have expired.
    pub(super) fn expire(&mut self, at_once: usize, now: Instant) {
        for _ in 0..at_once {
            match self.order.first_key_value() {
                Some(((expires, _), _)) if *expires <= now => self.forget_first(now),
                _ => break,
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.order.len(), self.by_key.values().map(Vec::len).sum::<usize>());
        self.order.len()
    }

    /// Each with its key and when it expires.
    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = (&ContextKey, Instant, &Empty)> {
        self.by_key.iter().flat_map(|(key, theirs)| theirs.iter().map(move |(expires, empty)| (key, *expires, empty)))
    }
}
