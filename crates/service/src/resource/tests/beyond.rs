//! Every bound of the schema, one by one: what is just beyond it is refused with its key.

use serde_json::{Value, json};
use streamfleet_process::config::Mistake;

use super::admission::{matches, refusals};
use super::object;
use crate::resource::StreamService;
use crate::resource::definition::schema;
use crate::service::Service;

/// Every key that has bounds, and which: those that hold here too, for what is read from files or came past an API server, and those that
/// the API server alone holds. Written by hand: a bound that is lost in the types, from which the schema is made, is missed here.
const BOUNDS: &[(&str, &str, &str)] = &[
    ("spec.aliases", "", "maxItems 16"),
    ("spec.aliases[]", "maxLength 256, pattern", ""),
    ("spec.autoscaling.buffer", "minimum 0, maximum 4294967295, maxLength 5, pattern", ""),
    ("spec.autoscaling.maxReplicas", "minimum 1, maximum 5000", ""),
    ("spec.autoscaling.minReplicas", "minimum 0, maximum 5000", ""),
    ("spec.autoscaling.mode", "enum Sessions External", ""),
    ("spec.autoscaling.replicas", "minimum 0, maximum 5000", ""),
    ("spec.autoscaling.scaleDown.maxDrainSeconds", "minimum 0, maximum 604800", ""),
    ("spec.autoscaling.scaleDown.stabilizationSeconds", "minimum 0, maximum 86400", ""),
    ("spec.autoscaling.schedule", "", "maxItems 32"),
    ("spec.autoscaling.schedule[].cron", "maxLength 128, pattern", ""),
    ("spec.autoscaling.schedule[].durationSeconds", "minimum 60, maximum 604800", ""),
    ("spec.autoscaling.schedule[].minReplicas", "minimum 0, maximum 5000", ""),
    ("spec.autoscaling.schedule[].timeZone", "maxLength 64, pattern", ""),
    ("spec.context.resumeBy", "enum token identity", ""),
    ("spec.context.retentionSeconds", "minimum 0, maximum 86400", ""),
    ("spec.disruption", "enum Never OnUpgrade Always", ""),
    ("spec.handler.name", "minLength 1", "maxLength 128"),
    ("spec.host", "maxLength 253, pattern", ""),
    ("spec.identity.jwt.audience", "", "maxLength 1024"),
    ("spec.identity.jwt.issuer", "", "maxLength 1024"),
    ("spec.identity.jwt.jwksUrl", "pattern", "maxLength 2048"),
    ("spec.identity.jwt.publicKey", "", "minLength 1, maxLength 16384"),
    ("spec.identity.jwt.secret.secretKeyRef.key", "", "minLength 1, maxLength 253, pattern"),
    ("spec.identity.jwt.secret.secretKeyRef.name", "", "minLength 1, maxLength 253"),
    ("spec.identity.metadata.allow", "", "maxItems 256"),
    ("spec.identity.metadata.allow[]", "", "maxLength 256"),
    ("spec.identity.metadata.maxBytes", "minimum 0, maximum 65536", ""),
    ("spec.identity.metadata.maxDepth", "minimum 0, maximum 64", ""),
    ("spec.identity.metadata.maxKeys", "minimum 0, maximum 4096", ""),
    ("spec.identity.userIdFrom", "", "maxItems 16"),
    ("spec.identity.userIdFrom[]", "maxLength 256, pattern", ""),
    ("spec.identity.webhook.onFailure", "enum Refuse Admit", ""),
    ("spec.identity.webhook.timeoutMs", "minimum 1, maximum 10000", ""),
    ("spec.identity.webhook.url", "pattern", "maxLength 2048"),
    ("spec.limits.concurrency", "minimum 1, maximum 4294967295", ""),
    ("spec.limits.connectTimeoutSeconds", "minimum 1, maximum 4294967295", ""),
    ("spec.limits.offersPerMinute", "minimum 1, maximum 4294967295", ""),
    ("spec.limits.perUser", "minimum 1, maximum 4294967295", ""),
    ("spec.limits.timeLimitSeconds", "minimum 1, maximum 4294967295", ""),
    ("spec.media.exposure", "enum Relay HostPort", ""),
    ("spec.media.iceServers", "", "maxItems 16"),
    ("spec.media.iceServers[].credential", "", "maxLength 512"),
    ("spec.media.iceServers[].urls", "minItems 1", "maxItems 8"),
    ("spec.media.iceServers[].urls[]", "maxLength 512, pattern", ""),
    ("spec.media.iceServers[].username", "", "maxLength 512"),
    ("spec.media.turn.secret.secretKeyRef.key", "", "minLength 1, maxLength 253, pattern"),
    ("spec.media.turn.secret.secretKeyRef.name", "", "minLength 1, maxLength 253"),
    ("spec.media.turn.ttlSeconds", "minimum 60, maximum 604800", ""),
    ("spec.media.turn.urls", "", "maxItems 16"),
    ("spec.media.turn.urls[]", "maxLength 512, pattern", ""),
    ("spec.modality", "enum audio video audio-video", ""),
    ("spec.path", "maxLength 256, pattern", ""),
    ("spec.routing.affinity.by", "maxLength 128, pattern", ""),
    ("spec.routing.affinity.strength", "enum Prefer Require", ""),
    ("spec.routing.offerHoldSeconds", "minimum 0, maximum 60", ""),
    ("spec.routing.packing", "enum Pack Spread", ""),
    ("spec.routing.variants", "", "maxItems 16"),
    ("spec.routing.variants[].name", "maxLength 32, pattern", ""),
    ("spec.routing.variants[].weight", "minimum 0, maximum 100", ""),
    ("spec.routing.variants[].workers.env", "", "maxItems 64"),
    ("spec.routing.variants[].workers.env[].name", "minLength 1, maxLength 253, pattern", ""),
    ("spec.routing.variants[].workers.env[].value", "", "maxLength 32768"),
    ("spec.routing.variants[].workers.env[].valueFrom.configMapKeyRef.key", "", "minLength 1, maxLength 253, pattern"),
    ("spec.routing.variants[].workers.env[].valueFrom.configMapKeyRef.name", "", "minLength 1, maxLength 253, pattern"),
    ("spec.routing.variants[].workers.env[].valueFrom.secretKeyRef.key", "", "minLength 1, maxLength 253, pattern"),
    ("spec.routing.variants[].workers.env[].valueFrom.secretKeyRef.name", "", "minLength 1, maxLength 253, pattern"),
    ("spec.routing.variants[].workers.image", "minLength 1, maxLength 512, pattern", ""),
    ("spec.routing.variants[].workers.resources.limits", "", "maxProperties 16"),
    ("spec.routing.variants[].workers.resources.limits.*", "minimum 0, maxLength 64, pattern", ""),
    ("spec.routing.variants[].workers.resources.requests", "", "maxProperties 16"),
    ("spec.routing.variants[].workers.resources.requests.*", "minimum 0, maxLength 64, pattern", ""),
    ("spec.telephone.after", "", "maxLength 4096"),
    ("spec.telephone.authToken.secretKeyRef.key", "", "minLength 1, maxLength 253, pattern"),
    ("spec.telephone.authToken.secretKeyRef.name", "", "minLength 1, maxLength 253"),
    ("spec.telephone.before", "", "maxLength 4096"),
    ("spec.workers.env", "", "maxItems 64"),
    ("spec.workers.env[].name", "minLength 1, maxLength 253, pattern", ""),
    ("spec.workers.env[].value", "", "maxLength 32768"),
    ("spec.workers.env[].valueFrom.configMapKeyRef.key", "", "minLength 1, maxLength 253, pattern"),
    ("spec.workers.env[].valueFrom.configMapKeyRef.name", "", "minLength 1, maxLength 253, pattern"),
    ("spec.workers.env[].valueFrom.secretKeyRef.key", "", "minLength 1, maxLength 253, pattern"),
    ("spec.workers.env[].valueFrom.secretKeyRef.name", "", "minLength 1, maxLength 253, pattern"),
    ("spec.workers.image", "minLength 1, maxLength 512, pattern", ""),
    ("spec.workers.imagePullPolicy", "enum Always IfNotPresent Never", ""),
    ("spec.workers.imagePullSecrets", "", "maxItems 16"),
    ("spec.workers.imagePullSecrets[].name", "", "minLength 1, maxLength 253, pattern"),
    ("spec.workers.resources.limits", "", "maxProperties 16"),
    ("spec.workers.resources.limits.*", "minimum 0, maxLength 64, pattern", ""),
    ("spec.workers.resources.requests", "", "maxProperties 16"),
    ("spec.workers.resources.requests.*", "minimum 0, maxLength 64, pattern", ""),
    ("spec.workers.sessionsPerWorker", "minimum 1, maximum 2048", ""),
];

