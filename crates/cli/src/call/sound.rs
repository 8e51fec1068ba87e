//! What was heard: a recording on the call's clock, and what can be said about it.

use std::time::Duration;

use streamfleet_audio::analysis::{SILENCE_DBFS, level_dbfs, tone_level};

/// Below this a piece counts as silence: comfort noise and codec noise are quieter, speech in a quiet room is louder.
pub(crate) const AUDIBLE_DBFS: f32 = -50.0;
/// Pieces that levels are taken of.
const PIECE: Duration = Duration::from_millis(10);
/// A tone is dominant when it has at least this share of the power, in dB below the whole.
const DOMINANT_DB: f32 = 3.0;
/// Where tones are looked for.
const TONES: std::ops::RangeInclusive<u32> = 50..=7_000;
/// Longest stretch that a tone is looked for in; its resolution is about 10 Hz.
const TONE_SPAN: Duration = Duration::from_millis(400);
/// Shortest one: below it neighbouring tones cannot be told apart.
const LEAST_SPAN: Duration = Duration::from_millis(40);

/// Mono samples on a clock that began with the call; silence where nothing was.
#[derive(Debug, Clone)]
pub(crate) struct Recording {
    pub(crate) rate: u32,
    pub(crate) samples: Vec<i16>,
    limit: usize,
}

impl Recording {
    pub(crate) fn new(rate: u32, limit: Duration) -> Self {
        Self { rate, samples: Vec::new(), limit: position(rate, limit) }
    }

    /// Adds samples whose first one belongs at `at`. What is later than the limit is left away.
    pub(crate) fn place(&mut self, at: Duration, samples: &[i16]) {
        let from = position(self.rate, at).min(self.limit);
        let to = from.saturating_add(samples.len()).min(self.limit);
        if self.samples.len() < to {
            self.samples.resize(to, 0);
        }
        self.samples[from..to].copy_from_slice(&samples[..to - from]);
    }

    /// The pieces that can be heard.
    fn audible(&self) -> impl Iterator<Item = &[i16]> {
        let pieces = self.samples.chunks(position(self.rate, PIECE).max(1));
        pieces.filter(|piece| level_dbfs(piece) > AUDIBLE_DBFS)
    }

    /// How much of it can be heard.
    pub(crate) fn audible_time(&self) -> Duration {
        let samples: usize = self.audible().map(<[i16]>::len).sum();
        Duration::from_secs_f64(samples as f64 / f64::from(self.rate.max(1)))
    }

    /// RMS level of what can be heard.
    pub(crate) fn level(&self) -> f32 {
        let (mut energy, mut count) = (0.0, 0usize);
        for sample in self.audible().flatten() {
            energy += f64::from(*sample).powi(2);
            count += 1;
        }
        if count == 0 {
            return SILENCE_DBFS;
        }
        (10.0 * (energy / count as f64 / 32_768f64.powi(2)).log10()) as f32
    }

    /// The tone that carries most of the sound's power in its longest audible stretch, if one does.
    pub(crate) fn dominant_tone(&self) -> Option<u32> {
        let stretch = self.longest_stretch();
        if stretch.len() < position(self.rate, LEAST_SPAN) {
            return None;
        }
        let level = |hz: &u32| tone_level(stretch, self.rate, *hz as f32);
        let loudest = |tones: &mut dyn Iterator<Item = u32>| {
            tones.filter(|hz| hz * 2 < self.rate).map(|hz| (hz, level(&hz))).max_by(|a, b| a.1.total_cmp(&b.1))
        };
        // The window's main lobe is four bins wide: a step of one bin misses no tone.
        let bin = (self.rate / stretch.len() as u32).max(1);
        let (coarse, _) = loudest(&mut TONES.step_by(bin as usize))?;
        let (fine, found) = loudest(&mut (coarse.saturating_sub(bin)..=coarse + bin))?;
        (found > level_dbfs(stretch) - DOMINANT_DB).then_some(fine)
    }

    fn longest_stretch(&self) -> &[i16] {
        let (piece, most) = (position(self.rate, PIECE).max(1), position(self.rate, TONE_SPAN));
        let (mut best, mut start) = (0..0, 0);
        for (number, samples) in self.samples.chunks(piece).enumerate() {
            let end = number * piece + samples.len();
            if level_dbfs(samples) <= AUDIBLE_DBFS {
                start = end;
            } else if end - start > best.len() && end - start <= most {
                best = start..end;
            }
        }
        &self.samples[best]
    }
}

fn position(rate: u32, at: Duration) -> usize {
    (at.as_secs_f64() * f64::from(rate)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::source::Source;
    use streamfleet_audio::tone::{Tone, Voice};

    fn recording(rate: u32, samples: Vec<i16>) -> Recording {
        Recording { rate, limit: samples.len(), samples }
    }

    #[test]
    fn pieces_are_placed_on_the_clock() {
        let mut recording = Recording::new(1_000, Duration::from_millis(10));
        recording.place(Duration::from_millis(3), &[1, 2]);
        assert_eq!(recording.samples, [0, 0, 0, 1, 2]);
        recording.place(Duration::from_millis(4), &[7, 7]);
        assert_eq!(recording.samples, [0, 0, 0, 1, 7, 7]);
        recording.place(Duration::from_millis(9), &[5, 5, 5]);
        recording.place(Duration::from_secs(9), &[5]);
        assert_eq!(recording.samples, [0, 0, 0, 1, 7, 7, 0, 0, 0, 5], "the limit holds");
    }

    #[test]
    fn levels_are_of_what_can_be_heard() {
        let mut samples = vec![0; 96_000];
        Tone::new(48_000, 440.0, -20.0).fill(&mut samples[48_000..72_000]);
        let sound = recording(48_000, samples);
        assert!((sound.level() + 20.0).abs() < 0.2, "{}", sound.level());
        assert_eq!(sound.audible_time(), Duration::from_millis(500));
        let silence = recording(48_000, vec![3; 48_000]);
        assert_eq!((silence.level(), silence.audible_time()), (SILENCE_DBFS, Duration::ZERO));
    }

    #[test]
    fn dominant_tones() {
        fn check(rate: u32, fill: impl FnOnce(&mut [i16]), expected: Option<u32>) {
            let mut samples = vec![0; rate as usize];
            fill(&mut samples);
            let found = recording(rate, samples).dominant_tone();
            let close = match (found, expected) {
                (Some(found), Some(expected)) => found.abs_diff(expected) <= 1,
                (found, expected) => found == expected,
            };
            assert!(close, "{found:?}, expected {expected:?}");
        }
        check(48_000, |s| Tone::new(48_000, 440.0, -20.0).fill(s), Some(440));
        check(8_000, |s| Tone::new(8_000, 3_217.0, -30.0).fill(s), Some(3_217));
        check(48_000, |s| Source::tone(1_000).fill(s), Some(1_000));
        check(48_000, |s| Tone::new(48_000, 440.0, -20.0).fill(&mut s[..1_000]), None);
        check(48_000, |s| Voice::new(48_000, 1).fill(s), None);
        check(48_000, |_| {}, None);
    }
}
