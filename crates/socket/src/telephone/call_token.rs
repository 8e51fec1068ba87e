//! The token that our TwiML gives a call, and that the call's socket has to show: proof that somebody whose request was
//! signed by Twilio sent it here.
//!
//! It is a MAC and no entry in a table, so any process with the same key can verify what another one issued; only that
//! it is used once is remembered where it is used.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use ring::{hkdf, hmac};
use streamfleet_session::ServiceKey;

use crate::protocol::CallSid;

/// From the TwiML to the socket: Twilio first says what comes before `<Connect>`.
pub const TOKEN_LIFE: Duration = Duration::from_secs(300);

/// Tokens remembered as used. Only tokens of ours get there, so this takes 200 calls a second for [`TOKEN_LIFE`]; more
/// are refused. 3 MB.
pub const MAX_REDEEMED: usize = 1 << 16;

/// Random bytes in a token.
const NONCE: usize = 16;
/// SHA-256, whole.
const MAC: usize = 32;
const TIME: usize = 8;

/// What tells one time that a call was put through from all others: random, and told nobody but the telephone company. A
/// call's own id is no secret; this is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallNonce([u8; NONCE]);

impl CallNonce {
    /// A nonce of fresh random bytes.
    #[must_use]
    pub const fn from_random(bytes: [u8; NONCE]) -> Self {
        Self(bytes)
    }

    /// Its bits, for whoever has to know it elsewhere.
    #[must_use]
    pub const fn bits(self) -> u128 {
        u128::from_be_bytes(self.0)
    }
}

/// It does not show itself.
impl fmt::Debug for CallNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallNonce(…)")
    }
}

/// A call as TwiML of ours has put it through.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CallLeg {
    /// The call's own id.
    pub sid: CallSid,
    /// Which of the times that it was put through.
    pub nonce: CallNonce,
}

/// What a call was put through for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Visit {
    /// It has just come in.
    First,
    /// Its stream was over and its session was not.
    Return,
}

impl Visit {
    /// What its tokens sign: keeps them apart, and from whatever else the secret signs.
    const fn label(self) -> &'static [u8] {
        match self {
            Self::First => b"streamfleet call token\0",
            Self::Return => b"streamfleet returning call token\0",
        }
    }
}

/// The key of a deployment's call tokens. It does not show itself in `Debug`.
#[derive(Clone)]
pub struct CallTokenKey(hmac::Key);

/// Why a call's socket is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCallToken {
    /// None of ours, or of another call.
    #[error("the call's token is not valid")]
    Invalid,
    /// Too late.
    #[error("the call's token has expired")]
    Expired,
    /// It was used before.
    #[error("the call's token was used before")]
    Used,
    /// There are more calls than are kept track of.
    #[error("too many calls")]
    Busy,
}

impl CallTokenKey {
    /// A key made of a secret that all processes share: the auth token of the Twilio account does.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
    }

    /// The key of a service in a fleet, which all of its routers and workers can make of what they share (HKDF with SHA-256,
    /// RFC 5869): a call that was let in to one service is no call of another, and what it is made of cannot be had from it.
    #[must_use]
    pub fn of_service(key: &ServiceKey) -> Self {
        const INFO: &[u8] = b"streamfleet call tokens";
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]);
        let extracted = salt.extract(key.reveal().as_bytes());
        let key = extracted.expand(&[INFO], hmac::HMAC_SHA256);
        Self(key.expect("invariant: a key is as long as one step of HKDF makes").into())
    }

    /// A token for a call, of a fresh nonce. `now` is counted from the Unix epoch.
    #[must_use]
    pub fn issue(&self, call_sid: &str, nonce: CallNonce, visit: Visit, now: Duration) -> String {
        let expires = now.saturating_add(TOKEN_LIFE).as_secs().to_be_bytes();
        let mac = hmac::sign(&self.0, &message(visit, call_sid, &nonce.0, &expires));
        let bytes = [&nonce.0[..], &expires, mac.as_ref()].concat();
        hex(&bytes)
    }

    /// What a call shows that comes back because its stream is over: that it is the call whose TwiML had this in its
    /// `action` when it was put through with this nonce. As good as the call is long, and good for nothing but finding the
    /// session that began then.
    #[must_use]
    pub fn sign_return(&self, call_sid: &str, nonce: CallNonce) -> String {
        let mac = hmac::sign(&self.0, &return_message(call_sid, &nonce.0));
        hex(&[&nonce.0[..], mac.as_ref()].concat())
    }

    /// The nonce for which [`sign_return`](Self::sign_return) has said so for this call, if it has. The comparison takes the
    /// same time wherever two texts differ.
    #[must_use]
    pub fn verify_return(&self, call_sid: &str, shown: &str) -> Option<CallNonce> {
        let bytes = from_hex::<{ NONCE + MAC }>(shown)?;
        let (nonce, mac) = bytes.split_first_chunk::<NONCE>()?;
        hmac::verify(&self.0, &return_message(call_sid, nonce), mac).ok()?;
        Some(CallNonce(*nonce))
    }

    /// The token's nonce and what it is for. It is not used up: whoever lets the call in sees to that. `now` is counted from the
    /// Unix epoch.
    ///
    /// # Errors
    /// [`InvalidCallToken::Invalid`], [`InvalidCallToken::Expired`].
    pub fn look(&self, call_sid: &str, token: &str, now: Duration) -> Result<(CallNonce, Visit), InvalidCallToken> {
        let (nonce, visit, expires) = self.verify(call_sid, token).ok_or(InvalidCallToken::Invalid)?;
        if expires <= now.as_secs() { Err(InvalidCallToken::Expired) } else { Ok((CallNonce(nonce), visit)) }
    }

    /// The token's nonce, what it is for, and its end, if it is one for this call.
    fn verify(&self, call_sid: &str, token: &str) -> Option<([u8; NONCE], Visit, u64)> {
        let bytes = from_hex::<{ NONCE + TIME + MAC }>(token)?;
        let (nonce, rest) = bytes.split_first_chunk::<NONCE>()?;
        let (expires, mac) = rest.split_first_chunk::<TIME>()?;
        let is_for = |visit: &Visit| hmac::verify(&self.0, &message(*visit, call_sid, nonce, expires), mac).is_ok();
        let visit = [Visit::First, Visit::Return].into_iter().find(is_for)?;
        Some((*nonce, visit, u64::from_be_bytes(*expires)))
    }
}

