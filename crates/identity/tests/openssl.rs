//! Tokens that another implementation has signed, under keys that it has made: OpenSSL's.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use streamfleet_identity::{
    InvalidKeys, KeyCache, Keys, MAX_AGE, MAX_TOKEN, Need, RETRY_AFTER, TokenError, TokenPolicy, key_id, verify,
};

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"a secret of thirty-two bytes or more";

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Runs `openssl`; what it is given goes in, what it says comes back.
fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A file that goes with its owner: OpenSSL reads keys from files only.
struct File(std::path::PathBuf);

impl File {
    fn new(content: &[u8]) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("streamfleet-identity-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, content).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    Ec,
    Ed,
}

/// A private key, and what is published of it.
struct Pair {
    kind: Kind,
    private: File,
    pem: Vec<u8>,
}

impl Pair {
    fn new(kind: Kind) -> Self {
        Self::of(
            kind,
            match kind {
                Kind::Rsa => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
                Kind::Ec => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
                Kind::Ed => &["-algorithm", "ED25519"],
            },
        )
    }

    fn of(kind: Kind, options: &[&str]) -> Self {
        let private = File::new(&openssl(&[&["genpkey"][..], options].concat(), &[]));
        let pem = openssl(&["pkey", "-pubout", "-in", private.path()], &[]);
        Self { kind, private, pem }
    }

    fn algorithm(&self) -> &'static str {
        match self.kind {
            Kind::Rsa => "RS256",
            Kind::Ec => "ES256",
            Kind::Ed => "EdDSA",
        }
    }

    fn sign(&self, message: &str) -> Vec<u8> {
        let sign = ["dgst", "-sha256", "-sign", self.private.path()];
        match self.kind {
            Kind::Rsa => openssl(&sign, message.as_bytes()),
            Kind::Ec => raw(&openssl(&sign, message.as_bytes())),
            Kind::Ed => {
                let message = File::new(message.as_bytes());
                openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", self.private.path(), "-in", message.path()], &[])
            }
        }
    }

    fn token(&self, id: Option<&str>, claims: &Value) -> String {
        let mut header = json!({ "alg": self.algorithm(), "typ": "JWT" });
        if let Some(id) = id {
            header["kid"] = id.into();
        }
        let message = message(&header, claims);
        format!("{message}.{}", base64(self.sign(&message)))
    }

    /// The public key as an issuer publishes it (RFC 7517).
    fn jwk(&self, id: &str) -> Value {
        let der = openssl(&["pkey", "-pubin", "-outform", "DER"], &self.pem);
        // What is of interest stands at the end of a SubjectPublicKeyInfo (RFC 5480, 2.2; RFC 8410, 4).
        let tail = |length: usize| &der[der.len() - length..];
        match self.kind {
            Kind::Rsa => {
                let line = String::from_utf8(openssl(&["rsa", "-pubin", "-noout", "-modulus"], &self.pem)).unwrap();
                let digits = line.trim().strip_prefix("Modulus=").unwrap();
                let octets =
                    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
                let modulus: Vec<u8> = octets.collect();
                json!({ "kty": "RSA", "kid": id, "use": "sig", "n": base64(modulus), "e": "AQAB" })
            }
            Kind::Ec => {
                let (x, y) = tail(64).split_at(32);
                json!({ "kty": "EC", "kid": id, "crv": "P-256", "x": base64(x), "y": base64(y) })
            }
            Kind::Ed => json!({ "kty": "OKP", "kid": id, "crv": "Ed25519", "x": base64(tail(32)) }),
        }
    }
}

/// An ECDSA signature as JWS has it (RFC 7518, 3.4) from the two DER integers of OpenSSL's.
fn raw(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut made = Vec::new();
    for _ in 0..2 {
        let length = usize::from(rest[1]);
        let (integer, after) = rest[2..].split_at(length);
        let digits = &integer[integer.len().saturating_sub(32)..];
        made.extend(std::iter::repeat_n(0, 32 - digits.len()).chain(digits.iter().copied()));
        rest = after;
    }
    made
}

fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", base64(header.to_string()), base64(claims.to_string()))
}

/// A token under a secret, with a header that says what it likes.
fn by_secret(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let key = format!("hexkey:{hex}");
    let message = message(header, claims);
    let code = openssl(&["dgst", "-sha256", "-mac", "HMAC", "-macopt", &key, "-binary"], message.as_bytes());
    format!("{message}.{}", base64(code))
}

