//! From audio to utterances.

use std::ops::Range;

use streamfleet_audio::resample::Resampler;
use streamfleet_handler::PcmFormat;

use crate::recording::Recording;
use crate::{Decision, PauseCause, PauseDetector, Rules, VAD_RATE, Vad};

/// What a [`Listener`] has heard. Positions are frames (one sample of every channel) of its input since the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The user has started talking.
    StartedTalking {
        /// Where the utterance begins.
        from: u64,
    },
    /// The utterance is over.
    PauseDetected(Utterance),
}

/// What somebody said, from just before the first word to the decision that it was over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Utterance {
    /// Interleaved samples in the input's format, exactly as they came.
    pub samples: Vec<i16>,
    /// Which frames of the input these are.
    pub range: Range<u64>,
    /// Why it is over.
    pub cause: PauseCause,
}

/// Hears a stream of audio and cuts utterances out of it: a resampler, a [`Vad`], a [`PauseDetector`] and the audio
/// that may still be part of an utterance.
///
/// It takes pieces of any length, and the same samples cut differently give the same utterances. While nobody speaks
/// it holds one chunk and a third, while somebody does their utterance, at most
/// [`MAX_UTTERANCE_S`](crate::MAX_UTTERANCE_S).
pub struct Listener<V> {
    format: PcmFormat,
    rules: Rules,
    vad: V,
    detector: PauseDetector,
    /// To [`VAD_RATE`]; none if the input has it already.
    resampler: Option<Resampler>,
    recording: Recording,
    /// Frames of input heard.
    heard: u64,
    /// Frames heard when the stream was last taken up, from which the detector counts.
    began: u64,
    /// Scratch: the piece at hand with its channels mixed, and what of the next hop there is.
    mono: Vec<i16>,
    hop: Vec<i16>,
}

impl<V: Vad> Listener<V> {
    /// A listener to interleaved audio of this format. A format without a rate or without channels is never heard.
    #[must_use]
    pub fn new(format: PcmFormat, rules: Rules, vad: V) -> Self {
        let resampler = (format.rate != VAD_RATE).then(|| Resampler::new(format.rate, VAD_RATE, 1));
        let detector = PauseDetector::new(rules, vad.hop());
        let recording = Recording::new(usize::from(format.channels.max(1)));
        let (mono, hop) = (Vec::new(), Vec::new());
        Self { format, rules, vad, detector, resampler, recording, heard: 0, began: 0, mono, hop }
    }

    /// What it listens to.
    #[must_use]
    pub fn format(&self) -> PcmFormat {
        self.format
    }

    /// How many frames of its input it has heard.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.heard
    }

    /// Hears interleaved samples and appends what they bring. Samples of an incomplete last frame are ignored.
    pub fn hear(&mut self, samples: &[i16], heard: &mut Vec<Heard>) {
        let channels = usize::from(self.format.channels);
        if channels == 0 || self.format.rate == 0 {
            return;
        }
        let mut rest = &samples[..samples.len() / channels * channels];
        while !rest.is_empty() {
            // Never beyond the end of a hop: a decision then falls on the same frame however the input was cut.
            let hop_end = self.frame_of(self.detector.position() + self.vad.hop().get() as u64);
            let wanted = usize::try_from(hop_end - self.heard).unwrap_or(usize::MAX).saturating_mul(channels);
            let (piece, after) = rest.split_at(wanted.min(rest.len()));
            rest = after;
            self.recording.push(piece);
            self.heard += (piece.len() / channels) as u64;
            self.resample(piece, channels);
            if self.heard == hop_end {
                self.end_hop(heard);
            }
        }
    }

    /// Ends the utterance now, whether or not a pause has been heard: what has been said of it so far, perhaps nothing.
    pub fn take(&mut self) -> Vec<i16> {
        let range = self.detector.take();
        self.recording.take(&self.frames_of(&range))
    }

    /// Takes the stream up again after a stretch that was not heard: nothing from before is part of an utterance any
    /// more.
    pub fn resume(&mut self) {
        self.vad.reset();
        self.hop.clear();
        self.recording.clear(self.heard);
        self.detector = PauseDetector::new(self.rules, self.vad.hop());
        self.began = self.heard;
        if let Some(resampler) = &mut self.resampler {
            *resampler = Resampler::new(self.format.rate, VAD_RATE, 1);
        }
    }

    fn resample(&mut self, piece: &[i16], channels: usize) {
        let mono = if channels == 1 {
            piece
        } else {
            self.mono.clear();
            self.mono.extend(piece.chunks_exact(channels).map(|frame| {
                let sum: i64 = frame.iter().map(|&sample| i64::from(sample)).sum();
                // The mean of samples is a sample.
                (sum / channels as i64) as i16
            }));
            &self.mono
        };
        match &mut self.resampler {
            Some(resampler) => resampler.process(mono, &mut self.hop),
            None => self.hop.extend_from_slice(mono),
        }
    }

    fn end_hop(&mut self, heard: &mut Vec<Heard>) {
        let length = self.vad.hop().get();
        // After n input samples a resampler has given no less than n * to / from, so the hop is complete; were it not,
        // silence in its place would keep time right.
        if self.hop.len() < length {
            self.hop.resize(length, 0);
        }
        let activity = self.vad.hear(&self.hop[..length]);
        self.hop.drain(..length);
        for decision in self.detector.hear(activity).into_iter().flatten() {
            heard.push(match decision {
                Decision::StartedTalking { from } => Heard::StartedTalking { from: self.frame_of(from) },
                Decision::PauseDetected { utterance, cause } => {
                    let range = self.frames_of(&utterance);
                    Heard::PauseDetected(Utterance { samples: self.recording.take(&range), range, cause })
                }
            });
        }
        self.recording.trim(self.frame_of(self.detector.keeps_from()));
    }

    /// The frame of the input at which so many samples at [`VAD_RATE`] are complete. Monotonic, so utterances that do
    /// not overlap there do not overlap here.
    fn frame_of(&self, position: u64) -> u64 {
        let frame = (u128::from(position) * u128::from(self.format.rate)).div_ceil(u128::from(VAD_RATE));
        self.began + u64::try_from(frame).unwrap_or(u64::MAX)
    }

    fn frames_of(&self, range: &Range<u64>) -> Range<u64> {
        self.frame_of(range.start)..self.frame_of(range.end)
    }
}

impl<V> std::fmt::Debug for Listener<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener")
            .field("format", &self.format)
            .field("detector", &self.detector)
            .field("heard", &self.heard)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
