use super::*;

async fn ask(world: &World, method: &str, path: &str, origin: Option<&str>) -> Reply {
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
    if let Some(origin) = origin {
        request = request.header("origin", origin);
    }
    world.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn any_page_may_offer_by_default() {
    let world = World::new();
    for path in ["/webrtc/offer", "/limited/webrtc/offer", "/rtc_configuration", "/nobody/webrtc/offer"] {
        let preflight = ask(&world, "OPTIONS", path, Some("https://app.example.com")).await;
        assert_eq!((preflight.status, preflight.body.as_str()), (204, ""));
        assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
        assert_eq!(preflight.header("access-control-allow-methods"), Some("GET, POST"));
        assert_eq!(preflight.header("access-control-allow-headers"), Some("*, Authorization"));
        assert_eq!(preflight.header("access-control-max-age"), Some("7200"));
        assert_eq!(preflight.header("access-control-allow-credentials"), None);
    }
    for reply in [
        world.offer("", "a", SDP).await,
        world.offer("", "a", SDP).await,
        world.offer("", "b", "bad").await,
        world.post("/webrtc/offer", "nonsense").await,
        world.offer("/nobody", "a", SDP).await,
        ask(&world, "GET", "/rtc_configuration", None).await,
    ] {
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "failures are to be read too: {reply:?}");
        assert_eq!(reply.header("access-control-expose-headers"), Some("Retry-After"));
    }
}

#[tokio::test]
async fn named_pages_only() {
    let origins = Origins::Only(["https://app.example.com".to_owned()].into());
    let world = World::with(Access { origins, ..access() });
    let check = async |origin: Option<&str>, expected: Option<&str>| {
        for (method, path) in [("OPTIONS", "/webrtc/offer"), ("GET", "/rtc_configuration")] {
            let reply = ask(&world, method, path, origin).await;
            assert_eq!(reply.header("access-control-allow-origin"), expected, "{origin:?}");
            assert_eq!(reply.header("vary"), Some("Origin"), "or a cache gives one page's answer to another");
        }
    };
    check(Some("https://app.example.com"), Some("https://app.example.com")).await;
    check(Some("http://app.example.com"), None).await;
    check(Some("https://evil.example"), None).await;
    check(Some("null"), None).await;
    check(None, None).await;
}

#[tokio::test]
async fn control_has_no_preflight() {
    let world = World::new();
    for origin in ["https://app.example.com", "http://localhost"] {
        let reply = ask(&world, "OPTIONS", "/sessions", Some(origin)).await;
        assert_eq!(reply.status, 405, "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
}
