//! Who sends checks that name no session of ours: a bounded memory of sources that need not be heard again for a while.

use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::time::Duration;

use foldhash::fast::RandomState;

/// Sources that are told apart. Those that share a place share its count: an innocent one is then not heard for a second.
const PLACES: usize = 4096;
/// Of one source in a second. A client whose session is over sends its checks for a while.
const KNOCKS: u16 = 50;

/// Counts by source, in as much memory as it has from the beginning.
pub(crate) struct Strangers {
    places: Box<[Count]>,
    hasher: RandomState,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    second: u32,
    knocks: u16,
}

impl Strangers {
    pub(crate) fn new() -> Self {
        Self { places: vec![Count::default(); PLACES].into(), hasher: RandomState::default() }
    }

    /// Whether it has knocked too often in this second.
    pub(crate) fn is_shut(&self, source: IpAddr, now: Duration) -> bool {
        let count = self.places[self.place(source)];
        count.second == second(now) && count.knocks >= KNOCKS
    }

    pub(crate) fn knocked(&mut self, source: IpAddr, now: Duration) {
        let place = self.place(source);
        let count = &mut self.places[place];
        if count.second != second(now) {
            *count = Count { second: second(now), knocks: 0 };
        }
        count.knocks = count.knocks.saturating_add(1);
    }

    fn place(&self, source: IpAddr) -> usize {
        // A household has a /64 of IPv6 addresses.
        let hash = match source {
            IpAddr::V4(address) => self.hasher.hash_one(address.octets()),
            IpAddr::V6(address) => self.hasher.hash_one(&address.octets()[..8]),
        };
        hash as usize % PLACES
    }
}

fn second(now: Duration) -> u32 {
    // 0 is the second of nobody.
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX - 1) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_knocks_too_often_is_shut_out_for_the_second() {
        let mut strangers = Strangers::new();
        let (source, other) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let at = Duration::from_millis;
        for _ in 0..KNOCKS {
            assert!(!strangers.is_shut(source, at(1_000)));
            strangers.knocked(source, at(1_000));
        }
        assert!(strangers.is_shut(source, at(1_999)) && !strangers.is_shut(source, at(2_000)));
        for n in 0..KNOCKS {
            strangers.knocked(format!("2001:db8::{n:x}").parse().unwrap(), at(0));
        }
        assert!(strangers.is_shut(other, at(0)), "they are one household's");
    }
}
