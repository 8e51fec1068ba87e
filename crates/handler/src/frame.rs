//! What travels between a session's tracks and its handler.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use streamfleet_audio::{Codec, PcmFormat};

/// A stretch of decoded audio; usually 20 ms, any length from a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioFrame {
    /// Interleaved samples in native endianness, full scale ±32 767.
    pub samples: Vec<i16>,
    /// What the samples mean.
    pub format: PcmFormat,
    /// When the first sample plays, counted from the first sample of the track. Frames that a handler emits play in
    /// the order of emission whatever they say here.
    pub timestamp: Duration,
}

impl AudioFrame {
    /// How long the frame plays.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.format.duration(self.samples.len())
    }
}

/// The kind of a media track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrackKind {
    /// Sound.
    Audio,
    /// Pictures.
    Video,
}

/// The codecs a session can negotiate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodecName {
    /// Opus, RFC 6716; RTP by RFC 7587.
    Opus,
    /// G.711 mu-law, RFC 3551 4.5.14.
    Pcmu,
    /// G.711 A-law, RFC 3551 4.5.14.
    Pcma,
    /// VP8, RFC 6386; RTP by RFC 7741.
    Vp8,
    /// H.264; RTP by RFC 6184.
    H264,
}

impl CodecName {
    /// What decodes and encodes it on the frames path; `None` for video, which has none.
    #[must_use]
    pub const fn audio(self) -> Option<Codec> {
        match self {
            Self::Opus => Some(Codec::Opus),
            Self::Pcmu => Some(Codec::Pcmu),
            Self::Pcma => Some(Codec::Pcma),
            Self::Vp8 | Self::H264 => None,
        }
    }

    /// The RTP clock in Hz.
    #[must_use]
    pub const fn clock_rate(self) -> u32 {
        match self.audio() {
            Some(codec) => codec.clock_rate(),
            None => 90_000,
        }
    }

    /// Which kind of track it can travel on.
    #[must_use]
    pub const fn kind(self) -> TrackKind {
        match self.audio() {
            Some(_) => TrackKind::Audio,
            None => TrackKind::Video,
        }
    }

    /// The encoding name as SDP writes it (RFC 8866 6.6).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opus => Codec::Opus.name(),
            Self::Pcmu => Codec::Pcmu.name(),
            Self::Pcma => Codec::Pcma.name(),
            Self::Vp8 => "VP8",
            Self::H264 => "H264",
        }
    }

    /// How long one RTP payload plays; `None` for video, for an empty payload, and for an Opus payload that breaks
    /// RFC 6716 3.4.
    #[must_use]
    pub fn payload_duration(self, payload: &[u8]) -> Option<Duration> {
        self.audio()?.payload_duration(payload)
    }
}

/// One RTP packet's content, as it was or will be on the wire; owned, for the handler's task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPacket {
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
    pub payload: Bytes,
}

impl EncodedPacket {
    /// The same packet, borrowed.
    #[must_use]
    pub fn as_packet(&self) -> crate::Packet<'_> {
        crate::Packet {
            kind: self.kind,
            codec: self.codec,
            index: self.index,
            timestamp: self.timestamp,
            marker: self.marker,
            payload: &self.payload,
        }
    }

    /// How long the payload plays; `None` where that cannot be told from it.
    #[must_use]
    pub fn duration(&self) -> Option<Duration> {
        self.codec.payload_duration(&self.payload)
    }
}

/// What a handler is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Decoded audio, when [`Media::Frames`] was asked for.
    Audio(AudioFrame),
    /// A packet as it came, when [`Media::Packets`] was asked for.
    Packet(EncodedPacket),
    /// Text the client sent beside its media.
    Message(String),
    /// FastRTC's `set_input`: arguments that the client, or whoever acts for it, hands to the handler.
    Args(Vec<Value>),
    /// A reply is asked for now, without waiting for a pause; with the arguments for it when they came along. Only for
    /// handlers that say so ([`Handler::replies`](crate::Handler::replies)).
    Trigger(Option<Vec<Value>>),
    /// A key that was pressed on a telephone: `0`-`9`, `*`, `#`, `A`-`D`.
    Dtmf(char),
}

