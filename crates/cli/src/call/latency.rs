//! Mouth-to-ear latency: how much later the heard sound's envelope best resembles the spoken one's.

use std::time::Duration;

use super::sound::Recording;

/// Longest latency that is looked for: just below the period of the tone bursts.
const MAX_LATENCY_MS: usize = 1_800;
/// Longest stretch that is compared; the cost grows with it, the answer does not change.
const MAX_SPAN_MS: usize = 30_000;
/// Shortest stretch that says anything.
const LEAST_SPAN_MS: usize = 1_000;
/// Least resemblance (normalised correlation, -1..1) that counts as the same sound. Speech over another speaker's
/// reaches 0.4, an echo through a codec 0.9.
const LEAST_RESEMBLANCE: f32 = 0.6;

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Latency {
    pub(crate) mouth_to_ear: Duration,
    /// How much the two resemble each other at that shift, 0..1.
    pub(crate) resemblance: f32,
}

/// Compares two recordings on one clock. `None` when what is heard is not what was spoken, or is too short or too
/// steady to tell.
pub(crate) fn measure(spoken: &Recording, heard: &Recording) -> Option<Latency> {
    let (spoken, heard) = (envelope(spoken), envelope(heard));
    let best = (0..MAX_LATENCY_MS)
        .filter_map(|shift| Some((shift, resemblance(&spoken, heard.get(shift..)?)?)))
        .max_by(|a, b| a.1.total_cmp(&b.1))?;
    (best.1 >= LEAST_RESEMBLANCE)
        .then(|| Latency { mouth_to_ear: Duration::from_millis(best.0 as u64), resemblance: best.1 })
}

/// RMS amplitude of each millisecond, each with its neighbours of three milliseconds, so that a low tone's own waves do
/// not show.
fn envelope(recording: &Recording) -> Vec<f32> {
    let at = |ms: usize| (ms as u64 * u64::from(recording.rate) / 1_000) as usize;
    let millis = (recording.samples.len() as u64 * 1_000 / u64::from(recording.rate.max(1))) as usize;
    let power: Vec<f32> = (0..millis.min(MAX_SPAN_MS + MAX_LATENCY_MS))
        .map(|ms| {
            let piece = &recording.samples[at(ms)..at(ms + 1)];
            piece.iter().map(|sample| f32::from(*sample).powi(2)).sum::<f32>() / piece.len().max(1) as f32
        })
        .collect();
    let smooth = |ms: usize| {
        let around = &power[ms.saturating_sub(3)..(ms + 4).min(power.len())];
        (around.iter().sum::<f32>() / around.len() as f32).sqrt()
    };
    (0..power.len()).map(smooth).collect()
}

/// Pearson's correlation of the common part.
fn resemblance(a: &[f32], b: &[f32]) -> Option<f32> {
    let span = a.len().min(b.len()).min(MAX_SPAN_MS);
    if span < LEAST_SPAN_MS {
        return None;
    }
    let (a, b) = (&a[..span], &b[..span]);
    let mean = |values: &[f32]| values.iter().sum::<f32>() / span as f32;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut both, mut only_a, mut only_b) = (0.0f32, 0.0f32, 0.0f32);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        both += a * b;
        only_a += a * a;
        only_b += b * b;
    }
    // A steady sound has no shape to recognise: its variation is a small part of its strength.
    let steady = |mean: f32, variation: f32| variation <= 0.01 * mean * mean * span as f32;
    (!steady(mean_a, only_a) && !steady(mean_b, only_b)).then(|| both / (only_a * only_b).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::source::Source;
    use streamfleet_audio::tone::{Tone, Voice};

    /// A voice of this seed begins at the same sound whatever its rate.
    const SEED: u32 = 1_000;

    fn record(rate: u32, delay_ms: u64, seconds: usize, fill: impl FnOnce(&mut [i16])) -> Recording {
        let mut samples = vec![0; rate as usize * seconds];
        fill(&mut samples);
        let mut recording = Recording::new(rate, Duration::from_secs(60));
        recording.place(Duration::from_millis(delay_ms), &samples);
        recording
    }

    fn check(spoken: &Recording, heard: &Recording, expected: Option<u64>) {
        let found = measure(spoken, heard).map(|latency| latency.mouth_to_ear.as_millis() as u64);
        let close = match (found, expected) {
            (Some(found), Some(expected)) => found.abs_diff(expected) <= 2,
            (found, expected) => found == expected,
        };
        assert!(close, "{found:?}, expected {expected:?}");
    }

    #[test]
    fn bursts_and_speech_are_found_at_any_rate_and_level() {
        for delay in [0, 35, 250, 1_500] {
            let bursts = |s: &mut [i16]| Source::tone(440).fill(s);
            check(&record(48_000, 0, 6, bursts), &record(48_000, delay, 6, bursts), Some(delay));
        }
        let voice = |rate| move |s: &mut [i16]| Voice::new(rate, SEED).fill(s);
        let quiet = |s: &mut [i16]| {
            Voice::new(48_000, SEED).fill(s);
            s.iter_mut().for_each(|sample| *sample /= 20);
        };
        check(&record(24_000, 0, 5, voice(24_000)), &record(48_000, 120, 5, voice(48_000)), Some(120));
        check(&record(48_000, 0, 5, voice(48_000)), &record(48_000, 77, 5, quiet), Some(77));
    }

    #[test]
    fn other_sounds_are_not() {
        let bursts = record(48_000, 0, 5, |s| Source::tone(440).fill(s));
        check(&bursts, &record(48_000, 0, 5, |s| Tone::new(48_000, 440.0, -20.0).fill(s)), None);
        check(&bursts, &record(48_000, 0, 5, |s| Voice::new(48_000, 1).fill(s)), None);
        check(&bursts, &record(48_000, 0, 5, |_| {}), None);
        check(&bursts, &record(48_000, 0, 0, |_| {}), None);
        let steady = record(48_000, 0, 5, |s| Tone::new(48_000, 440.0, -20.0).fill(s));
        check(&steady, &steady, None);
    }
}
