//! What is remembered of a conversation: opened with its session, closed with it.

use std::sync::Arc;

use streamfleet_handler as sdk;
use streamfleet_session::wire::Failure;
use streamfleet_session::{Identity, ResumeToken, ServiceName, SessionId};
use streamfleet_store::{Claim, ContextId, ContextKey, ContextStore, StoreError};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::{OVERLOADED, Sessions};

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
    token: ResumeToken,
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
        self.token
    }

    /// The document, as a handler reads and writes it.
    pub(super) fn data(&self) -> sdk::Data {
        sdk::Data::new(self.store.clone(), self.id)
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
    pub(super) async fn context(
        &self,
        service: &ServiceName,
        session: &SessionId,
        identity: &Identity,
        token: Option<ResumeToken>,
    ) -> Result<(Held, Resumed), Failure> {
        let key = ContextKey { service: service.clone(), session: session.clone() };
        // A user who merely says so claims nothing.
        let user = identity.user_id.clone().filter(|_| identity.verified.is_verified());
        let store = self.inner.contexts.clone();
        let opened = store.open(&key, &Claim { token, user }).await.map_err(|error| match error {
            StoreError::Full => Failure::NoCapacity { retry_after: OVERLOADED },
            StoreError::Unavailable(_) => Failure::UpstreamUnavailable,
        })?;
        let tasks = self.inner.tasks.clone();
        let held = Held { store, id: opened.id, token: opened.token, tasks, runtime: Handle::current() };
        Ok((held, if opened.resumed { Resumed::Yes } else { Resumed::No }))
    }
}
