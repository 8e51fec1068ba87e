//! What an Opus encoder should do, decided from the loss that the receiver reports.
//!
//! Two ways of encoding cost very different amounts of CPU. Without loss the MDCT coder (CELT) is the better bargain. It
//! has no redundancy for a lost packet, which the speech coder (SILK) has, at two to three times the cost. The measured
//! costs are printed by `examples/cost.rs`.

use std::time::Duration;

/// Smoothed loss at which redundancy starts: below it, concealment is about as good.
const START_LOSS: f32 = 0.02;
/// Loss in a single report that starts it without waiting for a second report.
const SUDDEN_LOSS: f32 = 0.05;
/// Smoothed loss below which redundancy may stop.
const STOP_LOSS: f32 = 0.005;
/// How long the loss has to stay below [`STOP_LOSS`] before it stops: two or three report intervals (RFC 3550, 6.2).
const STOP_AFTER: Duration = Duration::from_secs(15);
/// Weight of a new report.
const SMOOTHING: f32 = 0.4;
/// The expected loss is told to the encoder in these steps (percent), so that it does not change with every report.
const LOSS_STEPS: [u8; 4] = [5, 10, 15, 25];

/// Which coder of Opus is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coder {
    /// CELT at the encoder's full bandwidth: cheap, no redundancy.
    Transform,
    /// SILK at wideband (8 kHz of audio) with in-band redundancy. The band above is given up: coding it beside SILK
    /// (hybrid mode) costs more CPU and takes bits from the redundancy.
    Speech,
}

/// The settings of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EncoderMode {
    /// Which coder.
    pub coder: Coder,
    /// libopus complexity, 0 to 10.
    pub complexity: u8,
    /// Packet loss to prepare for, in percent. Above 0 only with redundancy.
    pub packet_loss_perc: u8,
    /// Bits per second.
    pub bitrate: u32,
}

impl EncoderMode {
    /// The mode for a receiver that loses nothing, at the encoder's sample `rate` in Hz.
    #[must_use]
    pub const fn clean(rate: u32) -> Self {
        // By segmental SNR at 16 and 24 kHz, complexity 1 is 1 dB better than 0 and within 0.1 dB of 2 for less CPU. From
        // 5 on a pitch pre-filter is searched for: 2 dB more at 24 kHz, but half as much CPU again in the encoder, and
        // a post-filter in every decoder.
        Self { coder: Coder::Transform, complexity: 1, packet_loss_perc: 0, bitrate: bitrate(rate) }
    }

    /// The mode for a receiver that loses so many percent.
    #[must_use]
    pub const fn lossy(rate: u32, packet_loss_perc: u8) -> Self {
        // Complexity 1 costs little more than 0 and takes fewer bits; 2 costs twice as much.
        Self { coder: Coder::Speech, complexity: 1, packet_loss_perc, bitrate: bitrate(rate) }
    }

    /// Whether in-band forward error correction is on.
    #[must_use]
    pub const fn inband_fec(self) -> bool {
        self.packet_loss_perc > 0
    }
}

/// Speech of this bandwidth is transparent enough at this rate, redundancy included.
const fn bitrate(rate: u32) -> u32 {
    match rate {
        0..=8_000 => 20_000,
        8_001..=12_000 => 24_000,
        _ => 32_000,
    }
}

/// What is remembered from report to report.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossHistory {
    /// Smoothed fraction lost, 0.0 to 1.0.
    smoothed: f32,
    /// When the smoothed loss went below [`STOP_LOSS`]; `None` while it is above.
    quiet_since: Option<Duration>,
    /// The mode in force.
    mode: EncoderMode,
}

impl LossHistory {
    /// No report yet, for an encoder at `rate` Hz.
    #[must_use]
    pub const fn new(rate: u32) -> Self {
        Self { smoothed: 0.0, quiet_since: None, mode: EncoderMode::clean(rate) }
    }

    /// The mode in force.
    #[must_use]
    pub const fn mode(&self) -> EncoderMode {
        self.mode
    }
}

/// One RTCP receiver report.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossReport {
    /// When it came, since any fixed point in time.
    pub at: Duration,
    /// Fraction of packets lost since the previous one, 0.0 to 1.0 (RFC 3550, 6.4.1).
    pub fraction_lost: f32,
}

