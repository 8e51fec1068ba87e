//! All services of an installation, and which of them a request is for.

use std::collections::BTreeMap;
use std::sync::Arc;

use streamfleet_process::config::Mistakes;
use streamfleet_session::ServiceName;

use crate::pattern::{Params, PathPattern, by_precedence};
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

impl Catalog {
    /// Checks services against each other.
    ///
    /// # Errors
    /// Names, and paths of one host, that two of them have.
    pub fn new(services: impl IntoIterator<Item = Service>) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::new();
        let mut catalog = Self::default();
        for service in services.into_iter().map(Arc::new) {
            if catalog.by_name.insert(service.name.clone(), service.clone()).is_some() {
                mistakes.push("metadata.name", format!("there are two services {}", service.name));
                continue;
            }
            let host = service.host.clone().unwrap_or_default();
            let paths = catalog.by_host.entry(host).or_default();
            for path in &service.paths {
                if let Some((taken, by)) = paths.iter().find(|(known, _)| known.shape() == path.shape()) {
                    mistakes.push(
                        "spec.path",
                        format!("{path} of {} is taken already by {taken} of {}", service.name, by.name),
                    );
                }
                paths.push((path.clone(), service.clone()));
            }
        }
        for paths in catalog.by_host.values_mut() {
            paths.sort_by(|(a, _), (b, _)| by_precedence(a, b));
        }
        mistakes.or(catalog)
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

    proptest! {
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
