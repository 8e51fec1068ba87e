//! How much there is to do.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Fleet, Table, Ticket, Topic};
use crate::traffic::{HELD_LEASE, MAX_HOLDERS, RECENT, Traffic, Waits};
use crate::words::RouterId;

/// What has come and gone.
#[derive(Debug, Default)]
pub(super) struct Counts {
    since: Option<Instant>,
    arrived: u64,
    pub(super) departed: u64,
    refused: u64,
    /// By router: calls that wait there, and until when that counts.
    held: HashMap<RouterId, (u32, Instant)>,
}

impl Counts {
    /// Counts from now on, if not already.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// One that has begun so long ago is written again: it may be news.
    pub(super) fn restored(&mut self, age: Duration, now: Instant) {
        let counted = self.since.map(|since| now.saturating_duration_since(since));
        if age <= RECENT && counted.is_some_and(|counted| age <= counted) {
            self.arrived += 1;
        }
    }
}

/// Whether the client of an id is there: counted once for all the sessions that it has it with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Client {
    /// No worker has confirmed a session of its.
    #[default]
    Awaited,
    /// It is counted.
    There,
}

impl Fleet {
    /// A session that has its id is confirmed; `before` is its client as the session had it that it takes over.
    pub(super) fn comes(&mut self, ticket: Ticket, before: Client) {
        let Some(session) = self.sessions.get_mut(&ticket) else { return };
        if session.client.max(before) == Client::Awaited {
            self.counts.arrived += 1;
        }
        session.client = Client::There;
    }

    pub(in crate::memory) fn traffic(&mut self, contexts: &mut Table, now: Instant) -> Traffic {
        self.sweep(contexts, now);
        let Counts { arrived, departed, refused, .. } = &self.counts;
        Traffic { arrived: *arrived, departed: *departed, refused: *refused, held: self.held(now) }
    }

    pub(in crate::memory) fn held(&self, now: Instant) -> u32 {
        let held = self.counts.held.values().filter(|(_, until)| *until > now).map(|(held, _)| *held);
        held.fold(0, u32::saturating_add)
    }

    pub(in crate::memory) fn hold(&mut self, router: &RouterId, waits: Waits, now: Instant) {
        if waits.refused > 0 {
            self.counts.begin(now);
            self.counts.refused += u64::from(waits.refused);
        }
        let by_router = &mut self.counts.held;
        by_router.retain(|_, (_, until)| *until > now);
        let before = match waits.held {
            0 => by_router.remove(router),
            held => by_router.insert(router.clone(), (held, now + HELD_LEASE)),
        };
        if by_router.len() > MAX_HOLDERS {
            let first = by_router.iter().min_by_key(|(name, (_, until))| (*until, *name)).map(|(name, _)| name.clone());
            first.map(|first| by_router.remove(&first));
        }
        if before.is_some() != (waits.held > 0) {
            self.wakes.insert(Topic::Directory);
        }
    }
}
