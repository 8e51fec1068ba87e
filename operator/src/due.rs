//! Who is looked at next: services by the time at which they are due, each at most once at a time.
//!
//! Whatever happens to a service makes it due at once; a service that nothing happens to is due when its last look said so.
//! Bounded by the number of services: each has one entry, however often it is woken.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::names::Key;

/// Looks at one service are at least this far apart, so that a hundred pods that become ready together are one look.
const SPACING: Duration = Duration::from_millis(200);

/// The services that wait, and those that are being looked at.
#[derive(Debug, Default)]
pub struct Due {
    waiting: BTreeSet<(Instant, Key)>,
    entries: HashMap<Key, Entry>,
}

#[derive(Debug, Clone, Copy)]
enum Entry {
    /// It waits until then; not before `earliest`.
    Waiting { at: Instant, earliest: Instant },
    /// It is being looked at since then; what happened meanwhile is seen by the next look.
    Running { since: Instant, woken: bool },
}

impl Due {
    /// Something happened to a service, or it is new.
    pub fn wake(&mut self, key: &Key, now: Instant) {
        self.wake_at(key, now);
    }

    /// It is to be looked at no later than `at`.
    pub fn wake_at(&mut self, key: &Key, at: Instant) {
        match self.entries.get_mut(key) {
            Some(Entry::Running { woken, .. }) => *woken = true,
            Some(Entry::Waiting { at: before, earliest }) => {
                let at = at.max(*earliest);
                if at < *before {
                    self.waiting.remove(&(*before, key.clone()));
                    *before = at;
                    self.waiting.insert((at, key.clone()));
                }
            }
            None => {
                self.entries.insert(key.clone(), Entry::Waiting { at, earliest: at });
                self.waiting.insert((at, key.clone()));
            }
        }
    }

    /// The service that has waited longest of those that are due. It is being looked at until [`done`](Self::done).
    pub fn take(&mut self, now: Instant) -> Option<Key> {
        let (at, _) = self.waiting.first()?;
        if *at > now {
            return None;
        }
        let (_, key) = self.waiting.pop_first()?;
        self.entries.insert(key.clone(), Entry::Running { since: now, woken: false });
        Some(key)
    }

    /// A service was looked at; `next` is when to look again if nothing happens, `None` if it is gone.
    pub fn done(&mut self, key: &Key, next: Option<Instant>) {
        let Some(Entry::Running { since, woken }) = self.entries.remove(key) else { return };
        let earliest = since + SPACING;
        let at = match (woken, next) {
            (true, _) => earliest,
            (false, Some(next)) => next.max(earliest),
            (false, None) => return,
        };
        self.entries.insert(key.clone(), Entry::Waiting { at, earliest });
        self.waiting.insert((at, key.clone()));
    }

    /// When the next one is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.waiting.first().map(|(at, _)| *at)
    }

    /// How many are due and have not been taken.
    #[must_use]
    pub fn late(&self, now: Instant) -> usize {
        self.waiting.iter().take_while(|(at, _)| *at <= now).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("voice", name)
    }

    #[test]
    fn each_is_taken_once_and_what_happened_meanwhile_is_not_lost() {
        let now = Instant::now();
        let ms = |n| now + Duration::from_millis(n);
        let mut due = Due::default();
        due.wake(&key("a"), now);
        due.wake(&key("a"), now);
        due.wake(&key("b"), ms(1));
        assert_eq!(due.late(ms(1)), 2);
        assert_eq!(due.take(ms(1)), Some(key("a")));
        due.wake(&key("a"), ms(2));
        assert_eq!(due.take(ms(2)), Some(key("b")), "a is being looked at");
        assert_eq!(due.take(ms(2)), None);
        due.done(&key("a"), Some(ms(5_000)));
        due.done(&key("b"), Some(ms(5_000)));
        assert_eq!(due.next(), Some(ms(201)), "a was woken while it was looked at");
        assert_eq!(due.take(ms(201)), Some(key("a")));
        due.done(&key("a"), Some(ms(9_000)));
        assert_eq!(due.take(ms(5_000)), Some(key("b")));
        due.done(&key("b"), None);
        assert_eq!(due.next(), Some(ms(9_000)), "b is gone");
        due.wake(&key("a"), ms(210));
        assert_eq!(due.next(), Some(ms(401)), "looks are spaced");
        due.wake_at(&key("a"), ms(8_000));
        assert_eq!(due.next(), Some(ms(401)), "the earliest counts");
    }

    #[test]
    fn one_that_was_woken_while_it_went_is_looked_at_again() {
        let now = Instant::now();
        let mut due = Due::default();
        due.wake(&key("a"), now);
        due.take(now).unwrap();
        due.wake(&key("a"), now);
        due.done(&key("a"), None);
        assert_eq!(due.next(), Some(now + SPACING));
    }
}
