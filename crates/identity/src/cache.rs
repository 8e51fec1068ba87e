//! When keys that live at a URL are to be fetched.

use std::time::{Duration, Instant};

use crate::keys::Keys;

/// Keys are fetched again after this: how long a key that its issuer has withdrawn may still open doors.
pub const MAX_AGE: Duration = Duration::from_secs(600);
/// The earliest that keys are fetched again, after a failure or for a key id that nobody knows: an issuer is asked twelve times a
/// minute, however many ids callers make up, and whoever has a token under a new key waits no longer than for this.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What a token that is about to be verified needs first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: the keys that are there will do.
    Nothing,
    /// The keys are to be fetched in the background; those that are there will do meanwhile.
    Refresh,
    /// The keys have to be fetched first: there are none, or not the one that the token names.
    Fetch,
}

/// The keys of an issuer, and how old they are.
#[derive(Debug, Default)]
pub struct KeyCache {
    keys: Option<Keys>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

impl KeyCache {
    /// The keys that were fetched last. They are used while nothing newer can be had: an issuer that is down must not lock its
    /// users out.
    #[must_use]
    pub fn keys(&self) -> Option<&Keys> {
        self.keys.as_ref()
    }

    /// What is to be done before a token with this key id is verified. Whoever is told to fetch has the only turn until it says
    /// [`fetched`](Self::fetched), or [`RETRY_AFTER`] has passed.
    pub fn need(&mut self, now: Instant, id: Option<&str>) -> Need {
        let may_try = self.tried.is_none_or(|tried| tried + RETRY_AFTER <= now);
        let need = match &self.keys {
            None => Need::Fetch,
            Some(keys) if !keys.knows(id) => Need::Fetch,
            Some(_) if self.fetched.is_none_or(|fetched| fetched + MAX_AGE <= now) => Need::Refresh,
            Some(_) => Need::Nothing,
        };
        if need == Need::Nothing || !may_try {
            return Need::Nothing;
        }
        self.tried = Some(now);
        need
    }

    /// The issuer has answered.
    pub fn fetched(&mut self, now: Instant, keys: Keys) {
        self.keys = Some(keys);
        self.fetched = Some(now);
    }

    /// How old the keys are; `None` if there are none.
    #[must_use]
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.fetched.map(|fetched| now.saturating_duration_since(fetched))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 32] = [7; 32];

    #[test]
    fn an_issuer_is_asked_as_rarely_as_it_can_be() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut cache = KeyCache::default();
        assert_eq!(cache.need(at(0), None), Need::Fetch);
        // Somebody is at it; it fails.
        assert_eq!(cache.need(at(1), Some("a")), Need::Nothing);
        assert_eq!(cache.need(at(4), Some("a")), Need::Nothing);
        assert_eq!(cache.need(at(5), Some("a")), Need::Fetch);
        cache.fetched(at(31), Keys::from_secret(&SECRET).unwrap());
        assert_eq!(cache.need(at(32), Some("a")), Need::Nothing);
        assert_eq!(cache.need(at(630), Some("a")), Need::Nothing);
        // Old keys open doors while new ones are fetched.
        assert_eq!(cache.need(at(631), Some("a")), Need::Refresh);
        assert_eq!(cache.need(at(632), Some("a")), Need::Nothing);
        assert!(cache.keys().is_some());
        assert_eq!(cache.need(at(636), Some("a")), Need::Refresh);
        assert_eq!(cache.age(at(636)), Some(Duration::from_secs(605)));
    }
}
