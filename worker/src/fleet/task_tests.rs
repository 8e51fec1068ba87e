use std::num::NonZeroU32;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Map;
use streamfleet_session::fleet::{Form, Placed, PlacedContext, Refused, Share, Standing};
use streamfleet_session::{ResumeToken, ServiceName, SessionId};
use streamfleet_store::{
    Bounds, Claim, ClaimRequest, Claimed, ContextId, ContextStore as _, Delivery, Directory, Memory, Outcome, Phase,
    SessionView, Sessions as _, Told, WorkerId, settle,
};

use super::*;
use crate::fleet::Place;

/// Longer than any term of the store.
const LONG: Duration = Duration::from_secs(20);

/// Sessions without media: each holds its place until it is ended.
#[derive(Default)]
struct Table(Mutex<Vec<(Place, SessionId)>>);

#[async_trait]
impl Owned for Table {
    fn held(&self, _: &Member) -> Vec<Ticket> {
        self.0.lock().iter().map(|(place, _)| place.ticket()).collect()
    }

    fn restorable(&self, member: &Member, tickets: &[Ticket]) -> Vec<Restored> {
        let held = self.0.lock();
        let wanted = held.iter().filter(|(place, _)| tickets.contains(&place.ticket()));
        let restored = |(place, id): &(Place, SessionId)| {
            let document = member.contexts().known(place.context())?;
            Some(Restored {
                ticket: place.ticket(),
                session: id.clone(),
                user: None,
                pin: None,
                phase: Phase::Active,
                age: Duration::from_secs(1),
                retention: LONG,
                detail: Map::new(),
                context: streamfleet_store::Kept {
                    id: place.context(),
                    user: None,
                    issued: place.issued(),
                    data: document.data,
                    version: document.version,
                },
            })
        };
        wanted.filter_map(restored).collect()
    }

    async fn end(&self, ticket: Ticket, reason: CloseReason) -> bool {
        let mut held = self.0.lock();
        let Some(at) = held.iter().position(|(place, _)| place.ticket() == ticket) else { return false };
        let (mut place, _) = held.swap_remove(at);
        place.over(reason);
        true
    }

    async fn close_track(&self, _: Ticket, track: &TrackId) -> Option<TrackResult> {
        Some(if track.as_str() == "0" { TrackResult::Closed } else { TrackResult::Unknown })
    }
}

/// A worker of a fleet, whose router is the test.
struct World {
    store: Arc<Memory>,
    member: Arc<Member>,
    owned: Arc<Table>,
    stop: CancellationToken,
    gate: Arc<Mutex<Gate>>,
    running: JoinSet<Fate>,
}

fn service() -> ServiceName {
    "echo".parse().unwrap()
}

impl World {
    fn new(store: &Arc<Memory>, worker: &str) -> Self {
        let worker: WorkerId = worker.parse().unwrap();
        let member = Arc::new(Member::new(service(), worker, store.clone()));
        let (owned, stop, gate) = (Arc::new(Table::default()), CancellationToken::new(), Arc::<Mutex<Gate>>::default());
        let says = gate.clone();
        let beat = move || Heartbeat {
            capacity: 10,
            active: 0,
            reserved: 0,
            gate: *says.lock(),
            variant: None,
            http: "127.0.0.1:1".to_owned(),
            media: Vec::new(),
            version: "0".to_owned(),
        };
        let surroundings = Surroundings { terms: Terms::default(), beat: Box::new(beat), stop: stop.clone() };
        let mut running = JoinSet::new();
        running.spawn(run(member.clone(), owned.clone(), surroundings));
        World { store: store.clone(), member, owned, stop, gate, running }
    }

    async fn claim(&self, ticket: u64, id: &str, token: Option<ResumeToken>) -> Claimed {
        let request = ClaimRequest {
            ticket: Ticket::from_random(ticket),
            session: id.parse().unwrap(),
            user: None,
            claim: Claim { token, user: None },
            context: ContextId::from_random(u128::from(ticket)),
            token: ResumeToken::from_random([ticket as u8; ResumeToken::LEN]),
            delivery: Delivery::Known,
            service_limit: NonZeroU32::new(9),
            user_limit: None,
            pin: None,
            quotas: Vec::new(),
            retention: LONG,
            ranked: vec![self.member.worker().clone()],
        };
        self.store.claim(&service(), &request).await.unwrap()
    }

