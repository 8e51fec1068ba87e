//! A store that is away for a while, or has gone back in time.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::{Map, json};
use streamfleet_session::CloseReason;
use streamfleet_store::{
    ContextId, ContextStore as _, Directory as _, Expected, Gate, Settling, Store, Terms, Ticket, Version,
};

use super::fickle::Fickle;
use super::world::{Ground, World, a_moment, service};
use crate::fleet::{Fate, Owned as _};

async fn world() -> (Arc<Fickle>, World) {
    let fickle = Arc::<Fickle>::default();
    let store: Arc<dyn Store> = fickle.clone();
    let world = World::new(store, Terms::default(), "a");
    a_moment().await;
    (fickle, world)
}

/// It may have lost everybody by the time that it is there.
#[tokio::test(start_paused = true)]
async fn who_has_found_no_store_comes_as_one_of_many() {
    let fickle = Arc::<Fickle>::default();
    fickle.away.store(true, Relaxed);
    let store: Arc<dyn Store> = fickle.clone();
    let world = World::new(store, Terms::default(), "a");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(fickle.memory.settling(&service()).await, Ok(Settling::Nobody));
    fickle.away.store(false, Relaxed);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.member.owner().is_some());
    assert!(matches!(fickle.memory.settling(&service()).await, Ok(Settling::For(_))));
}

/// SIGTERM while it is away: that the worker drains is to be shown, and would be tried again and again.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_asked_now_and_then_whatever_there_is_to_show() {
    let (store, mut world) = world().await;
    store.away.store(true, Relaxed);
    *world.gate.lock() = Gate::Draining;
    world.member.nudge();
    let before = store.asked("renew");
    tokio::time::sleep(Duration::from_secs(4)).await;
    let asked = store.asked("renew") - before;
    assert!((4..=10).contains(&asked), "twice a second: {asked}");
    store.away.store(false, Relaxed);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(store.memory.workers(&service()).await.unwrap()[0].gate, Gate::Draining, "shown as soon as it is back");
    *world.gate.lock() = Gate::Open;
    store.away.store(true, Relaxed);
    world.stop.cancel();
    assert_eq!(world.running.join_next().await.unwrap().unwrap(), Fate::Left, "nobody waits for it");
}

/// All handlers have written while it was away, and it takes its time.
#[tokio::test(start_paused = true)]
async fn what_many_have_written_costs_no_lease() {
    const MANY: u64 = 1000;
    let (store, world) = world().await;
    for n in 0..MANY {
        world.place(n, &format!("s{n}")).await.unwrap();
    }
    a_moment().await;
    let epoch = world.owner().epoch;
    *store.writing.lock() = Duration::from_millis(20);
    store.away.store(true, Relaxed);
    let (mine, contexts) = (|n: u64| Map::from_iter([("n".to_owned(), json!(n))]), world.member.contexts());
    let id = |n: u64| ContextId::from_random(u128::from(n));
    for n in 0..MANY {
        assert_eq!(contexts.write(id(n), mine(n), Expected::Anything).await, Ok(Version(1)));
    }
    // Some are over by then.
    for n in 0..MANY / 4 {
        world.owned.end(Ticket::from_random(n), CloseReason::ClientClosed, None).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    store.away.store(false, Relaxed);
    for second in 1..15 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(store.memory.workers(&service()).await.unwrap().len(), 1, "the lease holds after {second} s");
    }
    assert_eq!((world.owner().epoch, contexts.waiting()), (epoch, 0));
    for n in 0..MANY {
        let known = store.memory.read(id(n)).await.unwrap();
        assert_eq!(known.map(|document| document.data), Some(mine(n)), "{n}");
    }
    assert_eq!(world.owned.seats.lock().len() as u64, MANY - MANY / 4);
}

/// A Redis that comes back with what it had on its disk, or a replica that had not heard of the last registration.
#[tokio::test]
async fn calls_outlive_a_store_that_has_gone_back_in_time() {
    let ground = Ground::redis(None).await;
    let a = ground.worker("a").await;
    a.place(1, "s").await.unwrap();
    a.until("active", async |a| a.active_at("s").await.is_some()).await;
    let (before, server) = (a.owner().epoch, ground.redis.as_ref().unwrap());
    assert_eq!(a.store.settling(&service()).await, Ok(Settling::Done), "it has begun");
    let key = |name: &str| format!("sf:{{{}}}:{name}", service());
    server.command(&["FLUSHALL"]);
    let earlier = (before.0 - 60_000).to_string();
    server.command(&["SET", &key("epoch"), &earlier]);
    server.command(&["HSET", &key("worker:a"), "epoch", &earlier, "renewed", &earlier]);
    server.command(&["ZADD", &key("leases"), &earlier, "a"]);
    a.until("it has registered again", async |a| a.member.owner().is_some_and(|owner| owner.epoch > before)).await;
    let settling = a.store.settling(&service()).await;
    assert!(matches!(settling, Ok(Settling::For(_))), "it has come again, as others may: {settling:?}");
    a.until("its session is known", async |a| a.active_at("s").await.as_deref() == Some("a")).await;
    assert!(a.owned.ended.lock().is_empty());
}
