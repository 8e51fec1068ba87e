//! Specifications that are wrong: refused by the API server, or told of by the operator, with the field's name.

use anyhow::{Result, ensure};
use kube::api::PostParams;
use serde_json::{Value, json};
use streamfleet_kubernetes_tests::fleet::{await_condition, stream_services};

use super::LIMIT;
use super::site::{HOME, Site};

/// Parts of a specification, the field that is named, and what is said of it.
fn table() -> Vec<(Value, &'static str, &'static str)> {
    let peak = |cron: &str, min: u32| json!([{ "cron": cron, "durationSeconds": 60, "minReplicas": min }]);
    let env = |env: Value| json!({ "workers": { "env": [env] } });
    let variants = |variants: Value| json!({ "routing": { "variants": variants } });
    let variant_env = |env: Value| variants(json!([{ "name": "a", "weight": 1, "workers": { "env": [env] } }]));
    let identity = |identity: Value| json!({ "identity": identity });
    vec![
        (json!({ "handler": {} }), "spec.handler.name", "Required"),
        (json!({ "handler": { "name": "" } }), "spec.handler.name", "at least 1"),
        (json!({ "limits": {} }), "spec.limits.timeLimitSeconds", "without an end"),
        (json!({ "limits": { "timeLimitSeconds": 0 } }), "spec.limits.timeLimitSeconds", "greater than or equal to 1"),
        (json!({ "limits": { "timeLimitSeconds": "9" } }), "spec.limits.timeLimitSeconds", "must be of type integer"),
        (json!({ "path": "rooms" }), "spec.path", "should match"),
        (json!({ "path": "/a/../b" }), "spec.path", "name of a route"),
        (json!({ "path": "/{a}/{a}" }), "spec.path", "twice"),
        (json!({ "aliases": ["/{a}"] }), "spec.aliases[0]", "should match"),
        (json!({ "aliases": ["/a", "/whip"] }), "spec.aliases[1]", "name of a route"),
        (json!({ "host": "a:80" }), "spec.host", "should match"),
        (json!({ "modality": "smell" }), "spec.modality", "supported values"),
        (json!({ "disruption": "Sometimes" }), "spec.disruption", "supported values"),
        (json!({ "autoscaling": { "minReplicas": 11 } }), "spec.autoscaling.minReplicas", "more than maxReplicas"),
        (json!({ "autoscaling": { "maxReplicas": 0 } }), "spec.autoscaling.maxReplicas", "greater than or equal to 1"),
        (json!({ "autoscaling": { "maxReplicas": 5001 } }), "spec.autoscaling.maxReplicas", "less than or equal to"),
        (json!({ "autoscaling": { "buffer": "30" } }), "spec.autoscaling.buffer", "should match"),
        (json!({ "autoscaling": { "mode": "HPA" } }), "spec.autoscaling.mode", "supported values"),
        (json!({ "autoscaling": { "schedule": peak("@daily", 1) } }), "spec.autoscaling.schedule[0].cron", "match"),
        (json!({ "autoscaling": { "schedule": peak("0 0 * * *", 11) } }), "spec.autoscaling.schedule", "minReplicas"),
        (json!({ "workers": { "sessionsPerWorker": 0 } }), "spec.workers.sessionsPerWorker", "greater than or equal"),
        (json!({ "workers": { "image": "a b" } }), "spec.workers.image", "should match"),
        (json!({ "workers": { "resources": { "requests": { "cpu": "much" } } } }), "spec.workers.resources", "match"),
        (json!({ "workers": { "template": [] } }), "spec.workers.template", "must be of type object"),
        (env(json!({ "name": "A" })), "spec.workers.env[0]", "either value or valueFrom"),
        (env(json!({ "name": "STREAMFLEET_SECRET", "value": "" })), "spec.workers.env[0].name", "operator's"),
        (env(json!({ "name": "A", "valueFrom": {} })), "spec.workers.env[0].valueFrom", "exactly one of"),
        (identity(json!({ "required": true })), "spec.identity.jwt", "nothing says how it is proved"),
        (
            identity(json!({ "required": true, "userIdFrom": ["metadata:x"], "jwt": { "publicKey": "x" } })),
            "spec.identity.userIdFrom",
            "no jwt:CLAIM",
        ),
        (identity(json!({ "userIdFrom": ["cookie:x"] })), "spec.identity.userIdFrom[0]", "should match"),
        (identity(json!({ "jwt": {} })), "spec.identity.jwt", "exactly one of"),
        (identity(json!({ "jwt": { "jwksUrl": "ftp://x" } })), "spec.identity.jwt.jwksUrl", "should match"),
        (
            identity(json!({ "webhook": { "url": "https://x", "timeoutMs": 10_001 } })),
            "spec.identity.webhook.timeoutMs",
            "less than",
        ),
        (json!({ "context": { "retentionSeconds": 86_401 } }), "spec.context.retentionSeconds", "less than or equal"),
        (json!({ "routing": { "offerHoldSeconds": 61 } }), "spec.routing.offerHoldSeconds", "less than or equal"),
        (json!({ "routing": { "affinity": { "by": "path:room" } } }), "spec.routing.affinity.by", "does not have"),
        (
            variants(json!([{ "name": "a", "weight": 60 }, { "name": "b", "weight": 60 }])),
            "spec.routing.variants",
            "more than 100",
        ),
        (variants(json!([{ "name": "base", "weight": 1 }])), "spec.routing.variants[0].name", "the service itself"),
        (
            variant_env(json!({ "name": "STREAMFLEET_A", "value": "" })),
            "spec.routing.variants[0].workers.env[0].name",
            "operator's",
        ),
        (variant_env(json!({ "name": "A" })), "spec.routing.variants[0].workers.env[0]", "either value or valueFrom"),
        (
            variant_env(json!({ "name": "A", "valueFrom": {} })),
            "spec.routing.variants[0].workers.env[0].valueFrom",
            "exactly one of",
        ),
        (
            json!({ "media": { "iceServers": [{ "urls": ["turn:t"] }] } }),
            "spec.media.iceServers[0].credential",
            "a TURN server",
        ),
        (json!({ "media": { "turn": { "urls": ["turn:t"] } } }), "spec.media.turn.secret", "belong together"),
    ]
}

