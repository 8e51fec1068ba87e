//! What the API server tells of, all the time: StreamServices, what belongs to them, and nodes. Only what bears the operator's
//! label is asked for.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, DynamicObject, Resource};
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher::{self, Event};
use serde::de::DeserializeOwned;
use streamfleet_service::resource::StreamService;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cluster::as_value;
use crate::facts::{DeploymentFacts, NodeFacts};
use crate::follow::Follow;
use crate::kind::Kind;
use crate::known::{Known, KnownPod};
use crate::names::{Key, MANAGED_BY, SERVICE};
use crate::resource;
use crate::view::{Item, Name, Topic};

/// Objects in one answer while a list is read: whole objects are held for that long.
const PAGE: u32 = 50;

/// Who is told.
pub trait Told: Send + Sync + 'static {
    /// Something is there, or has changed.
    fn put(&self, item: Item);
    /// Something is gone.
    fn remove(&self, topic: Topic, name: &Name);
    /// Every list of a namespace, or of all of them, has been told once. What there is of it before is not whole.
    fn told_all(&self, namespace: Option<&str>);
    /// Whether a topic may not be listed any more, in a namespace or in all of them: what changes is not told then.
    fn blind(&self, topic: Topic, namespace: Option<&str>, is: bool);
    /// All that there is of a topic has been told, in a namespace or in all of them.
    fn keep_only(&self, topic: Topic, namespace: Option<&str>, told: &HashSet<Name>);
}

/// The watches, which run as long as this lives.
pub struct Watches {
    tasks: JoinSet<()>,
    lists: watch::Receiver<Vec<Lists>>,
}

/// How far the first lists of a namespace, or of all of them, are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Lists {
    /// How many of those that are waited for have not told all yet.
    missing: usize,
    /// Whether one of them may not be had: there is no such namespace any more, or no leave to see it. It is not waited for.
    refused: bool,
}

impl Lists {
    fn is_decided(&self) -> bool {
        self.missing == 0 || self.refused
    }
}

impl Watches {
    /// Begins to watch. With `namespaces` empty in all of them.
    #[must_use]
    pub fn start(client: &Client, namespaces: &[String], kinds: &[Kind], told: &Arc<dyn Told>) -> Self {
        let scopes: Vec<Option<&str>> = match namespaces {
            [] => vec![None],
            some => some.iter().map(|namespace| Some(namespace.as_str())).collect(),
        };
        let (sender, lists) = watch::channel(vec![Lists::default(); scopes.len()]);
        let mut starting = Starting { told, sender: Arc::new(sender), tasks: JoinSet::new() };
        for (index, scope) in scopes.into_iter().enumerate() {
            let scope = Scope { index, namespace: scope };
            // Not whole before all are counted, however soon the first of them is.
            let counting = Missing::new(starting.sender.clone(), index);
            let all = watcher::Config::default().page_size(PAGE);
            let ours = all.clone().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
            let services: Api<StreamService> = typed(client, scope.namespace);
            starting.watch(services, all, Topic::Service, scope, |object| {
                resource::Resource::of(&object).map(Item::Service)
            });
            let pods: Api<Pod> = typed(client, scope.namespace);
            starting.watch(pods, ours.clone(), Topic::Pod, scope, |pod| {
                Some(Item::Pod(key(&pod.metadata)?, Box::new(KnownPod::of(&pod))))
            });
            for kind in kinds.iter().copied() {
                let objects = untyped(client, scope.namespace, kind);
                starting.watch(objects, ours.clone(), Topic::Object(kind), scope, move |object| item(kind, &object));
            }
            if counting.told() {
                told.told_all(scope.namespace);
            }
        }
        // Without leave to see nodes an operator works all the same: it learns of drained ones by evictions that are refused.
        let nodes: Api<Node> = Api::all(client.clone());
        let follow = Follow::new(nodes, watcher::Config::default().page_size(PAGE));
        let of = |node: Node| Some(Item::Node(node.metadata.name.clone()?, NodeFacts::of(&node)));
        let ear = Ear { topic: Topic::Node, namespace: None, told: told.clone(), missing: None };
        starting.tasks.spawn(ear.listen(follow, of));
        Self { tasks: starting.tasks, lists }
    }

