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
mod tests {
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
        let pod = json!({ "metadata": { "name": "p", "uid": "u", "resourceVersion": version.to_string(), "labels": labels } });
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
        let drains =
            |view: &View| view.get(&Key::new("voice", "s")).unwrap().pods.get("p").unwrap().facts.marks.draining;
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
        let filed = |view: &View| {
            [&s, &x].map(|key| view.get(key).map_or(0, |service| service.objects.len() + service.pods.len()))
        };
        let of =
            |key: &Key, version| Item::Object(Kind::Service, key.clone(), "a".to_owned(), object(version, 1), None);
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
}
