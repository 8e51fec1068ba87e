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
    Directory, Document, Epoch, Expected, Filter, FleetError, Gate, Heartbeat, Held, Issued, Listener, Memory, Opened,
    Orders, Outcome, Outputs, Owner, Page, Pending, Phase, Read, Restoration, Restored, RouterId, Seen, SessionView,
    Sessions, Sharing, Store, StoreError, Ticket, Told, Topic, TrackId, TrackResult, Traffic, Version, Waits, Wakeups,
    Whose, WorkerId, WorkerView, WriteError,
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

fickle! { Directory,
    register(service: &ServiceName, worker: &WorkerId) -> Result<Epoch, StoreError>;
    renew(service: &ServiceName, owner: &Owner, beat: &Heartbeat) -> Result<Orders, FleetError>;
    leave(service: &ServiceName, owner: &Owner) -> Result<(), FleetError>;
    workers(service: &ServiceName) -> Result<Vec<WorkerView>, StoreError>;
    ask_gate(service: &ServiceName, worker: &WorkerId, gate: Gate) -> Result<bool, StoreError>;
    traffic(service: &ServiceName) -> Result<Traffic, StoreError>;
    hold(service: &ServiceName, router: &RouterId, waits: Waits) -> Result<(), StoreError>;
    held() -> Result<Vec<(ServiceName, u32)>, StoreError>;
}

fickle! { Sessions,
    claim(service: &ServiceName, request: &ClaimRequest) -> Result<Claimed, StoreError>;
    release(service: &ServiceName, ticket: Ticket) -> Result<(), StoreError>;
    report(service: &ServiceName, owner: &Owner, ticket: Ticket, phase: Phase, detail: &Map<String, Value>)
        -> Result<Held, FleetError>;
    end(service: &ServiceName, owner: &Owner, ticket: Ticket, reason: CloseReason) -> Result<(), FleetError>;
    restore(service: &ServiceName, owner: &Owner, sessions: &[Restored]) -> Result<Vec<Restoration>, FleetError>;
    ask(service: &ServiceName, session: &SessionId, context: Option<ContextId>, demand: &Demand)
        -> Result<Told, StoreError>;
    acknowledge(service: &ServiceName, owner: &Owner, ticket: Ticket, track: &TrackId, result: TrackResult)
        -> Result<(), FleetError>;
    outcome(service: &ServiceName, pending: &Pending) -> Result<Option<Outcome>, StoreError>;
    reap(service: &ServiceName) -> Result<u32, StoreError>;
    session(service: &ServiceName, session: &SessionId) -> Result<Option<SessionView>, StoreError>;
    list(service: &ServiceName, filter: &Filter) -> Result<Page, StoreError>;
}

fickle! { Outputs,
    append(service: &ServiceName, owner: &Owner, ticket: Ticket, batch: &Batch<'_>) -> Result<Appended, FleetError>;
    outputs(service: &ServiceName, whose: Whose<'_>, seen: Option<Seen>) -> Result<Option<Read>, StoreError>;
}

fickle! { Calls,
    enter_call(service: &ServiceName, call: u128, session: &SessionId) -> Result<bool, StoreError>;
    session_of_call(service: &ServiceName, call: u128) -> Result<Option<SessionId>, StoreError>;
}

fickle! { ContextStore,
    open(key: &ContextKey, claim: &Claim) -> Result<Opened, StoreError>;
    find(key: &ContextKey) -> Result<Option<ContextId>, StoreError>;
    rotate(key: &ContextKey, token: &ResumeToken) -> Result<Option<Issued>, StoreError>;
    share(key: &ContextKey, claim: &Claim) -> Result<Sharing, StoreError>;
    confirm(id: ContextId, token: &ResumeToken, delivery: Delivery) -> Result<bool, StoreError>;
    verify(key: &ContextKey, token: &ResumeToken) -> Result<Option<ContextId>, StoreError>;
    read(id: ContextId) -> Result<Option<Document>, StoreError>;
    write(id: ContextId, data: Map<String, Value>, expected: Expected) -> Result<Version, WriteError>;
    close(id: ContextId) -> Result<(), StoreError>;
}

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
