//! Sockets: clients' and telephone companies', to a worker and back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use streamfleet_session::fleet::Refused;
use streamfleet_socket::telephone::{CallNonce, CallTokenKey, Visit};
use streamfleet_store::{Gate, SessionView, WorkerView};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::double::Act;
use super::world::{SOON, World, error, service, service_key, soon};

pub(super) type Socket = WebSocketStream<TcpStream>;

/// A socket at a router, from this address of ours.
pub(super) async fn open_from(router: &str, route: &str, from: [u8; 4]) -> Result<Socket, Error> {
    let url = format!("{}{route}", router.replace("http://", "ws://"));
    let at: SocketAddr = url.strip_prefix("ws://").unwrap().split('/').next().unwrap().parse().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let stream = socket.connect(at).await.unwrap();
    tokio_tungstenite::client_async(url, stream).await.map(|(socket, _)| socket)
}

pub(super) async fn open(router: &str) -> Socket {
    open_from(router, "/websocket/offer", [127, 0, 0, 1]).await.unwrap()
}

pub(super) fn start(id: &str, more: &Value) -> Message {
    let mut text = json!({ "event": "start", "websocket_id": id });
    for (key, value) in more.as_object().into_iter().flatten() {
        text[key] = value.clone();
    }
    Message::Text(text.to_string().into())
}

/// A session, and the token for it.
pub(super) async fn begin(router: &str, id: &str) -> (Socket, String) {
    let mut socket = open(router).await;
    socket.send(start(id, &json!({ "resume": true }))).await.unwrap();
    let session: Value = serde_json::from_str(&text(&mut socket).await).unwrap();
    (socket, session["data"]["resume"].as_str().unwrap().to_owned())
}

async fn next(socket: &mut Socket) -> Option<Result<Message, Error>> {
    timeout(SOON, socket.next()).await.expect("something comes")
}

