//! Which workers there are: registrations, leases, and what a worker is asked to do.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use streamfleet_session::{CloseReason, ServiceName, SessionId};

use crate::context::StoreError;
use crate::traffic::{Traffic, Waits};
use crate::words::{Epoch, LastWords, Order, Owner, RouterId, Ticket, TrackId, WorkerId};

/// The most sessions of one service that are placed on a worker. Its end is one step, during which a Redis serves nobody
/// else: with so many about 0.1 s. Pods are far smaller than this, so that draining one does not take a day.
pub const MAX_CAPACITY: u32 = 2048;

/// Why a worker's word was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// Another registration of the name is in force, and this one owns nothing any more. A later one is another process's; an earlier one
    /// is that of a store that has lost its last writes: register and restore.
    #[error("registered in epoch {current}")]
    Fenced {
        /// The epoch that may write.
        current: Epoch,
    },
    /// The store does not know the worker: its lease ran out, or the store lost what it held. Register and restore.
    #[error("not registered")]
    Unregistered,
    /// The store cannot say.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether somebody takes new sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// It does.
    #[default]
    Open,
    /// It finishes those that it has.
    Draining,
    /// It asks the clients of those that it has to connect elsewhere, and finishes those that stay.
    Leaving,
}

/// What a worker says about itself with each renewal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Sessions that it takes; more than [`MAX_CAPACITY`] is that.
    pub capacity: u32,
    /// Sessions that run, by its own count.
    pub active: u32,
    /// Places given to offers that it has not answered yet.
    pub reserved: u32,
    /// Whether it takes sessions: it drains of its own accord, or as it was asked to in the order that it has [heard](Self::heard).
    pub gate: Gate,
    /// The last order that it obeys. What it says of its sessions was counted after that, so an order's effect can be told from
    /// what was so before.
    #[serde(default, skip_serializing_if = "Order::is_none")]
    pub heard: Order,
    /// Where routers reach it: `host:port`.
    pub http: String,
    /// Where clients' media reaches it: `host:port` each.
    pub media: Vec<String>,
    /// Of its program.
    pub version: String,
    /// Which variant of the service it serves; `None` for the service itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// What is asked of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Demand {
    /// To end, for this reason.
    End(CloseReason),
    /// To end as if its own handler had ended it, with this for its client.
    EndStream(#[serde(with = "crate::text")] LastWords),
    /// To close one track and go on.
    CloseTrack(#[serde(with = "crate::text")] TrackId),
}

/// A demand and the session that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Which session.
    pub ticket: Ticket,
    /// Its id.
    pub session: SessionId,
    /// What it shall do.
    pub demand: Demand,
}

/// All that is asked of a worker. It is told again with every renewal until it has done it, so nothing hangs on a wake-up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orders {
    /// Whether somebody wants it drained.
    pub gate: Gate,
    /// Which order that is.
    pub order: Order,
    /// What its sessions shall do.
    pub asked: Vec<Asked>,
}

/// A worker as routers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// Its name and registration.
    pub owner: Owner,
    /// What it last said; `None` until it has said that it is ready.
    pub said: Option<Heartbeat>,
    /// Whether it takes sessions: neither it nor anybody else wants it drained.
    pub gate: Gate,
    /// The last order that it was given. It may not have [heard](Heartbeat::heard) it.
    pub order: Order,
    /// Sessions and reservations that the store holds for it.
    pub sessions: u32,
    /// Since its last renewal, by the store's clock.
    pub age: Duration,
}

impl WorkerView {
    /// Whether it can be taken away without anybody noticing: it takes no session, the store holds none for it, and it has said
    /// itself that it has none *after* it had heard the last order, so that none can have come to it since. What it said before
    /// proves nothing: a router that cannot reach the store brings sessions without a claim, and one that was put back takes them.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let says_so = |said: &Heartbeat| said.gate != Gate::Open && said.active == 0 && said.reserved == 0;
        self.gate != Gate::Open && self.sessions == 0 && self.has_heard() && self.said.as_ref().is_some_and(says_so)
    }

    /// Whether what it said last it has said after it had heard the last order.
    #[must_use]
    pub fn has_heard(&self) -> bool {
        self.said.as_ref().is_some_and(|said| said.heard == self.order)
    }
}

/// For how long after a worker has come [again](Entry::Again) others may still have sessions that the store does not know, as a rule: a
/// connection that was broken is tried every 2 s at last and has a second to be made, and then a worker registers within half a second. One
/// that needs longer, as where Sentinels choose, is late.
pub const SETTLING: Duration = Duration::from_secs(4);

/// Whether a worker that registers has been here before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It begins, and the store was there for it at once.
    New,
    /// Its process was registered before, or has found the store away. Where that has forgotten one worker, it may have forgotten all.
    Again,
}

/// Whether the store knows all sessions that live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settling {
    /// It does.
    Done,
    /// For so long it may not: [`SETTLING`] after a worker has come [again](Entry::Again), and others have not.
    For(Duration),
    /// There is no worker that could have said.
    Nobody,
}

/// Registrations and leases of a service's workers.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// A worker begins. Sessions of an earlier registration of the same name are over.
    ///
    /// It is given no session before its first renewal, so that it can [`restore`](crate::Sessions::restore) what it
    /// already has.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn register(&self, service: &ServiceName, worker: &WorkerId, entry: Entry) -> Result<Epoch, StoreError>;

    /// Whether the store knows all sessions that live. While it may not, who says that one is his own is to be believed, and
    /// [waits](crate::Claimed::Settling).
    ///
    /// # Errors
    /// [`StoreError`].
    async fn settling(&self, service: &ServiceName) -> Result<Settling, StoreError>;

    /// A worker lives. Returns what it shall do.
    ///
    /// # Errors
    /// [`FleetError`]; the lease is not renewed then.
    async fn renew(&self, service: &ServiceName, owner: &Owner, beat: &Heartbeat) -> Result<Orders, FleetError>;

    /// A worker goes. What it still had is over.
    ///
    /// # Errors
    /// [`FleetError`].
    async fn leave(&self, service: &ServiceName, owner: &Owner) -> Result<(), FleetError>;

    /// The workers of a service whose leases hold, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn workers(&self, service: &ServiceName) -> Result<Vec<WorkerView>, StoreError>;

    /// Asks a worker to drain, to leave, or to serve again. Claims obey at once, the worker with its next renewal. Returns
    /// whether there is such a worker.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn ask_gate(&self, service: &ServiceName, worker: &WorkerId, gate: Gate) -> Result<bool, StoreError>;

    /// How many sessions have come and gone, and how many calls wait for a worker at present.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn traffic(&self, service: &ServiceName) -> Result<Traffic, StoreError>;

    /// A router says how many calls wait with it for a worker, and how many it has refused since. What waits counts for
    /// [`HELD_LEASE`](crate::HELD_LEASE), or until its next word; 0 takes it back at once. Whoever listens to the
    /// [directory](crate::Topic::Directory) is woken when it begins and when it is over. Beyond
    /// [`MAX_HOLDERS`](crate::MAX_HOLDERS) routers the one is forgotten that has told first.
    ///
    /// # Errors
    /// [`StoreError`]; it may have been heard all the same.
    async fn hold(&self, service: &ServiceName, router: &RouterId, waits: Waits) -> Result<(), StoreError>;

    /// For which services calls wait, and how many: all of them at once, for whoever has many services without any worker.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn held(&self) -> Result<Vec<(ServiceName, u32)>, StoreError>;
}
