//! Streaming sample-rate conversion between any two integer rates.
//!
//! A polyphase windowed-sinc filter in 16-bit fixed point. It works sample by sample, so it takes blocks of any length
//! and adds no delay beyond the filter's own; the coefficients of a pair of rates are shared by all streams that use it,
//! which leaves some hundred bytes per stream.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Filter length in samples of the lower rate. 48 puts the pass band's edge at 86 % of the lower Nyquist frequency (3.4
/// of 4 kHz) and costs 3 ms of delay at 8 kHz, less at higher rates.
const SPAN: usize = 48;
/// Shape of the Kaiser window: side lobes of about -75 dB, below what 14-bit coefficients can show.
const KAISER_BETA: f64 = 7.0;
/// Fixed-point unit of the coefficients. With 14 bits the sum of magnitudes stays below 2.0 * 2^14 and the accumulator
/// (16 + 14 + 1 bits) cannot overflow.
const UNIT: f64 = 16_384.0;
const UNIT_BITS: u32 = 14;
/// Phases at most. Pairs of rates that are nearly coprime (47 999 and 48 000) would need tens of thousands; they get the
/// nearest of these, which is off by at most half a thousandth of a sample: an error about 60 dB below the signal.
const MAX_PHASES: usize = 1_024;
/// Multiple that the filter length is rounded up to, for whole SIMD registers.
const LANES: usize = 8;

/// The filter of one pair of rates. `coefficients` holds, for each phase `p`, those for an output sample that lies
/// `p / up` input samples after the middle of what the filter sees.
#[derive(Debug)]
struct Filter {
    from: u32,
    to: u32,
    /// `to / gcd` and `from / gcd`.
    up: usize,
    down: usize,
    /// Phases kept: `up`, or [`MAX_PHASES`] if there would be more.
    phases: usize,
    /// Coefficients per phase.
    length: usize,
    coefficients: Vec<i16>,
}

impl Filter {
    fn design(from: u32, to: u32) -> Self {
        let divisor = greatest_common_divisor(from, to);
        let (up, down) = ((to / divisor) as usize, (from / divisor) as usize);
        // In input samples; when the rate goes down, the filter is as many times longer as the band is narrower.
        let narrowing = f64::from(to).min(f64::from(from)) / f64::from(from);
        let length = ((SPAN as f64 / narrowing).ceil() as usize).next_multiple_of(LANES);
        // The transition band is centred a little below the lower Nyquist frequency, so that the edge of it is there.
        let cutoff = narrowing * 0.93;
        let half = length as f64 / 2.0;
        let phases = up.min(MAX_PHASES);
        let mut coefficients = Vec::with_capacity(phases * length);
        let mut phase = vec![0.0; length];
        // A kept phase stands in the middle of those that it stands for.
        let offset = if phases < up { 0.5 } else { 0.0 };
        for position in 0..phases {
            let centre = half - 1.0 + (position as f64 + offset) / phases as f64;
            for (tap, value) in phase.iter_mut().enumerate() {
                let time = tap as f64 - centre;
                *value = sinc(time * cutoff) * kaiser(time / half);
            }
            // Every phase has the same gain at 0 Hz, or a constant would come out as a tone.
            let gain: f64 = phase.iter().sum();
            coefficients.extend(phase.iter().map(|value| (value / gain * UNIT).round() as i16));
        }
        Self { from, to, up, down, phases, length, coefficients }
    }

    /// The filter of a pair of rates, from those in use if there is one.
    fn shared(from: u32, to: u32) -> Arc<Self> {
        /// Constants by their key, not state: a table for 44.1 to 48 kHz has 15 kB and a thousand streams share it. The
        /// lock is taken when a stream is set up, never per packet.
        static IN_USE: Mutex<Vec<Weak<Filter>>> = Mutex::new(Vec::new());
        let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        in_use.retain(|filter| filter.strong_count() > 0);
        let found = in_use.iter().filter_map(Weak::upgrade).find(|filter| filter.from == from && filter.to == to);
        found.unwrap_or_else(|| {
            let filter = Arc::new(Self::design(from, to));
            in_use.push(Arc::downgrade(&filter));
            filter
        })
    }
}

/// A stream being converted.
#[derive(Debug)]
pub struct Resampler {
    filter: Arc<Filter>,
    channels: Vec<Channel>,
    /// Phase of the next output sample, and how many input samples it is ahead of the oldest one held.
    phase: usize,
    ahead: usize,
}

#[derive(Debug)]
struct Channel {
    /// The filter's reach, then new samples.
    samples: Vec<i16>,
}

