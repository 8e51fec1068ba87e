//! All services of an installation, and which of them a request is for.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Display;
use std::sync::Arc;

use streamfleet_process::config::{Mistake, Mistakes};
use streamfleet_session::ServiceName;

use crate::pattern::{Params, PathPattern, by_precedence};
use crate::precedence::{self, Conflict, Wish};
use crate::service::Service;

/// Services, by name and by the requests that are for them.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    by_name: BTreeMap<ServiceName, Arc<Service>>,
    /// By host; the empty one is any. Each list in the order of precedence.
    by_host: BTreeMap<String, Vec<(PathPattern, Arc<Service>)>>,
}

/// The service that a request is for.
#[derive(Debug, Clone, PartialEq)]
pub struct Matched<'a> {
    /// Which.
    pub service: Arc<Service>,
    /// The parameters of its path.
    pub params: Params,
    /// What follows its path: empty, or with its slash.
    pub rest: &'a str,
}

/// A service, and since when it has been there.
#[derive(Debug, Clone, PartialEq)]
pub struct Aged {
    /// Which.
    pub service: Service,
    /// When it was made, in seconds since the Unix epoch.
    pub created: i64,
}

/// A service that another one stands in the way of.
#[derive(Debug, Clone, PartialEq)]
pub struct Displaced {
    /// Which.
    pub service: Arc<Service>,
    /// Who was there before.
    pub by: ServiceName,
    /// What both want, as it is said of the one that does not get it: with the key below `spec`.
    pub mistake: Mistake,
}

impl Catalog {
    /// Checks services against each other.
    ///
    /// # Errors
    /// Names, and paths of one host, that two of them have.
    pub fn new(services: impl IntoIterator<Item = Service>) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::new();
        let mut catalog = Self::default();
        for service in services.into_iter().map(Arc::new) {
            for (_, mistake) in catalog.conflicts(&service) {
                mistakes.push(mistake.key, mistake.message);
            }
            catalog.add(&service);
        }
        catalog.sort();
        mistakes.or(catalog)
    }

    /// Of services that want the same, the older one gets it; of those that came at once, the one whose name is first. Whoever does not get
    /// all that he wants is not served at all, and stands in nobody's way.
    #[must_use]
    pub fn by_age(services: impl IntoIterator<Item = Aged>) -> (Self, Vec<Displaced>) {
        let mut services: Vec<Aged> = services.into_iter().collect();
        services.sort_by(|a, b| (a.created, &a.service.name).cmp(&(b.created, &b.service.name)));
        let (mut catalog, mut displaced) = (Self::default(), Vec::new());
        let mut named = HashSet::new();
        let (services, again): (Vec<Aged>, Vec<Aged>) =
            services.into_iter().partition(|aged| named.insert(aged.service.name.clone()));
        let wishes: Vec<_> =
            services.iter().map(|aged| Wish::of(aged.service.name.clone(), aged.created, &aged.service)).collect();
        let losers = precedence::losers(&wishes);
        for service in services.into_iter().map(|aged| Arc::new(aged.service)) {
            match losers.get(&service.name) {
                None => catalog.add(&service),
                Some(Conflict { path, by }) => {
                    let holder = if *by == service.name { Some(&service) } else { catalog.by_name.get(by) };
                    let shape = service.paths.iter().find(|own| own.to_string() == *path).map(PathPattern::shape);
                    let held = holder.and_then(|holder| holder.paths.iter().find(|held| Some(held.shape()) == shape));
                    let mistake = taken(path, &service.name, held.map_or(path.clone(), ToString::to_string), by);
                    displaced.push(Displaced { service, by: by.clone(), mistake });
                }
            }
        }
        displaced.extend(again.into_iter().map(|aged| {
            let by = aged.service.name.clone();
            Displaced { mistake: twice(&by), by, service: Arc::new(aged.service) }
        }));
        catalog.sort();
        (catalog, displaced)
    }

    /// What a service wants that others have, and who; its own paths among each other, too.
    fn conflicts(&self, service: &Arc<Service>) -> Vec<(ServiceName, Mistake)> {
        let name = &service.name;
        if self.by_name.contains_key(name) {
            return vec![(name.clone(), twice(name))];
        }
        let there = self.by_host.get(service.host.as_deref().unwrap_or_default()).map_or(&[][..], Vec::as_slice);
        let mut conflicts = Vec::new();
        for (n, path) in service.paths.iter().enumerate() {
            let own = service.paths[..n].iter().map(|own| (own, name));
            let mut all = there.iter().map(|(known, by)| (known, &by.name)).chain(own);
            if let Some((held, by)) = all.find(|(known, _)| known.shape() == path.shape()) {
                conflicts.push((by.clone(), taken(path, name, held, by)));
            }
        }
        conflicts
    }

    fn add(&mut self, service: &Arc<Service>) {
        if self.by_name.contains_key(&service.name) {
            return;
        }
        self.by_name.insert(service.name.clone(), service.clone());
        let paths = self.by_host.entry(service.host.clone().unwrap_or_default()).or_default();
        paths.extend(service.paths.iter().map(|path| (path.clone(), service.clone())));
    }

    fn sort(&mut self) {
        for paths in self.by_host.values_mut() {
            paths.sort_by(|(a, _), (b, _)| by_precedence(a, b));
        }
    }

    /// The service of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Service>> {
        self.by_name.get(name)
    }

    /// Every service, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_name.values()
    }

    /// The service that a request to `host` (with or without its port) and `path` is for: of those with this host, or else
    /// of those with none, the one with the longest path that it is under.
    #[must_use]
    pub fn find<'a>(&self, host: Option<&str>, path: &'a str) -> Option<Matched<'a>> {
        let host = host.map(|host| without_port(host).to_ascii_lowercase());
        let own = host.as_ref().filter(|host| !host.is_empty()).and_then(|host| self.by_host.get(host));
        own.into_iter().chain(self.by_host.get("")).find_map(|paths| among(paths, path))
    }
}

