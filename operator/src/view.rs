//! What the operator knows of the cluster: told by watches, and by the answers to what it has written.
//!
//! Of objects nothing is kept but what tells whether they are as they should be: a text until it has been looked at, then a
//! digest of it. Every change names the service that is to be looked at again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use crate::facts::{DeploymentFacts, NodeFacts};
use crate::kind::Kind;
pub use crate::known::{Known, KnownPod, Version};
use crate::names::{Key, worker};
use crate::precedence::Wish;
use crate::resource::Resource;
use crate::small::SmallMap;

/// The cluster, as far as it is ours.
#[derive(Debug, Default)]
pub struct View {
    services: HashMap<Arc<Key>, ServiceView>,
    places: Places,
    /// Namespaces of which all has been told once; `None` if that is so of all of them.
    whole: HashSet<Option<String>>,
    nodes: HashMap<String, NodeFacts>,
    /// What may not be listed any more, and in which namespace.
    blind: HashSet<(Topic, Option<String>)>,
}

/// A service and what belongs to it.
#[derive(Debug, Clone, Default)]
pub struct ServiceView {
    /// The StreamService; `None` if there are only remains of it.
    pub resource: Option<Arc<Resource>>,
    /// Its objects, by kind and name.
    pub objects: SmallMap<(Kind, String), Known>,
    /// Figures of its Deployments, by name.
    pub deployments: SmallMap<String, DeploymentFacts>,
    /// Its pods, by name.
    pub pods: SmallMap<String, Box<KnownPod>>,
    /// The paths that it wants by the last specification that could be used: routers go on with that, too.
    pub wish: Option<Wish>,
}

impl ServiceView {
    fn is_nothing(&self) -> bool {
        self.resource.is_none() && self.objects.is_empty() && self.pods.is_empty()
    }

    /// Whether a Deployment is of the StreamService with this uid: that one controls it, or it was left behind by one of its name.
    #[must_use]
    pub fn owns(&self, service: &str, uid: &str, deployment: &str) -> bool {
        let Some(facts) = self.deployments.get(deployment) else { return false };
        let known = self.objects.get(&(Kind::Deployment, deployment.to_owned()));
        let is_left = known.is_some_and(|known| known.is_left_by(service));
        facts.owner.as_deref() == Some(uid) || (is_left && deployment == worker(service, facts.variant.as_deref()))
    }

    /// Which object or pod of a name it has, and which version of it.
    fn has(&self, topic: Topic, name: &str) -> Option<(&str, Version)> {
        match topic {
            Topic::Object(kind) => {
                self.objects.get(&(kind, name.to_owned())).map(|known| (known.uid.as_str(), known.version))
            }
            Topic::Pod => self.pods.get(name).map(|known| (known.facts.uid.as_str(), known.version)),
            Topic::Service | Topic::Node => None,
        }
    }
}

/// The service under which each object and each pod is filed. That is what a label says, which is anybody's to change; what does not
/// change about them are kind, namespace and name. Hashes stand for these: of two with the same hash one is not found to have moved.
#[derive(Debug, Default)]
struct Places {
    by: HashMap<u64, Arc<Key>>,
    hasher: RandomState,
}

impl Places {
    fn hash(&self, topic: Topic, namespace: &str, name: &str) -> u64 {
        self.hasher.hash_one((topic, namespace, name))
    }
}

/// What a watch tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// StreamServices.
    Service,
    /// Objects of a kind.
    Object(Kind),
    /// Pods.
    Pod,
    /// Nodes.
    Node,
}

impl Topic {
    /// Whether nothing can be decided without it. Drained nodes are learnt of by evictions that are refused; and monitoring is not worth
    /// waiting for: its API may be there, and the leave to use it not.
    #[must_use]
    pub fn is_needed(self) -> bool {
        !matches!(self, Self::Node | Self::Object(Kind::PodMonitor))
    }

