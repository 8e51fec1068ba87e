//! Control of sessions, and what their clients ask, from any router.

use serde_json::{Value, json};

use streamfleet_session::{CloseReason, ResumeToken};
use streamfleet_store::{Claim, ClaimRequest, Claimed, ContextId, Delivery, Owner, Phase, Ticket};

use super::world::{ADMIN, SOON, World, answer, error, service, soon};

async fn ask(world: &World, method: &str, url: &str, token: Option<&str>) -> (u16, Value) {
    let request = world.client.request(method.parse().unwrap(), url);
    let request = match token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    };
    answer(request.send().await.unwrap()).await
}

#[tokio::test]
async fn any_router_ends_any_session() {
    let world = World::new();
    world.worker("w").await;
    let (one, other) = (world.router(json!({})), world.router(json!({})));
    let resume = world.offer(&one, "x", &json!({})).await.1["resume"].as_str().unwrap().to_owned();
    world.offer(&one, "y", &json!({})).await;
    let list = ask(&world, "GET", &format!("{other}/sessions?limit=1"), Some(ADMIN)).await;
    assert_eq!((list.0, &list.1["sessions"][0]["id"], &list.1["next"]), (200, &json!("x"), &json!("x")));
    let first = &list.1["sessions"][0];
    assert_eq!(
        (&first["worker"], &first["state"], &first["transport"]),
        (&json!("w"), &json!("connecting"), &json!("webrtc"))
    );
    let wrong = ask(&world, "GET", &format!("{other}/sessions?state=lost"), Some(ADMIN)).await;
    assert_eq!(error(&wrong), (422, "invalid_filter"));

    let url = |id: &str| format!("{other}/sessions/{id}");
    for token in [None, Some("nonsense"), Some("00000000000000000000000000000000")] {
        assert_eq!(error(&ask(&world, "DELETE", &url("x"), token).await), (401, "unauthorized"), "{token:?}");
    }
    assert_eq!(error(&ask(&world, "DELETE", &url("y"), Some(&resume)).await), (401, "unauthorized"));
    assert_eq!(error(&ask(&world, "GET", &format!("{other}/sessions"), Some(&resume)).await), (401, "unauthorized"));
    let ended = ask(&world, "DELETE", &url("x"), Some(&resume)).await;
    assert_eq!(ended, (200, json!({ "status": "success", "id": "x", "reason": "ended_by_control" })));
    assert_eq!(ask(&world, "DELETE", &url("y"), Some(ADMIN)).await.0, 200);
    assert_eq!(error(&ask(&world, "DELETE", &url("y"), Some(ADMIN)).await), (404, "not_found"));
    for token in ["bogus", &"7".repeat(43)] {
        let answer = ask(&world, "DELETE", &url("nosuch"), Some(token)).await;
        assert_eq!(error(&answer), (401, "unauthorized"), "who holds nothing learns nothing: {token}");
    }
    world.sessions_become(0).await;
}

#[tokio::test]
async fn pages_of_others_control_nothing() {
    let world = World::new();
    let router = world.router(json!({}));
    let request = world.client.get(format!("{router}/sessions")).header("authorization", format!("Bearer {ADMIN}"));
    let response = request.header("origin", "https://evil.example").send().await.unwrap();
    assert!(!response.headers().contains_key("access-control-allow-origin"));
    assert_eq!(error(&answer(response).await), (403, "forbidden"));
}