    /// Waits until all that there is has been told once, but for namespaces that cannot be listed: they are asked for again and again,
    /// and the others do not wait for them.
    pub async fn told_all(&self) {
        // The sender lives as long as a watch that has not told all.
        let _ = self.lists.clone().wait_for(|lists| lists.iter().all(Lists::is_decided)).await;
    }

    /// Waits for the end of a watch, which does not come: it would be a fault of the program.
    pub async fn ended(&mut self) {
        match self.tasks.join_next().await {
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

struct Starting<'a> {
    told: &'a Arc<dyn Told>,
    sender: Arc<watch::Sender<Vec<Lists>>>,
    tasks: JoinSet<()>,
}

/// A namespace that is watched, or all of them.
#[derive(Debug, Clone, Copy)]
struct Scope<'a> {
    index: usize,
    namespace: Option<&'a str>,
}

impl Starting<'_> {
    fn watch<K, F>(&mut self, api: Api<K>, config: watcher::Config, topic: Topic, scope: Scope<'_>, of: F)
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
        F: Fn(K) -> Option<Item> + Send + 'static,
    {
        let missing = topic.is_needed().then(|| Missing::new(self.sender.clone(), scope.index));
        let namespace = scope.namespace.map(str::to_owned);
        let ear = Ear { topic, namespace, told: self.told.clone(), missing };
        self.tasks.spawn(ear.listen(Follow::new(api, config), of));
    }
}

/// One watch that has not told all yet.
struct Missing {
    sender: Arc<watch::Sender<Vec<Lists>>>,
    index: usize,
}

impl Missing {
    fn new(sender: Arc<watch::Sender<Vec<Lists>>>, index: usize) -> Self {
        sender.send_modify(|lists| lists[index].missing += 1);
        Self { sender, index }
    }

    /// It has. Says whether it was the last one of its namespace.
    fn told(self) -> bool {
        let mut is_last = false;
        self.sender.send_modify(|lists| {
            lists[self.index].missing -= 1;
            is_last = lists[self.index].missing == 0;
        });
        is_last
    }

    /// It cannot. Says whether that is news of its namespace.
    fn refused(&self) -> bool {
        self.sender.send_if_modified(|lists| !std::mem::replace(&mut lists[self.index].refused, true))
    }
}

/// A kind that is known when this is compiled, in a namespace or in all of them.
fn typed<K>(client: &Client, scope: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match scope {
        None => Api::all(client.clone()),
        Some(namespace) => Api::namespaced(client.clone(), namespace),
    }
}

fn untyped(client: &Client, scope: Option<&str>, kind: Kind) -> Api<DynamicObject> {
    match scope {
        None => Api::all_with(client.clone(), &kind.resource()),
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind.resource()),
    }
}

/// Whether there is nothing to be listed, no leave to, or something in it that cannot be read: waiting changes that only if somebody does
/// something about it.
fn is_refused(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) = error else {
        return false;
    };
    match error {
        kube::Error::Api(status) => matches!(status.code, 403 | 404),
        kube::Error::SerdeError(_) => true,
        _ => false,
    }
}

/// Why nothing is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Silence {
    /// Nobody answers.
    Away,
    /// It may not be listed.
    Refused,
}

/// Who listens to one watch.
struct Ear {
    topic: Topic,
    namespace: Option<String>,
    told: Arc<dyn Told>,
    missing: Option<Missing>,
}

