//! `{p}/sessions`: listing, and ending sessions and their tracks, from any router: what is asked stands in the store, and
//! the session's owner does it.
//!
//! Who may: the operator with the admin token, a session's client with its token, a proven user with his own.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri, Version};
use axum::response::Response;
use serde_json::{Value, json};
use streamfleet_edge::headers::bearer;
use streamfleet_edge::origin::{Strange, check, requested_host};
use streamfleet_edge::reply;
use streamfleet_session::wire::Failure;
use streamfleet_session::{CloseReason, ResumeToken, SessionId};
use streamfleet_store::{ContextKey, Demand, Done, Filter, Listed, LiveSession, Reach, carry_out};

use super::Call;
use super::away::Found;
use super::claim::unavailable;
use super::owner::{Owner, Voucher};
use crate::limit::Kind;

/// How long a caller waits for what it has asked: a session that plays its last words takes longer, and is told to be on
/// its way.
const PATIENCE: Duration = Duration::from_secs(5);

/// What somebody shows. Only the operator's token has been looked at.
#[derive(Debug, Clone)]
pub(super) enum Authority {
    /// The operator's token.
    Operator,
    /// What may be a session's.
    Client(ResumeToken),
    /// What may be a user's.
    User,
}

impl Authority {
    /// What goes with a request for a session that the router knows nothing of: the operator may see any.
    pub(super) fn voucher(&self) -> Voucher {
        match self {
            Self::Operator => Voucher::Given,
            Self::Client(_) | Self::User => Voucher::None,
        }
    }
}

impl Call {
    pub(super) async fn list(&self, request: Request) -> Response {
        let authority = match self.guard(request.headers(), request.uri(), request.version()) {
            Ok(authority) => authority,
            Err(strange) => return *strange,
        };
        // A session's own token is nobody's here.
        let outcome = match authority {
            Authority::Operator => match filter(request.uri().query()) {
                Some(filter) => self.listed(&filter).await,
                None => {
                    self.api.record.control("invalid_filter");
                    return reply::other(StatusCode::UNPROCESSABLE_ENTITY, "invalid_filter");
                }
            },
            Authority::Client(_) | Authority::User => Err(Failure::Unauthorized),
        };
        self.api.record.control(outcome.as_ref().map_or_else(Failure::as_str, |_| "listed"));
        match outcome {
            Ok(page) => reply::json(StatusCode::OK, &page),
            Err(failure) => reply::failure(&failure),
        }
    }

    async fn listed(&self, filter: &Filter) -> Result<Value, Failure> {
        let page = self.api.parts.store.list(&self.desk.service.name, filter).await;
        let page = page.map_err(|error| unavailable(&error))?;
        let sessions: Vec<Listed> = page.sessions.into_iter().map(Listed::from).collect();
        let mut list = json!({ "sessions": sessions });
        if let Some(next) = page.next {
            list["next"] = json!(next);
        }
        Ok(list)
    }

    pub(super) async fn end(&self, request: Request, id: SessionId) -> Response {
        self.ask(request, &id, Demand::End(CloseReason::EndedByControl)).await
    }

    pub(super) async fn end_track(&self, request: Request, id: SessionId, mid: &str) -> Response {
        match mid.parse() {
            Ok(track) => self.ask(request, &id, Demand::CloseTrack(track)).await,
            // What cannot be a track is none of the session's, whoever asks: but only who may ask learns that.
            Err(_) => match self.guard(request.headers(), request.uri(), request.version()) {
                Ok(_) => reply::failure(&Failure::NotFound),
                Err(strange) => *strange,
            },
        }
    }

    async fn ask(&self, request: Request, id: &SessionId, demand: Demand) -> Response {
        let authority = match self.guard(request.headers(), request.uri(), request.version()) {
            Ok(authority) => authority,
            Err(strange) => return *strange,
        };
        if let Err(failure) = self.tried(&authority) {
            return self.not_controlled(id, &failure);
        }
        let (parts, _) = request.into_parts();
        let live = match self.owner(id).await {
            Ok(Owner::Live(live)) => self.allowed(&authority, &parts, &live).await.map(|_| live),
            Ok(Owner::Said(found)) => return self.ask_there(parts, id, &authority, &found).await,
            Ok(Owner::Last(_) | Owner::Over | Owner::Nobody) | Err(Failure::NotFound) => {
                Err(self.absent(&authority, id).await)
            }
            Err(failure) => Err(failure),
        };
        let live = match live {
            Ok(live) => live,
            Err(failure) => return self.not_controlled(id, &failure),
        };
        let (outcome, response) = self.settled(&live, &demand).await;
        self.api.record.control(outcome);
        self.audit(id, live.user.as_ref()).controlled(outcome);
        response
    }

    /// What is said of a session that is not there: who holds nothing of it is not to learn that.
    async fn absent(&self, authority: &Authority, id: &SessionId) -> Failure {
        match authority {
            Authority::Operator => Failure::NotFound,
            Authority::User => Failure::Unauthorized,
            Authority::Client(token) => {
                let service = self.desk.service.name.clone();
                let contexts = self.api.parts.store.clone().contexts(&service);
                match contexts.verify(&ContextKey { service, session: id.clone() }, token).await {
                    Ok(Some(_)) => Failure::NotFound,
                    Ok(None) => Failure::Unauthorized,
                    Err(error) => unavailable(&error),
                }
            }
        }
    }

