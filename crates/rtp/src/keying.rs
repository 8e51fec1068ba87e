//! Learns one session's DTLS-SRTP keying material from the core, which has no public exporter; and whether what came was authentic,
//! which the core does not say either.
//!
//! The core takes a crypto provider per peer connection, and makes each block of an RFC 5705 export as one HMAC-SHA256
//! through it: HMAC(secret, A(i), label, randoms). [`KeyTap`] is the real provider, and keeps a copy of the blocks whose
//! label is DTLS-SRTP's (RFC 5764 section 4.2). Label, layout and hash are fixed by the RFCs; that the export goes through
//! the provider is the core's choice, so a test connects two peers through taps and has to pass for each new version.
//!
//! The core opens records of DTLS through it, too, those that it has not seen before and no others.

use rtc::crypto::{
    ActiveKeyExchange, AeadAlgorithm, AeadCipher, BlockCipherAlgorithm, CbcAlgorithm, CbcCipher, CryptoAlgorithm,
    CryptoError, HashAlgorithm, HmacAlgorithm, KeyExchangeAlgorithm, Mac, PublicKey, RTCCrypto, RTCCryptoProvider,
    RTCRandom, SecretVec, SignatureScheme, SigningKey, StreamCipher, StreamCipherAlgorithm,
};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

const LABEL: &[u8] = b"EXTRACTOR-dtls_srtp";

/// Octets of an export that are kept. The longest that is used has 60 (AES-CM: two keys of 16, two salts of 14).
const MAX_MATERIAL: usize = 64;

type Result<T> = std::result::Result<T, CryptoError>;

/// The material of one peer connection, once its DTLS handshake is done.
#[derive(Clone, Default)]
pub struct Keying {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    material: Mutex<Option<SecretVec>>,
    opened: AtomicU64,
}

impl Keying {
    /// What was exported, in whole blocks of 32 octets, so usually some octets more than were asked for; `None` before
    /// the export, and again after this call.
    pub fn take(&self) -> Option<SecretVec> {
        self.lock().take()
    }

    /// Ciphertexts of AEAD algorithms (RFC 5116) that were found authentic so far: a record of DTLS that came adds one if it was
    /// sealed with the keys of the connection and is no repetition. Suites in CBC mode (RFC 4346) add nothing.
    pub fn opened(&self) -> u64 {
        self.shared.opened.load(Relaxed)
    }

