//! The audio of a call: PCM to paced packets and packets to PCM, without sockets or clocks.

use std::time::{Duration, Instant};

use streamfleet_audio::{
    AudioError, AudioReceiver, AudioSender, Codec, DelayBounds, PacketInfo, PcmFormat, ReceiverStats,
};

use crate::sequence::Sequence;

/// Audio waits here while the caller gives it faster than real time; more would only be latency.
const MAX_QUEUED: Duration = Duration::from_millis(100);

/// A piece of received audio, about 20 ms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioChunk {
    /// Interleaved samples.
    pub samples: Vec<i16>,
    /// Their format: [`crate::ClientOptions::playout`].
    pub format: PcmFormat,
    /// When the first of them is to be heard.
    pub at: Instant,
}

/// An RTP packet of the peer, as far as audio needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inbound<'a> {
    pub(crate) ssrc: u32,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) codec: Codec,
    pub(crate) payload: &'a [u8],
}

/// Both directions of the audio track.
pub(crate) struct AudioLine {
    output: PcmFormat,
    bounds: DelayBounds,
    sender: Option<(Codec, AudioSender)>,
    receiver: Option<Stream>,
    counters: Counters,
}

/// The stream that is being received: a new SSRC begins a new one.
struct Stream {
    ssrc: u32,
    codec: Codec,
    sequence: Sequence,
    first: u64,
    highest: u64,
    receiver: AudioReceiver,
}

/// What was counted since the call began, over all its streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Packets that the finished streams should have had; the running one adds its own.
    expected: u64,
    pub(crate) first_received: Option<Instant>,
}

impl AudioLine {
    pub(crate) fn new(output: PcmFormat, bounds: DelayBounds) -> Self {
        Self { output, bounds, sender: None, receiver: None, counters: Counters::default() }
    }

    /// Sends with this codec from now on. What is queued for another one is forgotten.
    pub(crate) fn send_with(&mut self, codec: Codec) -> Result<(), AudioError> {
        if self.sender.as_ref().is_none_or(|(current, _)| *current != codec) {
            self.sender = Some((codec, AudioSender::new(codec)?));
        }
        Ok(())
    }

    /// Whether more audio is welcome.
    pub(crate) fn has_room(&self) -> bool {
        self.sender.as_ref().is_some_and(|(_, sender)| sender.queued() < MAX_QUEUED)
    }

    pub(crate) fn push(&mut self, now: Instant, samples: &[i16], format: PcmFormat) -> Result<(), AudioError> {
        match &mut self.sender {
            Some((_, sender)) => sender.push(now, samples, format),
            None => Ok(()),
        }
    }

    pub(crate) fn flush(&mut self) {
        if let Some((_, sender)) = &mut self.sender {
            sender.flush();
        }
    }

    pub(crate) fn clear(&mut self) {
        if let Some((_, sender)) = &mut self.sender {
            sender.clear();
        }
    }

    /// What the peer's receiver reports say, 0..1.
    pub(crate) fn report(&mut self, now: Instant, fraction_lost: f32) {
        if let Some((_, sender)) = &mut self.sender {
            sender.report(now, fraction_lost);
        }
    }

    pub(crate) fn receive(&mut self, now: Instant, packet: Inbound<'_>) -> Result<(), AudioError> {
        self.counters.received += 1;
        self.counters.first_received.get_or_insert(now);
        let stream = match &mut self.receiver {
            Some(stream) if stream.ssrc == packet.ssrc && stream.codec == packet.codec => stream,
            other => {
                self.counters.expected += other.take().map_or(0, |old| old.expected());
                other.insert(Stream::new(&packet, self.output, self.bounds)?)
            }
        };
        let index = stream.sequence.extend(packet.sequence);
        stream.first = stream.first.min(index);
        stream.highest = stream.highest.max(index);
        stream.receiver.insert(now, index, packet.timestamp, packet.payload);
        Ok(())
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let packet = self.sender.as_ref().and_then(|(_, sender)| sender.poll_timeout());
        let playout = self.receiver.as_ref().and_then(|stream| stream.receiver.poll_timeout());
        packet.into_iter().chain(playout).min()
    }

    /// The next packet that is due.
    pub(crate) fn poll_packet(&mut self, now: Instant, payload: &mut Vec<u8>) -> Option<PacketInfo> {
        payload.clear();
        let info = self.sender.as_mut()?.1.poll(now, payload)?;
        self.counters.sent += 1;
        Some(info)
    }

