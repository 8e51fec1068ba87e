//! What must hold for any token and any key set. The fuzz target and the replay of its corpus run this same function.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac::{HMAC_SHA256, HMAC_SHA384, HMAC_SHA512, Key, sign};
use streamfleet_identity::{Keys, MAX_TOKEN, TokenError, TokenPolicy, key_id, verify};

/// What the tokens of the corpus are signed with.
const SECRET: &[u8] = b"a secret of thirty-two bytes or more";
/// When they are read, in seconds since 1970.
const NOW: u64 = 1_800_000_000;

/// A token, a line, a key set.
pub(crate) fn token(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (token, document) = text.split_once('\n').unwrap_or((&text, ""));
    let policy = TokenPolicy::default();
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let secret = Keys::from_secret(SECRET).expect("it is long enough");

    let outcome = verify(token, &secret, &policy, now);
    match key_id(token) {
        Err(TokenError::TooLong) => assert!(token.len() > MAX_TOKEN),
        Err(error) => assert_eq!((error, &outcome), (TokenError::Malformed, &Err(TokenError::Malformed))),
        Ok(id) => assert!(secret.knows(id.as_deref()), "a key without an id fits every id"),
    }
    if let Ok(claims) = outcome {
        assert!(claims.expires + policy.leeway > now, "it has not expired");
        // Whoever it is from has the secret: the signature is the one that the secret gives, under an algorithm for secrets.
        let (signed, signature) = token.rsplit_once('.').expect("a token has three parts");
        let by_secret = [HMAC_SHA256, HMAC_SHA384, HMAC_SHA512].into_iter().any(|algorithm| {
            URL_SAFE_NO_PAD.encode(sign(&Key::new(algorithm, SECRET), signed.as_bytes())) == signature
        });
        assert!(by_secret, "{token}");
        assert_eq!(verify(token, &secret, &policy, claims.expires + policy.leeway), Err(TokenError::Expired));
    }
    // A set of public keys is no secret: nobody here signs with a private key, so nothing is verified.
    if let Ok(keys) = Keys::from_jwks(document.as_bytes()) {
        assert!(verify(token, &keys, &policy, now).is_err(), "{token}");
    }
}
