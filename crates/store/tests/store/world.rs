//! A store under test, its clock, and short words for what rules do with it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};
use streamfleet_session::{CloseReason, ResumeToken, ServiceName, SessionId, UserId};
use streamfleet_store::{
    Asked, Claim, ClaimRequest, Claimed, ContextId, ContextStore, Delivery, Demand, Entry, Gate, Generation, Heartbeat,
    Held, Issued, Kept, Memory, Order, Orders, Owner, Phase, Placement, Restored, SessionView, Store, Terms, Ticket,
    Traffic, Version, WorkerId,
};

use crate::server::Clock;

/// A store and its time.
pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) terms: Terms,
    clock: Option<Arc<Clock>>,
    scenes: AtomicU32,
}

impl World {
    /// In process; the runtime's time must be paused.
    pub(crate) fn memory() -> Self {
        Self::new(Arc::new(Memory::default()), None)
    }

    /// On a Redis whose clock can be put forward; `None` for one whose clock nobody moves.
    pub(crate) fn new(store: Arc<dyn Store>, clock: Option<Arc<Clock>>) -> Self {
        Self { store, terms: Terms::default(), clock, scenes: AtomicU32::new(0) }
    }

    /// Lets the store's time pass.
    pub(crate) async fn pass(&self, span: Duration) {
        match &self.clock {
            Some(clock) => clock.forward(span),
            None => tokio::time::advance(span).await,
        }
    }

    /// A service that nobody else uses.
    pub(crate) fn scene(&self) -> Scene<'_> {
        let number = self.scenes.fetch_add(1, Ordering::Relaxed);
        let service = format!("test-{:x}/scene-{number}", rand::random::<u32>()).parse().unwrap();
        Scene { _world: self, store: self.store.clone(), service }
    }
}

/// One service of a store.
pub(crate) struct Scene<'a> {
    _world: &'a World,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) service: ServiceName,
}

pub(crate) fn id(text: &str) -> SessionId {
    text.parse().unwrap()
}

pub(crate) fn user(text: &str) -> UserId {
    text.parse().unwrap()
}

pub(crate) fn name(text: &str) -> WorkerId {
    text.parse().unwrap()
}

