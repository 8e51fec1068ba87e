//! The store is there again, and workers are still telling it what they have.

use std::time::{Duration, Instant};

use futures_util::SinkExt as _;
use futures_util::future::join_all;
use serde_json::json;
use streamfleet_session::CloseReason;
use streamfleet_store::{SETTLING, SessionView};

use super::redis::Redis;
use super::sockets::{CALL, PutThrough, begin, closed, end, open, put_through, start, text};
use super::world::{ADMIN, World, answer, before_it_is_there, error, fleet, service, soon};

/// What the store has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// All that it had.
    Everything,
    /// Its workers alone, and what they had: their leases ran out.
    Workers,
}

impl Loss {
    fn befalls(self, redis: &mut Redis) {
        match self {
            Self::Everything => {
                redis.stop();
                redis.again();
            }
            Self::Workers => {
                // In one step: whoever renewed between two of them would not be lost. Nothing speaks of an earlier loss.
                let lost = "redis.call('DEL', 'sf:{a}:worker:v', 'sf:{a}:worker:w', 'sf:{a}:settles')
                    return redis.call('ZADD', 'sf:{a}:leases', 1, 'v', 2, 'w')";
                redis.command(&["EVAL", lost, "0"]);
            }
        }
    }
}

impl World {
    /// Where the store says that a session's worker is, or how it ended.
    async fn knows(&self, id: &str) -> Result<String, Option<CloseReason>> {
        match self.store.session(&service(), &id.parse().unwrap()).await {
            Ok(Some(SessionView::Live(live))) => Ok(live.at.worker.to_string()),
            Ok(Some(SessionView::Over(reason))) => Err(Some(reason)),
            Ok(None) | Err(_) => Err(None),
        }
    }
}

/// One of two workers has said what it has: whoever came back to a session of the other one was begun anew there, and ended when that one had
/// said it too. No service says for how long that is waited for.
#[tokio::test]
async fn who_comes_back_while_workers_tell_the_store_again_has_his_session() {
    for loss in [Loss::Everything, Loss::Workers] {
        let mut redis = Redis::start();
        let (mut world, one, _) = fleet(&redis, json!({})).await;
        let other = world.router(json!({ "routing": { "offerHoldSeconds": 0 } }));
        let (socket, token) = begin(&one, "socket").await;
        let at = world.offered().await.worker;
        drop(socket);
        world.late.lock().insert(at.clone());
        loss.befalls(&mut redis);
        let back = async {
            let mut back = open(&other).await;
            back.send(start("socket", &json!({ "resume": token }))).await.unwrap();
            text(&mut back).await
        };
        assert_eq!(before_it_is_there(&world, &other, &at, back).await, format!("{at}: attached"), "{loss:?}");
    }
}

#[tokio::test]
async fn a_call_is_searched_for_until_all_workers_have_told_the_store() {
    for loss in [Loss::Everything, Loss::Workers] {
        let mut redis = Redis::start();
        let (mut world, one, other) = fleet(&redis, json!({})).await;
        let PutThrough { worker, shown, .. } = put_through(&mut world, &one, "MZ1").await;
        world.late.lock().insert(worker.clone());
        loss.befalls(&mut redis);
        let url = format!("{other}/telephone/incoming?return={shown}");
        let incoming = async {
            let reason = if loss == Loss::Workers { Some(CloseReason::WorkerLost) } else { None };
            assert_eq!(world.knows("MZ1").await, Err(reason));
            world.client.post(url).body(format!("CallSid={CALL}")).send().await
        };
        let twiml = before_it_is_there(&world, &other, &worker, incoming).await.unwrap().text().await.unwrap();
        assert!(twiml.contains("streamfleet_session\" value=\"MZ1\""), "{loss:?}: {twiml}");
    }
}

/// Who may control it is told that it is not there, and a client on its way was begun anew and ended.
#[tokio::test]
async fn a_session_is_looked_for_and_moves_until_all_workers_have_told_the_store() {
    let mut redis = Redis::start();
    let (mut world, one, _) = fleet(&redis, json!({})).await;
    let other = world.router(json!({ "routing": { "offerHoldSeconds": 0 } }));
    let begun = world.offer(&one, "media", &json!({})).await;
    let seen = world.offered().await;
    for loss in [Loss::Everything, Loss::Workers] {
        world.late.lock().insert(seen.worker.clone());
        loss.befalls(&mut redis);
        let asked = async {
            let reason = if loss == Loss::Workers { Some(CloseReason::WorkerLost) } else { None };
            assert_eq!(world.knows("media").await, Err(reason));
            world.client.get(format!("{other}/sessions/media")).bearer_auth(ADMIN).send().await.unwrap()
        };
        let found = answer(before_it_is_there(&world, &other, &seen.worker, asked).await).await;
        assert_eq!((found.0, found.1["worker"].as_str()), (200, Some(&*seen.worker)), "{loss:?}: {found:?}");
        soon("it is known again", async || world.knows("media").await.as_ref() == Ok(&seen.worker)).await;
    }
    while world.seen.try_recv().is_ok() {}
    world.late.lock().insert(seen.worker.clone());
    Loss::Everything.befalls(&mut redis);
    let resume = json!({ "resume": begun.1["resume"] });
    let moves = world.offer(&other, "media", &resume);
    let moved = before_it_is_there(&world, &other, &seen.worker, moves).await;
    assert_eq!(moved.1["type"], "answer", "{moved:?}");
    let placed = world.offered().await.placed.unwrap();
    assert_eq!(placed.takes_over, Some(seen.placed.as_ref().unwrap().ticket));
}

