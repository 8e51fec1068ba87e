//! From DTLS-SRTP's exported material to ciphers.

use crate::index::Index;
use rtc::crypto::{
    AeadAlgorithm, AeadCipher, BlockCipherAlgorithm, CryptoError, HmacAlgorithm, Mac, RTCCrypto, SecretVec,
    StreamCipher, StreamCipherAlgorithm, constant_time_eq,
};

/// Octets of a master key in both profiles.
const KEY: usize = 16;
/// Octets of an AES block.
const BLOCK: usize = 16;
/// Octets of the longest salt, that of AES-CM.
const SALT: usize = 14;
/// Octets of an HMAC-SHA1 and of its key.
const SHA1: usize = 20;

/// A protection profile (RFC 5764 section 4.1.2, RFC 7714 section 14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// AEAD_AES_128_GCM: less than half the cost of the other.
    AeadAes128Gcm,
    /// AES128_CM_HMAC_SHA1_80, which every client has.
    Aes128CmSha1_80,
}

impl Profile {
    /// By the name that the core's statistics give it (the IANA registry's "DTLS-SRTP Protection Profiles").
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "SRTP_AEAD_AES_128_GCM" => Some(Self::AeadAes128Gcm),
            "SRTP_AES128_CM_HMAC_SHA1_80" => Some(Self::Aes128CmSha1_80),
            _ => None,
        }
    }

    /// Octets that sealing adds to a packet.
    pub const fn tag_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm => 16,
            Self::Aes128CmSha1_80 => 10,
        }
    }

    const fn salt_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm => 12,
            Self::Aes128CmSha1_80 => 14,
        }
    }

    /// Octets that the exporter has to give: both keys, then both salts (RFC 5764 section 4.2).
    pub const fn material_len(self) -> usize {
        2 * (KEY + self.salt_len())
    }
}

/// Which side of the DTLS handshake an endpoint was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `a=setup:active`.
    Client,
    /// `a=setup:passive`.
    Server,
}

/// Why there are no keys.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The exporter's output is too short for the profile.
    #[error("{actual} octets of keying material, {expected} needed")]
    Material {
        /// What the profile takes.
        expected: usize,
        /// What there was.
        actual: usize,
    },
    /// The provider lacks a primitive.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// Master keys and salts of both directions.
pub struct Keys {
    profile: Profile,
    local: Master,
    remote: Master,
}

struct Master {
    key: SecretVec,
    salt: SecretVec,
}

impl Keys {
    /// Splits the exporter's output, which may be longer than needed, for the endpoint that was `role`.
    ///
    /// # Errors
    /// If it is too short.
    pub fn from_exporter(material: &[u8], profile: Profile, role: Role) -> Result<Self, KeyError> {
        let expected = profile.material_len();
        let Some(material) = material.get(..expected) else {
            return Err(KeyError::Material { expected, actual: material.len() });
        };
        let (keys, salts) = material.split_at(2 * KEY);
        let ((client_key, server_key), (client_salt, server_salt)) =
            (keys.split_at(KEY), salts.split_at(profile.salt_len()));
        let master =
            |key: &[u8], salt: &[u8]| Master { key: SecretVec::new(key.to_vec()), salt: SecretVec::new(salt.to_vec()) };
        let (client, server) = (master(client_key, client_salt), master(server_key, server_salt));
        let (local, remote) = match role {
            Role::Client => (client, server),
            Role::Server => (server, client),
        };
        Ok(Self { profile, local, remote })
    }

    /// The profile they are for.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// What seals outgoing packets.
    pub(super) fn sealing(&self, crypto: &dyn RTCCrypto) -> Result<Cipher, KeyError> {
        Cipher::new(crypto, self.profile, &self.local)
    }

