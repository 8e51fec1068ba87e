//! Programs that stay: their output goes to a file, and they are stopped and started again by name.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context as _, Result, bail, ensure};
use parking_lot::Mutex;

use crate::machine::Place;

/// A program that was asked to end and has not after this long will not.
const ENDS: Duration = Duration::from_secs(20);

/// One program, which runs or does not. It is killed when this is dropped.
pub struct Part {
    name: &'static str,
    command: Vec<OsString>,
    log: PathBuf,
    tools: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Part {
    /// A program that does not run yet. Its output is added to `log`; `tools` is where it finds programs that it runs itself.
    pub(crate) fn new(name: &'static str, command: Vec<OsString>, log: PathBuf, tools: &Path) -> Self {
        Self { name, command, log, tools: tools.to_owned(), child: Mutex::default() }
    }

    /// Starts it at a place, unless it runs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, place: &Place) -> Result<()> {
        let mut child = self.child.lock();
        if let Some(running) = child.as_mut()
            && running.try_wait()?.is_none()
        {
            return Ok(());
        }
        let log =
            File::options().create(true).append(true).open(&self.log).with_context(|| format!("{:?}", self.log))?;
        let (program, arguments) = self.command.split_first().context("invariant: a part has a program")?;
        let mut command = Command::new(program);
        let mut path = self.tools.clone().into_os_string();
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        command.args(arguments).env("PATH", path).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        *child = Some(place.spawn(&mut command)?);
        Ok(())
    }

    /// Kills it as a crash would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self) -> Result<()> {
        let mut child = self.child.lock().take().with_context(|| format!("{} does not run", self.name))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    ///
    /// # Errors
    /// When it does not run, or does not end.
    pub fn stop(&self) -> Result<()> {
        let mut child = self.child.lock().take().with_context(|| format!("{} does not run", self.name))?;
        let number = i32::try_from(child.id())?;
        // SAFETY: kill(2) has no memory to break; the number is a child's that was not waited for, so it is nobody else's.
        ensure!(unsafe { libc::kill(number, libc::SIGTERM) } == 0, "{}", std::io::Error::last_os_error());
        let deadline = Instant::now() + ENDS;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                drop(child.kill());
                drop(child.wait());
                bail!("{} still ran {ENDS:?} after SIGTERM", self.name);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// That it has not ended by itself.
    ///
    /// # Errors
    /// When it has, with the last that it said.
    pub fn check(&self) -> Result<()> {
        let mut child = self.child.lock();
        let Some(status) = child.as_mut().map(Child::try_wait).transpose()?.flatten() else { return Ok(()) };
        bail!("{}: {status}; {:?} ends with:\n{}", self.name, self.log, last_lines(&self.log, 15))
    }

    /// Where its output is.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.get_mut().take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// The last lines of a file, or nothing where there is none.
pub(crate) fn last_lines(path: &Path, count: usize) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
