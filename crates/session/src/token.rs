//! Secrets that callers present: resume tokens, admin tokens, and what routers and workers share.
//!
//! All compare in time that does not depend on where two texts differ, and none shows itself in `Debug`. They are
//! made of random bytes that the caller draws from the system's generator.

use std::fmt;
use std::hint::black_box;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::ParseError;
use crate::service_key::ServiceKey;

/// Whether two byte strings are equal, looking at every byte of both. Lengths are not hidden: those of our tokens are
/// public.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    // `black_box` keeps the compiler from turning the fold into an early exit.
    black_box(a.iter().zip(b).fold(0, |difference, (x, y)| black_box(difference | (x ^ y)))) == 0
}

pub(crate) fn write_hex(bytes: &[u8]) -> String {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Exactly `N` bytes of lower-case hexadecimal digits.
pub(crate) fn read_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
    }
    Some(bytes)
}

/// What a client presents to take up its session again: 128 random bits, as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy)]
pub struct ResumeToken([u8; Self::LEN]);

impl ResumeToken {
    /// Random bytes in a token: 128 bits cannot be guessed at any rate of offers.
    pub const LEN: usize = 16;

    /// A token of fresh random bytes.
    pub const fn from_random(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The token in clear, to be sent to its client and nowhere else.
    pub fn reveal(&self) -> String {
        write_hex(&self.0)
    }
}

impl PartialEq for ResumeToken {
    fn eq(&self, other: &Self) -> bool {
        equal(&self.0, &other.0)
    }
}

impl Eq for ResumeToken {}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeToken(…)")
    }
}

impl FromStr for ResumeToken {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = ParseError::Form { what: "a resume token", rule: "must be 32 hexadecimal digits" };
        read_hex(text.as_bytes()).map(Self).ok_or(wrong)
    }
}

impl Serialize for ResumeToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.reveal())
    }
}

impl<'de> Deserialize<'de> for ResumeToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What an operator presents to read and end sessions: 16 to 256 visible ASCII characters, configured or made.
#[derive(Clone)]
pub struct AdminToken(Arc<str>);

impl AdminToken {
    /// The shortest token, in characters: what sixteen hexadecimal digits of a password generator give.
    pub const MIN_LEN: usize = 16;
    /// The longest token, in characters: it has to fit a header.
    pub const MAX_LEN: usize = 256;

    /// A token of fresh random bytes, as 64 hexadecimal digits.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(write_hex(&bytes).into())
    }

    /// Whether this is the token that somebody presents.
    pub fn matches(&self, presented: &str) -> bool {
        equal(self.0.as_bytes(), presented.as_bytes())
    }

    /// The token in clear, to be shown once to the one who runs the process.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

impl FromStr for AdminToken {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        visible("an admin token", "must be at least 16 characters long: it guards every session", text)?;
        Ok(Self(text.into()))
    }
}

/// What routers and workers of one installation share, so that workers answer nobody else: 16 to 256 visible ASCII
/// characters, as an [`AdminToken`].
#[derive(Clone)]
pub struct FleetSecret(Arc<str>);

impl FleetSecret {
    /// The secret in clear, for what is made of it. It is sent nowhere: routers show the [key of a service](Self::of_service).
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for FleetSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetSecret(…)")
    }
}

impl FromStr for FleetSecret {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const WHAT: &str = "the fleet's secret";
        visible(WHAT, "must be at least 16 characters long: it opens every worker", text)?;
        if text.starts_with(ServiceKey::PREFIX) {
            let rule = "must not be the key of a service: nothing can be made of that";
            return Err(ParseError::Form { what: WHAT, rule });
        }
        Ok(Self(text.into()))
    }
}

/// Checks a configured secret: visible ASCII, as a header carries it, and neither short nor long.
fn visible(what: &'static str, too_short: &'static str, text: &str) -> Result<(), ParseError> {
    const ALLOWED: &str = "visible ASCII characters";
    if let Some(index) = text.chars().position(|c| !c.is_ascii_graphic()) {
        return Err(ParseError::Character { what, allowed: ALLOWED, position: index + 1 });
    }
    match text.len() {
        0 => Err(ParseError::Empty { what }),
        1..AdminToken::MIN_LEN => Err(ParseError::Form { what, rule: too_short }),
        AdminToken::MIN_LEN..=AdminToken::MAX_LEN => Ok(()),
        _ => Err(ParseError::TooLong { what, max: AdminToken::MAX_LEN }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn resume_tokens_are_hex_on_the_wire() {
        let mut bytes = [0; 16];
        bytes[0] = 0xa7;
        bytes[15] = 0x0f;
        let token = ResumeToken::from_random(bytes);
        assert_eq!(token.reveal(), "a700000000000000000000000000000f");
        assert_eq!(serde_json::to_string(&token).unwrap(), "\"a700000000000000000000000000000f\"");
        for wrong in ["", "a7", "A700000000000000000000000000000f", "a700000000000000000000000000000f0", "é"] {
            assert!(wrong.parse::<ResumeToken>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn secrets_do_not_show_themselves() {
        let resume = ResumeToken::from_random([7; 16]);
        let admin = AdminToken::from_random([7; 32]);
        assert_eq!(format!("{resume:?} {admin:?}"), "ResumeToken(…) AdminToken(…)");
    }

    #[test]
    fn admin_tokens_are_checked_when_configured() {
        fn check(input: &str, expected: Result<(), &str>) {
            let parsed = input.parse::<AdminToken>().map(|_| ()).map_err(|error| error.to_string());
            assert_eq!(parsed, expected.map_err(str::to_owned), "{input:?}");
        }
        check("correct-horse-battery", Ok(()));
        check(&"x".repeat(256), Ok(()));
        check("", Err("an admin token must not be empty"));
        check("short", Err("an admin token must be at least 16 characters long: it guards every session"));
        check(&"x".repeat(257), Err("an admin token must be at most 256 characters long"));
        check(
            "with a space in it",
            Err("an admin token may consist of visible ASCII characters only (character 5 is not)"),
        );
    }

    proptest! {
        #[test]
        fn resume_tokens_round_trip(bytes in any::<[u8; 16]>(), other in any::<[u8; 16]>()) {
            let token = ResumeToken::from_random(bytes);
            prop_assert_eq!(token.reveal().parse::<ResumeToken>().unwrap(), token);
            prop_assert_eq!(token == ResumeToken::from_random(other), bytes == other);
        }

        #[test]
        fn an_admin_token_matches_itself_only(token in "[!-~]{16,64}", other in "[!-~]{16,64}", flip in 0usize..16) {
            let admin: AdminToken = token.parse().unwrap();
            prop_assert!(admin.matches(&token));
            prop_assert_eq!(admin.matches(&other), token == other);
            prop_assert!(!admin.matches(&token[1..]));
            let mut bytes = token.into_bytes();
            bytes[flip] = if bytes[flip] == b'!' { b'~' } else { b'!' };
            prop_assert!(!admin.matches(&String::from_utf8(bytes).unwrap()));
        }
    }
}
