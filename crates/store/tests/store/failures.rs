//! What happens when a Redis goes.

use std::time::{Duration, Instant};

use streamfleet_session::{CloseReason, ServiceName};
use streamfleet_store::{
    Arrangement, Claimed, Directory as _, Entry, FleetError, Owner, Phase, RedisConfig, RedisStore, Restoration,
    SessionView, Sessions as _, StoreError, Topic, Wakeups as _,
};

use crate::arrangements::{Sentinels, connected, in_time};
use crate::server::{Clock, Server, free_port};
use crate::world::{beat, id, name, nothing, request, restored};

fn service() -> ServiceName {
    "test-failures/echo".parse().unwrap()
}

/// Registers and renews as soon as the store can be reached, and says how long that took.
async fn registered(store: &RedisStore, worker: &str) -> (Owner, Duration) {
    let since = Instant::now();
    loop {
        let epoch = store.register(&service(), &name(worker), Entry::New).await;
        if let Ok(epoch) = epoch {
            let owner = Owner { worker: name(worker), epoch };
            if store.renew(&service(), &owner, &beat(8)).await.is_ok() {
                return (owner, since.elapsed());
            }
        }
        assert!(since.elapsed() < Duration::from_secs(30), "{epoch:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How long it takes to be refused.
async fn refused(store: &RedisStore, when: &str) -> Duration {
    let since = Instant::now();
    let refused = store.workers(&service()).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{when}: {refused:?}");
    since.elapsed()
}

/// Nobody waits while the store is away. Of many, the one in the middle: on a busy machine some wait for a processor.
async fn refused_at_once(store: &RedisStore, when: &str) {
    let mut took = Vec::new();
    for _ in 0..51 {
        took.push(refused(store, when).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    took.sort_unstable();
    assert!(took[25] < Duration::from_millis(20), "{when}: {took:?}");
}

#[tokio::test]
async fn a_dead_server_is_refused_at_once_and_found_again() {
    let mut server = Server::start(None, free_port(), &[]);
    let store = connected(RedisConfig::new(Arrangement::Single(server.address()))).await;
    let (old, _) = registered(&store, "a").await;
    let claim = request("k3x9", &["a"]);
    assert!(matches!(store.claim(&service(), &claim).await.unwrap(), Claimed::Placed(_)));
    store.report(&service(), &old, claim.ticket, Phase::Active, &nothing()).await.unwrap();
    let mut listener = store.listen(&service(), Topic::Directory);
    listener.woken().await;

    server.kill();
    // Its connection breaks: no deadline is waited for.
    let took = refused(&store, "the first").await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    refused_at_once(&store, "while it is gone").await;

    server.restart(None);
    // What it knew is gone; who wrote before is told so, and gets a later epoch.
    let (new, took) = registered(&store, "a").await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(new.epoch > old.epoch);
    let fenced = store.end(&service(), &old, claim.ticket, CloseReason::EndStream).await;
    assert_eq!(fenced, Err(FleetError::Fenced { current: new.epoch }));
    let sessions = [restored(&claim, Duration::from_secs(5))];
    assert_eq!(store.restore(&service(), &new, &sessions).await.unwrap(), [Restoration::Kept]);
    let Some(SessionView::Live(live)) = store.session(&service(), &id("k3x9")).await.unwrap() else { panic!() };
    assert_eq!(live.ticket, claim.ticket);
    // Subscriptions are back: the listener hears of the next change.
    tokio::time::sleep(Duration::from_millis(100)).await;
    while futures_util::FutureExt::now_or_never(listener.woken()).is_some() {}
    store.leave(&service(), &new).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), listener.woken()).await.expect("it listens again");
}

#[tokio::test]
async fn a_server_that_hangs_costs_one_deadline() {
    let server = Server::start(None, free_port(), &[]);
    let config = RedisConfig::new(Arrangement::Single(server.address()));
    let deadline = config.command_deadline;
    let store = in_time(config).await;
    server.signal("STOP");
    let took = refused(&store, "the first").await;
    assert!(took >= deadline && took < deadline * 20, "{took:?}");
    tokio::time::sleep(Duration::from_millis(20)).await;
    refused_at_once(&store, "while it hangs").await;
    server.signal("CONT");
    let (_, took) = registered(&store, "a").await;
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_failover_is_followed() {
    let clock = Clock::new();
    let mut sentinels = Sentinels::start(&clock);
    let store = connected(sentinels.config()).await;
    let (owner, _) = registered(&store, "a").await;
    let claim = request("k3x9", &["a"]);
    assert!(matches!(store.claim(&service(), &claim).await.unwrap(), Claimed::Placed(_)));
    store.report(&service(), &owner, claim.ticket, Phase::Active, &nothing()).await.unwrap();
    assert_eq!(sentinels.nodes[0].command(&["WAIT", "2", "1000"]), "2");

    sentinels.nodes[0].kill();
    let since = Instant::now();
    loop {
        match store.renew(&service(), &owner, &beat(8)).await {
            Ok(_) => break,
            // A failover takes longer than a lease may last: it may be found out.
            Err(FleetError::Unregistered) => {
                registered(&store, "a").await;
                break;
            }
            Err(FleetError::Store(StoreError::Unavailable(_))) => {}
            Err(error) => panic!("{error}"),
        }
        // Sentinels that do not agree at once, as on a busy machine, try again after twice their `failover-timeout`.
        let state = || sentinels.sentinels[0].command(&["SENTINEL", "MASTER", "fleet"]);
        assert!(since.elapsed() < Duration::from_secs(60), "no new primary is found: {}", state());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("  a new primary after {:?}", since.elapsed());
    assert!(store.session(&service(), &id("k3x9")).await.unwrap().is_some(), "it knows what was replicated");
    assert!(matches!(store.claim(&service(), &request("other", &["a"])).await.unwrap(), Claimed::Placed(_)));
}

#[tokio::test]
async fn another_schema_is_refused() {
    let server = Server::start(None, free_port(), &[]);
    let store = connected(RedisConfig::new(Arrangement::Single(server.address()))).await;
    for found in ["0", "2", "nonsense"] {
        server.command(&["SET", "sf:{test-failures/echo}:schema", found]);
        let refused = store.register(&service(), &name("a"), Entry::New).await;
        assert_eq!(refused, Err(StoreError::Schema { found: found.to_owned(), ours: "1" }));
        assert_eq!(server.command(&["DBSIZE"]), "2", "nothing was written");
    }
    let text = store.register(&service(), &name("a"), Entry::New).await.unwrap_err().to_string();
    assert_eq!(text, "the store is written in schema nonsense, and this program reads and writes schema 1");
}

#[tokio::test]
async fn a_full_server_is_full() {
    let server = Server::start(None, free_port(), &["--maxmemory-policy", "noeviction"]);
    let store = connected(RedisConfig::new(Arrangement::Single(server.address()))).await;
    let (owner, _) = registered(&store, "a").await;
    let lives = request("lives", &["a"]);
    assert!(matches!(store.claim(&service(), &lives).await.unwrap(), Claimed::Placed(_)));
    // Its lease is over, as it cannot be renewed. Nobody is told that it has none, and nobody's claim ends what it has.
    server.command(&["ZADD", "sf:{test-failures/echo}:leases", "1", "a"]);
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = store.claim(&service(), &request("k3x9", &["a"])).await;
    assert_eq!(refused, Err(StoreError::NoMemory));
    assert_eq!(store.workers(&service()).await, Err(StoreError::NoMemory), "as if it were away");
    assert_eq!(store.session(&service(), &id("lives")).await, Err(StoreError::NoMemory));
    let renewed = store.renew(&service(), &owner, &beat(8)).await;
    assert_eq!(renewed, Err(FleetError::Store(StoreError::NoMemory)));
    // What makes room is taken.
    assert_eq!(server.command(&["HLEN", "sf:{test-failures/echo}:ids"]), "1");
    assert_eq!(store.release(&service(), lives.ticket).await, Ok(()));
    assert_eq!(server.command(&["HLEN", "sf:{test-failures/echo}:ids"]), "0");
    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    store.renew(&service(), &owner, &beat(8)).await.expect("it was not discarded meanwhile");
    assert!(matches!(store.claim(&service(), &request("k3x9", &["a"])).await.unwrap(), Claimed::Placed(_)));
}

/// A key of ours that is somebody else's is no outage: waiting does not mend it, and its name helps whoever can.
#[tokio::test]
async fn a_key_of_another_kind_is_told() {
    let server = Server::start(None, free_port(), &[]);
    let store = connected(RedisConfig::new(Arrangement::Single(server.address()))).await;
    server.command(&["SET", "sf:{test-failures/echo}:leases", "mine"]);
    let refused = store.workers(&service()).await.unwrap_err();
    assert!(refused.is_away(), "{refused:?}");
    assert!(refused.to_string().starts_with("the store refuses: WRONGTYPE Operation against a key"), "{refused}");
}
