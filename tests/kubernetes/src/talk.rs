//! One call from outside that is as a person's: it is heard to its end, and comes back by its token when its way breaks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::programs::built;
use crate::wait::eventually;

/// As long as the command lets a call be, and longer than any scenario.
const SECONDS: &str = "600";
/// It hangs up and reports within this, however busy the machine.
const HANGS_UP: Duration = Duration::from_secs(60);

/// A call (`streamfleet call`) that goes on until it is hung up. It ends with the cluster.
pub struct Talk {
    child: Child,
    report: PathBuf,
    log: PathBuf,
}

impl Talk {
    /// Begins to call. `roots` are the authorities that it trusts, where they are not the system's.
    ///
    /// # Errors
    /// When the program was not built.
    pub fn begin(cluster: &Cluster, url: &str, flags: &[&str], roots: Option<&Path>) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = |kind| cluster.folder().join(format!("talk-{number}.{kind}"));
        let (report, log) = (path("json"), path("log"));
        let mut command = Command::new(built("streamfleet")?);
        command.args(["call", url, "--seconds", SECONDS, "--json"]).args(flags);
        command.envs(roots.map(|roots| ("SSL_CERT_FILE", roots)));
        command.stdin(Stdio::null()).stdout(fs::File::create(&report)?).stderr(fs::File::create(&log)?);
        Ok(Self { child: cluster.client().spawn(&mut command)?, report, log })
    }

    /// Whether it is over.
    ///
    /// # Errors
    /// The kernel's.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Hangs up, and answers the call's report.
    ///
    /// # Errors
    /// When it does not end, or has no report.
    pub async fn hang_up(mut self) -> Result<Value> {
        if !self.has_ended()? {
            let interrupt = Command::new("kill").args(["-s", "INT", &self.child.id().to_string()]).status()?;
            ensure!(interrupt.success(), "kill: {interrupt}");
        }
        eventually("it has hung up", HANGS_UP, async || Ok(self.child.try_wait()?)).await?;
        let (said, log) = (fs::read_to_string(&self.report)?, fs::read_to_string(&self.log)?);
        serde_json::from_str(&said).with_context(|| format!("{said}\n{log}"))
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
