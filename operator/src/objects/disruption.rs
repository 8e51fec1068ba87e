//! Whom the platform may evict: a PodDisruptionBudget over the pods with the protected label, which a pod loses when it is
//! drained.
//!
//! `unhealthyPodEvictionPolicy` stays at its default: one that is not ready may have live sessions.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use streamfleet_service::spec::Disruption;

use super::{Blueprint, Object};
use crate::kind::Kind;
use crate::names::{PROTECTED, SERVICE};

pub(super) fn build(of: &Blueprint) -> Object {
    let max_unavailable = match of.disruption {
        // The operator takes the label off the workers of a node that is drained, where that may be.
        Disruption::Never | Disruption::OnUpgrade => 0,
        Disruption::Always => 1,
    };
    let labels = [(SERVICE, of.key.name.as_str()), (PROTECTED, "true")];
    let budget = PodDisruptionBudget {
        metadata: of.meta(of.name()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(max_unavailable)),
            selector: Some(LabelSelector {
                match_labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
                ..LabelSelector::default()
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    };
    Object::new(Kind::PodDisruptionBudget, of.name(), budget)
}
