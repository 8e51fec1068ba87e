use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::lifecycle::CloseReason;
use crate::token::ResumeToken;

fn token() -> ResumeToken {
    ResumeToken::from_random([0xab; 16])
}

const TOKEN: &str = "abababababababababababababababab";

/// Golden text of everything that leaves as JSON, by `to_json` and by serde alike.
#[track_caller]
fn check_text(by_method: &str, value: &impl serde::Serialize, expected: &str) {
    assert_eq!(by_method, expected);
    assert_eq!(serde_json::to_string(value).unwrap(), expected);
}

#[test]
fn answers() {
    let answer = Answer { sdp: "v=0\r\n".into(), resume: None };
    check_text(&answer.to_json(), &answer, r#"{"sdp":"v=0\r\n","type":"answer"}"#);
    let answer = Answer { sdp: "v=0\r\n".into(), resume: Some(token()) };
    let text = format!(r#"{{"sdp":"v=0\r\n","type":"answer","resume":"{TOKEN}"}}"#);
    check_text(&answer.to_json(), &answer, &text);
    assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), answer);
    assert!(serde_json::from_str::<Answer>(r#"{"sdp":"","type":"offer"}"#).is_err());
    check_text(&Success.to_json(), &Success, r#"{"status":"success"}"#);
}

#[test]
fn failures() {
    #[track_caller]
    fn check(failure: Failure, status: u16, meta: &str) {
        let expected = format!(r#"{{"status":"failed","meta":{meta}}}"#);
        check_text(&failure.to_json(), &failure, &expected);
        assert_eq!(failure.status(), status, "{failure}");
    }
    let limit = 7.try_into().unwrap();
    let retry_after = Duration::from_secs(1);
    let detail = || "no usable media".to_owned();
    check(Failure::UnknownConnection, 200, r#"{"error":"unknown_connection"}"#);
    check(Failure::ConnectionClosed, 200, r#"{"error":"connection_closed"}"#);
    check(Failure::InvalidCandidateFormat, 200, r#"{"error":"invalid_candidate_format"}"#);
    check(Failure::ConnectionAlreadyExists, 200, r#"{"error":"connection_already_exists"}"#);
    check(Failure::ConcurrencyLimitReached { limit }, 200, r#"{"error":"concurrency_limit_reached","limit":7}"#);
    check(Failure::UserLimitReached { limit }, 200, r#"{"error":"user_limit_reached","limit":7}"#);
    check(Failure::NotAReplyOnPause, 200, r#"{"error":"not_a_reply_on_pause"}"#);
    check(Failure::InvalidOffer { detail: detail() }, 400, r#"{"error":"invalid_offer","detail":"no usable media"}"#);
    check(
        Failure::InvalidMetadata { detail: detail() },
        400,
        r#"{"error":"invalid_metadata","detail":"no usable media"}"#,
    );
    check(Failure::Unauthorized, 401, r#"{"error":"unauthorized"}"#);
    check(Failure::Forbidden, 403, r#"{"error":"forbidden"}"#);
    check(Failure::ServiceNotFound, 404, r#"{"error":"service_not_found"}"#);
    check(Failure::NotFound, 404, r#"{"error":"not_found"}"#);
    check(Failure::PayloadTooLarge, 413, r#"{"error":"payload_too_large"}"#);
    check(Failure::RateLimited { retry_after }, 429, r#"{"error":"rate_limited"}"#);
    check(Failure::NoCapacity { retry_after }, 503, r#"{"error":"no_capacity"}"#);
    check(Failure::Draining, 503, r#"{"error":"draining"}"#);
    check(Failure::UpstreamUnavailable, 502, r#"{"error":"upstream_unavailable"}"#);
    check(Failure::Internal, 500, r#"{"error":"internal"}"#);
}

#[test]
fn details_are_cut_and_cleaned() {
    let detail = format!("bad\r\nline\u{1b}[31m {}", "x".repeat(1000));
    let text = Failure::InvalidOffer { detail }.to_json();
    assert!(
        text.starts_with(r#"{"status":"failed","meta":{"error":"invalid_offer","detail":"badline[31m xxx"#),
        "{text}"
    );
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["meta"]["detail"].as_str().unwrap().len(), 256);
}

#[test]
fn metadata_errors_become_a_failure() {
    let failure = Failure::from(crate::metadata::InvalidMetadata::NotAnObject);
    assert_eq!(
        failure.to_json(),
        r#"{"status":"failed","meta":{"error":"invalid_metadata","detail":"metadata must be a JSON object"}}"#
    );
}

#[test]
fn retry_after_is_whole_seconds_and_at_least_one() {
    for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (20_000, 20)] {
        let retry_after = Duration::from_millis(millis);
        let expected = Some(Duration::from_secs(seconds));
        assert_eq!(Failure::NoCapacity { retry_after }.retry_after(), expected);
        assert_eq!(Failure::RateLimited { retry_after }.retry_after(), expected);
    }
    assert_eq!(Failure::Draining.retry_after(), None);
}

#[test]
fn server_messages() {
    #[track_caller]
    fn check(message: ServerMessage, expected: &str) {
        check_text(&message.to_json(), &message, expected);
        assert_eq!(ServerMessage::parse(expected), Ok(message));
    }
    check(ServerMessage::SendInput, r#"{"type":"send_input","data":[]}"#);
    check(ServerMessage::FetchOutput, r#"{"type":"fetch_output","data":[]}"#);
    check(ServerMessage::end_stream(None), r#"{"type":"end_stream","data":"Stream closed"}"#);
    check(ServerMessage::end_stream(Some("bye".into())), r#"{"type":"end_stream","data":"bye"}"#);
    check(ServerMessage::Stopword, r#"{"type":"stopword","data":""}"#);
    check(ServerMessage::Error("boom \"x\"".into()), r#"{"type":"error","message":"boom \"x\""}"#);
    check(ServerMessage::Warning("careful".into()), r#"{"type":"warning","message":"careful"}"#);
    check(ServerMessage::Log("started_talking".into()), r#"{"type":"log","data":"started_talking"}"#);
    check(ServerMessage::log_received("hi"), r#"{"type":"log","data":"Server received: hi"}"#);
    check(ServerMessage::UpdateConnection, r#"{"type":"update_connection","data":"closed"}"#);
    check(
        ServerMessage::reconnect(Duration::from_millis(1500), CloseReason::Draining, Some(token())),
        &format!(r#"{{"type":"reconnect","data":{{"after_ms":1500,"reason":"draining","resume":"{TOKEN}"}}}}"#),
    );
    check(
        ServerMessage::reconnect(Duration::ZERO, CloseReason::Draining, None),
        r#"{"type":"reconnect","data":{"after_ms":0,"reason":"draining"}}"#,
    );
}

#[test]
fn clients_read_leniently() {
    for (text, expected) in [
        (r#"{"type": "error", "data": "old"}"#, Some(ServerMessage::Error("old".into()))),
        (r#"{"data": ["x"], "type": "fetch_output", "more": 1}"#, Some(ServerMessage::FetchOutput)),
        (
            r#"{"type":"reconnect","data":{"after_ms":1,"reason":"tomorrow","resume":"?"}}"#,
            Some(ServerMessage::Reconnect { after_ms: 1, reason: "tomorrow".into(), resume: None }),
        ),
        (r#"{"type":"reconnect","data":{}}"#, None),
        (r#"{"type":"log"}"#, None),
        (r#"{"type":"update_connection","data":"open"}"#, None),
        (r#"{"type":"other"}"#, None),
        ("[]", None),
        ("hello", None),
    ] {
        assert_eq!(ServerMessage::parse(text).ok(), expected, "{text}");
    }
}

fn offer(body: &Value) -> Offer {
    match OfferBody::parse(body.to_string().as_bytes()) {
        Ok(OfferBody::Offer(offer)) => offer,
        other => panic!("{body}: {other:?}"),
    }
}

#[test]
fn offers() {
    let read = offer(&json!({
        "sdp": "v=0", "type": "offer", "webrtc_id": "abc", "resume": TOKEN,
        "metadata": {"a": 1}, "candidate": {"additionalProp1": {}}, "video": true,
    }));
    assert_eq!(read.webrtc_id.as_str(), "abc");
    assert_eq!((read.sdp.as_str(), read.resume), ("v=0", Some(token())));
    assert_eq!((read.metadata, read.candidate), (Some(json!({"a": 1})), Some(json!({"additionalProp1": {}}))));
    assert_eq!(Value::Object(read.extra), json!({"video": true}));

    let read = offer(&json!({"type": "offer", "webrtc_id": "abc", "sdp": null, "candidate": null, "resume": null}));
    assert_eq!((read.sdp.as_str(), read.resume, read.candidate, read.metadata), ("", None, None, None));
    assert!(read.extra.is_empty());
    // A token that is none of ours, and metadata that is none, are judged later.
    let read = offer(&json!({"type": "offer", "webrtc_id": "abc", "resume": "nonsense", "metadata": 5}));
    assert_eq!((read.resume, read.metadata), (None, Some(json!(5))));
}

#[test]
fn candidates() {
    for (candidate, expected) in [
        (json!({"candidate": "x"}), json!({"candidate": "x"})),
        (json!("{\"candidate\":\"x\"}"), json!("{\"candidate\":\"x\"}")),
        (json!(""), json!("")),
        (json!(null), json!(null)),
    ] {
        let body = json!({"type": "ice-candidate", "webrtc_id": "abc", "candidate": candidate});
        let read = OfferBody::parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(read.webrtc_id().as_str(), "abc");
        let OfferBody::Candidate { candidate, .. } = read else { panic!("{body}") };
        assert_eq!(candidate, expected);
    }
    let body = br#"{"type":"ice-candidate","webrtc_id":"abc"}"#;
    assert!(matches!(OfferBody::parse(body), Ok(OfferBody::Candidate { candidate: Value::Null, metadata: None, .. })));
    let body = br#"{"type":"ice-candidate","webrtc_id":"abc","metadata":7}"#;
    assert!(matches!(OfferBody::parse(body), Ok(OfferBody::Candidate { metadata: Some(Value::Number(_)), .. })));
}

#[track_caller]
fn check_422(body: &[u8], detail: &str) {
    let error = OfferBody::parse(body).expect_err("a body error");
    assert_eq!(error.to_json(), format!(r#"{{"detail":[{detail}]}}"#), "{}", String::from_utf8_lossy(body));
}

/// Recorded from FastAPI 0.163 with FastRTC's body model (keys of `input` sorted, as objects are here).
#[test]
fn shape_errors_are_those_of_fastapi() {
    let missing =
        |key, input| format!(r#"{{"type":"missing","loc":["body","{key}"],"msg":"Field required","input":{input}}}"#);
    let string = |key, input| {
        format!(
            r#"{{"type":"string_type","loc":["body","{key}"],"msg":"Input should be a valid string","input":{input}}}"#
        )
    };
    let dict = |input| {
        format!(
            r#"{{"type":"dict_type","loc":["body","candidate"],"msg":"Input should be a valid dictionary","input":{input}}}"#
        )
    };
    check_422(b"{}", &format!("{},{}", missing("type", "{}"), missing("webrtc_id", "{}")));
    check_422(br#"{"type":"offer"}"#, &missing("webrtc_id", r#"{"type":"offer"}"#));
    check_422(br#"{"webrtc_id":"a"}"#, &missing("type", r#"{"webrtc_id":"a"}"#));
    check_422(br#"{"type":5,"webrtc_id":null}"#, &format!("{},{}", string("type", "5"), string("webrtc_id", "null")));
    check_422(
        br#"{"type":5,"webrtc_id":"a","sdp":7,"candidate":"x"}"#,
        &[string("sdp", "7"), dict("\"x\""), string("type", "5")].join(","),
    );
    check_422(br#"{"type":"offer","webrtc_id":"a","candidate":[1]}"#, &dict("[1]"));
    check_422(br#"{"type":"ice-candidate","webrtc_id":"a","candidate":5}"#, &dict("5"));
    check_422(
        br#"{"type":1.5,"webrtc_id":{"a":1}}"#,
        &format!("{},{}", string("type", "1.5"), string("webrtc_id", r#"{"a":1}"#)),
    );
    for body in ["[]", "\"x\"", "5", "null", "true"] {
        check_422(
            body.as_bytes(),
            &format!(
                r#"{{"type":"model_attributes_type","loc":["body"],"msg":"Input should be a valid dictionary or object to extract fields from","input":{body}}}"#
            ),
        );
    }
    check_422(b"", r#"{"type":"missing","loc":["body"],"msg":"Field required","input":null}"#);
}

#[test]
fn our_own_shape_errors() {
    check_422(
        br#"{"type":"offer","webrtc_id":"a b"}"#,
        r#"{"type":"value_error","loc":["body","webrtc_id"],"msg":"Value error, a session id may consist of A-Z a-z 0-9 . _ ~ : @ - only (character 2 is not)","input":"a b","ctx":{"error":{}}}"#,
    );
    check_422(
        br#"{"type":"answer","webrtc_id":"a"}"#,
        r#"{"type":"literal_error","loc":["body","type"],"msg":"Input should be 'offer' or 'ice-candidate'","input":"answer","ctx":{"expected":"'offer' or 'ice-candidate'"}}"#,
    );
    check_422(
        br#"{"type":"offer","webrtc_id":"a","resume":1}"#,
        r#"{"type":"string_type","loc":["body","resume"],"msg":"Input should be a valid string","input":1}"#,
    );
}

#[test]
fn a_large_input_is_not_repeated() {
    let body = json!({"sdp": "x".repeat(100_000)}).to_string();
    let text = OfferBody::parse(body.as_bytes()).unwrap_err().to_json();
    assert_eq!(text.matches(r#""input":null"#).count(), 2);
    assert!(text.len() < 300, "{}", text.len());
}

/// The position counts characters. FastAPI names the same one, or the first of the token within which we stop.
#[test]
fn bodies_that_are_not_json() {
    #[track_caller]
    fn check(body: &[u8], position: usize) {
        let value: Value = serde_json::from_str(&OfferBody::parse(body).unwrap_err().to_json()).unwrap();
        let detail = &value["detail"][0];
        let reason = detail["ctx"]["error"].as_str().unwrap_or_default();
        assert!(!reason.is_empty() && !reason.contains(" at line "), "{detail}");
        let expected = json!({
            "type": "json_invalid", "loc": ["body", position], "msg": "JSON decode error", "input": {},
            "ctx": {"error": reason},
        });
        assert_eq!(*detail, expected);
    }
    check(br#"{"a":1,}"#, 7);
    check(b"{} x", 3);
    check(b"{", 1);
    check(b" ", 1);
    check(br#"{"a":"#, 5);
    check(b"\n\n", 2);
    check(b"[1 2]", 3);
    check(b"\n\n{\"a\":\n x}", 9);
    check("{\"\u{e9}\": x}".as_bytes(), 6);
    check("{\"\u{674e}\u{1f44b}\": x}".as_bytes(), 7);
    check(b"{a:1}", 1);
    check(b"\xff", 0);
    check(b"[".repeat(1000).as_slice(), 127);
    check(br#"{"a":"\ud800"}"#, 12);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(error) = OfferBody::parse(&bytes) {
            prop_assert!(serde_json::from_str::<Value>(&error.to_json()).is_ok());
        }
    }

    #[test]
    fn almost_bodies_are_survived(
        text in r#"\{?("(type|webrtc_id|sdp|candidate|resume|metadata)":("offer"|"ice-candidate"|null|5|\{\}|"[\\PC]{0,4}"),?){0,5}\}?"#,
    ) {
        match OfferBody::parse(text.as_bytes()) {
            Ok(body) => prop_assert!(body.webrtc_id().as_str().len() <= 128),
            Err(error) => {
                let well_formed = error.to_json().starts_with(r#"{"detail":[{"type":""#);
                prop_assert!(well_formed);
            }
        }
    }

    #[test]
    fn offers_keep_what_they_say(id in "[A-Za-z0-9._~:@-]{1,128}", sdp in any::<String>(), resume in any::<[u8; 16]>()) {
        prop_assume!(id != "." && id != "..");
        let resume = ResumeToken::from_random(resume);
        let read = offer(&json!({"type": "offer", "webrtc_id": id, "sdp": sdp, "resume": resume.reveal()}));
        prop_assert_eq!((read.webrtc_id.to_string(), read.sdp, read.resume), (id, sdp, Some(resume)));
    }

    #[test]
    fn messages_round_trip(text in any::<String>()) {
        for message in [
            ServerMessage::EndStream(text.clone()),
            ServerMessage::Error(text.clone()),
            ServerMessage::Warning(text.clone()),
            ServerMessage::log_received(&text),
        ] {
            prop_assert_eq!(ServerMessage::parse(&message.to_json()), Ok(message));
        }
    }
}
