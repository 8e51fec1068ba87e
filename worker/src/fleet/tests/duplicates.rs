use std::time::Duration;

use serde_json::Map;
use streamfleet_session::CloseReason;
use streamfleet_store::{Claimed, ContextId, ContextStore as _, Expected};

use super::world::{Ground, id, service};

/// Both were told that the id is theirs, by a store that had forgotten the first.
pub(super) async fn the_younger_of_two_ends(ground: Ground) {
    let (a, b) = (ground.worker("a").await, ground.worker("b").await);
    for (n, session) in ["s", "t"].into_iter().enumerate() {
        a.place(n as u64 + 1, session).await.unwrap();
        a.until("active", async |a| a.active_at(session).await.is_some()).await;
    }
    // Enough that nobody takes the one for the other.
    tokio::time::sleep(Duration::from_millis(300)).await;
    ground.store.leave(&service(), &a.owner()).await.unwrap();
    b.place(8, "s").await.unwrap();
    assert_eq!(
        b.live("s").await.map(|live| live.at.worker.to_string()).as_deref(),
        Some("b"),
        "before the other is back"
    );
    a.until("all is as it was", async |a| {
        a.active_at("s").await.as_deref() == Some("a") && a.active_at("t").await.as_deref() == Some("a")
    })
    .await;
    b.until("the younger is over", async |b| b.owned.ids().is_empty()).await;
    assert_eq!(a.owned.ids().len(), 2, "the elder stays");
    assert!(a.owned.ended.lock().is_empty());
    assert_eq!(*b.owned.ended.lock(), [(id("s"), CloseReason::Superseded, None)]);
    // It says so, and keeps nothing of the id.
    b.until("nobody is left at b", async |b| b.member.ledger(|ledger| ledger.counts().0 == 0)).await;
    assert!(matches!(b.claim(10, "s", None).await, Claimed::Duplicate { at } if at.worker.as_str() == "a"));
}

/// Two routers that could not ask the store have given one id to two workers: it has one session when the store is told.
pub(super) async fn what_nobody_has_claimed_is_made_known_and_the_second_of_an_id_ends(ground: Ground) {
    let (a, b) = (ground.worker("a").await, ground.worker("b").await);
    a.provide(1, "s").unwrap();
    let (context, data) = (ContextId::from_random(1), Map::from_iter([("n".to_owned(), 7.into())]));
    a.member.contexts().write(context, data.clone(), Expected::Anything).await.unwrap();
    // Enough that nobody takes the one for the other.
    tokio::time::sleep(Duration::from_millis(300)).await;
    b.provide(2, "s").unwrap();
    b.provide(3, "t").unwrap();
    b.until("the second has ended", async |b| b.owned.ids() == [id("t")]).await;
    a.until("both are known", async |a| {
        a.active_at("s").await.as_deref() == Some("a") && a.active_at("t").await.as_deref() == Some("b")
    })
    .await;
    assert_eq!(*b.owned.ended.lock(), [(id("s"), CloseReason::Superseded, None)]);
    let contexts = a.store.clone().contexts(&service());
    a.until("with what was written before the store knew of it", async |_| {
        contexts.read(context).await.unwrap().is_some_and(|known| known.data == data)
    })
    .await;
}

pub(super) async fn a_client_that_moves_to_another_worker_ends_its_old_session(ground: Ground) {
    let (a, b) = (ground.worker("a").await, ground.worker("b").await);
    let token = a.place(1, "s").await.unwrap();
    a.until("active", async |a| a.active_at("s").await.is_some()).await;
    b.resume(2, "s", Some(token)).await.unwrap();
    a.until("the old one is over", async |a| a.owned.ids().is_empty()).await;
    assert_eq!(a.owned.ended.lock()[0], (id("s"), CloseReason::Moved, None));
    assert_eq!((b.active_at("s").await.as_deref(), b.owned.ids().len()), (Some("b"), 1));
}
