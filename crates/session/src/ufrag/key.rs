//! The installation's keys, and what is derived of them.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::ParseError;
use crate::token::{equal, read_hex, write_hex};

/// Separates what is made of a key here from what anybody else makes of the same bytes.
const SALT: &[u8] = b"streamfleet relay 1";

/// What routers and relays of one installation share: whoever has it can mint ufrags, and read where they lead.
///
/// Written as base64 (either alphabet, padded or not) or as hexadecimal digits; a text that is both is hexadecimal. The bytes
/// themselves are not kept, only what HKDF-SHA-256 (RFC 5869) extracts of them.
#[derive(Clone)]
pub struct RelayKey {
    extracted: Prk,
    id: KeyId,
}

impl RelayKey {
    /// The least bytes of a key.
    pub const MIN_LEN: usize = 32;
    /// The longest text of a key, in characters: several times what anybody generates.
    pub const MAX_TEXT: usize = 1024;

    /// A key of fresh random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; Self::MIN_LEN]) -> Self {
        Self::of(&bytes)
    }

    fn of(secret: &[u8]) -> Self {
        let extracted = Salt::new(HKDF_SHA256, SALT).extract(secret);
        let [first, ..] = derive(&extracted, &[b"id"]);
        Self { extracted, id: KeyId(first & KeyId::MAX) }
    }

    /// Which of an installation's keys this is: made of the key itself, so that it has the same everywhere, and whether it is
    /// the current or the previous one.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// What the relays of an installation seal with what they tell each other.
    #[must_use]
    pub fn among_relays(&self) -> [u8; 32] {
        let halves: [&[&[u8]]; 2] = [&[b"among relays", &[0]], &[b"among relays", &[1]]];
        let [first, second] = halves.map(|label| self.derive(label));
        std::array::from_fn(|n| if n < 16 { first[n] } else { second[n - 16] })
    }

    /// A key of 128 bits for one purpose, which `label` names.
    pub(super) fn derive(&self, label: &[&[u8]]) -> [u8; 16] {
        derive(&self.extracted, label)
    }
}

fn derive(extracted: &Prk, label: &[&[u8]]) -> [u8; 16] {
    let mut key = [0; 16];
    let filled = extracted.expand(label, Bits128).and_then(|expanded| expanded.fill(&mut key));
    filled.expect("16 bytes are less than HKDF can give, and as long as what they are written to");
    key
}

/// The length of every derived key.
struct Bits128;

impl KeyType for Bits128 {
    fn len(&self) -> usize {
        16
    }
}

impl FromStr for RelayKey {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const WHAT: &str = "a relay key";
        // A file, or a value that was piped into a secret, ends with a line feed.
        let text = text.trim_ascii();
        if text.is_empty() {
            return Err(ParseError::Empty { what: WHAT });
        }
        if text.len() > Self::MAX_TEXT {
            return Err(ParseError::TooLong { what: WHAT, max: Self::MAX_TEXT });
        }
        let secret = read(text)
            .ok_or(ParseError::Form { what: WHAT, rule: "must be base64 or hexadecimal digits, on one line" })?;
        if secret.len() < Self::MIN_LEN {
            return Err(ParseError::Form {
                what: WHAT,
                rule: "must be at least 32 bytes long: it guards every worker",
            });
        }
        Ok(Self::of(&secret))
    }
}

fn read(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if rest.is_empty() && text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        let lower = |pair: &[u8; 2]| read_hex::<1>(&pair.map(|digit| digit.to_ascii_lowercase())).map(|[byte]| byte);
        return pairs.iter().map(lower).collect();
    }
    let bare = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    STANDARD_NO_PAD.decode(bare).or_else(|_| URL_SAFE_NO_PAD.decode(bare)).ok()
}

impl fmt::Debug for RelayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelayKey({}, …)", self.id)
    }
}

/// Which key a ufrag is sealed with: 0 to 15. Two keys may happen to have the same; ufrags of both are opened then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(u8);

impl KeyId {
    /// The greatest id: it has four bits of a ufrag's first byte.
    const MAX: u8 = 15;

