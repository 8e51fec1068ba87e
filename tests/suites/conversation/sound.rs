//! What was heard, judged by content.

use std::time::Instant;

use streamfleet_audio::PcmFormat;
use streamfleet_audio::analysis::{level_dbfs, tone_level};

/// A window is loud above this, in dBFS: tones are at -15.
const LOUD_DBFS: f32 = -40.0;
/// A sample is loud above this: a tone's samples are, but for a few around each crossing of zero.
const LOUD_SAMPLE: u16 = 1_000;
/// Of a window's power, half must be the tone's.
const SHARE_DB: f32 = 3.0;

/// Mono audio as it was heard, and when.
#[derive(Debug, Clone)]
pub(crate) struct Sound {
    rate: u32,
    samples: Vec<i16>,
    /// When the sample with this number was heard, once for each piece.
    times: Vec<(usize, Instant)>,
}

impl Sound {
    pub(crate) fn new(rate: u32) -> Self {
        Self { rate, samples: Vec::new(), times: Vec::new() }
    }

    pub(crate) fn push(&mut self, samples: &[i16], format: PcmFormat, at: Instant) {
        self.times.push((self.samples.len(), at));
        self.samples.extend(samples.iter().step_by(usize::from(format.channels.max(1))));
    }

    /// Windows of 20 ms that are loud, with their first sample.
    fn windows(&self) -> impl DoubleEndedIterator<Item = (usize, &[i16])> {
        let size = self.rate as usize / 50;
        let windows = self.samples.chunks_exact(size).enumerate().map(move |(n, window)| (n * size, window));
        windows.filter(|(_, window)| level_dbfs(window) > LOUD_DBFS)
    }

    fn windows_of(&self, hz: f32) -> impl DoubleEndedIterator<Item = (usize, &[i16])> {
        let rate = self.rate;
        self.windows().filter(move |(_, window)| tone_level(window, rate, hz) > level_dbfs(window) - SHARE_DB)
    }

    /// How long the tone was heard, in windows of 20 ms.
    pub(crate) fn tone_seconds(&self, hz: f32) -> f64 {
        self.windows_of(hz).count() as f64 / 50.0
    }

    /// How long anything was heard, likewise.
    pub(crate) fn loud_seconds(&self) -> f64 {
        self.windows().count() as f64 / 50.0
    }

    /// From the first loud sample to the last: to the sample, how long a single stretch of sound was.
    pub(crate) fn span_seconds(&self) -> f64 {
        let is_loud = |sample: &i16| sample.unsigned_abs() > LOUD_SAMPLE;
        let first = self.samples.iter().position(is_loud);
        let last = self.samples.iter().rposition(is_loud);
        first.zip(last).map_or(0.0, |(first, last)| (last + 1 - first) as f64 / f64::from(self.rate))
    }

    /// RMS of the loud windows, in dBFS.
    pub(crate) fn level(&self) -> f32 {
        let loud: Vec<i16> = self.windows().flat_map(|(_, window)| window.iter().copied()).collect();
        level_dbfs(&loud)
    }

    /// When the first and the last window of a tone began.
    pub(crate) fn when(&self, hz: f32) -> Option<(Instant, Instant)> {
        let first = self.windows_of(hz).next()?.0;
        let last = self.windows_of(hz).next_back()?.0;
        Some((self.at(first)?, self.at(last)?))
    }

    /// When a sample was heard: pieces are shorter than what is measured with it.
    fn at(&self, sample: usize) -> Option<Instant> {
        let next = self.times.partition_point(|(first, _)| *first <= sample);
        self.times.get(next.checked_sub(1)?).map(|(_, at)| *at)
    }
}

/// A tone at 48 kHz of -15 dBFS; 0 Hz is silence.
pub(crate) fn tone(hz: f64, seconds: f64) -> Vec<i16> {
    let at = |n: u32| 0.25 * 32_767.0 * (std::f64::consts::TAU * hz * f64::from(n) / 48_000.0).sin();
    (0..(48_000.0 * seconds) as u32).map(|n| at(n) as i16).collect()
}

#[test]
fn tones_are_told_apart_and_lengths_are_to_the_sample() {
    let mut sound = Sound::new(48_000);
    let now = Instant::now();
    let format = PcmFormat::mono(48_000);
    for (hz, seconds) in [(0.0, 0.1), (660.0, 0.5), (0.0, 0.2), (880.0, 0.3)] {
        sound.push(&tone(hz, seconds), format, now);
    }
    let about = |got: f64, want: f64| assert!((got - want).abs() < 0.03, "{got} is not {want}");
    about(sound.tone_seconds(660.0), 0.5);
    about(sound.tone_seconds(880.0), 0.3);
    about(sound.tone_seconds(440.0), 0.0);
    about(sound.loud_seconds(), 0.8);
    assert!((sound.span_seconds() - 1.0).abs() < 0.001);
    assert!((sound.level() + 15.05).abs() < 0.2);
    let mut shorter = Sound::new(48_000);
    shorter.push(&tone(660.0, 0.48), format, now);
    assert!(shorter.span_seconds() < 0.481, "a missing packet shows");
}