    /// Asks a session's worker itself, where nothing can be written down for it.
    async fn ask_there(&self, parts: Parts, id: &SessionId, authority: &Authority, found: &Found) -> Response {
        let answer = match self.allowed_there(authority, &parts, found).await {
            Ok(at) => self.pass_in(parts, Body::empty(), at).await,
            Err(failure) => Err(failure),
        };
        match answer {
            Ok(response) => {
                self.api.record.control("passed");
                self.audit(id, found.user.as_ref()).controlled("passed");
                response
            }
            Err(failure) => self.not_controlled(id, &failure),
        }
    }

    /// Counts what may be a guess.
    pub(super) fn tried(&self, authority: &Authority) -> Result<(), Failure> {
        match authority {
            Authority::Operator => Ok(()),
            Authority::Client(_) | Authority::User => self.rated(Kind::Session, Instant::now()),
        }
    }

    pub(super) fn not_controlled(&self, id: &SessionId, failure: &Failure) -> Response {
        self.api.record.control(failure.as_str());
        if *failure == Failure::Unauthorized {
            self.audit(id, None).denied(failure.as_str());
        }
        reply::failure(failure)
    }

    async fn settled(&self, live: &LiveSession, demand: &Demand) -> (&'static str, Response) {
        let (store, service, id) = (&self.api.parts.store, &self.desk.service.name, &live.session);
        match (carry_out(store.as_ref(), service, live, demand, PATIENCE).await, demand) {
            (Ok(Done::Ended(reason)), _) => ("ended", reply::ended(id, reason)),
            (Ok(Done::TrackClosed), Demand::CloseTrack(track)) => {
                ("track_closed", reply::track_closed(id, track.as_str()))
            }
            (Ok(Done::TrackClosed | Done::Unknown), _) => ("not_found", reply::failure(&Failure::NotFound)),
            (Ok(Done::Pending), _) => ("ending", reply::ending(id)),
            (Err(error), _) => {
                let failure = unavailable(&error);
                (failure.as_str(), reply::failure(&failure))
            }
        }
    }

    /// Lets a request through to the control routes if it comes from nobody else's page, by no strange name, and with
    /// what may be somebody's token. The order keeps a foreign page from trying tokens.
    pub(super) fn guard(&self, headers: &HeaderMap, uri: &Uri, version: Version) -> Result<Authority, Box<Response>> {
        let access = &self.api.parts.access;
        let named = requested_host(version, headers, uri)
            .and_then(|host| check(headers, &host, &access.hosts, &access.origins));
        let (label, response) = match named {
            Err(Strange::Malformed) => ("invalid_host", reply::invalid_host()),
            Err(Strange::Origin | Strange::Host) => ("forbidden", reply::failure(&Failure::Forbidden)),
            Ok(()) => match bearer(headers) {
                Some(token) if access.admin_token.matches(token) => return Ok(Authority::Operator),
                Some(token) => return Ok(token.parse().map_or(Authority::User, Authority::Client)),
                None => ("unauthorized", reply::failure(&Failure::Unauthorized)),
            },
        };
        self.api.record.control(label);
        Err(Box::new(response))
    }

    /// Where a request about a session goes, if whoever asks may. A token that is not its own is nobody's.
    pub(super) async fn allowed(
        &self,
        authority: &Authority,
        parts: &Parts,
        live: &LiveSession,
    ) -> Result<(Reach, Voucher), Failure> {
        match authority {
            Authority::Operator => Ok((live.at.clone(), Voucher::Given)),
            Authority::Client(token) => {
                let service = self.desk.service.name.clone();
                let contexts = self.api.parts.store.clone().contexts(&service);
                let key = ContextKey { service, session: live.session.clone() };
                let context = contexts.verify(&key, token).await.map_err(|error| unavailable(&error))?;
                match context {
                    Some(context) if context == live.context => Ok((live.at.clone(), Voucher::None)),
                    // Its own session is over, and the id another one's by now.
                    Some(_) => Err(Failure::NotFound),
                    None => Err(Failure::Unauthorized),
                }
            }
            Authority::User if self.is_user(parts, live.user.as_ref()).await => Ok((live.at.clone(), Voucher::Given)),
            Authority::User => Err(Failure::Unauthorized),
        }
    }

    /// As [`allowed`](Self::allowed), where the store cannot be asked: of a session's own token its worker judges.
    pub(super) async fn allowed_there(
        &self,
        authority: &Authority,
        parts: &Parts,
        found: &Found,
    ) -> Result<(Reach, Voucher), Failure> {
        match authority {
            Authority::Operator => Ok((found.at.clone(), Voucher::Given)),
            Authority::Client(_) => Ok((found.at.clone(), Voucher::None)),
            Authority::User if self.is_user(parts, found.user.as_ref()).await => Ok((found.at.clone(), Voucher::Given)),
            Authority::User => Err(Failure::Unauthorized),
        }
    }
}

fn filter(query: Option<&str>) -> Option<Filter> {
    Filter::from_query(form_urlencoded::parse(query.unwrap_or_default().as_bytes()))
}
