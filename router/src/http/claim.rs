//! The way of a session to its worker: identity, plan, claim, one worker and perhaps another.
//!
//! What carries the session (an offer, a handshake) is a [`Carrier`], which asks a worker; everything that is decided about it
//! is decided here.

use std::time::{Duration, Instant, SystemTime};

use axum::http::HeaderValue;
use streamfleet_edge::rate::subscriber;
use streamfleet_process::telemetry::trace;
use streamfleet_service::spec::{Exposure, ResumeBy};
use streamfleet_session::fleet::{Form, Placed, PlacedContext, PlacedMedia, Refused, Standing};
use streamfleet_session::wire::Failure;
use streamfleet_session::{ResumeToken, SessionId, UserId};
use streamfleet_store::{
    Account, Claim, ClaimRequest, Claimed, ContextId, Delivery, Epoch, Placement, Quota, Reach, StoreError, Ticket,
};

use super::Call;
use super::away::Returning;
use super::record::Audit;
use super::wait::Wait;
use crate::attempt::{self, Attempts, FULL_RETRY, Fate, Next, Outcome};
use crate::hold::RETRY_AFTER;
use crate::identify::{Caller, Shown, Unknown};
use crate::limit::Kind;
use crate::place::Plan;
use crate::relay::{Minting, Unplaced};
use crate::webhook;

/// How often a claim is given back to a store that is away, and how long it is waited in between: together the ten seconds
/// after which it is void.
const RELEASES: u32 = 20;
const RELEASE_AGAIN: Duration = Duration::from_millis(500);

/// A session that wants a place.
pub(super) struct Wanted<'a> {
    pub(super) session: &'a SessionId,
    pub(super) caller: Caller,
    pub(super) resume: Option<ResumeToken>,
    pub(super) delivery: Delivery,
    /// What its media comes over.
    pub(super) medium: Medium,
}

/// What a session's media comes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Medium {
    /// Datagrams of its client's.
    Udp,
    /// The socket that it was begun with.
    Socket,
}

/// What a worker is asked with.
pub(super) struct Ask {
    pub(super) at: Reach,
    pub(super) placed: HeaderValue,
}

/// A worker's answer.
pub(super) struct Told<T> {
    pub(super) outcome: Outcome,
    /// What the client gets if the worker has answered.
    pub(super) answer: Option<T>,
}

/// A place as a worker is told of it: by a claim, or without one.
pub(super) struct Grant {
    pub(super) ticket: Ticket,
    pub(super) at: Reach,
    pub(super) epoch: Epoch,
    pub(super) standing: Standing,
    pub(super) context: PlacedContext,
    pub(super) takes_over: Option<Ticket>,
}

impl Grant {
    /// `user` is whom its context is given back to.
    fn of(ticket: Ticket, placement: Placement, user: Option<UserId>) -> Self {
        let Placement { at, epoch, opened, takes_over } = placement;
        let context = PlacedContext {
            id: opened.id.bits(),
            version: opened.document.version.0,
            data: opened.document.data,
            resumed: opened.resumed,
            token: opened.token,
            generation: opened.generation.number(),
            user,
        };
        Self { ticket, at, epoch, standing: Standing::Claimed, context, takes_over }
    }
}

/// Why there is no claim.
enum Unclaimed {
    /// No worker has room that looked as if it had.
    NoRoom,
    /// Its session may live: the workers are still telling the store what they have, for so long.
    Settling(Duration),
    /// The client is told so.
    Refused(Failure),
    /// The store cannot be asked.
    Away,
}

/// What brings a session to a worker.
pub(super) trait Carrier: Sync {
    /// What the client gets.
    type Answer: Send;

    /// Asks a worker to take the session.
    fn ask(&self, ask: Ask) -> impl Future<Output = Told<Self::Answer>> + Send;
}

/// A session's place.
pub(super) struct Served<T> {
    pub(super) at: Reach,
    pub(super) answer: T,
    /// Whether the worker has taken it.
    pub(super) outcome: Outcome,
}