    /// What the four low bits of a byte say.
    pub(super) const fn of_low_bits(byte: u8) -> Self {
        Self(byte & Self::MAX)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The installation's keys: one to mint with, and another whose ufrags are opened too while keys are changed.
#[derive(Debug, Clone)]
pub struct RelayKeys {
    /// What ufrags are minted with.
    pub current: RelayKey,
    /// The other key: the next one before everybody has it, the last one until its sessions are over.
    pub previous: Option<RelayKey>,
}

impl From<RelayKey> for RelayKeys {
    fn from(current: RelayKey) -> Self {
        Self { current, previous: None }
    }
}

/// What authenticates the header that a relay and a worker put before each datagram of one session: 128 bits.
///
/// It belongs to the session's ufrag. The router passes it to the worker with the offer, as 32 lower-case hexadecimal digits; a
/// relay derives it of the ufrag in a client's first packet. Who has it can make headers for this session and for no other.
#[derive(Clone, Copy)]
pub struct SessionKey([u8; Self::LEN]);

impl SessionKey {
    /// Bytes of a key.
    pub const LEN: usize = 16;

    /// The key of these bytes, as another relay has derived it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The key, for a cipher or a hash and for nothing else.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The key in clear, to be sent to the session's worker and nowhere else.
    #[must_use]
    pub fn reveal(&self) -> String {
        write_hex(&self.0)
    }
}

impl PartialEq for SessionKey {
    fn eq(&self, other: &Self) -> bool {
        equal(&self.0, &other.0)
    }
}

impl Eq for SessionKey {}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

impl FromStr for SessionKey {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = ParseError::Form { what: "a session key", rule: "must be 32 hexadecimal digits" };
        read_hex(text.as_bytes()).map(Self).ok_or(wrong)
    }
}

impl Serialize for SessionKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.reveal())
    }
}

impl<'de> Deserialize<'de> for SessionKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<u8, &str>) {
        let parsed = text.parse::<RelayKey>();
        let shown = parsed.map(|key| key.id().get()).map_err(|error| error.to_string());
        assert_eq!(shown.as_ref().map(|id| *id).map_err(String::as_str), expected, "{text:?}");
    }

    #[test]
    fn keys_are_base64_or_hex() {
        let of_ones = RelayKey::from_random([1; 32]).id().get();
        check(&"01".repeat(32), Ok(of_ones));
        check(&format!("  {}\r\n", "01".repeat(32)), Ok(of_ones));
        check("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", Ok(of_ones));
        check("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE", Ok(of_ones));
        let of_slashes = RelayKey::of(&[0xFF; 48]).id().get();
        check(&"/".repeat(64), Ok(of_slashes));
        check(&"_".repeat(64), Ok(of_slashes));
        check(&"fF".repeat(48), Ok(of_slashes));
        check("", Err("a relay key must not be empty"));
        check(" \n", Err("a relay key must not be empty"));
        check(&"A".repeat(1025), Err("a relay key must be at most 1024 characters long"));
        let form = "a relay key must be base64 or hexadecimal digits, on one line";
        check("correct horse battery staple, and some more of that", Err(form));
        check(&format!("{}\n{}", "/".repeat(32), "/".repeat(32)), Err(form));
        check(&"é".repeat(40), Err(form));
        check(&format!("{}===", "/".repeat(61)), Err(form));
        let short = "a relay key must be at least 32 bytes long: it guards every worker";
        check(&"01".repeat(31), Err(short));
        check("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ==", Err(short));
    }

    #[test]
    fn keys_do_not_show_themselves() {
        let key: RelayKey = "01".repeat(32).parse().unwrap();
        assert_eq!(format!("{key:?}"), format!("RelayKey({}, …)", key.id()));
        let keys = format!("{:?}", RelayKeys { current: key.clone(), previous: Some(key) });
        assert_eq!(keys.matches("…").count(), 2, "{keys}");
    }

    /// Four bits of each key's own, so that two keys are told apart most of the time.
    #[test]
    fn ids_are_spread() {
        let mut seen = [0; 16];
        for byte in 0..=u8::MAX {
            seen[usize::from(RelayKey::from_random([byte; 32]).id().get())] += 1;
        }
        assert!(seen.iter().all(|count| (5..=32).contains(count)), "{seen:?}");
    }
}
