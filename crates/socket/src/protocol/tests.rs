use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use streamfleet_session::ResumeToken;
use streamfleet_session::wire::{Failure, ServerMessage};

use super::*;
use crate::audio::AudioRates;
use crate::codec::{Framing, WireCodec};

const TOKEN: &str = "abababababababababababababababab";

fn token() -> ResumeToken {
    ResumeToken::from_random([0xab; 16])
}

#[track_caller]
fn check(text: &str, expected: Result<ClientFrame<'_>, BadFrame>) {
    assert_eq!(ClientReader::default().text(text), expected, "{text}");
}

fn start(text: &str) -> Start {
    match ClientReader::default().text(text) {
        Ok(ClientFrame::Start(start)) => *start,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn frames_of_a_client() {
    check(r#"{"event":"media","media":{"payload":"/38="}}"#, Ok(ClientFrame::Media(&[0xff, 0x7f])));
    // Keys in any order, others beside them, and the escape that PHP writes.
    check(
        r#" {"media": {"x": [], "payload": "\/38="}, "n": 1, "event": "media"} "#,
        Ok(ClientFrame::Media(&[0xff, 0x7f])),
    );
    check(r#"{"event": "media", "media": {"payload": "/38="}}"#, Ok(ClientFrame::Media(&[0xff, 0x7f])));
    check(r#"{"event":"media","media":{"payload":""}}"#, Ok(ClientFrame::Media(&[])));
    check(r#"{"event":"stop"}"#, Ok(ClientFrame::Stop));
    check(r#"{"event":"ping","media":5,"websocket_id":null}"#, Ok(ClientFrame::Ping));
    check(r#"{"event":"p\u0069ng"}"#, Ok(ClientFrame::Ping));
    check(r#"{"event":"dance"}"#, Ok(ClientFrame::Ignored));
    check(r#"{"event":""}"#, Ok(ClientFrame::Ignored));
    assert_eq!(ClientReader::default().binary(&[1, 2, 3]), Ok(ClientFrame::Media(&[1, 2, 3])));
}

#[test]
fn starts() {
    let plain = Start {
        id: "abc".parse().unwrap(),
        metadata: None,
        codec: WireCodec::MuLaw,
        framing: Framing::Json,
        resume: Resume::No,
    };
    assert_eq!(start(r#"{"event":"start","websocket_id":"abc"}"#), plain);
    let full = format!(
        r#"{{"event":"start","websocket_id":"abc","metadata":{{"a":[1]}},"codec":"opus","framing":"binary","resume":"{TOKEN}"}}"#
    );
    let expected = Start {
        metadata: Some(json!({"a": [1]})),
        codec: WireCodec::Opus,
        framing: Framing::Binary,
        resume: Resume::With(token()),
        ..plain.clone()
    };
    assert_eq!(start(&full), expected);
    for (said, resume) in [
        ("true", Resume::Wanted),
        ("false", Resume::No),
        ("null", Resume::No),
        ("1", Resume::No),
        // No token of ours, so the client has none: it wants one.
        (r#""x""#, Resume::Wanted),
    ] {
        let text = format!(r#"{{"event":"start","websocket_id":"abc","codec":"pcm16","resume":{said}}}"#);
        assert_eq!(start(&text), Start { codec: WireCodec::Pcm16, resume, ..plain.clone() }, "{said}");
    }
}

#[test]
fn frames_that_are_none() {
    #[track_caller]
    fn check(text: &str, code: u16, message: &str) {
        let error = ClientReader::default().text(text).expect_err(text);
        assert_eq!((error.close_code().as_u16(), error.to_string().as_str()), (code, message), "{text}");
        let frame: Value = serde_json::from_str(&error.to_json()).unwrap();
        assert_eq!(frame, json!({"type": "error", "message": message}));
    }
    const NOT_JSON: &str = "a text message must be JSON";
    const NO_EVENT: &str = "a message must have a string \"event\"";
    const NO_PAYLOAD: &str = "\"media\" must have a string \"payload\"";
    check("", 1007, NOT_JSON);
    check("hello", 1007, NOT_JSON);
    check("{\"event\":\"ping\"", 1007, NOT_JSON);
    check("{\"event\":\"ping\"} x", 1007, NOT_JSON);
    check("{\"event\":\"ping\",\"event\":\"stop\"}", 1007, NOT_JSON);
    check(&format!("{{\"event\":{}", "[".repeat(10_000)), 1007, NOT_JSON);
    check("[\"ping\"]", 1007, "a text message must be a JSON object");
    check("5", 1007, "a text message must be a JSON object");
    check("{}", 1008, NO_EVENT);
    check("{\"event\":null}", 1008, NO_EVENT);
    check("{\"event\":5}", 1008, NO_EVENT);
    check(r#"{"event":"start"}"#, 1008, "\"start\" must have a string \"websocket_id\"");
    check(r#"{"event":"start","websocket_id":7}"#, 1008, "\"start\" must have a string \"websocket_id\"");
    check(r#"{"event":"start","websocket_id":""}"#, 1008, "a session id must not be empty");
    check(
        r#"{"event":"start","websocket_id":"a b"}"#,
        1008,
        "a session id may consist of A-Z a-z 0-9 . _ ~ : @ - only (character 2 is not)",
    );
    check(
        &format!(r#"{{"event":"start","websocket_id":"{}"}}"#, "a".repeat(129)),
        1008,
        "a session id must be at most 128 characters long",
    );
    for codec in [r#""mp3""#, "5", r#""""#] {
        let text = format!(r#"{{"event":"start","websocket_id":"a","codec":{codec}}}"#);
        check(&text, 1008, "\"codec\" must be one of mulaw, pcm16, opus");
    }
    check(r#"{"event":"start","websocket_id":"a","framing":"xml"}"#, 1008, "\"framing\" must be one of json, binary");
    let deep = format!(r#"{{"event":"start","websocket_id":"a","metadata":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    check(&deep, 1007, NOT_JSON);
    for media in [r#""#, r#","media":5"#, r#","media":["AAAA"]"#, r#","media":{}"#, r#","media":{"payload":1}"#] {
        check(&format!(r#"{{"event":"media"{media}}}"#), 1007, NO_PAYLOAD);
    }
    for payload in ["A", "****", "é", "AAAA AAAA", "AA=A", "-_-_"] {
        check(&format!(r#"{{"event":"media","media":{{"payload":"{payload}"}}}}"#), 1007, "a payload must be base64");
    }
    let large = format!(r#"{{"event":"media","media":{{"payload":"{}"}}}}"#, "A".repeat(MAX_MESSAGE));
    check(&large, 1009, "a message must be at most 262144 bytes long");
    assert_eq!(ClientReader::default().binary(&vec![0; MAX_MESSAGE + 1]), Err(BadFrame::TooLarge));
    assert!(ClientReader::default().binary(&vec![0; MAX_MESSAGE]).is_ok());
    assert_eq!(BadFrame::Payload(BadPayload::OddPcm).close_code().as_u16(), 1007);
}

/// What FastRTC 0.0.34 puts on a socket, where it is to be kept.
#[test]
fn frames_to_a_client() {
    assert_eq!(media(&[0xff, 0x7f, 0]), r#"{"event":"media","media":{"payload":"/38A"}}"#);
    assert_eq!(media(&[]), r#"{"event":"media","media":{"payload":""}}"#);
    #[track_caller]
    fn check(frame: ServerFrame, expected: &str) {
        assert_eq!(frame.to_json(), expected);
    }
    check(ServerFrame::Pong, r#"{"event":"pong"}"#);
    for (codec, name) in [(WireCodec::MuLaw, "mulaw"), (WireCodec::Pcm16, "pcm16"), (WireCodec::Opus, "opus")] {
        let rates = AudioRates { input: 16_000, output: 24_000 };
        let expected = format!(
            r#"{{"type":"session","data":{{"resume":"{TOKEN}","input_sample_rate":16000,"output_sample_rate":24000,"encoding":"{name}"}}}}"#
        );
        check(ServerFrame::Session { token: token(), rates, codec }, &expected);
        assert_eq!(name.parse(), Ok(codec), "what the answer says is what `start` may ask for");
    }
    let limit = 7.try_into().unwrap();
    check(
        ServerFrame::Failed(Failure::ConcurrencyLimitReached { limit }),
        r#"{"status":"failed","meta":{"error":"concurrency_limit_reached","limit":7}}"#,
    );
    check(
        ServerFrame::Failed(Failure::ConnectionAlreadyExists),
        r#"{"status":"failed","meta":{"error":"connection_already_exists"}}"#,
    );
    for (message, expected) in [
        (ServerMessage::SendInput, r#"{"type":"send_input","data":[]}"#),
        (ServerMessage::FetchOutput, r#"{"type":"fetch_output","data":[]}"#),
        (ServerMessage::end_stream(None), r#"{"type":"end_stream","data":"Stream closed"}"#),
        (ServerMessage::Stopword, r#"{"type":"stopword","data":""}"#),
        (ServerMessage::Error("x".into()), r#"{"type":"error","message":"x"}"#),
        (ServerMessage::Warning("x".into()), r#"{"type":"warning","message":"x"}"#),
        (ServerMessage::Log("pause_detected".into()), r#"{"type":"log","data":"pause_detected"}"#),
    ] {
        check(ServerFrame::Message(message), expected);
    }
}

const CALL_START: &str = r#"{"event":"start","sequenceNumber":"1","start":{"accountSid":"AC1","streamSid":"MZ1",
    "callSid":"CA1","tracks":["inbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},
    "customParameters":{"From":"+1","streamfleet_token":"abc"}},"streamSid":"MZ1"}"#;

#[track_caller]
fn call_start(text: &str) -> CallStart {
    match TwilioReader::default().text(text) {
        Ok(TwilioFrame::Start(start)) => *start,
        other => panic!("{other:?}"),
    }
}

#[test]
fn frames_of_twilio() {
    #[track_caller]
    fn check(text: &str, expected: Result<TwilioFrame<'_>, BadFrame>) {
        assert_eq!(TwilioReader::default().text(text), expected, "{text}");
    }
    check(r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#, Ok(TwilioFrame::Connected));
    let started = call_start(CALL_START);
    assert_eq!((started.stream_sid.as_str(), started.call_sid), ("MZ1", CallSid::parse("CA1")));
    assert_eq!(started.token.as_deref(), Some("abc"));
    assert_eq!(Value::Object(started.parameters), json!({"From": "+1"}));
    check(
        r#"{"event":"media","sequenceNumber":"3","media":{"track":"inbound","chunk":"2","timestamp":"40","payload":"/38="},
            "streamSid":"MZ1"}"#,
        Ok(TwilioFrame::Media(TwilioMedia {
            track: CallTrack::Inbound,
            chunk: Some(2),
            timestamp: Some(Duration::from_millis(40)),
            payload: &[0xff, 0x7f],
        })),
    );
    check(
        r#"{"event":"media","media":{"track":"outbound","payload":""}}"#,
        Ok(TwilioFrame::Media(TwilioMedia { track: CallTrack::Outbound, chunk: None, timestamp: None, payload: &[] })),
    );
    check(r#"{"event":"mark","streamSid":"MZ1","mark":{"name":"x"}}"#, Ok(TwilioFrame::Mark("x".into())));
    check(r#"{"event":"mark","mark":{}}"#, Ok(TwilioFrame::Ignored));
    check(&format!(r#"{{"event":"mark","mark":{{"name":"{}"}}}}"#, "x".repeat(129)), Ok(TwilioFrame::Ignored));
    check(r#"{"event":"stop","stop":{"accountSid":"AC1","callSid":"CA1"}}"#, Ok(TwilioFrame::Stop));
    check(r#"{"event":"other"}"#, Ok(TwilioFrame::Ignored));
    for digit in ['0', '9', '*', '#', 'A', 'D'] {
        let text = format!(r#"{{"event":"dtmf","dtmf":{{"track":"inbound_track","digit":"{digit}"}}}}"#);
        check(&text, Ok(TwilioFrame::Dtmf(Digit::parse(&digit.to_string()).unwrap())));
    }
    for digit in ["", "E", "12", "a", "é"] {
        check(&format!(r#"{{"event":"dtmf","dtmf":{{"digit":"{digit}"}}}}"#), Ok(TwilioFrame::Ignored));
    }
    check("x", Err(BadFrame::NotJson));
    check("{}", Err(BadFrame::NoEvent));
    check(r#"{"event":"media","media":{"payload":"*"}}"#, Err(BadFrame::NotBase64));
    check(r#"{"event":"media"}"#, Err(BadFrame::NoPayload));
}

#[test]
fn starts_of_calls() {
    // What FastRTC needs is enough.
    let started = call_start(r#"{"event":"start","streamSid":"MZ1"}"#);
    assert_eq!((started.stream_sid.as_str(), started.call_sid, started.token), ("MZ1", None, None));
    assert_eq!(call_start(r#"{"event":"start","start":{"streamSid":"MZ2"}}"#).stream_sid.as_str(), "MZ2");
    let read = |text: &str| TwilioReader::default().text(text).map(|_| ());
    assert_eq!(read(r#"{"event":"start","start":{}}"#), Err(BadFrame::NoId { key: "streamSid" }));
    assert!(matches!(read(r#"{"event":"start","streamSid":"a b"}"#), Err(BadFrame::Id(_))));
    for format in [
        r#"{"encoding":"audio/x-mulaw","sampleRate":16000,"channels":1}"#,
        r#"{"encoding":"audio/l16","sampleRate":8000,"channels":1}"#,
        r#"{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":2}"#,
        r#"{"encoding":"audio/x-mulaw"}"#,
        "5",
    ] {
        let text = format!(r#"{{"event":"start","streamSid":"MZ1","start":{{"mediaFormat":{format}}}}}"#);
        assert_eq!(read(&text), Err(BadFrame::MediaFormat), "{format}");
    }
}

#[test]
fn frames_to_twilio() {
    let stream = "MZ1".parse().unwrap();
    // Byte for byte as FastRTC.
    assert_eq!(
        stream_media(&stream, &[0xff, 0x7f, 0]),
        r#"{"event":"media","media":{"payload":"/38A"},"streamSid":"MZ1"}"#
    );
    assert_eq!(mark(&stream, "a\"b"), r#"{"event":"mark","mark":{"name":"a\"b"},"streamSid":"MZ1"}"#);
    assert_eq!(clear(&stream), r#"{"event":"clear","streamSid":"MZ1"}"#);
}

/// JSON that is nearly a frame.
fn nearly_a_frame() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("null".to_owned()),
        Just("{}".to_owned()),
        Just("[]".to_owned()),
        "[0-9]{1,4}",
        "\"[a-zA-Z0-9+/=]{0,12}\"",
        Just(r#"{"payload":"AAAA"}"#.to_owned()),
        Just(r#"{"name":"x","digit":"1","streamSid":"MZ"}"#.to_owned()),
    ];
    let event = prop_oneof!["start", "media", "mark", "dtmf", "stop", "ping", "[a-z]{0,5}"];
    let key = prop_oneof![
        "media",
        "websocket_id",
        "metadata",
        "codec",
        "framing",
        "resume",
        "start",
        "mark",
        "dtmf",
        "streamSid",
        "[a-z]{1,3}"
    ];
    (event, proptest::collection::btree_map(key, value, 0..6)).prop_map(|(event, fields)| {
        let fields: String = fields.iter().map(|(key, value)| format!(",\"{key}\":{value}")).collect();
        format!("{{\"event\":\"{event}\"{fields}}}")
    })
}

proptest! {
    #[test]
    fn nothing_panics(text in prop_oneof!["\\PC{0,80}", nearly_a_frame()], cut in any::<prop::sample::Index>()) {
        let end = (0..=text.len()).rev().find(|&at| at <= cut.index(text.len() + 1) && text.is_char_boundary(at)).unwrap();
        for text in [&text[..], &text[..end]] {
            // Whatever is refused says so in JSON, and repeats nothing.
            if let Err(error) = ClientReader::default().text(text) {
                prop_assert!(serde_json::from_str::<Value>(&error.to_json()).is_ok());
            }
            let _ = TwilioReader::default().text(text);
        }
    }

    #[test]
    fn the_usual_spelling_says_what_any_other_does(payload in r#"([A-Za-z0-9+/]{4}){0,40}[=*\\\\",}a ]{0,3}"#) {
        for [open, colon] in [[",", ":"], [", ", ": "]] {
            let usual = format!(r#"{{"event"{colon}"media"{open}"media"{colon}{{"payload"{colon}"{payload}"}}}}"#);
            let (mut reader, mut other) = (ClientReader::default(), ClientReader::default());
            // A blank at the end is another spelling of the same.
            prop_assert_eq!(reader.text(&usual), other.text(&format!("{usual} ")));
        }
    }

    #[test]
    fn media_survives(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let text = media(&bytes);
        let mut reader = ClientReader::default();
        prop_assert_eq!(reader.text(&text), Ok(ClientFrame::Media(&bytes)));
        let value: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(value.to_string(), text);
    }
}