impl Call {
    /// Who calls, if he may: rate, identity, metadata, and the webhook.
    pub(super) async fn identified(
        &self,
        shown: Shown<'_>,
        session: &SessionId,
        now: Instant,
    ) -> Result<Caller, Failure> {
        self.rated(Kind::Offer, now).map_err(|failure| self.refuse(session, None, failure, None))?;
        self.acquainted(shown, session, now).await
    }

    /// The same, of somebody whose address does not count.
    pub(super) async fn acquainted(
        &self,
        shown: Shown<'_>,
        session: &SessionId,
        now: Instant,
    ) -> Result<Caller, Failure> {
        let caller = self.known_caller(shown).await.map_err(|unknown| {
            let why = unknown.as_str();
            self.refuse(session, None, unknown.into(), Some(why))
        })?;
        let user_rate = match (&self.desk.rates, caller.proved()) {
            (Some(rates), Some(user)) => rates.take_user(user, now),
            _ => Ok(()),
        };
        if let Err(failure) = user_rate {
            return Err(self.refuse(session, Some(&caller), failure, Some("user")));
        }
        if let Some(hook) = &self.desk.service.identity.webhook {
            let service = &self.desk.service.name;
            let word = webhook::ask(&self.api.parts.http, hook, service, session, &caller).await;
            word.map_err(|failure| self.refuse(session, Some(&caller), failure, Some("webhook")))?;
        }
        Ok(caller)
    }

    /// Who calls, by what he shows.
    pub(super) async fn known_caller(&self, shown: Shown<'_>) -> Result<Caller, Unknown> {
        let token = shown.token().filter(|_| self.desk.identifier.takes_tokens());
        let keys = match token {
            Some(token) => self.desk.keyring.keys_for(token).await,
            None => None,
        };
        self.desk.identifier.identify(shown, keys.as_ref(), SystemTime::now())
    }

    /// Counts a request.
    pub(super) fn rated(&self, kind: Kind, now: Instant) -> Result<(), Failure> {
        self.desk.rates.as_ref().map_or(Ok(()), |rates| rates.take(kind, self.client.ip(), now))
    }

    pub(super) fn refuse(
        &self,
        session: &SessionId,
        caller: Option<&Caller>,
        failure: Failure,
        reason: Option<&'static str>,
    ) -> Failure {
        let user = caller.and_then(|caller| caller.user.as_ref());
        self.audit(session, user).refused(failure.as_str(), reason);
        failure
    }

    /// Has a worker take the session. What it has waited already counts.
    pub(super) async fn place<C: Carrier>(
        &self,
        wanted: &Wanted<'_>,
        carrier: &C,
        mut wait: Wait<'_>,
    ) -> Result<Served<C::Answer>, Failure> {
        let user = wanted.caller.user.as_ref();
        let audit = self.audit(wanted.session, user);
        if let Err(failure) = self.way_for_media(wanted) {
            audit.refused(failure.as_str(), Some("media_address"));
            return Err(failure);
        }
        let served = self.try_workers(wanted, carrier, &audit, &mut wait).await;
        if let Err(failure) = &served {
            wait.give_up();
            audit.refused(failure.as_str(), None);
            self.unserved(failure);
        }
        served
    }

    /// One has got no place: he is as much a demand as those who have one.
    pub(super) fn unserved(&self, failure: &Failure) {
        if let Failure::NoCapacity { .. } = failure {
            self.api.parts.hold.refuse(&self.desk.service.name);
        }
    }

