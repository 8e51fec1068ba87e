//! What happens between two steps of somebody else.

use super::gated;
use super::moving::{accepted, connect, over, pair};
use super::*;

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_client_that_goes_away_while_its_context_is_opened_leaves_none() {
    let (worker, store) = gated::worker();
    let gate = store.behind.shut();
    tokio::select! {
        answer = worker.offer("a") => panic!("{answer:?}"),
        () = until("the opening", || store.memory.len() == 1) => {}
    }
    assert_eq!(worker.occupancy.live(), 0);
    gate.send(()).unwrap();
    until("the end of the context", || store.memory.is_empty()).await;
}

/// An offer that was admitted just before the worker is told to go is answered, and its session is waited for.
#[tokio::test]
async fn a_drain_waits_for_an_offer_that_is_being_answered() {
    let (worker, store) = gated::worker();
    let gate = store.before.shut();
    let far = Instant::now() + PATIENCE;
    let (drained, is_drained) = tokio::sync::watch::channel(false);
    let drain = async {
        until("the offer", || store.before.is_reached()).await;
        worker.occupancy.drain();
        worker.sessions.drain(far, &worker.occupancy).await;
        drained.send_replace(true);
    };
    let story = async {
        until("the offer", || store.before.is_reached()).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!*is_drained.borrow() && worker.sessions.is_empty(), "it is no session yet");
        gate.send(()).unwrap();
        until("the session", || worker.sessions.len() == 1).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!*is_drained.borrow());
        assert_eq!(worker.offer("b").await.1["meta"]["error"], "draining");
        assert_eq!(worker.delete("a").await.0, 200);
    };
    let (answer, (), ()) = tokio::join!(worker.offer("a"), drain, story);
    assert_eq!(answer.1["type"], "answer", "{answer:?}");
    assert!(*is_drained.borrow());
}

/// Its token is good, and nobody is there: it begins anew, with what was written if anything was.
#[tokio::test]
async fn one_whose_session_ends_while_it_comes_begins() {
    for data in [json!({}), json!({ "order": 17 })] {
        let (worker, store) = gated::worker();
        let first = accepted(&worker, Value::Null).await;
        let token = first.as_str().unwrap();
        if data != json!({}) {
            assert_eq!(ask(&worker, "PATCH", "/sessions/a/data", token, data.clone()).await.0, 200);
        }
        let gate = store.before.shut();
        let story = async {
            until("the offer", || store.before.is_reached()).await;
            assert_eq!(worker.delete("a").await.0, 200);
            until("the end of the context", || store.closed.load(Relaxed) == 1).await;
            gate.send(()).unwrap();
        };
        let (next, ()) = tokio::join!(accepted(&worker, first.clone()), story);
        let next = next.as_str().unwrap();
        assert_eq!(ask(&worker, "GET", "/sessions/a/data", next, Value::Null).await, (200, data));
        assert_eq!((worker.occupancy.live(), worker.sessions.len()), (1, 1));
        assert_eq!(worker.delete("a").await.0, 200);
        assert_eq!((worker.occupancy.live(), worker.sessions.len()), (0, 0));
    }
}

/// Two offers of one client overtake each other: the one whose token is good counts, whichever becomes known last.
#[tokio::test]
async fn of_two_on_the_way_the_one_with_the_good_token_counts() {
    let (worker, store) = gated::worker();
    let first = accepted(&worker, Value::Null).await;
    let old = pair(&worker).0;
    connect(&old);
    let gate = store.behind.shut();
    let story = async {
        until("the first offer", || store.behind.is_reached()).await;
        let newer = accepted(&worker, first.clone()).await;
        gate.send(()).unwrap();
        newer
    };
    let (_, newer) = tokio::join!(accepted(&worker, first.clone()), story);
    let live = worker.sessions.live(&"a".parse().unwrap()).unwrap();
    assert_eq!(json!(live.resume.unwrap().token.reveal()), newer, "what a drain would have it come back with");
    connect(&pair(&worker).1.unwrap());
    assert_eq!(over(&old).await, CloseReason::Moved);
    assert_eq!(worker.delete("a").await.0, 200);
    assert_eq!((worker.occupancy.live(), worker.sessions.len()), (0, 0));
}

/// The loop takes no commands: whoever ends the session waits, and others come meanwhile.
#[tokio::test(start_paused = true)]
async fn nobody_comes_or_arrives_beside_a_session_that_control_ends() {
    let (_idle, sessions) = Worker::sessions();
    let worker = Worker::with(sessions);
    let first = accepted(&worker, Value::Null).await;
    let second = accepted(&worker, first).await;
    let (old, new) = pair(&worker);
    let new = new.unwrap();
    let story = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let (status, body) = worker.offer_with("a", second.clone()).await;
        assert_eq!((status, &body["meta"]["error"]), (200, &json!("connection_closed")), "{body}");
        connect(&new);
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(pair(&worker).0.token(), old.token(), "the one that arrives is to end, too");
    };
    let ((status, body), ()) = tokio::join!(worker.delete("a"), story);
    assert_eq!((status, &body["meta"]["error"]), (503, &json!("no_capacity")));
    // It lives on, and so it may be left.
    accepted(&worker, second).await;
}

/// Between the proof and the end the id may have become another session's.
#[tokio::test]
async fn who_may_end_a_session_does_not_end_the_next_one_of_its_id() {
    let worker = Worker::new();
    let id = "a".parse().unwrap();
    accepted(&worker, Value::Null).await;
    let first = worker.sessions.session(&id).unwrap().context;
    assert_eq!(worker.delete("a").await.0, 200);
    accepted(&worker, Value::Null).await;
    assert_eq!(worker.sessions.end(&id, first, CloseReason::EndedByControl).await, Err(Failure::NotFound));
    assert_eq!(worker.sessions.close_track(&id, first, "0").await, Err(Failure::NotFound));
    assert_eq!((worker.occupancy.live(), pair(&worker).0.stage()), (1, Stage::Connecting));
}
