//! Received audio, played in real time: a queue with a clock.
//!
//! TCP delivers everything in order, so there is nothing to conceal, only to wait for. What comes faster than it is played
//! waits its turn; what comes too late leaves a gap of silence.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use streamfleet_audio::PcmFormat;

use crate::media::AudioChunk;

/// Audio that a server may be ahead. FastRTC sends a handler's frames faster than they last, so a whole reply may come
/// at once; a minute of it is 2.9 MB at 24 kHz.
const MAX_AHEAD: Duration = Duration::from_secs(60);
/// Marks under way: a server that sets one with every frame has five seconds of them.
const MAX_MARKS: usize = 256;
/// Chunks are handed on in pieces of this many milliseconds.
const PIECE_MS: u64 = 20;

/// Something whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Played {
    Audio(AudioChunk),
    /// Everything before this mark has been heard.
    Mark(String),
}

/// How it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlayoutCounters {
    /// Audio handed on.
    pub(crate) played: Duration,
    /// Silence between pieces that belonged together: the queue was empty for less than half a second.
    pub(crate) gaps: Duration,
    /// Frames that were dropped because the server was too far ahead.
    pub(crate) dropped: u64,
}

/// After this long without audio a new utterance begins; the silence before it is nobody's fault.
const UTTERANCE: Duration = Duration::from_millis(500);

/// The queue.
#[derive(Debug)]
pub(crate) struct Playout {
    format: PcmFormat,
    delay: Duration,
    queue: VecDeque<Item>,
    /// Samples in the queue.
    waiting: usize,
    marks: usize,
    clock: Option<Clock>,
    counters: PlayoutCounters,
}

#[derive(Debug)]
enum Item {
    Samples(Vec<i16>),
    Mark(String),
}

/// When samples are heard: counted from one moment, so that no rounding adds up.
#[derive(Debug, Clone, Copy)]
struct Clock {
    start: Instant,
    samples: u64,
}

impl Clock {
    fn at(self, format: PcmFormat) -> Instant {
        let rate = u64::from(format.rate);
        let (seconds, rest) = (self.samples / rate, self.samples % rate);
        self.start + Duration::from_secs(seconds) + Duration::from_nanos(rest * 1_000_000_000 / rate)
    }
}

impl Playout {
    pub(crate) fn new(format: PcmFormat, delay: Duration) -> Self {
        let (queue, counters) = (VecDeque::new(), PlayoutCounters::default());
        Self { format, delay, queue, waiting: 0, marks: 0, clock: None, counters }
    }

    /// Queues samples that came at `now`.
    pub(crate) fn push(&mut self, now: Instant, samples: Vec<i16>) {
        if samples.is_empty() {
            return;
        }
        if self.format.duration(self.waiting + samples.len()) > MAX_AHEAD {
            self.counters.dropped += 1;
            return;
        }
        let next = self.clock.map(|clock| clock.at(self.format));
        if self.waiting == 0 && next.is_none_or(|next| next < now) {
            let start = now + self.delay;
            if let Some(next) = next
                && now - next < UTTERANCE
            {
                self.counters.gaps += start - next;
            }
            self.clock = Some(Clock { start, samples: 0 });
        }
        self.waiting += samples.len();
        self.queue.push_back(Item::Samples(samples));
    }

    /// Sets a mark behind everything queued.
    pub(crate) fn mark(&mut self, name: String) {
        if self.marks == MAX_MARKS {
            tracing::warn!("too many marks under way: one is forgotten");
            return;
        }
        self.marks += 1;
        self.queue.push_back(Item::Mark(name));
    }

    /// Forgets what has not been heard; returns the marks that were in it.
    pub(crate) fn clear(&mut self) -> Vec<String> {
        self.waiting = 0;
        self.marks = 0;
        let marks = self.queue.drain(..).filter_map(|item| match item {
            Item::Mark(name) => Some(name),
            Item::Samples(_) => None,
        });
        let marks = marks.collect();
        self.clock = None;
        marks
    }

