//! The playout decision: which step is due, and how a packet is fitted to the target delay.

use std::time::Duration;

use super::clock::Clock;
use super::queue::{Continuity, Packet, Queue, Redundancy};
use super::seen::RESTART;
use super::target::{Target, micros};

/// Invented audio per underrun before the stream counts as paused (microseconds); codecs have faded out by then.
const MAX_HOLD: i64 = 100_000;
/// Silence played on behalf of a sender in discontinuous transmission, which shows up every 400 ms (microseconds).
const MAX_SILENCE: i64 = 500_000;
/// One step of playing nothing (microseconds).
const STEP: i64 = 20_000;
/// One step of waiting for a late packet: shorter, so that the delay grows no more than needed (microseconds).
const HOLD_STEP: i64 = 10_000;
/// Codecs make up audio in pieces of this length; a smaller gap is a rounding of the sender's clock (microseconds).
const QUANTUM: i64 = 2_500;
/// Deviation from the target that is worth a time-scaling step: about one pitch period (microseconds).
const TOLERANCE: i64 = 8_000;
/// Shortfall that is worth lengthening a packet: what comes later than this is missed (microseconds).
const SHORTFALL: i64 = 4_000;
/// A packet may be lengthened by this much, though less is missing: a whole pitch period has to fit, and what is then
/// too much stays below [`TOLERANCE`] (microseconds).
const GROWTH: i64 = 11_000;
/// Shortest time between two accelerations of speech, so that shrinking goes unnoticed (microseconds).
const CALM: i64 = 100_000;
/// From this excess on, speed matters more than calm (microseconds).
const HURRY: i64 = 60_000;

/// How a decoded packet is to be fitted to the target delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Play as it is.
    Exact,
    /// Shorten by at most this much.
    Shrink {
        /// The most to remove.
        most: Duration,
        /// How bad a joint may be accepted.
        haste: Haste,
    },
    /// Lengthen by at most this much.
    Grow {
        /// The most to add.
        most: Duration,
    },
}

/// How much the delay matters compared with the sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Haste {
    /// Only in silence: speech was shortened a moment ago.
    SilenceOnly,
    /// At joints that are not heard.
    Calm,
    /// The delay is far too long: accept a worse joint.
    Hurried,
}

/// What to play now.
#[derive(Debug)]
pub enum Step {
    /// Nothing is due.
    Nothing,
    /// Decode this packet.
    Decode(Packet, Fit),
    /// Recover `ticks` of lost audio from the redundancy in the packet at the front: see
    /// [`JitterBuffer::front`](super::JitterBuffer::front).
    Repair {
        /// RTP clock units to produce.
        ticks: u32,
    },
    /// Make up `ticks` of audio.
    Conceal {
        /// RTP clock units to produce.
        ticks: u32,
    },
    /// Play `ticks` of silence.
    Silence {
        /// RTP clock units to produce.
        ticks: u32,
    },
}

/// A change of length by time-scaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rescale {
    /// Longer by this much.
    Longer(Duration),
    /// Shorter by this much.
    Shorter(Duration),
}

/// A stretch that is being played: from the first packet after a pause to the next pause.
#[derive(Debug, Clone, Copy)]
struct Playing {
    /// When the next step is due (microseconds since the origin).
    at: i64,
    /// Media time of the next step (ticks).
    media: i64,
    /// Audio made up without progress of media time since the last packet (ticks).
    held: i64,
    /// Silence played since the last packet (microseconds).
    silence: i64,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing was played yet: an earlier packet may still come first.
    Waiting,
    Started,
}

/// The schedule of one stream. Times in microseconds since the owner's origin, media time in ticks.
#[derive(Debug)]
pub(super) struct Playout {
    clock: Clock,
    playing: Option<Playing>,
    /// Media time up to which everything is played.
    played: i64,
    /// Media time at which the last step began.
    position: i64,
    /// Index and continuity of the last packet that left the queue.
    last: Option<(u64, Continuity)>,
    /// When a packet was last shortened.
    shrunk: i64,
    /// Packets that had not come when their time was over.
    lost: u64,
    /// Packets dropped unheard.
    flushed: u64,
}