/// What may bound a value, in the order of the table.
const KINDS: [&str; 9] =
    ["enum", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties", "pattern"];

/// Texts, of which one or the other is as any pattern demands.
const WORDS: [&str; 10] =
    ["a", "1", "1%", "/", "0 0 * * *", "session", "header:a", "metadata:a", "turn:a", "https://a"];

/// One step on the way to a value.
#[derive(Debug, Clone)]
enum Step {
    Key(String),
    /// The first one of a list.
    First,
    /// Whatever its key is.
    Any,
}

/// A way, in the words of the table, and of what is refused.
fn named(way: &[Step]) -> (String, String) {
    way.iter().fold(("spec".to_owned(), "spec".to_owned()), |(name, at), step| match step {
        Step::Key(key) => (format!("{name}.{key}"), format!("{at}.{key}")),
        Step::First => (name + "[]", at + "[0]"),
        Step::Any => (name + ".*", at + ".a"),
    })
}

/// The ways to all values that have bounds, each with its part of the schema.
fn bounded<'a>(schema: &'a Value, way: &[Step], found: &mut Vec<(Vec<Step>, &'a Value)>) {
    if KINDS.iter().any(|kind| !schema[kind].is_null()) {
        found.push((way.to_vec(), schema));
    }
    let mut go = |step: Step, part: &'a Value| bounded(part, &[way, &[step]].concat(), found);
    for (key, part) in schema["properties"].as_object().into_iter().flatten() {
        go(Step::Key(key.clone()), part);
    }
    if schema["items"].is_object() {
        go(Step::First, &schema["items"]);
    }
    if schema["additionalProperties"].is_object() {
        go(Step::Any, &schema["additionalProperties"]);
    }
}

/// A value with another one somewhere in it, and what has to be beside that.
fn with(schema: &Value, way: &[Step], value: Value) -> Value {
    let Some((step, rest)) = way.split_first() else { return value };
    match step {
        Step::Key(key) => {
            let mut whole = least(schema);
            whole[key] = with(&schema["properties"][key], rest, value);
            whole
        }
        Step::First => json!([with(&schema["items"], rest, value)]),
        Step::Any => json!({ "a": with(&schema["additionalProperties"], rest, value) }),
    }
}

/// The least that a schema takes.
fn least(schema: &Value) -> Value {
    if let Some(values) = schema["enum"].as_array() {
        return values[0].clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            required.map(|key| (key, least(&schema["properties"][key]))).collect()
        }
        Some("array") => items(schema, schema["minItems"].as_i64().unwrap_or(0)),
        Some("string") => word(schema).into(),
        _ => schema["minimum"].as_i64().unwrap_or(0).into(),
    }
}

