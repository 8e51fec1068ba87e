//! The process seen from its supervisor: readiness, SIGTERM with live sessions, bad configuration.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use streamfleet_tests::{Script, Server};

const LIMIT: Duration = Duration::from_secs(60);
/// What the drain may take over its own deadline: closing the sessions and the ports, on a machine that also compiles.
const SLACK: Duration = Duration::from_secs(15);

#[test]
fn it_is_ready_when_it_says_so_and_stops_at_once_without_sessions() -> Result<()> {
    let mut server = Server::start(&[])?;
    assert_eq!((server.admin_status("/healthz")?, server.admin_status("/readyz")?), (200, 200));
    let public = streamfleet_tests::http::request("GET", &format!("{}/metrics", server.url()), &[], b"")?;
    assert_eq!(public.status, 404, "metrics are on the admin port alone: {public:?}");
    server.terminate()?;
    let status = server.wait(Duration::from_secs(10))?;
    assert!(status.success(), "{status}: {}", server.printed());
    Ok(())
}

/// A live call is told before it is cut, nothing new is admitted meanwhile, and the exit status is 0.
#[test]
fn sigterm_drains_live_sessions_and_exits_zero() -> Result<()> {
    let mut server = Server::start(&[("STREAMFLEET_DRAIN_TERMINATION_GRACE", "4s")])?;
    let mut script = Script::python(
        "call",
        &json!({ "url": format!("{}/echo", server.url()), "id": "live", "seconds": 1.0, "hold": true }),
    )?;
    script.expect("heard", LIMIT)?;

    server.terminate()?;
    let started = Instant::now();
    // Refused from the first moment on; how is the listener's choice: the documented failure, or no connection at all.
    let mut refused = None;
    while started.elapsed() < Duration::from_secs(3) {
        match server.offer("/echo", &json!({ "sdp": "v=0\r\n", "type": "offer", "webrtc_id": "late" })) {
            Ok(response) if response.refusal() == "draining" => refused = Some("with the failure `draining`"),
            Ok(response) if response.status == 400 => {}
            Ok(response) => anyhow::bail!("a draining server answered {response:?}"),
            Err(_) => refused = Some("by a closed port"),
        }
        if refused.is_some() {
            break;
        }
    }
    println!("a late offer was refused {}", refused.context("offers were still read 3 s after SIGTERM")?);

    let ended = script.expect("ended", Duration::from_secs(4) + SLACK)?;
    assert_eq!(ended["over"], true, "{ended}");
    let told = ended["messages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|text| serde_json::from_str::<Value>(text.as_str()?).ok());
    let reconnect = told
        .into_iter()
        .find(|message| message["type"] == "reconnect")
        .with_context(|| format!("not told to reconnect: {ended}"))?;
    assert_eq!(reconnect["data"]["reason"], "draining", "{reconnect}");
    let status = server.wait(SLACK)?;
    println!("exit {} s after SIGTERM", started.elapsed().as_secs());
    assert!(status.success(), "{status}: {}", server.printed());
    script.finish(LIMIT)
}

/// An orchestrator that cannot wait sends the signal twice.
#[test]
fn a_second_sigterm_does_not_wait() -> Result<()> {
    let mut server = Server::start(&[("STREAMFLEET_DRAIN_TERMINATION_GRACE", "60s")])?;
    let mut script = Script::python(
        "call",
        &json!({ "url": format!("{}/echo", server.url()), "id": "live", "seconds": 1.0, "hold": true }),
    )?;
    script.expect("heard", LIMIT)?;
    server.terminate()?;
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(
        server.sessions("/echo").map(|sessions| sessions.len()).unwrap_or(1),
        1,
        "the first signal lets sessions finish"
    );
    server.terminate()?;
    server.wait(Duration::from_secs(10))?;
    Ok(())
}

/// All mistakes at once, each with its key, and the exit status of a usage error (EX_USAGE, sysexits.h).
#[test]
fn bad_configuration_is_reported_whole() -> Result<()> {
    let output = Command::new(streamfleet_tests::streamfleet()?)
        .args(["dev", "--listen", "127.0.0.1:0"])
        .envs([("STREAMFLEET_MEDIA_LOOPS", "many"), ("STREAMFLEET_MEDIA_UDP", "nowhere")])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("media.loops") && said.contains("media.udp"), "both keys by name: {said}");
    Ok(())
}
