//! The jitter buffer: which packet is played when, and what stands in for one that is missing.
//!
//! RTP timestamps make media time; arrival only says how late the network is ([`crate::DelayBounds`]). A packet is
//! played at `fastest arrival + media time + target delay`. The buffer never decodes: [`JitterBuffer::next`] names the
//! step to take, the owner takes it and says with [`JitterBuffer::rescaled`] if the audio came out shorter or longer.
//!
//! Nothing ticks: the owner is not a sound card, so a step is due when its audio is, and none is due in a pause.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::delay::{DelayBounds, DelayEstimator};

/// Packets held at most: 1.3 s of 20 ms packets, 0.6 s of 10 ms ones, three times the largest useful delay.
pub const MAX_PACKETS: usize = 64;
/// The largest payload: what fits a datagram of an Ethernet path.
pub const MAX_PAYLOAD: usize = 1_500;
/// Empty payload buffers kept for reuse; a burst's worth of others is given back to the allocator.
const MAX_SPARE: usize = 8;
/// How far behind the newest packet a duplicate is recognised; older ones are late in any case.
const SEEN: u64 = 128;
/// A new packet this far from where its timestamp should be means that the sender's clock jumped (microseconds).
const JUMP: i64 = 1_000_000;
/// An index this far behind the newest one means that the sender has started anew.
const RESTART: u64 = 5_000;
/// Invented audio per underrun before the stream counts as paused (microseconds); codecs have faded out by then.
const MAX_HOLD: i64 = 100_000;
/// Silence played on behalf of a sender in discontinuous transmission, which shows up every 400 ms (microseconds).
const MAX_SILENCE: i64 = 500_000;
/// One step of playing nothing (microseconds).
const STEP: i64 = 20_000;
/// One step of waiting for a late packet: shorter, so that the delay grows no more than needed (microseconds).
const HOLD_STEP: i64 = 10_000;
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
/// Loss above which the delay makes room for repair by the next packet.
const REPAIR_LOSS: f32 = 0.01;

/// A packet on its way to the decoder.
#[derive(Debug)]
pub struct Packet {
    /// The payload.
    pub payload: Vec<u8>,
    /// Its length on the RTP clock.
    pub ticks: u32,
    index: u64,
    media: i64,
    traits: Traits,
}

/// What the codec knows about a payload without decoding it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traits {
    /// It can repair the packet before it.
    pub redundancy: Redundancy,
    /// The sender pauses after it.
    pub continuity: Continuity,
}

/// Whether a packet can repair its predecessor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Redundancy {
    /// It carries itself only.
    #[default]
    None,
    /// It carries a copy of its predecessor.
    Previous,
}

/// Whether another packet follows at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Continuity {
    /// As always.
    #[default]
    Continuous,
    /// The sender is silent and pauses (DTX).
    Discontinuous,
}

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
    /// Recover `ticks` of lost audio from the redundancy in the packet at the front: see [`JitterBuffer::front`].
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

/// Counters since the beginning and the state of the delay.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct JitterStats {
    /// Packets offered, whatever became of them.
    pub received: u64,
    /// Packets that came after their time.
    pub late: u64,
    /// Packets that had come before.
    pub duplicate: u64,
    /// Packets dropped unheard because the buffer was too full or its delay above the upper bound.
    pub flushed: u64,
    /// Packets that had not come when their time was over.
    pub lost: u64,
    /// Delay aimed at.
    pub target_delay: Duration,
    /// Delay of the next packet compared with the fastest recent one.
    pub current_delay: Duration,
    /// Interarrival jitter (RFC 3550, 6.4.1).
    pub jitter: Duration,
}

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