    /// As a Role names it.
    fn plural(self) -> String {
        match self {
            Self::Service => streamfleet_service::resource::PLURAL.to_owned(),
            Self::Object(kind) => kind.resource().plural,
            Self::Pod => "pods".to_owned(),
            Self::Node => "nodes".to_owned(),
        }
    }
}

/// Something that is there.
#[derive(Debug)]
pub enum Item {
    /// A StreamService.
    Service(Resource),
    /// An object of a service, its figures if it is a Deployment.
    Object(Kind, Key, String, Known, Option<DeploymentFacts>),
    /// A pod of a service.
    Pod(Key, Box<KnownPod>),
    /// A node.
    Node(String, NodeFacts),
}

/// What one of them is known by, beside its topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    /// Its service; nodes have none.
    pub service: Option<Key>,
    /// Its own name.
    pub name: String,
    /// Its namespace, as of the watch; nodes have none.
    pub namespace: Option<String>,
}

/// An object or a pod that bears no service's name any more, as it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which one of its name.
    pub uid: String,
    /// Which version of it.
    pub version: Version,
}

impl Item {
    /// What it is known by.
    #[must_use]
    pub fn name(&self) -> Name {
        let (service, name) = match self {
            Self::Service(resource) => (Some(resource.key.clone()), resource.key.name.clone()),
            Self::Object(_, key, name, ..) => (Some(key.clone()), name.clone()),
            Self::Pod(key, pod) => (Some(key.clone()), pod.facts.name.clone()),
            Self::Node(name, _) => (None, name.clone()),
        };
        let namespace = service.as_ref().map(|key| key.namespace.clone());
        Name { service, name, namespace }
    }
}

impl View {
    /// Takes what a watch tells. Returns the services that it concerns.
    pub fn put(&mut self, item: Item) -> Vec<Key> {
        match item {
            Item::Service(mut resource) => {
                let key = self.key(&resource.key);
                let service = self.services.entry(key.clone()).or_default();
                let known = service.resource.as_ref();
                let same = known.filter(|known| known.uid == resource.uid);
                // The answer to what we wrote may have overtaken the watch.
                let version = |resource: &Resource| Version::of(&resource.version);
                if same.is_some_and(|known| version(&resource).is_before(version(known))) {
                    return Vec::new();
                }
                if let Some(known) = same.filter(|known| known.generation == resource.generation)
                    && let Ok(said) = &known.said
                {
                    // It says the same, which is kept once.
                    resource.said = Ok(said.clone());
                }
                // Our own words about its status are no news.
                let is_news = known.is_none_or(|known| known.is_other(&resource));
                let is_same = same.is_some();
                service.wish = resource.wish().or_else(|| service.wish.take().filter(|_| is_same));
                service.resource = Some(Arc::new(resource));
                if is_news { vec![Key::clone(&key)] } else { Vec::new() }
            }
            Item::Object(kind, key, name, mut known, facts) => {
                let of = (known.uid.as_str(), known.version);
                let Some((service, mut news)) = self.file(Topic::Object(kind), &key, &name, of) else {
                    return Vec::new();
                };
                let before = service.objects.get(&(kind, name.clone()));
                let mut is_news = !before.is_some_and(|before| known.inherit(before));
                service.objects.insert((kind, name.clone()), known);
                if let Some(facts) = facts {
                    is_news |= service.deployments.get(&name) != Some(&facts);
                    service.deployments.insert(name, facts);
                }
                news.extend(is_news.then_some(key));
                news
            }
            Item::Pod(key, pod) => {
                let of = (pod.facts.uid.as_str(), pod.version);
                let Some((service, mut news)) = self.file(Topic::Pod, &key, &pod.facts.name, of) else {
                    return Vec::new();
                };
                let before = service.pods.get(&pod.facts.name);
                let is_news = before.is_none_or(|before| before.facts != pod.facts);
                service.pods.insert(pod.facts.name.clone(), pod);
                news.extend(is_news.then_some(key));
                news
            }
            Item::Node(name, facts) => {
                let before = self.nodes.insert(name.clone(), facts.clone());
                if before.as_ref() == Some(&facts) { Vec::new() } else { self.on_node(&name) }
            }
        }
    }

