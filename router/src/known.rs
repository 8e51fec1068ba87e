//! Where sessions are that this router has placed or asked about lately, and candidates that came before their offer.
//!
//! A memory, not the truth: a session may have moved since. Candidates, which come within seconds of their offer, go by it
//! without asking the store; whatever else is asked of a session asks the store first and this only while the store is away
//! or knows no more.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use streamfleet_session::early::Insertion;
use streamfleet_session::{EarlyCandidates, ParsedCandidate, RemoteCandidate, ServiceName, SessionId};
use streamfleet_store::Reach;

/// Sessions remembered: what a hundred workers carry, in about 40 MB.
pub const MAX_KNOWN: usize = 1 << 17;
/// How long a candidate goes by what is remembered. A client gathers for seconds; ICE gives up before this.
pub const FRESH: Duration = Duration::from_secs(30);
/// How long a session is remembered at all: a retained context's time, within which its client may ask for its last outputs.
pub const KEEP: Duration = Duration::from_secs(600);

/// A session as requests name it.
pub type Key = (ServiceName, SessionId);

/// What this router remembers.
#[derive(Debug, Default)]
pub struct Known {
    entries: HashMap<Key, Entry>,
    /// Entries by age; one that was written again since has another number.
    order: VecDeque<(u64, Instant, Key)>,
    next: u64,
    /// Offers on their way to a worker: nobody needs to look for their sessions.
    placing: HashMap<Key, u32>,
    early: EarlyCandidates<Key>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    since: Instant,
    at: Reach,
}

/// What becomes of a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// It goes to this worker.
    To(Reach),
    /// It waits for its offer, which somebody waits for already.
    Waits,
    /// It waits, and somebody has to look for its session: at most one does for each id.
    WaitsUnsought,
    /// It is one too many.
    Refused,
}

impl Known {
    /// What becomes of a candidate.
    pub fn candidate(&mut self, key: &Key, source: IpAddr, candidate: ParsedCandidate, now: Instant) -> Route {
        let placing = self.placing.contains_key(key);
        if !placing && let Some(at) = self.recent(key, now) {
            return Route::To(at);
        }
        self.early.expire(now);
        let before = self.early.len();
        match self.early.insert(key, source, candidate, now) {
            Insertion::Refused => Route::Refused,
            Insertion::Buffered if placing || self.early.len() == before => Route::Waits,
            Insertion::Buffered => Route::WaitsUnsought,
        }
    }

    /// An offer is on its way.
    pub fn placing(&mut self, key: &Key) {
        *self.placing.entry(key.clone()).or_default() += 1;
    }

    /// It is no longer. What waited for it goes on waiting, for an offer that comes again.
    pub fn not_placing(&mut self, key: &Key) {
        if let Some(offers) = self.placing.get_mut(key) {
            *offers -= 1;
            if *offers == 0 {
                self.placing.remove(key);
            }
        }
    }

    /// Whether an offer is on its way.
    #[must_use]
    pub fn is_placing(&self, key: &Key) -> bool {
        self.placing.contains_key(key)
    }

    /// A session is there. Returns the candidates that waited for it, in order.
    pub fn found(&mut self, key: &Key, at: Reach, now: Instant) -> Vec<RemoteCandidate> {
        self.remember(key, at, now);
        self.early.offer_arrived(key, now)
    }

    /// A session was seen there.
    pub fn remember(&mut self, key: &Key, at: Reach, now: Instant) {
        let number = self.next;
        self.next += 1;
        self.entries.insert(key.clone(), Entry { number, since: now, at });
        self.order.push_back((number, now, key.clone()));
        self.expire(now);
    }

    /// Where a session was when it was last seen.
    pub fn last(&mut self, key: &Key, now: Instant) -> Option<Reach> {
        self.expire(now);
        self.entries.get(key).map(|entry| entry.at.clone())
    }

    /// It is no longer there.
    pub fn forget(&mut self, key: &Key, at: &Reach) {
        if self.entries.get(key).is_some_and(|entry| entry.at == *at) {
            self.entries.remove(key);
        }
    }

    /// Whether candidates wait for an offer that has not come.
    pub fn awaits(&mut self, key: &Key, now: Instant) -> bool {
        self.early.expire(now);
        self.early.has(key)
    }

    /// How many candidates have come for an offer that has not.
    #[must_use]
    pub fn waiting(&self, key: &Key) -> usize {
        self.early.messages(key)
    }

    /// How many offers candidates wait for.
    #[must_use]
    pub fn awaited(&self) -> usize {
        self.early.len()
    }

