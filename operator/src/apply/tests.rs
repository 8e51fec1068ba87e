//! What is written, and when.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use kube::client::Body;
use serde_json::json;

use super::refused::PATIENCE;
use super::*;
use crate::facts::DeploymentFacts;
use crate::names::{MANAGED_BY, SERVICE};

fn object(x: u32) -> Object {
    let value = json!({ "spec": { "x": x } });
    Object { kind: Kind::Service, name: "a".to_owned(), value, trial: Trial::None }
}

fn known(owner: Option<&str>, x: u32) -> Known {
    let owners = owner.map(|uid| json!([{ "uid": uid, "controller": true }]));
    Known::of(&json!({ "metadata": { "name": "a", "ownerReferences": owners }, "spec": { "x": x, "y": 1 } }))
}

#[test]
fn what_an_object_needs() {
    let hash = object(1).hash();
    let check = |known: Option<Known>, expected: Need| {
        let mut known = known;
        assert_eq!(need(known.as_mut(), &object(1), hash, &Key::new("voice", "s"), "me"), expected);
    };
    check(None, Need::Make);
    check(Some(known(Some("me"), 1)), Need::Nothing);
    check(Some(known(Some("me"), 2)), Need::Write);
    check(Some(known(Some("other"), 1)), Need::Leave);
    check(Some(known(None, 1)), Need::Leave);
    let mut ending = known(Some("me"), 2);
    ending.ending = true;
    check(Some(ending), Need::Wait);
    // Deleted and made again under the same name: what the first one had is no stranger's.
    let of = |name: &str| {
        let mut known = known(Some("other"), 1);
        known.owner_name = Some(name.to_owned());
        Some(known)
    };
    check(of("s"), Need::Wait);
    check(of("another"), Need::Leave);
    // Deleted with `--cascade=orphan`: nobody controls it, and it bears our labels.
    let left = |service: &str, ending: bool| {
        let labels = json!({ MANAGED_BY.0: MANAGED_BY.1, SERVICE: service });
        let ends = ending.then_some("2026-01-01T00:00:00Z");
        Some(Known::of(
            &json!({ "metadata": { "name": "a", "labels": labels, "deletionTimestamp": ends }, "spec": { "x": 2 } }),
        ))
    };
    check(left("s", false), Need::Write);
    check(left("s", true), Need::Wait);
    check(left("another", false), Need::Leave);
}

#[test]
fn what_is_refused_is_tried_again_later_and_later() {
    let now = Instant::now();
    let at = |seconds| now + Duration::from_secs(seconds);
    let (mut refused, one) = (Refused::default(), object(1));
    let hash = one.hash();
    let fault = || Fault::new(Word::ObjectRefused, "exceeded quota");
    refused.note(&one, hash, fault(), at(0), 0.5);
    assert!(refused.waits(&one, hash, at(1)) && !refused.waits(&one, hash, at(2)));
    assert!(!refused.waits(&object(2), object(2).hash(), at(1)), "another text is another try");
    for _ in 0..10 {
        refused.note(&one, hash, fault(), at(10), 0.5);
    }
    assert_eq!(refused.next(), Some(at(70)));
    assert_eq!(refused.faults().count(), 1);
}