pub(super) async fn text(socket: &mut Socket) -> String {
    match next(socket).await {
        Some(Ok(Message::Text(text))) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

/// The last messages, and how the socket is closed.
pub(super) async fn end(socket: &mut Socket) -> (Vec<String>, Option<(u16, String)>) {
    let mut said = Vec::new();
    loop {
        match next(socket).await {
            Some(Ok(Message::Text(text))) => said.push(text.to_string()),
            Some(Ok(Message::Close(frame))) => {
                return (said, frame.map(|frame| (frame.code.into(), frame.reason.to_string())));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return (said, None),
        }
    }
}

pub(super) fn closed(code: u16, reason: &str) -> Option<(u16, String)> {
    Some((code, reason.to_owned()))
}

#[tokio::test]
async fn a_socket_goes_to_a_worker_with_its_place() {
    let mut world = World::new();
    world.worker("w").await;
    let router = world.router(json!({}));
    let mut socket = open(&router).await;
    socket.send(Message::Ping("?".into())).await.unwrap();
    assert_eq!(next(&mut socket).await.unwrap().unwrap(), Message::Pong("?".into()));
    let said = start("x", &json!({ "metadata": { "user_id": "mia" }, "resume": true }));
    socket.send(said.clone()).await.unwrap();
    socket.send(Message::Text("right after".into())).await.unwrap();
    let seen = world.next().await;
    assert_eq!(seen.line, "GET /a/websocket/offer");
    let placed = seen.placed.unwrap();
    assert_eq!((placed.session.as_str(), placed.user.as_ref().unwrap().as_str()), ("x", "mia"));
    assert_eq!(seen.headers["x-forwarded-for"], "127.0.0.1");
    // The client's words arrive as they were, and the worker's come back.
    assert!(text(&mut socket).await.contains("\"type\":\"session\""));
    assert_eq!(text(&mut socket).await, "w: right after");
    socket.send(Message::Binary(vec![7; 100_000].into())).await.unwrap();
    assert_eq!(next(&mut socket).await.unwrap().unwrap(), Message::Binary(vec![7; 100_000].into()));
    world.sessions_become(1).await;
}

#[tokio::test]
async fn codes_go_both_ways() {
    let mut world = World::new();
    world.worker("w").await;
    let router = world.router(json!({}));
    let (mut socket, _) = begin(&router, "x").await;
    socket.send(Message::Text("bye".into())).await.unwrap();
    assert_eq!(end(&mut socket).await.1, closed(1001, "as you like"));
    let (mut socket, _) = begin(&router, "y").await;
    let frame = CloseFrame { code: 4711.into(), reason: "enough".into() };
    socket.close(Some(frame)).await.unwrap();
    assert_eq!(end(&mut socket).await.1, closed(4711, "enough"), "the worker's answer");
    while world.next().await.line != "closed 4711 enough" {}
}

#[tokio::test]
async fn one_other_worker_is_asked_for_a_socket() {
    let (stale, full) = (Act::Refuse(Refused::Stale), Act::Refuse(Refused::Full));
    let capacity = "no_capacity";
    for (workers, script, expected, asked) in [
        (3, vec![stale, Act::Answer], None, 2),
        (3, vec![stale, full, Act::Answer], Some(capacity), 2),
        (1, vec![full], Some(capacity), 1),
        (2, vec![Act::Hang, Act::Answer], None, 2),
        (2, vec![Act::Decline, Act::Answer], Some("upstream_unavailable"), 1),
    ] {
        let mut world = World::new();
        world.script.lock().extend(&script);
        for n in 0..workers {
            world.worker(&format!("w{n}")).await;
        }
        let router = world.router(json!({}));
        let mut socket = open(&router).await;
        socket.send(start("x", &json!({ "resume": true }))).await.unwrap();
        match expected {
            None => assert!(text(&mut socket).await.contains("session"), "{script:?}"),
            Some(expected) => {
                let (said, frame) = end(&mut socket).await;
                let said: Value = serde_json::from_str(&said[0]).unwrap();
                assert_eq!(said["meta"]["error"], expected, "{script:?}");
                assert_eq!(frame, closed(1013, "refused"));
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..asked {
            assert!(seen.insert(world.next().await.worker), "each once");
        }
        world.sessions_become(usize::from(expected.is_none())).await;
    }
}

#[tokio::test]
async fn workers_that_die() {
    let world = World::new();
    world.ghost("v").await;
    world.grave("u").await;
    let router = world.router(json!({}));
    let mut socket = open(&router).await;
    socket.send(start("x", &json!({}))).await.unwrap();
    let (said, frame) = end(&mut socket).await;
    assert!(said[0].contains("upstream_unavailable"), "{said:?}");
    assert_eq!(frame, closed(1013, "refused"));
    world.sessions_become(0).await;

    let world = World::new();
    world.grave("u").await;
    world.worker("w").await;
    let router = world.router(json!({}));
    for n in 0..4 {
        begin(&router, &format!("x{n}")).await;
    }
    // After it has accepted, and after it has begun.
    world.script.lock().push_back(Act::Die);
    let mut socket = open(&router).await;
    socket.send(start("y", &json!({}))).await.unwrap();
    while end(&mut socket).await.1 != closed(1011, "worker_lost") {
        // It was placed on the other one, which is dead already.
        world.script.lock().push_back(Act::Die);
        socket = open(&router).await;
        socket.send(start("z", &json!({}))).await.unwrap();
    }
    let (mut socket, _) = begin(&router, "alive").await;
    socket.send(Message::Text("die".into())).await.unwrap();
    assert_eq!(end(&mut socket).await.1, closed(1011, "worker_lost"));
}

#[tokio::test]
async fn what_is_no_start() {
    let mut world = World::new();
    world.worker("w").await;
    let router = world.router(json!({ "limits": { "connectTimeoutSeconds": 1 } }));
    let mut socket = open(&router).await;
    socket.send(Message::Binary(vec![0; 99].into())).await.unwrap();
    let (said, frame) = end(&mut socket).await;
    assert!(said[0].contains("no \\\"start\\\" came"));
    assert_eq!(frame, closed(1008, "start_timeout"));
    for (first, code) in [
        (Message::Text("x".repeat(300_000).into()), 1009),
        (Message::Text("{".into()), 1007),
        (Message::Text(json!({ "event": "start" }).to_string().into()), 1008),
    ] {
        let mut socket = open(&router).await;
        // What is too large is refused before all of it is there.
        let _ = socket.send(first).await;
        assert_eq!(end(&mut socket).await.1, closed(code, "bad_input"));
    }
    // A frame that says that it has a terabyte.
    let socket = open(&router).await;
    let mut stream = socket.into_inner();
    stream.write_all(&[&[0x81, 0xff][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat()).await.unwrap();
    let mut heard = Vec::new();
    timeout(SOON, stream.read_to_end(&mut heard)).await.unwrap().unwrap();
    assert!(heard.ends_with(b"\x03\xf1bad_input"), "{heard:?}");
    assert!(world.seen.try_recv().is_err(), "no worker has heard of any of them");
}

#[tokio::test]
async fn what_is_no_handshake() {
    let world = World::new();
    let router = world.router(json!({}));
    for route in ["/websocket/offer", "/telephone/handler"] {
        let answer = super::world::answer(world.client.get(format!("{router}{route}")).send().await.unwrap()).await;
        assert_eq!(error(&answer), (426, "upgrade_required"));
        let posted = world.post(&format!("{router}{route}"), &json!({})).await;
        assert_eq!(error(&posted), (405, "method_not_allowed"));
    }
}

/// Sockets that say nothing leave others their places.
#[tokio::test]
async fn one_address_does_not_take_all_places() {
    let world = World::new();
    world.worker("w").await;
    let router = world.router(json!({}));
    let mut held = Vec::new();
    let refused = loop {
        match open_from(&router, "/websocket/offer", [127, 0, 0, 2]).await {
            Ok(socket) => held.push(socket),
            Err(Error::Http(response)) => break response,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!((held.len(), refused.status().as_u16()), (512, 429));
    assert!(refused.headers().contains_key("retry-after"));
    begin(&router, "x").await;
    // Their places come back with them.
    drop(held);
    let began = Instant::now();
    while open_from(&router, "/websocket/offer", [127, 0, 0, 2]).await.is_err() {
        assert!(began.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_client_that_goes_leaves_nothing_behind() {
    let mut world = World::new();
    world.script.lock().push_back(Act::Hang);
    world.worker("w").await;
    let router = world.router(json!({}));
    let mut socket = open(&router).await;
    socket.send(start("x", &json!({}))).await.unwrap();
    world.next().await;
    let began = Instant::now();
    drop(socket);
    world.sessions_become(0).await;
    assert!(began.elapsed() < Duration::from_secs(2), "before the worker's time is over: {:?}", began.elapsed());
}

/// The session that has broken off is where it was: any router finds it, by its token.
#[tokio::test]
async fn who_comes_back_has_its_session_again() {
    let mut world = World::new();
    for name in ["u", "v", "w"] {
        world.worker(name).await;
    }
    let (one, other) = (world.router(json!({})), world.router(json!({})));
    let (socket, token) = begin(&one, "x").await;
    let first = world.next().await;
    drop(socket);
    let mut stranger = open(&other).await;
    stranger.send(start("x", &json!({ "resume": "00000000000000000000000000000000" }))).await.unwrap();
    let (said, frame) = end(&mut stranger).await;
    assert!(said[0].contains("connection_already_exists"));
    assert_eq!(frame, closed(1000, "refused"));

    let mut socket = open(&other).await;
    socket.send(start("x", &json!({ "resume": token }))).await.unwrap();
    assert_eq!(text(&mut socket).await, format!("{}: attached", first.worker));
    let seen = loop {
        let seen = world.next().await;
        if seen.line.starts_with("GET") {
            break seen;
        }
    };
    assert_eq!((seen.worker, seen.placed), (first.worker, None));
    assert_eq!(seen.headers["streamfleet-vouched"], "operator");
    world.sessions_become(1).await;
    // Over another transport it is a move, to whichever worker.
    let moved = world.offer(&one, "x", &json!({ "resume": token })).await;
    assert_eq!(moved.1["type"], "answer");
}

/// A worker that drains finishes what it has, by whichever socket; one that asks its clients to go elsewhere does not get them back.
#[tokio::test]
async fn who_comes_back_to_a_worker_that_drains_stays_and_to_one_that_leaves_does_not() {
    let mut world = World::new();
    for name in ["u", "v"] {
        world.worker(name).await;
    }
    let router = world.router(json!({}));
    let (_socket, token) = begin(&router, "x").await;
    let first = world.next().await.worker;
    let attached = format!("{first}: attached");
    let ask = async |gate| {
        let name = first.parse().unwrap();
        assert!(world.store.ask_gate(&service(), &name, gate).await.unwrap());
        let is_it = |view: &WorkerView| view.owner.worker == name && view.said.as_ref().unwrap().gate == gate;
        let heard = async || world.store.workers(&service()).await.unwrap().iter().any(is_it);
        soon("its worker hears of it", heard).await;
        // The router most likely, too.
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    let comes_back = async || {
        let mut socket = open(&router).await;
        socket.send(start("x", &json!({ "resume": token }))).await.unwrap();
        text(&mut socket).await
    };
    for gate in [Gate::Draining, Gate::Open] {
        ask(gate).await;
        assert_eq!(comes_back().await, attached, "{gate:?}");
    }
    ask(Gate::Leaving).await;
    let said = async {
        loop {
            let said = comes_back().await;
            if said != attached {
                break said;
            }
        }
    };
    let said = timeout(SOON, said).await.expect("the router hears of it");
    let session: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(session["type"], "session", "it begins at the other one");
}

#[tokio::test]
async fn a_process_that_stops_lets_sockets_go_on_and_then_says_so() {
    let world = World::new();
    world.worker("w").await;
    let router = world.router(json!({}));
    let (mut socket, _) = begin(&router, "x").await;
    let grace = Duration::from_millis(300);
    let drain = world.sockets.drain(Instant::now() + grace);
    let talk = async {
        socket.send(Message::Text("still here".into())).await.unwrap();
        assert_eq!(text(&mut socket).await, "w: still here");
        end(&mut socket).await.1
    };
    let began = Instant::now();
    let ((), frame) = tokio::join!(drain, talk);
    assert_eq!(frame, closed(1012, "service_restart"));
    assert!(began.elapsed() >= grace);
    world.sockets.drain(Instant::now() + SOON).await;
}

pub(super) const CALL: &str = "CA0123456789abcdef0123456789abcdef";

fn call_start(stream: &str, parameters: &Value) -> Message {
    let start = json!({
        "event": "start", "streamSid": stream,
        "start": {
            "streamSid": stream, "callSid": CALL, "customParameters": parameters,
            "mediaFormat": { "encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1 },
        },
    });
    Message::Text(start.to_string().into())
}

fn unix_time() -> Duration {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap()
}

/// A telephone call whose media stream has broken off.
pub(super) struct PutThrough {
    /// Which worker has its session.
    pub(super) worker: String,
    pub(super) nonce: CallNonce,
    /// What its company shows when it comes back.
    pub(super) shown: String,
}

/// [`CALL`] put through to a worker, as this stream.
pub(super) async fn put_through(world: &mut World, router: &str, stream: &str) -> PutThrough {
    let (key, nonce) = (CallTokenKey::of_service(&service_key()), CallNonce::from_random([7; 16]));
    let token = key.issue(CALL, nonce, Visit::First, unix_time());
    let mut call = open_from(router, "/telephone/handler", [127, 0, 0, 1]).await.unwrap();
    call.send(call_start(stream, &json!({ "streamfleet_token": token }))).await.unwrap();
    let worker = world.offered().await.worker;
    PutThrough { worker, nonce, shown: key.sign_return(CALL, nonce) }
}

#[tokio::test]
async fn a_call_goes_on_at_any_router() {
    let mut world = World::new();
    for name in ["u", "v", "w"] {
        world.worker(name).await;
    }
    let spec = json!({ "telephone": { "authToken": { "env": "HOME" } }, "limits": { "offersPerMinute": 1 } });
    let (one, other) = (world.router(spec.clone()), world.router(spec));
    // As any worker of the fleet makes it.
    let key = CallTokenKey::of_service(&service_key());
    let nonce = CallNonce::from_random([7; 16]);
    let token = key.issue(CALL, nonce, Visit::First, unix_time());
    let stream = async |router: &str, stream: &str, parameters: Value| {
        let mut socket = open_from(router, "/telephone/handler", [127, 0, 0, 1]).await.unwrap();
        let connected = Message::Text(r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#.into());
        socket.send(connected).await.unwrap();
        socket.send(call_start(stream, &parameters)).await.unwrap();
        socket
    };
    let mut call = stream(&one, "MZ1", json!({ "streamfleet_token": token, "From": "+4930" })).await;
    call.send(Message::Text("hello".into())).await.unwrap();
    let seen = world.next().await;
    assert_eq!(seen.line, "GET /a/telephone/handler");
    let placed = seen.placed.unwrap();
    assert_eq!((placed.session.as_str(), &placed.metadata["From"]), ("MZ1", &json!("+4930")));
    assert_eq!(text(&mut call).await, format!("{}: hello", seen.worker));
    // It is good once in the whole fleet, one of another fleet never, and each is an attempt that counts.
    let forged = CallTokenKey::new("another").issue(CALL, nonce, Visit::First, unix_time());
    for (router, token, expected) in [
        (&other, token, closed(1008, "refused")),
        (&one, forged.clone(), closed(1008, "refused")),
        (&one, forged, closed(1013, "refused")),
    ] {
        let mut again = stream(router, "MZ2", json!({ "streamfleet_token": token })).await;
        assert_eq!(end(&mut again).await, (Vec::new(), expected), "nothing is said to a telephone company");
    }
    // It comes back: to its own worker, whichever router is asked.
    let shown = key.sign_return(CALL, nonce);
    for (n, router) in [&one, &other].into_iter().cycle().take(8).enumerate() {
        let url = format!("{router}/telephone/incoming?return={shown}&n={n}");
        let request = world.client.post(url).body(format!("CallSid={CALL}")).header("host", "voice.example.com");
        let request = request.header("x-forwarded-proto", "gopher").header("x-forwarded-host", "evil.example");
        assert_eq!(request.send().await.unwrap().status(), 200);
        let asked = world.next().await;
        assert_eq!((asked.worker, asked.body), (seen.worker.clone(), format!("CallSid={CALL}").into()));
        assert_eq!(asked.headers["host"], "voice.example.com");
        assert!(!asked.headers.contains_key("x-forwarded-host") && !asked.headers.contains_key("x-forwarded-proto"));
        assert!(asked.headers["streamfleet-path"].to_str().unwrap().starts_with("/a/telephone/incoming?return="));
    }
    // And has its session again.
    let view = world.store.session(&service(), &"MZ1".parse().unwrap()).await.unwrap();
    let Some(SessionView::Live(live)) = view else { panic!("{view:?}") };
    let leg = CallNonce::from_random([8; 16]);
    let token = key.issue(CALL, leg, Visit::Return, unix_time());
    let parameters = |session: &str| {
        json!({
            "streamfleet_token": token, "streamfleet_session": session,
            "streamfleet_resume": placed.context.token.reveal(),
        })
    };
    let mut back = stream(&other, "MZ3", parameters("MZ1")).await;
    assert_eq!(text(&mut back).await, format!("{}: attached", live.at.worker));
    let token = key.issue(CALL, CallNonce::from_random([9; 16]), Visit::Return, unix_time());
    let mut parameters = parameters("MZ0");
    parameters["streamfleet_token"] = json!(token);
    let mut over = stream(&other, "MZ4", parameters).await;
    assert_eq!(end(&mut over).await.1, closed(1000, "refused"), "one that is over is not begun anew");
}
