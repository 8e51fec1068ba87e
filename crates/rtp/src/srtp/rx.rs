//! Opening what a peer sends.

use super::keys::{Cipher, KeyError, Keys, Profile};
use crate::header::Header;
use crate::index::{Index, Window};
use rtc::crypto::RTCCrypto;
use std::ops::Range;

/// Sources with a window of their own. A call has two or three at a time, a screen share and simulcast some more; each
/// costs 48 octets, and the search is linear.
const MAX_LIVE: usize = 8;

/// Sources remembered by their newest index alone, at 16 octets each. Only a peer that holds the keys can make sources,
/// so this is reached by one that changes its SSRC hundreds of times in a call; see [`Refused::TooManySources`].
const MAX_RETIRED: usize = 256;

/// An authenticated packet, decrypted where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its header.
    pub header: Header,
    /// Its index.
    pub index: Index,
    /// Where its payload is, without padding. Empty for a packet that only probes the path.
    pub payload: Range<usize>,
}

/// Why a packet is dropped. Nothing of it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// Not an RTP packet, or shorter than its header and tag, or longer padding than payload.
    #[error("malformed")]
    Malformed,
    /// Its index was seen, or is too old to know.
    #[error("replayed or too old")]
    Replay,
    /// Not made with the session's key.
    #[error("not authentic")]
    Forged,
    /// The peer has used more sources than are remembered, and forgetting one would let its packets be replayed.
    #[error("too many sources")]
    TooManySources,
}

/// Incoming RTP of one peer: all its sources.
///
/// A source that has not been heard of for longest makes room for a new one. Its window is forgotten, but not its newest
/// index: should it come back, it goes on after that, so nothing it ever sent is accepted twice.
pub struct Rx {
    cipher: Cipher,
    live: Vec<Source>,
    retired: Vec<Retired>,
    opened: u64,
}

#[derive(Clone, Copy)]
struct Source {
    window: Window,
    ssrc: u32,
    /// The count of packets opened when it was last heard of: a clock that needs no clock, and wraps after weeks at line
    /// rate, which then only retires the wrong source.
    used: u32,
}

#[derive(Clone, Copy)]
struct Retired {
    newest: Index,
    ssrc: u32,
}

/// What is known of a packet's source.
enum Known {
    Live(usize),
    Retired(usize),
    Unknown,
}

impl Rx {
    /// The incoming direction of a session.
    ///
    /// # Errors
    /// If the provider lacks a primitive.
    pub fn new(crypto: &dyn RTCCrypto, keys: &Keys) -> Result<Self, KeyError> {
        Ok(Self { cipher: keys.opening(crypto)?, live: Vec::new(), retired: Vec::new(), opened: 0 })
    }

    /// The session's profile.
    pub fn profile(&self) -> Profile {
        self.cipher.profile()
    }

    /// Authenticates a packet and decrypts it in place. On refusal its octets are undefined.
    ///
    /// # Errors
    /// If it is to be dropped. Forged packets change no state.
    pub fn open(&mut self, packet: &mut [u8]) -> Result<Opened, Refused> {
        let header = Header::parse(packet).map_err(|_| Refused::Malformed)?;
        let end = packet.len().checked_sub(self.profile().tag_len()).filter(|end| *end >= header.len);
        let end = end.ok_or(Refused::Malformed)?;
        let known = self.known(header.ssrc);
        let index = match known {
            Known::Live(i) => self.live[i].window.newest().nearest(header.sequence),
            Known::Retired(i) => self.retired[i].newest.nearest(header.sequence),
            Known::Unknown => Index::first(header.sequence),
        };
        let is_new = match known {
            Known::Live(i) => self.live[i].window.is_new(index),
            Known::Retired(i) => index > self.retired[i].newest,
            Known::Unknown => true,
        };
        if !is_new {
            return Err(Refused::Replay);
        }
        let (body, tag) = packet.split_at_mut(end);
        self.cipher.open(body, header.len, header.ssrc, index, tag).map_err(|_| Refused::Forged)?;
        self.opened = self.opened.wrapping_add(1);
        self.accept(known, header.ssrc, index)?;
        let last = packet[end - 1];
        let payload = header.payload(end, last).ok_or(Refused::Malformed)?;
        Ok(Opened { header, index, payload })
    }

    fn known(&self, ssrc: u32) -> Known {
        if let Some(i) = self.live.iter().position(|source| source.ssrc == ssrc) {
            return Known::Live(i);
        }
        match self.retired.iter().position(|source| source.ssrc == ssrc) {
            Some(i) => Known::Retired(i),
            None => Known::Unknown,
        }
    }

    /// Records an authentic packet.
    fn accept(&mut self, known: Known, ssrc: u32, index: Index) -> Result<(), Refused> {
        let used = self.opened as u32;
        let window = match known {
            Known::Live(i) => {
                self.live[i].window.mark(index);
                self.live[i].used = used;
                return Ok(());
            }
            Known::Retired(i) => {
                let mut window = Window::closed_up_to(self.retired[i].newest);
                window.mark(index);
                self.retired.swap_remove(i);
                window
            }
            Known::Unknown if self.live.len() + self.retired.len() >= MAX_LIVE + MAX_RETIRED => {
                return Err(Refused::TooManySources);
            }
            Known::Unknown => Window::new(index),
        };
        if self.live.len() >= MAX_LIVE
            && let Some(idle) = (0..self.live.len()).max_by_key(|i| used.wrapping_sub(self.live[*i].used))
        {
            let idle = self.live.swap_remove(idle);
            self.retired.push(Retired { newest: idle.window.newest(), ssrc: idle.ssrc });
        }
        self.live.push(Source { window, ssrc, used });
        Ok(())
    }
}

impl std::fmt::Debug for Rx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rx")
            .field("profile", &self.profile())
            .field("live", &self.live.len())
            .field("retired", &self.retired.len())
            .finish_non_exhaustive()
    }
}
