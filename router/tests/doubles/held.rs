//! Calls that wait for a worker.

use std::time::Duration;

use serde_json::json;
use streamfleet_session::fleet::Refused;
use streamfleet_store::Gate;

use super::world::{Act, SOON, World, error, service};

impl World {
    async fn held_become(&self, expected: u32) {
        let told = async {
            while self.store.traffic(&service()).await.unwrap().held != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, told).await.unwrap_or_else(|_| panic!("the store is never told of {expected}"));
    }

    async fn asks_gate(&self, worker: &str, gate: Gate) {
        assert!(self.store.ask_gate(&service(), &worker.parse().unwrap(), gate).await.unwrap());
    }
}

/// A service without workers: whoever makes them is told that somebody waits, and the call is answered when there is one.
#[tokio::test]
async fn a_call_waits_for_the_first_worker_and_the_store_is_told() {
    let world = World::new();
    let router = world.router(json!({}));
    let nothing = json!({});
    let makes = async {
        world.held_become(2).await;
        world.worker("w").await;
    };
    let (one, two, ()) = tokio::join!(world.offer(&router, "x", &nothing), world.offer(&router, "y", &nothing), makes);
    assert_eq!((one.0, two.0), (200, 200), "{one:?} {two:?}");
    world.held_become(0).await;
    let traffic = world.store.traffic(&service()).await.unwrap();
    assert_eq!((traffic.arrived, traffic.departed), (2, 0));
}

#[tokio::test]
async fn a_call_that_may_not_wait_is_refused_and_one_that_waits_in_vain_is_too() {
    let world = World::new();
    let router = world.router(json!({ "routing": { "offerHoldSeconds": 0 } }));
    assert_eq!(error(&world.offer(&router, "x", &json!({})).await), (503, "no_capacity"));
    let router = world.router(json!({ "routing": { "offerHoldSeconds": 1 } }));
    let nothing = json!({});
    let (answer, ()) = tokio::join!(world.offer(&router, "x", &nothing), world.held_become(1));
    assert_eq!(error(&answer), (503, "no_capacity"));
    world.held_become(0).await;
    let counted = async {
        while world.store.traffic(&service()).await.unwrap().refused != 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, counted).await.expect("both are counted");
}

#[tokio::test]
async fn a_client_that_hangs_up_waits_no_more() {
    let world = World::new();
    let (router, nothing) = (world.router(json!({})), json!({}));
    tokio::select! {
        answer = world.offer(&router, "x", &nothing) => panic!("{answer:?}"),
        () = world.held_become(1) => {}
    }
    world.held_become(0).await;
}

/// The only worker is asked to drain, and to serve again since somebody waits: at whichever moment the call comes it is answered.
#[tokio::test]
async fn a_call_at_the_moment_of_a_drain_is_answered() {
    let world = World::new();
    world.worker("w").await;
    let (router, nothing) = (world.router(json!({})), json!({}));
    for n in 0..20_u64 {
        let id = format!("x{n}");
        let drains = async {
            tokio::time::sleep(Duration::from_micros(n * 200)).await;
            world.asks_gate("w", Gate::Draining).await;
            // Somebody else's decision, which takes a while.
            tokio::time::sleep(Duration::from_millis(20)).await;
            world.asks_gate("w", Gate::Open).await;
        };
        let (answer, ()) = tokio::join!(world.offer(&router, &id, &nothing), drains);
        assert_eq!(answer.0, 200, "{n}: {answer:?}");
        let ended = world.client.delete(format!("{router}/sessions/{id}")).bearer_auth(super::world::ADMIN);
        assert_eq!(ended.send().await.unwrap().status(), 200);
    }
}

/// The claim was before the drain, and the worker has heard of it when the offer comes.
#[tokio::test]
async fn a_call_that_a_draining_worker_refuses_waits_for_the_next() {
    for refused in [Refused::Draining, Refused::Stale] {
        let world = World::new();
        world.script.lock().extend([Act::Refuse(refused), Act::Answer]);
        world.worker("w").await;
        let router = world.router(json!({}));
        let nothing = json!({});
        let goes = async {
            world.held_become(1).await;
            world.asks_gate("w", Gate::Draining).await;
            world.worker("v").await;
        };
        let (answer, ()) = tokio::join!(world.offer(&router, "x", &nothing), goes);
        assert_eq!((answer.0, &answer.1["sdp"]), (200, &json!("v")), "{refused:?}");
        world.sessions_become(1).await;
    }
    // One that is full stays so: its client comes again.
    let world = World::new();
    world.script.lock().push_back(Act::Refuse(Refused::Full));
    world.worker("w").await;
    let router = world.router(json!({}));
    assert_eq!(error(&world.offer(&router, "x", &json!({})).await), (503, "no_capacity"));
}
