//! What the HTTP routes need of the rest of the worker: the services, and somebody who runs sessions.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use serde::{Serialize, Serializer};
use serde_json::Value;
use streamfleet_handler::{Inputs, Replies, Transport};
use streamfleet_service::spec::Modality;
use streamfleet_session::candidate::{ParsedCandidate, RemoteCandidate};
use streamfleet_session::wire::{Answer, Failure};
use streamfleet_session::{
    CloseReason, Identity, IdentityPolicy, Limits, PathPrefix, ResumeToken, ServiceName, SessionId, State, UserId,
};

use streamfleet_socket::protocol::{CallResume, Resume};
use streamfleet_socket::telephone::CallLeg;
use streamfleet_store::{ContextId, ContextStore, WorkerId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Telephone;
use crate::admission::Slot;
use crate::fleet::{Member, Place};
use crate::media::Shared;
use crate::sockets::Line;

/// One service of this worker, as configured and checked.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name: unique in the worker.
    pub name: ServiceName,
    /// Where its routes live: unique in the worker.
    pub path: PathPrefix,
    /// Further prefixes with the same routes.
    pub aliases: Vec<PathPrefix>,
    /// The registered name of its handler.
    pub handler: String,
    /// The handler's own configuration: a JSON object, or null.
    pub handler_config: Value,
    /// Which media it takes part in.
    pub modality: Modality,
    /// What it allows.
    pub limits: Limits,
    /// How it reads who is calling.
    pub identity: IdentityPolicy,
    /// How it takes telephone calls.
    pub telephone: Telephone,
    /// How many of its sessions routers may place here; `None` for as many as the worker takes.
    pub capacity: Option<NonZeroU32>,
}

/// An offer that has passed every check of the HTTP side and holds a place.
#[derive(Debug)]
pub struct OpenRequest {
    /// The service that was called.
    pub service: Arc<Service>,
    /// The id the client chose.
    pub id: SessionId,
    /// The offer, not yet looked at.
    pub sdp: String,
    /// Who is calling.
    pub identity: Identity,
    /// The session's place: kept as long as the session, dropped with it.
    pub slot: Slot,
    /// What its client shows of an earlier session.
    pub resume: Option<ResumeToken>,
    /// Its place in the fleet, where a router has placed it.
    pub place: Option<Place>,
    /// Candidates that overtook this offer, in the order of their arrival.
    pub early: Vec<RemoteCandidate>,
    /// Where the request came from; a proxy's address if there is one.
    pub source: SocketAddr,
}

