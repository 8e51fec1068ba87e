//! What keys do to what is shown. Pure.

use std::collections::BTreeSet;

use super::facts::{Facts, Name};
use super::view::Choice;

/// Workers that a key scrolls by.
const STEP: usize = 5;

/// A key that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Up,
    Down,
    Left,
    Right,
    Namespace,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    Quit,
    Show(Choice),
}

/// The next of `all` after `now`, in a circle that begins and ends with none of them.
fn next<T: PartialEq + Clone>(all: &[T], now: Option<&T>) -> Option<T> {
    match now.and_then(|now| all.iter().position(|one| one == now)) {
        None if now.is_some() => None,
        None => all.first().cloned(),
        Some(at) => all.get(at + 1).cloned(),
    }
}

impl Choice {
    pub(super) fn press(&self, key: Key, facts: &Facts) -> Next {
        let services: Vec<Name> = facts.services.keys().filter(|name| self.is_in(name)).cloned().collect();
        let workers = facts.workers.len();
        Next::Show(match key {
            Key::Quit => return Next::Quit,
            Key::Down => Self { service: next(&services, self.service.as_ref()), scroll: 0, ..self.clone() },
            Key::Up => {
                let backwards: Vec<Name> = services.into_iter().rev().collect();
                Self { service: next(&backwards, self.service.as_ref()), scroll: 0, ..self.clone() }
            }
            Key::Left => Self { scroll: self.scroll.saturating_sub(STEP), ..self.clone() },
            Key::Right => Self { scroll: (self.scroll + STEP).min(workers.saturating_sub(1)), ..self.clone() },
            Key::Namespace => {
                let all: BTreeSet<&String> = facts.services.keys().map(|name| &name.namespace).collect();
                let all: Vec<String> = all.into_iter().filter(|namespace| !namespace.is_empty()).cloned().collect();
                Self { namespace: next(&all, self.namespace.as_ref()), service: None, scroll: 0 }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::facts::Service;

    #[test]
    fn keys_go_round() {
        let names = [("a", "x"), ("b", "y"), ("b", "z")].map(|(namespace, name)| Name::new(namespace, name));
        let services = names.iter().map(|name| (name.clone(), Service::default())).collect();
        let facts = Facts { services, ..Facts::default() };
        let mut choice = Choice::default();
        let mut check = |key: Key, namespace: Option<&str>, service: Option<usize>| {
            let Next::Show(next) = choice.press(key, &facts) else { panic!("it ends") };
            choice = next;
            assert_eq!((choice.namespace.as_deref(), choice.service.as_ref()), (namespace, service.map(|n| &names[n])));
        };
        for expected in [Some(0), Some(1), Some(2), None, Some(0)] {
            check(Key::Down, None, expected);
        }
        for expected in [None, Some(2), Some(1)] {
            check(Key::Up, None, expected);
        }
        check(Key::Namespace, Some("a"), None);
        check(Key::Down, Some("a"), Some(0));
        check(Key::Down, Some("a"), None);
        check(Key::Namespace, Some("b"), None);
        check(Key::Up, Some("b"), Some(2));
        check(Key::Namespace, None, None);
        assert_eq!(choice.press(Key::Quit, &facts), Next::Quit);
        // What was chosen is there no more.
        let gone = Choice { service: Some(Name::new("c", "x")), ..Choice::default() };
        assert_eq!(gone.press(Key::Down, &facts), Next::Show(Choice::default()));
    }

    #[test]
    fn workers_scroll_within_what_there_is() {
        let worker =
            crate::top::facts::Worker::read(&crate::top::facts::tests::pod("w", &serde_json::json!({}))).unwrap();
        let workers = (0..7).map(|n| (Name::new("voice", &format!("w{n}")), worker.clone())).collect();
        let facts = Facts { workers, ..Facts::default() };
        let mut choice = Choice::default();
        let mut check = |key: Key, expected: usize| {
            let Next::Show(next) = choice.press(key, &facts) else { panic!("it ends") };
            choice = next;
            assert_eq!(choice.scroll, expected, "{key:?}");
        };
        check(Key::Left, 0);
        check(Key::Right, 5);
        check(Key::Right, 6);
        check(Key::Left, 1);
        check(Key::Left, 0);
    }
}
