//! The server process under test.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::http::{self, Response};
use crate::lines::{Lines, Tail};
use crate::metrics::Metrics;
use crate::program;
use crate::scratch::Scratch;

/// Loading the program from a cold disk on a machine that also compiles takes seconds.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running server on free ports of the loopback address. It is killed when dropped; what it printed last then goes to the
/// test's own output, which cargo shows of failed tests.
pub struct Server {
    child: Child,
    stdout: Lines,
    stderr: Lines,
    tail: Tail,
    url: String,
    admin: String,
    media: Vec<SocketAddr>,
    token: String,
    /// Goes after the process.
    _scratch: Scratch,
}

/// What the process prints on stdout before it is ready.
#[derive(Default)]
struct Printed {
    url: Option<String>,
    admin: Option<String>,
    media: Vec<SocketAddr>,
    token: Option<String>,
}

impl Printed {
    fn line(&mut self, line: &str) {
        // Of a fleet's parts, clients know the router.
        if line.starts_with("worker ") {
            return;
        }
        let word_after = |mark: &str| {
            let (_, rest) = line.split_once(mark)?;
            Some(rest.split_whitespace().next()?.trim_end_matches(',').to_owned())
        };
        if let Some(media) = line.strip_prefix("media on ") {
            self.media = media.split_whitespace().filter_map(|address| address.parse().ok()).collect();
        }
        self.token = word_after("admin token: ").or(self.token.take());
        self.admin = word_after("admin on ").or(self.admin.take());
        self.url = word_after("listening on ").or(self.url.take());
    }
}

/// A setting under which [`Server::heap`] counts what is in use and nothing else. glibc keeps freed pieces for the thread that
/// freed them, and for the next of their size, and counts them as in use: a hundred kilobytes that come and go.
pub const EXACT_HEAP: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0");

impl Server {
    /// Starts `streamfleet dev`, every built-in handler at its name, with `settings` in its environment (`STREAMFLEET_*`),
    /// and waits until it has printed its addresses.
    ///
    /// # Errors
    /// When the program is missing, exits, or is not ready within 30 s.
    pub fn start(settings: &[(&str, &str)]) -> Result<Self> {
        Self::run(program::streamfleet()?, &["dev"], settings)
    }

