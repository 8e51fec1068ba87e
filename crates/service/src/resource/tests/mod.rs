mod admission;
mod agree;
mod beyond;
mod bounds;

use kube::core::cel::{ScopeContext, WarningKind, analyze_rule, compile_schema};
use serde_json::{Value, json};

use self::admission::refusals;
use super::definition::schema;
use super::rules::RULES;
use super::schema::part;
use super::*;
use crate::service::Service;

/// A StreamService with these parts of its specification, bounded unless they say otherwise.
fn object(parts: &Value) -> Value {
    let mut spec = json!({ "handler": { "name": "echo" }, "limits": { "timeLimitSeconds": 3600 } });
    for (key, value) in parts.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({
        "apiVersion": "streamfleet.dev/v1alpha1", "kind": "StreamService",
        "metadata": { "name": "assistant", "namespace": "voice" }, "spec": spec,
    })
}

fn taken(parts: Value) {
    let (schema, object) = (schema(), object(&parts));
    assert_eq!(refusals(&schema, &object, None), Vec::<String>::new(), "{parts}");
    let resource: StreamService = serde_json::from_value(object).unwrap();
    if let Err(mistakes) = Service::from_resource(&resource) {
        panic!("{mistakes} of {parts}");
    }
}

/// Refused by the API server with just this, at this key; and by whoever reads a specification that came past it.
#[track_caller]
fn refused(parts: Value, key: &str, why: &str) {
    let object = object(&parts);
    let said = refusals(&schema(), &object, None);
    let is_it = |said: &String| said.starts_with(key) && said.contains(why);
    assert!(said.len() == 1 && said.iter().all(is_it), "{parts}: {said:#?} instead of {key}: {why}");
}

/// The same, of what we refuse too: past an API server that has other rules.
#[track_caller]
fn refused_by_both(parts: Value, key: &str, why: &str) {
    let resource: StreamService = serde_json::from_value(object(&parts)).unwrap();
    let mistakes = Service::from_resource(&resource).expect_err("{parts}");
    let root = key.split(['[', '.']).find(|part| !part.is_empty() && *part != "spec").unwrap_or("metadata").to_owned();
    assert!(mistakes.iter().any(|mistake| mistake.key.contains(&root)), "{parts}: {mistakes}");
    refused(parts, key, why);
}

#[test]
fn the_rules_are_about_what_is_there() {
    let mut schema = schema();
    for rule in RULES {
        let at = part(&mut schema, rule.at).unwrap_or_else(|| panic!("{}", rule.at)).clone();
        if let Some(field) = rule.field {
            assert!(part(&mut at.clone(), field).is_some(), "{}{field}", rule.at);
        }
    }
    for rule in RULES {
        let compiled = compile_schema(part(&mut schema, rule.at).unwrap());
        // What a comprehension binds is taken for a variable from elsewhere.
        let found = analyze_rule(rule.rule, &compiled, ScopeContext::CrdValidation);
        assert!(found.iter().all(|found| found.kind == WarningKind::WrongScope), "{}: {found:?}", rule.rule);
    }
}