impl Resampler {
    /// From `from` Hz to `to` Hz, for interleaved samples of so many channels (at least one).
    #[must_use]
    pub fn new(from: u32, to: u32, channels: u16) -> Self {
        let filter = Filter::shared(from.max(1), to.max(1));
        let reach = filter.length - 1;
        let channels = (0..channels.max(1)).map(|_| Channel { samples: vec![0; reach] }).collect();
        Self { filter, channels, phase: 0, ahead: 0 }
    }

    /// Delay in input samples: half of the filter.
    #[must_use]
    pub fn delay(&self) -> usize {
        self.filter.length / 2
    }

    /// The input rate in Hz.
    #[must_use]
    pub fn from(&self) -> u32 {
        self.filter.from
    }

    /// The output rate in Hz.
    #[must_use]
    pub fn to(&self) -> u32 {
        self.filter.to
    }

    /// Converts interleaved samples and appends the result. Samples of an incomplete last frame are ignored.
    pub fn process(&mut self, input: &[i16], output: &mut Vec<i16>) {
        let count = self.channels.len();
        let frames = input.len() / count;
        for (at, channel) in self.channels.iter_mut().enumerate() {
            channel.samples.extend(input.chunks_exact(count).map(|frame| frame[at]));
        }
        let Filter { up, down, phases, length, .. } = *self.filter;
        let held = frames + length - 1;
        output.reserve((frames * up / down + 1) * count);
        while self.ahead + length <= held {
            let phase = self.phase * phases / up;
            let coefficients = &self.filter.coefficients[phase * length..][..length];
            for channel in &self.channels {
                output.push(dot(&channel.samples[self.ahead..][..length], coefficients));
            }
            self.phase += down;
            self.ahead += self.phase / up;
            self.phase %= up;
        }
        // The loop ends with the next output beyond what is held, so all new samples may go.
        self.ahead -= frames;
        for channel in &mut self.channels {
            let keep = channel.samples.len() - frames;
            channel.samples.copy_within(frames.., 0);
            channel.samples.truncate(keep);
        }
    }
}

