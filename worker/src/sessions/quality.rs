//! What a session's figures say of how good it is.

use std::time::Duration;

use streamfleet_audio::Codec;
use streamfleet_audio::emodel::{Impairment, Line};
use streamfleet_session::CloseReason;

use crate::http;
use crate::media::{Intake, Quality, Shared, TrackView};

/// From mouth to packet and from packet to ear, beside network and buffer: a packet, and the look-ahead of its encoder.
const PACKET: Duration = Duration::from_millis(27);
/// What a client's own buffer is taken to add, which it does not tell: what ours adds on a good network.
const CLIENT_BUFFER: Duration = Duration::from_millis(40);

/// The figures of a session as they are shown; `None` before there are any.
pub(super) fn quality(figures: &Quality) -> Option<http::Quality> {
    if let Some(Intake { frames, queued_ms, .. }) = figures.intake {
        // A stream has no packets to lose: what it has is late.
        return Some(http::Quality {
            buffer_ms: Some(queued_ms),
            packets_received: frames,
            ..http::Quality::default()
        });
    }
    let first = figures.tracks.first()?;
    let sum = |count: fn(&TrackView) -> u64| figures.tracks.iter().map(count).sum::<u64>();
    let (received, lost) = (sum(|t| t.packets_received), sum(|t| t.packets_lost));
    let playout = figures.playout.as_ref();
    Some(http::Quality {
        rtt_ms: figures.rtt_ms,
        loss_received: Some(share(lost, received + lost)),
        loss_sent: figures.tracks.iter().find_map(|t| t.remote_fraction_lost).map(f64::from),
        jitter_ms: Some(first.jitter_ms),
        buffer_ms: playout.map(|p| p.current_delay_ms),
        packets_received: received,
        packets_sent: Some(sum(|t| t.packets_sent)),
        frames_concealed: playout.map_or(0, |p| p.concealed),
        frames_repaired: playout.map_or(0, |p| p.fec_repaired),
        mos_received: mos_received(figures),
        mos_sent: mos_sent(figures),
    })
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The track of sound and its codec.
fn sound(figures: &Quality) -> Option<(&TrackView, Codec)> {
    let track = figures.tracks.iter().find(|track| track.kind == "audio")?;
    Some((track, Codec::from_mime(&format!("audio/{}", track.codec))?))
}

/// One way through the network. One that is not known yet counts as none: it would have to be long to matter.
fn one_way(figures: &Quality) -> Duration {
    millis(figures.rtt_ms.unwrap_or(0.0) / 2.0)
}

fn millis(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default()
}

fn mos_received(figures: &Quality) -> Option<f64> {
    let (track, codec) = sound(figures)?;
    let expected = track.packets_received + track.packets_lost;
    if expected == 0 {
        return None;
    }
    // What is heard is what the jitter buffer makes of it: late is lost, and what was repaired is not.
    let (buffer, loss) = match &figures.playout {
        Some(playout) => (millis(playout.current_delay_ms), playout.concealed_share),
        None => (Duration::ZERO, share(track.packets_lost, expected)),
    };
    Some(score(codec, one_way(figures) + PACKET + buffer, loss))
}

fn mos_sent(figures: &Quality) -> Option<f64> {
    let (track, codec) = sound(figures)?;
    let loss = track.remote_fraction_lost.filter(|_| track.packets_sent > 0)?;
    Some(score(codec, one_way(figures) + PACKET + CLIENT_BUFFER, f64::from(loss)))
}

/// To hundredths: more would be a claim.
fn score(codec: Codec, delay: Duration, loss: f64) -> f64 {
    let line = Line { impairment: Impairment::of(codec), delay, loss };
    (line.mos() * 100.0).round() / 100.0
}

/// Tells, once, how a session was that is over.
pub(super) fn summarise(shared: &Shared, reason: CloseReason, lasted: Duration) {
    let (reason, seconds) = (reason.as_str(), lasted.as_secs_f64());
    let Some(q) = quality(&shared.quality()) else {
        // It never had any media.
        tracing::info!(parent: &shared.span(), reason, seconds, "session quality");
        return;
    };
    tracing::info!(
        parent: &shared.span(),
        reason,
        seconds,
        rtt_ms = q.rtt_ms,
        loss_received = q.loss_received,
        loss_sent = q.loss_sent,
        jitter_ms = q.jitter_ms,
        buffer_ms = q.buffer_ms,
        packets_received = q.packets_received,
        packets_sent = q.packets_sent,
        frames_concealed = q.frames_concealed,
        frames_repaired = q.frames_repaired,
        mos_received = q.mos_received,
        mos_sent = q.mos_sent,
        "session quality"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Playout;

    fn track(kind: &'static str, codec: &'static str, received: u64, lost: u64, reported: Option<f32>) -> TrackView {
        TrackView {
            mid: "0".to_owned(),
            kind,
            codec,
            packets_received: received,
            packets_lost: lost,
            jitter_ms: 1.5,
            packets_sent: 500,
            remote_fraction_lost: reported,
            closed: false,
        }
    }

    fn playout(current_delay_ms: f64, concealed_share: f64) -> Option<Playout> {
        Some(Playout {
            target_delay_ms: 40.0,
            current_delay_ms,
            concealed: 7,
            concealed_share,
            fec_repaired: 3,
            late: 0,
            accelerated: 0,
        })
    }

    #[test]
    fn scores() {
        #[track_caller]
        fn check(
            rtt_ms: Option<f64>,
            track: TrackView,
            playout: Option<Playout>,
            expected: (Option<f64>, Option<f64>),
        ) {
            let shown = quality(&Quality { rtt_ms, tracks: vec![track], playout, intake: None }).unwrap();
            assert_eq!((shown.mos_received, shown.mos_sent), expected);
        }
        let good = Some(4.41);
        check(None, track("audio", "opus", 500, 0, None), playout(40.0, 0.0), (good, None));
        check(Some(30.0), track("audio", "opus", 500, 0, Some(0.0)), playout(40.0, 0.0), (good, good));
        // Of what was lost, forward error correction has repaired all; the way back has none.
        check(Some(30.0), track("audio", "opus", 475, 25, Some(0.05)), playout(40.0, 0.0), (good, Some(3.18)));
        check(Some(30.0), track("audio", "PCMU", 475, 25, Some(0.05)), playout(60.0, 0.05), (Some(3.92), Some(3.92)));
        // The encoded path has no buffer: what the network lost is lost.
        check(Some(30.0), track("audio", "opus", 475, 25, None), None, (Some(3.18), None));
        check(Some(700.0), track("audio", "opus", 500, 0, Some(0.0)), playout(40.0, 0.0), (Some(3.49), Some(3.49)));
        // Nothing was heard yet, and pictures have no such score.
        check(None, track("audio", "opus", 0, 0, None), None, (None, None));
        check(None, track("video", "VP8", 500, 0, Some(0.0)), None, (None, None));
    }

    #[test]
    fn figures_are_shown_as_far_as_there_are_any() {
        assert_eq!(quality(&Quality::default()), None);
        let tracks = vec![track("audio", "opus", 300, 100, Some(0.25)), track("video", "VP8", 600, 0, None)];
        let shown =
            quality(&Quality { rtt_ms: Some(20.0), tracks, playout: playout(55.0, 0.0), intake: None }).unwrap();
        assert_eq!((shown.rtt_ms, shown.loss_received, shown.loss_sent), (Some(20.0), Some(0.1), Some(0.25)));
        assert_eq!((shown.jitter_ms, shown.buffer_ms), (Some(1.5), Some(55.0)));
        assert_eq!((shown.packets_received, shown.packets_sent), (900, Some(1_000)));
        assert_eq!((shown.frames_concealed, shown.frames_repaired), (7, 3));
        let intake = Some(Intake { frames: 50, queued_ms: 80.0, dropped_ms: 0.0 });
        let shown = quality(&Quality { intake, ..Quality::default() }).unwrap();
        assert_eq!((shown.loss_received, shown.packets_sent, shown.mos_received), (None, None, None));
        assert_eq!((shown.buffer_ms, shown.packets_received), (Some(80.0), 50));
    }

    /// Every change is told once, and the figures at the end, in the session's own span.
    #[test]
    fn a_session_is_told_of() {
        use std::io::Write;
        use std::sync::Arc;

        use parking_lot::Mutex;
        use serde_json::{Value, json};
        use streamfleet_handler::Transport;
        use streamfleet_session::Identity;

        #[derive(Clone, Default)]
        struct Page(Arc<Mutex<Vec<u8>>>);
        impl Write for Page {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        let page = Page::default();
        let writer = page.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        // With one subscriber alone a line that another thread reaches first would be taken for one that nobody wants, for good.
        drop(tracing::subscriber::set_global_default(tracing_subscriber::registry()));
        let shared = tracing::subscriber::with_default(subscriber, || {
            let (id, service) = ("a".parse().unwrap(), "echo".parse().unwrap());
            let shared = Shared::new(1, id, service, Transport::WebRtc, &Identity::default());
            shared.connected("192.0.2.1:1".parse().unwrap());
            let tracks = vec![track("audio", "opus", 500, 0, None)];
            shared.publish(Quality { tracks, ..Quality::default() });
            shared.ending(CloseReason::EndStream);
            summarise(&shared, CloseReason::EndStream, Duration::from_millis(1_500));
            shared.ending(CloseReason::EndStream);
            shared.closed(CloseReason::EndStream);
            shared
        });
        assert!(shared.span().is_none(), "it ends with its session");
        let text = String::from_utf8(page.0.lock().clone()).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &lines {
            assert_eq!(
                (&line["span"]["session"], &line["span"]["transport"]),
                (&json!("a"), &json!("webrtc")),
                "{line}"
            );
        }
        let told = |line: &Value| line["fields"]["change"].as_str().map(str::to_owned);
        let changes: Vec<Option<String>> = lines.iter().map(told).collect();
        let expected = [Some("connecting"), Some("active"), Some("ending"), None, Some("closed")];
        assert_eq!(changes, expected.map(|change| change.map(str::to_owned)));
        let summary = &lines[3]["fields"];
        assert_eq!((&summary["reason"], &summary["seconds"]), (&json!("end_stream"), &json!(1.5)));
        assert_eq!((&summary["mos_received"], &summary["packets_received"]), (&json!(4.41), &json!(500)));
        assert_eq!(summary.get("rtt_ms"), None, "what is not known is not told");
    }
}
