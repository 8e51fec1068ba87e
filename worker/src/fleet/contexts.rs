//! Contexts of a service whose sessions live on while the store is away: what is written then is kept here, and written
//! when it is back.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use streamfleet_session::{ResumeToken, SessionId};
use streamfleet_store::{
    Claim, ContextId, ContextKey, ContextStore, Delivery, Document, Expected, Issued, Opened, Sharing, StoreError,
    Version, WriteError, checked,
};

use super::reconcile::reconcile;

/// Contexts of sessions that are over and that the store has not been told of: 64 MB where each is as large as it may be.
/// Of more, the last words are lost.
const MAX_LEFT: usize = 1024;
/// Contexts written at a time: enough to hide a round trip, and 2 MB where each is as large as it may be.
pub(super) const MAX_WRITES: usize = 32;

/// What is known of a context that a session of this worker has.
#[derive(Debug, Clone)]
struct Known {
    /// Whose it is here.
    session: SessionId,
    holders: usize,
    document: Document,
    /// What its client was given last by what is known here: good to reach a live session while nobody else can be asked.
    token: Option<ResumeToken>,
    /// How often it was written here since the store has had it; 0 when it has.
    unwritten: u64,
    /// What the store had when it was first written here alone.
    base: Option<Document>,
}

/// Others who write one document while this worker writes it again: whoever loses so often is not racing.
const ATTEMPTS: usize = 8;

/// The contexts of one service.
pub(crate) struct Contexts {
    store: Arc<dyn ContextStore>,
    /// At most one for each session here, and [`MAX_LEFT`].
    known: Mutex<HashMap<ContextId, Known>>,
}

impl Contexts {
    pub(super) fn new(store: Arc<dyn ContextStore>) -> Self {
        Self { store, known: Mutex::default() }
    }

    /// A session here has this context.
    pub(super) fn hold(&self, id: ContextId, document: Document, token: ResumeToken, session: &SessionId) {
        let mut known = self.known.lock();
        let entry = known.entry(id).or_insert_with(|| Known {
            session: session.clone(),
            holders: 0,
            document: Document::default(),
            token: None,
            unwritten: 0,
            base: None,
        });
        entry.holders += 1;
        entry.token = Some(token);
        if entry.unwritten == 0 && document.version >= entry.document.version {
            entry.document = document;
        }
    }

    /// It has it no longer.
    pub(super) fn let_go(&self, id: ContextId) {
        let mut known = self.known.lock();
        let left = known.values().filter(|known| known.holders == 0).count();
        let Some(entry) = known.get_mut(&id) else { return };
        entry.holders = entry.holders.saturating_sub(1);
        if entry.holders > 0 {
            return;
        }
        if entry.unwritten > 0 && left >= MAX_LEFT {
            tracing::warn!(?id, "the last words of a session are lost: the store has been away for too long");
        }
        if entry.unwritten == 0 || left >= MAX_LEFT {
            known.remove(&id);
        }
    }

    /// What a context holds, as far as it is known here.
    pub(crate) fn known(&self, id: ContextId) -> Option<Document> {
        self.known.lock().get(&id).map(|known| known.document.clone())
    }

    /// Contexts of which the store has not the last words.
    pub(super) fn unwritten(&self) -> Vec<ContextId> {
        self.behind(|_| true)
    }

    /// Those of them that no session here has any more: [`MAX_LEFT`] at most.
    pub(super) fn left_behind(&self) -> Vec<ContextId> {
        self.behind(|known| known.holders == 0)
    }

    fn behind(&self, is_meant: impl Fn(&Known) -> bool) -> Vec<ContextId> {
        let known = self.known.lock();
        known.iter().filter(|(_, known)| known.unwritten > 0 && is_meant(known)).map(|(id, _)| *id).collect()
    }

