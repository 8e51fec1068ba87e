//! What a handler says, in its order: audio as fast as it plays, everything else when the audio before it has.
//!
//! The same on every transport; what differs is where audio waits ([`Voice`]).

use std::time::{Duration, Instant};

use streamfleet_handler::{AudioFrame, Emit, LoopEnd, Message};
use streamfleet_session::wire::ServerMessage;

/// What is sent at a time.
const PACKET: Duration = Duration::from_millis(20);

/// The transport's own queue of audio.
pub(crate) trait Voice {
    /// Audio that was taken and has not been sent.
    fn queued(&self) -> Duration;
    /// Takes audio, if it can be played.
    fn push(&mut self, now: Instant, frame: &AudioFrame) -> Taken;
    /// Nothing follows for now: what is too short for a packet is to be sent as well.
    fn flush(&mut self);
    /// Forgets what has not been heard, as far as it can be taken back.
    fn clear(&mut self, now: Instant);
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    Yes,
    /// It cannot be played, and is lost.
    Lost,
}

/// What the handler said besides audio.
#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    /// An output, a message, or a track to close: to be acted on now, all audio before it has been sent.
    Now(Emit),
    /// The stream ends; everything before has been sent.
    End(Option<String>),
}

/// A handler's words as the text that its client gets.
pub(crate) fn words(message: Message) -> String {
    match message {
        Message::Log(text) => ServerMessage::Log(text).to_json(),
        Message::Warning(text) => ServerMessage::Warning(text).to_json(),
        Message::Error(text) => ServerMessage::Error(text).to_json(),
        Message::SendInput => ServerMessage::SendInput.to_json(),
        Message::StopWord => ServerMessage::Stopword.to_json(),
        Message::Text(text) => text,
    }
}

/// Takes from a handler what its transport has room for.
#[derive(Debug)]
pub(crate) struct Feed {
    /// The transport is given this much ahead of what is due.
    ahead: Duration,
    /// What comes after the audio that is queued now.
    behind: Option<Emit>,
    ended: bool,
    fed_at: Option<Instant>,
    dropped: u64,
}

impl Feed {
    pub(crate) fn new(ahead: Duration) -> Self {
        Self { ahead, behind: None, ended: false, fed_at: None, dropped: 0 }
    }

    /// Takes what there is room for, in order. Returns what is not audio.
    pub(crate) fn next(&mut self, now: Instant, link: &LoopEnd, voice: &mut impl Voice) -> Option<Said> {
        loop {
            // What does not wait for audio is not held up by what does.
            match link.pop_urgent() {
                Some(Emit::Clear) => {
                    voice.clear(now);
                    continue;
                }
                Some(urgent) => return Some(Said::Now(urgent)),
                None => {}
            }
            if let Some(emit) = self.behind.take() {
                // Ends come after the last sample before them; all else need not tear a sentence apart.
                let waits = if matches!(emit, Emit::EndStream(_)) {
                    voice.flush();
                    voice.queued() > Duration::ZERO
                } else {
                    voice.queued() >= PACKET
                };
                if waits {
                    self.behind = Some(emit);
                    return None;
                }
                return Some(match emit {
                    Emit::EndStream(message) => {
                        self.ended = true;
                        Said::End(message)
                    }
                    other => Said::Now(other),
                });
            }
            if self.ended || voice.queued() >= self.ahead {
                return None;
            }
            match link.pop()? {
                Emit::Audio(frame) => {
                    match voice.push(now, &frame) {
                        Taken::Yes => self.fed_at = Some(now),
                        Taken::Lost => self.dropped += 1,
                    }
                    link.recycle(frame.samples);
                }
                // A handler of frames that emits packets: there is no place for them here.
                Emit::Packet(_) => self.dropped += 1,
                Emit::Clear => voice.clear(now),
                // The link has taken it apart.
                Emit::All(_) | Emit::Nothing => {}
                other => self.behind = Some(other),
            }
        }
    }

    /// The next thing in the handler's order, where nothing is played any more.
    pub(crate) fn leave(&mut self, link: &LoopEnd) -> Option<Emit> {
        self.behind.take().or_else(|| link.pop())
    }

    /// When audio was taken last, unless that was [long ago](Self::rested).
    pub(crate) fn fed_at(&self) -> Option<Instant> {
        self.fed_at
    }

    /// What the handler left unfinished has been dealt with.
    pub(crate) fn rested(&mut self) {
        self.fed_at = None;
    }

    /// Emits that were lost since the last call.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
