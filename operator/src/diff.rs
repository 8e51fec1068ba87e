//! Whether the API server has what is wanted already, so that nothing is sent that changes nothing.
//!
//! It has more than was written: defaults, what other writers own, status. What is wanted has to be in it; what else is in it is
//! not looked at. Lists whose elements have keys are compared by those, as server-side apply merges them.

use ring::digest;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// Whether all of `wanted` is in `actual`.
#[must_use]
pub fn covers(actual: &Value, wanted: &Value) -> bool {
    match (actual, wanted) {
        (Value::Object(actual), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| match actual.get(key) {
            Some(actual) => match key.as_str() {
                "requests" | "limits" => covers_amounts(actual, wanted),
                _ => covers(actual, wanted),
            },
            // A Deployment that is not paused does not say so.
            None => is_nothing(wanted) || (key == "paused" && *wanted == Value::Bool(false)),
        }),
        (Value::Array(actual), Value::Array(wanted)) => match list_key(wanted) {
            Some(key) => wanted
                .iter()
                .all(|wanted| actual.iter().any(|actual| actual.get(key) == wanted.get(key) && covers(actual, wanted))),
            None => {
                actual.len() == wanted.len() && actual.iter().zip(wanted).all(|(actual, wanted)| covers(actual, wanted))
            }
        },
        _ => actual == wanted,
    }
}

/// What the API server leaves out where nothing says otherwise.
fn is_nothing(wanted: &Value) -> bool {
    match wanted {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_nothing),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// By what the elements of a list are known. Elements of every list with keys that is written here have one of these, and no two
/// have the same.
fn list_key(wanted: &[Value]) -> Option<&'static str> {
    ["uid", "mountPath", "name", "key", "topologyKey"].into_iter().find(|key| {
        let mut seen = Vec::new();
        !wanted.is_empty()
            && wanted.iter().all(|element| match element.get(key) {
                Some(value) if !seen.contains(&value) => {
                    seen.push(value);
                    true
                }
                _ => false,
            })
    })
}

/// Amounts of resources: the API server writes `1000m` as `1`.
fn covers_amounts(actual: &Value, wanted: &Value) -> bool {
    let (Value::Object(actual), Value::Object(wanted)) = (actual, wanted) else { return covers(actual, wanted) };
    wanted.iter().all(|(name, wanted)| match (actual.get(name).and_then(amount), amount(wanted)) {
        // Both are texts of the same few forms; the same amount has the same value.
        (Some(actual), Some(wanted)) => (actual - wanted).abs() <= wanted.abs() * 1e-9,
        _ => false,
    })
}

fn amount(value: &Value) -> Option<f64> {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024_f64.powi(2),
        "Gi" => 1024_f64.powi(3),
        "Ti" => 1024_f64.powi(4),
        "Pi" => 1024_f64.powi(5),
        "Ei" => 1024_f64.powi(6),
        // An exponent.
        _ => return text.parse().ok(),
    };
    number.parse::<f64>().ok().map(|number| number * factor)
}

/// What an object says, without its status, and without what the API server counts and notes: two that say the same have the same
/// text.
#[must_use]
pub fn essence(object: &Value) -> String {
    let kept = Kept { value: object, part: Part::Object };
    serde_json::to_string(&kept).expect("invariant: JSON has text keys and can be serialised")
}

/// A digest of such a text.
#[must_use]
pub fn digest(essence: &str) -> [u8; 16] {
    let hash = digest::digest(&digest::SHA256, essence.as_bytes());
    hash.as_ref()[..16].try_into().expect("invariant: SHA-256 has 32 bytes")
}

/// A part of an object, without what changes by itself. Every event of every object comes through here: nothing is copied.
struct Kept<'a> {
    value: &'a Value,
    part: Part,
}

#[derive(Clone, Copy)]
enum Part {
    Object,
    Metadata,
    Annotations,
    Other,
}