fn dot(samples: &[i16], coefficients: &[i16]) -> i16 {
    // Wrapping, because a check per product would keep this from becoming SIMD; by `UNIT` nothing wraps.
    let sum = samples.iter().zip(coefficients).fold(0i32, |sum, (&sample, &coefficient)| {
        sum.wrapping_add(i32::from(sample).wrapping_mul(i32::from(coefficient)))
    });
    let rounded = (sum + (1 << (UNIT_BITS - 1))) >> UNIT_BITS;
    rounded.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

fn sinc(x: f64) -> f64 {
    let angle = std::f64::consts::PI * x;
    if angle.abs() < 1e-9 { 1.0 } else { angle.sin() / angle }
}

/// The Kaiser window at `x` in -1.0..=1.0, not normalised.
fn kaiser(x: f64) -> f64 {
    if x.abs() > 1.0 {
        return 0.0;
    }
    // The modified Bessel function of order zero, by its power series.
    let quarter = (KAISER_BETA / 2.0).powi(2) * (1.0 - x * x);
    let (mut term, mut sum, mut n) = (1.0, 1.0, 1.0);
    while term > 1e-12 * sum {
        term *= quarter / (n * n);
        sum += term;
        n += 1.0;
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::{level_dbfs, tone_level};
    use crate::tone::Tone;

    const RATES: [u32; 7] = [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000];

    /// Converts one second of a tone in 20 ms blocks; gives what comes out without the filter's start.
    fn convert(from: u32, to: u32, hz: f32) -> Vec<i16> {
        let mut resampler = Resampler::new(from, to, 1);
        let mut tone = Tone::new(from, hz, -6.0);
        let mut output = Vec::new();
        for _ in 0..50 {
            let mut block = vec![0; from as usize / 50];
            tone.fill(&mut block);
            resampler.process(&block, &mut output);
        }
        output.split_off(to as usize / 20)
    }

    /// Ratio of the tone to everything else, in dB: the tone is fitted by least squares and taken away.
    fn signal_to_noise(samples: &[i16], rate: u32, hz: f32) -> f64 {
        let angle = |at: usize| std::f64::consts::TAU * f64::from(hz) * at as f64 / f64::from(rate);
        let (mut cc, mut ss, mut cs, mut cx, mut sx) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (at, &sample) in samples.iter().enumerate() {
            let (s, c) = angle(at).sin_cos();
            let x = f64::from(sample);
            cc += c * c;
            ss += s * s;
            cs += c * s;
            cx += c * x;
            sx += s * x;
        }
        let determinant = cc * ss - cs * cs;
        let (a, b) = ((cx * ss - sx * cs) / determinant, (sx * cc - cx * cs) / determinant);
        let (mut signal, mut noise) = (0.0, 0.0);
        for (at, &sample) in samples.iter().enumerate() {
            let (s, c) = angle(at).sin_cos();
            let fitted = a * c + b * s;
            signal += fitted * fitted;
            noise += (f64::from(sample) - fitted).powi(2);
        }
        10.0 * (signal / noise).log10()
    }

    #[test]
    fn speech_band_passes_clean() {
        let mut worst = f64::MAX;
        for from in RATES {
            for to in RATES.into_iter().filter(|&to| to != from) {
                for hz in [97.0, 440.0, 1_000.0, 2_500.0, 3_300.0] {
                    let output = convert(from, to, hz);
                    let ratio = signal_to_noise(&output, to, hz);
                    worst = worst.min(ratio);
                    assert!(ratio >= 60.0, "{from} -> {to}, {hz} Hz: {ratio:.1} dB");
                    let level = tone_level(&output, to, hz);
                    assert!((level + 6.0).abs() < 0.2, "{from} -> {to}, {hz} Hz: {level} dBFS");
                }
            }
        }
        println!("resampler: worst signal-to-noise ratio in the speech band {worst:.1} dB");
    }

    #[test]
    fn what_the_lower_rate_cannot_hold_is_removed() {
        for (from, to, hz) in
            [(48_000, 16_000, 9_000.0), (48_000, 8_000, 5_000.0), (24_000, 8_000, 4_700.0), (44_100, 16_000, 12_000.0)]
        {
            let level = level_dbfs(&convert(from, to, hz));
            assert!(level < -65.0, "{from} -> {to}, {hz} Hz: {level} dBFS");
        }
    }

    #[test]
    fn delay_is_short() {
        for from in RATES {
            for to in RATES.into_iter().filter(|&to| to != from) {
                let resampler = Resampler::new(from, to, 1);
                let delay = resampler.delay() as f64 / f64::from(from);
                assert!(delay <= 0.004, "{from} -> {to}: {delay}");
                // The delay claimed is the delay measured: an impulse comes out there.
                let mut resampler = resampler;
                let mut impulse = vec![0; from as usize / 10];
                impulse[100] = 20_000;
                let mut output = Vec::new();
                resampler.process(&impulse, &mut output);
                let peak = output.iter().enumerate().max_by_key(|(_, sample)| **sample).unwrap().0 as f64;
                let expected = (100.0 / f64::from(from) + delay) * f64::from(to);
                assert!((peak - expected).abs() <= 1.5, "{from} -> {to}: {peak} {expected}");
            }
        }
    }

    #[test]
    fn odd_rates_are_nearly_as_good() {
        for (from, to) in [(47_999, 48_000), (8_001, 24_000), (44_101, 16_000)] {
            let ratio = signal_to_noise(&convert(from, to, 1_000.0), to, 1_000.0);
            assert!(ratio >= 58.0, "{from} -> {to}: {ratio:.1} dB");
        }
    }

    #[test]
    fn channels_do_not_mix() {
        let mut resampler = Resampler::new(16_000, 48_000, 2);
        let input: Vec<i16> = (0..320).flat_map(|_| [10_000, 0]).collect();
        let mut output = Vec::new();
        resampler.process(&input, &mut output);
        assert!(output.chunks_exact(2).all(|frame| frame[1] == 0));
        assert_eq!(output[output.len() - 2], 10_000);
    }

    #[test]
    fn full_scale_saturates() {
        let mut resampler = Resampler::new(8_000, 48_000, 1);
        let square: Vec<i16> = (0..800).map(|at| if at / 8 % 2 == 0 { i16::MAX } else { i16::MIN }).collect();
        let mut output = Vec::new();
        resampler.process(&square, &mut output);
        assert!(output.contains(&i16::MAX) && output.contains(&i16::MIN));
    }

    proptest! {
        #[test]
        fn blocks_do_not_matter(
            from in 4_000u32..50_000, to in 4_000u32..50_000,
            blocks in proptest::collection::vec(0usize..300, 1..10),
        ) {
            let total: usize = blocks.iter().sum();
            let mut input = vec![0; total];
            Tone::new(from, 300.0, -6.0).fill(&mut input);
            let (mut whole, mut parts) = (Vec::new(), Vec::new());
            Resampler::new(from, to, 1).process(&input, &mut whole);
            let mut resampler = Resampler::new(from, to, 1);
            let mut rest = &input[..];
            for block in blocks {
                let (now, later) = rest.split_at(block);
                resampler.process(now, &mut parts);
                rest = later;
            }
            prop_assert_eq!(&whole, &parts);
            let expected = (total as u64 * u64::from(to)).div_ceil(u64::from(from)) as usize;
            prop_assert_eq!(whole.len(), expected);
        }
    }
}
