use super::*;

const ANSWER: &str = r#"{"sdp":"v=0 answer","type":"answer"}"#;
/// Candidates that no client has; the rate of these tests is 640 a minute.
const MANY: u32 = 50_000;
const SUCCESS: &str = r#"{"status":"success"}"#;

fn candidate(port: u16) -> Value {
    json!({ "candidate": format!("candidate:1 1 udp 2130706431 192.0.2.1 {port} typ host"), "sdpMid": "0",
            "sdpMLineIndex": 0, "usernameFragment": "abcd" })
}

fn ports(lines: &[String]) -> Vec<u16> {
    lines.iter().map(|line| line.split(' ').nth(5).unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn every_outcome_of_a_candidate() {
    let world = World::new();
    world.offer("", "a", SDP).await;
    world.trickle("a", candidate(1)).await.is(200, SUCCESS);
    world.trickle("a", json!(null)).await.is(200, SUCCESS);
    world.trickle("a", json!({ "candidate": "" })).await.is(200, SUCCESS);
    world.trickle("a", json!({ "candidate": "gibberish" })).await.is(200, &failed("invalid_candidate_format"));
    world.trickle("nobody", json!({ "candidate": "gibberish" })).await.is(200, &failed("unknown_connection"));
    world.host.set("a", State::Closed(CloseReason::EndStream));
    world.trickle("a", candidate(2)).await.is(200, &failed("connection_closed"));
    world.trickle("a", json!({ "candidate": "gibberish" })).await.is(200, &failed("connection_closed"));
    assert_eq!(ports(&world.host.candidates("a")), [1]);
    world.counted("streamfleet_candidates_total{outcome=\"accepted\"} 3");
    world.counted("streamfleet_candidates_total{outcome=\"connection_closed\"} 2");
}

#[tokio::test]
async fn candidates_that_overtake_their_offer_come_with_it() {
    let world = World::new();
    for port in [1, 2] {
        world.trickle("a", candidate(port)).await.is(200, SUCCESS);
    }
    world.offer("", "a", SDP).await;
    world.trickle("a", candidate(3)).await.is(200, SUCCESS);
    assert_eq!(ports(&world.host.candidates("a")), [1, 2, 3]);
}

#[tokio::test]
async fn candidates_that_come_while_the_offer_is_answered_are_not_lost() {
    let world = World::new();
    let mut offer = std::pin::pin!(world.offer("", "a", "slow"));
    assert!(futures_util::poll!(&mut offer).is_pending());
    world.trickle("a", candidate(1)).await.is(200, SUCCESS);
    world.host.go.notify_one();
    assert_eq!(offer.await.status, 200);
    assert_eq!(ports(&world.host.candidates("a")), [1]);
}

#[tokio::test]
async fn the_buffer_is_bounded() {
    let world = World::new();
    for port in 1..=32 {
        world.trickle("a", candidate(port)).await.is(200, SUCCESS);
    }
    world.trickle("a", candidate(33)).await.is(200, &failed("unknown_connection"));
    for n in 1..16 {
        world.trickle(&format!("s{n}"), candidate(1)).await.is(200, SUCCESS);
    }
    world.trickle("s16", candidate(1)).await.is(200, &failed("unknown_connection"));
    world.offer("", "a", SDP).await;
    assert_eq!(world.host.candidates("a").len(), 32);
    world.trickle("s16", candidate(1)).await.is(200, SUCCESS);
    world.counted("streamfleet_candidates_total{outcome=\"unknown_connection\"} 2");
}

#[tokio::test]
async fn another_services_path_leads_to_no_session() {
    let world = World::new();
    world.offer("", "a", SDP).await;
    world.trickle_to("/deep/path", "a", candidate(1)).await.is(200, &failed("unknown_connection"));
    let gibberish = json!({ "candidate": "gibberish" });
    world.trickle_to("/deep/path", "a", gibberish).await.is(200, &failed("unknown_connection"));
    // Nor does what came there before the offer.
    world.trickle_to("/deep/path", "b", candidate(2)).await.is(200, SUCCESS);
    world.offer("", "b", SDP).await;
    assert_eq!((world.host.candidates("a"), world.host.candidates("b")), (vec![], vec![]));
    // An alias is the same service.
    world.trickle_to("/alias", "c", candidate(3)).await.is(200, SUCCESS);
    world.offer("/deep/path", "c", SDP).await;
    world.trickle_to("/alias", "c", candidate(4)).await.is(200, SUCCESS);
    assert_eq!(ports(&world.host.candidates("c")), [3, 4]);
}

#[tokio::test]
async fn candidates_have_a_rate_of_their_own() {
    let world = World::new();
    // The service takes 20 offers a minute. A client that has used them up still brings in its candidates ...
    for n in 0..20 {
        world.offer("/limited", &format!("s{n}"), "v=1").await;
    }
    world.offer("/limited", "a", SDP).await.is(429, &failed("rate_limited"));
    let began = std::time::Instant::now();
    for port in 1..=20 {
        world.trickle_to("/limited", "a", candidate(port)).await.is(200, SUCCESS);
    }
    // ... and nobody more than 32 for each of them, but for what time gives back meanwhile.
    let mut taken = 20;
    let refused = loop {
        assert!(taken < MANY, "a rate that nothing reaches");
        let reply = world.trickle_to("/limited", "nobody", json!({ "candidate": "gibberish" })).await;
        if reply.status == 429 {
            break reply;
        }
        reply.is(200, &failed("unknown_connection"));
        taken += 1;
    };
    let given_back = 1 + u32::try_from(began.elapsed().as_millis() / 93).unwrap();
    assert!((640..=640 + given_back).contains(&taken), "{taken}");
    refused.is(429, &failed("rate_limited"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    world.trickle("a", candidate(21)).await.is(200, SUCCESS);
    world.counted("streamfleet_candidates_total{outcome=\"rate_limited\"} 1");
}

#[tokio::test]
async fn a_candidate_passes_the_checks_of_an_offer_first() {
    let world = World::new();
    world.offer("/limited", "a", SDP).await.is(200, ANSWER);
    let send = async |path: &str, metadata: Value, user: &[u8]| {
        let body = json!({ "type": "ice-candidate", "webrtc_id": "nobody", "candidate": { "candidate": "gibberish" },
                           "metadata": metadata });
        let request = Request::post(format!("{path}/webrtc/offer")).header("x-user-id", user);
        world.send(request.body(Body::from(body.to_string())).unwrap()).await
    };
    let check = |reply: Reply, status: u16, error: &str| {
        assert!(reply.status == status && reply.body.contains(error), "{reply:?} instead of {status} {error}");
    };
    check(send("/nowhere", json!(7), b"\xff").await, 404, "service_not_found");
    check(send("/limited", json!(7), b"ann").await, 400, "invalid_metadata");
    check(send("/limited", json!({}), b"Zo\xeb").await, 400, "invalid_metadata");
    check(send("/limited", json!({}), "x".repeat(1_000).as_bytes()).await, 400, "invalid_metadata");
    check(send("/limited", json!({}), b"ann").await, 200, "unknown_connection");
    // Beyond the rate, nothing else is looked at.
    for _ in 0..MANY {
        let reply = send("/limited", json!(7), b"ann").await;
        if reply.status == 429 {
            return check(reply, 429, "rate_limited");
        }
        check(reply, 400, "invalid_metadata");
    }
    panic!("a rate that nothing reaches");
}