    /// The one that is kept of equal keys.
    fn key(&self, key: &Key) -> Arc<Key> {
        self.services.get_key_value(key).map_or_else(|| Arc::new(key.clone()), |(key, _)| key.clone())
    }

    /// Files an object or a pod, of this uid and version, under a service: nowhere else is it any more. Returns that service, and
    /// whose it was; `None` if what is known of it is newer, because the answer to what we wrote has overtaken the watch, or the watch
    /// that answer.
    fn file(
        &mut self,
        topic: Topic,
        key: &Key,
        name: &str,
        (uid, version): (&str, Version),
    ) -> Option<(&mut ServiceView, Vec<Key>)> {
        let mut moved = Vec::new();
        let place = self.places.hash(topic, &key.namespace, name);
        if let Some(before) = self.places.by.get(&place).cloned() {
            let known = self.services.get(&before).and_then(|service| service.has(topic, name));
            if known.is_some_and(|(known, newer)| known == uid && version.is_before(newer)) {
                return None;
            }
            if *before != *key {
                let name = Name {
                    service: Some(Key::clone(&before)),
                    name: name.to_owned(),
                    namespace: Some(key.namespace.clone()),
                };
                moved = self.remove(topic, &name);
            }
        }
        let key = self.key(key);
        self.places.by.insert(place, key.clone());
        Some((self.services.entry(key).or_default(), moved))
    }

    /// Something bears no service's name any more: it is as if it were gone, until it is put back, which asks whose it is.
    pub fn lose(&mut self, topic: Topic, stray: Stray) -> Vec<Key> {
        let place = self.places.hash(topic, &stray.namespace, &stray.name);
        let Some(before) = self.places.by.get(&place).cloned() else { return Vec::new() };
        let known = self.services.get(&before).and_then(|service| service.has(topic, &stray.name));
        // The answer to what we wrote may have overtaken the watch.
        if known.is_none_or(|(known, newer)| known == stray.uid && stray.version.is_before(newer)) {
            return Vec::new();
        }
        let (service, namespace) = (Some(Key::clone(&before)), Some(stray.namespace));
        self.remove(topic, &Name { service, name: stray.name, namespace })
    }

    /// Takes the answer to what was written to something that there was: if a watch has told meanwhile that it is gone, it is gone.
    pub fn answer(&mut self, item: Item) -> Vec<Key> {
        let is_there = match &item {
            Item::Service(resource) => {
                let known = self.services.get(&resource.key).and_then(|service| service.resource.as_ref());
                known.is_some_and(|known| known.uid == resource.uid)
            }
            Item::Object(kind, key, name, new, _) => self.has(Topic::Object(*kind), key, name, &new.uid),
            Item::Pod(key, new) => self.has(Topic::Pod, key, &new.facts.name, &new.facts.uid),
            Item::Node(name, _) => self.nodes.contains_key(name),
        };
        if is_there { self.put(item) } else { Vec::new() }
    }

    /// Whether a service has an object or a pod, and this one of its name.
    fn has(&self, topic: Topic, key: &Key, name: &str, uid: &str) -> bool {
        let known = self.services.get(key).and_then(|service| service.has(topic, name));
        known.is_some_and(|(known, _)| known == uid)
    }

    /// All that there is in a namespace (`None`: in all) has been told once. Returns its services: nothing was decided for them.
    pub fn told_all(&mut self, namespace: Option<&str>) -> Vec<Key> {
        self.whole.insert(namespace.map(str::to_owned));
        self.within(namespace)
    }

    fn within(&self, namespace: Option<&str>) -> Vec<Key> {
        let within = |key: &&Key| namespace.is_none_or(|namespace| namespace == key.namespace);
        self.services.keys().map(Arc::as_ref).filter(within).cloned().collect()
    }

