//! `routing`: which worker a session goes to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::workers::{EnvSpec, IMAGE, ResourcesSpec, Template};

/// The longest that a call is held, in seconds: browsers and load balancers give up about then.
pub const MAX_HOLD_SECONDS: u32 = 60;

/// A variant's name: a DNS label, short enough that a worker's name has room for the service's, too.
const VARIANT: &str = "^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$";

/// Which worker a session goes to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct RoutingSpec {
    /// Sessions that belong together.
    pub affinity: AffinitySpec,
    /// Whether sessions gather on few workers or scatter over all.
    pub packing: Packing,
    /// Other versions of the service for some of its users. An operator runs workers of their own for each.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub variants: Vec<VariantSpec>,
    /// How long a call is held while no worker is ready, or all are full and the operator makes more, in seconds. 0: never.
    #[schemars(range(max = MAX_HOLD_SECONDS))]
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
    #[schemars(
        length(max = 128),
        regex(pattern = "^(session|user|metadata:[A-Za-z0-9_.-]{1,64}|path:[A-Za-z0-9_]{1,32})$")
    )]
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
    /// Its name, a DNS label; its workers register with it. `base` is the service itself.
    #[schemars(length(max = 32), regex(pattern = VARIANT))]
    pub name: String,
    /// The share of users that get it, in percent. What the variants leave goes to the service itself.
    #[schemars(range(max = 100))]
    pub weight: u8,
    /// What its workers have that the service's have not. Only an operator obeys it.
    #[serde(default)]
    pub workers: VariantWorkersSpec,
}

/// What a variant's workers have that the service's have not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct VariantWorkersSpec {
    /// The image of its workers. Absent: the service's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = IMAGE))]
    pub image: Option<String>,
    /// What a worker may use, instead of all that the service's may. Absent: as the service's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
    /// Environment variables beside the service's, or in the place of those with the same name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvSpec>,
    /// An overlay on the pod's template, laid over the service's.
    #[serde(skip_serializing_if = "Template::is_empty")]
    pub template: Template,
}
