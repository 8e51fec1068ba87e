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
use streamfleet_edge::headers::bearer;
use streamfleet_edge::lobby::NoPlace;
use streamfleet_handler::Transport;
use streamfleet_process::telemetry::trace;
use streamfleet_session::fleet::Refused;
use streamfleet_session::wire::Failure;
use streamfleet_session::{Claims, CloseReason, Identity};
use streamfleet_socket::hello::{Earlier, Hello, Otherwise, Proof};
use streamfleet_socket::protocol::MAX_MESSAGE;
use streamfleet_socket::{Connection, ConnectionLimits, Event, Opening};
use tracing::Instrument as _;

use super::offer::{check_rate, identity, utf8};
use super::placed::{Entrance, Unopened, is_placed, same};
use super::{Attached, Audit, Claimant, Door, Returning, SocketRequest, reply, source};
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

/// A socket that has said `start`.
struct Newcomer {
    hello: Hello,
    transport: Transport,
    /// Whether it may come in at all: by the rate of its source, and by what it has to prove.
    admitted: Result<(), Failure>,
}

/// How a socket has come in.
enum Way {
    /// By itself.
    Alone,
    /// By a router, with a place for a new session.
    Placed(Box<Entrance>),
    /// By a router, back to a session that is its own: the router has seen to that.
    Back,
    /// By a router, and there is nothing that it may have here.
    Astray,
}

impl Way {
    /// Where the client is, if somebody else than its connection knows.
    fn client(&self) -> Option<SocketAddr> {
        match self {
            Self::Placed(entrance) => Some(entrance.place.placed().client),
            Self::Alone | Self::Back | Self::Astray => None,
        }
    }
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
    let way = match door.way(&headers) {
        Ok(way) => way,
        Err(unopened) => {
            door.api.record.offer(unopened.as_str());
            return unopened.response();
        }
    };
    let source = way.client().unwrap_or_else(|| source(extensions));
    let place = match door.api.newcomers.enter(source.ip()) {
        Ok(place) => place,
        // Another worker has room at its door.
        Err(NoPlace::Full | NoPlace::TooMany) if matches!(way, Way::Placed(_)) => {
            let refused = Unopened::Refused(Refused::Full);
            door.api.record.offer(refused.as_str());
            return refused.response();
        }
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
                door.socket(socket, &headers, source, dialect, way).await;
            })
        },
    )
}

impl Door {
    /// How a socket comes in: who is placed here, by its place; who is not, only to a session that it has already.
    fn way(&self, headers: &HeaderMap) -> Result<Way, Unopened> {
        let Some(member) = &self.member else { return Ok(Way::Alone) };
        if is_placed(headers) {
            return self.enter(member, headers, Instant::now()).map(|entrance| Way::Placed(Box::new(entrance)));
        }
        let is_vouched = bearer(headers).is_some_and(|token| self.api.access.admin_token.matches(token));
        Ok(if is_vouched { Way::Back } else { Way::Astray })
    }

    async fn socket(&self, socket: WebSocket, headers: &HeaderMap, source: SocketAddr, dialect: Dialect, way: Way) {
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
        let newcomer = match opening {
            Opening::Client(start) => {
                Newcomer { hello: Hello::of_client(*start), transport: Transport::WebSocket, admitted: rate() }
            }
            Opening::Call(start) => {
                let (proof, admitted) = match self.switchboard.admit(&start, rate) {
                    Ok(proof) => (proof, Ok(())),
                    Err(failure) => (Proof::None, Err(failure)),
                };
                Newcomer { hello: Hello::of_call(*start, proof), transport: Transport::Telephone, admitted }
            }
        };
        let (service, session, transport) = (&self.service.name, &newcomer.hello.id, newcomer.transport.as_str());
        let span = tracing::info_span!("socket", %service, %session, transport, otel.kind = "server");
        trace::accept(&span, |name| utf8(headers, name));
        self.started(newcomer, line, headers, source, way).instrument(span).await;
    }

    /// The checks of an offer, in its order, then the session.
    async fn started(&self, newcomer: Newcomer, line: Line, headers: &HeaderMap, source: SocketAddr, way: Way) {
        let began = Instant::now();
        let Newcomer { hello, transport, admitted } = newcomer;
        // What would have a session again can also take it over, from a connection that no socket can be attached to.
        let shown = hello.shown();
        let Hello { id, metadata, resume, earlier, call } = hello;
        let named = earlier.as_ref().map_or(&id, |earlier| &earlier.id).clone();
        let mut audit = Audit { service: &self.service.name, session: &named, user: None };
        let claims = Claims { metadata: metadata.as_ref(), candidate: None };
        let identity = admitted.and_then(|()| match &way {
            Way::Alone => identity(claims, headers, &self.service.identity),
            Way::Back | Way::Astray => Ok(Identity::default()),
            Way::Placed(entrance) => {
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
        let owner = if matches!(way, Way::Back) { Claimant::Vouched } else { Claimant::Known(&identity) };
        let line = match earlier {
            None => line,
            Some(Earlier { id, token, otherwise }) => {
                let service = &self.service.name;
                let returning = Returning { service, id: &id, token, owner, transport };
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
        let admitted = match way {
            Way::Alone => self.place(&id, &identity, shown, began).map(|slot| (slot, None)),
            Way::Placed(entrance) => {
                let Entrance { place, slot, .. } = *entrance;
                Ok((slot, Some(place)))
            }
            // What it has come back to is over.
            Way::Back | Way::Astray => Err(Failure::ConnectionClosed),
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