    /// Writes what the store has missed of these, [`MAX_WRITES`] at a time.
    ///
    /// # Errors
    /// [`StoreError`]; what is left is kept.
    pub(super) async fn catch_up(&self, ids: &[ContextId]) -> Result<(), StoreError> {
        for some in ids.chunks(MAX_WRITES) {
            let written = join_all(some.iter().map(|id| self.catch_up_one(*id))).await;
            written.into_iter().collect::<Result<(), StoreError>>()?;
        }
        Ok(())
    }

    async fn catch_up_one(&self, id: ContextId) -> Result<(), StoreError> {
        let written = self.known.lock().get(&id).filter(|known| known.unwritten > 0).cloned();
        let Some(written) = written else { return Ok(()) };
        match self.write_again(id, &written).await {
            Ok(document) => self.caught_up(id, written.unwritten, Some(document)),
            Err(WriteError::Store(error)) if error != StoreError::Full => return Err(error),
            // It has been forgotten, or does not fit any more: writing it again would not help.
            Err(error) => {
                tracing::warn!(?id, %error, "what was written while the store was away is lost");
                self.caught_up(id, written.unwritten, None);
            }
        }
        Ok(())
    }

    /// Writes one document that the store has missed. Somebody else may have written it since, where the store was away from
    /// here only: both have their way then, and where that cannot be the handler has its own, and a line says so.
    async fn write_again(&self, id: ContextId, written: &Known) -> Result<Document, WriteError> {
        let base = written.base.clone().unwrap_or_default();
        let (mut data, mut expected) = (written.document.data.clone(), base.version);
        for _ in 0..ATTEMPTS {
            match self.store.write(id, data.clone(), Expected::Version(expected)).await {
                Ok(version) => return Ok(Document { data, version }),
                Err(WriteError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
            let theirs = self.store.read(id).await?.ok_or(WriteError::Gone)?;
            expected = theirs.version;
            // A store that came back empty has it from the session that was restored.
            if theirs.data == written.document.data {
                return Ok(theirs);
            }
            let reconciled = reconcile(&base.data, &written.document.data, &theirs.data);
            if reconciled.lost.is_empty() {
                tracing::info!(?id, version = %theirs.version, "two have written a context apart, and both are kept");
            } else {
                // The names are the application's own; values are about people.
                tracing::warn!(?id, version = %theirs.version, members = ?reconciled.lost,
                    "what was written to a context elsewhere is replaced by what its handler has written meanwhile");
            }
            data = reconciled.data;
        }
        Err(WriteError::Store(StoreError::Unavailable("others write without end".to_owned())))
    }

    /// Contexts of which the store has not the last words.
    pub(super) fn waiting(&self) -> usize {
        self.known.lock().values().filter(|known| known.unwritten > 0).count()
    }

    fn caught_up(&self, id: ContextId, writes: u64, document: Option<Document>) {
        let mut known = self.known.lock();
        let Some(entry) = known.get_mut(&id) else { return };
        entry.unwritten -= writes.min(entry.unwritten);
        if entry.unwritten > 0 {
            // Written again meanwhile, on top of what the store has now.
            if let Some(document) = document {
                entry.base = Some(document);
            }
        } else {
            entry.base = None;
            if let Some(document) = document {
                entry.document = document;
            }
            if entry.holders == 0 {
                known.remove(&id);
            }
        }
    }

    /// Changes what is known of a context, if it is one of a session here and `when` says so.
    fn write_here(
        &self,
        id: ContextId,
        data: &Map<String, Value>,
        expected: Expected,
        when: impl FnOnce(&Known) -> bool,
    ) -> Option<Result<Version, WriteError>> {
        let mut known = self.known.lock();
        let entry = known.get_mut(&id).filter(|entry| when(entry))?;
        if let Err(invalid) = checked(data) {
            return Some(Err(invalid.into()));
        }
        let current = entry.document.version;
        if !expected.allows(current) {
            return Some(Err(WriteError::Conflict { current }));
        }
        let before = std::mem::replace(&mut entry.document, Document { data: data.clone(), version: current.next() });
        if entry.unwritten == 0 {
            entry.base = Some(before);
        }
        entry.unwritten += 1;
        Some(Ok(entry.document.version))
    }

    /// The context of a session that lives here, by its token.
    fn live_by(&self, key: &ContextKey, token: &ResumeToken) -> Option<ContextId> {
        let known = self.known.lock();
        let mut live = known.iter().filter(|(_, known)| known.holders > 0 && known.session == key.session);
        live.find(|(_, known)| known.token.as_ref() == Some(token)).map(|(id, _)| *id)
    }

    fn learn(&self, id: ContextId, document: &Document) {
        if let Some(entry) = self.known.lock().get_mut(&id)
            && entry.unwritten == 0
            && document.version >= entry.document.version
        {
            entry.document = document.clone();
        }
    }
}

#[async_trait]
impl ContextStore for Contexts {
    async fn open(&self, key: &ContextKey, claim: &Claim) -> Result<Opened, StoreError> {
        self.store.open(key, claim).await
    }

    async fn find(&self, key: &ContextKey) -> Result<Option<ContextId>, StoreError> {
        self.store.find(key).await
    }

    async fn rotate(&self, key: &ContextKey, token: &ResumeToken) -> Result<Option<Issued>, StoreError> {
        let issued = self.store.rotate(key, token).await?;
        if let Some(issued) = &issued {
            let mut known = self.known.lock();
            let entry = known.values_mut().find(|known| known.token.as_ref() == Some(token));
            entry.map(|entry| entry.token.replace(issued.token));
        }
        Ok(issued)
    }

    async fn share(&self, key: &ContextKey, claim: &Claim) -> Result<Sharing, StoreError> {
        self.store.share(key, claim).await
    }

    async fn confirm(&self, id: ContextId, token: &ResumeToken, delivery: Delivery) -> Result<bool, StoreError> {
        self.store.confirm(id, token, delivery).await
    }

    async fn verify(&self, key: &ContextKey, token: &ResumeToken) -> Result<Option<ContextId>, StoreError> {
        match self.store.verify(key, token).await {
            Err(error) if error.is_away() => self.live_by(key, token).map(Some).ok_or(error),
            // A store that has come back empty has not been told of it yet.
            Ok(None) if let Some(id) = self.live_by(key, token) => {
                Ok(self.store.read(id).await?.is_none().then_some(id))
            }
            verified => verified,
        }
    }

    async fn read(&self, id: ContextId) -> Result<Option<Document>, StoreError> {
        let ahead = self.known.lock().get(&id).filter(|known| known.unwritten > 0).map(|known| known.document.clone());
        if ahead.is_some() {
            return Ok(ahead);
        }
        match self.store.read(id).await {
            Ok(Some(document)) => {
                self.learn(id, &document);
                Ok(Some(document))
            }
            // A store that has come back empty has not been told of it yet.
            Ok(None) => Ok(self.known(id)),
            Err(error) => self.known(id).map(Some).ok_or(error),
        }
    }

    async fn write(&self, id: ContextId, data: Map<String, Value>, expected: Expected) -> Result<Version, WriteError> {
        // Behind what waits to be written, or the order would be another one.
        if let Some(written) = self.write_here(id, &data, expected, |known| known.unwritten > 0) {
            return written;
        }
        match self.store.write(id, data.clone(), expected).await {
            Ok(version) => {
                self.learn(id, &Document { data, version });
                Ok(version)
            }
            Err(error) => {
                let may_wait = match &error {
                    WriteError::Gone => true,
                    WriteError::Store(error) => error.is_away(),
                    WriteError::Conflict { .. } | WriteError::Invalid(_) => false,
                };
                let here = if may_wait { self.write_here(id, &data, expected, |_| true) } else { None };
                here.unwrap_or(Err(error))
            }
        }
    }

    async fn close(&self, id: ContextId) -> Result<(), StoreError> {
        self.store.close(id).await
    }
}

#[cfg(test)]
#[path = "contexts_tests.rs"]
mod tests;
