//! Who has a path that two services want: the older one, and of two that are as old the first by name.
//!
//! Routers and the operator decide by this one rule, each for itself. A service that does not get one of its paths gets none of them: half a
//! service would be a surprise.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;

use crate::service::Service;

/// A route: a host (empty for any), and the shape of a path.
pub type Route = (String, String);

/// What a service wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish<K> {
    /// Who.
    pub key: K,
    /// Since when it is there, in seconds since the Unix epoch.
    pub created: i64,
    /// Its routes, each with its path as it is written.
    pub routes: Vec<(Route, String)>,
}

impl<K> Wish<K> {
    /// Of a service that has been there since then.
    #[must_use]
    pub fn of(key: K, created: i64, service: &Service) -> Self {
        let host = service.host.clone().unwrap_or_default();
        let routes = service.paths.iter().map(|path| ((host.clone(), path.shape()), path.to_string()));
        Self { key, created, routes: routes.collect() }
    }
}

/// A path that somebody else has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict<K> {
    /// As the service writes it.
    pub path: String,
    /// Who has it.
    pub by: K,
}

/// Those that do not get what they want. Keys are what services are called: no two have the same, and their texts are in the order of names.
#[must_use]
pub fn losers<'a, K>(wishes: impl IntoIterator<Item = &'a Wish<K>>) -> HashMap<K, Conflict<K>>
where
    K: Clone + Eq + Hash + Display + 'a,
{
    let mut wishes: Vec<&Wish<K>> = wishes.into_iter().collect();
    wishes.sort_by_cached_key(|wish| (wish.created, wish.key.to_string()));
    let mut taken: HashMap<&Route, &K> = HashMap::new();
    let mut losers = HashMap::new();
    for wish in wishes {
        let lost = wish.routes.iter().enumerate().find_map(|(n, (route, path))| {
            let own = wish.routes[..n].iter().any(|(before, _)| before == route).then_some(&wish.key);
            Some((path, taken.get(route).copied().or(own)?))
        });
        match lost {
            Some((path, by)) => {
                losers.insert(wish.key.clone(), Conflict { path: path.clone(), by: by.clone() });
            }
            None => taken.extend(wish.routes.iter().map(|(route, _)| (route, &wish.key))),
        }
    }
    losers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(name: &str, created: i64, paths: &[&str]) -> Wish<String> {
        let routes = paths.iter().map(|path| ((String::new(), (*path).to_owned()), (*path).to_owned())).collect();
        Wish { key: name.to_owned(), created, routes }
    }

    fn check(wishes: &[Wish<String>], expected: &[(&str, &str, &str)]) {
        let mut lost: Vec<_> = losers(wishes).into_iter().map(|(key, c)| (key, c.path, c.by)).collect();
        lost.sort();
        let lost: Vec<_> = lost.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str())).collect();
        assert_eq!(lost, expected);
    }

    #[test]
    fn the_older_one_has_it() {
        check(&[wish("a", 2, &["/x"]), wish("b", 1, &["/x"])], &[("a", "/x", "b")]);
        check(&[wish("b", 1, &["/x"]), wish("a", 1, &["/x"])], &[("b", "/x", "a")]);
        // By the whole name, not by its parts.
        check(&[wish("a/z", 1, &["/x"]), wish("a-b/a", 1, &["/x"])], &[("a/z", "/x", "a-b/a")]);
        check(&[wish("a", 1, &["/x"]), wish("b", 2, &["/y"])], &[]);
        // Who gets nothing takes nothing away.
        check(&[wish("a", 1, &["/x"]), wish("b", 2, &["/x", "/y"]), wish("c", 3, &["/y"])], &[("b", "/x", "a")]);
        check(&[wish("a", 1, &["/x", "/x"])], &[("a", "/x", "a")]);
    }
}
