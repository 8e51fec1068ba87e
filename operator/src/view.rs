//! What the operator knows of the cluster: told by watches, and by the answers to what it has written.
//!
//! Of objects nothing is kept but what tells whether they are as they should be: a text until it has been looked at, then a
//! digest of it. Every change names the service that is to be looked at again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;
use streamfleet_service::{API_VERSION, KIND};

use crate::diff;
use crate::facts::{DeploymentFacts, NodeFacts, PodFacts};
use crate::kind::Kind;
use crate::names::Key;
use crate::precedence::Wish;
use crate::resource::Resource;

/// The cluster, as far as it is ours.
#[derive(Debug, Default)]
pub struct View {
    services: HashMap<Key, ServiceView>,
    /// Namespaces of which all has been told once; `None` if that is so of all of them.
    whole: HashSet<Option<String>>,
    nodes: HashMap<String, NodeFacts>,
}

/// A service and what belongs to it.
#[derive(Debug, Clone, Default)]
pub struct ServiceView {
    /// The StreamService; `None` if there are only remains of it.
    pub resource: Option<Arc<Resource>>,
    /// Its objects, by kind and name.
    pub objects: BTreeMap<(Kind, String), Known>,
    /// Figures of its Deployments, by name.
    pub deployments: BTreeMap<String, DeploymentFacts>,
    /// Its pods, by name.
    pub pods: BTreeMap<String, PodFacts>,
    /// The paths that it wants by the last specification that could be used: routers go on with that, too.
    pub wish: Option<Wish>,
}

impl ServiceView {
    fn is_nothing(&self) -> bool {
        self.resource.is_none() && self.objects.is_empty() && self.pods.is_empty()
    }
}

/// An object as the API server has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// Which object of its name.
    pub uid: String,
    /// The uid of the StreamService that owns it.
    pub owner: Option<String>,
    /// That one's name: one of the same name and another uid was deleted, and its objects go soon.
    pub owner_name: Option<String>,
    /// Whether it is being deleted.
    pub ending: bool,
    version: String,
    digest: [u8; 16],
    /// What it was found to be enough for.
    settled: Option<[u8; 16]>,
    /// What it says, until that was looked at.
    text: Option<Box<[u8]>>,
}

impl Known {
    /// What is known of an object.
    #[must_use]
    pub fn of(object: &Value) -> Self {
        let metadata = &object["metadata"];
        let text = |key: &str| metadata[key].as_str().unwrap_or_default().to_owned();
        let owners = metadata["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
        let owner = owners.iter().find(|owner| owner["controller"] == Value::Bool(true));
        let essence = diff::essence(object);
        Self {
            uid: text("uid"),
            owner: owner.and_then(|owner| owner["uid"].as_str()).map(str::to_owned),
            owner_name: owner
                .filter(|owner| owner["kind"] == KIND && owner["apiVersion"] == API_VERSION)
                .and_then(|owner| owner["name"].as_str())
                .map(str::to_owned),
            ending: !metadata["deletionTimestamp"].is_null(),
            version: text("resourceVersion"),
            digest: diff::digest(object),
            settled: None,
            text: Some(essence.to_string().into_bytes().into()),
        }
    }

    /// Whether it is what is wanted, whose hash is `hash`. Looks at what it says only if nobody has.
    pub fn is(&mut self, wanted: &Value, hash: [u8; 16]) -> bool {
        if self.settled == Some(hash) {
            return true;
        }
        let said = self.text.as_deref().and_then(|text| serde_json::from_slice::<Value>(text).ok());
        let is = said.is_some_and(|said| diff::covers(&said, wanted));
        if is {
            self.settle(hash);
        }
        is
    }

    /// Whether that is known without looking.
    #[must_use]
    pub fn is_settled(&self, hash: [u8; 16]) -> bool {
        self.settled == Some(hash)
    }

    /// It is what is wanted, because it is the answer to that.
    pub fn settle(&mut self, hash: [u8; 16]) {
        self.settled = Some(hash);
        self.text = None;
    }

    /// Takes what was found out about `before`, if this says the same.
    fn inherit(&mut self, before: &Self) {
        if self.uid == before.uid && self.digest == before.digest && before.settled.is_some() {
            self.settled = before.settled;
            self.text = None;
        }
    }
}

/// Whether `old` is an earlier version of an object than `new`. Versions are numbers that grow (KEP-5504); where they are not,
/// nothing is earlier.
fn is_earlier(old: &str, new: &str) -> bool {
    matches!((old.parse::<u64>(), new.parse::<u64>()), (Ok(old), Ok(new)) if old < new)
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

/// Something that is there.
#[derive(Debug)]
pub enum Item {
    /// A StreamService.
    Service(Resource),
    /// An object of a service, its figures if it is a Deployment.
    Object(Kind, Key, String, Known, Option<DeploymentFacts>),
    /// A pod of a service.
    Pod(Key, PodFacts),
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
            Self::Pod(key, facts) => (Some(key.clone()), facts.name.clone()),
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
            Item::Service(resource) => {
                let key = resource.key.clone();
                let service = self.services.entry(key.clone()).or_default();
                let known = service.resource.as_ref();
                // The answer to what we wrote may have overtaken the watch.
                if known.is_some_and(|known| known.uid == resource.uid && is_earlier(&resource.version, &known.version))
                {
                    return Vec::new();
                }
                // Our own words about its status are no news.
                let is_news = known.is_none_or(|known| known.is_other(&resource));
                let is_same = known.is_some_and(|known| known.uid == resource.uid);
                service.wish = resource.wish().or_else(|| service.wish.take().filter(|_| is_same));
                service.resource = Some(Arc::new(resource));
                if is_news { vec![key] } else { Vec::new() }
            }
            Item::Object(kind, key, name, mut known, facts) => {
                let service = self.services.entry(key.clone()).or_default();
                let mut is_news = true;
                if let Some(before) = service.objects.get(&(kind, name.clone())) {
                    if before.uid == known.uid && is_earlier(&known.version, &before.version) {
                        return Vec::new();
                    }
                    known.inherit(before);
                    is_news = known.settled.is_none() || known.ending != before.ending;
                }
                service.objects.insert((kind, name.clone()), known);
                if let Some(facts) = facts {
                    is_news |= service.deployments.insert(name, facts.clone()) != Some(facts);
                }
                if is_news { vec![key] } else { Vec::new() }
            }
            Item::Pod(key, facts) => {
                let service = self.services.entry(key.clone()).or_default();
                let is_news = service.pods.get(&facts.name) != Some(&facts);
                service.pods.insert(facts.name.clone(), facts);
                if is_news { vec![key] } else { Vec::new() }
            }
            Item::Node(name, facts) => {
                let before = self.nodes.insert(name.clone(), facts.clone());
                if before.as_ref() == Some(&facts) { Vec::new() } else { self.on_node(&name) }
            }
        }
    }

