//! On what authority a session is reached: the operator's token, its client's own, or its user's proven identity; and for
//! what its client does beside its media its id alone, unless a proven user owns it.
//!
//! Nothing here spends a token: the one that resumes a session is shown to reach it, and stays good.

use std::net::SocketAddr;
use std::time::Instant;

use axum::http::{Extensions, HeaderMap};
pub(super) use streamfleet_edge::headers::bearer;
use streamfleet_session::wire::Failure;
use streamfleet_session::{Claims, ResumeToken, SessionId, UserId};
use streamfleet_store::{ContextId, ContextKey, StoreError};

use super::offer::{FULL_RETRY, check_rate, identity};
use super::{Access, Audit, Door, Reached, SessionView, source};
use crate::fleet::guard::Proven;

/// What a request that is no page's shows of its sender.
#[derive(Clone, Copy)]
pub(super) struct Sender<'a> {
    pub(super) headers: &'a HeaderMap,
    /// What stands for a token of its headers where it can have none.
    pub(super) token: Option<&'a str>,
    /// The user whom a router has proved to ask.
    proven: Option<&'a UserId>,
    pub(super) source: SocketAddr,
}

impl<'a> Sender<'a> {
    pub(super) fn of(headers: &'a HeaderMap, extensions: &'a Extensions, token: Option<&'a str>) -> Self {
        let proven = extensions.get::<Proven>().map(|Proven(user)| user);
        Self { headers, token, proven, source: source(extensions) }
    }

    /// Whether a router has proved that this user asks.
    pub(super) fn is(&self, user: Option<&UserId>) -> bool {
        self.proven.is_some() && self.proven == user
    }

    /// The token that is shown.
    pub(super) fn shown(&self) -> Option<&'a str> {
        bearer(self.headers).or(self.token)
    }
}

/// What somebody shows. It has the form of a token; only the operator's has been looked at.
#[derive(Clone, Copy)]
pub(super) enum Authority {
    /// The operator's token.
    Operator,
    /// What may be a session's.
    Token(ResumeToken),
}

/// Whose authority it has proven to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Operator,
    /// The client that this context belongs to.
    Client(ContextId),
}

impl Access {
    /// What this text is as a token, if it can be one.
    pub(super) fn authority(&self, token: &str) -> Option<Authority> {
        if self.admin_token.matches(token) {
            return Some(Authority::Operator);
        }
        token.parse().ok().map(Authority::Token)
    }
}

impl Door {
    /// Who holds the session `id`, by what they show. A token that is not its own is nobody's, whether the id is in use or
    /// not.
    pub(super) async fn holder(&self, authority: Authority, id: &SessionId) -> Result<Holder, Failure> {
        match authority {
            Authority::Operator => Ok(Holder::Operator),
            Authority::Token(token) => {
                let verified = self.api.host.contexts(&self.service.name).verify(&self.context_key(id), &token).await;
                verified.map_err(unavailable)?.map(Holder::Client).ok_or(Failure::Unauthorized)
            }
        }
    }

    /// The live session `id`, for whoever may control it.
    pub(super) async fn controlled(&self, authority: Authority, id: &SessionId) -> Result<SessionView, Failure> {
        let holder = self.holder(authority, id).await?;
        let session = self.session(id).filter(|session| match holder {
            Holder::Operator => true,
            // Its own session may be over, and the id another one's by now.
            Holder::Client(context) => session.context == context,
        });
        session.ok_or(Failure::NotFound)
    }

    /// The session `id` for its client: for anybody who knows the id, or, where a proven user owns it, for whoever shows
    /// that user's identity, the session's token or the operator's.
    pub(super) async fn reached(&self, id: &SessionId, sender: Sender<'_>) -> Result<Reached, Failure> {
        check_rate(self.rates.as_ref().map(|rates| &rates.sessions), sender.source, Instant::now())?;
        let reached = self.api.host.reach(&self.service.name, id).ok_or(Failure::NotFound)?;
        if !reached.shared.verified().is_verified() || self.is_owner(&reached, sender) {
            return Ok(reached);
        }
        let shown = sender.shown().and_then(|token| self.api.access.authority(token));
        let holder = match shown {
            Some(authority) => self.holder(authority, id).await?,
            None => return Err(Failure::Unauthorized),
        };
        let own = holder == Holder::Operator || holder == Holder::Client(reached.context);
        if own { Ok(reached) } else { Err(Failure::Unauthorized) }
    }

    /// Whether the request proves that its sender is the session's user.
    fn is_owner(&self, reached: &Reached, sender: Sender<'_>) -> bool {
        let user = reached.shared.user();
        let proves = || identity(Claims::default(), sender.headers, &self.service.identity);
        sender.is(user)
            || proves().is_ok_and(|identity| identity.verified.is_verified() && identity.user_id.as_ref() == user)
    }

    /// How the store knows an id of this service.
    pub(super) fn context_key(&self, id: &SessionId) -> ContextKey {
        ContextKey { service: self.service.name.clone(), session: id.clone() }
    }

    /// Writes down that somebody was not let through to a session.
    pub(super) fn denied(&self, id: &SessionId, source: SocketAddr, failure: &Failure) {
        if matches!(failure, Failure::Unauthorized | Failure::RateLimited { .. }) {
            let audit = Audit { service: &self.service.name, session: id, user: None };
            audit.denied(source, failure.as_str());
        }
    }
}

pub(super) fn unavailable(error: StoreError) -> Failure {
    match error {
        StoreError::Full => Failure::NoCapacity { retry_after: FULL_RETRY },
        StoreError::Unavailable(_) | StoreError::NoMemory | StoreError::Refused(_) | StoreError::Schema { .. } => {
            tracing::warn!(%error, "the store of contexts does not answer");
            Failure::UpstreamUnavailable
        }
    }
}
