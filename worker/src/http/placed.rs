//! Sessions that a router has placed here: what it says of them, and why they are not taken.

use std::sync::Arc;
use std::time::Instant;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use streamfleet_session::fleet::{PLACED_HEADER, Placed, REFUSED_HEADER, Refused, Share, Standing};
use streamfleet_session::wire::Failure;
use streamfleet_session::{Identity, Limits, SessionId, UserId};

use super::offer::FULL_RETRY;
use super::{Door, reply};
use crate::admission::{Refusal, Slot};
use crate::fleet::{Member, Place};

/// Why there is no session: what its client is told, or what its router is told, which asks another worker then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unopened {
    Failure(Failure),
    Refused(Refused),
}

impl Unopened {
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Failure(failure) => failure.as_str(),
            Self::Refused(refused) => refused.as_str(),
        }
    }

    pub(super) fn response(&self) -> Response {
        match self {
            Self::Failure(failure) => reply::failure(failure),
            Self::Refused(refused) => refusal(*refused),
        }
    }
}

impl From<Failure> for Unopened {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<Refused> for Unopened {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

fn refusal(refused: Refused) -> Response {
    let mut response = reply::failure(&match refused {
        Refused::Draining => Failure::Draining,
        Refused::Stale | Refused::Full | Refused::Stranger => Failure::NoCapacity { retry_after: FULL_RETRY },
    });
    let value = HeaderValue::from_static(refused.as_str());
    response.headers_mut().insert(HeaderName::from_static(REFUSED_HEADER), value);
    response
}

/// All that a placed session comes in with.
pub(super) struct Entrance {
    pub(super) place: Place,
    pub(super) identity: Identity,
    pub(super) slot: Slot,
}

/// Whether a router says anything of a session.
pub(super) fn is_placed(headers: &HeaderMap) -> bool {
    headers.contains_key(PLACED_HEADER)
}

impl Door {
    /// Takes what a router has placed here.
    pub(super) fn enter(&self, member: &Arc<Member>, headers: &HeaderMap, now: Instant) -> Result<Entrance, Unopened> {
        let mut values = headers.get_all(PLACED_HEADER).iter();
        let (Some(header), None) = (values.next(), values.next()) else { return Err(Refused::Stale.into()) };
        let placed = Placed::decode(header.as_bytes()).map_err(|error| {
            tracing::warn!(%error, "a router says of a session what cannot be read");
            Refused::Stale
        })?;
        if self.admission.is_draining() {
            return Err(Refused::Draining.into());
        }
        let (id, moves, standing) = (placed.session.clone(), placed.takes_over.is_some(), placed.standing);
        // From here on the place is given back with whatever holds it.
        let place = member.take(placed)?;
        let identity = place.identity(&self.service.identity.metadata).map_err(Failure::from)?;
        let user = identity.user_id.as_ref();
        let slot = match standing {
            Standing::Claimed => self.claimed(&id, user, moves, now)?,
            Standing::Provisional(share) => self.unclaimed(&id, user, share, now)?,
        };
        Ok(Entrance { place, identity, slot })
    }

    /// A slot for a session that the fleet has given its place: nothing is left to decide.
    fn claimed(&self, id: &SessionId, user: Option<&UserId>, moves: bool, now: Instant) -> Result<Slot, Unopened> {
        let slot = match self.admission.admit(id, user, now) {
            Err(Refusal::AlreadyExists) if moves => self.admission.take_over(id, user, now),
            admitted => admitted,
        };
        slot.map_err(|refusal| match refusal {
            Refusal::Draining => Refused::Draining.into(),
            // The fleet has given the id away; who had it here is on its way out.
            Refusal::AlreadyExists => Refused::Stale.into(),
            Refusal::Concurrency { .. } | Refusal::UserLimit { .. } | Refusal::Full => Refused::Full.into(),
        })
    }

    /// A slot for one that nobody has given a place: this worker is all there is to decide, and its client is told why not.
    fn unclaimed(&self, id: &SessionId, user: Option<&UserId>, share: Share, now: Instant) -> Result<Slot, Unopened> {
        let limits = Limits { concurrency: share.sessions, per_user: share.of_user, ..*self.admission.limits() };
        self.admission.admit_within(&limits, id, user, now).map_err(|refusal| match refusal {
            Refusal::Draining => Refused::Draining.into(),
            Refusal::Full => Refused::Full.into(),
            told @ (Refusal::AlreadyExists | Refusal::Concurrency { .. } | Refusal::UserLimit { .. }) => {
                Failure::from(told).into()
            }
        })
    }
}

/// Whether a client says the id that its router has read: of two, neither is to be believed.
pub(super) fn same(entrance: &Entrance, id: &SessionId) -> Result<(), Refused> {
    if entrance.slot.id() == id { Ok(()) } else { Err(Refused::Stale) }
}
