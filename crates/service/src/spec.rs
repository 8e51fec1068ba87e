//! The specification as users write it. Keys are `camelCase`, every key has a default but a handler's name.
//!
//! A key is here when something reads it, and not before: a key that nobody obeys is a promise that nobody keeps.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use streamfleet_session::metadata::{AllowList, MetadataLimits};
use streamfleet_session::{Limits, PathPrefix};

use crate::ice::{DEFAULT_TTL_SECONDS, IceServer, IceUrl};
use crate::pattern::PathPattern;

/// What one service is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct StreamServiceSpec {
    /// Path prefix of its routes, `/assistant` or `/rooms/{room}`. Absent: `/NAMESPACE/NAME`, and `/NAME` without a namespace.
    #[schemars(with = "Option<String>")]
    pub path: Option<PathPattern>,
    /// Further prefixes with the same routes.
    #[schemars(with = "Vec<String>")]
    pub aliases: Vec<PathPrefix>,
    /// The name under which it is called, `voice.example.com`. Absent: under any.
    pub host: Option<String>,
    /// Which media it takes part in.
    pub modality: Modality,
    /// What answers.
    pub handler: HandlerSpec,
    /// What runs it.
    pub workers: WorkersSpec,
    /// What is allowed.
    pub limits: LimitsSpec,
    /// Who is calling.
    pub identity: IdentitySpec,
    /// What outlives a session.
    pub context: ContextSpec,
    /// Telephone calls.
    pub telephone: TelephoneSpec,
    /// How media comes to its workers.
    pub media: MediaSpec,
    /// Which worker a session goes to.
    pub routing: RoutingSpec,
}

/// Which media a service takes part in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Modality {
    /// Sound.
    Audio,
    /// Pictures.
    Video,
    /// Whatever of the two the client offers.
    #[default]
    AudioVideo,
}

/// A registered handler and its configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct HandlerSpec {
    /// Registered name. Required.
    pub name: String,
    /// The handler's own keys.
    pub config: Value,
}

/// What runs a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct WorkersSpec {
    /// Sessions that one worker takes.
    pub sessions_per_worker: NonZeroU32,
}

impl Default for WorkersSpec {
    fn default() -> Self {
        const SESSIONS: NonZeroU32 = NonZeroU32::new(50).expect("50 is not zero");
        Self { sessions_per_worker: SESSIONS }
    }
}

/// Limits; absent means unlimited, but for the time to connect.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct LimitsSpec {
    /// Sessions at a time.
    pub concurrency: Option<NonZeroU32>,
    /// Sessions of one user at a time.
    pub per_user: Option<NonZeroU32>,
    /// Offers a minute from one source address. Set it only where clients arrive under their own address: behind a proxy all of
    /// them share the proxy's. A router counts as many for each proven user, wherever he is, and each router for itself.
    pub offers_per_minute: Option<NonZeroU32>,
    /// Longest session, in seconds from its connection.
    pub time_limit_seconds: Option<NonZeroU32>,
    /// Time to connect, in seconds from the answer; 30 if absent.
    pub connect_timeout_seconds: Option<NonZeroU32>,
}

impl From<&LimitsSpec> for Limits {
    fn from(spec: &LimitsSpec) -> Self {
        let seconds = |seconds: NonZeroU32| std::time::Duration::from_secs(seconds.get().into());
        let defaults = Self::default();
        Self {
            concurrency: spec.concurrency,
            per_user: spec.per_user,
            offers_per_minute: spec.offers_per_minute,
            time_limit: spec.time_limit_seconds.map(seconds),
            connect_timeout: spec.connect_timeout_seconds.map_or(defaults.connect_timeout, seconds),
            end_grace: defaults.end_grace,
        }
    }
}

/// How a service learns who is calling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct IdentitySpec {
    /// Where the user id comes from, the first that has one: `jwt:CLAIM`, `metadata:KEY`, `header:NAME`.
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
    pub max_bytes: usize,
    /// Nesting.
    pub max_depth: usize,
    /// Keys, over all levels.
    pub max_keys: usize,
    /// Top-level keys to keep; `*` for all.
    pub allow: Vec<String>,
}

impl Default for MetadataSpec {
    fn default() -> Self {
        let MetadataLimits { max_bytes, max_depth, max_keys, .. } = MetadataLimits::default();
        Self { max_bytes, max_depth, max_keys, allow: vec!["*".to_owned()] }
    }
}

impl From<&MetadataSpec> for MetadataLimits {
    fn from(spec: &MetadataSpec) -> Self {
        let MetadataSpec { max_bytes, max_depth, max_keys, allow } = spec;
        let allow = AllowList::from_keys(allow.iter().cloned());
        Self { max_bytes: *max_bytes, max_depth: *max_depth, max_keys: *max_keys, allow }
    }
}

