//! What waits for the media loop, in the handler's order.

use std::collections::VecDeque;
use std::time::Duration;

use super::spare::Spare;
use super::{LinkConfig, LinkCounters};
use crate::{Emit, TrackKind};

#[derive(Default)]
pub(super) struct Outbox {
    queue: VecDeque<Emit>,
    /// How long the queued audio plays.
    audio: Duration,
    /// Queued items that are no media.
    controls: usize,
    /// How many items at the front do not wait for the audio behind them.
    urgent: usize,
    /// The text of the end, once it has been queued.
    end: Option<Option<String>>,
    emitted: u64,
    audio_cleared: Duration,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn audio(&self) -> Duration {
        self.audio
    }

    pub(super) fn controls(&self) -> usize {
        self.controls
    }

    pub(super) fn end(&self) -> Option<&Option<String>> {
        self.end.as_ref()
    }

    /// Whether the handler is to be held back.
    pub(super) fn is_over(&self, config: &LinkConfig) -> bool {
        self.audio > config.max_queued_audio
            || self.queue.len() > config.max_queued_emits
            || self.controls > config.max_queued_messages
    }

    pub(super) fn push(&mut self, emit: Emit) {
        if let Emit::EndStream(message) = &emit {
            self.end = Some(message.clone());
        }
        self.audio += audio_of(&emit);
        self.controls += usize::from(is_control(&emit));
        self.emitted += 1;
        self.queue.push_back(emit);
    }

    /// Queues an item ahead of everything but earlier ones of its kind.
    pub(super) fn push_urgent(&mut self, emit: Emit) {
        self.controls += usize::from(is_control(&emit));
        self.emitted += 1;
        self.queue.insert(self.urgent, emit);
        self.urgent += 1;
    }

    /// Forgets the sound, and leaves word for the loop in its place: what is queued from now on is new.
    pub(super) fn clear(&mut self, spare: &mut Spare) {
        self.clear_audio(spare);
        // One word is enough until the loop has heard it.
        if self.urgent == 0 || self.queue.get(self.urgent - 1) != Some(&Emit::Clear) {
            self.push_urgent(Emit::Clear);
        }
    }

    /// The next item that does not wait for audio.
    pub(super) fn pop_urgent(&mut self) -> Option<Emit> {
        if self.urgent == 0 { None } else { self.pop() }
    }

    pub(super) fn pop(&mut self) -> Option<Emit> {
        let emit = self.queue.pop_front()?;
        self.urgent = self.urgent.saturating_sub(1);
        self.audio -= audio_of(&emit);
        self.controls -= usize::from(is_control(&emit));
        Some(emit)
    }

    /// Forgets the sound and keeps the rest.
    pub(super) fn clear_audio(&mut self, spare: &mut Spare) {
        self.queue.retain_mut(|emit| match emit {
            Emit::Audio(frame) => {
                spare.put(std::mem::take(&mut frame.samples));
                false
            }
            Emit::Packet(packet) => packet.kind != TrackKind::Audio,
            _ => true,
        });
        self.audio_cleared += std::mem::take(&mut self.audio);
    }

    /// Forgets what waits and the memory it took; the end stays known.
    pub(super) fn drain(&mut self) {
        self.queue = VecDeque::new();
        self.audio = Duration::ZERO;
        self.controls = 0;
        self.urgent = 0;
    }

    pub(super) fn count(&self, counters: &mut LinkCounters) {
        counters.emitted = self.emitted;
        counters.audio_cleared = self.audio_cleared;
    }
}

/// How long an item plays, as far as it is sound.
fn audio_of(emit: &Emit) -> Duration {
    match emit {
        Emit::Audio(frame) => frame.duration(),
        Emit::Packet(packet) if packet.kind == TrackKind::Audio => packet.duration().unwrap_or_default(),
        _ => Duration::ZERO,
    }
}

fn is_control(emit: &Emit) -> bool {
    !matches!(emit, Emit::Audio(_) | Emit::Packet(_) | Emit::Clear)
}
