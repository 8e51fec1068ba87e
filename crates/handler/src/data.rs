//! What is remembered of a conversation: JSON that outlives the connection.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value};
use streamfleet_store::{ContextId, ContextStore, Document, Expected, Version, WriteError, checked};

/// One session's document, as its handler sees it. The application's backend reads and writes the same one over HTTP, so
/// every write says which version it replaces, or that it does not care.
#[derive(Clone)]
pub struct Data(Arc<Kept>);

enum Kept {
    In { store: Arc<dyn ContextStore>, id: ContextId },
    Here(Mutex<Document>),
}

impl Data {
    /// The document `id` of a store.
    #[must_use]
    pub fn new(store: Arc<dyn ContextStore>, id: ContextId) -> Self {
        Self(Arc::new(Kept::In { store, id }))
    }

    /// A document that nobody else knows and that dies with its last handle.
    #[must_use]
    pub fn detached() -> Self {
        Self(Arc::new(Kept::Here(Mutex::default())))
    }

    /// What it holds now.
    ///
    /// # Errors
    /// [`WriteError::Gone`] when it has been forgotten, [`WriteError::Store`] when the store does not answer.
    pub async fn read(&self) -> Result<Document, WriteError> {
        match &*self.0 {
            Kept::In { store, id } => store.read(*id).await?.ok_or(WriteError::Gone),
            Kept::Here(document) => Ok(document.lock().clone()),
        }
    }

    /// Replaces what it holds. Returns the new version.
    ///
    /// # Errors
    /// [`WriteError`]; nothing is changed then.
    pub async fn write(&self, data: Map<String, Value>, expected: Expected) -> Result<Version, WriteError> {
        match &*self.0 {
            Kept::In { store, id } => store.write(*id, data, expected).await,
            Kept::Here(document) => {
                checked(&data)?;
                let mut document = document.lock();
                if !expected.allows(document.version) {
                    return Err(WriteError::Conflict { current: document.version });
                }
                *document = Document { data, version: document.version.next() };
                Ok(document.version)
            }
        }
    }

    /// Reads, changes and writes, and again with what is there by then if somebody else has written meanwhile; `change` may
    /// therefore run several times. Returns what was written.
    ///
    /// # Errors
    /// [`WriteError`]; nothing is changed then. A conflict only when others write without end.
    pub async fn update(&self, mut change: impl FnMut(&mut Map<String, Value>) + Send) -> Result<Document, WriteError> {
        /// Writers of one conversation are a handler and a backend: whoever loses this often is not racing, it is starved.
        const ATTEMPTS: usize = 16;
        let mut conflict = WriteError::Gone;
        for _ in 0..ATTEMPTS {
            let Document { mut data, version } = self.read().await?;
            change(&mut data);
            match self.write(data.clone(), Expected::Version(version)).await {
                Ok(version) => return Ok(Document { data, version }),
                Err(error @ WriteError::Conflict { .. }) => conflict = error,
                Err(error) => return Err(error),
            }
        }
        Err(conflict)
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the content: it is the application's, about people.
        match &*self.0 {
            Kept::In { id, .. } => f.debug_tuple("Data").field(id).finish(),
            Kept::Here(_) => f.write_str("Data(detached)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use streamfleet_store::{Claim, ContextKey, Memory};

    async fn stored() -> (Data, Data) {
        let store: Arc<dyn ContextStore> = Arc::new(Memory::default());
        let key = ContextKey { service: "echo".parse().unwrap(), session: "a".parse().unwrap() };
        let id = store.open(&key, &Claim::default()).await.unwrap().id;
        (Data::new(store.clone(), id), Data::new(store, id))
    }

    #[tokio::test]
    async fn an_update_loses_nothing_that_others_write_meanwhile() {
        let (ours, theirs) = stored().await;
        let mut first = true;
        let written = ours
            .update(|data| {
                // Somebody else writes between our reading and our writing, once.
                if std::mem::take(&mut first) {
                    let mut other = Map::new();
                    other.insert("theirs".into(), json!(1));
                    let write = futures_util::FutureExt::now_or_never(theirs.write(other, Expected::Anything));
                    assert_eq!(write, Some(Ok(Version(1))));
                }
                data.insert("ours".into(), json!(2));
            })
            .await
            .unwrap();
        assert_eq!(Value::Object(written.data), json!({ "theirs": 1, "ours": 2 }));
        assert_eq!(written.version, Version(2));
        assert_eq!(theirs.read().await.unwrap().version, Version(2));
    }

    #[tokio::test]
    async fn a_detached_document_keeps_the_same_rules() {
        let data = Data::detached();
        let conflict = data.write(Map::new(), Expected::Version(Version(1))).await;
        assert_eq!(conflict, Err(WriteError::Conflict { current: Version(0) }));
        assert_eq!(data.write(Map::new(), Expected::Version(Version(0))).await, Ok(Version(1)));
        let mut large = Map::new();
        large.insert("k".into(), json!("x".repeat(100_000)));
        assert!(matches!(data.write(large, Expected::Anything).await, Err(WriteError::Invalid(_))));
        assert_eq!(data.read().await.unwrap().version, Version(1));
    }
}
