//! Steady calls for a long time: memory, sessions and descriptors stay where they were. Run by `make soak`.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use streamfleet_tests::Server;

/// Sessions of each round. Rounds, rather than one long call, exercise set-up and tear-down, where leaks are.
const SESSIONS: u32 = 50;
/// Seconds of each round.
const ROUND: u64 = 10;
/// What allocators keep: measured growth of a healthy server after the first rounds is a fraction of it.
const GROWTH: u64 = 16 << 20;

fn round(server: &Server, number: u32) -> Result<Value> {
    // Both paths in turn: encoded, and frames with the codecs' memory.
    let path = if number.is_multiple_of(2) { "/echo" } else { "/echo-frames" };
    let output = Command::new(streamfleet_tests::streamfleet()?)
        .args([
            "load",
            &format!("{}{path}", server.url()),
            "-n",
            &SESSIONS.to_string(),
            "--seconds",
            &ROUND.to_string(),
            "--json",
            "-",
        ])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "load: {}", output.status);
    serde_json::from_slice(&output.stdout).context("the report of `load`")
}

#[test]
#[ignore = "takes STREAMFLEET_SOAK_SECONDS (default 600): `make soak`"]
fn nothing_grows_under_steady_load() -> Result<()> {
    let seconds = std::env::var("STREAMFLEET_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(600);
    let server = Server::start(&[])?;
    let paths = ["/echo", "/echo-frames"];
    // Two rounds fill the pools and tables; what is there then is the level to keep.
    for number in 0..2 {
        round(&server, number)?;
    }
    server.await_no_sessions(&paths, Duration::from_secs(60))?;
    let (memory, descriptors) = (server.resident()?, server.descriptors()?);
    let started = Instant::now();
    let mut number = 0;
    while started.elapsed() < Duration::from_secs(seconds) {
        let report = round(&server, number)?;
        assert_eq!(report["sessions"]["failed"], 0, "round {number}: {report}");
        assert!(report["packets"]["share"].as_f64() >= Some(0.99), "round {number}: {report}");
        server.await_no_sessions(&paths, Duration::from_secs(60))?;
        println!(
            "round {number}: {:.1} MB resident, {} descriptors",
            server.resident()? as f64 / 1e6,
            server.descriptors()?
        );
        number += 1;
    }
    let grown = server.resident()?.saturating_sub(memory);
    assert!(grown < GROWTH, "{grown} bytes more than after the first rounds");
    assert!(server.descriptors()? <= descriptors + 4, "{} descriptors, {descriptors} before", server.descriptors()?);
    Ok(())
}
