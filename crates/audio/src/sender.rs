//! One outbound track: queue, resampler, encoder, pacing.

use std::time::{Duration, Instant};

use crate::encoder::Encoder;
use crate::gate::{Gate, Verdict};
use crate::policy::{EncoderMode, LossHistory, LossReport, decide};
use crate::resample::Resampler;
use crate::{AudioError, Codec, PcmFormat};

/// Length of every packet.
const PACKET: Duration = Duration::from_millis(20);
/// Packets per second.
const PACKETS_PER_SECOND: u32 = 50;
/// Audio queued at most. Handlers are held back by their own, much shorter queue; this is for those that give a whole
/// reply in one frame. One minute at 24 kHz has 2.9 MB, which only such a session takes, and only until it is played.
const MAX_QUEUED: Duration = Duration::from_secs(60);
/// A queue that has grown beyond this many samples is given back when it is empty: 0.4 s at 24 kHz.
const KEPT: usize = 9_600;
/// How late audio may be and still continue the talk spurt. A receiver's jitter buffer bridges that much; after more it
/// is told of the pause by the timestamp and the marker.
const CONTINUED: Duration = Duration::from_millis(60);

/// One outbound audio track. Nothing is encoded, and no memory held for it, before the first [`Self::push`].
///
/// Memory: 32 kB of encoder state (Opus), 0.5 kB of resampler if one is needed, and the audio that waits.
#[derive(Debug)]
pub struct AudioSender {
    codec: Codec,
    engine: Option<Engine>,
    history: LossHistory,
    origin: Option<Instant>,
    /// Mono at the encoder's rate; what is before `head` is sent.
    queue: Vec<i16>,
    head: usize,
    /// When the next packet is due, if it is complete by then.
    due: Option<Instant>,
    /// RTP timestamp of the next packet if it is not late; `None` before the first.
    timestamp: Option<u32>,
    spurt: Spurt,
    gate: Gate,
    tail: Tail,
    failures: u64,
}

/// Whether the next packet begins a talk spurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spurt {
    Begins,
    Continues,
}

#[derive(Debug)]
struct Engine {
    encoder: Encoder,
    /// Samples per packet.
    block: usize,
    input: Input,
}

/// How input becomes mono at the encoder's rate.
#[derive(Debug)]
struct Input {
    rate: u32,
    resampler: Option<Resampler>,
    /// Mixed down, not yet resampled.
    mono: Vec<i16>,
}

/// Where the end of the audio pushed last is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// In an incomplete packet, the resampler or the encoder.
    Held,
    /// In the packets queued or sent.
    Out,
}

/// A packet to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketInfo {
    /// On the codec's RTP clock, from 0 on; add the stream's random offset (RFC 3550, 5.1).
    pub timestamp: u32,
    /// RTP marker: the first packet of a talk spurt (RFC 3551, 4.1).
    pub marker: bool,
    /// Length of its audio.
    pub duration: Duration,
}

impl AudioSender {
    /// A sender that encodes with `codec`.
    ///
    /// # Errors
    /// None at present: the encoder is made when its rate is known, by [`Self::push`].
    pub fn new(codec: Codec) -> Result<Self, AudioError> {
        Ok(Self {
            codec,
            engine: None,
            history: LossHistory::new(48_000),
            origin: None,
            queue: Vec::new(),
            head: 0,
            due: None,
            timestamp: None,
            spurt: Spurt::Begins,
            gate: Gate::Open,
            tail: Tail::Out,
            failures: 0,
        })
    }

    /// The same sender, which does not encode silence: after 200 ms of it nothing is sent but, for Opus, a packet of one
    /// octet every 400 ms, until there is sound again (discontinuous transmission: RFC 6716, 2.1.9; RFC 3551, 4.1).
    #[must_use]
    pub fn discontinuous(mut self) -> Self {
        self.gate = Gate::Watching { silent: 0 };
        self
    }

