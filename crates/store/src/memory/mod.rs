//! The store of a process that stands alone.

mod calls;
mod empties;
mod fleet;
mod shared;
mod shelf;
mod table;
mod tokens;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use streamfleet_session::{ResumeToken, ServiceName};

use crate::context::{
    Claim, ContextId, ContextKey, ContextStore, Delivery, Expected, Issued, Opened, Sharing, StoreError, WriteError,
};
use crate::document::{Document, Version};
use crate::wake::Hub;
use crate::words::Terms;
use fleet::Fleet;
use table::Table;

/// How long a token that was shown is taken once more: as long as a session waits for a client whose socket broke.
pub const TOKEN_GRACE: Duration = Duration::from_secs(30);

/// How long the token of a session that is over is good in which nothing was written, unless its service's retention is shorter: long enough
/// for a client whose worker was lost to come back elsewhere, and short enough for who offers in vain to fill nothing.
pub const EMPTY_RETENTION: Duration = Duration::from_secs(60);

/// What a [`Memory`] holds at most.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How long a closed context can be resumed.
    pub retention: Duration,
    /// Contexts, open and closed. The longest closed make room for new ones; open ones never do. A [`Memory`] has beside them as many that
    /// nothing was written to and nobody holds, of which the tokens are kept.
    pub contexts: usize,
    /// Bytes of all documents, as compact JSON. Closed contexts make room here too: first those with more than an equal
    /// share (`bytes` / `contexts`), the longest closed of them first, then all others. Open ones never do: what is
    /// written then is refused.
    pub bytes: usize,
    /// Closed contexts of one key: what clients can pile up by offering one id over and over.
    pub closed_per_key: usize,
    /// Contexts forgotten for their age at one call: every session waits for the table, also when thousands that ended
    /// together expire together.
    pub expired_at_once: usize,
}

impl Default for Bounds {
    /// Ten minutes outlast a lift, a tunnel and a restart of the page; 2^18 contexts are twice what a worker carries;
    /// 256 MiB is 1 kB for each. A session has several calls, so sixteen at each keep ahead of what is closed.
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(600),
            contexts: 1 << 18,
            bytes: 256 << 20,
            closed_per_key: 4,
            expired_at_once: 16,
        }
    }
}

/// What a [`Memory`] holds now, and what it could not keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Contexts, open and closed.
    pub contexts: usize,
    /// Bytes of their documents.
    pub bytes: usize,
    /// Closed contexts that were forgotten before their time since there were too many.
    pub evicted_for_contexts: u64,
    /// Likewise, for their bytes.
    pub evicted_for_bytes: u64,
    /// Likewise, as newer ones of the same key were closed.
    pub evicted_of_their_key: u64,
}

/// What a fleet knows, in this process's memory: it outlives its sessions, not the process.
#[derive(Debug)]
pub struct Memory {
    terms: Terms,
    state: Mutex<State>,
    hub: Arc<Hub>,
}

#[derive(Debug)]
struct State {
    contexts: Table,
    /// By service. Names come from configuration, so there are as many as that has.
    fleets: HashMap<ServiceName, Fleet>,
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self::with_terms(bounds, Terms::default())
    }

    /// An empty store with terms of its own.
    #[must_use]
    pub fn with_terms(bounds: Bounds, terms: Terms) -> Self {
        let state = State { contexts: Table::new(bounds), fleets: HashMap::new() };
        Self { terms, state: Mutex::new(state), hub: Arc::default() }
    }

    /// How long things last in it.
    #[must_use]
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// Contexts held now, open and closed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().contexts.len()
    }

    /// What it holds, and what it could not keep.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.state.lock().contexts.usage()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The runtime's clock, so that a test whose time is virtual moves this one too.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(Bounds::default())
    }
}

#[async_trait]
impl ContextStore for Memory {
    async fn open(&self, key: &ContextKey, claim: &Claim) -> Result<Opened, StoreError> {
        let (id, token) = (ContextId(rand::random()), ResumeToken::from_random(rand::random()));
        self.state.lock().contexts.open(key, claim, id, token, now())
    }

    async fn find(&self, key: &ContextKey) -> Result<Option<ContextId>, StoreError> {
        Ok(self.state.lock().contexts.find(key, now()))
    }

    async fn rotate(&self, key: &ContextKey, token: &ResumeToken) -> Result<Option<Issued>, StoreError> {
        let next = ResumeToken::from_random(rand::random());
        Ok(self.state.lock().contexts.rotate(key, token, next, now()))
    }

    async fn share(&self, key: &ContextKey, claim: &Claim) -> Result<Sharing, StoreError> {
        let next = ResumeToken::from_random(rand::random());
        Ok(self.state.lock().contexts.share(key, claim, next, now()))
    }

    async fn confirm(&self, id: ContextId, token: &ResumeToken, delivery: Delivery) -> Result<bool, StoreError> {
        Ok(self.state.lock().contexts.confirm(id, token, delivery, now()))
    }

    async fn verify(&self, key: &ContextKey, token: &ResumeToken) -> Result<Option<ContextId>, StoreError> {
        Ok(self.state.lock().contexts.verify(key, token, now()))
    }

    async fn read(&self, id: ContextId) -> Result<Option<Document>, StoreError> {
        Ok(self.state.lock().contexts.read(id, now()))
    }

    async fn write(&self, id: ContextId, data: Map<String, Value>, expected: Expected) -> Result<Version, WriteError> {
        self.state.lock().contexts.write(id, data, expected, now())
    }

    async fn close(&self, id: ContextId) -> Result<(), StoreError> {
        self.state.lock().contexts.close(id, now());
        Ok(())
    }
}
