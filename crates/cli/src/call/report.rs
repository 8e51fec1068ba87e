//! The report of a call: figures, a verdict, and how both are shown.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use streamfleet_client::{CallStats, EndReason, Message, Summary, Transport};

use super::latency;
use super::sound::{AUDIBLE_DBFS, Recording};
use super::turns::TurnReport;

/// Least audible audio that counts as an answer: a word, or two bursts.
const LEAST_AUDIBLE: Duration = Duration::from_millis(120);
/// Messages that the report keeps.
pub(crate) const MAX_MESSAGES: usize = 50;

/// What the exit status says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Audible audio came back.
    Heard,
    /// There was no connection.
    NotConnected,
    /// Connected, but nothing audible came back.
    Silent,
    /// The connection was lost during the call.
    Lost,
    /// A turn of the script did not come about.
    ScriptFailed,
}

impl Verdict {
    pub(crate) fn status(self) -> u8 {
        match self {
            Self::Heard => 0,
            Self::NotConnected => 1,
            Self::Silent => 2,
            Self::Lost => 3,
            Self::ScriptFailed => 4,
        }
    }
}

/// All figures. Times are milliseconds, levels dBFS (RMS), shares 0..1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Report {
    pub(crate) verdict: Verdict,
    pub(crate) url: String,
    pub(crate) id: String,
    pub(crate) transport: Carrier,
    /// Why the call ended.
    pub(crate) end: String,
    pub(crate) setup_ms: Setup,
    pub(crate) mouth_to_ear_ms: Option<f64>,
    /// How much the heard audio resembles the spoken one at that latency.
    pub(crate) resemblance: Option<f32>,
    pub(crate) round_trip_ms: Option<f64>,
    pub(crate) jitter_ms: Option<f64>,
    pub(crate) buffer_ms: Option<f64>,
    pub(crate) packets_sent: u64,
    pub(crate) packets_received: u64,
    pub(crate) loss: f32,
    /// The share of our packets that the server says were lost.
    pub(crate) remote_loss: Option<f32>,
    pub(crate) concealed_ms: Option<f64>,
    pub(crate) level_sent_dbfs: f32,
    pub(crate) level_received_dbfs: f32,
    pub(crate) audible_ms: f64,
    pub(crate) dominant_tone_hz: Option<u32>,
    pub(crate) reconnects: u32,
    pub(crate) messages: Vec<String>,
    /// The turns of the script.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) turns: Vec<TurnReport>,
}

/// What carried the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Carrier {
    WebRtc,
    WebSocket,
    Twilio,
}

impl From<Transport> for Carrier {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::WebRtc => Self::WebRtc,
            Transport::WebSocket => Self::WebSocket,
            Transport::Phone => Self::Twilio,
        }
    }
}

/// When each step was done, from the beginning of the call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Setup {
    pub(crate) gathered: f64,
    pub(crate) answered: f64,
    pub(crate) ice: Option<f64>,
    pub(crate) connected: Option<f64>,
    pub(crate) data_channel: Option<f64>,
    pub(crate) first_media: Option<f64>,
}

/// What a call was about.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) url: String,
    pub(crate) id: String,
    pub(crate) transport: Transport,
}

/// What was said on both sides.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) spoken: Recording,
    pub(crate) heard: Recording,
    pub(crate) messages: Vec<String>,
    pub(crate) turns: Vec<TurnReport>,
}