/// One stream's packets in the order of their media time, and its playout schedule.
#[derive(Debug)]
pub struct JitterBuffer {
    clock: i64,
    bounds: DelayBounds,
    packets: VecDeque<Packet>,
    spare: Vec<Vec<u8>>,
    origin: Option<Instant>,
    /// The last packet's timestamp and its media time (ticks).
    mapping: Option<(u32, i64)>,
    estimator: DelayEstimator,
    playing: Option<Playing>,
    /// Media time up to which everything is played (ticks).
    played: i64,
    /// Media time at which the last step began (ticks).
    position: i64,
    newest: Option<u64>,
    /// Bit `n`: index `newest - n` was seen.
    seen: u128,
    /// Index and continuity of the last packet decoded.
    last: Option<(u64, Continuity)>,
    /// Recent loss, 0.0 to 1.0.
    loss: f32,
    /// Recent packets that could repair their predecessor, 0.0 to 1.0.
    redundancy: f32,
    packet_ticks: u32,
    shrunk: i64,
    stats: JitterStats,
}

impl JitterBuffer {
    /// An empty buffer for timestamps that count at `clock_rate` Hz. The bounds must be in order.
    #[must_use]
    pub fn new(clock_rate: u32, bounds: DelayBounds) -> Self {
        Self {
            clock: i64::from(clock_rate.max(1)),
            bounds,
            packets: VecDeque::new(),
            spare: Vec::new(),
            origin: None,
            mapping: None,
            estimator: DelayEstimator::new(),
            playing: None,
            played: 0,
            position: 0,
            newest: None,
            seen: 0,
            last: None,
            loss: 0.0,
            redundancy: 0.0,
            packet_ticks: 0,
            shrunk: i64::MIN / 2,
            stats: JitterStats::default(),
        }
    }

    /// Another source follows (SSRC change): indices and timestamps start anew, what is known of the network stays.
    pub fn reset(&mut self) {
        self.mapping = None;
        self.newest = None;
        self.seen = 0;
        self.last = None;
    }

    /// Takes a packet with its extended sequence number, timestamp and length (both in RTP clock units).
    pub fn insert(&mut self, now: Instant, index: u64, timestamp: u32, ticks: u32, traits: Traits, payload: &[u8]) {
        self.stats.received += 1;
        if payload.len() > MAX_PAYLOAD || ticks == 0 {
            self.stats.flushed += 1;
            return;
        }
        let origin = *self.origin.get_or_insert(now);
        let arrival = micros(now.saturating_duration_since(origin));
        if !self.admit(index) {
            return;
        }
        let Some(media) = self.place(arrival, index, timestamp) else {
            self.stats.late += 1;
            return;
        };
        self.estimator.observe(arrival, self.to_micros(media), self.to_micros(i64::from(ticks)));
        self.packet_ticks = ticks;
        let carries = f32::from(u8::from(traits.redundancy == Redundancy::Previous));
        self.redundancy += (carries - self.redundancy) / 16.0;

        // Silence is played ahead of knowledge: a packet that ends a pause takes its place.
        let silence = self.playing.map_or(0, |playing| self.to_ticks(playing.silence));
        let floor = self.played - silence;
        if media < floor {
            self.stats.late += 1;
            return;
        }
        let at = self.packets.partition_point(|packet| packet.media < media);
        if self.packets.get(at).is_some_and(|packet| packet.media == media) {
            self.stats.duplicate += 1;
            return;
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(payload);
        self.packets.insert(at, Packet { payload: buffer, ticks, index, media, traits });
        if self.packets.len() > MAX_PACKETS {
            self.drop_front();
        }
        self.schedule(arrival);
    }

    /// When the next step is due; `None` while nothing is to be played.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let playing = self.playing?;
        Some(self.origin? + Duration::from_micros(u64::try_from(playing.at).unwrap_or(0)))
    }

    /// The packet that is played after the current step.
    #[must_use]
    pub fn front(&self) -> Option<&Packet> {
        self.packets.front()
    }