/// Somebody looks every two seconds: a wait that doubled with each look was at its longest after six of them.
#[tokio::test]
async fn what_is_another_s_is_not_told_anew_with_each_look() {
    let nobody = tower::service_fn(|request: http::Request<Body>| async move {
        Err::<http::Response<Body>, _>(format!("{} is asked for", request.uri()))
    });
    let cluster = Cluster::new(kube::Client::new(nobody, "voice"));
    let (key, mut view) = (Key::new("voice", "s"), View::default());
    view.put(Item::Object(Kind::Service, key.clone(), "a".to_owned(), known(Some("other"), 1), None));
    let view = Mutex::new(view);
    let writer = Writer { cluster: &cluster, view: &view, key: &key, owner: "me", may_act: &|| true };
    let mut refused = Refused::default();
    assert_eq!(writer.apply(&[object(1)], &[], &mut refused).await, Applied::Done);
    let next = refused.next();
    assert!(next.is_some() && refused.faults().all(|fault| fault.reason == Word::ForeignObject.into()));
    for _ in 0..5 {
        writer.apply(&[object(1)], &[], &mut refused).await;
    }
    assert_eq!(refused.next(), next);
    // It is of the service of that name that was deleted: nothing is wrong, and it is awaited.
    if let Some(known) = view.lock().get_mut(&key).and_then(|service| service.objects.values_mut().next()) {
        known.owner_name = Some("s".to_owned());
    }
    assert_eq!(writer.apply(&[object(1)], &[], &mut refused).await, Applied::Done);
    assert_eq!(refused.faults().count(), 0);
    // It used to be awaited for ever, and nobody was told.
    for waited in refused.awaited.values_mut() {
        waited.0 = waited.0.checked_sub(PATIENCE).unwrap();
    }
    assert_eq!(writer.apply(&[object(1)], &[], &mut refused).await, Applied::Done);
    let told = |refused: &Refused| refused.faults().map(|fault| fault.message.clone()).collect::<Vec<_>>();
    assert_eq!(told(&refused), ["Service a of another StreamService of this name is there: it is waited for"]);
    if let Some(known) = view.lock().get_mut(&key).and_then(|service| service.objects.values_mut().next()) {
        (known.ending, known.finalizers) = (true, ["example.com/keep".into()].into());
    }
    writer.apply(&[object(1)], &[], &mut refused).await;
    let text = "Service a of another StreamService of this name is being deleted, and its finalizers (example.com/keep) keep it: it is waited for";
    assert_eq!(told(&refused), [text]);
    // And then it is ours, as it should be.
    let mut ours = known(Some("me"), 1);
    ours.uid = "another".to_owned();
    view.lock().put(Item::Object(Kind::Service, key.clone(), "a".to_owned(), ours, None));
    writer.apply(&[object(1)], &[], &mut refused).await;
    assert!(refused.faults().next().is_none() && refused.awaited.is_empty());
}

/// A webhook that hangs was waited for with each of a service's seven objects, and at each look: for minutes.
#[tokio::test(start_paused = true)]
async fn after_one_that_hangs_the_others_are_not_tried() {
    let nobody =
        tower::service_fn(|_: http::Request<Body>| std::future::pending::<Result<http::Response<Body>, Infallible>>());
    let cluster = Cluster::new(kube::Client::new(nobody, "voice"));
    let (key, view) = (Key::new("voice", "s"), Mutex::default());
    let writer = Writer { cluster: &cluster, view: &view, key: &key, owner: "me", may_act: &|| true };
    let objects = [object(1), Object { name: "b".to_owned(), ..object(1) }];
    let mut refused = Refused::default();
    let begun = tokio::time::Instant::now();
    assert_eq!(writer.apply(&objects, &[], &mut refused).await, Applied::TimedOut);
    assert_eq!(begun.elapsed(), crate::cluster::DEADLINE);
    let faults: Vec<_> = refused.faults().map(|fault| (fault.reason.as_str(), fault.message.as_str())).collect();
    assert_eq!(faults, [("ObjectRefused", "Service a: no answer within 12 s; a webhook may be hanging")]);
    let now = Instant::now();
    assert!(refused.rests(now) && !refused.rests(now + REST));
    assert!(refused.next().is_some_and(|next| next > now + REST / 2), "not before anything may be written");
}

