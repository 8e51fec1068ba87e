//! Writing STUN messages.

use super::crc::crc32;
use super::parse::integrity;
use super::{ATTRIBUTE_HEADER, COOKIE, FINGERPRINT_XOR, HEADER, INTEGRITY, MAX_USERNAME, TransactionId, attribute};
use ring::hmac;
use std::net::{IpAddr, SocketAddr};

/// Why a message cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// USERNAME is longer than [`MAX_USERNAME`].
    #[error("USERNAME of {0} octets")]
    Username(usize),
}

/// The sender's role in ICE, with its tie breaker (RFC 8445 section 7.3.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Decides which pair is used.
    Controlling(u64),
    /// Follows.
    Controlled(u64),
}

/// Whether a check nominates its pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nomination {
    /// An ordinary check.
    #[default]
    None,
    /// USE-CANDIDATE.
    UseCandidate,
}

/// A connectivity check.
#[derive(Clone, Copy, Debug)]
pub struct BindingRequest<'a> {
    /// Unguessable, and new for each request.
    pub transaction: TransactionId,
    /// The receiver's ufrag.
    pub remote_ufrag: &'a str,
    /// The sender's ufrag.
    pub local_ufrag: &'a str,
    /// What a peer-reflexive candidate that this check discovers is to have.
    pub priority: u32,
    /// The sender's role.
    pub role: Role,
    /// Whether the pair is nominated.
    pub nomination: Nomination,
}

impl BindingRequest<'_> {
    /// Appends the request, sealed with `key`: the receiver's password.
    ///
    /// # Errors
    /// If the ufrags are too long; `out` is as it was.
    pub fn write(&self, key: &[u8], out: &mut Vec<u8>) -> Result<(), BuildError> {
        let username = self.remote_ufrag.len() + 1 + self.local_ufrag.len();
        if username > MAX_USERNAME {
            return Err(BuildError::Username(username));
        }
        let mut message = Writer::new(out, 0x0001, self.transaction);
        message.attribute(attribute::USERNAME, &[self.remote_ufrag.as_bytes(), b":", self.local_ufrag.as_bytes()]);
        message.attribute(attribute::PRIORITY, &[&self.priority.to_be_bytes()]);
        let (kind, tie_breaker) = match self.role {
            Role::Controlling(tie_breaker) => (attribute::ICE_CONTROLLING, tie_breaker),
            Role::Controlled(tie_breaker) => (attribute::ICE_CONTROLLED, tie_breaker),
        };
        message.attribute(kind, &[&tie_breaker.to_be_bytes()]);
        if self.nomination == Nomination::UseCandidate {
            message.attribute(attribute::USE_CANDIDATE, &[]);
        }
        message.finish(Some(key));
        Ok(())
    }
}

/// The answer to a check that was accepted.
#[derive(Clone, Copy, Debug)]
pub struct BindingSuccess {
    /// The request's.
    pub transaction: TransactionId,
    /// Where the request came from. An IPv4-mapped address is written as IPv4.
    pub mapped: SocketAddr,
}

impl BindingSuccess {
    /// Appends the response, sealed with `key`: the password that sealed the request.
    pub fn write(&self, key: &[u8], out: &mut Vec<u8>) {
        let mut message = Writer::new(out, 0x0101, self.transaction);
        message.mapped_address(self.mapped);
        message.finish(Some(key));
    }
}

/// Why a check was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// 400: malformed, or without MESSAGE-INTEGRITY or USERNAME.
    BadRequest,
    /// 401: USERNAME is nobody's, or MESSAGE-INTEGRITY is wrong.
    Unauthenticated,
    /// 487: both agents believe to have the same role (RFC 8445 section 7.3.1.1).
    RoleConflict,
}

impl ErrorCode {
    /// The number.
    pub fn number(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthenticated => 401,
            Self::RoleConflict => 487,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::BadRequest => "Bad Request",
            Self::Unauthenticated => "Unauthenticated",
            Self::RoleConflict => "Role Conflict",
        }
    }
}

/// The answer to a check that was not accepted.
#[derive(Clone, Copy, Debug)]
pub struct BindingError {
    /// The request's.
    pub transaction: TransactionId,
    /// What is wrong.
    pub code: ErrorCode,
}

impl BindingError {
    /// Appends the response, sealed with `key` if there is one: 400 and 401 have none (RFC 8489 section 9.1.3).
    pub fn write(&self, key: Option<&[u8]>, out: &mut Vec<u8>) {
        let mut message = Writer::new(out, 0x0111, self.transaction);
        let number = self.code.number();
        let code = [0, 0, (number / 100) as u8, (number % 100) as u8];
        message.attribute(attribute::ERROR_CODE, &[&code, self.code.reason().as_bytes()]);
        message.finish(key);
    }
}

/// Appends one message. Everything it writes is bounded by [`MAX_USERNAME`], so lengths fit their fields.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut Vec<u8>, kind: u16, transaction: TransactionId) -> Self {
        let start = out.len();
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&COOKIE);
        out.extend_from_slice(&transaction.0);
        Self { out, start }
    }

    fn attribute(&mut self, kind: u16, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.out.extend_from_slice(&kind.to_be_bytes());
        self.out.extend_from_slice(&(length as u16).to_be_bytes());
        parts.iter().for_each(|part| self.out.extend_from_slice(part));
        self.out.resize(self.out.len() + (length.next_multiple_of(4) - length), 0);
    }

    fn mapped_address(&mut self, address: SocketAddr) {
        let mut mask = [0; 16];
        mask.copy_from_slice(&self.out[self.start + 4..self.start + HEADER]);
        let port = (address.port() ^ u16::from_be_bytes([COOKIE[0], COOKIE[1]])).to_be_bytes();
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => {
                let mut ip = ip.octets();
                ip.iter_mut().zip(mask).for_each(|(a, b)| *a ^= b);
                self.attribute(attribute::XOR_MAPPED_ADDRESS, &[&[0, 1], &port, &ip]);
            }
            IpAddr::V6(ip) => {
                let mut ip = ip.octets();
                ip.iter_mut().zip(mask).for_each(|(a, b)| *a ^= b);
                self.attribute(attribute::XOR_MAPPED_ADDRESS, &[&[0, 2], &port, &ip]);
            }
        }
    }

    /// MESSAGE-INTEGRITY if there is a key, FINGERPRINT, and the length.
    fn finish(mut self, key: Option<&[u8]>) {
        if let Some(key) = key {
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
            let message = &self.out[self.start..];
            let tag = integrity(&key, message, message.len() + ATTRIBUTE_HEADER + INTEGRITY);
            self.attribute(attribute::MESSAGE_INTEGRITY, &[tag.as_ref()]);
        }
        let length = (self.out.len() - self.start - HEADER + ATTRIBUTE_HEADER + 4) as u16;
        self.out[self.start + 2..self.start + 4].copy_from_slice(&length.to_be_bytes());
        let fingerprint = crc32(&[&self.out[self.start..]]) ^ FINGERPRINT_XOR;
        self.attribute(attribute::FINGERPRINT, &[&fingerprint.to_be_bytes()]);
    }
}
