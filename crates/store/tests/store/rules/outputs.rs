use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use streamfleet_session::CloseReason;
use streamfleet_store::{
    Appended, Batch, ClaimRequest, MAX_OUTPUTS, MAX_OUTPUTS_BYTES, MAX_READ, Owner, Phase, Read, Seen, SessionView,
    Ticket, Topic, Whose,
};

use crate::world::{Scene, World, id, object, request, user, with_token};

/// Of the first history, and of one that follows it.
const MARK: u32 = 0x0bad_cafe;
const NEXT: u32 = 7;

fn seen(mark: u32, number: u64) -> Option<Seen> {
    Some(Seen { mark, number })
}

fn texts(texts: &[&str]) -> Vec<Arc<str>> {
    texts.iter().map(|text| Arc::from(*text)).collect()
}

async fn append(scene: &Scene<'_>, owner: &Owner, ticket: Ticket, first: u64, texts: &[Arc<str>]) -> Appended {
    let batch = Batch { mark: MARK, earlier: &[], first, oldest: 1, texts };
    scene.store.append(&scene.service, owner, ticket, &batch).await.unwrap()
}

async fn read(scene: &Scene<'_>, seen: Option<Seen>) -> Option<Read> {
    scene.store.outputs(&scene.service, Whose::Session(&id("k3x9")), seen).await.unwrap()
}

/// Numbers and texts after what was seen.
async fn after(scene: &Scene<'_>, seen: Option<Seen>) -> Vec<(u64, String)> {
    read(scene, seen).await.unwrap().outputs
}

fn text(number: u64, text: &str) -> (u64, String) {
    (number, text.to_owned())
}

