use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::fleet::tests::fickle::Fickle;

const TOKEN: ResumeToken = ResumeToken::from_random([9; ResumeToken::LEN]);

fn data(n: u32) -> Map<String, Value> {
    json!({ "n": n }).as_object().unwrap().clone()
}

async fn catch_up(contexts: &Contexts) -> Result<(), StoreError> {
    contexts.catch_up(&contexts.unwritten()).await
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
    assert!(catch_up(&contexts).await.is_err());
    store.away.store(false, Relaxed);
    assert_eq!(contexts.read(id).await.unwrap().unwrap().data, data(2), "ahead of the store");
    assert_eq!(catch_up(&contexts).await, Ok(()));
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
    assert_eq!(catch_up(&contexts).await, Ok(()));
    assert_eq!(store.memory.read(id).await.unwrap().unwrap().data, data(7));
    assert!(contexts.known.lock().is_empty(), "also those that the store has never known");
}

#[tokio::test(start_paused = true)]
async fn many_are_written_at_a_time_and_only_those_that_are_meant() {
    const MANY: u128 = 3 * MAX_WRITES as u128 + 1;
    let (store, contexts, _) = world().await;
    store.away.store(true, Relaxed);
    for n in 0..MANY {
        let id = ContextId::from_random(n);
        contexts.hold(id, Document::default(), TOKEN, &"a".parse().unwrap());
        contexts.write(id, data(1), Expected::Anything).await.unwrap();
    }
    contexts.let_go(ContextId::from_random(7));
    assert_eq!(contexts.left_behind(), [ContextId::from_random(7)]);
    store.away.store(false, Relaxed);
    *store.writing.lock() = Duration::from_millis(10);
    assert_eq!(contexts.catch_up(&contexts.left_behind()).await, Ok(()));
    assert_eq!((store.asked("write"), contexts.waiting()), (MANY as usize + 1, MANY as usize - 1));
    let begun = Instant::now();
    assert_eq!(catch_up(&contexts).await, Ok(()));
    assert_eq!((begun.elapsed(), contexts.waiting()), (Duration::from_millis(30), 0));
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
    // A store that has come back, and has forgotten it.
    let (lost, token) = (ContextId::from_random(99), ResumeToken::from_random([9; ResumeToken::LEN]));
    contexts.hold(lost, Document::default(), token, &"a".parse().unwrap());
    store.away.store(false, Relaxed);
    assert_eq!(contexts.verify(&key, &token).await, Ok(Some(lost)));
    assert_eq!(contexts.verify(&other, &token).await, Ok(None));
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
    assert_eq!(catch_up(&contexts).await, Ok(()));
    let both = object(json!({"a": 3, "b": 2, "c": 1}));
    let written = store.memory.read(id).await.unwrap().unwrap();
    assert_eq!((&written.data, written.version), (&both, Version(3)));
    assert_eq!((contexts.read(id).await.unwrap().unwrap(), contexts.waiting()), (written, 0));
    assert_eq!(contexts.known(id).unwrap().data, both, "what would be restored");
}
