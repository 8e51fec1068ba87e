use std::time::Duration;

use streamfleet_session::CloseReason;
use streamfleet_store::{Account, ClaimRequest, Claimed, Gate, Held, Phase, PinValue, Quota, Reach, SessionView};

use crate::world::{World, limit, name, request, user};

pub(super) async fn one_id_has_one_session(world: &World) {
    let scene = world.scene();
    let (a, b) = (scene.worker("a", 8).await, scene.worker("b", 8).await);
    let first = request("k3x9", &["a"]);
    let placement = scene.place(&first).await;
    assert_eq!((placement.at.worker, placement.epoch, placement.takes_over), (a.worker.clone(), a.epoch, None));
    let at = Reach { worker: name("a"), http: "10.0.0.7:8081".to_owned() };
    let refused = Claimed::Duplicate { at };
    for phase in [None, Some(Phase::Connecting), Some(Phase::Active), Some(Phase::Ending)] {
        if let Some(phase) = phase {
            assert_eq!(scene.report(&a, first.ticket, phase).await, Held::Yes);
        }
        assert_eq!(scene.claim(&request("k3x9", &["b"])).await, refused, "{phase:?}");
        // Ids are told apart by case.
        let other = request("K3X9", &["b"]);
        scene.place(&other).await;
        scene.store.release(&scene.service, other.ticket).await.unwrap();
    }
    assert_eq!(scene.report(&b, first.ticket, Phase::Active).await, Held::No, "it is not b's");
    scene.end(&b, first.ticket).await;
    assert_eq!(scene.holder("k3x9").await, Some(first.ticket), "nor b's to end");
    scene.end(&a, first.ticket).await;
    scene.end(&a, first.ticket).await;
    assert_eq!(scene.view("k3x9").await, Some(SessionView::Over(CloseReason::ClientClosed)));
    scene.place(&request("k3x9", &["b"])).await;
    assert_eq!((scene.load("a").await, scene.load("b").await), (Some(0), Some(1)));
}

pub(super) async fn limits_hold(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    let ann = |session: &str| ClaimRequest {
        user: Some(user("ann")),
        service_limit: limit(3),
        user_limit: limit(2),
        ..request(session, &["a"])
    };
    let bob = |session: &str| ClaimRequest { user: Some(user("bob")), ..ann(session) };
    let first = ann("1");
    scene.active(&a, &first).await;
    scene.place(&ann("2")).await;
    assert_eq!(scene.claim(&ann("3")).await, Claimed::UserLimit);
    // Nobody's name is the beginning of another's.
    scene.place(&ClaimRequest { user: Some(user("an")), ..ann("3") }).await;
    assert_eq!(scene.claim(&bob("4")).await, Claimed::ServiceLimit);
    assert!(matches!(scene.claim(&bob("1")).await, Claimed::Duplicate { .. }), "the id is looked at first");
    scene.end(&a, first.ticket).await;
    scene.place(&ann("5")).await;
    assert_eq!(scene.claim(&ann("6")).await, Claimed::ServiceLimit, "the service's limit comes before the user's");
    assert_eq!(scene.load("a").await, Some(3), "a refused claim holds nothing");
}

/// An account may claim so often in a minute, wherever it does, and whatever becomes of its claims.
pub(super) async fn quotas_hold(world: &World) {
    let scene = world.scene();
    scene.worker("a", 8).await;
    let address = |last: u8| Account::Address([192, 0, 2, last].into());
    let quota = |of: Account, per_minute: u32| Quota { of, per_minute: limit(per_minute).unwrap() };
    let from = |session: &str, last: u8, who: &str| ClaimRequest {
        quotas: vec![quota(address(last), 3), quota(Account::User(user(who)), 2)],
        ..request(session, &["a"])
    };
    let waits = async |claim: &ClaimRequest| match scene.claim(claim).await {
        Claimed::RateLimited(wait) => wait,
        other => panic!("{other:?}"),
    };
    let first = from("1", 1, "ann");
    scene.place(&first).await;
    scene.claim(&first).await;
    assert!(
        matches!(scene.claim(&from("1", 1, "ann")).await, Claimed::Duplicate { .. }),
        "the same again was not counted"
    );
    let wait = waits(&from("2", 2, "ann")).await;
    assert!(wait > Duration::from_secs(25) && wait <= Duration::from_secs(30), "{wait:?}");
    scene.place(&from("3", 1, "bob")).await;
    waits(&from("4", 1, "cid")).await;
    // Who was refused has used up nothing of another account.
    for n in 0..2 {
        scene.place(&from(&format!("c{n}"), 3, "cid")).await;
    }
    scene.place(&from("2", 2, "dan")).await;
    world.pass(Duration::from_secs(31)).await;
    // The worker has not renewed meanwhile.
    scene.worker("a", 8).await;
    scene.place(&from("5", 2, "ann")).await;
    waits(&from("6", 2, "ann")).await;
}

