use std::time::Duration;

use serde_json::{Map, Value, json};
use streamfleet_session::ResumeToken;
use streamfleet_store::{
    Bounds, Claim, ClaimRequest, ContextKey, Delivery, Expected, Generation, InvalidData, Issued, Opened, Sharing,
    TOKEN_GRACE, Version, WriteError,
};

use crate::world::{Scene, World, id, object, request, user};

fn key(scene: &Scene<'_>, session: &str) -> ContextKey {
    ContextKey { service: scene.service.clone(), session: id(session) }
}

fn note(text: &str) -> Map<String, Value> {
    object(json!({ "note": text }))
}

fn with(token: ResumeToken) -> Claim {
    Claim { token: Some(token), user: None }
}

async fn rotate(scene: &Scene<'_>, session: &str, token: &ResumeToken) -> Option<Issued> {
    scene.contexts().rotate(&key(scene, session), token).await.unwrap()
}

async fn share(scene: &Scene<'_>, session: &str, token: ResumeToken, who: Option<&str>) -> Option<Opened> {
    let claim = Claim { token: Some(token), user: who.map(user) };
    match scene.contexts().share(&key(scene, session), &claim).await.unwrap() {
        Sharing::Opened(opened) => Some(opened),
        Sharing::Refused | Sharing::Nobody => None,
    }
}

async fn open(scene: &Scene<'_>, session: &str, claim: &Claim) -> Opened {
    scene.contexts().open(&key(scene, session), claim).await.unwrap()
}

/// A session that wrote a note and ended.
async fn past(scene: &Scene<'_>, session: &str, claim: &Claim, text: &str) -> Opened {
    let opened = open(scene, session, claim).await;
    scene.contexts().write(opened.id, note(text), Expected::Anything).await.unwrap();
    scene.contexts().close(opened.id).await.unwrap();
    opened
}

pub(super) async fn only_the_token_or_the_verified_user_resumes(world: &World) {
    let scene = world.scene();
    let nobody = Claim::default;
    let by = |name: &str| Claim { token: None, user: Some(user(name)) };
    let mut number = 0;
    let mut check = async |first: Claim, shows_token: bool, who: Option<&str>, expected: Option<&str>| {
        number += 1;
        let session = format!("s{number}");
        let before = past(&scene, &session, &first, "private").await;
        let claim = Claim { token: shows_token.then_some(before.token), user: who.map(user) };
        let opened = open(&scene, &session, &claim).await;
        assert_eq!(opened.resumed, expected.is_some(), "{first:?}, {shows_token}, {who:?}");
        assert_eq!(opened.document.data.get("note").and_then(Value::as_str), expected);
        assert!(opened.token != before.token, "the token is replaced either way");
    };
    check(nobody(), false, None, None).await;
    check(nobody(), true, None, Some("private")).await;
    check(nobody(), false, Some("ann"), None).await;
    check(nobody(), true, Some("ann"), Some("private")).await;
    check(by("ann"), false, None, None).await;
    check(by("ann"), false, Some("bob"), None).await;
    check(by("ann"), false, Some("ann"), Some("private")).await;
    check(by("ann"), true, Some("ann"), Some("private")).await;
    check(by("ann"), true, None, None).await;
    check(by("ann"), true, Some("bob"), None).await;
}

pub(super) async fn tokens_are_good_once(world: &World) {
    let scene = world.scene();
    let contexts = scene.contexts();
    let first = past(&scene, "a", &Claim::default(), "private").await;
    assert!(!open(&scene, "b", &with(first.token)).await.resumed, "another id");
    let second = open(&scene, "a", &with(first.token)).await;
    assert!(second.resumed);
    assert_eq!(contexts.find(&key(&scene, "a")).await.unwrap(), Some(second.id));
    let third = rotate(&scene, "a", &second.token).await.expect("it is the session's");
    assert!(open(&scene, "a", &with(third.token)).await.resumed, "its successor");
    let stranger = past(&scene, "c", &Claim::default(), "another").await;
    assert_eq!(rotate(&scene, "c", &stranger.token).await, None, "nobody lives there");
    assert_eq!(contexts.find(&key(&scene, "c")).await.unwrap(), Some(stranger.id), "the last that did");
    assert_eq!(contexts.find(&key(&scene, "d")).await.unwrap(), None);
}

