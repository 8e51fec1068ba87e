//! Many claims for few ids, at once.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::seq::SliceRandom;
use streamfleet_session::{CloseReason, ServiceName};
use streamfleet_store::{
    ClaimRequest, Claimed, Entry, Gate, Heartbeat, Memory, Order, Owner, Phase, SessionView, Store, Ticket,
};
use tokio::task::JoinSet;

use crate::arrangements::{connected, unhurried};
use crate::server::{Server, free_port};
use crate::world::{beat, id, limit, name, nothing, request, user};

const IDS: usize = 20;
const ROUNDS: usize = 5;
const CLAIMS: usize = 40;

async fn worker(store: &dyn Store, service: &ServiceName, worker: &str) -> Owner {
    let epoch = store.register(service, &name(worker), Entry::New).await.unwrap();
    let owner = Owner { worker: name(worker), epoch };
    store.renew(service, &owner, &beat(1000)).await.unwrap();
    owner
}

/// Each of `routers` claims every id many times over; then all sessions end, and the next round begins.
async fn race(routers: Vec<Arc<dyn Store>>) -> ServiceName {
    let service: ServiceName = format!("test-race/r{:x}", rand::random::<u32>()).parse().unwrap();
    let owners = [worker(&*routers[0], &service, "a").await, worker(&*routers[0], &service, "b").await];
    for round in 0..ROUNDS {
        let mut requests: Vec<ClaimRequest> = (0..CLAIMS * IDS)
            .map(|number| ClaimRequest {
                user: Some(user(&format!("u{}", number % 3))),
                service_limit: limit(IDS as u32),
                pin: (number % 5 == 0).then(|| "room".parse().unwrap()),
                ..request(&format!("id{}", number % IDS), &["b", "a"])
            })
            .collect();
        requests.shuffle(&mut rand::rng());
        let mut claims = JoinSet::new();
        for (number, request) in requests.into_iter().enumerate() {
            let (store, service) = (routers[number % routers.len()].clone(), service.clone());
            claims.spawn(async move { (request.clone(), store.claim(&service, &request).await) });
        }
        let mut winners: Vec<(ClaimRequest, Owner)> = Vec::new();
        while let Some(done) = claims.join_next().await {
            let (request, claimed) = done.unwrap();
            match claimed.unwrap() {
                Claimed::Placed(placement) => {
                    let owner = owners.iter().find(|owner| owner.worker == placement.at.worker).unwrap();
                    winners.push((request, owner.clone()));
                }
                Claimed::Duplicate { .. } | Claimed::ServiceLimit => {}
                other => panic!("{other:?}"),
            }
        }
        let mut ids: Vec<&str> = winners.iter().map(|(request, _)| request.session.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((ids.len(), winners.len()), (IDS, IDS), "round {round}: one winner for each id");
        let mut ends = JoinSet::new();
        for (number, (request, owner)) in winners.into_iter().enumerate() {
            let (store, service) = (routers[number % routers.len()].clone(), service.clone());
            ends.spawn(async move {
                store.report(&service, &owner, request.ticket, Phase::Active, &nothing()).await.unwrap();
                let Some(SessionView::Live(live)) = store.session(&service, &request.session).await.unwrap() else {
                    panic!("{:?} lives", request.session)
                };
                assert_eq!(live.ticket, request.ticket);
                store.end(&service, &owner, request.ticket, CloseReason::EndStream).await.unwrap();
            });
        }
        while let Some(done) = ends.join_next().await {
            done.unwrap();
        }
        for view in routers[0].workers(&service).await.unwrap() {
            assert_eq!(view.sessions, 0, "round {round}");
        }
    }
    assert_eq!(
        routers[0].session(&service, &id("id0")).await.unwrap(),
        Some(SessionView::Over(CloseReason::EndStream))
    );
    service
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_process() {
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    race(vec![store.clone(), store]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis() {
    let server = Server::start(None, free_port(), &[]);
    let config = unhurried(&server);
    let (one, two) = (connected(config.clone()).await, connected(config).await);
    let service = race(vec![Arc::new(one), Arc::new(two)]).await;
    for (kind, tables) in [
        ("HLEN", &["sessions", "details", "ids", "moving", "contexts", "documents", "contexts-of", "acks"][..]),
        ("HLEN", &["on:a", "on:b", "wants:a", "wants:b"]),
        ("ZCARD", &["by-id", "reserved", "users", "pins", "contexts-at"]),
    ] {
        for table in tables {
            let key = format!("sf:{{{service}}}:{table}");
            assert_eq!(server.command(&[kind, &key]), "0", "{key}");
        }
    }
}

/// A claim and its repetitions at the same time are one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_ticket_is_one_session() {
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let service: ServiceName = "test/one".parse().unwrap();
    worker(&*store, &service, "a").await;
    let request = ClaimRequest { ticket: Ticket::from_random(7), ..request("k3x9", &["a"]) };
    let mut claims = JoinSet::new();
    for _ in 0..50 {
        let (store, service, request) = (store.clone(), service.clone(), request.clone());
        claims.spawn(async move { store.claim(&service, &request).await.unwrap() });
    }
    while let Some(claimed) = claims.join_next().await {
        assert!(matches!(claimed.unwrap(), Claimed::Placed(_)));
    }
    assert_eq!(store.workers(&service).await.unwrap()[0].sessions, 1);
}

/// A worker in one process with those who bring it sessions: what it has heard and what it has taken are under one lock, as a
/// worker's are.
#[derive(Default)]
struct Pod {
    heard: (Gate, Order),
    taken: Vec<Ticket>,
    /// It was taken away.
    gone: bool,
}

/// What becomes of a session that is brought to a worker.
#[derive(Debug, PartialEq, Eq)]
enum Brought {
    Taken,
    Refused,
    NobodyThere,
}

impl Pod {
    fn bring(&mut self, ticket: Ticket) -> Brought {
        match (self.gone, self.heard.0) {
            (true, _) => Brought::NobodyThere,
            (false, Gate::Draining | Gate::Leaving) => Brought::Refused,
            (false, Gate::Open) => {
                self.taken.push(ticket);
                Brought::Taken
            }
        }
    }
}

async fn a_moment(at_most_micros: u64) {
    tokio::time::sleep(Duration::from_micros(rand::random_range(0..=at_most_micros))).await;
}

/// Keeps saying what it has, and obeys.
async fn beats(store: Arc<dyn Store>, service: ServiceName, owner: Owner, pod: Arc<Mutex<Pod>>) {
    loop {
        let said = {
            let pod = pod.lock();
            if pod.gone {
                return;
            }
            let (gate, heard) = pod.heard;
            Heartbeat { gate, heard, active: u32::try_from(pod.taken.len()).unwrap(), ..beat(1000) }
        };
        let orders = store.renew(&service, &owner, &said).await.unwrap();
        pod.lock().heard = (orders.gate, orders.order);
        a_moment(500).await;
    }
}

/// Somebody claims, brings what the claim gave after a while, and hangs up after another. Every third one has no claim, as while its
/// router does not reach the store.
async fn calls(store: Arc<dyn Store>, service: ServiceName, owner: Owner, pod: Arc<Mutex<Pod>>, count: usize) -> usize {
    let mut talked = 0;
    for number in 0..count {
        let claim = request(&format!("c{:x}", rand::random::<u64>()), &[owner.worker.as_str()]);
        let is_claimed = number % 3 != 0;
        if is_claimed && !matches!(store.claim(&service, &claim).await.unwrap(), Claimed::Placed(_)) {
            a_moment(500).await;
            continue;
        }
        a_moment(2000).await;
        let brought = pod.lock().bring(claim.ticket);
        match brought {
            Brought::Taken => {
                if is_claimed {
                    store.report(&service, &owner, claim.ticket, Phase::Active, &nothing()).await.unwrap();
                }
                a_moment(2000).await;
                talked += 1;
                {
                    let mut pod = pod.lock();
                    assert!(!pod.gone, "it was taken away with a call");
                    pod.taken.retain(|ticket| *ticket != claim.ticket);
                }
                if is_claimed {
                    store.end(&service, &owner, claim.ticket, CloseReason::ClientClosed).await.unwrap();
                }
            }
            Brought::Refused => store.release(&service, claim.ticket).await.unwrap(),
            Brought::NobodyThere => assert!(!is_claimed, "a place was given at a worker that was taken away"),
        }
    }
    talked
}

/// Whoever scales down: asks a worker to drain, changes its mind now and then, and takes the worker away when it is drained.
async fn takes_away(store: Arc<dyn Store>, service: ServiceName, owner: Owner, pod: Arc<Mutex<Pod>>) {
    for _ in 0..3 {
        a_moment(8000).await;
        assert!(store.ask_gate(&service, &owner.worker, Gate::Draining).await.unwrap());
        a_moment(3000).await;
        assert!(store.ask_gate(&service, &owner.worker, Gate::Open).await.unwrap());
    }
    assert!(store.ask_gate(&service, &owner.worker, Gate::Draining).await.unwrap());
    loop {
        let views = store.workers(&service).await.unwrap();
        if views.iter().any(|view| view.owner == owner && view.is_drained()) {
            break;
        }
        a_moment(500).await;
    }
    let mut pod = pod.lock();
    assert_eq!(pod.taken, [], "it has said that it is empty");
    pod.gone = true;
}

/// Calls that come at the same moment at which a worker is drained are never lost.
async fn drains(routers: Vec<Arc<dyn Store>>, workers: usize) {
    let service: ServiceName = format!("test-drain/d{:x}", rand::random::<u32>()).parse().unwrap();
    let mut talked = 0;
    for number in 0..workers {
        let owner = worker(&*routers[0], &service, &format!("w{number}")).await;
        let pod = Arc::new(Mutex::new(Pod::default()));
        let mut callers = JoinSet::new();
        for n in 0..8 {
            let store = routers[n % routers.len()].clone();
            callers.spawn(calls(store, service.clone(), owner.clone(), pod.clone(), 12));
        }
        let (pod, store) = (pod.clone(), routers[0].clone());
        let mut others = JoinSet::new();
        others.spawn(beats(store.clone(), service.clone(), owner.clone(), pod.clone()));
        others.spawn(takes_away(routers[routers.len() - 1].clone(), service.clone(), owner.clone(), pod));
        while let Some(done) = callers.join_next().await {
            talked += done.unwrap();
        }
        while let Some(done) = others.join_next().await {
            done.unwrap();
        }
        let view = store.workers(&service).await.unwrap().into_iter().find(|view| view.owner == owner);
        assert_eq!(view.map(|view| view.sessions), Some(0), "nothing was placed at it afterwards");
        store.leave(&service, &owner).await.unwrap();
    }
    assert!(talked > workers * 8, "{talked} calls, too few to have met a drain");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drains_in_process() {
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    drains(vec![store.clone(), store], 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drains_on_redis() {
    let server = Server::start(None, free_port(), &[]);
    let config = unhurried(&server);
    let (one, two) = (connected(config.clone()).await, connected(config).await);
    drains(vec![Arc::new(one), Arc::new(two)], 8).await;
}
