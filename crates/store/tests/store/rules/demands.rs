use std::time::Duration;

use streamfleet_session::CloseReason;
use streamfleet_store::{
    Asked, ClaimRequest, Claimed, Demand, Filter, LastWords, Outcome, Pending, Phase, Told, Topic, TrackId,
    TrackResult, settle,
};

use crate::world::{Scene, World, end_of, id, object, request, user, with_token, with_user};

const END: Demand = Demand::End(CloseReason::EndedByControl);

async fn pending(scene: &Scene<'_>, session: &str, demand: &Demand) -> Pending {
    match scene.store.ask(&scene.service, &id(session), None, demand).await.unwrap() {
        Told::Pending(pending) => pending,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn ends_are_asked_and_acknowledged(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    let claim = request("k3x9", &["a"]);
    scene.active(&a, &claim).await;
    let mut owner = scene.store.listen(&scene.service, Topic::Worker(a.worker.clone()));
    owner.woken().await;
    let asked = pending(&scene, "k3x9", &END).await;
    assert_eq!((asked.ticket, &asked.at.worker), (claim.ticket, &a.worker));
    tokio::time::timeout(Duration::from_secs(5), owner.woken()).await.expect("the owner is woken");
    for _ in 0..2 {
        assert_eq!(scene.asked(&a).await, [end_of(&claim, CloseReason::EndedByControl)], "until it is done");
        assert_eq!(scene.store.outcome(&scene.service, &asked).await.unwrap(), None);
    }
    scene.store.end(&scene.service, &a, claim.ticket, CloseReason::EndedByControl).await.unwrap();
    assert_eq!(scene.asked(&a).await, []);
    let outcome = Some(Outcome::Ended(CloseReason::EndedByControl));
    assert_eq!(scene.store.outcome(&scene.service, &asked).await.unwrap(), outcome);
    // The next session of the id is another one.
    let next = request("k3x9", &["a"]);
    scene.active(&a, &next).await;
    assert_eq!(scene.store.outcome(&scene.service, &asked).await.unwrap(), outcome);
    assert_eq!(scene.asked(&a).await, []);
}

/// Ids are chosen by clients: whoever looked a session up and then asks for its end does not end another that has come to have the id.
pub(super) async fn who_is_meant_is_said_by_its_context(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    let (first, next) = (request("k3x9", &["a"]), request("k3x9", &["a"]));
    let ask = async |claim: &ClaimRequest| {
        scene.store.ask(&scene.service, &id("k3x9"), Some(claim.context), &END).await.unwrap()
    };
    scene.active(&a, &first).await;
    assert_eq!(ask(&next).await, Told::Unknown);
    assert_eq!(scene.asked(&a).await, []);
    scene.end(&a, first.ticket).await;
    assert_eq!(ask(&next).await, Told::Unknown);
    scene.active(&a, &next).await;
    assert_eq!(ask(&first).await, Told::Over(CloseReason::ClientClosed));
    assert_eq!(scene.asked(&a).await, [], "the next one goes on");
    assert!(matches!(ask(&next).await, Told::Pending(pending) if pending.ticket == next.ticket));
    assert_eq!(scene.asked(&a).await, [end_of(&next, CloseReason::EndedByControl)]);
}

/// From the moment that its end is asked for, its client does not slip away to another connection.
pub(super) async fn a_session_that_is_being_ended_is_taken_over_by_nobody(world: &World) {
    let scene = world.scene();
    let (a, b) = (scene.worker("a", 8).await, scene.worker("b", 8).await);
    let old = request("k3x9", &["a"]);
    scene.active(&a, &old).await;
    let on_its_way = with_token("k3x9", &["b"], old.token);
    scene.place(&on_its_way).await;
    scene.report(&b, on_its_way.ticket, Phase::Connecting).await;
    // The end of a track is no end.
    pending(&scene, "k3x9", &Demand::CloseTrack("0".parse().unwrap())).await;
    let again = with_token("k3x9", &["b"], old.token);
    scene.place(&again).await;
    pending(&scene, "k3x9", &END).await;
    assert_eq!(scene.claim(&with_token("k3x9", &["b"], old.token)).await, Claimed::Closing);
    assert!(
        matches!(scene.claim(&request("k3x9", &["b"])).await, Claimed::Duplicate { .. }),
        "nobody else learns of it"
    );
    assert!(scene.asked(&b).await.contains(&end_of(&again, CloseReason::EndedByControl)), "nor does it arrive");
    scene.end(&a, old.ticket).await;
    scene.end(&b, again.ticket).await;
    scene.end(&b, on_its_way.ticket).await;
    assert!(
        matches!(scene.claim(&with_token("k3x9", &["b"], again.token)).await, Claimed::Placed(_)),
        "when it is over"
    );
}

pub(super) async fn last_words_go_with_the_end(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    let claim = request("k3x9", &["a"]);
    scene.active(&a, &claim).await;
    let words = LastWords::cut("Auf Wiederhören: \"bye\"").unwrap();
    let asked = pending(&scene, "k3x9", &Demand::EndStream(words.clone())).await;
    // Whoever asks later for another reason changes neither.
    pending(&scene, "k3x9", &END).await;
    let demand = Demand::EndStream(words);
    let expected = Asked { ticket: claim.ticket, session: id("k3x9"), demand };
    assert_eq!(scene.asked(&a).await, [expected]);
    scene.store.end(&scene.service, &a, claim.ticket, CloseReason::EndStream).await.unwrap();
    let outcome = scene.store.outcome(&scene.service, &asked).await.unwrap();
    assert_eq!(outcome, Some(Outcome::Ended(CloseReason::EndStream)));
}

pub(super) async fn the_first_reason_stays(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    let claim = request("k3x9", &["a"]);
    scene.active(&a, &claim).await;
    pending(&scene, "k3x9", &Demand::End(CloseReason::Draining)).await;
    pending(&scene, "k3x9", &END).await;
    assert_eq!(scene.asked(&a).await, [end_of(&claim, CloseReason::Draining)]);
}

pub(super) async fn tracks_are_closed(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    let claim = request("k3x9", &["a"]);
    scene.active(&a, &claim).await;
    let track = |text: &str| text.parse::<TrackId>().unwrap();
    let close = |text: &str| Demand::CloseTrack(track(text));
    let (video, audio) = (pending(&scene, "k3x9", &close("1")).await, pending(&scene, "k3x9", &close("0")).await);
    let asked = |text: &str| Asked { ticket: claim.ticket, session: claim.session.clone(), demand: close(text) };
    assert_eq!(scene.asked(&a).await, [asked("0"), asked("1")]);
    let (store, service) = (&scene.store, &scene.service);
    store.acknowledge(service, &a, claim.ticket, &track("1"), TrackResult::Closed).await.unwrap();
    assert_eq!(scene.asked(&a).await, [asked("0")]);
    assert_eq!(store.outcome(service, &video).await.unwrap(), Some(Outcome::Track(TrackResult::Closed)));
    assert_eq!(store.outcome(service, &audio).await.unwrap(), None);
    store.acknowledge(service, &a, claim.ticket, &track("0"), TrackResult::Unknown).await.unwrap();
    assert_eq!(store.outcome(service, &audio).await.unwrap(), Some(Outcome::Track(TrackResult::Unknown)));
    let again = pending(&scene, "k3x9", &close("1")).await;
    assert_eq!(store.outcome(service, &again).await.unwrap(), None, "asked anew");
    scene.end(&a, claim.ticket).await;
    let ended = Some(Outcome::Ended(CloseReason::ClientClosed));
    assert_eq!(store.outcome(service, &again).await.unwrap(), ended);
}

pub(super) async fn what_is_unknown_is_said(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    let ask = async |session: &str| scene.store.ask(&scene.service, &id(session), None, &END).await.unwrap();
    assert_eq!(ask("never").await, Told::Unknown);
    let claim = request("k3x9", &["a"]);
    scene.active(&a, &claim).await;
    scene.end(&a, claim.ticket).await;
    assert_eq!(ask("k3x9").await, Told::Over(CloseReason::ClientClosed));
    world.pass(world.terms.afterlife).await;
    assert_eq!(ask("k3x9").await, Told::Unknown, "forgotten");

    // Lists: by id, by user, by phase, in pages.
    let a = scene.worker("a", 8).await;
    for (session, who) in [("d", "ann"), ("b", "bob"), ("a", "ann"), ("c", "ann")] {
        let claim = with_user(session, &["a"], who);
        scene.place(&claim).await;
        let phase = if session == "c" { Phase::Connecting } else { Phase::Active };
        let detail = object(serde_json::json!({"of": session}));
        scene.store.report(&scene.service, &a, claim.ticket, phase, &detail).await.unwrap();
    }
    let list = async |who: Option<&str>, phase: Option<Phase>, after: Option<&str>, limit: u32| {
        let filter = Filter { user: who.map(user), phase, after: after.map(id), limit };
        let page = scene.store.list(&scene.service, &filter).await.unwrap();
        for live in &page.sessions {
            assert_eq!(live.detail["of"], live.session.as_str());
            assert_eq!(live.at.worker, a.worker);
        }
        let ids: Vec<String> = page.sessions.iter().map(|live| live.session.to_string()).collect();
        (ids.concat(), page.next.map(|next| next.to_string()))
    };
    let next = |text: &str| Some(text.to_owned());
    assert_eq!(list(None, None, None, 100).await, ("abcd".to_owned(), None));
    assert_eq!(list(None, None, None, 3).await, ("abc".to_owned(), next("c")));
    assert_eq!(list(None, None, Some("c"), 3).await, ("d".to_owned(), None));
    assert_eq!(list(Some("ann"), None, None, 2).await, ("ac".to_owned(), next("c")));
    assert_eq!(list(Some("ann"), None, Some("c"), 2).await, ("d".to_owned(), None));
    assert_eq!(list(Some("an"), None, None, 2).await, (String::new(), None));
    assert_eq!(list(None, Some(Phase::Connecting), None, 100).await, ("c".to_owned(), None));
}

pub(super) async fn askers_wait_for_the_outcome(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    let claim = request("k3x9", &["a"]);
    scene.active(&a, &claim).await;
    let asked = pending(&scene, "k3x9", &END).await;
    let soon = Duration::from_millis(20);
    let unanswered = settle(&*scene.store, &scene.service, &asked, soon).await;
    assert_eq!(unanswered, Ok(None), "a wait that is over says so");
    let mut owner = scene.store.listen(&scene.service, Topic::Worker(a.worker.clone()));
    let obey = async {
        owner.woken().await;
        scene.store.end(&scene.service, &a, claim.ticket, CloseReason::EndedByControl).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(settle(&*scene.store, &scene.service, &asked, Duration::from_secs(5)), obey);
    assert_eq!(outcome, Ok(Some(Outcome::Ended(CloseReason::EndedByControl))));
}
