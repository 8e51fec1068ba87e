//! The jitter buffer: which packet is played when, and what stands in for one that is missing.
//!
//! RTP timestamps make media time; arrival only says how late the network is ([`crate::DelayBounds`]). A packet is
//! played at `fastest arrival + media time + target delay`. The buffer never decodes: [`JitterBuffer::next`] names the
//! step to take, the owner takes it and says with [`JitterBuffer::rescaled`] if the audio came out shorter or longer.
//!
//! Nothing ticks: the owner is not a sound card, so a step is due when its audio is, and none is due in a pause.

mod clock;
mod playout;
mod queue;
mod seen;
mod target;

use std::time::{Duration, Instant};

use clock::{Clock, Expected, Placed, Rank, Timeline};
use playout::Playout;
use queue::{Queue, Queued};
use seen::{Order, Seen};
use target::{Target, micros};

use crate::delay::DelayBounds;

pub use playout::{Fit, Haste, Rescale, Step};
pub use queue::{Continuity, MAX_PACKETS, Packet, Redundancy, Traits};

/// The largest payload: what fits a datagram of an Ethernet path.
pub const MAX_PAYLOAD: usize = 1_500;

/// Counters since the beginning and the state of the delay.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct JitterStats {
    /// Packets offered, whatever became of them.
    pub received: u64,
    /// Packets that came after their time.
    pub late: u64,
    /// Packets that had come before.
    pub duplicate: u64,
    /// Packets dropped unheard: the buffer was too full, its delay above the upper bound, or the packet empty or too
    /// large.
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

/// One stream's packets in the order of their media time, and its playout schedule.
#[derive(Debug)]
pub struct JitterBuffer {
    clock: Clock,
    /// The first packet's arrival, from which all times are counted.
    origin: Option<Instant>,
    seen: Seen,
    timeline: Timeline,
    queue: Queue,
    target: Target,
    playout: Playout,
    counters: Counters,
}

/// What became of packets that were not queued.
#[derive(Debug, Default)]
struct Counters {
    received: u64,
    late: u64,
    duplicate: u64,
    refused: u64,
}

impl JitterBuffer {
    /// An empty buffer for timestamps that count at `clock_rate` Hz. The bounds must be in order.
    #[must_use]
    pub fn new(clock_rate: u32, bounds: DelayBounds) -> Self {
        let clock = Clock::new(clock_rate);
        Self {
            clock,
            origin: None,
            seen: Seen::default(),
            timeline: Timeline::default(),
            queue: Queue::default(),
            target: Target::new(clock, bounds),
            playout: Playout::new(clock),
            counters: Counters::default(),
        }
    }

    /// Another source follows (SSRC change): indices and timestamps start anew, what is known of the network stays.
    pub fn reset(&mut self) {
        self.seen.reset();
        self.restart();
    }

    /// Takes a packet with its extended sequence number, timestamp and length (both in RTP clock units).
    pub fn insert(&mut self, now: Instant, index: u64, timestamp: u32, ticks: u32, traits: Traits, payload: &[u8]) {
        self.counters.received += 1;
        if payload.len() > MAX_PAYLOAD || ticks == 0 {
            self.counters.refused += 1;
            return;
        }
        let origin = *self.origin.get_or_insert(now);
        let arrival = micros(now.saturating_duration_since(origin));
        let rank = match self.seen.note(index) {
            Order::Newest => Rank::Newest,
            Order::Reordered => Rank::Earlier,
            Order::Restarted => {
                self.restart();
                Rank::Newest
            }
            Order::Duplicate => {
                self.counters.duplicate += 1;
                return;
            }
            Order::Late => {
                self.counters.late += 1;
                return;
            }
        };
        let Some(media) = self.place(arrival, timestamp, rank) else {
            self.counters.late += 1;
            return;
        };
        self.target.observe(arrival, media, ticks, traits.redundancy);
        if media < self.playout.floor() {
            self.counters.late += 1;
            return;
        }
        if self.queue.insert(index, media, ticks, traits, payload) == Queued::Duplicate {
            self.counters.duplicate += 1;
            return;
        }
        if self.queue.len() > MAX_PACKETS {
            self.playout.flush_front(&mut self.queue);
        }
        if let Some(front) = self.queue.front() {
            self.playout.schedule(arrival, front.media, &self.target);
        }
    }

    /// When the next step is due; `None` while nothing is to be played.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        Some(self.origin? + duration(self.playout.due()?))
    }

    /// The packet that is played after the current step.
    #[must_use]
    pub fn front(&self) -> Option<&Packet> {
        self.queue.front()
    }

    /// Media time at which the last step began, since the first packet.
    #[must_use]
    pub fn position(&self) -> Duration {
        duration(self.clock.to_micros(self.playout.position()))
    }

    /// The step that is due at `now`.
    pub fn next(&mut self, now: Instant) -> Step {
        let Some(origin) = self.origin else { return Step::Nothing };
        let now = micros(now.saturating_duration_since(origin));
        self.playout.next(now, &mut self.queue, &mut self.target)
    }

    /// The decoded packet of the last step came out longer (or shorter) than its length on the RTP clock.
    pub fn rescaled(&mut self, by: Rescale) {
        self.playout.rescaled(by);
    }

    /// Takes back a decoded packet's memory.
    pub fn recycle(&mut self, packet: Packet) {
        self.queue.recycle(packet);
    }

    /// Counters and delays.
    #[must_use]
    pub fn stats(&self) -> JitterStats {
        let Counters { received, late, duplicate, refused } = self.counters;
        JitterStats {
            received,
            late,
            duplicate,
            flushed: refused + self.playout.flushed(),
            lost: self.playout.lost(),
            target_delay: duration(self.target.aim()),
            current_delay: duration(self.playout.delay(&self.target)),
            jitter: self.target.jitter(),
        }
    }

    /// Packets waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether no packet waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn restart(&mut self) {
        self.timeline.reset();
        self.playout.restart();
    }

    /// The media time of a packet; `None` for a straggler from before a jump of the sender's clock.
    fn place(&mut self, arrival: i64, timestamp: u32, rank: Rank) -> Option<i64> {
        let expected = self.target.media_at(arrival).map(|media| Expected {
            media: media.max(self.playout.played()),
            resumes_after: if self.playout.due().is_none() { self.target.most() } else { i64::MAX },
        });
        match self.timeline.place(self.clock, timestamp, rank, expected) {
            Placed::Continued(media) => Some(media),
            Placed::Remapped(media) => {
                self.target.remapped();
                Some(media)
            }
            Placed::Straggler => None,
        }
    }
}

fn duration(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
