//! The process seen from its supervisor: readiness, SIGTERM with live sessions, bad configuration.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use streamfleet_tests::{Script, Server};

const LIMIT: Duration = Duration::from_secs(60);
/// What the drain may take over its own deadline: closing the sessions and the ports, on a machine that also compiles.
const SLACK: Duration = Duration::from_secs(15);
/// What leaving at once may take: a second for the clients, a second for HTTP, and a busy machine.
const AT_ONCE: Duration = Duration::from_secs(8);

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

/// Offers from the moment of the signal on, until one is refused; how it is refused is the listener's choice.
fn await_draining(server: &Server) -> Result<&'static str> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(3) {
        match server.offer("/echo", &json!({ "sdp": "v=0\r\n", "type": "offer", "webrtc_id": "late" })) {
            Ok(response) if response.refusal() == "draining" => return Ok("with the failure `draining`"),
            Ok(response) if response.status == 400 => {}
            Ok(response) => anyhow::bail!("a draining server answered {response:?}"),
            Err(_) => return Ok("by a closed port"),
        }
    }
    anyhow::bail!("offers were still read 3 s after SIGTERM")
}

/// The data-channel message of this type that the client got.
fn told(ended: &Value, kind: &str) -> Result<Value> {
    let messages = ended["messages"].as_array().into_iter().flatten();
    messages
        .filter_map(|text| serde_json::from_str::<Value>(text.as_str()?).ok())
        .find(|message| message["type"] == kind)
        .with_context(|| format!("no {kind}: {ended}"))
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
    println!("a late offer was refused {}", await_draining(&server)?);

    let ended = script.expect("ended", Duration::from_secs(4) + SLACK)?;
    assert_eq!(ended["over"], true, "{ended}");
    let reconnect = told(&ended, "reconnect")?;
    assert_eq!(reconnect["data"]["reason"], "draining", "{reconnect}");
    let status = server.wait(SLACK)?;
    println!("exit {} s after SIGTERM", started.elapsed().as_secs());
    assert!(status.success(), "{status}: {}", server.printed());
    script.finish(LIMIT)
}

/// A platform may send its signal again, as after a restart of its own: the live call goes on. A person who cannot wait interrupts: the call
/// is told that it is over, and the process leaves at once, with the status of a clean end.
#[test]
fn a_second_sigterm_ends_no_call_and_an_interrupt_does() -> Result<()> {
    let mut server = Server::start(&[("STREAMFLEET_DRAIN_TERMINATION_GRACE", "60s")])?;
    let mut script = Script::python(
        "call",
        &json!({ "url": format!("{}/echo", server.url()), "id": "live", "seconds": 1.0, "hold": true }),
    )?;
    script.expect("heard", LIMIT)?;
    server.terminate()?;
    await_draining(&server)?;
    script.tell("hear")?;
    script.expect("heard", LIMIT)?;
    assert_eq!(server.sessions("/echo")?.len(), 1, "the first signal lets sessions finish");

    server.terminate()?;
    script.tell("hear")?;
    script.expect("heard", LIMIT)?;
    assert_eq!(server.sessions("/echo")?.len(), 1, "so does the second");

    server.signal("INT")?;
    let started = Instant::now();
    let status = server.wait(AT_ONCE)?;
    println!("exit {} ms after SIGINT", started.elapsed().as_millis());
    assert!(status.success(), "{status}: {}", server.printed());
    let ended = script.expect("ended", SLACK)?;
    assert_eq!(ended["over"], true, "the client need not wait for its own time-out: {ended}");
    assert_eq!(told(&ended, "update_connection")?["data"], "closed");
    let audit = server.printed();
    assert!(audit.lines().any(|line| line.contains("session ended") && line.contains("shutdown")), "{audit}");
    script.finish(LIMIT)
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

/// What only the handlers and the relations between keys show is told with what the types show, not after it.
#[test]
fn an_unknown_handler_is_reported_with_everything_else() -> Result<()> {
    let services = json!([{ "name": "a", "handler": { "name": "ecko" } }, { "name": "a", "path": "/b" }]);
    let output = Command::new(streamfleet_tests::worker()?)
        .envs([("STREAMFLEET_MEDIA_LOOPS", "many"), ("STREAMFLEET_SERVICES", &services.to_string())])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    for mistake in ["media.loops: ", "services[0].handler: there is no handler `ecko`", "services[1].name: "] {
        assert!(said.contains(mistake), "no {mistake} in {said}");
    }
    Ok(())
}

/// The last lines of a log are about sessions, not about the libraries that counted them.
#[test]
fn a_process_leaves_without_words_of_its_libraries() -> Result<()> {
    let mut server = Server::start(&[])?;
    server.terminate()?;
    let status = server.wait(SLACK)?;
    let said = server.printed();
    assert!(status.success() && said.contains("drained"), "{status}: {said}");
    assert!(!said.contains("opentelemetry") && !said.contains("MeterProvider"), "{said}");
    Ok(())
}
