use std::time::Duration;

use serde_json::json;
use streamfleet_session::CloseReason;
use streamfleet_store::{
    ClaimRequest, Claimed, ContextKey, Entry, Expected, FleetError, Generation, Issued, Kept, Owner, Phase,
    Restoration, Restored, SETTLING, SessionView, Settling, TOKEN_GRACE, Version,
};

use crate::world::{World, beat, end_of, id, limit, name, object, request, restored, user, with_token};

pub(super) async fn lost_workers_are_reaped_once(world: &World) {
    let scene = world.scene();
    let limits = |claim: ClaimRequest| ClaimRequest {
        user: Some(user("ann")),
        service_limit: limit(3),
        user_limit: limit(3),
        pin: Some("room".parse().unwrap()),
        ..claim
    };
    let a = scene.worker("a", 8).await;
    for session in ["1", "2"] {
        scene.active(&a, &limits(request(session, &["a"]))).await;
    }
    scene.place(&limits(request("3", &["a"]))).await;
    world.pass(world.terms.lease / 2).await;
    let b = scene.worker("b", 8).await;
    world.pass(world.terms.lease / 2).await;
    let (one, two) = tokio::join!(scene.store.reap(&scene.service), scene.store.reap(&scene.service));
    assert_eq!(one.unwrap() + two.unwrap(), 3, "each once");
    for session in ["1", "2", "3"] {
        assert_eq!(scene.view(session).await, Some(SessionView::Over(CloseReason::WorkerLost)));
        // Id, both limits and the pin are free.
        scene.active(&b, &limits(request(session, &["b"]))).await;
    }
    let late =
        scene.store.report(&scene.service, &a, request("1", &[]).ticket, Phase::Active, &object(json!({}))).await;
    assert_eq!(late, Err(FleetError::Unregistered));
}

pub(super) async fn lost_sessions_resume_elsewhere(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    let old = request("k3x9", &["a"]);
    let opened = scene.active(&a, &old).await.opened;
    let document = object(json!({"cart": 3}));
    scene.contexts().write(opened.id, document.clone(), Expected::Anything).await.unwrap();
    world.pass(world.terms.lease).await;
    scene.worker("b", 8).await;
    // The claim itself notices.
    let placement = scene.place(&with_token("k3x9", &["a", "b"], old.token)).await;
    assert_eq!(placement.at.worker.as_str(), "b");
    assert_eq!((placement.takes_over, placement.opened.resumed), (None, true));
    assert_eq!(placement.opened.document.data, document);
}

pub(super) async fn sessions_are_restored(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    let claim = ClaimRequest { user: Some(user("ann")), pin: Some("room".parse().unwrap()), ..request("k3x9", &["a"]) };
    scene.active(&a, &claim).await;
    world.pass(world.terms.lease).await;
    assert_eq!(scene.store.reap(&scene.service).await.unwrap(), 1);
    assert_eq!(scene.store.renew(&scene.service, &a, &beat(8)).await, Err(FleetError::Unregistered));
    let epoch = scene.store.register(&scene.service, &a.worker, Entry::New).await.unwrap();
    let a = Owner { epoch, ..a };
    let age = Duration::from_secs(90);
    for _ in 0..2 {
        let outcome = scene.store.restore(&scene.service, &a, &[restored(&claim, age)]).await.unwrap();
        assert_eq!(outcome, [Restoration::Kept], "repeated, it is the same");
    }
    scene.renew(&a, 8).await;
    let Some(SessionView::Live(live)) = scene.view("k3x9").await else { panic!("it lives") };
    assert_eq!((live.ticket, live.phase, live.user.as_ref()), (claim.ticket, Phase::Active, Some(&user("ann"))));
    assert!(live.age >= age && live.age < age + Duration::from_secs(30), "{:?}", live.age);
    assert_eq!(live.detail, object(json!({"transport": "webrtc"})));
    let other = ClaimRequest { user: Some(user("ann")), user_limit: limit(1), ..request("other", &["a"]) };
    assert_eq!(scene.claim(&other).await, Claimed::UserLimit, "it counts again");
    assert_eq!(scene.load("a").await, Some(1));
    // Its context is what its owner knew, and its token is good.
    scene.end(&a, claim.ticket).await;
    let placement = scene.place(&with_token("k3x9", &["a"], claim.token)).await;
    assert_eq!((placement.opened.resumed, placement.opened.document.version.0), (true, 3));
    assert_eq!(placement.opened.document.data, object(json!({"note": "kept"})));
}

