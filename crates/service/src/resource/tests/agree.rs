//! The API server and this crate agree: what it takes can be used, and what is written loses nothing there.

use proptest::prelude::*;
use proptest::string::string_regex;
use serde_json::{Map, Value, json};

use super::admission::{refusals, without_nulls};
use crate::resource::definition::schema;
use crate::resource::object::StreamService;
use crate::service::Service;

/// Anything that fits a schema's types and bounds; what its rules say is another matter.
fn anything(schema: &Value) -> BoxedStrategy<Value> {
    if let Some(values) = schema["enum"].as_array() {
        return prop::sample::select(values.clone()).boxed();
    }
    let least = schema["minimum"].as_i64().unwrap_or(i64::MIN);
    let most = schema["maximum"].as_i64().unwrap_or(i64::MAX);
    // Small ones mean more.
    let number = prop_oneof![least..=most, least..=most.min(least.saturating_add(20))].prop_map(Value::from);
    if schema["x-kubernetes-int-or-string"] == true {
        return prop_oneof![number, text(schema)].boxed();
    }
    match schema["type"].as_str() {
        Some("string") => text(schema),
        Some("integer") => number.boxed(),
        Some("boolean") => any::<bool>().prop_map(Value::from).boxed(),
        Some("array") => {
            let (least, most) = (schema["minItems"].as_u64().unwrap_or(0), schema["maxItems"].as_u64().unwrap());
            let items = prop::collection::vec(anything(&schema["items"]), least as usize..=most.min(3) as usize);
            let key = schema["x-kubernetes-list-map-keys"][0].as_str().map(str::to_owned);
            items
                .prop_map(move |mut items| {
                    let mut keys = std::collections::BTreeSet::new();
                    if let Some(key) = &key {
                        items.retain(|item| keys.insert(item[key].to_string()));
                    }
                    Value::from(items)
                })
                .boxed()
        }
        Some("object") if schema["properties"].is_object() => {
            let required: Vec<&str> =
                schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let mut whole = Just(Map::new()).boxed();
            for (key, value) in schema["properties"].as_object().unwrap() {
                let value = match required.contains(&key.as_str()) {
                    true => anything(value).prop_map(Some).boxed(),
                    false => prop::option::weighted(0.3, anything(value)).boxed(),
                };
                let key = key.clone();
                whole = (whole, value)
                    .prop_map(move |(mut map, value)| {
                        map.extend(value.map(|value| (key.clone(), value)));
                        map
                    })
                    .boxed();
            }
            whole.prop_map(Value::from).boxed()
        }
        Some("object") if schema["additionalProperties"].is_object() => {
            let values = anything(&schema["additionalProperties"]);
            let map = prop::collection::btree_map("[a-z]{1,8}", values, 0..3);
            map.prop_map(|map| map.into_iter().collect::<Map<_, _>>().into()).boxed()
        }
        _ => prop::sample::select(vec![json!({}), json!({ "a": [1, "b", { "c": true }] })]).boxed(),
    }
}

fn text(schema: &Value) -> BoxedStrategy<Value> {
    let most = schema["maxLength"].as_u64().unwrap() as usize;
    let least = schema["minLength"].as_u64().unwrap_or(0);
    let pattern = match schema["pattern"].as_str() {
        Some(pattern) => pattern.trim_start_matches('^').trim_end_matches('$').to_owned(),
        None => format!("[ -~]{{{least},{}}}", most.min(20)),
    };
    let fits = move |text: &String| text.chars().count() <= most;
    string_regex(&pattern).unwrap().prop_filter("too long", fits).prop_map(Value::from).boxed()
}

/// What is left of a value that an API server stores.
fn stored(schema: &Value, value: &Value) -> Value {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return value.clone();
    }
    match value {
        Value::Object(map) => map
            .iter()
            .filter_map(|(key, value)| {
                let known = [&schema["properties"][key], &schema["additionalProperties"]];
                let schema = known.into_iter().find(|schema| schema.is_object())?;
                Some((key.clone(), stored(schema, value)))
            })
            .collect(),
        Value::Array(list) => list.iter().map(|value| stored(&schema["items"], value)).collect(),
        plain => plain.clone(),
    }
}

fn object(spec: &Value) -> Value {
    json!({
        "apiVersion": "streamfleet.dev/v1alpha1", "kind": "StreamService",
        "metadata": { "name": "assistant", "namespace": "voice" }, "spec": spec,
    })
}

/// A lone address in brackets is looked at more closely here than a regular expression can.
fn is_of_an_address(mistake: &str) -> bool {
    mistake.contains("urls")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn what_the_api_server_takes_can_be_used(spec in anything(&schema()["properties"]["spec"]), bounded in prop::bool::weighted(0.9)) {
        let (schema, mut spec) = (schema(), spec);
        if bounded {
            spec["disruption"] = json!("Always");
        }
        let taken = refusals(&schema, &object(&spec), None);
        let resource: StreamService = serde_json::from_value(object(&spec)).unwrap();
        // Types and bounds hold by the way it is made: what is refused is refused by a rule.
        let read = match &resource.spec {
            Ok(read) => read,
            Err(mistakes) => {
                let is_known = mistakes.iter().all(|mistake| is_of_an_address(&mistake.key) || mistake.key.starts_with("spec.path") || mistake.key.starts_with("spec.aliases"));
                prop_assert!(is_known && (mistakes.to_string().contains("urls") || !taken.is_empty()), "{mistakes} of {spec}");
                return Ok(());
            }
        };
        match Service::from_resource(&resource) {
            Ok(_) => {}
            Err(mistakes) => prop_assert!(!taken.is_empty(), "{mistakes} of {spec}"),
        }
        // Nothing that is written is dropped, and what is stored is what was meant.
        let written = serde_json::to_value(read).unwrap();
        let kept = stored(&schema["properties"]["spec"], &written);
        prop_assert_eq!(&kept, &written);
        let again: StreamService = serde_json::from_value(object(&without_nulls(kept))).unwrap();
        prop_assert_eq!(&again.spec, &resource.spec);
    }

    #[test]
    fn nothing_that_an_api_server_returns_fails_a_list(spec in prop_oneof![
        anything(&schema()["properties"]["spec"]),
        prop::sample::select(vec![json!(null), json!(7), json!("x"), json!([]), json!({ "later": { "key": 1 } })]),
    ]) {
        let mut whole = object(&spec);
        whole["status"] = json!({ "conditions": "none" });
        let read: StreamService = serde_json::from_value(whole).unwrap();
        prop_assert_eq!(read.metadata.name.as_deref(), Some("assistant"));
    }
}
