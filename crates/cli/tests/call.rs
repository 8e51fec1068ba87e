//! `streamfleet call --wait` against `streamfleet dev`: a service that is there later than its caller.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn streamfleet(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamfleet"));
    command.args(words).stdin(Stdio::null());
    command
}

/// An address on which nobody listens.
fn free() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn a_service_that_begins_later_is_called() {
    let address = free();
    let url = format!("http://{address}/echo");
    let mut call = streamfleet(&["call", &url, "--wait", "60", "--seconds", "2", "--json"]);
    let mut call = Killed(call.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut said = BufReader::new(call.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    let first = said.next().unwrap();
    assert!(first.starts_with("not yet: cannot reach"), "{first}");
    let mut dev = streamfleet(&["dev", "--listen", &address, "--udp", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let dev = dev.args(["--advertise", "127.0.0.1", "--loops", "1"]).stdout(Stdio::null()).stderr(Stdio::null());
    let _dev = Killed(dev.spawn().unwrap());
    let report: Value = serde_json::from_reader(call.0.stdout.take().unwrap()).unwrap();
    assert_eq!(report["verdict"], "heard", "{report:#}");
    assert_eq!(call.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_service_that_never_comes_is_given_up() {
    let url = format!("http://{}/echo", free());
    let output = streamfleet(&["call", &url, "--wait", "3"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("streamfleet call: cannot reach"), "{said}");
    // Told once, however often it was tried.
    assert_eq!(said.matches("not yet").count(), 1, "{said}");
}
