use jsonwebtoken::Algorithm;
use proptest::prelude::*;
use ring::hmac;
use serde_json::json;

use super::*;

const SECRET: &[u8] = b"a secret of thirty-two bytes or more";
const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn keys() -> Keys {
    Keys::from_secret(SECRET).unwrap()
}

fn signed(header: &Header, claims: &Value, secret: &[u8]) -> String {
    let algorithm = match header.alg {
        Algorithm::HS384 => hmac::HMAC_SHA384,
        Algorithm::HS512 => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    };
    let encoded = |part: Vec<u8>| URL_SAFE_NO_PAD.encode(part);
    let message =
        format!("{}.{}", encoded(serde_json::to_vec(header).unwrap()), encoded(serde_json::to_vec(claims).unwrap()));
    let tag = hmac::sign(&hmac::Key::new(algorithm, secret), message.as_bytes());
    format!("{message}.{}", encoded(tag.as_ref().to_vec()))
}

fn token(claims: &Value) -> String {
    signed(&Header::new(Algorithm::HS256), claims, SECRET)
}

fn demanding() -> TokenPolicy {
    TokenPolicy { issuer: Some("https://id.example".into()), audience: Some("voice".into()), ..TokenPolicy::default() }
}

#[test]
fn what_a_token_says_is_held_against_the_policy_and_the_clock() {
    #[track_caller]
    fn check(policy: &TokenPolicy, claims: Value, expected: Result<(), TokenError>) {
        let outcome = verify(&token(&claims), &keys(), policy, now()).map(|_| ());
        assert_eq!(outcome, expected, "{claims}");
    }
    let any = TokenPolicy::default();
    check(&any, json!({ "exp": NOW + 1 }), Ok(()));
    check(&any, json!({ "exp": NOW as f64 + 0.5 }), Ok(()));
    check(&any, json!({ "exp": NOW - 59 }), Ok(()));
    check(&any, json!({ "exp": NOW - 60 }), Err(TokenError::Expired));
    check(&any, json!({ "exp": 0 }), Err(TokenError::Expired));
    check(&any, json!({}), Err(TokenError::NoExpiry));
    check(&any, json!({ "exp": "soon" }), Err(TokenError::NoExpiry));
    check(&any, json!({ "exp": -1 }), Err(TokenError::NoExpiry));
    check(&any, json!({ "exp": 1e300 }), Err(TokenError::NoExpiry));
    check(&any, json!({ "exp": NOW + 9, "nbf": NOW + 60 }), Ok(()));
    check(&any, json!({ "exp": NOW + 99, "nbf": NOW + 61 }), Err(TokenError::NotYet));
    check(&any, json!({ "exp": NOW + 99, "nbf": null }), Err(TokenError::Malformed));
    let all = demanding();
    check(&all, json!({ "exp": NOW + 9, "iss": "https://id.example", "aud": "voice" }), Ok(()));
    check(&all, json!({ "exp": NOW + 9, "iss": "https://id.example", "aud": ["x", "voice"] }), Ok(()));
    check(&all, json!({ "exp": NOW + 9, "aud": "voice" }), Err(TokenError::Issuer));
    check(&all, json!({ "exp": NOW + 9, "iss": "https://id.example/", "aud": "voice" }), Err(TokenError::Issuer));
    check(&all, json!({ "exp": NOW + 9, "iss": "https://id.example" }), Err(TokenError::Audience));
    check(&all, json!({ "exp": NOW + 9, "iss": "https://id.example", "aud": ["x"] }), Err(TokenError::Audience));
    check(
        &all,
        json!({ "exp": NOW + 9, "iss": "https://id.example", "aud": { "voice": 1 } }),
        Err(TokenError::Audience),
    );
}

