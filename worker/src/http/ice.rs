//! `rtc_configuration`: the ICE servers a client is told to use, with credentials that expire.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use streamfleet_process::config::Secret;

/// ICE servers of a worker. The default has none: on a public address, or through the relay, clients need none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct IceConfig {
    /// Handed to clients as they stand.
    pub servers: Vec<IceServer>,
    /// TURN servers that share a secret with us, if any.
    pub turn: TurnConfig,
}

/// One entry of `RTCConfiguration.iceServers`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct IceServer {
    /// `stun:`, `stuns:`, `turn:` or `turns:` URLs (RFC 7064, RFC 7065).
    pub urls: Vec<IceUrl>,
    /// For TURN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// For TURN. Every client sees it, so it guards nothing; still no reason to log it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Secret>,
}

/// TURN servers with short-lived credentials, as coturn's `use-auth-secret` reads them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct TurnConfig {
    /// `turn:` or `turns:` URLs.
    pub urls: Vec<IceUrl>,
    /// The secret that the TURN servers know.
    pub secret: Option<Secret>,
    /// How long credentials are valid, in seconds. A TURN server checks them when an allocation is made or refreshed.
    pub ttl_seconds: u32,
}

impl Default for TurnConfig {
    /// A day: longer than any call, short enough that a leaked credential is soon worthless.
    fn default() -> Self {
        Self { urls: Vec::new(), secret: None, ttl_seconds: 86_400 }
    }
}

/// A URL of a STUN or TURN server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IceUrl(String);

/// A text that is no URL of a STUN or TURN server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a URL such as \"stun:stun.example.com:3478\" or \"turn:turn.example.com?transport=udp\"")]
pub struct InvalidIceUrl;

impl IceUrl {
    /// Whether it names a TURN server.
    pub fn is_turn(&self) -> bool {
        self.0.starts_with("turn")
    }
}

impl TryFrom<String> for IceUrl {
    type Error = InvalidIceUrl;

    fn try_from(text: String) -> Result<Self, InvalidIceUrl> {
        let (scheme, rest) = text.split_once(':').ok_or(InvalidIceUrl)?;
        let (address, query) = rest.split_once('?').map_or((rest, None), |(address, query)| (address, Some(query)));
        let turn = match scheme {
            "stun" | "stuns" => false,
            "turn" | "turns" => true,
            _ => return Err(InvalidIceUrl),
        };
        let transport = matches!(query, Some("transport=udp" | "transport=tcp"));
        let plain = address.parse::<axum::http::uri::Authority>().is_ok() && !address.contains('@');
        if plain && (query.is_none() || (turn && transport)) { Ok(Self(text)) } else { Err(InvalidIceUrl) }
    }
}

impl From<IceUrl> for String {
    fn from(url: IceUrl) -> Self {
        url.0
    }
}

/// `RTCConfiguration` as `RTCPeerConnection`'s constructor takes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RtcConfiguration {
    ice_servers: Vec<IceServer>,
}

impl IceConfig {
    /// The configuration for a client that asks at `now`, the time since the Unix epoch. `nonce` tells the
    /// credentials of two clients apart in the TURN server's log.
    pub(super) fn rtc_configuration(&self, now: Duration, nonce: u64) -> RtcConfiguration {
        let mut ice_servers = self.servers.clone();
        if let (Some(secret), false) = (&self.turn.secret, self.turn.urls.is_empty()) {
            let expiry = now.as_secs() + u64::from(self.turn.ttl_seconds);
            let username = format!("{expiry}:{nonce:016x}");
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.reveal().as_bytes());
            let credential = STANDARD.encode(ring::hmac::sign(&key, username.as_bytes()));
            ice_servers.push(IceServer {
                urls: self.turn.urls.clone(),
                username: Some(username),
                credential: Some(Secret::new(credential)),
            });
        }
        RtcConfiguration { ice_servers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn configuration(config: Value, now: u64) -> Value {
        let config: IceConfig = serde_json::from_value(config).unwrap();
        serde_json::to_value(config.rtc_configuration(Duration::from_secs(now), 0xabc)).unwrap()
    }

    #[test]
    fn what_a_browser_is_told() {
        assert_eq!(configuration(json!({}), 0), json!({ "iceServers": [] }));
        let fixed = json!([
            { "urls": ["stun:stun.example.com"] },
            { "urls": ["turn:turn.example.com:3478?transport=udp"], "username": "u", "credential": "c" },
        ]);
        assert_eq!(configuration(json!({ "servers": fixed }), 0), json!({ "iceServers": fixed }));
    }

    #[test]
    fn shared_secrets_make_credentials_that_expire() {
        // The credential was computed by `openssl dgst -sha1 -hmac north -binary | base64`.
        let turn = json!({ "urls": ["turns:turn.example.com"], "secret": "north", "ttlSeconds": 60 });
        assert_eq!(
            configuration(json!({ "turn": turn }), 1_000),
            json!({ "iceServers": [{
                "urls": ["turns:turn.example.com"],
                "username": "1060:0000000000000abc",
                "credential": "93N0NzVgYy3IMibSWYdclJWIgJo=",
            }]})
        );
    }

    #[test]
    fn urls_are_checked() {
        let check = |text: &str, expected: Result<(), InvalidIceUrl>| {
            assert_eq!(IceUrl::try_from(text.to_owned()).map(|_| ()), expected, "{text:?}");
        };
        check("stun:stun.example.com", Ok(()));
        check("stuns:stun.example.com:5349", Ok(()));
        check("turn:192.0.2.1:3478?transport=tcp", Ok(()));
        check("turns:[2001:db8::1]:5349", Ok(()));
        check("stun:stun.example.com?transport=udp", Err(InvalidIceUrl));
        check("turn:host?transport=sctp", Err(InvalidIceUrl));
        check("http://host", Err(InvalidIceUrl));
        check("stun:", Err(InvalidIceUrl));
        check("stun://host", Err(InvalidIceUrl));
        check("turn:user@host", Err(InvalidIceUrl));
        check("host", Err(InvalidIceUrl));
    }
}
