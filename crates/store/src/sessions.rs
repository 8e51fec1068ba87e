//! Which sessions there are: claims by routers, what owners make of them, and what anybody asks of them.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use streamfleet_session::{CloseReason, ResumeToken, ServiceName, SessionId, UserId};

use crate::context::{Claim, ContextId, Delivery, Issued, Opened, StoreError};
use crate::directory::{Demand, FleetError};
use crate::document::Version;
use crate::words::{Epoch, Owner, PinValue, Ticket, TrackId, WorkerId};

/// Workers that a claim may name. Beyond the first few a fleet is full, and the list is sent with every offer.
pub const MAX_RANKED: usize = 64;
/// Sessions that are restored in one step: some milliseconds of the store's time.
pub const MAX_BATCH: usize = 64;
/// Sessions that one page lists.
pub const MAX_PAGE: u32 = 200;

/// Accounts that a claim may count on: its user's, and its address's.
pub const MAX_QUOTAS: usize = 2;

/// How often somebody may claim, at whichever router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Whose account.
    pub of: Account,
    /// Claims a minute, all of which may come at once.
    pub per_minute: NonZeroU32,
}

/// Whose claims are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Account {
    /// An address, or a range of them that is one subscriber's.
    Address(IpAddr),
    /// A user who is proved to be who he is.
    User(UserId),
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "address:{address}"),
            Self::User(user) => write!(f, "user:{user}"),
        }
    }
}

/// A router's claim on a place for a session.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// The session's own name.
    pub ticket: Ticket,
    /// Its id, which must be nobody else's.
    pub session: SessionId,
    /// Who it counts for, proven or not.
    pub user: Option<UserId>,
    /// What its client shows for an earlier context.
    pub claim: Claim,
    /// The name of the context, should it be a new one.
    pub context: ContextId,
    /// The token for the next session.
    pub token: ResumeToken,
    /// How far that is on its way once the session's client has connected.
    pub delivery: Delivery,
    /// Sessions of the service at a time.
    pub service_limit: Option<NonZeroU32>,
    /// Sessions of the user at a time.
    pub user_limit: Option<NonZeroU32>,
    /// What it must be together with.
    pub pin: Option<PinValue>,
    /// On whose accounts it counts as one more claim; of more than [`MAX_QUOTAS`] the rest is ignored. They are looked at
    /// before anything else, and counted whatever else becomes of the claim.
    pub quotas: Vec<Quota>,
    /// How long its context is kept after its end.
    pub retention: Duration,
    /// Where it would like to be, best first; of more than [`MAX_RANKED`] the rest is ignored.
    pub ranked: Vec<WorkerId>,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Claimed {
    /// It has a place, until the reservation runs out or its worker confirms it.
    Placed(Box<Placement>),
    /// A session of this id lives, and its client did not show that it is its own: as when a context is
    /// [shared](crate::ContextStore::share), by its token, and as its user where it has a verified one.
    Duplicate {
        /// Where it lives.
        at: Reach,
    },
    /// The session is the client's own and is being ended: nobody takes its place.
    Closing,
    /// Nobody is known to have the id, a token is shown, and for [so long](crate::Directory::settling) its session may live at a worker that
    /// has not told of it yet. Not so where the id's last session is known to be over, but for the loss of its worker.
    Settling(Duration),
    /// One of its accounts has claimed as often as it may, for so long.
    RateLimited(Duration),
    /// The service has as many sessions as it may.
    ServiceLimit,
    /// The user has.
    UserLimit,
    /// No worker of the list has room.
    NoCapacity {
        /// The only one that would have done, where one was pinned.
        pinned: Option<WorkerId>,
    },
}

/// A place.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// Whose.
    pub at: Reach,
    /// The epoch in which the worker gave room.
    pub epoch: Epoch,
    /// The context, an earlier session's or a new one; it is the session's and is closed with it.
    pub opened: Opened,
    /// The session that goes on until this one has connected.
    pub takes_over: Option<Ticket>,
}

/// How a worker is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Its name.
    pub worker: WorkerId,
    /// Its address for routers, `host:port`.
    pub http: String,
}

/// Where a live session is, as the store needs to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Claimed; its worker has not said anything yet.
    Reserved,
    /// Its worker has it, its client has not connected.
    Connecting,
    /// Connected.
    Active,
    /// It plays its last words.
    Ending,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 4] = [Self::Reserved, Self::Connecting, Self::Active, Self::Ending];

    /// The stable label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Connecting => "connecting",
            Self::Active => "active",
            Self::Ending => "ending",
        }
    }

    pub(crate) fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == label)
    }
}

/// Whether an owner still has what it wrote about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// It does.
    Yes,
    /// The session is over, or has to be: its reservation ran out, somebody else has its id, or its client has gone another way.
    No,
}

/// A session that its owner writes again, after the store has lost it.
#[derive(Debug, Clone)]
pub struct Restored {
    /// Its name; a new one if it was begun without the store.
    pub ticket: Ticket,
    /// Its id.
    pub session: SessionId,
    /// Who it counts for.
    pub user: Option<UserId>,
    /// What it must be together with.
    pub pin: Option<PinValue>,
    /// Where it is in its life.
    pub phase: Phase,
    /// For how long it has lived. Of two with one id the younger has to go, but for one whose client has gone on with it; ages compare where
    /// clocks do not.
    pub age: Duration,
    /// How long its context is kept after its end.
    pub retention: Duration,
    /// Its owner's description.
    pub detail: Map<String, Value>,
    /// Its context, as its owner knows it.
    pub context: Kept,
}

/// A context to be written again.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its name.
    pub id: ContextId,
    /// The verified user whose it is.
    pub user: Option<UserId>,
    /// What the next session must show, and its place among the context's tokens.
    pub issued: Issued,
    /// What it holds.
    pub data: Map<String, Value>,
    /// Its version.
    pub version: Version,
}

