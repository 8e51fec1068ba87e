use super::*;

const ANSWER: &str = r#"{"sdp":"v=0 answer","type":"answer"}"#;

#[tokio::test]
async fn every_outcome_of_an_offer() {
    let world = World::new();
    let check = async |id: &str, sdp: &str, status: u16, body: &str| world.offer("", id, sdp).await.is(status, body);
    check("a", SDP, 200, ANSWER).await;
    check("a", SDP, 200, &failed("connection_already_exists")).await;
    let invalid = r#"{"status":"failed","meta":{"error":"invalid_offer","detail":"no media"}}"#;
    check("b", "", 400, invalid).await;
    check("b", "v=1", 400, invalid).await;
    check("b", "full", 503, &failed("no_capacity")).await;
    check("b", "gone", 502, &failed("upstream_unavailable")).await;
    check("b", "panic", 500, &failed("internal")).await;
    check("b", SDP, 200, ANSWER).await;
    assert_eq!(world.offer("", "c", "full").await.header("retry-after"), Some("2"));
    world.occupancy.drain();
    check("c", SDP, 503, &failed("draining")).await;
    assert_eq!(world.occupancy.live(), 2, "only the two accepted offers hold slots");
    world.counted("streamfleet_sessions_admitted 2");
    world.counted("streamfleet_http_panics_total 1");
    world.counted("streamfleet_offers_total{outcome=\"accepted\"} 2");
    world.counted("streamfleet_offers_total{outcome=\"invalid_offer\"} 2");
    world.counted("streamfleet_offers_total{outcome=\"connection_already_exists\"} 1");
    world.counted("streamfleet_offers_total{outcome=\"draining\"} 1");
    world.counted("streamfleet_offer_duration_seconds_count 2");
}

