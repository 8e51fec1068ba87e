//! The Python client that FastRTC's users have: aiortc from PyPI, with its own candidates, judged by what it hears.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use streamfleet_tests::{Script, Server};

/// Python and its codecs take seconds to load on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The call's own tone came back: frequency to 3 Hz (a second is analysed), level within 3 dB of what aiortc sends (it loses
/// 3 dB of the sine's -15 dBFS by itself when it makes two channels of one), clean.
#[track_caller]
fn assert_heard(event: &Value) {
    let figure = |name: &str| event[name].as_f64().unwrap_or(f64::NAN);
    assert!((figure("peak_hz") - figure("hz")).abs() < 3.0, "{event}");
    assert!((figure("level_db") + 18.0).abs() < 3.0, "{event}");
    assert!(figure("over_rest_db") > 25.0, "{event}");
    let first: Value =
        event["messages"][0].as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    assert_eq!(first, json!({ "type": "log", "data": "Server received: hello" }), "{event}");
}

fn start(server: &Server, path: &str, mode: &str, calls: u32) -> Result<Script> {
    Script::python(
        "call",
        &json!({ "url": format!("{}{path}", server.url()), "id": "py", "mode": mode, "calls": calls, "seconds": 1.5 }),
    )
}

#[test]
fn thirty_calls_in_a_row_with_aiortcs_own_candidates() -> Result<()> {
    let server = Server::start(&[])?;
    let mut script = start(&server, "/echo", "complete", 30)?;
    let mut slowest = 0.0_f64;
    for _ in 0..30 {
        let connected = script.expect("connected", LIMIT)?;
        let tokens = connected["candidate_tokens"].as_array().cloned().unwrap_or_default();
        assert!(!tokens.is_empty() && tokens.iter().all(|count| *count == 8), "eight-token candidates: {connected}");
        slowest = slowest.max(connected["connected_ms"].as_f64().unwrap_or(f64::NAN));
        assert_heard(&script.expect("heard", LIMIT)?);
    }
    println!("30 calls; the slowest connected in {slowest:.0} ms");
    script.expect("done", LIMIT)?;
    script.finish(LIMIT)?;
    server.await_no_sessions(&["/echo"], Duration::from_secs(10))?;
    Ok(())
}

#[test]
fn candidates_as_object_to_string_writes_them() -> Result<()> {
    let server = Server::start(&[])?;
    let mut script = start(&server, "/echo", "trickle", 2)?;
    for _ in 0..2 {
        let connected = script.expect("connected", LIMIT)?;
        let replies = connected["replies"].as_array().cloned().unwrap_or_default();
        assert!(!replies.is_empty(), "{connected}");
        for reply in &replies {
            assert_eq!(reply[1], json!({ "status": "success" }), "{connected}");
        }
        assert_heard(&script.expect("heard", LIMIT)?);
    }
    script.expect("done", LIMIT)?;
    script.finish(LIMIT)
}

#[test]
fn an_offer_without_candidates_and_frames_that_are_coded_again() -> Result<()> {
    let server = Server::start(&[])?;
    let mut script = start(&server, "/echo-frames", "none", 2)?;
    for _ in 0..2 {
        script.expect("connected", LIMIT)?;
        assert_heard(&script.expect("heard", LIMIT)?);
    }
    script.expect("done", LIMIT)?;
    script.finish(LIMIT)
}

/// The refusals that a client acts on, against a live session, and that the session survives them.
#[test]
fn a_live_id_is_refused_and_the_call_goes_on() -> Result<()> {
    let server = Server::start(&[])?;
    let mut script = Script::python(
        "call",
        &json!({ "url": format!("{}/echo", server.url()), "id": "taken", "seconds": 1.0, "hold": true }),
    )?;
    assert_heard(&script.expect("heard", LIMIT)?);

    #[track_caller]
    fn check(server: &Server, body: &Value, status: u16, expected: &Value) {
        let response = server.offer("/echo", body).expect("a response");
        let answer = response.json().expect("JSON");
        assert_eq!(
            (response.status, &answer["status"], &answer["meta"]["error"]),
            (status, &json!("failed"), expected),
            "{body}"
        );
    }
    let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";
    check(
        &server,
        &json!({ "sdp": sdp, "type": "offer", "webrtc_id": "taken-0" }),
        200,
        &json!("connection_already_exists"),
    );
    check(&server, &json!({ "sdp": sdp, "type": "offer", "webrtc_id": "other" }), 400, &json!("invalid_offer"));
    check(&server, &json!({ "sdp": "nonsense", "type": "offer", "webrtc_id": "other" }), 400, &json!("invalid_offer"));
    check(
        &server,
        &json!({ "candidate": { "candidate": "candidate:x", "sdpMid": "0" }, "type": "ice-candidate", "webrtc_id": "taken-0" }),
        200,
        &json!("invalid_candidate_format"),
    );

    assert_eq!(server.sessions("/echo")?.len(), 1, "refused offers hold no slot");
    let ended = server.control("DELETE", "/echo/sessions/taken-0")?;
    assert_eq!(ended.status, 200, "{ended:?}");
    let event = script.expect("ended", Duration::from_secs(20))?;
    assert_eq!(event["over"], true, "the client notices the end: {event}");
    script.expect("done", LIMIT)?;
    script.finish(LIMIT)
}
