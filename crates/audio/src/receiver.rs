//! One inbound track: jitter buffer, decoder, time-scaling.

use std::time::{Duration, Instant};

use crate::decoder::{Decoder, Outcome, inspect};
use crate::jitter::{Fit, Haste, JitterBuffer, Rescale, Step};
use crate::timescale::{Joint, grow, shrink};
use crate::{AudioError, Codec, DelayBounds, PcmFormat};

/// Likeness that makes a joint inaudible in speech.
const GOOD_JOINT: Joint = Joint::Alike(0.85);
/// Likeness that is accepted when the delay is far too long.
const FAIR_JOINT: Joint = Joint::Alike(0.5);

/// One inbound audio track.
///
/// Memory: 18.5 kB of decoder state (mono Opus), about 3 kB of its own, and the packets that wait.
#[derive(Debug)]
pub struct AudioReceiver {
    codec: Codec,
    output: PcmFormat,
    jitter: JitterBuffer,
    decoder: Decoder,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    refused: u64,
    damaged: u64,
    concealed: u64,
    fec_repaired: u64,
    accelerated: u64,
    expanded: u64,
    played: Duration,
    concealed_time: Duration,
}

/// What a playout step was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PulledKind {
    /// A packet, as it was sent.
    Decoded,
    /// A lost packet, recovered from the redundancy in the next one.
    Fec,
    /// Made up: the packet is lost or late.
    Concealed,
    /// A packet, lengthened because the target delay has grown.
    Expanded,
    /// A packet, shortened because the target delay has shrunk.
    Accelerated,
    /// The sender pauses.
    Silence,
    /// Nothing was due; nothing was appended.
    Empty,
}

/// One playout step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulled {
    /// What it was made of.
    pub kind: PulledKind,
    /// Length of the audio appended.
    pub duration: Duration,
    /// Media time of its first sample since the track's first packet, by RTP timestamps.
    pub position: Duration,
}

/// Counters since the beginning of the track and the state of the jitter buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct ReceiverStats {
    /// Packets inserted, whatever became of them.
    pub received: u64,
    /// Packets that came after their time and were dropped.
    pub late: u64,
    /// Packets that had come before and were dropped.
    pub duplicate: u64,
    /// Packets dropped because too many waited or the delay was above its bound.
    pub flushed: u64,
    /// Packets that were no packets of the codec, or could not be decoded.
    pub malformed: u64,
    /// Packets that had not come when their time was over.
    pub lost: u64,
    /// Steps made up by concealment (10 or 20 ms each).
    pub concealed: u64,
    /// Lost packets recovered from redundancy.
    pub fec_repaired: u64,
    /// Packets shortened to reduce the delay.
    pub accelerated: u64,
    /// Packets lengthened to raise the delay.
    pub expanded: u64,
    /// Audio given out.
    pub played: Duration,
    /// The part of it that was made up.
    pub concealed_time: Duration,
    /// Delay aimed at.
    pub target_delay: Duration,
    /// Delay of the next step compared with the fastest recent packet.
    pub current_delay: Duration,
    /// Interarrival jitter (RFC 3550, 6.4.1).
    pub jitter: Duration,
}

impl AudioReceiver {
    /// A receiver that gives PCM as `output`: 8 to 192 kHz, one or two channels. Opus is decoded straight to 8, 12, 16,
    /// 24 and 48 kHz; other rates are resampled.
    ///
    /// # Errors
    /// [`AudioError::UnsupportedFormat`], [`AudioError::DelayBounds`], or libopus is out of memory.
    pub fn new(codec: Codec, output: PcmFormat, bounds: DelayBounds) -> Result<Self, AudioError> {
        Ok(Self {
            codec,
            output,
            jitter: JitterBuffer::new(codec.clock_rate(), bounds.check()?),
            decoder: Decoder::new(codec, output)?,
            counters: Counters::default(),
        })
    }

    /// The format of the PCM given out.
    #[must_use]
    pub fn output(&self) -> PcmFormat {
        self.output
    }

    /// Takes an RTP payload with its extended sequence number and timestamp. Late, duplicate and malformed ones are
    /// dropped and counted; a sender whose clock jumps or starts anew is followed.
    pub fn insert(&mut self, now: Instant, index: u64, timestamp: u32, payload: &[u8]) {
        match inspect(self.codec, payload) {
            Some((ticks, traits)) => self.jitter.insert(now, index, timestamp, ticks, traits, payload),
            None => self.counters.refused += 1,
        }
    }