/// The history, and with it the encoder's mode, after one more report. `rate` is the encoder's, in Hz.
#[must_use]
pub fn decide(history: LossHistory, report: LossReport, rate: u32) -> LossHistory {
    // Not a number is no report; anything else is brought into range.
    if report.fraction_lost.is_nan() {
        return history;
    }
    let lost = report.fraction_lost.clamp(0.0, 1.0);
    let smoothed = history.smoothed + (lost - history.smoothed) * SMOOTHING;
    let quiet_since = if smoothed < STOP_LOSS { history.quiet_since.or(Some(report.at)) } else { None };
    let protects = history.mode.coder == Coder::Speech;
    let quiet_for = quiet_since.map_or(Duration::ZERO, |since| report.at.saturating_sub(since));
    let protect = if protects { quiet_for < STOP_AFTER } else { smoothed >= START_LOSS || lost >= SUDDEN_LOSS };
    let mode = if protect {
        EncoderMode::lossy(rate, expected_loss(smoothed.max(if protects { 0.0 } else { lost }), history.mode))
    } else {
        EncoderMode::clean(rate)
    };
    LossHistory { smoothed, quiet_since, mode }
}

/// The step for a loss. It goes up at once, and down only when the loss is well inside of a lower step.
fn expected_loss(lost: f32, before: EncoderMode) -> u8 {
    let step = |lost: f32| {
        let percent = lost * 100.0;
        LOSS_STEPS.into_iter().find(|&step| percent <= f32::from(step)).unwrap_or(LOSS_STEPS[LOSS_STEPS.len() - 1])
    };
    step(lost).max(step(lost * 1.3).min(before.packet_loss_perc))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: u32 = 24_000;

    /// Plays reports of the given percentages, five seconds apart; gives the mode after each as its loss percentage.
    fn play(percentages: &[f32]) -> Vec<u8> {
        let mut history = LossHistory::new(RATE);
        percentages
            .iter()
            .enumerate()
            .map(|(at, percent)| {
                let report = LossReport { at: Duration::from_secs(5 * at as u64), fraction_lost: percent / 100.0 };
                history = decide(history, report, RATE);
                let mode = history.mode();
                assert_eq!(mode.inband_fec(), mode.coder == Coder::Speech);
                mode.packet_loss_perc
            })
            .collect()
    }

    #[test]
    fn decisions() {
        fn check(name: &str, percentages: &[f32], expected: &[u8]) {
            assert_eq!(play(percentages), expected, "{name}");
        }
        check("clean", &[0.0; 5], &[0; 5]);
        check("a little loss is left to concealment", &[1.0; 8], &[0; 8]);
        check("one lost packet now and then", &[0.0, 2.0, 0.0, 0.0, 2.0, 0.0], &[0; 6]);
        check("steady loss", &[3.0; 4], &[0, 0, 5, 5]);
        check("sudden loss", &[0.0, 10.0, 10.0, 10.0], &[0, 10, 10, 10]);
        check("heavy loss", &[40.0, 40.0, 40.0], &[25, 25, 25]);
        check("not flapping at the edge", &[6.0, 1.0, 3.0, 1.0, 3.0, 1.0, 3.0], &[10, 5, 5, 5, 5, 5, 5]);
        check(
            "recovery",
            &[10.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            &[10, 5, 5, 5, 5, 5, 5, 5, 0, 0, 0, 0],
        );
        check("not a number", &[f32::NAN, f32::INFINITY, -5.0], &[0, 25, 25]);
    }

    #[test]
    fn modes_are_affordable() {
        for rate in [8_000, 12_000, 16_000, 24_000, 48_000] {
            assert!(EncoderMode::clean(rate).complexity <= 5);
            assert!(!EncoderMode::clean(rate).inband_fec());
            assert!(EncoderMode::lossy(rate, 10).inband_fec());
        }
    }

    proptest! {
        #[test]
        fn mode_changes_are_rare(percentages in proptest::collection::vec(0.0f32..30.0, 2..60)) {
            // Once protected, at least STOP_AFTER passes before protection ends.
            let modes = play(&percentages);
            let mut since = None;
            for (at, &mode) in modes.iter().enumerate() {
                match (mode > 0, since) {
                    (true, None) => since = Some(at),
                    (false, Some(start)) => { prop_assert!(at - start >= 3); since = None; }
                    _ => {}
                }
            }
        }
    }
}
