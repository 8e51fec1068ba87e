//! A WAV file as mono samples.

use std::io::Cursor;

use hound::{SampleFormat, WavReader};

/// Rates that the resampler behind a session takes.
const RATES: std::ops::RangeInclusive<u32> = 8_000..=192_000;

/// Channels mixed to one: 7.1 is the largest layout in use.
const MAX_CHANNELS: u16 = 8;

/// Decoded mono audio; at least one sample.
#[derive(Debug)]
pub(super) struct Pcm {
    pub(super) rate: u32,
    pub(super) samples: Box<[i16]>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum BadWav {
    #[error("is not a WAV file that can be played: {0}")]
    Format(#[from] hound::Error),
    #[error("has {0} samples a second; 8000 to 192000 can be played")]
    Rate(u32),
    #[error("has {0} channels; 1 to {MAX_CHANNELS} can be played")]
    Channels(u16),
    #[error("has {0}-bit samples; 8 to 32 can be played")]
    Depth(u16),
    #[error("has no audio in it")]
    Empty,
}

impl Pcm {
    /// Decodes integer samples of 8 to 32 bits and 32-bit floats, and mixes the channels to one.
    pub(super) fn parse(file: &[u8]) -> Result<Self, BadWav> {
        let mut reader = WavReader::new(Cursor::new(file))?;
        let spec = reader.spec();
        if !RATES.contains(&spec.sample_rate) {
            return Err(BadWav::Rate(spec.sample_rate));
        }
        if !(1..=MAX_CHANNELS).contains(&spec.channels) {
            return Err(BadWav::Channels(spec.channels));
        }
        let depth = spec.bits_per_sample;
        if !(8..=32).contains(&depth) {
            return Err(BadWav::Depth(depth));
        }
        let mut mixer = Mixer::new(spec.channels);
        match spec.sample_format {
            SampleFormat::Int => {
                for sample in reader.samples::<i32>() {
                    let full_scale = i64::from(sample?) << (32 - depth);
                    mixer.add((full_scale >> 16) as i32);
                }
            }
            SampleFormat::Float => {
                for sample in reader.samples::<f32>() {
                    // The cast clips, and makes nothing of a NaN.
                    mixer.add(i32::from((sample? * f32::from(i16::MAX)).round() as i16));
                }
            }
        }
        if mixer.mixed.is_empty() {
            return Err(BadWav::Empty);
        }
        Ok(Self { rate: spec.sample_rate, samples: mixer.mixed.into_boxed_slice() })
    }
}

/// Averages the channels of interleaved samples.
struct Mixer {
    channels: u16,
    sum: i32,
    seen: u16,
    mixed: Vec<i16>,
}

impl Mixer {
    fn new(channels: u16) -> Self {
        // The length in a header is only a claim: what is not there is not allocated.
        Self { channels, sum: 0, seen: 0, mixed: Vec::new() }
    }

    fn add(&mut self, sample: i32) {
        self.sum += sample.clamp(i32::from(i16::MIN), i32::from(i16::MAX));
        self.seen += 1;
        if self.seen == self.channels {
            self.mixed.push((self.sum / i32::from(self.channels)) as i16);
            (self.sum, self.seen) = (0, 0);
        }
    }
}