/// JSON Web Tokens (RFC 7519) that prove a user. Exactly one of `jwksUrl`, `publicKey` and `secret` says what verifies them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct JwtSpec {
    /// The issuer, claim `iss`. Absent: any.
    pub issuer: Option<String>,
    /// The audience, claim `aud`. Absent: any.
    pub audience: Option<String>,
    /// Where the issuer publishes its keys (RFC 7517), `https://…`. They are fetched again when they rotate.
    pub jwks_url: Option<String>,
    /// A public key in PEM: RSA, EC or Ed25519.
    pub public_key: Option<String>,
    /// Where the secret is that the issuer shares with this service (HS256, HS384, HS512).
    pub secret: Option<SecretSource>,
}

/// Where a secret is. Its text never stands in a specification.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum SecretSource {
    /// A file.
    File(String),
    /// An environment variable of the process that reads the specification.
    Env(String),
    /// A key of a Secret in the service's namespace.
    SecretKeyRef(SecretKeyRef),
}

/// A key of a Kubernetes Secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// The Secret's name.
    pub name: String,
    /// The key in it.
    pub key: String,
}

/// Somebody who is asked whether a call is taken: it gets the call's identity as JSON, and answers 2xx to take it and 403 to
/// refuse it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WebhookSpec {
    /// `http://…` or `https://…`.
    pub url: String,
    /// How long it may take, in milliseconds.
    #[serde(default = "WebhookSpec::default_timeout_ms")]
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

/// What outlives a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ContextSpec {
    /// How long a context is kept after its session's end, in seconds.
    pub retention_seconds: u32,
    /// Who gets it back.
    pub resume_by: ResumeBy,
}

impl Default for ContextSpec {
    fn default() -> Self {
        Self { retention_seconds: 600, resume_by: ResumeBy::Token }
    }
}

/// Who gets a context back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ResumeBy {
    /// Whoever has the session's one-time token.
    #[default]
    Token,
    /// That one, and the same verified user.
    Identity,
}

/// Telephone calls (Twilio).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct TelephoneSpec {
    /// Said to the caller before the call is put through; the worker's own words if absent, nothing if empty.
    pub before: Option<String>,
    /// Said when the conversation is over and the caller is still there; likewise.
    pub after: Option<String>,
    /// Where the auth token of the Twilio account is. With it, only signed requests and the calls that they lead to are taken.
    pub auth_token: Option<SecretSource>,
}

/// How media comes to a service's workers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct MediaSpec {
    /// Which addresses clients are told to send media to.
    pub exposure: Exposure,
    /// STUN and TURN servers that clients are told of as they stand. Absent like `turn`: what the workers' own configuration says.
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
    #[schemars(with = "Vec<String>")]
    pub urls: Vec<IceUrl>,
    /// Where the secret is.
    pub secret: Option<SecretSource>,
    /// How long credentials are good, in seconds.
    pub ttl_seconds: u32,
}

impl Default for TurnSpec {
    fn default() -> Self {
        Self { urls: Vec::new(), secret: None, ttl_seconds: DEFAULT_TTL_SECONDS }
    }
}

/// Which worker a session goes to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RoutingSpec {
    /// Sessions that belong together.
    pub affinity: AffinitySpec,
    /// Whether sessions gather on few workers or scatter over all.
    pub packing: Packing,
    /// Other versions of the service for some of its users.
    pub variants: Vec<VariantSpec>,
    /// How long a call is held while no worker is ready, in seconds.
    pub offer_hold_seconds: u32,
}

impl Default for RoutingSpec {
    fn default() -> Self {
        Self {
            affinity: AffinitySpec::default(),
            packing: Packing::default(),
            variants: Vec::new(),
            offer_hold_seconds: 20,
        }
    }
}

/// Sessions that belong together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct AffinitySpec {
    /// What they have in common: `session` (nothing), `user`, `metadata:KEY`, `path:PARAMETER`.
    pub by: String,
    /// How much it matters.
    pub strength: AffinityStrength,
}

impl Default for AffinitySpec {
    fn default() -> Self {
        Self { by: "session".to_owned(), strength: AffinityStrength::default() }
    }
}

/// How much it matters that sessions meet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AffinityStrength {
    /// They go to the same worker while it has room.
    #[default]
    Prefer,
    /// They go to the same worker or are refused.
    Require,
}

/// Whether sessions gather or scatter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Packing {
    /// Few full workers, so that the others run empty and can go.
    #[default]
    Pack,
    /// All workers alike.
    Spread,
}

/// Another version of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VariantSpec {
    /// Its name, a DNS label; its workers register with it.
    pub name: String,
    /// The share of users that get it, in percent. What the variants leave goes to the service itself.
    pub weight: u8,
}