/// What a handler gives back.
#[derive(Clone, Debug, PartialEq)]
pub enum Emit {
    /// Audio to play to the client.
    Audio(AudioFrame),
    /// A packet to send to the client as it is.
    Packet(EncodedPacket),
    /// FastRTC's `AdditionalOutputs`: the one value, or an array of several.
    Output(Value),
    /// Something to say on the data channel.
    Message(Message),
    /// End the session once everything emitted before has been played; the client gets the text, or
    /// `Stream closed`.
    EndStream(Option<String>),
    /// Forget the audio that was emitted before and that the client has not heard yet, as far as the transport can take
    /// it back; everything else keeps its place. As [`Session::clear`](crate::Session::clear), which does not have to wait
    /// for `emit` to be called.
    Clear,
    /// End the track with this `mid` and leave the rest of the session.
    CloseTrack(String),
    /// All of these, in this order, before anything that is emitted later: FastRTC's tuple, as in `(audio, EndStream)`.
    All(Vec<Emit>),
    /// Nothing for now. `emit` is called again after the next input, or after a pause that grows while nothing comes.
    /// Prefer to wait inside `emit`: that costs nothing.
    Nothing,
}

/// What a handler can say on the data channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// `{"type":"log","data":…}`
    Log(String),
    /// `{"type":"warning","message":…}`
    Warning(String),
    /// `{"type":"error","message":…}`; the session goes on.
    Error(String),
    /// The text as it is, without an envelope.
    Text(String),
    /// `{"type":"send_input","data":[]}`: the handler waits for arguments ([`Input::Args`]).
    SendInput,
    /// `{"type":"stopword","data":""}`: the words that open a turn were heard.
    StopWord,
}

/// Which of the two media paths a handler works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// Decoded PCM. The session decodes, conceals losses, resamples and encodes.
    Frames {
        /// The format that `receive` is given.
        input: PcmFormat,
        /// The format that the handler means to emit; every frame still says its own.
        output: PcmFormat,
    },
    /// RTP payloads untouched, audio and video: no codec time is spent.
    Packets,
}

impl Default for Media {
    /// FastRTC's defaults: 48 000 Hz mono in, 24 000 Hz mono out.
    fn default() -> Self {
        Self::Frames { input: PcmFormat::mono(48_000), output: PcmFormat::mono(24_000) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs() {
        fn check(codec: CodecName, name: &str, clock_rate: u32, kind: TrackKind) {
            assert_eq!((codec.as_str(), codec.clock_rate(), codec.kind()), (name, clock_rate, kind));
        }
        check(CodecName::Opus, "opus", 48_000, TrackKind::Audio);
        check(CodecName::Pcmu, "PCMU", 8_000, TrackKind::Audio);
        check(CodecName::Pcma, "PCMA", 8_000, TrackKind::Audio);
        check(CodecName::Vp8, "VP8", 90_000, TrackKind::Video);
        check(CodecName::H264, "H264", 90_000, TrackKind::Video);
    }

    #[test]
    fn payload_durations() {
        fn check(codec: CodecName, payload: &[u8], expected: Option<Duration>) {
            assert_eq!(codec.payload_duration(payload), expected, "{codec:?}");
        }
        check(CodecName::Opus, &[0x78, 0, 0], Some(Duration::from_millis(20)));
        check(CodecName::Opus, &[], None);
        check(CodecName::Pcmu, &[0xff; 160], Some(Duration::from_millis(20)));
        check(CodecName::Pcma, &[0xd5; 80], Some(Duration::from_millis(10)));
        check(CodecName::Vp8, &[0; 100], None);
    }
}
