//! The places of sockets that have no session yet: few in all, and not all of them for one address.
//!
//! A socket costs memory before anything is known of its client, so there are [`MAX_NEWCOMERS`] places. One client that
//! opens sockets and says nothing must not hold all of them. But behind a proxy all clients have the proxy's address:
//! a fixed share would refuse them where nothing is scarce. So a share counts only once half of the places are taken:
//! until then an address may hold any number, and the other half is there for those that hold few.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::rate::subscriber;

/// Sockets of a process that have not become a session, or have been refused and are not closed yet. A page says `start`
/// within a moment, and has thirty seconds for it: this takes thirty new sessions a second of the slowest pages, and is
/// no more memory than 1 GiB if each of them sends the longest message there is.
pub const MAX_NEWCOMERS: usize = 1024;

/// The part of the places that one address may hold where places are scarce: with an eighth, four addresses that say
/// nothing are needed to take what one leaves, and an office of a hundred people behind one address still comes in.
const SHARE: usize = 8;

/// The places of one process.
#[derive(Debug, Clone)]
pub struct Lobby(Arc<Mutex<Table>>);

#[derive(Debug)]
struct Table {
    places: usize,
    per_source: usize,
    taken: usize,
    /// Those that hold a place: never more than there are places.
    sources: HashMap<IpAddr, usize>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// All are taken.
    Full,
    /// Places are scarce, and this address has its share.
    TooMany,
}

impl Lobby {
    /// `places` in all. An address may hold `per_source` of them where they are scarce; an eighth if not said.
    #[must_use]
    pub fn new(places: usize, per_source: Option<usize>) -> Self {
        let per_source = per_source.unwrap_or_else(|| places.div_ceil(SHARE));
        Self(Arc::new(Mutex::new(Table { places, per_source, taken: 0, sources: HashMap::new() })))
    }

    /// Takes a place for a socket from `source`. An IPv6 address counts for its /64.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub fn enter(&self, source: IpAddr) -> Result<Place, NoPlace> {
        let source = subscriber(source);
        let mut table = self.0.lock();
        if table.taken >= table.places {
            return Err(NoPlace::Full);
        }
        let is_scarce = table.taken * 2 >= table.places;
        let held = table.sources.get(&source).copied().unwrap_or(0);
        if is_scarce && held >= table.per_source {
            return Err(NoPlace::TooMany);
        }
        table.sources.insert(source, held + 1);
        table.taken += 1;
        Ok(Place { lobby: self.clone(), source })
    }
}

/// A place. Dropping it gives it back.
#[derive(Debug)]
#[must_use = "a place that is dropped at once is nobody's"]
pub struct Place {
    lobby: Lobby,
    source: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.lobby.0.lock();
        table.taken -= 1;
        let held = table.sources.get_mut(&self.source).expect("invariant: who holds a place is in the table");
        *held -= 1;
        // Nobody leaves a trace, or the table would grow by every address ever seen.
        if *held == 0 {
            table.sources.remove(&self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Takes up to `count` places; gives those that were to be had, and why there was no more.
    fn take(lobby: &Lobby, source: &str, count: usize) -> (Vec<Place>, Option<NoPlace>) {
        let mut held = Vec::new();
        for _ in 0..count {
            match lobby.enter(ip(source)) {
                Ok(place) => held.push(place),
                Err(why) => return (held, Some(why)),
            }
        }
        (held, None)
    }

    #[test]
    fn one_address_leaves_half_of_the_places_to_others() {
        let lobby = Lobby::new(MAX_NEWCOMERS, None);
        let (greedy, why) = take(&lobby, "192.0.2.1", MAX_NEWCOMERS);
        assert_eq!((greedy.len(), why), (512, Some(NoPlace::TooMany)));
        let mut others = Vec::new();
        for n in 1..=4 {
            let (held, why) = take(&lobby, &format!("198.51.100.{n}"), 200);
            let expected = if n < 4 { NoPlace::TooMany } else { NoPlace::Full };
            assert_eq!((held.len(), why), (128, Some(expected)), "address {n}");
            others.extend(held);
        }
        assert_eq!(lobby.enter(ip("203.0.113.1")).err(), Some(NoPlace::Full));
        // When places are no longer scarce, its share does not count.
        others.truncate(100);
        drop(greedy);
        assert_eq!(take(&lobby, "192.0.2.1", 400).1, None);
        drop(others);
        let table = lobby.0.lock();
        assert_eq!((table.taken, table.sources.len()), (0, 0), "and nobody leaves a trace");
    }

    #[test]
    fn a_subscriber_of_ipv6_is_its_64() {
        let lobby = Lobby::new(8, None);
        let (_held, why) = take(&lobby, "2001:db8:0:1::1", 9);
        assert_eq!(why, Some(NoPlace::TooMany));
        assert_eq!(lobby.enter(ip("2001:db8:0:1:ffff::2")).err(), Some(NoPlace::TooMany));
        assert!(lobby.enter(ip("2001:db8:0:2::1")).is_ok());
    }

    #[test]
    fn an_operator_may_give_one_address_all_places() {
        for (per_source, expected) in [(None, 4), (Some(0), 4), (Some(6), 6), (Some(8), 8), (Some(99), 8)] {
            let (held, _) = take(&Lobby::new(8, per_source), "192.0.2.1", 99);
            assert_eq!(held.len(), expected, "{per_source:?}");
        }
    }

    proptest! {
        /// Whoever comes and goes: there are never more than there are places, nobody has more than half of them and his
        /// share, and an address that holds less than its share comes in while there is a place.
        #[test]
        fn places_are_counted(
            places in 1..40_usize,
            steps in proptest::collection::vec((0..6_u8, 0..3_u8), 0..300),
        ) {
            let lobby = Lobby::new(places, None);
            let share = places.div_ceil(SHARE);
            let mut held: Vec<(u8, Place)> = Vec::new();
            for (who, act) in steps {
                if act == 0 && !held.is_empty() {
                    drop(held.swap_remove(usize::from(who) % held.len()));
                    continue;
                }
                let mine = held.iter().filter(|(of, _)| *of == who).count();
                let entered = lobby.enter(IpAddr::from([192, 0, 2, who]));
                prop_assert!(entered.is_ok() || held.len() == places || mine >= share);
                held.extend(entered.ok().map(|place| (who, place)));
                let mine = held.iter().filter(|(of, _)| *of == who).count();
                prop_assert!(held.len() <= places && mine <= places.div_ceil(2).max(share));
            }
            drop(held);
            let table = lobby.0.lock();
            prop_assert!(table.taken == 0 && table.sources.is_empty());
        }
    }
}
