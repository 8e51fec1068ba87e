//! What the API server tells of, all the time: StreamServices, what belongs to them, and nodes. Only what bears the operator's
//! label is asked for.

use std::collections::HashSet;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, DynamicObject, Resource};
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use serde::de::DeserializeOwned;
use streamfleet_service::resource::StreamService;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cluster::as_value;
use crate::facts::{DeploymentFacts, NodeFacts, PodFacts};
use crate::kind::Kind;
use crate::names::{Key, MANAGED_BY, SERVICE};
use crate::resource;
use crate::view::{Item, Known, Name, Topic};

/// Objects in one answer while a list is read: whole objects are held for that long.
const PAGE: u32 = 100;

/// Who is told.
pub trait Told: Send + Sync + 'static {
    /// Something is there, or has changed.
    fn put(&self, item: Item);
    /// Something is gone.
    fn remove(&self, topic: Topic, name: &Name);
    /// All that there is has been told, in a namespace or in all of them.
    fn keep_only(&self, topic: Topic, namespace: Option<&str>, told: &HashSet<Name>);
}

/// The watches, which run as long as this lives.
pub struct Watches {
    tasks: JoinSet<()>,
    /// How many of those that are waited for have not told all yet.
    missing: watch::Receiver<usize>,
}

impl Watches {
    /// Begins to watch. With `namespaces` empty in all of them.
    #[must_use]
    pub fn start(client: &Client, namespaces: &[String], kinds: &[Kind], told: &Arc<dyn Told>) -> Self {
        let (sender, missing) = watch::channel(0);
        let mut starting = Starting { told, sender: Arc::new(sender), tasks: JoinSet::new() };
        let scopes: Vec<Option<&str>> = match namespaces {
            [] => vec![None],
            some => some.iter().map(|namespace| Some(namespace.as_str())).collect(),
        };
        for scope in scopes {
            let all = watcher::Config::default().page_size(PAGE);
            let ours = all.clone().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
            let services: Api<StreamService> = typed(client, scope);
            starting.watch(services, all, Topic::Service, scope, |object| {
                resource::Resource::of(&object).map(Item::Service)
            });
            let pods: Api<Pod> = typed(client, scope);
            starting.watch(pods, ours.clone(), Topic::Pod, scope, |pod| {
                Some(Item::Pod(key(&pod.metadata)?, PodFacts::of(&pod)))
            });
            for kind in kinds.iter().copied() {
                let objects = untyped(client, scope, kind);
                starting.watch(objects, ours.clone(), Topic::Object(kind), scope, move |object| item(kind, &object));
            }
        }
        // Without leave to see nodes an operator works all the same: it learns of drained ones by evictions that are refused.
        let nodes: Api<Node> = Api::all(client.clone());
        let stream = watcher(nodes, watcher::Config::default().page_size(PAGE));
        let of = |node: Node| Some(Item::Node(node.metadata.name.clone()?, NodeFacts::of(&node)));
        starting.tasks.spawn(follow(stream, Topic::Node, None, told.clone(), None, of));
        Self { tasks: starting.tasks, missing }
    }

    /// Waits until all that there is has been told once.
    pub async fn told_all(&self) {
        // The sender lives as long as a watch that has not told all.
        let _ = self.missing.clone().wait_for(|missing| *missing == 0).await;
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
    sender: Arc<watch::Sender<usize>>,
    tasks: JoinSet<()>,
}

impl Starting<'_> {
    fn watch<K, F>(&mut self, api: Api<K>, config: watcher::Config, topic: Topic, scope: Option<&str>, of: F)
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
        F: Fn(K) -> Option<Item> + Send + 'static,
    {
        // Monitoring is not worth waiting for: its API may be there, and the leave to use it not.
        let missing = (topic != Topic::Object(Kind::PodMonitor)).then(|| {
            self.sender.send_modify(|missing| *missing += 1);
            Missing(self.sender.clone())
        });
        let stream = watcher(api, config);
        self.tasks.spawn(follow(stream, topic, scope.map(str::to_owned), self.told.clone(), missing, of));
    }
}

/// One watch that has not told all yet.
struct Missing(Arc<watch::Sender<usize>>);

impl Missing {
    fn told(self) {
        self.0.send_modify(|missing| *missing -= 1);
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

async fn follow<K, F>(
    stream: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    topic: Topic,
    scope: Option<String>,
    told: Arc<dyn Told>,
    mut missing: Option<Missing>,
    of: F,
) where
    F: Fn(K) -> Option<Item>,
    K: Send + 'static,
{
    let mut stream = pin!(stream.default_backoff());
    let mut seen: Option<HashSet<Name>> = None;
    let mut silent = false;
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(event) => {
                if std::mem::take(&mut silent) {
                    tracing::info!(?topic, "told again");
                }
                event
            }
            Err(error) => {
                // The first failure is news.
                if !std::mem::replace(&mut silent, true) {
                    tracing::warn!(?topic, %error, "nothing is told");
                }
                continue;
            }
        };
        match event {
            Event::Init => seen = Some(HashSet::new()),
            Event::InitApply(object) => {
                if let Some(item) = of(object) {
                    if let Some(seen) = &mut seen {
                        seen.insert(item.name());
                    }
                    told.put(item);
                }
            }
            Event::InitDone => {
                if let Some(seen) = seen.take() {
                    told.keep_only(topic, scope.as_deref(), &seen);
                }
                if let Some(missing) = missing.take() {
                    missing.told();
                }
            }
            Event::Apply(object) => {
                if let Some(item) = of(object) {
                    told.put(item);
                }
            }
            Event::Delete(object) => {
                if let Some(item) = of(object) {
                    told.remove(topic, &item.name());
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
