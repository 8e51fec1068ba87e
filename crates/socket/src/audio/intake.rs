//! From the client to the handler.

use std::time::{Duration, Instant};

use streamfleet_audio::{AudioError, PcmFormat};

use super::block::{Blocks, check_rate};
use super::credit::Credit;
use super::decoder::{BadPayload, Decoder};
use crate::codec::WireCodec;

/// Audio that a client may send at once, ahead of real time: what a mobile network delivers in one piece after an
/// outage that TCP has survived. What is beyond it is dropped, the newest first, as the handler has the older already.
/// In the handler's samples this is also the most that waits to be polled.
pub const BURST: Duration = Duration::from_secs(5);

/// A buffer that has grown beyond this many samples is given back when it is empty: 0.2 s at 48 kHz.
const KEPT: usize = 9_600;

/// Cuts payloads of any length into frames of 20 ms at the handler's rate. It has no timer: silence costs nothing.
#[derive(Debug)]
pub struct Intake {
    rate: u32,
    decoder: Decoder,
    /// What is before `head` was handed out.
    samples: Vec<i16>,
    head: usize,
    blocks: Blocks,
    is_finished: bool,
    credit: Credit,
    dropped: Duration,
}

impl Intake {
    /// For a handler that hears `rate` Hz, from mu-law until a socket announces something else.
    ///
    /// # Errors
    /// The rate is outside of 8 to 192 kHz.
    pub fn new(rate: u32) -> Result<Self, AudioError> {
        let rate = check_rate(rate)?;
        Ok(Self {
            rate,
            decoder: Decoder::new(WireCodec::MuLaw, rate)?,
            samples: Vec::new(),
            head: 0,
            blocks: Blocks::new(rate),
            is_finished: false,
            credit: Credit::new(BURST),
            dropped: Duration::ZERO,
        })
    }

    /// A socket that speaks `codec`: its stream begins anew. The credit stays, or a client that attaches over and over
    /// could send as much as it likes.
    pub(super) fn attach(&mut self, codec: WireCodec) -> Result<(), AudioError> {
        self.decoder = Decoder::new(codec, self.rate)?;
        Ok(())
    }

    /// Takes a payload.
    ///
    /// # Errors
    /// It is not of the codec; nothing of it was taken.
    pub fn take(&mut self, now: Instant, payload: &[u8]) -> Result<(), BadPayload> {
        let length = self.decoder.length(payload)?;
        let clock = self.decoder.clock();
        let allowed = self.credit.affords(now, clock).min(self.room(clock));
        let granted = if length <= allowed {
            length
        } else if self.decoder.is_divisible() {
            allowed
        } else {
            0
        };
        self.credit.spend(granted, clock);
        self.dropped = self.dropped.saturating_add(PcmFormat::mono(clock).duration(length - granted));
        if granted > 0 { self.decoder.decode(payload, granted, &mut self.samples) } else { Ok(()) }
    }

    /// No more comes: the rest is handed out too, shorter than 20 ms.
    pub fn finish(&mut self) {
        self.is_finished = true;
    }

    /// The next frame: mono, 20 ms at the handler's rate.
    pub fn poll(&mut self) -> Option<Vec<i16>> {
        let waiting = self.samples.len() - self.head;
        let length = match self.blocks.length() {
            length if length <= waiting => length,
            _ if self.is_finished && waiting > 0 => waiting,
            _ => return None,
        };
        self.blocks.advance();
        let frame = self.samples[self.head..][..length].to_vec();
        self.head += length;
        self.compact();
        Some(frame)
    }

    /// The handler's rate in Hz.
    #[must_use]
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Audio that was dropped because the client sent more than real time, or nobody polled.
    #[must_use]
    pub fn dropped(&self) -> Duration {
        self.dropped
    }

    /// Samples of the decoder's clock that may still wait.
    fn room(&self, clock: u32) -> usize {
        let waiting = PcmFormat::mono(self.rate).duration(self.samples.len() - self.head);
        let room = BURST.saturating_sub(waiting).as_nanos() * u128::from(clock) / 1_000_000_000;
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// Moves what waits to the front of its memory now and then, and gives memory back after a burst.
    fn compact(&mut self) {
        let waiting = self.samples.len() - self.head;
        if self.head >= waiting {
            self.samples.copy_within(self.head.., 0);
            self.samples.truncate(waiting);
            self.head = 0;
            if waiting == 0 && self.samples.capacity() > KEPT {
                self.samples = Vec::new();
            }
        }
    }
}

#[cfg(test)]
#[path = "intake_tests.rs"]
mod tests;
