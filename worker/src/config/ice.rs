//! The STUN and TURN servers that clients of a worker are told of.

use serde::{Deserialize, Serialize};
use streamfleet_process::config::{Mistakes, Secret};
use streamfleet_service::ice::{DEFAULT_TTL_SECONDS, IceServer, IceServers, IceUrl, Turn, check_servers, check_turn};
use streamfleet_service::turn::TurnSecret;

/// ICE servers of a worker. The default has none: on a public address, or through the relay, clients need none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct IceConfig {
    /// Handed to clients as they stand.
    pub servers: Vec<IceServer>,
    /// TURN servers that share a secret with us, if any.
    pub turn: TurnConfig,
}

/// TURN servers with short-lived credentials, as coturn's `use-auth-secret` reads them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct TurnConfig {
    /// `turn:` or `turns:` URLs.
    pub urls: Vec<IceUrl>,
    /// The secret that the TURN servers know.
    pub secret: Option<Secret>,
    /// How long credentials are valid, in seconds. A TURN server looks when an allocation is made.
    pub ttl_seconds: u32,
}

impl Default for TurnConfig {
    fn default() -> Self {
        Self { urls: Vec::new(), secret: None, ttl_seconds: DEFAULT_TTL_SECONDS }
    }
}

impl IceConfig {
    pub(super) fn build(&self, mistakes: &mut Mistakes) -> IceServers {
        check_servers("ice.servers", &self.servers, mistakes);
        let TurnConfig { urls, secret, ttl_seconds } = &self.turn;
        let ttl = check_turn("ice.turn", urls, secret.as_ref(), *ttl_seconds, mistakes);
        let secret = secret.as_ref();
        let secret =
            secret.and_then(|text| mistakes.check("ice.turn.secret", TurnSecret::new(text.reveal().as_bytes())));
        let turn = ttl.zip(secret).map(|(ttl, secret)| Turn { urls: urls.clone(), secret, ttl });
        IceServers { fixed: self.servers.clone(), turn }
    }
}
