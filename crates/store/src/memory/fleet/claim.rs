//! The claim: who gets which place.

use std::time::{Duration, Instant};

use streamfleet_session::{CloseReason, SessionId};

use super::{Client, Fleet, Session, Table};
use crate::context::{ContextKey, Issued, Opened, StoreError};
use crate::directory::Demand;
use crate::sessions::{Account, ClaimRequest, Claimed, MAX_QUOTAS, MAX_RANKED, Phase, Placement};
use crate::words::{Ticket, WorkerId};

/// What quotas are counted over.
const MINUTE: Duration = Duration::from_secs(60);
/// Accounts that are remembered: 8 MB.
const MAX_ACCOUNTS: usize = 1 << 16;

impl Fleet {
    pub(in crate::memory) fn claim(
        &mut self,
        contexts: &mut Table,
        key: &ContextKey,
        request: &ClaimRequest,
        now: Instant,
    ) -> Result<Claimed, StoreError> {
        self.sweep(contexts, now);
        if let Some(again) = self.replay(contexts, request, now) {
            return Ok(again);
        }
        if let Some(wait) = self.over_quota(request, now) {
            return Ok(Claimed::RateLimited(wait));
        }
        let holder = self.ids.get(&request.session).copied();
        let held = holder.and_then(|ticket| self.sessions.get(&ticket)).map(|held| (held.context, held.worker.clone()));
        match &held {
            Some((context, at)) if !contexts.may_share(*context, &request.claim, now) => {
                return Ok(Claimed::Duplicate { at: self.reach(at) });
            }
            Some(_) if holder.is_some_and(|holder| self.is_closing(holder)) => return Ok(Claimed::Closing),
            Some(_) => {}
            None => {
                let left = self.settles(now);
                if !left.is_zero() && request.claim.token.is_some() && self.may_live(&request.session) {
                    return Ok(Claimed::Settling(left));
                }
                if let Some(refused) = self.over_limit(request) {
                    return Ok(refused);
                }
            }
        }
        let (candidates, pinned) = self.candidates(request);
        let room = |name: &&WorkerId| self.workers.get(*name).is_some_and(|worker| worker.has_room());
        let Some(worker) = candidates.iter().find(room).cloned() else {
            return Ok(Claimed::NoCapacity { pinned });
        };
        let shared = held.and_then(|(context, _)| contexts.share_of(context, &request.claim, request.token, now));
        let opened = match shared {
            Some(shared) => shared,
            None => contexts.open(key, &request.claim, request.context, request.token, now)?,
        };
        if holder.is_some() {
            self.displace(contexts, request, now);
        }
        Ok(self.place(request, worker, opened, holder, now))
    }

    /// Whether nothing speaks against it that a session lives at a worker that has not told of it.
    fn may_live(&self, id: &SessionId) -> bool {
        self.last_end(id).is_none_or(|over| over.reason == CloseReason::WorkerLost)
    }

    fn replay(&self, contexts: &mut Table, request: &ClaimRequest, now: Instant) -> Option<Claimed> {
        let session = self.sessions.get(&request.ticket)?;
        let document = contexts.read(session.context, now)?;
        let holder = self.ids.get(&session.id).copied().filter(|holder| *holder != request.ticket);
        Some(Claimed::Placed(Box::new(Placement {
            at: self.reach(&session.worker),
            epoch: self.workers.get(&session.worker)?.epoch,
            opened: Opened {
                id: session.context,
                resumed: session.context != request.context,
                token: session.issued.token,
                generation: session.issued.generation,
                document,
            },
            takes_over: holder,
        })))
    }

