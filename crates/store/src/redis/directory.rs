//! Workers, on Redis.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use streamfleet_session::{CloseReason, ServiceName};

use super::reply::{self, Reply, nonsense};
use super::{RedisStore, plain};
use crate::context::StoreError;
use crate::directory::{
    Asked, Demand, Directory, Entry, FleetError, Gate, Heartbeat, MAX_CAPACITY, Orders, SETTLING, Settling, WorkerView,
};
use crate::traffic::{HELD_LEASE, Traffic, Waits};
use crate::words::{Epoch, Order, Owner, RouterId, WorkerId};

fn label(gate: Gate) -> &'static str {
    match gate {
        Gate::Open => "open",
        Gate::Draining => "draining",
        Gate::Leaving => "leaving",
    }
}

fn gate(label: &str) -> Result<Gate, StoreError> {
    match label {
        "open" => Ok(Gate::Open),
        "draining" => Ok(Gate::Draining),
        "leaving" => Ok(Gate::Leaving),
        _ => Err(nonsense()),
    }
}

/// What is asked of a session, as `want` in `prelude.lua` writes it.
#[derive(Deserialize)]
struct Wants {
    reason: Option<CloseReason>,
    message: Option<String>,
    #[serde(default)]
    tracks: Vec<String>,
}

fn orders(mut reply: Reply) -> Result<Orders, StoreError> {
    let mut orders = Orders { gate: gate(&reply.text()?)?, order: Order(reply.parsed()?), asked: Vec::new() };
    while !reply.is_empty() {
        let (ticket, session) = (reply.parsed()?, reply.parsed::<streamfleet_session::SessionId>()?);
        let wants: Wants = serde_json::from_str(&reply.text()?).map_err(|_| nonsense())?;
        let ask = |demand| Asked { ticket, session: session.clone(), demand };
        let words = wants.message.map(|message| reply::parse(&message)).transpose()?;
        let end = wants.reason.map(|reason| words.map_or(Demand::End(reason), Demand::EndStream));
        orders.asked.extend(end.map(ask));
        for track in &wants.tracks {
            orders.asked.push(ask(Demand::CloseTrack(reply::parse(track)?)));
        }
    }
    // A hash has no order; a caller should not see that.
    orders.asked.sort_by_key(|asked| asked.ticket);
    Ok(orders)
}

fn view(mut reply: Reply) -> Result<WorkerView, StoreError> {
    let owner = Owner { worker: reply.parsed()?, epoch: Epoch(reply.parsed()?) };
    let (asked, order) = (gate(&reply.text()?)?, Order(reply.parsed()?));
    let sessions = reply.parsed()?;
    let age = Duration::from_millis(reply.parsed()?);
    let said = reply.some_text()?;
    let said: Option<Heartbeat> = said.map(|said| serde_json::from_str(&said)).transpose().map_err(|_| nonsense())?;
    let gate = match said.as_ref().map(|said| said.gate) {
        Some(Gate::Open) => asked,
        Some(Gate::Draining | Gate::Leaving) | None => asked.max(Gate::Draining),
    };
    Ok(WorkerView { owner, said, gate, order, sessions, age })
}

#[async_trait]
impl Directory for RedisStore {
    async fn register(&self, service: &ServiceName, worker: &WorkerId, entry: Entry) -> Result<Epoch, StoreError> {
        let lease = self.0.config.terms.lease.as_millis().to_string();
        let settling = match entry {
            Entry::New => Duration::ZERO,
            Entry::Again => SETTLING,
        };
        let arguments = [worker.as_str(), &lease, &settling.as_millis().to_string()];
        let answer = self.run(&self.scripts().register, service, &arguments).await.map_err(plain)?;
        reply::parse(&reply::text(answer)?).map(Epoch)
    }