#[tokio::test]
async fn limits_name_their_number() {
    let world = World::new();
    let limit =
        |error: &str, limit: u32| format!(r#"{{"status":"failed","meta":{{"error":"{error}","limit":{limit}}}}}"#);
    let offer = async |id: &str, user: Option<&str>| {
        let metadata = user.map(|user| json!({ "user_id": user }));
        let body = json!({ "type": "offer", "webrtc_id": id, "sdp": SDP, "metadata": metadata });
        world.post("/limited/webrtc/offer", body.to_string()).await
    };
    offer("a", Some("ann")).await.is(200, ANSWER);
    offer("b", Some("ann")).await.is(200, &limit("user_limit_reached", 1));
    offer("b", Some("bob")).await.is(200, ANSWER);
    offer("c", Some("cat")).await.is(200, &limit("concurrency_limit_reached", 2));
    offer("a", Some("cat")).await.is(200, &failed("connection_already_exists"));
    world.offer("", "a", SDP).await.is(200, &failed("connection_already_exists"));
    world.offer("", "c", SDP).await.is(200, ANSWER);
}

#[tokio::test]
async fn too_many_offers_from_one_address() {
    let world = World::new();
    for n in 0..20 {
        assert_eq!(world.offer("/limited", &format!("s{n}"), "v=1").await.status, 400);
    }
    let refused = world.offer("/limited", "s", SDP).await;
    refused.is(429, &failed("rate_limited"));
    assert_eq!(refused.header("retry-after"), Some("3"));
    world.offer("", "s", SDP).await.is(200, ANSWER);
}

#[tokio::test]
async fn bodies_of_the_wrong_shape() {
    let world = World::new();
    let check = async |body: &str, expected: Value| {
        let reply = world.post("/webrtc/offer", body.to_owned()).await;
        assert_eq!(reply.status, 422, "{body}");
        assert_eq!(serde_json::from_str::<Value>(&reply.body).unwrap(), json!({ "detail": expected }), "{body}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
    };
    check(
        r#"{"type":"offer"}"#,
        json!([{ "type": "missing", "loc": ["body", "webrtc_id"], "msg": "Field required",
                 "input": { "type": "offer" } }]),
    )
    .await;
    check(
        r#"{"type":5,"webrtc_id":"a"}"#,
        json!([{ "type": "string_type", "loc": ["body", "type"], "msg": "Input should be a valid string", "input": 5 }]),
    )
    .await;
    check("", json!([{ "type": "missing", "loc": ["body"], "msg": "Field required", "input": null }])).await;
    for body in ["{", "nonsense", "[]", r#"{"type":"offer","webrtc_id":"a b"}"#, r#"{"type":"x","webrtc_id":"a"}"#] {
        assert_eq!(world.post("/webrtc/offer", body.to_owned()).await.status, 422, "{body}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(world.post("/webrtc/offer", deep).await.status, 422);
    world.counted("streamfleet_offers_total{outcome=\"invalid_body\"} 9");
    assert_eq!(world.occupancy.live(), 0);
}

#[tokio::test]
async fn bodies_beyond_the_limit() {
    let world = World::new();
    let limit = body::MAX_BODY;
    world.post("/webrtc/offer", vec![b' '; limit + 1]).await.is(413, &failed("payload_too_large"));
    // Without a length, the size shows only while it is read.
    let chunks = (0..=limit / 1024).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024]));
    let stream = Body::from_stream(futures_util::stream::iter(chunks));
    let reply = world.post("/webrtc/offer", stream).await;
    reply.is(413, &failed("payload_too_large"));
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(world.post("/webrtc/offer", vec![b' '; limit]).await.status, 422);
    let broken = futures_util::stream::iter([Ok(vec![b'{']), Err(std::io::Error::other("cut"))]);
    world.post("/webrtc/offer", Body::from_stream(broken)).await.is(400, &failed("incomplete_body"));
    world.counted("streamfleet_offers_total{outcome=\"payload_too_large\"} 2");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_and_a_host_that_never_answers() {
    let world = World::new();
    let begun = tokio::time::Instant::now();
    let endless = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    world.post("/webrtc/offer", endless).await.is(408, &failed("request_timeout"));
    assert_eq!(begun.elapsed(), body::BODY_TIME);
    world.offer("", "a", "hang").await.is(503, &failed("no_capacity"));
    assert_eq!(world.occupancy.live(), 0);
}

#[tokio::test]
async fn the_order_of_the_checks() {
    let world = World::new();
    for (id, user) in [("a", "ann"), ("b", "bob")] {
        let body = json!({ "type": "offer", "webrtc_id": id, "sdp": SDP, "metadata": { "user_id": user } });
        world.post("/limited/webrtc/offer", body.to_string()).await.is(200, ANSWER);
    }
    // Each request breaks every rule from some point on; the first broken one is what it hears of.
    let check = async |path: &str, body: String, expected: &str| {
        let reply = world.post(&format!("{path}/webrtc/offer"), body).await;
        assert!(reply.body.contains(expected), "{} instead of {expected}", reply.body);
    };
    let offer =
        |id: Value, metadata: Value| json!({ "type": "offer", "webrtc_id": id, "sdp": "", "metadata": metadata });
    let ann = || json!({ "user_id": "ann" });
    check("/nowhere", " ".repeat(body::MAX_BODY + 1), "payload_too_large").await;
    check("/nowhere", offer(json!(7), json!(7)).to_string(), "string_type").await;
    check("/nowhere", offer(json!("a"), json!(7)).to_string(), "service_not_found").await;
    check("/limited", offer(json!("a"), json!(7)).to_string(), "invalid_metadata").await;
    check("/limited", offer(json!("a"), ann()).to_string(), "connection_already_exists").await;
    check("/limited", offer(json!("c"), ann()).to_string(), "concurrency_limit_reached").await;
    world.host.sessions.lock().remove("b").unwrap();
    check("/limited", offer(json!("c"), ann()).to_string(), "user_limit_reached").await;
    check("/limited", offer(json!("c"), json!({})).to_string(), "invalid_offer").await;
    for _ in 0..20 {
        world.offer("/limited", "c", "").await;
    }
    check("/limited", offer(json!("a"), json!(7)).to_string(), "rate_limited").await;
    world.occupancy.drain();
    check("", offer(json!("a"), json!(7)).to_string(), "invalid_metadata").await;
    check("", offer(json!("a"), ann()).to_string(), "draining").await;
}

#[tokio::test]
async fn who_is_calling_reaches_the_host() {
    let world = World::new();
    let offer = async |id: &str, extra: Value, header: Option<&[u8]>| {
        let mut body = json!({ "type": "offer", "webrtc_id": id, "sdp": SDP });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let mut request = Request::post("/webrtc/offer");
        if let Some(value) = header {
            request = request.header("x-user-id", value);
        }
        world.send(request.body(Body::from(body.to_string())).unwrap()).await
    };
    let user = |id: &str| {
        let sessions = world.host.sessions.lock();
        sessions[id].identity.user_id.as_ref().map(ToString::to_string)
    };
    offer("a", json!({ "metadata": { "user_id": "ann", "plan": "pro" } }), Some(b"eve")).await.is(200, ANSWER);
    assert_eq!(user("a").as_deref(), Some("ann"));
    assert_eq!(world.host.sessions.lock()["a"].identity.metadata.get("plan"), Some(&json!("pro")));
    offer("b", json!({ "candidate": { "additionalProp1": { "user_id": "bob" } } }), None).await.is(200, ANSWER);
    assert_eq!(user("b").as_deref(), Some("bob"));
    offer("c", json!({}), Some("Zoë".as_bytes())).await.is(200, ANSWER);
    assert_eq!(user("c").as_deref(), Some("Zoë"));
    offer("d", json!({}), None).await.is(200, ANSWER);
    assert_eq!(user("d"), None);
    let unreadable = offer("e", json!({}), Some(b"Zo\xeb")).await;
    assert!(unreadable.status == 400 && unreadable.body.contains("invalid_metadata"), "{unreadable:?}");
}

#[tokio::test]
async fn paths_and_methods() {
    let world = World::new();
    for (n, path) in ["", "/limited", "/deep/path", "/alias"].into_iter().enumerate() {
        world.offer(path, &format!("s{n}"), SDP).await.is(200, ANSWER);
        let ice = world.send(Request::get(format!("{path}/rtc_configuration")).body(Body::empty()).unwrap()).await;
        ice.is(200, r#"{"iceServers":[{"urls":["stun:stun.example.com"]}]}"#);
        assert_eq!(
            (ice.header("cache-control"), ice.header("x-content-type-options")),
            (Some("no-store"), Some("nosniff"))
        );
    }
    assert_eq!(world.host.sessions(&"deep".parse().unwrap()).len(), 2, "an alias is the same service");
    let check = async |method: &str, path: &str, status: u16, body: &str| {
        let reply = world.send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await;
        assert_eq!((reply.status, reply.body.as_str()), (status, body), "{method} {path}");
        reply
    };
    check("GET", "/", 200, "a page").await;
    check("GET", "/nowhere", 404, &failed("not_found")).await;
    check("GET", "/deep/webrtc/offer", 404, &failed("not_found")).await;
    check("GET", "/webrtc/offer/", 404, &failed("not_found")).await;
    let get = check("GET", "/webrtc/offer", 405, &failed("method_not_allowed")).await;
    assert!(get.header("allow").is_some_and(|allow| allow.contains("POST")), "{get:?}");
    for method in ["PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
        check(method, "/webrtc/offer", 405, &failed("method_not_allowed")).await;
    }
    check("POST", "/rtc_configuration", 405, &failed("method_not_allowed")).await;
}

#[tokio::test]
async fn bad_and_abandoned_offers_leave_no_slot() {
    let world = World::new();
    for n in 0..10_000_u32 {
        match n % 4 {
            0 => assert_eq!(world.offer("", &format!("s{n}"), "v=1").await.status, 400),
            1 => assert_eq!(world.offer("", &format!("s{n}"), "panic").await.status, 500),
            2 => assert_eq!(world.post("/webrtc/offer", "{\"type\":\"offer\"}").await.status, 422),
            _ => {
                // The client goes away while its session is being set up.
                let mut offer = std::pin::pin!(world.offer("", "abandoned", "hang"));
                assert!(futures_util::poll!(&mut offer).is_pending());
                assert_eq!(world.occupancy.live(), 1);
            }
        }
        assert_eq!(world.occupancy.live(), 0, "after offer {n}");
    }
    assert!(world.host.sessions.lock().is_empty());
}
