//! What owners say about their sessions, and what is asked of them.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Map, Value};
use streamfleet_session::{CloseReason, SessionId};

use super::{Client, Fleet, Session, Table};
use crate::context::{ContextId, ContextKey};
use crate::directory::{Demand, FleetError};
use crate::outputs::{Appended, Batch, MAX_EARLIER, MAX_OUTPUTS, MAX_OUTPUTS_BYTES, MAX_READ};
use crate::sessions::{Held, Outcome, Pending, Phase, Restoration, Restored, Told, TrackResult};
use crate::wake::Topic;
use crate::words::{Owner, Ticket, TrackId};

impl Fleet {
    pub(in crate::memory) fn release(&mut self, contexts: &mut Table, ticket: Ticket, now: Instant) {
        if self.sessions.get(&ticket).is_some_and(|session| session.phase == Phase::Reserved) {
            self.finish(contexts, ticket, CloseReason::ConnectTimeout, now);
        }
    }

    pub(in crate::memory) fn report(
        &mut self,
        contexts: &mut Table,
        owner: &Owner,
        ticket: Ticket,
        phase: Phase,
        detail: &Map<String, Value>,
        now: Instant,
    ) -> Result<Held, FleetError> {
        self.fenced(owner)?;
        let Some(session) = self.owned(owner, ticket) else { return Ok(Held::No) };
        if phase == Phase::Active
            && let Some(delivery) = session.moves
            && !contexts.confirm(session.context, &session.issued.token, delivery, now)
        {
            let id = session.id.clone();
            self.lose_way(&id, ticket);
            return Ok(Held::No);
        }
        let id = session.id.clone();
        let arrives = phase == Phase::Active && self.moving.get(&id) == Some(&ticket);
        let holder = self.ids.get(&id).copied();
        let moved = holder.filter(|_| arrives).and_then(|holder| self.sessions.get(&holder));
        let moved = moved.map(|moved| (moved.user.clone(), moved.client));
        if arrives || holder == Some(ticket) {
            self.comes(ticket, moved.as_ref().map_or(Client::Awaited, |(_, client)| *client));
        }
        let Some(session) = self.owned(owner, ticket) else { return Ok(Held::No) };
        if phase == Phase::Active {
            session.moves = None;
        }
        session.phase = phase;
        session.detail.clone_from(detail);
        if let Some(due) = session.due.take() {
            self.reserved.remove(&(due, ticket));
        }
        if arrives {
            let (user, client) = moved.unwrap_or_default();
            self.vacate(&id, user.as_ref(), client);
            if let Some(before) = holder {
                self.want(before, &Demand::End(CloseReason::Moved));
            }
        }
        self.wakes.insert(Topic::Session(id));
        Ok(Held::Yes)
    }

    /// A session has connected by a token that its client has not waited for: it takes nobody's place, and ends.
    fn lose_way(&mut self, id: &SessionId, ticket: Ticket) {
        if self.moving.get(id) == Some(&ticket) {
            self.moving.remove(id);
        }
        self.want(ticket, &Demand::End(CloseReason::Superseded));
    }

    pub(in crate::memory) fn end(
        &mut self,
        contexts: &mut Table,
        owner: &Owner,
        ticket: Ticket,
        reason: CloseReason,
        now: Instant,
    ) -> Result<(), FleetError> {
        self.fenced(owner)?;
        if self.owned(owner, ticket).is_some() {
            self.finish(contexts, ticket, reason, now);
        }
        Ok(())
    }

    pub(in crate::memory) fn restore(
        &mut self,
        contexts: &mut Table,
        owner: &Owner,
        key: &ContextKey,
        restored: &Restored,
        now: Instant,
    ) -> Result<Restoration, FleetError> {
        self.fenced(owner)?;
        if self.owned(owner, restored.ticket).is_some() && self.ids.get(&restored.session) == Some(&restored.ticket) {
            self.comes(restored.ticket, Client::Awaited);
        }
        if let Some(session) = self.owned(owner, restored.ticket) {
            session.phase = restored.phase;
            session.detail.clone_from(&restored.detail);
            if let Some(due) = session.due.take() {
                self.reserved.remove(&(due, restored.ticket));
            }
            return Ok(Restoration::Kept);
        }
        if self.sessions.contains_key(&restored.ticket) {
            return Ok(Restoration::Superseded);
        }
        // An age beyond the clock's range is as old as can be told.
        let since = now.checked_sub(restored.age).unwrap_or(now);
        let holder = self.ids.get(&restored.session).copied();
        if let Some(other) = holder.and_then(|ticket| self.sessions.get(&ticket))
            // What nobody has confirmed is nobody's call yet.
            && other.phase != Phase::Reserved
            && keeps(other, since, restored, contexts)
        {
            return Ok(Restoration::Superseded);
        }
        contexts.restore(key, &restored.context, now)?;
        if let Some(holder) = holder {
            let held = self.sessions.get(&holder);
            let user = held.and_then(|held| held.user.clone());
            if held.is_some_and(|held| held.client == Client::There) {
                // Its client is the one that is written again.
                self.counts.departed += 1;
            }
            if let Some(taker) = self.moving.remove(&restored.session) {
                self.want(taker, &Demand::End(CloseReason::Superseded));
            }
            self.vacate(&restored.session, user.as_ref(), Client::Awaited);
            self.want(holder, &Demand::End(CloseReason::Superseded));
        }
        let session = Session {
            id: restored.session.clone(),
            worker: owner.worker.clone(),
            phase: restored.phase,
            client: Client::There,
            since,
            due: None,
            user: restored.user.clone(),
            pin: restored.pin.clone(),
            context: restored.context.id,
            issued: restored.context.issued,
            moves: None,
            retention: restored.retention,
            detail: restored.detail.clone(),
            seen_to: BTreeMap::new(),
        };
        self.counts.restored(restored.age, now);
        self.insert(restored.ticket, session);
        self.occupy(&restored.session, restored.ticket);
        Ok(Restoration::Kept)
    }