pub(super) async fn a_token_is_good_once_more_while_its_successor_may_be_lost(world: &World) {
    let scene = world.scene();
    let contexts = scene.contexts();
    let key = key(&scene, "a");
    let past = past(&scene, "a", &Claim::default(), "private").await;
    let lost = open(&scene, "a", &with(past.token)).await;
    world.pass(TOKEN_GRACE - Duration::from_secs(1)).await;
    assert_eq!(contexts.verify(&key, &past.token).await.unwrap(), Some(past.id), "looking uses nothing up");
    let again = open(&scene, "a", &with(past.token)).await;
    assert!(again.resumed, "the answer to the first was lost");
    assert!(!open(&scene, "b", &with(again.token)).await.resumed);
    for void in [past.token, lost.token] {
        assert_eq!(contexts.verify(&key, &void).await.unwrap(), None, "taken twice, or never shown");
    }
    let next = rotate(&scene, "a", &again.token).await.expect("it is good").token;
    let next = rotate(&scene, "a", &next).await.expect("its successor is too").token;
    assert_eq!(rotate(&scene, "a", &again.token).await, None, "its successor was shown");
    rotate(&scene, "a", &next).await.expect("it is good");
    world.pass(TOKEN_GRACE).await;
    assert_eq!(contexts.verify(&key, &next).await.unwrap(), None, "too late");
}

pub(super) async fn tokens_are_numbered_in_their_order(world: &World) {
    let scene = world.scene();
    let first = past(&scene, "a", &Claim::default(), "private").await;
    let second = open(&scene, "a", &with(first.token)).await;
    let third = rotate(&scene, "a", &second.token).await.expect("it is good");
    let fourth = share(&scene, "a", third.token, None).await.expect("it is good");
    let fifth = open(&scene, "a", &with(fourth.token)).await;
    let order = [first.generation, second.generation, third.generation, fourth.generation, fifth.generation];
    assert!(order.is_sorted_by(|one, next| one < next), "{order:?}");
    assert_eq!(open(&scene, "b", &Claim::default()).await.generation, Generation::default());
}

pub(super) async fn a_client_that_moves_keeps_its_token_until_it_has_arrived(world: &World) {
    let scene = world.scene();
    let contexts = scene.contexts();
    let of_a = key(&scene, "a");
    let first = open(&scene, "a", &Claim::default()).await;
    assert_eq!(contexts.share(&of_a, &Claim::default()).await.unwrap(), Sharing::Refused, "the id alone");
    let lost = share(&scene, "a", first.token, None).await.expect("it is the session's");
    assert_eq!((lost.id, lost.resumed), (first.id, true));
    let given = share(&scene, "a", first.token, None).await.expect("the answer was lost");
    assert_eq!(contexts.share(&of_a, &with(lost.token)).await.unwrap(), Sharing::Refused, "what was lost");
    for say in ["once", "twice"] {
        assert!(contexts.confirm(first.id, &given.token, Delivery::Known).await.unwrap(), "said {say}");
    }
    for void in [first.token, lost.token] {
        assert_eq!(contexts.verify(&of_a, &void).await.unwrap(), None);
        assert!(!contexts.confirm(first.id, &void, Delivery::Known).await.unwrap());
    }
    // Three held it: the first, and two on their way.
    for _ in 0..2 {
        contexts.close(first.id).await.unwrap();
    }
    assert!(share(&scene, "a", given.token, None).await.is_some());
    for _ in 0..2 {
        contexts.close(first.id).await.unwrap();
    }
    assert_eq!(contexts.share(&of_a, &with(given.token)).await.unwrap(), Sharing::Nobody);
    let anns = open(&scene, "a", &Claim { token: None, user: Some(user("ann")) }).await;
    assert_eq!(share(&scene, "a", anns.token, None).await, None, "a token is no way around an identity");
    let alone = Claim { token: None, user: Some(user("ann")) };
    assert_eq!(contexts.share(&of_a, &alone).await.unwrap(), Sharing::Refused, "nor an identity around a token");
    let moved = share(&scene, "a", anns.token, Some("ann")).await;
    assert_eq!(moved.map(|opened| opened.id), Some(anns.id));
}

