//! The StreamServices of a cluster, as they were last read.
//!
//! One that cannot be used any more goes on as it was: what somebody has written by mistake, or for a later version, ends no service. A router
//! that has never read it otherwise leaves it out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::runtime::watcher::Event;
use streamfleet_service::resource::StreamService;
use streamfleet_service::{Aged, Service};

/// Services at most: each has a directory that is read every second.
const MAX_SERVICES: usize = 10_000;

/// What a watch over namespaces has told.
#[derive(Debug, Default)]
pub(crate) struct Book {
    entries: BTreeMap<Name, Entry>,
    /// What each watch has named since it began its list.
    listed: BTreeMap<usize, BTreeSet<Name>>,
    /// The watches that have told all.
    whole: BTreeSet<usize>,
    /// Those that have never told anything, and are not let.
    refused: BTreeSet<usize>,
}

/// Namespace and name.
type Name = (String, String);

#[derive(Debug)]
struct Entry {
    /// The watch that tells of it.
    watch: usize,
    /// Which version of it has been read: its identity, its generation, and whether it is on its way out.
    read: (Option<String>, Option<i64>, bool),
    created: i64,
    /// As it was last right.
    service: Option<Service>,
    /// What is wrong with it now.
    mistakes: Option<String>,
}

/// Whether something has changed that calls would notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changed {
    Yes,
    No,
}

impl Book {
    /// Notes what a watch tells. The first list counts when it is whole.
    pub(crate) fn note(&mut self, watch: usize, event: Event<StreamService>) -> Changed {
        match event {
            Event::Init => {
                self.listed.insert(watch, BTreeSet::new());
                Changed::No
            }
            Event::InitApply(resource) => {
                if let Some(listed) = self.listed.get_mut(&watch) {
                    listed.insert(name(&resource));
                }
                self.read(watch, &resource)
            }
            Event::InitDone => {
                let listed = self.listed.remove(&watch).unwrap_or_default();
                let before = self.entries.len();
                self.entries.retain(|name, entry| entry.watch != watch || listed.contains(name));
                let is_first = self.whole.insert(watch);
                self.refused.remove(&watch);
                if is_first || self.entries.len() != before { Changed::Yes } else { Changed::No }
            }
            Event::Apply(resource) => self.read(watch, &resource),
            Event::Delete(resource) => self.entries.remove(&name(&resource)).map_or(Changed::No, |_| Changed::Yes),
        }
    }

    /// A watch is not let read anything. What it has told goes on; where that is nothing yet, there is nothing until it can.
    pub(crate) fn refuse(&mut self, watch: usize) -> Changed {
        if !self.whole.contains(&watch) && self.refused.insert(watch) { Changed::Yes } else { Changed::No }
    }

    /// Whether each of so many watches has told all once, but for those that are not let. Who is let read nothing at all knows nothing: rights
    /// that were written wrongly must not pass for a cluster without services.
    pub(crate) fn is_whole(&self, watches: usize) -> bool {
        !self.whole.is_empty() && self.whole.len() + self.refused.len() >= watches
    }

    /// Those that can be served.
    pub(crate) fn usable(&self) -> Vec<Aged> {
        let aged = |entry: &Entry| Some(Aged { service: entry.service.clone()?, created: entry.created });
        self.entries.values().filter_map(aged).collect()
    }

    /// What is wrong with some, by name, and whether they are served as they were.
    pub(crate) fn mistaken(&self) -> impl Iterator<Item = (String, &str, bool)> {
        self.entries.iter().filter_map(|((namespace, name), entry)| {
            let mistakes = entry.mistakes.as_deref()?;
            Some((format!("{namespace}/{name}"), mistakes, entry.service.is_some()))
        })
    }

