//! What can be read of a service's sessions.

use std::ops::Bound;
use std::time::Instant;

use streamfleet_session::SessionId;

use super::{Fleet, Table};
use crate::outputs::{MAX_READ, Read, Seen, Whose, translate};
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
        self.last_end(id).map(|over| SessionView::Over(over.reason))
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
        whose: Whose<'_>,
        seen: Option<Seen>,
        now: Instant,
    ) -> Option<Read> {
        self.sweep(contexts, now);
        let (context, owner, has_ended) = match whose {
            Whose::Session(id) => {
                let ticket = self.ids.get(id).or_else(|| self.last.get(id))?;
                match self.sessions.get(ticket) {
                    Some(live) => (live.context, live.owner_of_outputs().cloned(), false),
                    None => (self.over.get(ticket)?.context, None, true),
                }
            }
            Whose::Context(context) => (context, None, false),
        };
        let kept = self.outputs.get(&context).filter(|kept| kept.due.is_none_or(|due| due > now));
        let Some(kept) = kept else {
            let nothing = Read {
                context,
                user: owner,
                mark: None,
                earlier: Vec::new(),
                outputs: Vec::new(),
                last: 0,
                over: has_ended,
            };
            return matches!(whose, Whose::Session(_)).then_some(nothing);
        };
        let after = translate(kept.mark, &kept.earlier, seen);
        let first = kept.last - kept.texts.len() as u64 + 1;
        let skipped = usize::try_from(after.saturating_add(1).saturating_sub(first)).unwrap_or(usize::MAX);
        let numbered = (first..).zip(&kept.texts).skip(skipped);
        let outputs: Vec<(u64, String)> = numbered.take(MAX_READ).map(|(n, text)| (n, text.clone())).collect();
        // While some are left to be read it is not the end.
        let read_all = outputs.last().is_none_or(|(number, _)| *number == kept.last);
        Some(Read {
            context,
            user: kept.user.clone().or(owner),
            mark: Some(kept.mark),
            earlier: kept.earlier.clone(),
            outputs,
            last: kept.last,
            over: has_ended && read_all,
        })
    }
}
