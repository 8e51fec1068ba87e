//! The specification as users write it. Keys are `camelCase`, every key has a default but a handler's name.
//!
//! A key is here when something reads it, and not before: a key that nobody obeys is a promise that nobody keeps. What stands here as
//! documentation is what `kubectl explain` shows, and what the reference in `docs/` is made of.
//!
//! | module | keys |
//! |---|---|
//! | [`identity`](self) | `identity` |
//! | [`media`](self) | `media` |
//! | [`routing`](self) | `routing` |
//! | [`secret`](self) | where secrets are |
//! | [`workers`](self), [`autoscaling`](self) | `workers`, `autoscaling`, `disruption`: obeyed by an operator alone |

mod autoscaling;
mod identity;
mod media;
mod routing;
mod secret;
mod workers;

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use streamfleet_session::{Limits, PathPrefix};

use crate::pattern::PathPattern;

pub use self::autoscaling::{
    AutoscalingSpec, Buffer, Disruption, InvalidBuffer, MAX_BUFFER_PERCENT, MAX_DRAIN_SECONDS, MAX_REPLICAS,
    MAX_STABILIZATION_SECONDS, ScaleDownSpec, ScalingMode, ScheduleSpec,
};
pub use self::identity::{
    IdentitySpec, JwtSpec, MAX_METADATA_BYTES, MAX_METADATA_DEPTH, MAX_METADATA_KEYS, MAX_WEBHOOK_MS, MetadataSpec,
    OnFailure, WebhookSpec,
};
pub use self::media::{Exposure, MediaSpec, TurnSpec};
pub use self::routing::{
    AffinitySpec, AffinityStrength, MAX_HOLD_SECONDS, Packing, RoutingSpec, VariantSpec, VariantWorkersSpec,
};
pub use self::secret::{SecretKeyRef, SecretSource};
pub use self::workers::{
    Amount, EnvSource, EnvSpec, ImagePullPolicy, InvalidAmount, KeyRef, MAX_SESSIONS_PER_WORKER, ObjectName,
    ResourcesSpec, Template, WorkersSpec,
};

/// The longest that a context is kept, in seconds. The store's own keys live for a day after the last word of a service's workers.
pub const MAX_RETENTION_SECONDS: u32 = 24 * 60 * 60;

/// Segments of a path, each a word or a parameter, as the API server reads it; [`PathPattern`] says the same.
const PATH: &str = r"^((/[A-Za-z0-9._~-]+|/\{[A-Za-z0-9_]{1,32}\}){0,8}/?)$";
/// Likewise of a [`PathPrefix`].
const PREFIX: &str = r"^((/[A-Za-z0-9._~-]+){0,8}/?)$";
/// A DNS name (RFC 1123).
const HOST: &str = r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$";

/// What a service is: where it is called, what answers, who may call, and what runs it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct StreamServiceSpec {
    /// Path prefix of its routes, `/assistant` or `/rooms/{room}`. Absent: `/NAMESPACE/NAME`, and `/NAME` without a namespace.
    #[schemars(with = "Option<String>", length(max = 256), regex(pattern = PATH))]
    pub path: Option<PathPattern>,
    /// Further prefixes with the same routes.
    #[schemars(with = "Vec<String>", length(max = 16), inner(length(max = 256), regex(pattern = PREFIX)))]
    pub aliases: Vec<PathPrefix>,
    /// The name under which it is called, `voice.example.com`. Absent: under any.
    #[schemars(length(max = 253), regex(pattern = HOST))]
    pub host: Option<String>,
    /// Which media it takes part in. It cannot be changed.
    pub modality: Modality,
    /// What answers.
    pub handler: HandlerSpec,
    /// What runs it.
    pub workers: WorkersSpec,
    /// How many workers run. Only an operator obeys it.
    pub autoscaling: AutoscalingSpec,
    /// Whether the platform may evict a worker that has sessions. Only an operator obeys it.
    pub disruption: Disruption,
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
    /// Registered name: a built-in one, or one of a worker built on the SDK.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// The handler's own keys.
    pub config: Value,
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
    /// Longest session, in seconds from its connection. An operator needs it, or `autoscaling.scaleDown.maxDrainSeconds`: what is never over
    /// would hold a node that is to be drained for ever.
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

/// What outlives a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ContextSpec {
    /// How long a context is kept after its session's end, in seconds.
    #[schemars(range(max = MAX_RETENTION_SECONDS))]
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
    #[schemars(length(max = 4096))]
    pub before: Option<String>,
    /// Said when the conversation is over and the caller is still there; likewise.
    #[schemars(length(max = 4096))]
    pub after: Option<String>,
    /// Where the auth token of the Twilio account is. With it, only signed requests and the calls that they lead to are taken.
    pub auth_token: Option<SecretSource>,
}
