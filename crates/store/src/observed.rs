//! A store whose answers somebody counts and times: metrics belong to whoever uses it, and none of them are known here.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use streamfleet_session::{CloseReason, ResumeToken, ServiceName, SessionId};
use tokio::time::Instant;

use crate::Store;
use crate::calls::Calls;
use crate::context::{
    Claim, ContextId, ContextKey, ContextStore, Delivery, Expected, Issued, Opened, Sharing, StoreError, WriteError,
};
use crate::directory::{Demand, Directory, Entry, FleetError, Gate, Heartbeat, Orders, Settling, WorkerView};
use crate::document::{Document, Version};
use crate::outputs::{Appended, Batch, Outputs, Read, Seen, Whose};
use crate::sessions::{
    ClaimRequest, Claimed, Filter, Held, Outcome, Page, Pending, Phase, Restoration, Restored, SessionView, Sessions,
    Told, TrackResult,
};
use crate::traffic::{Traffic, Waits};
use crate::wake::{Listener, Topic, Wakeups};
use crate::words::{Epoch, Owner, RouterId, Ticket, TrackId, WorkerId};

/// How a store has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answered {
    /// It has; that may have been a refusal.
    Yes,
    /// It could not: it was away, full, or another release's.
    No,
}

/// Who is told of each answer. The command is the name of the trait's method, so there are as many as these have.
pub trait Observer: Send + Sync + 'static {
    /// A command was answered after so long.
    fn answered(&self, command: &'static str, answered: Answered, after: Duration);
}

trait Answer {
    fn answered(&self) -> Answered;
}

impl<T> Answer for Result<T, StoreError> {
    fn answered(&self) -> Answered {
        if self.is_ok() { Answered::Yes } else { Answered::No }
    }
}

impl<T> Answer for Result<T, FleetError> {
    fn answered(&self) -> Answered {
        if matches!(self, Err(FleetError::Store(_))) { Answered::No } else { Answered::Yes }
    }
}

impl<T> Answer for Result<T, WriteError> {
    fn answered(&self) -> Answered {
        if matches!(self, Err(WriteError::Store(_))) { Answered::No } else { Answered::Yes }
    }
}

/// A store with an observer.
pub struct Observed<O> {
    inner: Arc<dyn Store>,
    observer: Arc<O>,
}

impl<O: Observer> Observed<O> {
    /// Tells `observer` of each answer of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, observer: Arc<O>) -> Self {
        Self { inner, observer }
    }
}

/// The contexts of a service, with an observer.
struct ObservedContexts<O> {
    inner: Arc<dyn ContextStore>,
    observer: Arc<O>,
}

macro_rules! observed {
    ($of:ident, $($name:ident($($argument:ident: $type:ty),*) -> $output:ty;)+) => {
        #[async_trait]
        impl<O: Observer> $of for observed!(@ $of) {
            $(async fn $name(&self, $($argument: $type),*) -> $output {
                let begun = Instant::now();
                let answer = self.inner.$name($($argument),*).await;
                self.observer.answered(stringify!($name), answer.answered(), begun.elapsed());
                answer
            })+
        }
    };
    (@ ContextStore) => { ObservedContexts<O> };
    (@ $of:ident) => { Observed<O> };
}

crate::commands!(observed);

impl<O: Observer> Wakeups for Observed<O> {
    fn listen(&self, service: &ServiceName, topic: Topic) -> Listener {
        self.inner.listen(service, topic)
    }
}

impl<O: Observer> Store for Observed<O> {
    fn contexts(self: Arc<Self>, service: &ServiceName) -> Arc<dyn ContextStore> {
        let inner = self.inner.clone().contexts(service);
        Arc::new(ObservedContexts { inner, observer: self.observer.clone() })
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::memory::Memory;

    #[derive(Default)]
    struct Notes(Mutex<Vec<(&'static str, Answered)>>);

    impl Observer for Notes {
        fn answered(&self, command: &'static str, answered: Answered, _: Duration) {
            self.0.lock().push((command, answered));
        }
    }

    #[tokio::test]
    async fn each_answer_is_told_and_a_refusal_is_one() {
        let notes = Arc::new(Notes::default());
        let store = Arc::new(Observed::new(Arc::new(Memory::default()), notes.clone()));
        let service: ServiceName = "echo".parse().unwrap();
        let worker: WorkerId = "a".parse().unwrap();
        let epoch = store.register(&service, &worker, Entry::New).await.unwrap();
        let stranger = Owner { worker: "b".parse().unwrap(), epoch };
        assert_eq!(store.leave(&service, &stranger).await, Err(FleetError::Unregistered));
        let contexts = store.clone().contexts(&service);
        contexts.find(&ContextKey { service, session: "s".parse().unwrap() }).await.unwrap();
        let expected = [("register", Answered::Yes), ("leave", Answered::Yes), ("find", Answered::Yes)];
        assert_eq!(*notes.0.lock(), expected);
        let away = || StoreError::Unavailable("it is away".to_owned());
        assert_eq!(Err::<(), _>(FleetError::Store(away())).answered(), Answered::No);
        assert_eq!(Err::<(), _>(WriteError::Store(away())).answered(), Answered::No);
        assert_eq!(Err::<(), _>(away()).answered(), Answered::No);
    }
}
