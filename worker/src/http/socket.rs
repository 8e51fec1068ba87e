//! What all sockets have in common, whichever protocol they speak: from the handshake to a session, or to a refusal.
//!
//! A socket is accepted before anything is known: the id, the metadata and what it wants stand in its first frame. The
//! checks and their order are those of an offer; a refusal is a frame where the protocol has one, and a close frame.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::http::{Extensions, HeaderMap, header};
use axum::response::Response;
use serde_json::Value;
use streamfleet_handler::Transport;
use streamfleet_process::telemetry::trace;
use streamfleet_session::wire::Failure;
use streamfleet_session::{Claims, CloseReason, Identity, ResumeToken, SessionId};
use streamfleet_socket::protocol::{MAX_MESSAGE, Resume};
use streamfleet_socket::telephone::CallLeg;
use streamfleet_socket::{Connection, ConnectionLimits, Event, Opening};
use tracing::Instrument as _;

use super::lobby::NoPlace;
use super::offer::{check_rate, identity, utf8};
use super::placed::{Entrance, is_placed, same};
use super::{Attached, Audit, Door, Returning, SocketRequest, reply, source, telephone, websocket};
use crate::sockets::Line;

/// When a client may come again that found too many others before the door.
const CROWDED: Duration = Duration::from_secs(2);

/// What the WebSocket library reads at a time; it keeps as much for each socket, and zeroes it before each look, whether
/// something has come or not. A tenth of a second of mu-law in JSON, or one frame of 20 ms of the widest format; longer
/// messages take more than one look.
const READ_BUFFER: usize = 4 << 10;

/// Which protocol a route speaks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dialect {
    /// FastRTC's own.
    Client,
    /// A telephone company's.
    Telephone,
}

impl Dialect {
    fn connection(self, limits: ConnectionLimits) -> Connection {
        match self {
            Self::Client => Connection::client(Instant::now(), limits),
            Self::Telephone => Connection::telephone(Instant::now(), limits),
        }
    }
}

/// What a client says in its first frame.
pub(super) struct Hello {
    pub(super) id: SessionId,
    pub(super) transport: Transport,
    pub(super) metadata: Option<Value>,
    pub(super) resume: Resume,
    /// The session that it wants to have again.
    pub(super) earlier: Option<Earlier>,
    /// The call that it belongs to, if that is proved.
    pub(super) call: Option<CallLeg>,
    /// Whether it may come in at all: by the rate of its source, and by what it has to prove.
    pub(super) admitted: Result<(), Failure>,
}

/// A session that a client says was its own.
pub(super) struct Earlier {
    pub(super) id: SessionId,
    pub(super) token: ResumeToken,
    pub(super) otherwise: Otherwise,
}

/// What a client gets that cannot have its session again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// A new one.
    Begin,
    /// Nothing: its conversation is over.
    Refuse,
}

/// Accepts a socket, unless the handshake is none, comes from a page that may not call, or there are too many already.
pub(super) fn accept(
    door: Arc<Door>,
    headers: HeaderMap,
    extensions: &Extensions,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    dialect: Dialect,
) -> Response {
    let Ok(upgrade) = upgrade else { return reply::upgrade_required() };
    // Scripts open sockets to any origin without asking: what CORS does for requests has to be done here.
    let origin = headers.get(header::ORIGIN);
    if origin.is_some() && door.api.access.origins.answer(origin).is_none() {
        return reply::failure(&Failure::Forbidden);
    }
    // Who is placed here comes in by its place; who is not, only to a session that it has already.
    let entrance = match &door.member {
        Some(member) if is_placed(&headers) => match door.enter(member, &headers, Instant::now()) {
            Ok(entrance) => Some(entrance),
            Err(unopened) => {
                door.api.record.offer(unopened.as_str());
                return unopened.response();
            }
        },
        _ => None,
    };
    let source = entrance.as_ref().map_or_else(|| source(extensions), |entrance| entrance.place.placed().client);
    let place = match door.api.newcomers.enter(source.ip()) {
        Ok(place) => place,
        Err(NoPlace::Full) => {
            let failure = Failure::NoCapacity { retry_after: CROWDED };
            door.api.record.offer(failure.as_str());
            return reply::failure(&failure);
        }
        Err(NoPlace::TooMany) => {
            door.api.record.offer(reply::TOO_MANY_SOCKETS);
            return reply::too_many_sockets(CROWDED);
        }
    };
    let tasks = door.api.host.sockets().clone();
    upgrade.read_buffer_size(READ_BUFFER).max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE).on_upgrade(
        move |socket| {
            tasks.track_future(async move {
                let _place = place;
                door.socket(socket, &headers, source, dialect, entrance).await;
            })
        },
    )
}

