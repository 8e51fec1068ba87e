//! What Prometheus' operator is told, where there is one.

use serde_json::json;

use super::{Blueprint, Object};
use crate::kind::Kind;
use crate::names::{MANAGED_BY, SERVICE, VARIANT};

pub(super) fn build(of: &Blueprint) -> Object {
    let monitor = json!({
        "metadata": of.meta(of.name()),
        "spec": {
            "selector": { "matchLabels": { SERVICE: of.key.name, MANAGED_BY.0: MANAGED_BY.1 } },
            "podTargetLabels": [SERVICE, VARIANT],
            "podMetricsEndpoints": [{ "port": "admin", "path": "/metrics" }],
        },
    });
    Object::new(Kind::PodMonitor, of.name(), monitor)
}
