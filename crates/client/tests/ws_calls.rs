//! Calls over WebSockets against a server of their protocol, on loopback sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use serde_json::{Value, json};
use streamfleet_audio::analysis::{level_dbfs, tone_level};
use streamfleet_audio::tone::Tone;
use streamfleet_client::{
    Call, Client, ClientError, Digit, EndReason, Event, Framing, Incoming, Message, PcmFormat, PhoneOptions, Reattach,
    Reconnect, SampleRate, SocketCodec, SocketOptions, Transport,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

const MONO: PcmFormat = PcmFormat { rate: 48_000, channels: 1 };
/// Longer than anything here takes on a busy machine, shorter than anybody waits for a hanging test.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a server does with one socket, after `start`.
#[derive(Clone, Debug)]
enum Conduct {
    /// Takes the call, and says the rates of its handler.
    Rates(u32, u32),
    /// Sends media back as it came; says and does this after so many media frames.
    Echo(Vec<(usize, Act)>),
    /// Answers `start` with this and closes.
    Refuse(Value),
    /// Takes the upgrade and says nothing.
    Mute,
}

#[derive(Clone, Debug)]
enum Act {
    Say(Value),
    Close(u16, &'static str),
    /// Ends the TCP connection without a word.
    Break,
}

/// A server: one conduct for each socket, in their order; the last one again and again.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Value>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(conducts: Vec<Conduct>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let log = Arc::clone(&seen);
        tasks.spawn(async move {
            let mut conducts = VecDeque::from(conducts);
            let mut sockets = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let conduct = if conducts.len() > 1 { conducts.pop_front() } else { conducts.front().cloned() };
                sockets.spawn(serve(stream, conduct.unwrap(), Arc::clone(&log)));
            }
        });
        Self { address, seen, _tasks: tasks }
    }

    fn options(&self) -> SocketOptions {
        SocketOptions::new(format!("http://{}/echo", self.address).parse().unwrap())
    }

    fn phone(&self) -> PhoneOptions {
        let mut options = PhoneOptions::new(format!("http://{}/echo", self.address).parse().unwrap());
        options.incoming = Incoming::Skip;
        options
    }

    /// The frames of one event that came.
    fn seen(&self, event: &str) -> Vec<Value> {
        self.seen.lock().iter().filter(|value| value["event"] == event).cloned().collect()
    }
}

async fn serve(stream: TcpStream, conduct: Conduct, seen: Arc<Mutex<Vec<Value>>>) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let mut media = 0;
    while let Some(Ok(frame)) = socket.next().await {
        let value = match &frame {
            Frame::Text(text) => serde_json::from_str(text).unwrap(),
            Frame::Binary(_) => json!({"event": "media"}),
            _ => continue,
        };
        seen.lock().push(value.clone());
        match (value["event"].as_str().unwrap(), &conduct) {
            (_, Conduct::Mute) => {}
            ("start", Conduct::Refuse(refusal)) => {
                send(&mut socket, refusal.clone()).await;
                // The client has gone if this fails.
                let _ = socket.close(None).await;
            }
            ("start", Conduct::Echo(_)) if value["resume"] != Value::Null => {
                send(&mut socket, json!({"type": "session", "data": {"resume": "token-2"}})).await;
            }
            ("start", Conduct::Rates(input, output)) => {
                let rates = json!({"resume": "token-2", "input_sample_rate": input, "output_sample_rate": output});
                send(&mut socket, json!({"type": "session", "data": rates})).await;
            }
            ("ping", _) => send(&mut socket, json!({"event": "pong"})).await,
            ("stop", _) => drop(socket.close(None).await),
            ("media", Conduct::Echo(acts)) => {
                drop(socket.send(frame).await);
                media += 1;
                for (_, act) in acts.iter().filter(|(at, _)| *at == media) {
                    match act {
                        Act::Say(value) => send(&mut socket, value.clone()).await,
                        Act::Close(code, reason) => {
                            let frame = CloseFrame { code: (*code).into(), reason: (*reason).into() };
                            drop(socket.close(Some(frame)).await);
                        }
                        Act::Break => return,
                    }
                }
            }
            _ => {}
        }
    }
}

