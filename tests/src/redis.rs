//! A Redis of a fleet's own.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::scratch::Scratch;
use crate::server::signal;

/// A server that does not listen within this is broken, however busy the machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A server that keeps nothing on disk, with a port and a folder of its own. It is killed when dropped.
pub struct Redis {
    address: SocketAddr,
    child: Option<Child>,
    /// Goes after the process.
    scratch: Scratch,
}

/// Counts what clients have sent while it lives.
pub struct Monitor {
    child: Child,
    path: PathBuf,
}

/// A port that nobody listens on, below those that the system gives to whoever asks for any.
///
/// # Errors
/// When there is none.
pub(crate) fn free_port() -> Result<u16> {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 8_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        // Suites that run at the same time begin at different places.
        let step = std::process::id().wrapping_mul(41).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + step % COUNT)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free")
}

impl Redis {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// When `redis-server` is missing, exits, or does not listen within 30 s.
    pub fn start() -> Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], free_port()?)))
    }

    /// Starts one at an address, likewise.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub(crate) fn start_at(address: SocketAddr) -> Result<Self> {
        let mut redis = Self { address, child: None, scratch: Scratch::new()? };
        redis.launch()?;
        Ok(redis)
    }

    fn launch(&mut self) -> Result<()> {
        let log = self.scratch.path().join("log");
        let out = File::create(&log)?;
        let (ip, port) = (self.address.ip().to_string(), self.address.port().to_string());
        let mut command = Command::new("redis-server");
        // Whoever reaches it may ask it: no address of it is anybody else's.
        command.args([
            "--bind",
            &ip,
            "--port",
            &port,
            "--protected-mode",
            "no",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
        ]);
        command.arg(self.scratch.path()).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = self.child.insert(command.spawn().context("redis-server: `make test` installs it")?);
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(self.address).is_err() {
            let is_over = child.try_wait()?.is_some() || Instant::now() > deadline;
            ensure!(!is_over, "redis-server: {}", fs::read_to_string(&log)?);
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills it as a crash would: what it knew is gone.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Starts it again, empty, where it was.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.launch()
    }

    /// Stops it for a while (`STOP`), or lets it go on (`CONT`).
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, name: &str) -> Result<()> {
        signal(self.child.as_ref().context("it does not run")?, name)
    }

    /// What it answers to an administrator's command.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        let output = self.client().args(arguments).output().context("redis-cli: `make test` installs it")?;
        ensure!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// How many commands of a fleet it has carried out: those that the product sends, not what its scripts do.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn fleet_commands(&self) -> Result<u64> {
        const SENT: [&str; 6] = ["evalsha", "eval", "ping", "hello", "ssubscribe", "sunsubscribe"];
        // `cmdstat_evalsha:calls=12,usec=…`
        let calls = |line: &str| {
            let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let count = figures.split(',').next()?.parse::<u64>().ok()?;
            SENT.contains(&name).then_some(count)
        };
        Ok(self.command(&["INFO", "commandstats"])?.lines().filter_map(calls).sum())
    }

    /// Records what clients send from now on.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn monitor(&self) -> Result<Monitor> {
        let path = self.scratch.path().join("monitor");
        let out = File::create(&path)?;
        let child = self.client().arg("MONITOR").stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).spawn()?;
        let monitor = Monitor { child, path };
        let deadline = Instant::now() + START_LIMIT;
        // It says so when it begins.
        while monitor.text()?.is_empty() {
            ensure!(Instant::now() < deadline, "MONITOR is not answered");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(monitor)
    }

    fn client(&self) -> Command {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.address.port().to_string()]);
        command
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A command as a client has sent it.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The client's port.
    pub port: u16,
    /// The command with its arguments, each in quotation marks.
    pub text: String,
}

impl Monitor {
    /// What clients have sent so far, in order.
    ///
    /// # Errors
    /// When the record is gone.
    pub fn sent(&self) -> Result<Vec<Sent>> {
        // `1700000000.123456 [0 127.0.0.1:40123] "EVALSHA" …`; what a script does is `[0 lua] …`.
        let parse = |line: &str| {
            let (client, text) = line.split_once(" [")?.1.split_once("] ")?;
            let port = client.rsplit_once(':')?.1.parse().ok()?;
            Some(Sent { port, text: text.to_owned() })
        };
        Ok(self.text()?.lines().filter_map(parse).collect())
    }

    fn text(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.path)?)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