    fn append(&self, block: &[u8]) {
        let mut held = self.lock();
        let mut octets = held.take().map(SecretVec::into_bytes).unwrap_or_default();
        if octets.len() + block.len() <= MAX_MATERIAL {
            // Never grows past this, so no copy of a secret is left behind in freed memory.
            octets.reserve_exact(MAX_MATERIAL - octets.len());
            octets.extend_from_slice(block);
        }
        *held = Some(SecretVec::new(octets));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<SecretVec>> {
        // A poisoned lock cannot hold half a value: nothing between taking and putting back can panic but allocation.
        self.shared.material.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Keying {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keying").field("exported", &self.lock().is_some()).finish()
    }
}

/// A crypto provider that forwards everything, listens to one exporter label and counts what opens.
pub struct KeyTap {
    inner: Arc<dyn RTCCryptoProvider>,
    crypto: TapCrypto,
}

impl KeyTap {
    /// A provider for one peer connection, and where its keying material will be.
    #[expect(clippy::new_ret_no_self, reason = "a tap is only ever used as a provider")]
    pub fn new(inner: Arc<dyn RTCCryptoProvider>) -> (Arc<dyn RTCCryptoProvider>, Keying) {
        let keying = Keying::default();
        let crypto = TapCrypto { inner: inner.clone(), keying: keying.clone() };
        (Arc::new(Self { inner, crypto }), keying)
    }
}

impl RTCCryptoProvider for KeyTap {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn crypto(&self) -> &dyn RTCCrypto {
        &self.crypto
    }

    fn random(&self) -> &dyn RTCRandom {
        self.inner.random()
    }
}

struct TapCrypto {
    inner: Arc<dyn RTCCryptoProvider>,
    keying: Keying,
}

/// All of the trait, also what has a default: a default answers "unsupported", not with what the provider has.
impl RTCCrypto for TapCrypto {
    fn new_hmac(&self, algorithm: HmacAlgorithm, key: &[u8]) -> Result<Box<dyn Mac>> {
        let inner = self.inner.crypto().new_hmac(algorithm, key)?;
        Ok(match algorithm {
            HmacAlgorithm::Sha256 => Box::new(TapMac { inner, keying: self.keying.clone() }),
            // SHA-1 is that of STUN, SRTCP and old suites: used per packet, and never by an exporter of DTLS 1.2.
            _ => inner,
        })
    }

    fn supports(&self, algorithm: CryptoAlgorithm) -> bool {
        self.inner.crypto().supports(algorithm)
    }

    fn hash(&self, algorithm: HashAlgorithm, data: &[u8]) -> Result<Vec<u8>> {
        self.inner.crypto().hash(algorithm, data)
    }

    fn block_encrypt(&self, algorithm: BlockCipherAlgorithm, key: &[u8], block: &mut [u8]) -> Result<()> {
        self.inner.crypto().block_encrypt(algorithm, key, block)
    }

    fn new_stream_cipher(&self, algorithm: StreamCipherAlgorithm, key: &[u8]) -> Result<Box<dyn StreamCipher>> {
        self.inner.crypto().new_stream_cipher(algorithm, key)
    }

    fn new_aead(&self, algorithm: AeadAlgorithm, key: &[u8]) -> Result<Box<dyn AeadCipher>> {
        let inner = self.inner.crypto().new_aead(algorithm, key)?;
        Ok(Box::new(TapAead { inner, keying: self.keying.clone() }))
    }

    fn new_cbc(&self, algorithm: CbcAlgorithm, key: &[u8]) -> Result<Box<dyn CbcCipher>> {
        self.inner.crypto().new_cbc(algorithm, key)
    }

    fn start_key_exchange(&self, algorithm: KeyExchangeAlgorithm) -> Result<Box<dyn ActiveKeyExchange>> {
        self.inner.crypto().start_key_exchange(algorithm)
    }

    fn generate_signing_key(&self, scheme: SignatureScheme) -> Result<Arc<dyn SigningKey>> {
        self.inner.crypto().generate_signing_key(scheme)
    }

    fn import_signing_key(&self, scheme: SignatureScheme, pkcs8_der: &[u8]) -> Result<Arc<dyn SigningKey>> {
        self.inner.crypto().import_signing_key(scheme, pkcs8_der)
    }

    fn verify_signature(
        &self,
        scheme: SignatureScheme,
        key: PublicKey<'_>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<()> {
        self.inner.crypto().verify_signature(scheme, key, message, signature)
    }
}

struct TapMac {
    inner: Box<dyn Mac>,
    keying: Keying,
}

impl Mac for TapMac {
    fn output_len(&self) -> usize {
        self.inner.output_len()
    }

    fn sign(&mut self, input: &[&[u8]], output: &mut [u8]) -> Result<()> {
        self.inner.sign(input, output)?;
        if is_export(input, output.len()) {
            self.keying.append(output);
        }
        Ok(())
    }

    fn verify(&mut self, input: &[&[u8]], expected: &[u8]) -> Result<()> {
        self.inner.verify(input, expected)
    }
}

struct TapAead {
    inner: Box<dyn AeadCipher>,
    keying: Keying,
}

impl AeadCipher for TapAead {
    fn tag_len(&self) -> usize {
        self.inner.tag_len()
    }

    fn seal_in_place(&mut self, nonce: &[u8], aad: &[u8], text: &mut [u8], tag: &mut [u8]) -> Result<()> {
        self.inner.seal_in_place(nonce, aad, text, tag)
    }

    fn open_in_place(&mut self, nonce: &[u8], aad: &[u8], text: &mut [u8], tag: &[u8]) -> Result<()> {
        self.inner.open_in_place(nonce, aad, text, tag)?;
        self.keying.shared.opened.fetch_add(1, Relaxed);
        Ok(())
    }
}

/// Whether this input makes a block of output: A(i), which is as long as the hash, and then the seed, which begins with
/// the label. However it is cut into parts.
fn is_export(input: &[&[u8]], hash: usize) -> bool {
    let mut seed = input.iter().flat_map(|part| part.iter()).skip(hash);
    LABEL.iter().all(|octet| seed.next() == Some(octet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_under_the_label_are_exports() {
        let a = [7u8; 32];
        let check = |input: &[&[u8]], expected| assert_eq!(is_export(input, 32), expected, "{input:?}");
        check(&[&a, b"EXTRACTOR-dtls_srtp", &[1; 64]], true);
        check(&[&a, b"EXTRACTOR-dtls_srtp"], true);
        check(&[&a[..5], &a[5..], b"EXTRACTOR", b"", b"-dtls_srtp\x01"], true);
        check(&[b"EXTRACTOR-dtls_srtp", &[1; 64]], false); // this makes A(1)
        check(&[&a, b"EXTRACTOR-dtls_srt"], false);
        check(&[&a, b"key expansion", &[1; 64]], false);
        check(&[&a[..31], b"EXTRACTOR-dtls_srtp"], false);
        check(&[], false);
    }

    #[test]
    fn what_opens_is_counted() {
        let (provider, keying) = KeyTap::new(rtc::crypto::default_provider().unwrap());
        let mut cipher = provider.crypto().new_aead(AeadAlgorithm::Aes128Gcm, &[1; 16]).unwrap();
        let (mut text, mut tag) = (*b"text", [0; 16]);
        cipher.seal_in_place(&[2; 12], b"header", &mut text, &mut tag).unwrap();
        assert_eq!(keying.opened(), 0);
        assert!(cipher.open_in_place(&[2; 12], b"another", &mut text.clone(), &tag).is_err());
        assert_eq!(keying.opened(), 0);
        cipher.open_in_place(&[2; 12], b"header", &mut text, &tag).unwrap();
        assert_eq!((&text, keying.opened()), (b"text", 1));
    }

    #[test]
    fn keeps_the_first_blocks_once() {
        let (provider, keying) = KeyTap::new(rtc::crypto::default_provider().unwrap());
        assert!(keying.take().is_none());
        let mut mac = provider.crypto().new_hmac(HmacAlgorithm::Sha256, b"secret").unwrap();
        let mut blocks = [[0; 32]; 3];
        for (i, block) in blocks.iter_mut().enumerate() {
            mac.sign(&[&[i as u8; 32], LABEL, b"randoms"], block).unwrap();
            mac.sign(&[&[i as u8; 32], b"key expansion"], &mut [0; 32]).unwrap();
        }
        assert_eq!(keying.take().unwrap().as_ref(), blocks[..2].concat());
        assert!(keying.take().is_none());
    }
}