/// Whoever runs the sessions of this worker.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// Starts a session and answers its offer; with a slot to [take over](crate::admission::Entry::TakeOver) by, beside the
    /// session that has the id, which ends when this one has connected, and only if the client shows that session's token. From the moment this returns `Ok`, [`candidate`](Self::candidate) and
    /// [`session`](Self::session) know the id.
    ///
    /// The future is dropped when the client goes away before it is done; a session that nobody has been told of must
    /// then end, and its slot with it.
    ///
    /// # Errors
    /// `connection_already_exists` for a token that is not the live session's; `invalid_offer` for SDP that cannot be read or
    /// has no usable media; whatever else keeps the session from
    /// starting. The slot is free by then.
    async fn open(&self, request: OpenRequest) -> Result<Answer, Failure>;

    /// Starts a session over a WebSocket that has said `start`.
    ///
    /// # Errors
    /// What keeps the session from starting, and the line, to say so. The slot is free by then.
    async fn open_socket(&self, request: SocketRequest, line: Line) -> Result<(), (Failure, Box<Line>)>;

    /// Gives a client that is back its session.
    async fn attach(&self, returning: Returning<'_>, line: Line) -> Attached;

    /// Where the tasks of sockets belong that have no session yet.
    fn sockets(&self) -> &TaskTracker;

    /// Cancelled when sockets without a session are to close, because the process stops.
    fn stopping(&self) -> &CancellationToken;

    /// The session that a telephone call has, if it goes on, and what it takes to have it again.
    fn call(&self, service: &ServiceName, call: &CallLeg) -> Option<CallResume>;

    /// Hands a trickled candidate to its session.
    ///
    /// # Errors
    /// `unknown_connection` for an id that this service does not have, `connection_closed` for a session that is over
    /// or ending.
    async fn candidate(&self, service: &ServiceName, id: &SessionId, candidate: ParsedCandidate)
    -> Result<(), Failure>;

    /// The sessions of a service, in any order.
    fn sessions(&self, service: &ServiceName) -> Vec<SessionView>;

    /// One session, if it is known.
    fn session(&self, id: &SessionId) -> Option<SessionView>;

    /// The session of this service and id, with what its client may reach of it: the one that lives, or for a while the
    /// last one that did.
    fn reach(&self, service: &ServiceName, id: &SessionId) -> Option<Reached>;

    /// Where the data of a service's sessions is.
    fn contexts(&self, service: &ServiceName) -> Arc<dyn ContextStore>;

    /// A service's part in a fleet; `None` for a worker that stands alone, whose clients come by themselves.
    fn member(&self, service: &ServiceName) -> Option<Arc<Member>> {
        let _ = service;
        None
    }

    /// Ends the track `mid` of the session that has this id and context, and leaves the rest. A session that has one track ends with it.
    ///
    /// # Errors
    /// `not_found` for an id or a track that is not known, `connection_closed` for a session that is ending, `no_capacity`
    /// if nobody could be told within 5 s.
    async fn close_track(&self, id: &SessionId, context: ContextId, mid: &str) -> Result<(), Failure>;

    /// Ends the session that has this id and context, and waits until it is over, for 5 s at most. Its client does not come
    /// elsewhere in its name meanwhile. Once it is over, its id and its place are free.
    ///
    /// # Errors
    /// `not_found` for an id that is not known or another's by now, `no_capacity` if nobody could be told to end it within that time.
    async fn end(&self, id: &SessionId, context: ContextId, reason: CloseReason) -> Result<Ended, Failure>;
}

/// A session, and what its client may reach of it beside its media.
#[derive(Clone)]
pub struct Reached {
    /// Whose it is, where it stands, what it has said.
    pub shared: Arc<Shared>,
    /// Its data's name: whoever shows this context's token is its client.
    pub context: ContextId,
    /// Where its handler takes arguments; none for one that takes none, or is over.
    pub inputs: Option<Inputs>,
    /// What makes its handler reply.
    pub replies: Replies,
}

impl Reached {
    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.stage().into()
    }
}

/// A `start` that has passed every check and holds a place.
#[derive(Debug)]
pub struct SocketRequest {
    /// The service that was called.
    pub service: Arc<Service>,
    /// The id the client chose.
    pub id: SessionId,
    /// What it came over.
    pub transport: Transport,
    /// Who is calling.
    pub identity: Identity,
    /// The session's place: kept as long as the session, dropped with it.
    pub slot: Slot,
    /// What it says of an earlier session, or wants for a later one.
    pub resume: Resume,
    /// The telephone call that it is part of, if that is proved.
    pub call: Option<CallLeg>,
    /// Its place in the fleet, where a router has placed it.
    pub place: Option<Place>,
}

/// A client that says that it is back.
#[derive(Debug, Clone, Copy)]
pub struct Returning<'a> {
    /// The service that was called.
    pub service: &'a ServiceName,
    /// The session that it says was its own.
    pub id: &'a SessionId,
    /// What it shows for that.
    pub token: ResumeToken,
    /// Whose it says that it is.
    pub owner: Claimant<'a>,
    /// What it came over: a session's transport is the same all its life.
    pub transport: Transport,
}

/// Who says that a session is his.
#[derive(Debug, Clone, Copy)]
pub enum Claimant<'a> {
    /// Somebody of this identity.
    Known(&'a Identity),
    /// Somebody of whom a router has seen that it is.
    Vouched,
}

