//! Many offers and claims for the same ids at once, on a Redis: one session for each, and nothing left behind.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde_json::json;
use streamfleet_session::ResumeToken;
use streamfleet_store::{
    Arrangement, Claim, ClaimRequest, Claimed, ContextId, Delivery, RedisConfig, RedisStore, Sessions as _, Ticket,
};

use super::redis::Redis;
use super::world::{ADMIN, World, error, service};

/// Offers over HTTP, half of them by each router; every id is offered twice.
const OFFERS: usize = 2_000;
/// Requests under way at a time.
const AT_ONCE: usize = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offers_for_the_same_ids() {
    let redis = Redis::start();
    let world = World::on(&redis).await;
    for worker in ["u", "v", "w"] {
        world.worker_for(worker, 400).await;
    }
    let routers = [world.router(json!({})), world.router(json!({}))];
    let offers = (0..OFFERS).map(|n| {
        let (world, router) = (&world, &routers[n % 2]);
        async move {
            let id = format!("x{}", n / 2);
            let answer = world.offer(router, &id, &json!({})).await;
            (id, answer.0, error(&answer).1.to_owned())
        }
    });
    let answers: Vec<_> = stream::iter(offers).buffer_unordered(AT_ONCE).collect().await;
    let mut taken: HashMap<&str, u32> = HashMap::new();
    for (id, status, error) in &answers {
        assert_eq!(*status, 200, "{id} {error}");
        match error.as_str() {
            "" => *taken.entry(id).or_default() += 1,
            other => assert_eq!(other, "connection_already_exists"),
        }
    }
    assert_eq!((taken.len(), taken.values().max()), (OFFERS / 2, Some(&1)), "one session for each id");
    let reserved = redis.command(&["ZCARD", "sf:{a}:reserved"]);
    assert_eq!(reserved, "0", "every claim has become a session");
    // All end, asked for by either router.
    let ends = (0..OFFERS / 2).map(|n| {
        let request = world.client.delete(format!("{}/sessions/x{n}", routers[n % 2])).bearer_auth(ADMIN);
        async move { request.send().await.unwrap().status().as_u16() }
    });
    let ends: Vec<u16> = stream::iter(ends).buffer_unordered(AT_ONCE).collect().await;
    assert!(ends.iter().all(|status| [200, 202].contains(status)), "{ends:?}");
    world.sessions_become(0).await;
    for key in ["ids", "by-id", "moving", "reserved", "users", "pins", "sessions", "details", "on:u", "on:v", "on:w"] {
        assert_eq!(redis.command(&["EXISTS", &format!("sf:{{a}}:{key}")]), "0", "{key} is empty, and gone");
    }
    nothing_stays_for_ever(&redis);
}

/// Claims as routers make them, and give back: whoever has one holds it for a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_for_the_same_ids() {
    // A hundred thousand where there is time for them.
    let claims: usize = std::env::var("STREAMFLEET_RACE_CLAIMS").map_or(20_000, |text| text.parse().unwrap());
    const IDS: usize = 1_000;
    let redis = Redis::start();
    let world = World::on(&redis).await;
    for worker in ["v", "w"] {
        world.worker_for(worker, 2_000).await;
    }
    let config = RedisConfig {
        command_deadline: Duration::from_secs(20),
        ..RedisConfig::new(Arrangement::Single(redis.address()))
    };
    let routers = [Arc::new(RedisStore::new(config.clone())), Arc::new(RedisStore::new(config))];
    for router in &routers {
        while router.ping(&service()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let began = std::time::Instant::now();
    // How many hold an id at present, by what its claimers know.
    let held: Arc<parking_lot::Mutex<HashMap<usize, u32>>> = Arc::default();
    let tries = (0..claims).map(|n| {
        let (router, held) = (routers[n % 2].clone(), held.clone());
        async move {
            let (id, request) = (n / 2 % IDS, request(n / 2 % IDS));
            match router.claim(&service(), &request).await.unwrap() {
                Claimed::Placed(_) => {
                    assert_eq!(std::mem::replace(held.lock().entry(id).or_default(), 1), 0, "nobody else has {id}");
                    tokio::task::yield_now().await;
                    held.lock().insert(id, 0);
                    router.release(&service(), request.ticket).await.unwrap();
                    1_usize
                }
                Claimed::Duplicate { .. } => 0,
                other => panic!("{other:?}"),
            }
        }
    });
    let won: usize = stream::iter(tries).buffer_unordered(64).fold(0, async |won, one| won + one).await;
    println!("{claims} claims for {IDS} ids in {:?}: {won} had one", began.elapsed());
    assert!(won >= IDS && won <= claims, "{won}");
    for key in ["ids", "reserved", "sessions", "on:v", "on:w"] {
        assert_eq!(redis.command(&["EXISTS", &format!("sf:{{a}}:{key}")]), "0", "{key}");
    }
    nothing_stays_for_ever(&redis);
}

fn request(id: usize) -> ClaimRequest {
    ClaimRequest {
        ticket: Ticket::from_random(rand::random()),
        session: format!("x{id}").parse().unwrap(),
        user: Some(format!("u{}", id % 7).parse().unwrap()),
        claim: Claim::default(),
        context: ContextId::from_random(rand::random()),
        token: ResumeToken::from_random(rand::random()),
        delivery: Delivery::Known,
        service_limit: None,
        user_limit: None,
        pin: None,
        quotas: Vec::new(),
        retention: Duration::from_secs(60),
        ranked: ["w", "v"].map(|name| name.parse().unwrap()).to_vec(),
    }
}

fn nothing_stays_for_ever(redis: &Redis) {
    let keys = redis.command(&["--scan"]);
    assert!(!keys.is_empty());
    for key in keys.lines() {
        let left: i64 = redis.command(&["PTTL", key]).parse().unwrap();
        assert!(left > 0, "{key} stays for ever");
    }
}
