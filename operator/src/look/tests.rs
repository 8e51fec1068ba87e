//! What one look sees and does.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use serde_json::{Value, json};
use streamfleet_service::{API_VERSION, KIND};

use super::*;
use crate::names::{MANAGED_BY, SERVICE, VARIANT};
use crate::precedence::Conflict;
use crate::view::{Known, KnownPod, Topic};

fn resource() -> Resource {
    let spec = json!({ "handler": { "name": "echo" }, "limits": { "timeLimitSeconds": 60 } });
    let metadata = json!({ "namespace": "voice", "name": "a", "uid": "u", "generation": 1 });
    Resource::of(&serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()).unwrap()
}

fn owned(name: &str, owner: Value) -> Value {
    let labels = json!({ MANAGED_BY.0: MANAGED_BY.1, SERVICE: "a" });
    json!({ "name": name, "namespace": "voice", "uid": name, "labels": labels, "ownerReferences": [owner] })
}

/// Who may label a Deployment is not to empty a service of its workers.
#[test]
fn what_only_bears_our_labels_is_not_believed() {
    let key = Key::new("voice", "a");
    let mut view = View::default();
    view.put(Item::Service(resource()));
    let owner =
        |kind: &str, name: &str, uid: &str| json!({ "kind": kind, "name": name, "uid": uid, "controller": true });
    let service = |uid: &str| owner("StreamService", "a", uid);
    for (name, owner) in [
        ("a-worker", service("u")),
        ("a-b-worker", service("u")),
        ("former", service("v")),
        ("mine", owner("App", "x", "u2")),
    ] {
        let deployment =
            json!({ "metadata": owned(name, owner), "spec": { "selector": {}, "template": {}, "replicas": 3 } });
        let facts = DeploymentFacts::of(&serde_json::from_value(deployment.clone()).unwrap());
        let kind = crate::kind::Kind::Deployment;
        view.put(Item::Object(kind, key.clone(), name.to_owned(), Known::of(&deployment), Some(facts)));
    }
    let set = |name: &str| owner("ReplicaSet", &format!("{name}-5d8f"), "r");
    for (name, owner) in [
        ("ours", set(&worker("a", None))),
        ("retiring", set("a-b-worker")),
        ("theirs", set("mine")),
        ("job", owner("Job", "a-worker-1", "j")),
    ] {
        let pod: Pod = serde_json::from_value(json!({ "metadata": owned(name, owner) })).unwrap();
        view.put(Item::Pod(key.clone(), Box::new(KnownPod::of(&pod))));
    }
    // Nobody controls these: what has our name as well was left behind.
    let (left, made, taken) = (worker("a", Some("b")), "made".to_owned(), worker("a", Some("c")));
    for (name, variant, owner) in
        [(&left, "b", None), (&made, "base", None), (&taken, "c", Some(owner("App", "x", "u2")))]
    {
        let mut deployment =
            json!({ "metadata": owned(name, json!({})), "spec": { "selector": {}, "template": {}, "replicas": 3 } });
        deployment["metadata"]["labels"][VARIANT] = variant.into();
        deployment["metadata"]["ownerReferences"] = owner.map(|owner| json!([owner])).unwrap_or_default();
        let facts = DeploymentFacts::of(&serde_json::from_value(deployment.clone()).unwrap());
        let kind = crate::kind::Kind::Deployment;
        view.put(Item::Object(kind, key.clone(), name.clone(), Known::of(&deployment), Some(facts)));
        let mut pod = json!({ "metadata": owned(&format!("of-{variant}"), set(name)) });
        pod["metadata"]["labels"][VARIANT] = variant.into();
        view.put(Item::Pod(key.clone(), Box::new(KnownPod::of(&serde_json::from_value(pod).unwrap()))));
    }
    assert!(Seen::of(&view, &key).is_none(), "nothing is decided before all is known");
    view.told_all(Some("voice"));
    let seen = Seen::of(&view, &key).unwrap();
    assert_eq!(seen.deployments.keys().collect::<Vec<_>>(), [left.as_str(), "a-b-worker", "a-worker"]);
    assert_eq!(seen.pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["of-b", "ours", "retiring"]);
    assert_eq!(seen.alone, 1, "what another controls is told of");
    let name = crate::view::Name { service: Some(key.clone()), name: "a".to_owned(), namespace: None };
    view.remove(Topic::Service, &name);
    assert!(Seen::of(&view, &key).is_none());
}

