//! Sessions that are over, for as long as somebody may still ask for their last outputs, or not know that they are over.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use streamfleet_session::{ResumeToken, ServiceName, SessionId};
use streamfleet_socket::outputs::AFTERLIFE;
use streamfleet_store::ContextId;

use crate::history::History;
use crate::media::Shared;

/// Sessions kept: those that end within [`AFTERLIFE`] on a worker that has a hundred of them a second.
const MAX_SESSIONS: usize = 4096;
/// Bytes of outputs kept over all of them: each may have a megabyte, and few have ten kilobytes.
const MAX_BYTES: usize = 32 << 20;

/// Sessions given up for their age when another one ends. More than one, so that they do go; few, as it is a media loop
/// that ends it, and thousands that hung up together must not stall it thirty seconds later.
const EXPIRED_AT_ONCE: usize = 8;

/// One that is over.
#[derive(Clone)]
pub(super) struct Over {
    pub(super) shared: Arc<Shared>,
    pub(super) context: ContextId,
    /// What its client will show that was away when it ended, and does not know.
    pub(super) unknown_to: Option<ResumeToken>,
}

/// The last session of each id. The one that has been over for longest goes first, be it for its age or for want of room.
#[derive(Default)]
pub(super) struct Afterlife {
    sessions: HashMap<SessionId, Entry>,
    by_age: BTreeSet<(Instant, SessionId)>,
    bytes: usize,
}

struct Entry {
    over: Over,
    ended: Instant,
    bytes: usize,
}

/// Sessions that nobody can ask for any more. Drop it where no lock is held: there may be thousands of outputs in it.
#[must_use]
#[derive(Default)]
pub(super) struct Forgotten(Vec<Arc<History>>);

impl Drop for Forgotten {
    fn drop(&mut self) {
        for history in &self.0 {
            // Readers that do not read still hold it.
            history.forget();
        }
    }
}

impl Afterlife {
    /// A session has ended.
    pub(super) fn insert(&mut self, over: Over, now: Instant) -> Forgotten {
        let mut forgotten = Forgotten::default();
        for _ in 0..EXPIRED_AT_ONCE {
            if !self.by_age.first().is_some_and(|(ended, _)| has_expired(*ended, now)) {
                break;
            }
            self.forget_oldest(&mut forgotten);
        }
        let id = over.shared.id().clone();
        if let Some(earlier) = self.remove(&id)
            && !Arc::ptr_eq(earlier.over.shared.history(), over.shared.history())
        {
            forgotten.0.push(earlier.over.shared.history().clone());
        }
        let bytes = over.shared.history().bytes();
        self.bytes += bytes;
        self.by_age.insert((now, id.clone()));
        self.sessions.insert(id, Entry { over, ended: now, bytes });
        // The newest stays, however large: one alone is within the bound of one.
        while self.sessions.len() > MAX_SESSIONS || (self.bytes > MAX_BYTES && self.sessions.len() > 1) {
            self.forget_oldest(&mut forgotten);
        }
        forgotten
    }

    /// The session that was the last of this id.
    pub(super) fn get(&self, id: &SessionId, now: Instant) -> Option<Over> {
        let entry = self.sessions.get(id).filter(|entry| !has_expired(entry.ended, now))?;
        Some(entry.over.clone())
    }

    /// Whether the last session of this id ended while the client with this token was away. It is told once: whoever
    /// comes again wants a new session.
    pub(super) fn tell(&mut self, service: &ServiceName, id: &SessionId, token: ResumeToken, now: Instant) -> bool {
        let entry = self.sessions.get_mut(id).filter(|entry| !has_expired(entry.ended, now));
        let over = entry.map(|entry| &mut entry.over).filter(|over| over.shared.service() == service);
        over.is_some_and(|over| over.unknown_to.take_if(|known| *known == token).is_some())
    }

    /// The outputs of the session that held this context, for one that goes on with it. They stay here as well until that
    /// one is [known](Self::taken_up): it may still be refused.
    pub(super) fn history(&self, id: &SessionId, context: ContextId, now: Instant) -> Option<Arc<History>> {
        let over = self.get(id, now).filter(|over| over.context == context)?;
        Some(over.shared.history().clone())
    }

