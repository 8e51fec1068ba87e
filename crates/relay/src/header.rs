//! What relay and worker put before each datagram that they send each other.
//!
//! ```text
//!  0      1      2             4                 20     22     24     28        32        40
//! ┌──────┬──────┬─────────────┬─────────────────┬──────┬──────┬──────┬─────────┬─────────┐
//! │ form │marks │ return port │ client, as IPv6 │ port │ door │ flow │ session │ tag     │ datagram …
//! └──────┴──────┴─────────────┴─────────────────┴──────┴──────┴──────┴─────────┴─────────┘
//! ```
//!
//! All numbers in network order. The tag is SipHash-2-4 over the 32 octets before it, under the key of the session, which router
//! and worker alone know. It says that relay and worker mean each other and this client; that the datagram itself is whole is
//! what STUN's, DTLS's and SRTP's own integrity say. The header of a flow does not change from packet to packet, so that both
//! sides compute it once.
//!
//! The first octet is one that no datagram of WebRTC begins with (RFC 7983: 192 to 255 are nobody's).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use siphasher::sip::SipHasher24;
use std::hash::Hasher as _;
use streamfleet_session::ufrag::SessionKey;
use subtle::ConstantTimeEq as _;

/// Octets of a header.
pub const HEADER: usize = 40;
/// Octets that the tag covers, all but the tag.
pub(crate) const SEALED: usize = 32;
/// Octets of a tag.
pub(crate) const TAG: usize = 8;
/// The two forms. The lower bits are the version of the format: one that is not known is not read.
const TO_WORKER: u8 = 0xC0;
const TO_CLIENT: u8 = 0xE0;

/// Which way a datagram goes. A header of one way is no header of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From a client, by a relay, to a worker.
    ToWorker,
    /// From a worker, by a relay, to a client.
    ToClient,
}

/// What a worker has seen of a client at this address. Each says all that the one before it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Nothing: not more may go there than has come from there.
    #[default]
    Unknown = 0,
    /// A check with valid integrity has come from there, and is being answered.
    Confirmed = 1,
    /// It has answered a check of the worker's, so it is where it says it is.
    Proven = 2,
}

/// The place of a flow in the table of the relay's thread that has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct FlowId(pub u32);

/// What a worker calls a session: the place in a table of its loop. 0 until it has said it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SessionHandle(pub u32);

/// What stands before a datagram between relay and worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which way.
    pub direction: Direction,
    /// What the worker says of the client; [`Standing::Unknown`] on the way to it.
    pub standing: Standing,
    /// The port of the relay's thread that workers are to send to: the one that has the flow.
    pub return_port: u16,
    /// The client. IPv4 is plain, never mapped.
    pub client: SocketAddr,
    /// The relay's public port at which the client's packets arrive.
    pub door: u16,
    /// The relay's name for the flow.
    pub flow: FlowId,
    /// The worker's name for the session.
    pub session: SessionHandle,
}

/// Why octets are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAHeader {
    /// Fewer than [`HEADER`] octets.
    #[error("too short")]
    Short,
    /// The first octet is of another form, or of another version.
    #[error("not of this form")]
    Form,
    /// A mark that this version does not know.
    #[error("unknown marks")]
    Marks,
}

/// A header as it came. Nothing is known of it until [`Sealed::open`] has said so.
#[derive(Debug, Clone, Copy)]
pub struct Sealed<'a> {
    octets: &'a [u8; HEADER],
    said: Header,
}

impl Header {
    /// The octets, sealed.
    #[must_use]
    pub fn seal(&self, key: &SessionKey) -> [u8; HEADER] {
        let mut octets = self.unsealed();
        let tag = tag(&octets[..SEALED], key);
        octets[SEALED..].copy_from_slice(&tag);
        octets
    }

    /// The octets without their tag.
    pub(crate) fn unsealed(&self) -> [u8; HEADER] {
        let mut octets = [0; HEADER];
        octets[0] = match self.direction {
            Direction::ToWorker => TO_WORKER,
            Direction::ToClient => TO_CLIENT,
        };
        octets[1] = self.standing as u8;
        octets[2..4].copy_from_slice(&self.return_port.to_be_bytes());
        octets[4..22].copy_from_slice(&address_octets(self.client));
        octets[22..24].copy_from_slice(&self.door.to_be_bytes());
        octets[24..28].copy_from_slice(&self.flow.0.to_be_bytes());
        octets[28..32].copy_from_slice(&self.session.0.to_be_bytes());
        octets
    }
}

impl<'a> Sealed<'a> {
    /// Splits a datagram into its header, not yet believed, and what it carries.
    ///
    /// # Errors
    /// [`NotAHeader`].
    pub fn split(datagram: &'a [u8]) -> Result<(Self, &'a [u8]), NotAHeader> {
        let (octets, rest) = datagram.split_first_chunk::<HEADER>().ok_or(NotAHeader::Short)?;
        let direction = match octets[0] {
            TO_WORKER => Direction::ToWorker,
            TO_CLIENT => Direction::ToClient,
            _ => return Err(NotAHeader::Form),
        };
        let standing = match octets[1] {
            0 => Standing::Unknown,
            1 => Standing::Confirmed,
            2 => Standing::Proven,
            _ => return Err(NotAHeader::Marks),
        };
        let short = |at: usize| u16::from_be_bytes([octets[at], octets[at + 1]]);
        let long = |at: usize| u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
        let said = Header {
            direction,
            standing,
            return_port: short(2),
            client: client_of(octets),
            door: short(22),
            flow: FlowId(long(24)),
            session: SessionHandle(long(28)),
        };
        Ok((Self { octets, said }, rest))
    }

    /// What it says, for finding the key that it must be sealed with. Anybody may have written it.
    #[must_use]
    pub fn said(&self) -> &Header {
        &self.said
    }

    /// The octets as they came: equal to those of a header that was opened before, they need no other proof.
    #[must_use]
    pub fn octets(&self) -> &'a [u8; HEADER] {
        self.octets
    }

    /// What it says, if it was sealed with this key.
    #[must_use]
    pub fn open(&self, key: &SessionKey) -> Option<Header> {
        let expected = tag(&self.octets[..SEALED], key);
        bool::from(expected.ct_eq(&self.octets[SEALED..])).then_some(self.said)
    }
}

/// The client that a header names.
pub(crate) fn client_of(octets: &[u8; HEADER]) -> SocketAddr {
    let mut address = [0; 18];
    address.copy_from_slice(&octets[4..22]);
    address_of(&address)
}

/// The flow that a datagram says it belongs to, if it has a header at all.
pub(crate) fn flow_of(datagram: &[u8]) -> Option<FlowId> {
    let [a, b, c, d] = *datagram.get(24..28)? else { return None };
    Some(FlowId(u32::from_be_bytes([a, b, c, d])))
}

/// An address as headers have it: as IPv6, and a port.
pub(crate) fn address_octets(address: SocketAddr) -> [u8; 18] {
    let mut octets = [0; 18];
    octets[..16].copy_from_slice(&mapped(address.ip()).octets());
    octets[16..].copy_from_slice(&address.port().to_be_bytes());
    octets
}

/// And back.
pub(crate) fn address_of(octets: &[u8; 18]) -> SocketAddr {
    let mut ip = [0; 16];
    ip.copy_from_slice(&octets[..16]);
    SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), u16::from_be_bytes([octets[16], octets[17]]))
}

fn tag(covered: &[u8], key: &SessionKey) -> [u8; TAG] {
    let mut hasher = SipHasher24::new_with_key(key.as_bytes());
    hasher.write(covered);
    hasher.finish().to_be_bytes()
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
