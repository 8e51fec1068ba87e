//! `identity`: who is calling.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use streamfleet_process::config::Mistakes;
use streamfleet_session::metadata::{AllowList, MetadataLimits};

use super::SecretSource;
use crate::service::at_most;

/// The longest that the admission webhook may take, in milliseconds: it is time that a caller waits.
pub const MAX_WEBHOOK_MS: u32 = 10_000;

/// The bounds of what a service may allow of metadata: it is stored with every session, and read by recursion.
pub const MAX_METADATA_BYTES: usize = 65_536;
/// Levels.
pub const MAX_METADATA_DEPTH: usize = 64;
/// Keys.
pub const MAX_METADATA_KEYS: usize = 4_096;

/// One source of a user id; [`IdentitySource`](crate::IdentitySource) says the same.
const SOURCE: &str = r"^(jwt:[!-~]{1,128}|metadata:[A-Za-z0-9_.-]{1,64}|header:[A-Za-z0-9_-]{1,64})$";
/// A URL without a user or a password.
const URL: &str = r##"^https?://[!"$-.0->A-~]+([/?#][!-~]*)?$"##;

/// How a service learns who is calling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct IdentitySpec {
    /// Where the user id comes from, the first that has one: `jwt:CLAIM`, `metadata:KEY`, `header:NAME`.
    #[schemars(length(max = 16), inner(length(max = 256), regex(pattern = SOURCE)))]
    pub user_id_from: Vec<String>,
    /// Whether a call without a verified user is refused. Needs `jwt`.
    pub required: bool,
    /// What is kept of a client's metadata.
    pub metadata: MetadataSpec,
    /// Tokens that prove a user.
    pub jwt: Option<JwtSpec>,
    /// Who is asked before a call is taken.
    pub webhook: Option<WebhookSpec>,
}

impl Default for IdentitySpec {
    fn default() -> Self {
        let user_id_from = ["jwt:sub", "metadata:user_id", "header:x-user-id"].map(str::to_owned).into();
        Self { user_id_from, required: false, metadata: MetadataSpec::default(), jwt: None, webhook: None }
    }
}

/// Bounds of a client's metadata.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct MetadataSpec {
    /// Size as JSON, in bytes.
    #[schemars(range(max = MAX_METADATA_BYTES))]
    pub max_bytes: usize,
    /// Nesting.
    #[schemars(range(max = MAX_METADATA_DEPTH))]
    pub max_depth: usize,
    /// Keys, over all levels.
    #[schemars(range(max = MAX_METADATA_KEYS))]
    pub max_keys: usize,
    /// Top-level keys to keep; `*` for all.
    #[schemars(length(max = 256), inner(length(max = 256)))]
    pub allow: Vec<String>,
}

impl Default for MetadataSpec {
    fn default() -> Self {
        let MetadataLimits { max_bytes, max_depth, max_keys, .. } = MetadataLimits::default();
        Self { max_bytes, max_depth, max_keys, allow: vec!["*".to_owned()] }
    }
}

impl MetadataSpec {
    /// The bounds, of a specification whose key is `at`. What is larger than the schema allows is a mistake.
    pub fn limits(&self, at: &str, mistakes: &mut Mistakes) -> MetadataLimits {
        let Self { max_bytes, max_depth, max_keys, ref allow } = *self;
        for (key, value, most) in [
            ("maxBytes", max_bytes, MAX_METADATA_BYTES),
            ("maxDepth", max_depth, MAX_METADATA_DEPTH),
            ("maxKeys", max_keys, MAX_METADATA_KEYS),
        ] {
            at_most(&format!("{at}.{key}"), value, most, mistakes);
        }
        MetadataLimits { max_bytes, max_depth, max_keys, allow: AllowList::from_keys(allow.iter().cloned()) }
    }
}

/// JSON Web Tokens (RFC 7519) that prove a user. Exactly one of `jwksUrl`, `publicKey` and `secret` says what verifies them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct JwtSpec {
    /// The issuer, claim `iss`. Absent: any.
    #[schemars(length(max = 1024))]
    pub issuer: Option<String>,
    /// The audience, claim `aud`. Absent: any.
    #[schemars(length(max = 1024))]
    pub audience: Option<String>,
    /// Where the issuer publishes its keys (RFC 7517), `https://…`. They are fetched again when they rotate.
    #[schemars(length(max = 2048), regex(pattern = URL))]
    pub jwks_url: Option<String>,
    /// A public key in PEM: RSA, EC or Ed25519.
    #[schemars(length(min = 1, max = 16_384))]
    pub public_key: Option<String>,
    /// Where the secret is that the issuer shares with this service (HS256, HS384, HS512).
    pub secret: Option<SecretSource>,
}

/// Somebody who is asked whether a call is taken: it gets the call's identity as JSON, and answers 2xx to take it and 403 to
/// refuse it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WebhookSpec {
    /// `http://…` or `https://…`.
    #[schemars(length(max = 2048), regex(pattern = URL))]
    pub url: String,
    /// How long it may take, in milliseconds.
    #[serde(default = "WebhookSpec::default_timeout_ms")]
    #[schemars(range(max = MAX_WEBHOOK_MS))]
    pub timeout_ms: NonZeroU32,
    /// What happens when it does not answer in time, or answers anything else.
    #[serde(default)]
    pub on_failure: OnFailure,
}

impl WebhookSpec {
    fn default_timeout_ms() -> NonZeroU32 {
        const TIMEOUT: NonZeroU32 = NonZeroU32::new(1_000).expect("1 000 is not zero");
        TIMEOUT
    }
}

/// What happens to a call that nobody has decided about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// It is refused.
    #[default]
    Refuse,
    /// It is taken.
    Admit,
}
