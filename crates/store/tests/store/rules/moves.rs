use streamfleet_session::CloseReason;
use streamfleet_store::{ClaimRequest, Claimed, Held, Phase, SessionView};

use crate::world::{World, end_of, limit, object, request, user, with_token, with_user};

pub(super) async fn only_its_client_takes_a_session_over(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 32).await;
    scene.worker("b", 32).await;
    let anonymous = request("x1", &["a"]);
    scene.active(&a, &anonymous).await;
    let anns = with_user("x2", &["a"], "ann");
    scene.active(&a, &anns).await;
    let check = async |claim: ClaimRequest, expected: Option<&ClaimRequest>, what: &str| {
        let claimed = scene.claim(&claim).await;
        match expected {
            None => assert!(matches!(claimed, Claimed::Duplicate { .. }), "{what}: {claimed:?}"),
            Some(holder) => {
                let Claimed::Placed(placement) = claimed else { panic!("{what}: {claimed:?}") };
                assert_eq!(placement.takes_over, Some(holder.ticket), "{what}");
                assert!(placement.opened.resumed, "{what}");
                assert_eq!(placement.opened.id, holder.context, "{what}");
            }
        }
        scene.store.release(&scene.service, claim.ticket).await.unwrap();
    };
    check(request("x1", &["b"]), None, "the id alone").await;
    check(with_token("x1", &["b"], anns.token), None, "another's token").await;
    check(with_user("x1", &["b"], "ann"), None, "a user where there was none").await;
    let named = ClaimRequest { user: Some(user("ann")), ..request("x2", &["b"]) };
    check(named, None, "a user who merely says so").await;
    check(with_user("x2", &["b"], "bob"), None, "another user").await;
    check(with_token("x2", &["b"], anns.token), None, "an overheard token").await;
    check(with_token("x1", &["b"], anonymous.token), Some(&anonymous), "the token").await;
    check(with_user("x2", &["b"], "ann"), Some(&anns), "the user").await;
}

pub(super) async fn a_taker_that_connects_is_the_session(world: &World) {
    let scene = world.scene();
    let (a, b) = (scene.worker("a", 8).await, scene.worker("b", 8).await);
    let limits = |claim: ClaimRequest| ClaimRequest {
        user: Some(user("ann")),
        service_limit: limit(1),
        user_limit: limit(1),
        ..claim
    };
    let old = limits(request("k3x9", &["a"]));
    let opened = scene.active(&a, &old).await.opened;
    let document = object(serde_json::json!({"cart": 3}));
    let expected = streamfleet_store::Expected::Anything;
    scene.contexts().write(opened.id, document.clone(), expected).await.unwrap();

    let new = limits(with_token("k3x9", &["b"], old.token));
    let placement = scene.place(&new).await;
    assert_eq!(placement.opened.document.data, document, "its context comes with the claim");
    assert_eq!(scene.report(&b, new.ticket, Phase::Connecting).await, Held::Yes);
    assert_eq!(scene.holder("k3x9").await, Some(old.ticket), "until the new one has connected");
    assert_eq!(scene.asked(&a).await, []);
    assert_eq!(scene.report(&b, new.ticket, Phase::Active).await, Held::Yes);
    assert_eq!(scene.holder("k3x9").await, Some(new.ticket));
    assert_eq!(scene.asked(&a).await, [end_of(&old, CloseReason::Moved)]);
    assert!(matches!(scene.claim(&limits(request("other", &["a"]))).await, Claimed::ServiceLimit));
    scene.store.end(&scene.service, &a, old.ticket, CloseReason::Moved).await.unwrap();
    assert_eq!(scene.holder("k3x9").await, Some(new.ticket), "the old end does not free the id");
    assert_eq!(scene.asked(&a).await, []);
    assert!(matches!(scene.claim(&limits(request("other", &["a"]))).await, Claimed::ServiceLimit));
    scene.end(&b, new.ticket).await;
    assert!(matches!(scene.claim(&limits(request("other", &["a"]))).await, Claimed::Placed(_)), "counted once");
    assert_eq!((scene.load("a").await, scene.load("b").await), (Some(1), Some(0)));
}

pub(super) async fn a_taker_that_fails_leaves_it(world: &World) {
    let scene = world.scene();
    let (a, b) = (scene.worker("a", 8).await, scene.worker("b", 8).await);
    let old = request("k3x9", &["a"]);
    scene.active(&a, &old).await;
    let new = with_token("k3x9", &["b"], old.token);
    scene.place(&new).await;
    scene.report(&b, new.ticket, Phase::Connecting).await;
    scene.store.end(&scene.service, &b, new.ticket, CloseReason::ConnectTimeout).await.unwrap();
    assert_eq!(scene.holder("k3x9").await, Some(old.ticket));
    assert_eq!(scene.asked(&a).await, []);
    assert_eq!((scene.load("a").await, scene.load("b").await), (Some(1), Some(0)));
    // The client has the taker's token now.
    assert!(matches!(scene.claim(&with_token("k3x9", &["b"], new.token)).await, Claimed::Placed(_)));
}

pub(super) async fn a_second_try_replaces_the_first(world: &World) {
    let scene = world.scene();
    let (a, b) = (scene.worker("a", 8).await, scene.worker("b", 8).await);
    let old = request("k3x9", &["a"]);
    scene.active(&a, &old).await;
    // One that nobody has confirmed goes at once, one that has been is asked to.
    let first = with_token("k3x9", &["b"], old.token);
    scene.place(&first).await;
    let second = with_token("k3x9", &["b"], first.token);
    scene.place(&second).await;
    assert_eq!(scene.load("b").await, Some(1));
    assert_eq!(scene.report(&b, first.ticket, Phase::Connecting).await, Held::No);
    assert_eq!(scene.report(&b, second.ticket, Phase::Connecting).await, Held::Yes);
    let third = with_token("k3x9", &["b"], second.token);
    scene.place(&third).await;
    assert_eq!(scene.asked(&b).await, [end_of(&second, CloseReason::Superseded)]);
    // Even if it connects: it is nobody's successor any more.
    scene.report(&b, second.ticket, Phase::Active).await;
    assert_eq!(scene.holder("k3x9").await, Some(old.ticket));
    scene.report(&b, third.ticket, Phase::Active).await;
    assert_eq!(scene.holder("k3x9").await, Some(third.ticket));
    scene.end(&b, second.ticket).await;
    scene.end(&b, third.ticket).await;
    scene.end(&a, old.ticket).await;
    assert_eq!(scene.view("k3x9").await, Some(SessionView::Over(CloseReason::ClientClosed)));
    assert_eq!((scene.load("a").await, scene.load("b").await), (Some(0), Some(0)));
}

pub(super) async fn a_holder_that_ends_leaves_the_id_to_its_taker(world: &World) {
    let scene = world.scene();
    let (a, b) = (scene.worker("a", 8).await, scene.worker("b", 8).await);
    let old = with_user("k3x9", &["a"], "ann");
    scene.active(&a, &old).await;
    let new = ClaimRequest { user_limit: limit(1), ..with_user("k3x9", &["b"], "ann") };
    scene.place(&new).await;
    scene.end(&a, old.ticket).await;
    assert_eq!(scene.holder("k3x9").await, Some(new.ticket));
    let other = ClaimRequest { user_limit: limit(1), ..with_user("other", &["b"], "ann") };
    assert_eq!(scene.claim(&other).await, Claimed::UserLimit, "and counts for its user");
    scene.report(&b, new.ticket, Phase::Active).await;
    scene.end(&b, new.ticket).await;
    assert!(matches!(scene.claim(&other).await, Claimed::Placed(_)));
}
