//! Shortening and lengthening of audio without changing its pitch: one pitch period is removed or repeated, and the
//! joint is cross-faded (the idea of WSOLA: Verhelst and Roelands, ICASSP 1993).

use std::time::Duration;

use crate::PcmFormat;

/// Shortest period looked for: 400 Hz.
const SHORTEST: Duration = Duration::from_micros(2_500);
/// Longest period looked for: 80 Hz, a low male voice.
const LONGEST: Duration = Duration::from_micros(12_500);
/// The search runs on samples averaged down to about this rate (Hz); the best lag is then refined at full rate.
const SEARCH_RATE: u32 = 4_000;
/// More audio than this does not make the search better (at full rate).
const SEARCH_SPAN: Duration = Duration::from_millis(30);
/// Mean square of audio that counts as silence: -50 dBFS.
const QUIET: f32 = 32_768.0 * 32_768.0 * 1e-5;

/// How alike the two sides of a joint must be (normalised correlation).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Joint {
    /// Only where nothing is heard anyway.
    Quiet,
    /// At least this alike, or quiet.
    Alike(f32),
}

/// Removes one period of at most `most` from interleaved `frame`. Gives the number of samples removed per channel,
/// which are cut off at the end of the vector; 0 if there is no good joint.
pub(crate) fn shrink(frame: &mut Vec<i16>, start: usize, format: PcmFormat, most: Duration, joint: Joint) -> usize {
    let channels = usize::from(format.channels.max(1));
    let Some(period) = frame.get(start..).and_then(|audio| find_joint(audio, format, most, joint)) else { return 0 };
    let audio = &mut frame[start..];
    let length = audio.len() / channels;
    let fade = period.min(length - period);
    for at in 0..fade {
        let weight = (at as f32 + 0.5) / fade as f32;
        for channel in 0..channels {
            let (here, there) = (at * channels + channel, (at + period) * channels + channel);
            audio[here] = mix(audio[here], audio[there], weight);
        }
    }
    audio.copy_within((fade + period) * channels.., fade * channels);
    frame.truncate(frame.len() - period * channels);
    period
}

/// Repeats one period of at most `most` of interleaved `frame`. Gives the number of samples added per channel; 0 if
/// there is no good joint.
pub(crate) fn grow(frame: &mut Vec<i16>, start: usize, format: PcmFormat, most: Duration, joint: Joint) -> usize {
    let channels = usize::from(format.channels.max(1));
    let Some(period) = frame.get(start..).and_then(|audio| find_joint(audio, format, most, joint)) else { return 0 };
    let length = (frame.len() - start) / channels;
    let fade = period.min(length - period);
    // Everything again from the start, one period later; the overlap leads from the first copy to the second.
    frame.resize(frame.len() + period * channels, 0);
    let audio = &mut frame[start..];
    audio.copy_within(fade * channels..length * channels, (fade + period) * channels);
    // The overlap itself was not moved. It is written from its end, so that what is read is still the original.
    for at in (0..fade).rev() {
        let weight = (at as f32 + 0.5) / fade as f32;
        for channel in 0..channels {
            let (second, first) = (at * channels + channel, (at + period) * channels + channel);
            audio[first] = mix(audio[first], audio[second], weight);
        }
    }
    period
}

fn mix(from: i16, to: i16, weight: f32) -> i16 {
    (f32::from(from) * (1.0 - weight) + f32::from(to) * weight).round() as i16
}

/// The period (samples per channel) at which the start of `audio` is most like itself, if that is alike enough.
fn find_joint(audio: &[i16], format: PcmFormat, most: Duration, joint: Joint) -> Option<usize> {
    let channels = usize::from(format.channels.max(1));
    let samples = |duration: Duration| (duration.as_micros() as u64 * u64::from(format.rate) / 1_000_000) as usize;
    let length = (audio.len() / channels).min(samples(SEARCH_SPAN));
    let shortest = samples(SHORTEST).max(1);
    let longest = samples(LONGEST).min(samples(most)).min(length / 2);
    if longest < shortest {
        return None;
    }
    let mono = Mono { audio, channels };
    let energy = mono.energy(0, length) / length as f32;
    if energy < QUIET {
        return Some(longest);
    }
    let Joint::Alike(needed) = joint else { return None };

    let step = (format.rate / SEARCH_RATE).max(1) as usize;
    let window = length - longest;
    let coarse = (shortest..=longest).step_by(step).map(|lag| (lag, mono.likeness(lag, window, step)));
    let (lag, _) = coarse.max_by(|a, b| a.1.total_cmp(&b.1))?;
    let fine = lag.saturating_sub(step).max(shortest)..=(lag + step).min(longest);
    let (lag, likeness) =
        fine.map(|lag| (lag, mono.likeness(lag, window, step.min(4)))).max_by(|a, b| a.1.total_cmp(&b.1))?;
    (likeness >= needed).then_some(lag)
}

/// The first channel of interleaved audio.
struct Mono<'a> {
    audio: &'a [i16],
    channels: usize,
}