    /// What opens incoming packets.
    pub(super) fn opening(&self, crypto: &dyn RTCCrypto) -> Result<Cipher, KeyError> {
        Cipher::new(crypto, self.profile, &self.remote)
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// The session keys of one direction.
pub(super) struct Cipher {
    algorithm: Algorithm,
    salt: [u8; SALT],
    profile: Profile,
}

enum Algorithm {
    Gcm(Box<dyn AeadCipher>),
    CmSha1(Box<dyn StreamCipher>, Box<dyn Mac>),
}

/// What key derivation makes (RFC 3711 section 4.3.2).
#[derive(Clone, Copy)]
enum Label {
    Encryption = 0,
    Authentication = 1,
    Salt = 2,
}

impl Cipher {
    fn new(crypto: &dyn RTCCrypto, profile: Profile, master: &Master) -> Result<Self, KeyError> {
        let encryption = derive(crypto, master, Label::Encryption, KEY)?;
        let algorithm = match profile {
            Profile::AeadAes128Gcm => Algorithm::Gcm(crypto.new_aead(AeadAlgorithm::Aes128Gcm, encryption.as_ref())?),
            Profile::Aes128CmSha1_80 => {
                let authentication = derive(crypto, master, Label::Authentication, SHA1)?;
                Algorithm::CmSha1(
                    crypto.new_stream_cipher(StreamCipherAlgorithm::Aes128Ctr, encryption.as_ref())?,
                    crypto.new_hmac(HmacAlgorithm::Sha1, authentication.as_ref())?,
                )
            }
        };
        let mut salt = [0; SALT];
        salt[..profile.salt_len()].copy_from_slice(derive(crypto, master, Label::Salt, profile.salt_len())?.as_ref());
        Ok(Self { algorithm, salt, profile })
    }

    pub(super) fn profile(&self) -> Profile {
        self.profile
    }

    /// Encrypts what follows the first `header` octets of `packet` and writes the tag to `tag`, which has the profile's
    /// length.
    pub(super) fn seal(
        &mut self,
        packet: &mut [u8],
        header: usize,
        ssrc: u32,
        index: Index,
        tag: &mut [u8],
    ) -> Result<(), CryptoError> {
        let (gcm, counter) = (self.gcm_nonce(ssrc, index), self.counter(ssrc, index));
        match &mut self.algorithm {
            Algorithm::Gcm(aead) => {
                let (associated, text) = packet.split_at_mut(header);
                aead.seal_in_place(&gcm, associated, text, tag)
            }
            Algorithm::CmSha1(stream, mac) => {
                stream.apply_keystream(&counter, &mut packet[header..])?;
                tag.copy_from_slice(&authenticate(mac.as_mut(), packet, index)?[..tag.len()]);
                Ok(())
            }
        }
    }

    /// Checks `tag` and decrypts what follows the first `header` octets of `packet`.
    pub(super) fn open(
        &mut self,
        packet: &mut [u8],
        header: usize,
        ssrc: u32,
        index: Index,
        tag: &[u8],
    ) -> Result<(), CryptoError> {
        let (gcm, counter) = (self.gcm_nonce(ssrc, index), self.counter(ssrc, index));
        match &mut self.algorithm {
            Algorithm::Gcm(aead) => {
                let (associated, text) = packet.split_at_mut(header);
                aead.open_in_place(&gcm, associated, text, tag)
            }
            Algorithm::CmSha1(stream, mac) => {
                let expected = authenticate(mac.as_mut(), packet, index)?;
                if !constant_time_eq(&expected[..tag.len()], tag) {
                    return Err(CryptoError::AuthenticationFailed);
                }
                stream.apply_keystream(&counter, &mut packet[header..])
            }
        }
    }

    /// RFC 7714 section 8.1: two zero octets, SSRC, index, XORed with the salt.
    fn gcm_nonce(&self, ssrc: u32, index: Index) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[2..6].copy_from_slice(&ssrc.to_be_bytes());
        nonce[6..].copy_from_slice(&index.get().to_be_bytes()[2..]);
        nonce.iter_mut().zip(&self.salt).for_each(|(a, b)| *a ^= b);
        nonce
    }

    /// RFC 3711 section 4.1.1: salt * 2^16, SSRC * 2^64 and index * 2^16, XORed.
    fn counter(&self, ssrc: u32, index: Index) -> [u8; BLOCK] {
        let mut counter = [0; BLOCK];
        counter[4..8].copy_from_slice(&ssrc.to_be_bytes());
        counter[8..14].copy_from_slice(&index.get().to_be_bytes()[2..]);
        counter.iter_mut().zip(&self.salt).for_each(|(a, b)| *a ^= b);
        counter
    }
}

/// HMAC-SHA1 over the packet and the roll-over counter (RFC 3711 section 4.2).
fn authenticate(mac: &mut dyn Mac, packet: &[u8], index: Index) -> Result<[u8; SHA1], CryptoError> {
    let mut tag = [0; SHA1];
    mac.sign(&[packet, &index.roll_over_counter().to_be_bytes()], &mut tag)?;
    Ok(tag)
}

/// RFC 3711 section 4.3.3 with a key derivation rate of 0: the keystream of AES in counter mode, started at the salt with
/// the label XORed in.
fn derive(crypto: &dyn RTCCrypto, master: &Master, label: Label, len: usize) -> Result<SecretVec, CryptoError> {
    let mut output = SecretVec::new(vec![0; len.next_multiple_of(BLOCK)]);
    for (i, block) in output.as_mut().chunks_exact_mut(BLOCK).enumerate() {
        block[..master.salt.len()].copy_from_slice(master.salt.as_ref());
        block[7] ^= label as u8;
        block[BLOCK - 1] = i as u8;
        crypto.block_encrypt(BlockCipherAlgorithm::Aes128, master.key.as_ref(), block)?;
    }
    Ok(SecretVec::new(output.as_ref()[..len].to_vec()))
}
