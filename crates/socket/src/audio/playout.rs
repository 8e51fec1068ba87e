//! From the handler to the client.

use std::time::{Duration, Instant};

use streamfleet_audio::resample::Resampler;
use streamfleet_audio::{AudioError, PcmFormat};

use super::FRAME;
use super::block::{Blocks, check_rate};
use super::encoder::Encoder;
use crate::codec::WireCodec;

/// How far the client may be ahead: what it has been sent and cannot have played yet. It bridges a stall of the network
/// or of our own scheduling of that length, and is all that an interrupted client still plays.
pub const LEAD: Duration = Duration::from_millis(200);

/// Audio in one message at most, where so much is due at once: a client that speaks in messages of 40 ms is echoed in such,
/// and each message costs the system calls of one.
pub const MESSAGE: Duration = Duration::from_millis(60);

/// A handler that has left a frame unfinished has paused when it says nothing for so long: one that works frame by frame is
/// rarely late by more, and a frame that is closed too early is a gap in the middle of its sound.
const PAUSED: Duration = Duration::from_millis(60);

/// Audio queued at most. Handlers are held back by their own, much shorter queue; this is for those that give a whole
/// reply in one frame. As on the other transports.
pub const MAX_QUEUED: Duration = Duration::from_secs(60);

/// A queue that has grown beyond this many samples is given back when it is empty: 0.4 s at 24 kHz.
const KEPT: usize = 9_600;

/// Why PCM was not taken. Nothing of it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The end was announced before.
    #[error("the stream has ended")]
    Finished,
    /// A rate or channel count outside of what is handled, a ragged frame, a full queue, or no memory.
    #[error(transparent)]
    Audio(#[from] AudioError),
}

/// Queues the handler's PCM and gives it out as payloads of 20 ms, never more than [`LEAD`] ahead of real time.
///
/// Memory: the audio that waits, and 32 kB of encoder state for Opus. Nothing is encoded before it is due, so what is
/// cleared has cost nothing, and a client may come back with another codec.
#[derive(Debug)]
pub struct Playout {
    /// The handler's, in Hz.
    handler_rate: u32,
    /// On the wire, in Hz.
    rate: u32,
    encoder: Encoder,
    source: Option<Source>,
    /// Mono at `rate`; what is before `head` is sent.
    queue: Vec<i16>,
    head: usize,
    blocks: Blocks,
    spurt: Spurt,
    /// The last push.
    pushed_at: Option<Instant>,
    /// When the client has played what it was sent, if it plays at once.
    played_until: Option<Instant>,
    finished_at: Option<Instant>,
    failures: u64,
}

/// How what the handler gives becomes mono at the rate on the wire.
#[derive(Debug)]
struct Source {
    rate: u32,
    resampler: Option<Resampler>,
    /// Mixed down, not yet converted.
    mono: Vec<i16>,
}

/// Where the end of the audio pushed last is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spurt {
    /// More is expected: an incomplete frame, resampler and encoder may hold some of it.
    Open,
    /// In the queue or beyond; an incomplete frame goes as it is.
    Closed,
}

impl Playout {
    /// For a handler that says `rate` Hz, in mu-law until a socket asks for something else.
    ///
    /// # Errors
    /// The rate is outside of 8 to 192 kHz.
    pub fn new(rate: u32) -> Result<Self, AudioError> {
        let rate = check_rate(rate)?;
        Ok(Self {
            handler_rate: rate,
            rate,
            encoder: Encoder::MuLaw,
            source: None,
            queue: Vec::new(),
            head: 0,
            blocks: Blocks::new(rate),
            spurt: Spurt::Closed,
            pushed_at: None,
            played_until: None,
            finished_at: None,
            failures: 0,
        })
    }

    /// The handler's rate in Hz.
    #[must_use]
    pub fn handler_rate(&self) -> u32 {
        self.handler_rate
    }

