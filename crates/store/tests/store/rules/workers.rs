use std::time::Duration;

use streamfleet_session::CloseReason;
use streamfleet_store::{Batch, Claimed, Entry, FleetError, Gate, Heartbeat, Owner, SessionView, Topic};

use crate::world::{World, beat, name, request};

pub(super) async fn epochs_grow_and_fence(world: &World) {
    let scene = world.scene();
    let old = scene.worker("a", 1).await;
    let new = scene.worker("a", 1).await;
    assert!(new.epoch > old.epoch);
    let session = request("k3x9", &["a"]);
    scene.active(&new, &session).await;
    let fenced = Err(FleetError::Fenced { current: new.epoch });
    let (store, service) = (&scene.store, &scene.service);
    assert_eq!(store.renew(service, &old, &beat(1)).await.map(|_| ()), fenced);
    assert_eq!(store.end(service, &old, session.ticket, CloseReason::EndStream).await, fenced);
    let nothing_said = Batch { mark: 1, earlier: &[], first: 1, oldest: 1, texts: &[] };
    assert_eq!(store.append(service, &old, session.ticket, &nothing_said).await.map(|_| ()), fenced);
    assert_eq!(
        store.restore(service, &old, &[crate::world::restored(&session, Duration::ZERO)]).await.map(|_| ()),
        fenced
    );
    assert_eq!(store.leave(service, &old).await, fenced);
    assert_eq!(scene.holder("k3x9").await, Some(session.ticket), "nothing was written");
    let stranger = Owner { worker: name("b"), epoch: new.epoch };
    assert_eq!(store.renew(service, &stranger, &beat(1)).await, Err(FleetError::Unregistered));
}

pub(super) async fn leases_run_out(world: &World) {
    let scene = world.scene();
    let owner = scene.worker("a", 1).await;
    let nearly = world.terms.lease - Duration::from_millis(1000);
    world.pass(nearly).await;
    let [view] = &scene.store.workers(&scene.service).await.unwrap()[..] else { panic!("one worker") };
    assert!(view.age >= nearly && view.age < world.terms.lease, "{:?}", view.age);
    assert_eq!((&view.owner, view.gate, view.said.as_ref()), (&owner, Gate::Open, Some(&beat(1))));
    scene.renew(&owner, 1).await;
    world.pass(nearly).await;
    assert_eq!(scene.load("a").await, Some(0), "the renewal counts");
    world.pass(Duration::from_millis(1001)).await;
    assert_eq!(scene.load("a").await, None);
    assert!(matches!(scene.claim(&request("k3x9", &["a"])).await, Claimed::NoCapacity { .. }));
    let late = scene.store.renew(&scene.service, &owner, &beat(1)).await;
    assert_eq!(late, Err(FleetError::Unregistered), "somebody has noticed");
}

pub(super) async fn readiness_comes_with_the_first_renewal(world: &World) {
    let scene = world.scene();
    let epoch = scene.store.register(&scene.service, &name("a"), Entry::New).await.unwrap();
    let claim = request("k3x9", &["a"]);
    assert_eq!(scene.claim(&claim).await, Claimed::NoCapacity { pinned: None });
    let [view] = &scene.store.workers(&scene.service).await.unwrap()[..] else { panic!("one worker") };
    assert_eq!((view.gate, view.said.clone()), (Gate::Draining, None));
    scene.renew(&Owner { worker: name("a"), epoch }, 1).await;
    assert_eq!(scene.place(&claim).await.epoch, epoch);
}