/// Whatever else is written of a Deployment, the number of pods goes with it: one that somebody had raised was lowered by that.
#[tokio::test]
async fn a_deployment_is_written_over_what_is_known() {
    let cluster = Cluster::new(kube::Client::new(
        tower::service_fn(|_: http::Request<Body>| std::future::pending::<Result<http::Response<Body>, Infallible>>()),
        "voice",
    ));
    let key = Key::new("voice", "s");
    let check = |there: Option<i32>, expected: Option<Value>| {
        let mut view = View::default();
        if let Some(replicas) = there {
            let known = Known::of(&json!({ "metadata": { "name": "a", "uid": "d", "resourceVersion": "7" } }));
            let facts = DeploymentFacts { replicas, ..DeploymentFacts::default() };
            view.put(Item::Object(Kind::Deployment, key.clone(), "a".to_owned(), known, Some(facts)));
        }
        let view = Mutex::new(view);
        let writer = Writer { cluster: &cluster, view: &view, key: &key, owner: "me", may_act: &|| true };
        let value = json!({ "metadata": {}, "spec": { "replicas": 5 } });
        let object = Object { kind: Kind::Deployment, value, ..object(1) };
        let written = writer.over_what_is_known(&object).ok();
        assert_eq!(written.map(|value| value["metadata"]["resourceVersion"].clone()), expected);
    };
    check(Some(5), Some("7".into()));
    check(Some(9), None);
    check(None, Some(Value::Null));
}

#[test]
fn pods_are_not_made_that_could_not_start() {
    let refused = |kind| {
        let mut refused = Refused::default();
        let object = Object { kind, ..object(1) };
        refused.note(&object, object.hash(), Fault::new(Word::ForeignObject, ""), Instant::now(), 0.5);
        refused.keeps_pods_from_starting()
    };
    assert!(refused(Kind::ConfigMap) && refused(Kind::Secret) && refused(Kind::ServiceAccount));
    assert!(!refused(Kind::NetworkPolicy) && !refused(Kind::Deployment));
}

#[test]
fn settled_is_what_was_found_to_be_so() {
    let objects = [object(1)];
    let built = Built::of(1, "u", &[2], &objects);
    let mut there = SmallMap::default();
    there.insert((Kind::Service, "a".to_owned()), known(Some("me"), 1));
    assert!(!built.is_settled(&there), "nobody has looked");
    let looked = there.values_mut().next().unwrap();
    assert!(looked.is(&objects[0].value, objects[0].hash()));
    assert!(built.is_settled(&there));
    there.insert((Kind::Deployment, "old".to_owned()), known(Some("me"), 1));
    assert!(!built.is_settled(&there), "one too many");
    let there = SmallMap::default();
    assert!(!built.is_settled(&there));
}

/// What was asked of an API server that answers so, by method and path.
type Answers = fn(&str, &str) -> (u16, Value);

fn server(answers: Answers) -> (Cluster, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = asked.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let path = request.uri().path().rsplit('/').take(2).collect::<Vec<_>>();
        let dry = if request.uri().query().unwrap_or_default().contains("dryRun") { " dry" } else { "" };
        let (method, path) = (request.method().to_string(), format!("{}/{}", path[1], path[0]));
        noted.lock().push(format!("{method} {path}{dry}"));
        async move {
            let (code, object) = answers(&method, &path);
            if code == 0 {
                std::future::pending::<()>().await;
            }
            let reason = if code == 404 { "NotFound" } else { "" };
            let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": reason, "code": code });
            let body = Body::from(if code == 200 { object } else { status }.to_string().into_bytes());
            Ok::<_, Infallible>(http::Response::builder().status(code).body(body).unwrap())
        }
    });
    (Cluster::new(kube::Client::new(service, "voice")), asked)
}

/// A Deployment, as it is there.
fn deployment(owner: &str) -> Value {
    let owner = json!([{ "apiVersion": "apps/v1", "kind": "App", "name": "x", "uid": owner, "controller": true }]);
    let labels = json!({ MANAGED_BY.0: MANAGED_BY.1, SERVICE: "s" });
    json!({ "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "namespace": "voice", "name": "d", "uid": "d", "resourceVersion": "1", "labels": labels, "ownerReferences": owner },
        "spec": { "replicas": 1, "selector": {}, "template": {} } })
}

