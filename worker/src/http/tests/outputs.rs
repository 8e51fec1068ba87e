//! `GET {p}/outputs`, of which `history` has what a reader gets and this who may read.

use std::time::Instant;

use super::*;
use crate::history::MAX_READERS;

fn get(path: &str, headers: &[(&str, &[u8])]) -> Request<Body> {
    let request = Request::get(path);
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(Body::empty()).unwrap()
}

/// Events without the mark that their ids have, and the mark.
fn unmarked(piece: &str) -> (String, String) {
    let (mark, _) = piece.split("id: ").nth(1).and_then(|id| id.split_once('-')).expect("an event has an id");
    (piece.replace(&format!("id: {mark}-"), "id: "), mark.to_owned())
}

async fn say(world: &World, id: &str, output: Value) {
    world.host.with(id, |session| session.shared.output(&output)).unwrap();
}

#[tokio::test]
async fn a_session_is_followed_to_its_end() {
    let world = World::new();
    world.offer("", "a", SDP).await;
    say(&world, "a", json!({ "n": 1 })).await;
    let mut stream = world.begin(get("/outputs?webrtc_id=a", &[("origin", b"https://app.example.com")])).await;
    assert_eq!(stream.status, 200);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
        ("access-control-allow-origin", "*"),
    ] {
        assert_eq!(stream.headers[name], value);
    }
    let (first, mark) = unmarked(&stream.piece().await.unwrap());
    assert_eq!(first, "id: 1\nevent: output\ndata: {\"n\":1}\n\n");
    let (piece, ()) = tokio::join!(stream.piece(), say(&world, "a", json!([2, "two"])));
    assert_eq!(unmarked(&piece.unwrap()).0, "id: 2\nevent: output\ndata: [2,\"two\"]\n\n");
    let (end, ()) = tokio::join!(stream.piece(), world.host.finish("a"));
    assert_eq!(end, None);
    // What an EventSource does when its stream has ended.
    let rest = world.send(get("/outputs?webrtc_id=a", &[("last-event-id", format!("{mark}-1").as_bytes())])).await;
    rest.is(200, &format!("id: {mark}-2\nevent: output\ndata: [2,\"two\"]\n\n"));
    let seen_all = format!("{mark}-2");
    world.send(get("/outputs?webrtc_id=a", &[("last-event-id", seen_all.as_bytes())])).await.is(204, "");
    world.counted("streamfleet_session_requests_total{outcome=\"opened\",route=\"outputs\"} 2");
    world.counted("streamfleet_session_requests_total{outcome=\"over\",route=\"outputs\"} 1");
}

#[tokio::test]
async fn other_ids_and_other_services_have_none() {
    let world = World::new();
    world.offer("/deep/path", "a", SDP).await;
    for path in ["/outputs?webrtc_id=a", "/outputs?webrtc_id=b", "/limited/outputs?webrtc_id=a"] {
        world.send(get(path, &[])).await.is(404, &failed("not_found"));
    }
    assert_eq!(world.begin(get("/alias/outputs?webrtc_id=a", &[])).await.status, 200);
    let preflight = Request::options("/outputs").body(Body::empty()).unwrap();
    assert_eq!(world.send(preflight).await.status, 204);
    world.post("/outputs?webrtc_id=a", "").await.is(405, &failed("method_not_allowed"));
}