/// What became of a client that says that it is back.
pub enum Attached {
    /// It has its session.
    Yes,
    /// It has no session of this id here over this transport, or cannot show that it is its own: it is a client like any
    /// other.
    No(Box<Line>),
    /// Something failed.
    Refused(Failure, Box<Line>),
}

/// What came of the wish to end a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It is over, for this reason: the earlier one if it was ending already.
    Closed(CloseReason),
    /// It is still on its way.
    Ending,
}

/// A session as `GET {p}/sessions/{id}` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionView {
    /// The id the client chose.
    pub id: SessionId,
    /// What is remembered of it: who may control this may control it.
    #[serde(skip)]
    pub context: ContextId,
    /// The service it belongs to.
    pub service: ServiceName,
    /// The worker that has it, where it is part of a fleet.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "worker_name")]
    pub worker: Option<WorkerId>,
    /// How the client is connected: `webrtc`, `websocket`, `telephone`.
    #[serde(serialize_with = "transport_label")]
    pub transport: Transport,
    /// The user, as far as known.
    pub user_id: Option<UserId>,
    /// Whether somebody vouches for the user.
    pub verified: bool,
    /// `connecting`, `active`, `ending` or `closed`.
    #[serde(serialize_with = "state_label")]
    pub state: State,
    /// When its offer came, in seconds since the Unix epoch.
    #[serde(serialize_with = "unix_seconds")]
    pub since: SystemTime,
    /// What it has been through, the oldest first; of many changes the last 32.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ChangeView>,
    /// What its media is like; absent until there is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
    /// The handler's last additional outputs, the oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Value>,
    /// Its tracks, from its connection on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tracks: Vec<TrackInfo>,
}

/// One track of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrackInfo {
    /// The m-line's identification, under which it can be ended; `audio` where there is no SDP.
    pub mid: String,
    /// `audio` or `video`.
    pub kind: &'static str,
    /// Whether it has ended.
    pub closed: bool,
}

/// How well a session's media travels. Loss is a share from 0 to 1, times are in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Quality {
    /// Round trip to the client, by RTCP or STUN.
    pub rtt_ms: Option<f64>,
    /// Packets of the client's that did not arrive; absent where none can be lost.
    pub loss_received: Option<f64>,
    /// Packets of ours that did not arrive, by the client's reports.
    pub loss_sent: Option<f64>,
    /// Interarrival jitter (RFC 3550, 6.4.1).
    pub jitter_ms: Option<f64>,
    /// What the jitter buffer adds now, or what waits for a socket; absent on the encoded path.
    pub buffer_ms: Option<f64>,
    /// Packets received; over a socket, frames of 20 ms.
    pub packets_received: u64,
    /// Packets sent; absent over a socket.
    pub packets_sent: Option<u64>,
    /// Frames made up because nothing came in time.
    pub frames_concealed: u64,
    /// Frames repaired by forward error correction.
    pub frames_repaired: u64,
    /// How good the client sounds, as a mean opinion score by the E-model (ITU-T G.107), 1 to 4.41; absent without sound.
    pub mos_received: Option<f64>,
    /// How good the handler sounds to the client; absent until it has reported.
    pub mos_sent: Option<f64>,
}

/// Something that happened to a session.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ChangeView {
    /// When, in seconds since the Unix epoch.
    #[serde(serialize_with = "unix_seconds")]
    pub at: SystemTime,
    /// `connecting`, `resumed`, `active`, `path_changed`, `detached`, `attached`, `ending`.
    pub change: &'static str,
    /// Why it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<CloseReason>,
}

fn worker_name<S: Serializer>(worker: &Option<WorkerId>, serializer: S) -> Result<S::Ok, S::Error> {
    worker.as_ref().map(WorkerId::as_str).serialize(serializer)
}

fn transport_label<S: Serializer>(transport: &Transport, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(transport.as_str())
}

fn state_label<S: Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.as_str())
}

fn unix_seconds<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    serializer.serialize_f64((since.as_secs_f64() * 1000.0).round() / 1000.0)
}
