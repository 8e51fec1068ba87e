//! Workers without media: each holds its sessions' places until they are ended.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Map;
use streamfleet_process::readiness::Readiness;
use streamfleet_session::fleet::{Form, Placed, PlacedContext, Refused, Share, Standing};
use streamfleet_session::{CloseReason, ResumeToken, ServiceName, SessionId};
use streamfleet_store::{
    Arrangement, Claim, ClaimRequest, Claimed, ContextId, Delivery, Gate, Heartbeat, Kept, LastWords, LiveSession,
    Memory, Owner, Phase, RedisConfig, RedisStore, Restored, SessionView, Store, Terms, Ticket, TrackId, TrackResult,
    WorkerId,
};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::server::{Clock, Server, free_port};
use crate::fleet::task::{Fate, Owned, Surroundings, run};
use crate::fleet::{Member, Place, doubles};
use crate::history::History;

/// Longer than any term of the store.
pub(super) const LONG: Duration = Duration::from_secs(20);
/// For what is about to be so, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn service() -> ServiceName {
    "echo".parse().unwrap()
}

pub(super) fn id(text: &str) -> SessionId {
    text.parse().unwrap()
}

/// A store, and what it runs on.
pub(super) struct Ground {
    pub(super) store: Arc<dyn Store>,
    pub(super) terms: Terms,
    pub(super) redis: Option<Server>,
}

impl Ground {
    pub(super) fn memory() -> Self {
        Self { store: Arc::<Memory>::default(), terms: Terms::default(), redis: None }
    }

    pub(super) async fn redis(clock: Option<&Clock>) -> Self {
        let server = Server::start(clock, free_port(), &[]);
        // Half of the usual, as these tests wait for it.
        let terms = Terms { lease: Duration::from_secs(3), ..Terms::default() };
        let config = RedisConfig { terms, ..RedisConfig::new(Arrangement::Single(server.address())) };
        Self { store: Arc::new(RedisStore::new(config)), terms, redis: Some(server) }
    }

    /// The store loses its workers and what they have, and a Redis everything.
    pub(super) async fn forget(&self) {
        if let Some(server) = &self.redis {
            server.command(&["FLUSHALL"]);
            return;
        }
        for view in self.store.workers(&service()).await.unwrap() {
            self.store.leave(&service(), &view.owner).await.unwrap();
        }
    }

    pub(super) async fn worker(&self, name: &str) -> World {
        let world = World::new(self.store.clone(), self.terms, name);
        world.until("it is a member", async |world| world.member.owner().is_some()).await;
        world
    }
}

/// One session of a [`Table`].
pub(super) struct Seat {
    place: Place,
    id: SessionId,
    begun: Instant,
    pub(super) history: Arc<History>,
}

impl Seat {
    pub(super) fn ticket(&self) -> Ticket {
        self.place.ticket()
    }
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) seats: Mutex<Vec<Seat>>,
    /// Of sessions that have ended, with the words for their clients.
    pub(super) ended: Mutex<Vec<(SessionId, CloseReason, Option<LastWords>)>>,
    pub(super) urged: Mutex<Vec<Gate>>,
}

impl Table {
    pub(super) fn ids(&self) -> Vec<SessionId> {
        self.seats.lock().iter().map(|seat| seat.id.clone()).collect()
    }

    pub(super) fn history(&self, session: &str) -> Arc<History> {
        self.seats.lock().iter().find(|seat| seat.id == id(session)).unwrap().history.clone()
    }
}

#[async_trait]
impl Owned for Table {
    fn held(&self, _: &Member) -> Vec<Ticket> {
        self.seats.lock().iter().map(|seat| seat.place.ticket()).collect()
    }

    fn restorable(&self, member: &Member, tickets: &[Ticket]) -> Vec<Restored> {
        let seats = self.seats.lock();
        let wanted = seats.iter().filter(|seat| tickets.contains(&seat.place.ticket()));
        let restored = |seat: &Seat| {
            let document = member.contexts().known(seat.place.context())?;
            Some(Restored {
                ticket: seat.place.ticket(),
                session: seat.id.clone(),
                user: None,
                pin: None,
                phase: Phase::Active,
                age: seat.begun.elapsed(),
                retention: LONG,
                detail: Map::new(),
                context: Kept {
                    id: seat.place.context(),
                    user: None,
                    issued: seat.place.issued(),
                    data: document.data,
                    version: document.version,
                },
            })
        };
        wanted.filter_map(restored).collect()
    }

    async fn end(&self, ticket: Ticket, reason: CloseReason, words: Option<&LastWords>) -> bool {
        let seat = {
            let mut seats = self.seats.lock();
            let Some(at) = seats.iter().position(|seat| seat.place.ticket() == ticket) else { return false };
            seats.swap_remove(at)
        };
        let Seat { mut place, id, .. } = seat;
        self.ended.lock().push((id, reason, words.cloned()));
        place.over(reason);
        true
    }

    fn urge(&self, _: &Member, gate: Gate) {
        self.urged.lock().push(gate);
    }

    async fn close_track(&self, _: Ticket, track: &TrackId) -> Option<TrackResult> {
        Some(if track.as_str() == "0" { TrackResult::Closed } else { TrackResult::Unknown })
    }
}

/// A worker of a fleet, whose router is the test.
pub(super) struct World {
    pub(super) store: Arc<dyn Store>,
    pub(super) member: Arc<Member>,
    pub(super) owned: Arc<Table>,
    pub(super) stop: CancellationToken,
    pub(super) gate: Arc<Mutex<Gate>>,
    pub(super) readiness: Readiness,
    pub(super) running: JoinSet<Fate>,
}

