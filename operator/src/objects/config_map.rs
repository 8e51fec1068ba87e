//! What workers read when they start: their configuration, and what of the StreamService they obey. JSON is YAML.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::{Blueprint, Object};
use crate::kind::Kind;

/// The file with what of the StreamService it obeys.
pub(super) const MANIFEST: &str = "service.yaml";
/// The file with its configuration.
pub(super) const CONFIG: &str = "worker.yaml";

pub(super) fn build(of: &Blueprint) -> Object {
    let map = ConfigMap {
        metadata: of.meta(of.name()),
        data: Some(BTreeMap::from([
            (MANIFEST.to_owned(), of.manifest.clone()),
            (CONFIG.to_owned(), of.site.config.to_string()),
        ])),
        ..ConfigMap::default()
    };
    Object::new(Kind::ConfigMap, of.name(), map)
}
