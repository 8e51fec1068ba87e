//! The store away: sessions are placed and found all the same.

use std::time::Duration;

use futures_util::SinkExt as _;
use serde_json::json;
use streamfleet_session::fleet::{Refused, Standing};
use streamfleet_socket::telephone::CallTokenKey;

use super::double::Act;
use super::redis::Redis;
use super::sockets::{CALL, PutThrough, begin, closed, end, open, put_through, start, text};
use super::world::{ADMIN, SOON, World, answer, before_it_is_there, error, fleet, soon};

#[tokio::test]
async fn sessions_are_placed_and_found_without_the_store() {
    let mut redis = Redis::start();
    let spec = json!({ "limits": { "concurrency": 5, "perUser": 3 } });
    let (mut world, one, other) = fleet(&redis, spec).await;
    redis.stop();

    // Those that live are found, their ids are taken, and they can be asked and ended: by a router that has not placed them.
    for id in ["first", "second"] {
        for router in [&one, &other] {
            let taken = world.offer(router, id, &json!({})).await;
            assert_eq!(error(&taken), (200, "connection_already_exists"), "{id}");
        }
    }
    let shown = world.client.get(format!("{other}/sessions/first")).bearer_auth(ADMIN).send().await.unwrap();
    assert_eq!(answer(shown).await.1["id"], "first");
    let outputs = world.client.get(format!("{other}/outputs?webrtc_id=first")).send().await.unwrap();
    assert_eq!(outputs.status(), 200);
    let told = world.post(&format!("{one}/input_hook"), &json!({ "webrtc_id": "second", "inputs": [] })).await;
    assert_eq!(told.0, 200);
    let unknown = world.post(&format!("{one}/input_hook"), &json!({ "webrtc_id": "nobody", "inputs": [] })).await;
    assert_eq!(error(&unknown), (404, "not_found"));
    let stranger = world.client.delete(format!("{other}/sessions/first")).bearer_auth("nonsense").send().await.unwrap();
    assert_eq!(stranger.status(), 401);
    let ended = world.client.delete(format!("{other}/sessions/first")).bearer_auth(ADMIN).send().await.unwrap();
    assert_eq!(ended.status(), 200);
    let gone = world.client.delete(format!("{other}/sessions/first")).bearer_auth(ADMIN).send().await.unwrap();
    assert_eq!(gone.status(), 404);

    // New ones are placed, by both routers on the same worker.
    while world.seen.try_recv().is_ok() {}
    for n in 0..6 {
        let id = format!("new-{n}");
        let first = world.offer(&one, &id, &json!({ "resume": "00".repeat(16) })).await;
        assert_eq!(first.1["type"], "answer", "{first:?}");
        let placed = world.offered().await.placed.unwrap();
        let Standing::Provisional(share) = placed.standing else { panic!("{placed:?}") };
        // Five of the service on two workers, three of a user.
        assert_eq!((share.sessions.unwrap().get(), share.of_user.unwrap().get()), (3, 2));
        assert!(!placed.context.resumed && placed.context.data.is_empty());
        assert_eq!(error(&world.offer(&other, &id, &json!({})).await), (200, "connection_already_exists"));
    }

    // It comes back, empty: what lives is known to it again, and the next one is claimed.
    redis.again();
    world.sessions_become(7).await;
    let is_counted = async || error(&world.offer(&other, "after", &json!({})).await).1 == "concurrency_limit_reached";
    soon("seven live where five may, and that is counted again", is_counted).await;
}

