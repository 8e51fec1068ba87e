//! Reading STUN messages in place.

use super::crc::crc32;
use super::{ATTRIBUTE_HEADER, COOKIE, FINGERPRINT_XOR, HEADER, INTEGRITY, TransactionId, attribute};
use ring::hmac;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a message is in its transaction (RFC 8489 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Asks for a response.
    Request,
    /// Asks for none.
    Indication,
    /// Answers a request that was accepted.
    Success,
    /// Answers a request that was not.
    Error,
}

/// Why a datagram is not a STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Shorter than a header, or the first bits or the magic cookie are others'.
    #[error("not a STUN message")]
    NotStun,
    /// The length in the header is not the datagram's, or no multiple of four.
    #[error("wrong message length")]
    Length,
    /// An attribute reaches beyond the message.
    #[error("attribute beyond the end")]
    Attribute,
}

/// A well-formed STUN message, read where it lies.
///
/// Well-formed means: header, cookie and lengths are right. Nothing is authentic until
/// [`verify_integrity`](Self::verify_integrity) says so.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    octets: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads a datagram.
    ///
    /// # Errors
    /// If it is not exactly one well-formed message.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        if datagram.len() < HEADER || datagram[0] & 0xC0 != 0 || datagram[4..8] != COOKIE {
            return Err(ParseError::NotStun);
        }
        let length = usize::from(u16::from_be_bytes([datagram[2], datagram[3]]));
        if length % 4 != 0 || HEADER + length != datagram.len() {
            return Err(ParseError::Length);
        }
        let mut rest = &datagram[HEADER..];
        while !rest.is_empty() {
            (_, _, rest) = split_attribute(rest).ok_or(ParseError::Attribute)?;
        }
        Ok(Self { octets: datagram })
    }

    /// Request, indication, success or error.
    pub fn class(&self) -> Class {
        match (self.octets[0] & 1, self.octets[1] & 0x10) {
            (0, 0) => Class::Request,
            (0, _) => Class::Indication,
            (_, 0) => Class::Success,
            _ => Class::Error,
        }
    }

    /// The method, of which ICE uses [`BINDING`](super::BINDING) only.
    pub fn method(&self) -> u16 {
        let kind = u16::from_be_bytes([self.octets[0], self.octets[1]]);
        // The class's two bits lie between the method's (RFC 8489 figure 3).
        (kind & 0x000F) | (kind & 0x00E0) >> 1 | (kind & 0x3E00) >> 2
    }

    /// Which request this is, or answers.
    pub fn transaction(&self) -> TransactionId {
        let mut id = [0; 12];
        id.copy_from_slice(&self.octets[8..HEADER]);
        TransactionId(id)
    }

    /// The attributes that count: those up to MESSAGE-INTEGRITY, and after it only FINGERPRINT (RFC 8489 section 14.5).
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { octets: self.octets, next: HEADER, sealed: Sealed::No }
    }

    fn attribute(&self, kind: u16) -> Option<&'a [u8]> {
        self.find(kind).map(|(_, value)| value)
    }

    /// USERNAME, which in ICE is `receiver's ufrag : sender's ufrag`.
    pub fn username(&self) -> Option<&'a str> {
        std::str::from_utf8(self.attribute(attribute::USERNAME)?).ok()
    }

    /// The first half of USERNAME: of a request that came in, the ufrag that the receiver itself made.
    pub fn local_ufrag(&self) -> Option<&'a str> {
        self.username()?.split_once(':').map(|(local, _)| local)
    }

    /// Whether the controlling agent nominates this pair (RFC 8445 section 7.1.2).
    pub fn use_candidate(&self) -> bool {
        self.attribute(attribute::USE_CANDIDATE).is_some()
    }

    /// PRIORITY: what a candidate that this check discovers would have (RFC 8445 section 7.1.1).
    pub fn priority(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.attribute(attribute::PRIORITY)?.try_into().ok()?))
    }

    /// The sender's tie breaker, if it believes to be controlling.
    pub fn ice_controlling(&self) -> Option<u64> {
        Some(u64::from_be_bytes(self.attribute(attribute::ICE_CONTROLLING)?.try_into().ok()?))
    }

    /// The sender's tie breaker, if it believes to be controlled.
    pub fn ice_controlled(&self) -> Option<u64> {
        Some(u64::from_be_bytes(self.attribute(attribute::ICE_CONTROLLED)?.try_into().ok()?))
    }

    /// XOR-MAPPED-ADDRESS: where the request came from, as its receiver saw it.
    pub fn mapped_address(&self) -> Option<SocketAddr> {
        let value = self.attribute(attribute::XOR_MAPPED_ADDRESS)?;
        let (&[_, family, p0, p1], address) = value.split_first_chunk::<4>()?;
        let port = u16::from_be_bytes([p0 ^ COOKIE[0], p1 ^ COOKIE[1]]);
        let mask = self.octets[4..HEADER].iter();
        let ip = match family {
            1 => {
                let mut ip: [u8; 4] = address.try_into().ok()?;
                ip.iter_mut().zip(mask).for_each(|(a, b)| *a ^= b);
                IpAddr::V4(Ipv4Addr::from(ip))
            }
            2 => {
                let mut ip: [u8; 16] = address.try_into().ok()?;
                ip.iter_mut().zip(mask).for_each(|(a, b)| *a ^= b);
                IpAddr::V6(Ipv6Addr::from(ip))
            }
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }

    /// ERROR-CODE's number, 300 to 699.
    pub fn error_code(&self) -> Option<u16> {
        match *self.attribute(attribute::ERROR_CODE)? {
            [_, _, class @ 3..=6, number @ 0..=99, ..] => Some(u16::from(class) * 100 + u16::from(number)),
            _ => None,
        }
    }

    /// Whether MESSAGE-INTEGRITY is there and was made with `key` (in ICE the password of the request's receiver). It
    /// covers what stands before it, and not the addresses that the message travelled between.
    #[must_use]
    pub fn verify_integrity(&self, key: &[u8]) -> bool {
        let Some((start, tag)) = self.find(attribute::MESSAGE_INTEGRITY) else { return false };
        if tag.len() != INTEGRITY {
            return false;
        }
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
        let end = start + ATTRIBUTE_HEADER + INTEGRITY;
        equal_in_constant_time(integrity(&key, &self.octets[..start], end).as_ref(), tag)
    }

    /// Whether FINGERPRINT is there, last, and right.
    #[must_use]
    pub fn verify_fingerprint(&self) -> bool {
        let Some((start, value)) = self.find(attribute::FINGERPRINT) else { return false };
        let last = start + ATTRIBUTE_HEADER + 4 == self.octets.len();
        last && value == (crc32(&[&self.octets[..start]]) ^ FINGERPRINT_XOR).to_be_bytes()
    }

    /// Where an attribute that counts begins, and its value.
    fn find(&self, kind: u16) -> Option<(usize, &'a [u8])> {
        let mut attributes = self.attributes();
        std::iter::from_fn(|| attributes.next_with_start())
            .find(|(_, k, _)| *k == kind)
            .map(|(start, _, value)| (start, value))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sealed {
    No,
    Yes,
}

/// The attributes of a message that count, as type and value.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    octets: &'a [u8],
    next: usize,
    sealed: Sealed,
}

impl<'a> Attributes<'a> {
    fn next_with_start(&mut self) -> Option<(usize, u16, &'a [u8])> {
        loop {
            let start = self.next;
            let (kind, value, rest) = split_attribute(self.octets.get(start..)?)?;
            self.next = self.octets.len() - rest.len();
            let counts = match (self.sealed, kind) {
                (Sealed::No, _) => true,
                // Anyone on the path can append to a sealed message.
                (Sealed::Yes, attribute::FINGERPRINT | attribute::MESSAGE_INTEGRITY_SHA256) => true,
                (Sealed::Yes, _) => false,
            };
            if kind == attribute::MESSAGE_INTEGRITY || kind == attribute::MESSAGE_INTEGRITY_SHA256 {
                self.sealed = Sealed::Yes;
            }
            if counts {
                return Some((start, kind, value));
            }
        }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.next_with_start().map(|(_, kind, value)| (kind, value))
    }
}

/// Type, value, and what follows the padding; `None` at the end or if the attribute does not fit.
fn split_attribute(octets: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (&[t0, t1, l0, l1], rest) = octets.split_first_chunk::<ATTRIBUTE_HEADER>()?;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let value = rest.get(..length)?;
    Some((u16::from_be_bytes([t0, t1]), value, rest.get(length.next_multiple_of(4)..)?))
}

/// HMAC-SHA1 over a message's octets so far, with the length in its header as if the message ended at `end`
/// (RFC 8489 section 14.5).
pub(super) fn integrity(key: &hmac::Key, octets: &[u8], end: usize) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(&octets[..2]);
    context.update(&((end - HEADER) as u16).to_be_bytes());
    context.update(&octets[4..]);
    context.sign()
}

fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0u8, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differences) == 0
}
