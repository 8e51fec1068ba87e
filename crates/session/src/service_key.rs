//! Keys of single services, made of the fleet's secret: a worker that has one opens to the routers of its own service, and whoever
//! takes it from there has no way to the workers of another.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ring::hmac;

use crate::id::{ParseError, ServiceName};
use crate::token::{FleetSecret, equal, read_hex, write_hex};

/// Keeps what is signed here apart from whatever else is made of the secret. The zero byte ends it: no name has one.
const LABEL: &[u8] = b"streamfleet service key 1\0";

/// The same of what a service's workers log into the store with.
const STORE: &[u8] = b"streamfleet store password 1\0";

/// Bytes of a key: SHA-256, whole.
const LEN: usize = 32;

/// What routers show the workers of one service: `sfsk_` and 64 lower-case hexadecimal digits, which are HMAC-SHA-256 (RFC 2104) of
/// `streamfleet service key 1`, a zero byte and the service's name, under the [fleet's secret](FleetSecret). Who has it can neither
/// tell the secret nor make the key of another service.
#[derive(Clone)]
pub struct ServiceKey(Arc<str>);

impl ServiceKey {
    /// What its text begins with, so that it is never taken for a fleet's secret.
    pub const PREFIX: &str = "sfsk_";

    /// Whether this is the key that somebody presents. Takes the same time wherever two texts differ.
    #[must_use]
    pub fn matches(&self, presented: &[u8]) -> bool {
        equal(self.0.as_bytes(), presented)
    }

    /// The key in clear: to be sent to a worker of its service, or written where such a worker reads it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceKey(…)")
    }
}

impl FromStr for ServiceKey {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = ParseError::Form { what: "a service's key", rule: "must be sfsk_ and 64 hexadecimal digits" };
        let digits = text.strip_prefix(Self::PREFIX).and_then(|digits| read_hex::<LEN>(digits.as_bytes()));
        digits.map(|_| Self(text.into())).ok_or(wrong)
    }
}

impl FleetSecret {
    /// The key of a service's workers. The same for everybody who has the secret.
    #[must_use]
    pub fn of_service(&self, service: &ServiceName) -> ServiceKey {
        ServiceKey([ServiceKey::PREFIX, &self.sign(LABEL, service)].concat().into())
    }

    /// The password of a service's user of the store, in clear: 64 lower-case hexadecimal digits, made like its key of
    /// `streamfleet store password 1`. Nobody has to keep it: whoever has the secret makes the same.
    #[must_use]
    pub fn store_password_of(&self, service: &ServiceName) -> String {
        self.sign(STORE, service)
    }

    fn sign(&self, label: &[u8], service: &ServiceName) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.reveal().as_bytes());
        let mut context = hmac::Context::with_key(&key);
        context.update(label);
        context.update(service.as_str().as_bytes());
        write_hex(context.sign().as_ref())
    }
}

/// What a worker of a fleet is given to know its routers by: the fleet's secret, as one that people start is, or no more than the
/// key of the service that it serves.
#[derive(Debug, Clone)]
pub enum FleetKey {
    /// It could be asked for any service of the fleet.
    Fleet(FleetSecret),
    /// It serves one.
    Service(ServiceKey),
}

impl FleetKey {
    /// The key that routers show for a service, if they know that this worker serves it.
    #[must_use]
    pub fn of_service(&self, service: &ServiceName) -> ServiceKey {
        match self {
            Self::Fleet(secret) => secret.of_service(service),
            Self::Service(key) => key.clone(),
        }
    }
}

