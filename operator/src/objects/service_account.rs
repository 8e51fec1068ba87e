//! Who workers are to the API server: nobody. An account of their own keeps what others give the namespace's default one away.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::{Blueprint, Object};
use crate::kind::Kind;

pub(super) fn build(of: &Blueprint) -> Object {
    let account = ServiceAccount {
        metadata: of.meta(of.name()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    Object::new(Kind::ServiceAccount, of.name(), account)
}
