//! `{p}/sessions`: listing, reading and ending sessions, with the admin token.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{Extensions, HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use serde::Serialize;
use streamfleet_session::wire::Failure;
use streamfleet_session::{CloseReason, SessionId};

use super::origin::{self, Strange};
use super::{Audit, Door, Ended, SessionView, reply, source};

/// Lets a request through to the control routes if it comes from nobody else's page, by no strange name, and with the
/// admin token. The order keeps a foreign page from trying tokens.
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
        Ok(()) if !bearer(request.headers()).is_some_and(|token| access.admin_token.matches(token)) => {
            Failure::Unauthorized
        }
        Ok(()) => return next.run(request).await,
    };
    door.api.record.control(failure.as_str());
    reply::failure(&failure)
}

/// The token of `Authorization: Bearer …` (RFC 6750, 2.1); the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

pub(super) async fn list(State(door): State<Arc<Door>>) -> Response {
    #[derive(Serialize)]
    struct List {
        sessions: Vec<SessionView>,
    }
    let mut sessions = door.api.host.sessions(&door.service.name);
    sessions.sort_by(|a, b| a.since.cmp(&b.since).then_with(|| a.id.cmp(&b.id)));
    door.api.record.control("listed");
    reply::json(StatusCode::OK, &List { sessions })
}

pub(super) async fn show(State(door): State<Arc<Door>>, id: Result<Path<String>, PathRejection>) -> Response {
    match door.find(id) {
        Some(session) => {
            door.api.record.control("shown");
            reply::json(StatusCode::OK, &session)
        }
        None => door.not_found(),
    }
}

pub(super) async fn end(
    State(door): State<Arc<Door>>,
    extensions: Extensions,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let Some(SessionView { id, user_id, .. }) = door.find(id) else { return door.not_found() };
    let ended = door.api.host.end(&id, CloseReason::EndedByControl).await;
    let (outcome, response) = match ended {
        Ok(Ended::Closed(reason)) => ("ended", reply::ended(&id, reason)),
        Ok(Ended::Ending) => ("ending", reply::ending(&id)),
        Err(failure) => (failure.as_str(), reply::failure(&failure)),
    };
    door.api.record.control(outcome);
    let audit = Audit { service: &door.service.name, session: &id, user: user_id.as_ref() };
    audit.controlled(source(&extensions), outcome);
    response
}

impl Door {
    /// The session of that id, if this service has it. An id that is none is an id that nobody has.
    fn find(&self, id: Result<Path<String>, PathRejection>) -> Option<SessionView> {
        let id: SessionId = id.ok()?.0.parse().ok()?;
        self.session(&id)
    }

    fn not_found(&self) -> Response {
        self.api.record.control(Failure::NotFound.as_str());
        reply::failure(&Failure::NotFound)
    }
}
