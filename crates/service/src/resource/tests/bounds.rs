//! What anybody may write keeps nobody from reading the rest.

use kube::core::{ObjectList, WatchEvent};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::object;
use crate::resource::StreamService;
use crate::service::Service;

/// So many maps in each other.
fn deep(levels: usize) -> String {
    format!("{}{{}}{}", r#"{"a":"#.repeat(levels - 1), "}".repeat(levels - 1))
}

/// So many lists in each other.
fn deep_list(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

/// An object, as text, with something in the place of `"HERE"`.
fn text(object: &Value, here: &str) -> String {
    let text = object.to_string();
    assert!(text.contains("\"HERE\""), "{text}");
    text.replace("\"HERE\"", here)
}

fn mistakes(resource: &StreamService) -> Option<String> {
    Service::from_resource(resource).err().map(|mistakes| mistakes.to_string().trim_end().to_owned())
}

/// The API server keeps any depth where it keeps what it does not know, and one such object kept everybody from reading any list.
#[test]
fn what_is_too_deep_keeps_no_other_from_being_read() {
    let good = object(&json!({})).to_string();
    let check = |of: Value, here: &str, expected: Option<&str>| {
        let bad = text(&of, here);
        let list = format!(
            r#"{{"apiVersion":"streamfleet.dev/v1alpha1","kind":"StreamServiceList","metadata":{{"resourceVersion":"1"}},"items":[{good},{bad},{good}]}}"#
        );
        let list: ObjectList<StreamService> = serde_json::from_str(&list).unwrap();
        let event = format!(r#"{{"type":"MODIFIED","object":{bad}}}"#);
        let WatchEvent::Modified(changed) = serde_json::from_str::<WatchEvent<StreamService>>(&event).unwrap() else {
            panic!("{event}")
        };
        assert_eq!(list.items[1], changed);
        let said: Vec<_> = list.items.iter().map(mistakes).collect();
        let key = expected.map(|key| format!("{key}: is nested too deeply: there are more than 60 levels"));
        assert_eq!(said, [None, key, None], "{of}");
        assert_eq!(changed.metadata.name.as_deref(), Some("assistant"));
        assert_eq!(changed.metadata.managed_fields, None);
    };
    let here = || json!("HERE");
    let with = |key: &str, value: Value| {
        let mut of = object(&json!({}));
        of["spec"][key] = value;
        of
    };
    let handler = |config: Value| with("handler", json!({ "name": "echo", "config": config }));
    for levels in [118, 124, 128, 200, 3_000] {
        let deep = deep(levels);
        check(handler(here()), &deep, Some("spec.handler.config.a.a"));
        check(handler(json!({ "k": here() })), &deep_list(levels), Some("spec.handler.config.k[0]"));
        check(
            with("workers", json!({ "template": { "spec": { "affinity": here() } } })),
            &deep,
            Some("spec.workers.template.spec.affinity"),
        );
        check(with("later", here()), &deep, Some("spec.later.a.a.a"));
        let mut of = object(&json!({}));
        of["metadata"]["managedFields"] = json!([{ "manager": "kubectl", "fieldsV1": here() }]);
        check(of, &deep, None);
        let mut of = object(&json!({}));
        of["status"] = json!({ "replicas": 3, "later": here() });
        check(of, &deep, None);
        let mut of = object(&json!({}));
        of["later"] = here();
        check(of, &deep, None);
        let mut of = object(&json!({}));
        of["metadata"]["later"] = here();
        check(of, &deep, None);
        let mut of = object(&json!({}));
        of["spec"] = here();
        check(of, &deep, Some("spec.a.a.a.a"));
        check(
            handler(json!({ "k".repeat(100): here() })),
            &deep,
            Some(&format!("spec.handler.config.{}.a", "k".repeat(64))),
        );
    }
    // The specification and its handler are two of them.
    check(handler(here()), &deep(58), None);
    check(handler(here()), &deep_list(58), None);
    check(handler(here()), &deep(59), Some("spec.handler.config.a.a"));
    // Mistakes are found in what is as deep as may be, too.
    let of = object(&json!({ "handler": { "name": "echo", "config": "HERE" }, "later": 1 }));
    let said = mistakes(&serde_json::from_str(&text(&of, &deep(58))).unwrap()).unwrap();
    assert!(said.contains("spec.later"), "{said}");
}

/// JSON escapes some characters that YAML does not take, in which objects are applied, and not others.
#[test]
fn what_cannot_be_applied_is_refused_with_its_key() {
    let check = |parts: Value, key: &str, c: char| {
        let resource: StreamService = serde_json::from_value(object(&parts)).unwrap();
        let code = u32::from(c);
        let expected = format!("{key}: has the character U+{code:04X}, which cannot be written into a cluster");
        assert_eq!(mistakes(&resource), Some(expected), "{parts}");
    };
    for c in ['\0', '\u{1}', '\u{1b}', '\u{7f}', '\u{80}', '\u{9f}', '\u{fffe}', '\u{ffff}'] {
        let bad = format!("a{c}b");
        check(
            json!({ "handler": { "name": "echo", "config": { "words": ["x", bad] } } }),
            "spec.handler.config.words[1]",
            c,
        );
        check(
            json!({ "handler": { "name": "echo", "config": { "words": { &bad: 1 } } } }),
            "spec.handler.config.words",
            c,
        );
        check(json!({ "handler": { "name": bad } }), "spec.handler.name", c);
        check(json!({ "workers": { "env": [{ "name": "A", "value": bad }] } }), "spec.workers.env[0].value", c);
        check(json!({ "telephone": { "before": bad } }), "spec.telephone.before", c);
    }
    let fine = "\t\r\n ~\u{85}\u{a0}\u{202e}\u{2028}\u{d7ff}\u{e000}\u{feff}\u{fffd}\u{1f600}\u{10ffff}";
    let parts = json!({ "handler": { "name": "echo", "config": { fine: fine } } });
    let resource: StreamService = serde_json::from_value(object(&parts)).unwrap();
    assert_eq!(resource.spec.unwrap().handler.config, json!({ fine: fine }));
    // What an operator has said is only looked at.
    let mut object = object(&json!({}));
    object["status"] = json!({ "url": "\u{7f}" });
    let resource: StreamService = serde_json::from_value(object).unwrap();
    assert_eq!((mistakes(&resource), resource.status.url.as_deref()), (None, Some("\u{7f}")));
}

/// A key of serde_json's own has a text read as JSON, without any bound.
#[test]
fn no_text_becomes_more_than_text() {
    for key in ["$serde_json::private::RawValue", "$serde_json::private::Number"] {
        let config = json!({ key: "[[[7]]]" });
        let text = object(&json!({ "handler": { "name": "echo", "config": "HERE" } }));
        let text = text.to_string().replace("\"HERE\"", &config.to_string());
        let said = mistakes(&serde_json::from_str(&text).unwrap()).unwrap();
        assert!(said.starts_with("spec.handler.config: has a key that begins with"), "{said}");
    }
}

/// What is small where it is written, and large in the memory of whoever reads it.
#[test]
fn what_is_too_large_is_not_read() {
    #[track_caller]
    fn check(config: Value, is_too_large: bool) {
        let mut object = object(&json!({}));
        object["spec"]["handler"]["config"] = config.clone();
        let resource: StreamService = serde_json::from_value(object).unwrap();
        let mistakes = Service::from_resource(&resource).err().map(|mistakes| mistakes.to_string());
        let expected = is_too_large.then_some("spec: is too large: it has more than 20000 values");
        assert_eq!(mistakes.as_deref().map(str::trim_end), expected);
    }
    check(json!({ "list": vec![0; 19_000] }), false);
    check(json!({ "list": vec![0; 20_000] }), true);
    check(json!(vec![json!({ "a": [1, 2, 3] }); 3_900]), false);
    check(json!(vec![json!({ "a": [1, 2, 3] }); 4_000]), true);
    let map: serde_json::Map<_, _> = (0..700_000).map(|n| (n.to_string(), json!([]))).collect();
    check(map.into(), true);
    check(json!("long".repeat(300_000)), false);
    // The template of the workers' pods, and what nobody knows.
    for key in ["workers", "later"] {
        let mut object = object(&json!({}));
        object["spec"][key] = json!({ "template": { "spec": { "containers": vec![json!({}); 20_000] } } });
        let resource: StreamService = serde_json::from_value(object).unwrap();
        assert!(resource.spec.unwrap_err().to_string().contains("spec: is too large"), "{key}");
    }
}

#[test]
fn who_wrote_it_is_not_kept() {
    let mut written = object(&json!({}));
    written["metadata"]["managedFields"] = json!([{ "manager": "kubectl", "fieldsV1": { "f:spec": {} } }]);
    let resource: StreamService = serde_json::from_value(written).unwrap();
    assert_eq!(resource.metadata.managed_fields, None);
    assert!(resource.spec.is_ok());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~ä]{0,9}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-z.]{0,4}", inner, 0..6).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_within_bounds_is_read_as_it_is(config in any_json()) {
        let whole = object(&json!({ "handler": { "name": "echo", "config": config } })).to_string();
        let whole_again: Value = serde_json::from_str(&whole).unwrap();
        let resource: StreamService = serde_json::from_str(&whole).unwrap();
        prop_assert_eq!(&resource.spec.unwrap().handler.config, &whole_again["spec"]["handler"]["config"]);
    }
}