impl fmt::Debug for CallTokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallTokenKey(…)")
    }
}

/// What is signed. Between the label, which ends where it says, and the call all parts have a fixed length.
fn message(visit: Visit, call_sid: &str, nonce: &[u8; NONCE], expires: &[u8; TIME]) -> Vec<u8> {
    [visit.label(), &nonce[..], expires, call_sid.as_bytes()].concat()
}

/// What is signed for a call that comes back. No time: it means the same for as long as the call lasts.
fn return_message(call_sid: &str, nonce: &[u8; NONCE]) -> Vec<u8> {
    [b"streamfleet call return\0", &nonce[..], call_sid.as_bytes()].concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The `N` bytes of a text, if it has exactly these.
fn from_hex<const N: usize>(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
    pairs.iter().map(|&[high, low]| u8::try_from(digit(high)? << 4 | digit(low)?).ok()).collect()
}

/// What a call has in its query that comes back.
pub const RETURN: &str = "return";

/// What a call shows that comes back, by the query of its `action`.
#[must_use]
pub fn returning(query: &str) -> Option<&str> {
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == RETURN).map(|(_, value)| value)
}

/// The tokens that were used and have not expired.
#[derive(Debug, Default)]
pub struct RedeemedTokens {
    /// When each expires, in seconds of the Unix epoch.
    used: HashMap<[u8; NONCE], u64>,
}

impl RedeemedTokens {
    /// Uses a token for the call that it was issued for, and gives its nonce and what for. `now` is counted from the Unix epoch.
    ///
    /// # Errors
    /// [`InvalidCallToken`].
    pub fn redeem(
        &mut self,
        key: &CallTokenKey,
        call_sid: &str,
        token: &str,
        now: Duration,
    ) -> Result<(CallNonce, Visit), InvalidCallToken> {
        let (nonce, visit, expires) = key.verify(call_sid, token).ok_or(InvalidCallToken::Invalid)?;
        let now = now.as_secs();
        if expires <= now {
            return Err(InvalidCallToken::Expired);
        }
        if self.used.contains_key(&nonce) {
            return Err(InvalidCallToken::Used);
        }
        if self.used.len() >= MAX_REDEEMED {
            self.used.retain(|_, expires| *expires > now);
            if self.used.len() >= MAX_REDEEMED {
                return Err(InvalidCallToken::Busy);
            }
        }
        self.used.insert(nonce, expires);
        Ok((CallNonce(nonce), visit))
    }
}

#[cfg(test)]
mod tests {
    use streamfleet_session::FleetSecret;

    use super::*;

    const CALL: &str = "CA1234567890ABCDE";
    const NOW: Duration = Duration::from_secs(1_700_000_000);
    const FIRST: CallNonce = CallNonce([7; NONCE]);

