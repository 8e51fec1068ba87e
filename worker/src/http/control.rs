//! `{p}/sessions`: listing, reading and ending sessions and their tracks, with the operator's token; the client of one
//! session may do so with its own.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{Extensions, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::Response;
use serde::Serialize;
use streamfleet_session::wire::Failure;
use streamfleet_session::{CloseReason, SessionId};
use streamfleet_store::{Demand, Listed, LiveSession};

use super::access::{Authority, bearer};
use super::origin::{self, Strange};
use super::{Audit, Door, Ended, SessionView, reply, source};
use crate::fleet::guard::OnlyHere;

/// Lets a request through to the control routes if it comes from nobody else's page, by no strange name, and with what may
/// be a token of somebody's. The order keeps a foreign page from trying tokens; whose it is, each route asks.
pub(super) async fn guard(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let access = &door.api.access;
    let named = origin::requested_host(request.version(), request.headers(), request.uri())
        .and_then(|host| origin::check(request.headers(), &host, &access.hosts, &access.origins));
    let failure = match named {
        Err(Strange::Malformed) => {
            door.api.record.control("invalid_host");
            return reply::invalid_host();
        }
        Err(Strange::Origin | Strange::Host) => Failure::Forbidden,
        Ok(()) => match bearer(request.headers()).and_then(|token| access.authority(token)) {
            Some(authority) => {
                let mut request = request;
                request.extensions_mut().insert(authority);
                return next.run(request).await;
            }
            None => Failure::Unauthorized,
        },
    };
    door.api.record.control(failure.as_str());
    reply::failure(&failure)
}

pub(super) async fn list(
    State(door): State<Arc<Door>>,
    Extension(authority): Extension<Authority>,
    uri: Uri,
) -> Response {
    #[derive(Serialize)]
    struct List {
        sessions: Vec<SessionView>,
    }
    // A session's own token is nobody's here.
    let Authority::Operator = authority else { return door.not_controlled(&Failure::Unauthorized) };
    if let Some(listed) = door.listed(uri.query().unwrap_or_default()).await {
        return listed;
    }
    let mut sessions = door.api.host.sessions(&door.service.name);
    sessions.sort_by(|a, b| a.since.cmp(&b.since).then_with(|| a.id.cmp(&b.id)));
    door.api.record.control("listed");
    reply::json(StatusCode::OK, &List { sessions })
}

pub(super) async fn show(
    State(door): State<Arc<Door>>,
    Extension(authority): Extension<Authority>,
    extensions: Extensions,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let source = source(&extensions);
    let found = match extensions.get::<OnlyHere>() {
        Some(OnlyHere) => door.find_here(authority, id, source).await.map(Found::here),
        None => door.find(authority, id, source).await,
    };
    match found {
        Ok(Found::Here(session)) => {
            door.api.record.control("shown");
            reply::json(StatusCode::OK, &session)
        }
        Ok(Found::Elsewhere(live)) => {
            door.api.record.control("shown");
            reply::json(StatusCode::OK, &Listed::from(*live))
        }
        Err(failure) => door.not_controlled(&failure),
    }
}

pub(super) async fn end(
    State(door): State<Arc<Door>>,
    Extension(authority): Extension<Authority>,
    extensions: Extensions,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let source = source(&extensions);
    let SessionView { id, context, user_id, .. } = match door.find(authority, id, source).await {
        Ok(Found::Here(session)) => *session,
        Ok(Found::Elsewhere(live)) => {
            return door.ask_owner(&live, &Demand::End(CloseReason::EndedByControl), source).await;
        }
        Err(failure) => return door.not_controlled(&failure),
    };
    let ended = door.api.host.end(&id, context, CloseReason::EndedByControl).await;
    let (outcome, response) = match ended {
        Ok(Ended::Closed(reason)) => ("ended", reply::ended(&id, reason)),
        Ok(Ended::Ending) => ("ending", reply::ending(&id)),
        Err(failure) => (failure.as_str(), reply::failure(&failure)),
    };
    door.api.record.control(outcome);
    let audit = Audit { service: &door.service.name, session: &id, user: user_id.as_ref() };
    audit.controlled(source, outcome);
    response
}

pub(super) async fn end_track(
    State(door): State<Arc<Door>>,
    Extension(authority): Extension<Authority>,
    extensions: Extensions,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Response {
    let source = source(&extensions);
    let Ok(Path((id, mid))) = path else { return door.not_controlled(&Failure::NotFound) };
    let SessionView { id, context, user_id, .. } = match door.find(authority, Ok(Path(id)), source).await {
        Ok(Found::Here(session)) => *session,
        Ok(Found::Elsewhere(live)) => {
            let Ok(track) = mid.parse() else { return door.not_controlled(&Failure::NotFound) };
            return door.ask_owner(&live, &Demand::CloseTrack(track), source).await;
        }
        Err(failure) => return door.not_controlled(&failure),
    };
    let (outcome, response) = match door.api.host.close_track(&id, context, &mid).await {
        Ok(()) => ("track_closed", reply::track_closed(&id, &mid)),
        Err(failure) => (failure.as_str(), reply::failure(&failure)),
    };
    door.api.record.control(outcome);
    let audit = Audit { service: &door.service.name, session: &id, user: user_id.as_ref() };
    audit.controlled(source, outcome);
    response
}

/// Where a session is that somebody may control.
enum Found {
    Here(Box<SessionView>),
    /// Another worker of the fleet has it.
    Elsewhere(Box<LiveSession>),
}

impl Found {
    fn here(session: SessionView) -> Self {
        Self::Here(Box::new(session))
    }
}

fn named(id: &Result<Path<String>, PathRejection>) -> Result<SessionId, Failure> {
    id.as_ref().ok().and_then(|id| id.0.parse().ok()).ok_or(Failure::NotFound)
}

impl Door {
    /// The session of that id, if this service has it and the caller may control it. An id that is none is an id that
    /// nobody has.
    async fn find(
        &self,
        authority: Authority,
        id: Result<Path<String>, PathRejection>,
        source: SocketAddr,
    ) -> Result<Found, Failure> {
        let named = named(&id)?;
        // Nobody's here may be somebody's elsewhere.
        if self.member.is_some() && self.session(&named).is_none() {
            return self.elsewhere(authority, &named, source).await.map(Found::Elsewhere);
        }
        self.find_here(authority, id, source).await.map(Found::here)
    }

    /// The same, of the sessions that this worker has.
    async fn find_here(
        &self,
        authority: Authority,
        id: Result<Path<String>, PathRejection>,
        source: SocketAddr,
    ) -> Result<SessionView, Failure> {
        let id = named(&id)?;
        self.controlled(authority, &id).await.inspect_err(|failure| self.denied(&id, source, failure))
    }

    fn not_controlled(&self, failure: &Failure) -> Response {
        self.api.record.control(failure.as_str());
        reply::failure(failure)
    }
}