/// Which tokens are good after a client has moved, by how far its new one is.
pub(super) async fn what_was_shown_is_good_once_more_where_what_was_given_may_be_lost(world: &World) {
    let scene = world.scene();
    let contexts = scene.contexts();
    let second = Duration::from_secs(1);
    for (session, delivery, good_once_more) in [("k", Delivery::Known, false), ("s", Delivery::Sent, true)] {
        let first = open(&scene, session, &Claim::default()).await;
        let given = share(&scene, session, first.token, None).await.expect("it is the session's");
        assert!(contexts.confirm(first.id, &given.token, delivery).await.unwrap());
        let good = async |token| contexts.verify(&key(&scene, session), token).await.unwrap().is_some();
        world.pass(TOKEN_GRACE - second).await;
        assert_eq!([good(&first.token).await, good(&given.token).await], [good_once_more, true], "{delivery:?}");
        world.pass(second).await;
        assert_eq!([good(&first.token).await, good(&given.token).await], [false, true], "{delivery:?}");
    }
}

/// Whoever shows a replaced token again, or has overheard it, takes nothing from the client, and the token lives no longer for it.
pub(super) async fn a_replaced_token_takes_nothing_from_its_successor(world: &World) {
    let scene = world.scene();
    let contexts = scene.contexts();
    let shown = open(&scene, "a", &Claim::default()).await;
    let current = rotate(&scene, "a", &shown.token).await.expect("it is good").token;
    let second = Duration::from_secs(1);
    world.pass(TOKEN_GRACE - second).await;
    let offered = share(&scene, "a", shown.token, None).await.expect("in its time").token;
    world.pass(second).await;
    let mut good = Vec::new();
    for token in [&shown.token, &current, &offered] {
        good.push(contexts.verify(&key(&scene, "a"), token).await.unwrap().is_some());
    }
    assert_eq!(good, [false, true, true]);
    // The client shows what it has: what the other was given is void.
    let next = share(&scene, "a", current, None).await.expect("it is the client's").token;
    assert!(!contexts.confirm(shown.id, &offered, Delivery::Known).await.unwrap());
    assert!(contexts.confirm(shown.id, &next, Delivery::Known).await.unwrap());
}

pub(super) async fn documents_have_versions(world: &World) {
    let scene = world.scene();
    let contexts = scene.contexts();
    let opened = open(&scene, "a", &Claim::default()).await;
    assert_eq!(contexts.read(opened.id).await.unwrap().map(|document| document.version), Some(Version(0)));
    let write = async |text: &str, expected| contexts.write(opened.id, note(text), expected).await;
    assert_eq!(write("one", Expected::Version(Version(0))).await, Ok(Version(1)));
    let conflict = WriteError::Conflict { current: Version(1) };
    assert_eq!(write("two", Expected::Version(Version(0))).await, Err(conflict));
    assert_eq!(write("three", Expected::Anything).await, Ok(Version(2)));
    let odd = object(json!({"empty": [], "object": {}, "big": u64::MAX, "small": 1e-300, "text": "\u{0}é\u{1f600}"}));
    assert_eq!(contexts.write(opened.id, odd.clone(), Expected::Anything).await, Ok(Version(3)));
    let document = contexts.read(opened.id).await.unwrap().expect("it is open");
    assert_eq!((document.data, document.version), (odd, Version(3)), "what was written is what is read");
    let large = object(json!({"k": "x".repeat(64 * 1024)}));
    let refused = contexts.write(opened.id, large, Expected::Anything).await;
    assert_eq!(refused, Err(WriteError::Invalid(InvalidData::TooLarge)));
    let gone = streamfleet_store::ContextId::from_random(7);
    assert_eq!(contexts.read(gone).await.unwrap(), None);
    assert_eq!(contexts.write(gone, note("x"), Expected::Anything).await, Err(WriteError::Gone));
}

