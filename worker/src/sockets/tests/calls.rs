//! Telephone calls, made by the client's double of a telephone company.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderName, Request};
use serde_json::{Value, json};
use streamfleet_audio::PcmFormat;
use streamfleet_audio::analysis::{level_dbfs, tone_level};
use streamfleet_audio::tone::Tone;
use streamfleet_audio::wav;
use streamfleet_client::{AuthToken, Call, Client, ClientError, Digit, Event, Incoming, PhoneOptions};
use streamfleet_handler::Transport;
use streamfleet_session::{IdentityPolicy, Limits};
use tokio::time::timeout;

use super::handlers::BYE;
use super::peer::{Heard, Peer, closed};
use super::{AUTH_TOKEN, PATIENCE, World, service, signed, until};

const MONO: PcmFormat = PcmFormat { rate: 48_000, channels: 1 };

fn options(world: &World, name: &str) -> PhoneOptions {
    PhoneOptions::new(world.url(&format!("/{name}")).parse().unwrap())
}

async fn call(options: PhoneOptions) -> Call {
    timeout(PATIENCE, Client::connect_phone(options)).await.unwrap().unwrap()
}

/// Speaks, and listens until what was said had time to come back.
async fn converse(call: &Call, samples: &[i16], patience: Duration) -> Vec<i16> {
    let mut heard = Vec::new();
    let speak = async {
        call.send_audio(samples, MONO).await.unwrap();
        call.flush_audio().await.unwrap();
        tokio::time::sleep(patience).await;
    };
    let listen = async {
        while let Some(chunk) = call.next_audio().await {
            heard.extend(chunk.samples);
        }
    };
    tokio::select! { () = speak => {}, () = listen => panic!("the call ended") }
    heard
}

fn loud(heard: &[i16]) -> Vec<i16> {
    heard.chunks_exact(80).filter(|piece| level_dbfs(piece) > -40.0).flatten().copied().collect()
}

#[tokio::test]
async fn a_tone_comes_back_as_loud_as_it_was() {
    let identity = IdentityPolicy { user_id_from: vec!["metadata:From".parse().unwrap()], ..IdentityPolicy::default() };
    let services = ["echo", "echo-frames"].map(|name| http_service(name, identity.clone()));
    let world = World::new(services);
    for name in ["echo", "echo-frames"] {
        let options = options(&world, name);
        let (id, from) = (options.stream_sid.to_string(), options.from.clone());
        let call = call(options).await;
        let mut speech = vec![0; 48_000];
        Tone::new(48_000, 440.0, -15.0).fill(&mut speech);
        let heard = loud(&converse(&call, &speech, Duration::from_millis(500)).await);
        assert!(heard.len() >= 7_800, "{name}: {} samples", heard.len());
        // The middle one of tenths of a second: a machine that stands still for a moment leaves a gap, and nothing else.
        let mut levels: Vec<f32> = heard.chunks_exact(800).map(|tenth| tone_level(tenth, 8_000, 440.0)).collect();
        levels.sort_by(f32::total_cmp);
        assert!((levels[levels.len() / 2] + 15.0).abs() < 1.0, "{name}: {levels:?} dBFS");
        let view = world.view(&id).unwrap();
        assert_eq!((view.transport, view.service.as_str()), (Transport::Telephone, name));
        assert_eq!((view.user_id.as_ref().map(|user| user.as_str()), view.verified), (Some(from.as_str()), false));
        timeout(PATIENCE, call.end()).await.unwrap();
        until("the end", || world.sessions.is_empty()).await;
    }
    assert_eq!((world.occupancy.live(), world.ended("client_closed")), (0, 2));
}

fn http_service(name: &str, identity: IdentityPolicy) -> crate::http::Service {
    crate::http::Service { identity, ..service(name) }
}

#[tokio::test]
async fn the_end_of_the_stream_comes_after_its_last_sample() {
    let world = World::new([service("bye")]);
    let began = Instant::now();
    let call = call(options(&world, "bye")).await;
    let mut heard = Vec::new();
    let listen = async {
        while let Some(chunk) = call.next_audio().await {
            heard.extend(chunk.samples);
        }
    };
    timeout(PATIENCE, listen).await.unwrap();
    // What the resampler holds back comes out too.
    let loud = loud(&heard).len() as f64 / 8_000.0;
    assert!((loud - BYE.as_secs_f64()).abs() <= 0.02, "{loud} s");
    // The mark that came back ends it, not the time that it is waited for.
    assert!(began.elapsed() < BYE + Duration::from_secs(1), "{:?}", began.elapsed());
    until("the end", || world.sessions.is_empty()).await;
    assert_eq!(world.ended("end_stream"), 1);
}

