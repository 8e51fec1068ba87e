//! Frames on the wire: what comes is parsed into closed enums, what goes is written byte for byte as FastRTC's clients
//! know it.

mod client;
mod field;
mod server;
mod twilio;

pub use client::{ClientFrame, ClientReader, MAX_MESSAGE, Resume, Start};
pub use server::{ServerFrame, media};
pub use twilio::{
    CallResume, CallSid, CallStart, CallTrack, Digit, PARAMETER_RESUME, PARAMETER_SESSION, PARAMETER_TOKEN,
    TwilioFrame, TwilioMedia, TwilioReader, clear, mark, stream_media,
};

use streamfleet_session::wire::ServerMessage;
use streamfleet_session::{ParseError, SessionId};

use crate::audio::BadPayload;
use crate::close::{CloseCode, CloseFrame};
use crate::codec::UnknownName;

/// A frame that cannot be read. It ends its connection: a client that sends one is broken, and the next one will be no
/// better.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// More than [`MAX_MESSAGE`] bytes.
    #[error("a message must be at most {MAX_MESSAGE} bytes long")]
    TooLarge,
    /// No frame of RFC 6455: reserved bits or opcodes, a control frame in pieces, no mask.
    #[error("a frame must be one of RFC 6455")]
    Malformed,
    /// A text message that is none.
    #[error("a text message must be UTF-8")]
    NotUtf8,
    /// Not JSON.
    #[error("a text message must be JSON")]
    NotJson,
    /// JSON, and no object.
    #[error("a text message must be a JSON object")]
    NotAnObject,
    /// No `event`, or one that is no string.
    #[error("a message must have a string \"event\"")]
    NoEvent,
    /// A `start` without its id, or with one that is no string.
    #[error("\"start\" must have a string \"{key}\"")]
    NoId {
        /// The key it should be under.
        key: &'static str,
    },
    /// The id is none.
    #[error(transparent)]
    Id(#[from] ParseError),
    /// A word of `start` that names nothing.
    #[error("\"{key}\" {unknown}")]
    Unknown {
        /// The key it is under.
        key: &'static str,
        /// What may be there.
        unknown: UnknownName,
    },
    /// A second `start`.
    #[error("\"start\" may come only once")]
    StartedTwice,
    /// A call whose audio is not 8 kHz mu-law, mono.
    #[error("a call's audio must be audio/x-mulaw, 8000 Hz, 1 channel")]
    MediaFormat,
    /// `media` without a payload.
    #[error("\"media\" must have a string \"payload\"")]
    NoPayload,
    /// A payload that is no base64.
    #[error("a payload must be base64")]
    NotBase64,
    /// A payload that is not of the codec.
    #[error(transparent)]
    Payload(#[from] BadPayload),
}

impl BadFrame {
    /// The code that the connection is closed with.
    #[must_use]
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::TooLarge => CloseCode::TooBig,
            Self::Malformed => CloseCode::Protocol,
            Self::NotUtf8
            | Self::NotJson
            | Self::NotAnObject
            | Self::NoPayload
            | Self::NotBase64
            | Self::Payload(_) => CloseCode::InvalidPayload,
            Self::NoEvent
            | Self::NoId { .. }
            | Self::Id(_)
            | Self::Unknown { .. }
            | Self::StartedTwice
            | Self::MediaFormat => CloseCode::Policy,
        }
    }

    /// The frame that closes the connection.
    #[must_use]
    pub const fn close_frame(&self) -> CloseFrame {
        CloseFrame { code: self.close_code(), reason: "bad_input" }
    }

    /// The error frame that goes before it. It repeats nothing of the input.
    #[must_use]
    pub fn to_json(&self) -> String {
        ServerMessage::Error(self.to_string()).to_json()
    }
}

/// The id of a session in a `start`.
fn session_id(key: &'static str, text: Option<&str>) -> Result<SessionId, BadFrame> {
    Ok(text.ok_or(BadFrame::NoId { key })?.parse()?)
}

#[cfg(test)]
mod tests;
