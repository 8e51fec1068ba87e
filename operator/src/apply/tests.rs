//! What is written, and when.

use serde_json::json;

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
    let fault = || Fault::new("ObjectRefused", "exceeded quota");
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
    let nobody = tower::service_fn(|request: http::Request<kube::client::Body>| async move {
        Err::<http::Response<kube::client::Body>, _>(format!("{} is asked for", request.uri()))
    });
    let cluster = Cluster::new(kube::Client::new(nobody, "voice"));
    let (key, mut view) = (Key::new("voice", "s"), View::default());
    view.put(Item::Object(Kind::Service, key.clone(), "a".to_owned(), known(Some("other"), 1), None));
    let view = Mutex::new(view);
    let writer = Writer { cluster: &cluster, view: &view, key: &key, owner: "me", may_act: &|| true };
    let mut refused = Refused::default();
    assert_eq!(writer.apply(&[object(1)], &[], &mut refused).await, Applied::Done);
    let next = refused.next();
    assert!(next.is_some() && refused.faults().all(|fault| fault.reason == "ForeignObject"));
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
    let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
    });
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
        tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
        }),
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
        refused.note(&object, object.hash(), Fault::new("ForeignObject", ""), Instant::now(), 0.5);
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
