//! Levels and tones in PCM: what tests, meters and clients measure.

/// What is reported for digital silence, in dBFS; below the quantisation noise of 16 bits.
pub const SILENCE_DBFS: f32 = -100.0;

/// RMS level in dB relative to full scale. A full-scale sine is at -3 dBFS; nothing is below [`SILENCE_DBFS`].
#[must_use]
pub fn level_dbfs(samples: &[i16]) -> f32 {
    if samples.is_empty() {
        return SILENCE_DBFS;
    }
    let energy: f64 = samples.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    decibels(energy / samples.len() as f64)
}

/// RMS level in dBFS of the component at `hz` of mono samples at `rate` Hz (Goertzel with a Hann window).
///
/// The band is about `4 * rate / samples.len()` wide. A pure tone gives the same value as [`level_dbfs`].
#[must_use]
pub fn tone_level(samples: &[i16], rate: u32, hz: f32) -> f32 {
    if samples.is_empty() || rate == 0 {
        return SILENCE_DBFS;
    }
    let length = samples.len() as f64;
    let omega = std::f64::consts::TAU * f64::from(hz) / f64::from(rate);
    let coefficient = 2.0 * omega.cos();
    let (mut previous, mut before) = (0.0f64, 0.0f64);
    for (position, &sample) in samples.iter().enumerate() {
        let window = 1.0 - (std::f64::consts::TAU * (position as f64 + 0.5) / length).cos();
        let current = f64::from(sample) * window + coefficient * previous - before;
        before = previous;
        previous = current;
    }
    let power = previous * previous + before * before - coefficient * previous * before;
    // The window has mean 1, so an amplitude A gives a bin of A * length / 2; its mean square is A * A / 2.
    decibels(2.0 * power.max(0.0) / (length * length))
}

fn decibels(mean_square: f64) -> f32 {
    let full_scale = 32_768.0f64 * 32_768.0;
    let level = 10.0 * (mean_square / full_scale).max(1e-12).log10();
    (level as f32).max(SILENCE_DBFS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone::Tone;

    #[test]
    fn levels() {
        fn check(samples: &[i16], expected: f32) {
            assert!((level_dbfs(samples) - expected).abs() < 0.05, "{} != {expected}", level_dbfs(samples));
        }
        check(&[], SILENCE_DBFS);
        check(&[0; 960], SILENCE_DBFS);
        check(&[i16::MIN; 10], 0.0);
        check(&[16_384, -16_384], -6.02);
    }

    #[test]
    fn a_tone_is_found_at_its_frequency_only() {
        for (rate, hz) in [(8_000, 440.0), (16_000, 1_000.0), (24_000, 3_300.0), (48_000, 97.5)] {
            let mut samples = vec![0; rate as usize];
            Tone::new(rate, hz, -20.0).fill(&mut samples);
            assert!((tone_level(&samples, rate, hz) + 20.0).abs() < 0.1);
            assert!((tone_level(&samples, rate, hz) - level_dbfs(&samples)).abs() < 0.1);
            assert!(tone_level(&samples, rate, hz * 1.5) < -70.0);
        }
        assert_eq!(tone_level(&[], 8_000, 440.0), SILENCE_DBFS);
        assert_eq!(tone_level(&[1], 0, 440.0), SILENCE_DBFS);
    }
}
