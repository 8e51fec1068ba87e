//! The frames path of one session: packets → jitter buffer → decoder → handler → encoder → paced packets.
//!
//! It runs on the media loop, in steps of about 20 ms that the jitter buffer and the sender ask for. A session in which
//! nobody speaks asks for none.

use std::time::{Duration, Instant};

use streamfleet_audio::{AudioError, AudioReceiver, AudioSender, Codec, DelayBounds, PulledKind, ReceiverStats};
use streamfleet_handler::{AudioFrame, CodecName, Input, LoopEnd, PcmFormat, Pushed};

use crate::feed::{Feed, Said, Taken, Voice};

/// The sender is given this much ahead of the packet that is due. More would delay what an interruption cannot take
/// back; less would starve the encoder when a handler's task is a few milliseconds late.
const AHEAD: Duration = Duration::from_millis(40);
/// A handler that left a packet unfinished is given this long to go on, then the packet is padded with silence.
const UNFINISHED: Duration = Duration::from_millis(60);

/// Whether the handler is still given audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listening {
    Yes,
    No,
}

pub(crate) struct Frames {
    receiver: AudioReceiver,
    sender: AudioSender,
    input: PcmFormat,
    /// Interleaved samples handed to the handler so far, for the timestamp of the next frame.
    position: u64,
    feed: Feed,
    dropped: u64,
}

impl Frames {
    pub(crate) fn new(codec: CodecName, input: PcmFormat, bounds: DelayBounds) -> Result<Self, AudioError> {
        // An audio track has an audio codec: the answer chose it.
        let codec = codec.audio().unwrap_or(Codec::Opus);
        Ok(Frames {
            receiver: AudioReceiver::new(codec, input, bounds)?,
            sender: AudioSender::new(codec)?.discontinuous(),
            input,
            position: 0,
            feed: Feed::new(AHEAD),
            dropped: 0,
        })
    }

    /// One packet of the client's audio.
    pub(crate) fn insert(&mut self, now: Instant, index: u64, timestamp: u32, payload: &[u8]) {
        self.receiver.insert(now, index, timestamp, payload);
    }

    /// The client reported this loss of our packets, 0..=1.
    pub(crate) fn report(&mut self, now: Instant, fraction_lost: f32) {
        self.sender.report(now, fraction_lost);
    }

    pub(crate) fn stats(&self) -> ReceiverStats {
        self.receiver.stats()
    }

    /// Everything that was queued for the client is forgotten.
    pub(crate) fn clear(&mut self) {
        self.sender.clear();
    }

    /// Plays out what is due into the handler.
    pub(crate) fn play(&mut self, now: Instant, link: &LoopEnd) {
        while self.receiver.poll_timeout().is_some_and(|at| at <= now) {
            let mut samples = link.buffer();
            samples.clear();
            let pulled = self.receiver.pull(now, &mut samples);
            if samples.is_empty() {
                link.recycle(samples);
                if pulled.kind == PulledKind::Empty {
                    break;
                }
                continue;
            }
            let timestamp = self.input.duration(usize::try_from(self.position).unwrap_or(usize::MAX));
            self.position += samples.len() as u64;
            let frame = AudioFrame { samples, format: self.input, timestamp };
            if !matches!(link.push(Input::Audio(frame)), Pushed::Queued) {
                self.dropped += 1;
            }
        }
    }

    /// Takes from the handler what the sender has room for, in order. Returns what is not audio.
    pub(crate) fn feed(&mut self, now: Instant, link: &LoopEnd) -> Option<Said> {
        self.feed.next(now, link, &mut self.sender)
    }

    /// The next packet that is due: its RTP timestamp and marker; the payload is appended to `payload`.
    pub(crate) fn poll(&mut self, now: Instant, payload: &mut Vec<u8>) -> Option<(u32, bool)> {
        if self.feed.fed_at().is_some_and(|at| now.saturating_duration_since(at) >= UNFINISHED) {
            self.feed.rested();
            self.sender.flush();
        }
        self.sender.poll(now, payload).map(|info| (info.timestamp, info.marker))
    }

    /// Audio of the handler's that has not been sent.
    pub(crate) fn queued(&self) -> Duration {
        self.sender.queued()
    }

    /// Frames and emits that were lost since the last call.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped) + self.feed.take_dropped()
    }

    /// When `play`, `feed` and `poll` are to be called again; `None` when nothing is under way.
    pub(crate) fn poll_timeout(&self, listening: Listening) -> Option<Instant> {
        let play = self.receiver.poll_timeout().filter(|_| listening == Listening::Yes);
        let unfinished = self.feed.fed_at().filter(|_| self.sender.queued() > Duration::ZERO).map(|at| at + UNFINISHED);
        [play, self.sender.poll_timeout(), unfinished].into_iter().flatten().min()
    }
}

impl Voice for AudioSender {
    fn queued(&self) -> Duration {
        AudioSender::queued(self)
    }

    fn push(&mut self, now: Instant, frame: &AudioFrame) -> Taken {
        match AudioSender::push(self, now, &frame.samples, frame.format) {
            Ok(()) => Taken::Yes,
            Err(_) => Taken::Lost,
        }
    }

    fn flush(&mut self) {
        AudioSender::flush(self);
    }

    fn clear(&mut self, _: Instant) {
        AudioSender::clear(self);
    }
}