    /// Starts `streamfleet fleet` with these arguments, likewise: its router's addresses, and every built-in handler at its name.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub fn start_fleet(arguments: &[&str], settings: &[(&str, &str)]) -> Result<Self> {
        let arguments: Vec<_> = std::iter::once("fleet").chain(arguments.iter().copied()).collect();
        Self::run(program::streamfleet()?, &arguments, settings)
    }

    /// Starts `streamfleet-worker` with these services (the list of its configuration), and otherwise likewise.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub fn start_worker(services: &Value, settings: &[(&str, &str)]) -> Result<Self> {
        Self::run_with(program::worker()?, services, settings)
    }

    /// Starts `streamfleet-test-services`, the worker that has the suites' own handlers, likewise.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub fn start_services(services: &Value, settings: &[(&str, &str)]) -> Result<Self> {
        Self::run_with(program::services()?, services, settings)
    }

    fn run_with(program: PathBuf, services: &Value, settings: &[(&str, &str)]) -> Result<Self> {
        let services = services.to_string();
        // Some handlers panic on purpose: to read the symbols for it takes an unoptimised program seconds of every core.
        let more = [("STREAMFLEET_SERVICES", services.as_str()), ("RUST_BACKTRACE", "0")];
        let settings: Vec<_> = settings.iter().copied().chain(more).collect();
        Self::run(program, &[], &settings)
    }

    fn run(program: PathBuf, arguments: &[&str], settings: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments);
        command.args(["--listen", "127.0.0.1:0", "--udp", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.envs(settings.iter().copied());
        Self::spawn(command, Scratch::new()?, None)
    }

    /// Starts a part of a fleet, a router's or a worker's program, by a configuration that has its addresses and the operator's token.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub(crate) fn start_part(mut command: Command, config: &Value, token: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        // JSON is YAML.
        let path = scratch.path().join("config.yaml");
        fs::write(&path, config.to_string())?;
        command.arg("--config").arg(path).env("RUST_BACKTRACE", "0");
        Self::spawn(command, scratch, Some(token.to_owned()))
    }

    fn spawn(mut command: Command, scratch: Scratch, token: Option<String>) -> Result<Self> {
        command.env("TMPDIR", scratch.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let tail = Tail::default();
        let (stdout, stderr) = (child.stdout.take().context("no stdout")?, child.stderr.take().context("no stderr")?);
        let (stdout, stderr) = (Lines::read(stdout, &tail), Lines::read(stderr, &tail));
        let (url, admin, media) = (String::new(), String::new(), Vec::new());
        let mut server =
            Self { child, stdout, stderr, tail, url, admin, media, token: String::new(), _scratch: scratch };
        server.await_addresses(token)?;
        Ok(server)
    }

    /// `token` is the operator's where it is configured: nothing is printed of it then.
    fn await_addresses(&mut self, token: Option<String>) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        let mut printed = Printed { token, ..Printed::default() };
        while let Some(line) = self.stdout.next_before(deadline) {
            printed.line(&line);
            if let Printed { url: Some(url), admin: Some(admin), token: Some(token), media } = &printed {
                (self.url, self.admin, self.token) =
                    (url.trim_end_matches('/').to_owned(), admin.trim_end_matches('/').to_owned(), token.clone());
                self.media.clone_from(media);
                return Ok(());
            }
        }
        self.stderr.drain(Duration::from_secs(1));
        bail!("the server is not ready ({:?}); it printed:\n{}", self.child.try_wait()?, self.tail.text())
    }

    /// `http://127.0.0.1:PORT`, without a path.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where clients are told to send media to: one address for each loop and advertised address.
    pub fn media(&self) -> &[SocketAddr] {
        &self.media
    }

    /// The token of the control routes.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The last lines of its output.
    pub fn printed(&self) -> String {
        self.tail.text()
    }

    /// Posts an offer or a candidate to the service at `path` (`/echo`).
    ///
    /// # Errors
    /// When there is no well-formed HTTP response.
    pub fn offer(&self, path: &str, body: &Value) -> Result<Response> {
        http::request(
            "POST",
            &format!("{}{path}/webrtc/offer", self.url),
            &[("content-type", "application/json")],
            body.to_string().as_bytes(),
        )
    }

    /// A control request with the admin token.
    ///
    /// # Errors
    /// When there is no well-formed HTTP response.
    pub fn control(&self, method: &str, path: &str) -> Result<Response> {
        http::request(
            method,
            &format!("{}{path}", self.url),
            &[("authorization", &format!("Bearer {}", self.token))],
            b"",
        )
    }

    /// The sessions of the service at `path`, as the control route lists them.
    ///
    /// # Errors
    /// When the answer is not the documented list.
    pub fn sessions(&self, path: &str) -> Result<Vec<Value>> {
        let response = self.control("GET", &format!("{path}/sessions"))?;
        ensure!(response.status == 200, "GET {path}/sessions: {response:?}");
        let body = response.json()?;
        let list = if body.is_array() { &body } else { &body["sessions"] };
        list.as_array().cloned().with_context(|| format!("no list of sessions: {body}"))
    }

    /// A scrape of the admin port.
    ///
    /// # Errors
    /// When it does not answer 200 with text.
    pub fn metrics(&self) -> Result<Metrics> {
        let response = http::request("GET", &format!("{}/metrics", self.admin), &[], b"")?;
        ensure!(response.status == 200, "GET /metrics: {response:?}");
        Ok(Metrics::parse(&response.text()?))
    }

    /// The status of an admin route (`/readyz`).
    ///
    /// # Errors
    /// When there is no well-formed HTTP response.
    pub fn admin_status(&self, path: &str) -> Result<u16> {
        Ok(http::request("GET", &format!("{}{path}", self.admin), &[], b"")?.status)
    }

    /// Resident memory, bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS: the process has ended")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// Bytes that the process has allocated and not freed.
    ///
    /// # Errors
    /// When there is no such gauge: the product has it wherever these tests run.
    pub fn heap(&self) -> Result<u64> {
        let metrics = self.metrics()?;
        let bytes = metrics.sum("streamfleet_process_heap_bytes");
        Ok(bytes.with_context(|| format!("no gauge of the heap:\n{}", metrics.names()))? as u64)
    }

    /// Open file descriptors.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }

    /// Threads.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn threads(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/task", self.child.id()))?.count())
    }

    /// Sends SIGTERM.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn terminate(&self) -> Result<()> {
        self.signal("TERM")
    }

    /// Sends a signal by its name (`STOP`).
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, name: &str) -> Result<()> {
        signal(&self.child, name)
    }

    /// Kills it as a crash would, and waits until it is gone.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Its own ports of the TCP connections that it has.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn tcp_ports(&self) -> Result<HashSet<u16>> {
        let mut sockets = HashSet::new();
        for entry in fs::read_dir(format!("/proc/{}/fd", self.child.id()))? {
            // A descriptor may be closed while they are read.
            let Ok(target) = fs::read_link(entry?.path()) else { continue };
            let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']'));
            sockets.extend(inode.map(str::to_owned));
        }
        // proc(5): `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode`, addresses as HEX:HEX.
        let table = fs::read_to_string("/proc/net/tcp")?;
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let ours = rows.filter(|row| row.get(9).is_some_and(|inode| sockets.contains(*inode)));
        Ok(ours.filter_map(|row| u16::from_str_radix(row[1].split_once(':')?.1, 16).ok()).collect())
    }

    /// Waits for the exit, at most `limit`.
    ///
    /// # Errors
    /// When it still runs then.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.stderr.drain(Duration::from_secs(1));
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "still running after {limit:?}; it printed:\n{}", self.tail.text());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Polls until no service of `paths` has a session, at most `limit`; returns how long that took.
    ///
    /// # Errors
    /// When some remain, with the first of them.
    pub fn await_no_sessions(&self, paths: &[&str], limit: Duration) -> Result<Duration> {
        self.await_sessions(paths, 0, limit)
    }

    /// Polls until the services of `paths` have at most `count` sessions together, at most `limit`; returns how long that
    /// took.
    ///
    /// # Errors
    /// When more remain, with the first of them.
    pub fn await_sessions(&self, paths: &[&str], count: usize, limit: Duration) -> Result<Duration> {
        let started = Instant::now();
        loop {
            let mut left = Vec::new();
            for path in paths {
                left.extend(self.sessions(path)?);
            }
            if left.len() <= count {
                return Ok(started.elapsed());
            }
            ensure!(started.elapsed() < limit, "{} sessions remain after {limit:?}; one is {}", left.len(), left[0]);
            thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Sends a process a signal by its name.
pub(crate) fn signal(child: &Child, name: &str) -> Result<()> {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status()?;
    ensure!(status.success(), "kill: {status}");
    Ok(())
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        #[expect(clippy::print_stderr, reason = "the output of a test")]
        {
            eprintln!("the server printed last:\n{}", self.tail.text());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Printed;

    #[test]
    fn addresses_are_found_whatever_surrounds_them() {
        let mut printed = Printed::default();
        for line in [
            "streamfleet 0.1.0",
            "listening on http://127.0.0.1:41234/ (3 handlers)",
            "  admin on http://127.0.0.1:9091",
            "media on 127.0.0.2:5000 [::1]:5000",
            "admin token: abc",
        ] {
            printed.line(line);
        }
        assert_eq!(printed.url.as_deref(), Some("http://127.0.0.1:41234/"));
        assert_eq!(printed.admin.as_deref(), Some("http://127.0.0.1:9091"));
        assert_eq!(printed.token.as_deref(), Some("abc"));
        assert_eq!(printed.media, ["127.0.0.2:5000".parse().unwrap(), "[::1]:5000".parse().unwrap()]);
    }

    #[test]
    fn of_a_fleet_the_router_is_known() {
        let mut printed = Printed::default();
        for line in [
            "worker w1-aa, media on 127.0.0.1:5000, admin on http://127.0.0.1:9091",
            "router 1, listening on http://127.0.0.1:8080, admin on http://127.0.0.1:9090",
            "worker w2-aa, media on 127.0.0.1:5001, admin on http://127.0.0.1:9092",
        ] {
            printed.line(line);
        }
        assert_eq!(printed.url.as_deref(), Some("http://127.0.0.1:8080"));
        assert_eq!(printed.admin.as_deref(), Some("http://127.0.0.1:9090"));
        assert!(printed.media.is_empty());
    }
}