    async fn settling(&self, service: &ServiceName) -> Result<Settling, StoreError> {
        let answer = self.run::<&str>(&self.scripts().settling, service, &[]).await.map_err(plain)?;
        Ok(match reply::parse::<i64>(&reply::text(answer)?)? {
            0 => Settling::Done,
            left => u64::try_from(left).map_or(Settling::Nobody, |left| Settling::For(Duration::from_millis(left))),
        })
    }

    async fn renew(&self, service: &ServiceName, owner: &Owner, beat: &Heartbeat) -> Result<Orders, FleetError> {
        let said = serde_json::to_string(beat).map_err(|_| nonsense())?;
        let arguments = [
            owner.worker.as_str(),
            &owner.epoch.to_string(),
            &self.0.config.terms.lease.as_millis().to_string(),
            &beat.capacity.min(MAX_CAPACITY).to_string(),
            label(beat.gate),
            &beat.http,
            &said,
        ];
        let answer = self.run(&self.scripts().renew, service, &arguments).await?;
        Ok(orders(Reply::new(answer)?)?)
    }

    async fn leave(&self, service: &ServiceName, owner: &Owner) -> Result<(), FleetError> {
        let arguments = [owner.worker.as_str(), &owner.epoch.to_string()];
        self.run(&self.scripts().leave, service, &arguments).await.map(|_| ())
    }

    async fn workers(&self, service: &ServiceName) -> Result<Vec<WorkerView>, StoreError> {
        let answer = self.run::<&str>(&self.scripts().workers, service, &[]).await.map_err(plain)?;
        let mut reply = Reply::new(answer)?;
        let mut workers = Vec::new();
        while !reply.is_empty() {
            workers.push(view(reply.list()?)?);
        }
        workers.sort_by(|a, b| a.owner.worker.cmp(&b.owner.worker));
        Ok(workers)
    }

    async fn ask_gate(&self, service: &ServiceName, worker: &WorkerId, gate: Gate) -> Result<bool, StoreError> {
        let arguments = [worker.as_str(), label(gate)];
        let answer = self.run(&self.scripts().gate, service, &arguments).await.map_err(plain)?;
        Ok(reply::text(answer)? == "1")
    }

    async fn traffic(&self, service: &ServiceName) -> Result<Traffic, StoreError> {
        let answer = self.run::<&str>(&self.scripts().traffic, service, &[]).await.map_err(plain)?;
        let mut reply = Reply::new(answer)?;
        Ok(Traffic {
            arrived: reply.parsed()?,
            departed: reply.parsed()?,
            refused: reply.parsed()?,
            held: reply.parsed()?,
        })
    }

    async fn hold(&self, service: &ServiceName, router: &RouterId, waits: Waits) -> Result<(), StoreError> {
        let (held, lease) = (waits.held.to_string(), HELD_LEASE.as_millis().to_string());
        let refused = waits.refused.to_string();
        let (of_service, of_all) =
            ([router.as_str(), &held, &lease, &refused], [service.as_str(), router.as_str(), &held, &lease]);
        let everybody = super::keys::everybody();
        // Two keys of two nodes, perhaps. The list goes first: what is refused is counted by the other, and again if that fails.
        self.run_at(&self.scripts().hold_list, &everybody, &of_all).await.map_err(plain)?;
        self.run(&self.scripts().hold, service, &of_service).await.map(|_| ()).map_err(plain)
    }

    async fn held(&self) -> Result<Vec<(ServiceName, u32)>, StoreError> {
        let answer = self.run_at::<&str>(&self.scripts().held, &super::keys::everybody(), &[]).await.map_err(plain)?;
        let mut reply = Reply::new(answer)?;
        let mut held = BTreeMap::new();
        while !reply.is_empty() {
            let (service, waits): (ServiceName, u32) = (reply.parsed()?, reply.parsed()?);
            let sum: &mut u32 = held.entry(service).or_default();
            *sum = sum.saturating_add(waits);
        }
        Ok(held.into_iter().collect())
    }
}
