//! Calls against a real peer over loopback sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod server;

use std::pin::pin;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use bytes::Bytes;
use serde_json::json;
use server::{Script, Server};
use streamfleet_audio::analysis::{level_dbfs, tone_level};
use streamfleet_client::{
    Call, CallStats, Client, ClientError, ClientOptions, EndReason, Event, Gathering, Media, Message, PcmFormat,
    Reconnect, VideoPacket,
};
use tokio::time::timeout;

const MONO: PcmFormat = PcmFormat { rate: 48_000, channels: 1 };
/// Longer than anything here takes on a busy machine, shorter than anybody waits for a hanging test.
const PATIENCE: Duration = Duration::from_secs(20);

fn options(server: &Server) -> ClientOptions {
    ClientOptions::new(server.url().parse().unwrap())
}

fn tone(hz: f32, seconds: f32) -> Vec<i16> {
    let step = std::f32::consts::TAU * hz / 48_000.0;
    (0..(48_000.0 * seconds) as u32).map(|n| (8_000.0 * (n as f32 * step).sin()) as i16).collect()
}

/// Says a tone, listening at the same time, until all is said and at least so much of it has come back: clean, and as loud as it
/// was said. Sound of before the tone, which may still wait to be heard, does not count.
async fn assert_echo(call: &Call, hz: f32, seconds: f32, least_seconds: f32) {
    let samples = tone(hz, seconds);
    let mut spoken = pin!(async {
        call.send_audio(&samples, MONO).await.unwrap();
        call.flush_audio().await.unwrap();
    });
    let least = (least_seconds * 48_000.0) as usize;
    let (mut speaking, mut of_tone, mut loud) = (true, 0, Vec::new());
    let talk = async {
        while speaking || of_tone < least {
            tokio::select! {
                () = &mut spoken, if speaking => speaking = false,
                chunk = call.next_audio() => {
                    let chunk = chunk.expect("the call goes on");
                    assert_eq!(chunk.format, MONO);
                    for piece in chunk.samples.chunks_exact(480).filter(|piece| level_dbfs(piece) > -40.0) {
                        of_tone += if is_tone(piece, hz) { piece.len() } else { 0 };
                        if of_tone > 0 {
                            loud.extend_from_slice(piece);
                        }
                    }
                }
            }
        }
    };
    let enough = timeout(PATIENCE, talk).await;
    assert!(enough.is_ok(), "only {of_tone} of {least} samples of {hz} Hz came back");
    // By pieces of 10 ms: the buffer stretches time on a busy machine, and the phase of the whole with it.
    assert!(of_tone * 10 >= loud.len() * 8, "{of_tone} of {} samples are of {hz} Hz", loud.len());
    assert!((-20.0..-10.0).contains(&level_dbfs(&loud)), "level {} dBFS", level_dbfs(&loud));
}

fn is_tone(samples: &[i16], hz: f32) -> bool {
    tone_level(samples, 48_000, hz) > level_dbfs(samples) - 3.0
}

async fn event(call: &Call, wanted: impl Fn(&Event) -> bool) -> Event {
    let find = async {
        loop {
            let event = call.next_event().await.expect("the call goes on");
            if wanted(&event) {
                return event;
            }
        }
    };
    timeout(PATIENCE, find).await.expect("the event comes")
}

#[tokio::test]
async fn audio_is_echoed_and_the_end_is_told() {
    let server = Server::start(Script::default());
    let call = timeout(PATIENCE, Client::connect(options(&server))).await.unwrap().unwrap();
    assert_echo(&call, 440.0, 1.5, 1.2).await;

    let stats = stats_until(&call, |stats| stats.audio.sent >= 75 && stats.audio.received >= 70).await;
    println!("{stats:#?}");
    assert!(stats.round_trip.is_some_and(|rtt| rtt < Duration::from_millis(200)), "{stats:?}");
    assert!(stats.setup.first_media.unwrap() > stats.setup.connected.unwrap());
    // The stack by itself lets each handshake wait for its next timer, 200 ms.
    let handshakes = stats.setup.connected.unwrap() - stats.setup.answered;
    assert!(handshakes < Duration::from_millis(200), "{stats:?}");
    assert!(stats.setup.channel.is_some());
    assert_eq!(stats.reconnects, 0);

    let ended = Instant::now();
    let summary = timeout(PATIENCE, call.end()).await.unwrap();
    assert_eq!(summary.reason, EndReason::HungUp);
    assert!(ended.elapsed() < Duration::from_secs(2));
    // The peer learns of it at once, not by a time-out.
    wait_until(|| server.seen(|seen| !seen.closed.is_empty())).await;
    assert!(ended.elapsed() < Duration::from_secs(3));
}

