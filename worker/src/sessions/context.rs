//! What is remembered of a conversation: opened with its session, closed with it.

use std::sync::Arc;

use streamfleet_handler as sdk;
use streamfleet_session::wire::Failure;
use streamfleet_session::{Identity, ResumeToken, ServiceName};
use streamfleet_store::{Claim, ContextId, ContextKey, ContextStore, Delivery, Issued, Opened, Sharing, StoreError};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::{OVERLOADED, Sessions};
use crate::admission::{Entry, Slot};

/// Whether a session goes on where an earlier one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resumed {
    Yes,
    No,
}

/// A session's hold on its context, which it closes when it is dropped.
pub(super) struct Held {
    store: Arc<dyn ContextStore>,
    id: ContextId,
    issued: Issued,
    tasks: TaskTracker,
    /// Sessions are dropped on their media loops, where there is no runtime.
    runtime: Handle,
}

impl Held {
    /// Its name in the store.
    pub(super) fn id(&self) -> ContextId {
        self.id
    }

    /// What the client must show to resume.
    pub(super) fn token(&self) -> ResumeToken {
        self.issued.token
    }

    /// The same, with its place among those before and after it.
    pub(super) fn issued(&self) -> Issued {
        self.issued
    }

    /// What there is to say when the client has arrived.
    pub(super) fn arrival(&self) -> Arrival {
        Arrival { store: self.store.clone(), id: self.id, token: self.token() }
    }

    /// The document, as a handler reads and writes it.
    pub(super) fn data(&self) -> sdk::Data {
        sdk::Data::new(self.store.clone(), self.id)
    }
}

/// That a client which moves has come with what it was given.
pub(super) struct Arrival {
    store: Arc<dyn ContextStore>,
    id: ContextId,
    token: ResumeToken,
}

impl Arrival {
    /// Tells the store. False if the client has gone another way since.
    pub(super) async fn confirm(&self, delivery: Delivery) -> bool {
        self.store.confirm(self.id, &self.token, delivery).await.unwrap_or_else(|error| {
            // It is here, whatever can be written down of that.
            tracing::warn!(id = ?self.id, %error, "a resume token was not confirmed");
            true
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let (store, id) = (self.store.clone(), self.id);
        let close = async move {
            if let Err(error) = store.close(id).await {
                tracing::warn!(?id, %error, "a context was not closed");
            }
        };
        self.tasks.spawn_on(close, &self.runtime);
    }
}

impl Sessions {
    /// Opens the context of a session that is about to begin: an earlier one's if its client shows that it was there.
    ///
    /// # Errors
    /// To take over from a live session, its client has to show that it is its own: to anybody else the id is in use.
    pub(super) async fn context(
        &self,
        service: &ServiceName,
        slot: &Slot,
        identity: &Identity,
        token: Option<ResumeToken>,
    ) -> Result<(Held, Resumed), Failure> {
        let key = ContextKey { service: service.clone(), session: slot.id().clone() };
        // A user who merely says so claims nothing.
        let user = identity.user_id.clone().filter(|_| identity.verified.is_verified());
        let (store, tasks) = (self.inner.contexts.clone(), self.inner.tasks.clone());
        let (claim, entry) = (Claim { token, user }, slot.entry());
        let opening = async move {
            let Opened { id, resumed, token, generation, .. } = opened(&*store, &key, &claim, entry).await?;
            let held = Held { store, id, issued: Issued { token, generation }, tasks, runtime: Handle::current() };
            Ok((held, if resumed { Resumed::Yes } else { Resumed::No }))
        };
        // In a task of its own: whoever asked may be gone by the time that the store has answered, and what it has opened is
        // closed by being dropped.
        self.inner.tasks.spawn(opening.in_current_span()).await.unwrap_or_else(|error| {
            tracing::error!(%error, "a context was not opened");
            Err(Failure::Internal)
        })
    }
}

async fn opened(store: &dyn ContextStore, key: &ContextKey, claim: &Claim, entry: Entry) -> Result<Opened, Failure> {
    let opened = match entry {
        Entry::New => store.open(key, claim).await,
        Entry::TakeOver => match store.share(key, claim).await {
            Ok(Sharing::Opened(opened)) => Ok(opened),
            Ok(Sharing::Refused) => return Err(Failure::ConnectionAlreadyExists),
            // The session has ended since its client was let in beside it: it goes on behind it like any other.
            Ok(Sharing::Nobody) => store.open(key, claim).await,
            Err(error) => Err(error),
        },
    };
    opened.map_err(|error| match error {
        StoreError::Full => Failure::NoCapacity { retry_after: OVERLOADED },
        StoreError::Unavailable(_) | StoreError::Schema { .. } => Failure::UpstreamUnavailable,
    })
}
