//! A store that can be away, and slow to write.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use streamfleet_session::{CloseReason, ResumeToken, ServiceName, SessionId};
use streamfleet_store::{
    Appended, Batch, Calls, Claim, ClaimRequest, Claimed, ContextId, ContextKey, ContextStore, Delivery, Demand,
    Directory, Document, Entry, Epoch, Expected, Filter, FleetError, Gate, Heartbeat, Held, Issued, Listener, Memory,
    Opened, Orders, Outcome, Outputs, Owner, Page, Pending, Phase, Read, Restoration, Restored, RouterId, Seen,
    SessionView, Sessions, Settling, Sharing, Store, StoreError, Ticket, Told, Topic, TrackId, TrackResult, Traffic,
    Version, Waits, Wakeups, Whose, WorkerId, WorkerView, WriteError,
};

/// More than any scene asks.
const TOO_OFTEN: usize = 100_000;

#[derive(Default)]
pub(crate) struct Fickle {
    pub(crate) memory: Arc<Memory>,
    pub(crate) away: AtomicBool,
    /// How long it takes to write a context.
    pub(crate) writing: Mutex<Duration>,
    /// By command.
    asked: Mutex<HashMap<&'static str, usize>>,
}

impl Fickle {
    /// How often it was asked for this, whether it was there or not.
    pub(crate) fn asked(&self, command: &str) -> usize {
        self.asked.lock().get(command).copied().unwrap_or_default()
    }

    async fn hear(&self, command: &'static str) -> Result<&Memory, StoreError> {
        {
            let mut asked = self.asked.lock();
            let count = asked.entry(command).or_default();
            *count += 1;
            // Whoever never rests would stand still in virtual time.
            assert!(*count < TOO_OFTEN, "{command} without end");
        }
        if self.away.load(Relaxed) {
            return Err(StoreError::Unavailable("away".to_owned()));
        }
        let takes = *self.writing.lock();
        if command == "write" && !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        Ok(&self.memory)
    }
}

macro_rules! fickle {
    ($of:ident, $($name:ident($($argument:ident: $type:ty),*) -> $output:ty;)+) => {
        #[async_trait]
        impl $of for Fickle {
            $(async fn $name(&self, $($argument: $type),*) -> $output {
                self.hear(stringify!($name)).await?.$name($($argument),*).await
            })+
        }
    };
}

streamfleet_store::commands!(fickle);

impl Wakeups for Fickle {
    fn listen(&self, service: &ServiceName, topic: Topic) -> Listener {
        self.memory.listen(service, topic)
    }
}

impl Store for Fickle {
    fn contexts(self: Arc<Self>, _: &ServiceName) -> Arc<dyn ContextStore> {
        self
    }
}