    /// Media time at which the last step began, since the first packet.
    #[must_use]
    pub fn position(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.to_micros(self.position)).unwrap_or(0))
    }

    /// The step that is due at `now`.
    pub fn next(&mut self, now: Instant) -> Step {
        let (Some(origin), Some(mut playing)) = (self.origin, self.playing) else { return Step::Nothing };
        let now = micros(now.saturating_duration_since(origin));
        if now < playing.at {
            return Step::Nothing;
        }
        self.cut(&mut playing);
        let step = match self.packets.front() {
            None => self.underrun(now, &mut playing),
            Some(front) if front.media <= playing.media => self.decode(now, &mut playing),
            Some(_) => self.bridge(now, &mut playing),
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

    /// The decoded packet of the last step came out `by` longer (or shorter) than its length on the RTP clock.
    pub fn rescaled(&mut self, by: Rescale) {
        let Some(playing) = &mut self.playing else { return };
        match by {
            Rescale::Longer(by) => playing.at += micros(by),
            Rescale::Shorter(by) => {
                let started = playing.at;
                playing.at -= micros(by);
                self.shrunk = started;
            }
        }
    }

    /// Takes back a decoded packet's memory.
    pub fn recycle(&mut self, packet: Packet) {
        if self.spare.len() < MAX_SPARE {
            self.spare.push(packet.payload);
        }
    }

    /// Counters and delays.
    #[must_use]
    pub fn stats(&self) -> JitterStats {
        let delay = self.playing.map_or(0, |playing| self.delay(&playing).max(0));
        JitterStats {
            target_delay: Duration::from_micros(u64::try_from(self.target()).unwrap_or(0)),
            current_delay: Duration::from_micros(u64::try_from(delay).unwrap_or(0)),
            jitter: Duration::from_micros(self.estimator.jitter() as u64),
            ..self.stats
        }
    }

    /// Packets waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether no packet waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Notes the index; false for one that came before or is older than what could still be played.
    fn admit(&mut self, index: u64) -> bool {
        let Some(newest) = self.newest else {
            (self.newest, self.seen) = (Some(index), 1);
            return true;
        };
        if index > newest {
            let ahead = index - newest;
            self.seen = if ahead < SEEN { self.seen << ahead | 1 } else { 1 };
            self.newest = Some(index);
            return true;
        }
        let behind = newest - index;
        if behind >= RESTART {
            self.reset();
            (self.newest, self.seen) = (Some(index), 1);
            return true;
        }
        if behind >= SEEN {
            self.stats.late += 1;
            return false;
        }
        if self.seen >> behind & 1 == 1 {
            self.stats.duplicate += 1;
            return false;
        }
        self.seen |= 1 << behind;
        true
    }

    /// Maps the timestamp to media time, which never wraps and goes on by wall time when the sender's clock jumps. `None`
    /// for a straggler from before a jump.
    fn place(&mut self, arrival: i64, index: u64, timestamp: u32) -> Option<i64> {
        let expected = self.estimator.base().map(|base| self.to_ticks(arrival - base).max(self.played));
        let mapped = self.mapping.map(|(last, media)| media + i64::from(timestamp.wrapping_sub(last).cast_signed()));
        let media = match (mapped, expected) {
            (None, None) => 0,
            (None, Some(expected)) => expected,
            (Some(mapped), None) => mapped,
            (Some(mapped), Some(expected)) => {
                let lateness = self.to_micros(expected.saturating_sub(mapped));
                // After a pause a sender may go on where it stopped: that is not lateness.
                let resumed = self.playing.is_none() && lateness > micros(self.bounds.max);
                let jumped = lateness.abs() > JUMP;
                if jumped && self.newest != Some(index) {
                    return None;
                }
                if resumed || jumped {
                    self.estimator.remapped();
                    expected
                } else {
                    mapped
                }
            }
        };
        self.mapping = Some((timestamp, media));
        Some(media)
    }

    /// Starts playing if nothing plays, or starts earlier if an earlier packet has come.
    fn schedule(&mut self, arrival: i64) {
        let Some(front) = self.packets.front().map(|packet| packet.media) else { return };
        match &mut self.playing {
            Some(playing) if playing.progress == Progress::Waiting || playing.silence > 0 => {
                playing.media = playing.media.min(front);
            }
            Some(_) => {}
            None => {
                let due = self.due(front, arrival);
                self.playing = Some(Playing {
                    at: due.max(arrival),
                    media: front,
                    held: 0,
                    silence: 0,
                    progress: Progress::Waiting,
                });
            }
        }
    }

    /// Drops what is so late that the delay would stay above the upper bound.
    fn cut(&mut self, playing: &mut Playing) {
        let most = micros(self.bounds.max);
        while let Some(front) = self.packets.front() {
            let excess = self.delay(playing) - most;
            let gap = front.media - playing.media;
            if excess <= TOLERANCE {
                return;
            }
            playing.held = 0;
            if gap > 0 {
                // What is missing is not made up only to be late.
                playing.media += gap.min(self.to_ticks(excess));
                if gap > self.to_ticks(excess) {
                    return;
                }
            } else if self.packets.len() > 1 {
                self.drop_front();
                playing.media = self.packets.front().map_or(playing.media, |front| front.media.max(playing.media));
            } else {
                return;
            }
        }
    }

    fn drop_front(&mut self) {
        if let Some(packet) = self.packets.pop_front() {
            self.stats.flushed += 1;
            self.last = Some((packet.index, packet.traits.continuity));
            self.recycle(packet);
        }
    }

    fn decode(&mut self, now: i64, playing: &mut Playing) -> Option<Step> {
        let packet = self.packets.pop_front()?;
        self.count_lost(packet.index);
        let fit = self.fit(now, playing);
        self.last = Some((packet.index, packet.traits.continuity));
        self.position = packet.media;
        playing.at += self.to_micros(i64::from(packet.ticks));
        playing.media = packet.media + i64::from(packet.ticks);
        playing.held = 0;
        playing.silence = 0;
        Some(Step::Decode(packet, fit))
    }

    fn count_lost(&mut self, index: u64) {
        let missing = self.last.map_or(0, |(last, _)| index.saturating_sub(last.saturating_add(1)));
        if missing >= RESTART {
            return;
        }
        self.stats.lost += missing;
        for _ in 0..missing.min(16) {
            self.loss += (1.0 - self.loss) / 64.0;
        }
        self.loss -= self.loss / 64.0;
    }

    fn fit(&self, now: i64, playing: &Playing) -> Fit {
        let excess = playing.at - self.due(playing.media, playing.at);
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
            let ticks = self.to_ticks(STEP);
            playing.media += ticks;
            playing.at += STEP;
            return Some(Step::Silence { ticks: ticks as u32 });
        }
        if self.to_micros(playing.held) >= MAX_HOLD {
            return None;
        }
        let ticks = self.to_ticks(HOLD_STEP);
        playing.held += ticks;
        playing.at += HOLD_STEP;
        Some(Step::Conceal { ticks: ticks as u32 })
    }

    /// A later packet is here, but not the next one.
    fn bridge(&mut self, now: i64, playing: &mut Playing) -> Option<Step> {
        let front = self.packets.front()?;
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
        // Codecs make up audio in pieces of 2.5 ms; a smaller gap is a rounding of the sender's clock.
        let quantum = self.to_ticks(2_500).max(1);
        let gap = (front.media - playing.media) / quantum * quantum;
        if gap == 0 {
            playing.media = front.media;
            return self.decode(now, playing);
        }
        self.position = playing.media;
        let step = self.to_ticks(STEP).min(gap);
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
        playing.at += self.to_micros(step);
        Some(made)
    }

    /// Delay of the next step compared with the fastest recent packet (microseconds).
    fn delay(&self, playing: &Playing) -> i64 {
        self.estimator.base().map_or(0, |base| playing.at - base - self.to_micros(playing.media))
    }

    /// When media time `media` should be played.
    fn due(&self, media: i64, now: i64) -> i64 {
        self.estimator.base().unwrap_or(now) + self.to_micros(media) + self.target()
    }

    fn target(&self) -> i64 {
        let network = self.estimator.target();
        let repair = if self.loss > REPAIR_LOSS && self.redundancy > 0.25 {
            // A lost packet can be repaired only if the next one is there when its own time comes.
            network + self.to_micros(i64::from(self.packet_ticks))
        } else {
            0
        };
        network.max(repair).clamp(micros(self.bounds.min), micros(self.bounds.max))
    }

    fn to_micros(&self, ticks: i64) -> i64 {
        ticks.saturating_mul(1_000_000) / self.clock
    }

    fn to_ticks(&self, micros: i64) -> i64 {
        micros.saturating_mul(self.clock) / 1_000_000
    }
}

/// A change of length by time-scaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rescale {
    /// Longer by this much.
    Longer(Duration),
    /// Shorter by this much.
    Shorter(Duration),
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
