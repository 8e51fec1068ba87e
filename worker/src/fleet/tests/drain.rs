use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use streamfleet_session::CloseReason;
use streamfleet_session::fleet::Refused;
use streamfleet_store::{Claimed, Demand, Gate, LastWords, Ticket, Told, settle};

use tokio::task::JoinSet;

use super::world::{Ground, World, id, service};
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
    assert!(a.member.leaving().is_some());
    let before = tokio::time::Instant::now();
    a.owned.end(Ticket::from_random(1), CloseReason::Moved, None).await;
    a.until("it says that it is empty", async |_| says().await == (Gate::Leaving, Some(0))).await;
    assert!(before.elapsed() < ground.terms.heartbeat(), "not with the next renewal: {:?}", before.elapsed());
    assert!(b.store.ask_gate(&service(), a.member.worker(), Gate::Open).await.unwrap());
    a.until("it says that it serves again", async |_| says().await == (Gate::Open, Some(0))).await;
    assert_eq!(a.member.leaving(), None);
    a.place(3, "t").await.unwrap();
}

/// Whoever takes a worker away goes by what it has said since it was asked: until then a router that does not reach the store may
/// bring it a session.
pub(super) async fn a_worker_is_empty_when_it_says_so_after_it_was_asked(ground: Ground) {
    let (a, b) = (ground.worker("a").await, ground.worker("b").await);
    let view = async || {
        let views = b.store.workers(&service()).await.unwrap();
        views.into_iter().find(|view| view.owner.worker.as_str() == "a").unwrap()
    };
    let ask = async |gate| assert!(b.store.ask_gate(&service(), a.member.worker(), gate).await.unwrap());
    a.place(1, "s").await.unwrap();
    a.until("it says that it has one", async |_| view().await.said.is_some_and(|said| said.active == 1)).await;
    ask(Gate::Draining).await;
    a.until("it says that it has heard", async |_| {
        let view = view().await;
        view.said.is_some_and(|said| (said.gate, said.heard) == (Gate::Draining, view.order))
    })
    .await;
    assert!(!view().await.is_drained());
    a.owned.end(Ticket::from_random(1), CloseReason::ClientClosed, None).await;
    a.until("it is empty", async |_| view().await.is_drained()).await;
    assert_eq!(a.provide(2, "t"), Err(Refused::Draining));

    ask(Gate::Open).await;
    a.until("it serves again", async |a| a.provide(3, "t").is_ok()).await;
    // It may have said so, or not yet: what it has said before is worth nothing.
    ask(Gate::Draining).await;
    for _ in 0..50 {
        assert!(!view().await.is_drained(), "with a session that the store may not know");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    a.until("it says that it has one", async |_| view().await.said.is_some_and(|said| said.active == 1)).await;
    a.owned.end(Ticket::from_random(3), CloseReason::ClientClosed, None).await;
    a.until("it is empty", async |_| view().await.is_drained()).await;

    // A store that has forgotten who was asked is told by nobody that the worker drains.
    ground.forget().await;
    a.until("it serves again", async |_| {
        let views = b.store.workers(&service()).await.unwrap();
        let view = views.into_iter().find(|view| view.owner.worker.as_str() == "a");
        view.is_some_and(|view| {
            assert!(!view.is_drained(), "{view:?}");
            view.gate == Gate::Open
        })
    })
    .await;
}

/// Sessions that are brought at the very moment at which a worker hears that it drains are refused, or counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn nothing_is_taken_behind_the_back_of_what_is_counted() {
    let ground = Ground::memory();
    for round in 0..60_u64 {
        let a = Arc::new(ground.worker(&format!("a{round}")).await);
        let gone = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for caller in 0..2 {
            let (a, gone) = (a.clone(), gone.clone());
            callers.spawn_blocking(move || {
                for n in 0_u64.. {
                    let was_gone = gone.load(SeqCst);
                    let ticket = round << 32 | n << 1 | caller;
                    if a.provide(ticket, &format!("c{ticket}")).is_err() {
                        return;
                    }
                    assert!(!was_gone, "it was taken away");
                    // A short one, so that there is often none.
                    std::thread::sleep(Duration::from_micros(20));
                    let mut seats = a.owned.seats.lock();
                    let at = seats.iter().position(|seat| seat.ticket() == Ticket::from_random(ticket)).unwrap();
                    let over = seats.swap_remove(at);
                    drop(seats);
                    drop(over);
                }
            });
        }
        tokio::time::sleep(Duration::from_micros(rand::random_range(0..2_000))).await;
        assert!(ground.store.ask_gate(&service(), a.member.worker(), Gate::Draining).await.unwrap());
        a.until("it is drained", async |a| {
            let views = ground.store.workers(&service()).await.unwrap();
            views.into_iter().any(|view| view.owner.worker == *a.member.worker() && view.is_drained())
        })
        .await;
        gone.store(true, SeqCst);
        assert_eq!(a.owned.seats.lock().len(), 0, "it has said that it has none");
        while let Some(done) = callers.join_next().await {
            done.unwrap();
        }
        assert_eq!(a.owned.seats.lock().len(), 0);
    }
}

/// A rollout that takes away workers for this one waits until routers can know it; what becomes of the store later on does not
/// concern what it can do.
#[tokio::test]
async fn a_worker_is_ready_once_its_fleet_knows_it_and_stays_so() {
    let mut ground = Ground::redis(None).await;
    ground.redis.as_mut().unwrap().kill();
    let a = World::new(ground.store.clone(), ground.terms, "a");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(a.readiness.reasons(), ["fleet"]);
    ground.redis.as_mut().unwrap().restart(None);
    a.until("it is ready", async |a| a.readiness.reasons().is_empty()).await;
    assert_eq!(ground.store.workers(&service()).await.unwrap()[0].gate, Gate::Open, "and can be given sessions");
    ground.redis.as_mut().unwrap().kill();
    for _ in 0..10 {
        tokio::time::sleep(ground.terms.lease / 8).await;
        assert!(a.readiness.reasons().is_empty(), "the store is away");
    }
    ground.redis.as_mut().unwrap().restart(None);
    a.until("it is known again", async |a| {
        !a.store.workers(&service()).await.unwrap_or_default().is_empty() && a.readiness.reasons().is_empty()
    })
    .await;
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
