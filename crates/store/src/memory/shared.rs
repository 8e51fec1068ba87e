//! The traits of a fleet's store over the tables, with the clock.

use std::time::Instant;

use async_trait::async_trait;
use serde_json::{Map, Value};
use streamfleet_session::{CloseReason, ServiceName, SessionId};

use super::fleet::Fleet;
use super::table::Table;
use super::{Memory, now};
use crate::calls::Calls;
use crate::context::{ContextId, ContextKey, StoreError};
use crate::directory::{Demand, Directory, Entry, FleetError, Gate, Heartbeat, Orders, Settling, WorkerView};
use crate::outputs::{Appended, Batch, Outputs, Read, Seen, Whose};
use crate::sessions::{
    ClaimRequest, Claimed, Filter, Held, MAX_BATCH, Outcome, Page, Pending, Phase, Restoration, Restored, SessionView,
    Sessions, Told, TrackResult,
};
use crate::traffic::{Traffic, Waits};
use crate::wake::{Listener, Topic, Wakeups};
use crate::words::{Epoch, Owner, RouterId, Ticket, TrackId, WorkerId};

impl Memory {
    /// One step: everything in it happens at one time, and whoever it concerns is woken after it.
    fn step<T>(&self, service: &ServiceName, act: impl FnOnce(&mut Fleet, &mut Table, Instant) -> T) -> T {
        let (result, wakes) = {
            let mut state = self.state.lock();
            let state = &mut *state;
            let fleet = state.fleets.entry(service.clone()).or_insert_with(|| Fleet::new(self.terms));
            (act(fleet, &mut state.contexts, now()), fleet.take_wakes())
        };
        for topic in wakes {
            self.hub.wake(&(service.clone(), topic));
        }
        result
    }
}

fn key(service: &ServiceName, session: &SessionId) -> ContextKey {
    ContextKey { service: service.clone(), session: session.clone() }
}

#[async_trait]
impl Directory for Memory {
    async fn register(&self, service: &ServiceName, worker: &WorkerId, entry: Entry) -> Result<Epoch, StoreError> {
        Ok(self.step(service, |fleet, contexts, now| fleet.register(contexts, worker, entry, now)))
    }

    async fn settling(&self, service: &ServiceName) -> Result<Settling, StoreError> {
        Ok(self.step(service, |fleet, contexts, now| fleet.settling(contexts, now)))
    }

    async fn renew(&self, service: &ServiceName, owner: &Owner, beat: &Heartbeat) -> Result<Orders, FleetError> {
        self.step(service, |fleet, contexts, now| fleet.renew(contexts, owner, beat, now))
    }

    async fn leave(&self, service: &ServiceName, owner: &Owner) -> Result<(), FleetError> {
        self.step(service, |fleet, contexts, now| fleet.leave(contexts, owner, now))
    }

    async fn workers(&self, service: &ServiceName) -> Result<Vec<WorkerView>, StoreError> {
        Ok(self.step(service, |fleet, _, now| fleet.workers(now)))
    }

    async fn ask_gate(&self, service: &ServiceName, worker: &WorkerId, gate: Gate) -> Result<bool, StoreError> {
        Ok(self.step(service, |fleet, _, _| fleet.ask_gate(worker, gate)))
    }

    async fn traffic(&self, service: &ServiceName) -> Result<Traffic, StoreError> {
        Ok(self.step(service, |fleet, contexts, now| fleet.traffic(contexts, now)))
    }

    async fn hold(&self, service: &ServiceName, router: &RouterId, waits: Waits) -> Result<(), StoreError> {
        self.step(service, |fleet, _, now| fleet.hold(router, waits, now));
        Ok(())
    }

    async fn held(&self) -> Result<Vec<(ServiceName, u32)>, StoreError> {
        let (state, now) = (self.state.lock(), now());
        let held = state.fleets.iter().map(|(service, fleet)| (service.clone(), fleet.held(now)));
        let mut held: Vec<(ServiceName, u32)> = held.filter(|(_, held)| *held > 0).collect();
        held.sort();
        Ok(held)
    }
}

#[async_trait]
impl Sessions for Memory {
    async fn claim(&self, service: &ServiceName, request: &ClaimRequest) -> Result<Claimed, StoreError> {
        let key = key(service, &request.session);
        self.step(service, |fleet, contexts, now| fleet.claim(contexts, &key, request, now))
    }