impl FromStr for FleetKey {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.starts_with(ServiceKey::PREFIX) {
            text.parse().map(Self::Service)
        } else {
            text.parse().map(Self::Fleet)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "a-secret-of-the-fleet";

    fn key(secret: &str, service: &str) -> String {
        let secret: FleetSecret = secret.parse().unwrap();
        secret.of_service(&service.parse().unwrap()).reveal().to_owned()
    }

    /// Made with Python: `hmac.new(secret, b"streamfleet service key 1\0" + name, sha256).hexdigest()`.
    #[test]
    fn keys_are_what_others_compute() {
        let check = |secret: &str, service: &str, expected: &str| {
            assert_eq!(key(secret, service), format!("sfsk_{expected}"), "{secret} {service}");
        };
        check(SECRET, "echo", "14ad4b7347e40e181e82ce6a47a4c6d6a14c6611af121ca6df749352e7a452fb");
        check(SECRET, "voice/assistant", "4922503e962bdd168a93ee0c40b49a7bf2c850577333e4041e1d936bb184aa3f");
        check("the-secret-of-another", "echo", "d42292edcd6900e55688515788eaa927ad356545aeb67c0c870f8513e965ff8e");
        let secret: FleetSecret = SECRET.parse().unwrap();
        let password = secret.store_password_of(&"voice/echo".parse().unwrap());
        assert_eq!(password, "493fd89c0fde5158784ec4b6ee30ce09875a7028c8a9c444be779f95d0e256a5");
    }

    #[test]
    fn a_key_is_read_as_it_is_written() {
        let text = key(SECRET, "echo");
        let read: ServiceKey = text.parse().unwrap();
        assert!(read.matches(text.as_bytes()) && read.reveal() == text);
        let wrong = "a service's key must be sfsk_ and 64 hexadecimal digits";
        for other in ["", "sfsk_", SECRET, &text[5..], &text[..68], &format!("{text}0"), &text.to_uppercase()] {
            let refused = other.parse::<ServiceKey>().map(|_| ()).map_err(|error| error.to_string());
            assert_eq!(refused, Err(wrong.to_owned()), "{other:?}");
            assert!(!read.matches(other.as_bytes()), "{other:?}");
        }
        assert_eq!(format!("{read:?}"), "ServiceKey(…)");
    }

    #[test]
    fn what_a_worker_is_given() {
        let check = |text: &str, service: &str, expected: Result<&str, &str>| {
            let given = text.parse::<FleetKey>().map_err(|error| error.to_string());
            let shown = given.map(|given| given.of_service(&service.parse().unwrap()).reveal().to_owned());
            assert_eq!(shown.as_deref().map_err(String::as_str), expected, "{text} {service}");
        };
        let (echo, tone) = (key(SECRET, "echo"), key(SECRET, "tone"));
        check(SECRET, "echo", Ok(&echo));
        check(SECRET, "tone", Ok(&tone));
        check(&echo, "echo", Ok(&echo));
        // Its routers show another one, and are strangers.
        check(&echo, "tone", Ok(&echo));
        check("sfsk_0", "echo", Err("a service's key must be sfsk_ and 64 hexadecimal digits"));
        check("short", "echo", Err("the fleet's secret must be at least 16 characters long: it opens every worker"));
        let given: FleetKey = echo.parse().unwrap();
        assert_eq!(
            format!("{given:?} {:?}", FleetKey::Fleet(SECRET.parse().unwrap())),
            "Service(ServiceKey(…)) Fleet(FleetSecret(…))"
        );
    }

    #[test]
    fn the_fleet_s_secret_is_no_key() {
        let refused = key(SECRET, "echo").parse::<FleetSecret>().map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(
            refused,
            Err("the fleet's secret must not be the key of a service: nothing can be made of that".to_owned())
        );
    }

    proptest! {
        #[test]
        fn each_secret_and_each_service_has_its_own(
            secret in "[!-~]{16,40}", other in "[!-~]{16,40}", service in "[a-z]{1,9}", another in "[a-z]{1,9}/[a-z]{1,9}",
        ) {
            prop_assume!(!secret.starts_with(ServiceKey::PREFIX) && !other.starts_with(ServiceKey::PREFIX));
            prop_assert_ne!(key(&secret, &service), key(&secret, &another));
            prop_assert_eq!(key(&secret, &service) == key(&other, &service), secret == other);
        }
    }
}
