//! Where in a stream of frames a stream of bytes is.

use super::{Head, Kind};

/// Follows the frames of one direction without reading what is in them: whether one of ours may come between two, and whether
/// the end has been said.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    head: [u8; Head::MAX],
    /// Bytes of a head that is not whole.
    have: usize,
    /// Bytes of payload that are still to come.
    left: u64,
    /// Of the close frame, once there is one.
    ending: Option<Ending>,
    is_lost: bool,
}

#[derive(Debug, Clone, Default)]
struct Ending {
    mask: Option<[u8; 4]>,
    code: [u8; 2],
    have: usize,
}

impl Trace {
    /// These bytes have passed.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first()
            && !self.is_lost
        {
            if self.left > 0 {
                let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                let (payload, rest) = bytes.split_at(count);
                if let Some(ending) = &mut self.ending {
                    ending.read(payload);
                }
                self.left -= count as u64;
                bytes = rest;
                continue;
            }
            self.head[self.have] = *first;
            self.have += 1;
            bytes = rest;
            match Head::parse(&self.head[..self.have]) {
                Ok(None) => {}
                Ok(Some(head)) => {
                    self.have = 0;
                    self.left = head.payload;
                    if head.kind == Kind::Close && self.ending.is_none() {
                        self.ending = Some(Ending { mask: head.mask, ..Ending::default() });
                    }
                }
                Err(_) => self.is_lost = true,
            }
        }
    }

    /// Whether a frame may begin here.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.have == 0 && self.left == 0 && !self.is_lost
    }

    /// Whether a close frame has passed: nothing may follow it.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ending.is_some()
    }

    /// The code of the close frame, if one has passed and has one.
    #[must_use]
    pub fn close_code(&self) -> Option<u16> {
        let ending = self.ending.as_ref().filter(|ending| ending.have == ending.code.len())?;
        Some(u16::from_be_bytes(ending.code))
    }
}

impl Ending {
    fn read(&mut self, payload: &[u8]) {
        let missing = self.code.len() - self.have;
        for byte in payload.iter().take(missing) {
            self.code[self.have] = byte ^ self.mask.map_or(0, |mask| mask[self.have]);
            self.have += 1;
        }
    }
}