impl Ear {
    async fn listen<K, F>(mut self, mut follow: Follow<K>, of: F)
    where
        K: Send + 'static,
        F: Fn(K) -> Option<Item>,
    {
        let mut seen: Option<HashSet<Name>> = None;
        let mut silent = None;
        loop {
            match follow.next().await {
                Ok(event) => {
                    // The beginning of a list is said before anybody is asked.
                    if !matches!(event, Event::Init) && std::mem::take(&mut silent).is_some() {
                        tracing::info!(topic = ?self.topic, namespace = self.namespace, "told again");
                        self.told.blind(self.topic, self.namespace.as_deref(), false);
                    }
                    self.hear(event, &mut seen, &of);
                }
                Err(error) => self.miss(&error, &mut silent),
            }
        }
    }

    fn miss(&self, error: &watcher::Error, silent: &mut Option<Silence>) {
        let (topic, namespace) = (self.topic, self.namespace.as_deref().unwrap_or("all"));
        let silence = if is_refused(error) && topic.is_needed() { Silence::Refused } else { Silence::Away };
        // The first failure is news, and the first refusal.
        if silent.is_some_and(|known| known >= silence) {
            return;
        }
        *silent = Some(silence);
        match silence {
            Silence::Away => tracing::warn!(?topic, namespace, %error, "nothing is told"),
            Silence::Refused => {
                self.told.blind(topic, self.namespace.as_deref(), true);
                if self.missing.as_ref().is_some_and(Missing::refused) {
                    tracing::error!(?topic, namespace, %error, "its StreamServices are left alone until it can be listed");
                } else {
                    tracing::error!(?topic, namespace, %error, "it cannot be listed: what changes of it is not seen");
                }
            }
        }
    }

    fn hear<K>(&mut self, event: Event<K>, seen: &mut Option<HashSet<Name>>, of: impl Fn(K) -> Option<Item>) {
        match event {
            Event::Init => *seen = Some(HashSet::new()),
            Event::InitApply(object) => {
                if let Some(item) = of(object) {
                    if let Some(seen) = seen {
                        seen.insert(item.name());
                    }
                    self.told.put(item);
                }
            }
            Event::InitDone => {
                if let Some(seen) = seen.take() {
                    self.told.keep_only(self.topic, self.namespace.as_deref(), &seen);
                }
                if self.missing.take().is_some_and(Missing::told) {
                    self.told.told_all(self.namespace.as_deref());
                }
            }
            Event::Apply(object) => {
                if let Some(item) = of(object) {
                    self.told.put(item);
                }
            }
            Event::Delete(object) => {
                if let Some(item) = of(object) {
                    self.told.remove(self.topic, &item.name());
                }
            }
        }
    }
}

/// The service that an object belongs to, by its label.
fn key(metadata: &ObjectMeta) -> Option<Key> {
    let service = metadata.labels.as_ref()?.get(SERVICE)?;
    Some(Key::new(metadata.namespace.clone()?, service))
}

/// An object of a service.
pub(crate) fn item(kind: Kind, object: &DynamicObject) -> Option<Item> {
    let key = key(&object.metadata)?;
    let name = object.metadata.name.clone()?;
    let value = as_value(object);
    let known = Known::of(&value);
    let facts = match kind {
        Kind::Deployment => {
            let deployment: Deployment = serde_json::from_value(value).ok()?;
            Some(DeploymentFacts::of(&deployment))
        }
        _ => None,
    };
    Some(Item::Object(kind, key, name, known, facts))
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[derive(Default)]
    struct Heard(parking_lot::Mutex<Vec<String>>, parking_lot::Mutex<Vec<String>>);

    impl Told for Heard {
        fn put(&self, _: Item) {}
        fn remove(&self, _: Topic, _: &Name) {}
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
        let mut follow =
            Follow::new(typed::<StreamService>(&Client::new(server, "n"), None), watcher::Config::default());
        let mut told = Vec::new();
        loop {
            match follow.next().await.unwrap() {
                Event::InitApply(object) => told.push(resource::Resource::of(&object).unwrap()),
                Event::InitDone => break,
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
}
