//! Minting and opening.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use subtle::ConstantTimeEq as _;

use super::cmac::{Block, Cmac};
use super::key::{KeyId, RelayKey, RelayKeys, SessionKey};
use super::networks::{WorkerNetworks, WorkerPrefix};
use super::{Minted, Opened, SEALED, Ufrag, Unopened, Unsealable, read};

/// The form of what is written here. Zero is left out, so that zeros are no ufrag.
const VERSION: u8 = 1;
/// Bits of the port, the last ones of a target.
const PORT_BITS: u32 = u16::BITS;
/// Half a block: the tag's, and what a mask is told beside the tag.
const HALF: u32 = 64;

/// Mints ufrags, and opens them. Made once from the configuration: it has the derived keys, and nothing that changes.
pub struct Seal {
    networks: WorkerNetworks,
    current: Derived,
    previous: Option<Derived>,
}

impl Seal {
    /// Random bytes that minting takes. The longest nonce has all of them, others the first.
    pub const RANDOM: usize = 12;

    /// A seal with these keys, for workers in these networks.
    #[must_use]
    pub fn new(keys: &RelayKeys, networks: WorkerNetworks) -> Self {
        let derive = |key| Derived::new(key, networks.prefix());
        Self { current: derive(&keys.current), previous: keys.previous.as_ref().map(derive), networks }
    }

    /// A ufrag that leads to a worker's media loop, sealed with the current key. An IPv4 address that is written as IPv6 is
    /// IPv4. An IPv6 address's scope and flow label are not carried: what is routed has no scope.
    ///
    /// # Errors
    /// [`Unsealable`].
    pub fn mint(&self, target: SocketAddr, random: [u8; Self::RANDOM]) -> Result<Minted, Unsealable> {
        if target.port() == 0 {
            return Err(Unsealable::Port);
        }
        if !self.networks.contains(target.ip()) {
            return Err(Unsealable::Elsewhere);
        }
        let keys = &self.current;
        let (family, lock, address) = match target.ip().to_canonical() {
            IpAddr::V4(address) => (Family::V4, &keys.v4, address.to_bits().into()),
            IpAddr::V6(address) => {
                let (prefix, lock) = keys.v6.as_ref().ok_or(Unsealable::Prefix)?;
                (Family::V6, lock, prefix.rest_of(address).ok_or(Unsealable::Prefix)?)
            }
        };
        let mut clear = [0; 16];
        clear[0] = Header { family, key: keys.id }.to_byte();
        clear[1..=Self::RANDOM].copy_from_slice(&random);
        let clear = u128::from_be_bytes(clear) & !lock.target | address << PORT_BITS | u128::from(target.port());
        let sealed = lock.seal(clear);
        Ok(Minted { ufrag: Ufrag::of(sealed), key: keys.session_key(&sealed) })
    }