fn among<'a>(paths: &[(PathPattern, Arc<Service>)], path: &'a str) -> Option<Matched<'a>> {
    paths.iter().find_map(|(pattern, service)| {
        let (params, rest) = pattern.strip(path)?;
        Some(Matched { service: service.clone(), params, rest })
    })
}

fn without_port(host: &str) -> &str {
    // An IPv6 address has colons of its own; no service has one for a name.
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn twice(name: &ServiceName) -> Mistake {
    Mistake { key: "metadata.name".to_owned(), origin: None, message: format!("there are two services {name}") }
}

fn taken(path: impl Display, name: &ServiceName, held: impl Display, by: &ServiceName) -> Mistake {
    let message = format!("{path} of {name} is taken already by {held} of {by}");
    Mistake { key: "spec.path".to_owned(), origin: None, message }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, spec: Value) -> Service {
        let mut spec = spec;
        spec["handler"] = json!({ "name": "echo" });
        Service::new(name.parse().unwrap(), serde_json::from_value(spec).unwrap()).unwrap()
    }

    #[test]
    fn the_longest_path_of_the_host_is_meant() {
        let catalog = Catalog::new([
            service("root", json!({ "path": "/" })),
            service("voice", json!({ "path": "/voice" })),
            service("beta", json!({ "path": "/voice/beta", "aliases": ["/next"] })),
            service("rooms", json!({ "path": "/voice/{room}" })),
            service("tenant", json!({ "path": "/voice", "host": "t.example.com" })),
        ])
        .unwrap();
        for (host, path, expected) in [
            (None, "/webrtc/offer", Some(("root", "/webrtc/offer"))),
            (None, "/voice", Some(("voice", ""))),
            (None, "/voices/webrtc/offer", Some(("root", "/voices/webrtc/offer"))),
            (None, "/voice/beta/outputs", Some(("beta", "/outputs"))),
            (None, "/next/outputs", Some(("beta", "/outputs"))),
            (None, "/voice/42/outputs", Some(("rooms", "/outputs"))),
            (Some("t.example.com"), "/voice/outputs", Some(("tenant", "/outputs"))),
            (Some("T.example.com:8443"), "/voice/outputs", Some(("tenant", "/outputs"))),
            (Some("t.example.com"), "/next/outputs", Some(("beta", "/outputs"))),
            (Some("[::1]:8080"), "/next", Some(("beta", ""))),
            (None, "relative", None),
        ] {
            let found = catalog.find(host, path);
            let found = found.as_ref().map(|matched| (matched.service.name.as_str(), matched.rest));
            assert_eq!(found, expected, "{host:?} {path}");
        }
    }

    #[test]
    fn what_two_services_cannot_both_have() {
        let conflicts = |services: Vec<Service>| {
            let mistakes = Catalog::new(services).unwrap_err();
            mistakes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            conflicts(vec![service("a", json!({})), service("a", json!({}))]),
            ["metadata.name: there are two services a"]
        );
        assert_eq!(
            conflicts(vec![service("a", json!({ "path": "/{x}" })), service("b", json!({ "path": "/{y}" }))]),
            ["spec.path: /{y} of b is taken already by /{x} of a"]
        );
        assert!(
            Catalog::new([service("a", json!({ "path": "/x" })), service("b", json!({ "path": "/x", "host": "h" }))])
                .is_ok()
        );
    }

    #[test]
    fn the_older_one_wins() {
        let aged = |name: &str, created: i64, spec: Value| Aged { service: service(name, spec), created };
        #[track_caller]
        fn check(services: Vec<Aged>, served: &[&str], displaced: &[(&str, &str, &str)]) {
            for turn in 0..services.len() {
                let mut services = services.clone();
                services.rotate_left(turn);
                let (catalog, without) = Catalog::by_age(services);
                assert_eq!(catalog.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(), served);
                let mut without: Vec<_> = without
                    .iter()
                    .map(|one| (one.service.name.as_str(), one.by.as_str(), one.mistake.message.as_str()))
                    .collect();
                without.sort_unstable();
                assert_eq!(without, displaced);
            }
        }
        let x = || json!({ "path": "/x" });
        check(
            vec![aged("n/old", 1, x()), aged("m/new", 2, x()), aged("n/other", 3, json!({ "path": "/y" }))],
            &["n/old", "n/other"],
            &[("m/new", "n/old", "/x of m/new is taken already by /x of n/old")],
        );
        // At once: by name.
        check(vec![aged("b", 1, x()), aged("a", 1, x())], &["a"], &[("b", "a", "/x of b is taken already by /x of a")]);
        // Who does not get all gets nothing, and stands in nobody's way.
        check(
            vec![
                aged("a", 1, x()),
                aged("b", 2, json!({ "path": "/z", "aliases": ["/x"] })),
                aged("c", 3, json!({ "path": "/z" })),
            ],
            &["a", "c"],
            &[("b", "a", "/x of b is taken already by /x of a")],
        );
        // Hosts are apart, parameters are alike.
        check(
            vec![
                aged("a", 1, json!({ "path": "/{r}" })),
                aged("b", 2, json!({ "path": "/{s}" })),
                aged("c", 3, json!({ "path": "/{s}", "host": "h" })),
            ],
            &["a", "c"],
            &[("b", "a", "/{s} of b is taken already by /{r} of a")],
        );
        check(
            vec![aged("a", 1, json!({ "path": "/x", "aliases": ["/x/"] }))],
            &[],
            &[("a", "a", "/x of a is taken already by /x of a")],
        );
        check(
            vec![aged("a", 1, x()), aged("a", 2, json!({ "path": "/y" }))],
            &["a"],
            &[("a", "a", "there are two services a")],
        );
        check(vec![], &[], &[]);
    }

    proptest! {
        /// Whoever is served could have been served alone with all that are older; whoever is not has one of them in the way.
        #[test]
        fn nobody_is_displaced_by_one_who_is_not_served(
            wishes in prop::collection::vec((0..4_i64, "/(a|b|\\{p\\})(/(a|b))?", prop::option::of("(/(a|b)){1,2}"), any::<bool>()), 1..8),
        ) {
            let services = wishes.iter().enumerate().map(|(n, (created, path, alias, host))| {
                let mut spec = json!({ "path": path, "aliases": alias.iter().collect::<Vec<_>>() });
                if *host { spec["host"] = json!("h"); }
                Aged { service: service(&format!("s{n}"), spec), created: *created }
            });
            let services: Vec<Aged> = services.collect();
            let (catalog, displaced) = Catalog::by_age(services.clone());
            prop_assert_eq!(catalog.iter().count() + displaced.len(), services.len());
            prop_assert!(Catalog::new(catalog.iter().map(|service| Service::clone(service))).is_ok());
            let created = |name: &str| services.iter().find(|aged| aged.service.name.as_str() == name).unwrap().created;
            for one in &displaced {
                let (own, by) = (one.service.name.as_str(), one.by.as_str());
                let is_own = own == by;
                prop_assert!(is_own || catalog.get(by).is_some());
                prop_assert!(is_own || (created(by), by) < (created(own), own));
            }
        }

        /// Whatever the order in which services were read, a request is for the same one.
        #[test]
        fn the_order_of_services_does_not_matter(
            paths in prop::collection::btree_set("(/(a|b|\\{p\\}|\\{q\\})){0,3}", 1..6),
            asked in "(/(a|b|c)){0,4}",
        ) {
            let services: Vec<_> = paths
                .iter()
                .enumerate()
                .filter(|(_, path)| path.parse::<PathPattern>().is_ok())
                .map(|(n, path)| service(&format!("s{n}"), json!({ "path": path })))
                .collect();
            let forward = Catalog::new(services.clone());
            let backward = Catalog::new(services.into_iter().rev());
            prop_assert_eq!(forward.is_ok(), backward.is_ok());
            if let (Ok(forward), Ok(backward)) = (forward, backward) {
                let (found, other) = (forward.find(None, &asked), backward.find(None, &asked));
                prop_assert_eq!(&found, &other);
                // Nobody has a longer path that it is under.
                if let Some(found) = found {
                    let shortest = forward.iter().flat_map(|s| &s.paths).filter_map(|p| p.strip(&asked)).map(|(_, rest)| rest.len()).min();
                    prop_assert_eq!(Some(found.rest.len()), shortest);
                }
            }
        }
    }
}