    /// A session that is placed here and has begun.
    async fn place(&self, ticket: u64, id: &str) -> Result<(), Refused> {
        let Claimed::Placed(placement) = self.claim(ticket, id, None).await else { panic!("no place") };
        let opened = placement.opened;
        let context = PlacedContext {
            id: opened.id.bits(),
            version: opened.document.version.0,
            data: opened.document.data,
            resumed: opened.resumed,
            token: opened.token,
            generation: opened.generation.number(),
        };
        let placed = Placed {
            v: Form,
            ticket,
            epoch: placement.epoch.0,
            session: id.parse().unwrap(),
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
        };
        let place = self.member.take(placed)?;
        place.reporter().say(Phase::Active);
        self.owned.0.lock().push((place, id.parse().unwrap()));
        Ok(())
    }

    /// A session that a router has placed here without a claim, and that has begun.
    fn provide(&self, ticket: u64, id: &str) -> Result<(), Refused> {
        let context = PlacedContext {
            id: u128::from(ticket),
            version: 0,
            data: Map::new(),
            resumed: false,
            token: ResumeToken::from_random([ticket as u8; ResumeToken::LEN]),
            generation: 0,
        };
        let placed = Placed {
            v: Form,
            ticket,
            // Of a registration that is over.
            epoch: 0,
            session: id.parse().unwrap(),
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
        };
        let place = self.member.take(placed)?;
        let reporter = place.reporter();
        self.owned.0.lock().push((place, id.parse().unwrap()));
        reporter.say(Phase::Active);
        Ok(())
    }

    async fn seen(&self, id: &str) -> Option<SessionView> {
        self.store.session(&service(), &id.parse().unwrap()).await.unwrap()
    }

    async fn reason(&self, id: &str) -> Option<CloseReason> {
        match self.seen(id).await {
            Some(SessionView::Over(reason)) => Some(reason),
            Some(SessionView::Live(_)) | None => None,
        }
    }
}

/// Lets everything happen that is due.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_is_reported_and_lives_as_long_as_its_worker_renews() {
    let world = World::new(&Arc::default(), "a");
    a_moment().await;
    world.place(1, "s").await.unwrap();
    tokio::time::sleep(LONG).await;
    let Some(SessionView::Live(live)) = world.seen("s").await else { panic!("it has been lost") };
    assert_eq!(live.phase, Phase::Active);
    let view = &world.store.workers(&service()).await.unwrap()[0];
    assert_eq!(view.said.as_ref().map(|said| (said.active, said.reserved)), Some((1, 0)));
    world.owned.end(Ticket::from_random(1), CloseReason::ClientClosed).await;
    a_moment().await;
    assert_eq!(world.reason("s").await, Some(CloseReason::ClientClosed));
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_of_a_session_is_done_at_once_and_told() {
    let world = World::new(&Arc::default(), "a");
    a_moment().await;
    world.place(1, "s").await.unwrap();
    a_moment().await;
    let id: SessionId = "s".parse().unwrap();
    for (track, expected) in [("0", TrackResult::Closed), ("9", TrackResult::Unknown)] {
        let demand = Demand::CloseTrack(track.parse().unwrap());
        let told = world.store.ask(&service(), &id, None, &demand).await.unwrap();
        let Told::Pending(pending) = told else { panic!("{told:?}") };
        let outcome = settle(&*world.store, &service(), &pending, Duration::from_secs(1)).await.unwrap();
        assert_eq!(outcome, Some(Outcome::Track(expected)), "{track}");
    }
    let before = tokio::time::Instant::now();
    let Ok(Told::Pending(pending)) = world.member.ask_end(&id, CloseReason::EndedByControl).await else { panic!() };
    let outcome = settle(&*world.store, &service(), &pending, LONG).await.unwrap();
    assert_eq!(outcome, Some(Outcome::Ended(CloseReason::EndedByControl)));
    assert!(before.elapsed() < Duration::from_millis(100), "woken, not by the next renewal: {:?}", before.elapsed());
}