pub(super) async fn outputs_are_numbered_and_bounded(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    let claim = request("k3x9", &["a"]);
    scene.active(&a, &claim).await;
    let never = scene.store.outputs(&scene.service, Whose::Session(&id("never")), None).await.unwrap();
    assert_eq!(never, None);
    let nothing = read(&scene, None).await.unwrap();
    assert_eq!((nothing.context, nothing.mark, nothing.outputs.len(), nothing.over), (claim.context, None, 0, false));
    let mut reader = scene.store.listen(&scene.service, Topic::Session(id("k3x9")));
    reader.woken().await;
    let add = async |first: u64, of: &[&str]| append(&scene, &a, claim.ticket, first, &texts(of)).await;
    assert_eq!(add(1, &[r#""ä""#, "2"]).await, Appended::Upto(2));
    tokio::time::timeout(Duration::from_secs(5), reader.woken()).await.expect("readers are woken");
    assert_eq!(after(&scene, None).await, [text(1, r#""ä""#), text(2, "2")]);
    assert_eq!(after(&scene, seen(MARK, 1)).await, [text(2, "2")]);
    assert_eq!(after(&scene, seen(MARK, 2)).await, []);
    assert_eq!(after(&scene, seen(MARK, u64::MAX)).await, []);
    assert_eq!(after(&scene, seen(NEXT, 1)).await.len(), 2, "what another history has numbered says nothing");
    // Repeated in part, as after an answer that was lost.
    assert_eq!(add(2, &["2", "3"]).await, Appended::Upto(3));
    assert_eq!(add(1, &["1"]).await, Appended::Upto(3));
    assert_eq!(after(&scene, seen(MARK, 1)).await, [text(2, "2"), text(3, "3")]);
    for number in 4..=MAX_OUTPUTS as u64 + 10 {
        assert_eq!(add(number, &[&number.to_string()]).await, Appended::Upto(number));
    }
    let first = after(&scene, None).await;
    assert_eq!((first.len(), &first[0]), (MAX_READ, &text(11, "11")));
    assert_eq!(after(&scene, seen(MARK, 11)).await[0], text(12, "12"));
    // The newest is kept, however large.
    let large = format!("\"{}\"", "x".repeat(MAX_OUTPUTS_BYTES - 2));
    assert_eq!(add(267, &[&large]).await, Appended::Upto(267));
    assert_eq!(after(&scene, None).await, [(267, large)]);
}

pub(super) async fn outputs_that_a_store_has_missed_are_asked_for(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    let claim = request("k3x9", &["a"]);
    scene.active(&a, &claim).await;
    let add = async |first: u64, oldest: u64, of: &[&str]| {
        let texts = texts(of);
        let batch = Batch { mark: MARK, earlier: &[], first, oldest, texts: &texts };
        scene.store.append(&scene.service, &a, claim.ticket, &batch).await.unwrap()
    };
    assert_eq!(add(3, 1, &["3"]).await, Appended::Missing(0));
    assert_eq!(read(&scene, None).await.unwrap().mark, None, "nothing is written");
    assert_eq!(add(1, 1, &["1", "2", "3"]).await, Appended::Upto(3));
    assert_eq!(add(6, 4, &["6"]).await, Appended::Missing(3));
    // Nobody has 4 and 5 any more.
    assert_eq!(add(6, 6, &["6"]).await, Appended::Upto(6));
    assert_eq!(after(&scene, seen(MARK, 2)).await, [text(6, "6")]);
}

pub(super) async fn outputs_outlive_their_session(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    let claim = request("k3x9", &["a"]);
    scene.active(&a, &claim).await;
    append(&scene, &a, claim.ticket, 1, &texts(&["1", "2"])).await;
    scene.end(&a, claim.ticket).await;
    assert_eq!(append(&scene, &a, claim.ticket, 3, &texts(&["3"])).await, Appended::Over);
    let rest = read(&scene, seen(MARK, 1)).await.unwrap();
    assert_eq!((rest.outputs, rest.over), (vec![text(2, "2")], true));
    let nothing = read(&scene, seen(MARK, 2)).await.unwrap();
    assert_eq!((nothing.outputs, nothing.over), (vec![], true));
    assert_eq!(scene.view("k3x9").await, Some(SessionView::Over(CloseReason::ClientClosed)));
    world.pass(world.terms.afterlife + Duration::from_millis(1)).await;
    assert_eq!((read(&scene, None).await, scene.view("k3x9").await), (None, None));
    let kept = scene.store.outputs(&scene.service, Whose::Context(claim.context), None).await.unwrap();
    assert_eq!(kept, None);
}

/// Whether its context goes back to the user or to the token alone has nothing to do with it.
pub(super) async fn outputs_are_their_verified_users(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    let whose = async |name: &str| {
        let read = scene.store.outputs(&scene.service, Whose::Session(&id(name)), None).await.unwrap();
        read.unwrap().user
    };
    for (name, verified) in [("mine", true), ("said", false)] {
        let claim = ClaimRequest { user: Some(user("ann")), ..request(name, &["a"]) };
        scene.place(&claim).await;
        assert_eq!(whose(name).await, Some(user("ann")), "nobody has said yet whether it is");
        let detail = object(json!({ "verified": verified }));
        scene.store.report(&scene.service, &a, claim.ticket, Phase::Active, &detail).await.unwrap();
        let expected = verified.then(|| user("ann"));
        assert_eq!(whose(name).await, expected, "{name}, before the first");
        append(&scene, &a, claim.ticket, 1, &texts(&["1"])).await;
        assert_eq!(whose(name).await, expected, "{name}");
        scene.end(&a, claim.ticket).await;
        assert_eq!(whose(name).await, expected, "{name}, when it is over");
    }
}

pub(super) async fn outputs_go_on_with_their_context(world: &World) {
    let scene = world.scene();
    let (a, b) = (scene.worker("a", 8).await, scene.worker("b", 8).await);
    let old = ClaimRequest {
        claim: streamfleet_store::Claim { token: None, user: Some(user("ann")) },
        user: Some(user("ann")),
        ..request("k3x9", &["a"])
    };
    scene.active(&a, &old).await;
    let verified = object(json!({ "verified": true }));
    scene.store.report(&scene.service, &a, old.ticket, Phase::Active, &verified).await.unwrap();
    append(&scene, &a, old.ticket, 1, &texts(&["1", "2"])).await;
    let claim = with_token("k3x9", &["b"], old.token);
    let new = ClaimRequest {
        claim: streamfleet_store::Claim { user: Some(user("ann")), ..claim.claim.clone() },
        user: Some(user("ann")),
        ..claim
    };
    scene.active(&b, &new).await;
    let kept = scene.store.outputs(&scene.service, Whose::Context(old.context), None).await.unwrap().unwrap();
    assert_eq!((kept.mark, kept.last, kept.user), (Some(MARK), 2, Some(user("ann"))));
    // The old one says something more after the new one has read that.
    append(&scene, &a, old.ticket, 3, &texts(&["late"])).await;
    let batch =
        Batch { mark: NEXT, earlier: &[Seen { mark: MARK, number: 2 }], first: 3, oldest: 1, texts: &texts(&["3"]) };
    assert_eq!(scene.store.append(&scene.service, &b, new.ticket, &batch).await.unwrap(), Appended::Upto(3));
    assert_eq!(append(&scene, &a, old.ticket, 4, &texts(&["later"])).await, Appended::Over, "it goes on elsewhere");
    let all = [text(1, "1"), text(2, "2"), text(3, "3")];
    assert_eq!(after(&scene, None).await, all);
    assert_eq!(after(&scene, seen(NEXT, 2)).await, all[2..]);
    assert_eq!(after(&scene, seen(MARK, 1)).await, all[1..], "by what the old one has numbered");
    assert_eq!(
        after(&scene, seen(MARK, 3)).await,
        all[2..],
        "what only the old one's readers have seen is passed over"
    );
    scene.end(&a, old.ticket).await;
    world.pass(world.terms.lease / 2).await;
    scene.renew(&b, 8).await;
    world.pass(world.terms.lease / 2).await;
    assert_eq!(after(&scene, None).await, all, "the context has a session");
    scene.renew(&b, 8).await;
    scene.end(&b, new.ticket).await;
    let over = read(&scene, seen(MARK, 2)).await.unwrap();
    assert_eq!((over.outputs, over.over, over.user), (all[2..].to_vec(), true, Some(user("ann"))));
}
