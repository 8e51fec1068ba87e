//! Contexts in a table with a clock as an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use streamfleet_session::{ResumeToken, UserId};

use super::empties::{Empties, Empty};
use super::shelf::Shelf;
use super::tokens::Tokens;
use super::{Bounds, Usage};
use crate::context::{
    Claim, ContextId, ContextKey, Delivery, Expected, Generation, Issued, Opened, Sharing, StoreError, WriteError,
};
use crate::document::{Document, Version, checked};
use crate::sessions::Kept;

#[derive(Debug)]
pub(super) struct Table {
    bounds: Bounds,
    contexts: HashMap<ContextId, Context>,
    /// The contexts of each key, the one opened last at the end.
    by_key: HashMap<ContextKey, Vec<ContextId>>,
    closed: Shelf,
    /// Closed contexts that nothing was written to: not among all others.
    empties: Empties,
    bytes: usize,
    /// Closed contexts that were forgotten before their time, by what was short.
    evicted: Evicted,
}

#[derive(Debug, Default)]
struct Evicted {
    for_contexts: u64,
    for_bytes: u64,
    of_their_key: u64,
}

#[derive(Debug)]
struct Context {
    key: ContextKey,
    /// The verified user who opened it.
    user: Option<UserId>,
    tokens: Tokens,
    document: Document,
    bytes: usize,
    /// Sessions that have it open.
    holders: u32,
    /// Set while nobody does.
    expires: Option<Instant>,
}

impl Context {
    /// One that nothing was written to and nobody holds.
    fn empty(key: &ContextKey, user: Option<UserId>, tokens: Tokens) -> Self {
        let document = Document::default();
        Self { key: key.clone(), user, tokens, document, bytes: 0, holders: 0, expires: None }
    }

    /// Whether it is to be forgotten, and merely has not been yet.
    fn has_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// As it is opened by whoever is given this token.
    fn opened(&self, id: ContextId, token: ResumeToken) -> Opened {
        let generation = self.tokens.generation();
        Opened { id, resumed: true, token, generation, document: self.document.clone() }
    }

    fn fits_token(&self, claim: &Claim, now: Instant) -> bool {
        self.tokens.fit(self.user.as_ref(), claim, now)
    }

    fn fits_user(&self, claim: &Claim) -> bool {
        self.user.is_some() && self.user == claim.user
    }
}

