//! A client outside this process: a browser driven by Node, or a Python program.

use std::io::Write as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::lines::{Lines, Tail};
use crate::program;
use crate::scratch::Scratch;

/// A running script. It takes one JSON argument, reads commands from its standard input, prints one JSON object per line, each
/// with a member `event`, and ends when its standard input does.
pub struct Script {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines,
    stderr: Lines,
    tail: Tail,
    /// Goes after the process: one that is killed removes nothing.
    _scratch: Scratch,
}

impl Script {
    /// Starts `tests/browser/{name}.mjs` with `options`.
    ///
    /// # Errors
    /// When Node, the packages or Chromium are missing.
    pub fn browser(name: &str, options: &Value) -> Result<Self> {
        Self::browser_by(name, options, |command| Ok(command.spawn()?))
    }

    /// The same where `start` says: it spawns what it is given.
    ///
    /// # Errors
    /// When Node, the packages or Chromium are missing, or as `start`.
    pub fn browser_by(name: &str, options: &Value, start: impl FnOnce(&mut Command) -> Result<Child>) -> Result<Self> {
        let mut command = Command::new(program::tool("STREAMFLEET_TEST_NODE")?);
        command.arg(program::root().join(format!("tests/browser/{name}.mjs")));
        for variable in ["STREAMFLEET_TEST_NODE_MODULES", "STREAMFLEET_TEST_CHROMIUM"] {
            command.env(variable, program::tool(variable)?);
        }
        Self::spawn(command, options, start)
    }

    /// Starts `tests/aiortc/{name}.py` with `options`.
    ///
    /// # Errors
    /// When Python or its packages are missing.
    pub fn python(name: &str, options: &Value) -> Result<Self> {
        let mut command = Command::new(program::tool("STREAMFLEET_TEST_PYTHON")?);
        command.arg("-u").arg(program::root().join(format!("tests/aiortc/{name}.py")));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        Self::spawn(command, options, |command| Ok(command.spawn()?))
    }

    fn spawn(mut command: Command, options: &Value, start: impl FnOnce(&mut Command) -> Result<Child>) -> Result<Self> {
        let scratch = Scratch::new()?;
        command.env("TMPDIR", scratch.path());
        command.arg(options.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = start(&mut command).with_context(|| format!("{command:?}"))?;
        let tail = Tail::default();
        let (stdout, stderr) = (child.stdout.take().context("no stdout")?, child.stderr.take().context("no stderr")?);
        let stdin = child.stdin.take();
        let (stdout, stderr) = (Lines::read(stdout, &tail), Lines::read(stderr, &tail));
        Ok(Self { child, stdin, stdout, stderr, tail, _scratch: scratch })
    }

    /// Waits for the event `name` and returns it; events before it are skipped.
    ///
    /// # Errors
    /// When the script reports `failed`, ends, or `limit` passes, with what it printed.
    pub fn expect(&mut self, name: &str, limit: Duration) -> Result<Value> {
        self.expect_any(&[name], limit)
    }

    /// Waits for the first event with one of these `names`, likewise.
    ///
    /// # Errors
    /// As of [`Self::expect`].
    pub fn expect_any(&mut self, names: &[&str], limit: Duration) -> Result<Value> {
        let deadline = Instant::now() + limit;
        while let Some(line) = self.stdout.next_before(deadline) {
            let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
            if event["event"].as_str().is_some_and(|name| names.contains(&name)) {
                return Ok(event);
            }
            if event["event"] == "failed" {
                break;
            }
        }
        self.stderr.drain(Duration::from_millis(500));
        bail!("no event {names:?} within {limit:?}; the script printed:\n{}", self.tail.text())
    }

    /// Gives the script a command: a line on its standard input.
    ///
    /// # Errors
    /// When it has ended.
    pub fn tell(&mut self, command: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("its standard input is closed")?;
        writeln!(stdin, "{command}").with_context(|| format!("the script has ended:\n{}", self.tail.text()))
    }

    /// Kills the script with SIGKILL: it says goodbye to nobody.
    pub fn vanish(self) {
        drop(self);
    }

    /// Asks the script to end and waits for exit status 0.
    ///
    /// # Errors
    /// When it fails, or still runs after `limit`.
    pub fn finish(mut self, limit: Duration) -> Result<()> {
        drop(self.stdin.take());
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.stderr.drain(Duration::from_millis(500));
                ensure!(status.success(), "the script failed, {status}; it printed:\n{}", self.tail.text());
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the script still runs after {limit:?}; it printed:\n{}",
                self.tail.text()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // A browser closes with the script's pipe to it, so killing the script is enough.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