pub(super) async fn the_first_with_room_is_taken(world: &World) {
    let scene = world.scene();
    scene.worker("a", 1).await;
    scene.worker("b", 1).await;
    scene.worker("c", 1).await;
    scene.store.ask_gate(&scene.service, &name("b"), Gate::Draining).await.unwrap();
    let order = ["gone", "a", "b", "c"];
    assert_eq!(scene.place(&request("1", &order)).await.at.worker, name("a"));
    assert_eq!(scene.place(&request("2", &order)).await.at.worker, name("c"));
    assert_eq!(scene.claim(&request("3", &order)).await, Claimed::NoCapacity { pinned: None });
    assert_eq!(scene.claim(&request("4", &[])).await, Claimed::NoCapacity { pinned: None });
    assert_eq!(scene.view("3").await, None);
}

pub(super) async fn pins_bind(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 2).await;
    let b = scene.worker("b", 8).await;
    let room = |session: &str, order: &[&str]| {
        let pin: PinValue = "room 7".parse().unwrap();
        ClaimRequest { pin: Some(pin), ..request(session, order) }
    };
    let (first, second) = (room("1", &["a"]), room("2", &["b", "a"]));
    scene.active(&a, &first).await;
    assert_eq!(scene.place(&second).await.at.worker, name("a"), "against the order of the list");
    let full = Claimed::NoCapacity { pinned: Some(name("a")) };
    assert_eq!(scene.claim(&room("3", &["b"])).await, full);
    let longer = ClaimRequest { pin: Some("room 70".parse().unwrap()), ..request("4", &["b"]) };
    assert_eq!(scene.place(&longer).await.at.worker, name("b"), "another value");
    scene.end(&a, first.ticket).await;
    scene.store.ask_gate(&scene.service, &name("a"), Gate::Draining).await.unwrap();
    assert_eq!(scene.claim(&room("3", &["b"])).await, full, "bound while one of the value lives");
    assert_eq!(scene.report(&a, second.ticket, Phase::Active).await, Held::Yes);
    scene.end(&a, second.ticket).await;
    let third = room("3", &["b"]);
    assert_eq!(scene.active(&b, &third).await.at.worker, name("b"));
}

pub(super) async fn reservations_run_out(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 1).await;
    let one = ClaimRequest {
        user: Some(user("ann")),
        service_limit: limit(1),
        user_limit: limit(1),
        ..request("k3x9", &["a"])
    };
    scene.place(&one).await;
    let steps = 3;
    for _ in 0..steps {
        world.pass(world.terms.reservation / steps - Duration::from_millis(300)).await;
        scene.renew(&a, 1).await;
    }
    let again = ClaimRequest { ticket: request("x", &[]).ticket, ..one.clone() };
    assert!(matches!(scene.claim(&again).await, Claimed::Duplicate { .. }), "not yet");
    world.pass(Duration::from_secs(1)).await;
    scene.place(&again).await;
    assert_eq!(scene.report(&a, one.ticket, Phase::Connecting).await, Held::No, "too late");
    assert_eq!(scene.report(&a, again.ticket, Phase::Connecting).await, Held::Yes);
    for _ in 0..steps {
        world.pass(world.terms.reservation / 2).await;
        scene.renew(&a, 1).await;
    }
    assert_eq!(scene.holder("k3x9").await, Some(again.ticket), "a confirmed one does not run out");
}

pub(super) async fn a_claim_is_replayed(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    let claim = ClaimRequest { service_limit: limit(1), ..request("k3x9", &["a"]) };
    let first = scene.claim(&claim).await;
    assert_eq!(scene.claim(&claim).await, first, "the answer was lost");
    assert_eq!(scene.load("a").await, Some(1));
    scene.report(&a, claim.ticket, Phase::Active).await;
    assert_eq!(scene.claim(&claim).await, first);
    scene.end(&a, claim.ticket).await;
    assert_eq!(scene.load("a").await, Some(0));
}

pub(super) async fn a_released_claim_is_free(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 1).await;
    let claim = request("k3x9", &["a"]);
    scene.place(&claim).await;
    scene.store.release(&scene.service, claim.ticket).await.unwrap();
    let next = request("k3x9", &["a"]);
    scene.active(&a, &next).await;
    scene.store.release(&scene.service, next.ticket).await.unwrap();
    assert_eq!(scene.holder("k3x9").await, Some(next.ticket), "a confirmed one is its worker's to end");
}
