//! A few requests as they come from the network, hostile ones among them.

use std::time::Instant;

use streamfleet_process::serve::{Listener, ServeLimits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;

struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: JoinSet<std::io::Result<()>>,
}

fn serve(world: &World) -> Served {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let limits = ServeLimits { header_time: Duration::from_millis(200), ..ServeLimits::default() };
    let (address, stop, mut tasks) = (listener.address(), CancellationToken::new(), JoinSet::new());
    tasks.spawn(listener.serve(world.app.clone(), limits, stop.clone(), Duration::from_secs(1)));
    Served { address, stop, tasks }
}

async fn exchange(served: &Served, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is cut after the answer leaves the answer readable.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn offer(id: &str, sdp: &str) -> String {
    let body = json!({ "type": "offer", "webrtc_id": id, "sdp": sdp }).to_string();
    let length = body.len();
    format!("POST /webrtc/offer HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn offers_over_a_real_connection() {
    let world = World::new();
    let served = serve(&world);
    let answer = exchange(&served, offer("a", SDP).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#""type":"answer"}"#), "{answer}");
    let panic = exchange(&served, offer("b", "panic").as_bytes()).await;
    assert!(panic.starts_with("HTTP/1.1 500") && panic.ends_with(&failed("internal")), "{panic}");
    let again = exchange(&served, offer("a", SDP).as_bytes()).await;
    assert!(again.ends_with(&failed("connection_already_exists")), "{again}");
}

#[tokio::test]
async fn requests_that_are_not_meant_well() {
    let world = World::new();
    let served = serve(&world);
    let check = async |request: &str, expected: &str| {
        let begun = Instant::now();
        let answer = exchange(&served, request.as_bytes()).await;
        assert!(answer.starts_with(expected), "{answer:?} instead of {expected}");
        assert!(begun.elapsed() < Duration::from_secs(5));
    };
    let announced = "POST /webrtc/offer HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n";
    check(announced, "HTTP/1.1 413").await;
    check("POST /webrtc/offer HTTP/1.1\r\nhost: x\r\n", "").await;
    check("\x16\x03\x01\x02\x00", "HTTP/1.1 400").await;
    check("GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", "HTTP/1.1 ").await;
    let smuggled = "POST /webrtc/offer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    check(smuggled, "HTTP/1.1 400").await;
    let many: String = (0..200).map(|n| format!("h{n}: x\r\n")).collect();
    check(&format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n"), "HTTP/1.1 431").await;
    let named = |hosts: &str| format!("GET /sessions HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
    check(&named(""), "HTTP/1.1 400").await;
    check(&named("host: localhost\r\nhost: evil.example\r\n"), "HTTP/1.1 400").await;
    check(&named("host: localhost\r\n"), "HTTP/1.1 401").await;
    check("GET /sessions HTTP/1.0\r\n\r\n", "HTTP/1.0 403").await;
    assert_eq!(world.occupancy.live(), 0);
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_slot() {
    let world = World::new();
    let served = serve(&world);
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(offer("a", "hang").as_bytes()).await.unwrap();
    until(|| world.occupancy.live() == 1).await;
    drop(stream);
    until(|| world.occupancy.live() == 0).await;
}

#[tokio::test]
async fn an_offer_under_way_is_answered_while_the_listener_stops() {
    let world = World::new();
    let mut served = serve(&world);
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(offer("a", "slow").as_bytes()).await.unwrap();
    until(|| world.occupancy.live() == 1).await;
    served.stop.cancel();
    world.host.go.notify_one();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with(r#""type":"answer"}"#), "{answer}");
    served.tasks.join_next().await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn a_reader_of_outputs_that_never_reads_has_little_kept_for_it() {
    let world = World::new();
    let served = serve(&world);
    world.offer("", "a", SDP).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET /outputs?webrtc_id=a HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let output = json!("x".repeat(100_000));
    let mut said = 0;
    for _ in 0..300 {
        world.host.with("a", |session| session.shared.output(&output)).unwrap();
        said += 100_000;
        assert!(world.host.with("a", |session| session.shared.history().bytes()) <= 1 << 20);
        tokio::task::yield_now().await;
    }
    world.host.finish("a").await;
    // Whatever was kept for it, in the server and in the kernel, comes now.
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.windows(23).any(|window| window == b"outputs are no longer k"), "it has missed some");
    assert!(rest.len() < said / 4, "{} of {said}", rest.len());
}

/// Lets the server's tasks run until `condition` holds. The test's own time limit is the patience of whoever runs it.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