impl World {
    pub(super) fn new(store: Arc<dyn Store>, terms: Terms, worker: &str) -> Self {
        let worker: WorkerId = worker.parse().unwrap();
        let member = Arc::new(Member::new(service(), worker, store.clone()));
        let (owned, stop, gate) = (Arc::new(Table::default()), CancellationToken::new(), Arc::<Mutex<Gate>>::default());
        let (says, readiness) = (gate.clone(), Readiness::new());
        let beat = move || Heartbeat { capacity: 1000, ..doubles::heartbeat(*says.lock()) };
        let joining = Some(readiness.hold("fleet"));
        let surroundings = Surroundings { terms, beat: Box::new(beat), joining, stop: stop.clone() };
        let mut running = JoinSet::new();
        running.spawn(run(member.clone(), owned.clone(), surroundings));
        Self { store, member, owned, stop, gate, readiness, running }
    }

    /// Waits for what is about to be so.
    pub(super) async fn until(&self, what: &str, mut so: impl AsyncFnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so(self).await {
            assert!(Instant::now() < deadline, "{what}: it does not come to be so");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) async fn claim(&self, ticket: u64, session: &str, token: Option<ResumeToken>) -> Claimed {
        let request = ClaimRequest {
            ticket: Ticket::from_random(ticket),
            session: id(session),
            user: None,
            claim: Claim { token, user: None },
            context: ContextId::from_random(u128::from(ticket)),
            token: ResumeToken::from_random([ticket as u8; ResumeToken::LEN]),
            delivery: Delivery::Known,
            service_limit: NonZeroU32::new(1000),
            user_limit: None,
            pin: None,
            quotas: Vec::new(),
            retention: LONG,
            ranked: vec![self.member.worker().clone()],
        };
        self.store.claim(&service(), &request).await.unwrap()
    }

    /// A session that is placed here and has begun, and what its client shows the next time.
    pub(super) async fn place(&self, ticket: u64, session: &str) -> Result<ResumeToken, Refused> {
        self.resume(ticket, session, None).await
    }

    /// The same by a client that was there before.
    pub(super) async fn resume(
        &self,
        ticket: u64,
        session: &str,
        token: Option<ResumeToken>,
    ) -> Result<ResumeToken, Refused> {
        let claimed = self.claim(ticket, session, token).await;
        let Claimed::Placed(placement) = claimed else { panic!("no place: {claimed:?}") };
        let opened = placement.opened;
        let context = PlacedContext {
            id: opened.id.bits(),
            version: opened.document.version.0,
            data: opened.document.data,
            resumed: opened.resumed,
            token: opened.token,
            generation: opened.generation.number(),
            user: None,
        };
        let placed = Placed {
            v: Form,
            ticket,
            epoch: placement.epoch.0,
            session: id(session),
            user: None,
            verified: false,
            metadata: Map::new(),
            claims: Map::new(),
            variant: None,
            pin: None,
            standing: Standing::Claimed,
            context,
            takes_over: placement.takes_over.map(Ticket::bits),
            client: "127.0.0.1:9".parse().unwrap(),
            retention: LONG,
            media: None,
        };
        let place = self.member.take(placed)?;
        let history = Arc::new(if opened.resumed || placement.takes_over.is_some() {
            History::awaiting()
        } else {
            History::default()
        });
        place.publish(history.clone());
        place.reporter().say(Phase::Active);
        self.owned.seats.lock().push(Seat { place, id: id(session), begun: Instant::now(), history });
        Ok(opened.token)
    }

    /// A session that a router has placed here without a claim, and that has begun.
    pub(super) fn provide(&self, ticket: u64, session: &str) -> Result<(), Refused> {
        let context = PlacedContext {
            id: u128::from(ticket),
            version: 0,
            data: Map::new(),
            resumed: false,
            token: ResumeToken::from_random([ticket as u8; ResumeToken::LEN]),
            generation: 0,
            user: None,
        };
        let placed = Placed {
            v: Form,
            ticket,
            // Of a registration that is over.
            epoch: 0,
            session: id(session),
            user: None,
            verified: false,
            metadata: Map::new(),
            claims: Map::new(),
            variant: None,
            pin: None,
            standing: Standing::Provisional(Share::default()),
            context,
            takes_over: None,
            client: "127.0.0.1:9".parse().unwrap(),
            retention: LONG,
            media: None,
        };
        let place = self.member.take(placed)?;
        let (reporter, history) = (place.reporter(), Arc::new(History::default()));
        place.publish(history.clone());
        self.owned.seats.lock().push(Seat { place, id: id(session), begun: Instant::now(), history });
        reporter.say(Phase::Active);
        Ok(())
    }

    /// As if it were killed: nobody hears of it.
    pub(super) async fn kill(mut self) {
        self.running.abort_all();
        while self.running.join_next().await.is_some() {}
    }

    pub(super) fn owner(&self) -> Owner {
        self.member.owner().unwrap()
    }

    pub(super) async fn seen(&self, session: &str) -> Option<SessionView> {
        self.store.session(&service(), &id(session)).await.unwrap()
    }

    pub(super) async fn live(&self, session: &str) -> Option<LiveSession> {
        match self.seen(session).await {
            Some(SessionView::Live(live)) => Some(*live),
            Some(SessionView::Over(_)) | None => None,
        }
    }

    /// Who has a session, once it is active.
    pub(super) async fn active_at(&self, session: &str) -> Option<String> {
        let live = self.live(session).await.filter(|live| live.phase == Phase::Active)?;
        Some(live.at.worker.to_string())
    }

    pub(super) async fn reason(&self, session: &str) -> Option<CloseReason> {
        match self.seen(session).await {
            Some(SessionView::Over(reason)) => Some(reason),
            Some(SessionView::Live(_)) | None => None,
        }
    }
}

/// Lets everything happen that is due.
pub(super) async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}
