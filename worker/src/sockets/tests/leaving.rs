//! Clients of a worker that somebody wants empty.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::Request;
use serde_json::json;
use streamfleet_session::fleet::PLACED_HEADER;
use streamfleet_store::{Directory as _, Gate, Memory};
use tokio::time::timeout;

use super::PATIENCE;
use super::peer::{Heard, Peer, closed};
use super::placed::{PATH, in_a_fleet, placed};
use crate::fleet::Owned as _;

/// The next message that is no media; of a session that plays without end.
async fn word(peer: &mut Peer) -> Heard {
    timeout(PATIENCE, peer.word()).await.expect("it is told something")
}

/// What the fleet asks of a worker comes to its clients: to each once, however often the worker is asked.
#[tokio::test]
async fn each_client_is_asked_once_to_connect_elsewhere() {
    let store = Arc::<Memory>::default();
    let (world, member, _running) = in_a_fleet(&store).await;
    let mut clients = Vec::new();
    for (ticket, id) in [(1, "a"), (2, "b")] {
        let placed = placed(&store, ticket, id).await.encode().unwrap();
        let mut peer = Peer::with(&world, PATH, &[(PLACED_HEADER, &placed)]).await;
        peer.say(json!({ "event": "start", "websocket_id": id, "resume": true })).await;
        let token = peer.token().await;
        clients.push((id, peer, token));
    }
    assert!(store.ask_gate(member.service(), member.worker(), Gate::Leaving).await.unwrap());
    let mut turns = Vec::new();
    for (id, peer, token) in &mut clients {
        let Heard::Text(asked) = word(peer).await else { panic!("{id} is closed") };
        let (kind, data) = (&asked["type"], &asked["data"]);
        assert_eq!((kind, &data["reason"], &data["resume"]), (&json!("reconnect"), &json!("draining"), &*token));
        turns.push(data["after_ms"].as_u64().unwrap());
    }
    turns.sort_unstable();
    assert_eq!(turns, [0, 100], "one after the other");
    // As with each renewal from then on.
    world.sessions.urge(&member, Gate::Leaving);
    assert_eq!(world.sessions.len(), 2, "nobody is thrown out");
    for (id, peer, _) in &mut clients {
        let request = Request::delete(format!("/tone/sessions/{id}"))
            .header("host", "localhost")
            .header("authorization", "Bearer correct-horse-battery");
        assert_eq!(world.send(request.body(Body::empty()).unwrap()).await.0, 200);
        let goodbye = Heard::Text(json!({ "type": "update_connection", "data": "closed" }));
        assert_eq!(word(peer).await, goodbye, "and nothing before it");
        assert_eq!(word(peer).await, closed(1000, "ended_by_control"));
    }
}

/// While the store is away a router has nowhere else to bring it.
#[tokio::test]
async fn who_is_brought_back_is_asked_again() {
    let store = Arc::<Memory>::default();
    let (world, member, _running) = in_a_fleet(&store).await;
    let place = placed(&store, 1, "a").await.encode().unwrap();
    let start = |resume| json!({ "event": "start", "websocket_id": "a", "resume": resume });
    let asked = async |peer: &mut Peer| match word(peer).await {
        Heard::Text(word) => assert_eq!(word["type"], "reconnect"),
        other => panic!("{other:?}"),
    };
    let mut first = Peer::with(&world, PATH, &[(PLACED_HEADER, &place)]).await;
    first.say(start(json!(true))).await;
    let token = first.token().await;
    assert!(store.ask_gate(member.service(), member.worker(), Gate::Leaving).await.unwrap());
    asked(&mut first).await;
    first.vanish();
    let mut back = Peer::with(&world, PATH, &[("authorization", "Bearer correct-horse-battery")]).await;
    back.say(start(token)).await;
    back.token().await;
    world.sessions.urge_all(&member, Gate::Leaving, Instant::now() + PATIENCE);
    asked(&mut back).await;
}
