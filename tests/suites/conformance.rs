//! The conformance suite against the real process: the clients and cases that FastRTC 0.0.34 itself was held against.
//!
//! The cases whose services can be configured from the built-in handlers; the others need handlers that are not there yet.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use streamfleet_tests::Server;

/// Parts of the names of the cases that are asked.
const CASES: &[&str] = &[
    "candidate/",
    "offer/",
    "telephone/counts",
    "telephone/echo",
    "telephone/other-events",
    "telephone/stop",
    "telephone/time-limit",
    "telephone/tone",
    "telephone/twiml",
    "webrtc/connects-at-once",
    "webrtc/echo",
    "webrtc/id-is-free",
    "webrtc/no-data-channel",
    "webrtc/server-received",
    "webrtc/time-limit",
    "webrtc/tone",
    "websocket/counts-for-webrtc",
    "websocket/duplicate",
    "websocket/echo",
    "websocket/limit",
    "websocket/media-before-start",
    "websocket/no-event",
    "websocket/not-json",
    "websocket/pcm16",
    "websocket/ping",
    "websocket/resume-token",
    "websocket/start-without-id",
    "websocket/stop",
    "websocket/time-limit",
    "websocket/tone",
    "websocket/unknown-event",
];

/// docs/conformance.md, "Services".
fn services() -> Value {
    let echo = |name: &str, limits: Value| json!({ "name": name, "path": format!("/{name}"), "handler": { "name": "echo" }, "limits": limits });
    let mut services = vec![
        // What a proxy would say is said by the suite itself.
        json!({ "name": "echo", "path": "/echo", "handler": { "name": "echo" }, "telephone": { "trustForwarded": true } }),
        echo("timed", json!({ "timeLimitSeconds": 2 })),
        echo("limited", json!({ "concurrency": 2 })),
        // Amplitude 0.25 is -12 dBFS where a sine that reaches full scale is 0.
        json!({ "name": "tone", "path": "/tone", "handler": { "name": "tone", "config": { "hz": 660, "level_dbfs": -12.04 } } }),
    ];
    for part in ["order", "socket", "webrtc", "mixed", "phone", "bad", "abandoned"] {
        services.push(echo(&format!("limited-{part}"), json!({ "concurrency": 1 })));
    }
    services.into()
}

#[test]
fn clients_of_fastrtc_find_what_they_rely_on() -> Result<()> {
    let server = Server::start_worker(&services(), &[])?;
    let python = std::env::var_os("STREAMFLEET_TEST_PYTHON").context("STREAMFLEET_TEST_PYTHON: run `make test`")?;
    let suite = concat!(env!("CARGO_MANIFEST_DIR"), "/conformance/run.py");
    let mut command = Command::new(python);
    command.arg(suite).arg("--server").arg(format!("streamfleet={}", server.url()));
    for case in CASES {
        command.args(["--only", case]);
    }
    let output = command.output().context("the suite does not run")?;
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    ensure!(output.status.success(), "{}{}\n{}", said, String::from_utf8_lossy(&output.stderr), server.printed());
    // A suite that asks nothing fails nothing.
    let asked = said.lines().filter(|line| line.starts_with("ok ")).count();
    ensure!(asked >= 60, "only {asked} cases were asked");
    Ok(())
}
