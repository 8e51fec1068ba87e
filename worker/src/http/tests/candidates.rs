use super::*;

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
