//! Limits of the whole fleet: two routers, each with its own connection to one Redis.

use futures_util::future::join_all;
use serde_json::json;

use streamfleet_socket::telephone::{CallNonce, CallTokenKey};

use super::redis::Redis;
use super::sockets::CALL;
use super::world::{World, error, service_key};

#[tokio::test]
async fn limits_hold_over_all_routers() {
    let redis = Redis::start();
    let world = World::on(&redis).await;
    world.worker_for("v", 50).await;
    world.worker_for("w", 50).await;
    let spec = json!({ "limits": { "concurrency": 20, "perUser": 3 } });
    let routers = [world.router(spec.clone()), world.router(spec)];
    // Ten users offer eight times each, at both routers at once.
    let offers = (0..80).map(|n| {
        let (world, router) = (&world, &routers[n % 2]);
        async move {
            let more = json!({ "metadata": { "user_id": format!("u{}", n % 10) } });
            let answer = world.offer(router, &format!("x{n}"), &more).await;
            (n % 10, error(&answer).1.to_owned())
        }
    });
    let answers = join_all(offers).await;
    let taken: Vec<usize> = answers.iter().filter(|(_, error)| error.is_empty()).map(|(user, _)| *user).collect();
    assert_eq!(taken.len(), 20);
    for user in 0..10 {
        assert!(taken.iter().filter(|taken| **taken == user).count() <= 3);
    }
    for (_, error) in &answers {
        assert!(["", "user_limit_reached", "concurrency_limit_reached"].contains(&error.as_str()), "{error}");
    }
    world.sessions_become(20).await;
}

/// Each router would let six through by its own count.
#[tokio::test]
async fn an_address_offers_so_often_in_the_whole_fleet() {
    let redis = Redis::start();
    let world = World::on(&redis).await;
    world.worker_for("w", 50).await;
    let spec = json!({ "limits": { "offersPerMinute": 6 } });
    let routers = [world.router(spec.clone()), world.router(spec)];
    let mut answers = Vec::new();
    for n in 0..10 {
        answers.push(world.offer(&routers[n % 2], &format!("x{n}"), &json!({})).await);
    }
    let (let_in, refused) = answers.split_at(6);
    assert!(let_in.iter().all(|answer| answer.1["type"] == "answer"), "{let_in:?}");
    assert!(refused.iter().all(|answer| error(answer) == (429, "rate_limited")), "{refused:?}");
    world.sessions_become(6).await;
    // What is counted goes by itself.
    let keys = redis.command(&["--scan", "--pattern", "sf:{a}:rate:*"]);
    assert_eq!(keys, "sf:{a}:rate:address:127.0.0.1");
    let left: i64 = redis.command(&["PTTL", &keys]).parse().unwrap();
    assert!((1..=60_000).contains(&left), "{left}");
}

/// Anybody who has had a call put through could have all workers asked, again and again.
#[tokio::test]
async fn an_address_has_workers_asked_so_often_for_a_call_that_nobody_knows() {
    let mut world = World::new();
    world.worker("w").await;
    let back = CallTokenKey::of_service(&service_key()).sign_return(CALL, CallNonce::from_random([7; 16]));
    let limits = json!({ "offersPerMinute": 1 });
    // Where requests are signed the worker sees who has not signed, and all calls come from a few addresses.
    let signed = json!({ "limits": limits, "telephone": { "authToken": { "env": "HOME" } } });
    for (spec, searched) in [(json!({ "limits": limits }), 64), (signed, 66)] {
        let router = world.router(spec);
        for n in 0..66 {
            let url = format!("{router}/telephone/incoming?return={back}");
            let answer = world.client.post(url).body(format!("CallSid={CALL}")).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            let asked = std::iter::from_fn(|| world.seen.try_recv().ok()).count();
            assert_eq!(asked, if n < searched { 2 } else { 1 }, "{n} of {searched}");
        }
    }
}