/// A Deployment that bore no label any more made a pod for each that was deleted, once a second, for ever.
#[test]
fn what_is_made_anew_is_left_alone() {
    let pod = |name: &str, deployment: &str| PodFacts {
        deployment: Some(deployment.to_owned()),
        ..crate::doubles::pod(name, crate::facts::Stage::Running)
    };
    let mut closing = None;
    let mut look = |pods: &[PodFacts]| {
        let mut seen = Seen {
            pods: pods.to_vec(),
            deployments: [("known".to_owned(), DeploymentFacts::default())].into(),
            ..crate::doubles::seen(Arc::new(resource()))
        };
        seen.leave_new_ones_alone(&mut closing);
        (seen.pods.into_iter().map(|pod| pod.name).collect::<Vec<_>>(), seen.alone)
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(look(&[pod("a", "gone"), pod("b", "known")]), (names(&["a", "b"]), 0));
    assert_eq!(look(&[pod("a", "gone"), pod("a2", "gone"), pod("b2", "known")]), (names(&["a", "b2"]), 1));
    assert_eq!(look(&[pod("a3", "gone")]), (names(&[]), 1), "and nothing is waited for");
}

/// A service that was deleted at that moment took its workers with it, in the middle of their first calls.
#[tokio::test]
async fn nothing_is_made_for_a_service_that_does_not_wait_for_us() {
    let check = async |code: u16, finalizers: &[&str], is_made: bool, failures: u32| {
        let metadata =
            json!({ "namespace": "voice", "name": "a", "uid": "u", "resourceVersion": "2", "finalizers": finalizers });
        let service = json!({ "apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": {} });
        let made = Arc::new(AtomicBool::new(false));
        let others = made.clone();
        let server = tower::service_fn(move |request: http::Request<Body>| {
            let path = request.uri().path();
            let of_service = path.ends_with("/streamservices/a");
            if !path.contains("/streamservices/") && !path.contains("/events") {
                others.store(true, Ordering::Relaxed);
            }
            let code = if of_service { code } else { 404 };
            let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": "", "code": code });
            let body = if code == 200 { &service } else { &status };
            let body = Body::from(body.to_string().into_bytes());
            let answer = http::Response::builder().status(code).body(body).unwrap();
            async move { Ok::<_, Infallible>(answer) }
        });
        let operator = crate::doubles::operator(kube::Client::new(server, "voice"));
        operator.view.lock().put(Item::Service(resource()));
        operator.view.lock().told_all(None);
        let mut care = Care::default();
        let looked = operator.look(&Key::new("voice", "a"), &mut care).await.unwrap();
        assert_eq!((made.load(Ordering::Relaxed), care.failures), (is_made, failures), "{code} {finalizers:?}");
        assert!(looked.next <= TICK, "{looked:?}");
    };
    check(200, &[FINALIZER], true, 0).await;
    check(200, &[], false, 0).await;
    check(404, &[], false, 0).await;
    check(409, &[], false, 0).await;
    check(403, &[], false, 1).await;
}

/// Services said that nothing was wrong with them while the operator did not see their Deployments.
#[test]
fn what_may_not_be_listed_is_a_fault() {
    let mut view = View::default();
    view.put(Item::Service(resource()));
    view.told_all(None);
    let key = Key::new("voice", "a");
    let faults = |view: &View| {
        let seen = Seen::of(view, &key).unwrap();
        find(&seen, Standing::Served, Ok(Traffic::default()), &mut Care::default()).faults
    };
    assert_eq!(faults(&view), []);
    view.blind(Topic::Object(crate::kind::Kind::Deployment), Some("voice"), true);
    let text = "the operator may not list deployments: what changes of them is not seen";
    assert_eq!(faults(&view), [Fault::new(Word::NotListed, text)]);
}

/// Five looks a second for as long as a service was on its way out: what was refused before stayed due.
#[test]
fn what_was_refused_makes_nobody_run() {
    let seen = crate::doubles::seen(Arc::new(resource()));
    let mut care = Care::default();
    care.judge(&seen.resource).unwrap();
    care.refused.refused_long_ago();
    let check = |standing: Standing, care: &mut Care, expected: Duration| {
        let findings = find(&seen, standing, Ok(Traffic::default()), care);
        assert_eq!(next(&findings, care), expected);
    };
    check(Standing::Served, &mut care, TICK);
    check(Standing::Ending, &mut care, ASLEEP);
    let conflict = Conflict { path: "/x".to_owned(), by: Key::new("voice", "other") };
    check(Standing::Displaced(conflict), &mut care, ASLEEP);
}

/// What was kept of variants that are gone was kept for as long as their service.
#[test]
fn what_is_not_there_any_more_is_forgotten() {
    let seen = crate::doubles::seen(Arc::new(resource()));
    let mut care = Care::default();
    care.judge(&seen.resource).unwrap();
    for name in ["a-worker", "a-b-worker"] {
        care.replicas.insert(name.to_owned(), 1);
    }
    find(&seen, Standing::Served, Ok(Traffic::default()), &mut care);
    assert_eq!(care.replicas.keys().collect::<Vec<_>>(), ["a-worker"]);
}

/// A node rejected each pod that was made, and its service said that nothing was wrong.
#[tokio::test]
async fn a_pod_that_has_failed_is_told_of() {
    let said = Arc::new(parking_lot::Mutex::new(String::new()));
    let noted = said.clone();
    let server = tower::service_fn(move |request: http::Request<Body>| {
        let noted = noted.clone();
        async move {
            let is_status = request.uri().path().ends_with("/status");
            let body = request.into_body().collect_bytes().await.unwrap();
            if is_status {
                *noted.lock() = String::from_utf8_lossy(&body).into_owned();
            }
            let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": "", "code": 403 });
            let body = Body::from(status.to_string().into_bytes());
            Ok::<_, Infallible>(http::Response::builder().status(403).body(body).unwrap())
        }
    });
    let operator = crate::doubles::operator(kube::Client::new(server, "voice"));
    let key = Key::new("voice", "a");
    let owner = json!({ "kind": "ReplicaSet", "name": "a-worker-5d8f", "uid": "r", "controller": true });
    let status = json!({ "phase": "Failed", "reason": "OutOfcpu", "message": "too little cpu" });
    let pod: Pod = serde_json::from_value(json!({ "metadata": owned("p", owner), "status": status })).unwrap();
    let finalized = Resource { finalizers: vec![FINALIZER.to_owned()], ..resource() };
    operator.view.lock().put(Item::Service(finalized));
    operator.view.lock().put(Item::Pod(key.clone(), Box::new(KnownPod::of(&pod))));
    operator.view.lock().told_all(None);
    let mut care = Care::default();
    operator.look(&key, &mut care).await.unwrap();
    assert!(said.lock().contains("a worker's pod has failed: too little cpu"), "{}", said.lock());
}
