//! `POST {p}/webrtc/offer`: an offer, or one candidate.
//!
//! The order of the checks is part of the protocol, and the same for both: size and shape, service (the route), rate,
//! identity and metadata, then what a client can learn about ids and limits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use parking_lot::Mutex;
use serde_json::Value;
pub(super) use streamfleet_edge::headers::utf8;
use streamfleet_process::telemetry::trace;
use streamfleet_session::early::Insertion;
use streamfleet_session::wire::{Answer, Failure, Offer, OfferBody};
use streamfleet_session::{
    Claims, Identity, IdentityPolicy, ParsedCandidate, RemoteCandidate, ResumeToken, ServiceName, SessionId,
    State as Life, UserIdSource, identify,
};
use tokio::time::timeout;
use tracing::Instrument as _;

use super::body;
use super::placed::{Entrance, Unopened, same};
use super::rate::{SourceRate, TooMany};
use super::{Audit, Door, OpenRequest, SessionView, reply, source};
use crate::admission::{Refusal, Slot};
use crate::fleet::{Member, Place};

/// For a session to be set up and answered. Browsers wait longer than people do.
const OPEN_TIME: Duration = Duration::from_secs(30);

/// When a full worker may be asked again: sessions end every few seconds on one that is full.
pub(super) const FULL_RETRY: Duration = Duration::from_secs(5);

pub(super) async fn offer(State(door): State<Arc<Door>>, request: Request) -> Response {
    let began = Instant::now();
    let source = source(request.extensions());
    let (parts, body) = request.into_parts();
    let body = match body::read(body).await {
        Ok(body) => body,
        Err(fault) => {
            door.api.record.offer(fault.as_str());
            return reply::body_fault(fault);
        }
    };
    match OfferBody::parse(&body) {
        Err(error) => {
            door.api.record.offer("invalid_body");
            reply::shape(&error)
        }
        Ok(OfferBody::Candidate { webrtc_id, candidate, metadata }) => {
            let claims = Claims { metadata: metadata.as_ref(), candidate: None };
            let outcome = match door.admits_candidate(claims, &parts.headers, source, began) {
                Ok(()) => door.candidate(&webrtc_id, &candidate, source).await,
                Err(failure) => Err(failure),
            };
            door.api.record.candidate(outcome.as_ref().map_or_else(Failure::as_str, |()| "accepted"));
            outcome.map_or_else(|failure| reply::failure(&failure), |()| reply::success())
        }
        Ok(OfferBody::Offer(offer)) => {
            let service = &door.service.name;
            let span = tracing::info_span!("offer", %service, session = %offer.webrtc_id, otel.kind = "server");
            trace::accept(&span, |name| utf8(&parts.headers, name));
            let outcome = async {
                match &door.member {
                    None => door.offer(offer, &parts.headers, source, began).await.map_err(Unopened::from),
                    Some(member) => door.placed_offer(member, offer, &parts.headers, began).await,
                }
            };
            let outcome = outcome.instrument(span).await;
            door.api.record.offer(outcome.as_ref().map_or_else(Unopened::as_str, |_| "accepted"));
            outcome.map_or_else(|unopened| unopened.response(), |answer| reply::answer(&answer))
        }
    }
}

impl Door {
    async fn offer(
        &self,
        offer: Offer,
        headers: &HeaderMap,
        source: SocketAddr,
        began: Instant,
    ) -> Result<Answer, Failure> {
        let session = offer.webrtc_id.clone();
        let mut audit = Audit { service: &self.service.name, session: &session, user: None };
        let rate = self.rates.as_ref().map(|rates| &rates.offers);
        let identity = check_rate(rate, source, began)
            .and_then(|()| identity(Claims::from(&offer), headers, &self.service.identity));
        let user = identity.as_ref().ok().and_then(|identity| identity.user_id.clone());
        audit.user = user.as_ref();
        let opened = match identity {
            Ok(identity) => self.open(offer, identity, source).await,
            Err(failure) => Err(failure),
        };
        match &opened {
            Ok(_) => {
                self.api.record.offer_took(began.elapsed());
                audit.accepted(source);
            }
            Err(failure) => audit.refused(source, failure.as_str()),
        }
        opened
    }

    /// An offer that a router has placed here, which has made the checks of one.
    async fn placed_offer(
        &self,
        member: &Arc<Member>,
        offer: Offer,
        headers: &HeaderMap,
        began: Instant,
    ) -> Result<Answer, Unopened> {
        let entrance = self.enter(member, headers, began)?;
        same(&entrance, &offer.webrtc_id)?;
        let Entrance { place, identity, slot } = entrance;
        let (id, user, source) = (offer.webrtc_id.clone(), identity.user_id.clone(), place.placed().client);
        let audit = Audit { service: &self.service.name, session: &id, user: user.as_ref() };
        let opened = self.begin(offer, identity, slot, Some(place), source).await;
        match &opened {
            Ok(_) => {
                self.api.record.offer_took(began.elapsed());
                audit.accepted(source);
            }
            Err(failure) => audit.refused(source, failure.as_str()),
        }
        Ok(opened?)
    }