fn jwks(keys: &[Value]) -> Keys {
    Keys::from_jwks(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn demanding() -> TokenPolicy {
    TokenPolicy { issuer: Some("https://id.example".into()), audience: Some("voice".into()), ..TokenPolicy::default() }
}

fn claims() -> Value {
    json!({ "iss": "https://id.example", "aud": ["voice"], "sub": "ann", "exp": NOW + 300, "nbf": NOW - 1 })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

#[track_caller]
fn check(keys: &Keys, token: &str, expected: Result<&str, TokenError>) {
    let outcome = verify(token, keys, &demanding(), now());
    let outcome = outcome.map(|claims| claims.claims["sub"].as_str().unwrap().to_owned());
    assert_eq!(outcome.as_deref().map_err(|error| *error), expected, "{token}");
}

/// Everything that is wrong with a token has its own error, whatever the key is.
#[test]
fn a_signed_token_says_who_calls() {
    for kind in [Kind::Rsa, Kind::Ec, Kind::Ed] {
        let (pair, other) = (Pair::new(kind), Pair::new(kind));
        let sets = [jwks(&[pair.jwk("k1")]), Keys::from_pem(&pair.pem).unwrap()];
        for keys in &sets {
            let sign = |claims: &Value| pair.token(Some("k1"), claims);
            check(keys, &sign(&claims()), Ok("ann"));
            check(keys, &pair.token(None, &claims()), Ok("ann"));
            check(keys, &other.token(Some("k1"), &claims()), Err(TokenError::Signature));
            check(keys, &sign(&with("exp", (NOW - 60).into())), Err(TokenError::Expired));
            check(keys, &sign(&with("exp", Value::Null)), Err(TokenError::NoExpiry));
            check(keys, &sign(&with("nbf", (NOW + 61).into())), Err(TokenError::NotYet));
            check(keys, &sign(&with("aud", "video".into())), Err(TokenError::Audience));
            check(keys, &sign(&with("iss", "https://id.example.evil".into())), Err(TokenError::Issuer));
            check(keys, &sign(&with("pad", "x".repeat(MAX_TOKEN).into())), Err(TokenError::TooLong));
            // What was signed is what is read.
            let good = sign(&claims());
            let (_, signature) = good.rsplit_once('.').unwrap();
            let header = json!({ "alg": pair.algorithm(), "kid": "k1" });
            let changed = message(&header, &with("sub", "bob".into()));
            check(keys, &format!("{changed}.{signature}"), Err(TokenError::Signature));
            check(keys, &format!("{changed}."), Err(TokenError::Signature));
        }
        check(&sets[0], &pair.token(Some("k2"), &claims()), Err(TokenError::UnknownKey));
    }
}

#[test]
fn a_secret_verifies_too() {
    let keys = Keys::from_secret(SECRET).unwrap();
    let header = json!({ "alg": "HS256" });
    check(&keys, &by_secret(&header, &claims(), SECRET), Ok("ann"));
    check(&keys, &by_secret(&header, &claims(), b"another secret of thirty-two bytes"), Err(TokenError::Signature));
    check(&keys, &by_secret(&header, &with("exp", (NOW - 60).into()), SECRET), Err(TokenError::Expired));
    check(&keys, &by_secret(&header, &with("aud", Value::Null), SECRET), Err(TokenError::Audience));
}

/// The algorithm that a token names is its sender's word: it chooses among what a key is good for, and nothing else.
#[test]
fn an_algorithm_is_never_taken_on_a_tokens_word() {
    let unsigned = |header: Value| format!("{}.", message(&header, &claims()));
    for kind in [Kind::Rsa, Kind::Ec, Kind::Ed] {
        let pair = Pair::new(kind);
        for keys in [jwks(&[pair.jwk("k1")]), Keys::from_pem(&pair.pem).unwrap()] {
            // What is published is no secret, in any of the forms that it is published in.
            let der = openssl(&["pkey", "-pubin", "-outform", "DER"], &pair.pem);
            for published in [&pair.pem[..], pair.pem.trim_ascii_end(), &der] {
                let forged = by_secret(&json!({ "alg": "HS256", "kid": "k1" }), &claims(), published);
                check(&keys, &forged, Err(TokenError::UnknownKey));
            }
            for none in ["none", "None", "NONE", "nOnE", ""] {
                check(&keys, &unsigned(json!({ "alg": none })), Err(TokenError::Malformed));
            }
            check(&keys, &unsigned(json!({ "alg": pair.algorithm() })), Err(TokenError::Signature));
            check(&keys, &unsigned(json!({ "typ": "JWT" })), Err(TokenError::Malformed));
            // A key that comes with its token, and one that is to be fetched from where the token says, are the sender's.
            let mallory = Pair::new(kind);
            let header = json!({ "alg": mallory.algorithm(), "jwk": mallory.jwk("k1"), "jku": "https://evil.example" });
            let message = message(&header, &claims());
            let forged = format!("{message}.{}", base64(mallory.sign(&message)));
            check(&keys, &forged, Err(TokenError::Signature));
        }
    }
    // A key that is published for one algorithm verifies no other of its family.
    let rsa = Pair::new(Kind::Rsa);
    let mut jwk = rsa.jwk("k1");
    jwk["alg"] = "PS256".into();
    check(&jwks(&[jwk]), &rsa.token(Some("k1"), &claims()), Err(TokenError::UnknownKey));
}

#[test]
fn keys_that_are_too_short_are_none() {
    let short = Pair::of(Kind::Rsa, &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]);
    let strong = Pair::new(Kind::Ec);
    let keys = jwks(&[short.jwk("short"), strong.jwk("strong")]);
    check(&keys, &short.token(Some("short"), &claims()), Err(TokenError::UnknownKey));
    check(&keys, &strong.token(Some("strong"), &claims()), Ok("ann"));
    assert_eq!(Keys::from_pem(&short.pem).unwrap_err(), InvalidKeys::WeakRsa);
    for pair in [Pair::new(Kind::Rsa), strong, Pair::new(Kind::Ed)] {
        let private = std::fs::read(pair.private.path()).unwrap();
        assert_eq!(Keys::from_pem(&private).unwrap_err(), InvalidKeys::NotPem, "a private key is not to be given away");
    }
}

/// An issuer that rotates: a token under a key that nobody knows yet has the document fetched, and made-up key ids do not.
#[test]
fn a_new_key_is_fetched_when_it_is_met() {
    let (old, new) = (Pair::new(Kind::Ec), Pair::new(Kind::Ed));
    let (by_old, by_new) = (old.token(Some("old"), &claims()), new.token(Some("new"), &claims()));
    let (before, both, after) = (vec![old.jwk("old")], vec![old.jwk("old"), new.jwk("new")], vec![new.jwk("new")]);
    let start = Instant::now();
    let (mut cache, mut fetches) = (KeyCache::default(), 0);
    // A token that comes so much later, while the issuer publishes this; then how often it has been asked, and what came of it.
    let mut call = |at: Duration, published: &[Value], token: &str| {
        let id = key_id(token).unwrap();
        if cache.need(start + at, id.as_deref()) != Need::Nothing {
            fetches += 1;
            cache.fetched(start + at, jwks(published));
        }
        (fetches, verify(token, cache.keys().unwrap(), &demanding(), now()).map(|_| ()))
    };
    let second = Duration::from_secs(1);
    assert_eq!(call(Duration::ZERO, &before, &by_old), (1, Ok(())));
    assert_eq!(call(second, &before, &by_old), (1, Ok(())));
    for number in 0..1_000 {
        let header = json!({ "alg": "EdDSA", "kid": format!("made-up-{number}") });
        let made_up = format!("{}.AAAA", message(&header, &claims()));
        assert_eq!(call(RETRY_AFTER, &before, &made_up), (2, Err(TokenError::UnknownKey)), "one of a thousand asks");
    }
    assert_eq!(call(RETRY_AFTER + second, &both, &by_new), (2, Err(TokenError::UnknownKey)), "too soon after that");
    assert_eq!(call(RETRY_AFTER * 2, &both, &by_new), (3, Ok(())), "a few seconds later it is known");
    assert_eq!(call(RETRY_AFTER * 2, &both, &by_old), (3, Ok(())), "and the old one still");
    // Withdrawn, a key opens nothing once the set that had it is old.
    let later = RETRY_AFTER * 2 + MAX_AGE;
    assert_eq!(call(later - second, &after, &by_old), (3, Ok(())));
    assert_eq!(call(later, &after, &by_old), (4, Err(TokenError::UnknownKey)));
    assert_eq!(call(later, &after, &by_new), (4, Ok(())));
}
