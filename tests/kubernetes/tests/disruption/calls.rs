//! Calls that are live while something happens, and what is said of them in the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use serde_json::Value;
use streamfleet_kubernetes_tests::fleet::{Calls, Gaps, Load, Outcome, Report};
use streamfleet_kubernetes_tests::promises::{Promise, Sockets, WebRtc, promise};
use streamfleet_kubernetes_tests::{Cluster, Talk, eventually, tell};

use super::LIMIT;
use super::workers::{Fleet, GOES, Worker};

/// Calls are measured for as long as it takes: this is longer than any scenario.
const LONG: u64 = 900;
/// WebRTC calls of a scenario, and packets of each that say that it is well beyond its beginning: four seconds.
const CALLS: usize = 4;
const PACKETS: u64 = 200;
/// How often calls are begun again.
const TRIES: usize = 5;
/// WebSockets.
const SOCKETS: usize = 2;
/// WebSockets that come back: each goes by a router of its own choice, and one in eight times none by that of one node.
const TALKS: usize = 3;
/// A call that heard nothing for so long is over: longer than anybody may take to notice, on a machine that stands still too, and shorter
/// than what is waited for those that are lost.
const OVER_MS: f64 = 20_000.0;

/// Sessions of workers, by their pods.
pub(crate) type Sessions = BTreeMap<String, u64>;

/// How a call ended that was not ended by anybody else.
const HUNG_UP: &str = "hung up";

/// Live calls.
pub(crate) struct Live<'a> {
    fleet: &'a Fleet<'a>,
    began: Instant,
    webrtc: Calls,
    sockets: Option<Calls>,
    talks: Vec<Talk>,
    /// Where they are.
    pub(crate) workers: Vec<Worker>,
    /// How many are where, those by WebRTC alone and all of them.
    pub(crate) webrtc_at: Sessions,
    pub(crate) at: Sessions,
}

/// What carries the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carriers {
    /// WebRTC, and WebSockets that have to last: for scenarios in which all routers stay, because a socket goes through one.
    Lasting,
    /// WebRTC, and WebSockets that come back by their token.
    Returning,
    /// WebRTC alone.
    Relayed,
}

/// Calls of which something else is expected than that they go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// Calls by WebRTC whose worker died.
    pub(crate) lost: u64,
    /// WebSockets that had to come back, at least and at most.
    pub(crate) back: (u64, u64),
    /// What is not heard until the load balancer has noticed, where that may be.
    pub(crate) noticed: Gaps,
}

impl Default for Expected {
    fn default() -> Self {
        Self { lost: 0, back: (0, 0), noticed: Gaps::NOTICED }
    }
}

impl<'a> Live<'a> {
    /// Begins to call, and answers when all calls are well under way, on all workers, and of sockets that come back one at least through
    /// the node that goes. Where a call goes is chance: otherwise they are begun again.
    pub(crate) async fn begin(fleet: &'a Fleet<'a>, carriers: Carriers) -> Result<Self> {
        let workers = fleet.settled().await?;
        for _ in 0..TRIES {
            eventually("earlier calls are over", LIMIT, async || {
                Ok((fleet.sessions(&workers)?.values().sum::<u64>() == 0).then_some(()))
            })
            .await?;
            let live = Self::start(fleet, carriers, &workers).await?;
            let node = fleet.cluster.nodes()[GOES].name();
            let through = fleet.sockets_through(node).await?;
            println!("live: {:?}, {:?} of them by WebRTC, {through} sockets through {node}", live.at, live.webrtc_at);
            let some_break = carriers != Carriers::Returning || through > 0;
            if some_break && live.webrtc_at.values().all(|sessions| *sessions > 0) {
                return Ok(live);
            }
            live.hang_up().await?;
        }
        Err(anyhow!("all calls were at one worker, or no socket went through {GOES}, {TRIES} times"))
    }

    async fn start(fleet: &'a Fleet<'a>, carriers: Carriers, workers: &[Worker]) -> Result<Self> {
        let heard = || -> Result<u64> {
            workers.iter().map(|worker| fleet.metric(worker, "streamfleet_media_packets_received_total")).sum()
        };
        let (began, before) = (Instant::now(), heard()?);
        let there = async |count: usize| {
            eventually("the calls are live", LIMIT, async || {
                let sessions = fleet.sessions(workers)?;
                let there = sessions.values().sum::<u64>() == count as u64;
                there.then(|| Some(sessions.clone())).ok_or_else(|| anyhow!("{sessions:?}"))
            })
            .await
        };
        let load = Load { url: &fleet.url, sessions: CALLS, ramp: 2, seconds: LONG, flags: &[] };
        let flags = ["--transport", "websocket"];
        let webrtc = Calls::start(fleet.cluster, load)?;
        let webrtc_at = there(CALLS).await?;
        let (sockets, talks, at) = match carriers {
            Carriers::Lasting => {
                let sockets = Calls::start(fleet.cluster, Load { sessions: SOCKETS, flags: &flags, ..load })?;
                (Some(sockets), Vec::new(), there(CALLS + SOCKETS).await?)
            }
            Carriers::Returning => {
                let talk = |_| Talk::begin(fleet.cluster, &fleet.url, &flags, None);
                (None, (0..TALKS).map(talk).collect::<Result<_>>()?, there(CALLS + TALKS).await?)
            }
            Carriers::Relayed => (None, Vec::new(), webrtc_at.clone()),
        };
        eventually("the calls are heard", LIMIT, async || {
            let packets = heard()? - before;
            (packets >= PACKETS * CALLS as u64).then_some(Some(())).ok_or_else(|| anyhow!("{packets} packets"))
        })
        .await?;
        Ok(Self { fleet, began, webrtc, sockets, talks, workers: workers.to_vec(), webrtc_at, at })
    }

