//! What a telephone call is made with.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rand::Rng as _;
use reqwest::header::HeaderMap;
use streamfleet_session::SessionId;

use super::words::{Counters, MediaStream};
use crate::options::{ServiceUrl, Timeouts, Tls};

/// What a telephone network buffers before it plays: about what Twilio does.
const DELAY: Duration = Duration::from_millis(60);

/// Whether the service is asked first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Incoming {
    /// Post to `{url}/telephone/incoming` and follow the TwiML: what happens when somebody phones.
    #[default]
    Ask,
    /// Connect to `{url}/telephone/handler` at once, for services whose TwiML comes from elsewhere.
    Skip,
}

/// The token with which a telephone company signs its requests. A secret.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthToken(String);

impl AuthToken {
    /// The token, unless it is empty.
    pub fn new(token: impl Into<String>) -> Option<Self> {
        let token = token.into();
        (!token.is_empty()).then_some(Self(token))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AuthToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthToken(…)")
    }
}

/// Everything that a telephone call is made with. [`PhoneOptions::new`] fills in what most calls want.
#[derive(Clone)]
pub struct PhoneOptions {
    /// The service.
    pub url: ServiceUrl,
    /// The stream's id, `MZ` and 32 hexadecimal digits: the session's id at the server.
    pub stream_sid: SessionId,
    /// The call's id, `CA` and 32 hexadecimal digits.
    pub call_sid: String,
    /// The account's id, `AC` and 32 hexadecimal digits.
    pub account_sid: String,
    /// Who calls, in E.164.
    pub from: String,
    /// Who is called, in E.164.
    pub to: String,
    /// Custom parameters of `start`, beside those that the TwiML gives.
    pub parameters: BTreeMap<String, String>,
    /// Whether the service is asked first.
    pub incoming: Incoming,
    /// Signs requests with `X-Twilio-Signature`.
    pub auth_token: Option<AuthToken>,
    /// Headers of every request.
    pub headers: HeaderMap,
    /// How long received audio waits before it is heard when nothing is being heard.
    pub delay: Duration,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// Whom to trust over `https`.
    pub tls: Tls,
}

impl PhoneOptions {
    /// A call with random ids between two numbers that are reserved for fiction.
    #[must_use]
    pub fn new(url: ServiceUrl) -> Self {
        Self {
            url,
            stream_sid: sid("MZ").parse().expect("invariant: letters and digits are valid in a session id"),
            call_sid: sid("CA"),
            account_sid: sid("AC"),
            from: "+15555550100".to_owned(),
            to: "+15555550199".to_owned(),
            parameters: BTreeMap::new(),
            incoming: Incoming::default(),
            auth_token: None,
            headers: HeaderMap::new(),
            delay: DELAY,
            timeouts: Timeouts::default(),
            tls: Tls::default(),
        }
    }

    /// The media stream of this call.
    pub(crate) fn stream(&self) -> MediaStream {
        MediaStream {
            stream_sid: self.stream_sid.to_string(),
            call_sid: self.call_sid.clone(),
            account_sid: self.account_sid.clone(),
            parameters: self.parameters.clone(),
            counters: Counters::default(),
        }
    }
}

impl fmt::Debug for PhoneOptions {
    /// Without headers, parameters and numbers: these may be secrets, or somebody's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PhoneOptions")
            .field("url", &self.url)
            .field("stream_sid", &self.stream_sid)
            .field("call_sid", &self.call_sid)
            .field("incoming", &self.incoming)
            .field("timeouts", &self.timeouts)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// An id as Twilio's: a prefix and 32 hexadecimal digits.
fn sid(prefix: &str) -> String {
    format!("{prefix}{:032x}", rand::rng().random::<u128>())
}

/// A key of a telephone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digit(char);

impl Digit {
    /// One of `0`–`9`, `*`, `#`, `A`–`D`.
    #[must_use]
    pub fn new(key: char) -> Option<Self> {
        matches!(key, '0'..='9' | '*' | '#' | 'A'..='D').then_some(Self(key))
    }

    /// The key.
    #[must_use]
    pub const fn key(self) -> char {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_look_like_the_real_ones() {
        let options = PhoneOptions::new("http://h".parse().unwrap());
        for (id, prefix) in
            [(options.stream_sid.as_str(), "MZ"), (&options.call_sid, "CA"), (&options.account_sid, "AC")]
        {
            assert!(id.len() == 34 && id.starts_with(prefix), "{id}");
        }
    }

    #[test]
    fn keys() {
        for (key, ok) in [('0', true), ('9', true), ('*', true), ('#', true), ('D', true), ('E', false), ('a', false)] {
            assert_eq!(Digit::new(key).is_some(), ok, "{key}");
        }
    }

    #[test]
    fn secrets_stay_out_of_debug() {
        let mut options = PhoneOptions::new("http://h".parse().unwrap());
        options.auth_token = AuthToken::new("hush");
        options.parameters.insert("token".into(), "hush".into());
        assert!(!format!("{options:?} {:?}", options.auth_token).contains("hush"));
    }
}
