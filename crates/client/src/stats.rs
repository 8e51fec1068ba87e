//! How a call fares: figures that a user, a report or a test reads.

use std::time::{Duration, Instant};

use rtc::statistics::report::{RTCStatsReport, RTCStatsReportEntry};
use streamfleet_audio::ReceiverStats;

/// When each step of connecting was done, counted from the beginning of [`crate::Client::connect`], or of the attempt
/// to join again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetupTimes {
    /// Candidates were known, or the deadline for them was over.
    pub gathered: Duration,
    /// The answer had come.
    pub answered: Duration,
    /// ICE had a working pair.
    pub ice: Option<Duration>,
    /// DTLS was done: media can flow.
    pub connected: Option<Duration>,
    /// The data channel was open.
    pub channel: Option<Duration>,
    /// The first RTP packet had come.
    pub first_media: Option<Duration>,
}

/// The figures of one track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackCounters {
    /// RTP packets sent.
    pub sent: u64,
    /// RTP packets received.
    pub received: u64,
    /// RTP packets that should have come and did not.
    pub lost: u64,
}

/// A snapshot of a call.
#[derive(Clone, Debug, Default)]
pub struct CallStats {
    /// When each step was done.
    pub setup: SetupTimes,
    /// Round-trip time of the last ICE check on the pair in use.
    pub round_trip: Option<Duration>,
    /// Audio packets.
    pub audio: TrackCounters,
    /// Video packets; `lost` is not counted for video.
    pub video: TrackCounters,
    /// The share of our audio packets that the server's last receiver report says were lost, 0..1.
    pub remote_loss: Option<f32>,
    /// The jitter buffer and the decoder.
    pub playout: Option<ReceiverStats>,
    /// Received audio chunks that nobody took in time.
    pub chunks_dropped: u64,
    /// How often the call moved to another connection.
    pub reconnects: u32,
}

impl CallStats {
    /// The share of the server's audio packets that were lost, 0..1.
    pub fn loss(&self) -> f32 {
        let expected = self.audio.received + self.audio.lost;
        if expected == 0 { 0.0 } else { (self.audio.lost as f64 / expected as f64) as f32 }
    }
}

/// What the WebRTC stack knows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Report {
    pub(crate) round_trip: Option<Duration>,
    pub(crate) remote_loss: Option<f32>,
}

impl Report {
    /// `remote_loss` is read from RTCP beside the stack, whose statistics have none of it.
    pub(crate) fn read(report: &RTCStatsReport, remote_loss: Option<f32>) -> Self {
        let mut found = Self { round_trip: None, remote_loss };
        for entry in report.iter() {
            if let RTCStatsReportEntry::IceCandidatePair(pair) = entry
                && pair.nominated
                && pair.responses_received > 0
            {
                found.round_trip = seconds(pair.current_round_trip_time);
            }
        }
        found
    }
}

fn seconds(value: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(value).ok().filter(|duration| !duration.is_zero())
}

/// Marks on the way to a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch {
    start: Instant,
}

impl Stopwatch {
    pub(crate) fn new(start: Instant) -> Self {
        Self { start }
    }

    pub(crate) fn at(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_a_share_of_what_was_expected() {
        fn check(received: u64, lost: u64, expected: f32) {
            let audio = TrackCounters { received, lost, sent: 0 };
            assert_eq!(CallStats { audio, ..CallStats::default() }.loss(), expected);
        }
        check(0, 0, 0.0);
        check(75, 25, 0.25);
        check(0, 5, 1.0);
    }

    #[test]
    fn odd_figures_are_left_away() {
        assert_eq!(seconds(0.25), Some(Duration::from_millis(250)));
        for odd in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(seconds(odd), None, "{odd}");
        }
    }
}