#[test]
fn what_is_taken() {
    taken(json!({}));
    taken(json!({ "disruption": "Always", "limits": {} }));
    taken(json!({ "limits": {}, "autoscaling": { "scaleDown": { "maxDrainSeconds": 60 } } }));
    taken(
        json!({ "path": "/rooms/{room}", "aliases": ["/lobby", "/"], "routing": { "affinity": { "by": "path:room" } } }),
    );
    taken(json!({ "path": "/", "host": "Voice.example.com", "modality": "audio" }));
    taken(json!({ "handler": { "name": "echo", "config": { "any": ["thing", 1, null] } } }));
    taken(json!({ "handler": { "name": "echo", "config": [1] } }));
    taken(
        json!({ "autoscaling": { "minReplicas": 0, "maxReplicas": 1, "replicas": 0, "buffer": "30%", "mode": "External" } }),
    );
    taken(json!({ "autoscaling": { "buffer": 12, "schedule": [
        { "cron": "30 8 * * 1-5", "timeZone": "Europe/Berlin", "durationSeconds": 3600, "minReplicas": 10 },
    ] } }));
    taken(json!({ "workers": {
        "image": "registry.example.com:5000/team/worker:1.2@sha256:0123", "imagePullPolicy": "Always",
        "imagePullSecrets": [{ "name": "pull" }], "sessionsPerWorker": 20,
        "resources": { "requests": { "cpu": 1, "memory": "256Mi" }, "limits": { "cpu": "1.5", "example.com/gpu": 1 } },
        "env": [{ "name": "KEY", "valueFrom": { "secretKeyRef": { "name": "keys", "key": "a.b" } } }, { "name": "A", "value": "" }],
        "template": { "metadata": { "labels": { "a": "b" } }, "spec": { "nodeSelector": { "disk": "ssd" }, "tolerations": [{ "key": "x" }] } },
    } }));
    taken(
        json!({ "identity": { "required": true, "jwt": { "secret": { "secretKeyRef": { "name": "jwt", "key": "secret" } } } } }),
    );
    taken(json!({ "identity": {
        "userIdFrom": ["jwt:https://example.com/id", "metadata:user.id", "header:X-User"], "metadata": { "allow": [] },
        "jwt": { "jwksUrl": "https://id.example.com/keys?a=b", "issuer": "me" }, "webhook": { "url": "http://hook:8080", "onFailure": "Admit" },
    } }));
    taken(json!({ "media": {
        "iceServers": [{ "urls": ["stun:stun.example.com:3478"] }, { "urls": ["turn:[::1]:3478?transport=tcp"], "username": "u", "credential": "c" }],
        "turn": { "urls": ["turns:turn.example.com"], "secret": { "secretKeyRef": { "name": "turn", "key": "secret" } }, "ttlSeconds": 600 },
    } }));
    taken(json!({ "routing": { "packing": "Spread", "offerHoldSeconds": 0, "variants": [
        { "name": "b", "weight": 60 }, { "name": "c", "weight": 40, "workers": { "image": "worker:2", "resources": {} } },
    ] } }));
    taken(
        json!({ "telephone": { "before": "", "authToken": { "secretKeyRef": { "name": "twilio", "key": "token" } } } }),
    );
    taken(json!({ "workers": { "sessionsPerWorker": 2_048 } }));
    taken(json!({ "context": { "retentionSeconds": 0, "resumeBy": "identity" } }));
}

