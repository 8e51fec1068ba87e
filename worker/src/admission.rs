//! Who may start a session: unique ids, and limits by service and by user.
//!
//! The decision is made under one lock and pays for itself in a [`Slot`], which gives everything back when it is
//! dropped. There is no other way to give it back, so whatever happens to a session (a bad offer, a client that never
//! connects, a panic), its place is free once nobody holds the slot. What is absent: time limits and transports.
//!
//! A client that moves to another connection has two sessions of one id until it has arrived. They share a place: a full
//! worker must not hold a client where it cannot stay. So there can be more sessions than the limits say, by those that
//! have not connected yet: [`MAX_HOLDERS`] for an id, each for a connect timeout at most.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use streamfleet_session::{Limits, SessionId, UserId};
use streamfleet_store::Gate;

/// Sessions of one id: the one that its client has, and those on the way to be the next. A newer one ends the others that
/// are on the way, but not before their loops have come to it; this many at once are no client's.
const MAX_HOLDERS: usize = 4;

/// The places of a whole worker. Ids are unique in it, over all services; the table is bounded by `capacity`.
#[derive(Debug, Clone)]
pub struct Occupancy(Arc<Mutex<Table>>);

#[derive(Debug)]
struct Table {
    capacity: NonZeroU32,
    gate: Gate,
    ids: HashMap<SessionId, Place>,
    services: Vec<Counts>,
}

/// What the slots of an id take up.
#[derive(Debug)]
struct Place {
    service: usize,
    /// The user of each slot, at least one.
    holders: Vec<Option<UserId>>,
}

#[derive(Debug, Default)]
struct Counts {
    live: u32,
    /// Ids that a user has slots of.
    users: HashMap<UserId, u32>,
}

impl Counts {
    fn admits(&self, user: Option<&UserId>, limits: &Limits) -> Result<(), Refusal> {
        let Some(user) = user else { return Ok(()) };
        let sessions = self.users.get(user).copied().unwrap_or(0);
        reached(limits.per_user, sessions).map_err(|limit| Refusal::UserLimit { limit })
    }

    fn enter(&mut self, user: Option<&UserId>) {
        if let Some(user) = user {
            *self.users.entry(user.clone()).or_insert(0) += 1;
        }
    }

    fn leave(&mut self, user: Option<&UserId>) {
        if let Some(user) = user
            && let Some(sessions) = self.users.get_mut(user)
        {
            *sessions -= 1;
            // A user without sessions must leave no trace, or the table would grow by every user ever seen.
            if *sessions == 0 {
                self.users.remove(user);
            }
        }
    }
}

impl Occupancy {
    /// Sessions of one worker if nothing else limits them. A core carries about two thousand, so this is no limit on
    /// any machine of today, and still one that keeps the table of a worker under attack below 100 MB.
    pub const DEFAULT_CAPACITY: NonZeroU32 = NonZeroU32::new(1 << 17).expect("invariant: 2^17 is not zero");

    /// A worker without sessions that takes at most `capacity` of them, whatever its services allow.
    pub fn new(capacity: NonZeroU32) -> Self {
        let table = Table { capacity, gate: Gate::Open, ids: HashMap::new(), services: Vec::new() };
        Self(Arc::new(Mutex::new(table)))
    }

    /// The admission of one more service of this worker, with counts of its own.
    pub fn service(&self, limits: Limits) -> Admission {
        let mut table = self.0.lock();
        table.services.push(Counts::default());
        Admission { occupancy: self.clone(), service: table.services.len() - 1, limits }
    }

    /// Refuses every further session, for good; those that live are not touched.
    pub fn drain(&self) {
        self.close(Gate::Draining);
    }

    /// Clients are asked to connect elsewhere from now on: whose connection breaks is not to come back here.
    pub fn leave(&self) {
        self.close(Gate::Leaving);
    }

    fn close(&self, gate: Gate) {
        let mut table = self.0.lock();
        table.gate = table.gate.max(gate);
    }

    /// What the worker does with sessions of its own accord.
    pub fn gate(&self) -> Gate {
        self.0.lock().gate
    }

    /// Slots held now, over all services.
    pub fn live(&self) -> usize {
        self.0.lock().ids.len()
    }
}

impl Default for Occupancy {
    fn default() -> Self {
        Self::new(Self::DEFAULT_CAPACITY)
    }
}

/// The door of one service.
#[derive(Debug, Clone)]
pub struct Admission {
    occupancy: Occupancy,
    service: usize,
    limits: Limits,
}

/// Why nobody gets in, in the order in which it is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The worker takes no more sessions.
    #[error("the worker is draining")]
    Draining,
    /// A session with this id lives, in this service or in another one of the worker.
    #[error("a session with this id already exists")]
    AlreadyExists,
    /// The service has as many sessions as it may.
    #[error("the service's limit of {limit} sessions is reached")]
    Concurrency {
        /// Sessions that the service may have.
        limit: NonZeroU32,
    },
    /// The user has as many sessions as he may.
    #[error("the user's limit of {limit} sessions is reached")]
    UserLimit {
        /// Sessions that a user may have.
        limit: NonZeroU32,
    },
    /// The worker as a whole is full.
    #[error("the worker is full")]
    Full,
}

