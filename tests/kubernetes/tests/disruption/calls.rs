//! Calls that are live while something happens, and what is said of them in the end.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use streamfleet_kubernetes_tests::eventually;
use streamfleet_kubernetes_tests::fleet::{Calls, Load, Outcome, Report};

use super::LIMIT;
use super::promises::{Promise, promise};
use super::workers::{Fleet, Worker};

/// Calls are measured for as long as it takes: this is longer than any scenario.
const LONG: u64 = 900;
/// WebRTC calls of a scenario, and packets of each that say that it is well beyond its beginning: four seconds.
const CALLS: usize = 4;
const PACKETS: u64 = 200;
/// How often calls are begun again.
const TRIES: usize = 5;
/// WebSockets.
const SOCKETS: usize = 2;
/// "Nothing" is no packet lost in a row longer than this; a machine that is busy building loses some.
const NOTHING_MS: f64 = 500.0;
/// Nor silence for longer than this, while other builds hold the cores.
const PAUSE_MS: f64 = 3_000.0;
/// "Until the load balancer notices": its health checks take up to a second, then a call's next check goes by another relay.
const NOTICED_MS: f64 = 8_000.0;
/// A call that heard nothing for so long is over.
const OVER_MS: f64 = 10_000.0;

/// Live calls.
pub(crate) struct Live<'a> {
    fleet: &'a Fleet<'a>,
    began: Instant,
    webrtc: Calls,
    sockets: Option<Calls>,
    /// Where they are.
    pub(crate) workers: Vec<Worker>,
}

/// What carries the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carriers {
    /// Both. A socket goes through one router, and is for scenarios in which all routers stay.
    All,
    WebRtc,
}

impl<'a> Live<'a> {
    /// Begins to call, and answers when all calls are well under way, on all workers. Where a call goes is chance: those that are all
    /// at one worker are begun again.
    pub(crate) async fn begin(fleet: &'a Fleet<'a>, carriers: Carriers) -> Result<Self> {
        let workers = fleet.settled().await?;
        for _ in 0..TRIES {
            eventually("earlier calls are over", LIMIT, async || {
                Ok((fleet.sessions(&workers)?.values().sum::<u64>() == 0).then_some(()))
            })
            .await?;
            let live = Self::start(fleet, carriers, &workers).await?;
            let sessions = fleet.sessions(&workers)?;
            println!("live: {sessions:?}");
            if sessions.values().all(|sessions| *sessions > 0) {
                return Ok(live);
            }
            live.hang_up().await?;
        }
        Err(anyhow!("all calls were at one worker, {TRIES} times"))
    }

    async fn start(fleet: &'a Fleet<'a>, carriers: Carriers, workers: &[Worker]) -> Result<Self> {
        let heard = || -> Result<u64> {
            workers.iter().map(|worker| fleet.metric(worker, "streamfleet_media_packets_received_total")).sum()
        };
        let before = heard()?;
        let load = Load { url: &fleet.url, sessions: CALLS, ramp: 2, seconds: LONG, flags: &[] };
        let webrtc = Calls::start(fleet.cluster, load)?;
        let sockets = (carriers == Carriers::All).then(|| {
            let flags = &["--transport", "websocket"];
            Calls::start(fleet.cluster, Load { sessions: SOCKETS, flags, ..load })
        });
        let live =
            Self { fleet, began: Instant::now(), webrtc, sockets: sockets.transpose()?, workers: workers.to_vec() };
        eventually("the calls are live", LIMIT, async || {
            let (sessions, packets) = (fleet.sessions(workers)?, heard()? - before);
            let there = sessions.values().sum::<u64>() == live.count() && packets >= PACKETS * CALLS as u64;
            there.then_some(Some(())).ok_or_else(|| anyhow!("{sessions:?}, {packets} packets"))
        })
        .await?;
        Ok(live)
    }

    async fn hang_up(self) -> Result<Vec<(&'static str, Report)>> {
        let mut reports = vec![("WebRTC", self.webrtc.stop().await?)];
        if let Some(sockets) = self.sockets {
            reports.push(("WebSockets", sockets.stop().await?));
        }
        Ok(reports)
    }

    /// How many they are.
    pub(crate) fn count(&self) -> u64 {
        (CALLS + if self.sockets.is_some() { SOCKETS } else { 0 }) as u64
    }

    /// That all of them are at the workers where they began.
    pub(crate) fn are_where_they_began(&self) -> Result<()> {
        let sessions = self.fleet.sessions(&self.workers)?;
        // New calls may have come besides.
        let there: u64 = sessions.values().sum();
        ensure!(there >= self.count(), "{there} of {} are live: {sessions:?}", self.count());
        Ok(())
    }

    /// Hangs up, and holds what became of each call against the promise of docs/kubernetes.md. Of `lost` calls their worker died.
    pub(crate) async fn end(self, when: &str, lost: usize) -> Result<()> {
        let lasted = self.began.elapsed();
        let promised = promise(when)?;
        let reports = self.hang_up().await?;
        for (carrier, report) in &reports {
            println!("{carrier}, {:.0} s:\n{}", lasted.as_secs_f32(), report.table());
        }
        reports.iter().try_for_each(|(carrier, report)| judge(carrier, report, promised, lost))?;
        ensure!(lasted > Duration::from_secs(4), "calls that were over before it had happened");
        Ok(())
    }
}

fn judge(carrier: &str, report: &Report, promised: Promise, lost: usize) -> Result<()> {
    let is_over = |each: &&Outcome| each.failure.is_some() || each.pause_ms > OVER_MS;
    let over = report.each.iter().filter(is_over).count();
    ensure!(over == lost, "{carrier}: {over} calls ended, and {lost} were to:\n{}", report.table());
    ensure!(report.each.len() == report.sessions.asked, "{carrier}: a call is not told of");
    let bound = match promised {
        Promise::GoOn => NOTHING_MS,
        Promise::Lost => NOTICED_MS,
    };
    for each in report.each.iter().filter(|each| !is_over(each)) {
        // What comes back decoded and encoded again has no numbers: then the pause tells, which is also this machine's.
        let is_well = each.back > 0 && each.outage_ms <= bound && each.pause_ms <= bound.max(PAUSE_MS);
        ensure!(is_well, "{carrier}: longer than {bound} ms:\n{}", report.table());
    }
    Ok(())
}
