//! A real Chromium calls the built server: every shape of offer, audio judged by its spectrum and level, video by decoded
//! pictures, data-channel messages, the end of a call by the server, the demo page, and conversations on it.

#![expect(clippy::print_stdout, reason = "helpers of tests print their figures for the log")]

#[path = "browser/conversation.rs"]
mod conversation;
#[path = "browser/moving.rs"]
mod moving;

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use streamfleet_tests::{Script, Server, root, tool};

/// Starting a browser and a call takes 2 s on an idle core, and longer on a busy one.
const LIMIT: Duration = Duration::from_secs(60);

/// Opens a call to the service at `path` with `how` over the defaults.
fn call(server: &Server, path: &str, how: &Value) -> Result<Script> {
    let mut options = json!({ "url": format!("{}{path}", server.url()), "id": "b0", "shape": "complete" });
    for (key, value) in how.as_object().into_iter().flatten() {
        options[key] = value.clone();
    }
    Script::browser("call", &options)
}

/// The tone that is heard is the one sent: same frequency (the spectrum's step is 6 Hz), level within 2 dB, clean.
#[track_caller]
fn assert_tone(event: &Value, hz: f64) {
    let figure = |side: &str, name: &str| event[side][name].as_f64().unwrap_or(f64::NAN);
    assert!((figure("received", "peak_hz") - hz).abs() < 8.0, "{event}");
    assert!((figure("received", "level_db") - figure("sent", "level_db")).abs() < 2.0, "{event}");
    assert!(figure("received", "over_rest_db") > 25.0, "{event}");
    println!(
        "{hz} Hz: {:.1} dBFS sent, {:.1} received, {:.0} dB over the rest, {:.0} ms to follow",
        figure("sent", "level_db"),
        figure("received", "level_db"),
        figure("received", "over_rest_db"),
        event["switch_ms"].as_f64().unwrap_or(f64::NAN)
    );
}

/// What each shape must show besides the connection.
#[track_caller]
fn assert_shape(connected: &Value, shape: &str, addresses: &str) {
    let offered = connected["offered"].as_u64().unwrap_or(0);
    assert_eq!(offered > 0, shape == "complete", "{connected}");
    assert!(connected["candidates_answered"].as_u64() > Some(0), "the answer is complete: {connected}");
    assert_eq!(connected["streamed"], true, "clients read event.streams[0]: {connected}");
    let trickled = connected["trickled"].as_array().map_or(&[][..], Vec::as_slice);
    assert_eq!(!trickled.is_empty(), shape == "trickle", "{connected}");
    let hidden = trickled.iter().filter(|line| line.as_str().is_some_and(|line| line.contains(".local"))).count();
    assert_eq!(hidden > 0, shape == "trickle" && addresses == "hidden", "{connected}");
    for reply in connected["replies"].as_array().into_iter().flatten() {
        assert_eq!(*reply, json!({ "status": 200, "body": { "status": "success" } }), "{connected}");
    }
}

fn audio_returns(path: &str, shape: &str, addresses: &str) -> Result<()> {
    let server = Server::start(&[])?;
    let mut script = call(&server, path, &json!({ "shape": shape, "addresses": addresses, "tones": [440, 1000] }))?;
    let connected = script.expect("connected", LIMIT)?;
    println!(
        "{path} {shape}: answer {} ms after the offer, connected at {}",
        connected["answered_ms"], connected["connected_ms"]
    );
    assert_shape(&connected, shape, addresses);
    assert_tone(&script.expect("tone", LIMIT)?, 440.0);
    assert_tone(&script.expect("tone", LIMIT)?, 1000.0);
    script.expect("done", LIMIT)?;
    script.finish(LIMIT)
}

#[test]
fn a_complete_offer_gets_its_audio_back() -> Result<()> {
    audio_returns("/echo", "complete", "plain")
}

#[test]
fn trickled_candidates_may_overtake_the_offer() -> Result<()> {
    audio_returns("/echo", "trickle", "plain")
}