    /// A socket that speaks `codec` is there, and nothing is on its way to it.
    pub(super) fn attach(&mut self, now: Instant, codec: WireCodec) -> Result<(), AudioError> {
        self.encoder = Encoder::new(codec, now)?;
        let rate = codec.rate(self.handler_rate);
        if rate != self.rate {
            // Only a telephone has a rate of its own, and a call does not come back as anything else.
            self.clear();
            self.source = None;
            self.rate = rate;
        }
        self.blocks = Blocks::new(rate);
        self.pushed_at = self.pushed_at.map(|_| now);
        self.played_until = None;
        Ok(())
    }

    /// Queues interleaved PCM: any rate from 8 to 192 kHz, up to eight channels, which are mixed to one.
    ///
    /// # Errors
    /// [`PushError`]; nothing was taken.
    pub fn push(&mut self, now: Instant, samples: &[i16], format: PcmFormat) -> Result<(), PushError> {
        if self.finished_at.is_some() {
            return Err(PushError::Finished);
        }
        check_rate(format.rate)?;
        if !(1..=PcmFormat::MAX_CHANNELS).contains(&format.channels) {
            return Err(AudioError::UnsupportedFormat(format).into());
        }
        let channels = usize::from(format.channels);
        if !samples.len().is_multiple_of(channels) {
            return Err(AudioError::RaggedFrame { samples: samples.len(), channels: format.channels }.into());
        }
        let queued = self.queued();
        if queued + format.duration(samples.len()) > MAX_QUEUED {
            return Err(AudioError::QueueFull { queued }.into());
        }
        if !samples.is_empty() {
            let source = self.source.get_or_insert_with(|| Source::new(format.rate));
            source.prepare(format.rate, self.rate, &mut self.queue);
            source.take(samples, channels, &mut self.queue);
            self.spurt = Spurt::Open;
            self.pushed_at = Some(now);
        }
        Ok(())
    }

    /// Audio that waits to be sent.
    #[must_use]
    pub fn queued(&self) -> Duration {
        self.duration(self.waiting())
    }

    /// How far the client is ahead of real time by what it was sent.
    #[must_use]
    pub fn lead(&self, now: Instant) -> Duration {
        self.played_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Interruption: what waits is forgotten. Gives how long it would have played.
    pub fn clear(&mut self) -> Duration {
        let forgotten = self.queued();
        self.head = self.queue.len();
        self.spurt = Spurt::Closed;
        self.encoder.clear();
        if let Some(source) = &mut self.source {
            source.resampler = None;
        }
        self.compact();
        forgotten
    }

    /// The client has forgotten what it was sent and had not played.
    pub fn client_cleared(&mut self, now: Instant) {
        self.played_until = self.played_until.map(|until| until.min(now));
    }

    /// Nothing more will be pushed: what waits is sent to the last sample.
    pub fn finish(&mut self, now: Instant) {
        self.finished_at.get_or_insert(now);
    }

    /// After [`Self::finish`]: when the client has played everything, once everything is sent.
    #[must_use]
    pub fn played_out_at(&self) -> Option<Instant> {
        let finished_at = self.finished_at?;
        match self.poll_timeout() {
            None => Some(self.played_until.map_or(finished_at, |until| until.max(finished_at))),
            Some(_) => None,
        }
    }

    /// When [`Self::poll`] has a payload; `None` until something is pushed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let pushed_at = self.pushed_at?;
        let (waiting, block) = (self.waiting(), self.blocks.length());
        let closed = self.spurt == Spurt::Closed || self.finished_at.is_some();
        let is_ready = self.encoder.has_packet() || waiting >= block || (closed && (waiting > 0 || self.holds_back()));
        if is_ready {
            let length = self.duration(block).max(FRAME);
            let due = self.played_until.and_then(|until| (until + length).checked_sub(LEAD));
            Some(due.map_or(pushed_at, |due| due.max(pushed_at)))
        } else if waiting > 0 || self.holds_back() {
            // The handler has paused within a frame. The rest is sent when the client would run dry, not before: what
            // comes meanwhile makes the frame whole.
            let dry = self.played_until.and_then(|until| until.checked_sub(FRAME));
            let paused = pushed_at + PAUSED;
            Some(dry.map_or(paused, |dry| dry.max(paused)))
        } else {
            None
        }
    }