/// A server without memory answers, and no lease can be renewed: it is as one that is away. Calls were refused as if all workers were gone.
#[tokio::test]
async fn sessions_are_placed_and_found_while_the_store_is_full() {
    let redis = Redis::start();
    let (mut world, one, other) = fleet(&redis, json!({})).await;
    while world.seen.try_recv().is_ok() {}
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    for id in ["first", "second"] {
        assert_eq!(error(&world.offer(&other, id, &json!({})).await), (200, "connection_already_exists"), "{id}");
    }
    // Before all leases are over and after.
    for (id, router) in [("early", &one), ("late", &other)] {
        let placed = world.offer(router, id, &json!({})).await;
        assert_eq!(placed.1["type"], "answer", "{placed:?}");
        let placed = world.offered().await.placed.unwrap();
        assert!(matches!(placed.standing, Standing::Provisional(_)), "{placed:?}");
        if id == "early" {
            tokio::time::sleep(Duration::from_secs(8)).await;
        }
    }
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    let claimed = async {
        for n in 0.. {
            if world.offer(&one, &format!("after-{n}"), &json!({})).await.1["type"] == "answer" {
                let placed = world.offered().await.placed.unwrap();
                if placed.standing == Standing::Claimed {
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON * 2, claimed).await.expect("there is room again");
}

/// A worker that does not have it has one other stand in; one that is silent may have it, and nobody else is asked.
#[tokio::test]
async fn one_other_worker_is_tried_where_that_is_safe() {
    let mut redis = Redis::start();
    let (mut world, one, _) = fleet(&redis, json!({})).await;
    redis.stop();
    world.script.lock().extend([Act::Refuse(Refused::Full), Act::Answer]);
    assert_eq!(world.offer(&one, "x", &json!({})).await.1["type"], "answer");
    let (first, second) = (world.offered().await, world.offered().await);
    assert_ne!(first.worker, second.worker);
    world.script.lock().extend([Act::Hang, Act::Answer]);
    assert_eq!(error(&world.offer(&one, "y", &json!({})).await), (502, "upstream_unavailable"));
    world.offered().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(std::iter::from_fn(|| world.seen.try_recv().ok()).all(|seen| seen.placed.is_none()), "one was asked");
}

/// Candidates find a session that another router has placed.
#[tokio::test]
async fn candidates_find_their_session_without_the_store() {
    let mut redis = Redis::start();
    let (mut world, one, other) = fleet(&redis, json!({})).await;
    redis.stop();
    assert_eq!(world.offer(&one, "x", &json!({})).await.1["type"], "answer");
    let worker = world.offered().await.worker;
    let line = "candidate:1 1 udp 2122260223 192.0.2.1 4242 typ host";
    let candidate =
        json!({ "type": "ice-candidate", "webrtc_id": "x", "candidate": { "candidate": line, "sdpMid": "0" } });
    let sent = world.post(&format!("{other}/webrtc/offer"), &candidate).await;
    assert_eq!(sent, (200, json!({ "status": "success" })));
    loop {
        let seen = world.next().await;
        if seen.line == "POST /a/webrtc/offer" {
            assert_eq!((seen.worker.clone(), seen.json()["candidate"]["candidate"].as_str()), (worker, Some(line)));
            break;
        }
    }
}

/// A socket that has broken off comes back to its worker, which knows its token; nobody else's does.
#[tokio::test]
async fn who_comes_back_has_its_session_again_without_the_store() {
    let mut redis = Redis::start();
    let (mut world, one, other) = fleet(&redis, json!({})).await;
    let (socket, token) = begin(&one, "x").await;
    let worker = world.offered().await.worker;
    drop(socket);
    redis.stop();
    let mut back = open(&other).await;
    back.send(start("x", &json!({ "resume": token }))).await.unwrap();
    assert_eq!(text(&mut back).await, format!("{worker}: attached"));
    // One over WebRTC is no socket's, and its id is taken.
    let mut stranger = open(&other).await;
    stranger.send(start("first", &json!({ "resume": token }))).await.unwrap();
    let (said, frame) = end(&mut stranger).await;
    assert!(said[0].contains("connection_already_exists"), "{said:?}");
    assert_eq!(frame, closed(1000, "refused"));
    // One that is over begins anew.
    let mut over = open(&other).await;
    over.send(start("y", &json!({ "resume": token }))).await.unwrap();
    assert!(matches!(world.offered().await.placed.unwrap().standing, Standing::Provisional(_)));
}

/// A router that has begun without the store knows no worker: who comes back to it waits for one, and has its session again. It was ended
/// for a new one as soon as the store was there.
#[tokio::test]
async fn who_comes_back_to_a_router_that_knows_nobody_has_its_session_again() {
    let mut redis = Redis::start();
    let (mut world, one, _) = fleet(&redis, json!({})).await;
    let (socket, token) = begin(&one, "x").await;
    let worker = world.offered().await.worker;
    drop(socket);
    redis.stop();
    let (blind, hasty) = (world.router(json!({})), world.router(json!({ "routing": { "offerHoldSeconds": 1 } })));
    let mut back = open(&blind).await;
    back.send(start("x", &json!({ "resume": token }))).await.unwrap();
    // It waits as any call does: no longer than that.
    let mut in_vain = open(&hasty).await;
    in_vain.send(start("x", &json!({ "resume": token }))).await.unwrap();
    let (said, frame) = end(&mut in_vain).await;
    assert!(said[0].contains("no_capacity"), "{said:?}");
    assert_eq!(frame, closed(1013, "refused"));
    // Its worker is not the first that is there again.
    world.late.lock().insert(worker.clone());
    redis.again();
    let attached = before_it_is_there(&world, &blind, &worker, text(&mut back)).await;
    assert_eq!(attached, format!("{worker}: attached"));
    world.sessions_become(3).await;
}

/// A telephone company says which call it is, and not which session that has. It was hung up where a worker was asked that did not have it.
#[tokio::test]
async fn a_call_that_comes_back_is_searched_for_where_the_store_does_not_know_it() {
    let mut redis = Redis::start();
    let (mut world, one, other) = fleet(&redis, json!({})).await;
    let PutThrough { worker, nonce, shown } = put_through(&mut world, &one, "MZ1").await;
    let client = world.client.clone();
    // What is answered, and which workers were asked.
    let incoming = async |world: &mut World, n: u32, shown: &str| {
        let query = format!("?return={shown}&n={n}");
        let request = client.post(format!("{other}/telephone/incoming{query}")).body(format!("CallSid={CALL}"));
        let twiml = request.send().await.unwrap().text().await.unwrap();
        let seen = std::iter::from_fn(|| world.seen.try_recv().ok());
        let asked: Vec<String> = seen.filter(|seen| seen.line.ends_with(&query)).map(|seen| seen.worker).collect();
        (twiml, asked)
    };
    let forged = CallTokenKey::new("another").sign_return(CALL, nonce);
    // The store is away, and has then lost which session the call has. By chance it would be found once in two times.
    for n in 0..16 {
        match n {
            0 => redis.stop(),
            8 => redis.again(),
            _ => {}
        }
        let (twiml, asked) = incoming(&mut world, n, &shown).await;
        assert!(twiml.contains("streamfleet_session\" value=\"MZ1\"") && asked.contains(&worker), "{n}: {asked:?}");
        let (_, asked) = incoming(&mut world, 100 + n, &forged).await;
        assert_eq!(asked.len(), 1, "who cannot prove that he was here is searched for by nobody");
    }
    redis.stop();
    let ended = world.client.delete(format!("{other}/sessions/MZ1")).bearer_auth(ADMIN).send().await.unwrap();
    assert_eq!(ended.status(), 200);
    let (twiml, asked) = incoming(&mut world, 200, &shown).await;
    assert!(twiml.contains("<Hangup"), "it is over: {twiml}");
    assert_eq!(asked.len(), 3, "each is asked for it, and any of them says goodbye");
}
