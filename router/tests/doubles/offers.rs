//! Offers.

use std::sync::Arc;

use serde_json::json;
use streamfleet_router::relay::{Candidates, Minting};
use streamfleet_session::fleet::Refused;
use streamfleet_session::ufrag::{RelayKey, Seal, WorkerNetworks};
use streamfleet_store::SessionView;

use super::double::Act;
use super::world::{SOON, World, error, service};

#[tokio::test]
async fn an_offer_goes_to_a_worker_with_its_place() {
    let mut world = World::new();
    world.worker("w").await;
    let router = world.router(json!({}));
    let answer = world.offer(&router, "x", &json!({ "metadata": { "user_id": "mia", "room": 7 } })).await;
    assert_eq!((answer.0, &answer.1["sdp"], &answer.1["type"]), (200, &json!("w"), &json!("answer")));
    let seen = world.next().await;
    assert_eq!(seen.line, "POST /a/webrtc/offer");
    let placed = seen.placed.unwrap();
    assert_eq!(placed.user.as_ref().map(|user| user.as_str()), Some("mia"));
    assert!(!placed.verified && !placed.context.resumed && placed.takes_over.is_none());
    assert_eq!(placed.metadata["room"], 7);
    assert_eq!(placed.client.ip().to_string(), "127.0.0.1");
    let view = world.store.session(&service(), &"x".parse().unwrap()).await.unwrap();
    let Some(SessionView::Live(live)) = view else { panic!("{view:?}") };
    assert_eq!(live.ticket.bits(), placed.ticket);
}

/// A cluster's load balancer has its address later than its routers are there, and may lose it.
#[tokio::test]
async fn without_a_public_address_nobody_is_asked_for_a_place() {
    let mut world = World::new();
    world.worker("w").await;
    let networks = WorkerNetworks::new(vec!["10.0.0.0/8".parse().unwrap()], None).unwrap();
    let seal = Arc::new(Seal::new(&RelayKey::from_random([1; 32]).into(), networks));
    let candidates = Arc::new(Candidates::default());
    world.relay = Some(Arc::new(Minting::new(seal, candidates.clone())));
    let relayed = world.router(json!({}));
    let direct = world.router(json!({ "media": { "exposure": "HostPort" } }));
    let offer = json!({ "type": "offer", "sdp": "v=0", "webrtc_id": "x" }).to_string();
    let refused = world.client.post(format!("{relayed}/webrtc/offer")).body(offer).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"5".parse().unwrap()));
    assert_eq!(error(&world.offer(&relayed, "x", &json!({})).await), (503, "no_capacity"));
    assert!(world.store.session(&service(), &"x".parse().unwrap()).await.unwrap().is_none(), "no place is held");
    assert_eq!(world.offer(&direct, "y", &json!({})).await.0, 200, "media that no relay carries");
    // From now on it is the worker that has to be reached, which has said no address.
    candidates.set(vec!["192.0.2.1:3478".parse().unwrap()]);
    assert_eq!(error(&world.offer(&relayed, "z", &json!({})).await).1, "upstream_unavailable");
}

#[tokio::test]
async fn what_only_routers_write_is_taken_from_clients() {
    let mut world = World::new();
    world.worker("w").await;
    let router = world.router(json!({}));
    let body = json!({ "type": "offer", "sdp": "v=0", "webrtc_id": "x" }).to_string();
    let request = world.client.post(format!("{router}/webrtc/offer")).body(body);
    let request = request.header("streamfleet-placed", "forged").header("x-forwarded-for", "203.0.113.9");
    assert_eq!(request.send().await.unwrap().status(), 200);
    let seen = world.next().await;
    assert_eq!(seen.headers.get_all("streamfleet-placed").iter().count(), 1);
    assert_eq!(seen.headers["x-forwarded-for"], "127.0.0.1");
}

