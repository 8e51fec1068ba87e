//! Sealing what is sent.

use super::keys::{Cipher, KeyError, Keys, Profile};
use crate::header::{Extensions, FIXED_HEADER};
use crate::index::{Index, Window};
use rtc::crypto::{CryptoError, RTCCrypto};

/// Outgoing sources of one session: some m-lines with a retransmission stream each. Never evicted, because forgetting
/// which indices a source has used would let one be used again.
const MAX_SOURCES: usize = 16;

/// A packet to seal.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The source.
    pub ssrc: u32,
    /// Where in the source's sequence. Never the same twice.
    pub index: Index,
    /// The marker bit.
    pub marker: bool,
    /// 0 to 127.
    pub payload_type: u8,
    /// In units of the payload type's clock.
    pub timestamp: u32,
    /// Header extensions, or [`Extensions::NONE`].
    pub extensions: &'a Extensions,
    /// The payload in clear.
    pub payload: &'a [u8],
}

/// Why a packet was not sealed. Nothing was appended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// This index was used, or is so old that it may have been: a second use would give the key away.
    #[error("index {} was used", .0.get())]
    UsedIndex(Index),
    /// More than 127.
    #[error("payload type {0}")]
    PayloadType(u8),
    /// The session has 16 sources.
    #[error("too many outgoing sources")]
    TooManySources,
    /// The provider's.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// Outgoing RTP of one session: all its sources.
///
/// It alone may send RTP under this key; [`crate::rtcp::RtcpTap`] keeps the core from it.
pub struct Tx {
    cipher: Cipher,
    sources: Vec<(u32, Window)>,
}

impl Tx {
    /// The outgoing direction of a session.
    ///
    /// # Errors
    /// If the provider lacks a primitive.
    pub fn new(crypto: &dyn RTCCrypto, keys: &Keys) -> Result<Self, KeyError> {
        Ok(Self { cipher: keys.sealing(crypto)?, sources: Vec::new() })
    }

    /// The session's profile.
    pub fn profile(&self) -> Profile {
        self.cipher.profile()
    }

    /// The newest index that a source has used.
    pub fn last_index(&self, ssrc: u32) -> Option<Index> {
        self.sources.iter().find(|(s, _)| *s == ssrc).map(|(_, window)| window.newest())
    }

    /// Appends a sealed packet to `out`: the payload's length, 12 octets, extensions, and the profile's tag.
    ///
    /// # Errors
    /// If it must not or cannot be sealed; `out` is as it was. An index that met an error of the provider's is used.
    pub fn seal(&mut self, out: &mut Vec<u8>, packet: &Outgoing<'_>) -> Result<(), SealError> {
        if packet.payload_type > 0x7F {
            return Err(SealError::PayloadType(packet.payload_type));
        }
        self.use_index(packet.ssrc, packet.index)?;
        let start = out.len();
        let extension_bit = if packet.extensions.is_empty() { 0 } else { 0x10 };
        out.extend_from_slice(&[0x80 | extension_bit, u8::from(packet.marker) << 7 | packet.payload_type]);
        out.extend_from_slice(&packet.index.sequence().to_be_bytes());
        out.extend_from_slice(&packet.timestamp.to_be_bytes());
        out.extend_from_slice(&packet.ssrc.to_be_bytes());
        out.extend_from_slice(packet.extensions.as_bytes());
        out.extend_from_slice(packet.payload);
        let header = FIXED_HEADER + packet.extensions.as_bytes().len();
        let end = out.len();
        out.resize(end + self.profile().tag_len(), 0);
        let (body, tag) = out[start..].split_at_mut(end - start);
        if let Err(error) = self.cipher.seal(body, header, packet.ssrc, packet.index, tag) {
            // Nothing in clear may be left where the caller would send it.
            out.truncate(start);
            return Err(error.into());
        }
        Ok(())
    }

    fn use_index(&mut self, ssrc: u32, index: Index) -> Result<(), SealError> {
        if let Some((_, window)) = self.sources.iter_mut().find(|(s, _)| *s == ssrc) {
            if !window.is_new(index) {
                return Err(SealError::UsedIndex(index));
            }
            window.mark(index);
            return Ok(());
        }
        if self.sources.len() >= MAX_SOURCES {
            return Err(SealError::TooManySources);
        }
        self.sources.push((ssrc, Window::new(index)));
        Ok(())
    }
}

impl std::fmt::Debug for Tx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx")
            .field("profile", &self.profile())
            .field("sources", &self.sources.len())
            .finish_non_exhaustive()
    }
}
