//! The options of the pause detection: FastRTC's names, units and defaults, parsed once.

use crate::VAD_RATE;

/// FastRTC's `AlgoOptions`. All in seconds.
///
/// FastRTC cuts the audio into chunks and asks its model once per chunk. Here the model hears hops of some
/// milliseconds, and after every hop the *last* `audio_chunk_duration` seconds are the chunk: what FastRTC decides at
/// each chunk's end is decided here as soon as it is true of any stretch of that length. See
/// [`PauseDetector`](crate::PauseDetector) for the exact rules.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlgoOptions {
    /// The stretch of audio that a decision looks at.
    pub audio_chunk_duration: f64,
    /// With more speech than this in a chunk, the user has started talking.
    pub started_talking_threshold: f64,
    /// With less speech than this in a chunk after that, the user has paused.
    pub speech_threshold: f64,
    /// An utterance that has lasted so long is answered without a pause. May be infinite; then
    /// [`MAX_UTTERANCE_S`] applies.
    pub max_continuous_speech_s: f64,
}

impl Default for AlgoOptions {
    fn default() -> Self {
        Self {
            audio_chunk_duration: 0.6,
            started_talking_threshold: 0.2,
            speech_threshold: 0.1,
            max_continuous_speech_s: f64::INFINITY,
        }
    }
}

/// The longest utterance, in seconds, whatever the options say: it is answered as if a pause had been heard, so that
/// nothing is lost. Nobody speaks for a minute without a breath of half a second; a room that never falls silent does,
/// and a minute of 48 kHz mono is 5.8 MB of a session's memory already.
pub const MAX_UTTERANCE_S: f64 = 60.0;

/// The longest chunk, in seconds: the audio of one is kept for every session, also while nobody speaks.
pub const MAX_CHUNK_S: f64 = 5.0;

/// The shortest chunk, in seconds: below it a chunk is no longer than the hops of common models.
const MIN_CHUNK_S: f64 = 0.05;

/// What is wrong with [`AlgoOptions`].
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum OptionsError {
    /// The chunk is too short, too long, or not a number.
    #[error("`audio_chunk_duration` must be from {MIN_CHUNK_S} to {MAX_CHUNK_S} seconds, not {0}")]
    Chunk(f64),
    /// No chunk could ever have so much speech, or it is not a number.
    #[error("`started_talking_threshold` must be at least 0 and less than `audio_chunk_duration`, not {0}")]
    Started(f64),
    /// Every chunk, or none, would be a pause, or it is not a number.
    #[error("`speech_threshold` must be more than 0 and at most `audio_chunk_duration`, not {0}")]
    Speech(f64),
    /// Every utterance would be over before it began, or it is not a number.
    #[error("`max_continuous_speech_s` must be more than 0, not {0}")]
    Continuous(f64),
}

/// [`AlgoOptions`] that have been checked, in samples at [`VAD_RATE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub(crate) window: usize,
    pub(crate) started: usize,
    pub(crate) speech: usize,
    pub(crate) longest: u64,
}

impl Rules {
    /// Checks the options.
    ///
    /// # Errors
    /// [`OptionsError`] names the first option that can never work.
    pub fn new(options: &AlgoOptions) -> Result<Self, OptionsError> {
        let AlgoOptions { audio_chunk_duration: chunk, started_talking_threshold: started, .. } = *options;
        let AlgoOptions { speech_threshold: speech, max_continuous_speech_s: longest, .. } = *options;
        // Written so that what is not a number is refused.
        if !(MIN_CHUNK_S..=MAX_CHUNK_S).contains(&chunk) {
            return Err(OptionsError::Chunk(chunk));
        }
        if !(0.0..chunk).contains(&started) {
            return Err(OptionsError::Started(started));
        }
        if !(speech > 0.0 && speech <= chunk) {
            return Err(OptionsError::Speech(speech));
        }
        if longest.is_nan() || longest <= 0.0 {
            return Err(OptionsError::Continuous(longest));
        }
        Ok(Self {
            window: samples(chunk),
            started: samples(started),
            // At least one sample, or no chunk could have less.
            speech: samples(speech).max(1),
            longest: samples(longest.min(MAX_UTTERANCE_S)) as u64,
        })
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::new(&AlgoOptions::default()).expect("FastRTC's defaults are valid")
    }
}

/// Seconds within the bounds above are at most a million samples.
fn samples(seconds: f64) -> usize {
    (seconds * f64::from(VAD_RATE)).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_fastrtcs() {
        let rules = Rules::default();
        assert_eq!((rules.window, rules.started, rules.speech, rules.longest), (9_600, 3_200, 1_600, 960_000));
    }

    #[test]
    fn options_that_can_never_work_are_refused_by_name() {
        fn check(options: AlgoOptions, expected: &str) {
            assert_eq!(Rules::new(&options).unwrap_err().to_string(), expected);
        }
        let base = AlgoOptions::default();
        let chunk = "`audio_chunk_duration` must be from 0.05 to 5 seconds, not";
        check(AlgoOptions { audio_chunk_duration: 0.0, ..base }, &format!("{chunk} 0"));
        check(AlgoOptions { audio_chunk_duration: 6.0, ..base }, &format!("{chunk} 6"));
        check(AlgoOptions { audio_chunk_duration: f64::NAN, ..base }, &format!("{chunk} NaN"));
        let started = "`started_talking_threshold` must be at least 0 and less than `audio_chunk_duration`, not";
        check(AlgoOptions { started_talking_threshold: 0.6, ..base }, &format!("{started} 0.6"));
        check(AlgoOptions { started_talking_threshold: -0.1, ..base }, &format!("{started} -0.1"));
        let speech = "`speech_threshold` must be more than 0 and at most `audio_chunk_duration`, not";
        check(AlgoOptions { speech_threshold: 0.0, ..base }, &format!("{speech} 0"));
        check(AlgoOptions { speech_threshold: f64::INFINITY, ..base }, &format!("{speech} inf"));
        let longest = "`max_continuous_speech_s` must be more than 0, not";
        check(AlgoOptions { max_continuous_speech_s: -1.0, ..base }, &format!("{longest} -1"));
        check(AlgoOptions { max_continuous_speech_s: f64::NAN, ..base }, &format!("{longest} NaN"));
    }

    #[test]
    fn the_longest_utterance_is_bounded_whatever_is_asked_for() {
        let rules = Rules::new(&AlgoOptions { max_continuous_speech_s: 1e300, ..AlgoOptions::default() }).unwrap();
        assert_eq!(rules.longest, Rules::default().longest);
        let rules = Rules::new(&AlgoOptions { max_continuous_speech_s: 2.5, ..AlgoOptions::default() }).unwrap();
        assert_eq!(rules.longest, 40_000);
    }
}
