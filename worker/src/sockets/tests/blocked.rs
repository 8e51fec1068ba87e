//! A handler that holds its thread holds up nobody else's socket, and not the end of its own session.

use std::time::Instant;

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use tokio::runtime::Builder;

use super::peer::{Heard, Peer, closed};
use super::{PATIENCE, World, service, until};

const HANDLERS: &str = "test-handlers";

#[tokio::test]
async fn a_handler_that_holds_its_thread_harms_nothing_else() {
    let handlers = Builder::new_multi_thread().worker_threads(1).thread_name(HANDLERS).enable_all().build().unwrap();
    let world = World::with_handlers_on([service("tone"), service("blocked")], &handlers);
    let mut listening = Peer::start(&world, "tone", "a", Value::Null).await;
    listening.hear(480).await;

    let mut stuck = Peer::start(&world, "blocked", "b", Value::Null).await;
    stuck.speak(&[0xff; 320]).await;
    assert_eq!(stuck.word().await, Heard::Text(json!({ "type": "fetch_output", "data": [] })));
    assert_eq!(world.outputs("b"), [json!(HANDLERS)], "it runs there");

    // Its own session goes on, and so does that of another.
    for peer in [&mut stuck, &mut listening] {
        peer.say(json!({ "event": "ping" })).await;
        assert_eq!(peer.word().await, Heard::Text(json!({ "event": "pong" })));
    }
    // HTTP answers, and ends it.
    let begun = Instant::now();
    let end = Request::delete("/blocked/sessions/b")
        .header("host", "localhost")
        .header("authorization", "Bearer correct-horse-battery");
    let (status, answer) = world.send(end.body(Body::empty()).unwrap()).await;
    assert_eq!(status, 200, "{answer}");
    while stuck.word().await != closed(1000, "ended_by_control") {}
    assert!(begun.elapsed() < PATIENCE / 4);
    until("its place", || world.occupancy.live() == 1).await;
    // The thread is lost until the process ends.
    handlers.shutdown_background();
}