impl Report {
    pub(crate) fn new(subject: Subject, summary: &Summary, conversation: Conversation) -> Self {
        let Conversation { spoken, heard, messages, turns } = conversation;
        let stats = &summary.stats;
        let latency = latency::measure(&spoken, &heard);
        let audible = heard.audible_time();
        let datagrams = subject.transport == Transport::WebRtc;
        Self {
            verdict: match verdict(&summary.reason, audible) {
                Verdict::Lost => Verdict::Lost,
                _ if turns.iter().any(|turn| !turn.ok) => Verdict::ScriptFailed,
                verdict => verdict,
            },
            url: subject.url,
            id: subject.id,
            transport: subject.transport.into(),
            end: end(&summary.reason),
            setup_ms: Setup::new(stats),
            mouth_to_ear_ms: latency.map(|found| ms(found.mouth_to_ear)),
            resemblance: latency.map(|found| found.resemblance),
            round_trip_ms: stats.round_trip.map(ms),
            // TCP hides it.
            jitter_ms: stats.playout.filter(|_| datagrams).map(|playout| ms(playout.jitter)),
            buffer_ms: stats.playout.map(|playout| ms(playout.target_delay)),
            packets_sent: stats.audio.sent,
            packets_received: stats.audio.received,
            loss: stats.loss(),
            remote_loss: stats.remote_loss,
            concealed_ms: stats.playout.map(|playout| ms(playout.concealed_time)),
            level_sent_dbfs: spoken.level(),
            level_received_dbfs: heard.level(),
            audible_ms: ms(audible),
            dominant_tone_hz: heard.dominant_tone(),
            reconnects: stats.reconnects,
            messages,
            turns,
        }
    }
}

impl Setup {
    fn new(stats: &CallStats) -> Self {
        let setup = &stats.setup;
        Self {
            gathered: ms(setup.gathered),
            answered: ms(setup.answered),
            ice: setup.ice.map(ms),
            connected: setup.connected.map(ms),
            data_channel: setup.channel.map(ms),
            first_media: setup.first_media.map(ms),
        }
    }
}

/// A handler that ends its stream early has answered all the same; a lost connection is a fault whatever came before.
pub(crate) fn verdict(reason: &EndReason, audible: Duration) -> Verdict {
    match reason {
        EndReason::Lost(_) => Verdict::Lost,
        _ if audible >= LEAST_AUDIBLE => Verdict::Heard,
        _ => Verdict::Silent,
    }
}

fn end(reason: &EndReason) -> String {
    match reason {
        EndReason::HungUp => "hung up".to_owned(),
        EndReason::EndStream(message) => format!("the handler ended the stream: {}", plain(message)),
        EndReason::ClosedByServer => "closed by the server".to_owned(),
        EndReason::Lost(why) => format!("lost: {}", plain(why)),
    }
}

/// One line of a message, for people.
pub(crate) fn message_line(message: &Message) -> String {
    match message {
        Message::SendInput => "send_input".to_owned(),
        Message::FetchOutput => "fetch_output".to_owned(),
        Message::EndStream(text) => format!("end_stream: {}", plain(text)),
        Message::StopWord => "stopword".to_owned(),
        Message::Error(text) => format!("error: {}", plain(text)),
        Message::Warning(text) => format!("warning: {}", plain(text)),
        Message::Log(text) => format!("log: {}", plain(text)),
        Message::Close => "update_connection: closed".to_owned(),
        Message::Reconnect { reason, .. } => format!("reconnect: {}", plain(reason)),
        Message::Other(text) => plain(text),
        other => format!("{other:?}"),
    }
}