/// The store is there, and no worker has told it anything yet.
#[tokio::test]
async fn a_session_is_looked_for_also_before_any_worker_is_there_again() {
    let mut redis = Redis::start();
    let (mut world, one, _) = fleet(&redis, json!({})).await;
    let (socket, token) = begin(&one, "socket").await;
    let at = world.offered().await.worker;
    drop(socket);
    world.late.lock().extend(["v".to_owned(), "w".to_owned()]);
    Loss::Everything.befalls(&mut redis);
    let is_there = async || world.store.workers(&service()).await.is_ok_and(|workers| workers.is_empty());
    soon("it is there, and knows nobody", is_there).await;
    let back = async {
        let mut back = open(&one).await;
        back.send(start("socket", &json!({ "resume": token }))).await.unwrap();
        text(&mut back).await
    };
    let asked = async {
        let first = world.client.get(format!("{one}/sessions/first")).bearer_auth(ADMIN).send().await;
        first.unwrap().status().as_u16()
    };
    let come = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.late.lock().clear();
    };
    let (back, asked, ()) = tokio::join!(back, asked, come);
    assert_eq!((back, asked), (format!("{at}: attached"), 200));
}

/// Workers that come again and again, so that the store never knows all of them: nobody waits for ever, and so many do at most. Those of one
/// kind take no place of another's.
#[tokio::test]
async fn nobody_waits_for_long_and_not_too_many_do() {
    const PLACES: usize = 4;
    let redis = Redis::start();
    let (mut world, _, _) = fleet(&redis, json!({})).await;
    world.settling = PLACES;
    let router = world.router(json!({}));
    redis.command(&["SET", "sf:{a}:settles", "99999999999999"]);
    let token = "00".repeat(16);
    let asks = async |n: usize| {
        let began = Instant::now();
        let asked = world.client.get(format!("{router}/sessions/session-{n}")).bearer_auth(ADMIN).send().await;
        assert_eq!(error(&answer(asked.unwrap()).await), (502, "upstream_unavailable"));
        began.elapsed()
    };
    let socket = async {
        let began = Instant::now();
        let mut back = open(&router).await;
        back.send(start("socket", &json!({ "resume": token }))).await.unwrap();
        let (said, frame) = end(&mut back).await;
        assert!(said[0].contains("upstream_unavailable"), "{said:?}");
        assert_eq!(frame, closed(1013, "refused"));
        began.elapsed()
    };
    let moves = async {
        let began = Instant::now();
        let moved = world.offer(&router, "media", &json!({ "resume": token })).await;
        assert_eq!(error(&moved), (502, "upstream_unavailable"));
        began.elapsed()
    };
    let others = async {
        // All that may ask do by then.
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Who is not on the way back waits for nothing.
        assert_eq!(world.offer(&router, "new", &json!({})).await.1["type"], "answer");
        tokio::join!(socket, moves)
    };
    let (asked, (socket, moved)) = tokio::join!(join_all((0..PLACES + 2).map(asks)), others);
    let waits = 2 * SETTLING;
    let (waited, turned_away): (Vec<Duration>, Vec<Duration>) = asked.into_iter().partition(|asked| *asked >= waits);
    assert_eq!(turned_away.len(), 2, "{turned_away:?}");
    for waited in waited.into_iter().chain([socket, moved]) {
        // One second more is its last look; twice as long would be no bound.
        assert!((waits..2 * waits).contains(&waited), "{waited:?}");
    }
    // It is over: what was never there is known not to be.
    redis.command(&["DEL", "sf:{a}:settles"]);
    let asked = world.client.get(format!("{router}/sessions/session-0")).bearer_auth(ADMIN).send().await;
    assert_eq!(asked.unwrap().status(), 404);
}

/// A client of a service that has no worker: that it waits, or may not, is told to whoever makes them.
#[tokio::test]
async fn who_comes_back_to_a_service_without_workers_is_a_demand_for_them() {
    let redis = Redis::start();
    let world = World::on(&redis).await;
    let router = world.router(json!({ "routing": { "offerHoldSeconds": 0 } }));
    let mut back = open(&router).await;
    back.send(start("x", &json!({ "resume": "00".repeat(16) }))).await.unwrap();
    let (said, _) = end(&mut back).await;
    assert!(said[0].contains("no_capacity"), "{said:?}");
    let is_told = async || world.store.traffic(&service()).await.unwrap().refused == 1;
    soon("the store is told that one was refused", is_told).await;
}