/// A worker that will not take it has one other stand in for it; that one has none.
#[tokio::test]
async fn one_other_worker_is_tried() {
    let (stale, full) = (Act::Refuse(Refused::Stale), Act::Refuse(Refused::Full));
    for (workers, script, expected, asked) in [
        (3, vec![stale, Act::Answer], (200, ""), 2),
        (3, vec![stale, full, Act::Answer], (503, "no_capacity"), 2),
        (1, vec![full, Act::Answer], (503, "no_capacity"), 1),
        (2, vec![Act::Decline, Act::Answer], (400, "invalid_offer"), 1),
        (2, vec![Act::Fail, Act::Answer], (500, "internal"), 1),
        (2, vec![full, Act::Decline, Act::Answer], (400, "invalid_offer"), 2),
    ] {
        let mut world = World::new();
        world.script.lock().extend(&script);
        for n in 0..workers {
            world.worker(&format!("w{n}")).await;
        }
        let router = world.router(json!({}));
        let answer = world.offer(&router, "x", &json!({})).await;
        assert_eq!(error(&answer), expected, "{script:?}");
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..asked {
            assert!(seen.insert(world.next().await.worker), "each once");
        }
        assert!(world.seen.try_recv().is_err(), "{script:?}");
        // No claim is left behind.
        world.sessions_become(usize::from(answer.0 == 200)).await;
    }
}

#[tokio::test]
async fn a_worker_that_is_gone_has_another_stand_in_for_it() {
    let world = World::new();
    world.ghost("v").await;
    world.worker("w").await;
    let router = world.router(json!({}));
    for n in 0..8 {
        let answer = world.offer(&router, &format!("x{n}"), &json!({})).await;
        assert_eq!((answer.0, &answer.1["sdp"]), (200, &json!("w")));
    }
    world.sessions_become(8).await;
}

