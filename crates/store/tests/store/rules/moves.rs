use streamfleet_session::CloseReason;
use streamfleet_store::{Claim, ClaimRequest, Claimed, ContextKey, Delivery, Held, Phase, SessionView, TOKEN_GRACE};

use crate::world::{Scene, World, end_of, id, limit, object, request, user, with_token, with_user};

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
    // Who one is does not say which of one's connections is to end.
    check(with_user("x2", &["b"], "ann"), None, "the user alone").await;
    check(with_token("x1", &["b"], anonymous.token), Some(&anonymous), "the token").await;
    let both =
        |who| ClaimRequest { claim: Claim { token: Some(anns.token), user: Some(user(who)) }, ..request("x2", &["b"]) };
    check(both("bob"), None, "the token by another user").await;
    check(both("ann"), Some(&anns), "the token by its user").await;
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
    let claim = Claim { token: Some(old.token), user: Some(user("ann")) };
    let new = ClaimRequest { claim, user_limit: limit(1), ..with_user("k3x9", &["b"], "ann") };
    scene.place(&new).await;
    scene.end(&a, old.ticket).await;
    assert_eq!(scene.holder("k3x9").await, Some(new.ticket));
    let other = ClaimRequest { user_limit: limit(1), ..with_user("other", &["b"], "ann") };
    assert_eq!(scene.claim(&other).await, Claimed::UserLimit, "and counts for its user");
    scene.report(&b, new.ticket, Phase::Active).await;
    scene.end(&b, new.ticket).await;
    assert!(matches!(scene.claim(&other).await, Claimed::Placed(_)));
}

/// Whether each of these tokens is good for the context of an id.
async fn good<const N: usize>(scene: &Scene<'_>, session: &str, claims: [&ClaimRequest; N]) -> [bool; N] {
    let key = ContextKey { service: scene.service.clone(), session: id(session) };
    let mut good = [false; N];
    for (good, claim) in good.iter_mut().zip(claims) {
        *good = scene.contexts().verify(&key, &claim.token).await.unwrap().is_some();
    }
    good
}

/// An answer that is lost costs a client nothing for as long as the session lives that it has.
pub(super) async fn what_was_shown_stays_good_until_its_client_has_arrived(world: &World) {
    let scene = world.scene();
    let (a, b) = (scene.worker("a", 8).await, scene.worker("b", 8).await);
    for (session, delivery, good_once_more) in [("k", Delivery::Known, false), ("s", Delivery::Sent, true)] {
        let old = request(session, &["a"]);
        scene.active(&a, &old).await;
        let mut lost = old.clone();
        // Longer than any grace: it moves when it likes.
        for _ in 0..10 {
            world.pass(TOKEN_GRACE / 10).await;
            scene.renew(&a, 8).await;
            scene.renew(&b, 8).await;
            lost = with_token(session, &["b"], old.token);
            scene.place(&lost).await;
        }
        let new = ClaimRequest { delivery, ..with_token(session, &["b"], old.token) };
        scene.place(&new).await;
        assert_eq!(good(&scene, session, [&old, &lost, &new]).await, [true, false, true]);
        assert_eq!(scene.report(&b, new.ticket, Phase::Connecting).await, Held::Yes);
        assert_eq!(good(&scene, session, [&old, &lost, &new]).await, [true, false, true]);
        for _ in 0..2 {
            assert_eq!(scene.report(&b, new.ticket, Phase::Active).await, Held::Yes, "said twice, it is the same");
        }
        assert_eq!(good(&scene, session, [&old, &lost, &new]).await, [good_once_more, false, true], "{delivery:?}");
    }
}

/// A client that is on its way and comes back to where it was has a new token there, and the other session is not the one that it
/// waits for.
pub(super) async fn a_taker_whose_client_has_gone_back_is_superseded(world: &World) {
    let scene = world.scene();
    let (a, b) = (scene.worker("a", 8).await, scene.worker("b", 8).await);
    for holder_ends_first in [false, true] {
        let session = if holder_ends_first { "e" } else { "l" };
        let old = request(session, &["a"]);
        scene.active(&a, &old).await;
        let new = with_token(session, &["b"], old.token);
        scene.place(&new).await;
        scene.report(&b, new.ticket, Phase::Connecting).await;
        let key = ContextKey { service: scene.service.clone(), session: id(session) };
        let back = scene.contexts().rotate(&key, &old.token).await.unwrap();
        assert!(back.is_some(), "its socket broke, and it is back");
        if holder_ends_first {
            scene.end(&a, old.ticket).await;
        }
        for _ in 0..2 {
            assert_eq!(scene.report(&b, new.ticket, Phase::Active).await, Held::No);
        }
        assert_eq!(scene.asked(&b).await, [end_of(&new, CloseReason::Superseded)]);
        assert_eq!(scene.asked(&a).await, [], "nobody has taken its place");
        let holder = if holder_ends_first { new.ticket } else { old.ticket };
        assert_eq!(scene.holder(session).await, Some(holder));
        scene.store.end(&scene.service, &b, new.ticket, CloseReason::Superseded).await.unwrap();
        assert_eq!(scene.holder(session).await, Some(old.ticket).filter(|_| !holder_ends_first));
        assert_eq!(scene.load("b").await, Some(0));
    }
}
