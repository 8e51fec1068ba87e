//! Closed contexts in the order in which they are forgotten.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::context::ContextId;

/// When a context expires, and which.
type Entry = (Instant, ContextId);

/// Closed contexts. Those that are larger than their share of all bytes are known apart: where bytes are short they go
/// first, so that somebody who writes much into many sessions loses his own and not those of everybody else.
#[derive(Debug)]
pub(super) struct Shelf {
    /// Bytes that each context may have if all had the same.
    share: usize,
    /// The one that expires first at the front.
    all: BTreeSet<Entry>,
    /// Those of them that are larger than their share.
    large: BTreeSet<Entry>,
}

impl Shelf {
    pub(super) const fn new(share: usize) -> Self {
        Self { share, all: BTreeSet::new(), large: BTreeSet::new() }
    }

    /// A context of this size is closed. One that is closed already has this size now.
    pub(super) fn put(&mut self, expires: Instant, id: ContextId, bytes: usize) {
        self.take(expires, id);
        self.all.insert((expires, id));
        if bytes > self.share {
            self.large.insert((expires, id));
        }
    }

    /// A context is open again, or forgotten.
    pub(super) fn take(&mut self, expires: Instant, id: ContextId) {
        self.all.remove(&(expires, id));
        self.large.remove(&(expires, id));
    }

    /// The one that expires first, and when.
    pub(super) fn first(&self) -> Option<Entry> {
        self.all.first().copied()
    }

    /// Which is to go where bytes are short: the oldest of the large ones, else the oldest; never `spared`.
    pub(super) fn first_for_bytes(&self, spared: ContextId) -> Option<ContextId> {
        self.large.iter().chain(&self.all).map(|(_, id)| *id).find(|id| *id != spared)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    #[cfg(test)]
    pub(super) fn large(&self) -> impl Iterator<Item = ContextId> {
        self.large.iter().map(|(_, id)| *id)
    }
}
