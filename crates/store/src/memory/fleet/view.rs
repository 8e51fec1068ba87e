//! What can be read of a service's sessions.

use std::ops::Bound;
use std::time::Instant;

use streamfleet_session::SessionId;

use super::{Fleet, Table};
use crate::outputs::{MAX_READ, Read};
use crate::sessions::{Filter, LiveSession, MAX_PAGE, Page, SessionView};
use crate::words::Ticket;

impl Fleet {
    pub(in crate::memory) fn session(
        &mut self,
        contexts: &mut Table,
        id: &SessionId,
        now: Instant,
    ) -> Option<SessionView> {
        self.sweep(contexts, now);
        if let Some(live) = self.ids.get(id).and_then(|ticket| self.live(*ticket, now)) {
            return Some(SessionView::Live(Box::new(live)));
        }
        self.last.get(id).and_then(|ticket| self.over.get(ticket)).map(|over| SessionView::Over(over.reason))
    }

    pub(in crate::memory) fn list(&mut self, contexts: &mut Table, filter: &Filter, now: Instant) -> Page {
        self.sweep(contexts, now);
        let after = filter.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let theirs = self
            .ids
            .range::<SessionId, _>((after, Bound::Unbounded))
            .filter(|(id, _)| match &filter.user {
                Some(user) => self.users.get(user).is_some_and(|ids| ids.contains(*id)),
                None => true,
            })
            .map(|(id, ticket)| (id.clone(), *ticket));
        let limit = filter.limit.clamp(1, MAX_PAGE) as usize;
        let mut looked: Vec<(SessionId, Ticket)> = theirs.take(limit + 1).collect();
        let more = looked.len() > limit;
        looked.truncate(limit);
        let next = looked.last().filter(|_| more).map(|(id, _)| id.clone());
        let sessions = looked
            .iter()
            .filter_map(|(_, ticket)| self.live(*ticket, now))
            .filter(|live| filter.phase.is_none_or(|phase| live.phase == phase))
            .collect();
        Page { sessions, next }
    }

    fn live(&self, ticket: Ticket, now: Instant) -> Option<LiveSession> {
        let session = self.sessions.get(&ticket)?;
        Some(LiveSession {
            ticket,
            session: session.id.clone(),
            at: self.reach(&session.worker),
            user: session.user.clone(),
            context: session.context,
            phase: session.phase,
            age: now.saturating_duration_since(session.since),
            detail: session.detail.clone(),
        })
    }

    pub(in crate::memory) fn outputs(
        &mut self,
        contexts: &mut Table,
        id: &SessionId,
        after: u64,
        now: Instant,
    ) -> Option<Read> {
        self.sweep(contexts, now);
        let ticket = self.ids.get(id).or_else(|| self.last.get(id))?;
        let over = !self.sessions.contains_key(ticket);
        let Some(kept) = self.outputs.get(ticket) else { return Some(Read { outputs: Vec::new(), over }) };
        let first = kept.last - kept.texts.len() as u64 + 1;
        let skipped = usize::try_from(after.saturating_add(1).saturating_sub(first)).unwrap_or(usize::MAX);
        let numbered = (first..).zip(&kept.texts).skip(skipped);
        let outputs: Vec<(u64, String)> = numbered.take(MAX_READ).map(|(n, text)| (n, text.clone())).collect();
        // While some are left to be read it is not the end.
        let read_all = outputs.last().is_none_or(|(number, _)| *number == kept.last);
        Some(Read { outputs, over: over && read_all })
    }
}
