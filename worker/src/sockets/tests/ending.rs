//! Sockets when the process stops, and before they have said anything.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::peer::{Heard, Peer, closed};
use super::{NEWCOMERS, PATIENCE, World, access, service, until};
use crate::http::Access;

#[tokio::test]
async fn sockets_that_say_nothing_are_few() {
    let world = World::new([service("tone")]);
    let mut silent = Vec::new();
    for _ in 0..NEWCOMERS {
        silent.push(Peer::open(&world, "/tone/websocket/offer").await);
    }
    for path in ["/tone/websocket/offer", "/tone/telephone/handler"] {
        assert_eq!(Peer::try_open(&world, path).await.err(), Some(503), "{path}");
    }
    // Whoever says `start` makes room.
    silent[0].say(json!({ "event": "start", "websocket_id": "a" })).await;
    silent[0].hear(480).await;
    let mut next = Peer::open(&world, "/tone/websocket/offer").await;
    next.say(json!({ "event": "start", "websocket_id": "b" })).await;
    next.hear(480).await;
    // So does whoever goes.
    silent.pop().unwrap().vanish();
    let begun = Instant::now();
    while Peer::try_open(&world, "/tone/websocket/offer").await.is_err() {
        assert!(begun.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn sockets_of_one_address_that_say_nothing_leave_room_for_others() {
    let access = Access { newcomers_per_source: Some(1), ..access() };
    let world = World::with_access([service("tone")], access);
    let mut silent = Vec::new();
    for _ in 0..NEWCOMERS / 2 {
        silent.push(Peer::open(&world, "/tone/websocket/offer").await);
    }
    for path in ["/tone/websocket/offer", "/tone/telephone/handler"] {
        assert_eq!(Peer::try_open(&world, path).await.err(), Some(429), "{path}");
    }
    assert_eq!(world.counted(r#"streamfleet_offers_total{outcome="too_many_sockets"}"#), 2);
    // A session is none of them.
    silent[0].say(json!({ "event": "start", "websocket_id": "a" })).await;
    silent[0].hear(480).await;
    Peer::open(&world, "/tone/websocket/offer").await;
}

#[tokio::test]
async fn all_are_told_that_the_process_stops() {
    let world = World::new([service("tone"), service("bye")]);
    let mut silent = Peer::open(&world, "/tone/websocket/offer").await;
    let mut phone = Peer::open(&world, "/tone/telephone/handler").await;
    let mut talking = Peer::start(&world, "tone", "a", json!(true)).await;
    talking.token().await;
    let mut lost = Peer::start(&world, "tone", "b", json!(true)).await;
    lost.token().await;
    lost.vanish();
    // It has said all that it will say and plays out.
    let mut ending = Peer::start(&world, "bye", "c", Value::Null).await;
    ending.hear(480).await;
    until("three sessions", || world.sessions.len() == 3).await;

    let begun = Instant::now();
    let (done, ()) = tokio::join!(world.sessions.handlers_done(PATIENCE), async {
        assert_eq!(silent.word().await, closed(1001, "shutdown"));
        assert_eq!(phone.word().await, closed(1001, "shutdown"));
        assert_eq!(talking.word().await, Heard::Text(json!({ "type": "update_connection", "data": "closed" })));
        assert_eq!(talking.word().await, closed(1001, "shutdown"));
        while !matches!(ending.word().await, Heard::Closed { code: 1001, .. }) {}
        for peer in [&mut silent, &mut phone, &mut talking, &mut ending] {
            assert_eq!(peer.next().await, Heard::Gone);
        }
    });
    let () = done;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(world.sessions.is_empty());
    assert_eq!((world.occupancy.live(), world.ended("shutdown")), (0, 3));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed() {
    let world = World::new([service("tone")]);
    let mut peer = Peer::narrow(&world, "/tone/websocket/offer").await;
    peer.say(json!({ "event": "start", "websocket_id": "a" })).await;
    let insists = async {
        // Every answer has to wait for it.
        peer.insist(json!({ "event": "ping" })).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = insists => {}
        () = until("the end", || world.ended("slow_client") == 1) => {}
    }
    assert_eq!((world.sessions.len(), world.occupancy.live()), (0, 0));
}