#[test]
fn a_signature_is_of_a_key_that_fits() {
    let claims = json!({ "exp": NOW + 9, "sub": "ann" });
    let check = |token: &str, expected: TokenError| {
        assert_eq!(verify(token, &keys(), &TokenPolicy::default(), now()), Err(expected), "{token}");
    };
    let good = token(&claims);
    assert_eq!(verify(&good, &keys(), &TokenPolicy::default(), now()).unwrap().claims["sub"], "ann");
    check(
        &signed(&Header::new(Algorithm::HS256), &claims, b"another secret of thirty-two bytes"),
        TokenError::Signature,
    );
    // Its payload changed, its signature cut off, another algorithm named in its header.
    let parts: Vec<&str> = good.split('.').collect();
    let other = token(&json!({ "exp": NOW + 9, "sub": "bob" }));
    let body = other.split('.').nth(1).unwrap();
    check(&format!("{}.{body}.{}", parts[0], parts[2]), TokenError::Signature);
    check(&format!("{}.{}.", parts[0], parts[1]), TokenError::Signature);
    // {"alg":"none"} and {"alg":"RS256"}
    check(&format!("eyJhbGciOiJub25lIn0.{}.", parts[1]), TokenError::Malformed);
    check(&format!("eyJhbGciOiJSUzI1NiJ9.{}.{}", parts[1], parts[2]), TokenError::UnknownKey);
    let critical = Header { crit: Some(vec!["exp".into()]), ..Header::new(Algorithm::HS256) };
    check(&signed(&critical, &claims, SECRET), TokenError::Malformed);
    for text in ["", ".", "..", "a.b.c", "a.b", &"a".repeat(MAX_TOKEN)] {
        check(text, TokenError::Malformed);
    }
    check(&"a".repeat(MAX_TOKEN + 1), TokenError::TooLong);
}

/// The public key of RFC 8037, A.2, and the token of A.4; its payload is no JSON, so that it fails only after its signature.
#[test]
fn a_document_gives_keys_by_their_ids() {
    let document = br#"{"keys":[
        {"kty":"oct","kid":"secret","k":"YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcyBvciBtb3Jl"},
        {"kty":"OKP","crv":"Ed25519","kid":"ed","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        {"kty":"OKP","crv":"Ed25519","kid":"sealed","use":"enc","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        {"kty":"RSA","kid":"small","n":"AQAB","e":"AQAB"}]}"#;
    let keys = Keys::from_jwks(document).unwrap();
    let fitting = |algorithm, id| keys.fitting(algorithm, id).count();
    assert_eq!(fitting(Algorithm::EdDSA, Some("ed")), 1);
    assert_eq!(fitting(Algorithm::EdDSA, None), 1, "not the one for encryption");
    assert_eq!(fitting(Algorithm::EdDSA, Some("other")), 0);
    assert_eq!(fitting(Algorithm::HS256, Some("secret")), 0, "a secret that is published is none");
    assert_eq!(fitting(Algorithm::RS256, Some("small")), 0);
    assert!(keys.knows(Some("ed")) && keys.knows(None) && !keys.knows(Some("small")));
    // A public key is no HMAC secret, whatever the token says.
    let forged = Header { kid: Some("ed".into()), ..Header::new(Algorithm::HS256) };
    let forged = signed(&forged, &json!({ "exp": NOW + 9 }), SECRET);
    assert_eq!(verify(&forged, &keys, &TokenPolicy::default(), now()), Err(TokenError::UnknownKey));
}

proptest! {
    #[test]
    fn no_text_is_a_token_and_none_panics(text in "[a-zA-Z0-9_.=-]{0,200}") {
        prop_assert!(verify(&text, &keys(), &TokenPolicy::default(), now()).is_err());
    }

    #[test]
    fn no_document_panics(text in "\\PC{0,200}") {
        prop_assert!(Keys::from_jwks(text.as_bytes()).is_err());
    }

    /// One bit anywhere.
    #[test]
    fn a_changed_token_proves_nothing(at in 0..1_000_usize, bit in 0..7_u32) {
        let good = token(&json!({ "exp": NOW + 9, "sub": "ann" }));
        let mut bytes = good.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let changed = String::from_utf8(bytes).unwrap();
        if let Ok(claims) = verify(&changed, &keys(), &TokenPolicy::default(), now()) {
            // The last character of a part carries bits that stand for nothing.
            prop_assert_eq!(&claims.claims["sub"], "ann");
        }
    }
}
