//! `streamfleet load` in a namespace: many calls of one process, whose report says what came back.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use streamfleet_tests::metrics::Metrics;
use streamfleet_tests::{Namespace, Site, streamfleet};

/// Calls under way.
pub(crate) struct Load {
    child: Option<Child>,
    calls: usize,
}

/// What became of them.
pub(crate) struct Outcome {
    report: Value,
}

/// The longest of each call, over all calls, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Longest {
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Load {
    /// Makes calls to a service from a namespace, so many a second, and measures them for `time` once they are all there.
    pub(crate) fn start(from: &Namespace, url: &str, calls: usize, ramp: usize, time: Duration) -> Result<Self> {
        let mut command = Command::new(streamfleet()?);
        command.args(["load", url, "--probes", "0", "--json", "-", "-n", &calls.to_string()]);
        command.args(["--ramp", &ramp.to_string(), "--seconds", &time.as_secs().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = from.run(|| command.spawn()).context("streamfleet load")?;
        Ok(Self { child: Some(child), calls })
    }

    /// Waits until all calls are there and measuring has begun.
    pub(crate) fn await_all(&self, site: &Site) -> Result<()> {
        self.await_more(site, 0)
    }

    /// The same, beside so many others.
    pub(crate) fn await_more(&self, site: &Site, others: usize) -> Result<()> {
        const SOON: Duration = Duration::from_secs(60);
        let began = Instant::now();
        loop {
            let active = active(site)?;
            if active == self.calls + others {
                // For the last of them to connect, and what `load` waits before it measures.
                std::thread::sleep(Duration::from_secs(2));
                return Ok(());
            }
            ensure!(began.elapsed() < SOON, "{active} of {} calls are there", self.calls + others);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for the report.
    pub(crate) fn finish(mut self) -> Result<Outcome> {
        let child = self.child.take().context("it is finished")?;
        let output = child.wait_with_output()?;
        let report: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{}: {}", output.status, String::from_utf8_lossy(&output.stdout)))?;
        Ok(Outcome { report })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sessions at all workers.
fn active(site: &Site) -> Result<usize> {
    let count = |worker: usize| -> Result<f64> {
        let metrics: Metrics = site.at_worker(worker, |server| server.metrics())??;
        Ok(metrics.sum("streamfleet_sessions_admitted").unwrap_or_default())
    };
    let counts: Vec<f64> = (0..site.workers()).map(count).collect::<Result<_>>()?;
    Ok(counts.iter().sum::<f64>() as usize)
}

impl Outcome {
    fn figure(&self, pointer: &str) -> f64 {
        self.report.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN)
    }

    /// The share of the packets sent that came back.
    pub(crate) fn share(&self) -> f64 {
        self.figure("/packets/share")
    }

    /// Times without any packet. A machine that stands still for a moment makes them longer, whatever the relays do.
    fn pauses(&self) -> Longest {
        self.longest("pause_ms")
    }

    /// Runs of packets of which none came back: what the network, and so the relays, have taken from a call's media.
    pub(crate) fn outages(&self) -> Longest {
        self.longest("outage_ms")
    }

    fn longest(&self, what: &str) -> Longest {
        let at = |name: &str| self.figure(&format!("/{what}/{name}"));
        Longest { p50: at("p50"), p95: at("p95"), p99: at("p99"), max: at("max") }
    }

    /// All calls went on to the end.
    pub(crate) fn none_ended(&self) -> Result<()> {
        let sessions = &self.report["sessions"];
        ensure!(sessions["failed"] == 0 && sessions["ok"] == sessions["asked"], "{sessions}");
        Ok(())
    }

    /// A line for the log.
    pub(crate) fn text(&self) -> String {
        let (Longest { p50, p95, p99, max }, pauses) = (self.outages(), self.pauses());
        format!(
            "{} calls, {} ended, {:.2} % of {} packets back, longest gap of each p50 {p50:.0} p95 {p95:.0} p99 {p99:.0} max \
             {max:.0} ms, with what this machine was late by p50 {:.0} p99 {:.0} max {:.0} ms, echo p50 {:.1} p99 {:.1} ms, \
             the client skipped {} packets",
            self.figure("/sessions/asked"),
            self.figure("/sessions/failed"),
            self.share() * 100.0,
            self.figure("/packets/sent"),
            pauses.p50,
            pauses.p99,
            pauses.max,
            self.figure("/echo/p50"),
            self.figure("/echo/p99"),
            self.figure("/client/skipped"),
        )
    }
}
