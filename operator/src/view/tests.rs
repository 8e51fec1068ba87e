//! What is told, in any order.

use serde_json::json;

use super::*;
use crate::names::{DRAINING, SERVING, STATE};

fn object(version: u32, x: u32) -> Known {
    Known::of(
        &json!({ "metadata": { "name": "a", "uid": "u", "resourceVersion": version.to_string() }, "spec": { "x": x } }),
    )
}

/// A pod of a service.
fn pod(service: &str, version: u32, state: &str) -> Item {
    let labels = json!({ STATE: state });
    let pod =
        json!({ "metadata": { "name": "p", "uid": "u", "resourceVersion": version.to_string(), "labels": labels } });
    let pod = KnownPod::of(&serde_json::from_value(pod).unwrap());
    Item::Pod(Key::new("voice", service), Box::new(pod))
}

fn put(view: &mut View, known: Known) -> usize {
    view.put(Item::Object(Kind::Service, Key::new("voice", "s"), "a".to_owned(), known, None)).len()
}

fn known(view: &mut View) -> &mut Known {
    view.get_mut(&Key::new("voice", "s")).unwrap().objects.get_mut(&(Kind::Service, "a".to_owned())).unwrap()
}

#[test]
fn what_was_looked_at_is_not_looked_at_again() {
    let mut view = View::default();
    assert_eq!(put(&mut view, object(1, 1)), 1);
    let wanted = json!({ "spec": { "x": 1 } });
    assert!(!known(&mut view).is(&json!({ "spec": { "x": 2 } }), [2; 16]));
    assert!(known(&mut view).is(&wanted, [1; 16]));
    assert_eq!(put(&mut view, object(2, 1)), 0, "another version that says the same");
    assert!(known(&mut view).is_settled([1; 16]));
    assert_eq!(put(&mut view, object(1, 7)), 0, "an answer has overtaken the watch");
    assert_eq!(put(&mut view, object(3, 2)), 1, "changed by hand");
    assert!(!known(&mut view).is(&wanted, [1; 16]));
}

/// The watch tells of a deletion before the answer to an earlier write arrives: it used to be there again, for ever.
#[test]
fn an_answer_brings_nothing_back() {
    let mut view = View::default();
    let key = Key::new("voice", "s");
    let answer = |known| Item::Object(Kind::Service, key.clone(), "a".to_owned(), known, None);
    put(&mut view, object(1, 1));
    assert_eq!(view.answer(answer(object(2, 2))).len(), 1);
    let mut other = object(3, 3);
    other.uid = "other".to_owned();
    assert_eq!(view.answer(answer(other)).len(), 0, "of one that has another in its place by now");
    let name = Name { service: Some(key.clone()), name: "a".to_owned(), namespace: Some("voice".to_owned()) };
    view.remove(Topic::Object(Kind::Service), &name);
    assert!(view.answer(answer(object(2, 2))).is_empty() && view.get(&key).is_none());
    let pod = || pod("s", 1, SERVING);
    assert!(view.answer(pod()).is_empty() && view.get(&key).is_none());
    view.put(pod());
    view.answer(pod());
    assert_eq!(view.get(&key).unwrap().pods.len(), 1);
}

/// Who was marked as draining while the watch told of it served again, and was marked anew with each look.
#[test]
fn an_answer_about_a_pod_is_not_newer_than_the_watch() {
    let mut view = View::default();
    let drains = |view: &View| view.get(&Key::new("voice", "s")).unwrap().pods.get("p").unwrap().facts.marks.draining;
    view.put(pod("s", 1, SERVING));
    assert_eq!(view.put(pod("s", 3, DRAINING)).len(), 1);
    assert!(view.answer(pod("s", 2, SERVING)).is_empty() && drains(&view));
    assert!(view.put(pod("s", 4, DRAINING)).is_empty(), "nothing that anybody goes by has changed");
    assert!(view.answer(pod("s", 3, SERVING)).is_empty() && drains(&view));
    assert_eq!(view.answer(pod("s", 5, SERVING)).len(), 1);
    assert!(!drains(&view));
}

/// Labels are anybody's to change. What was filed under another service by then was believed to be as it had been, for ever.
#[test]
fn nothing_is_filed_twice() {
    let (s, x) = (Key::new("voice", "s"), Key::new("voice", "x"));
    let filed =
        |view: &View| [&s, &x].map(|key| view.get(key).map_or(0, |service| service.objects.len() + service.pods.len()));
    let of = |key: &Key, version| Item::Object(Kind::Service, key.clone(), "a".to_owned(), object(version, 1), None);
    let mut view = View::default();
    view.put(of(&s, 1));
    known(&mut view).settle([1; 16]);
    assert_eq!(view.put(of(&x, 2)), [s.clone(), x.clone()], "both are looked at");
    assert_eq!(filed(&view), [0, 1]);
    assert_eq!(view.put(of(&s, 4)), [x.clone(), s.clone()], "it was put back");
    assert!(view.put(of(&x, 3)).is_empty(), "the watch tells only now what somebody had done");
    assert_eq!(filed(&view), [1, 0]);
    // Those of the same name are others in other namespaces, and of other kinds.
    let elsewhere = Key::new("other", "x");
    view.put(of(&elsewhere, 5));
    view.put(Item::Object(Kind::Secret, x.clone(), "a".to_owned(), object(5, 1), None));
    assert_eq!(filed(&view), [1, 1]);
    view.put(pod("s", 1, SERVING));
    assert_eq!(view.put(pod("x", 2, SERVING)), [s.clone(), x.clone()]);
    assert_eq!(filed(&view), [1, 2]);
    // Nothing is kept of what is gone.
    for (topic, key, name) in [
        (Topic::Object(Kind::Service), &s, "a"),
        (Topic::Object(Kind::Service), &elsewhere, "a"),
        (Topic::Object(Kind::Secret), &x, "a"),
        (Topic::Pod, &x, "p"),
    ] {
        let namespace = Some(key.namespace.clone());
        view.remove(topic, &Name { service: Some(key.clone()), name: name.to_owned(), namespace });
    }
    assert!(view.places.by.is_empty() && view.services.is_empty());
}