#[test]
fn what_is_refused() {
    let both = refused_by_both;
    refused(json!({ "modes": 1 }), ".spec.modes", "unknown field");
    both(json!({ "handler": {} }), ".spec.handler.name", "required");
    both(json!({ "handler": { "name": "" } }), ".spec.handler.name", "minLength");
    both(json!({ "limits": {} }), "spec.limits.timeLimitSeconds", "without an end");
    both(json!({ "limits": {}, "disruption": "OnUpgrade" }), "spec.limits.timeLimitSeconds", "without an end");
    both(
        json!({ "limits": {}, "autoscaling": { "scaleDown": { "maxDrainSeconds": 0 } } }),
        "spec.limits.timeLimitSeconds",
        "without an end",
    );
    both(json!({ "limits": { "timeLimitSeconds": 0 } }), ".spec.limits.timeLimitSeconds", "minimum");
    both(
        json!({ "limits": { "timeLimitSeconds": 9, "perUser": 4_294_967_296_u64 } }),
        ".spec.limits.perUser",
        "maximum",
    );
    both(json!({ "path": "rooms" }), ".spec.path", "match");
    both(json!({ "path": "/a//b" }), ".spec.path", "match");
    both(json!({ "path": "/1/2/3/4/5/6/7/8/9" }), ".spec.path", "match");
    both(json!({ "path": "/a/../b" }), "spec.path", "name of a route");
    both(json!({ "path": "/a/sessions" }), "spec.path", "name of a route");
    both(json!({ "path": "/{a}/{a}" }), "spec.path", "twice");
    both(json!({ "aliases": ["/{a}"] }), ".spec.aliases[0]", "match");
    both(json!({ "aliases": ["/a", "/whip"] }), "spec.aliases[1]", "name of a route");
    both(json!({ "host": "a:80" }), ".spec.host", "match");
    both(json!({ "modality": "smell" }), ".spec.modality", "unsupported value");
    both(json!({ "autoscaling": { "minReplicas": 11 } }), "spec.autoscaling.minReplicas", "more than maxReplicas");
    both(json!({ "autoscaling": { "maxReplicas": 0 } }), ".spec.autoscaling.maxReplicas", "minimum");
    both(json!({ "autoscaling": { "maxReplicas": 5001 } }), ".spec.autoscaling.maxReplicas", "maximum");
    both(json!({ "autoscaling": { "buffer": "30" } }), ".spec.autoscaling.buffer", "match");
    both(json!({ "autoscaling": { "buffer": "1001%" } }), ".spec.autoscaling.buffer", "match");
    both(json!({ "autoscaling": { "buffer": -1 } }), ".spec.autoscaling.buffer", "minimum");
    both(json!({ "autoscaling": { "mode": "HPA" } }), ".spec.autoscaling.mode", "unsupported value");
    let peak = |cron: &str, min: u32| json!([{ "cron": cron, "durationSeconds": 60, "minReplicas": min }]);
    both(json!({ "autoscaling": { "schedule": peak("@daily", 1) } }), ".spec.autoscaling.schedule[0].cron", "match");
    both(
        json!({ "autoscaling": { "schedule": peak("0 0 * * *", 11) } }),
        "spec.autoscaling.schedule",
        "more minReplicas",
    );
    both(json!({ "workers": { "sessionsPerWorker": 0 } }), ".spec.workers.sessionsPerWorker", "minimum");
    both(json!({ "workers": { "sessionsPerWorker": 2_049 } }), ".spec.workers.sessionsPerWorker", "maximum");
    both(json!({ "workers": { "image": "a b" } }), ".spec.workers.image", "match");
    both(
        json!({ "workers": { "resources": { "requests": { "cpu": "much" } } } }),
        ".spec.workers.resources.requests.cpu",
        "match",
    );
    both(
        json!({ "workers": { "resources": { "limits": { "cpu": -1 } } } }),
        ".spec.workers.resources.limits.cpu",
        "minimum",
    );
    refused(
        json!({ "workers": { "resources": { "limits": { "cpu": 0.5 } } } }),
        ".spec.workers.resources.limits.cpu",
        "type",
    );
    refused(
        json!({ "workers": { "imagePullSecrets": [{ "name": "A" }] } }),
        ".spec.workers.imagePullSecrets[0].name",
        "match",
    );
    refused(json!({ "workers": { "template": [] } }), ".spec.workers.template", "type");
    let env = |env: Value| json!({ "workers": { "env": [env] } });
    both(env(json!({ "name": "A" })), "spec.workers.env[0]", "either value or valueFrom");
    both(env(json!({ "name": "STREAMFLEET_SECRET", "value": "" })), "spec.workers.env[0].name", "operator's");
    both(env(json!({ "name": "A", "valueFrom": {} })), "spec.workers.env[0].valueFrom", "exactly one of");
    both(env(json!({ "name": "1", "value": "" })), ".spec.workers.env[0].name", "match");
    let twice = json!({ "workers": { "env": [{ "name": "A", "value": "" }, { "name": "A", "value": "" }] } });
    both(twice, ".spec.workers.env", "duplicate name");
    both(json!({ "identity": { "required": true } }), "spec.identity.jwt", "nothing says how it is proved");
    both(
        json!({ "identity": { "required": true, "userIdFrom": ["metadata:x"], "jwt": { "publicKey": "x" } } }),
        "spec.identity.userIdFrom",
        "no jwt:CLAIM",
    );
    both(json!({ "identity": { "userIdFrom": ["cookie:x"] } }), ".spec.identity.userIdFrom[0]", "match");
    both(json!({ "identity": { "jwt": {} } }), "spec.identity.jwt", "exactly one of");
    both(
        json!({ "identity": { "jwt": { "publicKey": "x", "jwksUrl": "https://x" } } }),
        "spec.identity.jwt",
        "exactly one of",
    );
    both(json!({ "identity": { "jwt": { "jwksUrl": "ftp://x" } } }), ".spec.identity.jwt.jwksUrl", "match");
    both(
        json!({ "identity": { "webhook": { "url": "https://me:secret@x/" } } }),
        ".spec.identity.webhook.url",
        "match",
    );
    both(json!({ "identity": { "webhook": { "url": "http://#" } } }), ".spec.identity.webhook.url", "match");
    both(
        json!({ "identity": { "webhook": { "url": "https://x", "timeoutMs": 10_001 } } }),
        ".spec.identity.webhook.timeoutMs",
        "maximum",
    );
    both(json!({ "context": { "retentionSeconds": 86_401 } }), ".spec.context.retentionSeconds", "maximum");
    both(json!({ "routing": { "offerHoldSeconds": 61 } }), ".spec.routing.offerHoldSeconds", "maximum");
    both(json!({ "routing": { "affinity": { "by": "moon" } } }), ".spec.routing.affinity.by", "match");
    both(json!({ "routing": { "affinity": { "by": "path:room" } } }), "spec.routing.affinity.by", "does not have");
    let variants = |variants: Value| json!({ "routing": { "variants": variants } });
    both(
        variants(json!([{ "name": "a", "weight": 60 }, { "name": "b", "weight": 60 }])),
        "spec.routing.variants",
        "more than 100",
    );
    both(
        variants(json!([{ "name": "a", "weight": 1 }, { "name": "a", "weight": 1 }])),
        ".spec.routing.variants",
        "duplicate name",
    );
    both(variants(json!([{ "name": "base", "weight": 1 }])), "spec.routing.variants[0].name", "the service itself");
    both(variants(json!([{ "name": "A", "weight": 1 }])), ".spec.routing.variants[0].name", "match");
    refused(variants(json!([{ "name": "a", "weight": 101 }])), ".spec.routing.variants[0].weight", "maximum");
    let own = json!([{ "name": "a", "weight": 1, "workers": { "env": [{ "name": "STREAMFLEET_A", "value": "" }] } }]);
    both(variants(own), "spec.routing.variants[0].workers.env[0].name", "operator's");
    let own = |env: Value| variants(json!([{ "name": "a", "weight": 1, "workers": { "env": [env] } }]));
    both(own(json!({ "name": "A" })), "spec.routing.variants[0].workers.env[0]", "either value or valueFrom");
    both(
        own(json!({ "name": "A", "valueFrom": {} })),
        "spec.routing.variants[0].workers.env[0].valueFrom",
        "exactly one of",
    );
    both(json!({ "media": { "iceServers": [{ "urls": [] }] } }), ".spec.media.iceServers[0].urls", "minItems");
    both(
        json!({ "media": { "iceServers": [{ "urls": ["turn:t"] }] } }),
        "spec.media.iceServers[0].credential",
        "a TURN server needs",
    );
    both(
        json!({ "media": { "iceServers": [{ "urls": ["stun:a:0"] }] } }),
        ".spec.media.iceServers[0].urls[0]",
        "match",
    );
    both(json!({ "media": { "turn": { "urls": ["turn:t"] } } }), "spec.media.turn.secret", "belong together");
    both(json!({ "media": { "turn": { "ttlSeconds": 59 } } }), ".spec.media.turn.ttlSeconds", "minimum");
}

