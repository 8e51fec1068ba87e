use kube::core::Status;

use super::*;

#[derive(Default)]
struct Heard(parking_lot::Mutex<Vec<String>>, parking_lot::Mutex<Vec<String>>);

impl Told for Heard {
    fn put(&self, _: Item) {}
    fn remove(&self, _: Topic, _: &Name) {}
    fn lose(&self, _: Topic, _: Stray) {}
    fn blind(&self, topic: Topic, namespace: Option<&str>, is: bool) {
        self.1.lock().push(format!("{} {topic:?} {is}", namespace.unwrap_or_default()));
    }
    fn keep_only(&self, _: Topic, _: Option<&str>, _: &HashSet<Name>) {}
    fn told_all(&self, namespace: Option<&str>) {
        self.0.lock().push(namespace.unwrap_or_default().to_owned());
    }
}

fn ears(namespaces: &[&str], heard: &Arc<Heard>) -> (Vec<Ear>, watch::Receiver<Vec<Lists>>) {
    let (sender, lists) = watch::channel(vec![Lists::default(); namespaces.len()]);
    let sender = Arc::new(sender);
    let topics = [Topic::Service, Topic::Pod];
    let all =
        namespaces.iter().enumerate().flat_map(|(index, namespace)| topics.map(|topic| (index, *namespace, topic)));
    let ear = |(index, namespace, topic): (usize, &str, Topic)| Ear {
        topic,
        namespace: Some(namespace.to_owned()),
        told: heard.clone(),
        missing: Some(Missing::new(sender.clone(), index)),
    };
    (all.map(ear).collect(), lists)
}

fn done(ear: &mut Ear) {
    ear.hear(Event::<Pod>::Init, &mut None, |_| None);
    ear.hear(Event::<Pod>::InitDone, &mut None, |_| None);
}

fn error(code: u16) -> watcher::Error {
    watcher::Error::InitialListFailed(kube::Error::Api(Box::new(Status { code, ..Status::default() })))
}

/// An operator used to wait for ever for a namespace that was deleted, with the lease in its hand.
#[test]
fn a_namespace_that_cannot_be_listed_is_not_waited_for() {
    let heard = Arc::new(Heard::default());
    let (mut ears, lists) = ears(&["a", "b"], &heard);
    let is_over = || lists.borrow().iter().all(Lists::is_decided);
    done(&mut ears[0]);
    assert!(heard.0.lock().is_empty(), "its pods are not known");
    done(&mut ears[1]);
    assert_eq!(*heard.0.lock(), ["a"]);
    let mut silent = None;
    ears[2].miss(&error(503), &mut silent);
    assert!(!is_over(), "the API server is away: it will tell");
    ears[2].miss(&error(403), &mut silent);
    assert!(is_over());
    done(&mut ears[3]);
    assert_eq!(*heard.0.lock(), ["a"], "nothing is decided for what is not whole");
    done(&mut ears[2]);
    assert_eq!(*heard.0.lock(), ["a", "b"], "it is there again");
    ears[2].miss(&error(403), &mut None);
    assert_eq!(*heard.0.lock(), ["a", "b"]);
}

/// The right to list Deployments was taken away, and services said that nothing was wrong while nobody saw theirs.
#[test]
fn what_may_not_be_listed_any_more_is_told_once() {
    let heard = Arc::new(Heard::default());
    let (mut ears, _) = ears(&["a"], &heard);
    ears.iter_mut().for_each(done);
    let mut silent = None;
    for code in [503, 403, 403, 503, 403] {
        ears[1].miss(&error(code), &mut silent);
    }
    assert_eq!((&*heard.1.lock(), silent), (&vec!["a Pod true".to_owned()], Some(Silence::Refused)));
    for topic in [Topic::Node, Topic::Object(Kind::PodMonitor)] {
        ears[1].topic = topic;
        ears[1].miss(&error(403), &mut None);
    }
    assert_eq!(heard.1.lock().len(), 1, "an operator works without these");
}

/// The right was given back, and services said for as long as nothing happened that it was not.
#[test]
fn what_may_be_listed_again_is_told_though_nothing_happens() {
    let heard = Arc::new(Heard::default());
    let (mut ears, _) = ears(&["a"], &heard);
    let (mut silent, mut seen) = (None, None);
    let mut take = |told: watcher::Result<Option<Event<Pod>>>| ears[1].take(told, &mut silent, &mut seen, |_| None);
    take(Err(error(403)));
    take(Ok(Some(Event::Init)));
    assert_eq!(*heard.1.lock(), ["a Pod true"]);
    take(Ok(None));
    take(Ok(None));
    assert_eq!(*heard.1.lock(), ["a Pod true", "a Pod false"]);
}

