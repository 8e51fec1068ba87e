use std::time::Duration;

use streamfleet_session::CloseReason;
use streamfleet_session::fleet::Refused;
use streamfleet_store::{Claimed, Demand, Gate, LastWords, Ticket, Told, settle};

use super::world::{Ground, id, service};
use crate::fleet::Owned as _;

pub(super) async fn a_worker_that_is_asked_to_leave_asks_its_clients_and_says_when_it_is_empty(ground: Ground) {
    let a = ground.worker("a").await;
    let b = ground.worker("b").await;
    a.place(1, "s").await.unwrap();
    a.until("active", async |a| a.active_at("s").await.is_some()).await;
    let says = async || {
        let views = b.store.workers(&service()).await.unwrap();
        let view = views.into_iter().find(|view| view.owner.worker.as_str() == "a").unwrap();
        (view.gate, view.said.map(|said| said.active + said.reserved))
    };
    a.until("it says that it has one", async |_| says().await == (Gate::Open, Some(1))).await;
    for gate in [Gate::Draining, Gate::Open, Gate::Leaving] {
        assert!(b.store.ask_gate(&service(), a.member.worker(), gate).await.unwrap());
        a.until("it obeys", async |a| a.owned.urged.lock().last() == Some(&gate)).await;
    }
    assert!(matches!(a.claim(2, "t", None).await, Claimed::NoCapacity { .. }));
    assert_eq!(a.member.admits(a.owner().epoch), Err(Refused::Draining));
    let before = tokio::time::Instant::now();
    a.owned.end(Ticket::from_random(1), CloseReason::Moved, None).await;
    a.until("it says that it is empty", async |_| says().await == (Gate::Leaving, Some(0))).await;
    assert!(before.elapsed() < ground.terms.heartbeat(), "not with the next renewal: {:?}", before.elapsed());
    assert!(b.store.ask_gate(&service(), a.member.worker(), Gate::Open).await.unwrap());
    a.until("it serves again", async |a| a.member.admits(a.owner().epoch).is_ok()).await;
    a.place(3, "t").await.unwrap();
}

pub(super) async fn a_handler_s_last_words_reach_a_session_of_another_worker(ground: Ground) {
    let (a, b) = (ground.worker("a").await, ground.worker("b").await);
    a.place(1, "s").await.unwrap();
    a.until("active", async |a| a.active_at("s").await.is_some()).await;
    let words = LastWords::cut("Bye then, Größe ☕").unwrap();
    let Told::Pending(pending) = b.member.ask(&id("s"), &Demand::EndStream(words.clone())).await.unwrap() else {
        panic!("it lives")
    };
    settle(&*b.store, &service(), &pending, Duration::from_secs(30)).await.unwrap().expect("it is over");
    assert_eq!(*a.owned.ended.lock(), [(id("s"), CloseReason::EndStream, Some(words))]);
    assert_eq!(b.reason("s").await, Some(CloseReason::EndStream));
}

/// A demand whose wake-up nobody has heard.
#[tokio::test]
async fn a_lost_wake_up_is_made_good_within_a_heartbeat() {
    let ground = Ground::redis(None).await;
    let a = ground.worker("a").await;
    a.place(1, "s").await.unwrap();
    a.until("active", async |a| a.active_at("s").await.is_some()).await;
    let (key, ticket) = (format!("sf:{{{}}}:wants:a", service()), Ticket::from_random(1).to_string());
    let before = tokio::time::Instant::now();
    ground.redis.as_ref().unwrap().command(&["HSET", &key, &ticket, r#"{"reason":"ended_by_control"}"#]);
    a.until("it is over", async |a| a.reason("s").await == Some(CloseReason::EndedByControl)).await;
    let late = before.elapsed();
    assert!(late < ground.terms.heartbeat() + Duration::from_secs(1), "{late:?}");
}