/// The router reads files and variables for everybody: who may write a StreamService must not have it read them for him.
#[test]
fn secrets_of_the_router_are_not_for_services() {
    for source in [json!({ "file": "/run/secrets/fleet" }), json!({ "env": "STREAMFLEET_SECRET" })] {
        for (parts, key) in [
            (json!({ "identity": { "jwt": { "secret": source } } }), "spec.identity.jwt.secret"),
            (json!({ "media": { "turn": { "urls": ["turn:t"], "secret": source } } }), "spec.media.turn.secret"),
            (json!({ "telephone": { "authToken": source } }), "spec.telephone.authToken"),
        ] {
            let object = object(&parts);
            assert!(refusals(&schema(), &object, None).iter().any(|said| said.contains("unknown field")), "{parts}");
            let mistakes = Service::from_resource(&serde_json::from_value(object).unwrap()).unwrap_err();
            assert_eq!(mistakes.to_string().trim(), format!("{key}: in a cluster a secret is named by secretKeyRef"));
        }
    }
}

#[test]
fn a_modality_stays_what_it_was() {
    let check = |before: Value, after: Value, expected: &[&str]| {
        let said = refusals(&schema(), &object(&after), Some(&object(&before)));
        assert_eq!(said, expected, "{before} {after}");
    };
    let changed = &["spec.modality: cannot be changed: make another StreamService"];
    check(json!({}), json!({ "modality": "audio-video" }), &[]);
    check(json!({ "modality": "audio" }), json!({ "modality": "audio", "path": "/x" }), &[]);
    check(json!({ "modality": "audio" }), json!({}), changed);
    check(json!({}), json!({ "modality": "audio" }), changed);
}

#[test]
fn a_name_is_a_label() {
    for (name, is_taken) in [("a", true), ("a.b", false), (&*"a".repeat(63), true), (&*"a".repeat(64), false)] {
        let mut object = object(&json!({}));
        object["metadata"]["name"] = name.into();
        assert_eq!(refusals(&schema(), &object, None).is_empty(), is_taken, "{name}");
        let resource: StreamService = serde_json::from_value(object).unwrap();
        assert_eq!(Service::from_resource(&resource).is_ok(), is_taken, "{name}");
    }
}

