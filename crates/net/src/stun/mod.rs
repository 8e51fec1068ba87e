//! STUN as ICE uses it: binding requests and their responses (RFC 8489, RFC 8445), without sockets or allocation.
//!
//! [`Message`] reads one in place; [`BindingRequest`], [`BindingSuccess`] and [`BindingError`] append one to a buffer.

mod build;
mod crc;
mod parse;

pub use build::{BindingError, BindingRequest, BindingSuccess, BuildError, ErrorCode, Nomination, Role};
pub use parse::{Attributes, Class, Message, ParseError};

/// Octets of the fixed header.
pub const HEADER: usize = 20;

/// The longest USERNAME (RFC 8489 section 14.3: fewer than 509 octets).
pub const MAX_USERNAME: usize = 508;

/// The binding method, which is the only one that ICE uses.
pub const BINDING: u16 = 0x001;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
/// What a FINGERPRINT's checksum is XORed with: "STUN" (RFC 8489 section 14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554e;
/// Octets of an attribute's type and length.
const ATTRIBUTE_HEADER: usize = 4;
/// Octets of an HMAC-SHA1.
const INTEGRITY: usize = 20;

/// Attribute types (RFC 8489 section 18.3, RFC 8445 section 16.1).
mod attribute {
    pub(super) const USERNAME: u16 = 0x0006;
    pub(super) const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub(super) const ERROR_CODE: u16 = 0x0009;
    pub(super) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
    pub(super) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub(super) const PRIORITY: u16 = 0x0024;
    pub(super) const USE_CANDIDATE: u16 = 0x0025;
    pub(super) const FINGERPRINT: u16 = 0x8028;
    pub(super) const ICE_CONTROLLED: u16 = 0x8029;
    pub(super) const ICE_CONTROLLING: u16 = 0x802A;
}

/// Tells which request a response belongs to: 96 bits that an outsider cannot guess (RFC 8489 section 5).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 12]);

impl std::fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

#[cfg(test)]
mod tests;