fn word(schema: &Value) -> &'static str {
    let fits = |word: &&str| schema["pattern"].as_str().is_none_or(|pattern| matches(word, pattern));
    WORDS.into_iter().find(fits).unwrap_or_else(|| panic!("a word for {}", schema["pattern"]))
}

/// So many items, none of them twice.
fn items(schema: &Value, count: i64) -> Value {
    let key = schema["x-kubernetes-list-map-keys"][0].as_str();
    let item = |n: i64| {
        let mut item = least(&schema["items"]);
        if let Some(key) = key {
            item[key] = format!("a{n}").into();
        }
        item
    };
    (0..count).map(item).collect()
}

/// A text of so many characters at least, as the pattern demands if any such is.
fn long(schema: &Value, length: i64) -> String {
    let texts = WORDS.map(|word| format!("{word}{}", "a".repeat((length as usize).saturating_sub(word.len()))));
    let fits = |text: &&String| schema["pattern"].as_str().is_none_or(|pattern| matches(text, pattern));
    texts.iter().find(fits).unwrap_or(&texts[0]).clone()
}

/// What is just beyond a bound, on each side that there is one.
fn beyond(schema: &Value, kind: &str) -> Vec<Value> {
    let bound = schema[kind].as_i64().unwrap_or_default();
    let value = match kind {
        "enum" => json!("?"),
        "minimum" => json!(bound - 1),
        "maximum" => json!(bound + 1),
        "minLength" => json!("a".repeat(bound as usize - 1)),
        "maxLength" => json!(long(schema, bound + 1)),
        "minItems" => items(schema, bound - 1),
        "maxItems" => items(schema, bound + 1),
        "maxProperties" => (0..=bound).map(|n| (format!("a{n}"), least(&schema["additionalProperties"]))).collect(),
        "pattern" => {
            let word = word(schema);
            return vec![json!("?!"), json!(format!("{word} ")), json!(format!(" {word}"))];
        }
        other => panic!("{other} is not looked at"),
    };
    vec![value]
}

