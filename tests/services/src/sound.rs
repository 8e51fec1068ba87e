//! The tones that the suites listen for.

use std::f64::consts::TAU;
use std::time::Duration;

use streamfleet_handler::{AudioFrame, Emit, PcmFormat};

/// FastRTC's output rate: 24 000 Hz, mono.
pub(crate) const FORMAT: PcmFormat = PcmFormat::mono(24_000);
/// -15 dBFS as a sine's level is measured here.
const AMPLITUDE: f64 = 0.25 * 32_767.0;
/// The least power of a window that is loud: -40 dBFS.
const LOUD: f64 = 1e-4;

/// `count` samples of a sine, from the sample `first` on.
pub(crate) fn sine(hz: f64, first: usize, count: usize) -> Vec<i16> {
    let at = |n: usize| (AMPLITUDE * (TAU * hz * n as f64 / f64::from(FORMAT.rate)).sin()) as i16;
    (first..first + count).map(at).collect()
}

/// A tenth of a second, the `n`th of a tone.
pub(crate) fn tenth(hz: f64, n: usize) -> Vec<i16> {
    let count = FORMAT.rate as usize / 10;
    sine(hz, n * count, count)
}

/// As something to emit.
pub(crate) fn audio(samples: Vec<i16>) -> Emit {
    Emit::Audio(AudioFrame { samples, format: FORMAT, timestamp: Duration::ZERO })
}

/// A tone in so many tenths of a second.
pub(crate) fn tenths(hz: f64, parts: usize) -> Vec<Emit> {
    (0..parts).map(|n| audio(tenth(hz, n))).collect()
}

/// Whether these samples are louder than -40 dBFS.
pub(crate) fn is_loud(samples: &[i16]) -> bool {
    let power: f64 = samples.iter().map(|sample| (f64::from(*sample) / 32_768.0).powi(2)).sum();
    power > LOUD * samples.len() as f64
}

/// The tone that was said, to the nearest 110 Hz: crossings of zero where it is loud. 440 if nothing was said.
pub(crate) fn heard_hz(frame: &AudioFrame) -> f64 {
    let size = frame.format.rate as usize / 100;
    let (mut pairs, mut crossings) = (0_usize, 0_usize);
    for window in frame.samples.chunks_exact(size.max(2)).filter(|window| is_loud(window)) {
        pairs += window.len() - 1;
        crossings += window.windows(2).filter(|pair| (pair[0] < 0) != (pair[1] < 0)).count();
    }
    if pairs == 0 {
        return 440.0;
    }
    let hz = crossings as f64 / pairs as f64 * f64::from(frame.format.rate) / 2.0;
    110.0 * (hz / 110.0).round()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_is_recognised_between_silences() {
        for hz in [220.0, 440.0, 880.0, 990.0] {
            let samples = [vec![0; 12_000], sine(hz, 0, 12_000), vec![0; 6_000]].concat();
            let frame = AudioFrame { samples, format: FORMAT, timestamp: Duration::ZERO };
            assert_eq!(heard_hz(&frame), hz);
        }
        let silence = AudioFrame { samples: vec![0; 12_000], format: FORMAT, timestamp: Duration::ZERO };
        assert_eq!(heard_hz(&silence), 440.0);
    }

    #[test]
    fn parts_of_a_tone_join_without_a_step() {
        let parts: Vec<i16> = (0..3).flat_map(|n| tenth(660.0, n)).collect();
        assert_eq!(parts, sine(660.0, 0, 7_200));
    }
}
