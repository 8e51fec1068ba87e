use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parse(value: &Value) -> Result<Value, String> {
    let parsed = Metadata::parse(value, &MetadataLimits::default()).map_err(|error| error.to_string())?;
    Ok(serde_json::to_value(parsed).unwrap())
}

#[track_caller]
fn check(value: Value, expected: Result<Value, &str>) {
    assert_eq!(parse(&value), expected.map_err(str::to_owned), "{value}");
}

#[test]
fn objects_pass_and_strings_are_cleaned() {
    check(json!({}), Ok(json!({})));
    check(json!({"user_id": "u1", "n": 1.5, "ok": null}), Ok(json!({"user_id": "u1", "n": 1.5, "ok": null})));
    check(json!({"a": "x\u{0}\ny\u{202e}", "b": ["\t1"]}), Ok(json!({"a": "xy", "b": ["1"]})));
}

/// Every hop reads and writes metadata again. A number that lost its last digit on each would move between workers when
/// it is hashed.
#[test]
fn numbers_survive_any_number_of_hops() {
    for number in ["18446774304709551615", "5e-324", "0.1", "1.7976931348623157e308", "-0.0", "9007199254740993"] {
        let first: Value = serde_json::from_str(&format!("{{\"n\":{number}}}")).unwrap();
        let hop = |value: &Value| -> Value { serde_json::from_str(&parse(value).unwrap().to_string()).unwrap() };
        assert_eq!(hop(&hop(&first)), first, "{number}");
    }
}

#[test]
fn other_types_are_refused() {
    for value in [json!(null), json!(1), json!("x"), json!([{}]), json!(true)] {
        check(value, Err("metadata must be a JSON object"));
    }
}

#[test]
fn keys_have_a_charset() {
    let accepted = "k".repeat(64);
    check(json!({ accepted.clone(): 1 }), Ok(json!({ accepted: 1 })));
    check(
        json!({ "k".repeat(65): 1 }),
        Err(&format!("metadata key {:?} must be 1 to 64 characters of A-Z a-z 0-9 _ . -", "k".repeat(32))),
    );
    for key in ["", "a b", "é", "a/b", "$where"] {
        let message = format!("metadata key {key:?} must be 1 to 64 characters of A-Z a-z 0-9 _ . -");
        check(json!({ key: 1 }), Err(&message));
        check(json!({"nested": [{ key: 1 }]}), Err(&message));
    }
}

#[test]
fn size_is_counted_in_bytes_of_compact_json() {
    // {"k":"…"} has 8 bytes around the text.
    let fits = json!({"k": "x".repeat(4096 - 8)});
    check(fits.clone(), Ok(fits));
    check(json!({"k": "x".repeat(4096 - 7)}), Err("metadata must be at most 4096 bytes of JSON"));
    check(json!({"k": "é".repeat(2045)}), Err("metadata must be at most 4096 bytes of JSON"));
}

#[test]
fn depth_counts_containers() {
    let nested = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
    check(nested(8), Ok(nested(8)));
    check(nested(9), Err("metadata must be nested at most 8 levels deep"));
    let arrays = (0..8).fold(json!(1), |inner, _| json!([inner]));
    check(json!({ "a": arrays }), Err("metadata must be nested at most 8 levels deep"));
}

#[test]
fn keys_are_counted_over_all_objects() {
    let keys = |n: usize| (0..n).map(|i| (format!("k{i}"), json!(1))).collect::<Map<_, _>>();
    check(Value::Object(keys(64)), Ok(Value::Object(keys(64))));
    check(Value::Object(keys(65)), Err("metadata must have at most 64 keys"));
    check(json!({ "a": keys(64) }), Err("metadata must have at most 64 keys"));
}

#[test]
fn the_allow_list_drops_silently() {
    let limits = MetadataLimits { allow: AllowList::from_keys(["plan"]), ..MetadataLimits::default() };
    let value = json!({"plan": {"inner": 1}, "ssn": "x".repeat(9999), "bad key": 1});
    let kept = Metadata::parse(&value, &limits).unwrap();
    assert_eq!(serde_json::to_value(kept).unwrap(), json!({"plan": {"inner": 1}}));
    assert_eq!(AllowList::from_keys(["a", "*"]), AllowList::All);
}

#[test]
fn debug_shows_no_value() {
    let metadata = Metadata::parse(&json!({"secret": "s3cret"}), &MetadataLimits::default()).unwrap();
    assert_eq!(format!("{metadata:?}"), "Metadata(1 keys)");
}

/// JSON with keys and shapes on both sides of the limits.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[a-z]{0,2000}".prop_map(Value::from),
    ];
    leaf.prop_recursive(10, 200, 12, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..12).prop_map(Value::from),
            prop::collection::btree_map("[A-Za-z0-9_.-]{1,8}|[ -~]{0,70}", inner, 0..12)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(entries) => 1 + entries.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

proptest! {
    #[test]
    fn what_is_accepted_is_within_the_limits(value in any_json()) {
        let limits = MetadataLimits::default();
        if let Ok(metadata) = Metadata::parse(&value, &limits) {
            let text = serde_json::to_string(&metadata).unwrap();
            prop_assert!(text.len() <= limits.max_bytes);
            let value = serde_json::to_value(&metadata).unwrap();
            prop_assert!(depth(&value) <= limits.max_depth);
            prop_assert!(!text.contains("\\u00"), "a control character survived: {}", text);
            prop_assert_eq!(Metadata::parse(&value, &limits).unwrap(), metadata);
        }
    }

    #[test]
    fn small_flat_objects_are_accepted(map in prop::collection::btree_map("[a-z]{1,8}", "[ -~]{0,20}", 0..20)) {
        let value = serde_json::to_value(&map).unwrap();
        let expected: Map<String, Value> = map.into_iter().map(|(k, v)| (k, v.into())).collect();
        let parsed = Metadata::parse(&value, &MetadataLimits::default()).unwrap();
        prop_assert_eq!(parsed.as_map(), &expected);
    }
}