/// It is over twice: what is told of its end is told for a whole minute after the second time.
pub(super) async fn who_is_lost_once_more_is_remembered_as_long(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    let claim = request("k3x9", &["a"]);
    scene.active(&a, &claim).await;
    scene.end(&a, claim.ticket).await;
    world.pass(world.terms.afterlife / 2).await;
    let epoch = scene.store.register(&scene.service, &a.worker, Entry::Again).await.unwrap();
    let a = Owner { epoch, ..a };
    let again = restored(&claim, Duration::from_secs(60));
    assert_eq!(scene.store.restore(&scene.service, &a, &[again]).await.unwrap(), [Restoration::Kept]);
    scene.end(&a, claim.ticket).await;
    let over = Some(SessionView::Over(CloseReason::ClientClosed));
    world.pass(world.terms.afterlife * 2 / 3).await;
    assert_eq!(scene.view("k3x9").await, over);
    world.pass(world.terms.afterlife / 3).await;
    assert_eq!(scene.view("k3x9").await, None);
}

/// What has its ticket lives elsewhere: that one stays.
pub(super) async fn nobody_writes_again_what_another_has(world: &World) {
    let scene = world.scene();
    let (a, b) = (scene.worker("a", 8).await, scene.worker("b", 8).await);
    let claim = request("k3x9", &["a"]);
    scene.active(&a, &claim).await;
    let theirs = restored(&claim, Duration::from_secs(60));
    assert_eq!(scene.store.restore(&scene.service, &b, &[theirs]).await.unwrap(), [Restoration::Superseded]);
    let Some(SessionView::Live(live)) = scene.view("k3x9").await else { panic!("it lives") };
    assert_eq!((live.at.worker, scene.load("a").await, scene.load("b").await), (a.worker, Some(1), Some(0)));
}

/// A call that was begun while the store was away, and the claim of one of its tries whose answer was lost.
pub(super) async fn a_claim_that_nobody_confirmed_gives_way(world: &World) {
    let scene = world.scene();
    let (_, b) = (scene.worker("a", 8).await, scene.worker("b", 8).await);
    let tried = request("k3x9", &["a"]);
    scene.place(&tried).await;
    world.pass(Duration::from_secs(2)).await;
    let lives = request("k3x9", &["b"]);
    let sessions = [restored(&lives, Duration::from_secs(1))];
    let outcome = scene.store.restore(&scene.service, &b, &sessions).await.unwrap();
    assert_eq!((outcome, scene.holder("k3x9").await), (vec![Restoration::Kept], Some(lives.ticket)));
    assert_eq!(scene.load("b").await, Some(1));
}

pub(super) async fn the_younger_goes(world: &World) {
    let scene = world.scene();
    let (a, b) = (scene.worker("a", 8).await, scene.worker("b", 8).await);
    let here = request("k3x9", &["a"]);
    scene.active(&a, &here).await;
    let there = request("k3x9", &["b"]);
    let again = async |age: u64| {
        let sessions = [restored(&there, Duration::from_secs(age))];
        scene.store.restore(&scene.service, &b, &sessions).await.unwrap()
    };
    world.pass(Duration::from_secs(2)).await;
    assert_eq!(again(1).await, [Restoration::Superseded]);
    assert_eq!((scene.holder("k3x9").await, scene.load("b").await), (Some(here.ticket), Some(0)));
    assert_eq!(again(60).await, [Restoration::Kept]);
    assert_eq!(scene.holder("k3x9").await, Some(there.ticket));
    assert_eq!(scene.asked(&a).await, [end_of(&here, CloseReason::Superseded)]);
    scene.end(&a, here.ticket).await;
    assert_eq!(scene.holder("k3x9").await, Some(there.ticket));
    scene.end(&b, there.ticket).await;
    assert_eq!((scene.load("a").await, scene.load("b").await), (Some(0), Some(0)));
}