    async fn try_workers<C: Carrier>(
        &self,
        wanted: &Wanted<'_>,
        carrier: &C,
        audit: &Audit<'_>,
        wait: &mut Wait<'_>,
    ) -> Result<Served<C::Answer>, Failure> {
        let mut attempts = Attempts::default();
        let mut or = None;
        let returning = match wanted.medium {
            Medium::Udp => Returning::Offer,
            Medium::Socket => Returning::Socket,
        };
        loop {
            // Who shows a token may have a worker, which is not known again yet: he is no demand for more of them.
            if wanted.resume.is_some()
                && !self.desk.directory.now().has_anybody()
                && let Ok(Some(left)) = self.unsure().await
            {
                wait.settles(returning, left).await?;
                continue;
            }
            let plan = match (wait.plan(wanted, &attempts).await, &or) {
                (Ok(plan), _) => plan,
                // There is no other worker: what the first one's silence means is what is told.
                (Err(_), Some(failure)) => return Err(Failure::clone(failure)),
                (Err(failure), None) => return Err(failure),
            };
            let ticket = Ticket::from_random(rand::random());
            // From here on the claim is given back whatever happens, unless it has become a session.
            let claim = attempt::Claimed::new(ticket, |ticket| self.give_back(ticket));
            let (plan, grant) = match self.claim(wanted, ticket, &plan, &mut attempts).await {
                Ok(placement) => (plan, Grant::of(ticket, *placement, self.context_user(&wanted.caller))),
                Err(Unclaimed::NoRoom) => {
                    // There is nothing to give back.
                    claim.settle(Fate::Kept);
                    wait.no_room(wanted, &attempts).await?;
                    continue;
                }
                Err(Unclaimed::Settling(left)) => {
                    claim.settle(Fate::Kept);
                    attempts.put_off();
                    wait.settles(returning, left).await?;
                    continue;
                }
                Err(Unclaimed::Refused(failure)) => return Err(failure),
                Err(Unclaimed::Away) => match (self.provision(wanted, &attempts).await, &or) {
                    (Ok(provided), _) => provided,
                    (Err(_), Some(failure)) => return Err(Failure::clone(failure)),
                    (Err(failure), None) => return Err(failure),
                },
            };
            wait.found();
            let (at, is_claimed) = (grant.at.clone(), grant.standing == Standing::Claimed);
            let placed = self.placed(wanted, &plan, grant)?;
            let told = carrier.ask(Ask { at: at.clone(), placed }).await;
            self.api.record.attempt(told.outcome);
            if told.outcome == Outcome::Refused(Refused::Stranger) {
                tracing::error!(worker = %at.worker, "a worker does not know this router: both need the same secret, or the worker its service's key");
            }
            match (attempts.after(&at.worker, told.outcome), told.answer) {
                (Next::Reply { claim: fate }, Some(answer)) => {
                    // Behind a place without a claim there may be one whose answer was lost.
                    claim.settle(if is_claimed { fate } else { Fate::Released });
                    if told.outcome == Outcome::Taken {
                        let standing = if is_claimed { "claimed" } else { "provisional" };
                        self.api.record.placed(standing);
                        audit.placed(&at.worker, standing);
                    }
                    return Ok(Served { at, answer, outcome: told.outcome });
                }
                (Next::Retry { or: failure }, _) => {
                    // Until it is released, the next claim would find the id taken: by this one.
                    let store = &self.api.parts.store;
                    let released = is_claimed && store.release(&self.desk.service.name, ticket).await.is_ok();
                    claim.settle(if released { Fate::Kept } else { Fate::Released });
                    // One that is silent may have begun the session: with its claim gone it has to end it, and without
                    // there would be two.
                    if told.outcome == Outcome::TimedOut && !released {
                        return Err(failure);
                    }
                    or = Some(failure);
                }
                (Next::GiveUp(failure), _) => return Err(failure),
                (Next::Reply { .. }, None) => return Err(Failure::UpstreamUnavailable),
            }
        }
    }

    /// Gives a claim back. While the store is away it may have been made all the same, its answer lost: it is tried again
    /// for as long as a claim lasts that nobody confirms.
    fn give_back(&self, ticket: Ticket) {
        let (store, service) = (self.api.parts.store.clone(), self.desk.service.name.clone());
        let release = async move {
            for _ in 0..RELEASES {
                match store.release(&service, ticket).await {
                    Err(error) if error.is_away() => tokio::time::sleep(RELEASE_AGAIN).await,
                    _ => return,
                }
            }
        };
        self.api.parts.tasks.spawn(self.api.parts.stop.clone().run_until_cancelled_owned(release));
    }

