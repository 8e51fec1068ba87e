//! Frames that wait to be sent, other than audio.

use std::collections::VecDeque;

use super::Transmit;

/// Frames at most. A conversation has a handful of messages a second; a client that has not taken this many is not
/// reading, and none of them may be left out.
const MAX_FRAMES: usize = 128;

/// Bytes at most: a handler's messages may be long.
const MAX_BYTES: usize = 1 << 20;

/// There is no room: the client does not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    frames: VecDeque<Transmit>,
    bytes: usize,
}

impl Outbox {
    pub(super) fn push(&mut self, transmit: Transmit) -> Result<(), Full> {
        let bytes = size(&transmit);
        if self.frames.len() >= MAX_FRAMES || self.bytes + bytes > MAX_BYTES {
            return Err(Full);
        }
        self.bytes += bytes;
        self.frames.push_back(transmit);
        Ok(())
    }

    /// Whether a producer that can wait should go on.
    pub(super) fn has_room(&self) -> bool {
        self.frames.len() < MAX_FRAMES / 2 && self.bytes < MAX_BYTES / 2
    }

    pub(super) fn pop(&mut self) -> Option<Transmit> {
        let transmit = self.frames.pop_front()?;
        self.bytes -= size(&transmit);
        Some(transmit)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn size(transmit: &Transmit) -> usize {
    match transmit {
        Transmit::Text(text) => text.len(),
        Transmit::Binary(bytes) => bytes.len(),
        Transmit::Ping | Transmit::Close(_) => 0,
    }
}
