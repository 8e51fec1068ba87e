//! What a call speaks.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use streamfleet_audio::tone::Tone;
use streamfleet_audio::{PcmFormat, wav};

/// Rate of the tone bursts.
pub(crate) const TONE_RATE: u32 = 48_000;
/// RMS level of a burst, as loud as speech.
pub(crate) const TONE_DBFS: f32 = -20.0;
/// One step of the pattern: three packets, longer than what codecs and jitter buffers smear.
const STEP: Duration = Duration::from_millis(60);
/// Fade at both ends of a burst; a hard edge would click over the whole spectrum.
const FADE: Duration = Duration::from_millis(5);
/// Longest file that is spoken.
const MAX_FILE: Duration = Duration::from_secs(600);

/// Gives samples for ever; after a file has ended, silence.
pub(crate) enum Source {
    Bursts(Bursts),
    File { samples: Vec<i16>, format: PcmFormat, position: usize },
}

impl Source {
    pub(crate) fn tone(hz: u32) -> Self {
        Self::Bursts(Bursts::new(hz))
    }

    /// # Errors
    /// The file cannot be opened, is no WAV file, or is longer than ten minutes.
    pub(crate) fn file(path: &Path) -> anyhow::Result<Self> {
        let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let clip = wav::read(std::io::BufReader::new(file), MAX_FILE)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self::File { samples: clip.samples, format: clip.format, position: 0 })
    }

    pub(crate) fn format(&self) -> PcmFormat {
        match self {
            Self::Bursts(_) => PcmFormat { rate: TONE_RATE, channels: 1 },
            Self::File { format, .. } => *format,
        }
    }

    /// The length of what is spoken, if it ends.
    pub(crate) fn length(&self) -> Option<Duration> {
        match self {
            Self::Bursts(_) => None,
            Self::File { samples, format, .. } => Some(format.duration(samples.len())),
        }
    }

    /// The next samples.
    pub(crate) fn fill(&mut self, piece: &mut [i16]) {
        match self {
            Self::Bursts(bursts) => bursts.fill(piece),
            Self::File { samples, position, .. } => {
                let rest = &samples[*position..];
                let taken = rest.len().min(piece.len());
                piece[..taken].copy_from_slice(&rest[..taken]);
                piece[taken..].fill(0);
                *position += taken;
            }
        }
    }
}

/// A tone that is switched on and off by a maximum-length sequence of 31 steps (1.86 s): its envelope resembles itself
/// at no other shift, so any latency below that can be read from one correlation.
pub(crate) struct Bursts {
    tone: Tone,
    /// A five-bit shift register with taps at 5 and 3.
    register: u8,
    /// Samples left of this step.
    left: usize,
    level: f32,
}

impl Bursts {
    fn new(hz: u32) -> Self {
        Self { tone: Tone::new(TONE_RATE, hz as f32, TONE_DBFS), register: 0b1_0110, left: step(), level: 0.0 }
    }

    fn fill(&mut self, piece: &mut [i16]) {
        self.tone.fill(piece);
        let slope = 1.0 / (FADE.as_secs_f32() * TONE_RATE as f32);
        for sample in piece {
            if self.left == 0 {
                let feedback = (self.register ^ (self.register >> 2)) & 1;
                self.register = (self.register >> 1) | (feedback << 4);
                self.left = step();
            }
            self.left -= 1;
            let goal = f32::from(self.register & 1);
            self.level += (goal - self.level).clamp(-slope, slope);
            *sample = (f32::from(*sample) * self.level) as i16;
        }
    }
}

fn step() -> usize {
    (STEP.as_secs_f32() * TONE_RATE as f32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamfleet_audio::analysis::level_dbfs;

    #[test]
    fn the_pattern_is_a_maximum_length_sequence() {
        let mut source = Source::tone(440);
        let mut samples = vec![0; step() * 62];
        source.fill(&mut samples);
        let on: Vec<bool> = samples.chunks(step()).map(|step| level_dbfs(&step[step.len() / 2..]) > -30.0).collect();
        assert_eq!(on[..31].iter().filter(|on| **on).count(), 16);
        assert_eq!(on[..31], on[31..], "the period is 31 steps");
        for shift in 1..31 {
            let same = (0..31).filter(|n| on[*n] == on[n + shift]).count();
            assert_eq!(same, 15, "shift {shift}");
        }
    }

    #[test]
    fn pieces_of_any_size_make_the_same_sound() {
        let (mut whole, mut parts) = (vec![0; 9_600], vec![0; 9_600]);
        Source::tone(440).fill(&mut whole);
        let mut source = Source::tone(440);
        parts.chunks_mut(77).for_each(|piece| source.fill(piece));
        assert_eq!(whole, parts);
    }

    #[test]
    fn a_file_is_followed_by_silence() {
        let format = PcmFormat { rate: 8_000, channels: 1 };
        let mut source = Source::File { samples: vec![5; 12], format, position: 0 };
        assert_eq!(source.length(), Some(Duration::from_micros(1_500)));
        let mut piece = [1; 8];
        source.fill(&mut piece);
        assert_eq!(piece, [5; 8]);
        source.fill(&mut piece);
        assert_eq!(piece, [5, 5, 5, 5, 0, 0, 0, 0]);
        source.fill(&mut piece);
        assert_eq!(piece, [0; 8]);
    }
}