#[tokio::test]
async fn requests_that_are_not_meant_well() {
    let world = World::new();
    world.offer("", "a", SDP).await;
    say(&world, "a", json!(1)).await;
    let long = "a".repeat(20_000);
    for query in [
        "".to_owned(),
        "?".to_owned(),
        "?webrtc_id".to_owned(),
        "?webrtc_id=a&webrtc_id=b".to_owned(),
        "?webrtc_id=a&webrtc_id=a".to_owned(),
        "?webrtc_id=%ff%fe".to_owned(),
        "?webrtc_id=a%00".to_owned(),
        "?webrtc_id=../a".to_owned(),
        "?webrtc%5Fid=%".to_owned(),
        format!("?webrtc_id={long}"),
        "?webrtc_id=a&access_token=x&access_token=y".to_owned(),
    ] {
        let reply = world.send(get(&format!("/outputs{query}"), &[])).await;
        assert_eq!(reply.status, 422, "{query}: {reply:?}");
        assert!(reply.body.starts_with(r#"{"detail":[{"type":""#) && reply.body.len() < 1000, "{reply:?}");
    }
    world.counted("streamfleet_session_requests_total{outcome=\"invalid_query\",route=\"outputs\"} 11");
    for last in [b"\xff\xfe".as_slice(), long.as_bytes(), &b"9".repeat(20_000), b"-1", b"1, 1", b"99"] {
        let mut stream = world.begin(get("/outputs?webrtc_id=a", &[("last-event-id", last)])).await;
        let (first, _) = unmarked(&stream.piece().await.unwrap());
        assert_eq!((stream.status, first.starts_with("id: 1\n")), (200, true), "everything");
    }
}

#[tokio::test]
async fn streams_are_bounded_by_session_and_in_all() {
    let world = World::with(Access { streams: MAX_READERS + 2, ..access() });
    for id in ["a", "b"] {
        world.offer("", id, SDP).await;
    }
    let mut streams = Vec::new();
    for _ in 0..MAX_READERS {
        streams.push(world.begin(get("/outputs?webrtc_id=a", &[])).await);
    }
    let crowded = world.send(get("/outputs?webrtc_id=a", &[])).await;
    crowded.is(429, &failed("too_many_readers"));
    assert_eq!(crowded.header("retry-after"), Some("1"));
    let _two =
        [world.begin(get("/outputs?webrtc_id=b", &[])).await, world.begin(get("/outputs?webrtc_id=b", &[])).await];
    let full = world.send(get("/outputs?webrtc_id=b", &[])).await;
    full.is(503, &failed("no_capacity"));
    assert!(full.header("retry-after").is_some());
    streams.pop();
    assert_eq!(world.begin(get("/outputs?webrtc_id=b", &[])).await.status, 200, "both places are given back");
}

#[tokio::test]
async fn what_a_proven_user_owns_is_for_that_user() {
    let world = World::new();
    let body = json!({ "type": "offer", "webrtc_id": "a", "sdp": "proven", "metadata": { "user_id": "ann" } });
    world.post("/webrtc/offer", body.to_string()).await;
    world.offer("", "b", SDP).await;
    let (own, strange) = (world.host.token("a"), world.host.token("b"));
    let check = async |id: &str, query: &str, header: Option<&str>, status: u16| {
        let path = format!("/outputs?webrtc_id={id}{query}");
        let bearer = header.map(|token| format!("Bearer {token}"));
        let headers: Vec<(&str, &[u8])> = bearer
            .iter()
            .map(|value| ("authorization", value.as_bytes()))
            .chain([("x-user-id", &b"ann"[..])])
            .collect();
        assert_eq!(world.begin(get(&path, &headers)).await.status, status, "{path} {header:?}");
    };
    // Twice each: looking at a token does not spend it.
    for _ in 0..2 {
        check("a", "", None, 401).await;
        check("a", "", Some(&own), 200).await;
        check("a", &format!("&access_token={own}"), None, 200).await;
        check("a", "", Some(TOKEN), 200).await;
        check("a", "", Some(&strange), 401).await;
        check("a", "", Some("nonsense"), 401).await;
        check("a", &format!("&access_token={strange}"), None, 401).await;
    }
    check("b", "", None, 200).await;
    check("b", "", Some("nonsense"), 200).await;
    let (path, body) = ("/input_hook", json!({ "webrtc_id": "a", "inputs": [] }).to_string());
    let denied = world.post(path, body).await;
    denied.is(401, &failed("unauthorized"));
    assert_eq!(denied.header("www-authenticate"), Some("Bearer"));
    world.counted("streamfleet_session_requests_total{outcome=\"unauthorized\",route=\"outputs\"} 8");
}

#[tokio::test]
async fn ids_cannot_be_tried_without_end() {
    let world = World::new();
    // 64 for each of the 20 offers a minute, and those that the time which this takes allows.
    let mut tries = 0;
    while tries < 64 * 40 && world.send(get(&format!("/limited/outputs?webrtc_id={tries}"), &[])).await.status == 404 {
        tries += 1;
    }
    assert!((64 * 20..64 * 40).contains(&tries), "{tries}");
    let begun = Instant::now();
    let door = async |path: &str, body: String| {
        // Should a place have come free meanwhile, this takes it.
        while world.post(path, body.clone()).await.status == 404 && begun.elapsed() < Duration::from_secs(5) {}
        world.post(path, body).await.status
    };
    let body = json!({ "webrtc_id": "a", "inputs": [] }).to_string();
    assert_eq!(door("/limited/input_hook", body.clone()).await, 429, "one count for all three");
    assert_eq!(door("/limited/trigger_response", body.clone()).await, 429);
    assert_eq!(world.post("/input_hook", body).await.status, 404, "of that service");
    assert_eq!(world.offer("/limited", "a", SDP).await.status, 200, "offers have their own");
}
