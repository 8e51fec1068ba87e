//! Keys that verify signatures.

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};

/// Keys of one issuer. Issuers publish two or three at a time; each costs a verification for a token that names none.
pub const MAX_KEYS: usize = 32;
/// A JWKS document, in bytes: thirty-two RSA keys with their certificates fit.
pub const MAX_DOCUMENT: usize = 256 * 1024;
/// The shortest RSA modulus (RFC 7518, 3.3).
pub const MIN_RSA_BITS: usize = 2_048;
/// The shortest secret: as long as the hash of HS256 (RFC 7518, 3.2).
pub const MIN_SECRET_BYTES: usize = 32;

/// Why a set of keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeys {
    /// More than [`MAX_DOCUMENT`].
    #[error("the key set must be at most {MAX_DOCUMENT} bytes long")]
    TooLarge,
    /// Not a JWKS document.
    #[error("the key set is no JWKS document (RFC 7517)")]
    NotJwks,
    /// More than [`MAX_KEYS`].
    #[error("the key set has more than {MAX_KEYS} keys")]
    TooMany,
    /// None that can verify a signature.
    #[error("the key set has no key that verifies RS, PS, ES or EdDSA signatures")]
    NoKey,
    /// The PEM text holds no public key.
    #[error("this is no PEM public key (RSA, EC or Ed25519)")]
    NotPem,
    /// An RSA key of less than [`MIN_RSA_BITS`].
    #[error("an RSA key must have at least {MIN_RSA_BITS} bits")]
    WeakRsa,
    /// A secret of less than [`MIN_SECRET_BYTES`].
    #[error("a secret must have at least {MIN_SECRET_BYTES} bytes")]
    ShortSecret,
}

/// The keys of one issuer.
#[derive(Debug, Clone)]
pub struct Keys(Vec<Key>);

#[derive(Debug, Clone)]
pub(crate) struct Key {
    id: Option<String>,
    /// What the issuer says it is for; any of its family if it says nothing.
    algorithm: Option<Algorithm>,
    pub(crate) key: DecodingKey,
}

impl Keys {
    /// The keys of a JWKS document (RFC 7517) that verify signatures. Keys of other kinds, for other uses, and RSA keys under
    /// [`MIN_RSA_BITS`] are left out: sets hold encryption keys too. Symmetric keys never come from a document: it is public.
    ///
    /// # Errors
    /// [`InvalidKeys`].
    pub fn from_jwks(document: &[u8]) -> Result<Self, InvalidKeys> {
        if document.len() > MAX_DOCUMENT {
            return Err(InvalidKeys::TooLarge);
        }
        let set: JwkSet = serde_json::from_slice(document).map_err(|_| InvalidKeys::NotJwks)?;
        if set.keys.len() > MAX_KEYS {
            return Err(InvalidKeys::TooMany);
        }
        let keys: Vec<Key> = set.keys.iter().filter_map(Key::from_jwk).collect();
        if keys.is_empty() { Err(InvalidKeys::NoKey) } else { Ok(Self(keys)) }
    }

    /// A single public key in PEM.
    ///
    /// # Errors
    /// [`InvalidKeys::NotPem`], as for a private key, and [`InvalidKeys::WeakRsa`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, InvalidKeys> {
        let key = DecodingKey::from_rsa_pem(pem)
            .or_else(|_| DecodingKey::from_ec_pem(pem))
            .or_else(|_| DecodingKey::from_ed_pem(pem))
            .map_err(|_| InvalidKeys::NotPem)?;
        if let (AlgorithmFamily::Rsa, DecodingKeyKind::SecretOrDer(der)) = (key.family(), key.kind()) {
            match bits_of_der(der) {
                0 => return Err(InvalidKeys::NotPem),
                bits if bits < MIN_RSA_BITS => return Err(InvalidKeys::WeakRsa),
                _ => {}
            }
        }
        Ok(Self(vec![Key { id: None, algorithm: None, key }]))
    }

    /// A secret that the issuer shares with this service.
    ///
    /// # Errors
    /// [`InvalidKeys::ShortSecret`].
    pub fn from_secret(secret: &[u8]) -> Result<Self, InvalidKeys> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err(InvalidKeys::ShortSecret);
        }
        Ok(Self(vec![Key { id: None, algorithm: None, key: DecodingKey::from_secret(secret) }]))
    }

    /// Whether a token with this key id could be verified.
    #[must_use]
    pub fn knows(&self, id: Option<&str>) -> bool {
        id.is_none() || self.0.iter().any(|key| key.id.is_none() || key.id.as_deref() == id)
    }

    /// The keys that a token of this algorithm and key id may be signed with. A key without an id fits every id; a token
    /// without one, every key.
    pub(crate) fn fitting<'a>(&'a self, algorithm: Algorithm, id: Option<&'a str>) -> impl Iterator<Item = &'a Key> {
        self.0.iter().filter(move |key| {
            // Never by the token's word alone: a public key must not be taken for an HMAC secret.
            key.key.family() == algorithm.family()
                && key.algorithm.is_none_or(|only| only == algorithm)
                && (id.is_none() || key.id.is_none() || key.id.as_deref() == id)
        })
    }
}

impl Key {
    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        if common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
            return None;
        }
        if common.key_operations.as_ref().is_some_and(|allowed| !allowed.contains(&KeyOperations::Verify)) {
            return None;
        }
        match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) if bits_of_base64(&rsa.n) < MIN_RSA_BITS => return None,
            AlgorithmParameters::OctetKey(_) | AlgorithmParameters::Other(_) => return None,
            _ => {}
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let algorithm = match &common.key_algorithm {
            // One that says what it is for, and that is for something else than signatures.
            Some(named) => Some(named.to_string().parse::<Algorithm>().ok()?),
            None => None,
        };
        if key.family() == AlgorithmFamily::Hmac {
            return None;
        }
        Some(Self { id: common.key_id.clone(), algorithm, key })
    }
}

/// At most this many bits stand in a base64url text (RFC 7515, 2): six a character, whole octets.
fn bits_of_base64(text: &str) -> usize {
    text.trim_end_matches('=').len() * 6 / 8 * 8
}

/// The bits of the modulus of an RSAPublicKey in DER (RFC 8017, A.1.1); 0 if it is none. A private key is none: it begins with its
/// version, which is zero.
fn bits_of_der(der: &[u8]) -> usize {
    let modulus = element(der, 0x30).and_then(|sequence| element(sequence, 0x02)).unwrap_or_default();
    let zeros = modulus.iter().take_while(|octet| **octet == 0).count();
    let first = modulus.get(zeros).map_or(0, |octet| octet.leading_zeros() as usize);
    ((modulus.len() - zeros) * 8).saturating_sub(first)
}

/// What the element of this tag holds that the text begins with (X.690, 8.1).
fn element(der: &[u8], tag: u8) -> Option<&[u8]> {
    let (length, rest) = match der {
        [first, length @ 0..=0x7f, rest @ ..] if *first == tag => (usize::from(*length), rest),
        [first, 0x81, length, rest @ ..] if *first == tag => (usize::from(*length), rest),
        [first, 0x82, high, low, rest @ ..] if *first == tag => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    rest.get(..length)
}
