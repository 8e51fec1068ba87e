//! Many claims for few ids, at once.

use std::sync::Arc;

use rand::seq::SliceRandom;
use streamfleet_session::{CloseReason, ServiceName};
use streamfleet_store::{ClaimRequest, Claimed, Memory, Owner, Phase, SessionView, Store, Ticket};
use tokio::task::JoinSet;

use crate::arrangements::{connected, unhurried};
use crate::server::{Server, free_port};
use crate::world::{beat, id, limit, name, nothing, request, user};

const IDS: usize = 20;
const ROUNDS: usize = 5;
const CLAIMS: usize = 40;

async fn worker(store: &dyn Store, service: &ServiceName, worker: &str) -> Owner {
    let epoch = store.register(service, &name(worker)).await.unwrap();
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
