//! `workers`: what runs a service. All of it but the number of sessions is for an operator.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// Anything that can name an image: what does, the registry says.
pub(super) const IMAGE: &str = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$";
/// A name of Kubernetes' (RFC 1123 subdomain).
const OBJECT: &str = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$";
/// What Kubernetes takes for the name of a variable.
const VARIABLE: &str = "^[A-Za-z_][A-Za-z0-9_.-]*$";

/// Sessions that one worker takes at most: so many of one service are placed on a worker by the store, whatever it says.
pub const MAX_SESSIONS_PER_WORKER: u32 = 2_048;

/// What runs a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct WorkersSpec {
    /// Sessions that one worker takes.
    #[schemars(range(max = MAX_SESSIONS_PER_WORKER))]
    pub sessions_per_worker: NonZeroU32,
    /// The image of the workers: a custom one has handlers of its own. Absent: the operator's. Only an operator obeys it, as all that
    /// follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = IMAGE))]
    pub image: Option<String>,
    /// When the image is pulled. Absent: as Kubernetes does, `Always` for `:latest` and `IfNotPresent` for all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Secrets with which the image is pulled, in the service's namespace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<ObjectName>,
    /// What a worker may use. Absent: it asks for 100m of CPU and 64Mi of memory, and may use all that its node has.
    pub resources: ResourcesSpec,
    /// Environment variables of the workers, such as keys that a custom handler needs. Names that begin with STREAMFLEET_ are the operator's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvSpec>,
    /// An overlay on the template of the workers' pods, a PodTemplateSpec: node selectors, tolerations, volumes, further containers. The
    /// worker's own container is called `worker`. Lists are merged as `kubectl apply` merges them, by their keys; the result has to be a pod that
    /// the API server takes.
    #[serde(skip_serializing_if = "Template::is_empty")]
    pub template: Template,
}

impl Default for WorkersSpec {
    fn default() -> Self {
        const SESSIONS: NonZeroU32 = NonZeroU32::new(50).expect("50 is not zero");
        Self {
            sessions_per_worker: SESSIONS,
            image: None,
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            resources: ResourcesSpec::default(),
            env: Vec::new(),
            template: Template::default(),
        }
    }
}

/// A part of a PodTemplateSpec. Its keys are Kubernetes': the full schema would outgrow what `kubectl apply` can note of an object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Template(pub Map<String, Value>);

impl Template {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    /// Before each start.
    Always,
    /// Where the node has it not.
    IfNotPresent,
    /// Not at all: the node has to have it.
    Never,
}

impl ImagePullPolicy {
    /// As Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// An object in the service's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ObjectName {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT))]
    pub name: String,
}

/// What a container may use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ResourcesSpec {
    /// What it gets at least, such as `cpu: 500m` and `memory: 256Mi`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub requests: BTreeMap<String, Amount>,
    /// What it gets at most.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub limits: BTreeMap<String, Amount>,
}

/// An amount of a resource, as Kubernetes writes it: `500m`, `2`, `256Mi`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Amount(String);

/// A text or number that is no amount of a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no amount such as 500m, 2 or 256Mi")]
pub struct InvalidAmount(String);

impl Amount {
    /// Kubernetes' form of it, as a regular expression.
    const FORM: &str = r"^\+?([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)(([KMGTPE]i)|[numkMGTPE]|([eE][+-]?[0-9]{1,3}))?$";

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Amount {
    type Err = InvalidAmount;

    /// Less than nothing of a resource makes no sense; all else as of `resource.Quantity`.
    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        let number = text.strip_prefix('+').unwrap_or(text);
        let end = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
        let (digits, suffix) = number.split_at(end);
        let is_number =
            digits.bytes().any(|b| b.is_ascii_digit()) && digits.bytes().filter(|b| *b == b'.').count() <= 1;
        let is_suffix = match suffix {
            "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" => true,
            "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei" => true,
            other => other.strip_prefix(['e', 'E']).is_some_and(|exponent| {
                let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
                (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
            }),
        };
        let is_short = text.len() <= 64;
        if is_number && is_suffix && is_short { Ok(Self(text.to_owned())) } else { Err(InvalidAmount(shown(text))) }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match Value::deserialize(deserializer)? {
            Value::String(text) => text,
            // `cpu: 2` is a number in YAML. So is `cpu: 0.5`, which an API server takes for no integer.
            Value::Number(number) => number.to_string(),
            other => other.to_string(),
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "pattern": Self::FORM,
            "maxLength": 64,
            "minimum": 0,
        })
    }
}

/// An environment variable: either its `value`, or where it is taken from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EnvSpec {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = VARIABLE))]
    pub name: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32_768))]
    pub value: Option<String>,
    /// Where its value is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvSource>,
}

/// Where the value of a variable is: exactly one of both, in the service's namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct EnvSource {
    /// A key of a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
    /// A key of a ConfigMap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
}

/// A key of a Secret or a ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct KeyRef {
    /// The object's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
    /// Whether a worker starts without it.
    #[serde(default)]
    pub optional: bool,
}

/// The beginning of a text that may be anything.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}
