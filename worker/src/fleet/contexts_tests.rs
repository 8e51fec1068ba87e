use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::json;
use streamfleet_store::Memory;

use super::*;

/// A store that can be away.
#[derive(Default)]
struct Fickle {
    memory: Memory,
    away: AtomicBool,
}

impl Fickle {
    fn here(&self) -> Result<&Memory, StoreError> {
        if self.away.load(Relaxed) { Err(StoreError::Unavailable("away".to_owned())) } else { Ok(&self.memory) }
    }
}

#[async_trait]
impl ContextStore for Fickle {
    async fn open(&self, key: &ContextKey, claim: &Claim) -> Result<Opened, StoreError> {
        self.here()?.open(key, claim).await
    }
    async fn find(&self, key: &ContextKey) -> Result<Option<ContextId>, StoreError> {
        self.here()?.find(key).await
    }
    async fn rotate(&self, key: &ContextKey, token: &ResumeToken) -> Result<Option<Issued>, StoreError> {
        self.here()?.rotate(key, token).await
    }
    async fn share(&self, key: &ContextKey, claim: &Claim) -> Result<Sharing, StoreError> {
        self.here()?.share(key, claim).await
    }
    async fn confirm(&self, id: ContextId, token: &ResumeToken, delivery: Delivery) -> Result<bool, StoreError> {
        self.here()?.confirm(id, token, delivery).await
    }
    async fn verify(&self, key: &ContextKey, token: &ResumeToken) -> Result<Option<ContextId>, StoreError> {
        self.here()?.verify(key, token).await
    }
    async fn read(&self, id: ContextId) -> Result<Option<Document>, StoreError> {
        self.here()?.read(id).await
    }
    async fn write(&self, id: ContextId, data: Map<String, Value>, expected: Expected) -> Result<Version, WriteError> {
        self.here()?.write(id, data, expected).await
    }
    async fn close(&self, id: ContextId) -> Result<(), StoreError> {
        self.here()?.close(id).await
    }
}

const TOKEN: ResumeToken = ResumeToken::from_random([9; ResumeToken::LEN]);

fn data(n: u32) -> Map<String, Value> {
    json!({ "n": n }).as_object().unwrap().clone()
}

async fn world() -> (Arc<Fickle>, Contexts, ContextId) {
    let store = Arc::new(Fickle::default());
    let key = ContextKey { service: "echo".parse().unwrap(), session: "a".parse().unwrap() };
    let opened = store.open(&key, &Claim::default()).await.unwrap();
    (store.clone(), Contexts::new(store), opened.id)
}

#[tokio::test]
async fn what_is_written_while_the_store_is_away_is_written_when_it_is_back() {
    let (store, contexts, id) = world().await;
    contexts.hold(id, Document::default(), TOKEN, &"a".parse().unwrap());
    assert_eq!(contexts.write(id, data(1), Expected::Anything).await, Ok(Version(1)));
    store.away.store(true, Relaxed);
    assert_eq!(contexts.read(id).await.unwrap().unwrap().data, data(1));
    assert_eq!(contexts.write(id, data(2), Expected::Version(Version(1))).await, Ok(Version(2)));
    let conflict = contexts.write(id, data(3), Expected::Version(Version(1))).await;
    assert_eq!(conflict, Err(WriteError::Conflict { current: Version(2) }));
    assert!(contexts.catch_up().await.is_err());
    store.away.store(false, Relaxed);
    assert_eq!(contexts.read(id).await.unwrap().unwrap().data, data(2), "ahead of the store");
    assert_eq!(contexts.catch_up().await, Ok(()));
    assert_eq!(store.memory.read(id).await.unwrap().unwrap(), Document { data: data(2), version: Version(2) });
    contexts.let_go(id);
    assert!(contexts.known.lock().is_empty());
}

#[tokio::test]
async fn the_last_words_of_a_session_outlive_it_and_are_bounded() {
    let (store, contexts, id) = world().await;
    contexts.hold(id, Document::default(), TOKEN, &"a".parse().unwrap());
    store.away.store(true, Relaxed);
    contexts.write(id, data(7), Expected::Anything).await.unwrap();
    contexts.let_go(id);
    for n in 1..=MAX_LEFT as u128 {
        let other = ContextId::from_random(n);
        contexts.hold(other, Document::default(), TOKEN, &"a".parse().unwrap());
        contexts.write(other, data(1), Expected::Anything).await.unwrap();
        contexts.let_go(other);
        assert!(contexts.known.lock().len() <= MAX_LEFT);
    }
    store.away.store(false, Relaxed);
    assert_eq!(contexts.catch_up().await, Ok(()));
    assert_eq!(store.memory.read(id).await.unwrap().unwrap().data, data(7));
    assert!(contexts.known.lock().is_empty(), "also those that the store has never known");
}

#[tokio::test]
async fn a_stranger_s_context_is_not_made_up() {
    let (store, contexts, id) = world().await;
    store.away.store(true, Relaxed);
    assert!(contexts.read(id).await.is_err());
    assert!(contexts.write(id, data(1), Expected::Anything).await.is_err());
}

/// Its client reaches a live session while the store is away, and nobody else does.
#[tokio::test]
async fn who_holds_a_live_session_is_known_here() {
    let (store, contexts, id) = world().await;
    let key = ContextKey { service: "echo".parse().unwrap(), session: "a".parse().unwrap() };
    contexts.hold(id, Document::default(), TOKEN, &"a".parse().unwrap());
    assert_eq!(contexts.verify(&key, &TOKEN).await, Ok(None), "the store's word counts where it has one");
    store.away.store(true, Relaxed);
    assert_eq!(contexts.verify(&key, &TOKEN).await, Ok(Some(id)));
    let other = ContextKey { session: "b".parse().unwrap(), ..key.clone() };
    assert!(contexts.verify(&other, &TOKEN).await.is_err(), "of its own session, and no other");
    assert!(contexts.verify(&key, &ResumeToken::from_random([8; ResumeToken::LEN])).await.is_err());
    contexts.let_go(id);
    assert!(contexts.verify(&key, &TOKEN).await.is_err());
}

/// A handler here and a backend at another worker, while only this worker cannot reach the store.
#[tokio::test]
async fn what_others_write_meanwhile_stays_where_the_handler_has_not_written() {
    let object = |value: Value| value.as_object().cloned().unwrap();
    let (store, contexts, id) = world().await;
    contexts.hold(id, Document::default(), TOKEN, &"a".parse().unwrap());
    contexts.write(id, object(json!({"a": 1, "b": 1})), Expected::Anything).await.unwrap();
    store.away.store(true, Relaxed);
    contexts.write(id, object(json!({"a": 2, "b": 1})), Expected::Anything).await.unwrap();
    contexts.write(id, object(json!({"a": 3, "b": 1})), Expected::Anything).await.unwrap();
    assert_eq!(contexts.waiting(), 1);
    store.memory.write(id, object(json!({"a": 9, "b": 2, "c": 1})), Expected::Anything).await.unwrap();
    store.away.store(false, Relaxed);
    assert_eq!(contexts.catch_up().await, Ok(()));
    let both = object(json!({"a": 3, "b": 2, "c": 1}));
    let written = store.memory.read(id).await.unwrap().unwrap();
    assert_eq!((&written.data, written.version), (&both, Version(3)));
    assert_eq!((contexts.read(id).await.unwrap().unwrap(), contexts.waiting()), (written, 0));
    assert_eq!(contexts.known(id).unwrap().data, both, "what would be restored");
}