#[test]
fn trickled_names_of_hidden_addresses_are_accepted() -> Result<()> {
    audio_returns("/echo", "trickle", "hidden")
}

#[test]
fn an_offer_without_candidates_connects_by_the_clients_checks() -> Result<()> {
    audio_returns("/echo", "none", "plain")
}

#[test]
fn decoded_and_encoded_again_the_audio_keeps_pitch_and_level() -> Result<()> {
    audio_returns("/echo-frames", "complete", "plain")
}

/// The service at `/` is the default one, with the routes of its own prefix.
#[test]
fn the_default_service_answers_at_the_root() -> Result<()> {
    audio_returns("", "complete", "plain")
}

fn video_returns(codec: &str) -> Result<()> {
    let server = Server::start(&[])?;
    let colours = [[220, 30, 30], [30, 200, 40], [40, 60, 220]];
    let mut script = call(&server, "/echo", &json!({ "video": codec, "colours": colours, "tones": [440] }))?;
    script.expect("connected", LIMIT)?;
    assert_tone(&script.expect("tone", LIMIT)?, 440.0);
    for _ in colours {
        // The script reports a colour only when the decoded picture shows it: within 48 of 255 in each component.
        let event = script.expect("colour", LIMIT)?;
        println!(
            "{codec}: sent {}, decoded {} after {:.0} ms",
            event["sent"],
            event["received"],
            event["ms"].as_f64().unwrap_or(f64::NAN)
        );
    }
    let inbound = script.expect("inbound", LIMIT)?;
    assert_eq!(inbound["video"]["codec"], format!("video/{codec}"), "{inbound}");
    assert!(inbound["video"]["frames"].as_u64() > Some(5), "{inbound}");
    script.expect("done", LIMIT)?;
    script.finish(LIMIT)
}

#[test]
fn vp8_pictures_come_back() -> Result<()> {
    video_returns("VP8")
}

#[test]
fn h264_pictures_come_back() -> Result<()> {
    video_returns("H264")
}

#[test]
fn each_message_is_answered_in_the_words_clients_know() -> Result<()> {
    let server = Server::start(&[])?;
    let texts = ["hello", "ünïcode ✓", "{\"type\":\"send_input\"}", ""];
    let mut script = call(&server, "/echo", &json!({ "messages": texts }))?;
    for text in texts {
        let event = script.expect("message", LIMIT)?;
        assert_eq!(event["sent"], text);
        let first: Value = serde_json::from_str(event["received"][0].as_str().unwrap_or_default())?;
        assert_eq!(first, json!({ "type": "log", "data": format!("Server received: {text}") }), "{event}");
    }
    script.expect("done", LIMIT)?;
    script.finish(LIMIT)
}

#[test]
fn an_admin_ends_a_call_and_the_page_notices() -> Result<()> {
    let server = Server::start(&[])?;
    let mut script = call(&server, "/echo", &json!({ "id": "ended", "await_end": 20_000 }))?;
    // `inbound` is the last event before the script waits for the end.
    script.expect("inbound", LIMIT)?;
    assert_eq!(server.sessions("/echo")?.len(), 1);

    let url = format!("{}/echo/sessions/ended", server.url());
    let stranger = streamfleet_tests::http::request("DELETE", &url, &[("authorization", "Bearer guess")], b"")?;
    assert_eq!(stranger.status, 401, "{stranger:?}");
    assert_eq!(server.sessions("/echo")?.len(), 1, "a wrong token ends nothing");

    let reply = server.control("DELETE", "/echo/sessions/ended")?;
    assert_eq!(reply.status, 200, "{reply:?}");
    let ended = script.expect("ended", Duration::from_secs(15))?;
    println!("the page saw {}", ended["states"]);
    script.expect("done", LIMIT)?;
    script.finish(LIMIT)?;
    server.await_no_sessions(&["/echo"], Duration::from_secs(5))?;
    Ok(())
}

