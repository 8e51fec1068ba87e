//! Utterances in noise, and what was found of them.

use std::f32::consts::TAU;
use std::ops::Range;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use streamfleet_handler::PcmFormat;
use streamfleet_pause::{Heard, Listener, Rules, VAD_RATE, Vad};

use crate::corpus::{Clip, normalise};

/// Sixteen-bit audio and where somebody speaks in it, in samples.
pub(crate) struct Scene {
    pub(crate) samples: Vec<i16>,
    pub(crate) spoken: Vec<Range<usize>>,
}

/// What is heard besides the caller, at an RMS of 1; nothing for a quiet room.
pub(crate) struct Noise<'a> {
    pub(crate) sound: &'a [f32],
    /// How far the speech is above it, in dB.
    pub(crate) snr: f32,
}

/// A conversation's audio: each clip once in a random order, with 1.5 to 3.5 s between them.
pub(crate) fn scene(clips: &[Clip], level_dbfs: f32, noise: Option<&Noise<'_>>, seed: u64) -> Scene {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..clips.len()).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, rng.random_range(0..=at));
    }
    let speech = amplitude(level_dbfs);
    let mut samples = vec![0.0_f32; 3 * VAD_RATE as usize];
    let mut spoken = Vec::new();
    for at in order {
        let start = samples.len();
        samples.extend(clips[at].0.iter().map(|sample| sample * speech));
        spoken.push(start..samples.len());
        let gap = rng.random_range(1.5..3.5) * VAD_RATE as f32;
        samples.resize(samples.len() + gap as usize, 0.0);
    }
    if let Some(noise) = noise {
        add(&mut samples, noise.sound, amplitude(level_dbfs - noise.snr), &mut rng);
    }
    // No microphone is silent: the noise of 16 bits and a little more.
    let samples = samples.iter().map(|sample| (sample + rng.random_range(-3.0..3.0_f32)).round() as i16).collect();
    Scene { samples, spoken }
}

/// Nobody speaks.
pub(crate) fn alone(sound: &[f32], seconds: usize, level_dbfs: f32, seed: u64) -> Scene {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut samples = vec![0.0; seconds * VAD_RATE as usize];
    add(&mut samples, sound, amplitude(level_dbfs), &mut rng);
    Scene { samples: samples.iter().map(|sample| sample.round() as i16).collect(), spoken: Vec::new() }
}

/// Nobody speaks, and after a while nobody speaks in some noise: a window is opened.
pub(crate) fn begins(sound: &[f32], seconds: usize, level_dbfs: f32, seed: u64) -> Scene {
    let mut scene = alone(sound, seconds, level_dbfs, seed);
    let quiet = seconds / 4 * VAD_RATE as usize;
    let mut rng = StdRng::seed_from_u64(seed);
    scene.samples[..quiet].iter_mut().for_each(|sample| *sample = rng.random_range(-3..=3));
    scene
}

fn add(samples: &mut [f32], sound: &[f32], amplitude: f32, rng: &mut StdRng) {
    let start = rng.random_range(0..sound.len());
    let endless = sound.iter().cycle().skip(start);
    samples.iter_mut().zip(endless).for_each(|(sample, noise)| *sample += noise * amplitude);
}

fn amplitude(dbfs: f32) -> f32 {
    32_768.0 * 10_f32.powf(dbfs / 20.0)
}

/// White noise at an RMS of 1.
pub(crate) fn white(seconds: usize, seed: u64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut sound: Vec<f32> =
        (0..seconds * VAD_RATE as usize).map(|_| (0..4).map(|_| rng.random_range(-1.0..1.0_f32)).sum()).collect();
    normalise(&mut sound);
    sound
}

/// Chords of plucked strings, a bass and a tune, at an RMS of 1.
pub(crate) fn music(seconds: usize, seed: u64) -> Vec<f32> {
    const CHORDS: [[f32; 4]; 4] =
        [[0.0, 4.0, 7.0, 12.0], [-3.0, 0.0, 4.0, 9.0], [-7.0, -3.0, 0.0, 5.0], [-5.0, -1.0, 2.0, 7.0]];
    let mut rng = StdRng::seed_from_u64(seed);
    let rate = VAD_RATE as f32;
    let beat = (0.5 * rate) as usize;
    let mut sound = vec![0.0; seconds * VAD_RATE as usize];
    for number in 0..sound.len() / beat {
        let chord = CHORDS[number / 4 % 4];
        let mut pluck = |semitones: f32, loud: f32, decay: f32| {
            let hz = 220.0 * 2_f32.powf(semitones / 12.0);
            let start = number * beat;
            let end = (start + 3 * beat).min(sound.len());
            for (time, sample) in sound[start..end].iter_mut().enumerate() {
                let t = time as f32 / rate;
                let fade = (-t * decay).exp() * (t * 200.0).min(1.0);
                let tone: f32 = (1..7_u8).map(f32::from).map(|part| (TAU * hz * part * t).sin() / part.powf(1.5)).sum();
                *sample += loud * fade * tone;
            }
        };
        if number % 2 == 0 {
            chord.into_iter().for_each(|note| pluck(note, 0.5, 2.0));
            pluck(chord[0] - 12.0, 0.8, 3.0);
        }
        pluck(chord[rng.random_range(0..4)] + 12.0, 0.7, 5.0);
    }
    normalise(&mut sound);
    sound
}

