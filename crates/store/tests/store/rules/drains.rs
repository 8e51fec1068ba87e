//! A worker is taken away when it is asked to drain and says itself that it is empty. Nothing may come to it in between.

use streamfleet_store::{Claimed, Entry, Gate, Order, Owner, Phase};

use crate::world::{Scene, World, name, request};

pub(super) async fn orders_are_numbered(world: &World) {
    let scene = world.scene();
    let owner = scene.worker("a", 8).await;
    let (store, service) = (&scene.store, &scene.service);
    let seen = async || (scene.renew(&owner, 8).await, store.workers(service).await.unwrap().remove(0));
    let (orders, view) = seen().await;
    assert_eq!((orders.order, view.order), (Order::default(), Order::default()), "nobody has asked anything");
    let mut last = Order::default();
    for gate in [Gate::Draining, Gate::Leaving, Gate::Open, Gate::Draining] {
        scene.ask_gate("a", gate).await;
        let (orders, view) = seen().await;
        assert_eq!((orders.gate, view.order), (gate, orders.order));
        assert!(orders.order > last, "{gate:?}");
        last = orders.order;
        scene.ask_gate("a", gate).await;
        assert_eq!(seen().await.0.order, last, "the same again is no other order");
    }
    // Another process of the name was asked nothing.
    let owner = scene.worker("a", 8).await;
    assert_eq!(scene.renew(&owner, 8).await.order, Order::default());
}

pub(super) async fn a_worker_is_drained_when_it_says_so_itself(world: &World) {
    let scene = world.scene();
    let owner = scene.worker("a", 8).await;
    let call = request("k3x9", &["a"]);
    scene.active(&owner, &call).await;
    let check = async |gate: Gate, heard: Order, counts: (u32, u32), expected: bool| {
        scene.says(&owner, gate, heard, counts.0, counts.1).await;
        assert_eq!(scene.is_drained("a").await, expected, "{gate:?} {heard} {counts:?}");
    };
    let none = Order::default();
    check(Gate::Open, none, (0, 0), false).await;
    scene.ask_gate("a", Gate::Draining).await;
    assert!(!scene.is_drained("a").await, "it has not heard of it");
    let order = scene.says(&owner, Gate::Open, none, 1, 0).await.order;
    check(Gate::Draining, order, (0, 0), false).await;
    scene.end(&owner, call.ticket).await;
    assert!(scene.is_drained("a").await, "the store held one for it, and its word still stands");
    check(Gate::Open, none, (0, 0), false).await;
    check(Gate::Draining, none, (0, 0), false).await;
    check(Gate::Draining, order, (1, 0), false).await;
    check(Gate::Draining, order, (0, 1), false).await;
    check(Gate::Draining, order, (0, 0), true).await;
    check(Gate::Leaving, order, (0, 0), true).await;
    // Of its own accord, as after SIGTERM.
    let alone = scene.worker("b", 8).await;
    scene.says(&alone, Gate::Draining, none, 0, 0).await;
    assert!(scene.is_drained("b").await);
    let epoch = scene.store.register(&scene.service, &name("c"), Entry::New).await.unwrap();
    assert!(!scene.is_drained("c").await, "it has not said anything");
    scene.renew(&Owner { worker: name("c"), epoch }, 8).await;
    assert!(!scene.is_drained("c").await);
}

/// It was empty and drained, was put back, and is drained again: in between a router that does not reach the store may have
/// brought it a session without a claim.
pub(super) async fn what_was_said_before_proves_nothing(world: &World) {
    let scene = world.scene();
    let owner = scene.worker("a", 8).await;
    scene.ask_gate("a", Gate::Draining).await;
    let first = scene.renew(&owner, 8).await.order;
    scene.says(&owner, Gate::Draining, first, 0, 0).await;
    assert!(scene.is_drained("a").await);
    scene.ask_gate("a", Gate::Open).await;
    assert!(!scene.is_drained("a").await, "it will take sessions");
    scene.ask_gate("a", Gate::Draining).await;
    assert!(!scene.is_drained("a").await, "it may have heard that it shall serve");
    let second = scene.says(&owner, Gate::Draining, first, 0, 0).await.order;
    assert!(!scene.is_drained("a").await, "what it obeys is the order before");
    scene.says(&owner, Gate::Draining, second, 1, 0).await;
    assert!(!scene.is_drained("a").await);
    scene.says(&owner, Gate::Draining, second, 0, 0).await;
    assert!(scene.is_drained("a").await);
}

