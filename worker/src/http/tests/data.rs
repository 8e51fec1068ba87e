//! `{p}/sessions/{id}/data` and `{p}/sessions/{id}/tracks/{mid}`, and who else than the operator may control a session.

use super::*;

const KIND: (&str, &str) = ("content-type", "application/merge-patch+json");

async fn ask(
    world: &World,
    method: &str,
    path: &str,
    token: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Reply {
    let request = Request::builder().method(method).uri(path).header("host", "localhost:8081");
    let request = request.header("authorization", format!("Bearer {token}"));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    world.send(request.body(body.into()).unwrap()).await
}

/// Says whether the reply has this version, with its body.
#[track_caller]
fn holds(reply: &Reply, status: u16, version: u64, body: &str) {
    let tag = reply.header("etag").unwrap();
    assert!(tag.ends_with(&format!("-{version}\"")), "{tag} and not {version}");
    assert_eq!((reply.status, reply.body.as_str()), (status, body));
}

#[tokio::test]
async fn a_document_is_read_and_patched_by_version() {
    let world = World::new();
    world.offer("", "a", SDP).await;
    let path = "/sessions/a/data";
    let get = async |headers: &[(&str, &str)]| ask(&world, "GET", path, TOKEN, headers, "").await;
    let patch = async |headers: &[(&str, &str)], body: Value| {
        let headers: Vec<_> = headers.iter().copied().chain([KIND]).collect();
        ask(&world, "PATCH", path, TOKEN, &headers, body.to_string()).await
    };
    let failed = failed("precondition_failed");
    let first = get(&[]).await.header("etag").unwrap().to_owned();
    let tag = |version: u64| first.replace("-0\"", &format!("-{version}\""));
    holds(&get(&[]).await, 200, 0, "{}");
    holds(&patch(&[], json!({ "a": { "b": 1, "c": 2 }, "d": 3 })).await, 200, 1, r#"{"a":{"b":1,"c":2},"d":3}"#);
    holds(&patch(&[("if-match", &tag(1))], json!({ "a": { "b": null } })).await, 200, 2, r#"{"a":{"c":2},"d":3}"#);
    holds(&patch(&[("if-match", &tag(1))], json!({ "lost": 1 })).await, 412, 2, &failed);
    holds(&patch(&[("if-match", &format!("W/{}", tag(2)))], json!({ "weak": 1 })).await, 412, 2, &failed);
    holds(&patch(&[("if-match", "2")], json!({ "bare": 1 })).await, 412, 2, &failed);
    holds(
        &patch(&[("if-match", &format!("{}, {}", tag(9), tag(2)))], json!({ "d": null })).await,
        200,
        3,
        r#"{"a":{"c":2}}"#,
    );
    holds(&patch(&[("if-match", "*")], json!({ "a": null })).await, 200, 4, "{}");
    holds(&patch(&[], json!({ "last": "writer" })).await, 200, 5, r#"{"last":"writer"}"#);
    holds(&get(&[("if-none-match", &tag(5))]).await, 304, 5, "");
    holds(&get(&[("if-none-match", &format!("{}, W/{}", tag(1), tag(5)))]).await, 304, 5, "");
    holds(&get(&[("if-none-match", "*")]).await, 304, 5, "");
    holds(&get(&[("if-none-match", &tag(4))]).await, 200, 5, r#"{"last":"writer"}"#);
    let handler = streamfleet_handler::Data::new(world.host.contexts.clone(), world.host.with("a", |s| s.context));
    assert_eq!(handler.read().await.unwrap().data["last"], "writer", "the handler's is the same");
    handler.update(|data| drop(data.insert("handler".to_owned(), json!(true)))).await.unwrap();
    holds(&get(&[]).await, 200, 6, r#"{"handler":true,"last":"writer"}"#);
    world.counted("streamfleet_control_requests_total{outcome=\"data_written\"} 5");
    world.counted("streamfleet_control_requests_total{outcome=\"data_unchanged\"} 3");
    world.counted("streamfleet_control_requests_total{outcome=\"precondition_failed\"} 3");
}

#[tokio::test]
async fn patches_that_cannot_be_taken() {
    let world = World::new();
    world.offer("", "a", SDP).await;
    let check = async |kind: Option<&str>, body: Vec<u8>, status: u16, expected: &str| {
        let headers: Vec<_> = kind.iter().map(|kind| ("content-type", *kind)).collect();
        let reply = ask(&world, "PATCH", "/sessions/a/data", TOKEN, &headers, body).await;
        assert_eq!(reply.status, status, "{kind:?}: {reply:?}");
        assert!(reply.body.contains(expected), "{reply:?}");
        let patches = "application/merge-patch+json, application/json";
        assert_eq!(reply.header("accept-patch"), (status == 415).then_some(patches));
    };
    let nested = |levels: usize| format!(r#"{{"k":{}1{}}}"#, r#"{"k":"#.repeat(levels), "}".repeat(levels));
    let text = |bytes: usize| json!({ "k": "x".repeat(bytes) }).to_string().into_bytes();
    for kind in [None, Some("text/plain"), Some("application/json-patch+json"), Some("application/jsonx"), Some("")] {
        check(kind, b"{}".to_vec(), 415, "unsupported_media_type").await;
    }
    let json = Some("application/json; charset=utf-8");
    check(json, b"".to_vec(), 422, "missing").await;
    check(json, b"[]".to_vec(), 422, "model_attributes_type").await;
    check(json, b"null".to_vec(), 422, "model_attributes_type").await;
    check(json, b"{\"a\":\"\xff\"}".to_vec(), 422, "json_invalid").await;
    check(json, nested(200).into_bytes(), 422, "json_invalid").await;
    check(json, nested(16).into_bytes(), 422, "nested at most 16 levels deep").await;
    check(json, text(64 << 10), 413, "payload_too_large").await;
    check(json, vec![b' '; 10 << 20], 413, "payload_too_large").await;
    check(Some("Application/Merge-Patch+JSON"), nested(14).into_bytes(), 200, "").await;
    check(json, text(40 << 10), 200, "").await;
    check(json, br#"{"more":"y"}"#.to_vec(), 200, "").await;
    check(json, json!({ "z": "z".repeat(30 << 10) }).to_string().into_bytes(), 413, "payload_too_large").await;
}

#[tokio::test]
async fn data_outlives_its_session_and_collides_with_nobody() {
    let world = World::new();
    world.offer("", "a", SDP).await;
    let ours = world.host.token("a");
    let path = "/sessions/a/data";
    ask(&world, "PATCH", path, &ours, &[KIND], r#"{"of":"ours"}"#).await;
    world.host.finish("a").await;
    holds(&ask(&world, "GET", path, TOKEN, &[], "").await, 200, 1, r#"{"of":"ours"}"#);
    holds(&ask(&world, "GET", path, &ours, &[], "").await, 200, 1, r#"{"of":"ours"}"#);

    world.offer("", "a", SDP).await;
    let theirs = world.host.token("a");
    holds(&ask(&world, "GET", path, TOKEN, &[], "").await, 200, 0, "{}");
    holds(&ask(&world, "GET", path, &theirs, &[], "").await, 200, 0, "{}");
    holds(&ask(&world, "PATCH", path, &ours, &[KIND], r#"{"more":1}"#).await, 200, 2, r#"{"more":1,"of":"ours"}"#);
    holds(&ask(&world, "GET", path, &theirs, &[], "").await, 200, 0, "{}");
    let tag = ask(&world, "GET", path, &ours, &[], "").await.header("etag").unwrap().replace("-2\"", "-0\"");
    let mixed_up = ask(&world, "PATCH", path, TOKEN, &[KIND, ("if-match", &tag)], "{}").await;
    holds(&mixed_up, 412, 0, &failed("precondition_failed"));
    ask(&world, "GET", "/sessions/a", &ours, &[], "").await.is(404, &failed("not_found"));
    ask(&world, "DELETE", "/sessions/a", &ours, &[], "").await.is(404, &failed("not_found"));
    assert_eq!(world.occupancy.live(), 1);
}

#[tokio::test]
async fn a_client_controls_its_own_session_and_no_other() {
    let world = World::new();
    world.offer("", "a", SDP).await;
    world.offer("", "b", SDP).await;
    world.offer("/deep/path", "c", SDP).await;
    let (a, b, c) = (world.host.token("a"), world.host.token("b"), world.host.token("c"));
    let unauthorized = failed("unauthorized");
    for (method, route) in [("GET", ""), ("DELETE", ""), ("GET", "/data"), ("PATCH", "/data"), ("DELETE", "/tracks/0")]
    {
        let check = async |id: &str, token: &str, expected: Option<&str>| {
            let reply = ask(&world, method, &format!("/sessions/{id}{route}"), token, &[KIND], "{}").await;
            match expected {
                Some(body) => assert_eq!((reply.status, reply.body.as_str()), (401, body), "{method} {route}"),
                None => assert_eq!(reply.status, 200, "{method} {route}: {reply:?}"),
            }
        };
        for (id, token) in [("a", &b), ("a", &c), ("c", &c), ("nobody", &a)] {
            check(id, token, Some(&unauthorized)).await;
        }
        if (method, route) != ("DELETE", "") {
            check("a", &a, None).await;
        }
    }
    ask(&world, "GET", "/sessions", &a, &[], "").await.is(401, &unauthorized);
    // Not as a parameter: where headers can be set, nothing needs to stand in a log's line.
    let request = Request::get(format!("/sessions/a?access_token={a}")).header("host", "localhost");
    assert_eq!(world.send(request.body(Body::empty()).unwrap()).await.status, 401);
    let foreign = &[("origin", "https://evil.example"), KIND];
    ask(&world, "PATCH", "/sessions/a/data", TOKEN, foreign, "{}").await.is(403, &failed("forbidden"));
    let ended = r#"{"status":"success","id":"a","reason":"ended_by_control"}"#;
    ask(&world, "DELETE", "/sessions/a", &a, &[], "").await.is(200, ended);
    assert_eq!(world.occupancy.live(), 2);
}

#[tokio::test]
async fn tracks() {
    let world = World::new();
    world.offer("", "a", SDP).await;
    let closed = r#"{"status":"success","id":"a","mid":"0"}"#;
    world.control("DELETE", "/sessions/a/tracks/0").await.is(200, closed);
    world.control("DELETE", "/sessions/a/tracks/late").await.is(503, &failed("no_capacity"));
    for path in ["/sessions/a/tracks/7", "/sessions/b/tracks/0", "/sessions/a/tracks/%ff", "/sessions/%ff/tracks/0"] {
        world.control("DELETE", path).await.is(404, &failed("not_found"));
    }
    world.control("GET", "/sessions/a/tracks/0").await.is(405, &failed("method_not_allowed"));
    world.control("GET", "/sessions/a/data/x").await.is(404, &failed("not_found"));
    world.counted("streamfleet_control_requests_total{outcome=\"track_closed\"} 1");
}