/// What a detector made of a scene.
#[derive(Clone, Default)]
pub(crate) struct Score {
    pub(crate) utterances: usize,
    /// Of these, noticed while they lasted and answered before the next.
    pub(crate) found: usize,
    /// Pauses heard in the middle of one, so that it was answered in pieces.
    pub(crate) split: usize,
    /// Starts where nobody spoke.
    pub(crate) false_starts: usize,
    pub(crate) seconds: f64,
    /// How long nobody spoke, and how much of that somebody was thought to talk. A detector that takes a noise for speech
    /// without end starts once, and hears no pause any more.
    pub(crate) silent_seconds: f64,
    pub(crate) talking_seconds: f64,
    /// From the last sound of each utterance found to the decision, in ms.
    pub(crate) delays: Vec<f64>,
}

/// How long after an utterance its pause may take to be noticed.
const NOTICED: usize = VAD_RATE as usize;

/// A start so short after the end still is of the utterance: the detector looks back as far.
const GRACE: usize = VAD_RATE as usize / 5;

impl Score {
    /// Compares starts and pauses, in samples and in order, with what was spoken.
    pub(crate) fn of(spoken: &[Range<usize>], length: usize, starts: &[usize], pauses: &[usize]) -> Self {
        let mut score =
            Self { utterances: spoken.len(), seconds: length as f64 / f64::from(VAD_RATE), ..Self::default() };
        let mut true_starts = 0;
        for (number, utterance) in spoken.iter().enumerate() {
            let next = spoken.get(number + 1).map_or(length, |next| next.start);
            let began = starts.iter().filter(|start| (utterance.start..utterance.end + GRACE).contains(start)).count();
            true_starts += began;
            let inside = pauses.iter().filter(|pause| (utterance.start + GRACE..utterance.end).contains(pause)).count();
            score.split += inside;
            let answered = pauses.iter().rfind(|pause| (utterance.end..next).contains(pause));
            if let (1.., Some(answered)) = (began, answered) {
                score.found += 1;
                score.delays.push((answered - utterance.end) as f64 * 1_000.0 / f64::from(VAD_RATE));
            }
        }
        score.false_starts = starts.len() - true_starts;
        let mut from = 0;
        for utterance in spoken
            .iter()
            .map(|spoken| spoken.start..(spoken.end + NOTICED).min(length))
            .chain(std::iter::once(length..length))
        {
            let silent = from..utterance.start.max(from);
            score.silent_seconds += silent.len() as f64 / f64::from(VAD_RATE);
            let ends = pauses.iter().copied().chain(std::iter::repeat(length));
            let talking = starts.iter().zip(ends).map(|(&start, end)| start.max(silent.start)..end.min(silent.end));
            score.talking_seconds += talking.map(|talking| talking.len() as f64).sum::<f64>() / f64::from(VAD_RATE);
            from = utterance.end;
        }
        score
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.utterances += other.utterances;
        self.found += other.found;
        self.split += other.split;
        self.false_starts += other.false_starts;
        self.seconds += other.seconds;
        self.silent_seconds += other.silent_seconds;
        self.talking_seconds += other.talking_seconds;
        self.delays.extend(other.delays);
    }

    pub(crate) fn found_percent(&self) -> f64 {
        100.0 * self.found as f64 / self.utterances.max(1) as f64
    }

    pub(crate) fn split_percent(&self) -> f64 {
        100.0 * self.split as f64 / self.utterances.max(1) as f64
    }

    pub(crate) fn false_per_minute(&self) -> f64 {
        60.0 * self.false_starts as f64 / self.seconds.max(1e-9)
    }

    pub(crate) fn talking_percent(&self) -> f64 {
        100.0 * self.talking_seconds / self.silent_seconds.max(1e-9)
    }

    pub(crate) fn delay(&self, quantile: f64) -> Option<f64> {
        let mut delays = self.delays.clone();
        delays.sort_by(f64::total_cmp);
        let at = ((delays.len() as f64 * quantile).ceil() as usize).saturating_sub(1);
        delays.get(at).copied()
    }
}

/// Hears a scene in packets of 20 ms, as from a network.
pub(crate) fn judge(scene: &Scene, vad: impl Vad) -> Score {
    let mut listener = Listener::new(PcmFormat::mono(VAD_RATE), Rules::default(), vad);
    let (mut starts, mut pauses, mut heard) = (Vec::new(), Vec::new(), Vec::new());
    let mut now = 0;
    for packet in scene.samples.chunks(320) {
        now += packet.len();
        listener.hear(packet, &mut heard);
        for heard in heard.drain(..) {
            match heard {
                Heard::StartedTalking { .. } => starts.push(now),
                Heard::PauseDetected(_) => pauses.push(now),
            }
        }
    }
    Score::of(&scene.spoken, scene.samples.len(), &starts, &pauses)
}
