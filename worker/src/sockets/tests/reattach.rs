//! Clients that come back over another socket.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use streamfleet_audio::analysis::{level_dbfs, tone_level};

use super::calls::stream;
use super::handlers::HEARD;
use super::peer::{Heard, Peer, closed, refused};
use super::{World, service, until};
use crate::sessions::offer;

#[tokio::test]
async fn a_client_that_shows_its_token_has_its_session_again() {
    let world = World::new([service("tone")]);
    let mut first = Peer::start(&world, "tone", "a", json!(true)).await;
    let token = first.token().await;
    first.hear(4_800).await;
    let began = world.view("a").unwrap().since;
    first.vanish();

    let mut second = Peer::start(&world, "tone", "a", token.clone()).await;
    let next = second.token().await;
    assert_ne!(next, token);
    let (heard, _) = second.hear(24_000).await;
    // A tone that went on has no seam; silence in between would take from its level.
    assert!((tone_level(&heard, 24_000, 440.0) - level_dbfs(&heard)).abs() < 0.5);
    assert!(level_dbfs(&heard) > -25.0);
    assert_eq!((world.sessions.len(), world.occupancy.live()), (1, 1));
    assert_eq!(world.view("a").unwrap().since, began, "it is the same session");
    second.say(json!({ "event": "stop" })).await;
    assert_eq!(second.word().await, closed(1000, "stopped"));
    until("the end", || world.sessions.is_empty()).await;
    assert_eq!((world.occupancy.live(), world.ended("client_closed")), (0, 1));
}

#[tokio::test]
async fn nobody_else_has_it() {
    let world = World::new([service("tone"), service("echo")]);
    let mut owner = Peer::start(&world, "tone", "a", json!(true)).await;
    let token = owner.token().await;
    let stranger = json!("00000000000000000000000000000000");
    for (who, resume) in [("no token", Value::Null), ("wants one", json!(true)), ("a wrong one", stranger)] {
        let mut peer = Peer::start(&world, "tone", "a", resume).await;
        assert_eq!(peer.word().await, refused("connection_already_exists"), "{who}");
        assert_eq!(peer.word().await, closed(1000, "refused"), "{who}");
    }
    // The right token at the wrong service.
    let mut peer = Peer::start(&world, "echo", "a", token).await;
    assert_eq!(peer.word().await, refused("connection_already_exists"));
    owner.hear(4_800).await;
}

