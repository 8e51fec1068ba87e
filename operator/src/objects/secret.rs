//! What workers have to know and others must not: the key that routers show them, and how to get into the store.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::{Blueprint, Object};
use crate::kind::Kind;

/// The key of the fleet's secret, as this service has it.
pub(super) const FLEET: &str = "fleet-secret";

pub(super) fn build(of: &Blueprint) -> Object {
    let mut data = BTreeMap::from([(FLEET.to_owned(), of.secret.reveal().to_owned())]);
    data.extend(of.site.secret_env.iter().map(|(_, key, value)| (key.clone(), value.reveal().to_owned())));
    data.extend(of.site.files.iter().map(|(name, text)| (name.clone(), text.reveal().to_owned())));
    let data = data.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes()))).collect();
    let secret = Secret {
        metadata: of.meta(of.name()),
        data: Some(data),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    };
    Object::new(Kind::Secret, of.name(), secret)
}