fn put(view: &mut View, key: &Key, kind: Kind, name: &str, object: &Value) {
    let facts = (kind == Kind::Deployment).then(|| DeploymentFacts {
        owner: Some("me".to_owned()),
        ..DeploymentFacts::of(&serde_json::from_value(object.clone()).unwrap())
    });
    view.put(Item::Object(kind, key.clone(), name.to_owned(), Known::of(object), facts));
}

/// Pods of the new template began with what the Secret was before, and stayed so: nothing says that it is another one later.
#[tokio::test]
async fn a_deployment_is_not_written_before_what_its_pods_refer_to() {
    let check = async |kind: Kind, answers: Answers, writes: usize| {
        let (cluster, asked) = server(answers);
        let (key, mut view) = (Key::new("voice", "s"), View::default());
        put(
            &mut view,
            &key,
            kind,
            "a",
            &json!({ "metadata": { "name": "a", "uid": "a", "ownerReferences": [{ "uid": "me", "controller": true }] } }),
        );
        put(&mut view, &key, Kind::Deployment, "d", &deployment("me"));
        let view = Mutex::new(view);
        let writer = Writer { cluster: &cluster, view: &view, key: &key, owner: "me", may_act: &|| true };
        let value = json!({ "metadata": {}, "spec": { "replicas": 1, "paused": true } });
        let later = Object { kind: Kind::Deployment, name: "d".to_owned(), value, trial: Trial::None };
        let objects = [Object { kind, ..object(1) }, later];
        let mut refused = Refused::default();
        for _ in 0..2 {
            assert_eq!(writer.apply(&objects, &[], &mut refused).await, Applied::Done);
        }
        let written = asked.lock().iter().filter(|line| *line == "PATCH deployments/d").count();
        assert_eq!(written, writes, "{kind:?} {:?}", asked.lock());
    };
    let refuses: Answers = |_, path| if path == "deployments/d" { (200, deployment("me")) } else { (403, Value::Null) };
    check(Kind::Secret, refuses, 0).await;
    check(Kind::ConfigMap, refuses, 0).await;
    check(Kind::Service, refuses, 1).await;
}

/// A variant's Deployment that a webhook kept was tried with each look, and nothing of its service was scaled meanwhile.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_deleted_is_told_and_not_tried_again_at_once() {
    let check = async |answers: Answers, applied: Applied, rests: bool, text: &str| {
        let (cluster, asked) = server(answers);
        let (key, mut view) = (Key::new("voice", "s"), View::default());
        put(&mut view, &key, Kind::Deployment, "d", &deployment("me"));
        let view = Mutex::new(view);
        let writer = Writer { cluster: &cluster, view: &view, key: &key, owner: "me", may_act: &|| true };
        let mut refused = Refused::default();
        assert_eq!(writer.apply(&[], &[], &mut refused).await, applied);
        let now = Instant::now();
        assert!(refused.rests(now) == rests && refused.next().is_some_and(|next| next > now));
        let told = |refused: &Refused| refused.faults().map(|fault| fault.message.clone()).collect::<Vec<_>>();
        assert_eq!(told(&refused), [format!("Deployment d is not wanted and cannot be deleted: {text}")]);
        for _ in 0..3 {
            assert_eq!(writer.apply(&[], &[], &mut refused).await, Applied::Done);
        }
        assert_eq!(*asked.lock(), ["DELETE deployments/d"]);
        // It is wanted again, or has gone.
        writer.apply(&[], &["d".to_owned()], &mut refused).await;
        assert!(refused.faults().next().is_none() && refused.next().is_none());
    };
    check(|_, _| (403, Value::Null), Applied::Done, false, "no").await;
    let hangs = "no answer within 12 s; a webhook may be hanging";
    check(|_, _| (0, Value::Null), Applied::TimedOut, true, hangs).await;
}