    /// Takes the answer to what was written to something that there was: if a watch has told meanwhile that it is gone, it is gone.
    pub fn answer(&mut self, item: Item) -> Vec<Key> {
        let is_there = match &item {
            Item::Service(resource) => {
                let known = self.services.get(&resource.key).and_then(|service| service.resource.as_ref());
                known.is_some_and(|known| known.uid == resource.uid)
            }
            Item::Object(kind, key, name, new, _) => {
                let objects = self.services.get(key).map(|service| &service.objects);
                let known = objects.and_then(|objects| objects.get(&(*kind, name.clone())));
                known.is_some_and(|known| known.uid == new.uid)
            }
            Item::Pod(key, new) => {
                let known = self.services.get(key).and_then(|service| service.pods.get(&new.name));
                known.is_some_and(|known| known.uid == new.uid)
            }
            Item::Node(name, _) => self.nodes.contains_key(name),
        };
        if is_there { self.put(item) } else { Vec::new() }
    }

    /// All that there is in a namespace (`None`: in all) has been told once. Returns its services: nothing was decided for them.
    pub fn told_all(&mut self, namespace: Option<&str>) -> Vec<Key> {
        self.whole.insert(namespace.map(str::to_owned));
        let within = |key: &&Key| namespace.is_none_or(|namespace| namespace == key.namespace);
        self.services.keys().filter(within).cloned().collect()
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
        match topic {
            Topic::Service => service.resource = None,
            Topic::Object(kind) => {
                service.objects.remove(&(kind, name.name.clone()));
                if kind == Kind::Deployment {
                    service.deployments.remove(&name.name);
                }
            }
            Topic::Pod => {
                service.pods.remove(&name.name);
            }
            Topic::Node => {}
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
                let name = Name { service: Some(key.clone()), name: name.clone(), namespace };
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
        self.services.iter()
    }

    /// The services that have pods on a node.
    fn on_node(&self, name: &str) -> Vec<Key> {
        let on = |service: &ServiceView| service.pods.values().any(|pod| pod.node.as_deref() == Some(name));
        self.services.iter().filter(|(_, service)| on(service)).map(|(key, _)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(version: u32, x: u32) -> Known {
        Known::of(
            &json!({ "metadata": { "name": "a", "uid": "u", "resourceVersion": version.to_string() }, "spec": { "x": x } }),
        )
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
        assert!(known(&mut view).text.is_none(), "nobody needs it any more");
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
        let other = Known { uid: "other".to_owned(), ..object(3, 3) };
        assert_eq!(view.answer(answer(other)).len(), 0, "of one that has another in its place by now");
        let name = Name { service: Some(key.clone()), name: "a".to_owned(), namespace: Some("voice".to_owned()) };
        view.remove(Topic::Object(Kind::Service), &name);
        assert!(view.answer(answer(object(2, 2))).is_empty() && view.get(&key).is_none());
        let pod = || {
            let pod = json!({ "metadata": { "name": "p", "uid": "u" } });
            Item::Pod(key.clone(), PodFacts::of(&serde_json::from_value(pod).unwrap()))
        };
        assert!(view.answer(pod()).is_empty() && view.get(&key).is_none());
        view.put(pod());
        view.answer(pod());
        assert_eq!(view.get(&key).unwrap().pods.len(), 1);
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
