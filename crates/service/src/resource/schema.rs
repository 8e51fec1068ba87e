//! A JSON Schema made structural, as Kubernetes demands: no references, no alternatives, a type everywhere, and no formats that Go has not.
//!
//! Defaults go into the description: what the API server fills in, it writes into the object, where it stays when a later version has
//! another default.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// The largest number that is written in 32 bits, which `format: uint32` says elsewhere.
const MAX_U32: u64 = u32::MAX as u64;

/// Whose defaults are said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defaults {
    /// Those of what people write: what is absent means something.
    Told,
    /// Those of what programs write.
    Untold,
}

/// The schema of a type, as the API server takes it.
pub(super) fn structural<T: JsonSchema>(defaults: Defaults) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    rewrite(&mut schema, defaults);
    schema
}

/// The part of a schema at a path of keys, `[]` for the items of a list.
pub(super) fn part<'a>(schema: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    let mut at = schema;
    for key in path.split('.').filter(|key| !key.is_empty()) {
        let (key, is_list) = key.strip_suffix("[]").map_or((key, false), |key| (key, true));
        at = at.get_mut("properties")?.get_mut(key)?;
        if is_list {
            at = at.get_mut("items")?;
        }
    }
    Some(at)
}

fn rewrite(schema: &mut Value, defaults: Defaults) {
    let Value::Object(object) = schema else {
        // `true`: whatever it is.
        *schema = json!({ "x-kubernetes-preserve-unknown-fields": true });
        return;
    };
    object.remove("title");
    let default = object.remove("default").filter(|_| defaults == Defaults::Told);
    take_what_is_there(object);
    name_alternatives(object);
    if let Some(Value::Array(types)) = object.get("type") {
        let only = types.iter().find(|kind| *kind != "null").cloned();
        object.insert("type".to_owned(), only.unwrap_or(Value::Null));
    }
    if let Some(Value::String(format)) = object.get("format") {
        let is_wide = !matches!(format.as_str(), "uint8" | "uint16" | "uint32" | "int32");
        if format.starts_with("uint") || format.starts_with("int") {
            object.remove("format");
            object.insert("format".to_owned(), if is_wide { "int64" } else { "int32" }.into());
            if !is_wide && object.get("minimum").is_some() {
                // Signed in Go: what has more than 31 bits is an int64.
                object.insert("format".to_owned(), "int64".into());
                let most = object.get("maximum").and_then(Value::as_u64).unwrap_or(MAX_U32).min(MAX_U32);
                object.insert("maximum".to_owned(), most.into());
            }
        }
    }
    describe(object, default);
    match object.get_mut("additionalProperties") {
        Some(Value::Bool(false)) => {
            object.remove("additionalProperties");
        }
        Some(Value::Bool(true)) => {
            object.remove("additionalProperties");
            object.insert("x-kubernetes-preserve-unknown-fields".to_owned(), true.into());
        }
        Some(values) => rewrite(values, defaults),
        None => {}
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(|property| rewrite(property, defaults));
    }
    if let Some(items) = object.get_mut("items") {
        rewrite(items, defaults);
    }
    let is_typed = object.contains_key("type") || object.contains_key("x-kubernetes-int-or-string");
    if !is_typed {
        object.insert("x-kubernetes-preserve-unknown-fields".to_owned(), true.into());
    }
}

/// `Option` of a structure is the structure, or null, which the API server drops.
fn take_what_is_there(object: &mut Map<String, Value>) {
    let Some(Value::Array(alternatives)) = object.get("anyOf") else { return };
    let is_nothing = |schema: &&Value| schema.get("type") == Some(&json!("null"));
    let (nothing, mut things): (Vec<_>, Vec<_>) = alternatives.iter().partition(is_nothing);
    if let (false, Some(Value::Object(thing)), true) = (nothing.is_empty(), things.pop(), things.is_empty()) {
        let thing = thing.clone();
        object.remove("anyOf");
        for (key, value) in thing {
            // What is said of the field is nearer than what is said of its type.
            object.entry(key).or_insert(value);
        }
    }
}

/// Enumerations: their values, and in the description what each of them means.
fn name_alternatives(object: &mut Map<String, Value>) {
    let Some(Value::Array(alternatives)) = object.remove("oneOf") else { return };
    let mut values = Vec::new();
    let mut said = Vec::new();
    for alternative in &alternatives {
        let constant = alternative.get("const").cloned();
        let listed = alternative.get("enum").and_then(Value::as_array).cloned().unwrap_or_default();
        let description = alternative.get("description").and_then(Value::as_str).unwrap_or_default();
        for value in constant.into_iter().chain(listed) {
            let name = value.as_str().unwrap_or_default();
            said.push(format!("{name}: {}", flowing(description)));
            values.push(value);
        }
    }
    object.insert("type".to_owned(), "string".into());
    object.insert("enum".to_owned(), values.into());
    let text = object.get("description").and_then(Value::as_str).map(flowing).unwrap_or_default();
    object.insert("description".to_owned(), [&[text][..], &said].concat().join("\n").into());
}

/// The description in lines as long as they get, with the default.
fn describe(object: &mut Map<String, Value>, default: Option<Value>) {
    let described = object.get("description").and_then(Value::as_str).unwrap_or_default();
    let mut text = if object.contains_key("enum") { described.to_owned() } else { flowing(described) };
    let default = match default {
        Some(Value::String(text)) if text.is_empty() => None,
        Some(Value::String(text)) => Some(text),
        Some(Value::Array(list)) if list.is_empty() => None,
        Some(default @ (Value::Bool(_) | Value::Number(_) | Value::Array(_))) => Some(default.to_string()),
        Some(Value::Null | Value::Object(_)) | None => None,
    };
    if let Some(default) = default {
        let (first, rest) = text.split_once('\n').map_or((text.as_str(), ""), |(first, rest)| (first, rest));
        let first = format!("{first} Default: {default}.");
        text = if rest.is_empty() { first } else { format!("{first}\n{rest}") };
    }
    // Rust's documentation marks code; a terminal shows it as it is.
    let text = text.trim().to_owned();
    if !text.is_empty() {
        object.insert("description".to_owned(), text.into());
    }
}

/// Lines that belong together in one.
fn flowing(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