    /// How many sessions are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn recent(&self, key: &Key, now: Instant) -> Option<Reach> {
        let entry = self.entries.get(key)?;
        (now.saturating_duration_since(entry.since) < FRESH).then(|| entry.at.clone())
    }

    fn expire(&mut self, now: Instant) {
        while let Some((number, since, key)) = self.order.front() {
            // A session that is written again and again has many places in the order; they are bounded too.
            let is_due = self.order.len() > MAX_KNOWN || now.saturating_duration_since(*since) >= KEEP;
            let is_current = self.entries.get(key).is_some_and(|entry| entry.number == *number);
            if is_current && !is_due {
                break;
            }
            if is_current {
                self.entries.remove(key);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(id: &str) -> Key {
        ("a".parse().unwrap(), id.parse().unwrap())
    }

    fn at(worker: &str) -> Reach {
        Reach { worker: worker.parse().unwrap(), http: format!("{worker}:8081") }
    }

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn candidate(port: u16) -> ParsedCandidate {
        let line = format!("candidate:1 1 udp 2122260223 192.0.2.1 {port} typ host");
        let value = serde_json::json!({ "candidate": line, "sdpMid": "0" });
        RemoteCandidate::parse(&value).unwrap()
    }

    #[test]
    fn candidates_wait_for_their_offer_and_are_sought_once() {
        let (mut known, now) = (Known::default(), Instant::now());
        let id = key("x");
        assert_eq!(known.candidate(&id, SOURCE, candidate(1), now), Route::WaitsUnsought);
        assert_eq!(known.candidate(&id, SOURCE, candidate(2), now), Route::Waits);
        assert!(known.awaits(&id, now));
        let waited = known.found(&id, at("w"), now);
        assert_eq!(waited.len(), 2);
        assert!(waited[0].line.contains(" 1 typ"), "in order");
        assert_eq!(known.candidate(&id, SOURCE, candidate(3), now), Route::To(at("w")));
        assert_eq!(known.candidate(&id, SOURCE, candidate(4), now + FRESH), Route::WaitsUnsought, "it may have moved");
        assert_eq!(known.last(&id, now + FRESH), Some(at("w")));
        assert!(!known.awaits(&id, now + FRESH + Duration::from_secs(5)));
    }

    /// While an offer takes the session elsewhere, candidates for the new place must not go to the old one.
    #[test]
    fn candidates_of_an_offer_on_its_way_wait_for_it() {
        let (mut known, now) = (Known::default(), Instant::now());
        let id = key("x");
        known.remember(&id, at("old"), now);
        known.placing(&id);
        known.placing(&id);
        assert_eq!(known.candidate(&id, SOURCE, candidate(1), now), Route::Waits);
        known.not_placing(&id);
        assert_eq!(known.candidate(&id, SOURCE, candidate(2), now), Route::Waits);
        known.not_placing(&id);
        assert_eq!(known.found(&id, at("new"), now).len(), 2);
        assert_eq!(known.candidate(&id, SOURCE, candidate(3), now), Route::To(at("new")));
    }

    #[test]
    fn what_is_not_there_is_forgotten_unless_it_has_moved() {
        let (mut known, now) = (Known::default(), Instant::now());
        known.remember(&key("x"), at("new"), now);
        known.forget(&key("x"), &at("old"));
        assert_eq!(known.last(&key("x"), now), Some(at("new")));
        known.forget(&key("x"), &at("new"));
        assert_eq!(known.last(&key("x"), now), None);
    }

    #[test]
    fn the_oldest_make_room() {
        let (mut known, now) = (Known::default(), Instant::now());
        for n in 0..=MAX_KNOWN {
            known.remember(&key(&n.to_string()), at("w"), now);
        }
        assert_eq!(known.len(), MAX_KNOWN);
        assert_eq!((known.last(&key("0"), now), known.last(&key("1"), now)), (None, Some(at("w"))));
        assert_eq!(known.last(&key("1"), now + KEEP), None);
        assert!(known.is_empty() && known.order.is_empty());
    }

    proptest! {
        /// What was written last is what is read, until it is forgotten or too old, and nothing else is left behind.
        #[test]
        fn it_is_a_map_that_forgets(steps in prop::collection::vec((0..4_u8, 0..3_u8, 0..400_u64), 0..60)) {
            let (mut known, mut now) = (Known::default(), Instant::now());
            let mut model: HashMap<u8, (u8, Instant)> = HashMap::new();
            for (id, worker, seconds) in steps {
                now += Duration::from_secs(seconds);
                model.retain(|_, (_, since)| now.saturating_duration_since(*since) < KEEP);
                match worker {
                    0 => {
                        if let Some((w, _)) = model.remove(&id) {
                            known.forget(&key(&id.to_string()), &at(&format!("w{w}")));
                        }
                    }
                    w => {
                        known.remember(&key(&id.to_string()), at(&format!("w{w}")), now);
                        model.insert(id, (w, now));
                    }
                }
                for id in 0..4 {
                    let expected = model.get(&id).map(|(w, _)| at(&format!("w{w}")));
                    prop_assert_eq!(known.last(&key(&id.to_string()), now), expected);
                }
                prop_assert_eq!(known.len(), model.len());
            }
        }
    }
}
