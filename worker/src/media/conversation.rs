//! The handler's side of one session: what it hears and what it says, whichever way it runs.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use bytes::Bytes;
use streamfleet_audio::{AudioError, DelayBounds, ReceiverStats};
use streamfleet_handler::{
    Emit, EncodedPacket, Input, LoopEnd, Media as HandlerMedia, Packet, PacketHandler, PacketSink, Pushed, TrackKind,
};

use super::counters::{Counters, Drop};
use super::frames::{Frames, Listening};
use super::io::Io;
use super::outlet::Outlet;
use super::pace::Pace;
use super::peer::{MessageSent, Peer};
use super::tracks::Media;
use crate::feed::Said;

/// Packets and messages taken from a handler in one turn, so that one that always has more shares the loop.
const MAX_EMITS: usize = 64;

/// The handler's end that the loop talks to.
pub(crate) enum Endpoint {
    /// Runs here, on the loop.
    Packets(Box<dyn PacketHandler>),
    /// Runs in a task of its own.
    Task { link: LoopEnd, media: HandlerMedia },
}

/// A handler, and what stands between it and its client's tracks.
pub(crate) struct Conversation {
    endpoint: Endpoint,
    frames: Option<Box<Frames>>,
    pace: Pace,
    /// Packets wait in the link because more would be too fast.
    held: bool,
    /// The index of the next packet that the frames path sends.
    next_index: u64,
}

/// A handler on the loop panicked; it must not be called again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Panicked;

/// How a turn of a handler's task ended.
pub(crate) enum Turn {
    /// Nothing is left to be done now.
    Rest,
    /// More may be done than one turn has room for.
    More,
    /// This is to be acted on; then the turn goes on.
    Said(Said),
}

/// What may still be done in one turn.
pub(crate) struct Allotment(usize);

impl Allotment {
    pub(crate) fn new() -> Self {
        Allotment(MAX_EMITS)
    }

    fn take(&mut self, io: &Io<'_>) -> Option<()> {
        self.0 = self.0.checked_sub(1).filter(|_| !io.out.is_full())?;
        Some(())
    }
}

impl Conversation {
    pub(crate) fn new(endpoint: Endpoint, now: Instant) -> Self {
        Conversation { endpoint, frames: None, pace: Pace::new(now), held: false, next_index: 0 }
    }

    /// The client is connected and these are its tracks.
    ///
    /// # Errors
    /// There is no codec for a track.
    pub(crate) fn connected(&mut self, media: &Media, bounds: DelayBounds) -> Result<(), AudioError> {
        if let Endpoint::Task { media: HandlerMedia::Frames { input, .. }, .. } = &self.endpoint
            && let Some(codec) = media.codec(TrackKind::Audio)
        {
            self.frames = Some(Box::new(Frames::new(codec, *input, bounds)?));
        }
        Ok(())
    }

    /// One packet of the client's.
    ///
    /// # Errors
    /// The handler panicked over it. One session's fault must not end the loop that it shares with the others.
    pub(crate) fn packet(&mut self, packet: &Packet<'_>, sink: &mut Sink<'_>) -> Result<(), Panicked> {
        match (&mut self.endpoint, &mut self.frames) {
            (Endpoint::Packets(handler), _) => {
                return catch_unwind(AssertUnwindSafe(|| handler.packet(packet, sink))).map_err(|_| Panicked);
            }
            (Endpoint::Task { .. }, Some(frames)) if packet.kind == TrackKind::Audio => {
                frames.insert(sink.now, packet.index, packet.timestamp, packet.payload);
            }
            (Endpoint::Task { link, media: HandlerMedia::Packets }, _) => {
                let pushed = link.push(Input::Packet(EncodedPacket {
                    kind: packet.kind,
                    codec: packet.codec,
                    index: packet.index,
                    timestamp: packet.timestamp,
                    marker: packet.marker,
                    payload: Bytes::copy_from_slice(packet.payload),
                }));
                if pushed != Pushed::Queued {
                    sink.counters.dropped(Drop::HandlerAudio);
                }
            }
            // A handler of audio frames has no use for pictures.
            (Endpoint::Task { .. }, _) => sink.counters.dropped(Drop::UnwantedTrack),
        }
        Ok(())
    }

    /// A message of the client's.
    ///
    /// # Errors
    /// The handler panicked over it.
    pub(crate) fn message(&mut self, text: String, sink: &mut Sink<'_>) -> Result<(), Panicked> {
        match &mut self.endpoint {
            Endpoint::Packets(handler) => {
                return catch_unwind(AssertUnwindSafe(|| handler.message(&text, sink))).map_err(|_| Panicked);
            }
            Endpoint::Task { link, .. } => {
                if link.push(Input::Message(text)) != Pushed::Queued {
                    sink.counters.dropped(Drop::HandlerMessages);
                }
            }
        }
        Ok(())
    }

    /// The client reported this loss of our audio, 0..=1.
    pub(crate) fn report(&mut self, now: Instant, fraction_lost: f32) {
        if let Some(frames) = &mut self.frames {
            frames.report(now, fraction_lost);
        }
    }

