//! The sealed ufrag: a session's local ICE ufrag (RFC 8839 section 5.4), which tells a relay, and nobody else, where the
//! session is.
//!
//! A router mints it for the worker that it has chosen. Every relay reads it in the USERNAME of a client's first STUN packet
//! and knows the worker's media loop, without a look-up. Workers never have the key: to them a ufrag is a name.
//!
//! It is 24 bytes, written as 32 ice-chars, which is as much as one may send: base64, whose alphabet (RFC 4648 section 4) is
//! that of ice-chars.
//!
//! | bytes | IPv4 | IPv6 under a prefix of `p` bytes | |
//! |---|---|---|---|
//! | header | 1 | 1 | three bits of version, one of family, four of key: authenticated, in clear |
//! | nonce | 9 | `p` − 3: 3 to 12 | random: authenticated, in clear |
//! | target | 6 | 18 − `p`: 3 to 12 | the last bytes of the address, and the port: authenticated, sealed |
//! | tag | 8 | 8 | |
//!
//! The construction is SIV's (RFC 5297) for a plaintext of less than a block. The header, the nonce and the target in clear are
//! always 16 bytes: the tag is the first half of their AES-CMAC. The target is then masked with the AES, under another key, of
//! a block of the tag and the first 8 bytes of header and nonce (no target among them). Of an IPv4 ufrag two bytes of the nonce
//! do not fit that block; the tag covers them. A nonce that comes twice shows that two ufrags lead to the same place, if they
//! do, and nothing else.
//!
//! Every key is derived with HKDF-SHA-256 of the installation's: two for IPv4, two for IPv6 under this very prefix (so that a
//! ufrag is never read under another one), and one of which each ufrag has its [`SessionKey`].
//!
//! A forger has one chance in 2^64 with each packet. Of `n` live sessions of one loop, the next has the ufrag of one of them
//! with a probability of `n` / 2^(8 · bytes of nonce): for 1 000 sessions 2·10^-19 with IPv4 and 9·10^-10 under a /64, but
//! 6·10^-5 under a /48. The worker ends such a session at once, and its client offers again.

mod cmac;
mod key;
mod networks;
mod seal;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::ParseError;

pub use key::{KeyId, RelayKey, RelayKeys, SessionKey};
pub use networks::{InvalidNetworks, InvalidPrefix, WorkerNetworks, WorkerPrefix};
pub use seal::Seal;

/// Bytes of a ufrag before they are written as text.
const SEALED: usize = 24;

/// A session's local ufrag: 32 ice-chars (letters, digits, `+`, `/`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ufrag([u8; Self::LEN]);

impl Ufrag {
    /// Characters of a ufrag: the most that may be sent.
    pub const LEN: usize = 32;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("ice-chars are ASCII")
    }

    /// The 24 bytes are written so and no other way: no bit of the text is left over.
    fn of(sealed: [u8; SEALED]) -> Self {
        let mut text = [0; Self::LEN];
        STANDARD_NO_PAD.encode_slice(sealed, &mut text).expect("24 bytes are 32 characters of base64");
        Self(text)
    }
}

/// Reads what [`Ufrag::of`] writes.
fn read(text: &[u8]) -> Result<[u8; SEALED], Unopened> {
    if text.len() != Ufrag::LEN {
        return Err(Unopened::Length);
    }
    let mut sealed = [0; SEALED];
    match STANDARD_NO_PAD.decode_slice(text, &mut sealed) {
        Ok(SEALED) => Ok(sealed),
        _ => Err(Unopened::Character),
    }
}

impl FromStr for Ufrag {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        read(text.as_bytes())
            .map(Self::of)
            .map_err(|_| ParseError::Form { what: "a ufrag", rule: "must be 32 letters, digits, + or /" })
    }
}

impl fmt::Display for Ufrag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Ufrag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ufrag({})", self.as_str())
    }
}

impl Serialize for Ufrag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Ufrag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A new session's ufrag, and the key that belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minted {
    /// For the answer.
    pub ufrag: Ufrag,
    /// For the worker.
    pub key: SessionKey,
}

/// What a relay reads in a ufrag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Where the session's media loop listens.
    pub target: SocketAddr,
    /// The session's key.
    pub key: SessionKey,
}

/// A worker's address that no ufrag can be minted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsealable {
    /// Port 0 is nobody's.
    #[error("a media loop has a port")]
    Port,
    /// In none of the worker networks.
    #[error("not in the worker networks")]
    Elsewhere,
    /// An IPv6 address that does not begin with the workers' prefix.
    #[error("not under the prefix of the workers")]
    Prefix,
}

/// Why a packet's ufrag says nothing. Each is found before anything is kept of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unopened {
    /// Not 32 characters.
    #[error("not 32 characters")]
    Length,
    /// One of them is no ice-char.
    #[error("not ice-chars")]
    Character,
    /// Sealed in another form than this one.
    #[error("of another version")]
    Version,
    /// Leads to an IPv6 address, and no prefix is configured.
    #[error("of a family without a prefix")]
    Family,
    /// Sealed with a key that is neither the current one nor the previous one.
    #[error("sealed with an unknown key")]
    Key,
    /// Forged, damaged, or sealed by another installation or under another prefix.
    #[error("forged or damaged")]
    Tag,
    /// Leads out of the worker networks: they have been configured anew since it was minted, or not everywhere alike.
    #[error("leads out of the worker networks")]
    Elsewhere,
}

impl Unopened {
    /// Every reason.
    pub const ALL: [Self; 7] =
        [Self::Length, Self::Character, Self::Version, Self::Family, Self::Key, Self::Tag, Self::Elsewhere];

    /// The stable label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Character => "character",
            Self::Version => "version",
            Self::Family => "family",
            Self::Key => "key",
            Self::Tag => "tag",
            Self::Elsewhere => "elsewhere",
        }
    }
}

#[cfg(test)]
mod tests;