impl Door {
    async fn socket(
        &self,
        socket: WebSocket,
        headers: &HeaderMap,
        source: SocketAddr,
        dialect: Dialect,
        entrance: Option<Entrance>,
    ) {
        let limits = ConnectionLimits { start_timeout: self.service.limits.connect_timeout };
        let mut line = Line::new(socket, dialect.connection(limits));
        let opening = tokio::select! {
            opening = opening(&mut line) => opening,
            () = self.api.host.stopping().cancelled() => {
                line.connection.close(Instant::now(), CloseReason::Shutdown);
                None
            }
        };
        let Some(opening) = opening else {
            self.api.record.offer("no_start");
            return line.close().await;
        };
        let rate = || check_rate(self.rates.as_ref().map(|rates| &rates.offers), source, Instant::now());
        let hello = match opening {
            Opening::Client(start) => websocket::hello(*start, rate()),
            Opening::Call(start) => telephone::hello(*start, &self.switchboard, rate),
        };
        let service = &self.service.name;
        let transport = hello.transport.as_str();
        let span = tracing::info_span!("socket", %service, session = %hello.id, transport, otel.kind = "server");
        trace::accept(&span, |name| utf8(headers, name));
        self.started(hello, line, headers, source, entrance).instrument(span).await;
    }

    /// The checks of an offer, in its order, then the session.
    async fn started(
        &self,
        hello: Hello,
        line: Line,
        headers: &HeaderMap,
        source: SocketAddr,
        entrance: Option<Entrance>,
    ) {
        let began = Instant::now();
        let Hello { id, transport, metadata, resume, earlier, call, admitted } = hello;
        let named = earlier.as_ref().map_or(&id, |earlier| &earlier.id).clone();
        let mut audit = Audit { service: &self.service.name, session: &named, user: None };
        let claims = Claims { metadata: metadata.as_ref(), candidate: None };
        let identity = admitted.and_then(|()| match (&self.member, &entrance) {
            (None, _) => identity(claims, headers, &self.service.identity),
            (Some(_), None) => Ok(Identity::default()),
            (Some(_), Some(entrance)) => {
                same(entrance, &id).map(|()| entrance.identity.clone()).map_err(|_| Failure::Forbidden)
            }
        });
        // What is kept of it is the identity's. A client that does not read its refusal holds this task for seconds.
        drop(metadata);
        let identity = match identity {
            Ok(identity) => identity,
            Err(failure) => return self.refuse(line, &audit, source, failure).await,
        };
        let user = identity.user_id.clone();
        audit.user = user.as_ref();
        // What would have a session again can also take it over, from a connection that no socket can be attached to.
        let shown = earlier.as_ref().filter(|earlier| earlier.id == id).map(|earlier| earlier.token);
        let line = match earlier {
            None => line,
            Some(Earlier { id, token, otherwise }) => {
                let service = &self.service.name;
                let returning = Returning { service, id: &id, token, identity: &identity, transport };
                match self.api.host.attach(returning, line).await {
                    Attached::Yes => {
                        audit.accepted(source);
                        return self.api.record.offer("attached");
                    }
                    Attached::No(line) if otherwise == Otherwise::Begin => *line,
                    Attached::No(line) => {
                        return self.refuse(*line, &audit, source, Failure::ConnectionClosed).await;
                    }
                    Attached::Refused(failure, line) => return self.refuse(*line, &audit, source, failure).await,
                }
            }
        };
        let admitted = match (&self.member, entrance) {
            (None, _) => self.place(&id, &identity, shown, began).map(|slot| (slot, None)),
            (Some(_), Some(Entrance { place, slot, .. })) => Ok((slot, Some(place))),
            // What it has come back to is over.
            (Some(_), None) => Err(Failure::ConnectionClosed),
        };
        let (slot, place) = match admitted {
            Ok(admitted) => admitted,
            Err(failure) => return self.refuse(line, &audit, source, failure).await,
        };
        let service = self.service.clone();
        let request = SocketRequest { service, id, transport, identity, slot, resume, call, place };
        match self.api.host.open_socket(request, line).await {
            Ok(()) => {
                self.api.record.offer("accepted");
                self.api.record.offer_took(began.elapsed());
                audit.accepted(source);
            }
            Err((failure, line)) => self.refuse(*line, &audit, source, failure).await,
        }
    }

    async fn refuse(&self, mut line: Line, audit: &Audit<'_>, source: SocketAddr, failure: Failure) {
        self.api.record.offer(failure.as_str());
        audit.refused(source, failure.as_str());
        line.refuse(failure).await;
    }
}

/// Waits for the first frame that says something; `None` if the socket ends before.
async fn opening(line: &mut Line) -> Option<Opening> {
    loop {
        match line.event().await? {
            Event::Start(opening) => return Some(opening),
            Event::Ended(_) => return None,
            Event::Audio(_) | Event::Digit(_) => {}
        }
    }
}