fn mistakes(object: &Value) -> Vec<Mistake> {
    let resource: StreamService = serde_json::from_value(object.clone()).unwrap();
    Service::from_resource(&resource).err().map(|mistakes| mistakes.iter().cloned().collect()).unwrap_or_default()
}

#[test]
fn what_is_just_beyond_a_bound_is_refused_with_its_key() {
    let schema = schema();
    let spec = &schema["properties"]["spec"];
    let mut ways = Vec::new();
    bounded(spec, &[], &mut ways);
    let mut found: Vec<String> = Vec::new();
    for (way, part) in ways {
        let (name, at) = named(&way);
        let of = |value: Value| object(&with(spec, &way, value));
        let known = mistakes(&of(least(part)));
        let (mut both, mut there) = (Vec::new(), Vec::new());
        for kind in KINDS.into_iter().filter(|kind| !part[kind].is_null()) {
            let why = match kind {
                "enum" => "unsupported value",
                "pattern" => "should match",
                other => other,
            };
            let mut holds_here = true;
            for value in beyond(part, kind) {
                let object = of(value.clone());
                let said = refusals(&schema, &object, None);
                let is_of_it = said.iter().all(|said| said.starts_with(&format!(".{at}: ")));
                assert!(is_of_it && said.iter().any(|said| said.contains(why)), "{at} {kind} {value}: {said:#?}");
                // Weights are too much together.
                let is_of_it = |mistake: &Mistake| mistake.key != "spec" && at.starts_with(&mistake.key);
                holds_here &= mistakes(&object).iter().any(|mistake| is_of_it(mistake) && !known.contains(mistake));
            }
            let text = match &part[kind] {
                Value::Array(values) => {
                    values.iter().fold(kind.to_owned(), |text, value| format!("{text} {}", value.as_str().unwrap()))
                }
                Value::Number(bound) => format!("{kind} {bound}"),
                _ => kind.to_owned(),
            };
            if holds_here {
                both.push(text)
            } else {
                there.push(text)
            }
            // Both mean the same number.
            if matches!(kind, "minimum" | "maximum") {
                let object = of(part[kind].clone());
                let (said, mistakes) = (refusals(&schema, &object, None), mistakes(&object));
                assert_eq!(said.is_empty(), mistakes.is_empty(), "{at} {kind}: {said:#?} {mistakes:#?}");
            }
        }
        found.push(format!("{name}: {} | {}", both.join(", "), there.join(", ")));
    }
    found.sort();
    let expected: Vec<String> = BOUNDS.iter().map(|(name, both, there)| format!("{name}: {both} | {there}")).collect();
    let lost: Vec<_> = expected.iter().filter(|row| !found.contains(row)).collect();
    let new: Vec<_> = found.iter().filter(|row| !expected.contains(row)).collect();
    assert!(lost.is_empty() && new.is_empty(), "lost: {lost:#?}\nnew: {new:#?}");
}
