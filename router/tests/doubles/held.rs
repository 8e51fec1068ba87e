//! Calls that wait for a worker.

use std::time::{Duration, Instant};

use serde_json::json;
use streamfleet_session::fleet::Refused;
use streamfleet_store::Gate;

use super::double::Act;
use super::world::{World, error, service, soon};

impl World {
    async fn held_become(&self, expected: u32) {
        let is_told = async || self.store.traffic(&service()).await.unwrap().held == expected;
        soon(&format!("the store is told of {expected}"), is_told).await;
    }

    /// One worker, with a session in its only place.
    async fn full() -> Self {
        let world = Self::new();
        world.worker_for("w", 1).await;
        assert_eq!(world.offer(&world.router(json!({})), "x", &json!({})).await.0, 200);
        world
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
    soon("both are counted", async || world.store.traffic(&service()).await.unwrap().refused == 2).await;
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
    // Likewise where all are full.
    let world = World::full().await;
    let router = world.growing(json!({}), 2);
    tokio::select! {
        answer = world.offer(&router, "y", &nothing) => panic!("{answer:?}"),
        () = world.held_become(1) => {}
    }
    world.held_become(0).await;
}

/// Where more workers are made, a call for which all are full is one for whom they are.
#[tokio::test]
async fn a_call_waits_for_one_more_worker() {
    let world = World::full().await;
    let (router, nothing) = (world.growing(json!({}), 2), json!({}));
    let makes = async {
        world.held_become(1).await;
        world.worker("v").await;
    };
    let (answer, ()) = tokio::join!(world.offer(&router, "y", &nothing), makes);
    assert_eq!((answer.0, &answer.1["sdp"]), (200, &json!("v")), "{answer:?}");
    world.held_become(0).await;
    // A place that is free again is one, too: nobody is told of it.
    let world = World::full().await;
    let router = world.growing(json!({}), 2);
    let ends = async {
        world.held_become(1).await;
        let ended = world.client.delete(format!("{router}/sessions/x")).bearer_auth(super::world::ADMIN);
        assert_eq!(ended.send().await.unwrap().status(), 200);
    };
    let (answer, ()) = tokio::join!(world.offer(&router, "y", &nothing), ends);
    assert_eq!(answer.0, 200, "{answer:?}");
}

#[tokio::test]
async fn who_would_wait_in_vain_is_refused_at_once() {
    let mia = json!({ "metadata": { "user_id": "mia" } });
    let with_her = json!({ "routing": { "affinity": { "by": "user", "strength": "Require" } } });
    let cases = [
        ("nobody makes workers", json!({}), None, &json!({})),
        ("there are as many as there may be", json!({}), Some(1), &json!({})),
        ("it may not wait", json!({ "routing": { "offerHoldSeconds": 0 } }), Some(2), &json!({})),
        ("one worker alone would do", with_her, Some(2), &mia),
    ];
    for (what, spec, most, more) in cases {
        let world = World::new();
        world.worker_for("w", 1).await;
        let router = most.map_or_else(|| world.router(spec.clone()), |most| world.growing(spec.clone(), most));
        assert_eq!(world.offer(&router, "x", &mia).await.0, 200, "{what}");
        let began = Instant::now();
        assert_eq!(error(&world.offer(&router, "y", more).await), (503, "no_capacity"), "{what}");
        assert!(began.elapsed() < Duration::from_secs(10), "{what}");
    }
}

/// One place comes for eight: all see it, one has it, and the others wait for what is left of their time and not for as long again.
#[tokio::test]
async fn nobody_waits_longer_for_what_others_took() {
    const PATIENCE: Duration = Duration::from_secs(4);
    let world = World::full().await;
    let (router, nothing) = (world.growing(json!({ "routing": { "offerHoldSeconds": 4 } }), 9), json!({}));
    let began = Instant::now();
    let calls = (0..8).map(|n| {
        let (world, router, nothing) = (&world, &router, &nothing);
        async move {
            let answer = world.offer(router, &format!("y{n}"), nothing).await;
            (answer.0, began.elapsed())
        }
    });
    let makes = async {
        world.held_become(8).await;
        tokio::time::sleep(PATIENCE / 2).await;
        world.worker_for("v", 1).await;
        world.held_become(7).await;
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(calls), makes);
    assert_eq!(answers.iter().filter(|(status, _)| *status == 200).count(), 1, "{answers:?}");
    for (_, after) in answers.iter().filter(|(status, _)| *status != 200) {
        // A second look, and what a busy machine takes: less than half of a new patience.
        assert!((PATIENCE..PATIENCE + PATIENCE / 2).contains(after), "{answers:?}");
    }
    world.held_become(0).await;
    soon("each is counted once", async || world.store.traffic(&service()).await.unwrap().refused == 7).await;
}

/// The last worker that may come is there: who is left over is told at once.
#[tokio::test]
async fn nobody_waits_once_there_are_as_many_as_may_be() {
    let world = World::full().await;
    let (router, nothing) = (world.growing(json!({ "routing": { "offerHoldSeconds": 60 } }), 2), json!({}));
    let makes = async {
        world.held_become(2).await;
        world.worker_for("v", 1).await;
    };
    let began = Instant::now();
    let both = async { tokio::join!(world.offer(&router, "y", &nothing), world.offer(&router, "z", &nothing)) };
    let ((y, z), ()) = tokio::join!(both, makes);
    let mut answers = [y.0, z.0];
    answers.sort_unstable();
    assert_eq!((answers, began.elapsed() < Duration::from_secs(30)), ([200, 503], true));
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
