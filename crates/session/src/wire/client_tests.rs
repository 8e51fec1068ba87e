use serde_json::json;

use super::*;

fn id() -> SessionId {
    "k3x9".parse().unwrap()
}

/// `type` and `loc` of each fault.
fn faults(error: &BodyError) -> Value {
    let error: Value = serde_json::from_str(&error.to_json()).unwrap();
    let faults = error["detail"].as_array().unwrap().iter();
    faults.map(|fault| json!([fault["type"], fault["loc"]])).collect()
}

#[test]
fn inputs_are_a_list_and_whatever_else_is_said() {
    #[track_caller]
    fn check(body: Value, expected: Value) {
        let parsed = InputBody::parse(body.to_string().as_bytes()).unwrap();
        assert_eq!((parsed.webrtc_id, Value::from(parsed.inputs)), (id(), expected), "{body}");
    }
    check(json!({ "webrtc_id": "k3x9", "inputs": [550] }), json!([550]));
    check(json!({ "webrtc_id": "k3x9", "inputs": [] }), json!([]));
    check(json!({ "webrtc_id": "k3x9", "inputs": null }), json!([]));
    check(json!({ "webrtc_id": "k3x9", "threshold": 0.5, "x": [1] }), json!([{ "threshold": 0.5, "x": [1] }]));
    check(json!({ "webrtc_id": "k3x9", "inputs": [1, 2], "voice": "alto" }), json!([1, 2, { "voice": "alto" }]));
}

#[test]
fn triggers_may_bring_arguments() {
    #[track_caller]
    fn check(body: Value, expected: Option<Vec<Value>>) {
        let parsed = TriggerBody::parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(parsed, TriggerBody { webrtc_id: id(), inputs: expected }, "{body}");
    }
    check(json!({ "webrtc_id": "k3x9" }), None);
    check(json!({ "webrtc_id": "k3x9", "further": 1 }), None);
    check(json!({ "webrtc_id": "k3x9", "inputs": [] }), None);
    check(json!({ "webrtc_id": "k3x9", "inputs": [7] }), Some(vec![json!(7)]));
}

#[test]
fn wrong_bodies_are_told_everything_that_is_wrong() {
    #[track_caller]
    fn check(body: &str, input: Value, trigger: Option<Value>) {
        assert_eq!(faults(&InputBody::parse(body.as_bytes()).unwrap_err()), input, "{body}");
        let parsed = TriggerBody::parse(body.as_bytes());
        assert_eq!(parsed.as_ref().err().map(faults), trigger, "{body}");
    }
    let both = |body: &str, expected: Value| check(body, expected.clone(), Some(expected));
    let id = json!(["body", "webrtc_id"]);
    let inputs = json!(["body", "inputs"]);
    both("", json!([["missing", ["body"]]]));
    both("[]", json!([["model_attributes_type", ["body"]]]));
    both("{", json!([["json_invalid", ["body", 1]]]));
    both(&"[".repeat(10_000), json!([["json_invalid", ["body", 127]]]));
    both(r#"{"inputs":[1]}"#, json!([["missing", id]]));
    both(r#"{"webrtc_id":7,"inputs":{}}"#, json!([["string_type", id], ["list_type", inputs]]));
    both(r#"{"webrtc_id":"a b","inputs":"x"}"#, json!([["value_error", id], ["list_type", inputs]]));
    both(&format!(r#"{{"webrtc_id":"{}","inputs":[]}}"#, "a".repeat(129)), json!([["value_error", id]]));
    check(r#"{"webrtc_id":"a"}"#, json!([["missing", inputs]]), None);
    check("{}", json!([["missing", id], ["missing", inputs]]), Some(json!([["missing", id]])));
}

#[test]
fn queries() {
    #[track_caller]
    fn check(parameters: &[(&'static str, &'static str)], expected: Result<Option<&str>, Value>) {
        let pairs = parameters.iter().map(|(name, value)| (Cow::from(*name), Cow::from(*value)));
        let parsed = OutputsQuery::parse(pairs);
        let expected = expected.map(|token| OutputsQuery { webrtc_id: id(), access_token: token.map(str::to_owned) });
        assert_eq!(parsed.map_err(|error| faults(&error)), expected, "{parameters:?}");
    }
    let name = json!(["query", "webrtc_id"]);
    check(&[("webrtc_id", "k3x9")], Ok(None));
    check(&[("webrtc_id", "k3x9"), ("access_token", "t"), ("x", "y"), ("x", "y")], Ok(Some("t")));
    check(&[], Err(json!([["missing", name]])));
    check(&[("access_token", "t")], Err(json!([["missing", name]])));
    check(&[("webrtc_id", "")], Err(json!([["value_error", name]])));
    check(&[("webrtc_id", "\u{fffd}")], Err(json!([["value_error", name]])));
    check(&[("webrtc_id", "k3x9"), ("webrtc_id", "k3x9")], Err(json!([["value_error", name]])));
    let query = OutputsQuery { webrtc_id: id(), access_token: Some("hidden".to_owned()) };
    assert!(!format!("{query:?}").contains("hidden"));
    let token = json!(["query", "access_token"]);
    check(&[("webrtc_id", "k3x9"), ("access_token", "a"), ("access_token", "b")], Err(json!([["value_error", token]])));
}

#[test]
fn values_are_counted_at_every_depth() {
    let flat = |count: usize| vec![Value::from(vec![0; count])];
    assert!(!is_too_many(&flat(MAX_VALUES - 1)));
    assert!(is_too_many(&flat(MAX_VALUES)));
    let members = |count: usize| vec![Value::Object((0..count).map(|n| (n.to_string(), json!([n]))).collect())];
    assert!(!is_too_many(&members((MAX_VALUES - 1) / 2)));
    assert!(is_too_many(&members(MAX_VALUES / 2)));
}
