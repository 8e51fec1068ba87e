//! The Python client that FastRTC's users have: aiortc from PyPI, with its own candidates, judged by what it hears.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use streamfleet_tests::{Script, Server, judged};

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
    judged(|| {
        let server = Server::start(&[])?;
        let mut script = start(&server, "/echo", "complete", 30)?;
        let mut slowest = 0.0_f64;
        for _ in 0..30 {
            let connected = script.expect("connected", LIMIT)?;
            let tokens = connected["candidate_tokens"].as_array().cloned().unwrap_or_default();
            assert!(
                !tokens.is_empty() && tokens.iter().all(|count| *count == 8),
                "eight-token candidates: {connected}"
            );
            slowest = slowest.max(connected["connected_ms"].as_f64().unwrap_or(f64::NAN));
            assert_heard(&script.expect("heard", LIMIT)?);
        }
        println!("30 calls; the slowest connected in {slowest:.0} ms");
        script.expect("done", LIMIT)?;
        script.finish(LIMIT)?;
        server.await_no_sessions(&["/echo"], Duration::from_secs(10))?;
        Ok(())
    })
}

#[test]
fn candidates_as_object_to_string_writes_them() -> Result<()> {
    judged(|| {
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
    })
}

#[test]
fn an_offer_without_candidates_and_frames_that_are_coded_again() -> Result<()> {
    judged(|| {
        let server = Server::start(&[])?;
        let mut script = start(&server, "/echo-frames", "none", 2)?;
        for _ in 0..2 {
            script.expect("connected", LIMIT)?;
            assert_heard(&script.expect("heard", LIMIT)?);
        }
        script.expect("done", LIMIT)?;
        script.finish(LIMIT)
    })
}

/// The refusals that a client acts on, against a live session, and that the session survives them.
#[test]
fn a_live_id_is_refused_and_the_call_goes_on() -> Result<()> {
    judged(|| {
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
        check(
            &server,
            &json!({ "sdp": "nonsense", "type": "offer", "webrtc_id": "other" }),
            400,
            &json!("invalid_offer"),
        );
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
    })
}

/// Tells a gated script to post its offer, again and again, until it is admitted. Its refusals must all be the documented one.
fn call_until_admitted(script: &mut Script, limit: u32) -> Result<u32> {
    let started = Instant::now();
    for refusals in 0.. {
        script.expect("ready", LIMIT)?;
        script.tell("call")?;
        let event = script.expect_any(&["connected", "refused"], LIMIT)?;
        if event["event"] == "connected" {
            return Ok(refusals);
        }
        assert_limit(&event, limit);
        ensure!(started.elapsed() < Duration::from_secs(5), "still refused: {event}");
    }
    unreachable!("invariant: the range has no end")
}

#[track_caller]
fn assert_limit(refused: &Value, limit: u32) {
    let expected = json!({ "status": "failed", "meta": { "error": "concurrency_limit_reached", "limit": limit } });
    assert_eq!((&refused["status"], &refused["answer"]), (&json!(200), &expected), "{refused}");
}

/// The reasons with which sessions have ended, and how often.
fn endings(server: &Server) -> Result<(f64, f64, f64)> {
    let metrics = server.metrics()?;
    let of = |reason: &str| {
        let label = format!("reason=\"{reason}\"");
        metrics.sum_where("streamfleet_sessions_ended_total", &label).with_context(|| metrics.names())
    };
    let all = metrics.sum("streamfleet_sessions_ended_total").with_context(|| metrics.names())?;
    Ok((of("client_closed")?, of("connection_lost")?, all))
}

/// A full service refuses the next caller and says how many it takes; a place is free again when one has left, and also when
/// one is gone without a word.
#[test]
fn a_place_is_free_again_when_a_client_leaves_and_when_it_vanishes() -> Result<()> {
    judged(|| {
        let server =
            Server::start_worker(&json!([{ "name": "echo", "path": "/echo", "limits": { "concurrency": 2 } }]), &[])?;
        let caller = |id: &str| {
            let options = json!({
                "url": format!("{}/echo", server.url()), "id": id, "seconds": 1.0, "gate": true, "hold": true
            });
            Script::python("call", &options)
        };
        let (mut first, mut second, mut third, mut fourth) = (caller("a")?, caller("b")?, caller("c")?, caller("d")?);
        for live in [&mut first, &mut second] {
            assert_eq!(call_until_admitted(live, 2)?, 0, "there is room");
            assert_heard(&live.expect("heard", LIMIT)?);
        }
        for full in [&mut third, &mut fourth] {
            full.expect("ready", LIMIT)?;
            full.tell("call")?;
            assert_limit(&full.expect("refused", LIMIT)?, 2);
        }
        first.tell("hear")?;
        assert_heard(&first.expect("heard", LIMIT)?);

        first.finish(LIMIT)?;
        let left = server.await_sessions(&["/echo"], 1, Duration::from_secs(10))?;
        call_until_admitted(&mut third, 2)?;
        assert_heard(&third.expect("heard", LIMIT)?);
        assert_eq!(endings(&server)?, (1.0, 0.0, 1.0), "closed, lost, all");

        second.vanish();
        // Documented: 15 s without an answer to connectivity checks.
        let vanished = server.await_sessions(&["/echo"], 1, Duration::from_secs(15 + 10))?;
        call_until_admitted(&mut fourth, 2)?;
        assert_heard(&fourth.expect("heard", LIMIT)?);
        assert_eq!(endings(&server)?, (1.0, 1.0, 2.0), "closed, lost, all");
        println!("a place was free {} ms after a goodbye, {} ms after a kill", left.as_millis(), vanished.as_millis());
        third.finish(LIMIT)?;
        fourth.finish(LIMIT)?;
        server.await_no_sessions(&["/echo"], Duration::from_secs(10))?;
        Ok(())
    })
}

/// The answer to `DELETE` means that the session is over: its id can be offered again with the next request.
#[test]
fn a_deleted_id_can_be_offered_at_once() -> Result<()> {
    judged(|| {
        let server = Server::start(&[])?;
        let caller = |hz: u32| {
            let options = json!({
                "url": format!("{}/echo", server.url()), "id": "same", "hz": hz, "seconds": 1.0, "gate": true, "hold": true
            });
            Script::python("call", &options)
        };
        let (mut old, mut new) = (caller(440)?, caller(1_000)?);
        old.expect("ready", LIMIT)?;
        new.expect("ready", LIMIT)?;
        old.tell("call")?;
        assert_heard(&old.expect("heard", LIMIT)?);

        let deleted = server.control("DELETE", "/echo/sessions/same-0")?;
        new.tell("call")?;
        assert_eq!(deleted.status, 200, "{deleted:?}");
        let event = new.expect_any(&["connected", "refused"], LIMIT)?;
        assert_eq!(event["event"], "connected", "{event}");
        let ended = old.expect("ended", Duration::from_secs(20))?;
        assert_eq!(ended["over"], true, "{ended}");
        // The old client's goodbye, which comes by now at the latest, is not the new one's.
        old.finish(LIMIT)?;
        assert_heard(&new.expect("heard", LIMIT)?);
        new.tell("hear")?;
        assert_heard(&new.expect("heard", LIMIT)?);
        assert_eq!(server.sessions("/echo")?.len(), 1);
        new.finish(LIMIT)
    })
}