impl Mono<'_> {
    fn at(&self, position: usize) -> f32 {
        f32::from(self.audio[position * self.channels])
    }

    fn energy(&self, from: usize, to: usize) -> f32 {
        (from..to).map(|position| self.at(position).powi(2)).sum()
    }

    /// Normalised correlation of the first `window` samples with those `lag` later, looking at every `step`-th one.
    fn likeness(&self, lag: usize, window: usize, step: usize) -> f32 {
        let (mut cross, mut here, mut there) = (0.0, 1.0, 1.0);
        for position in (0..window).step_by(step) {
            let (a, b) = (self.at(position), self.at(position + lag));
            cross += a * b;
            here += a * a;
            there += b * b;
        }
        cross / (here * there).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{level_dbfs, tone_level};
    use crate::tone::Tone;

    const MOST: Duration = Duration::from_millis(12);

    fn tone(rate: u32, hz: f32, level: f32) -> Vec<i16> {
        let mut samples = vec![0; rate as usize / 50];
        Tone::new(rate, hz, level).fill(&mut samples);
        samples
    }

    #[test]
    fn a_tone_stays_a_tone() {
        for rate in [8_000, 16_000, 24_000, 48_000] {
            for hz in [100.0, 150.0, 220.0, 333.0] {
                for channels in [1, 2] {
                    let format = PcmFormat { rate, channels };
                    let original: Vec<i16> = tone(rate, hz, -12.0)
                        .into_iter()
                        .flat_map(|s| std::iter::repeat_n(s, channels.into()))
                        .collect();
                    let (mut shorter, mut longer) = (original.clone(), original.clone());
                    let removed = shrink(&mut shorter, 0, format, MOST, Joint::Alike(0.9));
                    let added = grow(&mut longer, 0, format, MOST, Joint::Alike(0.9));
                    assert!(removed > 0 && added > 0, "{rate} {hz}");
                    assert_eq!(shorter.len(), original.len() - removed * usize::from(channels));
                    assert_eq!(longer.len(), original.len() + added * usize::from(channels));
                    // The ends are untouched, so the neighbours fit; no step is steeper than the tone's own.
                    let steepest = 32_768.0 * 0.2512 * 1.42 * std::f32::consts::TAU * hz / rate as f32 * 1.3 + 300.0;
                    for audio in [&shorter, &longer] {
                        assert!((i32::from(audio[0]) - i32::from(original[0])).abs() < 200);
                        assert_eq!(audio.last(), original.last());
                        let mono: Vec<i32> = audio.iter().step_by(channels.into()).map(|&s| s.into()).collect();
                        let step = mono.windows(2).map(|pair| (pair[1] - pair[0]).abs()).max().unwrap();
                        assert!((step as f32) < steepest, "{rate} {hz}: {step} > {steepest}");
                        assert!((level_dbfs(audio) + 12.0).abs() < 1.2, "{rate} {hz}: {}", level_dbfs(audio));
                    }
                }
            }
        }
    }

    #[test]
    fn a_long_stretch_keeps_its_pitch() {
        let format = PcmFormat::mono(16_000);
        let mut generator = Tone::new(16_000, 200.0, -12.0);
        let (mut shorter, mut longer) = (Vec::new(), Vec::new());
        for _ in 0..50 {
            let mut frame = vec![0; 320];
            generator.fill(&mut frame);
            for (output, change) in [
                (&mut shorter, shrink as fn(&mut Vec<i16>, usize, PcmFormat, Duration, Joint) -> usize),
                (&mut longer, grow),
            ] {
                let start = output.len();
                output.extend_from_slice(&frame);
                assert!(change(output, start, format, MOST, Joint::Alike(0.9)) > 0);
            }
        }
        for audio in [shorter, longer] {
            assert!((tone_level(&audio, 16_000, 200.0) + 12.0).abs() < 0.5);
            assert!(level_dbfs(&audio) - tone_level(&audio, 16_000, 200.0) < 0.2);
        }
    }

    #[test]
    fn noise_has_no_joint_and_silence_any() {
        let format = PcmFormat::mono(16_000);
        let mut state = 1u32;
        let mut noise: Vec<i16> = (0..320)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 18) as i16 - 8_192
            })
            .collect();
        assert_eq!(shrink(&mut noise, 0, format, MOST, Joint::Alike(0.9)), 0);
        assert_eq!(grow(&mut noise, 0, format, MOST, Joint::Alike(0.9)), 0);
        assert_eq!(noise.len(), 320);
        let mut silence = vec![1; 320];
        assert_eq!(shrink(&mut silence, 0, format, Duration::from_millis(10), Joint::Quiet), 160);
        let mut voiced = tone(16_000, 200.0, -12.0);
        assert_eq!(shrink(&mut voiced, 0, format, MOST, Joint::Quiet), 0);
    }

    #[test]
    fn odd_shapes_are_left_alone() {
        fn check(length: usize, start: usize, format: PcmFormat, most: Duration) {
            let mut frame = vec![5_000; length];
            assert_eq!(shrink(&mut frame, start, format, most, Joint::Alike(0.0)), 0);
            assert_eq!(grow(&mut frame, start, format, most, Joint::Alike(0.0)), 0);
            assert_eq!(frame.len(), length);
        }
        check(0, 0, PcmFormat::mono(8_000), MOST);
        check(10, 20, PcmFormat::mono(8_000), MOST);
        check(30, 0, PcmFormat::mono(8_000), MOST);
        check(320, 0, PcmFormat::mono(16_000), Duration::ZERO);
    }
}