    /// Everything that was queued for the client is forgotten.
    pub(crate) fn clear(&mut self) {
        if let Some(frames) = &mut self.frames {
            frames.clear();
        }
    }

    /// The figures of the jitter buffer, where there is one.
    pub(crate) fn playout(&self) -> Option<ReceiverStats> {
        self.frames.as_ref().map(|frames| frames.stats())
    }

    /// Moves audio between network and handler, and tells what the handler said. To be called until it says otherwise than
    /// [`Turn::Said`].
    pub(crate) fn turn(
        &mut self,
        media: &mut Media,
        to: SocketAddr,
        listening: Listening,
        left: &mut Allotment,
        io: &mut Io<'_>,
    ) -> Turn {
        self.held = false;
        let Endpoint::Task { link, media: kind } = &self.endpoint else { return Turn::Rest };
        match (&mut self.frames, kind) {
            (Some(frames), _) => loop {
                if left.take(io).is_none() {
                    return Turn::More;
                }
                if listening == Listening::Yes {
                    frames.play(io.now, link);
                }
                let said = frames.feed(io.now, link);
                let moved = send_due(frames, &mut self.next_index, media, to, io);
                io.counters.dropped_many(Drop::HandlerAudio, frames.take_dropped());
                match said {
                    Some(said) => return Turn::Said(said),
                    // There is room again: for more audio, or for what waited behind it.
                    None if moved => {}
                    None => return Turn::Rest,
                }
            },
            (None, HandlerMedia::Packets) => loop {
                if !self.pace.is_ready(io.now) {
                    self.held = true;
                    return Turn::Rest;
                }
                if left.take(io).is_none() {
                    return Turn::More;
                }
                match link.pop() {
                    Some(Emit::Packet(packet)) => {
                        self.pace.sent(io.now);
                        if !media.send(&packet.as_packet(), to, io.now, io.out) {
                            io.counters.dropped(Drop::HandlerPackets);
                        }
                    }
                    Some(Emit::Audio(_) | Emit::Clear | Emit::All(_) | Emit::Nothing) => {}
                    Some(Emit::EndStream(message)) => return Turn::Said(Said::End(message)),
                    Some(other) => return Turn::Said(Said::Now(other)),
                    None => return Turn::Rest,
                }
            },
            // The client negotiated no audio: nothing to play, but the handler may speak.
            (None, HandlerMedia::Frames { .. }) => loop {
                if left.take(io).is_none() {
                    return Turn::More;
                }
                match link.pop() {
                    Some(Emit::Audio(_) | Emit::Packet(_) | Emit::Clear | Emit::All(_) | Emit::Nothing) => {}
                    Some(Emit::EndStream(message)) => return Turn::Said(Said::End(message)),
                    Some(other) => return Turn::Said(Said::Now(other)),
                    None => return Turn::Rest,
                }
            },
        }
    }

    /// When [`Self::turn`] is to be called again if the handler says nothing new; `None` when nothing is under way.
    pub(crate) fn poll_timeout(&self, listening: Listening) -> Option<Instant> {
        let frames = self.frames.as_ref().and_then(|frames| frames.poll_timeout(listening));
        let held = self.held.then(|| self.pace.ready_at());
        frames.into_iter().chain(held).min()
    }

    /// Whether packets of the client's are played out to the handler in steps of time.
    pub(crate) fn plays_out(&self) -> bool {
        self.frames.is_some()
    }
}

/// Sends the packets of the frames path that are due. Whether audio has left the queue: as packets or, being silence,
/// without.
fn send_due(frames: &mut Frames, next_index: &mut u64, media: &mut Media, to: SocketAddr, io: &mut Io<'_>) -> bool {
    let before = frames.queued();
    loop {
        io.payload.clear();
        let Some((timestamp, marker)) = frames.poll(io.now, io.payload) else { return frames.queued() < before };
        let Some(codec) = media.codec(TrackKind::Audio) else { continue };
        let index = *next_index;
        *next_index += 1;
        let packet = Packet { kind: TrackKind::Audio, codec, index, timestamp, marker, payload: io.payload };
        media.send(&packet, to, io.now, io.out);
    }
}

/// Where a handler on the loop puts its answers.
pub(crate) struct Sink<'a> {
    pub(crate) media: &'a mut Media,
    pub(crate) peer: &'a mut Peer,
    /// Something was done beside RTP.
    pub(crate) touched: &'a mut bool,
    pub(crate) to: SocketAddr,
    pub(crate) now: Instant,
    pub(crate) out: &'a mut Outlet,
    pub(crate) counters: &'a Counters,
}

impl PacketSink for Sink<'_> {
    fn send(&mut self, packet: &Packet<'_>) {
        if !self.media.send(packet, self.to, self.now, self.out) {
            self.counters.dropped(Drop::HandlerPackets);
        }
    }

    fn message(&mut self, text: &str) {
        *self.touched = true;
        if self.peer.send_text(self.now, text.to_owned()) == MessageSent::Dropped {
            self.counters.dropped(Drop::ClientMessages);
        }
    }
}