#[tokio::test]
async fn with_nobody_else_the_silence_is_told() {
    let world = World::new();
    world.ghost("v").await;
    let router = world.router(json!({}));
    assert_eq!(error(&world.offer(&router, "x", &json!({})).await), (502, "upstream_unavailable"));
    world.sessions_become(0).await;
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_behind() {
    let mut world = World::new();
    world.script.lock().push_back(Act::Hang);
    world.worker("w").await;
    let router = world.router(json!({}));
    let nothing = json!({});
    let offer = world.offer(&router, "x", &nothing);
    // Its place is claimed when the worker is asked; then the client hangs up.
    let store = world.store.clone();
    tokio::select! {
        answer = offer => panic!("{answer:?}"),
        () = async {
            while store.session(&service(), &"x".parse().unwrap()).await.unwrap().is_none() {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    world.next().await;
    world.sessions_become(0).await;
}

#[tokio::test]
async fn an_id_is_nobody_elses_and_limits_hold() {
    let mut world = World::new();
    world.worker("w").await;
    let router = world.router(json!({ "limits": { "concurrency": 2, "perUser": 1 } }));
    let mia = json!({ "metadata": { "user_id": "mia" } });
    let first = world.offer(&router, "x", &mia).await;
    assert_eq!(first.0, 200);
    assert_eq!(error(&world.offer(&router, "x", &mia).await), (200, "connection_already_exists"));
    let limited = world.offer(&router, "y", &mia).await;
    assert_eq!((error(&limited), &limited.1["meta"]["limit"]), ((200, "user_limit_reached"), &json!(1)));
    assert_eq!(world.offer(&router, "y", &json!({})).await.1["type"], "answer");
    assert_eq!(error(&world.offer(&router, "z", &json!({})).await), (200, "concurrency_limit_reached"));
    // Its own client takes it over, past the limits.
    let resume = json!({ "resume": first.1["resume"], "metadata": { "user_id": "mia" } });
    assert_eq!(world.offer(&router, "x", &resume).await.1["type"], "answer");
    let ticket = world.next().await.placed.unwrap().ticket;
    world.next().await;
    let moved = world.next().await.placed.unwrap();
    assert_eq!((moved.takes_over, moved.context.resumed), (Some(ticket), true));
}

#[tokio::test]
async fn an_offer_waits_for_a_worker() {
    let world = World::new();
    let router = world.router(json!({ "routing": { "offerHoldSeconds": 20 } }));
    let nothing = json!({});
    let (answer, ()) = tokio::join!(world.offer(&router, "x", &nothing), async {
        // It is on its way when the worker comes, or comes right after it: both must do.
        tokio::task::yield_now().await;
        world.worker("w").await;
    });
    assert_eq!(answer.1["sdp"], "w");
}

#[tokio::test]
async fn who_may_not_wait_is_told_when_to_come_again() {
    let world = World::new();
    let router = world.router(json!({ "routing": { "offerHoldSeconds": 0 } }));
    let body = json!({ "type": "offer", "sdp": "v=0", "webrtc_id": "x" }).to_string();
    let response = world.client.post(format!("{router}/webrtc/offer")).body(body).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (503, "5"));
    let started = std::time::Instant::now();
    let router = world.router(json!({ "routing": { "offerHoldSeconds": 1 } }));
    assert_eq!(error(&world.offer(&router, "x", &json!({})).await), (503, "no_capacity"));
    assert!(started.elapsed() < SOON);
}

/// The order of the checks: who is not known learns nothing of ids.
#[tokio::test]
async fn strangers_learn_nothing_where_proof_is_required() {
    let mut world = World::new();
    world.worker("w").await;
    let secret = std::env::temp_dir().join(format!("streamfleet-router-{}", std::process::id()));
    std::fs::write(&secret, "a secret of thirty-two bytes or more\n").unwrap();
    let router = world.router(json!({ "identity": { "required": true, "jwt": { "secret": { "file": secret } } } }));
    std::fs::remove_file(&secret).unwrap();
    let own = router.strip_suffix("/a").unwrap().to_owned();
    let claims = json!({ "sub": "tess", "exp": 4_000_000_000_u64 });
    let token = crate::token::signed(&claims, b"a secret of thirty-two bytes or more");
    let url = format!("{router}/webrtc/offer?access_token={token}");
    let body = json!({ "type": "offer", "sdp": "v=0", "webrtc_id": "x", "metadata": { "user_id": "mia" } });
    assert_eq!(world.post(&url, &body).await.1["type"], "answer");
    let placed = world.next().await.placed.unwrap();
    assert_eq!((placed.user.unwrap().as_str(), placed.verified, &placed.claims["sub"]), ("tess", true, &json!("tess")));
    // A browser sends its cookies whichever page asks.
    let url = format!("{router}/webrtc/offer");
    for (origin, expected) in
        [(None, 200), (Some(own.as_str()), 200), (Some("https://evil.example"), 401), (Some("null"), 401)]
    {
        let body = json!({ "type": "offer", "sdp": "v=0", "webrtc_id": format!("cookie-{expected}-{origin:?}").replace(|c: char| !c.is_ascii_alphanumeric(), "-") });
        let request = world.client.post(&url).header("cookie", format!("access_token={token}")).body(body.to_string());
        let request = origin.into_iter().fold(request, |request, origin| request.header("origin", origin));
        assert_eq!(request.send().await.unwrap().status(), expected, "{origin:?}");
        if expected == 200 {
            assert!(world.next().await.placed.unwrap().verified);
        }
    }
    for id in ["x", "y"] {
        assert_eq!(error(&world.offer(&router, id, &json!({})).await), (401, "unauthorized"));
        let candidate = json!({ "type": "ice-candidate", "webrtc_id": id, "candidate": null });
        let answer = world.post(&format!("{router}/webrtc/offer"), &candidate).await;
        assert_eq!(error(&answer), (401, "unauthorized"));
    }
}

#[tokio::test]
async fn bad_bodies_and_unknown_services_are_told_as_a_worker_tells_them() {
    let world = World::new();
    let router = world.router(json!({}));
    let post = |path: &str, body: &str| world.client.post(path).body(body.to_owned()).send();
    let offer = format!("{router}/webrtc/offer");
    assert_eq!(post(&offer, "nonsense").await.unwrap().status(), 422);
    assert_eq!(post(&offer, r#"{"type":"offer","webrtc_id":"a b"}"#).await.unwrap().status(), 422);
    assert_eq!(post(&offer, &"x".repeat(300 << 10)).await.unwrap().status(), 413);
    let elsewhere = offer.replace("/a/", "/b/");
    assert_eq!(post(&elsewhere, "nonsense").await.unwrap().status(), 422);
    let unknown = post(&elsewhere, r#"{"type":"offer","sdp":"","webrtc_id":"x"}"#).await.unwrap();
    assert_eq!(error(&super::world::answer(unknown).await), (404, "service_not_found"));
    let wrong = world.client.put(&offer).send().await.unwrap();
    assert_eq!((wrong.status().as_u16(), wrong.headers()["allow"].to_str().unwrap()), (405, "POST, OPTIONS"));
    let open = world.client.request(reqwest::Method::OPTIONS, &offer).send().await.unwrap();
    assert_eq!((open.status().as_u16(), open.headers()["access-control-allow-origin"].to_str().unwrap()), (204, "*"));
}