impl Table {
    pub(super) fn new(bounds: Bounds) -> Self {
        let closed = Shelf::new(bounds.bytes / bounds.contexts.max(1));
        let (contexts, by_key, empties) =
            (HashMap::new(), HashMap::new(), Empties::new(bounds.closed_per_key, bounds.contexts));
        Self { bounds, contexts, by_key, closed, empties, bytes: 0, evicted: Evicted::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.contexts.len()
    }

    pub(super) fn usage(&self) -> Usage {
        let Evicted { for_contexts, for_bytes, of_their_key } = self.evicted;
        Usage {
            contexts: self.len(),
            bytes: self.bytes,
            evicted_for_contexts: for_contexts,
            evicted_for_bytes: for_bytes,
            evicted_of_their_key: of_their_key,
        }
    }

    pub(super) fn open(
        &mut self,
        key: &ContextKey,
        claim: &Claim,
        fresh: ContextId,
        token: ResumeToken,
        now: Instant,
    ) -> Result<Opened, StoreError> {
        self.expire(now);
        if let Some(id) = self.claimed(key, claim, now) {
            let opened = self.reopen(id, claim, token, now);
            // It is the key's newest now.
            if let Some(ids) = self.by_key.get_mut(key) {
                ids.retain(|other| *other != id);
                ids.push(id);
            }
            return Ok(opened);
        }
        if self.contexts.len() >= self.bounds.contexts && !self.forget_oldest() {
            return Err(StoreError::Full);
        }
        let is_theirs = |empty: &Empty| empty.tokens.fit(empty.user.as_ref(), claim, now);
        if let Some(Empty { id, user, tokens }) = self.empties.take(key, is_theirs, now) {
            self.insert(id, Context::empty(key, user, tokens));
            return Ok(self.reopen(id, claim, token, now));
        }
        self.insert(fresh, Context { holders: 1, ..Context::empty(key, claim.user.clone(), Tokens::new(token)) });
        Ok(Opened { id: fresh, resumed: false, token, generation: Generation(0), document: Document::default() })
    }

    /// The context that the claim is good for: its token's, else the newest of the same verified user.
    fn claimed(&self, key: &ContextKey, claim: &Claim, now: Instant) -> Option<ContextId> {
        let ids = self.by_key.get(key)?;
        let newest = |fits: &dyn Fn(&Context) -> bool| {
            ids.iter().rev().copied().find(|id| self.known(*id, now).is_some_and(fits))
        };
        newest(&|context| context.fits_token(claim, now)).or_else(|| newest(&|context| context.fits_user(claim)))
    }

    /// Whether whoever claims is the client of the session that has this context open. Who one is does not say which of one's
    /// connections is to end: it takes a token.
    pub(super) fn may_share(&self, id: ContextId, claim: &Claim, now: Instant) -> bool {
        self.contexts.get(&id).is_some_and(|context| context.expires.is_none() && context.fits_token(claim, now))
    }

    /// The place of the token that was given out last.
    pub(super) fn generation(&self, id: ContextId) -> Option<Generation> {
        self.contexts.get(&id).map(|context| context.tokens.generation())
    }

    /// Holds a context for a session that is restored; it is written again if it was lost.
    ///
    /// # Errors
    /// [`StoreError::Full`].
    pub(super) fn restore(&mut self, key: &ContextKey, kept: &Kept, now: Instant) -> Result<(), StoreError> {
        self.expire(now);
        if let Some(context) = self.contexts.get_mut(&kept.id) {
            context.holders += 1;
            context.tokens.recall(kept.issued);
            if let Some(expires) = context.expires.take() {
                self.closed.take(expires, kept.id);
            }
            return Ok(());
        }
        let Ok(bytes) = checked(&kept.data) else { return Err(StoreError::Full) };
        if self.contexts.len() >= self.bounds.contexts || self.bytes + bytes > self.bounds.bytes {
            return Err(StoreError::Full);
        }
        let (mut user, mut tokens) = (kept.user.clone(), Tokens::restored(kept.issued));
        // Its client has been elsewhere, and was given a later token.
        let empty = self.empties.remove(key, kept.id, now);
        if let Some(later) = empty.filter(|empty| empty.tokens.generation() > tokens.generation()) {
            (user, tokens) = (later.user.or(user), later.tokens);
        }
        let document = Document { data: kept.data.clone(), version: kept.version };
        self.bytes += bytes;
        self.insert(kept.id, Context { document, bytes, holders: 1, ..Context::empty(key, user, tokens) });
        Ok(())
    }

    /// It is the key's newest.
    fn insert(&mut self, id: ContextId, context: Context) {
        self.by_key.entry(context.key.clone()).or_default().push(id);
        self.contexts.insert(id, context);
    }

    fn reopen(&mut self, id: ContextId, claim: &Claim, token: ResumeToken, now: Instant) -> Opened {
        let context = self.contexts.get_mut(&id).expect("invariant: the lists by key name contexts of the table");
        if let Some(expires) = context.expires.take() {
            self.closed.take(expires, id);
        }
        context.holders += 1;
        context.tokens.replace(claim.token.as_ref(), token, now);
        // Whoever proves who he is from now on has to.
        if context.user.is_none() {
            context.user.clone_from(&claim.user);
        }
        context.opened(id, token)
    }

    pub(super) fn find(&mut self, key: &ContextKey, now: Instant) -> Option<ContextId> {
        self.expire(now);
        let ids = self.by_key.get(key)?;
        let mut known = ids.iter().rev().filter_map(|id| Some((*id, self.known(*id, now)?)));
        let open = known.clone().find(|(_, context)| context.expires.is_none());
        open.or_else(|| known.next()).map(|(id, _)| id)
    }

    pub(super) fn rotate(
        &mut self,
        key: &ContextKey,
        token: &ResumeToken,
        next: ResumeToken,
        now: Instant,
    ) -> Option<Issued> {
        let id = self.find(key, now)?;
        let context = self.contexts.get_mut(&id).filter(|context| context.expires.is_none())?;
        context.tokens.takes(token, now).then(|| {
            context.tokens.replace(Some(token), next, now);
            Issued { token: next, generation: context.tokens.generation() }
        })
    }

    pub(super) fn share(&mut self, key: &ContextKey, claim: &Claim, next: ResumeToken, now: Instant) -> Sharing {
        let Some(id) = self.find(key, now) else { return Sharing::Nobody };
        if self.contexts.get(&id).is_none_or(|context| context.expires.is_some()) {
            return Sharing::Nobody;
        }
        self.share_of(id, claim, next, now).map_or(Sharing::Refused, Sharing::Opened)
    }

    /// Opens the context of a live session once more; `None` if whoever claims is not its client.
    pub(super) fn share_of(&mut self, id: ContextId, claim: &Claim, next: ResumeToken, now: Instant) -> Option<Opened> {
        let shown = claim.token.filter(|_| self.may_share(id, claim, now))?;
        let context = self.contexts.get_mut(&id)?;
        context.tokens.offer(shown, next);
        context.holders += 1;
        Some(context.opened(id, next))
    }

    pub(super) fn confirm(&mut self, id: ContextId, token: &ResumeToken, delivery: Delivery, now: Instant) -> bool {
        self.contexts.get_mut(&id).is_some_and(|context| context.tokens.confirm(token, delivery, now))
    }

    pub(super) fn verify(&mut self, key: &ContextKey, token: &ResumeToken, now: Instant) -> Option<ContextId> {
        self.expire(now);
        let mut newest = self.by_key.get(key).into_iter().flatten().rev().copied();
        let known = newest.find(|id| self.known(*id, now).is_some_and(|context| context.tokens.takes(token, now)));
        known.or_else(|| self.empties.find(key, |empty| empty.tokens.takes(token, now), now))
    }

    pub(super) fn read(&mut self, id: ContextId, now: Instant) -> Option<Document> {
        self.expire(now);
        self.known(id, now).map(|context| context.document.clone())
    }

    pub(super) fn write(
        &mut self,
        id: ContextId,
        data: Map<String, Value>,
        expected: Expected,
        now: Instant,
    ) -> Result<Version, WriteError> {
        let bytes = checked(&data)?;
        self.expire(now);
        let before = {
            let context = self.known(id, now).ok_or(WriteError::Gone)?;
            if !expected.allows(context.document.version) {
                return Err(WriteError::Conflict { current: context.document.version });
            }
            context.bytes
        };
        while self.bytes - before + bytes > self.bounds.bytes {
            // What is written to is not what is forgotten for it.
            let Some(other) = self.closed.first_for_bytes(id) else { return Err(StoreError::Full.into()) };
            self.evicted.for_bytes += 1;
            self.forget(other);
        }
        let context = self.contexts.get_mut(&id).ok_or(WriteError::Gone)?;
        self.bytes = self.bytes - before + bytes;
        context.bytes = bytes;
        if let Some(expires) = context.expires {
            self.closed.put(expires, id, bytes);
        }
        context.document = Document { data, version: context.document.version.next() };
        Ok(context.document.version)
    }

    pub(super) fn close(&mut self, id: ContextId, now: Instant) {
        self.close_for(id, self.bounds.retention, now);
    }

    /// Closes a context that is kept as long as its service says.
    pub(super) fn close_for(&mut self, id: ContextId, retention: Duration, now: Instant) {
        self.expire(now);
        let Some(context) = self.contexts.get_mut(&id).filter(|context| context.holders > 0) else { return };
        context.holders -= 1;
        if context.holders > 0 {
            return;
        }
        if context.document.version == Version::default() {
            if let Some(Context { key, user, tokens, .. }) = self.forget(id) {
                self.empties.put(key, Empty { id, user, tokens }, retention, now);
            }
            return;
        }
        let expires = now + retention;
        context.expires = Some(expires);
        self.closed.put(expires, id, context.bytes);
        let key = context.key.clone();
        self.thin(&key);
    }

    /// Keeps the closed contexts of one key within their bound.
    fn thin(&mut self, key: &ContextKey) {
        let Some(ids) = self.by_key.get(key) else { return };
        let mut closed: Vec<(Instant, ContextId)> = ids
            .iter()
            .filter_map(|id| self.contexts.get(id).map(|context| (id, context)))
            .filter_map(|(id, context)| context.expires.map(|expires| (expires, *id)))
            .collect();
        closed.sort_unstable();
        let excess = closed.len().saturating_sub(self.bounds.closed_per_key);
        for (_, id) in closed.into_iter().take(excess) {
            self.evicted.of_their_key += 1;
            self.forget(id);
        }
    }

    /// Whether a session holds it.
    pub(super) fn is_open(&self, id: ContextId) -> bool {
        self.contexts.get(&id).is_some_and(|context| context.holders > 0)
    }

    /// A context that has not expired.
    fn known(&self, id: ContextId, now: Instant) -> Option<&Context> {
        self.contexts.get(&id).filter(|context| !context.has_expired(now))
    }

    fn expire(&mut self, now: Instant) {
        for _ in 0..self.bounds.expired_at_once {
            match self.closed.first() {
                Some((expires, id)) if expires <= now => drop(self.forget(id)),
                _ => break,
            }
        }
        self.empties.expire(self.bounds.expired_at_once, now);
    }

    /// Returns whether there was one to forget.
    fn forget_oldest(&mut self) -> bool {
        let Some((_, id)) = self.closed.first() else { return false };
        self.evicted.for_contexts += 1;
        self.forget(id);
        true
    }

    fn forget(&mut self, id: ContextId) -> Option<Context> {
        let context = self.contexts.remove(&id)?;
        self.bytes -= context.bytes;
        if let Some(expires) = context.expires {
            self.closed.take(expires, id);
        }
        if let Some(ids) = self.by_key.get_mut(&context.key) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_key.remove(&context.key);
            }
        }
        Some(context)
    }
}

#[cfg(test)]
mod tests;