    /// Queues interleaved PCM: any rate from 8 to 192 kHz, up to eight channels, which are mixed to one. Opus encodes at
    /// the lowest of its rates that holds the input's.
    ///
    /// # Errors
    /// [`AudioError::UnsupportedFormat`], [`AudioError::RaggedFrame`], [`AudioError::QueueFull`] (one minute may wait;
    /// nothing was taken), or libopus is out of memory.
    pub fn push(&mut self, now: Instant, samples: &[i16], format: PcmFormat) -> Result<(), AudioError> {
        let format = format.check(PcmFormat::MAX_CHANNELS)?;
        let channels = usize::from(format.channels);
        if !samples.len().is_multiple_of(channels) {
            return Err(AudioError::RaggedFrame { samples: samples.len(), channels: format.channels });
        }
        let queued = self.queued();
        if queued + format.duration(samples.len()) > MAX_QUEUED {
            return Err(AudioError::QueueFull { queued });
        }
        self.origin.get_or_insert(now);
        self.prepare(format.rate)?;
        let Some(Engine { input, .. }) = &mut self.engine else { return Ok(()) };
        input.take(samples, channels, &mut self.queue);
        self.due.get_or_insert(now);
        self.tail = Tail::Held;
        Ok(())
    }

    /// Audio that waits to be sent.
    #[must_use]
    pub fn queued(&self) -> Duration {
        let rate = self.engine.as_ref().map_or(1, |engine| engine.encoder.rate());
        PcmFormat::mono(rate).duration(self.queue.len() - self.head)
    }

    /// No more audio comes for now: the rest is filled up with silence to a whole packet, and the look-ahead of encoder
    /// and resampler is pushed out, so that the last sound is heard in full.
    pub fn flush(&mut self) {
        let Some(Engine { encoder, block, input }) = &mut self.engine else { return };
        if self.tail == Tail::Out {
            return;
        }
        self.tail = Tail::Out;
        if let Some(resampler) = &mut input.resampler {
            input.mono.clear();
            input.mono.resize(resampler.delay(), 0);
            resampler.process(&input.mono, &mut self.queue);
            input.resampler = None;
        }
        let length = self.queue.len() - self.head + encoder.lookahead();
        self.queue.resize(self.head + length.next_multiple_of(*block), 0);
    }

    /// Interruption: what is queued is forgotten. In the middle of a sound, one packet of silence takes its place: the
    /// encoder's look-ahead has some of the sound left, which would be heard before the next reply, and a receiver that gets
    /// nothing more at all would make the sound up for a while.
    pub fn clear(&mut self) {
        let is_cut = self.spurt == Spurt::Continues && (self.head < self.queue.len() || self.tail == Tail::Held);
        self.head = self.queue.len();
        self.tail = Tail::Out;
        self.compact();
        let Some(Engine { input, block, .. }) = &mut self.engine else { return };
        input.resampler = None;
        if is_cut {
            self.queue.resize(*block, 0);
        }
    }

