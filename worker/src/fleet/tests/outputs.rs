use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use streamfleet_session::CloseReason;
use streamfleet_store::Ticket;

use super::world::{Ground, World, id};
use crate::fleet::{Elsewhere, Follower, Owned as _};
use crate::history::{Following, History};

/// The ids and data of a piece of an event stream.
fn events(text: &str) -> Vec<(String, String)> {
    let line = |event: &str, name: &str| {
        event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned).unwrap_or_default()
    };
    let all = text.split("\n\n").filter(|event| event.starts_with("id: "));
    all.map(|event| (line(event, "id: "), line(event, "data: "))).collect()
}

fn data(events: &[(String, String)]) -> Vec<&str> {
    events.iter().map(|(_, data)| data.as_str()).collect()
}

async fn follower(at: &World, session: &str, seen: Option<&str>) -> Box<Follower> {
    at.until("the store knows of outputs", async |at| {
        at.member.outputs(&id(session), None).await.unwrap().is_some_and(|read| read.last > 0)
    })
    .await;
    let read = at.member.outputs(&id(session), seen).await.unwrap().unwrap();
    match at.member.follow(&id(session), &read, seen) {
        Elsewhere::Open(follower) => follower,
        other => panic!("{other:?}"),
    }
}

/// What comes, up to so many outputs.
async fn next(follower: &mut Follower, count: usize) -> Vec<(String, String)> {
    let mut all = Vec::new();
    while all.len() < count {
        let piece = tokio::time::timeout(Duration::from_secs(30), follower.next()).await.expect("nothing comes");
        all.extend(events(&piece.expect("it has ended")));
    }
    all
}

async fn here(history: &Arc<History>, seen: Option<&str>) -> Vec<(String, String)> {
    let Following::Open(mut reader) = history.follow(seen) else { panic!("it is over") };
    events(&reader.next().await.unwrap())
}

/// As the session's own task does.
async fn go_on(at: &World, session: &str) -> Arc<History> {
    let (history, context) = (at.owned.history(session), at.live(session).await.unwrap().context);
    history.adopt(at.member.earlier(context).await.unwrap());
    history
}

pub(super) async fn any_worker_reads_them_and_they_outlive_their_worker(ground: Ground) {
    let (a, b) = (ground.worker("a").await, ground.worker("b").await);
    let token = a.place(1, "s").await.unwrap();
    a.until("active", async |a| a.active_at("s").await.is_some()).await;
    let history = a.owned.history("s");
    let _writing = history.write();
    for n in 1..=70 {
        history.push(&json!(n)).unwrap();
    }
    let mut reader = follower(&b, "s", None).await;
    let first = next(&mut reader, 70).await;
    assert_eq!((data(&first)[0], data(&first)[69], first.len()), ("1", "70", 70));
    assert_eq!(here(&history, None).await[..], first[..], "what is read here and there has one name");
    history.push(&json!("late")).unwrap();
    let late = next(&mut reader, 1).await;
    assert_eq!(data(&late), ["\"late\""]);
    a.kill().await;
    b.until("reaped", async |b| b.reason("s").await == Some(CloseReason::WorkerLost)).await;
    assert_eq!(reader.next().await, None, "the stream ends with its session");
    let rest = next(&mut *follower(&b, "s", Some(&first[68].0)).await, 2).await;
    assert_eq!(data(&rest), ["70", "\"late\""], "the rest is there when its worker is not");
    let over = b.member.outputs(&id("s"), Some(&late[0].0)).await.unwrap().unwrap();
    assert!(matches!(b.member.follow(&id("s"), &over, Some(&late[0].0)), Elsewhere::Over));
    // Its client comes to another worker with what it has seen.
    b.resume(2, "s", Some(token)).await.unwrap();
    b.until("active again", async |b| b.active_at("s").await.as_deref() == Some("b")).await;
    let history = b.owned.history("s");
    let _writing = history.write();
    history.push(&json!("before it is known what came before")).unwrap();
    let history = go_on(&b, "s").await;
    history.push(&json!("new")).unwrap();
    let again = here(&history, Some(&first[69].0)).await;
    assert_eq!(data(&again), ["\"late\"", "\"before it is known what came before\"", "\"new\""]);
    assert_eq!(data(&here(&history, Some(&again[0].0)).await), ["\"before it is known what came before\"", "\"new\""]);
    // And a third who reads it elsewhere, by the names of the first.
    let c = ground.worker("c").await;
    let read = next(&mut *follower(&c, "s", Some(&late[0].0)).await, 2).await;
    assert_eq!(data(&read), data(&again)[1..]);
}

pub(super) async fn a_store_that_has_lost_them_is_given_them_again(ground: Ground) {
    let (a, b) = (ground.worker("a").await, ground.worker("b").await);
    a.place(1, "s").await.unwrap();
    let history = a.owned.history("s");
    let _writing = history.write();
    let all: Vec<String> = (1..=80).map(|n: u32| n.to_string()).collect();
    for n in 1..=80 {
        history.push(&json!(n)).unwrap();
    }
    let told = async |b: &World, count: u64| {
        b.member.outputs(&id("s"), None).await.unwrap().is_some_and(|read| read.last == count)
    };
    b.until("all are told", async |b| told(b, 80).await).await;
    ground.forget().await;
    b.until("all are told again", async |b| b.active_at("s").await.is_some() && told(b, 80).await).await;
    assert_eq!(data(&next(&mut *follower(&b, "s", None).await, 80).await), all);
    assert_eq!(a.member.journal().waiting(), 0);
    // What is said last is told before the end is.
    history.push(&json!("bye")).unwrap();
    drop(_writing);
    a.owned.end(Ticket::from_random(1), CloseReason::ClientClosed, None).await;
    b.until("over", async |b| b.reason("s").await == Some(CloseReason::ClientClosed)).await;
    assert!(told(&b, 81).await);
}

pub(super) async fn a_client_that_moves_goes_on_where_it_was(ground: Ground) {
    let (a, b) = (ground.worker("a").await, ground.worker("b").await);
    let token = a.place(1, "s").await.unwrap();
    a.until("active", async |a| a.active_at("s").await.is_some()).await;
    let history = a.owned.history("s");
    let _writing = history.write();
    history.push(&json!(1)).unwrap();
    let seen = next(&mut *follower(&b, "s", None).await, 1).await;
    b.resume(2, "s", Some(token)).await.unwrap();
    b.until("it has moved", async |b| b.active_at("s").await.as_deref() == Some("b")).await;
    let next_history = go_on(&b, "s").await;
    let _writing = next_history.write();
    next_history.push(&json!(2)).unwrap();
    b.until("told", async |b| b.member.outputs(&id("s"), None).await.unwrap().is_some_and(|read| read.last == 2)).await;
    // The session that is left behind does not know it yet.
    history.push(&json!("too late")).unwrap();
    a.until("refused", async |a| a.member.journal().waiting() == 0).await;
    assert_eq!(data(&here(&next_history, Some(&seen[0].0)).await), ["2"]);
    let c = ground.worker("c").await;
    assert_eq!(data(&next(&mut *follower(&c, "s", Some(&seen[0].0)).await, 1).await), ["2"]);
}