    /// Whom a context is given back to without its token. Where the token alone gives it back that is nobody: a context that has a
    /// user goes back to him without.
    pub(super) fn context_user(&self, caller: &Caller) -> Option<UserId> {
        caller.proved().filter(|_| self.desk.service.resume_by == ResumeBy::Identity).cloned()
    }

    async fn claim(
        &self,
        wanted: &Wanted<'_>,
        ticket: Ticket,
        plan: &Plan,
        attempts: &mut Attempts,
    ) -> Result<Box<Placement>, Unclaimed> {
        let service = &self.desk.service;
        // A second claim is for the same offer.
        let quotas = if attempts.claims() { self.quotas(&wanted.caller) } else { Vec::new() };
        let request = ClaimRequest {
            ticket,
            session: wanted.session.clone(),
            user: wanted.caller.user.clone(),
            claim: Claim { token: wanted.resume, user: self.context_user(&wanted.caller) },
            context: ContextId::from_random(rand::random()),
            token: ResumeToken::from_random(rand::random()),
            delivery: wanted.delivery,
            service_limit: service.limits.concurrency,
            user_limit: service.limits.per_user,
            pin: plan.pin.clone(),
            quotas,
            retention: service.retention,
            ranked: plan.ranked.clone(),
        };
        let began = Instant::now();
        let claimed = self.api.parts.store.claim(&service.name, &request).await;
        let outcome = match claimed {
            Ok(Claimed::Placed(placement)) => Ok(placement),
            Ok(Claimed::Duplicate { .. }) => Err(attempts.duplicate()),
            // It is on its way out: its client may come again in a moment.
            Ok(Claimed::Closing) => Err(Failure::ConnectionAlreadyExists),
            Ok(Claimed::Settling(left)) => {
                self.api.record.claim("settling", began.elapsed());
                return Err(Unclaimed::Settling(left));
            }
            Ok(Claimed::RateLimited(wait)) => Err(Failure::RateLimited { retry_after: wait }),
            Ok(Claimed::ServiceLimit) => {
                Err(limited(service.limits.concurrency, |limit| Failure::ConcurrencyLimitReached { limit }))
            }
            Ok(Claimed::UserLimit) => {
                Err(limited(service.limits.per_user, |limit| Failure::UserLimitReached { limit }))
            }
            // Where one worker alone would do, no other one will.
            Ok(Claimed::NoCapacity { pinned: Some(_) }) => Err(Failure::NoCapacity { retry_after: FULL_RETRY }),
            Ok(Claimed::NoCapacity { pinned: None }) => {
                let full = Failure::NoCapacity { retry_after: FULL_RETRY };
                self.api.record.claim(full.as_str(), began.elapsed());
                return Err(Unclaimed::NoRoom);
            }
            Err(error) if error.is_away() => {
                self.api.record.claim("away", began.elapsed());
                return Err(Unclaimed::Away);
            }
            Err(error) => Err(unavailable(&error)),
        };
        let label = outcome.as_ref().map_or_else(Failure::as_str, |_| "placed");
        self.api.record.claim(label, began.elapsed());
        outcome.map_err(Unclaimed::Refused)
    }

    /// On whose accounts an offer counts in the whole fleet: what this router has counted alone is part of it.
    fn quotas(&self, caller: &Caller) -> Vec<Quota> {
        let Some(per_minute) = self.desk.service.limits.offers_per_minute else { return Vec::new() };
        let quota = |of| Quota { of, per_minute };
        let address = Account::Address(subscriber(self.client.ip()));
        let user = caller.proved().cloned().map(Account::User);
        [Some(address), user].into_iter().flatten().map(quota).collect()
    }

    /// The relay that carries a session's media; `None` where its client sends it to the worker.
    fn relay(&self, wanted: &Wanted<'_>) -> Option<&Minting> {
        let is_relayed = wanted.medium == Medium::Udp && self.desk.service.exposure == Exposure::Relay;
        self.api.parts.relay.as_deref().filter(|_| is_relayed)
    }

