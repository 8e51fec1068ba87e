//! A client that offers again with its token while its session lives.

use super::*;

/// What the worker knows of the sessions of `a`: the one that its client has, and the one on the way.
pub(super) fn pair(worker: &Worker) -> (Arc<Shared>, Option<Arc<Shared>>) {
    let live = worker.sessions.live(&"a".parse().unwrap()).expect("the id is in use");
    assert!(live.moving.as_ref().is_none_or(|moving| moving.moving.is_none()));
    (live.shared, live.moving.map(|moving| moving.shared))
}

/// An offer that is accepted; the token of its answer.
pub(super) async fn accepted(worker: &Worker, resume: Value) -> Value {
    let (status, body) = worker.offer_with("a", resume).await;
    assert_eq!((status, &body["type"]), (200, &json!("answer")), "{body}");
    body["resume"].clone()
}

async fn refused(worker: &Worker, resume: Value) {
    let (status, body) = worker.offer_with("a", resume).await;
    assert_eq!((status, &body["meta"]["error"]), (200, &json!("connection_already_exists")), "{body}");
}

pub(super) fn connect(shared: &Shared) {
    shared.connected("192.0.2.1:1".parse().unwrap());
}

/// Waits until a session is over, and says why.
pub(super) async fn over(shared: &Shared) -> CloseReason {
    let mut stage = shared.watch();
    let closed = stage.wait_for(|stage| matches!(stage, Stage::Closed(_)));
    let stage = *tokio::time::timeout(PATIENCE, closed).await.expect("in time").unwrap();
    stage.reason().unwrap()
}

/// Ends the session on the way as its loop does when the client does not come.
async fn gives_up(worker: &Worker) {
    let moving = worker.sessions.live(&"a".parse().unwrap()).unwrap().moving.unwrap();
    moving.via.send(moving.shared.token(), Order::End(CloseReason::ConnectTimeout)).unwrap();
    assert_eq!(over(&moving.shared).await, CloseReason::ConnectTimeout);
}

/// The id and its place are free, and the store holds nothing.
async fn nothing_is_left(worker: &Worker) {
    assert_eq!((worker.occupancy.live(), worker.sessions.len()), (0, 0));
    accepted(worker, Value::Null).await;
    assert_eq!(worker.delete("a").await.0, 200);
}

#[tokio::test]
async fn it_ends_the_old_session_when_it_has_connected() {
    let worker = Worker::new();
    let first = accepted(&worker, Value::Null).await;
    connect(&pair(&worker).0);
    let second = accepted(&worker, first.clone()).await;
    let (old, new) = pair(&worker);
    let new = new.expect("it is on the way");
    assert_eq!((old.stage(), new.stage()), (Stage::Active, Stage::Connecting));
    assert_eq!(worker.occupancy.live(), 1, "one place for both, in a service that is full");

    connect(&new);
    assert_eq!(over(&old).await, CloseReason::Moved);
    let (current, moving) = pair(&worker);
    assert_eq!((current.token(), moving.is_none(), new.stage()), (new.token(), true, Stage::Active));
    assert_eq!(worker.occupancy.live(), 1);
    // The first token is void now, the second is the session's.
    refused(&worker, first).await;
    accepted(&worker, second).await;
    assert_eq!(worker.delete("a").await.0, 200);
    nothing_is_left(&worker).await;
}

#[tokio::test]
async fn it_leaves_the_old_session_when_it_never_connects() {
    let worker = Worker::new();
    let first = accepted(&worker, Value::Null).await;
    let old = pair(&worker).0;
    connect(&old);
    // Each of the two tokens is good afterwards: the answer may have been lost.
    for use_the_new in [false, true] {
        let second = accepted(&worker, first.clone()).await;
        gives_up(&worker).await;
        let (current, moving) = pair(&worker);
        assert_eq!((current.token(), moving.is_none(), old.stage()), (old.token(), true, Stage::Active));
        if use_the_new {
            accepted(&worker, second).await;
            connect(&pair(&worker).1.unwrap());
            assert_eq!(over(&old).await, CloseReason::Moved);
        }
    }
    assert_eq!(worker.delete("a").await.0, 200);
    nothing_is_left(&worker).await;
}