    #[test]
    fn once_in_time_and_for_its_call() {
        let key = CallTokenKey::new("secret");
        let token = key.issue(CALL, FIRST, Visit::First, NOW);
        let mut redeemed = RedeemedTokens::default();
        let mut check = |key: &CallTokenKey, call: &str, token: &str, after: u64, expected| {
            let now = NOW + Duration::from_secs(after);
            assert_eq!(redeemed.redeem(key, call, token, now), expected, "{call} {token} {after}");
        };
        check(&key, CALL, &token, 300, Err(InvalidCallToken::Expired));
        check(&key, "CA", &token, 0, Err(InvalidCallToken::Invalid));
        check(&CallTokenKey::new("other"), CALL, &token, 0, Err(InvalidCallToken::Invalid));
        for at in [0, 40, token.len() - 1] {
            let mut forged = token.clone().into_bytes();
            forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
            check(&key, CALL, &String::from_utf8(forged).unwrap(), 0, Err(InvalidCallToken::Invalid));
        }
        for nonsense in ["", "00", &token[2..], &token.to_uppercase(), &"é".repeat(56)] {
            check(&key, CALL, nonsense, 0, Err(InvalidCallToken::Invalid));
        }
        check(&key, CALL, &token, 299, Ok((FIRST, Visit::First)));
        check(&key, CALL, &token, 299, Err(InvalidCallToken::Used));
        assert_eq!(format!("{key:?}"), "CallTokenKey(…)");
    }

    #[test]
    fn a_fleet_has_a_key_for_each_service() {
        let key = |secret: &str, service: &str| {
            let secret: FleetSecret = secret.parse().unwrap();
            CallTokenKey::of_service(&secret.of_service(&service.parse().unwrap()))
        };
        let token = key("a-secret-of-the-fleet", "a").issue(CALL, FIRST, Visit::First, NOW);
        let check = |secret: &str, service: &str, after: u64, expected| {
            let now = NOW + Duration::from_secs(after);
            assert_eq!(key(secret, service).look(CALL, &token, now), expected, "{secret} {service} {after}");
        };
        check("a-secret-of-the-fleet", "a", 299, Ok((FIRST, Visit::First)));
        check("a-secret-of-the-fleet", "a", 300, Err(InvalidCallToken::Expired));
        check("a-secret-of-the-fleet", "b", 0, Err(InvalidCallToken::Invalid));
        check("the-secret-of-another", "a", 0, Err(InvalidCallToken::Invalid));
    }

    #[test]
    fn it_says_what_for() {
        let key = CallTokenKey::new("secret");
        for visit in [Visit::First, Visit::Return] {
            let token = key.issue(CALL, FIRST, visit, NOW);
            assert_eq!(RedeemedTokens::default().redeem(&key, CALL, &token, NOW), Ok((FIRST, visit)));
        }
    }

    #[test]
    fn a_call_that_comes_back_is_known() {
        let key = CallTokenKey::new("secret");
        let shown = key.sign_return(CALL, FIRST);
        let check = |key: &CallTokenKey, call: &str, shown: &str, expected: Option<CallNonce>| {
            assert_eq!(key.verify_return(call, shown), expected, "{call} {shown}");
        };
        check(&key, CALL, &shown, Some(FIRST));
        check(&key, CALL, &shown, Some(FIRST));
        check(&key, "CA", &shown, None);
        check(&CallTokenKey::new("other"), CALL, &shown, None);
        for nonsense in ["", "00", &shown[2..], &shown.to_uppercase(), &"é".repeat(48)] {
            check(&key, CALL, nonsense, None);
        }
        // With the nonce of another time, of which there is no proof.
        let other = key.sign_return(CALL, CallNonce([8; NONCE]));
        check(&key, CALL, &format!("{}{}", &other[..2 * NONCE], &shown[2 * NONCE..]), None);
        // One proof is none of the other kind.
        check(&key, CALL, &key.issue(CALL, FIRST, Visit::First, NOW), None);
        assert_eq!(RedeemedTokens::default().redeem(&key, CALL, &shown, NOW), Err(InvalidCallToken::Invalid));
    }

    #[test]
    fn memory_is_bounded_and_comes_back() {
        let key = CallTokenKey::new("secret");
        let mut redeemed = RedeemedTokens::default();
        let end = (NOW + TOKEN_LIFE).as_secs();
        redeemed.used.extend((0..MAX_REDEEMED as u128).map(|at| (at.to_be_bytes(), end)));
        let token = key.issue(CALL, FIRST, Visit::First, NOW);
        assert_eq!(redeemed.redeem(&key, CALL, &token, NOW), Err(InvalidCallToken::Busy));
        let later = NOW + TOKEN_LIFE;
        let next = CallNonce([8; NONCE]);
        let token = key.issue(CALL, next, Visit::Return, later);
        assert_eq!(redeemed.redeem(&key, CALL, &token, later), Ok((next, Visit::Return)));
        assert_eq!(redeemed.used.len(), 1);
    }
}
