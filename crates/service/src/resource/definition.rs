//! The CustomResourceDefinition.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionNames,
    CustomResourceDefinitionSpec, CustomResourceDefinitionVersion, CustomResourceSubresourceScale,
    CustomResourceSubresourceStatus, CustomResourceSubresources, CustomResourceValidation, JSONSchemaProps,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::object::{GROUP, VERSION};
use super::rules::RULES;
use super::schema::{Defaults, part, structural};
use super::status::StreamServiceStatus;
use super::yaml;
use crate::manifest::KIND;
use crate::spec::StreamServiceSpec;

/// The resource's name in paths and on command lines.
pub const PLURAL: &str = "streamservices";
/// What is quicker to type.
pub const SHORT_NAME: &str = "ss";

/// Keys that have to be there, though they have a default in Rust, which goes on past a mistake: where, and which.
const REQUIRED: [(&str, &str); 4] =
    [("", "spec"), ("spec", "handler"), ("spec.handler", "name"), ("spec.media.iceServers[]", "urls")];

/// The definition, as it is applied to a cluster.
#[must_use]
pub fn definition() -> CustomResourceDefinition {
    let names = CustomResourceDefinitionNames {
        categories: Some(vec!["all".to_owned()]),
        kind: KIND.to_owned(),
        list_kind: Some(format!("{KIND}List")),
        plural: PLURAL.to_owned(),
        short_names: Some(vec![SHORT_NAME.to_owned()]),
        singular: Some("streamservice".to_owned()),
    };
    let schema: JSONSchemaProps =
        serde_json::from_value(schema()).expect("invariant: what schema() makes is a schema, as its tests say");
    let version = CustomResourceDefinitionVersion {
        additional_printer_columns: Some(columns()),
        name: VERSION.to_owned(),
        schema: Some(CustomResourceValidation { open_api_v3_schema: Some(schema) }),
        served: true,
        storage: true,
        subresources: Some(CustomResourceSubresources {
            scale: Some(CustomResourceSubresourceScale {
                label_selector_path: Some(".status.selector".to_owned()),
                spec_replicas_path: ".spec.autoscaling.replicas".to_owned(),
                status_replicas_path: ".status.replicas".to_owned(),
            }),
            status: Some(CustomResourceSubresourceStatus(Value::Object(serde_json::Map::new()))),
        }),
        ..CustomResourceDefinitionVersion::default()
    };
    CustomResourceDefinition {
        metadata: ObjectMeta { name: Some(format!("{PLURAL}.{GROUP}")), ..ObjectMeta::default() },
        spec: CustomResourceDefinitionSpec {
            group: GROUP.to_owned(),
            names,
            scope: "Namespaced".to_owned(),
            versions: vec![version],
            ..CustomResourceDefinitionSpec::default()
        },
        status: None,
    }
}

/// The definition as YAML, as it stands in `crds/streamservices.yaml`.
#[must_use]
pub fn definition_yaml() -> String {
    let definition = serde_json::to_value(definition()).expect("invariant: a definition is JSON");
    yaml::document(&definition)
}

/// The schema of a whole object, with its rules.
pub(super) fn schema() -> Value {
    let mut spec = structural::<StreamServiceSpec>(Defaults::Told);
    // The one default that the API server fills in: an autoscaler asks for the number of replicas before anybody has written one.
    default(&mut spec, "autoscaling", json!({ "replicas": 1 }));
    default(&mut spec, "autoscaling.replicas", json!(1));
    let mut schema = json!({
        "type": "object",
        "description": "A real-time service: a handler that answers calls, where it is called, who may call, and how many workers run it.",
        "properties": { "spec": spec, "status": structural::<StreamServiceStatus>(Defaults::Untold) },
    });
    for (at, key) in REQUIRED {
        if let Some(part) = part(&mut schema, at) {
            part["required"] = json!([key]);
        }
    }
    for rule in RULES {
        let at = part(&mut schema, rule.at).expect("invariant: rules are about what is there, as their tests say");
        let mut said = json!({ "rule": rule.rule, "message": rule.message });
        if let Some(field) = rule.field {
            said["fieldPath"] = field.into();
        }
        match at.get_mut("x-kubernetes-validations").and_then(Value::as_array_mut) {
            Some(rules) => rules.push(said),
            None => at["x-kubernetes-validations"] = json!([said]),
        }
    }
    schema
}

fn default(schema: &mut Value, path: &str, value: Value) {
    if let Some(part) = part(schema, path) {
        part["default"] = value;
    }
}

fn columns() -> Vec<CustomResourceColumnDefinition> {
    let column = |name: &str, kind: &str, path: &str, description: &str| CustomResourceColumnDefinition {
        name: name.to_owned(),
        type_: kind.to_owned(),
        json_path: path.to_owned(),
        description: Some(description.to_owned()),
        ..CustomResourceColumnDefinition::default()
    };
    let wide = |column| CustomResourceColumnDefinition { priority: Some(1), ..column };
    let ready = |key: &str| format!(".status.conditions[?(@.type==\"Ready\")].{key}");
    vec![
        column("Ready", "string", &ready("status"), "Whether calls are taken."),
        column("Workers", "integer", ".status.replicas", "Workers that do not drain, ready or not."),
        column("Ready-Workers", "integer", ".status.readyReplicas", "Workers that take calls."),
        column("Draining", "integer", ".status.drainingReplicas", "Workers that go when their last session is over."),
        column("Sessions", "integer", ".status.activeSessions", "Sessions that there are."),
        column("Capacity", "integer", ".status.capacity", "Sessions that the workers can have."),
        column("URL", "string", ".status.url", "Where clients reach it."),
        column("Age", "date", ".metadata.creationTimestamp", "Since when it has been there."),
        wide(column("Desired", "integer", ".status.desiredReplicas", "How many workers there are to be.")),
        wide(column("Handler", "string", ".spec.handler.name", "What answers.")),
        wide(column("Reason", "string", &ready("reason"), "Why it is ready, or is not.")),
    ]
}