/// Two routers that could not ask the store have given one id to two workers: it has one session when the store is told.
#[tokio::test(start_paused = true)]
async fn what_nobody_has_claimed_is_made_known_and_the_second_of_an_id_ends() {
    let store = Arc::default();
    let (a, b) = (World::new(&store, "a"), World::new(&store, "b"));
    assert_eq!(a.provide(1, "s"), Err(Refused::Stale), "it is no member yet");
    a_moment().await;
    a.provide(1, "s").unwrap();
    let data = Map::from_iter([("n".to_owned(), 7.into())]);
    let context = ContextId::from_random(1);
    a.member.contexts().write(context, data.clone(), streamfleet_store::Expected::Anything).await.unwrap();
    a_moment().await;
    b.provide(2, "s").unwrap();
    b.provide(3, "t").unwrap();
    tokio::time::sleep(LONG).await;
    let Some(SessionView::Live(live)) = a.seen("s").await else { panic!("it has been lost") };
    assert_eq!((live.ticket, live.phase), (Ticket::from_random(1), Phase::Active));
    assert!(b.owned.0.lock().iter().all(|(place, _)| place.ticket() == Ticket::from_random(3)), "the second has ended");
    assert!(matches!(b.seen("t").await, Some(SessionView::Live(_))), "the other one lives");
    let known = store.clone().contexts(&service()).read(context).await.unwrap();
    assert_eq!(known.unwrap().data, data, "with what was written before the store knew of it");
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_not_used_is_free_at_once() {
    let world = World::new(&Arc::default(), "a");
    a_moment().await;
    world.place(1, "s").await.unwrap();
    let unbegun = world.owned.0.lock().pop();
    drop(unbegun);
    a_moment().await;
    assert_eq!(world.reason("s").await, Some(CloseReason::ConnectTimeout), "nobody waits for the claim to expire");
}

#[tokio::test(start_paused = true)]
async fn a_worker_drains_and_serves_again_as_it_is_asked_to() {
    let world = World::new(&Arc::default(), "a");
    a_moment().await;
    let worker = world.member.worker().clone();
    for (gate, expected) in [(Gate::Draining, Err(Refused::Draining)), (Gate::Open, Ok(()))] {
        assert!(world.store.ask_gate(&service(), &worker, gate).await.unwrap());
        a_moment().await;
        assert_eq!(world.member.admits(Epoch(1)), expected, "a place that was claimed before it was asked");
    }
    *world.gate.lock() = Gate::Draining;
    world.member.nudge();
    a_moment().await;
    assert_eq!(world.store.workers(&service()).await.unwrap()[0].gate, Gate::Draining, "routers know at once");
}

#[tokio::test(start_paused = true)]
async fn a_second_process_of_the_name_ends_what_the_first_has() {
    let store = Arc::<Memory>::default();
    let mut first = World::new(&store, "a");
    a_moment().await;
    first.place(1, "s").await.unwrap();
    a_moment().await;
    let second = World::new(&store, "a");
    assert_eq!(first.running.join_next().await.unwrap().unwrap(), Fate::Fenced);
    assert!(first.owned.0.lock().is_empty(), "its sessions may live elsewhere");
    assert_eq!(first.member.admits(Epoch(1)), Err(Refused::Stale));
    second.place(2, "s").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_was_forgotten_says_everything_again_and_the_younger_gives_way() {
    let store = Arc::new(Memory::new(Bounds::default()));
    let world = World::new(&store, "a");
    a_moment().await;
    world.place(1, "s").await.unwrap();
    world.place(2, "t").await.unwrap();
    a_moment().await;
    // As if its lease had run out: the store forgets the worker, and another one is given one of its ids.
    let owner = Owner { worker: world.member.worker().clone(), epoch: Epoch(1) };
    store.leave(&service(), &owner).await.unwrap();
    assert_eq!(world.reason("s").await, Some(CloseReason::Shutdown));
    let other = World::new(&store, "b");
    a_moment().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(matches!(world.seen("s").await, Some(SessionView::Live(_))), "restored");
    assert!(matches!(world.seen("t").await, Some(SessionView::Live(_))), "restored");
    assert!(matches!(other.claim(7, "s", None).await, Claimed::Duplicate { .. }));
    assert_eq!(world.owned.0.lock().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_leaves_says_so() {
    let mut world = World::new(&Arc::default(), "a");
    a_moment().await;
    world.place(1, "s").await.unwrap();
    a_moment().await;
    world.owned.end(Ticket::from_random(1), CloseReason::Draining).await;
    world.stop.cancel();
    assert_eq!(world.running.join_next().await.unwrap().unwrap(), Fate::Left);
    assert_eq!(world.reason("s").await, Some(CloseReason::Draining), "before it left");
    assert!(world.store.workers(&service()).await.unwrap().is_empty());
}
