//! Workers of one kind. The Deployment replaces them when their template changes; how many there are, and which of them go, is
//! the operator's to say.

use k8s_openapi::DeepMerge as _;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Blueprint, Group, Object, Trial, pod};
use crate::kind::Kind;
use crate::names;

/// Old ReplicaSets are for looking at what was: a rollback is a change of the StreamService.
const REVISIONS: i32 = 3;

pub(super) fn build(of: &Blueprint, group: &Group) -> Object {
    let name = names::worker(&of.key.name, group.variant.as_deref());
    let mut metadata = of.meta(name.clone());
    metadata.labels = Some(names::labels_of_variant(&of.key.name, group.variant.as_deref()));
    let mut template = pod::template(of, group);
    for overlay in &group.overlays {
        template.merge_from(overlay.clone());
    }
    pod::ask(&mut template);
    // What the operator goes by is not for laying over.
    pod::identify(of, group, &mut template);
    pod::confine(of, &mut template);
    let deployment = Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: Some(group.replicas),
            selector: LabelSelector {
                match_labels: Some(names::selector_of_variant(&of.key.name, group.variant.as_deref())),
                ..LabelSelector::default()
            },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    // One goes when another is ready in its place.
                    max_unavailable: Some(IntOrString::Int(0)),
                    max_surge: Some(IntOrString::String("25%".to_owned())),
                }),
            }),
            revision_history_limit: Some(REVISIONS),
            // One that somebody has paused would never be rolled out, and with old pods beside the new ones nobody is drained.
            paused: Some(false),
            template,
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    };
    let mut object = Object::new(Kind::Deployment, name, deployment);
    // Serialised even when it is empty, and nobody's to own.
    if let Some(template) = object.value["spec"]["template"]["metadata"].as_object_mut() {
        template.remove("creationTimestamp");
    }
    if !group.overlays.is_empty() {
        object.trial = Trial::First;
    }
    object
}