/// The store was lost, and its session's worker is not the first that is there again: it was begun anew at that one, and ended as soon as
/// its own worker had written it again.
pub(super) async fn who_says_that_he_was_here_waits_for_workers_that_come_again(world: &World) {
    let scene = world.scene();
    let settling = async || scene.store.settling(&scene.service).await.unwrap();
    assert_eq!(settling().await, Settling::Nobody);
    let again = async |worker: &str| {
        let epoch = scene.store.register(&scene.service, &name(worker), Entry::Again).await.unwrap();
        let owner = Owner { worker: name(worker), epoch };
        scene.renew(&owner, 8).await;
        owner
    };
    let c = scene.worker("c", 8).await;
    assert_eq!(settling().await, Settling::Done, "one that begins has lost nothing");
    let gone = request("gone", &["c"]);
    scene.active(&c, &gone).await;
    scene.end(&c, gone.ticket).await;
    again("a").await;
    let lived = request("k3x9", &["a"]);
    let back = with_token("k3x9", &["a"], lived.token);
    let Claimed::Settling(left) = scene.claim(&back).await else { panic!("it may live") };
    assert!(left <= SETTLING && left > SETTLING / 2, "{left:?}");
    // Who has never been here is served, and whoever is known to have ended.
    scene.place(&request("new", &["a"])).await;
    scene.place(&with_token("gone", &["a"], gone.token)).await;
    world.pass(SETTLING / 2).await;
    let b = again("b").await;
    let Settling::For(left) = settling().await else { panic!("it goes on") };
    assert!(left <= SETTLING / 2, "the second one does not begin it anew: {left:?}");
    let sessions = [restored(&lived, Duration::from_secs(90))];
    assert_eq!(scene.store.restore(&scene.service, &b, &sessions).await.unwrap(), [Restoration::Kept]);
    assert_eq!(scene.place(&back).await.takes_over, Some(lived.ticket), "it is there, and found at once");
    world.pass(SETTLING / 2).await;
    assert_eq!(settling().await, Settling::Done);
    let over = with_token("over", &["a"], lived.token);
    assert!(matches!(scene.claim(&over).await, Claimed::Placed(_)), "nobody has said that it lives");
}

/// A worker was cut off, and a client that had come back elsewhere by its token was ended when that worker was there again.
pub(super) async fn who_has_gone_on_elsewhere_stays_there(world: &World) {
    let scene = world.scene();
    let mut a = scene.worker("a", 8).await;
    let old = Duration::from_secs(90);
    let written = async |owner: &Owner, session: Restored| {
        scene.store.restore(&scene.service, owner, &[session]).await.unwrap()[0]
    };
    // Whether the old one ever wrote, and whether the client has needed two attempts.
    for (has_written, tries) in [(true, 1), (false, 1), (false, 2)] {
        let left = request("k3x9", &["a"]);
        let context = scene.active(&a, &left).await.opened.id;
        if has_written {
            scene.contexts().write(context, object(json!({"cart": 3})), Expected::Anything).await.unwrap();
        }
        world.pass(world.terms.lease).await;
        scene.store.reap(&scene.service).await.unwrap();
        let b = scene.worker("b", 8).await;
        for _ in 1..tries {
            scene.place(&with_token("k3x9", &["b"], left.token)).await;
            world.pass(world.terms.reservation / 2).await;
            scene.renew(&b, 8).await;
            world.pass(world.terms.reservation / 2).await;
            scene.renew(&b, 8).await;
        }
        let gone_on = with_token("k3x9", &["b"], left.token);
        let opened = scene.active(&b, &gone_on).await.opened;
        assert_eq!((opened.resumed, opened.id), (true, context), "wrote: {has_written}, {tries} tries");
        a.epoch = scene.store.register(&scene.service, &a.worker, Entry::New).await.unwrap();
        let mut returned = restored(&left, old);
        returned.context.id = context;
        if !has_written {
            (returned.context.version, returned.context.data) = (Version::default(), serde_json::Map::new());
        }
        assert_eq!(written(&a, returned).await, Restoration::Superseded);
        assert_eq!((scene.holder("k3x9").await, scene.load("a").await), (Some(gone_on.ticket), Some(0)));
        scene.end(&b, gone_on.ticket).await;
        scene.renew(&a, 8).await;
    }
}

