//! What is written to the API server, whole: any change of it is seen here, and replaces workers if it is in a pod's template.
//! `STREAMFLEET_GOLDEN=write` writes the files anew.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::json;

use super::*;

fn blueprint() -> Blueprint {
    Blueprint {
        key: Key::new("voice", "assistant"),
        uid: "0b5e".to_owned(),
        groups: vec![group(None)],
        manifest: r#"{"spec":{}}"#.to_owned(),
        telephone_token: None,
        grace: Duration::from_secs(3660),
        disruption: Disruption::Never,
        exposure: Exposure::Relay,
        site: Site {
            config: json!({ "fleet": { "store": { "redis": { "address": "redis:6379" } } } }),
            routers: [("app.kubernetes.io/name".to_owned(), "streamfleet-router".to_owned())].into(),
            router_namespace: "streamfleet".to_owned(),
            salt: Secret::new("a-secret-of-the-fleet"),
            ..Site::default()
        },
        secret: Secret::new("sfsk_0"),
    }
}

fn group(variant: Option<&str>) -> Group {
    Group {
        variant: variant.map(str::to_owned),
        image: "registry.example.com/worker:1".to_owned(),
        pull_policy: None,
        pull_secrets: Vec::new(),
        resources: ResourceRequirements::default(),
        env: Vec::new(),
        overlays: Vec::new(),
        replicas: 2,
    }
}

/// Everything that can be said, said.
fn full() -> Blueprint {
    let cpu = |text: &str| BTreeMap::from([("cpu".to_owned(), Quantity(text.to_owned()))]);
    let base = Group {
        pull_policy: Some("Always".to_owned()),
        pull_secrets: vec!["registry".to_owned()],
        resources: ResourceRequirements { limits: Some(cpu("2")), requests: Some(cpu("500m")), claims: None },
        env: vec![EnvVar { name: "LANGUAGE".to_owned(), value: Some("de".to_owned()), value_from: None }],
        overlays: vec![
            serde_json::from_value(json!({
                "metadata": { "labels": { "team": "a", "streamfleet.dev/state": "mine" } },
                "spec": { "nodeSelector": { "pool": "media" }, "containers": [{ "name": "worker", "tty": true }, { "name": "sidecar", "image": "s:1" }] },
            }))
            .unwrap(),
        ],
        ..group(None)
    };
    let plain = blueprint();
    Blueprint {
        groups: vec![base, group(Some("b"))],
        telephone_token: Some(("twilio".to_owned(), "token".to_owned())),
        exposure: Exposure::HostPort,
        site: Site {
            secret_env: vec![(
                "STREAMFLEET_FLEET_STORE_REDIS_PASSWORD".to_owned(),
                "store-password".to_owned(),
                Secret::new("quite-secret"),
            )],
            files: vec![("authorities.pem".to_owned(), Secret::new("-----BEGIN CERTIFICATE-----"))],
            monitoring_namespace: Some("monitoring".to_owned()),
            pod_monitors: true,
            ipv6: true,
            ..plain.site.clone()
        },
        ..plain
    }
}