impl Admission {
    /// A worker with a single service.
    pub fn new(limits: Limits) -> Self {
        Occupancy::default().service(limits)
    }

    /// Takes a place for a session, or says why there is none. A session without a user counts for no user.
    ///
    /// # Errors
    /// The first refusal that applies, in the order of [`Refusal`]'s variants.
    pub fn admit(&self, id: &SessionId, user: Option<&UserId>, now: Instant) -> Result<Slot, Refusal> {
        self.admit_within(&self.limits, id, user, now)
    }

    /// As [`admit`](Self::admit), within other limits than the service's: a worker's share of those of its fleet.
    ///
    /// # Errors
    /// Those of [`admit`](Self::admit).
    pub fn admit_within(
        &self,
        limits: &Limits,
        id: &SessionId,
        user: Option<&UserId>,
        now: Instant,
    ) -> Result<Slot, Refusal> {
        let mut table = self.occupancy.0.lock();
        if table.gate != Gate::Open {
            return Err(Refusal::Draining);
        }
        if table.ids.contains_key(id) {
            return Err(Refusal::AlreadyExists);
        }
        let counts = &table.services[self.service];
        reached(limits.concurrency, counts.live).map_err(|limit| Refusal::Concurrency { limit })?;
        counts.admits(user, limits)?;
        if table.ids.len() >= table.capacity.get() as usize {
            return Err(Refusal::Full);
        }
        table.ids.insert(id.clone(), Place { service: self.service, holders: vec![user.cloned()] });
        let counts = &mut table.services[self.service];
        counts.live += 1;
        counts.enter(user);
        Ok(self.slot(id, user, Entry::New, now))
    }

    /// Takes a second slot of an id that is in use, for the session that its client moves to. It is not counted again, but
    /// for a user who had no part in the id. An id that is free by now is admitted as any other.
    ///
    /// Who may have it is not asked here: whoever holds the slot has to find out.
    ///
    /// # Errors
    /// [`Refusal::AlreadyExists`] if the id is another service's, [`Refusal::UserLimit`], [`Refusal::Full`] for too many at
    /// once, and those of [`admit`](Self::admit).
    pub fn take_over(&self, id: &SessionId, user: Option<&UserId>, now: Instant) -> Result<Slot, Refusal> {
        let mut table = self.occupancy.0.lock();
        if table.gate != Gate::Open {
            return Err(Refusal::Draining);
        }
        let Table { ids, services, .. } = &mut *table;
        let Some(place) = ids.get_mut(id) else {
            drop(table);
            return self.admit(id, user, now);
        };
        if place.service != self.service {
            return Err(Refusal::AlreadyExists);
        }
        if place.holders.len() >= MAX_HOLDERS {
            return Err(Refusal::Full);
        }
        if !place.holders.iter().any(|holder| holder.as_ref() == user) {
            services[self.service].admits(user, &self.limits)?;
            services[self.service].enter(user);
        }
        place.holders.push(user.cloned());
        Ok(self.slot(id, user, Entry::TakeOver, now))
    }

    fn slot(&self, id: &SessionId, user: Option<&UserId>, entry: Entry, now: Instant) -> Slot {
        Slot { occupancy: self.occupancy.clone(), id: id.clone(), user: user.cloned(), entry, since: now }
    }

    /// Whether nobody is let in any more.
    pub fn is_draining(&self) -> bool {
        self.occupancy.gate() != Gate::Open
    }

    /// Slots of this service held now.
    pub fn live(&self) -> u32 {
        self.occupancy.0.lock().services[self.service].live
    }

    /// The limits that this admission keeps.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

fn reached(limit: Option<NonZeroU32>, count: u32) -> Result<(), NonZeroU32> {
    match limit {
        Some(limit) if count >= limit.get() => Err(limit),
        _ => Ok(()),
    }
}

/// A session's place. Dropping it, on whatever path, frees the id and the counts at once.
#[must_use = "a slot that is dropped at once admits nobody"]
pub struct Slot {
    occupancy: Occupancy,
    id: SessionId,
    user: Option<UserId>,
    entry: Entry,
    since: Instant,
}

/// How a slot came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The id was free.
    New,
    /// Beside the session that has the id: its client says that it moves.
    TakeOver,
}

impl Slot {
    /// The id that this slot reserves.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// How it came to be.
    pub fn entry(&self) -> Entry {
        self.entry
    }

    /// When it was taken.
    pub fn since(&self) -> Instant {
        self.since
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("id", &self.id).field("since", &self.since).finish_non_exhaustive()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut table = self.occupancy.0.lock();
        let Table { ids, services, .. } = &mut *table;
        let place = ids.get_mut(&self.id).expect("invariant: a slot's id stays in the table as long as the slot");
        let counts = &mut services[place.service];
        if let Some(at) = place.holders.iter().position(|holder| *holder == self.user) {
            place.holders.swap_remove(at);
        }
        if !place.holders.contains(&self.user) {
            counts.leave(self.user.as_ref());
        }
        if place.holders.is_empty() {
            counts.live -= 1;
            ids.remove(&self.id);
        }
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
