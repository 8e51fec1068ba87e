//! What a worker does to be a member, step by step in virtual time.

use std::sync::Arc;
use std::time::Duration;

use streamfleet_session::fleet::Refused;
use streamfleet_session::{CloseReason, SessionId};
use streamfleet_store::{
    Bounds, Claimed, Demand, Directory as _, Epoch, Gate, Memory, Outcome, Owner, Phase, SessionView, Store, Terms,
    Ticket, Told, TrackResult, settle,
};

use super::world::{LONG, World, a_moment, service};
use crate::fleet::{Fate, Owned as _};

fn on(store: &Arc<Memory>, worker: &str) -> World {
    let store: Arc<dyn Store> = store.clone();
    World::new(store, Terms::default(), worker)
}

fn world(worker: &str) -> World {
    on(&Arc::default(), worker)
}

#[tokio::test(start_paused = true)]
async fn a_session_is_reported_and_lives_as_long_as_its_worker_renews() {
    let world = world("a");
    a_moment().await;
    world.place(1, "s").await.unwrap();
    tokio::time::sleep(LONG).await;
    let Some(SessionView::Live(live)) = world.seen("s").await else { panic!("it has been lost") };
    assert_eq!(live.phase, Phase::Active);
    let view = &world.store.workers(&service()).await.unwrap()[0];
    assert_eq!(view.said.as_ref().map(|said| (said.active, said.reserved)), Some((1, 0)));
    world.owned.end(Ticket::from_random(1), CloseReason::ClientClosed, None).await;
    a_moment().await;
    assert_eq!(world.reason("s").await, Some(CloseReason::ClientClosed));
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_of_a_session_is_done_at_once_and_told() {
    let world = world("a");
    a_moment().await;
    world.place(1, "s").await.unwrap();
    a_moment().await;
    let id: SessionId = "s".parse().unwrap();
    for (track, expected) in [("0", TrackResult::Closed), ("9", TrackResult::Unknown)] {
        let demand = Demand::CloseTrack(track.parse().unwrap());
        let told = world.store.ask(&service(), &id, None, &demand).await.unwrap();
        let Told::Pending(pending) = told else { panic!("{told:?}") };
        let outcome = settle(&*world.store, &service(), &pending, Duration::from_secs(1)).await.unwrap();
        assert_eq!(outcome, Some(Outcome::Track(expected)), "{track}");
    }
    let before = tokio::time::Instant::now();
    let Ok(Told::Pending(pending)) = world.member.ask(&id, &Demand::End(CloseReason::EndedByControl)).await else {
        panic!()
    };
    let outcome = settle(&*world.store, &service(), &pending, LONG).await.unwrap();
    assert_eq!(outcome, Some(Outcome::Ended(CloseReason::EndedByControl)));
    assert!(before.elapsed() < Duration::from_millis(100), "woken, not by the next renewal: {:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_not_used_is_free_at_once() {
    let world = world("a");
    a_moment().await;
    world.place(1, "s").await.unwrap();
    let unbegun = world.owned.seats.lock().pop();
    drop(unbegun);
    a_moment().await;
    assert_eq!(world.reason("s").await, Some(CloseReason::ConnectTimeout), "nobody waits for the claim to expire");
}

#[tokio::test(start_paused = true)]
async fn a_worker_drains_and_serves_again_as_it_is_asked_to() {
    let world = world("a");
    a_moment().await;
    let worker = world.member.worker().clone();
    for (gate, expected) in [(Gate::Draining, Err(Refused::Draining)), (Gate::Open, Ok(()))] {
        assert!(world.store.ask_gate(&service(), &worker, gate).await.unwrap());
        a_moment().await;
        assert_eq!(world.member.admits(Epoch(1)), expected, "a place that was claimed before it was asked");
    }
    *world.gate.lock() = Gate::Draining;
    world.member.nudge();
    a_moment().await;
    assert_eq!(world.store.workers(&service()).await.unwrap()[0].gate, Gate::Draining, "routers know at once");
}

#[tokio::test(start_paused = true)]
async fn a_second_process_of_the_name_ends_what_the_first_has() {
    let store = Arc::<Memory>::default();
    let mut first = on(&store, "a");
    a_moment().await;
    first.place(1, "s").await.unwrap();
    a_moment().await;
    let second = on(&store, "a");
    assert_eq!(first.running.join_next().await.unwrap().unwrap(), Fate::Fenced);
    assert!(first.owned.seats.lock().is_empty(), "its sessions may live elsewhere");
    assert_eq!(first.member.admits(Epoch(1)), Err(Refused::Stale));
    second.place(2, "s").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_was_forgotten_says_everything_again_and_the_younger_gives_way() {
    let store = Arc::new(Memory::new(Bounds::default()));
    let world = on(&store, "a");
    a_moment().await;
    world.place(1, "s").await.unwrap();
    world.place(2, "t").await.unwrap();
    a_moment().await;
    // As if its lease had run out: the store forgets the worker, and another one is given one of its ids.
    let owner = Owner { worker: world.member.worker().clone(), epoch: Epoch(1) };
    store.leave(&service(), &owner).await.unwrap();
    assert_eq!(world.reason("s").await, Some(CloseReason::Shutdown));
    let other = on(&store, "b");
    a_moment().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(matches!(world.seen("s").await, Some(SessionView::Live(_))), "restored");
    assert!(matches!(world.seen("t").await, Some(SessionView::Live(_))), "restored");
    assert!(matches!(other.claim(7, "s", None).await, Claimed::Duplicate { .. }));
    assert_eq!(world.owned.seats.lock().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_leaves_says_so() {
    let mut world = world("a");
    a_moment().await;
    world.place(1, "s").await.unwrap();
    a_moment().await;
    world.owned.end(Ticket::from_random(1), CloseReason::Draining, None).await;
    world.stop.cancel();
    assert_eq!(world.running.join_next().await.unwrap().unwrap(), Fate::Left);
    assert_eq!(world.reason("s").await, Some(CloseReason::Draining), "before it left");
    assert!(world.store.workers(&service()).await.unwrap().is_empty());
}

/// The store asks for it nowhere again: whoever is told so once has to see it through.
#[tokio::test(start_paused = true)]
async fn sessions_that_are_another_s_end_however_many_they_are() {
    const MANY: u64 = 300;
    let store = Arc::<Memory>::default();
    let elder = on(&store, "b");
    a_moment().await;
    for n in 0..MANY {
        elder.place(n, &format!("s{n}")).await.unwrap();
    }
    // Its renewals come between those of the other.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let younger = on(&store, "a");
    a_moment().await;
    store.leave(&service(), &elder.owner()).await.unwrap();
    for n in 0..MANY {
        younger.place(MANY + n, &format!("s{n}")).await.unwrap();
    }
    a_moment().await;
    store.leave(&service(), &younger.owner()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((elder.owned.seats.lock().len(), younger.owned.seats.lock().len()), (MANY as usize, 0));
    let reasons = younger.owned.ended.lock();
    assert!(reasons.iter().all(|(_, reason, _)| *reason == CloseReason::Superseded));
}