/// Each write of a status made another copy of the specification, beside the one that the operator goes by.
#[test]
fn a_specification_is_kept_once() {
    let resource = |version: u32, generation: u32| {
        let spec = json!({ "handler": { "name": "echo" }, "limits": { "timeLimitSeconds": 60 } });
        let metadata = json!({ "namespace": "voice", "name": "s", "uid": "u", "resourceVersion": version.to_string(), "generation": generation });
        Resource::of(&serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()).unwrap()
    };
    let mut view = View::default();
    let mut said_after = |resource: Resource| {
        view.put(Item::Service(resource));
        view.get(&Key::new("voice", "s")).unwrap().resource.as_ref().unwrap().said.clone().unwrap()
    };
    let said = said_after(resource(1, 1));
    assert!(Arc::ptr_eq(&said, &said_after(resource(2, 1))));
    assert!(!Arc::ptr_eq(&said, &said_after(resource(3, 2))));
}

/// Routers serve it as it was: nobody else has its paths meanwhile.
#[test]
fn a_service_with_a_mistake_keeps_its_paths() {
    let resource = |uid: &str, version: &str, handler: &str| {
        let spec = json!({ "handler": { "name": handler }, "limits": { "timeLimitSeconds": 60 }, "path": "/a" });
        let metadata = json!({ "namespace": "voice", "name": "s", "uid": uid, "resourceVersion": version });
        Resource::of(&serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()).unwrap()
    };
    let mut view = View::default();
    let mut wish_after = |resource: Resource| {
        view.put(Item::Service(resource));
        view.get(&Key::new("voice", "s")).unwrap().wish.clone()
    };
    let wish = wish_after(resource("u", "1", "echo"));
    assert!(wish.is_some());
    assert!(resource("u", "2", "").said.is_err());
    assert_eq!(wish_after(resource("u", "2", "")), wish);
    assert_eq!(wish_after(resource("another", "3", "")), None, "what another of its name wanted is over");
}

#[test]
fn a_namespace_is_whole_when_all_of_it_was_told() {
    let mut view = View::default();
    put(&mut view, object(1, 1));
    assert!(!view.is_whole("voice"));
    assert!(view.told_all(Some("other")).is_empty() && !view.is_whole("voice"));
    assert_eq!(view.told_all(Some("voice")), [Key::new("voice", "s")]);
    assert!(view.is_whole("voice"));
    let mut all = View::default();
    all.told_all(None);
    assert!(all.is_whole("any"));
}

#[test]
fn what_may_not_be_listed_is_named_where_it_is_so() {
    let mut view = View::default();
    put(&mut view, object(1, 1));
    let (ours, deployments) = (Some("voice"), Topic::Object(Kind::Deployment));
    assert_eq!(view.blind(deployments, ours, true), [Key::new("voice", "s")]);
    assert!(view.blind(deployments, ours, true).is_empty(), "it is known");
    assert!(view.blind(Topic::Pod, Some("other"), true).is_empty());
    assert_eq!(view.blind(Topic::Object(Kind::NetworkPolicy), None, true).len(), 1);
    let unseen = |view: &View, namespace| view.unseen(namespace).into_iter().collect::<Vec<_>>();
    assert_eq!(unseen(&view, "voice"), ["deployments", "networkpolicies"]);
    assert_eq!(unseen(&view, "other"), ["networkpolicies", "pods"]);
    assert_eq!(view.blind(deployments, ours, false).len(), 1);
    assert_eq!(unseen(&view, "voice"), ["networkpolicies"]);
}

#[test]
fn what_a_new_list_does_not_have_is_gone() {
    let mut view = View::default();
    put(&mut view, object(1, 1));
    let topic = Topic::Object(Kind::Service);
    assert!(view.keep_only(topic, Some("other"), &HashSet::new()).is_empty());
    assert!(view.keep_only(Topic::Pod, None, &HashSet::new()).is_empty());
    assert_eq!(view.keep_only(topic, Some("voice"), &HashSet::new()), [Key::new("voice", "s")]);
    assert!(view.get(&Key::new("voice", "s")).is_none());
}