pub(super) async fn gates_close_and_open(world: &World) {
    let scene = world.scene();
    let owner = scene.worker("a", 8).await;
    let (store, service) = (&scene.store, &scene.service);
    let takes = async |expected: bool, when: &str| {
        let claim = request("k3x9", &["a"]);
        let placed = matches!(scene.claim(&claim).await, Claimed::Placed(_));
        store.release(service, claim.ticket).await.unwrap();
        let view = store.workers(service).await.unwrap().remove(0);
        assert_eq!((placed, view.gate == Gate::Open), (expected, expected), "{when}");
    };
    takes(true, "at first").await;
    assert!(store.ask_gate(service, &name("a"), Gate::Draining).await.unwrap());
    takes(false, "asked to drain, before the worker knows").await;
    assert_eq!(scene.renew(&owner, 8).await.gate, Gate::Draining);
    takes(false, "the worker has not said that it drains").await;
    assert!(store.ask_gate(service, &name("a"), Gate::Open).await.unwrap());
    takes(true, "put back").await;
    assert_eq!(scene.renew(&owner, 8).await.gate, Gate::Open);
    let draining = Heartbeat { gate: Gate::Draining, ..beat(8) };
    assert_eq!(store.renew(service, &owner, &draining).await.unwrap().gate, Gate::Open, "nobody else wants it");
    takes(false, "it drains of its own accord").await;
    assert!(!store.ask_gate(service, &name("b"), Gate::Draining).await.unwrap());
}

pub(super) async fn a_worker_is_asked_to_leave(world: &World) {
    let scene = world.scene();
    let owner = scene.worker("a", 8).await;
    let (store, service) = (&scene.store, &scene.service);
    let seen = async || store.workers(service).await.unwrap().remove(0).gate;
    for gate in [Gate::Leaving, Gate::Draining, Gate::Leaving] {
        assert!(store.ask_gate(service, &name("a"), gate).await.unwrap());
        assert_eq!((scene.renew(&owner, 8).await.gate, seen().await), (gate, gate));
    }
    let draining = Heartbeat { gate: Gate::Draining, ..beat(8) };
    store.renew(service, &owner, &draining).await.unwrap();
    assert_eq!(seen().await, Gate::Leaving, "what is more is what is so");
    assert!(!matches!(scene.claim(&request("k3x9", &["a"])).await, Claimed::Placed(_)));
    assert!(store.ask_gate(service, &name("a"), Gate::Open).await.unwrap());
    assert_eq!(seen().await, Gate::Draining);
    // Of its own accord: nobody wants more than that it drains, and whoever watches hears of it.
    let mut listener = store.listen(service, Topic::Directory);
    listener.woken().await;
    let leaving = Heartbeat { gate: Gate::Leaving, ..draining };
    store.renew(service, &owner, &leaving).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), listener.woken()).await.expect("whoever watches is told");
    let view = store.workers(service).await.unwrap().remove(0);
    assert_eq!((view.gate, view.said), (Gate::Draining, Some(leaving)));
}

pub(super) async fn a_second_process_of_a_name_replaces_the_first(world: &World) {
    let scene = world.scene();
    let old = scene.worker("a", 1).await;
    scene.active(&old, &request("k3x9", &["a"])).await;
    let new = scene.worker("a", 1).await;
    assert_eq!(scene.view("k3x9").await, Some(SessionView::Over(CloseReason::WorkerLost)));
    scene.active(&new, &request("k3x9", &["a"])).await;
    assert_eq!(scene.load("a").await, Some(1));
}

pub(super) async fn leaving_ends_what_is_left(world: &World) {
    let scene = world.scene();
    let (a, b) = (scene.worker("a", 1).await, scene.worker("b", 1).await);
    scene.active(&a, &request("one", &["a"])).await;
    scene.active(&b, &request("two", &["b"])).await;
    let mut listener = scene.store.listen(&scene.service, Topic::Directory);
    listener.woken().await;
    scene.store.leave(&scene.service, &a).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), listener.woken()).await.expect("whoever watches is told");
    assert_eq!(scene.view("one").await, Some(SessionView::Over(CloseReason::Shutdown)));
    assert_eq!((scene.load("a").await, scene.load("b").await), (None, Some(1)));
    assert_eq!(scene.store.leave(&scene.service, &a).await, Err(FleetError::Unregistered));
}
