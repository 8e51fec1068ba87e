//! The report for people, and the line that moves while sessions run.

use std::fmt;
use std::time::Duration;

use super::histogram::{Summary, milliseconds};
use super::media::{Phase, Tally};
use super::report::{Echo, Method, Path, Report, share};

/// How it goes at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress<'a> {
    pub(super) tally: &'a Tally,
    pub(super) elapsed: Duration,
    pub(super) active: usize,
    pub(super) failed: usize,
    /// Packets that came in the last second.
    pub(super) received_per_s: u64,
    /// The media thread's share of a core in the last second.
    pub(super) cpu: f64,
}

/// The columns of [`Progress`].
pub(super) const HEADINGS: &str = "   time  phase    active  failed  packets/s   back %  echo p50     p95  client CPU";

impl fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = self.tally;
        let phase = match tally.phase {
            Phase::Ramp => "ramp",
            Phase::Measure => "measure",
            Phase::Drain => "drain",
        };
        let echo = if tally.matched > 0 { &tally.echo } else { &tally.bursts };
        let latency = |at: f64| {
            if echo.summary().is_some() { format!("{:.1}", milliseconds(echo.quantile(at))) } else { "—".to_owned() }
        };
        let back = match tally.sent {
            0 => "—".to_owned(),
            sent => format!("{:.2}", 100.0 * share(tally.matched + tally.recoded, sent)),
        };
        write!(
            f,
            "{:>5.0} s  {phase:<7} {:>7} {:>7} {:>10} {back:>8} {:>9} {:>7} {:>9.0} %",
            self.elapsed.as_secs_f64(),
            self.active,
            self.failed,
            self.received_per_s,
            latency(0.5),
            latency(0.95),
            self.cpu * 100.0,
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sessions = &self.sessions;
        writeln!(f, "{}", self.url)?;
        writeln!(
            f,
            "  sessions      {} of {} ok, {} with 99 % of their packets back",
            sessions.ok, sessions.asked, sessions.clean
        )?;
        for (reason, count) in &sessions.failures {
            writeln!(f, "                {count} × {reason}")?;
        }
        let path = match self.path {
            Path::Encoded => "encoded (packets come back as they went)",
            Path::Frames => "frames (packets are decoded and encoded again)",
            Path::Mixed => "encoded and frames",
            Path::None => "nothing came back",
        };
        writeln!(f, "  path          {path}")?;
        writeln!(
            f,
            "  packets       {} sent in {:.1} s, {:.2} % back",
            self.packets.sent,
            self.measured_s,
            self.packets.share * 100.0
        )?;
        match &self.echo {
            Some(Echo { method, ms }) => {
                let method = match method {
                    Method::Packets => "each packet",
                    Method::Bursts => "tone bursts",
                };
                writeln!(f, "  echo          {} ({method}, {} of them)", Times(ms), ms.count)?;
            }
            None => writeln!(f, "  echo          not measured: no packet and no burst was recognised")?,
        }
        for (name, times) in [("longest pause", &self.pause_ms), ("packets lost", &self.outage_ms)] {
            if let Some(Summary { p50, p99, max, .. }) = times {
                let of = if name == "packets lost" { "in a row" } else { "without any" };
                writeln!(f, "  {name:<13} p50 {p50:.0} ms, p99 {p99:.0} ms, max {max:.0} ms {of}, of each session")?;
            }
        }
        for (name, times) in [("answer", &self.offer_to_answer_ms), ("first media", &self.offer_to_first_media_ms)] {
            if let Some(times) = times {
                writeln!(f, "  {name:<13} {} after the offer", Times(times))?;
            }
        }
        let client = &self.client;
        write!(
            f,
            "  this client   {:.0} % of a core, {:.1} µs a packet",
            client.cpu * 100.0,
            client.cpu_us_per_packet
        )?;
        if let Some(late) = &client.late_ms {
            write!(f, "; packets sent {:.1} ms late (p99)", late.p99)?;
        }
        if client.skipped > 0 || client.send_errors > 0 {
            write!(f, "; {} packets skipped, {} not taken by the kernel", client.skipped, client.send_errors)?;
        }
        Ok(())
    }
}

struct Times<'a>(&'a Summary);

impl fmt::Display for Times<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { p50, p95, p99, .. } = self.0;
        write!(f, "p50 {p50:.1} ms, p95 {p95:.1} ms, p99 {p99:.1} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::Run;
    use crate::load::session::{Failure, Setup};

    #[test]
    fn progress_fits_its_headings() {
        let mut tally = Tally { phase: Phase::Measure, sent: 100_000, matched: 99_871, ..Tally::default() };
        tally.echo.record(Duration::from_micros(1_900));
        let progress = Progress {
            tally: &tally,
            elapsed: Duration::from_secs(61),
            active: 1_000,
            failed: 0,
            received_per_s: 50_012,
            cpu: 0.54,
        };
        let line = progress.to_string();
        assert_eq!(line.chars().count(), HEADINGS.chars().count(), "\n{HEADINGS}\n{line}");
        let empty = Progress { tally: &Tally::default(), active: 0, ..progress }.to_string();
        assert_eq!(empty.chars().count(), line.chars().count());
    }

    #[test]
    fn a_report_says_why_sessions_failed() {
        let outcomes = vec![(Setup::default(), Err(Failure::Refused("concurrency_limit_reached".to_owned()))); 3];
        let text =
            Report::new(Run { url: "http://x".to_owned(), ..Run::default() }, &outcomes, &Tally::default()).to_string();
        for part in ["0 of 3 ok", "3 × refused: concurrency_limit_reached", "nothing came back", "not measured"] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }
}
