//! What strangers do at the edge, and what passes between a router and a worker.

use std::time::Duration;

use serde_json::{Value, json};
use streamfleet_session::fleet::{
    CLIENT_HEADER, PATH_HEADER, PLACED_HEADER, REFUSED_HEADER, SECRET_HEADER, VOUCHED_HEADER,
};
use streamfleet_store::{Expected, SessionView};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::double::Act;
use super::world::{ADMIN, World, service, service_key};

/// Nothing that only routers write comes from a client, under whichever spelling; nor can a client take away what they write.
#[tokio::test]
async fn a_client_speaks_for_no_router() {
    let mut world = World::new();
    world.worker("w").await;
    let router = world.router(json!({}));
    let forged = [SECRET_HEADER, PLACED_HEADER, VOUCHED_HEADER, PATH_HEADER, REFUSED_HEADER, "Streamfleet-Other"];
    let body = json!({ "type": "offer", "sdp": "v=0", "webrtc_id": "x" }).to_string();
    let mut request = world.client.post(format!("{router}/webrtc/offer?a=1")).body(body);
    for name in forged {
        request = request.header(name, "forged").header(name.to_uppercase(), "forged");
    }
    let named = format!("close, x-hop, {PLACED_HEADER}, {SECRET_HEADER}, {PATH_HEADER}, {CLIENT_HEADER}");
    let request = request.header("connection", named).header("x-hop", "1").header("x-kept", "1");
    let request = request.header("te", "trailers").header("proxy-authorization", "Basic a").header("keep-alive", "5");
    assert_eq!(request.send().await.unwrap().status(), 200);
    let seen = world.next().await;
    let one = |name: &str| {
        let values: Vec<&str> = seen.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        match values[..] {
            [value] => value.to_owned(),
            _ => panic!("{name}: {values:?}"),
        }
    };
    assert_eq!(
        (one(SECRET_HEADER), one(PATH_HEADER)),
        (service_key().reveal().to_owned(), "/a/webrtc/offer?a=1".to_owned())
    );
    assert_eq!((one(CLIENT_HEADER), one("x-kept")), ("127.0.0.1".to_owned(), "1".to_owned()));
    assert_ne!(one(PLACED_HEADER), "forged");
    for name in
        [VOUCHED_HEADER, REFUSED_HEADER, "streamfleet-other", "x-hop", "te", "proxy-authorization", "keep-alive"]
    {
        assert!(!seen.headers.contains_key(name), "{name}");
    }
}

/// A service that has a name is called by it: under any other, nobody is there.
#[tokio::test]
async fn a_request_is_for_the_host_that_it_names() {
    let mut world = World::new();
    world.worker("w").await;
    let router = world.router(json!({ "host": "voice.example" }));
    let offer = async |id: &str, host: Option<&str>| {
        let body = json!({ "type": "offer", "sdp": "v=0", "webrtc_id": id }).to_string();
        let request = world.client.post(format!("{router}/webrtc/offer")).header("content-type", "application/json");
        let request = host.into_iter().fold(request, |request, host| request.header("host", host));
        request.body(body).send().await.unwrap().status().as_u16()
    };
    for (id, host) in [("x", "voice.example"), ("y", "Voice.Example:8443")] {
        assert_eq!(offer(id, Some(host)).await, 200, "{host}");
    }
    for host in [None, Some("example"), Some("other.voice.example"), Some("voice.example.org")] {
        assert_eq!(offer("z", host).await, 404, "{host:?}");
    }
    assert_eq!([world.next().await, world.next().await].map(|seen| seen.line), ["POST /a/webrtc/offer"; 2]);
    assert!(world.seen.try_recv().is_err(), "no worker was asked for another");
}

