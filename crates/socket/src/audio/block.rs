//! Frames of 20 ms at rates that do not divide into them.

use streamfleet_audio::{AudioError, PcmFormat};

/// Frames per second.
const PER_SECOND: u32 = 50;

/// The lengths of consecutive frames: 20 ms each on average, to the sample. At 11 025 Hz they alternate between 220 and
/// 221 samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blocks {
    rate: u32,
    /// What was cut off so far, in fiftieths of a sample.
    remainder: u32,
}

impl Blocks {
    pub(super) const fn new(rate: u32) -> Self {
        Self { rate, remainder: 0 }
    }

    /// Samples in the next frame.
    pub(super) const fn length(self) -> usize {
        ((self.rate + self.remainder) / PER_SECOND) as usize
    }

    /// The next frame was taken.
    pub(super) const fn advance(&mut self) {
        self.remainder = (self.rate + self.remainder) % PER_SECOND;
    }
}

/// Refuses the rates that the resampler is not built for.
pub(super) fn check_rate(rate: u32) -> Result<u32, AudioError> {
    if (PcmFormat::MIN_RATE..=PcmFormat::MAX_RATE).contains(&rate) {
        Ok(rate)
    } else {
        Err(AudioError::UnsupportedFormat(PcmFormat::mono(rate)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_samples() {
        for rate in [8_000, 11_025, 22_050, 24_000, 44_100, 48_000, 8_001] {
            let mut blocks = Blocks::new(rate);
            let mut total = 0;
            for _ in 0..PER_SECOND {
                let length = blocks.length();
                assert!(length.abs_diff(rate as usize / 50) <= 1, "{rate}");
                total += length;
                blocks.advance();
            }
            assert_eq!(total, rate as usize);
        }
    }
}
