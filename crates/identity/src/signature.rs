//! Signatures of compact tokens (RFC 7515, 7.1), verified by `ring`: the cryptography of the whole product.

use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use ring::{error, hmac};

/// Whether `signature` is that of `message` under this key and algorithm. The key's family has been looked at.
pub(crate) fn is_valid(key: &DecodingKey, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
    let verified = match algorithm {
        Algorithm::HS256 => shared(hmac::HMAC_SHA256, key, message, signature),
        Algorithm::HS384 => shared(hmac::HMAC_SHA384, key, message, signature),
        Algorithm::HS512 => shared(hmac::HMAC_SHA512, key, message, signature),
        Algorithm::RS256 => rsa(&RSA_PKCS1_2048_8192_SHA256, key, message, signature),
        Algorithm::RS384 => rsa(&RSA_PKCS1_2048_8192_SHA384, key, message, signature),
        Algorithm::RS512 => rsa(&RSA_PKCS1_2048_8192_SHA512, key, message, signature),
        Algorithm::PS256 => rsa(&RSA_PSS_2048_8192_SHA256, key, message, signature),
        Algorithm::PS384 => rsa(&RSA_PSS_2048_8192_SHA384, key, message, signature),
        Algorithm::PS512 => rsa(&RSA_PSS_2048_8192_SHA512, key, message, signature),
        Algorithm::ES256 => octets(&ECDSA_P256_SHA256_FIXED, key, message, signature),
        Algorithm::ES384 => octets(&ECDSA_P384_SHA384_FIXED, key, message, signature),
        Algorithm::EdDSA => octets(&ED25519, key, message, signature),
        // One that the library has learnt since: no key of ours is of its family.
        _ => Err(error::Unspecified),
    };
    verified.is_ok()
}

fn shared(algorithm: hmac::Algorithm, key: &DecodingKey, message: &[u8], tag: &[u8]) -> Result<(), error::Unspecified> {
    let secret = key.try_get_as_bytes().map_err(|_| error::Unspecified)?;
    hmac::verify(&hmac::Key::new(algorithm, secret), message, tag)
}

fn rsa(
    parameters: &'static RsaParameters,
    key: &DecodingKey,
    message: &[u8],
    signature: &[u8],
) -> Result<(), error::Unspecified> {
    match key.kind() {
        DecodingKeyKind::SecretOrDer(der) => UnparsedPublicKey::new(parameters, der).verify(message, signature),
        DecodingKeyKind::RsaModulusExponent { n, e } => {
            // Numbers in a key set have no leading zeros (RFC 7518, 2). Some issuers write them as DER does, with one.
            let (n, e) = (positive(n), positive(e));
            RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
        }
    }
}

fn octets(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &DecodingKey,
    message: &[u8],
    signature: &[u8],
) -> Result<(), error::Unspecified> {
    let key = key.try_get_as_bytes().map_err(|_| error::Unspecified)?;
    UnparsedPublicKey::new(algorithm, key).verify(message, signature)
}

fn positive(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|octet| **octet == 0).count();
    &number[zeros..]
}
