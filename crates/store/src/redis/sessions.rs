//! Sessions, on Redis.

use std::num::NonZeroU32;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use streamfleet_session::{CloseReason, ServiceName, SessionId, UserId};

use super::contexts::{context_id, context_name, delivery, fingerprint, opened};
use super::reply::{self, Reply, nonsense};
use super::{RedisStore, plain};
use crate::context::{ContextId, StoreError};
use crate::directory::{Demand, FleetError};
use crate::document::checked;
use crate::sessions::{
    ClaimRequest, Claimed, Filter, Held, LiveSession, MAX_BATCH, MAX_PAGE, MAX_QUOTAS, MAX_RANKED, Outcome, Page,
    Pending, Phase, Placement, Reach, Restoration, Restored, SessionView, Sessions, Told, TrackResult,
};
use crate::words::{Epoch, Owner, Ticket, TrackId};

fn json(object: &Map<String, Value>) -> Result<String, StoreError> {
    serde_json::to_string(object).map_err(|_| nonsense())
}

fn user(user: Option<&UserId>) -> String {
    user.map(|user| user.as_str().to_owned()).unwrap_or_default()
}

fn limit(limit: Option<NonZeroU32>) -> String {
    limit.map_or(0, NonZeroU32::get).to_string()
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

fn reach(reply: &mut Reply) -> Result<Reach, StoreError> {
    Ok(Reach { worker: reply.parsed()?, http: reply.text()? })
}

fn claimed(mut reply: Reply, request: &ClaimRequest) -> Result<Claimed, StoreError> {
    Ok(match reply.text()?.as_str() {
        "placed" => {
            let (at, epoch) = (reach(&mut reply)?, Epoch(reply.parsed()?));
            let takes_over = reply.some_text()?.map(|ticket| reply::parse(&ticket)).transpose()?;
            let (id, resumed) = (context_id(&reply.text()?)?, reply.text()? == "1");
            let opened = opened(&mut reply, id, resumed, request.token)?;
            Claimed::Placed(Box::new(Placement { at, epoch, opened, takes_over }))
        }
        "duplicate" => Claimed::Duplicate { at: reach(&mut reply)? },
        "closing" => Claimed::Closing,
        "settling" => Claimed::Settling(Duration::from_millis(reply.parsed()?)),
        "rate_limited" => Claimed::RateLimited(Duration::from_millis(reply.parsed()?)),
        "service_limit" => Claimed::ServiceLimit,
        "user_limit" => Claimed::UserLimit,
        "no_capacity" => {
            Claimed::NoCapacity { pinned: reply.some_text()?.map(|worker| reply::parse(&worker)).transpose()? }
        }
        _ => return Err(nonsense()),
    })
}

fn live(mut reply: Reply) -> Result<LiveSession, StoreError> {
    Ok(LiveSession {
        ticket: reply.parsed()?,
        session: reply.parsed()?,
        at: reach(&mut reply)?,
        user: reply.some_text()?.map(|user| reply::parse(&user)).transpose()?,
        context: context_id(&reply.text()?)?,
        phase: Phase::from_label(&reply.text()?).ok_or_else(nonsense)?,
        age: Duration::from_millis(reply.parsed()?),
        detail: reply::object(&reply.text()?)?,
    })
}

#[async_trait]
impl Sessions for RedisStore {
    async fn claim(&self, service: &ServiceName, request: &ClaimRequest) -> Result<Claimed, StoreError> {
        let mut arguments = vec![
            request.ticket.to_string(),
            request.session.to_string(),
            user(request.user.as_ref()),
            user(request.claim.user.as_ref()),
            request.claim.token.as_ref().map(fingerprint).unwrap_or_default(),
            context_name(request.context),
            fingerprint(&request.token),
            request.pin.as_ref().map(ToString::to_string).unwrap_or_default(),
            limit(request.service_limit),
            limit(request.user_limit),
            millis(self.0.config.terms.reservation),
            millis(request.retention),
            delivery(request.delivery).to_owned(),
        ];
        let quotas = &request.quotas[..request.quotas.len().min(MAX_QUOTAS)];
        arguments.push(quotas.len().to_string());
        arguments.extend(quotas.iter().flat_map(|quota| [quota.of.to_string(), quota.per_minute.to_string()]));
        arguments.extend(request.ranked.iter().take(MAX_RANKED).map(ToString::to_string));
        let answer = self.run(&self.scripts().claim, service, &arguments).await.map_err(plain)?;
        claimed(Reply::new(answer)?, request)
    }

    async fn release(&self, service: &ServiceName, ticket: Ticket) -> Result<(), StoreError> {
        self.run(&self.scripts().release, service, &[ticket.to_string()]).await.map(|_| ()).map_err(plain)
    }

    async fn report(
        &self,
        service: &ServiceName,
        owner: &Owner,
        ticket: Ticket,
        phase: Phase,
        detail: &Map<String, Value>,
    ) -> Result<Held, FleetError> {
        let arguments =
            [owner.worker.as_str(), &owner.epoch.to_string(), &ticket.to_string(), phase.as_str(), &json(detail)?];
        let answer = self.run(&self.scripts().report, service, &arguments).await?;
        Ok(if reply::text(answer)? == "1" { Held::Yes } else { Held::No })
    }

    async fn end(
        &self,
        service: &ServiceName,
        owner: &Owner,
        ticket: Ticket,
        reason: CloseReason,
    ) -> Result<(), FleetError> {
        let arguments = [owner.worker.as_str(), &owner.epoch.to_string(), &ticket.to_string(), reason.as_str()];
        self.run(&self.scripts().end, service, &arguments).await.map(|_| ())
    }

    async fn restore(
        &self,
        service: &ServiceName,
        owner: &Owner,
        sessions: &[Restored],
    ) -> Result<Vec<Restoration>, FleetError> {
        let mut arguments = vec![owner.worker.to_string(), owner.epoch.to_string()];
        for restored in sessions.iter().take(MAX_BATCH) {
            let context = &restored.context;
            // What breaks a bound has not come from a store.
            checked(&context.data).map_err(|_| StoreError::Full)?;
            arguments.extend([
                restored.ticket.to_string(),
                restored.session.to_string(),
                user(restored.user.as_ref()),
                restored.pin.as_ref().map(ToString::to_string).unwrap_or_default(),
                restored.phase.as_str().to_owned(),
                millis(restored.age),
                millis(restored.retention),
                json(&restored.detail)?,
                context_name(context.id),
                user(context.user.as_ref()),
                fingerprint(&context.issued.token),
                context.issued.generation.0.to_string(),
                context.version.to_string(),
                json(&context.data)?,
            ]);
        }
        let answer = self.run(&self.scripts().restore, service, &arguments).await?;
        let mut reply = Reply::new(answer)?;
        let mut outcomes = Vec::new();
        while !reply.is_empty() {
            outcomes.push(match reply.text()?.as_str() {
                "kept" => Restoration::Kept,
                "superseded" => Restoration::Superseded,
                _ => return Err(nonsense().into()),
            });
        }
        Ok(outcomes)
    }

    async fn ask(
        &self,
        service: &ServiceName,
        session: &SessionId,
        context: Option<ContextId>,
        demand: &Demand,
    ) -> Result<Told, StoreError> {
        let (kind, value, message, track) = match demand {
            Demand::End(reason) => ("End", reason.as_str(), "", None),
            Demand::EndStream(words) => ("End", CloseReason::EndStream.as_str(), words.as_str(), None),
            Demand::CloseTrack(track) => ("CloseTrack", track.as_str(), "", Some(track.clone())),
        };
        let context = context.map(context_name).unwrap_or_default();
        let arguments = [session.as_str(), &context, kind, value, message];
        let answer = self.run(&self.scripts().ask, service, &arguments).await.map_err(plain)?;
        let mut reply = Reply::new(answer)?;
        Ok(match reply.text()?.as_str() {
            "pending" => {
                let ticket = reply.parsed()?;
                Told::Pending(Pending { ticket, session: session.clone(), track, at: reach(&mut reply)? })
            }
            "over" => Told::Over(reply.parsed()?),
            "unknown" => Told::Unknown,
            _ => return Err(nonsense()),
        })
    }

    async fn acknowledge(
        &self,
        service: &ServiceName,
        owner: &Owner,
        ticket: Ticket,
        track: &TrackId,
        result: TrackResult,
    ) -> Result<(), FleetError> {
        let result = match result {
            TrackResult::Closed => "closed",
            TrackResult::Unknown => "unknown",
        };
        let arguments = [owner.worker.as_str(), &owner.epoch.to_string(), &ticket.to_string(), track.as_str(), result];
        self.run(&self.scripts().acknowledge, service, &arguments).await.map(|_| ())
    }

    async fn outcome(&self, service: &ServiceName, pending: &Pending) -> Result<Option<Outcome>, StoreError> {
        let track = pending.track.as_ref().map(ToString::to_string).unwrap_or_default();
        let arguments = [pending.ticket.to_string(), track];
        let answer = self.run(&self.scripts().outcome, service, &arguments).await.map_err(plain)?;
        let mut reply = Reply::new(answer)?;
        Ok(match reply.text()?.as_str() {
            "pending" => None,
            "ended" => Some(Outcome::Ended(reply.parsed()?)),
            "track" => Some(Outcome::Track(match reply.text()?.as_str() {
                "closed" => TrackResult::Closed,
                "unknown" => TrackResult::Unknown,
                _ => return Err(nonsense()),
            })),
            _ => return Err(nonsense()),
        })
    }

    async fn reap(&self, service: &ServiceName) -> Result<u32, StoreError> {
        let answer = self.run::<&str>(&self.scripts().reap, service, &[]).await.map_err(plain)?;
        reply::parse(&reply::text(answer)?)
    }

    async fn session(&self, service: &ServiceName, session: &SessionId) -> Result<Option<SessionView>, StoreError> {
        let answer = self.run(&self.scripts().session, service, &[session.as_str()]).await.map_err(plain)?;
        let mut reply = Reply::new(answer)?;
        Ok(match reply.text()?.as_str() {
            "live" => Some(SessionView::Live(Box::new(live(reply.list()?)?))),
            "over" => Some(SessionView::Over(reply.parsed()?)),
            "unknown" => None,
            _ => return Err(nonsense()),
        })
    }

    async fn list(&self, service: &ServiceName, filter: &Filter) -> Result<Page, StoreError> {
        let arguments = [
            user(filter.user.as_ref()),
            filter.after.as_ref().map(ToString::to_string).unwrap_or_default(),
            filter.limit.clamp(1, MAX_PAGE).to_string(),
        ];
        let answer = self.run(&self.scripts().list, service, &arguments).await.map_err(plain)?;
        let mut reply = Reply::new(answer)?;
        let next = reply.some_text()?.map(|id| reply::parse(&id)).transpose()?;
        let mut sessions = Vec::new();
        while !reply.is_empty() {
            let live = live(reply.list()?)?;
            if filter.phase.is_none_or(|phase| live.phase == phase) {
                sessions.push(live);
            }
        }
        Ok(Page { sessions, next })
    }
}
