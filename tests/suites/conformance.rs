//! The conformance suite: the same clients and cases against our process and against the real FastRTC 0.0.34.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use streamfleet_tests::{Server, services, tool};

/// A suite that asks nothing fails nothing.
const LEAST_CASES: usize = 125;
/// One at a time: what FastRTC makes of a busy machine would be told of it, and the load of one is measured in cases of the other.
static MACHINE: Mutex<()> = Mutex::new(());

/// Runs the suite with these arguments; what it says.
fn run(arguments: &[&str]) -> Result<String> {
    let suite = concat!(env!("CARGO_MANIFEST_DIR"), "/conformance/run.py");
    let mut command = Command::new(tool("STREAMFLEET_TEST_PYTHON")?);
    command.arg(suite).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().context("the suite does not run")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let passed = said.lines().filter(|line| line.starts_with("ok ")).count();
    ensure!(passed >= LEAST_CASES, "only {passed} cases were asked");
    Ok(said.into_owned())
}

#[test]
fn clients_of_fastrtc_find_what_they_rely_on() -> Result<()> {
    let _machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start_services(&services::conformance(), &[])?;
    println!("{}", run(&["--server", &format!("streamfleet={}", server.url())]).with_context(|| server.printed())?);
    Ok(())
}

/// Where the two tables of a case are one, this is what makes it FastRTC's behaviour and not our belief of it.
#[test]
fn fastrtc_itself_does_what_was_measured() -> Result<()> {
    let _machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{}", run(&["--server", "fastrtc", "--fastrtc-python", &tool("STREAMFLEET_TEST_FASTRTC")?])?);
    Ok(())
}

/// What the suite judges with, judged.
#[test]
fn the_judge_is_judged() -> Result<()> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/conformance");
    let mut command = Command::new(tool("STREAMFLEET_TEST_PYTHON")?);
    command.args(["-m", "unittest", "discover", "-s", folder]).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().context("unittest does not run")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.contains("OK"), "{said}");
    Ok(())
}
