//! `autoscaling` and `disruption`: how many workers run, and what may end them. All of it is for an operator.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Workers of one service at most: one more digit is a slip of the hand.
pub const MAX_REPLICAS: u32 = 5_000;
/// The longest window of stabilisation, in seconds: a day.
pub const MAX_STABILIZATION_SECONDS: u32 = 24 * 60 * 60;
/// The longest drain, in seconds: a week, which is longer than any node is kept waiting.
pub const MAX_DRAIN_SECONDS: u32 = 7 * 24 * 60 * 60;
/// The largest buffer, in percent of what is in use.
pub const MAX_BUFFER_PERCENT: u32 = 1_000;

/// How many workers run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct AutoscalingSpec {
    /// Who says how many.
    pub mode: ScalingMode,
    /// Workers at least. With 0 the last one goes when nobody has called for a while, and the next call waits until one is ready, for
    /// `routing.offerHoldSeconds` at most.
    #[schemars(range(max = MAX_REPLICAS))]
    pub min_replicas: u32,
    /// Workers that run in mode External: what `kubectl scale` and a HorizontalPodAutoscaler set. Not looked at in mode Sessions.
    #[schemars(range(max = MAX_REPLICAS))]
    pub replicas: u32,
    /// Workers at most, over all variants. Those that drain are not counted.
    #[schemars(range(min = 1, max = MAX_REPLICAS))]
    pub max_replicas: u32,
    /// Places kept free for calls to come: a share of the sessions that there are, such as `25%`, or a number of sessions.
    pub buffer: Buffer,
    /// How workers go.
    pub scale_down: ScaleDownSpec,
    /// Known peaks: while one lasts, and long enough before it for workers to start, there are more workers at least.
    #[schemars(length(max = 32))]
    pub schedule: Vec<ScheduleSpec>,
}

impl Default for AutoscalingSpec {
    fn default() -> Self {
        Self {
            mode: ScalingMode::Sessions,
            min_replicas: 1,
            replicas: 1,
            max_replicas: 10,
            buffer: Buffer::Percent(25),
            scale_down: ScaleDownSpec::default(),
            schedule: Vec::new(),
        }
    }
}

/// Who says how many workers run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScalingMode {
    /// The operator, by the sessions that there are and those that come.
    #[default]
    Sessions,
    /// Whoever sets `replicas`: a person, or a HorizontalPodAutoscaler of this StreamService. Workers drain before they go all the same.
    External,
}

/// Places kept free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffer {
    /// A share of the sessions that there are, in percent.
    Percent(u32),
    /// So many.
    Sessions(u32),
}

/// Neither a share nor a number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a number of sessions nor a share from 0% to {MAX_BUFFER_PERCENT}%")]
pub struct InvalidBuffer(String);

impl Buffer {
    const FORM: &str = "^([0-9]|[1-9][0-9]{1,2}|1000)%$";
}

impl FromStr for Buffer {
    type Err = InvalidBuffer;

    fn from_str(text: &str) -> Result<Self, InvalidBuffer> {
        let digits = text.strip_suffix('%').filter(|digits| *digits == "0" || !digits.starts_with(['0', '+']));
        let percent = digits.and_then(|digits| digits.parse().ok()).filter(|percent| *percent <= MAX_BUFFER_PERCENT);
        percent.map(Self::Percent).ok_or_else(|| InvalidBuffer(text.chars().take(64).collect()))
    }
}

impl fmt::Display for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Sessions(sessions) => sessions.fmt(f),
        }
    }
}

impl Serialize for Buffer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Percent(_) => serializer.collect_str(self),
            Self::Sessions(sessions) => sessions.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Buffer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => text.parse().map_err(serde::de::Error::custom),
            other => {
                let sessions = other.as_u64().and_then(|sessions| u32::try_from(sessions).ok());
                sessions.map(Self::Sessions).ok_or_else(|| serde::de::Error::custom(InvalidBuffer(other.to_string())))
            }
        }
    }
}

impl JsonSchema for Buffer {
    fn schema_name() -> Cow<'static, str> {
        "Buffer".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "pattern": Self::FORM,
            "maxLength": 5,
            "minimum": 0,
            "maximum": u32::MAX,
        })
    }
}

/// How workers go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ScaleDownSpec {
    /// For how long fewer workers have to be enough before one is drained, in seconds.
    #[schemars(range(max = MAX_STABILIZATION_SECONDS))]
    pub stabilization_seconds: u32,
    /// The longest drain of a worker, in seconds; then the sessions that it has are told to come back elsewhere. 0: until its last session is
    /// over, which `limits.timeLimitSeconds` bounds.
    #[schemars(range(max = MAX_DRAIN_SECONDS))]
    pub max_drain_seconds: u32,
}

impl Default for ScaleDownSpec {
    fn default() -> Self {
        Self { stabilization_seconds: 300, max_drain_seconds: 0 }
    }
}

/// A known peak.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ScheduleSpec {
    /// When it begins: minute, hour, day of the month, month, day of the week, such as `30 8 * * 1-5`.
    #[schemars(length(max = 128), regex(pattern = CRON))]
    pub cron: String,
    /// The time zone of that, as in IANA's database: `Europe/Berlin`.
    #[serde(default = "ScheduleSpec::default_time_zone")]
    #[schemars(length(max = 64), regex(pattern = TIME_ZONE))]
    pub time_zone: String,
    /// How long it lasts, in seconds.
    #[schemars(range(min = 60, max = 604_800))]
    pub duration_seconds: u32,
    /// Workers at least while it lasts.
    #[schemars(range(max = MAX_REPLICAS))]
    pub min_replicas: u32,
}

/// Five fields. What they may say, and that such a time ever comes, whoever computes it says.
const CRON: &str = r"^[0-9A-Za-z*/,#?-]+( [0-9A-Za-z*/,#?-]+){4}$";
const TIME_ZONE: &str = "^[A-Za-z][A-Za-z0-9_+/-]*$";

impl ScheduleSpec {
    fn default_time_zone() -> String {
        "UTC".to_owned()
    }

    /// What is wrong with its form, as the API server would say it.
    pub(crate) fn faults(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let is_field = |field: &str| {
            !field.is_empty()
                && field
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'*' | b'/' | b',' | b'#' | b'?' | b'-'))
        };
        let is_zone = |zone: &str| {
            zone.len() <= 64
                && zone.starts_with(|c: char| c.is_ascii_alphabetic())
                && zone.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'/' | b'-'))
        };
        let is_cron = self.cron.len() <= 128 && self.cron.split(' ').count() == 5 && self.cron.split(' ').all(is_field);
        let cron = ("cron", "must be five fields: minute, hour, day of the month, month, day of the week");
        let zone = ("timeZone", "is no name of IANA's database such as Europe/Berlin");
        let cron = (!is_cron).then_some(cron);
        cron.into_iter().chain((!is_zone(&self.time_zone)).then_some(zone))
    }
}

/// Whether the platform may evict a worker that has sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Disruption {
    /// An eviction waits until its sessions are over.
    #[default]
    Never,
    /// For the maintenance of its node alone: its sessions have its grace to be over. Autoscalers of nodes let it be.
    OnUpgrade,
    /// Whenever the platform likes: its sessions have its grace to be over.
    Always,
}
