use streamfleet_socket::ConnectionLimits;
use streamfleet_socket::frames::Trace;
use tokio::io::{DuplexStream, duplex};
use tokio::join;

use super::*;

/// A client's frame, masked with nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ ..=125 => bytes.push(0x80 | length as u8),
        length => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    frame(0x81, text.as_bytes())
}

fn line() -> (DuplexStream, Line<DuplexStream>) {
    let (client, server) = duplex(1 << 20);
    (client, Line::new(server, Connection::client(now(), ConnectionLimits::default())))
}

/// What a client reads that sends this and waits, until it is closed, with the code at the end; and whether it has said `start`.
async fn hear(sent: &[u8]) -> (String, Option<u16>, bool) {
    let (mut client, mut line) = line();
    client.write_all(sent).await.unwrap();
    let serve = async {
        let has_started = line.opening(&CancellationToken::new()).await.is_some();
        match has_started {
            true => line.refuse(Failure::ConnectionAlreadyExists).await,
            false => line.close().await,
        }
        has_started
    };
    let mut heard = Vec::new();
    let (has_started, read) = join!(serve, client.read_to_end(&mut heard));
    read.unwrap();
    let mut trace = Trace::default();
    trace.pass(&heard);
    (String::from_utf8_lossy(&heard).into_owned(), trace.close_code(), has_started)
}

#[tokio::test(start_paused = true)]
async fn what_is_not_a_start() {
    #[track_caller]
    fn check(heard: &(String, Option<u16>, bool), words: &[&str], code: u16) {
        assert_eq!((heard.1, heard.2), (Some(code), false), "{heard:?}");
        assert!(words.iter().all(|word| heard.0.contains(word)), "{heard:?}");
    }
    // Nothing for thirty seconds: virtual ones.
    check(&hear(b"").await, &["no \\\"start\\\" came", "start_timeout"], 1008);
    check(&hear(&text("nonsense")).await, &["must be JSON", "bad_input"], 1007);
    check(&hear(&frame(0x81, b"\xff")).await, &["must be UTF-8", "bad_input"], 1007);
    check(&hear(&text("{}")).await, &["string \\\"event\\\"", "bad_input"], 1008);
    check(&hear(b"GET / HTTP/1.1\r\n\r\n").await, &["RFC 6455", "bad_input"], 1002);
    let giant = [&[0x81, 0xff][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat();
    check(&hear(&giant).await, &["at most 262144 bytes", "bad_input"], 1009);
    // Bytes before it are media of nobody, and nothing is said of them.
    check(&hear(&frame(0x82, &[0; 300])).await, &["start_timeout"], 1008);
}

#[tokio::test(start_paused = true)]
async fn what_goes_before_a_start_is_answered_here() {
    let start = text(r#"{"event":"start","websocket_id":"x"}"#);
    let sent = [
        frame(0x89, b"are you there"),
        text(r#"{"event":"ping"}"#),
        text(r#"{"event":"media","media":{"payload":"AAAA"}}"#),
        start.clone(),
        frame(0x82, b"after"),
    ];
    let (mut client, mut line) = line();
    client.write_all(&sent.concat()).await.unwrap();
    assert!(line.opening(&CancellationToken::new()).await.is_some());
    let (socket, read) = line.into_parts();
    assert_eq!(read, [start, sent[4].clone()].concat());
    drop(socket);
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"\x8a\x0dare you there\x81\x10{\"event\":\"pong\"}");
    let refused = hear(&text(r#"{"event":"start","websocket_id":"x"}"#)).await;
    assert!(
        refused.2
            && refused.1 == Some(1000)
            && refused.0.contains("connection_already_exists")
            && refused.0.contains("refused")
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_is_answered() {
    let heard = hear(&frame(0x88, b"\x03\xe9")).await;
    assert_eq!((heard.1, heard.2), (Some(1001), false));
}

#[tokio::test(start_paused = true)]
async fn who_goes_while_it_is_decided_is_missed() {
    let (mut client, mut line) = line();
    client.write_all(&text(r#"{"event":"start","websocket_id":"x"}"#)).await.unwrap();
    assert!(line.opening(&CancellationToken::new()).await.is_some());
    client.write_all(b"more").await.unwrap();
    drop(client);
    line.gone().await;
    // Somebody who sends on and on is not read beyond what may wait.
    let (mut client, mut line) = self::line();
    client.write_all(&vec![0; AHEAD + (64 << 10)]).await.unwrap();
    assert!(timeout(Duration::from_secs(60), line.gone()).await.is_err());
    assert!(line.peek.held() <= AHEAD + (4 << 10));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stops_says_so() {
    let (mut client, mut line) = line();
    let stop = CancellationToken::new();
    stop.cancel();
    let mut heard = Vec::new();
    let serve = async {
        assert!(line.opening(&stop).await.is_none());
        line.close().await;
    };
    let ((), read) = join!(serve, client.read_to_end(&mut heard));
    read.unwrap();
    assert_eq!(heard, b"\x88\x0a\x03\xe9shutdown");
}