    /// A topic may not be listed any more in a namespace (`None`: in all), or again. Returns its services.
    pub fn blind(&mut self, topic: Topic, namespace: Option<&str>, is: bool) -> Vec<Key> {
        let what = (topic, namespace.map(str::to_owned));
        let is_news = if is { self.blind.insert(what) } else { self.blind.remove(&what) };
        if is_news { self.within(namespace) } else { Vec::new() }
    }

    /// What may not be listed in a namespace, as a Role names it.
    pub fn unseen(&self, namespace: &str) -> BTreeSet<String> {
        let is_here = |of: &Option<String>| of.as_ref().is_none_or(|of| of == namespace);
        self.blind.iter().filter(|(_, of)| is_here(of)).map(|(topic, _)| topic.plural()).collect()
    }

    /// Whether what is known of a namespace is all that there is, or was.
    #[must_use]
    pub fn is_whole(&self, namespace: &str) -> bool {
        self.whole.contains(&None) || self.whole.contains(&Some(namespace.to_owned()))
    }

    /// Something is gone.
    pub fn remove(&mut self, topic: Topic, name: &Name) -> Vec<Key> {
        let Some(key) = &name.service else {
            self.nodes.remove(&name.name);
            return self.on_node(&name.name);
        };
        let Some(service) = self.services.get_mut(key) else { return Vec::new() };
        let was_filed = match topic {
            Topic::Service => {
                service.resource = None;
                false
            }
            Topic::Object(kind) => {
                if kind == Kind::Deployment {
                    service.deployments.remove(&name.name);
                }
                service.objects.remove(&(kind, name.name.clone())).is_some()
            }
            Topic::Pod => service.pods.remove(&name.name).is_some(),
            Topic::Node => false,
        };
        if was_filed {
            let place = self.places.hash(topic, &key.namespace, &name.name);
            self.places.by.remove(&place);
        }
        if service.is_nothing() {
            self.services.remove(key);
        }
        vec![key.clone()]
    }

    /// A watch has begun again and told all that there is in its namespace (`None`: in all): what it did not tell of is gone.
    pub fn keep_only(&mut self, topic: Topic, namespace: Option<&str>, told: &HashSet<Name>) -> Vec<Key> {
        let within = |key: &Key| namespace.is_none_or(|namespace| namespace == key.namespace);
        let mut gone: Vec<Name> = Vec::new();
        if topic == Topic::Node {
            let nodes = self.nodes.keys().map(|name| Name { service: None, name: name.clone(), namespace: None });
            gone.extend(nodes.filter(|name| !told.contains(name)));
        }
        for (key, service) in self.services.iter().filter(|(key, _)| within(key)) {
            let names: Vec<&String> = match topic {
                Topic::Service => service.resource.iter().map(|resource| &resource.key.name).collect(),
                Topic::Object(kind) => {
                    service.objects.keys().filter(|(of, _)| *of == kind).map(|(_, name)| name).collect()
                }
                Topic::Pod => service.pods.keys().collect(),
                Topic::Node => Vec::new(),
            };
            gone.extend(names.into_iter().filter_map(|name| {
                let namespace = Some(key.namespace.clone());
                let name = Name { service: Some(Key::clone(key)), name: name.clone(), namespace };
                (!told.contains(&name)).then_some(name)
            }));
        }
        gone.iter().flat_map(|name| self.remove(topic, name)).collect()
    }

    /// A service and what belongs to it, as of now.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&ServiceView> {
        self.services.get(key)
    }

    /// Likewise, to note what was found out.
    pub fn get_mut(&mut self, key: &Key) -> Option<&mut ServiceView> {
        self.services.get_mut(key)
    }

    /// A node.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeFacts> {
        self.nodes.get(name)
    }

    /// Every service.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &ServiceView)> {
        self.services.iter().map(|(key, service)| (key.as_ref(), service))
    }

    /// The services that have pods on a node.
    fn on_node(&self, name: &str) -> Vec<Key> {
        let on = |service: &ServiceView| service.pods.values().any(|pod| pod.facts.node.as_deref() == Some(name));
        self.iter().filter(|(_, service)| on(service)).map(|(key, _)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests;