    /// When to call [`Self::poll`]; `None` while less than one packet is queued.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let block = self.engine.as_ref()?.block;
        if self.queue.len() - self.head < block { None } else { self.due }
    }

    /// Puts the packet that is due into `payload`, whose old content is lost in any case. Silence that is not sent goes by
    /// without one.
    pub fn poll(&mut self, now: Instant, payload: &mut Vec<u8>) -> Option<PacketInfo> {
        while let Some(due) = self.poll_timeout().filter(|&due| due <= now) {
            let info = self.step(now, due, payload);
            if info.is_some() {
                return info;
            }
        }
        None
    }

    /// Takes the block that was due at `due` from the queue.
    fn step(&mut self, now: Instant, due: Instant, payload: &mut Vec<u8>) -> Option<PacketInfo> {
        let Engine { encoder, block, .. } = self.engine.as_mut()?;
        let samples = &self.queue[self.head..][..*block];
        let verdict = self.gate.judge(samples);
        let encoded = match verdict {
            Verdict::Encode => encoder.encode(samples, payload).map(Some),
            Verdict::Pause => Ok(encoder.pause().map(|toc| {
                payload.clear();
                payload.push(toc);
            })),
            Verdict::Skip => Ok(None),
        };
        self.head += *block;
        self.compact();

        let clock = self.codec.clock_rate();
        let late = now.saturating_duration_since(due);
        let (timestamp, at, spurt) = match self.timestamp {
            None => (0, now, Spurt::Begins),
            Some(next) if late > CONTINUED => {
                let pause = late.as_micros() * u128::from(clock) / 1_000_000;
                (next.wrapping_add(pause as u32), now, Spurt::Begins)
            }
            Some(next) => (next, due, self.spurt),
        };
        self.due = Some(at + PACKET);
        self.timestamp = Some(timestamp.wrapping_add(clock / PACKETS_PER_SECOND));
        self.spurt = if verdict == Verdict::Encode { Spurt::Continues } else { Spurt::Begins };
        let marker = verdict == Verdict::Encode && spurt == Spurt::Begins;
        self.failures += u64::from(encoded.is_err());
        encoded.ok().flatten().map(|()| PacketInfo { timestamp, marker, duration: PACKET })
    }

    /// The receiver has reported its loss (RTCP, 0.0 to 1.0): the encoder may change its mode.
    pub fn report(&mut self, now: Instant, fraction_lost: f32) {
        let at = now.saturating_duration_since(*self.origin.get_or_insert(now));
        let rate = self.engine.as_ref().map_or(48_000, |engine| engine.encoder.rate());
        self.history = decide(self.history, LossReport { at, fraction_lost }, rate);
        if let Some(engine) = &mut self.engine
            && engine.encoder.set_mode(self.history.mode()).is_err()
        {
            self.failures += 1;
        }
    }

    /// The encoder's mode; meaningless for G.711.
    #[must_use]
    pub fn mode(&self) -> EncoderMode {
        self.history.mode()
    }

    /// Packets not sent, and mode changes not made, because libopus refused: always 0 unless memory is corrupt.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Makes encoder and resampler fit for input at `rate`. A new encoder is made only between talk spurts.
    fn prepare(&mut self, rate: u32) -> Result<(), AudioError> {
        let fits = match &self.engine {
            Some(engine) if engine.input.rate == rate => true,
            // The samples in the queue belong to the old encoder.
            Some(_) => self.head < self.queue.len(),
            None => false,
        };
        if !fits {
            let history = self.history;
            let encoder = Encoder::new(self.codec, rate, |rate| EncoderMode {
                bitrate: EncoderMode::clean(rate).bitrate,
                ..history.mode()
            })?;
            let block = (encoder.rate() / PACKETS_PER_SECOND) as usize;
            self.engine = Some(Engine { encoder, block, input: Input { rate, resampler: None, mono: Vec::new() } });
        }
        let Some(Engine { encoder, input, .. }) = &mut self.engine else { return Ok(()) };
        input.rate = rate;
        let to = encoder.rate();
        let usable = input.resampler.as_ref().is_some_and(|resampler| resampler.from() == rate && resampler.to() == to);
        if !usable {
            input.resampler = (rate != to).then(|| Resampler::new(rate, to, 1));
        }
        Ok(())
    }

    /// Moves the queue to the front of its memory now and then, and gives memory back after a long reply.
    fn compact(&mut self) {
        if self.head == self.queue.len() {
            self.queue.clear();
            self.head = 0;
            if self.queue.capacity() > KEPT {
                self.queue = Vec::new();
            }
        } else if self.head >= self.queue.len() / 2 {
            self.queue.copy_within(self.head.., 0);
            self.queue.truncate(self.queue.len() - self.head);
            self.head = 0;
        }
    }
}

impl Input {
    /// Mixes down, resamples and appends.
    fn take(&mut self, samples: &[i16], channels: usize, queue: &mut Vec<i16>) {
        let mix = |frame: &[i16]| (frame.iter().map(|&s| i32::from(s)).sum::<i32>() / channels as i32) as i16;
        match (&mut self.resampler, channels) {
            (None, 1) => queue.extend_from_slice(samples),
            (None, _) => queue.extend(samples.chunks_exact(channels).map(mix)),
            (Some(resampler), 1) => resampler.process(samples, queue),
            (Some(resampler), _) => {
                self.mono.clear();
                self.mono.extend(samples.chunks_exact(channels).map(mix));
                resampler.process(&self.mono, queue);
            }
        }
    }
}