    fn read(&mut self, watch: usize, resource: &StreamService) -> Changed {
        let name = name(resource);
        let meta = &resource.metadata;
        let read = (meta.uid.clone(), meta.generation, meta.deletion_timestamp.is_some());
        let known = self.entries.get(&name);
        // Mostly it is the status that has changed. Without a generation nobody says so.
        if known.is_some_and(|entry| entry.read == read && entry.watch == watch && meta.generation.is_some()) {
            return Changed::No;
        }
        if known.is_none() && self.entries.len() >= MAX_SERVICES {
            tracing::error!(service = %format!("{}/{}", name.0, name.1), "more than {MAX_SERVICES} services: it is left out");
            return Changed::No;
        }
        let is_same = known.is_some_and(|entry| entry.read.0 == read.0);
        let before = self.entries.remove(&name);
        let (mut service, mistakes) = match Service::from_resource(resource) {
            Ok(service) => (Some(service.without_operation()), None),
            // Another object of the same name is another service.
            Err(mistakes) => {
                let as_it_was = before.as_ref().filter(|_| is_same).and_then(|entry| entry.service.clone());
                (as_it_was, Some(mistakes.to_string().trim_end().replace('\n', "; ")))
            }
        };
        // Its workers take no more calls: whoever calls is told so at once.
        if let Some(service) = service.as_mut().filter(|_| read.2) {
            service.offer_hold = Duration::ZERO;
        }
        let entry = Entry { watch, read, created: resource.created(), service, mistakes };
        let is_served_as_before = before.as_ref().is_some_and(|before| {
            before.mistakes == entry.mistakes
                && before.created == entry.created
                && match (&before.service, &entry.service) {
                    (Some(before), Some(service)) => before.serves_as(service),
                    (None, None) => true,
                    _ => false,
                }
        });
        self.entries.insert(name, entry);
        if is_served_as_before { Changed::No } else { Changed::Yes }
    }
}