impl Part {
    /// A part of this one; `None` if it changes by itself.
    fn below(self, key: &str) -> Option<Self> {
        match (self, key) {
            (Self::Object, "status") => None,
            (Self::Object, "metadata") => Some(Self::Metadata),
            (Self::Metadata, "resourceVersion" | "generation" | "managedFields" | "creationTimestamp") => None,
            (Self::Metadata, "annotations") => Some(Self::Annotations),
            (Self::Annotations, "deployment.kubernetes.io/revision") => None,
            _ => Some(Self::Other),
        }
    }
}

impl Serialize for Kept<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.value, self.part) {
            (value, Part::Other) => value.serialize(serializer),
            (Value::Object(all), part) => serializer
                .collect_map(all.iter().filter_map(|(key, value)| Some((key, Kept { value, part: part.below(key)? })))),
            (value, _) => value.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;

    #[test]
    fn what_is_wanted_is_looked_for_and_nothing_else() {
        let check = |actual: Value, wanted: Value, expected: bool| {
            assert_eq!(covers(&actual, &wanted), expected, "{actual} covers {wanted}");
        };
        check(json!({}), json!({ "paused": false }), true);
        check(json!({ "paused": true }), json!({ "paused": false }), false);
        check(json!({}), json!({ "automountServiceAccountToken": false }), false);
        check(json!({ "a": 1, "b": 2 }), json!({ "a": 1 }), true);
        check(json!({ "a": 1 }), json!({ "a": 2 }), false);
        check(json!({}), json!({ "a": {}, "b": [], "c": null, "d": "" }), true);
        check(json!({}), json!({ "a": false }), false);
        // Lists with keys: others may have added to them, and in any order.
        let env = json!([{ "name": "x", "value": "1" }, { "name": "y", "value": "2" }]);
        check(env.clone(), json!([{ "name": "y", "value": "2" }]), true);
        check(env.clone(), json!([{ "name": "y", "value": "3" }]), false);
        check(env, json!([{ "name": "z" }]), false);
        // Those without are what they are.
        check(json!(["a", "b"]), json!(["a"]), false);
        check(json!([{ "from": [1] }]), json!([{ "from": [1] }]), true);
        // Defaults in elements.
        check(json!([{ "name": "http", "port": 1, "protocol": "TCP" }]), json!([{ "name": "http", "port": 1 }]), true);
        let limits = |text: Value| json!({ "limits": { "cpu": text } });
        for (actual, wanted, expected) in [
            (json!("1"), json!("1000m"), true),
            (json!("500m"), json!("0.5"), true),
            (json!("512Mi"), json!("0.5Gi"), true),
            (json!("1"), json!(1), true),
            (json!("1k"), json!("1e3"), true),
            (json!("1"), json!("1001m"), false),
            (json!("1"), json!("1Ki"), false),
        ] {
            check(limits(actual), limits(wanted), expected);
        }
    }

    #[test]
    fn what_changes_by_itself_does_not_count() {
        let one =
            json!({ "metadata": { "name": "a", "resourceVersion": "1" }, "spec": { "x": 1 }, "status": { "y": 1 } });
        let two = json!({ "metadata": { "name": "a", "resourceVersion": "2", "generation": 3 }, "spec": { "x": 1 } });
        let three = json!({ "metadata": { "name": "a" }, "spec": { "x": 2 } });
        assert_eq!(essence(&one), essence(&two));
        assert_ne!(essence(&one), essence(&three));
        let noted = json!({ "metadata": { "annotations": { "deployment.kubernetes.io/revision": "3", "a": "b" } }, "status": 1,
            "spec": { "status": 1, "metadata": { "generation": 1 } } });
        let kept = r#"{"metadata":{"annotations":{"a":"b"}},"spec":{"metadata":{"generation":1},"status":1}}"#;
        assert_eq!(essence(&noted), kept);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..5_i32).prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-d]|name", inner, 0..4).prop_map(|map| Value::from(Map::from_iter(map))),
            ]
        })
    }

    proptest! {
        #[test]
        fn everything_covers_itself_and_less(value in any_json(), more in any_json()) {
            prop_assert!(covers(&value, &value));
            if let Value::Object(map) = &value {
                let mut larger = map.clone();
                larger.insert("zz".to_owned(), more);
                prop_assert!(covers(&Value::Object(larger), &value));
            }
        }
    }
}