async fn stats_until(call: &Call, wanted: impl Fn(&CallStats) -> bool) -> CallStats {
    let poll = async {
        loop {
            let stats = call.stats().await.unwrap();
            if wanted(&stats) {
                return stats;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, poll).await.expect("the figures are reached")
}

async fn wait_until(condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, poll).await.expect("the condition comes true");
}

#[tokio::test]
async fn candidates_trickle_with_their_m_line() {
    let server = Server::start(Script::default());
    let call = Client::connect(ClientOptions { gathering: Gathering::Trickle, ..options(&server) }).await.unwrap();
    assert_echo(&call, 600.0, 0.6, 0.4).await;
    server.seen(|seen| {
        let sdp = seen.offers[0]["sdp"].as_str().unwrap();
        assert!(!sdp.contains("a=candidate:"), "the offer itself has none: {sdp}");
        let (last, rest) = seen.candidates.split_last().unwrap();
        assert_eq!(last["candidate"], "");
        assert!(!rest.is_empty());
        let ufrag = sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap();
        for candidate in rest {
            assert!(candidate["candidate"].as_str().unwrap().starts_with("candidate:"), "{candidate}");
            assert_eq!(
                (&candidate["sdpMid"], &candidate["sdpMLineIndex"], &candidate["usernameFragment"]),
                (&json!("0"), &json!(0), &json!(ufrag))
            );
        }
    });
}

#[tokio::test]
async fn a_server_that_has_only_pcmu_is_served() {
    let server = Server::start(Script { pcmu: true, ..Script::default() });
    let call = Client::connect(options(&server)).await.unwrap();
    assert_echo(&call, 440.0, 0.8, 0.5).await;
}

#[tokio::test]
async fn messages_are_typed() {
    let server = Server::start(Script::default());
    let call = Client::connect(ClientOptions { media: Media::None, ..options(&server) }).await.unwrap();
    // Sent before the channel is open: it waits.
    call.send_text("hello").await.unwrap();
    let said = event(&call, |event| matches!(event, Event::Message(_))).await;
    assert_eq!(said, Event::Message(Message::Log("Server received: hello".into())));
    server.say(json!({"type": "fetch_output", "data": []})).await;
    assert_eq!(event(&call, |_| true).await, Event::Message(Message::FetchOutput));
    assert!(matches!(call.send_audio(&[0; 960], MONO).await, Err(ClientError::NoTrack("audio"))));
}

#[tokio::test]
async fn video_payloads_come_back() {
    let server = Server::start(Script::default());
    let call = Client::connect(ClientOptions { media: Media::AudioVideo, ..options(&server) }).await.unwrap();
    let packet = |n: u32| VideoPacket {
        timestamp: n * 3_000,
        marker: true,
        payload: Bytes::from(vec![0x10, u8::try_from(n).unwrap(), 7]),
    };
    let mut found = None;
    // The echo begins with the first packet that its peer has seen; a few may be lost before.
    for n in 1..200 {
        call.send_video(packet(n)).await.unwrap();
        if let Ok(back) = timeout(Duration::from_millis(20), call.next_video()).await {
            found = back;
            break;
        }
    }
    let found = found.expect("video comes back");
    assert!(found.marker);
    assert_eq!(found, packet(found.timestamp / 3_000));
}

#[tokio::test]
async fn an_id_in_use_is_waited_for() {
    let exists = || (StatusCode::OK, json!({"status": "failed", "meta": {"error": "connection_already_exists"}}));
    let server = Server::start(Script { refuse: vec![exists(), exists()], ..Script::default() });
    let mut options = options(&server);
    options.user_id = Some("ada".parse().unwrap());
    options.metadata.insert("plan".into(), json!("gold"));
    let call = Client::connect(options).await.unwrap();
    server.seen(|seen| {
        assert_eq!(seen.offers.len(), 3);
        assert_eq!(seen.offers[2]["webrtc_id"], call.id().as_str());
        assert_eq!(seen.offers[2]["metadata"], json!({"user_id": "ada", "plan": "gold"}));
    });
}

#[tokio::test]
async fn refusals_and_unreachable_servers_are_told_apart() {
    let full = json!({"status": "failed", "meta": {"error": "concurrency_limit_reached", "limit": 2}});
    let server = Server::start(Script { refuse: vec![(StatusCode::OK, full)], ..Script::default() });
    match Client::connect(options(&server)).await {
        Err(ClientError::Refused(refusal)) => {
            assert_eq!((refusal.error.as_str(), refusal.limit), ("concurrency_limit_reached", Some(2)));
        }
        other => panic!("{other:?}"),
    }
    let wrong =
        ClientOptions { url: format!("http://{}/nothing", server.address).parse().unwrap(), ..options(&server) };
    match Client::connect(wrong).await {
        Err(ClientError::Refused(refusal)) => assert_eq!(refusal.status, 404),
        other => panic!("{other:?}"),
    }
    let address = server.kill();
    let gone = ClientOptions::new(format!("http://{address}/echo").parse().unwrap());
    assert!(matches!(Client::connect(gone).await, Err(ClientError::Unreachable { .. })));
}

#[tokio::test]
async fn a_drain_is_followed_with_the_token() {
    let server = Server::start(Script::default());
    let call = Client::connect(options(&server)).await.unwrap();
    event(&call, |event| *event == Event::ChannelOpen).await;
    assert_echo(&call, 440.0, 0.4, 0.2).await;
    let drain = json!({"after_ms": 50, "reason": "draining", "resume": "drain-token"});
    server.say(json!({"type": "reconnect", "data": drain})).await;
    event(&call, |event| *event == Event::Reconnected).await;
    assert_echo(&call, 700.0, 0.8, 0.6).await;
    let summary = call.end().await;
    assert_eq!((summary.stats.reconnects, &summary.reason), (1, &EndReason::HungUp));
    server.seen(|seen| {
        assert_eq!(seen.offers.len(), 2);
        assert_eq!(seen.offers[1]["resume"], "drain-token");
        assert_eq!(seen.offers[1]["webrtc_id"], seen.offers[0]["webrtc_id"]);
    });
}

/// A service may hold a call until a worker is there. A call that comes back offers by a connection that may lead to whoever has died:
/// it tries another one sooner.
#[tokio::test]
async fn a_first_offer_is_waited_for_and_a_later_one_made_again() {
    let late = vec![Duration::from_secs(2), 3 * PATIENCE];
    let server = Server::start(Script { late, ..Script::default() });
    let mut options = options(&server);
    (options.timeouts.request, options.timeouts.answer) = (Duration::from_secs(1), 2 * PATIENCE);
    let call = timeout(PATIENCE, Client::connect(options)).await.unwrap().unwrap();
    event(&call, |event| *event == Event::ChannelOpen).await;
    server.seen(|seen| assert_eq!(seen.offers.len(), 1));
    let drain = json!({"after_ms": 0, "reason": "draining", "resume": "drain-token"});
    server.say(json!({"type": "reconnect", "data": drain})).await;
    event(&call, |event| *event == Event::Reconnected).await;
    server.seen(|seen| assert!(seen.offers.len() > 2, "{}", seen.offers.len()));
    call.end().await;
}

#[tokio::test]
async fn a_dead_server_is_replaced() {
    let server = Server::start(Script::default());
    let mut options = options(&server);
    options.timeouts.liveness = Duration::from_secs(2);
    let call = Client::connect(options).await.unwrap();
    assert_echo(&call, 440.0, 0.4, 0.2).await;
    let address = server.kill();
    let killed = Instant::now();
    event(&call, |event| matches!(event, Event::Reconnecting { .. })).await;
    println!("the silence was noticed after {:?}", killed.elapsed());
    let next = Server::start_at(address, Script::default());
    event(&call, |event| *event == Event::Reconnected).await;
    assert_echo(&call, 700.0, 0.8, 0.6).await;
    next.seen(|seen| assert_eq!(seen.offers[0]["resume"], "token-1", "the token of the dead server's answer"));
}

#[tokio::test]
async fn ends_by_the_server() {
    let server = Server::start(Script::default());
    let call = Client::connect(options(&server)).await.unwrap();
    event(&call, |event| *event == Event::ChannelOpen).await;
    server.say(json!({"type": "end_stream", "data": "bye"})).await;
    event(&call, |event| *event == Event::Ended(EndReason::EndStream("bye".into()))).await;
    assert_eq!(call.next_event().await, None);
    assert_eq!(call.next_audio().await, None);
    assert!(matches!(call.stats().await, Err(ClientError::Over)));
    assert_eq!(call.end().await.reason, EndReason::EndStream("bye".into()));

    let call = Client::connect(options(&server)).await.unwrap();
    event(&call, |event| *event == Event::ChannelOpen).await;
    let closed = Instant::now();
    server.close_all().await;
    event(&call, |event| *event == Event::Ended(EndReason::ClosedByServer)).await;
    assert!(closed.elapsed() < Duration::from_secs(2), "{:?}", closed.elapsed());
}

#[tokio::test]
async fn a_dropped_call_hangs_up() {
    let server = Server::start(Script::default());
    let call = Client::connect(ClientOptions { reconnect: Reconnect::Never, ..options(&server) }).await.unwrap();
    event(&call, |event| *event == Event::ChannelOpen).await;
    drop(call);
    wait_until(|| server.seen(|seen| !seen.closed.is_empty())).await;
}