#[track_caller]
fn golden(name: &str, of: &Blueprint) {
    let values: Vec<Value> = of.objects().into_iter().map(|object| object.value).collect();
    let text = serde_json::to_string_pretty(&values).unwrap() + "\n";
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var_os("STREAMFLEET_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == expected, "{} is not what is made now:\n{text}", path.display());
}

#[test]
fn the_objects_of_a_plain_service() {
    golden("plain.json", &blueprint());
}

#[test]
fn the_objects_of_a_service_that_says_everything() {
    golden("full.json", &full());
}

#[test]
fn secrets_show_nothing_of_themselves() {
    let shown = format!("{:?} {:?}", full(), full().objects());
    for secret in ["a-secret-of-the-fleet", "sfsk_0", "quite-secret", "BEGIN CERTIFICATE", "c2Zza18w"] {
        assert!(!shown.contains(secret), "{secret}");
    }
}

fn template(of: &Blueprint) -> Value {
    let objects = of.objects();
    let deployment = objects.iter().find(|object| object.kind == Kind::Deployment).unwrap();
    deployment.value["spec"]["template"].clone()
}

#[test]
fn what_a_worker_reads_when_it_starts_replaces_it() {
    let plain = template(&blueprint());
    let check = |other: Blueprint, replaced: bool| assert_eq!(template(&other) != plain, replaced);
    let site = |change: &dyn Fn(&mut Site)| {
        let mut other = blueprint();
        change(&mut other.site);
        other
    };
    check(blueprint(), false);
    check(Blueprint { manifest: "{}".to_owned(), ..blueprint() }, true);
    check(Blueprint { secret: Secret::new("sfsk_1"), ..blueprint() }, true);
    check(site(&|site| site.config = json!({})), true);
    check(site(&|site| site.router_namespace = "other".to_owned()), false);
    check(Blueprint { disruption: Disruption::Always, ..blueprint() }, false);
    let mut more = blueprint();
    more.groups[0].replicas = 9;
    check(more, false);
}

/// A process that has just begun knows of no specification before: what had been taken out of one meanwhile stayed, for ever.
#[test]
fn what_is_not_wanted_any_more_is_seen() {
    let missing = |before: &Blueprint, now: &Blueprint| -> Vec<Kind> {
        let (before, now) = (before.objects(), now.objects());
        let pairs = before.iter().zip(&now).filter(|(before, now)| !crate::diff::covers(&before.value, &now.value));
        pairs.map(|(_, now)| now.kind).collect()
    };
    let with = |change: &dyn Fn(&mut Group)| {
        let mut blueprint = full();
        change(&mut blueprint.groups[0]);
        blueprint
    };
    assert_eq!(missing(&full(), &full()), []);
    for (n, less) in [
        with(&|group| group.env.clear()),
        with(&|group| group.resources.limits = None),
        with(&|group| group.pull_secrets.clear()),
        with(&|group| group.overlays.clear()),
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(missing(&full(), less), [Kind::Deployment], "{n}");
    }
    let mut site = full();
    site.site.secret_env.clear();
    assert!(missing(&full(), &site).contains(&Kind::Secret));
    // How many there are is said by itself, and by that alone no pod is another.
    let hash = |of: &Blueprint| {
        let deployment = of.objects().into_iter().find(|object| object.kind == Kind::Deployment).unwrap().value;
        assert!(!deployment["spec"]["template"].to_string().contains(names::APPLIED));
        deployment["metadata"]["annotations"][names::APPLIED].clone()
    };
    assert!(hash(&full()).is_string());
    assert_eq!(hash(&with(&|group| group.replicas = 9)), hash(&full()));
    let mut salted = full();
    salted.site.salt = Secret::new("another");
    assert_ne!(hash(&salted), hash(&full()), "nobody finds out secrets by trying");
}

#[test]
fn nothing_that_is_laid_over_hides_a_pod_from_its_operator() {
    let template = template(&full());
    let labels = &template["metadata"]["labels"];
    assert_eq!((&labels["streamfleet.dev/state"], &labels["team"]), (&json!("serving"), &json!("a")));
    let containers = template["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 2);
    assert_eq!(containers[0]["tty"], json!(true));
    assert_eq!(containers[0]["securityContext"]["readOnlyRootFilesystem"], json!(true), "merged, not replaced");
}

#[test]
fn nobody_borrows_a_service_account_or_looks_at_other_processes() {
    let overlay = json!({ "spec": {
        "serviceAccountName": "admin", "serviceAccount": "admin", "automountServiceAccountToken": true,
        "hostPID": true, "hostIPC": true, "hostNetwork": true, "containers": [],
    } });
    let mut laid_over = blueprint();
    laid_over.groups[0].overlays = vec![serde_json::from_value(overlay).unwrap()];
    let spec = template(&laid_over)["spec"].clone();
    assert_eq!(spec["serviceAccountName"], json!("assistant-worker"));
    assert_eq!(spec["automountServiceAccountToken"], json!(false));
    assert_eq!(["serviceAccount", "hostPID", "hostIPC"].map(|key| spec.get(key)), [None; 3]);
    assert_eq!(spec["hostNetwork"], json!(true), "Pod Security says in a condition what it thinks of it");
}

/// A limit that was laid over was less than what the worker asked for then, and the pod was refused.
#[test]
fn a_worker_asks_for_a_little_where_nobody_says() {
    let asks = |resources: Value, laid_over: Value| {
        let mut of = blueprint();
        of.groups[0].resources = serde_json::from_value(resources).unwrap();
        let container = json!({ "name": "worker", "resources": laid_over });
        let overlay = json!({ "spec": { "containers": [container, { "name": "other" }] } });
        of.groups[0].overlays = vec![serde_json::from_value(overlay).unwrap()];
        let containers = template(&of)["spec"]["containers"].clone();
        assert_eq!(containers[1].get("resources"), None);
        containers[0]["resources"].clone()
    };
    let limits = json!({ "limits": { "memory": "32Mi" } });
    assert_eq!(asks(json!({}), json!({})), json!({ "requests": { "cpu": "100m", "memory": "64Mi" } }));
    assert_eq!(asks(limits.clone(), json!({})), limits);
    assert_eq!(asks(json!({}), limits.clone()), limits);
}

#[test]
fn who_may_be_evicted() {
    let budget = |disruption| {
        let objects = Blueprint { disruption, ..blueprint() }.objects();
        let found = objects.iter().find(|object| object.kind == Kind::PodDisruptionBudget);
        found.map(|object| object.value["spec"]["maxUnavailable"].clone())
    };
    assert_eq!(budget(Disruption::Never), Some(json!(0)));
    assert_eq!(budget(Disruption::OnUpgrade), Some(json!(0)), "the operator lets go of those whose node is drained");
    assert_eq!(budget(Disruption::Always), Some(json!(1)));
}
