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
use crate::view::{Item, Name, Stray, Topic, Version};

/// Objects in one answer while a list is read: whole objects are held for that long.
const PAGE: u32 = 50;

/// Who is told.
pub trait Told: Send + Sync + 'static {
    /// Something is there, or has changed.
    fn put(&self, item: Item);
    /// Something is gone.
    fn remove(&self, topic: Topic, name: &Name);
    /// Something is there, or was until now, that bears no service's name any more.
    fn lose(&self, topic: Topic, stray: Stray);
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

/// Whether there is no such kind.
fn is_unknown(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
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
        K: Resource + Send + 'static,
        F: Fn(K) -> Option<Item>,
    {
        let mut seen: Option<HashSet<Name>> = None;
        let mut silent = None;
        loop {
            let told = follow.next().await;
            self.take(told, &mut silent, &mut seen, &of);
        }
    }

    fn take<K: Resource>(
        &mut self,
        told: watcher::Result<Option<Event<K>>>,
        silent: &mut Option<Silence>,
        seen: &mut Option<HashSet<Name>>,
        of: impl Fn(K) -> Option<Item>,
    ) {
        let event = match told {
            Ok(event) => event,
            Err(error) => {
                self.miss(&error, silent);
                return;
            }
        };
        // The beginning of a list is said before anybody is asked.
        if !matches!(event, Some(Event::Init)) && silent.take().is_some() {
            tracing::info!(topic = ?self.topic, namespace = self.namespace, "told again");
            self.told.blind(self.topic, self.namespace.as_deref(), false);
        }
        if let Some(event) = event {
            self.hear(event, seen, of);
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
                if is_unknown(error) && topic == Topic::Service {
                    tracing::error!("this cluster does not know StreamServices: install the chart streamfleet-crds");
                }
                if self.missing.as_ref().is_some_and(Missing::refused) {
                    tracing::error!(?topic, namespace, %error, "its StreamServices are left alone until it can be listed");
                } else {
                    tracing::error!(?topic, namespace, %error, "it cannot be listed: what changes of it is not seen");
                }
            }
        }
    }

    fn hear<K: Resource>(&mut self, event: Event<K>, seen: &mut Option<HashSet<Name>>, of: impl Fn(K) -> Option<Item>) {
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
                let stray = stray(object.meta());
                match of(object) {
                    Some(item) => self.told.put(item),
                    None => self.lose(stray),
                }
            }
            Event::Delete(object) => {
                let stray = stray(object.meta());
                match of(object) {
                    Some(item) => self.told.remove(self.topic, &item.name()),
                    None => self.lose(stray),
                }
            }
        }
    }

    /// It is watched by one label, and the other one has been taken away.
    fn lose(&self, stray: Option<Stray>) {
        if let Some(stray) = stray {
            self.told.lose(self.topic, stray);
        }
    }
}

/// What an object is known by that says no service's name.
fn stray(metadata: &ObjectMeta) -> Option<Stray> {
    Some(Stray {
        namespace: metadata.namespace.clone()?,
        name: metadata.name.clone()?,
        uid: metadata.uid.clone().unwrap_or_default(),
        version: Version::of(metadata.resource_version.as_deref().unwrap_or_default()),
    })
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
mod tests;
