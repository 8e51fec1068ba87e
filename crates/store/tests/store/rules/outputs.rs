use std::time::Duration;

use streamfleet_session::CloseReason;
use streamfleet_store::{MAX_OUTPUTS, MAX_OUTPUTS_BYTES, MAX_READ, Read, SessionView, Topic};

use crate::world::{World, id, request};

pub(super) async fn outputs_are_numbered_and_bounded(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    let claim = request("k3x9", &["a"]);
    scene.active(&a, &claim).await;
    let read = async |after: u64| scene.store.outputs(&scene.service, &id("k3x9"), after).await.unwrap();
    let append = async |text: &str| scene.store.append(&scene.service, &a, claim.ticket, text).await.unwrap();
    assert_eq!(scene.store.outputs(&scene.service, &id("never"), 0).await.unwrap(), None);
    assert_eq!(read(0).await, Some(Read::default()));
    let mut reader = scene.store.listen(&scene.service, Topic::Session(id("k3x9")));
    reader.woken().await;
    assert_eq!((append(r#""ä""#).await, append("2").await), (Some(1), Some(2)));
    tokio::time::timeout(Duration::from_secs(5), reader.woken()).await.expect("readers are woken");
    let text = |number: u64, text: &str| (number, text.to_owned());
    assert_eq!(read(0).await.unwrap().outputs, [text(1, r#""ä""#), text(2, "2")]);
    assert_eq!(read(1).await.unwrap().outputs, [text(2, "2")]);
    assert_eq!(read(2).await.unwrap().outputs, []);
    assert_eq!(read(u64::MAX).await.unwrap().outputs, []);
    for number in 3..=MAX_OUTPUTS as u64 + 10 {
        assert_eq!(append(&number.to_string()).await, Some(number));
    }
    let first = read(0).await.unwrap().outputs;
    assert_eq!((first.len(), &first[0]), (MAX_READ, &text(11, "11")));
    assert_eq!(read(11).await.unwrap().outputs[0], text(12, "12"));
    // The newest is kept, however large.
    let large = format!("\"{}\"", "x".repeat(MAX_OUTPUTS_BYTES - 2));
    assert_eq!(append(&large).await, Some(267));
    assert_eq!(read(0).await.unwrap().outputs, [(267, large)]);
}

pub(super) async fn outputs_outlive_their_session(world: &World) {
    let scene = world.scene();
    let a = scene.worker("a", 8).await;
    let claim = request("k3x9", &["a"]);
    scene.active(&a, &claim).await;
    for text in ["1", "2"] {
        scene.store.append(&scene.service, &a, claim.ticket, text).await.unwrap();
    }
    scene.end(&a, claim.ticket).await;
    assert_eq!(scene.store.append(&scene.service, &a, claim.ticket, "3").await.unwrap(), None);
    let read = async |after: u64| scene.store.outputs(&scene.service, &id("k3x9"), after).await.unwrap();
    let rest = Read { outputs: vec![(2, "2".to_owned())], over: true };
    assert_eq!(read(1).await, Some(rest));
    assert_eq!(read(2).await, Some(Read { outputs: vec![], over: true }));
    assert_eq!(scene.view("k3x9").await, Some(SessionView::Over(CloseReason::ClientClosed)));
    world.pass(world.terms.afterlife + Duration::from_millis(1)).await;
    assert_eq!((read(0).await, scene.view("k3x9").await), (None, None));
}
