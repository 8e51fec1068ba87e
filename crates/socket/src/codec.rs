//! What audio looks like on a socket.

use std::str::FromStr;

/// The codec of a session on a socket, the same in both directions. Mono.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WireCodec {
    /// G.711 mu-law, one byte a sample, at the handler's own rates: 48 kHz in and 24 kHz out unless it says otherwise.
    /// FastRTC's only one.
    #[default]
    MuLaw,
    /// Signed 16-bit samples, little-endian, at the handler's own rates.
    Pcm16,
    /// One Opus packet (RFC 6716, section 3) a frame, without a container.
    Opus,
    /// G.711 mu-law at 8 kHz whatever the handler's rates: what telephones speak.
    Telephone,
}

/// A word in `start` that names nothing we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be one of {expected}")]
pub struct UnknownName {
    /// The names there are, in words.
    pub expected: &'static str,
}

impl WireCodec {
    /// The rate on the wire in Hz, for a handler that works at `handler` Hz. Opus is decoded to any rate.
    #[must_use]
    pub const fn rate(self, handler: u32) -> u32 {
        match self {
            Self::MuLaw | Self::Pcm16 | Self::Opus => handler,
            Self::Telephone => 8_000,
        }
    }

    /// Its name in `start` and in the answer to it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MuLaw | Self::Telephone => "mulaw",
            Self::Pcm16 => "pcm16",
            Self::Opus => "opus",
        }
    }
}

impl FromStr for WireCodec {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "mulaw" => Ok(Self::MuLaw),
            "pcm16" => Ok(Self::Pcm16),
            "opus" => Ok(Self::Opus),
            _ => Err(UnknownName { expected: "mulaw, pcm16, opus" }),
        }
    }
}

/// How the server sends media. A client may send either at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Framing {
    /// `{"event":"media","media":{"payload":base64}}`, as FastRTC.
    #[default]
    Json,
    /// One binary message a frame, nothing but the payload.
    Binary,
}

impl FromStr for Framing {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "binary" => Ok(Self::Binary),
            _ => Err(UnknownName { expected: "json, binary" }),
        }
    }
}
