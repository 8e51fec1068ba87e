//! Frames of RFC 6455 for whoever passes them on: what a client says first, read without losing a byte of it ([`Peek`]), and
//! where in a stream of frames a stream of bytes is ([`Trace`]).
//!
//! What is absent: extensions (none is negotiated), fragments of our own, masks of our own: the client's pass through.

mod peek;
mod trace;

pub use peek::{Message, Peek};
pub use trace::Trace;

use crate::close::CloseCode;
use crate::connection::Transmit;
use crate::protocol::BadFrame;

/// The longest payload of a control frame (RFC 6455, 5.5).
const MAX_CONTROL: u64 = 125;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Kind {
    const fn opcode(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// What goes before a frame's payload (RFC 6455, 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    kind: Kind,
    is_last: bool,
    mask: Option<[u8; 4]>,
    /// Bytes of payload.
    payload: u64,
    /// Its own bytes.
    size: usize,
}

impl Head {
    /// The longest there is: two bytes, eight of length, four of mask.
    const MAX: usize = 14;

    /// Reads one from the front; `None` if there is more to it than these bytes.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, BadFrame> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let kind = match first & 0x0f {
            0 => Kind::Continuation,
            1 => Kind::Text,
            2 => Kind::Binary,
            8 => Kind::Close,
            9 => Kind::Ping,
            10 => Kind::Pong,
            _ => return Err(BadFrame::Malformed),
        };
        if first & 0x70 != 0 {
            return Err(BadFrame::Malformed);
        }
        let (payload, rest) = match second & 0x7f {
            126 => match rest.split_first_chunk::<2>() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            length => (u64::from(length), rest),
        };
        let is_last = first & 0x80 != 0;
        if kind.is_control() && (!is_last || payload > MAX_CONTROL) {
            return Err(BadFrame::Malformed);
        }
        let (mask, rest) = match (second & 0x80 != 0, rest.split_first_chunk::<4>()) {
            (false, _) => (None, rest),
            (true, Some((mask, rest))) => (Some(*mask), rest),
            (true, None) => return Ok(None),
        };
        Ok(Some(Self { kind, is_last, mask, payload, size: bytes.len() - rest.len() }))
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// Writes a server's frame: whole and unmasked.
fn write(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | kind.opcode());
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..=125), _) => out.push(length),
        (_, Ok(length)) => {
            out.push(126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// Writes what a [`Connection`](crate::Connection) has to send.
pub fn write_transmit(transmit: &Transmit, out: &mut Vec<u8>) {
    match transmit {
        Transmit::Text(text) => write(Kind::Text, text.as_bytes(), out),
        Transmit::Binary(bytes) => write(Kind::Binary, bytes, out),
        Transmit::Ping => write(Kind::Ping, &[], out),
        Transmit::Close(frame) => write_close(Some(frame.code.as_u16()), frame.reason, out),
    }
}

/// Writes the answer to a ping.
pub fn write_pong(payload: &[u8], out: &mut Vec<u8>) {
    write(Kind::Pong, payload, out);
}

/// Writes the close frame of this code.
pub fn write_end(code: CloseCode, reason: &'static str, out: &mut Vec<u8>) {
    write_close(Some(code.as_u16()), reason, out);
}

/// Writes the answer to a client's close frame: its own code.
pub fn write_close_answer(code: Option<u16>, out: &mut Vec<u8>) {
    write_close(code, "", out);
}

fn write_close(code: Option<u16>, reason: &str, out: &mut Vec<u8>) {
    let mut payload = Vec::with_capacity(2 + reason.len());
    if let Some(code) = code {
        payload.extend_from_slice(&code.to_be_bytes());
        payload.extend_from_slice(reason.as_bytes());
    }
    write(Kind::Close, &payload, out);
}

#[cfg(test)]
mod tests;