    /// The checks that a candidate has in common with an offer: who may not offer here may not ask about ids either.
    fn admits_candidate(
        &self,
        claims: Claims<'_>,
        headers: &HeaderMap,
        source: SocketAddr,
        now: Instant,
    ) -> Result<(), Failure> {
        if self.member.is_some() {
            return Ok(());
        }
        let rate = self.rates.as_ref().map(|rates| &rates.candidates);
        check_rate(rate, source, now)?;
        identity(claims, headers, &self.service.identity).map(|_| ())
    }

    async fn open(&self, offer: Offer, identity: Identity, source: SocketAddr) -> Result<Answer, Failure> {
        let slot = self.place(&offer.webrtc_id, &identity, offer.resume, Instant::now())?;
        self.begin(offer, identity, slot, None, source).await
    }

    async fn begin(
        &self,
        offer: Offer,
        identity: Identity,
        slot: Slot,
        place: Option<Place>,
        source: SocketAddr,
    ) -> Result<Answer, Failure> {
        let Offer { webrtc_id: id, sdp, resume, .. } = offer;
        let now = Instant::now();
        let early = self.api.early.lock().offer_arrived(&self.key(&id), now);
        let service = self.service.clone();
        let request = OpenRequest { service, id: id.clone(), sdp, identity, slot, resume, place, early, source };
        let answer = match timeout(OPEN_TIME, self.api.host.open(request)).await {
            Ok(opened) => opened?,
            Err(_) => return Err(Failure::NoCapacity { retry_after: FULL_RETRY }),
        };
        self.flush(&id).await;
        Ok(answer)
    }

    /// A place for a session, or beside the one that lives if its client says that it has come from there. Whether it has is
    /// asked when the context is opened.
    pub(super) fn place(
        &self,
        id: &SessionId,
        identity: &Identity,
        resume: Option<ResumeToken>,
        now: Instant,
    ) -> Result<Slot, Failure> {
        let user = identity.user_id.as_ref();
        let slot = match self.admission.admit(id, user, now) {
            Err(Refusal::AlreadyExists) if resume.is_some() => self.admission.take_over(id, user, now),
            admitted => admitted,
        };
        Ok(slot?)
    }

    /// How an id is known to the buffer of early candidates.
    fn key(&self, id: &SessionId) -> (ServiceName, SessionId) {
        (self.service.name.clone(), id.clone())
    }

    /// The session of that id, if this service has it.
    pub(super) fn session(&self, id: &SessionId) -> Option<SessionView> {
        self.api.host.session(id).filter(|session| session.service == self.service.name)
    }

    async fn candidate(&self, id: &SessionId, candidate: &Value, source: SocketAddr) -> Result<(), Failure> {
        let Ok(candidate) = RemoteCandidate::parse(candidate) else {
            // What is wrong with the session comes before what is wrong with the candidate.
            return Err(match self.session(id).map(|session| session.state) {
                None => Failure::UnknownConnection,
                Some(Life::Ending(_) | Life::Closed(_)) => Failure::ConnectionClosed,
                Some(_) => Failure::InvalidCandidateFormat,
            });
        };
        let host = &self.api.host;
        match host.candidate(&self.service.name, id, candidate.clone()).await {
            Err(Failure::UnknownConnection) => {}
            told => return told,
        }
        // An id that lives in another service cannot come to be in this one: there is nothing to wait for.
        if host.session(id).is_some_and(|session| session.service != self.service.name) {
            return Err(Failure::UnknownConnection);
        }
        match self.api.early.lock().insert(&self.key(id), source.ip(), candidate, Instant::now()) {
            Insertion::Refused => return Err(Failure::UnknownConnection),
            Insertion::Buffered => {}
        }
        // The offer may have been answered between the two: then nobody else would ever look into the buffer.
        if self.session(id).is_some() {
            self.flush(id).await;
        }
        Ok(())
    }

    /// Hands over the candidates that came while their session was being set up.
    async fn flush(&self, id: &SessionId) {
        let late = self.api.early.lock().offer_arrived(&self.key(id), Instant::now());
        for candidate in late {
            // Their senders have been told that all is well; a session that is over by now needs none.
            let candidate = ParsedCandidate::Candidate(candidate);
            let _ = self.api.host.candidate(&self.service.name, id, candidate).await;
        }
    }
}

pub(super) fn check_rate(rate: Option<&Mutex<SourceRate>>, source: SocketAddr, now: Instant) -> Result<(), Failure> {
    let Some(rate) = rate else { return Ok(()) };
    rate.lock().take(source.ip(), now).map_err(|TooMany(wait)| Failure::RateLimited { retry_after: wait })
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Draining => Failure::Draining,
            Refusal::AlreadyExists => Failure::ConnectionAlreadyExists,
            Refusal::Concurrency { limit } => Failure::ConcurrencyLimitReached { limit },
            Refusal::UserLimit { limit } => Failure::UserLimitReached { limit },
            Refusal::Full => Failure::NoCapacity { retry_after: FULL_RETRY },
        }
    }
}

pub(super) fn identity(claims: Claims<'_>, headers: &HeaderMap, policy: &IdentityPolicy) -> Result<Identity, Failure> {
    // A header that is there and cannot be read must not be passed over: the next source would name another user.
    for source in &policy.user_id_from {
        if let UserIdSource::Header(name) = source
            && headers.contains_key(name)
            && utf8(headers, name).is_none()
        {
            return Err(Failure::InvalidMetadata { detail: format!("the header {name} must be UTF-8") });
        }
    }
    Ok(identify(claims, |name| utf8(headers, name), policy)?)
}
