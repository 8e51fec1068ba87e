//! What is remembered of a conversation: opened with its session, closed with it.

use std::sync::Arc;

use streamfleet_handler as sdk;
use streamfleet_session::wire::Failure;
use streamfleet_session::{CloseReason, Identity, ResumeToken, ServiceName};
use streamfleet_store::{
    Claim, ContextId, ContextKey, ContextStore, Delivery, Held as Standing, Issued, Opened, Sharing, StoreError,
};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::{OVERLOADED, Sessions};
use crate::admission::{Entry, Slot};
use crate::fleet::Place;

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
    by: By,
}

/// Who has opened it, and therefore closes it.
enum By {
    /// This process.
    Us {
        tasks: TaskTracker,
        /// Sessions are dropped on their media loops, where there is no runtime.
        runtime: Handle,
    },
    /// The claim of a router; the session's end closes it.
    Claim(Box<Place>),
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
        match &self.by {
            By::Us { .. } => Arrival::Here { store: self.store.clone(), id: self.id, token: self.token() },
            By::Claim(place) => Arrival::InFleet(place.arrival()),
        }
    }

    /// Its session's place in the fleet, if it has one.
    pub(super) fn place(&self) -> Option<&Place> {
        match &self.by {
            By::Us { .. } => None,
            By::Claim(place) => Some(place),
        }
    }

    /// Its session has ended, for this reason.
    pub(super) fn over(&mut self, reason: CloseReason) {
        if let By::Claim(place) = &mut self.by {
            place.over(reason);
        }
    }

    /// The document, as a handler reads and writes it.
    pub(super) fn data(&self) -> sdk::Data {
        sdk::Data::new(self.store.clone(), self.id)
    }
}

/// That a client which moves has come with what it was given.
pub(super) enum Arrival {
    /// The store is told.
    Here { store: Arc<dyn ContextStore>, id: ContextId, token: ResumeToken },
    /// The fleet is told that the session is active, and says so.
    InFleet(oneshot::Receiver<Standing>),
}

impl Arrival {
    /// Tells the store. False if the client has gone another way since.
    pub(super) async fn confirm(self, delivery: Delivery) -> bool {
        match self {
            Self::Here { store, id, token } => store.confirm(id, &token, delivery).await.unwrap_or_else(|error| {
                // It is here, whatever can be written down of that.
                tracing::warn!(?id, %error, "a resume token was not confirmed");
                true
            }),
            // Nobody says anything of a session that is over.
            Self::InFleet(heard) => heard.await == Ok(Standing::Yes),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let By::Us { tasks, runtime } = &self.by else { return };
        let (store, id) = (self.store.clone(), self.id);
        let close = async move {
            if let Err(error) = store.close(id).await {
                tracing::warn!(?id, %error, "a context was not closed");
            }
        };
        tasks.spawn_on(close, runtime);
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
        place: Option<Place>,
    ) -> Result<(Held, Resumed), Failure> {
        let store = self.contexts_of(service);
        if let Some(place) = place {
            let resumed = if place.placed().context.resumed { Resumed::Yes } else { Resumed::No };
            let (id, issued) = (place.context(), place.issued());
            return Ok((Held { store, id, issued, by: By::Claim(Box::new(place)) }, resumed));
        }
        let key = ContextKey { service: service.clone(), session: slot.id().clone() };
        // A user who merely says so claims nothing.
        let user = identity.user_id.clone().filter(|_| identity.verified.is_verified());
        let tasks = self.inner.tasks.clone();
        let (claim, entry) = (Claim { token, user }, slot.entry());
        let opening = async move {
            let Opened { id, resumed, token, generation, .. } = opened(&*store, &key, &claim, entry).await?;
            let by = By::Us { tasks, runtime: Handle::current() };
            let held = Held { store, id, issued: Issued { token, generation }, by };
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
        StoreError::Unavailable(_) | StoreError::NoMemory | StoreError::Refused(_) | StoreError::Schema { .. } => {
            Failure::UpstreamUnavailable
        }
    })
}
