use streamfleet_handler::Input;

use super::*;

const HOOK: &str = "/input_hook";
const TRIGGER: &str = "/trigger_response";

async fn post(world: &World, path: &str, body: Value) -> Reply {
    world.post(path, body.to_string()).await
}

/// What waits for the session's handler.
fn taken(world: &World, id: &str) -> Vec<Input> {
    use futures_util::FutureExt as _;
    world.host.with(id, |s| std::iter::from_fn(|| s.handler.recv().now_or_never().flatten()).collect())
}

#[tokio::test]
async fn arguments_and_triggers_reach_the_handler_in_their_order() {
    let world = World::new();
    world.offer("", "a", "on pause").await;
    let success = r#"{"status":"success"}"#;
    post(&world, HOOK, json!({ "webrtc_id": "a", "inputs": [550, "x"] })).await.is(200, success);
    post(&world, HOOK, json!({ "webrtc_id": "a", "voice": "alto" })).await.is(200, success);
    world.host.set("a", State::Active);
    post(&world, TRIGGER, json!({ "webrtc_id": "a" })).await.is(200, success);
    post(&world, TRIGGER, json!({ "webrtc_id": "a", "inputs": [7] })).await.is(200, success);
    assert_eq!(
        taken(&world, "a"),
        [
            Input::Args(vec![json!(550), json!("x")]),
            Input::Args(vec![json!({ "voice": "alto" })]),
            Input::Trigger(None),
            Input::Trigger(Some(vec![json!(7)])),
        ]
    );
    world.counted("streamfleet_session_requests_total{outcome=\"accepted\",route=\"input_hook\"} 2");
    world.counted("streamfleet_session_requests_total{outcome=\"accepted\",route=\"trigger_response\"} 2");
}

#[tokio::test]
async fn a_handler_that_replies_freely_is_not_triggered() {
    let world = World::new();
    world.offer("", "a", SDP).await;
    post(&world, TRIGGER, json!({ "webrtc_id": "a" })).await.is(200, &failed("not_a_reply_on_pause"));
    assert_eq!(taken(&world, "a"), []);
}

#[tokio::test]
async fn sessions_that_cannot_take_any() {
    let world = World::new();
    for id in ["ending", "over", "failed"] {
        world.offer("", id, "on pause").await;
    }
    world.offer("/deep/path", "deep", "on pause").await;
    world.host.set("ending", State::Ending(CloseReason::EndStream));
    world.host.finish("over").await;
    // Its handler has gone, and its loop has not heard of it yet.
    let (_, gone) = link(LinkConfig::default(), Arc::new(|| {}));
    drop(std::mem::replace(&mut world.host.sessions.lock().get_mut("failed").unwrap().handler, gone));
    for (id, status, error) in [
        ("nobody", 404, "not_found"),
        ("deep", 404, "not_found"),
        ("over", 404, "not_found"),
        ("ending", 200, "connection_closed"),
        ("failed", 200, "connection_closed"),
    ] {
        for path in [HOOK, TRIGGER] {
            post(&world, path, json!({ "webrtc_id": id, "inputs": [1] })).await.is(status, &failed(error));
        }
    }
}

#[tokio::test]
async fn a_handler_that_does_not_come_to_it_has_a_bounded_number_wait() {
    let world = World::new();
    world.offer("", "a", "on pause").await;
    let bound = LinkConfig::default().max_queued_messages;
    for n in 0..bound {
        assert_eq!(post(&world, HOOK, json!({ "webrtc_id": "a", "inputs": [n] })).await.status, 200, "{n}");
    }
    for path in [HOOK, TRIGGER] {
        let refused = post(&world, path, json!({ "webrtc_id": "a", "inputs": ["too many"] })).await;
        refused.is(429, &failed("too_many_inputs"));
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    assert_eq!(taken(&world, "a").len(), bound);
    assert_eq!(post(&world, HOOK, json!({ "webrtc_id": "a", "inputs": ["now"] })).await.status, 200);
}

#[tokio::test]
async fn bodies_that_are_not_meant_well() {
    let world = World::new();
    world.offer("", "a", "on pause").await;
    let large = json!({ "webrtc_id": "a", "inputs": ["x".repeat(64 << 10)] }).to_string();
    let many = json!({ "webrtc_id": "a", "inputs": [vec![0; 3000]] }).to_string();
    let deep = format!(r#"{{"webrtc_id":"a","inputs":{}1{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    for path in [HOOK, TRIGGER] {
        let check = async |body: Vec<u8>, status: u16, expected: &str| {
            let start = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            let reply = world.post(path, body).await;
            assert_eq!(reply.status, status, "{start}: {reply:?}");
            assert!(reply.body.contains(expected) && reply.body.len() < 5_000, "{start}: {reply:?}");
            assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
        };
        check(b"".to_vec(), 422, r#"{"detail":[{"type":"missing","loc":["body"]"#).await;
        check(b"null".to_vec(), 422, "model_attributes_type").await;
        check(b"{\"webrtc_id\": \"\xff\"}".to_vec(), 422, "json_invalid").await;
        check(b"\xff\xfe".to_vec(), 422, "json_invalid").await;
        check(br#"{"inputs":[]}"#.to_vec(), 422, r#"["body","webrtc_id"]"#).await;
        check(br#"{"webrtc_id":"a","inputs":{}}"#.to_vec(), 422, "list_type").await;
        check(deep.clone().into_bytes(), 422, "json_invalid").await;
        check(many.clone().into_bytes(), 413, "payload_too_large").await;
        check(large.clone().into_bytes(), 413, "payload_too_large").await;
        check(vec![b' '; 10 << 20], 413, "payload_too_large").await;
        let twice = br#"{"webrtc_id":"nobody","webrtc_id":"a","inputs":[1]}"#;
        check(twice.to_vec(), 200, "success").await;
    }
    assert_eq!(taken(&world, "a").len(), 2, "the last of two counts, as in Python");
}
