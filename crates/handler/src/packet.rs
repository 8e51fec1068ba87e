//! Handlers of the encoded path that run on the media loop itself.

use bytes::Bytes;

use crate::{CodecName, EncodedPacket, TrackKind};

/// One RTP packet's content, borrowed from the loop's receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The track's kind.
    pub kind: TrackKind,
    /// What the payload is encoded with.
    pub codec: CodecName,
    /// Extended sequence number: the RTP sequence number without its wraps.
    pub index: u64,
    /// RTP timestamp in units of [`CodecName::clock_rate`]; wraps.
    pub timestamp: u32,
    /// RTP marker: first packet after silence (audio), last packet of a picture (video).
    pub marker: bool,
    /// RTP payload without padding.
    pub payload: &'a [u8],
}

impl Packet<'_> {
    /// The same packet with a payload of its own; allocates.
    #[must_use]
    pub fn to_encoded(&self) -> EncodedPacket {
        EncodedPacket {
            kind: self.kind,
            codec: self.codec,
            index: self.index,
            timestamp: self.timestamp,
            marker: self.marker,
            payload: Bytes::copy_from_slice(self.payload),
        }
    }
}

/// A handler that runs **on the media loop**, between the opening of one packet and the sealing of the next. It must
/// return at once: no blocking, no waiting, and better no allocation; every session of the loop waits for it.
pub trait PacketHandler: Send + Sync + 'static {
    /// A fresh handler for one session, with this one's configuration.
    fn copy(&self) -> Box<dyn PacketHandler>;

    /// The same handler for transports that carry no packets but sound (WebSockets, telephones), where there is one.
    fn frames(&self) -> Option<Box<dyn crate::Handler>> {
        None
    }

    /// One packet from the client; answers go to `out`.
    fn packet(&mut self, packet: &Packet<'_>, out: &mut dyn PacketSink);

    /// Text from the client's data channel; answers go to `out`. Ignored unless a handler says otherwise.
    fn message(&mut self, text: &str, out: &mut dyn PacketSink) {
        let _ = (text, out);
    }
}

/// Where a [`PacketHandler`] puts its answers.
pub trait PacketSink {
    /// Sends a packet on the session's track of that kind. The sink writes its own sequence numbers in the order of
    /// [`Packet::index`]; a packet that cannot be sent is dropped and counted.
    fn send(&mut self, packet: &Packet<'_>);

    /// Sends text over the data channel as it is.
    fn message(&mut self, text: &str);
}