/// Where a template was laid over, another's Deployment was tried as if it were ours, and its refusal told; or it was looked at every
/// two seconds for ever, if it bears our labels.
#[tokio::test]
async fn another_s_deployment_is_not_tried_out() {
    let check = async |is_known: bool, answers: Answers, asked_for: &[&str], reasons: &[&str]| {
        let (cluster, asked) = server(answers);
        let (key, mut view) = (Key::new("voice", "s"), View::default());
        if is_known {
            put(&mut view, &key, Kind::Deployment, "d", &deployment("other"));
        }
        let view = Mutex::new(view);
        let writer = Writer { cluster: &cluster, view: &view, key: &key, owner: "me", may_act: &|| true };
        let first = Object { kind: Kind::Deployment, name: "d".to_owned(), trial: Trial::First, ..object(1) };
        let mut refused = Refused::default();
        for _ in 0..3 {
            assert_eq!(writer.apply(std::slice::from_ref(&first), &[], &mut refused).await, Applied::Done);
        }
        assert_eq!(*asked.lock(), asked_for);
        assert_eq!(refused.faults().map(|fault| fault.reason.as_str()).collect::<Vec<_>>(), reasons);
        if is_known {
            refused = Refused::default();
            refused.note(&first, first.hash(), foreign_fault(), Instant::now().checked_sub(PATIENCE).unwrap(), 0.5);
            writer.apply(std::slice::from_ref(&first), &[], &mut refused).await;
            assert!(refused.next().is_some_and(|next| next > Instant::now()), "it is due later again");
        }
    };
    check(true, |_, _| (500, Value::Null), &[], &["ForeignObject"]).await;
    check(false, |_, _| (200, deployment("other")), &["GET deployments/d"], &["ForeignObject"]).await;
    let absent: Answers = |method, _| if method == "GET" { (404, Value::Null) } else { (422, Value::Null) };
    check(false, absent, &["GET deployments/d", "PATCH deployments/d dry"], &["ObjectRefused"]).await;
}

fn foreign_fault() -> Fault {
    Fault::new(Word::ForeignObject, "")
}

/// A leader that waited for an answer until its leave was over wrote all the same, while another one acted.
#[tokio::test]
async fn each_request_needs_leave() {
    let (cluster, asked) = server(|_, _| (404, Value::Null));
    let (key, view) = (Key::new("voice", "s"), Mutex::default());
    let behind = asked.clone();
    let may_act = move || behind.lock().is_empty();
    let writer = Writer { cluster: &cluster, view: &view, key: &key, owner: "me", may_act: &may_act };
    assert_eq!(writer.apply(&[object(1)], &[], &mut Refused::default()).await, Applied::Stopped);
    assert_eq!(*asked.lock(), ["GET services/a"]);
}

/// What was refused of a template that is not wanted any more was told on.
#[tokio::test]
async fn what_is_as_it_was_again_is_not_refused() {
    let (cluster, _) = server(|_, _| (500, Value::Null));
    let (key, mut view) = (Key::new("voice", "s"), View::default());
    put(&mut view, &key, Kind::Deployment, "d", &deployment("me"));
    let view = Mutex::new(view);
    let writer = Writer { cluster: &cluster, view: &view, key: &key, owner: "me", may_act: &|| true };
    let value = json!({ "spec": { "replicas": 1 } });
    let first = Object { kind: Kind::Deployment, name: "d".to_owned(), value, trial: Trial::First };
    let mut refused = Refused::default();
    refused.note(&first, [7; 16], Fault::new(Word::ObjectRefused, ""), Instant::now(), 0.5);
    assert_eq!(writer.apply(&[first], &[], &mut refused).await, Applied::Done);
    assert!(refused.faults().next().is_none());
}
