//! A client's first messages.

use super::{Head, Kind, unmask};
use crate::protocol::{BadFrame, MAX_MESSAGE};

/// Bytes of a message's frames beside its payload: a message in a thousand pieces has fewer. A client that sends empty
/// fragments for ever has none of it read.
const MAX_HEADS: usize = 16 << 10;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
    /// To be answered with a pong of the same payload.
    Ping(Vec<u8>),
    /// A sign of life.
    Pong,
    /// The end, with its code, if it has one.
    Close(Option<u16>),
}

/// Reads messages, and keeps the last one as it came: it can still be passed on, with what came after it.
#[derive(Debug, Default)]
pub struct Peek {
    /// From the first frame of the present message on, without what was said in between.
    raw: Vec<u8>,
    /// How much of it has been read.
    read: usize,
    /// The payloads of the present message.
    payload: Vec<u8>,
    /// What the present message is; `None` between two.
    kind: Option<Kind>,
}

impl Peek {
    /// Takes what came. A caller stops where [`held`](Self::held) is more than it wants to keep.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn held(&self) -> usize {
        self.raw.len()
    }

    /// The next message, if all of it is there. The one before it is forgotten.
    ///
    /// # Errors
    /// What breaks RFC 6455, is longer than [`MAX_MESSAGE`], or a text that is none. Nothing can be read after it.
    pub fn poll(&mut self) -> Result<Option<Message>, BadFrame> {
        loop {
            if self.kind.is_none() {
                self.raw.drain(..self.read);
                self.read = 0;
                self.payload.clear();
            }
            let Some(head) = Head::parse(&self.raw[self.read..])? else { return Ok(None) };
            // A client masks, always (RFC 6455, 5.1).
            let mask = head.mask.ok_or(BadFrame::Malformed)?;
            // Told from the head: what is too large is not waited for.
            let length = usize::try_from(head.payload).map_err(|_| BadFrame::TooLarge)?;
            let is_too_large = !head.kind.is_control() && length > MAX_MESSAGE - self.payload.len();
            if is_too_large || self.read > MAX_MESSAGE + MAX_HEADS {
                return Err(BadFrame::TooLarge);
            }
            let from = self.read + head.size;
            let Some(payload) = self.raw.get(from..from + length) else { return Ok(None) };
            if head.kind.is_control() {
                let mut payload = payload.to_vec();
                unmask(&mut payload, mask);
                let is_between = self.kind.is_some();
                if is_between {
                    // It is answered here, and not once more by whom the message is passed on to.
                    self.raw.drain(self.read..from + length);
                } else {
                    self.read = from + length;
                }
                return control(head.kind, payload).map(Some);
            }
            match (self.kind, head.kind) {
                (None, Kind::Continuation) => return Err(BadFrame::Malformed),
                (None, kind) => self.kind = Some(kind),
                (Some(_), Kind::Continuation) => {}
                (Some(_), _) => return Err(BadFrame::Malformed),
            }
            let before = self.payload.len();
            self.payload.extend_from_slice(payload);
            unmask(&mut self.payload[before..], mask);
            self.read = from + length;
            if head.is_last {
                let kind = self.kind.take();
                let payload = std::mem::take(&mut self.payload);
                return Ok(Some(match kind {
                    Some(Kind::Text) => Message::Text(String::from_utf8(payload).map_err(|_| BadFrame::NotUtf8)?),
                    _ => Message::Binary(payload),
                }));
            }
        }
    }

    /// What there is to pass on: the last message that was read, as it came, and what came after it.
    #[must_use]
    pub fn into_rest(self) -> Vec<u8> {
        self.raw
    }
}

fn control(kind: Kind, payload: Vec<u8>) -> Result<Message, BadFrame> {
    Ok(match kind {
        Kind::Ping => Message::Ping(payload),
        Kind::Close => match *payload {
            [] => Message::Close(None),
            [_] => return Err(BadFrame::Malformed),
            [high, low, ..] => Message::Close(Some(u16::from_be_bytes([high, low]))),
        },
        _ => Message::Pong,
    })
}
