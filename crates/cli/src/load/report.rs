//! What the load generator found out.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::arguments::Plan;
use super::histogram::{Histogram, Summary};
use super::media::{Share, Tally};
use super::session::{Failure, Setup};

/// A session is clean if so much of what it sent came back.
const CLEAN: f64 = 0.99;

/// All figures. Times are milliseconds, shares 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Report {
    pub(super) url: String,
    pub(super) sessions: Sessions,
    /// How media came back.
    pub(super) path: Path,
    /// How long packets were counted.
    pub(super) measured_s: f64,
    pub(super) packets: Packets,
    /// From a packet's sending to its coming back.
    pub(super) echo: Option<Echo>,
    /// Of each session that was well, the longest time without anything from the server.
    pub(super) pause_ms: Option<Summary>,
    /// Of the same, the longest run of packets of which none came back. `None` where they do not come back as they went.
    pub(super) outage_ms: Option<Summary>,
    pub(super) offer_to_answer_ms: Option<Summary>,
    pub(super) offer_to_first_media_ms: Option<Summary>,
    pub(super) client: Client,
    /// What became of each session, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) each: Vec<Each>,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Each {
    /// Why it failed; `None` of one that was well to the end.
    pub(super) failure: Option<String>,
    /// Packets that it sent, and those that came back, while measuring. None of one that failed.
    pub(super) sent: u64,
    pub(super) back: u64,
    /// The longest time without anything from the server.
    pub(super) pause_ms: f64,
    /// The longest run of packets of which none came back.
    pub(super) outage_ms: f64,
}

impl Each {
    fn of((_, outcome): &(Setup, Result<Share, Failure>)) -> Self {
        let ms = |time: Duration| round(time.as_secs_f64() * 1e3);
        match outcome {
            Ok(share) => Self {
                failure: None,
                sent: share.sent,
                back: share.back,
                pause_ms: ms(share.pause),
                outage_ms: ms(share.outage),
            },
            Err(failure) => Self { failure: Some(failure.label()), sent: 0, back: 0, pause_ms: 0.0, outage_ms: 0.0 },
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Sessions {
    pub(super) asked: usize,
    /// Connected, heard from, and alive to the end.
    pub(super) ok: usize,
    /// Of those, with at least 99 % of their packets back.
    pub(super) clean: usize,
    pub(super) failed: usize,
    pub(super) failures: BTreeMap<String, usize>,
}

/// What kind of handler the server has, as its packets tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Path {
    /// Packets come back as they went.
    Encoded,
    /// They are decoded and encoded again, or the server's own.
    Frames,
    /// Both.
    Mixed,
    /// Nothing came.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Packets {
    pub(super) sent: u64,
    pub(super) back: u64,
    pub(super) share: f64,
    /// Per second of measuring.
    pub(super) sent_per_s: f64,
    /// Not from the server, or damaged.
    pub(super) refused: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Echo {
    pub(super) method: Method,
    #[serde(flatten)]
    pub(super) ms: Summary,
}

/// How the echo's latency was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Method {
    /// Each packet, by its number.
    Packets,
    /// Some sessions' tone bursts, decoded: how much later a burst comes than it went, without a buffer of our own.
    Bursts,
}

/// What this program itself used: where it is at its limit the server's figures are not the server's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Client {
    /// The media thread's share of a core while measuring.
    pub(super) cpu: f64,
    /// CPU time of the media thread per packet sent and received, microseconds.
    pub(super) cpu_us_per_packet: f64,
    /// How much later than planned packets were sent.
    pub(super) late_ms: Option<Summary>,
    /// Packets not sent because it was too late for them.
    pub(super) skipped: u64,
    /// Datagrams that the kernel did not take.
    pub(super) send_errors: u64,
}

/// What only the outside knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    pub(super) url: String,
    pub(super) measured: Duration,
    pub(super) cpu: Duration,
    pub(super) send_errors: u64,
    /// Packets that came while measuring.
    pub(super) received: u64,
}