    /// Counts the claim on its accounts, or says how long one of them has to wait.
    fn over_quota(&mut self, request: &ClaimRequest, now: Instant) -> Option<Duration> {
        let quotas = request.quotas.iter().take(MAX_QUOTAS);
        let counted: Vec<(&Account, Duration)> = quotas
            .map(|quota| {
                let full_again = self.rates.get(&quota.of).copied();
                let ahead = full_again.map_or(Duration::ZERO, |then| then.saturating_duration_since(now));
                (&quota.of, ahead + MINUTE / quota.per_minute.get())
            })
            .collect();
        if let Some(over) = counted.iter().map(|(_, ahead)| ahead.saturating_sub(MINUTE)).find(|over| !over.is_zero()) {
            return Some(over);
        }
        if self.rates.len() >= MAX_ACCOUNTS {
            self.rates.retain(|_, full_again| *full_again > now);
        }
        for (account, ahead) in counted {
            // One too many goes by its router's count alone.
            if self.rates.len() < MAX_ACCOUNTS || self.rates.contains_key(account) {
                self.rates.insert(account.clone(), now + ahead);
            }
        }
        None
    }

    fn over_limit(&self, request: &ClaimRequest) -> Option<Claimed> {
        if request.service_limit.is_some_and(|limit| self.ids.len() >= limit.get() as usize) {
            return Some(Claimed::ServiceLimit);
        }
        let (user, limit) = (request.user.as_ref()?, request.user_limit?);
        let theirs = self.users.get(user).map_or(0, |ids| ids.len());
        (theirs >= limit.get() as usize).then_some(Claimed::UserLimit)
    }

    /// Whom to ask for room; the only one, where another session is bound to the same value.
    fn candidates(&self, request: &ClaimRequest) -> (Vec<WorkerId>, Option<WorkerId>) {
        let bound = request.pin.as_ref().and_then(|pin| {
            let first = self.pins.range((pin.clone(), Ticket::from_random(0))..).next()?;
            (first.0 == *pin).then_some(first.1)
        });
        match bound.and_then(|ticket| self.sessions.get(&ticket)) {
            Some(session) => (vec![session.worker.clone()], Some(session.worker.clone())),
            None => (request.ranked.iter().take(MAX_RANKED).cloned().collect(), None),
        }
    }

    /// Somebody was taking the id over already and has not connected: the client has tried again since.
    fn displace(&mut self, contexts: &mut Table, request: &ClaimRequest, now: Instant) {
        let Some(earlier) = self.moving.remove(&request.session) else { return };
        match self.sessions.get(&earlier).map(|session| session.phase) {
            Some(Phase::Reserved) => self.finish(contexts, earlier, CloseReason::Superseded, now),
            _ => self.want(earlier, &Demand::End(CloseReason::Superseded)),
        }
    }

    fn place(
        &mut self,
        request: &ClaimRequest,
        worker: WorkerId,
        opened: Opened,
        holder: Option<Ticket>,
        now: Instant,
    ) -> Claimed {
        let due = now + self.terms.reservation;
        let session = Session {
            id: request.session.clone(),
            worker: worker.clone(),
            phase: Phase::Reserved,
            client: Client::Awaited,
            since: now,
            due: Some(due),
            user: request.user.clone(),
            pin: request.pin.clone(),
            context: opened.id,
            issued: Issued { token: opened.token, generation: opened.generation },
            moves: holder.map(|_| request.delivery),
            retention: request.retention,
            detail: serde_json::Map::new(),
            seen_to: std::collections::BTreeMap::new(),
        };
        self.insert(request.ticket, session);
        self.reserved.insert((due, request.ticket));
        if holder.is_some() {
            self.moving.insert(request.session.clone(), request.ticket);
        } else {
            self.occupy(&request.session, request.ticket);
        }
        let epoch = self.workers.get(&worker).map(|worker| worker.epoch).unwrap_or_default();
        let placement = Placement { at: self.reach(&worker), epoch, opened, takes_over: holder };
        Claimed::Placed(Box::new(placement))
    }

    /// Enters a session everywhere but in the tables of ids.
    pub(super) fn insert(&mut self, ticket: Ticket, session: Session) {
        if let Some(worker) = self.workers.get_mut(&session.worker) {
            worker.sessions.insert(ticket);
        }
        if let Some(pin) = session.pin.clone() {
            self.pins.insert((pin, ticket));
        }
        self.sessions.insert(ticket, session);
    }
}