pub(crate) fn limit(number: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(number)
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

pub(crate) fn nothing() -> Map<String, Value> {
    Map::new()
}

pub(crate) fn beat(capacity: u32) -> Heartbeat {
    Heartbeat {
        capacity,
        active: 0,
        reserved: 0,
        gate: Gate::Open,
        heard: Order::default(),
        http: "10.0.0.7:8081".to_owned(),
        media: vec!["10.0.0.7:5000".to_owned()],
        version: "0.1.0".to_owned(),
        variant: None,
    }
}

/// A claim by nobody in particular, for the given workers.
pub(crate) fn request(session: &str, workers: &[&str]) -> ClaimRequest {
    ClaimRequest {
        ticket: Ticket::from_random(rand::random()),
        session: id(session),
        user: None,
        claim: Claim::default(),
        context: ContextId::from_random(rand::random()),
        token: ResumeToken::from_random(rand::random()),
        delivery: Delivery::Known,
        service_limit: None,
        user_limit: None,
        pin: None,
        quotas: Vec::new(),
        retention: Duration::from_secs(600),
        ranked: workers.iter().map(|worker| name(worker)).collect(),
    }
}

/// The same claim with the token of an earlier one.
pub(crate) fn with_token(session: &str, workers: &[&str], token: ResumeToken) -> ClaimRequest {
    ClaimRequest { claim: Claim { token: Some(token), user: None }, ..request(session, workers) }
}

/// The same claim for a verified user.
pub(crate) fn with_user(session: &str, workers: &[&str], who: &str) -> ClaimRequest {
    let claim = Claim { token: None, user: Some(user(who)) };
    ClaimRequest { claim, user: Some(user(who)), ..request(session, workers) }
}

impl Scene<'_> {
    /// A worker that serves.
    pub(crate) async fn worker(&self, worker: &str, capacity: u32) -> Owner {
        let epoch = self.store.register(&self.service, &name(worker), Entry::New).await.unwrap();
        let owner = Owner { worker: name(worker), epoch };
        self.renew(&owner, capacity).await;
        owner
    }

    pub(crate) async fn renew(&self, owner: &Owner, capacity: u32) -> Orders {
        self.store.renew(&self.service, owner, &beat(capacity)).await.unwrap()
    }

    /// The worker obeys its last orders, and says so: it has so many sessions and places for some.
    pub(crate) async fn says(&self, owner: &Owner, gate: Gate, heard: Order, active: u32, reserved: u32) -> Orders {
        let said = Heartbeat { gate, heard, active, reserved, ..beat(8) };
        self.store.renew(&self.service, owner, &said).await.unwrap()
    }

    pub(crate) async fn ask_gate(&self, worker: &str, gate: Gate) {
        assert!(self.store.ask_gate(&self.service, &name(worker), gate).await.unwrap(), "{worker} is there");
    }

    pub(crate) async fn is_drained(&self, worker: &str) -> bool {
        let workers = self.store.workers(&self.service).await.unwrap();
        workers.into_iter().find(|view| view.owner.worker == name(worker)).unwrap().is_drained()
    }

    pub(crate) async fn traffic(&self) -> Traffic {
        self.store.traffic(&self.service).await.unwrap()
    }

    pub(crate) async fn asked(&self, owner: &Owner) -> Vec<Asked> {
        self.renew(owner, 8).await.asked
    }

    pub(crate) async fn claim(&self, request: &ClaimRequest) -> Claimed {
        self.store.claim(&self.service, request).await.unwrap()
    }

    pub(crate) async fn place(&self, request: &ClaimRequest) -> Placement {
        match self.claim(request).await {
            Claimed::Placed(placement) => *placement,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn report(&self, owner: &Owner, ticket: Ticket, phase: Phase) -> Held {
        self.store.report(&self.service, owner, ticket, phase, &nothing()).await.unwrap()
    }

    /// A session that is connected.
    pub(crate) async fn active(&self, owner: &Owner, request: &ClaimRequest) -> Placement {
        let placement = self.place(request).await;
        assert_eq!(self.report(owner, request.ticket, Phase::Active).await, Held::Yes);
        placement
    }

    pub(crate) async fn end(&self, owner: &Owner, ticket: Ticket) {
        self.store.end(&self.service, owner, ticket, CloseReason::ClientClosed).await.unwrap();
    }

    pub(crate) async fn view(&self, session: &str) -> Option<SessionView> {
        self.store.session(&self.service, &id(session)).await.unwrap()
    }

    /// Who holds an id.
    pub(crate) async fn holder(&self, session: &str) -> Option<Ticket> {
        match self.view(session).await {
            Some(SessionView::Live(live)) => Some(live.ticket),
            Some(SessionView::Over(_)) | None => None,
        }
    }

    /// How many sessions the store holds for a worker.
    pub(crate) async fn load(&self, worker: &str) -> Option<u32> {
        let workers = self.store.workers(&self.service).await.unwrap();
        workers.into_iter().find(|view| view.owner.worker == name(worker)).map(|view| view.sessions)
    }

    pub(crate) fn contexts(&self) -> Arc<dyn ContextStore> {
        self.store.clone().contexts(&self.service)
    }
}

/// The demand that a session end.
pub(crate) fn end_of(request: &ClaimRequest, reason: CloseReason) -> Asked {
    Asked { ticket: request.ticket, session: request.session.clone(), demand: Demand::End(reason) }
}

/// A session as its owner writes it again.
pub(crate) fn restored(request: &ClaimRequest, age: Duration) -> Restored {
    Restored {
        ticket: request.ticket,
        session: request.session.clone(),
        user: request.user.clone(),
        pin: request.pin.clone(),
        phase: Phase::Active,
        age,
        retention: request.retention,
        detail: object(json!({"transport": "webrtc"})),
        context: Kept {
            id: request.context,
            user: None,
            issued: Issued { token: request.token, generation: Generation::default() },
            data: object(json!({"note": "kept"})),
            version: Version(3),
        },
    }
}