/// A server's text on a terminal: nothing that it would obey, at most 200 characters.
fn plain(text: &str) -> String {
    crate::plain::plain(text).chars().take(200).collect()
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |value: Option<f64>| value.map_or_else(|| "—".to_owned(), |ms| format!("{ms:.1} ms"));
        let share =
            |value: Option<f32>| value.map_or_else(|| "—".to_owned(), |share| format!("{:.1} %", share * 100.0));
        let tone = self.dominant_tone_hz.map_or_else(|| "no single tone".to_owned(), |hz| format!("tone {hz} Hz"));
        let latency = match (self.mouth_to_ear_ms, self.resemblance) {
            (Some(ms), Some(resemblance)) => format!("{ms:.0} ms (resemblance {resemblance:.2})"),
            _ => "not measurable: what came back does not resemble what was sent".to_owned(),
        };
        let setup = &self.setup_ms;
        writeln!(f, "{}  id {}", self.url, self.id)?;
        match self.transport {
            Carrier::WebRtc => {
                writeln!(
                    f,
                    "  connect       gathered {:.1} ms, answer {:.1} ms, ICE {}, DTLS {}",
                    setup.gathered,
                    setup.answered,
                    time(setup.ice),
                    time(setup.connected)
                )?;
                writeln!(
                    f,
                    "                data channel {}, first media {}",
                    time(setup.data_channel),
                    time(setup.first_media)
                )?;
            }
            Carrier::WebSocket | Carrier::Twilio => writeln!(
                f,
                "  connect       TCP {:.1} ms, upgrade {:.1} ms, accepted {}, first media {}",
                setup.gathered,
                setup.answered,
                time(setup.connected),
                time(setup.first_media)
            )?,
        }
        writeln!(f, "  mouth to ear  {latency}")?;
        writeln!(
            f,
            "  network       round trip {}, jitter {}, buffer {}",
            time(self.round_trip_ms),
            time(self.jitter_ms),
            time(self.buffer_ms)
        )?;
        writeln!(
            f,
            "  packets       {} sent (lost {}), {} received (lost {}), concealed {}",
            self.packets_sent,
            share(self.remote_loss),
            self.packets_received,
            share(Some(self.loss)),
            time(self.concealed_ms)
        )?;
        writeln!(
            f,
            "  sound         sent {:.1} dBFS, received {:.1} dBFS, audible {:.1} s, {tone}",
            self.level_sent_dbfs,
            self.level_received_dbfs,
            self.audible_ms / 1_000.0
        )?;
        if self.reconnects > 0 {
            writeln!(f, "  reconnects    {}", self.reconnects)?;
        }
        for message in &self.messages {
            writeln!(f, "  message       {message}")?;
        }
        for turn in &self.turns {
            let state = if turn.ok { "" } else { ", which did not come about" };
            write!(f, "  turn          {} at {:.0} ms, {:.0} ms", turn.turn, turn.at_ms, turn.took_ms)?;
            if let Some(after) = turn.reply_after_ms {
                write!(f, ", reply after {after:.0} ms")?;
            }
            if let Some(on) = turn.heard_on_ms {
                write!(f, ", heard on for {on:.0} ms")?;
            }
            writeln!(f, "{state}")?;
        }
        writeln!(f, "  end           {}", self.end)?;
        match self.verdict {
            Verdict::Heard => write!(f, "audio came back"),
            Verdict::Silent if self.packets_received == 0 && self.transport == Carrier::WebRtc => write!(
                f,
                "connected, but no audio packet came back: the handler may only listen, or UDP is blocked one way"
            ),
            Verdict::Silent if self.packets_received == 0 => {
                write!(f, "connected, but no audio came back: the handler may only listen")
            }
            Verdict::ScriptFailed => write!(f, "the script was not followed to its end"),
            Verdict::Silent => write!(
                f,
                "connected, but nothing louder than {AUDIBLE_DBFS:.0} dBFS came back: look at the handler's own level"
            ),
            Verdict::Lost | Verdict::NotConnected => write!(f, "the connection was lost during the call"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamfleet_client::{SetupTimes, TrackCounters};

    #[test]
    fn verdicts() {
        fn check(reason: EndReason, audible_ms: u64, expected: Verdict, status: u8) {
            let found = verdict(&reason, Duration::from_millis(audible_ms));
            assert_eq!((found, found.status()), (expected, status), "{reason:?} {audible_ms}");
        }
        check(EndReason::HungUp, 2_000, Verdict::Heard, 0);
        check(EndReason::HungUp, 100, Verdict::Silent, 2);
        check(EndReason::EndStream("bye".into()), 500, Verdict::Heard, 0);
        check(EndReason::ClosedByServer, 0, Verdict::Silent, 2);
        check(EndReason::Lost("gone".into()), 2_000, Verdict::Lost, 3);
        assert_eq!(Verdict::NotConnected.status(), 1);
    }

    fn example() -> Report {
        let stats = CallStats {
            setup: SetupTimes {
                gathered: Duration::from_micros(1_240),
                answered: Duration::from_millis(9),
                ice: Some(Duration::from_millis(15)),
                connected: Some(Duration::from_millis(22)),
                channel: None,
                first_media: Some(Duration::from_millis(41)),
            },
            round_trip: Some(Duration::from_micros(350)),
            audio: TrackCounters { sent: 100, received: 98, lost: 2 },
            remote_loss: Some(0.01),
            ..CallStats::default()
        };
        let summary = Summary { reason: EndReason::HungUp, stats };
        Report::new(subject(Transport::WebRtc), &summary, silence(vec![]))
    }

    fn subject(transport: Transport) -> Subject {
        Subject { url: "http://h/echo".into(), id: "abc".into(), transport }
    }

    fn silence(turns: Vec<TurnReport>) -> Conversation {
        let silence = Recording::new(48_000, Duration::from_secs(1));
        Conversation { spoken: silence.clone(), heard: silence, messages: vec!["log: hi".into()], turns }
    }

    #[test]
    fn a_socket_and_a_script_read_well() {
        let turn = |turn, ok, reply_after_ms| TurnReport {
            turn,
            at_ms: 500.0,
            took_ms: 712.4,
            ok,
            reply_after_ms,
            heard_on_ms: None,
        };
        let summary = Summary { reason: EndReason::HungUp, stats: CallStats::default() };
        let turns = vec![turn("wait_for_reply", true, Some(700.0)), turn("expect", false, None)];
        let report = Report::new(subject(Transport::Phone), &summary, silence(turns));
        assert_eq!((report.verdict, report.verdict.status()), (Verdict::ScriptFailed, 4));
        let text = report.to_string();
        for line in [
            "  connect       TCP 0.0 ms, upgrade 0.0 ms, accepted —, first media —",
            "  turn          wait_for_reply at 500 ms, 712 ms, reply after 700 ms",
            "  turn          expect at 500 ms, 712 ms, which did not come about",
            "the script was not followed to its end",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
        let json = serde_json::to_value(report).unwrap();
        assert_eq!((json["transport"].as_str(), json["turns"][1]["ok"].as_bool()), (Some("twilio"), Some(false)));
    }

    #[test]
    fn the_report_reads_well() {
        let expected = "\
http://h/echo  id abc
  connect       gathered 1.2 ms, answer 9.0 ms, ICE 15.0 ms, DTLS 22.0 ms
                data channel —, first media 41.0 ms
  mouth to ear  not measurable: what came back does not resemble what was sent
  network       round trip 0.4 ms, jitter —, buffer —
  packets       100 sent (lost 1.0 %), 98 received (lost 2.0 %), concealed —
  sound         sent -100.0 dBFS, received -100.0 dBFS, audible 0.0 s, no single tone
  message       log: hi
  end           hung up
connected, but nothing louder than -50 dBFS came back: look at the handler's own level";
        assert_eq!(example().to_string(), expected);
    }

    #[test]
    fn the_json_has_all_of_it() {
        let json = serde_json::to_value(example()).unwrap();
        assert_eq!(json["verdict"], "silent");
        assert_eq!(json["setup_ms"]["connected"], 22.0);
        assert_eq!(json["mouth_to_ear_ms"], serde_json::Value::Null);
        assert_eq!(json["packets_received"], 98);
        assert_eq!(json["messages"][0], "log: hi");
    }

    #[test]
    fn messages_cannot_drive_the_terminal() {
        let line = message_line(&Message::Error(format!("\u{1b}[2J{}", "x".repeat(500))));
        assert_eq!(line, format!("error:  [2J{}", "x".repeat(196)));
    }
}
