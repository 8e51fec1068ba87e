//! Candidates: to any router, in any order.

use std::time::Duration;

use serde_json::{Value, json};

use super::redis::Redis;
use super::world::{World, error};

fn candidate(id: &str, port: u16) -> Value {
    let line = format!("candidate:1 1 udp 2122260223 192.0.2.1 {port} typ host");
    json!({ "type": "ice-candidate", "webrtc_id": id, "candidate": { "candidate": line, "sdpMid": "0" } })
}

fn port(body: &Value) -> String {
    let line = body["candidate"]["candidate"].as_str().unwrap();
    line.split(' ').nth(5).unwrap().to_owned()
}

#[tokio::test]
async fn candidates_follow_their_offer_from_any_router() {
    let mut world = World::new();
    world.worker("w").await;
    let (one, other) = (world.router(json!({})), world.router(json!({})));
    assert_eq!(world.offer(&one, "x", &json!({})).await.0, 200);
    assert!(world.next().await.placed.is_some());
    for (router, number) in [(&one, 1), (&other, 2), (&other, 3)] {
        let answer = world.post(&format!("{router}/webrtc/offer"), &candidate("x", number)).await;
        assert_eq!(answer, (200, json!({ "status": "success" })));
        assert_eq!(port(&world.next().await.json()), number.to_string());
    }
}

/// They come before their offer, and not even to the router that it comes to.
#[tokio::test]
async fn candidates_wait_for_their_offer_at_any_router() {
    let mut world = World::new();
    world.worker("w").await;
    let (one, other) = (world.router(json!({})), world.router(json!({})));
    for (router, number) in [(&one, 1), (&one, 2), (&other, 3), (&other, 4)] {
        let answer = world.post(&format!("{router}/webrtc/offer"), &candidate("x", number)).await;
        assert_eq!(answer, (200, json!({ "status": "success" })));
    }
    assert_eq!(world.offer(&one, "x", &json!({})).await.0, 200);
    let mut ports = Vec::new();
    while ports.len() < 4 {
        let seen = world.next().await;
        if seen.placed.is_none() {
            ports.push(port(&seen.json()));
        }
    }
    ports.sort();
    assert_eq!(ports, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn what_is_wrong_with_a_candidate_its_worker_says() {
    let mut world = World::new();
    world.worker("w").await;
    let router = world.router(json!({}));
    let broken = json!({ "type": "ice-candidate", "webrtc_id": "x", "candidate": { "candidate": "nonsense" } });
    let url = format!("{router}/webrtc/offer");
    assert_eq!(error(&world.post(&url, &broken).await), (200, "unknown_connection"));
    assert_eq!(world.offer(&router, "x", &json!({})).await.0, 200);
    world.next().await;
    world.post(&url, &broken).await;
    assert_eq!(world.next().await.json(), broken);
}

#[tokio::test]
async fn one_address_does_not_fill_the_buffer() {
    let world = World::new();
    let url = format!("{}/webrtc/offer", world.router(json!({})));
    for n in 0..16 {
        assert_eq!(world.post(&url, &candidate(&n.to_string(), 1)).await.1["status"], "success");
    }
    assert_eq!(error(&world.post(&url, &candidate("more", 1)).await), (200, "unknown_connection"));
}

/// A candidate costs the store one read at most, whatever becomes of it; its offer's wake-up another.
#[tokio::test]
async fn candidates_cost_the_store_little() {
    let redis = Redis::start();
    let mut world = World::on(&redis).await;
    let router = world.router(json!({}));
    // Nothing but the router's own look at its workers comes in between: it is counted, and taken off.
    let cost = async |world: &World, bodies: Vec<Value>, wait: Duration| {
        let idle = {
            let before = redis.scripts();
            tokio::time::sleep(wait).await;
            redis.scripts() - before
        };
        let before = redis.scripts();
        for body in &bodies {
            assert_eq!(world.post(&format!("{router}/webrtc/offer"), body).await.1["status"], "success");
        }
        tokio::time::sleep(wait).await;
        (redis.scripts() - before).saturating_sub(idle)
    };
    let five_seconds = Duration::from_millis(5_500);
    // Of an offer that never comes. One look at the workers more or less is the clock's.
    let alone = cost(&world, vec![candidate("alone", 1)], five_seconds).await;
    assert!(alone <= 2, "{alone} reads for one candidate");
    let several = (0..8).map(|n| candidate("several", n + 1)).collect();
    let several = cost(&world, several, five_seconds).await;
    assert!(several <= 9, "{several} reads for eight candidates");
    // Of a session that this router has placed: none.
    world.worker("w").await;
    assert_eq!(world.offer(&router, "x", &json!({})).await.0, 200);
    world.next().await;
    let before = redis.scripts();
    let began = std::time::Instant::now();
    for n in 0..20 {
        assert_eq!(world.post(&format!("{router}/webrtc/offer"), &candidate("x", n + 1)).await.0, 200);
    }
    // The router's refresh and the worker's heartbeat, and half as much again.
    let others = 5 * began.elapsed().as_millis() as u64 / 1_000 + 6;
    let reads = redis.scripts() - before;
    assert!(reads <= others, "{reads} scripts, of which the router and the worker run {others}");
}
