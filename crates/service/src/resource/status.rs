//! What an operator says of a StreamService.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an operator says of a service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct StreamServiceStatus {
    /// The generation of the specification that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How it stands: Ready, Progressing, Degraded, ScalingLimited, DrainBlocked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Workers that do not drain, ready or not: what a HorizontalPodAutoscaler takes for the number of replicas.
    pub replicas: i32,
    /// Those of them that take calls.
    pub ready_replicas: i32,
    /// Workers that take no new calls, and go when their last session is over.
    pub draining_replicas: i32,
    /// How many there are to be.
    pub desired_replicas: i32,
    /// Sessions that there are, those of draining workers too.
    pub active_sessions: i64,
    /// Sessions that the workers that take calls can have.
    pub capacity: i64,
    /// The labels of the workers that do not drain, for autoscalers: those that drain must not count, or they would be replaced.
    pub selector: String,
    /// Where clients reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}