    /// When [`Self::poll`] has something.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.queue.front()?;
        self.clock.map(|clock| clock.at(self.format))
    }

    /// When everything that is here will have been heard.
    pub(crate) fn end(&self) -> Option<Instant> {
        let Clock { start, samples } = self.clock?;
        Some(Clock { start, samples: samples + self.waiting as u64 }.at(self.format))
    }

    /// The next thing whose time has come.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Played> {
        let Some(clock) = &mut self.clock else {
            // Nothing was ever to be played: a mark is reached at once.
            return self.take_mark();
        };
        let at = clock.at(self.format);
        if at > now {
            return None;
        }
        let Some(Item::Samples(samples)) = self.queue.front_mut() else { return self.take_mark() };
        let piece = ((u64::from(self.format.rate) * PIECE_MS / 1_000) as usize).clamp(1, samples.len());
        let rest = samples.split_off(piece);
        let samples = std::mem::replace(samples, rest);
        if self.queue.front().is_some_and(|item| matches!(item, Item::Samples(rest) if rest.is_empty())) {
            self.queue.pop_front();
        }
        self.waiting -= samples.len();
        clock.samples += samples.len() as u64;
        self.counters.played += self.format.duration(samples.len());
        Some(Played::Audio(AudioChunk { samples, format: self.format, at }))
    }

    fn take_mark(&mut self) -> Option<Played> {
        match self.queue.pop_front()? {
            Item::Mark(name) => {
                self.marks -= 1;
                Some(Played::Mark(name))
            }
            // Samples set the clock, so they do not come here.
            samples @ Item::Samples(_) => {
                self.queue.push_front(samples);
                None
            }
        }
    }

    pub(crate) fn counters(&self) -> PlayoutCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FORMAT: PcmFormat = PcmFormat { rate: 1_000, channels: 1 };
    const DELAY: Duration = Duration::from_millis(40);

    #[derive(Clone, Debug)]
    enum Do {
        Push(usize),
        Mark(&'static str),
        Clear,
    }

    /// What is played, with milliseconds and lengths; marks as `(ms, 0)`, and the names of those cleared.
    fn run(steps: &[(u64, Do)]) -> (Vec<(u64, usize)>, Vec<String>, Playout) {
        let start = Instant::now();
        let mut playout = Playout::new(FORMAT, DELAY);
        let (mut found, mut cleared) = (Vec::new(), Vec::new());
        for ms in 0..3_000 {
            let now = start + Duration::from_millis(ms);
            for (_, step) in steps.iter().filter(|(at, _)| *at == ms) {
                match step {
                    Do::Push(samples) => playout.push(now, vec![1; *samples]),
                    Do::Mark(name) => playout.mark((*name).to_owned()),
                    Do::Clear => cleared.extend(playout.clear()),
                }
            }
            while let Some(played) = playout.poll(now) {
                found.push(match played {
                    Played::Audio(chunk) => ((chunk.at - start).as_millis() as u64, chunk.samples.len()),
                    Played::Mark(_) => (ms, 0),
                });
            }
        }
        (found, cleared, playout)
    }

    #[test]
    fn audio_is_played_in_real_time() {
        #[track_caller]
        fn check(steps: &[(u64, Do)], expected: &[(u64, usize)], gap_ms: u64) {
            let (found, _, playout) = run(steps);
            assert_eq!(found, expected);
            assert_eq!(playout.counters().gaps, Duration::from_millis(gap_ms));
        }
        // One frame waits for the delay; one that comes early enough follows it.
        check(&[(5, Do::Push(20)), (30, Do::Push(20))], &[(45, 20), (65, 20)], 0);
        // A whole reply at once.
        check(&[(0, Do::Push(50))], &[(40, 20), (60, 20), (80, 10)], 0);
        // Too late: a gap, and the delay once more.
        check(&[(0, Do::Push(20)), (100, Do::Push(20))], &[(40, 20), (140, 20)], 80);
        // A new utterance.
        check(&[(0, Do::Push(20)), (1_000, Do::Push(20))], &[(40, 20), (1_040, 20)], 0);
    }

    #[test]
    fn marks_are_reached_when_what_is_before_them_was_heard() {
        #[track_caller]
        fn check(steps: &[(u64, Do)], expected: &[(u64, usize)], cleared: &[&str]) {
            let (found, marks, _) = run(steps);
            assert_eq!((found, marks), (expected.to_vec(), cleared.iter().map(|name| (*name).to_owned()).collect()));
        }
        check(&[(7, Do::Mark("a"))], &[(7, 0)], &[]);
        check(&[(0, Do::Push(30)), (0, Do::Mark("a"))], &[(40, 20), (60, 10), (70, 0)], &[]);
        check(
            &[(0, Do::Push(10)), (0, Do::Mark("a")), (0, Do::Push(10)), (0, Do::Mark("b"))],
            &[(40, 10), (50, 0), (50, 10), (60, 0)],
            &[],
        );
        // Cleared: what is not heard is gone, its marks are given back, and the next audio begins anew.
        check(
            &[(0, Do::Push(100)), (0, Do::Mark("a")), (65, Do::Clear), (80, Do::Push(10))],
            &[(40, 20), (60, 20), (120, 10)],
            &["a"],
        );
        check(&[(0, Do::Push(10)), (100, Do::Mark("a"))], &[(40, 10), (100, 0)], &[]);
    }

    #[test]
    fn a_server_that_is_too_far_ahead_is_bounded() {
        let mut playout = Playout::new(FORMAT, DELAY);
        let now = Instant::now();
        (0..100).for_each(|_| playout.push(now, vec![0; 1_000]));
        assert_eq!(playout.counters().dropped, 40);
        assert_eq!(playout.end(), Some(now + DELAY + MAX_AHEAD));
        (0..1_000).for_each(|n| playout.mark(n.to_string()));
        assert_eq!(playout.clear().len(), MAX_MARKS);
    }

    proptest! {
        /// Nothing is lost, played twice, or played before its time.
        #[test]
        fn all_of_it_is_played_once(pushes in prop::collection::vec((0u64..1_000, 1usize..200), 0..12)) {
            let steps: Vec<_> = pushes.iter().map(|(ms, samples)| (*ms, Do::Push(*samples))).collect();
            let (found, _, _) = run(&steps);
            let total: usize = pushes.iter().map(|(_, samples)| samples).sum();
            prop_assume!(total < 1_800);
            prop_assert_eq!(found.iter().map(|(_, samples)| samples).sum::<usize>(), total);
            for pair in found.windows(2) {
                prop_assert!(pair[1].0 >= pair[0].0 + pair[0].1 as u64);
            }
        }
    }
}
