//! What waits for the handler: one order, a bound for each kind.

use std::collections::VecDeque;

use super::spare::Spare;
use super::{LinkConfig, LinkCounters, MAX_TEXT, Pushed};
use crate::{Input, TrackKind};

/// Inputs of three kinds, each in a lane with its own bound; the serial number keeps the order across lanes.
#[derive(Default)]
pub(super) struct Inbox {
    audio: VecDeque<(u64, Input)>,
    video: VecDeque<(u64, Input)>,
    messages: VecDeque<(u64, Input)>,
    serial: u64,
    media_dropped: u64,
    messages_in: u64,
    messages_refused: u64,
    media_in: u64,
}

impl Inbox {
    pub(super) fn len(&self) -> usize {
        self.audio.len() + self.video.len() + self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn push(&mut self, input: Input, config: &LinkConfig, spare: &mut Spare) -> Pushed {
        let (lane, bound) = match &input {
            Input::Message(_) | Input::Args(_) | Input::Trigger(_) | Input::Dtmf(_) => {
                self.messages_in += 1;
                let too_long = matches!(&input, Input::Message(text) if text.len() > MAX_TEXT);
                if self.messages.len() >= config.max_queued_messages || too_long {
                    self.messages_refused += 1;
                    return Pushed::Refused;
                }
                (&mut self.messages, config.max_queued_messages)
            }
            Input::Packet(packet) if packet.kind == TrackKind::Video => {
                self.media_in += 1;
                (&mut self.video, config.max_queued_video)
            }
            Input::Audio(_) | Input::Packet(_) => {
                self.media_in += 1;
                (&mut self.audio, config.max_queued_frames)
            }
        };
        let mut pushed = Pushed::Queued;
        // A bound of zero would refuse a handler all media: one item always fits.
        while lane.len() >= bound.max(1) {
            if let Some((_, Input::Audio(frame))) = lane.pop_front() {
                spare.put(frame.samples);
            }
            self.media_dropped += 1;
            pushed = Pushed::DroppedOldest;
        }
        lane.push_back((self.serial, input));
        self.serial += 1;
        pushed
    }

    pub(super) fn pop(&mut self) -> Option<Input> {
        let oldest = [&mut self.audio, &mut self.video, &mut self.messages]
            .into_iter()
            .filter(|lane| !lane.is_empty())
            .min_by_key(|lane| lane.front().map(|(serial, _)| *serial))?;
        oldest.pop_front().map(|(_, input)| input)
    }

    /// Forgets what waits and the memory it took.
    pub(super) fn drain(&mut self) {
        self.audio = VecDeque::new();
        self.video = VecDeque::new();
        self.messages = VecDeque::new();
    }

    pub(super) fn count(&self, counters: &mut LinkCounters) {
        counters.media_in = self.media_in;
        counters.media_dropped = self.media_dropped;
        counters.messages_in = self.messages_in;
        counters.messages_refused = self.messages_refused;
    }
}