    async fn hang_up(self) -> Result<Ended> {
        let mut ended = Ended { webrtc: self.webrtc.stop().await?, sockets: None, talks: Vec::new() };
        if let Some(sockets) = self.sockets {
            ended.sockets = Some(sockets.stop().await?);
        }
        for talk in self.talks {
            ended.talks.push(talk.hang_up().await?);
        }
        Ok(ended)
    }

    /// How many they are.
    pub(crate) fn count(&self) -> u64 {
        self.at.values().sum()
    }

    /// WebSockets that are at this worker.
    pub(crate) fn sockets_at(&self, worker: &Worker) -> u64 {
        self.at[&worker.name] - self.webrtc_at[&worker.name]
    }

    /// That each worker has as many as began there: none has ended, and none has moved. New ones, which may have come besides, are
    /// over soon.
    pub(crate) async fn are_where_they_began(&self) -> Result<()> {
        eventually("all calls are at the workers where they began", LIMIT, async || {
            let there = self.fleet.sessions(&self.workers)?;
            (there == self.at).then_some(Some(())).ok_or_else(|| anyhow!("{there:?}, and they began at {:?}", self.at))
        })
        .await
    }

    /// Hangs up, and holds what became of each call against the promise of docs/kubernetes.md.
    pub(crate) async fn end(self, when: &str, expected: Expected) -> Result<()> {
        let lasted = self.began.elapsed();
        ensure!(lasted > Duration::from_secs(4), "calls that were over before it had happened");
        let promised = promise(when)?;
        let cluster = self.fleet.cluster;
        tell(cluster, &format!("promised: {promised:?}; after {:.0} s:", lasted.as_secs_f32()))?;
        self.hang_up().await?.judge(cluster, promised, expected)
    }
}

/// What became of calls.
struct Ended {
    webrtc: Report,
    /// Of those that have to last.
    sockets: Option<Report>,
    /// Of those that come back.
    talks: Vec<Value>,
}

impl Ended {
    /// A line for each call.
    fn tables(&self, Expected { lost, back: (least, most), .. }: Expected) -> String {
        let mut text = format!("WebRTC, {lost} to be lost\n{}", self.webrtc.table());
        if let Some(sockets) = &self.sockets {
            text += &format!("WebSockets\n{}", sockets.table());
        }
        if !self.talks.is_empty() {
            text += &format!("WebSockets, {least} to {most} to come back\ncall  came back  heard  ended\n");
        }
        for (number, talk) in self.talks.iter().enumerate() {
            let word = |key: &str| talk[key].as_str().unwrap_or("?");
            let (back, heard) = (talk["reconnects"].as_u64().unwrap_or_default(), word("verdict") == "heard");
            text += &format!("{number:4}  {back:9}  {heard:5}  {}\n", word("end"));
        }
        text
    }

    fn judge(&self, cluster: &Cluster, promised: Promise, expected: Expected) -> Result<()> {
        tell(cluster, &self.tables(expected))?;
        match promised.webrtc {
            WebRtc::GoOn => self.webrtc.undisturbed()?,
            WebRtc::Interrupted => lost(&self.webrtc, 0, expected.noticed)?,
            WebRtc::Lost => lost(&self.webrtc, expected.lost, expected.noticed)?,
        }
        if let Some(sockets) = &self.sockets {
            ensure!(promised.sockets != Sockets::ComeBack, "such sockets cannot come back");
            sockets.undisturbed()?;
        }
        self.judge_talks(promised.sockets, expected.back)
    }

    /// Each was heard to its end, and came back only if it had to.
    fn judge_talks(&self, promised: Sockets, (least, most): (u64, u64)) -> Result<()> {
        let returned = |talk: &&Value| talk["reconnects"].as_u64().unwrap_or_default() > 0;
        let back = self.talks.iter().filter(returned).count() as u64;
        for talk in &self.talks {
            ensure!(talk["verdict"] == "heard" && talk["end"] == HUNG_UP, "a WebSocket was lost: {talk}");
        }
        match promised {
            Sockets::GoOn => ensure!(back == 0, "WebSockets broke: {:?}", self.talks),
            // Others hear nothing of it.
            Sockets::GoOnUnlessDrained | Sockets::ComeBack => ensure!(
                (least..=most).contains(&back),
                "{least} to {most} WebSockets had to come back, and {back} have: {:?}",
                self.talks
            ),
        }
        Ok(())
    }
}

/// So many are over, and others have missed what was on its way until the load balancer noticed.
fn lost(report: &Report, expected: u64, noticed: Gaps) -> Result<()> {
    let is_over = |each: &&Outcome| each.failure.is_some() || each.pause_ms > OVER_MS;
    let over = report.each.iter().filter(is_over).count() as u64;
    ensure!(over == expected, "{over} calls ended, and {expected} were to:\n{}", report.table());
    ensure!(report.each.len() == report.sessions.asked, "a call is not told of");
    let noticed = report.allowing(noticed);
    let is_well = |each: &Outcome| is_over(&each) || each.is_well(noticed);
    ensure!(report.each.iter().all(is_well), "beyond {noticed:?}:\n{}", report.table());
    Ok(())
}