impl Playout {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, playing: None, played: 0, position: 0, last: None, shrunk: i64::MIN / 2, lost: 0, flushed: 0 }
    }

    /// The next packet's index has nothing to do with those before it.
    pub(super) fn restart(&mut self) {
        self.last = None;
    }

    /// Starts playing if nothing plays, or starts earlier if an earlier packet has come.
    pub(super) fn schedule(&mut self, arrival: i64, front: i64, target: &Target) {
        match &mut self.playing {
            Some(playing) if playing.progress == Progress::Waiting || playing.silence > 0 => {
                playing.media = playing.media.min(front);
            }
            Some(_) => {}
            None => {
                let at = target.due(front, arrival).max(arrival);
                self.playing = Some(Playing { at, media: front, held: 0, silence: 0, progress: Progress::Waiting });
            }
        }
    }

    /// The step that is due at `now`.
    pub(super) fn next(&mut self, now: i64, queue: &mut Queue, target: &mut Target) -> Step {
        let Some(mut playing) = self.playing.filter(|playing| now >= playing.at) else { return Step::Nothing };
        self.cut(&mut playing, queue, target);
        let step = match queue.front() {
            None => self.underrun(now, &mut playing),
            Some(front) if front.media <= playing.media => self.decode(now, &mut playing, queue, target),
            Some(_) => self.bridge(now, &mut playing, queue, target),
        };
        match step {
            Some(step) => {
                playing.progress = Progress::Started;
                self.played = playing.media;
                self.playing = Some(playing);
                step
            }
            None => {
                self.playing = None;
                Step::Nothing
            }
        }
    }

    /// The last packet came out longer or shorter than its length on the RTP clock.
    pub(super) fn rescaled(&mut self, by: Rescale) {
        let Some(playing) = &mut self.playing else { return };
        match by {
            Rescale::Longer(by) => playing.at += micros(by),
            Rescale::Shorter(by) => {
                self.shrunk = playing.at;
                playing.at -= micros(by);
            }
        }
    }

    /// When the next step is due; `None` while nothing is to be played.
    pub(super) fn due(&self) -> Option<i64> {
        self.playing.map(|playing| playing.at)
    }

    /// Media time up to which everything is played.
    pub(super) fn played(&self) -> i64 {
        self.played
    }

    /// Media time before which a packet comes too late. Silence is played ahead of knowledge: a packet that ends a pause
    /// takes its place.
    pub(super) fn floor(&self) -> i64 {
        self.played - self.playing.map_or(0, |playing| self.clock.to_ticks(playing.silence))
    }

    /// Media time at which the last step began.
    pub(super) fn position(&self) -> i64 {
        self.position
    }

    /// Delay of the next step compared with the fastest recent packet.
    pub(super) fn delay(&self, target: &Target) -> i64 {
        self.playing.map_or(0, |playing| target.delay(playing.at, playing.media).max(0))
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    pub(super) fn flushed(&self) -> u64 {
        self.flushed
    }

    /// Drops the front packet unheard.
    pub(super) fn flush_front(&mut self, queue: &mut Queue) {
        if let Some(packet) = queue.pop_front() {
            self.flushed += 1;
            self.last = Some((packet.index, packet.traits.continuity));
            queue.recycle(packet);
        }
    }

    /// Drops what is so late that the delay would stay above the upper bound.
    fn cut(&mut self, playing: &mut Playing, queue: &mut Queue, target: &Target) {
        while let Some(front) = queue.front() {
            let excess = target.delay(playing.at, playing.media) - target.most();
            let gap = front.media - playing.media;
            if excess <= TOLERANCE {
                return;
            }
            playing.held = 0;
            if gap > 0 {
                // What is missing is not made up only to be late.
                let skipped = self.clock.to_ticks(excess);
                playing.media += gap.min(skipped);
                if gap > skipped {
                    return;
                }
            } else if queue.len() > 1 {
                self.flush_front(queue);
                playing.media = queue.front().map_or(playing.media, |front| front.media.max(playing.media));
            } else {
                return;
            }
        }
    }

    fn decode(&mut self, now: i64, playing: &mut Playing, queue: &mut Queue, target: &mut Target) -> Option<Step> {
        let packet = queue.pop_front()?;
        self.count_lost(packet.index, target);
        let fit = self.fit(now, playing, target);
        self.last = Some((packet.index, packet.traits.continuity));
        self.position = packet.media;
        playing.at += self.clock.to_micros(i64::from(packet.ticks));
        playing.media = packet.media + i64::from(packet.ticks);
        playing.held = 0;
        playing.silence = 0;
        Some(Step::Decode(packet, fit))
    }

    fn count_lost(&mut self, index: u64, target: &mut Target) {
        let missing = self.last.map_or(0, |(last, _)| index.saturating_sub(last.saturating_add(1)));
        if missing >= RESTART {
            return;
        }
        self.lost += missing;
        target.played(missing);
    }

    fn fit(&self, now: i64, playing: &Playing, target: &Target) -> Fit {
        let excess = playing.at - target.due(playing.media, playing.at);
        if excess >= TOLERANCE {
            let haste = match () {
                () if excess >= HURRY => Haste::Hurried,
                () if now - self.shrunk >= CALM => Haste::Calm,
                () => Haste::SilenceOnly,
            };
            Fit::Shrink { most: Duration::from_micros(excess.unsigned_abs()), haste }
        } else if excess <= -SHORTFALL {
            Fit::Grow { most: Duration::from_micros((-excess).max(GROWTH).unsigned_abs()) }
        } else {
            Fit::Exact
        }
    }

    /// No packet at all: the sender pauses, or the network is later than ever.
    fn underrun(&mut self, now: i64, playing: &mut Playing) -> Option<Step> {
        // A loop that was held up must not invent the audio of the time it slept.
        playing.at = playing.at.max(now - STEP);
        self.position = playing.media;
        if matches!(self.last, Some((_, Continuity::Discontinuous))) {
            if playing.silence >= MAX_SILENCE {
                return None;
            }
            playing.silence += STEP;
            let ticks = self.clock.to_ticks(STEP);
            playing.media += ticks;
            playing.at += STEP;
            return Some(Step::Silence { ticks: ticks as u32 });
        }
        if self.clock.to_micros(playing.held) >= MAX_HOLD {
            return None;
        }
        let ticks = self.clock.to_ticks(HOLD_STEP);
        playing.held += ticks;
        playing.at += HOLD_STEP;
        Some(Step::Conceal { ticks: ticks as u32 })
    }

    /// A later packet is here, but not the next one.
    fn bridge(&mut self, now: i64, playing: &mut Playing, queue: &mut Queue, target: &mut Target) -> Option<Step> {
        let front = queue.front()?;
        let nothing_lost = self.last.is_some_and(|(last, _)| front.index == last.wrapping_add(1));
        let repairable = match front.traits.redundancy {
            Redundancy::Previous if !nothing_lost => i64::from(front.ticks),
            _ => 0,
        };
        if front.media - playing.media != repairable {
            // Audio made up while waiting has already stood in for (a part of) what turned out to be lost. What can be
            // had after all is played nevertheless: it was said, and the delay was evidently too short.
            playing.media += playing.held.min(front.media - playing.media);
        }
        playing.held = 0;
        let quantum = self.clock.to_ticks(QUANTUM).max(1);
        let gap = (front.media - playing.media) / quantum * quantum;
        if gap == 0 {
            playing.media = front.media;
            return self.decode(now, playing, queue, target);
        }
        self.position = playing.media;
        let step = self.clock.to_ticks(STEP).min(gap);
        // A decoder repairs a whole packet or nothing.
        let (step, made) = if nothing_lost {
            (step, Step::Silence { ticks: step as u32 })
        } else if gap == repairable {
            (gap, Step::Repair { ticks: gap as u32 })
        } else {
            let step = if gap > repairable { step.min(gap - repairable) } else { step };
            (step, Step::Conceal { ticks: step as u32 })
        };
        playing.media += step;
        playing.at += self.clock.to_micros(step);
        Some(made)
    }
}