/// What had lost the label of its service was believed to be as it had been: nothing put it back, and nothing noticed its end.
#[tokio::test]
async fn what_bears_no_service_s_name_is_not_believed_to_be_there() {
    let operator = Arc::new(crate::doubles::operator(Client::new(
        tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
        }),
        "voice",
    )));
    let mut ear = Ear { topic: Topic::Pod, namespace: None, told: operator.clone(), missing: None };
    let pod = |version: u32, labels: serde_json::Value| -> Pod {
        let metadata = serde_json::json!({ "namespace": "voice", "name": "p", "uid": "u", "labels": labels, "resourceVersion": version.to_string() });
        serde_json::from_value(serde_json::json!({ "metadata": metadata })).unwrap()
    };
    let ours = |version| pod(version, serde_json::json!({ SERVICE: "s" }));
    let bare = |version| pod(version, serde_json::json!({}));
    let mut check = |event: Event<Pod>, expected: bool| {
        let text = format!("{event:?}");
        ear.hear(event, &mut None, |pod| Some(Item::Pod(key(&pod.metadata)?, Box::new(KnownPod::of(&pod)))));
        assert_eq!(operator.view.lock().get(&Key::new("voice", "s")).is_some(), expected, "{text}");
    };
    check(Event::Apply(bare(1)), false);
    check(Event::Apply(ours(2)), true);
    check(Event::Apply(bare(3)), false);
    check(Event::Delete(bare(4)), false);
    check(Event::Apply(ours(6)), true);
    // It was put back meanwhile.
    check(Event::Apply(bare(5)), true);
    check(Event::Delete(bare(7)), false);
}

/// A list with an object that cannot be read, as this program is, is no reason to wait for ever.
#[tokio::test]
async fn a_list_that_cannot_be_read_is_told_of() {
    let refused = ["{", r#"{ "metadata": {}, "items": [{ "metadata": { "labels": 7 } }] }"#];
    for text in refused {
        let server = tower::service_fn(move |_: http::Request<kube::client::Body>| async move {
            let body = kube::client::Body::from(text.as_bytes().to_vec());
            Ok::<_, std::convert::Infallible>(http::Response::new(body))
        });
        let pods: Api<Pod> = Api::namespaced(Client::new(server, "voice"), "voice");
        let mut follow = Follow::new(pods, watcher::Config::default());
        let error = loop {
            if let Err(error) = follow.next().await {
                break error;
            }
        };
        assert!(is_refused(&error), "{error}");
    }
}

/// One StreamService of a kilobyte kept the whole list of all of them from being read.
#[tokio::test]
async fn a_service_that_is_too_deep_keeps_no_other_from_being_told() {
    let deep = format!("{}1{}", r#"{"a":"#.repeat(3_000), "}".repeat(3_000));
    let item = |name: &str, config: &str| {
        format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"n","resourceVersion":"1","managedFields":[{{"fieldsV1":{config}}}]}},
            "spec":{{"handler":{{"name":"echo","config":{config}}},"limits":{{"timeLimitSeconds":9}}}}}}"#
        )
    };
    let text = format!(
        r#"{{"kind":"StreamServiceList","apiVersion":"streamfleet.dev/v1alpha1","metadata":{{"resourceVersion":"1"}},"items":[{},{}]}}"#,
        item("deep", &deep),
        item("good", "{}")
    );
    let server = tower::service_fn(move |_: http::Request<kube::client::Body>| {
        let body = kube::client::Body::from(text.clone().into_bytes());
        async move { Ok::<_, std::convert::Infallible>(http::Response::new(body)) }
    });
    let mut follow = Follow::new(typed::<StreamService>(&Client::new(server, "n"), None), watcher::Config::default());
    let mut told = Vec::new();
    loop {
        match follow.next().await.unwrap() {
            Some(Event::InitApply(object)) => told.push(resource::Resource::of(&object).unwrap()),
            Some(Event::InitDone) => break,
            _ => {}
        }
    }
    let said: Vec<_> = told.iter().map(|told| (told.key.name.as_str(), told.said.is_ok())).collect();
    assert_eq!(said, [("deep", false), ("good", true)]);
}

#[test]
fn what_is_no_leave() {
    for (code, expected) in [(403, true), (404, true), (401, false), (410, false), (429, false), (500, false)] {
        assert_eq!(is_refused(&error(code)), expected, "{code}");
    }
    assert!(!is_refused(&watcher::Error::NoResourceVersion));
    let unread = || kube::Error::SerdeError(serde_json::from_str::<u8>("{").unwrap_err());
    assert!(is_refused(&watcher::Error::InitialListFailed(unread())));
    assert!(!is_refused(&watcher::Error::WatchFailed(unread())), "the next word may be one");
}