/// Where nothing was written, and the session that it went on with is over: a token that was replaced was good again, and the client's own
/// was not.
pub(super) async fn a_worker_that_returns_brings_no_old_token_back(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    let left = request("k3x9", &["a"]);
    let context = scene.active(&a, &left).await.opened.id;
    world.pass(world.terms.lease).await;
    let b = scene.worker("b", 8).await;
    let gone_on = with_token("k3x9", &["b"], left.token);
    assert_eq!(scene.active(&b, &gone_on).await.opened.id, context);
    scene.end(&b, gone_on.ticket).await;
    let key = ContextKey { service: scene.service.clone(), session: id("k3x9") };
    world.pass(TOKEN_GRACE).await;
    scene.renew(&b, 8).await;
    let verify = async |token| scene.contexts().verify(&key, token).await.unwrap();
    assert_eq!([verify(&left.token).await, verify(&gone_on.token).await], [None, Some(context)], "it is over");
    let epoch = scene.store.register(&scene.service, &a.worker, Entry::Again).await.unwrap();
    let mut returned = restored(&left, Duration::from_secs(90));
    returned.context.id = context;
    (returned.context.version, returned.context.data) = (Version::default(), serde_json::Map::new());
    let owner = Owner { epoch, ..a };
    assert_eq!(scene.store.restore(&scene.service, &owner, &[returned]).await.unwrap(), [Restoration::Kept]);
    assert_eq!([verify(&left.token).await, verify(&gone_on.token).await], [None, Some(context)], "it lives again");
}

/// The store has lost all, and both are written again in either order.
pub(super) async fn who_has_gone_on_elsewhere_stays_whoever_is_written_first(world: &World) {
    let scene = world.scene();
    let (a, b) = (scene.worker("a", 8).await, scene.worker("b", 8).await);
    let old = Duration::from_secs(90);
    let written = async |owner: &Owner, session: Restored| {
        scene.store.restore(&scene.service, owner, &[session]).await.unwrap()[0]
    };
    let later = |phase| {
        let mut session = restored(&request("both", &["b"]), Duration::from_secs(5));
        session.phase = phase;
        session
    };
    for (phase, is_elder_first, stays) in [
        (Phase::Active, true, false),
        (Phase::Active, false, false),
        // It has not got there yet.
        (Phase::Connecting, true, true),
        (Phase::Connecting, false, true),
    ] {
        let (elder, mut younger) = (restored(&request("both", &["a"]), old), later(phase));
        younger.context = Kept { id: elder.context.id, issued: next(younger.context.issued), ..younger.context };
        let (one, other) = (elder.ticket, younger.ticket);
        let outcomes = if is_elder_first {
            [written(&a, elder).await, written(&b, younger).await]
        } else {
            let outcome = written(&b, younger).await;
            [written(&a, elder).await, outcome]
        };
        let (holder, goes) = if stays { (one, 1) } else { (other, 0) };
        assert_eq!(scene.holder("both").await, Some(holder), "{phase:?}, the elder first: {is_elder_first}");
        // Who comes second is told so; who was there before is asked to end.
        let is_second = goes == usize::from(is_elder_first);
        assert_eq!(outcomes[goes] == Restoration::Superseded, is_second, "{outcomes:?}");
        assert_eq!(outcomes[1 - goes], Restoration::Kept);
        for (owner, ticket) in [(&a, one), (&b, other)] {
            // One of the two is not there.
            drop(scene.store.end(&scene.service, owner, ticket, CloseReason::Superseded).await);
        }
    }
}

/// What was given out after it.
fn next(issued: Issued) -> Issued {
    Issued { generation: Generation::from_number(1), ..issued }
}