#[tokio::test]
async fn only_its_own_token_moves_a_session() {
    let worker = Worker::new();
    accepted(&worker, Value::Null).await;
    let old = pair(&worker).0;
    connect(&old);
    for token in [Value::Null, json!("00000000000000000000000000000000")] {
        refused(&worker, token).await;
        assert!(pair(&worker).1.is_none());
    }
    assert_eq!((old.stage(), worker.occupancy.live()), (Stage::Active, 1));
    assert_eq!(worker.delete("a").await.0, 200);
    nothing_is_left(&worker).await;
}

#[tokio::test]
async fn the_newest_on_the_way_wins() {
    let worker = Worker::new();
    let first = accepted(&worker, Value::Null).await;
    let old = pair(&worker).0;
    connect(&old);
    accepted(&worker, first.clone()).await;
    let middle = pair(&worker).1.unwrap();
    accepted(&worker, first).await;
    assert_eq!(over(&middle).await, CloseReason::Superseded);
    let newest = pair(&worker).1.unwrap();
    assert_ne!(newest.token(), middle.token());
    assert_eq!(old.stage(), Stage::Active);
    connect(&newest);
    assert_eq!(over(&old).await, CloseReason::Moved);
    assert_eq!(worker.delete("a").await.0, 200);
    nothing_is_left(&worker).await;
}

/// Nobody waits for what its client has turned away from, even if its datagrams come first.
#[tokio::test]
async fn one_that_arrives_with_a_void_token_ends() {
    let worker = Worker::new();
    let first = accepted(&worker, Value::Null).await;
    let old = pair(&worker).0;
    connect(&old);
    accepted(&worker, first.clone()).await;
    let middle = pair(&worker).1.unwrap();
    // The client is back where it was, as over a socket that broke.
    let key = streamfleet_store::ContextKey { service: "echo".parse().unwrap(), session: "a".parse().unwrap() };
    let shown = first.as_str().unwrap().parse().unwrap();
    assert!(worker.sessions.inner.contexts.rotate(&key, &shown).await.unwrap().is_some());
    connect(&middle);
    assert_eq!(over(&middle).await, CloseReason::Superseded);
    let (current, moving) = pair(&worker);
    assert_eq!((current.token(), moving.is_none(), old.stage()), (old.token(), true, Stage::Active));
    assert_eq!(worker.delete("a").await.0, 200);
    nothing_is_left(&worker).await;
}

#[tokio::test]
async fn an_old_session_that_ends_first_leaves_its_id_to_the_new_one() {
    let worker = Worker::new();
    let first = accepted(&worker, Value::Null).await;
    let live = worker.sessions.live(&"a".parse().unwrap()).unwrap();
    accepted(&worker, first).await;
    let new = pair(&worker).1.unwrap();
    live.via.send(live.shared.token(), Order::End(CloseReason::ConnectionLost)).unwrap();
    assert_eq!(over(&live.shared).await, CloseReason::ConnectionLost);
    let (current, moving) = pair(&worker);
    assert_eq!((current.token(), moving.is_none(), new.stage()), (new.token(), true, Stage::Connecting));
    refused(&worker, Value::Null).await;
    assert_eq!(worker.delete("a").await.0, 200);
    nothing_is_left(&worker).await;
}

#[tokio::test]
async fn control_ends_both() {
    let worker = Worker::new();
    let first = accepted(&worker, Value::Null).await;
    accepted(&worker, first).await;
    let (old, new) = pair(&worker);
    let ended = json!({ "status": "success", "id": "a", "reason": "ended_by_control" });
    assert_eq!(worker.delete("a").await, (200, ended));
    assert_eq!(new.unwrap().stage(), Stage::Closed(CloseReason::EndedByControl));
    assert_eq!(old.stage(), Stage::Closed(CloseReason::EndedByControl));
    nothing_is_left(&worker).await;
}

/// Every session but the last ends, and no place is lost.
#[tokio::test]
async fn moving_over_and_over_leaves_nothing() {
    let worker = Worker::new();
    let mut token = accepted(&worker, Value::Null).await;
    for round in 0..50 {
        let (old, middle) = pair(&worker);
        token = accepted(&worker, token).await;
        if let Some(middle) = middle {
            assert_eq!(over(&middle).await, CloseReason::Superseded, "round {round}");
        }
        if round % 3 == 0 {
            connect(&pair(&worker).1.unwrap());
            assert_eq!(over(&old).await, CloseReason::Moved, "round {round}");
        }
    }
    assert_eq!(worker.delete("a").await.0, 200);
    nothing_is_left(&worker).await;
}