    /// Puts the payload that is due into `payload`, whose old content is replaced, and says how long it plays.
    pub fn poll(&mut self, now: Instant, payload: &mut Vec<u8>) -> Option<Duration> {
        payload.clear();
        self.append(now, payload)
    }

    /// As [`poll`](Self::poll), and what else is due at the same time, up to [`MESSAGE`].
    pub fn poll_message(&mut self, now: Instant, payload: &mut Vec<u8>) -> Option<Duration> {
        let mut length = self.poll(now, payload)?;
        while length + FRAME <= MESSAGE
            && self.encoder.is_joinable()
            && let Some(more) = self.append(now, payload)
        {
            length += more;
        }
        Some(length)
    }

    fn append(&mut self, now: Instant, payload: &mut Vec<u8>) -> Option<Duration> {
        while self.poll_timeout().is_some_and(|due| due <= now) {
            if let Some(length) = self.next(payload) {
                let from = self.played_until.map_or(now, |until| until.max(now));
                self.played_until = Some(from + length);
                return Some(length);
            }
        }
        None
    }

    /// Frames not sent because libopus refused: always 0 unless memory is corrupt.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// One step: a payload, or something else that brings its turn nearer.
    fn next(&mut self, payload: &mut Vec<u8>) -> Option<Duration> {
        if self.encoder.has_packet() {
            return self.encoder.packet(payload);
        }
        let block = self.blocks.length();
        if self.waiting() < block {
            self.close_spurt();
        }
        let length = self.waiting().min(block);
        if length == 0 {
            self.encoder.flush();
            return None;
        }
        let encoded = self.encoder.encode(&self.queue[self.head..][..length], self.rate, payload);
        self.head += length;
        if length == block {
            self.blocks.advance();
        }
        self.compact();
        if self.head == self.queue.len() && self.spurt == Spurt::Closed {
            self.encoder.flush();
        }
        encoded.unwrap_or_else(|_| {
            self.failures += 1;
            None
        })
    }

    /// The end of what was pushed comes out of the resampler.
    fn close_spurt(&mut self) {
        self.spurt = Spurt::Closed;
        if let Some(source) = &mut self.source {
            source.flush(&mut self.queue);
        }
    }

    /// Whether something is held that is in no frame yet.
    fn holds_back(&self) -> bool {
        let resamples = self.source.as_ref().is_some_and(|source| source.resampler.is_some());
        self.spurt == Spurt::Open && (resamples || self.encoder.looks_ahead())
    }

    fn waiting(&self) -> usize {
        self.queue.len() - self.head
    }

    fn duration(&self, samples: usize) -> Duration {
        PcmFormat::mono(self.rate).duration(samples)
    }

    /// Moves the queue to the front of its memory now and then, and gives memory back after a long reply.
    fn compact(&mut self) {
        let waiting = self.waiting();
        if self.head >= waiting {
            self.queue.copy_within(self.head.., 0);
            self.queue.truncate(waiting);
            self.head = 0;
            if waiting == 0 && self.queue.capacity() > KEPT {
                self.queue = Vec::new();
            }
        }
    }
}

impl Source {
    const fn new(rate: u32) -> Self {
        Self { rate, resampler: None, mono: Vec::new() }
    }

    /// What comes next has `rate` Hz and is to become `to` Hz.
    fn prepare(&mut self, rate: u32, to: u32, queue: &mut Vec<i16>) {
        if self.rate != rate {
            self.flush(queue);
            self.rate = rate;
        }
        if rate != to && self.resampler.is_none() {
            self.resampler = Some(Resampler::new(rate, to, 1));
        }
    }

    /// Mixes down, converts and appends.
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

    /// Pushes the end of what was taken out of the resampler.
    fn flush(&mut self, queue: &mut Vec<i16>) {
        if let Some(mut resampler) = self.resampler.take() {
            self.mono.clear();
            self.mono.resize(resampler.delay(), 0);
            resampler.process(&self.mono, queue);
        }
    }
}

#[cfg(test)]
#[path = "playout_tests.rs"]
mod tests;