impl Report {
    pub(super) fn new(run: Run, outcomes: &[(Setup, Result<Share, Failure>)], tally: &Tally) -> Self {
        let seconds = run.measured.as_secs_f64();
        let per_second = |count: u64| if seconds > 0.0 { round(count as f64 / seconds) } else { 0.0 };
        let back = tally.matched + tally.recoded;
        let handled = tally.sent + run.received;
        let cpu = run.cpu.as_secs_f64();
        let since = |setup: &Setup, then: fn(&Setup) -> Option<std::time::Instant>| {
            then(setup)?.checked_duration_since(setup.offered?)
        };
        Self {
            url: run.url,
            sessions: Sessions::new(outcomes),
            path: match (tally.matched, tally.recoded) {
                (0, 0) => Path::None,
                (_, 0) => Path::Encoded,
                (0, _) => Path::Frames,
                _ => Path::Mixed,
            },
            measured_s: round(seconds),
            packets: Packets {
                sent: tally.sent,
                back,
                share: share(back, tally.sent),
                sent_per_s: per_second(tally.sent),
                refused: tally.refused,
            },
            echo: echo(tally),
            outage_ms: distribution(outcomes.iter().filter_map(|(_, outcome)| Some(outcome.as_ref().ok()?.outage)))
                .filter(|_| tally.matched > 0),
            pause_ms: distribution(outcomes.iter().filter_map(|(_, outcome)| Some(outcome.as_ref().ok()?.pause))),
            offer_to_answer_ms: distribution(outcomes.iter().filter_map(|(setup, _)| since(setup, |s| s.answered))),
            offer_to_first_media_ms: distribution(
                outcomes.iter().filter_map(|(setup, _)| since(setup, |s| s.first_media)),
            ),
            client: Client {
                cpu: if seconds > 0.0 { round(cpu / seconds) } else { 0.0 },
                cpu_us_per_packet: if handled > 0 { round(cpu * 1e6 / handled as f64) } else { 0.0 },
                late_ms: tally.late.summary(),
                skipped: tally.skipped,
                send_errors: run.send_errors,
            },
            each: Vec::new(),
        }
    }

    /// The same with every session.
    pub(super) fn with_each(self, outcomes: &[(Setup, Result<Share, Failure>)]) -> Self {
        Self { each: outcomes.iter().map(Each::of).collect(), ..self }
    }

    /// The same with every session, if the plan wants that.
    pub(super) fn planned(self, plan: &Plan, outcomes: &[(Setup, Result<Share, Failure>)]) -> Self {
        if plan.each { self.with_each(outcomes) } else { self }
    }

    /// 0 if all sessions are well, 1 if none is, 2 if some are not.
    pub(super) fn status(&self) -> u8 {
        match (self.sessions.ok, self.sessions.failed) {
            (_, 0) => 0,
            (0, _) => 1,
            _ => 2,
        }
    }
}

impl Sessions {
    fn new(outcomes: &[(Setup, Result<Share, Failure>)]) -> Self {
        let mut sessions = Self { asked: outcomes.len(), ..Self::default() };
        for (_, outcome) in outcomes {
            match outcome {
                Ok(part) => {
                    sessions.ok += 1;
                    sessions.clean += usize::from(part.sent > 0 && share(part.back, part.sent) >= CLEAN);
                }
                Err(failure) => {
                    sessions.failed += 1;
                    *sessions.failures.entry(failure.label()).or_default() += 1;
                }
            }
        }
        sessions
    }
}

/// Packets tell more than bursts do, so where there are any they count.
fn echo(tally: &Tally) -> Option<Echo> {
    let packets = tally.echo.summary().map(|ms| Echo { method: Method::Packets, ms });
    packets.or_else(|| tally.bursts.summary().map(|ms| Echo { method: Method::Bursts, ms }))
}

fn distribution(times: impl Iterator<Item = Duration>) -> Option<Summary> {
    let mut histogram = Histogram::default();
    times.for_each(|time| histogram.record(time));
    histogram.summary()
}

/// A handler may send more than it gets; that is no more than all.
pub(super) fn share(back: u64, sent: u64) -> f64 {
    if sent == 0 { 0.0 } else { (back as f64 / sent as f64).min(1.0) }
}

fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn ok(sent: u64, back: u64) -> (Setup, Result<Share, Failure>) {
        let (offered, pause, outage) = (Instant::now(), Duration::from_millis(sent), Duration::from_millis(back));
        let after = |ms| Some(offered + Duration::from_millis(ms));
        (
            Setup { offered: Some(offered), answered: after(10), first_media: after(30) },
            Ok(Share { sent, back, pause, outage }),
        )
    }

    fn failed(failure: Failure) -> (Setup, Result<Share, Failure>) {
        (Setup::default(), Err(failure))
    }

    #[test]
    fn sessions_are_sorted_by_what_became_of_them() {
        let lost = || failed(Failure::Lost);
        #[track_caller]
        fn check(outcomes: &[(Setup, Result<Share, Failure>)], expected: (usize, usize, usize), status: u8) {
            let report = Report::new(Run::default(), outcomes, &Tally::default());
            let sessions = &report.sessions;
            assert_eq!((sessions.ok, sessions.clean, sessions.failed), expected);
            assert_eq!(sessions.failures.values().sum::<usize>(), sessions.failed);
            assert_eq!(report.status(), status);
        }
        check(&[ok(100, 99), ok(100, 98), ok(0, 0)], (3, 1, 0), 0);
        check(&[ok(100, 100), lost()], (1, 1, 1), 2);
        check(&[lost(), failed(Failure::Refused("x".into())), lost()], (0, 0, 3), 1);
    }

    #[test]
    fn each_is_told_where_that_is_asked_for() {
        let outcomes = [ok(100, 99), failed(Failure::Lost)];
        let report = Report::new(Run::default(), &outcomes, &Tally::default());
        assert!(serde_json::to_value(&report).unwrap().get("each").is_none());
        let each = &serde_json::to_value(report.with_each(&outcomes)).unwrap()["each"];
        let well =
            serde_json::json!({ "failure": null, "sent": 100, "back": 99, "pause_ms": 100.0, "outage_ms": 99.0 });
        assert_eq!(each[0], well);
        assert_eq!(each[1]["failure"], "connection lost");
    }

    #[test]
    fn the_path_is_what_came_back() {
        let check = |matched, recoded, path| {
            let tally = Tally { sent: 10, matched, recoded, ..Tally::default() };
            let report = Report::new(Run::default(), &[], &tally);
            assert_eq!((report.path, report.packets.back), (path, matched + recoded));
        };
        check(0, 0, Path::None);
        check(9, 0, Path::Encoded);
        check(0, 9, Path::Frames);
        check(5, 5, Path::Mixed);
    }

    #[test]
    fn rates_and_shares() {
        let mut tally = Tally { sent: 1_000, matched: 990, ..Tally::default() };
        tally.echo.record(Duration::from_millis(2));
        tally.bursts.record(Duration::from_millis(40));
        let run = Run {
            url: "http://x".to_owned(),
            measured: Duration::from_secs(10),
            cpu: Duration::from_millis(500),
            send_errors: 3,
            received: 1_000,
        };
        let report = Report::new(run, &[ok(1_000, 990)], &tally);
        assert_eq!((report.packets.share, report.packets.sent_per_s), (0.99, 100.0));
        assert_eq!((report.client.cpu, report.client.cpu_us_per_packet), (0.05, 250.0));
        let echo = report.echo.unwrap();
        assert_eq!((echo.method, echo.ms.p50), (Method::Packets, 2.0));
        assert_eq!((report.pause_ms.unwrap().max, report.outage_ms.unwrap().max), (1_000.0, 990.0));
        assert_eq!(report.offer_to_answer_ms.unwrap().max, 10.0);
        assert_eq!(report.offer_to_first_media_ms.unwrap().max, 30.0);
        let json = serde_json::to_value(&report).unwrap();
        for pointer in
            ["/sessions/ok", "/echo/p95", "/echo/method", "/packets/share", "/client/cpu", "/path", "/pause_ms/max"]
        {
            assert!(json.pointer(pointer).is_some(), "{pointer}: {json}");
        }
        assert_eq!(share(11, 10), 1.0);
        assert_eq!(share(0, 0), 0.0);
    }
}