/// How long the server keeps the session of a page that has gone, one way or the other.
fn freed_after(hang_up: &Value) -> Result<Duration> {
    let server = Server::start(&[])?;
    let mut script = call(&server, "/echo", hang_up)?;
    script.expect("done", LIMIT)?;
    assert_eq!(server.sessions("/echo")?.len(), 1);
    script.finish(LIMIT)?;
    let took = server.await_no_sessions(&["/echo"], Duration::from_secs(60))?;
    println!("freed {} ms after the browser closed", took.as_millis());
    Ok(took)
}

#[test]
fn a_page_that_hangs_up_leaves_no_session() -> Result<()> {
    assert!(freed_after(&json!({ "hang_up": true }))? < Duration::from_secs(5));
    Ok(())
}

/// The browser is gone without a word: nothing arrives any more, and that alone ends the session.
#[test]
fn a_browser_that_vanishes_leaves_no_session() -> Result<()> {
    assert!(freed_after(&json!({ "hang_up": false }))? < Duration::from_secs(30));
    Ok(())
}

/// Returns the name of the worker that the page says it talks to.
fn the_demo_page_talks(server: &Server, how: &Value, steps: &[&str]) -> Result<Value> {
    let mut options = how.clone();
    options["url"] = json!(server.url());
    let mut script = Script::browser("demo", &options)?;
    let opened = script.expect("opened", LIMIT)?;
    assert_ne!(opened["state"], "connected", "{opened}");
    script.expect("connected", LIMIT)?;
    let stopped = script.expect("stopped", LIMIT)?;
    assert_eq!(stopped["steps"], json!(steps), "the page shows how far it came");
    assert_eq!(stopped["foreign"], json!([]), "requests to other origins");
    assert_eq!(stopped["broken"], json!([]), "failed requests and errors of the page");
    script.expect("done", LIMIT)?;
    script.finish(LIMIT)?;
    server.await_no_sessions(&["", "/echo", "/echo-frames"], Duration::from_secs(10))?;
    Ok(stopped["worker"].clone())
}

const STEPS: [&str; 6] = ["source done", "offer done", "ice done", "dtls done", "channel done", "media done"];

#[test]
fn the_demo_page_talks_to_its_server_and_to_nobody_else() -> Result<()> {
    let server = Server::start(&[])?;
    assert_eq!(
        the_demo_page_talks(&server, &json!({ "transport": "webrtc" }), &STEPS)?,
        Value::Null,
        "a worker alone has no name"
    );
    Ok(())
}

/// What `make run` serves: the page comes from the router, and says which worker it has found.
#[test]
fn the_demo_page_talks_through_a_router() -> Result<()> {
    let server = Server::start_fleet(&["--workers", "2"], &[])?;
    let worker = the_demo_page_talks(&server, &json!({ "transport": "webrtc", "fleet": true }), &STEPS)?;
    let printed = server.printed();
    let name = worker.as_str().unwrap_or_default();
    ensure!(!name.is_empty() && printed.contains(&format!("worker {name}, ")), "{name:?} is none of these:\n{printed}");
    Ok(())
}

#[test]
fn the_demo_page_talks_over_a_websocket() -> Result<()> {
    let steps = ["source done", "socket done", "session done", "media done"];
    the_demo_page_talks(&Server::start(&[])?, &json!({ "transport": "websocket" }), &steps)?;
    Ok(())
}

/// What the page computes, without a browser.
#[test]
fn the_demo_pages_own_tests_pass() -> Result<()> {
    let page = root().join("crates/cli/page");
    let run = Command::new(tool("STREAMFLEET_TEST_NODE")?).args(["--test", "tests/"]).current_dir(page).output()?;
    let printed = String::from_utf8_lossy(&run.stdout);
    println!("{printed}");
    ensure!(run.status.success(), "{}", run.status);
    // Node's runner succeeds where it finds none.
    ensure!(!printed.contains("# tests 0"), "there were tests to run");
    Ok(())
}
