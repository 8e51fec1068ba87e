//! What an API server does with an object: unknown keys, types and bounds, defaults, rules. The rules are evaluated by kube.

use std::collections::BTreeSet;

use kube::core::cel::{Validator, apply_defaults, cel};
use serde_json::Value;

/// What is said of an object that is to be made, or to replace `old`; nothing where it is taken.
pub(super) fn refusals(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut said = Vec::new();
    let object = without_nulls(object.clone());
    check(schema, &object, "", &mut said);
    if !said.is_empty() {
        // Rules are not looked at where types are wrong.
        return said;
    }
    let object = apply_defaults(schema, &object);
    match Validator::new().validate(schema, &object, old) {
        Ok(()) => {}
        Err(errors) => said.extend(errors.iter().map(|error| format!("{}: {}", error.field_path, error.message))),
    }
    said
}

/// Nulls are dropped: nothing here is nullable.
pub(super) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        plain => plain,
    }
}

fn check(schema: &Value, value: &Value, at: &str, said: &mut Vec<String>) {
    let preserves = schema["x-kubernetes-preserve-unknown-fields"] == true;
    if preserves && schema["type"].is_null() {
        return;
    }
    let is_either = schema["x-kubernetes-int-or-string"] == true;
    let is_fit = match schema["type"].as_str() {
        None if is_either => value.is_i64() || value.is_string(),
        None => false,
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64(),
        Some(other) => panic!("{at}: {other} is not looked at"),
    };
    if !is_fit {
        said.push(format!("{at}: has the wrong type"));
        return;
    }
    match value {
        Value::Object(map) => {
            for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !map.contains_key(required) {
                    said.push(format!("{at}.{required}: is required"));
                }
            }
            for (key, value) in map {
                let at = format!("{at}.{key}");
                let properties = &schema["properties"][key];
                if properties.is_object() {
                    check(properties, value, &at, said);
                } else if schema["additionalProperties"].is_object() {
                    check(&schema["additionalProperties"], value, &at, said);
                } else if !preserves && !matches!(at.as_str(), ".metadata" | ".apiVersion" | ".kind") {
                    said.push(format!("{at}: unknown field"));
                }
            }
            bound(schema, "maxProperties", map.len() as f64, false, at, said);
        }
        Value::Array(list) => {
            for (n, value) in list.iter().enumerate() {
                check(&schema["items"], value, &format!("{at}[{n}]"), said);
            }
            bound(schema, "maxItems", list.len() as f64, false, at, said);
            bound(schema, "minItems", list.len() as f64, true, at, said);
            if schema["x-kubernetes-list-type"] == "map" {
                let key = schema["x-kubernetes-list-map-keys"][0].as_str().unwrap();
                let keys: BTreeSet<String> = list.iter().map(|item| item[key].to_string()).collect();
                if keys.len() < list.len() {
                    said.push(format!("{at}: duplicate {key}"));
                }
            }
        }
        Value::String(text) => {
            let length = text.chars().count() as f64;
            bound(schema, "maxLength", length, false, at, said);
            bound(schema, "minLength", length, true, at, said);
            if let Some(pattern) = schema["pattern"].as_str()
                && !matches(text, pattern)
            {
                said.push(format!("{at}: should match {pattern}"));
            }
            let values = schema["enum"].as_array();
            if values.is_some_and(|values| !values.contains(value)) {
                said.push(format!("{at}: unsupported value {text:?}"));
            }
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap();
            bound(schema, "maximum", number, false, at, said);
            bound(schema, "minimum", number, true, at, said);
        }
        Value::Bool(_) | Value::Null => {}
    }
}

fn bound(schema: &Value, key: &str, value: f64, is_least: bool, at: &str, said: &mut Vec<String>) {
    let Some(bound) = schema[key].as_f64() else { return };
    if if is_least { value < bound } else { value > bound } {
        said.push(format!("{at}: is beyond {key} {bound}"));
    }
}

pub(super) fn matches(text: &str, pattern: &str) -> bool {
    let mut context = cel::Context::default();
    context.add_variable_from_value("text", text.to_owned());
    context.add_variable_from_value("pattern", pattern.to_owned());
    let program = cel::Program::compile("text.matches(pattern)").unwrap();
    program.execute(&context).unwrap() == cel::Value::Bool(true)
}