    /// Whether a client could be told where to send its media to: nobody is asked for a place that could not be reached.
    fn way_for_media(&self, wanted: &Wanted<'_>) -> Result<(), Failure> {
        match self.relay(wanted) {
            Some(relay) if !relay.leads_somewhere() => Err(nowhere(relay)),
            _ => Ok(()),
        }
    }

    /// How a session's media comes to its worker, where relays carry it. One that none leads to gets no session: its own address
    /// is not for clients.
    fn media(&self, wanted: &Wanted<'_>, at: &Reach) -> Result<Option<PlacedMedia>, Failure> {
        let Some(relay) = self.relay(wanted) else { return Ok(None) };
        let snapshot = self.desk.directory.now();
        let view = snapshot.workers.iter().find(|view| view.owner.worker == at.worker);
        let loops = view.and_then(|view| view.said.as_ref()).map_or(&[][..], |said| &said.media);
        relay.mint(loops).map(Some).map_err(|why| match why {
            Unplaced::Nowhere => nowhere(relay),
            Unplaced::Unreachable => {
                if relay.may_complain(Instant::now()) {
                    tracing::warn!(worker = %at.worker, ?loops, "no relay leads to its media: relay.workers does not have it");
                }
                Failure::UpstreamUnavailable
            }
        })
    }

    /// What the worker is told of the session.
    fn placed(&self, wanted: &Wanted<'_>, plan: &Plan, grant: Grant) -> Result<HeaderValue, Failure> {
        let caller = &wanted.caller;
        let placed = Placed {
            v: Form,
            ticket: grant.ticket.bits(),
            epoch: grant.epoch.0,
            session: wanted.session.clone(),
            user: caller.user.clone(),
            verified: caller.verified.is_verified(),
            metadata: caller.metadata.as_map().clone(),
            claims: caller.claims.clone(),
            variant: plan.variant.clone(),
            pin: plan.pin.as_ref().map(ToString::to_string),
            standing: grant.standing,
            context: grant.context,
            takes_over: grant.takes_over.map(Ticket::bits),
            client: self.client,
            retention: self.desk.service.retention,
            media: self.media(wanted, &grant.at)?,
        };
        let text = placed.encode().map_err(|error| Failure::InvalidMetadata { detail: error.to_string() })?;
        let mut value = HeaderValue::try_from(text).expect("invariant: base64url is a header's value");
        value.set_sensitive(true);
        Ok(value)
    }

    pub(super) fn audit<'a>(&'a self, session: &'a SessionId, user: Option<&'a UserId>) -> Audit<'a> {
        Audit { service: &self.desk.service.name, session, user, client: self.client }
    }
}

/// Headers with which a worker goes on with the present trace.
pub(super) fn trace_headers() -> Vec<(String, String)> {
    trace::headers(&tracing::Span::current())
}

/// What a client is told while no public address of the relays is known.
fn nowhere(relay: &Minting) -> Failure {
    if relay.may_complain(Instant::now()) {
        tracing::warn!(
            "no client can be told where to send media to: kubernetes.publicService has no address, or kubernetes.mediaAddresses leads to none"
        );
    }
    Failure::NoCapacity { retry_after: RETRY_AFTER }
}

fn limited<L>(limit: Option<L>, failure: impl FnOnce(L) -> Failure) -> Failure {
    // A limit that was taken away meanwhile is none; the client may come again.
    limit.map_or(Failure::NoCapacity { retry_after: FULL_RETRY }, failure)
}

/// What a client is told while the store is away.
pub(super) fn unavailable(error: &StoreError) -> Failure {
    match error {
        StoreError::Full => Failure::NoCapacity { retry_after: FULL_RETRY },
        StoreError::Unavailable(_) | StoreError::NoMemory | StoreError::Refused(_) | StoreError::Schema { .. } => {
            tracing::warn!(%error, "the store cannot be asked");
            Failure::UpstreamUnavailable
        }
    }
}
