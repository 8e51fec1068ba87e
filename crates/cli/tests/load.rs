//! `streamfleet load` against `streamfleet dev`: the two programs, real sockets, real sessions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A server for one test.
struct Dev {
    process: Child,
    url: String,
}

impl Dev {
    fn start() -> Self {
        let local = ["--listen", "127.0.0.1:0", "--udp", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let mut process = Command::new(env!("CARGO_BIN_EXE_streamfleet"))
            .arg("dev")
            .args(local)
            .args(["--advertise", "127.0.0.1", "--loops", "1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("open ").map(|url| url.trim_end_matches('/').to_owned()))
            .expect("the server says where it is");
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { process, url }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The status and the report.
fn load(url: &str, words: &str) -> (i32, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_streamfleet"))
        .args(["load", url, "--json", "-"])
        .args(words.split(' '))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code().unwrap(), report)
}

/// The figures at these places, all of which there are.
#[track_caller]
fn figures<const N: usize>(report: &Value, pointers: [&str; N]) -> [f64; N] {
    pointers.map(|pointer| {
        report.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {report:#}"))
    })
}

#[test]
fn sessions_of_either_path_are_measured() {
    let dev = Dev::start();
    for (handler, srtp, path, method) in [
        ("echo", "gcm", "encoded", "packets"),
        ("echo", "cm", "encoded", "packets"),
        ("echo-frames", "any", "frames", "bursts"),
    ] {
        let words = format!("-n 6 --ramp 20 --seconds 4 --probes 3 --srtp {srtp}");
        let (status, report) = load(&format!("{}/{handler}", dev.url), &words);
        println!("{handler} {srtp}: {report:#}");
        assert_eq!(status, 0);
        assert_eq!((report["path"].as_str(), report["echo"]["method"].as_str()), (Some(path), Some(method)));
        let [ok, failed, sent, share] =
            figures(&report, ["/sessions/ok", "/sessions/failed", "/packets/sent", "/packets/share"]);
        assert_eq!((ok, failed), (6.0, 0.0));
        // 50 packets a second of each session; the machine may be slow, but not that slow.
        assert!((1_100.0..=1_206.0).contains(&sent), "{sent}");
        assert!(share > 0.9, "{share}");
        let [p50, answer, media, cpu] =
            figures(&report, ["/echo/p50", "/offer_to_answer_ms/p50", "/offer_to_first_media_ms/p50", "/client/cpu"]);
        assert!(p50 > 0.0 && answer > 0.0 && media > answer && cpu > 0.0 && cpu < 1.0, "{report:#}");
        if path == "frames" {
            // At least what a packet of 20 ms has to wait somewhere, and not what only a broken clock would measure.
            assert!((5.0..500.0).contains(&p50), "{p50}");
        }
    }
}

#[test]
fn refusals_are_counted_by_their_reason() {
    let dev = Dev::start();
    let (status, report) = load(&format!("{}/no-such-handler", dev.url), "-n 4 --seconds 1");
    assert_eq!(status, 1);
    assert_eq!(report["sessions"]["failures"], serde_json::json!({ "refused: service_not_found": 4 }));
    assert_eq!((report["path"].as_str(), report["packets"]["sent"].as_u64()), (Some("none"), Some(0)));
}

#[test]
fn a_server_that_is_not_there_is_said_to_be_unreachable() {
    // Nobody listens on the discard port.
    let (status, report) = load("http://127.0.0.1:9/echo", "-n 2 --seconds 1");
    assert_eq!(status, 1);
    let failures = report["sessions"]["failures"].as_object().unwrap();
    assert!(failures.len() == 1 && failures.keys().all(|reason| reason.starts_with("unreachable")), "{report:#}");
}