#[test]
fn an_autoscaler_finds_a_number_of_replicas() {
    let defaulted = kube::core::cel::apply_defaults(&schema(), &object(&json!({})));
    assert_eq!(defaulted["spec"]["autoscaling"], json!({ "replicas": 1 }));
    let scale = definition().spec.versions[0].subresources.clone().unwrap().scale.unwrap();
    for (path, whole) in [
        (&scale.spec_replicas_path, defaulted.clone()),
        (&scale.status_replicas_path, {
            json!({ "status": serde_json::to_value(StreamServiceStatus::default()).unwrap() })
        }),
    ] {
        let pointer = path.replace('.', "/");
        assert!(whole.pointer(&pointer).is_some_and(Value::is_i64), "{path}");
    }
}

/// Each column and path leads somewhere, and each key is explained.
#[test]
fn everything_is_explained() {
    fn look(schema: &Value, at: &str) {
        for (key, value) in schema["properties"].as_object().into_iter().flatten() {
            let at = format!("{at}.{key}");
            let text = value["description"].as_str().unwrap_or_default();
            assert!(text.len() > 5 && !text.contains("[`") && !text.contains("crate"), "{at}: {text:?}");
            look(value, &at);
            look(&value["items"], &format!("{at}[]"));
        }
        if schema["type"] == "string" && !at.starts_with(".status") {
            assert!(
                schema["enum"].is_array() || schema["maxLength"].is_u64(),
                "{at}: rules cost as much as it may be long"
            );
        }
        if schema["type"] == "array" && !at.starts_with(".status") {
            assert!(schema["maxItems"].is_u64(), "{at}");
        }
        let text = schema.to_string();
        assert!(
            !text.contains("uint") && !text.contains("$ref") && !text.contains("oneOf") && !text.contains("\"null\""),
            "{at}"
        );
    }
    let schema = schema();
    look(&schema, "");
    for column in definition().spec.versions[0].additional_printer_columns.iter().flatten() {
        let path = column.json_path.split("[?").next().unwrap().trim_start_matches('.').to_owned();
        let is_there = part(&mut schema.clone(), &path).is_some() || path == "metadata.creationTimestamp";
        assert!(is_there, "{} {path}", column.name);
    }
}

/// `kubectl apply` notes the whole object in an annotation, of which an object may have 256 KiB.
#[test]
fn it_can_be_applied() {
    let json = serde_json::to_string(&definition()).unwrap();
    assert!(json.len() < 200_000 && definition_yaml().len() < 200_000, "{}", json.len());
    let read: Value = serde_saphyr::from_str(&definition_yaml()).unwrap();
    // Nothing of the schema is lost in the type that a definition has here, nor on the way to YAML.
    assert_eq!(read["spec"]["versions"][0]["schema"]["openAPIV3Schema"], schema());
    let again: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition =
        serde_json::from_value(read).unwrap();
    assert_eq!(again, definition());
}

#[test]
fn what_is_made_of_it_is_not_stale() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (file, made) in [("crds/streamservices.yaml", definition_yaml()), ("docs/streamservice.md", reference())] {
        let there = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        assert!(
            there == made,
            "{file} is stale: cargo run -p streamfleet-service --features kube --example definition"
        );
    }
}

#[test]
fn what_cannot_be_read_is_told_key_by_key() {
    let spec = json!({ "handler": { "name": "echo", "nmae": 1 }, "limits": { "concurrency": "many" }, "later": {} });
    let mut object = object(&json!({}));
    object["spec"] = spec;
    let resource: StreamService = serde_json::from_value(object).unwrap();
    let mistakes = Service::from_resource(&resource).unwrap_err();
    let keys: Vec<&str> = mistakes.iter().map(|mistake| mistake.key.as_str()).collect();
    for key in ["spec.handler.nmae", "spec.limits.concurrency", "spec.later"] {
        assert!(keys.contains(&key), "{key} of {mistakes}");
    }
    assert!(serde_json::to_value(&resource).is_err(), "what could not be read is not written back");
}

#[test]
fn a_resource_travels() {
    let mut resource = StreamService::new("assistant", Default::default());
    resource.metadata.namespace = Some("voice".to_owned());
    resource.status =
        StreamServiceStatus { replicas: 3, url: Some("https://x".to_owned()), ..StreamServiceStatus::default() };
    let value = serde_json::to_value(&resource).unwrap();
    assert_eq!((&value["apiVersion"], &value["kind"]), (&json!("streamfleet.dev/v1alpha1"), &json!("StreamService")));
    assert_eq!(value["status"]["replicas"], 3);
    assert_eq!(serde_json::from_value::<StreamService>(value).unwrap(), resource);
    assert_eq!(resource.service_name().unwrap().as_str(), "voice/assistant");
    assert_eq!(resource.created(), i64::MAX);
}
