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
    quick: BTreeSet<(Instant, Key)>,
    slow: BTreeSet<(Instant, Key)>,
    entries: HashMap<Key, Entry>,
}

/// What is to be expected of a look at a service. Those that wait for somebody who does not answer must not keep the others waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Answers come soon.
    #[default]
    Quick,
    /// Something was lately not answered in time.
    Slow,
}

#[derive(Debug, Clone, Copy)]
enum Entry {
    /// It waits until then; not before `earliest`.
    Waiting { at: Instant, earliest: Instant, lane: Lane },
    /// It is being looked at since then; what happened meanwhile is seen by the next look.
    Running { since: Instant, woken: bool },
}

impl Due {
    /// Something happened to a service, or it is new.
    pub fn wake(&mut self, key: &Key, now: Instant) {
        match self.entries.get_mut(key) {
            Some(Entry::Running { woken, .. }) => *woken = true,
            Some(Entry::Waiting { at: before, earliest, lane }) => {
                let at = now.max(*earliest);
                if at < *before {
                    let (before, lane) = (std::mem::replace(before, at), *lane);
                    let waiting = self.waiting(lane);
                    waiting.remove(&(before, key.clone()));
                    waiting.insert((at, key.clone()));
                }
            }
            None => {
                let lane = Lane::default();
                self.entries.insert(key.clone(), Entry::Waiting { at: now, earliest: now, lane });
                self.waiting(lane).insert((now, key.clone()));
            }
        }
    }

    fn waiting(&mut self, lane: Lane) -> &mut BTreeSet<(Instant, Key)> {
        match lane {
            Lane::Quick => &mut self.quick,
            Lane::Slow => &mut self.slow,
        }
    }

    /// Who has waited longest in the lanes up to this one.
    fn first(&self, up_to: Lane) -> Option<(Instant, Lane)> {
        let slow = self.slow.first().filter(|_| up_to == Lane::Slow).map(|(at, _)| (*at, Lane::Slow));
        let quick = self.quick.first().map(|(at, _)| (*at, Lane::Quick));
        [quick, slow].into_iter().flatten().min()
    }

    /// The service that has waited longest of those that are due, in the lanes up to this one. It is being looked at until
    /// [`done`](Self::done).
    pub fn take(&mut self, now: Instant, up_to: Lane) -> Option<(Key, Lane)> {
        let (_, lane) = self.first(up_to).filter(|(at, _)| *at <= now)?;
        let (_, key) = self.waiting(lane).pop_first()?;
        self.entries.insert(key.clone(), Entry::Running { since: now, woken: false });
        Some((key, lane))
    }

    /// A service was looked at; `next` is when to look again if nothing happens, `None` if it is gone. It waits in this lane.
    pub fn done(&mut self, key: &Key, next: Option<Instant>, lane: Lane) {
        let Some(Entry::Running { since, woken }) = self.entries.remove(key) else { return };
        let earliest = since + SPACING;
        let at = match (woken, next) {
            (true, _) => earliest,
            (false, Some(next)) => next.max(earliest),
            (false, None) => return,
        };
        self.entries.insert(key.clone(), Entry::Waiting { at, earliest, lane });
        self.waiting(lane).insert((at, key.clone()));
    }

    /// When the next one is due in the lanes up to this one.
    #[must_use]
    pub fn next(&self, up_to: Lane) -> Option<Instant> {
        self.first(up_to).map(|(at, _)| at)
    }

    /// How many are due and have not been taken.
    #[must_use]
    pub fn late(&self, now: Instant) -> usize {
        let late = |waiting: &BTreeSet<(Instant, Key)>| waiting.iter().take_while(|(at, _)| *at <= now).count();
        late(&self.quick) + late(&self.slow)
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
        assert_eq!(due.take(ms(1), Lane::Slow), Some((key("a"), Lane::Quick)));
        due.wake(&key("a"), ms(2));
        assert_eq!(due.take(ms(2), Lane::Slow), Some((key("b"), Lane::Quick)), "a is being looked at");
        assert_eq!(due.take(ms(2), Lane::Slow), None);
        due.done(&key("a"), Some(ms(5_000)), Lane::Quick);
        due.done(&key("b"), Some(ms(5_000)), Lane::Quick);
        assert_eq!(due.next(Lane::Slow), Some(ms(201)), "a was woken while it was looked at");
        assert_eq!(due.take(ms(201), Lane::Slow), Some((key("a"), Lane::Quick)));
        due.done(&key("a"), Some(ms(9_000)), Lane::Quick);
        assert_eq!(due.take(ms(5_000), Lane::Slow), Some((key("b"), Lane::Quick)));
        due.done(&key("b"), None, Lane::Quick);
        assert_eq!(due.next(Lane::Slow), Some(ms(9_000)), "b is gone");
        due.wake(&key("a"), ms(210));
        assert_eq!(due.next(Lane::Slow), Some(ms(401)), "looks are spaced");
        due.wake(&key("a"), ms(8_000));
        assert_eq!(due.next(Lane::Slow), Some(ms(401)), "the earliest counts");
    }

    /// Thirty services whose webhooks hung held all slots, and the others' calls waited.
    #[test]
    fn who_is_slow_waits_apart() {
        let now = Instant::now();
        let ms = |n| now + Duration::from_millis(n);
        let mut due = Due::default();
        due.wake(&key("slow"), now);
        assert_eq!(due.take(now, Lane::Quick), Some((key("slow"), Lane::Quick)), "nobody has seen it");
        due.done(&key("slow"), Some(ms(300)), Lane::Slow);
        due.wake(&key("quick"), ms(400));
        assert_eq!((due.next(Lane::Quick), due.next(Lane::Slow)), (Some(ms(400)), Some(ms(300))));
        assert_eq!(due.late(ms(400)), 2);
        assert_eq!(due.take(ms(400), Lane::Quick), Some((key("quick"), Lane::Quick)));
        assert_eq!(due.take(ms(400), Lane::Quick), None);
        due.wake(&key("slow"), ms(250));
        assert_eq!(due.next(Lane::Slow), Some(ms(250)));
        assert_eq!(due.take(ms(400), Lane::Slow), Some((key("slow"), Lane::Slow)));
        due.done(&key("slow"), Some(ms(700)), Lane::Quick);
        assert_eq!(due.next(Lane::Quick), Some(ms(700)), "it has been answered");
    }

    #[test]
    fn one_that_was_woken_while_it_went_is_looked_at_again() {
        let now = Instant::now();
        let mut due = Due::default();
        due.wake(&key("a"), now);
        due.take(now, Lane::Slow).unwrap();
        due.wake(&key("a"), now);
        due.done(&key("a"), None, Lane::Quick);
        assert_eq!(due.next(Lane::Slow), Some(now + SPACING));
    }
}