/// The largest context that there is comes with its session.
#[tokio::test]
async fn a_full_context_reaches_the_worker() {
    let mut world = World::new();
    world.worker("w").await;
    let router = world.router(json!({}));
    let token = world.offer(&router, "x", &json!({})).await.1["resume"].clone();
    let context = world.next().await.placed.unwrap().context.id;
    let contexts = world.store.clone().contexts(&service());
    // One level of text: 64 KiB as JSON, which base64 makes 88.
    let data = json!({ "text": "x".repeat((64 << 10) - 20) }).as_object().unwrap().clone();
    let context = streamfleet_store::ContextId::from_random(context);
    contexts.write(context, data.clone(), Expected::Anything).await.unwrap();
    let url = format!("{router}/sessions/x");
    assert_eq!(world.client.delete(url).bearer_auth(ADMIN).send().await.unwrap().status(), 200);
    assert_eq!(world.offer(&router, "x", &json!({ "resume": token })).await.1["type"], "answer");
    let placed = world.next().await.placed.unwrap();
    assert!(placed.context.resumed && placed.context.data == data);
}

async fn raw(router: &str, request: &str) -> String {
    let at = router.trim_start_matches("http://").trim_end_matches("/a");
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut answer)).await.expect("an answer");
    String::from_utf8_lossy(&answer[..read.unwrap_or(0)]).into_owned()
}

#[tokio::test]
async fn floods_and_slow_bodies_are_refused() {
    let world = World::new();
    let router = world.router(json!({}));
    let start = "POST /a/webrtc/offer HTTP/1.1\r\nhost: a\r\n";
    let long = raw(&router, &format!("{start}x: {}\r\n\r\n", "y".repeat(40 << 10))).await;
    assert!(long.starts_with("HTTP/1.1 431 ") || long.is_empty(), "{long}");
    let many = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    let many = raw(&router, &format!("{start}{many}\r\n")).await;
    assert!(many.starts_with("HTTP/1.1 431 "), "{many}");
    // Two lengths, or a length beside chunks: where one of us would end the body, another might not.
    for doubled in ["content-length: 2\r\ncontent-length: 3\r\n", "content-length: x\r\n", "transfer-encoding: x\r\n"] {
        let answer = raw(&router, &format!("{start}{doubled}\r\n{{}}")).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{doubled}: {answer}");
    }
    let slow = raw(&router, &format!("{start}content-length: 9\r\n\r\n{{")).await;
    assert!(slow.starts_with("HTTP/1.1 408 "), "{slow}");
}

/// A worker that does not answer in time loses its claim to another.
#[tokio::test]
async fn a_worker_that_hangs_has_another_stand_in_for_it() {
    let mut world = World::new();
    world.script.lock().extend([Act::Hang, Act::Answer]);
    world.worker("v").await;
    world.worker("w").await;
    let router = world.router(json!({}));
    let answer: (u16, Value) = world.offer(&router, "x", &json!({})).await;
    let (first, second) = (world.next().await, world.next().await);
    assert_eq!((answer.0, answer.1["sdp"].as_str()), (200, Some(second.worker.as_str())));
    assert_ne!(first.worker, second.worker);
    let Some(SessionView::Live(live)) = world.store.session(&service(), &"x".parse().unwrap()).await.unwrap() else {
        panic!("it lives")
    };
    assert_eq!(live.at.worker.as_str(), second.worker);
    world.sessions_become(1).await;
}

/// A router that has begun while the API server does not answer cannot say of any service that it is not there.
#[tokio::test]
async fn what_may_be_there_is_not_called_unknown() {
    let world = World::new();
    let router = world.unread_router();
    let (status, answer) = world.offer(&router, "x", &json!({})).await;
    assert_eq!((status, answer["meta"]["error"].as_str()), (503, Some("no_capacity")), "{answer}");
    let answer = world.client.get(format!("{router}/sessions")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"5".parse().unwrap()));
    let router = world.router(json!({}));
    let elsewhere = router.replace("/a", "/b");
    assert_eq!(world.offer(&elsewhere, "x", &json!({})).await.0, 404);
}
