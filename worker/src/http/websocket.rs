//! `{p}/websocket/offer`: audio over a WebSocket.
//!
//! The socket is accepted before anything is known: the id, the metadata and what it wants stand in its first frame. The
//! checks and their order are those of an offer; a refusal is a frame.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::http::{Extensions, HeaderMap, header};
use axum::response::Response;
use streamfleet_handler::Transport;
use streamfleet_process::telemetry::trace;
use streamfleet_session::Claims;
use streamfleet_session::wire::Failure;
use streamfleet_socket::protocol::{MAX_MESSAGE, Resume, Start};
use streamfleet_socket::{Connection, ConnectionLimits, Event, Opening};
use tracing::Instrument as _;

use super::offer::{check_rate, identity, utf8};
use super::{Attached, Audit, Door, SocketRequest, reply, source};
use crate::sockets::Line;

pub(super) async fn websocket(
    State(door): State<Arc<Door>>,
    headers: HeaderMap,
    extensions: Extensions,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else { return reply::upgrade_required() };
    // Scripts open sockets to any origin without asking: what CORS does for requests has to be done here.
    let origin = headers.get(header::ORIGIN);
    if origin.is_some() && door.api.access.origins.answer(origin).is_none() {
        return reply::failure(&Failure::Forbidden);
    }
    let source = source(&extensions);
    let tasks = door.api.host.sockets().clone();
    upgrade
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .on_upgrade(move |socket| tasks.track_future(async move { door.socket(socket, &headers, source).await }))
}

impl Door {
    async fn socket(&self, socket: WebSocket, headers: &HeaderMap, source: SocketAddr) {
        let limits = ConnectionLimits { start_timeout: self.service.limits.connect_timeout };
        let mut line = Line::new(socket, Connection::client(Instant::now(), limits));
        let start = loop {
            match line.event().await {
                Some(Event::Start(Opening::Client(start))) => break start,
                Some(Event::Ended(_)) | None => {
                    self.api.record.offer("no_start");
                    return line.close().await;
                }
                Some(_) => {}
            }
        };
        let service = &self.service.name;
        let span = tracing::info_span!("websocket", %service, session = %start.id, otel.kind = "server");
        trace::accept(&span, |name| utf8(headers, name));
        self.started(*start, line, headers, source).instrument(span).await;
    }

    /// The checks of an offer, in its order, then the session.
    async fn started(&self, start: Start, line: Line, headers: &HeaderMap, source: SocketAddr) {
        let began = Instant::now();
        let mut audit = Audit { service: &self.service.name, session: &start.id, user: None };
        let rate = self.rates.as_ref().map(|rates| &rates.offers);
        let claims = Claims { metadata: start.metadata.as_ref(), candidate: None };
        let identity = check_rate(rate, source, began).and_then(|()| identity(claims, headers, &self.service.identity));
        let identity = match identity {
            Ok(identity) => identity,
            Err(failure) => return self.refuse(line, &audit, source, failure).await,
        };
        let user = identity.user_id.clone();
        audit.user = user.as_ref();
        let line = match start.resume {
            Resume::With(token) => {
                match self.api.host.attach(&self.service.name, &start.id, token, &identity, line).await {
                    Attached::Yes => {
                        audit.accepted(source);
                        return self.api.record.offer("attached");
                    }
                    Attached::No(line) => *line,
                    Attached::Refused(failure, line) => return self.refuse(*line, &audit, source, failure).await,
                }
            }
            Resume::No | Resume::Wanted => line,
        };
        let shown = match start.resume {
            Resume::With(token) => Some(token),
            Resume::No | Resume::Wanted => None,
        };
        let slot = match self.place(&start.id, &identity, shown, began) {
            Ok(slot) => slot,
            Err(failure) => return self.refuse(line, &audit, source, failure).await,
        };
        let request = SocketRequest {
            service: self.service.clone(),
            id: start.id.clone(),
            transport: Transport::WebSocket,
            identity,
            slot,
            resume: start.resume,
        };
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