    /// Another source follows on this track (SSRC change).
    pub fn reset(&mut self) {
        self.jitter.reset();
    }

    /// When to call [`Self::pull`] next; `None` while nothing is to be played.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.jitter.poll_timeout()
    }

    /// Takes the step that is due at `now` and appends its audio to `out`: one packet's worth, so 20 ms as a rule, more
    /// or less after time-scaling. Gives [`PulledKind::Empty`] and appends nothing if none is due. After a delay call
    /// it until [`Self::poll_timeout`] is in the future.
    pub fn pull(&mut self, now: Instant, out: &mut Vec<i16>) -> Pulled {
        let start = out.len();
        let kind = match self.jitter.next(now) {
            Step::Nothing => PulledKind::Empty,
            Step::Decode(packet, _) if self.codec == Codec::Opus && packet.payload.len() <= 1 => {
                // Only a header: the sender pauses. libopus would repeat what it heard last.
                self.decoder.silence(packet.ticks, out);
                self.jitter.recycle(packet);
                PulledKind::Silence
            }
            Step::Decode(packet, fit) => {
                let outcome = self.decoder.decode(&packet.payload, packet.ticks, out);
                self.jitter.recycle(packet);
                match outcome {
                    Outcome::Decoded => self.fit(fit, out, start),
                    Outcome::Damaged => {
                        self.counters.damaged += 1;
                        PulledKind::Concealed
                    }
                }
            }
            Step::Repair { ticks } => {
                let next = self.jitter.front().map_or(&[][..], |packet| &packet.payload);
                self.decoder.repair(next, ticks, out);
                PulledKind::Fec
            }
            Step::Conceal { ticks } => {
                self.decoder.conceal(ticks, out);
                PulledKind::Concealed
            }
            Step::Silence { ticks } => {
                self.decoder.silence(ticks, out);
                PulledKind::Silence
            }
        };
        let duration = self.output.duration(out.len() - start);
        self.count(kind, duration);
        Pulled { kind, duration, position: self.jitter.position() }
    }

    /// Counters and delays.
    #[must_use]
    pub fn stats(&self) -> ReceiverStats {
        let jitter = self.jitter.stats();
        let Counters { refused, damaged, concealed, fec_repaired, accelerated, expanded, played, concealed_time } =
            self.counters;
        ReceiverStats {
            // The buffer has not seen those that were refused at the door.
            received: jitter.received + refused,
            late: jitter.late,
            duplicate: jitter.duplicate,
            flushed: jitter.flushed,
            malformed: refused + damaged,
            lost: jitter.lost,
            concealed,
            fec_repaired,
            accelerated,
            expanded,
            played,
            concealed_time,
            target_delay: jitter.target_delay,
            current_delay: jitter.current_delay,
            jitter: jitter.jitter,
        }
    }

    fn fit(&mut self, fit: Fit, out: &mut Vec<i16>, start: usize) -> PulledKind {
        let (changed, kind) = match fit {
            Fit::Exact => return PulledKind::Decoded,
            Fit::Shrink { most, haste } => {
                let joint = match haste {
                    Haste::SilenceOnly => Joint::Quiet,
                    Haste::Calm => GOOD_JOINT,
                    Haste::Hurried => FAIR_JOINT,
                };
                (shrink(out, start, self.output, most, joint), PulledKind::Accelerated)
            }
            Fit::Grow { most } => (grow(out, start, self.output, most, GOOD_JOINT), PulledKind::Expanded),
        };
        if changed == 0 {
            return PulledKind::Decoded;
        }
        let by = PcmFormat::mono(self.output.rate).duration(changed);
        self.jitter.rescaled(match kind {
            PulledKind::Expanded => Rescale::Longer(by),
            _ => Rescale::Shorter(by),
        });
        kind
    }

    fn count(&mut self, kind: PulledKind, duration: Duration) {
        self.counters.played += duration;
        match kind {
            PulledKind::Fec => self.counters.fec_repaired += 1,
            PulledKind::Concealed => {
                self.counters.concealed += 1;
                self.counters.concealed_time += duration;
            }
            PulledKind::Expanded => self.counters.expanded += 1,
            PulledKind::Accelerated => self.counters.accelerated += 1,
            PulledKind::Decoded | PulledKind::Silence | PulledKind::Empty => {}
        }
    }
}
