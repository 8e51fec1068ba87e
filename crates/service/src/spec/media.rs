//! `media`: how media comes to a service's workers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretSource;
use crate::ice::{DEFAULT_TTL_SECONDS, IceServer, IceUrl, MAX_TTL, MIN_TTL, TURN_URL};

/// How media comes to a service's workers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct MediaSpec {
    /// Which addresses clients are told to send media to.
    pub exposure: Exposure,
    /// STUN and TURN servers that clients are told of as they stand. Absent like `turn`: what the workers' own configuration says.
    #[schemars(length(max = 16))]
    pub ice_servers: Vec<IceServer>,
    /// TURN servers for which each client gets credentials of its own.
    pub turn: TurnSpec,
}

/// Which addresses clients are told to send media to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Exposure {
    /// The relays', which pass it on. Routers without relays tell the worker's own.
    #[default]
    Relay,
    /// The worker's own: those of its host, where it has no network apart from it.
    HostPort,
}

/// TURN servers that share a secret with routers, such as coturn's with `use-auth-secret`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct TurnSpec {
    /// `turn:` or `turns:` URLs (RFC 7065).
    #[schemars(
        with = "Vec<String>",
        length(max = 16),
        inner(length(max = 512), regex(pattern = TURN_URL))
    )]
    pub urls: Vec<IceUrl>,
    /// Where the secret is.
    pub secret: Option<SecretSource>,
    /// How long credentials are good, in seconds.
    #[schemars(range(min = MIN_TTL.as_secs(), max = MAX_TTL.as_secs()))]
    pub ttl_seconds: u32,
}

impl Default for TurnSpec {
    fn default() -> Self {
        Self { urls: Vec::new(), secret: None, ttl_seconds: DEFAULT_TTL_SECONDS }
    }
}
