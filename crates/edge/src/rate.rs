//! How often one source address, or one user, may ask for something: a token bucket for each, in a table that cannot grow
//! without bound. Offers and candidates have one each.
//!
//! The bucket is kept as the one instant at which it would be full again (the generic cell rate algorithm of ITU-T
//! I.371), so an address costs two words, and one whose bucket is full again need not be remembered at all.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Addresses remembered at a time: 4 MB. Beyond it, new addresses share one bucket until old ones are forgotten; so
/// somebody with very many addresses slows down newcomers and does not get in unlimited.
const MAX_SOURCES: usize = 1 << 16;

/// How often a full table may be searched for addresses to forget; the search is linear.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Candidates that a source address may send for each offer that it may make: as many as are kept of one id before its
/// offer. Browsers gather about ten, with several networks and TURN servers twenty.
pub const CANDIDATES_PER_OFFER: NonZeroU32 = NonZeroU32::new(32).expect("invariant: 32 is not zero");

/// Requests about sessions that a source address may make for each offer that it may make: outputs, inputs and triggers
/// together. A conversation has a turn every few seconds, and a page with arguments for each hands in two a turn; somebody
/// who tries ids has no more tries than this.
pub const REQUESTS_PER_OFFER: NonZeroU32 = NonZeroU32::new(64).expect("invariant: 64 is not zero");

/// Times that a source address may ask for its ICE configuration for each offer that it may make: a page asks once before each, one that
/// reconnects asks again, and each answer may hold credentials for a TURN server.
pub const CONFIGURATIONS_PER_OFFER: NonZeroU32 = NonZeroU32::new(4).expect("invariant: 4 is not zero");

/// The requests of one kind of all source addresses of one service.
pub type SourceRate = Rate<IpAddr>;

/// The requests of one kind, by whose they are. Pure: the caller says what time it is.
#[derive(Debug)]
pub struct Rate<K> {
    /// Between two requests at the sustained rate.
    interval: Duration,
    /// How far an address may run ahead of the sustained rate.
    tolerance: Duration,
    sources: HashMap<K, Instant>,
    crowd: Option<Instant>,
    swept: Option<Instant>,
}

/// Too many requests; the next one may be made after this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany(pub Duration);

impl SourceRate {
    /// Counts a request from `source`, or says how long it has to wait.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn take(&mut self, source: IpAddr, now: Instant) -> Result<(), TooMany> {
        self.take_for(&subscriber(source), now)
    }
}

impl<K: Clone + Eq + Hash> Rate<K> {
    /// `per_minute` requests a minute, all of which may come at once.
    #[must_use]
    pub fn new(per_minute: NonZeroU32) -> Self {
        let interval = Duration::from_secs(60) / per_minute.get();
        Self {
            interval,
            tolerance: interval * (per_minute.get() - 1),
            sources: HashMap::new(),
            crowd: None,
            swept: None,
        }
    }

    /// Counts a request of `source`, or says how long it has to wait.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn take_for(&mut self, source: &K, now: Instant) -> Result<(), TooMany> {
        if !self.sources.contains_key(source) && self.sources.len() >= MAX_SOURCES {
            self.sweep(now);
        }
        let room = self.sources.len() < MAX_SOURCES;
        let full_again = match self.sources.get_mut(source) {
            Some(full_again) => full_again,
            None if room => self.sources.entry(source.clone()).or_insert(now),
            None => self.crowd.get_or_insert(now),
        };
        let ahead = full_again.saturating_duration_since(now);
        if ahead > self.tolerance {
            return Err(TooMany(ahead - self.tolerance));
        }
        *full_again = now + ahead + self.interval;
        Ok(())
    }

    /// Forgets the addresses whose buckets are full: they are what an unknown address is.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP_INTERVAL) {
            return;
        }
        self.swept = Some(now);
        self.sources.retain(|_, full_again| *full_again > now);
    }
}

/// What one subscriber controls: an IPv4 address, or an IPv6 /64 (RFC 6177 gives nobody less).
#[must_use]
pub fn subscriber(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn rate(per_minute: u32) -> SourceRate {
        SourceRate::new(NonZeroU32::new(per_minute).unwrap())
    }

    #[test]
    fn a_burst_then_the_sustained_rate() {
        let (mut rate, start) = (rate(3), Instant::now());
        let mut check = |seconds: u64, source: &str, expected: Result<(), u64>| {
            let outcome = rate.take(ip(source), start + Duration::from_secs(seconds));
            assert_eq!(outcome, expected.map_err(|s| TooMany(Duration::from_secs(s))), "{source} at {seconds} s");
        };
        check(0, "192.0.2.1", Ok(()));
        check(0, "192.0.2.1", Ok(()));
        check(0, "192.0.2.1", Ok(()));
        check(0, "192.0.2.1", Err(20));
        check(0, "192.0.2.2", Ok(()));
        check(5, "192.0.2.1", Err(15));
        check(20, "192.0.2.1", Ok(()));
        check(20, "::ffff:192.0.2.1", Err(20));
        check(200, "192.0.2.1", Ok(()));
    }

    #[test]
    fn a_subscriber_of_ipv6_is_its_64() {
        let (mut rate, now) = (rate(1), Instant::now());
        assert!(rate.take(ip("2001:db8:0:1::1"), now).is_ok());
        assert!(rate.take(ip("2001:db8:0:1:ffff::2"), now).is_err());
        assert!(rate.take(ip("2001:db8:0:2::1"), now).is_ok());
    }

    #[test]
    fn the_table_is_bounded_and_forgets() {
        let (mut rate, start) = (rate(1), Instant::now());
        for n in 0..MAX_SOURCES as u32 {
            rate.take(IpAddr::from(n.to_be_bytes()), start).unwrap();
        }
        let stranger = |n: u8| IpAddr::from([240, 0, 0, n]);
        assert!(rate.take(stranger(1), start).is_ok(), "the crowd's one bucket");
        assert!(rate.take(stranger(2), start).is_err(), "which they share");
        assert_eq!(rate.sources.len(), MAX_SOURCES);
        let later = start + Duration::from_secs(61);
        assert!(rate.take(stranger(2), later).is_ok());
        assert_eq!(rate.sources.len(), 1);
    }

    proptest! {
        /// Over any series of requests, nobody gets more than the burst plus what the time since allows.
        #[test]
        fn never_above_the_rate(per_minute in 1..200_u32, steps in proptest::collection::vec(0..5_000_u64, 1..300)) {
            let (mut rate, start) = (rate(per_minute), Instant::now());
            let (mut elapsed, mut taken) = (Duration::ZERO, 0_u32);
            for step in steps {
                elapsed += Duration::from_millis(step);
                taken += u32::from(rate.take(ip("192.0.2.1"), start + elapsed).is_ok());
                let allowed = f64::from(per_minute) * (1.0 + elapsed.as_secs_f64() / 60.0);
                prop_assert!(f64::from(taken) <= allowed + 1e-6);
            }
        }
    }
}