#[tokio::test]
async fn keys_and_who_calls_reach_the_handler() {
    let world = World::new([service("keys")]);
    let options = options(&world, "keys");
    let id = options.stream_sid.to_string();
    let about = json!({ "From": options.from, "To": options.to, "CallSid": options.call_sid });
    let call = call(options).await;
    for key in ['1', '#', 'D'] {
        call.send_digit(Digit::new(key).unwrap()).await.unwrap();
    }
    let expected =
        [json!({ "transport": "telephone", "user": null, "metadata": about }), "1".into(), "#".into(), "D".into()];
    until("the keys", || world.outputs(&id) == expected).await;
}

async fn cleared(call: &Call) {
    let find = async { while call.next_event().await.expect("the call goes on") != Event::Cleared {} };
    timeout(PATIENCE, find).await.expect("it is taken back");
}

#[tokio::test]
async fn an_interruption_takes_back_what_was_sent() {
    let world = World::new([service("talker")]);
    let call = call(options(&world, "talker")).await;
    let mut heard = 0;
    while heard < 4_000 {
        heard += timeout(PATIENCE, call.next_audio()).await.unwrap().unwrap().samples.len();
    }
    call.send_digit(Digit::new('1').unwrap()).await.unwrap();
    cleared(&call).await;
    // What is still heard had been heard by the telephone when it was told.
    let mut rest = Vec::new();
    let listen = async {
        while let Some(chunk) = call.next_audio().await {
            rest.extend(chunk.samples);
        }
    };
    assert!(timeout(Duration::from_millis(600), listen).await.is_err(), "the call goes on");
    assert!(loud(&rest).len() < 1_600, "{} samples", rest.len());
}

/// The parrot is interrupted by whoever speaks into its reply.
#[tokio::test]
async fn a_caller_interrupts_the_parrot() {
    let mut parrot = service("parrot");
    parrot.handler_config = json!({ "interrupt_on": "speech" });
    let world = World::new([parrot]);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/pause/tests/data/two-sentences.wav");
    let speech = wav::read(std::fs::File::open(path).unwrap(), PATIENCE).unwrap();
    let call = call(options(&world, "parrot")).await;
    // Two sentences: the second begins a second after the first, into the reply to it.
    let talk = async {
        call.send_audio(&speech.samples, speech.format).await.unwrap();
        std::future::pending::<()>().await;
    };
    tokio::select! { () = talk => {}, () = cleared(&call) => {} }
}

#[tokio::test]
async fn only_signed_calls_are_put_through() {
    let world = World::new([signed("keys")]);
    let with =
        |token: Option<&str>| PhoneOptions { auth_token: token.and_then(AuthToken::new), ..options(&world, "keys") };
    for token in [None, Some("another secret")] {
        match timeout(PATIENCE, Client::connect_phone(with(token))).await.unwrap() {
            Err(ClientError::Refused(refusal)) => assert_eq!(refusal.error, "forbidden", "{token:?}"),
            other => panic!("{token:?}: {other:?}"),
        }
    }
    assert_eq!((world.sessions.len(), world.occupancy.live()), (0, 0));
    let signed = with(Some(AUTH_TOKEN));
    let id = signed.stream_sid.to_string();
    let call = call(signed).await;
    until("the session", || world.outputs(&id).len() == 1).await;
    assert!(world.outputs(&id)[0]["metadata"].get("streamfleet_token").is_none(), "it is nobody's business");
    call.end().await;
}

/// The stream's route is public as well: who was not led there by TwiML of ours is not let in, and nobody twice.
#[tokio::test]
async fn a_stream_shows_its_calls_token() {
    let world = World::new([signed("tone"), signed("keys")]);
    let twiml = incoming(&world, "/tone/telephone/incoming", "CA1").await;
    let token = parameter(&twiml, "streamfleet_token").expect("a token");
    let refused = [
        ("no token", "/tone", "CA1", json!({})),
        ("no string", "/tone", "CA1", json!({ "streamfleet_token": 7 })),
        ("a wrong one", "/tone", "CA1", json!({ "streamfleet_token": "0".repeat(112) })),
        ("another call's", "/tone", "CA2", json!({ "streamfleet_token": token })),
        ("another service's", "/keys", "CA1", json!({ "streamfleet_token": token })),
    ];
    for (what, path, call_sid, parameters) in refused {
        let mut phone = stream(&world, path, "MZ1", call_sid, parameters).await;
        assert_eq!(phone.next().await, closed(1008, "refused"), "{what}");
    }
    let good = json!({ "streamfleet_token": token });
    let mut phone = stream(&world, "/tone", "MZ1", "CA1", good.clone()).await;
    phone.hear(160).await;
    let mut again = stream(&world, "/tone", "MZ2", "CA1", good).await;
    assert_eq!(again.next().await, closed(1008, "refused"), "a second time");
    assert_eq!((world.sessions.len(), world.occupancy.live()), (1, 1));
}

