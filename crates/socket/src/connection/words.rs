//! The two protocols as a connection sees them.

use std::mem;

use streamfleet_session::SessionId;

use super::{Opening, Transmit};
use crate::codec::{Framing, WireCodec};
use crate::protocol::{
    self, BadFrame, CallTrack, ClientFrame, ClientReader, Digit, TwilioFrame, TwilioMedia, TwilioReader,
};

/// Which protocol is spoken, and what `start` has settled.
#[derive(Debug)]
pub(super) enum Words {
    Client { reader: ClientReader, codec: WireCodec, framing: Framing },
    Telephone { reader: TwilioReader, stream: Option<SessionId> },
}

/// What was said, in either.
#[derive(Debug)]
pub(super) enum Said<'a> {
    Start(Opening),
    Media(&'a [u8]),
    Ping,
    Digit(Digit),
    Mark(String),
    Stop,
    Nothing,
}

impl Words {
    pub(super) fn client() -> Self {
        Self::Client { reader: ClientReader::default(), codec: WireCodec::default(), framing: Framing::default() }
    }

    pub(super) fn telephone() -> Self {
        Self::Telephone { reader: TwilioReader::default(), stream: None }
    }

    pub(super) fn text(&mut self, text: &str) -> Result<Said<'_>, BadFrame> {
        Ok(match self {
            Self::Client { reader, codec, framing } => match reader.text(text)? {
                ClientFrame::Start(start) => {
                    (*codec, *framing) = (start.codec, start.framing);
                    Said::Start(Opening::Client(start))
                }
                ClientFrame::Media(payload) => Said::Media(payload),
                ClientFrame::Stop => Said::Stop,
                ClientFrame::Ping => Said::Ping,
                ClientFrame::Ignored => Said::Nothing,
            },
            Self::Telephone { reader, stream } => match reader.text(text)? {
                TwilioFrame::Start(start) => {
                    *stream = Some(start.stream_sid.clone());
                    Said::Start(Opening::Call(start))
                }
                TwilioFrame::Media(TwilioMedia { track: CallTrack::Inbound, payload, .. }) => Said::Media(payload),
                TwilioFrame::Mark(name) => Said::Mark(name),
                TwilioFrame::Dtmf(digit) => Said::Digit(digit),
                TwilioFrame::Stop => Said::Stop,
                // What the caller hears is nothing that the caller says.
                TwilioFrame::Media(_) | TwilioFrame::Connected | TwilioFrame::Ignored => Said::Nothing,
            },
        })
    }

    /// The payload of a binary message. Twilio sends none; an empty payload says nothing.
    pub(super) fn binary<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], BadFrame> {
        match self {
            Self::Client { reader, .. } => match reader.binary(bytes)? {
                ClientFrame::Media(payload) => Ok(payload),
                _ => Ok(&[]),
            },
            Self::Telephone { .. } => Ok(&[]),
        }
    }

    pub(super) fn codec(&self) -> WireCodec {
        match self {
            Self::Client { codec, .. } => *codec,
            Self::Telephone { .. } => WireCodec::Telephone,
        }
    }

    /// The frame of a payload. A binary one takes the buffer.
    pub(super) fn media(&self, payload: &mut Vec<u8>) -> Transmit {
        match self {
            Self::Client { framing: Framing::Json, .. } => Transmit::Text(protocol::media(payload)),
            Self::Client { framing: Framing::Binary, .. } => Transmit::Binary(mem::take(payload)),
            Self::Telephone { stream: Some(stream), .. } => Transmit::Text(protocol::stream_media(stream, payload)),
            // Without `start` there is no session that could have said anything.
            Self::Telephone { stream: None, .. } => Transmit::Text(protocol::media(payload)),
        }
    }

    pub(super) fn clear(&self) -> Option<String> {
        self.stream().map(protocol::clear)
    }

    pub(super) fn mark(&self, name: &str) -> Option<String> {
        self.stream().map(|stream| protocol::mark(stream, name))
    }

    pub(super) fn has_marks(&self) -> bool {
        self.stream().is_some()
    }

    /// Whether the other side reads messages besides media. Twilio ends a stream that has others.
    pub(super) fn has_messages(&self) -> bool {
        matches!(self, Self::Client { .. })
    }

    fn stream(&self) -> Option<&SessionId> {
        match self {
            Self::Client { .. } => None,
            Self::Telephone { stream, .. } => stream.as_ref(),
        }
    }
}