    pub(in crate::memory) fn ask(
        &mut self,
        contexts: &mut Table,
        session: &SessionId,
        context: Option<ContextId>,
        demand: &Demand,
        now: Instant,
    ) -> Told {
        self.sweep(contexts, now);
        let is_meant = |other: ContextId| context.is_none_or(|context| context == other);
        let holder = self.ids.get(session).copied();
        let meant = |ticket: &Ticket| self.sessions.get(ticket).is_some_and(|session| is_meant(session.context));
        let Some(ticket) = holder.filter(meant) else {
            let over = self.last_end(session);
            return over.filter(|over| is_meant(over.context)).map_or(Told::Unknown, |over| Told::Over(over.reason));
        };
        self.want(ticket, demand);
        if let (Demand::End(_) | Demand::EndStream(_), Some(taker)) = (demand, self.moving.get(session).copied()) {
            self.want(taker, demand);
        }
        let Some(holder) = self.sessions.get(&ticket) else { return Told::Unknown };
        let track = match demand {
            Demand::End(_) | Demand::EndStream(_) => None,
            Demand::CloseTrack(track) => Some(track.clone()),
        };
        Told::Pending(Pending { ticket, session: session.clone(), track, at: self.reach(&holder.worker) })
    }

    pub(in crate::memory) fn acknowledge(
        &mut self,
        owner: &Owner,
        ticket: Ticket,
        track: &TrackId,
        result: TrackResult,
    ) -> Result<(), FleetError> {
        let worker = self.fenced(owner)?;
        let was_asked = worker.wants.get_mut(&ticket).is_some_and(|wants| wants.tracks.remove(track));
        if was_asked && let Some(session) = self.owned(owner, ticket) {
            session.seen_to.insert(track.clone(), result);
            let id = session.id.clone();
            self.wakes.insert(Topic::Session(id));
        }
        Ok(())
    }

    pub(in crate::memory) fn outcome(
        &mut self,
        contexts: &mut Table,
        pending: &Pending,
        now: Instant,
    ) -> Option<Outcome> {
        self.sweep(contexts, now);
        if let Some(session) = self.sessions.get(&pending.ticket) {
            let result = pending.track.as_ref().and_then(|track| session.seen_to.get(track));
            return result.copied().map(Outcome::Track);
        }
        let reason = self.over.get(&pending.ticket).map_or(CloseReason::WorkerLost, |over| over.reason);
        Some(Outcome::Ended(reason))
    }

    pub(in crate::memory) fn append(
        &mut self,
        owner: &Owner,
        ticket: Ticket,
        batch: &Batch<'_>,
    ) -> Result<Appended, FleetError> {
        self.fenced(owner)?;
        let Some(session) = self.owned(owner, ticket) else { return Ok(Appended::Over) };
        let (topic, context) = (Topic::Session(session.id.clone()), session.context);
        let user = session.owner_of_outputs().cloned();
        let is_known = self.outputs.contains_key(&context);
        let kept = self.outputs.entry(context).or_default();
        let is_another = is_known && kept.mark != batch.mark;
        // The client has gone on to another session, which writes.
        if is_another && kept.earlier.iter().any(|before| before.mark == batch.mark) {
            return Ok(Appended::Over);
        }
        if batch.first > kept.last + 1 {
            if batch.first > batch.oldest {
                let last = kept.last;
                if !is_known {
                    self.outputs.remove(&context);
                }
                return Ok(Appended::Missing(last));
            }
            kept.texts.clear();
            (kept.last, kept.bytes) = (batch.first - 1, 0);
        } else if is_another {
            // What the session before has said after this one had begun.
            while kept.last >= batch.first {
                kept.last -= 1;
                kept.bytes -= kept.texts.pop_back().map_or(0, |text| text.len());
            }
        }
        let known = usize::try_from(kept.last + 1 - batch.first).unwrap_or(usize::MAX);
        for text in batch.texts.iter().take(MAX_READ).skip(known) {
            kept.last += 1;
            kept.bytes += text.len();
            kept.texts.push_back(text.as_ref().to_owned());
        }
        while kept.texts.len() > MAX_OUTPUTS || kept.bytes > MAX_OUTPUTS_BYTES && kept.texts.len() > 1 {
            kept.bytes -= kept.texts.pop_front().map_or(0, |text| text.len());
        }
        kept.mark = batch.mark;
        kept.earlier = batch.earlier[batch.earlier.len().saturating_sub(MAX_EARLIER)..].to_vec();
        kept.user = user.or(kept.user.take());
        kept.due = None;
        let last = kept.last;
        self.wakes.insert(topic);
        Ok(Appended::Upto(last))
    }
}

/// Whether the holder of an id keeps it from a session that is written again. Where both have one context, its client is at the one that was
/// given the later token, if it has got there: the other one's worker was cut off while it went on elsewhere. Of two that know nothing of
/// each other the elder stays.
fn keeps(held: &Session, since: Instant, restored: &Restored, contexts: &Table) -> bool {
    let last = contexts.generation(restored.context.id).filter(|_| held.context == restored.context.id);
    match last.map(|last| last.cmp(&restored.context.issued.generation)) {
        Some(Ordering::Greater) if held.phase == Phase::Active => true,
        Some(Ordering::Less) if restored.phase == Phase::Active => false,
        _ => held.since <= since,
    }
}