async fn send(socket: &mut WebSocketStream<TcpStream>, value: Value) {
    // A client that has hung up does not want it any more.
    drop(socket.send(Frame::Text(value.to_string().into())).await);
}

fn tone(seconds: f32) -> Vec<i16> {
    let mut samples = vec![0; (48_000.0 * seconds) as usize];
    Tone::new(48_000, 440.0, -15.0).fill(&mut samples);
    samples
}

/// Speaks and listens until what was said had time to come back.
async fn converse(call: &Call, samples: &[i16]) -> Vec<i16> {
    let mut heard = Vec::new();
    let speak = async {
        call.send_audio(samples, MONO).await.unwrap();
        call.flush_audio().await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    let listen = async {
        while let Some(chunk) = call.next_audio().await {
            assert_eq!(chunk.format, call.playout());
            heard.extend(chunk.samples);
        }
    };
    tokio::select! { () = speak => {}, () = listen => panic!("the call ended") }
    heard
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

fn assert_tone(heard: &[i16], rate: u32, seconds: f32) {
    let pieces = heard.chunks_exact(rate as usize / 100);
    let loud: Vec<i16> = pieces.filter(|piece| level_dbfs(piece) > -40.0).flatten().copied().collect();
    assert!(loud.len() as f32 >= seconds * rate as f32, "only {} of {} samples are loud", loud.len(), heard.len());
    let found = tone_level(&loud, rate, 440.0);
    assert!((found + 15.0).abs() < 1.5, "{found} dBFS");
}

#[tokio::test]
async fn a_tone_comes_back_on_every_codec() {
    let server = Server::start(vec![Conduct::Echo(vec![])]).await;
    for (codec, framing) in
        [(SocketCodec::MuLaw, Framing::Json), (SocketCodec::Pcm16, Framing::Binary), (SocketCodec::Opus, Framing::Json)]
    {
        let rate = SampleRate::new(24_000).ok();
        let options = SocketOptions { codec, framing, input_rate: rate, output_rate: rate, ..server.options() };
        let call = timeout(PATIENCE, Client::connect_socket(options)).await.unwrap().unwrap();
        assert_eq!((call.transport(), call.playout()), (Transport::WebSocket, PcmFormat::mono(24_000)));
        let heard = converse(&call, &tone(1.0)).await;
        assert_tone(&heard, 24_000, 0.9);
        let stats = call.stats().await.unwrap();
        assert!(stats.audio.sent >= 50 && stats.audio.sent == stats.audio.received, "{codec:?} {stats:?}");
        assert!(stats.round_trip.is_some() && stats.setup.connected.is_some());
        assert!(matches!(call.send_text("hi").await, Err(ClientError::Unsupported { .. })));
        assert_eq!(call.resume_token().await.unwrap().unwrap().expose(), "token-2");
        assert_eq!(timeout(PATIENCE, call.end()).await.unwrap().reason, EndReason::HungUp);
    }
    assert_eq!(server.seen("stop").len(), 3);
    let codecs: Vec<_> = server.seen("start").iter().map(|start| start["codec"].clone()).collect();
    assert_eq!(codecs, [Value::Null, json!("pcm16"), json!("opus")]);
}

#[tokio::test]
async fn refusals_are_told_and_those_that_pass_are_waited_for() {
    let full = json!({"status": "failed", "meta": {"error": "concurrency_limit_reached", "limit": 1}});
    let server = Server::start(vec![Conduct::Refuse(full)]).await;
    match timeout(PATIENCE, Client::connect_socket(server.options())).await.unwrap() {
        Err(ClientError::Refused(refusal)) => {
            assert_eq!((refusal.error.as_str(), refusal.limit), ("concurrency_limit_reached", Some(1)));
        }
        other => panic!("{other:?}"),
    }
    let taken = json!({"status": "failed", "meta": {"error": "connection_already_exists"}});
    let server = Server::start(vec![Conduct::Refuse(taken), Conduct::Echo(vec![])]).await;
    let call = timeout(PATIENCE, Client::connect_socket(server.options())).await.unwrap().unwrap();
    assert_eq!(server.seen("start").len(), 2);
    call.end().await;
}

#[tokio::test]
async fn a_server_that_says_nothing_has_not_taken_the_call() {
    let server = Server::start(vec![Conduct::Mute]).await;
    let mut options = server.options();
    options.timeouts.answer = Duration::from_millis(300);
    let found = timeout(PATIENCE, Client::connect_socket(options)).await.unwrap();
    assert!(matches!(found, Err(ClientError::NotAccepted { .. })), "{found:?}");
}

#[tokio::test]
async fn what_came_before_the_end_is_heard() {
    let end = json!({"type": "end_stream", "data": "bye"});
    let conduct = Conduct::Echo(vec![(20, Act::Say(end)), (20, Act::Close(1000, ""))]);
    let server = Server::start(vec![conduct]).await;
    let call = timeout(PATIENCE, Client::connect_socket(server.options())).await.unwrap().unwrap();
    let speech = tone(1.0);
    let (mut heard, mut messages) = (0, Vec::new());
    let speak = async { drop(call.send_audio(&speech, MONO).await) };
    let listen = async {
        while let Some(chunk) = call.next_audio().await {
            heard += chunk.samples.len();
        }
    };
    let watch = async {
        while let Some(event) = call.next_event().await {
            messages.push(event);
        }
    };
    timeout(PATIENCE, async { tokio::join!(speak, listen, watch) }).await.unwrap();
    assert_eq!(messages[0], Event::Message(Message::EndStream("bye".into())));
    assert_eq!(messages[1], Event::Ended(EndReason::EndStream("bye".into())));
    assert_eq!(heard, 20 * 960, "20 frames at 48 kHz are 0.8 s at 24 kHz, and all of it is played");
    assert_eq!(call.end().await.reason, EndReason::EndStream("bye".into()));
}

/// A service of other rates than FastRTC's: a call that names none has them, and one that names others is not made.
#[tokio::test]
async fn the_rates_are_those_that_the_server_says() {
    let server = Server::start(vec![Conduct::Rates(16_000, 8_000)]).await;
    let call = timeout(PATIENCE, Client::connect_socket(server.options())).await.unwrap().unwrap();
    assert_eq!(call.playout(), PcmFormat::mono(8_000));
    call.end().await;
    for (input, output) in [(48_000, 8_000), (16_000, 24_000)] {
        let (input_rate, output_rate) = (SampleRate::new(input).ok(), SampleRate::new(output).ok());
        let options = SocketOptions { input_rate, output_rate, ..server.options() };
        let refused = timeout(PATIENCE, Client::connect_socket(options)).await.unwrap();
        assert!(matches!(refused, Err(ClientError::Rate { .. })), "{refused:?}");
    }
    assert_eq!(server.seen("stop").len(), 3, "the server is not left with a session");
}

#[tokio::test]
async fn a_close_for_a_fault_is_told() {
    let server = Server::start(vec![Conduct::Echo(vec![(5, Act::Close(1008, "slow client"))])]).await;
    let call = timeout(PATIENCE, Client::connect_socket(server.options())).await.unwrap().unwrap();
    let speech = tone(1.0);
    let (_, ended) =
        tokio::join!(call.send_audio(&speech, MONO), event(&call, |event| matches!(event, Event::Ended(_))));
    let Event::Ended(EndReason::Lost(why)) = ended else { panic!("{ended:?}") };
    assert!(why.contains("1008 slow client"), "{why}");
}

#[tokio::test]
async fn a_broken_socket_is_replaced_with_the_token() {
    let server = Server::start(vec![Conduct::Echo(vec![(5, Act::Break)]), Conduct::Echo(vec![])]).await;
    let options = SocketOptions { output_rate: SampleRate::new(48_000).ok(), ..server.options() };
    let id = options.websocket_id.to_string();
    let call = timeout(PATIENCE, Client::connect_socket(options)).await.unwrap().unwrap();
    let speech = tone(0.2);
    call.send_audio(&speech, MONO).await.unwrap();
    event(&call, |event| *event == Event::Reconnected).await;
    let heard = converse(&call, &tone(0.5)).await;
    assert_tone(&heard, 48_000, 0.4);
    let summary = call.end().await;
    assert_eq!((summary.reason, summary.stats.reconnects), (EndReason::HungUp, 1));
    let starts = server.seen("start");
    assert_eq!((starts[0]["resume"].clone(), starts[1]["resume"].clone()), (json!(true), json!("token-2")));
    assert!(starts.iter().all(|start| start["websocket_id"] == id.as_str()));
}

#[tokio::test]
async fn a_broken_socket_ends_a_call_that_does_not_follow() {
    let server = Server::start(vec![Conduct::Echo(vec![(5, Act::Break)])]).await;
    let options = SocketOptions { reconnect: Reconnect::Never, reattach: Reattach::Plain, ..server.options() };
    let call = timeout(PATIENCE, Client::connect_socket(options)).await.unwrap().unwrap();
    let speech = tone(0.2);
    call.send_audio(&speech, MONO).await.unwrap();
    let ended = event(&call, |event| matches!(event, Event::Ended(_))).await;
    assert!(matches!(ended, Event::Ended(EndReason::Lost(_))), "{ended:?}");
    assert_eq!(server.seen("start")[0].get("resume"), None);
}

#[tokio::test]
async fn a_telephone_speaks_as_documented() {
    let say = |value| Act::Say(value);
    let mark = |name: &str| say(json!({"event": "mark", "streamSid": "MZ1", "mark": {"name": name}}));
    let conduct = Conduct::Echo(vec![
        (10, mark("heard")),
        // A second of sound, and the interruption that takes it back.
        (60, say(json!({"event": "media", "streamSid": "MZ1", "media": {"payload": "f39/".repeat(2_700)}}))),
        (60, mark("taken back")),
        (60, say(json!({"event": "clear", "streamSid": "MZ1"}))),
    ]);
    let server = Server::start(vec![conduct]).await;
    let mut options = server.phone();
    options.stream_sid = "MZ1".parse().unwrap();
    options.parameters.insert("plan".into(), "gold".into());
    let call = timeout(PATIENCE, Client::connect_phone(options)).await.unwrap().unwrap();
    assert_eq!(call.playout(), PcmFormat::mono(8_000));
    let heard = converse(&call, &tone(0.6)).await;
    assert_tone(&heard, 8_000, 0.5);
    call.send_digit(Digit::new('#').unwrap()).await.unwrap();
    event(&call, |event| *event == Event::Cleared).await;
    let marks = async {
        while server.seen("mark").len() < 2 || server.seen("dtmf").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, marks).await.unwrap();
    assert_eq!(call.end().await.reason, EndReason::HungUp);
    let names: Vec<_> = server.seen("mark").iter().map(|mark| mark["mark"]["name"].clone()).collect();
    assert_eq!(names, ["heard", "taken back"]);
    let start = &server.seen("start")[0];
    assert_eq!(start["start"]["customParameters"], json!({"plan": "gold"}));
    assert_eq!(server.seen("dtmf")[0]["dtmf"]["digit"], "#");
    assert_eq!((server.seen("connected").len(), server.seen("stop").len()), (1, 1));
    let sequence: Vec<u64> = ["start", "media", "mark", "dtmf", "stop"]
        .iter()
        .flat_map(|event| server.seen(event))
        .map(|value| value["sequenceNumber"].as_str().unwrap().parse().unwrap())
        .collect();
    let mut sorted = sequence.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=sequence.len() as u64).collect::<Vec<_>>(), "numbered without a gap");
}