/// What happens between a router, a worker and whoever drains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// The router claims.
    Claim,
    /// What the claim gave reaches the worker, which takes it or, while it drains, does not.
    Deliver,
    /// The store is asked to drain the worker.
    Drain,
    /// The worker says what it knows, and hears what it is asked.
    Beat,
}

/// A worker as it is: it obeys what it has heard, and its session is one that it has taken.
#[derive(Default)]
struct Obedient {
    heard: (Gate, Order),
    has_session: bool,
}

impl Obedient {
    async fn beat(&mut self, scene: &Scene<'_>, owner: &Owner) {
        let (gate, heard) = self.heard;
        let orders = scene.says(owner, gate, heard, u32::from(self.has_session), 0).await;
        self.heard = (orders.gate, orders.order);
    }
}

/// Every order of the events in which a claim comes before what it gave: never is the worker drained while it has the session, or
/// while the session can still come to it.
pub(super) async fn a_claim_and_a_drain_in_any_order(world: &World) {
    use Event::{Beat, Claim, Deliver, Drain};
    let mut placed = 0;
    for order in permutations(vec![Claim, Deliver, Drain, Beat, Beat, Beat]) {
        let at = |event| order.iter().position(|other| *other == event);
        if at(Deliver) < at(Claim) {
            continue;
        }
        let scene = world.scene();
        let owner = scene.worker("a", 1).await;
        let call = request("k3x9", &["a"]);
        let (mut worker, mut under_way) = (Obedient::default(), false);
        for event in &order {
            match event {
                Claim => under_way = matches!(scene.claim(&call).await, Claimed::Placed(_)),
                Deliver if !under_way => {}
                Deliver if worker.heard.0 == Gate::Open => {
                    (worker.has_session, under_way) = (true, false);
                    scene.report(&owner, call.ticket, Phase::Active).await;
                    placed += 1;
                }
                // It refuses it, and the router takes it elsewhere.
                Deliver => {
                    scene.store.release(&scene.service, call.ticket).await.unwrap();
                    under_way = false;
                }
                Drain => scene.ask_gate("a", Gate::Draining).await,
                Beat => worker.beat(&scene, &owner).await,
            }
            let is_needed = worker.has_session || under_way;
            assert!(!(is_needed && scene.is_drained("a").await), "{order:?} at {event:?}");
        }
        if worker.has_session {
            scene.end(&owner, call.ticket).await;
            worker.has_session = false;
        }
        for _ in 0..2 {
            worker.beat(&scene, &owner).await;
        }
        assert!(scene.is_drained("a").await, "{order:?}: in the end it is");
        let late = scene.claim(&request("late", &["a"])).await;
        assert_eq!(late, Claimed::NoCapacity { pinned: None }, "{order:?}");
    }
    assert!(placed > 0, "some order gives it the session");
}

/// Every order of some events, each once.
fn permutations(events: Vec<Event>) -> Vec<Vec<Event>> {
    let Some(last) = events.len().checked_sub(1) else { return vec![Vec::new()] };
    let mut orders = Vec::new();
    for at in 0..=last {
        // Of several that are alike the first stands for all.
        if events[..at].contains(&events[at]) {
            continue;
        }
        let mut rest = events.clone();
        let first = rest.remove(at);
        orders.extend(permutations(rest).into_iter().map(|rest| [vec![first], rest].concat()));
    }
    orders
}