    /// The next piece of audio that is due.
    pub(crate) fn poll_chunk(&mut self, now: Instant) -> Option<AudioChunk> {
        let receiver = &mut self.receiver.as_mut()?.receiver;
        let at = receiver.poll_timeout().filter(|at| *at <= now)?;
        let mut samples = Vec::new();
        receiver.pull(now, &mut samples);
        Some(AudioChunk { samples, format: self.output, at })
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// Packets that should have come and did not.
    pub(crate) fn lost(&self) -> u64 {
        let running = self.receiver.as_ref().map_or(0, Stream::expected);
        (self.counters.expected + running).saturating_sub(self.counters.received)
    }

    pub(crate) fn receiver_stats(&self) -> Option<ReceiverStats> {
        self.receiver.as_ref().map(|stream| stream.receiver.stats())
    }
}

impl Stream {
    fn new(packet: &Inbound<'_>, output: PcmFormat, bounds: DelayBounds) -> Result<Self, AudioError> {
        let mut sequence = Sequence::default();
        let first = sequence.extend(packet.sequence);
        let receiver = AudioReceiver::new(packet.codec, output, bounds)?;
        Ok(Self { ssrc: packet.ssrc, codec: packet.codec, sequence, first, highest: first, receiver })
    }

    fn expected(&self) -> u64 {
        self.highest - self.first + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamfleet_audio::analysis::tone_level;
    use streamfleet_audio::tone::Tone;

    const MONO: PcmFormat = PcmFormat { rate: 48_000, channels: 1 };

    /// Sends a second of tone from one line to another in virtual time, every `lose`th packet lost, and returns what
    /// was heard with both lines.
    fn transfer(lose: usize, ssrc: impl Fn(u64) -> u32) -> (Vec<i16>, AudioLine, AudioLine) {
        let mut now = Instant::now();
        let mut from = AudioLine::new(MONO, DelayBounds::default());
        let mut to = AudioLine::new(MONO, DelayBounds::default());
        from.send_with(Codec::Opus).unwrap();
        let (mut tone, mut piece) = (Tone::new(48_000, 440.0, -13.0), [0; 480]);
        let (mut heard, mut payload, mut given, mut sequence) = (Vec::new(), Vec::new(), 0, 65_500u16);
        for _ in 0..1_300 {
            while given < 48_000 && from.has_room() {
                tone.fill(&mut piece);
                from.push(now, &piece, MONO).unwrap();
                given += piece.len();
            }
            while let Some(info) = from.poll_packet(now, &mut payload) {
                sequence = sequence.wrapping_add(1);
                let sent = from.counters().sent;
                if lose == 0 || !sent.is_multiple_of(lose as u64) {
                    let inbound = Inbound {
                        ssrc: ssrc(sent),
                        sequence,
                        timestamp: info.timestamp,
                        codec: Codec::Opus,
                        payload: &payload,
                    };
                    to.receive(now, inbound).unwrap();
                }
            }
            while let Some(chunk) = to.poll_chunk(now) {
                heard.extend(chunk.samples);
            }
            now += Duration::from_millis(1);
        }
        (heard, from, to)
    }

    #[test]
    fn a_tone_arrives_in_real_time() {
        let (heard, from, to) = transfer(0, |_| 1);
        assert!((49..=51).contains(&from.counters().sent), "{:?}", from.counters());
        assert_eq!(to.counters().received, from.counters().sent);
        assert_eq!(to.lost(), 0);
        let middle = &heard[12_000..36_000];
        assert!(tone_level(middle, 48_000, 440.0) > -15.0, "{}", tone_level(middle, 48_000, 440.0));
    }

    #[test]
    fn losses_are_counted_over_the_wrap() {
        let (_, from, to) = transfer(5, |_| 1);
        let lost = from.counters().sent - to.counters().received;
        assert!(lost >= 9);
        // A loss at the very end shows only with the next packet.
        assert!(to.lost() == lost || to.lost() + 1 == lost, "{} {lost}", to.lost());
    }

    #[test]
    fn a_new_source_begins_a_new_stream() {
        let (heard, from, to) = transfer(0, |sent| if sent < 25 { 1 } else { 2 });
        assert_eq!(to.counters().received, from.counters().sent);
        assert_eq!(to.lost(), 0);
        assert!(tone_level(&heard[30_000..44_000], 48_000, 440.0) > -15.0);
    }

    #[test]
    fn nothing_to_send_costs_nothing() {
        let mut line = AudioLine::new(MONO, DelayBounds::default());
        assert_eq!(line.poll_timeout(), None);
        line.send_with(Codec::Pcmu).unwrap();
        assert_eq!(line.poll_timeout(), None);
        assert!(line.has_room());
    }
}
