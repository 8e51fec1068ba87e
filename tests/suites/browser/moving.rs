//! The demo page's call goes on at another worker of a fleet, whatever becomes of the one that had it.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamfleet_tests::{Script, Server};

use super::LIMIT;

/// A browser gives a silent peer half a minute before it says that it is lost; then the lease of its worker is over.
const LOST: Duration = Duration::from_secs(90);

/// A Redis of the test's own.
struct Redis {
    process: Child,
    address: String,
}

impl Redis {
    fn start() -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(std::env::temp_dir())
            .stdout(Stdio::null())
            .spawn()
            .context("redis-server: tests/setup/tools.sh installs it")?;
        let redis = Self { process, address: format!("127.0.0.1:{port}") };
        let started = Instant::now();
        while TcpStream::connect(&redis.address).is_err() {
            ensure!(started.elapsed() < Duration::from_secs(20), "redis-server does not answer");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The process of a worker, as the fleet has printed it.
fn process_of(server: &Server, worker: &str) -> Result<String> {
    let printed = server.printed();
    let start = format!("worker {worker}, pid ");
    let pid = printed.lines().find_map(|line| line.split_once(&start)?.1.split(',').next());
    pid.map(str::to_owned).with_context(|| format!("{worker:?} is none of these:\n{printed}"))
}

/// Returns who said what on the page.
fn moves_after(signal: &str) -> Result<Vec<Value>> {
    let redis = Redis::start()?;
    let settings = [("STREAMFLEET_DRAIN_TERMINATION_GRACE", "6s")];
    let server = Server::start_fleet(&["--redis", &redis.address, "--log", "warn"], &settings)?;
    let options = json!({ "url": server.url(), "transport": "webrtc", "fleet": true, "moves": true });
    let mut script = Script::browser("demo", &options)?;
    let served = script.expect("served", LIMIT)?;
    let first = served["worker"].as_str().unwrap_or_default();
    let status = Command::new("kill").args([signal, &process_of(&server, first)?]).status()?;
    ensure!(status.success(), "kill: {status}");
    let moved = script.expect("moved", LOST)?;
    let second = moved["worker"].as_str().unwrap_or_default();
    ensure!(second != first && process_of(&server, second).is_ok(), "{served} {moved}");
    script.expect("done", LIMIT)?;
    script.finish(LIMIT)?;
    server.await_no_sessions(&["/echo"], Duration::from_secs(20))?;
    moved["kinds"].as_array().cloned().context("no messages")
}

/// A worker that is to go tells its clients in time.
#[test]
fn a_page_follows_a_worker_that_drains() -> Result<()> {
    let kinds = moves_after("-TERM")?;
    ensure!(kinds.contains(&json!("server reconnect")), "{kinds:?}");
    Ok(())
}

/// A worker that was killed tells nobody: the page has its token, and waits until the fleet has given its id free.
#[test]
fn a_page_outlives_its_worker() -> Result<()> {
    let kinds = moves_after("-KILL")?;
    ensure!(kinds.contains(&json!("page reconnect")) && !kinds.contains(&json!("server reconnect")), "{kinds:?}");
    Ok(())
}