pub(super) async fn closed_contexts_are_forgotten(world: &World) {
    let scene = world.scene();
    let contexts = scene.contexts();
    let bounds = Bounds::default();
    let empty = open(&scene, "e", &Claim::default()).await;
    contexts.close(empty.id).await.unwrap();
    assert_eq!(contexts.read(empty.id).await.unwrap(), None, "nothing was written");
    assert_eq!(contexts.verify(&key(&scene, "e"), &empty.token).await.unwrap(), Some(empty.id), "its client is known");
    let brief = ClaimRequest { retention: Duration::from_secs(5), ..request("b", &["w"]) };
    let worker = scene.worker("w", 1).await;
    scene.active(&worker, &brief).await;
    scene.end(&worker, brief.ticket).await;
    let known = async || contexts.verify(&key(&scene, "b"), &brief.token).await.unwrap();
    assert_eq!(known().await, Some(brief.context));
    world.pass(Duration::from_secs(5)).await;
    assert_eq!(known().await, None, "as long as its service keeps contexts");
    let mut all = Vec::new();
    for number in 0..=bounds.closed_per_key {
        all.push(past(&scene, "a", &Claim::default(), &number.to_string()).await.id);
        world.pass(Duration::from_millis(10)).await;
    }
    let open_too = open(&scene, "a", &Claim::default()).await.id;
    contexts.write(open_too, note("open"), Expected::Anything).await.unwrap();
    assert_eq!(contexts.read(all[0]).await.unwrap(), None, "one more than are kept of an id");
    for id in &all[1..] {
        assert!(contexts.read(*id).await.unwrap().is_some());
    }
    world.pass(bounds.retention).await;
    for id in all {
        assert_eq!(contexts.read(id).await.unwrap(), None, "their time is over");
    }
    assert!(contexts.read(open_too).await.unwrap().is_some());
}

/// They are forgotten a few at a call, and known to none of them.
pub(super) async fn many_that_expire_together_are_gone_at_once(world: &World) {
    let scene = world.scene();
    let contexts = scene.contexts();
    let bounds = Bounds::default();
    let mut all = Vec::new();
    for number in 0..bounds.expired_at_once + 4 {
        let session = format!("s{number}");
        all.push((past(&scene, &session, &Claim::default(), "private").await, session));
    }
    world.pass(bounds.retention).await;
    let (last, session) = all.pop().unwrap();
    let key = key(&scene, &session);
    assert_eq!(contexts.verify(&key, &last.token).await.unwrap(), None);
    assert_eq!(contexts.read(last.id).await.unwrap(), None);
    assert_eq!(contexts.write(last.id, note("x"), Expected::Anything).await, Err(WriteError::Gone));
    assert!(!open(&scene, &session, &with(last.token)).await.resumed);
}

pub(super) async fn a_context_is_open_while_anybody_holds_it(world: &World) {
    let scene = world.scene();
    let contexts = scene.contexts();
    let first = open(&scene, "a", &Claim::default()).await;
    let second = open(&scene, "a", &Claim { token: Some(first.token), user: None }).await;
    assert_eq!(second.id, first.id);
    contexts.close(first.id).await.unwrap();
    assert!(contexts.read(first.id).await.unwrap().is_some(), "the second holds it");
    contexts.close(first.id).await.unwrap();
    contexts.close(first.id).await.unwrap();
    assert_eq!(contexts.read(first.id).await.unwrap(), None);
}
