use super::*;

fn view(id: &str, service: &str, user: Option<&str>, state: &str) -> Value {
    json!({ "id": id, "service": service, "transport": "webrtc", "user_id": user, "verified": false, "state": state,
            "since": 1_700_000_000.25 })
}

fn parsed(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{reply:?}");
    serde_json::from_str(&reply.body).unwrap()
}

#[tokio::test]
async fn sessions_are_listed_shown_and_ended_by_their_service() {
    let world = World::new();
    let body = json!({ "type": "offer", "webrtc_id": "a", "sdp": SDP, "metadata": { "user_id": "ann" } });
    world.post("/webrtc/offer", body.to_string()).await;
    world.offer("", "b", SDP).await;
    world.offer("/deep/path", "c", SDP).await;
    world.host.set("b", State::Active);
    assert_eq!(
        parsed(&world.control("GET", "/sessions").await),
        json!({ "sessions": [view("a", "root", Some("ann"), "connecting"), view("b", "root", None, "active")] })
    );
    assert_eq!(parsed(&world.control("GET", "/limited/sessions").await), json!({ "sessions": [] }));
    assert_eq!(parsed(&world.control("GET", "/sessions/b").await), view("b", "root", None, "active"));
    assert_eq!(parsed(&world.control("GET", "/alias/sessions/c").await), view("c", "deep", None, "connecting"));
    for path in ["/sessions/c", "/deep/path/sessions/a", "/sessions/nobody", "/sessions/%ff", "/sessions/a%20b"] {
        world.control("GET", path).await.is(404, &failed("not_found"));
        world.control("DELETE", path).await.is(404, &failed("not_found"));
    }
    let ended = r#"{"status":"success","id":"a","reason":"ended_by_control"}"#;
    world.control("DELETE", "/sessions/a").await.is(200, ended);
    world.control("DELETE", "/sessions/a").await.is(404, &failed("not_found"));
    world.host.set("b", State::Ending(CloseReason::EndStream));
    world.control("DELETE", "/sessions/b").await.is(202, r#"{"status":"ending","id":"b"}"#);
    world.host.set("b", State::Closed(CloseReason::EndStream));
    let overloaded = world.control("DELETE", "/sessions/b").await;
    overloaded.is(503, &failed("no_capacity"));
    assert_eq!(overloaded.header("retry-after"), Some("2"));
    assert_eq!(world.occupancy.live(), 2);
    world.control("PUT", "/sessions/b").await.is(405, &failed("method_not_allowed"));
    world.counted("streamfleet_control_requests_total{outcome=\"ended\"} 1");
    world.counted("streamfleet_control_requests_total{outcome=\"ending\"} 1");
}

#[tokio::test]
async fn only_with_the_token_and_from_nobody_elses_page() {
    let world = World::new();
    world.offer("", "a", SDP).await;
    let (ok, unauthorized, forbidden) = (200, 401, 403);
    let check = async |headers: &[(&str, &str)], status: u16| {
        for (method, path) in [("GET", "/sessions"), ("GET", "/sessions/a"), ("GET", "/deep/path/sessions")] {
            let request = Request::builder().method(method).uri(path);
            let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            let reply = world.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(reply.status, status, "{headers:?} {path}: {reply:?}");
            assert_eq!(reply.header("www-authenticate").is_some(), status == unauthorized);
            assert_eq!(reply.header("access-control-allow-origin"), None, "control answers are for no other page");
            let error = if status == unauthorized { "unauthorized" } else { "forbidden" };
            assert!(status == ok || reply.body == failed(error), "{reply:?}");
        }
    };
    let good = "Bearer correct-horse-battery";
    check(&[("host", "localhost"), ("authorization", good)], ok).await;
    check(&[("host", "10.1.2.3:8081"), ("authorization", "bearer  correct-horse-battery")], ok).await;
    check(&[("host", "localhost")], unauthorized).await;
    check(&[("host", "localhost"), ("authorization", "Bearer correct-horse-batterz")], unauthorized).await;
    check(&[("host", "localhost"), ("authorization", "Bearer ")], unauthorized).await;
    check(&[("host", "localhost"), ("authorization", "Bearer")], unauthorized).await;
    check(&[("host", "localhost"), ("authorization", "Basic correct-horse-battery")], unauthorized).await;
    check(&[("host", "localhost"), ("authorization", good), ("origin", "http://localhost")], ok).await;
    check(&[("host", "localhost"), ("authorization", good), ("origin", "https://evil.example")], forbidden).await;
    check(&[("host", "localhost"), ("authorization", good), ("origin", "null")], forbidden).await;
    check(&[("host", "evil.example"), ("authorization", good)], forbidden).await;
    check(&[("host", "evil.example")], forbidden).await;
    check(&[("host", ""), ("authorization", good)], forbidden).await;
    assert_eq!(world.occupancy.live(), 1);
    world.counted("streamfleet_control_requests_total{outcome=\"forbidden\"} 15");
}

#[tokio::test]
async fn a_request_that_names_no_host_or_two() {
    let world = World::new();
    let check = async |hosts: &[&str], method: &str, path: &str, status: u16| {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {TOKEN}"));
        let request = hosts.iter().fold(request, |request, host| request.header("host", *host));
        let reply = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(reply.status, status, "{hosts:?} {path}: {reply:?}");
        assert_eq!(status == 400, reply.body == failed("invalid_host"), "{reply:?}");
    };
    for hosts in [&[][..], &["localhost", "localhost"], &["localhost", "evil.example"], &["a b"]] {
        check(hosts, "GET", "/sessions", 400).await;
        check(hosts, "GET", "/sessions/a", 400).await;
        check(hosts, "DELETE", "/sessions/a", 400).await;
        // Whoever may be called by anybody does not ask for the name.
        check(hosts, "GET", "/rtc_configuration", 200).await;
        check(hosts, "GET", "/nowhere", 404).await;
    }
    check(&["localhost"], "GET", "/sessions", 200).await;
    world.counted("streamfleet_control_requests_total{outcome=\"invalid_host\"} 12");
}