    /// A session has become known: if it goes on with the outputs of the last one of its id, they are its own.
    pub(super) fn taken_up(&mut self, shared: &Shared) {
        let id = shared.id();
        let earlier = self.sessions.get(id).map(|entry| entry.over.shared.history());
        if earlier.is_some_and(|earlier| Arc::ptr_eq(earlier, shared.history())) {
            self.remove(id);
        }
    }

    fn forget_oldest(&mut self, forgotten: &mut Forgotten) {
        let Some((_, id)) = self.by_age.first().cloned() else { return };
        forgotten.0.extend(self.remove(&id).map(|entry| entry.over.shared.history().clone()));
    }

    fn remove(&mut self, id: &SessionId) -> Option<Entry> {
        let entry = self.sessions.remove(id)?;
        self.by_age.remove(&(entry.ended, id.clone()));
        self.bytes -= entry.bytes;
        Some(entry)
    }
}

fn has_expired(ended: Instant, now: Instant) -> bool {
    now.saturating_duration_since(ended) >= AFTERLIFE
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use streamfleet_handler::Transport;
    use streamfleet_session::Identity;
    use streamfleet_store::{Claim, ContextKey, ContextStore as _, Memory};

    use super::*;

    /// A session that has said so many bytes and is over.
    fn over(id: &str, context: ContextId, bytes: usize) -> Over {
        let identity = Identity::default();
        let (id, service) = (id.parse().unwrap(), "echo".parse().unwrap());
        let shared = Arc::new(Shared::new(1, id, service, Transport::WebSocket, &identity));
        let writing = shared.history().write();
        for _ in 0..bytes / 100_000 {
            shared.history().push(&json!("x".repeat(99_998))).unwrap();
        }
        drop(writing);
        Over { shared, context, unknown_to: None }
    }

    async fn contexts<const N: usize>() -> [ContextId; N] {
        let store = Memory::default();
        let key = ContextKey { service: "echo".parse().unwrap(), session: "a".parse().unwrap() };
        let mut ids = Vec::new();
        for _ in 0..N {
            ids.push(store.open(&key, &Claim::default()).await.unwrap().id);
        }
        ids.try_into().unwrap()
    }

    #[tokio::test]
    async fn a_session_is_remembered_for_a_while() {
        let ([one, two], start) = (contexts().await, Instant::now());
        let mut afterlife = Afterlife::default();
        let a: SessionId = "a".parse().unwrap();
        drop(afterlife.insert(over("a", one, 100_000), start));
        assert_eq!(afterlife.get(&a, start).unwrap().context, one);
        assert!(afterlife.get(&"b".parse().unwrap(), start).is_none());
        let later = start + Duration::from_secs(20);
        drop(afterlife.insert(over("a", two, 0), later));
        assert_eq!(afterlife.get(&a, start + AFTERLIFE).unwrap().context, two, "the last of its id, by its own age");
        assert!(afterlife.get(&a, later + AFTERLIFE).is_none());
        assert!(afterlife.history(&a, two, later + AFTERLIFE).is_none());
        drop(afterlife.insert(over("b", one, 0), later + AFTERLIFE));
        assert_eq!((afterlife.sessions.len(), afterlife.by_age.len(), afterlife.bytes), (1, 1, 0));
    }

    #[tokio::test]
    async fn a_client_that_was_away_is_told_once() {
        let ([context], start) = (contexts().await, Instant::now());
        let mut afterlife = Afterlife::default();
        let (a, echo): (SessionId, ServiceName) = ("a".parse().unwrap(), "echo".parse().unwrap());
        let [his, strange] = [1, 2].map(|n| ResumeToken::from_random([n; ResumeToken::LEN]));
        let away = |at| Over { unknown_to: Some(his), ..over("a", at, 0) };
        drop(afterlife.insert(away(context), start));
        assert!(!afterlife.tell(&echo, &"b".parse().unwrap(), his, start));
        assert!(!afterlife.tell(&"tone".parse().unwrap(), &a, his, start), "another service");
        assert!(!afterlife.tell(&echo, &a, strange, start), "whoever knows the id");
        assert!(afterlife.tell(&echo, &a, his, start));
        assert!(!afterlife.tell(&echo, &a, his, start), "once");
        drop(afterlife.insert(away(context), start));
        assert!(!afterlife.tell(&echo, &a, his, start + AFTERLIFE), "in time");
        drop(afterlife.insert(over("a", context, 0), start));
        assert!(!afterlife.tell(&echo, &a, his, start), "one that was there knows");
    }

    #[tokio::test]
    async fn outputs_go_to_whoever_goes_on_and_to_nobody_else() {
        let ([ours, strange], now) = (contexts().await, Instant::now());
        let mut afterlife = Afterlife::default();
        let a: SessionId = "a".parse().unwrap();
        drop(afterlife.insert(over("a", ours, 100_000), now));
        assert!(afterlife.history(&a, strange, now).is_none());
        let taken = afterlife.history(&a, ours, now).unwrap();
        assert_eq!(taken.recent(9).len(), 1);
        afterlife.taken_up(&over("a", strange, 0).shared);
        assert!(afterlife.get(&a, now).is_some(), "one that has the id goes on with nothing");
        let service = "echo".parse().unwrap();
        let shared = Shared::new(2, a.clone(), service, Transport::WebSocket, &Identity::default());
        afterlife.taken_up(&shared.with_history(taken));
        assert!(afterlife.get(&a, now).is_none());
        assert_eq!((afterlife.by_age.len(), afterlife.bytes), (0, 0));
    }

    #[tokio::test]
    async fn what_is_replaced_is_given_up_although_somebody_holds_it() {
        let ([one, two], now) = (contexts().await, Instant::now());
        let mut afterlife = Afterlife::default();
        let first = over("a", one, 900_000);
        drop(afterlife.insert(first.clone(), now));
        let forgotten = afterlife.insert(over("a", two, 0), now);
        assert!(first.shared.history().bytes() > 0, "not under the lock");
        drop(forgotten);
        assert_eq!(first.shared.history().bytes(), 0);

        let second = over("b", one, 900_000);
        drop(afterlife.insert(second.clone(), now));
        drop(afterlife.insert(second.clone(), now));
        assert!(second.shared.history().bytes() > 0, "its outputs are those of the one it replaces");
    }

    /// Thousands that hang up together cost no later session more than a few of them.
    #[tokio::test]
    async fn sessions_that_ended_together_are_given_up_a_few_at_a_time() {
        let ([context], start) = (contexts().await, Instant::now());
        let mut afterlife = Afterlife::default();
        for n in 0..100 {
            drop(afterlife.insert(over(&format!("s{n}"), context, 0), start));
        }
        let later = start + AFTERLIFE;
        for n in 0..20 {
            let forgotten = afterlife.insert(over(&format!("t{n}"), context, 0), later);
            assert!(forgotten.0.len() <= EXPIRED_AT_ONCE, "{}", forgotten.0.len());
            for n in 0..100 {
                assert!(afterlife.get(&format!("s{n}").parse().unwrap(), later).is_none(), "none is known any more");
            }
        }
        assert_eq!(afterlife.sessions.len(), 20, "and all of them go");
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let ([context], start) = (contexts().await, Instant::now());
        let mut afterlife = Afterlife::default();
        let first = over("first", context, 900_000);
        drop(afterlife.insert(first.clone(), start));
        for n in 0..MAX_BYTES / 900_000 + 1 {
            let at = start + Duration::from_millis(n as u64 + 1);
            drop(afterlife.insert(over(&format!("s{n}"), context, 900_000), at));
            assert!(afterlife.bytes <= MAX_BYTES);
        }
        assert_eq!(first.shared.history().bytes(), 0, "given up, although somebody holds it");
        for n in 0..MAX_SESSIONS + 5 {
            drop(afterlife.insert(over(&format!("t{n}"), context, 0), start + Duration::from_secs(1)));
            assert!(afterlife.sessions.len() <= MAX_SESSIONS);
        }
        assert_eq!((afterlife.by_age.len(), afterlife.bytes), (MAX_SESSIONS, 0));
    }
}