fn object(name: &str, parts: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "streamfleet.dev/v1alpha1", "kind": "StreamService",
        "metadata": { "name": name, "namespace": HOME },
        "spec": { "handler": { "name": "echo" }, "limits": { "timeLimitSeconds": 3600 } },
    });
    for (key, value) in parts.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    object
}

/// By the API server.
pub(crate) async fn refused(site: &Site<'_>) -> Result<()> {
    let objects = stream_services(site.cluster, HOME);
    let try_out = PostParams { dry_run: true, field_manager: None };
    let create = async |object: Value| -> Result<std::result::Result<(), String>> {
        match objects.create(&try_out, &serde_json::from_value(object)?).await {
            Ok(_) => Ok(Ok(())),
            Err(kube::Error::Api(status)) => Ok(Err(status.message.clone())),
            Err(error) => Err(error.into()),
        }
    };
    ensure!(create(object("bad", &json!({}))).await? == Ok(()), "the rest of it is right");
    for (parts, field, why) in table() {
        let said = create(object("bad", &parts)).await?.err().unwrap_or_default();
        ensure!(said.contains(field) && said.contains(why), "{parts}: {said:?} instead of {field}: {why}");
    }
    let long = "a".repeat(64);
    for name in ["a.b", &long] {
        let said = create(object(name, &json!({}))).await?.err().unwrap_or_default();
        ensure!(said.contains("is a DNS label"), "{name}: {said:?}");
    }
    // kubectl has it checked that keys are known.
    let said = site.cluster.apply(&object("bad", &json!({ "modes": 1 }))).map_err(|error| format!("{error:#}"));
    ensure!(said.as_ref().is_err_and(|said| said.contains("unknown field \"spec.modes\"")), "{said:?}");
    let said = site.patch(HOME, "streamservice/echo", &json!({ "spec": { "modality": "audio" } }));
    let said = said.map_err(|error| format!("{error:#}"));
    ensure!(
        said.as_ref().is_err_and(|said| said.contains("spec.modality") && said.contains("cannot be changed")),
        "{said:?}"
    );
    Ok(())
}

/// By the operator, of what no schema can see.
pub(crate) async fn said(site: &Site<'_>) -> Result<()> {
    let objects = stream_services(site.cluster, HOME);
    let schedule = json!([{ "cron": "61 * * * *", "durationSeconds": 60, "minReplicas": 1 }]);
    site.stream_service(HOME, "wrong", &json!({ "autoscaling": { "schedule": schedule } }))?;
    site.stream_service(HOME, "unknown", &json!({ "handler": { "name": "nobody" } }))?;
    let host = json!({ "workers": { "template": { "spec": { "hostNetwork": true } } } });
    site.stream_service(HOME, "host", &host)?;
    let said = await_condition(&objects, "wrong", ("Ready", "False"), LIMIT).await?;
    ensure!(said.starts_with("Invalid: spec.autoscaling.schedule[0]"), "{said}");
    let said = await_condition(&objects, "host", ("Degraded", "True"), LIMIT).await?;
    ensure!(said.starts_with("FailedCreate: ") && said.contains("hostNetwork=true"), "{said}");
    let said = await_condition(&objects, "unknown", ("Degraded", "True"), LIMIT).await?;
    ensure!(said.contains("spec.handler: there is no handler `nobody`"), "{said}");
    site.delete(HOME, &["wrong", "unknown", "host"]).await
}
