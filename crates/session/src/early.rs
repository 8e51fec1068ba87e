//! Candidates that overtake their offer: kept for a moment, within bounds.
//!
//! A client may post its candidates before its offer is answered, and requests overtake each other. Nobody has proved
//! anything at that point, so everything here is bounded: per id, per source, in number and in time.
//!
//! What names a session is the caller's choice: its id, or its id within a service.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::candidate::{ParsedCandidate, RemoteCandidate};
use crate::id::SessionId;

/// The bounds of [`EarlyCandidates`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlyLimits {
    /// Messages kept for one id.
    pub per_id: usize,
    /// How long, counted from an id's first message. Later ones do not extend it: nobody holds an entry for ever.
    pub keep: Duration,
    /// Ids with early candidates at a time.
    pub ids: usize,
    /// Of these, ids that one source began. An IPv6 source is its /64, which one client owns whole.
    pub ids_per_source: usize,
}

impl Default for EarlyLimits {
    /// 32 for an id (a client with several networks gathers about ten), 5 s (an offer that takes longer has failed),
    /// 4096 ids (it takes 256 sources to begin so many; full of the longest candidates they are just under 100 MB),
    /// 16 ids for a source (a household behind one address).
    fn default() -> Self {
        Self { per_id: 32, keep: Duration::from_secs(5), ids: 4096, ids_per_source: 16 }
    }
}

/// Whether a candidate was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insertion {
    /// Kept: the client is told `success`.
    Buffered,
    /// Beyond a bound: the client is told `unknown_connection`.
    Refused,
}

/// The candidates of ids whose offer has not arrived; `K` is what an id is here.
#[derive(Debug)]
pub struct EarlyCandidates<K = SessionId> {
    limits: EarlyLimits,
    entries: HashMap<K, Entry>,
    /// Entries by age. The number tells entries of the same instant apart.
    deadlines: BTreeMap<(Instant, u64), K>,
    per_source: HashMap<IpAddr, usize>,
    next_number: u64,
}

#[derive(Debug)]
struct Entry {
    deadline: (Instant, u64),
    source: IpAddr,
    messages: usize,
    candidates: Vec<RemoteCandidate>,
}

impl<K: Clone + Eq + Hash> Default for EarlyCandidates<K> {
    fn default() -> Self {
        Self::new(EarlyLimits::default())
    }
}

impl<K: Clone + Eq + Hash> EarlyCandidates<K> {
    /// An empty buffer.
    pub fn new(limits: EarlyLimits) -> Self {
        Self { limits, entries: HashMap::new(), deadlines: BTreeMap::new(), per_source: HashMap::new(), next_number: 0 }
    }

    /// Keeps a candidate for an id without an offer. The end of candidates and ignored ones count as messages, so that
    /// the reply does not depend on what a candidate was, and take no room.
    pub fn insert(&mut self, id: &K, source: IpAddr, candidate: ParsedCandidate, now: Instant) -> Insertion {
        self.expire(now);
        if !self.entries.contains_key(id) && !self.begin(id, source, now) {
            return Insertion::Refused;
        }
        let Some(entry) = self.entries.get_mut(id).filter(|entry| entry.messages < self.limits.per_id) else {
            return Insertion::Refused;
        };
        entry.messages += 1;
        if let ParsedCandidate::Candidate(candidate) = candidate {
            entry.candidates.push(candidate);
        }
        Insertion::Buffered
    }

    /// Makes an entry for an id, if the bounds allow one more.
    fn begin(&mut self, id: &K, source: IpAddr, now: Instant) -> bool {
        let source = source_key(source);
        let of_source = self.per_source.get(&source).copied().unwrap_or(0);
        let Some(due) = now.checked_add(self.limits.keep) else { return false };
        if self.entries.len() >= self.limits.ids || of_source >= self.limits.ids_per_source {
            return false;
        }
        let deadline = (due, self.next_number);
        self.next_number += 1;
        self.per_source.insert(source, of_source + 1);
        self.deadlines.insert(deadline, id.clone());
        self.entries.insert(id.clone(), Entry { deadline, source, messages: 0, candidates: Vec::new() });
        true
    }

    /// Takes what came early for an offer, in the order of arrival.
    pub fn offer_arrived(&mut self, id: &K, now: Instant) -> Vec<RemoteCandidate> {
        self.expire(now);
        self.remove(id).map_or_else(Vec::new, |entry| entry.candidates)
    }

    /// Forgets what is due.
    pub fn expire(&mut self, now: Instant) {
        while let Some((&(due, _), id)) = self.deadlines.first_key_value() {
            if now < due {
                break;
            }
            let id = id.clone();
            self.remove(&id);
        }
    }

    /// When [`EarlyCandidates::expire`] next has something to forget.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first_key_value().map(|((due, _), _)| *due)
    }

    /// Whether an id has early candidates.
    pub fn has(&self, id: &K) -> bool {
        self.entries.contains_key(id)
    }

    /// How many messages came for an id.
    pub fn messages(&self, id: &K) -> usize {
        self.entries.get(id).map_or(0, |entry| entry.messages)
    }

    /// How many ids have early candidates.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no id has.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn remove(&mut self, id: &K) -> Option<Entry> {
        let entry = self.entries.remove(id)?;
        self.deadlines.remove(&entry.deadline);
        if let Some(ids) = self.per_source.get_mut(&entry.source) {
            *ids -= 1;
            if *ids == 0 {
                self.per_source.remove(&entry.source);
            }
        }
        Some(entry)
    }
}

/// What counts as one source.
fn source_key(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
#[path = "early_tests.rs"]
mod tests;
