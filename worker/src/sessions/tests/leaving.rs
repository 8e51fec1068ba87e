//! Who is asked to connect elsewhere where somebody wants the worker empty.

use streamfleet_session::wire::ServerMessage;
use streamfleet_store::{Directory as _, Gate, Terms};
use tokio::task::JoinSet;

use super::moving::connect;
use super::*;
use crate::fleet::{Surroundings, doubles, run};
use crate::sockets::session::Command;

/// After how long a session's client is to come elsewhere, if it is told to; all that it was told is read.
fn told(orders: &mut Orders) -> Option<u64> {
    let order = orders.try_recv().ok()?;
    let Command::Reconnect(message) = order else { panic!("another order") };
    let ServerMessage::Reconnect { after_ms, reason, .. } = *message else { panic!("{message:?}") };
    assert_eq!(reason, "draining");
    assert!(orders.try_recv().is_err(), "more than once");
    Some(after_ms)
}

#[tokio::test]
async fn each_who_has_connected_is_asked_once_until_the_worker_is_put_back() {
    let (_idle, sessions) = Worker::sessions();
    let member = Member::new("echo".parse().unwrap(), "w".parse().unwrap(), Arc::new(Memory::default()));
    let (first, _, mut a) = over_a_socket(&sessions, "echo", "a").await;
    let (second, _, mut b) = over_a_socket(&sessions, "echo", "b").await;
    let (late, _, mut c) = over_a_socket(&sessions, "echo", "c").await;
    let (elsewhere, _, mut other) = over_a_socket(&sessions, "other", "d").await;
    [&first, &second, &elsewhere].into_iter().for_each(|shared| connect(shared));
    let mut urge = |gate: Gate| {
        sessions.urge_all(&member, gate, Instant::now());
        let mut asked: Vec<u64> = [&mut a, &mut b].into_iter().filter_map(told).collect();
        asked.sort_unstable();
        assert_eq!(told(&mut other), None, "it is of another service");
        (asked, told(&mut c))
    };
    assert_eq!(urge(Gate::Draining), (vec![], None), "they have all the time that they want");
    assert_eq!(urge(Gate::Leaving), (vec![0, 100], None), "one after the other");
    assert_eq!(urge(Gate::Leaving), (vec![], None), "once");
    connect(&late);
    assert_eq!(urge(Gate::Leaving), (vec![], Some(0)), "it had no client to ask");
    assert_eq!(urge(Gate::Open), (vec![], None));
    let (asked, late) = urge(Gate::Leaving);
    assert_eq!((asked.len(), late.is_some()), (2, true), "that was another time");
}

#[tokio::test]
async fn who_could_not_be_told_is_asked_again() {
    let (_idle, sessions) = Worker::sessions();
    let member = Member::new("echo".parse().unwrap(), "w".parse().unwrap(), Arc::new(Memory::default()));
    let (shared, _, mut orders) = over_a_socket(&sessions, "echo", "a").await;
    connect(&shared);
    let via = sessions.live(shared.id()).unwrap().via;
    via.send(shared.token(), Order::HandlerFailed(String::new())).unwrap();
    sessions.urge_all(&member, Gate::Leaving, Instant::now());
    assert!(matches!(orders.try_recv(), Ok(Command::HandlerFailed(_))));
    assert_eq!(told(&mut orders), None, "it was behind with its work");
    sessions.urge_all(&member, Gate::Leaving, Instant::now());
    assert_eq!(told(&mut orders), Some(0));
}

/// Routers bring nobody back to a worker that says so.
#[tokio::test]
async fn a_worker_that_asks_its_clients_to_go_as_its_end_is_near_leaves() {
    let (_idle, sessions) = Worker::sessions();
    let (shared, _, mut orders) = over_a_socket(&sessions, "echo", "a").await;
    connect(&shared);
    let occupancy = Occupancy::new(NonZeroU32::MIN);
    occupancy.drain();
    let until = async |deadline: Instant, what: &mut dyn FnMut() -> bool| {
        tokio::select! {
            () = sessions.drain(deadline, &occupancy) => panic!("a session is there"),
            () = async { while !what() { tokio::time::sleep(Duration::from_millis(10)).await } } => {}
        }
    };
    let mut looks = 0;
    let far = Instant::now() + RECONNECT_LEAD + PATIENCE;
    until(far, &mut || {
        looks += 1;
        assert_eq!(
            (told(&mut orders), occupancy.gate()),
            (None, Gate::Draining),
            "they have all the time that they want"
        );
        looks > 10
    })
    .await;
    until(Instant::now() + RECONNECT_LEAD, &mut || {
        let is_told = told(&mut orders).is_some();
        assert!(!is_told || occupancy.gate() == Gate::Leaving);
        is_told
    })
    .await;
}

/// The store has been away, and the pod is deleted as soon as it is back: its client may have been brought back meanwhile.
#[tokio::test(start_paused = true)]
async fn whom_a_deadline_that_is_over_cuts_off_is_asked_before() {
    let (_idle, sessions) = Worker::sessions();
    let (shared, _, mut orders) = over_a_socket(&sessions, "echo", "a").await;
    connect(&shared);
    let (occupancy, deadline) = (Occupancy::default(), tokio::time::Instant::now().into_std());
    let client = async {
        let first = orders.recv().await;
        let then = tokio::time::timeout(PATIENCE, orders.recv()).await;
        shared.closed(CloseReason::Draining);
        (first, then)
    };
    let ((), heard) = tokio::join!(sessions.drain(deadline, &occupancy), client);
    assert!(matches!(heard, (Some(Command::Reconnect(_)), Ok(Some(Command::End(CloseReason::Draining))))));
    assert_eq!(occupancy.gate(), Gate::Leaving);
}

/// Whoever comes again as he was asked to would be brought back by a router that has not heard.
#[tokio::test(start_paused = true)]
async fn routers_know_that_a_worker_leaves_before_its_clients_come_again() {
    let (_idle, sessions) = Worker::sessions();
    let store = Arc::<Memory>::default();
    let member = Arc::new(Member::new("echo".parse().unwrap(), "w".parse().unwrap(), store.clone()));
    sessions.join(HashMap::from([(member.service().clone(), member.clone())]));
    let occupancy = Occupancy::default();
    let says = occupancy.clone();
    let beat = move || doubles::heartbeat(says.gate());
    let stop = CancellationToken::new();
    let surroundings = Surroundings { terms: Terms::default(), beat: Box::new(beat), joining: None, stop };
    let mut running = JoinSet::new();
    running.spawn(run(member.clone(), Arc::new(sessions.clone()), surroundings));
    let said = async || store.workers(member.service()).await.unwrap().pop()?.said.map(|said| said.gate);
    while said().await.is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (shared, _, mut orders) = over_a_socket(&sessions, "echo", "a").await;
    connect(&shared);
    occupancy.drain();
    sessions.nudge();
    // The next word of its own accord is a heartbeat away.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(said().await, Some(Gate::Draining));
    let client = async {
        let after = loop {
            match told(&mut orders) {
                Some(after) => break Duration::from_millis(after),
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        assert!(after < Terms::default().heartbeat());
        tokio::time::sleep(after).await;
        said().await
    };
    let deadline = tokio::time::Instant::now().into_std() + RECONNECT_LEAD;
    tokio::select! {
        () = sessions.drain(deadline, &occupancy) => panic!("a session is there"),
        gate = client => assert_eq!(gate, Some(Gate::Leaving)),
    }
}
