use serde_json::{Value, json};

use super::*;

pub(crate) fn service(spec: Value) -> Result<Service, Vec<String>> {
    let mut whole = json!({ "handler": { "name": "echo" } });
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let spec = serde_json::from_value(whole).unwrap();
    let mistakes = Service::new("voice/assistant".parse().unwrap(), spec);
    mistakes.map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

#[test]
fn a_service_needs_little() {
    let service = service(json!({})).unwrap();
    assert_eq!(service.paths.iter().map(ToString::to_string).collect::<Vec<_>>(), ["/voice/assistant"]);
    assert_eq!(service.identity.demand, IdentityDemand::Optional);
    assert_eq!((service.affinity, service.packing), (Affinity::Session, Packing::Pack));
    assert_eq!(service.offer_hold, Duration::from_secs(20));
    assert_eq!(service.limits, Limits::default());
    assert_eq!(service.ice, None);
}

#[test]
fn what_is_said_is_obeyed() {
    let service = service(json!({
        "path": "/rooms/{room}", "aliases": ["/lobby"], "host": "Voice.Example.com",
        "limits": { "concurrency": 100, "timeLimitSeconds": 60 },
        "identity": { "required": true, "jwt": { "issuer": "me", "secret": { "env": "KEY" } } },
        "routing": { "affinity": { "by": "path:room", "strength": "Require" }, "packing": "Spread",
                     "variants": [{ "name": "b", "weight": 10 }] },
        "media": { "iceServers": [{ "urls": ["stun:s"] }],
                   "turn": { "urls": ["turn:t", "turns:t"], "secret": { "file": "/run/turn" } } },
    }))
    .unwrap();
    assert_eq!(service.host.as_deref(), Some("voice.example.com"));
    assert_eq!(service.paths.len(), 2);
    assert_eq!(service.limits.time_limit, Some(Duration::from_secs(60)));
    assert_eq!(service.identity.demand, IdentityDemand::Verified);
    assert_eq!(service.identity.tokens.unwrap().keys, KeySource::Secret(SecretSource::Env("KEY".to_owned())));
    assert_eq!(service.affinity, Affinity::Path("room".to_owned(), Strength::Require));
    let ice = service.ice.unwrap();
    let turn = ice.turn.unwrap();
    assert_eq!((ice.fixed.len(), turn.urls.len(), turn.ttl), (1, 2, Duration::from_secs(86_400)));
    assert_eq!(turn.secret, SecretSource::File("/run/turn".to_owned()));
    assert_eq!(service.variants, [Variant { name: "b".to_owned(), weight: 10 }]);
}

#[test]
fn every_mistake_names_its_key() {
    for (spec, expected) in [
        (json!({ "handler": {} }), "spec.handler.name: a service needs a handler"),
        (json!({ "host": "a:80" }), "spec.host: a host is a DNS name without a port"),
        (json!({ "aliases": ["/a/outputs"] }), "spec.aliases[0]: /outputs is the name of a route"),
        (json!({ "identity": { "required": true } }), "spec.identity.jwt: identity is required, and nothing"),
        (
            json!({ "identity": { "required": true, "userIdFrom": ["metadata:x"], "jwt": { "publicKey": "x" } } }),
            "spec.identity.userIdFrom: identity is required, and no jwt:CLAIM",
        ),
        (
            json!({ "identity": { "userIdFrom": ["cookie:x"] } }),
            "spec.identity.userIdFrom[0]: a user id source must be",
        ),
        (json!({ "identity": { "userIdFrom": ["jwt:"] } }), "spec.identity.userIdFrom[0]: needs a claim's name"),
        (json!({ "identity": { "jwt": {} } }), "spec.identity.jwt: one of jwksUrl"),
        (
            json!({ "identity": { "jwt": { "jwksUrl": "https://x/keys", "publicKey": "x" } } }),
            "spec.identity.jwt: only one of",
        ),
        (json!({ "identity": { "jwt": { "jwksUrl": "x" } } }), "spec.identity.jwt.jwksUrl: must be a URL"),
        (
            json!({ "identity": { "webhook": { "url": "https://me:secret@x/" } } }),
            "spec.identity.webhook.url: must not hold a user",
        ),
        (
            json!({ "identity": { "webhook": { "url": "https://x/", "timeoutMs": 60_000 } } }),
            "spec.identity.webhook.timeoutMs: 60000 is more than 10000",
        ),
        (
            json!({ "identity": { "metadata": { "maxBytes": 65_537 } } }),
            "spec.identity.metadata.maxBytes: 65537 is more than 65536",
        ),
        (
            json!({ "identity": { "metadata": { "maxDepth": 65 } } }),
            "spec.identity.metadata.maxDepth: 65 is more than 64",
        ),
        (
            json!({ "identity": { "metadata": { "maxKeys": 4_097 } } }),
            "spec.identity.metadata.maxKeys: 4097 is more than 4096",
        ),
        (
            json!({ "context": { "retentionSeconds": 90_000 } }),
            "spec.context.retentionSeconds: 90000 is more than 86400",
        ),
        (json!({ "routing": { "affinity": { "by": "moon" } } }), "spec.routing.affinity.by: must be session, user"),
        (
            json!({ "routing": { "affinity": { "by": "path:room" } } }),
            "spec.routing.affinity.by: the path has no parameter {room}",
        ),
        (
            json!({ "media": { "iceServers": [{ "urls": ["turn:t"] }] } }),
            "spec.media.iceServers[0].credential: a TURN server needs",
        ),
        (json!({ "media": { "turn": { "urls": ["turn:t"] } } }), "spec.media.turn.secret: TURN servers are given"),
        (
            json!({ "media": { "turn": { "urls": ["turn:t"], "secret": { "env": "S" }, "ttlSeconds": 5 } } }),
            "spec.media.turn.ttlSeconds: 5 is not between 60 and 604800",
        ),
        (json!({ "routing": { "offerHoldSeconds": 90 } }), "spec.routing.offerHoldSeconds: 90 is more than 60"),
        (
            json!({ "routing": { "variants": [{ "name": "a", "weight": 60 }, { "name": "a", "weight": 60 }] } }),
            "spec.routing.variants[1].name: a is the name of another variant already",
        ),
        (
            json!({ "routing": { "variants": [{ "name": "a", "weight": 60 }, { "name": "b", "weight": 60 }] } }),
            "spec.routing.variants: the weights are 120 % together",
        ),
    ] {
        let mistakes = service(spec.clone()).unwrap_err();
        assert!(mistakes.iter().any(|mistake| mistake.starts_with(expected)), "{spec}: {mistakes:#?}");
    }
}
