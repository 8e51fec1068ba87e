use std::time::Duration;

use streamfleet_session::CloseReason;
use streamfleet_store::Claimed;

use super::world::{Ground, id};

/// Both were told that the id is theirs, by a store that has forgotten the first.
pub(super) async fn the_younger_of_two_ends(ground: Ground) {
    let (a, b) = (ground.worker("a").await, ground.worker("b").await);
    for (n, session) in ["s", "t"].into_iter().enumerate() {
        a.place(n as u64 + 1, session).await.unwrap();
        a.until("active", async |a| a.active_at(session).await.is_some()).await;
    }
    // Enough that nobody takes the one for the other.
    tokio::time::sleep(Duration::from_millis(300)).await;
    ground.forget().await;
    b.until("b is known again", async |b| {
        b.member.owner().is_some() && matches!(b.claim(9, "x", None).await, Claimed::Placed(_))
    })
    .await;
    // Unless the first has been quicker, its id is given away. What has come of it is the same.
    if let Claimed::Placed(_) = b.claim(7, "s", None).await {
        b.store.release(&super::world::service(), streamfleet_store::Ticket::from_random(7)).await.unwrap();
        b.place(8, "s").await.unwrap();
    }
    a.until("all is as it was", async |a| {
        a.active_at("s").await.as_deref() == Some("a") && a.active_at("t").await.as_deref() == Some("a")
    })
    .await;
    b.until("the younger is over", async |b| b.owned.ids().is_empty()).await;
    assert_eq!(a.owned.ids().len(), 2, "the elder stays");
    assert!(a.owned.ended.lock().is_empty());
    for (session, reason, _) in b.owned.ended.lock().iter() {
        assert_eq!((session, *reason), (&id("s"), CloseReason::Superseded));
    }
    // It says so, and keeps nothing of the id.
    b.until("nobody is left at b", async |b| b.member.ledger(|ledger| ledger.counts().0 == 0)).await;
    assert!(matches!(b.claim(10, "s", None).await, Claimed::Duplicate { at } if at.worker.as_str() == "a"));
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
