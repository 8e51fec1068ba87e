//! The reference of the resource, for people: `docs/streamservice.md`.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::definition::schema;

const BEGINNING: &str = "\
# The StreamService

<!-- Made of the definition by `cargo run -p streamfleet-service --features kube --example definition`; a test fails when it is stale. -->

What `kubectl explain streamservice.spec --recursive` shows, with the bounds and rules that the API server checks. The same YAML is read from files, by
[routers](router.md) and by workers with `manifests`; there what only an operator obeys is checked, and not obeyed. In files a secret may also be
`{file: PATH}` or `{env: VARIABLE}`; in a cluster it is a Secret's.

Only `spec.handler.name` has to be there, and something that bounds how long a worker drains: `spec.limits.timeLimitSeconds`,
`spec.autoscaling.scaleDown.maxDrainSeconds`, or `spec.disruption: Always`. Defaults are no part of the stored object, but for
`spec.autoscaling.replicas`, which autoscalers read.

Short name `ss`, category `all`; `kubectl scale` and a HorizontalPodAutoscaler set `spec.autoscaling.replicas`, which counts in mode `External`.
";

/// The reference, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut text = BEGINNING.to_owned();
    let schema = schema();
    rules(&mut text, &schema, "the object");
    for part in ["spec", "status"] {
        if let Some(part_schema) = schema.pointer(&format!("/properties/{part}")) {
            section(&mut text, part, part_schema);
        }
    }
    text
}

/// What an object has, and then what each of its objects has.
fn section(text: &mut String, path: &str, schema: &Value) {
    // Writing to a string does not fail.
    let _ = write!(text, "\n## `{path}`\n\n");
    if let Some(description) = schema["description"].as_str() {
        let _ = write!(text, "{}\n\n", cell(description));
    }
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    text.push_str("| key | type | |\n|---|---|---|\n");
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (key, value) in properties {
        let needed = if required.contains(&key.as_str()) { " Required." } else { "" };
        let description = cell(value["description"].as_str().unwrap_or_default());
        let _ = writeln!(text, "| `{key}` | {} | {description}{needed}{} |", kind(value), bounds(value));
    }
    rules(text, schema, path);
    for (key, value) in properties {
        let (path, inner) = match value["items"].as_object() {
            Some(_) => (format!("{path}.{key}[]"), &value["items"]),
            None => (format!("{path}.{key}"), value),
        };
        if inner["properties"].is_object() {
            section(text, &path, inner);
        } else {
            // What is said of a plain value is said here.
            rules(text, inner, &path);
        }
    }
}

fn rules(text: &mut String, schema: &Value, path: &str) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let field = rule["fieldPath"].as_str().unwrap_or_default();
        let message = cell(rule["message"].as_str().unwrap_or_default());
        let place = if path.contains(' ') { path.to_owned() } else { format!("`{path}{field}`") };
        let _ = write!(text, "\nRefused of {place}: {message}.\n");
    }
}

fn kind(schema: &Value) -> String {
    if schema["x-kubernetes-int-or-string"] == true {
        return "number or text".to_owned();
    }
    match schema["type"].as_str() {
        Some("string") if schema["enum"].is_array() => "one of them".to_owned(),
        Some("string") => "text".to_owned(),
        Some("integer") => "number".to_owned(),
        Some("boolean") => "yes or no".to_owned(),
        Some("array") => format!("list of {}", plural(&schema["items"])),
        Some("object") if schema["additionalProperties"].is_object() => {
            format!("{} by name", plural(&schema["additionalProperties"]))
        }
        Some("object") => "object".to_owned(),
        _ => "anything".to_owned(),
    }
}

fn plural(schema: &Value) -> &'static str {
    match schema["type"].as_str() {
        Some("string") => "texts",
        Some("integer") => "numbers",
        Some("object") => "objects",
        _ => "values",
    }
}

fn bounds(schema: &Value) -> String {
    let number = |key: &str| schema[key].as_f64();
    let mut said = String::new();
    let most = number("maximum").filter(|most| *most < f64::from(u32::MAX));
    match (number("minimum").filter(|least| *least > 0.0), most) {
        (Some(least), Some(most)) => {
            let _ = write!(said, " From {least} to {most}.");
        }
        (Some(least), None) => {
            let _ = write!(said, " At least {least}.");
        }
        (None, Some(most)) => {
            let _ = write!(said, " At most {most}.");
        }
        (None, None) => {}
    }
    if let Some(most) = number("maxItems") {
        let _ = write!(said, " At most {most} of them.");
    }
    if let Some(most) = number("maxLength") {
        let _ = write!(said, " At most {most} characters.");
    }
    said
}

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', "<br>")
}