fn name(resource: &StreamService) -> Name {
    let meta = &resource.metadata;
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn resource(namespace: &str, name: &str, generation: i64, spec: Value) -> StreamService {
        let mut whole = json!({ "handler": { "name": "echo" }, "limits": { "timeLimitSeconds": 60 } });
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        serde_json::from_value(json!({
            "metadata": {
                "namespace": namespace, "name": name, "generation": generation, "uid": name,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": whole,
        }))
        .unwrap()
    }

    fn names(book: &Book) -> Vec<String> {
        book.usable().iter().map(|aged| aged.service.name.to_string()).collect()
    }

    #[test]
    fn a_list_is_whole_before_it_counts_and_takes_away_what_it_has_not() {
        let mut book = Book::default();
        let of = |name: &str| resource("n", name, 1, json!({}));
        book.note(0, Event::Init);
        book.note(1, Event::Init);
        assert_eq!(book.note(0, Event::InitApply(of("a"))), Changed::Yes);
        assert_eq!(book.note(0, Event::InitApply(of("b"))), Changed::Yes);
        assert_eq!(book.note(1, Event::InitApply(resource("m", "c", 1, json!({})))), Changed::Yes);
        assert!(!book.is_whole(2));
        assert_eq!(book.note(0, Event::InitDone), Changed::Yes);
        assert!(!book.is_whole(2));
        // A namespace without any is whole, too.
        assert_eq!(book.note(1, Event::InitDone), Changed::Yes);
        assert!(book.is_whole(2));
        assert_eq!(names(&book), ["m/c", "n/a", "n/b"]);
        // Told again from the beginning, after `b` has gone unseen.
        assert_eq!(book.note(0, Event::Init), Changed::No);
        assert_eq!(book.note(0, Event::InitApply(of("a"))), Changed::No);
        assert_eq!(names(&book).len(), 3, "nothing goes before the list is whole");
        assert_eq!(book.note(0, Event::InitDone), Changed::Yes);
        assert_eq!(names(&book), ["m/c", "n/a"]);
        assert_eq!(book.note(0, Event::Delete(of("a"))), Changed::Yes);
        assert_eq!(book.note(0, Event::Delete(of("a"))), Changed::No);
        assert_eq!(names(&book), ["m/c"]);
    }

    #[test]
    fn what_cannot_be_read_keeps_nobody_from_being_served() {
        let mut book = Book::default();
        let of = |namespace: &str| resource(namespace, "a", 1, json!({}));
        assert_eq!(book.refuse(0), Changed::Yes);
        assert_eq!(book.refuse(0), Changed::No);
        book.refuse(1);
        assert!(!book.is_whole(2), "who may read nothing knows nothing");
        for event in [Event::Init, Event::InitApply(of("m")), Event::InitDone] {
            book.note(1, event);
        }
        assert!(book.is_whole(2) && !book.is_whole(3));
        assert_eq!(names(&book), ["m/a"]);
        // It can be read after all.
        book.note(0, Event::Init);
        book.note(0, Event::InitApply(of("n")));
        assert_eq!(book.note(0, Event::InitDone), Changed::Yes);
        assert_eq!(names(&book), ["m/a", "n/a"]);
        // What was told goes on when it must not be read any more.
        assert_eq!(book.refuse(0), Changed::No);
        assert!(book.is_whole(2) && !book.is_whole(3));
        assert_eq!(names(&book), ["m/a", "n/a"]);
    }

    #[test]
    fn what_an_operator_does_changes_nothing() {
        let mut book = Book::default();
        book.note(0, Event::Apply(resource("n", "a", 1, json!({}))));
        let mut told = resource("n", "a", 1, json!({}));
        told.status.replicas = 3;
        assert_eq!(book.note(0, Event::Apply(told)), Changed::No);
        let scaled = resource("n", "a", 2, json!({ "autoscaling": { "replicas": 7 } }));
        assert_eq!(book.note(0, Event::Apply(scaled)), Changed::No);
        // Nor does what only workers are told, and none of it is kept.
        let told =
            json!({ "handler": { "name": "echo", "config": { "a": 1 } }, "workers": { "template": { "b": 2 } } });
        assert_eq!(book.note(0, Event::Apply(resource("n", "a", 3, told))), Changed::No);
        let kept = &book.usable()[0].service;
        assert_eq!((&kept.handler.config, &*kept.operation), (&Value::Null, &Default::default()));
        assert_eq!(book.note(0, Event::Apply(resource("n", "a", 4, json!({ "path": "/x" })))), Changed::Yes);
    }

    /// Whether a call waits for one more worker hangs on how many there may be.
    #[test]
    fn how_far_it_grows_is_known_at_once() {
        let mut book = Book::default();
        let cases = [
            (json!({}), Some(10)),
            (json!({ "maxReplicas": 20 }), Some(20)),
            (json!({ "maxReplicas": 20, "mode": "External", "replicas": 3 }), None),
            (json!({ "maxReplicas": 20, "replicas": 3 }), Some(20)),
        ];
        for (generation, (autoscaling, expected)) in (1..).zip(cases) {
            let applied = resource("n", "a", generation, json!({ "autoscaling": autoscaling }));
            assert_eq!(book.note(0, Event::Apply(applied)), Changed::Yes);
            assert_eq!(book.usable()[0].service.grows_to, expected, "{generation}");
        }
    }

    #[test]
    fn what_is_wrong_is_served_as_it_was_or_not_at_all() {
        let mut book = Book::default();
        book.note(0, Event::Apply(resource("n", "a", 1, json!({ "path": "/x" }))));
        let wrong = |name: &str, generation| resource("n", name, generation, json!({ "path": "/x/../y", "later": 1 }));
        assert_eq!(book.note(0, Event::Apply(wrong("a", 2))), Changed::Yes);
        assert_eq!(book.note(0, Event::Apply(wrong("b", 1))), Changed::Yes);
        assert_eq!(names(&book), ["n/a"]);
        assert_eq!(book.usable()[0].service.paths[0].to_string(), "/x");
        let mistaken: Vec<_> = book.mistaken().collect();
        assert!(
            mistaken.iter().all(|(_, said, _)| said.contains("spec.path") && said.contains("spec.later")),
            "{mistaken:?}"
        );
        assert_eq!(
            mistaken.iter().map(|(name, _, goes_on)| (name.as_str(), *goes_on)).collect::<Vec<_>>(),
            [("n/a", true), ("n/b", false)]
        );
        assert_eq!(book.note(0, Event::Apply(resource("n", "a", 3, json!({ "path": "/x" })))), Changed::Yes);
        assert_eq!(book.mistaken().count(), 1);
        // Another object of the same name has nothing of it.
        let mut other = wrong("a", 1);
        other.metadata.uid = Some("another".to_owned());
        book.note(0, Event::Apply(other));
        assert_eq!(names(&book), Vec::<String>::new());
    }

    #[test]
    fn who_goes_holds_no_calls() {
        let mut book = Book::default();
        book.note(0, Event::Apply(resource("n", "a", 1, json!({}))));
        assert!(!book.usable()[0].service.offer_hold.is_zero());
        let mut going = resource("n", "a", 1, json!({}));
        going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
        assert_eq!(book.note(0, Event::Apply(going)), Changed::Yes);
        assert!(book.usable()[0].service.offer_hold.is_zero());
    }
}
