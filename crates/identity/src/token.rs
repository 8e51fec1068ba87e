//! Tokens: JSON Web Tokens (RFC 7519) in compact form, signed (RFC 7515).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Header, decode_header};
use serde_json::{Map, Value};

use crate::keys::Keys;
use crate::signature::is_valid;

/// The longest token, in bytes: what proxies let through in a header together with the rest of it.
pub const MAX_TOKEN: usize = 8 * 1024;

/// What a service demands of a token besides its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPolicy {
    /// `iss` has to be this.
    pub issuer: Option<String>,
    /// `aud` has to be this, or to have it.
    pub audience: Option<String>,
    /// How far clocks may differ.
    pub leeway: Duration,
}

impl Default for TokenPolicy {
    /// Any issuer and audience; a minute, as clocks of machines differ that nobody looks after.
    fn default() -> Self {
        Self { issuer: None, audience: None, leeway: Duration::from_secs(60) }
    }
}

/// What a verified token says.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// All of it.
    pub claims: Map<String, Value>,
    /// Until when.
    pub expires: SystemTime,
}

/// Why a token proves nothing. None of these repeats any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// More than [`MAX_TOKEN`].
    #[error("a token must be at most {MAX_TOKEN} bytes long")]
    TooLong,
    /// It is no signed token, or it is encrypted, or demands what we do not know (`crit`).
    #[error("this is no signed JSON Web Token")]
    Malformed,
    /// No key fits its algorithm and key id.
    #[error("no key is known for this token")]
    UnknownKey,
    /// The signature is not of any key that fits.
    #[error("the token's signature is wrong")]
    Signature,
    /// It says nothing of when it expires, or not as a number.
    #[error("a token must have the number \"exp\"")]
    NoExpiry,
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYet,
    /// Another issuer's.
    #[error("the token is of another issuer")]
    Issuer,
    /// For somebody else.
    #[error("the token is for another audience")]
    Audience,
}

impl TokenError {
    /// A stable label for metrics and audit.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::NoExpiry => "no_expiry",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
        }
    }
}

/// What a token says, if it was signed with one of `keys` and holds now.
///
/// Algorithms are RS, PS, ES and EdDSA for public keys, HS for a secret; `none` is none. A key never verifies an algorithm of
/// another family, whatever the token says.
///
/// # Errors
/// [`TokenError`].
pub fn verify(token: &str, keys: &Keys, policy: &TokenPolicy, now: SystemTime) -> Result<Claims, TokenError> {
    let header = header(token)?;
    // JWS compact serialisation: header.payload.signature, of which the first two are what is signed.
    let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (_, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
    let [payload, signature] =
        [payload, signature].map(|part| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed));
    let (payload, signature) = (payload?, signature?);
    let mut fitting = keys.fitting(header.alg, header.kid.as_deref()).peekable();
    if fitting.peek().is_none() {
        return Err(TokenError::UnknownKey);
    }
    if !fitting.any(|key| is_valid(&key.key, header.alg, message.as_bytes(), &signature)) {
        return Err(TokenError::Signature);
    }
    let claims: Map<String, Value> = serde_json::from_slice(&payload).map_err(|_| TokenError::Malformed)?;
    let expires = check(&claims, policy, now)?;
    Ok(Claims { claims, expires })
}

/// The id of the key that a token says it was signed with (RFC 7515, 4.1.4), for [`KeyCache::need`](crate::KeyCache::need).
/// Nothing is proven by it.
///
/// # Errors
/// [`TokenError::TooLong`] and [`TokenError::Malformed`].
pub fn key_id(token: &str) -> Result<Option<String>, TokenError> {
    header(token).map(|header| header.kid)
}

fn header(token: &str) -> Result<Header, TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::TooLong);
    }
    let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
    // What must be understood and is not (RFC 7515, 4.1.11).
    if header.crit.is_some() || header.enc.is_some() {
        return Err(TokenError::Malformed);
    }
    Ok(header)
}

/// Times and names.
fn check(claims: &Map<String, Value>, policy: &TokenPolicy, now: SystemTime) -> Result<SystemTime, TokenError> {
    let expires = claims.get("exp").and_then(time).ok_or(TokenError::NoExpiry)?;
    if expires.checked_add(policy.leeway).is_some_and(|end| end <= now) {
        return Err(TokenError::Expired);
    }
    if let Some(from) = claims.get("nbf") {
        let from = time(from).ok_or(TokenError::Malformed)?;
        if now.checked_add(policy.leeway).is_some_and(|latest| latest < from) {
            return Err(TokenError::NotYet);
        }
    }
    if let Some(issuer) = &policy.issuer
        && claims.get("iss").and_then(Value::as_str) != Some(issuer)
    {
        return Err(TokenError::Issuer);
    }
    if let Some(audience) = &policy.audience {
        let is_for_us = match claims.get("aud") {
            Some(Value::String(only)) => only == audience,
            Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(audience)),
            _ => false,
        };
        if !is_for_us {
            return Err(TokenError::Audience);
        }
    }
    Ok(expires)
}

/// A NumericDate (RFC 7519, 2): seconds since the epoch, perhaps with a fraction.
fn time(value: &Value) -> Option<SystemTime> {
    let seconds = value.as_f64().filter(|seconds| seconds.is_finite() && *seconds >= 0.0)?;
    UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

#[cfg(test)]
mod tests;