#[tokio::test]
async fn a_token_is_spent_when_its_successor_was_shown() {
    let world = World::new([service("tone")]);
    let mut peer = Peer::start(&world, "tone", "a", json!(true)).await;
    let first = peer.token().await;
    peer.vanish();
    // The frame with the next token is lost: nobody reads it.
    let lost = Peer::start(&world, "tone", "a", first.clone()).await;
    until("the session", || world.counted(r#"streamfleet_offers_total{outcome="attached"}"#) == 1).await;
    lost.vanish();
    let mut peer = Peer::start(&world, "tone", "a", first.clone()).await;
    let second = peer.token().await;
    peer.vanish();
    let mut peer = Peer::start(&world, "tone", "a", second.clone()).await;
    let third = peer.token().await;
    for spent in [first, second.clone()] {
        // What was shown last is good once more, for the same reason; what was before it is not.
        let mut other = Peer::start(&world, "tone", "a", spent.clone()).await;
        match (spent == second, other.next().await) {
            (false, heard) => assert_eq!(heard, refused("connection_already_exists")),
            (true, Heard::Text(value)) => assert_eq!(value["type"], "session"),
            (true, other) => panic!("{other:?}"),
        }
    }
    let mut other = Peer::start(&world, "tone", "a", third).await;
    assert_eq!(other.word().await, refused("connection_already_exists"), "it was replaced meanwhile");
}

#[tokio::test]
async fn a_socket_that_is_still_open_is_taken_over() {
    let world = World::new([service("tone")]);
    let mut first = Peer::start(&world, "tone", "a", json!(true)).await;
    let token = first.token().await;
    first.hear(2_400).await;
    let mut second = Peer::start(&world, "tone", "a", token).await;
    second.token().await;
    assert_eq!(first.word().await, closed(1000, "moved"));
    second.hear(4_800).await;
    assert_eq!((world.sessions.len(), world.occupancy.live()), (1, 1));
}

#[tokio::test]
async fn what_is_said_and_put_out_goes_on_over_the_next_socket() {
    let world = World::new([service("busy")]);
    let mut first = Peer::start(&world, "busy", "a", json!(true)).await;
    let token = first.token().await;
    first.vanish();
    let mut second = Peer::start(&world, "busy", "a", token).await;
    second.token().await;
    for _ in 0..5 {
        second.speak(&[0x80; HEARD as usize]).await;
    }
    assert_eq!(second.word().await, Heard::Text(json!({ "type": "fetch_output", "data": [] })));
    assert_eq!(world.outputs("a"), [json!(5 * HEARD)]);
}

#[tokio::test]
async fn a_client_that_asked_for_no_token_is_gone_with_its_socket() {
    let world = World::new([service("tone")]);
    let mut peer = Peer::start(&world, "tone", "a", Value::Null).await;
    peer.hear(2_400).await;
    peer.vanish();
    until("the end", || world.sessions.is_empty()).await;
    assert_eq!(world.ended("connection_lost"), 1);
}

/// The client is in a tunnel when its handler hangs up: the session ends there and then, and the client learns of it.
#[tokio::test]
async fn a_handler_that_hangs_up_does_not_wait_for_a_client_that_is_away() {
    let world = World::new([service("leaver")]);
    let mut first = Peer::start(&world, "leaver", "a", json!(true)).await;
    let token = first.token().await;
    first.hear(4_800).await;
    first.vanish();
    let detached = |world: &World| {
        world.view("a").is_some_and(|view| view.changes.iter().any(|change| change.change == "detached"))
    };
    until("the break", || detached(&world)).await;

    let begun = Instant::now();
    let body = json!({ "webrtc_id": "a", "inputs": [7] }).to_string();
    let (status, _) = world.send(Request::post("/leaver/input_hook").body(Body::from(body)).unwrap()).await;
    assert_eq!(status, 200);
    until("the end", || world.ended("end_stream") == 1).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!((world.sessions.len(), world.occupancy.live()), (0, 0));
    let outputs = Request::get("/leaver/outputs?webrtc_id=a").body(Body::empty()).unwrap();
    let (status, outputs) = world.send(outputs).await;
    assert!(status == 200 && outputs.contains("data: [7]"), "what it put out before is there: {status} {outputs}");

    // A stranger with another token gets a session, and is none the wiser.
    let stranger = json!("00000000000000000000000000000000");
    let mut other = Peer::start(&world, "leaver", "b", stranger).await;
    other.token().await;
    let mut back = Peer::start(&world, "leaver", "a", token.clone()).await;
    assert_eq!(back.word().await, refused("connection_closed"));
    assert_eq!(back.word().await, closed(1000, "refused"));
    // It knows now: the next one is a new conversation.
    let mut again = Peer::start(&world, "leaver", "a", token).await;
    again.token().await;
    again.hear(4_800).await;
}

/// A network that stood still for five seconds delivers them at once, to a handler that is busy: it hears all of it.
#[tokio::test]
async fn what_a_stall_has_held_back_is_heard() {
    let world = World::new([service("busy")]);
    let mut peer = Peer::start(&world, "busy", "a", Value::Null).await;
    for _ in 0..5 {
        peer.speak(&[0x80; HEARD as usize]).await;
    }
    let all = [json!(5 * HEARD)];
    until("the last of it", || world.outputs("a") == all).await;
}

/// The session of an offer moves to a socket, which breaks before its first message has come.
#[tokio::test]
async fn a_client_whose_socket_breaks_as_it_arrives_shows_its_old_token() {
    let world = World::with_media([service("tone")]);
    let body = json!({ "type": "offer", "webrtc_id": "a", "sdp": offer() }).to_string();
    let (status, answer) = world.send(Request::post("/tone/webrtc/offer").body(Body::from(body)).unwrap()).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((status, &answer["type"]), (200, &json!("answer")), "{answer}");
    let first = answer["resume"].clone();

    let lost = Peer::start(&world, "tone", "a", first.clone()).await;
    until("the move", || world.ended("moved") == 1).await;
    lost.vanish();
    let mut peer = Peer::start(&world, "tone", "a", first.clone()).await;
    let next = peer.token().await;
    peer.hear(4_800).await;
    assert_eq!((world.sessions.len(), world.occupancy.live()), (1, 1));
    // What it has now is good, and the old one is not any more.
    peer.vanish();
    let mut peer = Peer::start(&world, "tone", "a", next).await;
    peer.token().await;
    let mut other = Peer::start(&world, "tone", "a", first).await;
    assert_eq!(other.word().await, refused("connection_already_exists"));
}

/// Its token is good, and before it has its session that ends: the client is told so, and nobody has waited for it.
#[tokio::test]
async fn a_client_that_comes_back_as_its_session_ends_is_told_so() {
    let (world, store) = World::gated([service("tone")]);
    let mut first = Peer::start(&world, "tone", "a", json!(true)).await;
    let token = first.token().await;
    let gate = store.behind.shut();
    let mut second = Peer::start(&world, "tone", "a", token).await;
    until("the token", || store.behind.is_reached()).await;
    let request = Request::delete("/tone/sessions/a")
        .header("host", "localhost")
        .header("authorization", "Bearer correct-horse-battery");
    let (status, body) = world.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!((status, body.as_str()), (200, r#"{"status":"success","id":"a","reason":"ended_by_control"}"#));
    assert_eq!((world.sessions.len(), world.occupancy.live()), (0, 0));
    gate.send(()).unwrap();
    assert_eq!(second.next().await, refused("connection_closed"));
    assert_eq!(second.next().await, closed(1000, "refused"));
    // Its id is nobody's.
    let mut next = Peer::start(&world, "tone", "a", json!(true)).await;
    next.token().await;
    assert_eq!((world.sessions.len(), world.occupancy.live()), (1, 1));
}

/// A handler that asks what carries its session is told the truth: over another transport it is another session.
#[tokio::test]
async fn a_client_on_another_transport_has_a_session_of_its_own() {
    let world = World::new([service("keys")]);
    let mut socket = Peer::start(&world, "keys", "a", json!(true)).await;
    let token = socket.token().await;
    let parameters = json!({ "streamfleet_session": "a", "streamfleet_resume": token });
    let mut phone = stream(&world, "/keys", "MZ1", "CA1", parameters).await;
    assert_eq!(socket.word().await, Heard::Text(json!({ "type": "fetch_output", "data": [] })));
    assert_eq!(socket.word().await, Heard::Text(json!({ "type": "update_connection", "data": "closed" })));
    assert_eq!(socket.word().await, closed(1000, "moved"));
    until("the new handler", || world.outputs("a").len() == 2).await;
    let told: Vec<Value> = world.outputs("a").iter().map(|told| told["transport"].clone()).collect();
    assert_eq!(told, ["websocket", "telephone"]);
    assert_eq!((world.sessions.len(), world.occupancy.live(), world.ended("moved")), (1, 1, 1));
    phone.say(json!({ "event": "stop" })).await;
    assert_eq!(phone.next().await, closed(1000, "stopped"));
}
