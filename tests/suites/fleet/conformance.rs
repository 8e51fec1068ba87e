//! FastRTC's clients, held against a router instead of a worker.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use streamfleet_tests::{Shape, services, tool};

use crate::{World, blocking, in_a_fleet, shape};

/// What clients are asked. How often handlers were shut down each worker counts for itself.
const PARTS: [&str; 10] = [
    "candidate/",
    "offer/",
    "webrtc/",
    "websocket/",
    "telephone/",
    "outputs/",
    "context/",
    "ending/socket",
    "ending/webrtc",
    "pause/",
];
/// A suite that asks nothing fails nothing.
const LEAST_CASES: usize = 125;

#[test]
fn clients_of_fastrtc_find_in_a_fleet_what_they_rely_on() -> Result<()> {
    let services = services::conformance().as_array().cloned().context("no list")?;
    in_a_fleet(Shape { routers: 1, ..shape(services) }, async |world: &mut World| {
        let suite = concat!(env!("CARGO_MANIFEST_DIR"), "/conformance/run.py");
        let url = world.fleet.routers[0].server.url();
        let mut command = Command::new(tool("STREAMFLEET_TEST_PYTHON")?);
        command.args([suite, "--server", &format!("streamfleet={url}")]).env("PYTHONDONTWRITEBYTECODE", "1");
        command.args(PARTS.iter().flat_map(|part| ["--only", part]));
        let output = blocking(|| command.output()).context("the suite does not run")?;
        let said = String::from_utf8_lossy(&output.stdout);
        println!("{said}");
        ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let passed = said.lines().filter(|line| line.starts_with("ok ")).count();
        ensure!(passed >= LEAST_CASES, "only {passed} cases were asked");
        world.await_no_places().await
    })
}
