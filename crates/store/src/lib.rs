//! What a fleet knows together.
//!
//! | trait | noun |
//! |---|---|
//! | [`Directory`] | workers: registrations, leases, what they are asked to do; [`Traffic`]: how many sessions come and go |
//! | [`Sessions`] | who has which id, and on which worker; what anybody asks of a session |
//! | [`Outputs`] | additional outputs, readable anywhere |
//! | [`Calls`] | which session a telephone call has |
//! | [`ContextStore`] | what handlers and backends have written about a session, [`Document`]s of JSON with versions |
//! | [`Wakeups`] | that something may have changed |
//! | [`Users`] | logins of single services, where the store has such |
//!
//! [`Store`] is all of them but the last. [`Memory`] is the store of a process that stands alone, [`RedisStore`] that of a fleet. One suite of rules
//! holds for both (`tests/`).
//!
//! Who gets a context back is decided here, because it is the one place that all transports and all processes ask: the
//! client with the context's one-time token, or the same verified user, never somebody who merely knows the session's
//! id ([`Claim`]).
//!
//! One owner writes what a session is: its worker, under the epoch of its registration. Routers claim places, anybody
//! asks for an end. A session lives as long as its worker's lease, which is renewed for the worker and not for each
//! session.
//!
//! What is absent: media, HTTP, the choice of a worker (a claim brings a ranked list).

use std::sync::Arc;

use streamfleet_session::ServiceName;

mod backend;
mod calls;
mod commands;
#[cfg(feature = "config")]
pub mod config;
mod context;
mod control;
mod directory;
mod document;
mod memory;
mod observed;
mod outputs;
mod redis;
mod sessions;
mod settle;
mod text;
mod traffic;
mod users;
mod wake;
mod words;

pub use backend::Backend;
pub use calls::{Calls, MAX_CALLS};

pub use crate::redis::{Address, Arrangement, Login, RIGHTS, RedisConfig, RedisStore, Tls};
pub use context::{
    Claim, ContextId, ContextKey, ContextStore, Delivery, Expected, Generation, Issued, Opened, Sharing, StoreError,
    WriteError,
};
pub use control::{Done, Listed, carry_out};
pub use directory::{
    Asked, Demand, Directory, Entry, FleetError, Gate, Heartbeat, MAX_CAPACITY, Orders, SETTLING, Settling, WorkerView,
};
pub use document::{Document, InvalidData, InvalidTag, MAX_DATA_BYTES, MAX_DATA_DEPTH, Version, checked, merge};
pub use memory::{Bounds, EMPTY_RETENTION, Memory, TOKEN_GRACE, Usage};
pub use observed::{Answered, Observed, Observer};
pub use outputs::{Appended, Batch, MAX_EARLIER, MAX_OUTPUTS, MAX_OUTPUTS_BYTES, MAX_READ, Outputs, Read, Seen, Whose};
pub use sessions::{
    Account, ClaimRequest, Claimed, Filter, Held, Kept, LiveSession, MAX_BATCH, MAX_PAGE, MAX_QUOTAS, MAX_RANKED,
    Outcome, Page, Pending, Phase, Placement, Quota, Reach, Restoration, Restored, SessionView, Sessions, Told,
    TrackResult,
};
pub use settle::settle;
pub use traffic::{HELD_LEASE, MAX_HOLDERS, MAX_WORDS, RECENT, Traffic, Waits};
pub use users::{Users, user_of};
pub use wake::{Listener, Topic, Wakeups};
pub use words::{
    Epoch, InvalidLastWords, InvalidName, LastWords, Order, Owner, PinValue, RouterId, Terms, Ticket, TrackId, WorkerId,
};

/// A fleet's store.
pub trait Store: Directory + Sessions + Outputs + Calls + Wakeups {
    /// The contexts of a service's sessions. A claim opens its session's context and its end closes it; whoever opens one
    /// here closes it here.
    fn contexts(self: Arc<Self>, service: &ServiceName) -> Arc<dyn ContextStore>;
}

impl Store for Memory {
    fn contexts(self: Arc<Self>, _: &ServiceName) -> Arc<dyn ContextStore> {
        self
    }
}

impl Store for RedisStore {
    fn contexts(self: Arc<Self>, service: &ServiceName) -> Arc<dyn ContextStore> {
        self.contexts_of(service)
    }
}