#[tokio::test]
async fn what_is_asked_of_a_session_goes_to_its_worker() {
    let mut world = World::new();
    world.worker("v").await;
    world.worker("w").await;
    let (one, other) = (world.router(json!({})), world.router(json!({})));
    let worker = world.offer(&one, "x", &json!({})).await.1["sdp"].as_str().unwrap().to_owned();
    world.next().await;
    for (method, path, body) in [
        ("GET", "/outputs?webrtc_id=x", ""),
        ("POST", "/input_hook", r#"{"webrtc_id":"x","inputs":[1]}"#),
        ("POST", "/trigger_response", r#"{"webrtc_id":"x"}"#),
        ("GET", "/sessions/x", ""),
        ("PATCH", "/sessions/x/data", r#"{"a":1}"#),
    ] {
        let request = world.client.request(method.parse().unwrap(), format!("{other}{path}")).body(body);
        let request = request.header("authorization", format!("Bearer {ADMIN}"));
        assert_eq!(request.send().await.unwrap().status(), 200, "{path}");
        let seen = world.next().await;
        assert_eq!((seen.line, seen.worker), (format!("{method} /a{path}"), worker.clone()));
        assert_eq!(seen.body, body);
    }
    let post = |path: &str, body: Value| (format!("{other}{path}"), body);
    for (url, body) in [
        post("/input_hook", json!({ "webrtc_id": "y", "inputs": [] })),
        post("/trigger_response", json!({ "webrtc_id": "y" })),
    ] {
        assert_eq!(error(&world.post(&url, &body).await), (404, "not_found"));
    }
    assert_eq!(ask(&world, "GET", &format!("{other}/outputs?webrtc_id=y"), None).await.0, 404);
    assert_eq!(ask(&world, "GET", &format!("{other}/outputs"), None).await.0, 422);
    // Any worker knows the service's ICE servers.
    assert_eq!(ask(&world, "GET", &format!("{other}/rtc_configuration"), None).await.0, 200);
    assert_eq!(world.next().await.line, "GET /a/rtc_configuration");
}

/// Streams last: they must leave connections for everything else.
#[tokio::test]
async fn streams_of_outputs_are_bounded() {
    let mut world = World::new();
    world.worker("w").await;
    world.streams = 1;
    let one = world.router(json!({}));
    world.streams = 0;
    let none = world.router(json!({}));
    world.offer(&one, "x", &json!({})).await;
    for _ in 0..3 {
        let status = ask(&world, "GET", &format!("{one}/outputs?webrtc_id=x"), None).await.0;
        assert_eq!(status, 200, "a place comes back with its connection");
    }
    let answer = ask(&world, "GET", &format!("{none}/outputs?webrtc_id=x"), None).await;
    assert_eq!(error(&answer), (503, "no_capacity"));
}

/// A session, `x`, that this worker has.
async fn lives_at(world: &World, owner: &Owner) -> Ticket {
    let ticket = Ticket::from_random(1);
    let claim = ClaimRequest {
        ticket,
        session: "x".parse().unwrap(),
        user: None,
        claim: Claim::default(),
        context: ContextId::from_random(1),
        token: ResumeToken::from_random([1; ResumeToken::LEN]),
        delivery: Delivery::Known,
        service_limit: None,
        user_limit: None,
        pin: None,
        quotas: Vec::new(),
        retention: std::time::Duration::from_secs(60),
        ranked: vec![owner.worker.clone()],
    };
    assert!(matches!(world.store.claim(&service(), &claim).await.unwrap(), Claimed::Placed(_)));
    world.store.report(&service(), owner, ticket, Phase::Active, &serde_json::Map::new()).await.unwrap();
    ticket
}

/// A worker that has handed its last session over is gone a moment before the store says where that session is.
#[tokio::test]
async fn a_session_is_read_where_it_is_by_now() {
    let mut world = World::new();
    let gone = world.ghost("gone").await;
    let ticket = lives_at(&world, &gone).await;
    world.worker("w").await;
    let router = world.router(json!({}));
    let read = async |method: &str, body: &'static str| {
        let request = world.client.request(method.parse().unwrap(), format!("{router}/sessions/x/data")).body(body);
        request.header("authorization", format!("Bearer {ADMIN}")).send().await.unwrap().status().as_u16()
    };
    assert_eq!(read("PATCH", r#"{"a":1}"#).await, 502, "what changes something is asked once");
    assert_eq!(read("GET", "").await, 502, "it is nowhere else");
    let over = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        world.store.end(&service(), &gone, ticket, CloseReason::ClientClosed).await.unwrap();
    };
    assert_eq!(tokio::join!(read("GET", ""), over).0, 200, "any worker reads it by then");
    assert_eq!(world.next().await.line, "GET /a/sessions/x/data");
}

/// An `EventSource` that is answered by a failure comes back no more: what a session has put out is read where it can be.
#[tokio::test]
async fn outputs_are_read_at_any_worker_where_their_own_is_gone() {
    let mut world = World::new();
    let gone = world.ghost("gone").await;
    let ticket = lives_at(&world, &gone).await;
    world.worker("w").await;
    let router = world.router(json!({}));
    let url = format!("{router}/outputs?webrtc_id=x");
    // Its worker does not answer, and the router has yet to hear of another.
    soon("another worker reads it", async || ask(&world, "GET", &url, None).await.0 == 200).await;
    assert_eq!(world.next().await.worker, "w");
    world.store.end(&service(), &gone, ticket, CloseReason::ClientClosed).await.unwrap();
    world.store.leave(&service(), &gone).await.unwrap();
    assert_eq!(ask(&world, "GET", &url, None).await.0, 200, "it is over, and this router has never known it");
    assert_eq!(world.next().await.line, "GET /a/outputs?webrtc_id=x");
    // Others that have died, and are in the directory until their leases are over.
    for dead in ["dead", "also-dead"] {
        world.ghost(dead).await;
    }
    let router = world.router(json!({}));
    let url = format!("{router}/outputs?webrtc_id=x");
    soon("the router hears of workers", async || ask(&world, "GET", &url, None).await.0 == 200).await;
    assert_eq!(world.next().await.worker, "w");
    for draw in 0..20 {
        assert_eq!(ask(&world, "GET", &url, None).await.0, 200, "draw {draw}: the one that lives is asked too");
        assert_eq!(world.next().await.worker, "w");
    }
}

/// An upgrade of routers took as long as their grace wherever a page listened for outputs.
#[tokio::test]
async fn outputs_end_with_their_router() {
    let world = World::new();
    world.worker("w").await;
    let router = world.router(json!({}));
    world.offer(&router, "x", &json!({})).await;
    let mut stream = world.client.get(format!("{router}/outputs?webrtc_id=x&lasting")).send().await.unwrap();
    assert_eq!(stream.chunk().await.unwrap().as_deref(), Some(&b"data: 1\n\n"[..]));
    let more = tokio::time::timeout(std::time::Duration::from_millis(200), stream.chunk()).await;
    assert!(more.is_err(), "it lasts");
    world.leaving.cancel();
    let end = tokio::time::timeout(SOON, stream.chunk()).await.expect("it ends");
    assert_eq!(end.unwrap(), None);
}

/// A session that is over has nobody whom the router could compare: its worker, or the one that reads the store, is told who asks.
#[tokio::test]
async fn a_proven_user_is_named_to_who_knows_whose_the_outputs_were() {
    let mut world = World::new();
    world.worker("w").await;
    let secret = std::env::temp_dir().join(format!("streamfleet-outputs-{}", std::process::id()));
    std::fs::write(&secret, "a secret of thirty-two bytes or more\n").unwrap();
    let spec = json!({ "identity": { "jwt": { "secret": { "file": secret } } } });
    let (one, other) = (world.router(spec.clone()), world.router(spec));
    std::fs::remove_file(&secret).unwrap();
    let claims = json!({ "sub": "tess", "exp": 4_000_000_000_u64 });
    let token = crate::token::signed(&claims, b"a secret of thirty-two bytes or more");
    let forged = crate::token::signed(&claims, b"another secret of thirty-two bytes, or more");
    world.offer(&one, "x", &json!({})).await;
    assert_eq!(ask(&world, "DELETE", &format!("{one}/sessions/x"), Some(ADMIN)).await.0, 200);
    while let Ok(_earlier) = world.seen.try_recv() {}
    // One knows where it was; the other reads of it in the store alone.
    for router in [&one, &other] {
        let url = format!("{router}/outputs?webrtc_id=x");
        soon("the router hears of a worker", async || ask(&world, "GET", &url, None).await.0 == 200).await;
        while let Ok(_earlier) = world.seen.try_recv() {}
        for (shown, user, operator) in [
            (Some(token.as_str()), Some("dGVzcw"), None),
            (Some(&*forged), None, None),
            (Some(ADMIN), None, Some("operator")),
            (None, None, None),
        ] {
            // What a client says there itself goes no further.
            let request = world.client.get(&url).header("streamfleet-user", "bWlh");
            let request = shown.into_iter().fold(request, |request, token| request.bearer_auth(token));
            assert_eq!(request.send().await.unwrap().status(), 200);
            let seen = world.next().await;
            let said = ["streamfleet-user", "streamfleet-vouched"]
                .map(|name| seen.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>());
            assert_eq!(said, [user, operator].map(|said| said.into_iter().collect::<Vec<_>>()), "{shown:?}");
        }
    }
}