    /// Where a ufrag leads. `text` is what stands in a packet: the first half of a request's USERNAME.
    ///
    /// Costs four encryptions of one block each, two if the ufrag is forged (two more if both keys have the same id, and the
    /// first is not the one), none if it does not look like one of ours, and allocates nothing.
    ///
    /// # Errors
    /// [`Unopened`].
    pub fn open(&self, text: &[u8]) -> Result<Opened, Unopened> {
        let sealed = read(text)?;
        let header = Header::parse(sealed[0])?;
        let mut why_not = Unopened::Key;
        let keys = [Some(&self.current), self.previous.as_ref()].into_iter().flatten();
        for keys in keys.filter(|keys| keys.id == header.key) {
            match keys.open(header.family, &sealed) {
                Ok(target) if self.networks.contains(target.ip()) => {
                    return Ok(Opened { target, key: keys.session_key(&sealed) });
                }
                Ok(_) => return Err(Unopened::Elsewhere),
                Err(reason) => why_not = reason,
            }
        }
        Err(why_not)
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal")
            .field("networks", &self.networks)
            .field("current", &self.current.id)
            .field("previous", &self.previous.as_ref().map(|keys| keys.id))
            .finish()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// The first byte: `VVVFKKKK`, version, family and key.
struct Header {
    family: Family,
    key: KeyId,
}

impl Header {
    const V6: u8 = 1 << 4;

    const fn to_byte(&self) -> u8 {
        let family = match self.family {
            Family::V4 => 0,
            Family::V6 => Self::V6,
        };
        VERSION << 5 | family | self.key.get()
    }

    const fn parse(byte: u8) -> Result<Self, Unopened> {
        if byte >> 5 != VERSION {
            return Err(Unopened::Version);
        }
        let family = if byte & Self::V6 == 0 { Family::V4 } else { Family::V6 };
        Ok(Self { family, key: KeyId::of_low_bits(byte) })
    }
}

/// What is derived of one of the installation's keys. No two of the labels are equal.
struct Derived {
    id: KeyId,
    v4: Lock,
    v6: Option<(WorkerPrefix, Lock)>,
    session: Cmac,
}

impl Derived {
    fn new(key: &RelayKey, prefix: Option<WorkerPrefix>) -> Self {
        let lock = |family: &[u8], address| Lock {
            tag: Cmac::new(key.derive(&[b"ufrag tag ", family])),
            mask: Block::new(key.derive(&[b"ufrag mask ", family])),
            target: address << PORT_BITS | u128::from(u16::MAX),
        };
        let of_v6 = |prefix: WorkerPrefix| {
            // The prefix is part of the key: under another one the same bytes would lead to another host.
            (prefix, lock(&[b"ipv6 ".as_slice(), &prefix.to_bytes()].concat(), prefix.rest()))
        };
        Self {
            id: key.id(),
            v4: lock(b"ipv4", u128::from(u32::MAX)),
            v6: prefix.map(of_v6),
            session: Cmac::new(key.derive(&[b"session"])),
        }
    }

    fn open(&self, family: Family, sealed: &[u8; SEALED]) -> Result<SocketAddr, Unopened> {
        let (lock, prefix) = match (family, &self.v6) {
            (Family::V4, _) => (&self.v4, None),
            (Family::V6, Some((prefix, lock))) => (lock, Some(prefix)),
            (Family::V6, None) => return Err(Unopened::Family),
        };
        let target = lock.open(sealed).ok_or(Unopened::Tag)?;
        let (address, port) = (target >> PORT_BITS, target as u16);
        let address = match prefix {
            None => Ipv4Addr::from_bits(address as u32).into(),
            Some(prefix) => prefix.with(address).into(),
        };
        Ok(SocketAddr::new(address, port))
    }

    fn session_key(&self, sealed: &[u8; SEALED]) -> SessionKey {
        SessionKey::from_bytes(self.session.of(sealed).to_be_bytes())
    }
}

/// The keys for targets of one form.
struct Lock {
    tag: Cmac,
    mask: Block,
    /// The bits of a target: the last ones of the first 16 bytes.
    target: u128,
}

impl Lock {
    fn seal(&self, clear: u128) -> [u8; SEALED] {
        let tag = self.tag_of(clear);
        let mut sealed = [0; SEALED];
        sealed[..16].copy_from_slice(&self.masked(clear, tag).to_be_bytes());
        sealed[16..].copy_from_slice(&tag.to_be_bytes());
        sealed
    }

    /// The target, if the tag is that of what it seals.
    fn open(&self, sealed: &[u8; SEALED]) -> Option<u128> {
        let (mut block, mut tag) = ([0; 16], [0; 8]);
        block.copy_from_slice(&sealed[..16]);
        tag.copy_from_slice(&sealed[16..]);
        let tag = u64::from_be_bytes(tag);
        let clear = self.masked(u128::from_be_bytes(block), tag);
        bool::from(self.tag_of(clear).ct_eq(&tag)).then_some(clear & self.target)
    }

    fn tag_of(&self, clear: u128) -> u64 {
        (self.tag.of_block(clear) >> HALF) as u64
    }

    /// Masks a target, or takes the mask off. The mask depends on what both sides of it have in clear.
    fn masked(&self, block: u128, tag: u64) -> u128 {
        let shown = block & !self.target & u128::MAX << HALF;
        block ^ self.mask.encrypt(shown | u128::from(tag)) & self.target
    }
}
