//! An Ogg Opus file as the packets in it (RFC 7845).

use std::io::Cursor;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use ogg::{OggReadError, PacketReader};

use crate::CodecName;

/// The largest packet, in bytes: with RTP, SRTP, UDP and IPv6 headers it stays within the 1 280 bytes that every path
/// carries (RFC 8200 5). Opus at 64 kbit/s makes 160 bytes every 20 ms.
const MAX_PACKET: usize = 1_200;

/// The packets of one logical stream, end to end in one buffer; at least one.
#[derive(Debug)]
pub(super) struct OpusPackets {
    payload: Bytes,
    packets: Vec<(Range<u32>, Duration)>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum BadOgg {
    #[error("is not an Ogg file that can be played: {0}")]
    Container(#[from] OggReadError),
    #[error("is an Ogg file, but not of Opus with one or two channels")]
    NotOpus,
    #[error("has several streams; one can be played")]
    SeveralStreams,
    #[error("has an Opus packet, number {0}, that breaks RFC 6716")]
    BadPacket(usize),
    #[error("has a packet of {0} bytes; {MAX_PACKET} fit into one RTP packet")]
    LargePacket(usize),
    #[error("has no audio in it")]
    Empty,
}

impl OpusPackets {
    pub(super) fn parse(file: Vec<u8>) -> Result<Self, BadOgg> {
        let mut reader = PacketReader::new(Cursor::new(file));
        let head = reader.read_packet()?.ok_or(BadOgg::NotOpus)?;
        if !is_head(&head.data) {
            return Err(BadOgg::NotOpus);
        }
        let tags = reader.read_packet()?.ok_or(BadOgg::NotOpus)?;
        if !tags.data.starts_with(b"OpusTags") {
            return Err(BadOgg::NotOpus);
        }
        let mut payload = Vec::new();
        let mut packets = Vec::new();
        while let Some(packet) = reader.read_packet()? {
            if packet.stream_serial() != head.stream_serial() {
                return Err(BadOgg::SeveralStreams);
            }
            // Some writers close a stream with an empty packet that only carries the end.
            if packet.data.is_empty() && packet.last_in_stream() {
                break;
            }
            let duration =
                CodecName::Opus.payload_duration(&packet.data).ok_or(BadOgg::BadPacket(packets.len() + 1))?;
            if packet.data.len() > MAX_PACKET {
                return Err(BadOgg::LargePacket(packet.data.len()));
            }
            // The file is bounded to far less than 4 GiB.
            let start = payload.len() as u32;
            payload.extend_from_slice(&packet.data);
            packets.push((start..payload.len() as u32, duration));
        }
        if packets.is_empty() {
            return Err(BadOgg::Empty);
        }
        Ok(Self { payload: payload.into(), packets })
    }

    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }

    /// The packet with this number, below [`len`](OpusPackets::len), sharing the buffer.
    pub(super) fn get(&self, number: usize) -> (Bytes, Duration) {
        let (range, duration) = &self.packets[number];
        (self.payload.slice(range.start as usize..range.end as usize), *duration)
    }
}

/// RFC 7845 5.1: a version this reader may read, one or two channels, and channel mapping family 0, which alone puts
/// a plain Opus packet into each Ogg packet.
fn is_head(packet: &[u8]) -> bool {
    packet.len() >= 19
        && packet.starts_with(b"OpusHead")
        && packet[8] & 0xf0 == 0
        && matches!(packet[9], 1 | 2)
        && packet[18] == 0
}
