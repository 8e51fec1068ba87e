//! Test signals: a sine, and something that codecs take for speech.

/// An endless sine. Mono.
#[derive(Debug, Clone)]
pub struct Tone {
    /// Turns per sample.
    step: f64,
    /// Turns, in `0.0..1.0`.
    phase: f64,
    amplitude: f64,
}

impl Tone {
    /// A sine of `hz` sampled at `rate` Hz, with an RMS level of `level_dbfs` (a full-scale sine has -3.01).
    #[must_use]
    pub fn new(rate: u32, hz: f32, level_dbfs: f32) -> Self {
        let amplitude = 32_768.0 * std::f64::consts::SQRT_2 * 10f64.powf(f64::from(level_dbfs) / 20.0);
        Self { step: f64::from(hz) / f64::from(rate.max(1)), phase: 0.0, amplitude: amplitude.min(32_767.0) }
    }

    /// Writes the next samples.
    pub fn fill(&mut self, samples: &mut [i16]) {
        for sample in samples {
            *sample = ((self.phase * std::f64::consts::TAU).sin() * self.amplitude).round() as i16;
            self.phase = (self.phase + self.step).rem_euclid(1.0);
        }
    }
}

/// Partials of a [`Voice`].
const PARTIALS: u32 = 30;

/// An endless deterministic signal with the properties of speech that codecs and buffers react to: a gliding pitch
/// around 120 Hz, moving formants, syllables, and a fricative now and then. Mono; about -20 dBFS.
#[derive(Debug, Clone)]
pub struct Voice {
    rate: f64,
    /// Samples made so far.
    position: u64,
    /// Turns of the fundamental.
    phase: f64,
    noise: u32,
}

impl Voice {
    /// A voice sampled at `rate` Hz. Different seeds speak differently.
    #[must_use]
    pub fn new(rate: u32, seed: u32) -> Self {
        Self { rate: f64::from(rate.max(1)), position: u64::from(seed % 1_000) * 1_000, phase: 0.0, noise: seed }
    }

    /// Writes the next samples.
    pub fn fill(&mut self, samples: &mut [i16]) {
        for sample in samples {
            *sample = (self.next() * 9_000.0).clamp(-32_767.0, 32_767.0) as i16;
        }
    }

    fn next(&mut self) -> f64 {
        use std::f64::consts::TAU;
        let time = self.position as f64 / self.rate;
        self.position += 1;
        self.noise = self.noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = f64::from(self.noise >> 8) / f64::from(1u32 << 23) - 1.0;

        let pitch = 120.0 + 30.0 * (time * 2.1).sin();
        self.phase = (self.phase + pitch / self.rate).fract();
        let formant = |hz: f64, centre: f64| 1.0 / (1.0 + ((hz - centre) / 250.0).powi(2));
        let second = 1_500.0 + 400.0 * (time * 3.0).sin();
        let partials = (1..PARTIALS).map(f64::from).take_while(|partial| pitch * partial < self.rate * 0.45);
        let voiced: f64 = partials
            .map(|partial| {
                let hz = pitch * partial;
                let level = formant(hz, 600.0) + 0.5 * formant(hz, second) + 0.03;
                level * (self.phase * partial * TAU).sin()
            })
            .sum();

        // Four syllables a second; every eighth half second is a fricative.
        let syllable = (0.5 - 0.5 * (time * 4.0 * TAU).cos()).max(0.02);
        if (time * 2.0) as u64 % 8 == 7 { 0.2 * noise * syllable } else { 0.25 * voiced * syllable + 0.005 * noise }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phase_is_kept_between_calls() {
        let (mut whole, mut parts) = ([0; 480], [0; 480]);
        Tone::new(24_000, 440.0, -12.0).fill(&mut whole);
        let mut tone = Tone::new(24_000, 440.0, -12.0);
        parts.chunks_mut(7).for_each(|part| tone.fill(part));
        assert_eq!(whole, parts);
    }

    #[test]
    fn levels_above_full_scale_are_clipped_not_wrapped() {
        let mut samples = [0; 480];
        Tone::new(48_000, 1_000.0, 20.0).fill(&mut samples);
        assert_eq!(samples.iter().max(), Some(&32_767));
    }
}
