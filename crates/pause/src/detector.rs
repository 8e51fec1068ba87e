//! When somebody has started talking, and when they have paused.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::Range;

use crate::{Activity, Rules};

/// What a [`PauseDetector`] decides. Positions are samples at [`VAD_RATE`](crate::VAD_RATE) since the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The user has started talking.
    StartedTalking {
        /// Where the utterance begins: up to a chunk before the decision, never within an earlier utterance.
        from: u64,
    },
    /// The utterance is over. Follows exactly one [`StartedTalking`](Decision::StartedTalking), with the same beginning.
    PauseDetected {
        /// The utterance, up to the decision.
        utterance: Range<u64>,
        /// Why.
        cause: PauseCause,
    },
}

/// Why an utterance is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PauseCause {
    /// The user has paused.
    Silence,
    /// The user still speaks, but has for as long as an utterance may last; the next one begins here.
    TooLong,
}

/// Turns decisions about hops into decisions about utterances.
///
/// After each hop the *chunk* is the last `audio_chunk_duration` of audio, or less right after the beginning and after
/// an utterance's end: speech that belonged to one utterance never starts the next. Then, in this order:
/// 1. Nobody talks, and the chunk holds **more than** `started_talking_threshold` of speech: they have started
///    talking. The utterance begins where the chunk does.
/// 2. Somebody talks, and the utterance has lasted `max_continuous_speech_s` **or more**: it is over.
/// 3. Somebody talks, the chunk is whole, and it holds **less than** `speech_threshold` of speech: it is over.
///
/// These are FastRTC's comparisons in FastRTC's order. FastRTC looks once per chunk, so there a pause is noticed 0.5 to
/// 1.1 s after the last word, depending on how the chunks happen to lie; here after 0.5 s, always.
///
/// Time is the number of samples heard: the detector runs as fast as it is fed, and how its input was cut makes no
/// difference.
#[derive(Clone, Debug)]
pub struct PauseDetector {
    rules: Rules,
    hop: usize,
    /// The newest hops, as many as touch the chunk.
    recent: VecDeque<Activity>,
    /// How many of them are speech.
    speech_hops: usize,
    /// Samples heard.
    position: u64,
    /// Where the last utterance ended, or the stream began: what comes before belongs to nobody any more.
    barrier: u64,
    talking_from: Option<u64>,
}

impl PauseDetector {
    /// A detector at the beginning of a stream that comes in hops of `hop` samples.
    #[must_use]
    pub fn new(rules: Rules, hop: NonZeroUsize) -> Self {
        let hop = hop.get();
        let recent = VecDeque::with_capacity(rules.window / hop + 2);
        Self { rules, hop, recent, speech_hops: 0, position: 0, barrier: 0, talking_from: None }
    }

    /// Takes the next hop, and gives at most two decisions: an option may have an utterance end where it is noticed.
    pub fn hear(&mut self, activity: Activity) -> [Option<Decision>; 2] {
        self.slide(activity);
        let speech = self.speech();
        let mut started = None;
        if self.talking_from.is_none() && speech > self.rules.started {
            let from = self.chunk_start();
            self.talking_from = Some(from);
            started = Some(Decision::StartedTalking { from });
        }
        let paused = self.talking_from.and_then(|from| {
            let whole = self.recent.len() * self.hop >= self.rules.window;
            let cause = if self.position - from >= self.rules.longest {
                PauseCause::TooLong
            } else if whole && speech < self.rules.speech {
                PauseCause::Silence
            } else {
                return None;
            };
            Some(Decision::PauseDetected { utterance: self.close(from), cause })
        });
        [started, paused]
    }

    /// Ends the utterance now, whether or not a pause has been heard, and forgets what came before: the user has said
    /// otherwise that it is over. Without one under way, the chunk counts as one if there is any speech in it, however
    /// little; otherwise the range is empty.
    pub fn take(&mut self) -> Range<u64> {
        let heard_any = self.speech() > 0;
        let from = self.talking_from.unwrap_or(if heard_any { self.chunk_start() } else { self.position });
        self.close(from)
    }

    /// Whether somebody talks.
    #[must_use]
    pub fn is_talking(&self) -> bool {
        self.talking_from.is_some()
    }

    /// How much has been heard.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The oldest sample that may still become part of an utterance.
    #[must_use]
    pub fn keeps_from(&self) -> u64 {
        self.talking_from.unwrap_or_else(|| self.chunk_start())
    }

    fn slide(&mut self, activity: Activity) {
        self.position += self.hop as u64;
        self.recent.push_back(activity);
        self.speech_hops += usize::from(activity == Activity::Speech);
        // The oldest hop goes once the rest makes a whole chunk.
        while (self.recent.len() - 1) * self.hop >= self.rules.window {
            let oldest = self.recent.pop_front();
            self.speech_hops -= usize::from(oldest == Some(Activity::Speech));
        }
    }

    /// Speech in the chunk, in samples. The chunk may begin within the oldest hop.
    fn speech(&self) -> usize {
        let outside = (self.recent.len() * self.hop).saturating_sub(self.rules.window);
        let oldest_speaks = self.recent.front() == Some(&Activity::Speech);
        self.speech_hops * self.hop - if oldest_speaks { outside } else { 0 }
    }

    fn chunk_start(&self) -> u64 {
        self.position.saturating_sub(self.rules.window as u64).max(self.barrier)
    }

    fn close(&mut self, from: u64) -> Range<u64> {
        self.recent.clear();
        self.speech_hops = 0;
        self.talking_from = None;
        self.barrier = self.position;
        from..self.position
    }
}

#[cfg(test)]
mod tests;
