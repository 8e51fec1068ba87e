//! A store that keeps its callers waiting where a test says so.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use serde_json::Map;
use streamfleet_session::ResumeToken;
use streamfleet_store::{
    Claim, ContextId, ContextKey, ContextStore, Delivery, Document, Expected, Opened, Sharing, StoreError, Version,
    WriteError,
};
use tokio::sync::oneshot;

use super::*;

/// A process's memory with gates before and behind opening and sharing, and behind the exchange of a token.
#[derive(Default)]
pub(crate) struct Gated {
    pub(super) memory: Memory,
    pub(super) before: Gates,
    pub(crate) behind: Gates,
    /// Contexts that were closed.
    pub(super) closed: AtomicUsize,
}

/// Each holds up one caller until it is opened, in their order.
#[derive(Default)]
pub(crate) struct Gates(Mutex<VecDeque<oneshot::Receiver<()>>>);

impl Gates {
    pub(crate) fn shut(&self) -> oneshot::Sender<()> {
        let (open, gate) = oneshot::channel();
        self.0.lock().push_back(gate);
        open
    }

    /// Whether somebody waits at the last one.
    pub(crate) fn is_reached(&self) -> bool {
        self.0.lock().is_empty()
    }

    async fn pass(&self) {
        let gate = self.0.lock().pop_front();
        if let Some(gate) = gate {
            let _ = gate.await;
        }
    }
}

impl Sessions {
    /// The same with such a store; before anybody else has a hold on it.
    pub(crate) fn gated(&mut self) -> Arc<Gated> {
        let store = Arc::new(Gated::default());
        Arc::get_mut(&mut self.inner).unwrap().contexts = store.clone();
        store
    }
}

/// A worker whose contexts are in such a store.
pub(super) fn worker() -> (Worker, Arc<Gated>) {
    let (media, mut sessions) = Worker::sessions();
    let store = sessions.gated();
    let mut worker = Worker::with(sessions);
    let stop = worker.stop.clone();
    worker.running = Some(std::thread::spawn(move || media.run(&stop).unwrap()));
    (worker, store)
}

#[async_trait]
impl ContextStore for Gated {
    async fn open(&self, key: &ContextKey, claim: &Claim) -> Result<Opened, StoreError> {
        self.before.pass().await;
        let opened = self.memory.open(key, claim).await;
        self.behind.pass().await;
        opened
    }

    async fn find(&self, key: &ContextKey) -> Result<Option<ContextId>, StoreError> {
        self.memory.find(key).await
    }

    async fn rotate(&self, key: &ContextKey, token: &ResumeToken) -> Result<Option<Issued>, StoreError> {
        let next = self.memory.rotate(key, token).await;
        self.behind.pass().await;
        next
    }

    async fn share(&self, key: &ContextKey, claim: &Claim) -> Result<Sharing, StoreError> {
        self.before.pass().await;
        let shared = self.memory.share(key, claim).await;
        self.behind.pass().await;
        shared
    }

    async fn confirm(&self, id: ContextId, token: &ResumeToken, delivery: Delivery) -> Result<bool, StoreError> {
        self.memory.confirm(id, token, delivery).await
    }

    async fn verify(&self, key: &ContextKey, token: &ResumeToken) -> Result<Option<ContextId>, StoreError> {
        self.memory.verify(key, token).await
    }

    async fn read(&self, id: ContextId) -> Result<Option<Document>, StoreError> {
        self.memory.read(id).await
    }

    async fn write(&self, id: ContextId, data: Map<String, Value>, expected: Expected) -> Result<Version, WriteError> {
        self.memory.write(id, data, expected).await
    }

    async fn close(&self, id: ContextId) -> Result<(), StoreError> {
        self.memory.close(id).await?;
        self.closed.fetch_add(1, Relaxed);
        Ok(())
    }
}