#[tokio::test]
async fn a_call_counts_and_its_time_is_limited() {
    let limits = Limits {
        concurrency: std::num::NonZeroU32::new(1),
        time_limit: Some(Duration::from_millis(700)),
        ..Limits::default()
    };
    let world = World::new([crate::http::Service { limits, ..service("tone") }]);
    let mut first = stream(&world, "/tone", "MZ1", "CA1", json!({})).await;
    first.hear(160).await;
    let mut second = stream(&world, "/tone", "MZ2", "CA2", json!({})).await;
    assert_eq!(second.next().await, closed(1000, "refused"), "nothing else can be told a telephone");
    assert_eq!(first.word().await, closed(1000, "time_limit"));
    until("the end", || world.sessions.is_empty()).await;
    assert_eq!((world.occupancy.live(), world.ended("time_limit")), (0, 1));
}

#[tokio::test]
async fn control_ends_a_call() {
    let world = World::new([service("tone")]);
    let mut phone = stream(&world, "/tone", "MZ1", "CA1", json!({})).await;
    phone.hear(160).await;
    let request = Request::delete("/tone/sessions/MZ1")
        .header("host", "localhost")
        .header("authorization", "Bearer correct-horse-battery");
    let (status, body) = world.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!((status, body.as_str()), (200, r#"{"status":"success","id":"MZ1","reason":"ended_by_control"}"#));
    assert_eq!(phone.word().await, closed(1000, "ended_by_control"));
}

#[tokio::test]
async fn without_twiml_a_call_is_taken_too() {
    let world = World::new([service("keys")]);
    let skipping = PhoneOptions { incoming: Incoming::Skip, ..options(&world, "keys") };
    let id = skipping.stream_sid.to_string();
    let call = call(skipping).await;
    until("the session", || world.outputs(&id).len() == 1).await;
    call.end().await;
}

/// Opens a media stream as Twilio does.
pub(super) async fn stream(world: &World, path: &str, stream: &str, call: &str, parameters: Value) -> Peer {
    let mut phone = Peer::open(world, &format!("{path}/telephone/handler")).await;
    phone.say(json!({ "event": "connected", "protocol": "Call", "version": "1.0.0" })).await;
    let start = json!({ "streamSid": stream, "callSid": call, "customParameters": parameters });
    phone.say(json!({ "event": "start", "start": start, "streamSid": stream })).await;
    phone
}

/// The TwiML that a signed request gets.
pub(super) async fn incoming(world: &World, path: &str, call: &str) -> String {
    let (status, body) = ask(world, path, call).await;
    assert_eq!(status, 200, "{body}");
    body
}

pub(super) async fn ask(world: &World, path: &str, call: &str) -> (u16, String) {
    let form = [("CallSid", call), ("From", "+15555550100")];
    let url = format!("https://voice.example{path}");
    let request = Request::post(path)
        .header("host", "voice.example")
        .header(HeaderName::from_static("x-twilio-signature"), sign(AUTH_TOKEN, &url, &form));
    let body: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", value.replace('+', "%2B"))).collect();
    world.send(request.body(Body::from(body.join("&"))).unwrap()).await
}

/// As Twilio documents it: HMAC-SHA1 of the URL and the fields in the order of their names.
fn sign(token: &str, url: &str, form: &[(&str, &str)]) -> String {
    use base64::Engine as _;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token.as_bytes());
    let fields: String = form.iter().map(|(name, value)| format!("{name}{value}")).collect();
    base64::engine::general_purpose::STANDARD.encode(ring::hmac::sign(&key, format!("{url}{fields}").as_bytes()))
}

/// What a `<Parameter>` of TwiML says.
pub(super) fn parameter(twiml: &str, name: &str) -> Option<String> {
    let (_, rest) = twiml.split_once(&format!(r#"<Parameter name="{name}" value=""#))?;
    rest.split_once('"').map(|(value, _)| value.to_owned())
}

/// Nothing but media and what belongs to it is sent to a telephone.
#[tokio::test]
async fn a_telephone_hears_no_messages() {
    let world = World::new([service("keys")]);
    let mut phone = stream(&world, "/keys", "MZ1", "CA1", json!({})).await;
    until("the session", || world.outputs("MZ1").len() == 1).await;
    phone.say(json!({ "event": "stop" })).await;
    assert_eq!(phone.next().await, closed(1000, "stopped"));
    assert_eq!(phone.next().await, Heard::Gone);
}
