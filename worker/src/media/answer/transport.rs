//! The transport that an offer proposes: who the client is to ICE and to DTLS (RFC 8839, RFC 8122, RFC 8842).

use std::fmt;

use super::IceCredentials;
use super::choice::Choice;
use crate::media::sdp::{Description, InvalidOffer, Section};

/// Everything that the session's one transport must know of the client.
pub(super) struct Transport<'a> {
    pub(super) credentials: IceCredentials,
    pub(super) fingerprint: Fingerprint,
    pub(super) ice: Ice,
    /// Candidate lines, without `candidate:`.
    pub(super) candidates: Vec<&'a str>,
}

/// How the client takes part in ICE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ice {
    Full,
    /// It checks nothing itself: the worker is in control (RFC 8445 6.1.1).
    Lite,
}

/// The SHA-256 of the client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl<'a> Transport<'a> {
    /// The transport of what was taken of an offer.
    ///
    /// # Errors
    /// It could be answered, and never connect.
    pub(super) fn of(offer: &Description<'a>, choice: &Choice<'_, 'a>) -> Result<Self, InvalidOffer> {
        let tagged = choice.tagged(offer).ok_or(InvalidOffer::NotBundled)?;
        let (own, all) = (&tagged.transport, &offer.transport);
        // RFC 5763 5: an offer says actpass; active goes well with our passive, these two do not.
        if matches!(own.setup.or(all.setup), Some("passive" | "holdconn")) {
            return Err(InvalidOffer::Setup);
        }
        let (ufrag, pwd) = (own.ufrag.or(all.ufrag), own.pwd.or(all.pwd));
        let (Some(ufrag), Some(pwd)) = (ufrag, pwd) else { return Err(InvalidOffer::NoIceCredentials) };
        let fingerprints = if own.fingerprints.is_empty() { &all.fingerprints } else { &own.fingerprints };
        // Bundled m-lines repeat the same candidates; those of another ICE session lead elsewhere.
        let same = |section: &&Section<'a>| section.transport.ufrag.or(all.ufrag) == Some(ufrag);
        let candidates = offer.sections.iter().filter(same).flat_map(|section| section.candidates.iter().copied());
        Ok(Transport {
            credentials: credentials(ufrag, pwd)?,
            fingerprint: Fingerprint::of(fingerprints)?,
            ice: if offer.ice_lite { Ice::Lite } else { Ice::Full },
            candidates: candidates.collect(),
        })
    }
}

/// RFC 8839 5.4.
fn credentials(ufrag: &str, pwd: &str) -> Result<IceCredentials, InvalidOffer> {
    let ice_chars = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'));
    if (4..=256).contains(&ufrag.len()) && (22..=256).contains(&pwd.len()) && ice_chars(ufrag) && ice_chars(pwd) {
        Ok(IceCredentials { ufrag: ufrag.to_owned(), pwd: pwd.to_owned() })
    } else {
        Err(InvalidOffer::IceCredentials)
    }
}

impl Fingerprint {
    /// The one that can be verified. Of several (RFC 8122 5 allows one for each hash), that is the SHA-256.
    fn of(lines: &[&str]) -> Result<Self, InvalidOffer> {
        if lines.is_empty() {
            return Err(InvalidOffer::NoFingerprint);
        }
        let mut found = None;
        for line in lines {
            let (hash, digits) = line.split_once(' ').unwrap_or((line, ""));
            if !hash.eq_ignore_ascii_case("sha-256") {
                continue;
            }
            let read = Self::parse(digits.trim()).ok_or(InvalidOffer::Fingerprint)?;
            if found.is_some_and(|found| found != read) {
                return Err(InvalidOffer::TwoFingerprints);
            }
            found = Some(read);
        }
        found.ok_or(InvalidOffer::FingerprintHash)
    }

    fn parse(digits: &str) -> Option<Self> {
        let mut octets = [0; 32];
        let mut pairs = digits.split(':');
        for octet in &mut octets {
            let pair = pairs.next().filter(|pair| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit()))?;
            *octet = u8::from_str_radix(pair, 16).ok()?;
        }
        if pairs.next().is_none() { Some(Self(octets)) } else { None }
    }
}

/// As in `a=fingerprint`.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha-256 ")?;
        for (i, octet) in self.0.iter().enumerate() {
            write!(f, "{}{octet:02X}", if i == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints() {
        let good = ["aB"; 32].join(":");
        let check = |lines: &[&str], expected: Result<&str, InvalidOffer>| {
            let expected = expected.map(|pair| format!("sha-256 {}", [pair; 32].join(":")));
            assert_eq!(Fingerprint::of(lines).map(|f| f.to_string()), expected, "{lines:?}");
        };
        let sha256 = |digits: &str| format!("SHA-256 {digits}");
        check(&[&sha256(&good)], Ok("AB"));
        check(&["sha-384 AB", &sha256(&good), &sha256(&good.to_uppercase())], Ok("AB"));
        check(&[], Err(InvalidOffer::NoFingerprint));
        check(&[&format!("md5 {good}")], Err(InvalidOffer::FingerprintHash));
        check(&["sha-1 AB:CD", "sha-512 EF"], Err(InvalidOffer::FingerprintHash));
        check(&["", "garbage"], Err(InvalidOffer::FingerprintHash));
        check(&[&sha256(&good), &sha256(&["CD"; 32].join(":"))], Err(InvalidOffer::TwoFingerprints));
        for broken in [
            String::new(),
            "nonsense".to_owned(),
            ["AB"; 31].join(":"),
            ["AB"; 33].join(":"),
            format!("{good}:"),
            "AB".repeat(32),
            good.replacen("aB", "zz", 1),
            good.replacen("aB", "+1", 1),
            good.replacen("aB", "é", 1),
            good.replacen("aB", "aBc", 1),
            format!("{good} {good}"),
        ] {
            check(&[&sha256(&broken)], Err(InvalidOffer::Fingerprint));
        }
    }

    #[test]
    fn ice_credentials() {
        let check = |ufrag: &str, pwd: &str, expected: Result<(), InvalidOffer>| {
            assert_eq!(credentials(ufrag, pwd).map(|_| ()), expected, "{ufrag:?} {pwd:?}");
        };
        let (pwd, bad) = ("0123456789abcdef/+ABCD", Err(InvalidOffer::IceCredentials));
        check("aB1+", pwd, Ok(()));
        check(&"a".repeat(256), &"b".repeat(256), Ok(()));
        for ufrag in ["", "abc", "ab:c", "ab c", "abcé", &"a".repeat(257)] {
            check(ufrag, pwd, bad);
        }
        for pwd in ["", "0123456789abcdefghijk", "0123456789abcdefghij l", &"b".repeat(257)] {
            check("abcd", pwd, bad);
        }
    }
}
