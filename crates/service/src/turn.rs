//! Credentials of TURN servers that share a secret with us: draft-uberti-behave-turn-rest-00, coturn's `use-auth-secret`.
//!
//! ```text
//! username   = EXPIRY ":" LABEL                      EXPIRY in seconds since the Unix epoch
//! credential = base64(HMAC-SHA1(secret, username))
//! ```
//!
//! The label says in the TURN server's log, and to its quotas, whose credentials they are.

use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac};
use streamfleet_process::config::Secret;
use streamfleet_session::UserId;

/// The shortest secret, in octets. Whoever gets credentials can try secrets on them at home, billions a second: a word is found.
pub const MIN_SECRET: usize = 16;

/// The longest label, in octets: STUN carries user names of up to 508 (RFC 8489, 14.3), and an e-mail address (254) is to be readable.
const MAX_LABEL: usize = 256;

/// Who asks for credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker<'a> {
    /// This user, as a token has proved. What somebody only says of himself does not count: it would use up another's quota.
    User(&'a UserId),
    /// Somebody; a random number tells his from others' in the TURN server's log.
    Somebody(u64),
}

/// A user name and its password.
#[derive(Debug, Clone, PartialEq)]
pub struct Credentials {
    /// In clear in the TURN server's log.
    pub username: String,
    /// Of use until they expire.
    pub credential: Secret,
}

/// What TURN servers and we know. `Debug` does not show it.
#[derive(Debug, Clone)]
pub struct TurnSecret(hmac::Key);

/// A secret that could be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have at least {MIN_SECRET} characters: whoever gets credentials can try secrets on them")]
pub struct WeakSecret;

impl TurnSecret {
    /// The secret with this text, as it stands in the TURN server's configuration (`static-auth-secret`).
    ///
    /// # Errors
    /// [`WeakSecret`].
    pub fn new(text: &[u8]) -> Result<Self, WeakSecret> {
        if text.len() < MIN_SECRET {
            return Err(WeakSecret);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, text)))
    }

    /// Credentials that are good until `expiry`, the time since the Unix epoch.
    #[must_use]
    pub fn credentials(&self, asker: Asker<'_>, expiry: Duration) -> Credentials {
        let username = match asker {
            Asker::User(user) => format!("{}:{}", expiry.as_secs(), label(user)),
            Asker::Somebody(nonce) => format!("{}:{nonce:016x}", expiry.as_secs()),
        };
        let credential = Secret::new(STANDARD.encode(hmac::sign(&self.0, username.as_bytes())));
        Credentials { username, credential }
    }
}

/// A user's id as TURN servers take it, another one for each user. coturn refuses names with spaces, quotes and backslashes, and such as
/// could be SQL; a colon would end the label. So all but the plainest characters are escaped (RFC 3986, 2.1), and what is too long, or
/// looks like SQL even so, is a digest.
fn label(user: &UserId) -> String {
    let mut label = String::with_capacity(user.as_str().len());
    for byte in user.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'@' | b'+') {
            label.push(char::from(byte));
        } else {
            push_hex(&mut label, "%", byte);
        }
    }
    let lower = label.to_ascii_lowercase();
    if label.len() <= MAX_LABEL && !(lower.contains("union") && lower.contains("select")) {
        return label;
    }
    // No escape begins like this.
    let mut short = "%~".to_owned();
    for byte in &digest::digest(&digest::SHA256, user.as_str().as_bytes()).as_ref()[..16] {
        push_hex(&mut short, "", *byte);
    }
    short
}

fn push_hex(to: &mut String, before: &str, byte: u8) {
    // Writing to a string does not fail.
    let _ = write!(to, "{before}{byte:02X}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn user(text: &str) -> UserId {
        text.parse().unwrap()
    }

    #[test]
    fn fixed_credentials() {
        #[track_caller]
        fn check(secret: &str, asker: Asker<'_>, expiry: u64, username: &str, credential: &str) {
            let made = TurnSecret::new(secret.as_bytes()).unwrap().credentials(asker, Duration::from_secs(expiry));
            assert_eq!((made.username.as_str(), made.credential.reveal()), (username, credential));
        }
        // Computed by `printf %s USERNAME | openssl dgst -sha1 -hmac SECRET -binary | base64`. Whether coturn agrees, the suite `turn`
        // asks it.
        const SECRET: &str = "north-by-north-west";
        check(SECRET, Asker::Somebody(0xabc), 1_060, "1060:0000000000000abc", "OdK6Hmeppa0mMer+g6eEhQwwCU4=");
        check(SECRET, Asker::User(&user("mia")), 4_102_444_800, "4102444800:mia", "VFcXPKxiJYQGhNYeUeTKcfiEuNk=");
        let odd = user("Zoë O'Hara:1");
        check(
            SECRET,
            Asker::User(&odd),
            4_102_444_800,
            "4102444800:Zo%C3%AB%20O%27Hara%3A1",
            "KaWe8pqaq+hzDuMtBMz5+4d7KxU=",
        );
    }

    #[test]
    fn labels() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            assert_eq!(label(&user(text)), expected);
        }
        check("mia+calls@example.com", "mia+calls@example.com");
        check("auth0|5f7c", "auth0%7C5f7c");
        check("a b\"c\\d'e:f", "a%20b%22c%5Cd%27e%3Af");
        check("100%", "100%25");
        // coturn takes it for SQL.
        check("Credit Union Select", "%~DD85CFD48E12CD16165970874E009A8B");
        check(&"é".repeat(200), "%~DF20B2AA6262E99E133AA7F3614BE707");
        check(&"a".repeat(256), &"a".repeat(256));
    }

    #[test]
    fn weak_secrets_are_refused_and_none_is_shown() {
        assert_eq!(TurnSecret::new(b"fifteen-octets-").unwrap_err(), WeakSecret);
        let secret = TurnSecret::new(b"sixteen-octets-x").unwrap();
        let made = secret.credentials(Asker::Somebody(1), Duration::from_secs(1));
        let shown = format!("{secret:?} {made:?}");
        assert!(!shown.contains("sixteen") && !shown.contains(made.credential.reveal()), "{shown}");
    }

    proptest! {
        /// A TURN server takes every label, and tells every two users apart by it.
        #[test]
        fn no_two_users_have_one_label(one in "\\PC{1,80}", other in "\\PC{1,80}") {
            let users = (one.parse::<UserId>(), other.parse::<UserId>());
            if let (Ok(one), Ok(other)) = users {
                let (a, b) = (label(&one), label(&other));
                prop_assert_eq!(one == other, a == b);
                prop_assert!(a.len() <= MAX_LABEL);
                prop_assert!(a.bytes().all(|b| b.is_ascii_graphic() && !b":'\"\\".contains(&b)), "{}", a);
            }
        }
    }
}
