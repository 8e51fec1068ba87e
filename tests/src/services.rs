//! The services of `streamfleet-test-services`, as its configuration has them.

use serde_json::{Value, json};

/// Those of docs/conformance.md.
pub fn conformance() -> Value {
    let service = |name: &str, handler: Value, limits: Value| json!({ "name": name, "path": format!("/{name}"), "handler": handler, "limits": limits });
    let named = |name: &str, handler: &str| service(name, json!({ "name": handler }), json!({}));
    let echo = |name: &str, limits: Value| service(name, json!({ "name": "plain-echo" }), limits);
    let rates = json!({ "input_sample_rate": 8_000, "output_sample_rate": 16_000 });
    let mut services = vec![
        echo("echo", json!({})),
        service("echo-rates", json!({ "name": "plain-echo", "config": rates }), json!({})),
        named("tone", "plain-tone"),
        named("error", "error-receive"),
        echo("timed", json!({ "timeLimitSeconds": 2 })),
        echo("limited", json!({ "concurrency": 2 })),
        // A router has no service that is called as a route is.
        named("told", "outputs"),
    ];
    let same = ["arguments", "bye", "bye-at-once", "eager", "error-emit", "warning", "idle", "witness"];
    services.extend(same.map(|name| named(name, name)));
    let pauses = ["pause", "pause-arguments", "pause-long", "pause-patient", "pause-greeting"];
    services.extend(pauses.map(|name| named(name, name)));
    // The suite asks as a proxy in front of us does.
    services[0]["telephone"] = json!({ "trustForwarded": true });
    for part in ["order", "socket", "webrtc", "mixed", "phone", "bad", "abandoned"] {
        services.push(echo(&format!("limited-{part}"), json!({ "concurrency": 1 })));
    }
    services.into()
}