/// What became of a restored session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restoration {
    /// It is known again.
    Kept,
    /// Another one has its id, an older one or the one where its client has gone on: it must end.
    Superseded,
}

/// A live session.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveSession {
    /// Which.
    pub ticket: Ticket,
    /// Its id.
    pub session: SessionId,
    /// Where.
    pub at: Reach,
    /// Who it counts for.
    pub user: Option<UserId>,
    /// Its context.
    pub context: ContextId,
    /// Where it is in its life.
    pub phase: Phase,
    /// For how long it has lived.
    pub age: Duration,
    /// Its owner's description; empty until it has left one.
    pub detail: Map<String, Value>,
}

/// What the store knows of an id.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionView {
    /// It lives.
    Live(Box<LiveSession>),
    /// It has ended lately.
    Over(CloseReason),
}

/// Which sessions to list. By default the first page of all.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Those that count for this user.
    pub user: Option<UserId>,
    /// Those in this phase.
    pub phase: Option<Phase>,
    /// Those after this id: a page's [`next`](Page::next).
    pub after: Option<SessionId>,
    /// How many to look at, from 1 to [`MAX_PAGE`]; what is beyond is the nearest of these. Those in another phase count too.
    pub limit: u32,
}

impl Default for Filter {
    fn default() -> Self {
        Self { user: None, phase: None, after: None, limit: MAX_PAGE }
    }
}

/// Some of the live sessions, by id.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The sessions.
    pub sessions: Vec<LiveSession>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<SessionId>,
}

/// What became of a demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The owner has been woken.
    Pending(Pending),
    /// The session is over already.
    Over(CloseReason),
    /// There is no such session.
    Unknown,
}

/// A demand that waits for its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The session.
    pub ticket: Ticket,
    /// Its id.
    pub session: SessionId,
    /// The track to be closed; `None` for the session's end.
    pub track: Option<TrackId>,
    /// Who has to act.
    pub at: Reach,
}

/// What an owner did about a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackResult {
    /// It is closed.
    Closed,
    /// The session has no such track.
    Unknown,
}

/// How a demand ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The session is over.
    Ended(CloseReason),
    /// The owner has seen to the track.
    Track(TrackResult),
}

/// Sessions of a service.
#[async_trait]
pub trait Sessions: Send + Sync + 'static {
    /// Claims a place: every rule about ids, limits, capacity, pins and contexts in one step. Repeated with the same
    /// ticket it changes nothing and answers the same.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn claim(&self, service: &ServiceName, request: &ClaimRequest) -> Result<Claimed, StoreError>;

    /// Gives back a claim that no worker has confirmed; anything else stays as it is.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn release(&self, service: &ServiceName, ticket: Ticket) -> Result<(), StoreError>;

    /// The owner says where a session is. The first word confirms the claim. The word that it is active makes a session that
    /// takes another one over its successor: its client is there, so what that was given is
    /// [confirmed](crate::ContextStore::confirm) in the same step, and the other session is asked to end (`moved`). If the token
    /// is void by then, the client has gone another way, and it is this session that is asked to end (`superseded`).
    ///
    /// # Errors
    /// [`FleetError`].
    async fn report(
        &self,
        service: &ServiceName,
        owner: &Owner,
        ticket: Ticket,
        phase: Phase,
        detail: &Map<String, Value>,
    ) -> Result<Held, FleetError>;

    /// The owner says that a session is over: id, limits and place are free, its context is kept for a while. Whoever
    /// asked for the end learns the reason. Not there any more is fine.
    ///
    /// # Errors
    /// [`FleetError`].
    async fn end(
        &self,
        service: &ServiceName,
        owner: &Owner,
        ticket: Ticket,
        reason: CloseReason,
    ) -> Result<(), FleetError>;

    /// The owner writes again what it has, at most [`MAX_BATCH`] sessions at a time (more are not looked at), in the
    /// order given. May be repeated.
    ///
    /// # Errors
    /// [`FleetError`].
    async fn restore(
        &self,
        service: &ServiceName,
        owner: &Owner,
        sessions: &[Restored],
    ) -> Result<Vec<Restoration>, FleetError>;

    /// Asks something of the session that lives under an id, and an end also of the one that is taking it over. With a context
    /// it is asked of the session that has this one, and of no other that has come to have the id since it was looked up.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn ask(
        &self,
        service: &ServiceName,
        session: &SessionId,
        context: Option<ContextId>,
        demand: &Demand,
    ) -> Result<Told, StoreError>;

    /// The owner has done what was asked about a track.
    ///
    /// # Errors
    /// [`FleetError`].
    async fn acknowledge(
        &self,
        service: &ServiceName,
        owner: &Owner,
        ticket: Ticket,
        track: &TrackId,
        result: TrackResult,
    ) -> Result<(), FleetError>;

    /// Whether a demand is done. For the wait see [`settle`](crate::settle).
    ///
    /// # Errors
    /// [`StoreError`].
    async fn outcome(&self, service: &ServiceName, pending: &Pending) -> Result<Option<Outcome>, StoreError>;

    /// Ends the sessions of workers whose leases have run out (`worker_lost`) and frees what they held. Claims and
    /// renewals do so too. Returns how many were ended; each is ended once, whoever notices first.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn reap(&self, service: &ServiceName) -> Result<u32, StoreError>;

    /// What is known of an id.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn session(&self, service: &ServiceName, session: &SessionId) -> Result<Option<SessionView>, StoreError>;

    /// Lists live sessions.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn list(&self, service: &ServiceName, filter: &Filter) -> Result<Page, StoreError>;
}