    async fn release(&self, service: &ServiceName, ticket: Ticket) -> Result<(), StoreError> {
        self.step(service, |fleet, contexts, now| fleet.release(contexts, ticket, now));
        Ok(())
    }

    async fn report(
        &self,
        service: &ServiceName,
        owner: &Owner,
        ticket: Ticket,
        phase: Phase,
        detail: &Map<String, Value>,
    ) -> Result<Held, FleetError> {
        self.step(service, |fleet, contexts, now| fleet.report(contexts, owner, ticket, phase, detail, now))
    }

    async fn end(
        &self,
        service: &ServiceName,
        owner: &Owner,
        ticket: Ticket,
        reason: CloseReason,
    ) -> Result<(), FleetError> {
        self.step(service, |fleet, contexts, now| fleet.end(contexts, owner, ticket, reason, now))
    }

    async fn restore(
        &self,
        service: &ServiceName,
        owner: &Owner,
        sessions: &[Restored],
    ) -> Result<Vec<Restoration>, FleetError> {
        self.step(service, |fleet, contexts, now| {
            let restore =
                |restored: &Restored| fleet.restore(contexts, owner, &key(service, &restored.session), restored, now);
            sessions.iter().take(MAX_BATCH).map(restore).collect()
        })
    }

    async fn ask(
        &self,
        service: &ServiceName,
        session: &SessionId,
        context: Option<ContextId>,
        demand: &Demand,
    ) -> Result<Told, StoreError> {
        Ok(self.step(service, |fleet, contexts, now| fleet.ask(contexts, session, context, demand, now)))
    }

    async fn acknowledge(
        &self,
        service: &ServiceName,
        owner: &Owner,
        ticket: Ticket,
        track: &TrackId,
        result: TrackResult,
    ) -> Result<(), FleetError> {
        self.step(service, |fleet, _, _| fleet.acknowledge(owner, ticket, track, result))
    }

    async fn outcome(&self, service: &ServiceName, pending: &Pending) -> Result<Option<Outcome>, StoreError> {
        Ok(self.step(service, |fleet, contexts, now| fleet.outcome(contexts, pending, now)))
    }

    async fn reap(&self, service: &ServiceName) -> Result<u32, StoreError> {
        Ok(self.step(service, |fleet, contexts, now| fleet.sweep(contexts, now)))
    }

    async fn session(&self, service: &ServiceName, session: &SessionId) -> Result<Option<SessionView>, StoreError> {
        Ok(self.step(service, |fleet, contexts, now| fleet.session(contexts, session, now)))
    }

    async fn list(&self, service: &ServiceName, filter: &Filter) -> Result<Page, StoreError> {
        Ok(self.step(service, |fleet, contexts, now| fleet.list(contexts, filter, now)))
    }
}

#[async_trait]
impl Outputs for Memory {
    async fn append(
        &self,
        service: &ServiceName,
        owner: &Owner,
        ticket: Ticket,
        batch: &Batch<'_>,
    ) -> Result<Appended, FleetError> {
        self.step(service, |fleet, _, _| fleet.append(owner, ticket, batch))
    }

    async fn outputs(
        &self,
        service: &ServiceName,
        whose: Whose<'_>,
        seen: Option<Seen>,
    ) -> Result<Option<Read>, StoreError> {
        Ok(self.step(service, |fleet, contexts, now| fleet.outputs(contexts, whose, seen, now)))
    }
}

#[async_trait]
impl Calls for Memory {
    async fn enter_call(&self, service: &ServiceName, call: u128, session: &SessionId) -> Result<bool, StoreError> {
        Ok(self.step(service, |fleet, _, _| fleet.calls.enter(call, session)))
    }

    async fn session_of_call(&self, service: &ServiceName, call: u128) -> Result<Option<SessionId>, StoreError> {
        Ok(self.step(service, |fleet, _, _| fleet.calls.find(call)))
    }
}

impl Wakeups for Memory {
    fn listen(&self, service: &ServiceName, topic: Topic) -> Listener {
        let channel = (service.clone(), topic);
        let listener = self.hub.listen(channel.clone());
        // Heard at least once, as from a store that has to be told first.
        self.hub.wake(&channel);
        listener
    }
}
