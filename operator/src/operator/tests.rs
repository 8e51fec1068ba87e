use std::convert::Infallible;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use kube::client::Body;
use serde_json::json;

use super::*;
use crate::doubles;
use crate::resource::Resource;

fn service(name: &str) -> Item {
    let spec = json!({ "handler": { "name": "echo" }, "limits": { "timeLimitSeconds": 60 } });
    let metadata = json!({ "namespace": "voice", "name": name, "uid": name, "generation": 1 });
    let object = serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap();
    Item::Service(Resource::of(&object).unwrap())
}

/// An operator whose API server answers nobody before it is let.
fn with_slow_server(asked: &Arc<AtomicU32>, answer: &Arc<Notify>) -> Arc<Operator> {
    let (asked, answer) = (asked.clone(), answer.clone());
    let server = tower::service_fn(move |_: http::Request<Body>| {
        asked.fetch_add(1, Ordering::Relaxed);
        let answer = answer.clone();
        async move {
            answer.notified().await;
            let said = json!({ "kind": "Status", "status": "Failure", "message": "no", "reason": "", "code": 409 });
            let body = Body::from(said.to_string().into_bytes());
            Ok::<_, Infallible>(http::Response::builder().status(409).body(body).unwrap())
        }
    });
    Arc::new(doubles::operator(kube::Client::new(server, "voice")))
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// What another leader had decided in a pause was undone by the first one, which went by what it had said before.
#[test]
fn what_was_said_before_a_pause_is_not_held_to() {
    let now = Instant::now();
    let at = |seconds| now + Duration::from_secs(seconds);
    let check = |steps: &[(Option<u64>, u64, bool)]| {
        let mut tenure = Tenure::default();
        for (until, now, expected) in steps {
            assert_eq!(tenure.hear(until.map(at), at(*now)), *expected, "{until:?} at {now} of {steps:?}");
        }
    };
    check(&[(None, 0, false), (Some(10), 1, false), (Some(12), 3, false), (Some(12), 11, false)]);
    // It was over before it was renewed.
    check(&[(Some(10), 0, false), (Some(30), 20, true), (Some(30), 21, false)]);
    // It was lost, and had again.
    check(&[(Some(10), 0, false), (None, 5, true), (Some(30), 20, false)]);
    let mut care = Care::default();
    care.replicas.insert("a-worker".to_owned(), 5);
    care.paused();
    assert!(care.replicas.is_empty());
}

/// A write that was under way when an operator stopped was dropped, and obeyed when the next one acted already.
#[tokio::test(start_paused = true)]
async fn what_is_under_way_is_awaited_and_nothing_is_begun() {
    let (asked, answer, stop) = (Arc::default(), Arc::default(), CancellationToken::new());
    let operator = with_slow_server(&asked, &answer);
    for name in ["a", "b"] {
        operator.put(service(name));
    }
    operator.told_all(Some("voice"));
    let mut running = JoinSet::new();
    running.spawn(operator.clone().run(NonZeroUsize::MIN, stop.clone()));
    settle().await;
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    stop.cancel();
    settle().await;
    assert!(running.try_join_next().is_none(), "a webhook is asked");
    answer.notify_one();
    tokio::time::timeout(Duration::from_secs(1), running.join_next()).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1, "nothing is written after that");
}

/// Thirty services whose webhooks hung held all slots, and others got their workers a minute late.
#[tokio::test(start_paused = true)]
async fn who_is_not_answered_in_time_leaves_room_for_others() {
    let (asked, answer) = (Arc::default(), Arc::default());
    let operator = with_slow_server(&asked, &answer);
    let before = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
    for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i"] {
        let (key, mut due) = (Key::new("voice", name), operator.due.lock());
        due.wake(&key, before);
        due.take(before, Lane::Slow).unwrap();
        due.done(&key, Some(before), Lane::Slow);
        drop(due);
        operator.put(service(name));
    }
    operator.view.lock().told_all(Some("voice"));
    let mut running = JoinSet::new();
    running.spawn(operator.clone().run(NonZeroUsize::new(8).unwrap(), CancellationToken::new()));
    settle().await;
    assert_eq!(asked.load(Ordering::Relaxed), 2, "a quarter");
    operator.put(service("healthy"));
    settle().await;
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

/// What nobody can read can be deleted.
#[tokio::test]
async fn a_service_that_is_too_deep_is_let_go() {
    let deep = format!("{}7{}", "[".repeat(3_000), "]".repeat(3_000));
    let object = |finalizers: &str| {
        let metadata = format!(
            r#""name":"a","namespace":"voice","uid":"u","resourceVersion":"1","deletionTimestamp":"2026-01-01T00:00:00Z","finalizers":{finalizers}"#
        );
        format!(r#"{{"metadata":{{{metadata}}},"spec":{{"handler":{{"name":"echo","config":{deep}}}}}}}"#)
    };
    let written: Arc<Mutex<Vec<String>>> = Arc::default();
    let (noted, answer) = (written.clone(), object("[]"));
    let server = tower::service_fn(move |request: http::Request<Body>| {
        let (noted, answer) = (noted.clone(), answer.clone());
        async move {
            let what = format!("{} {}", request.method(), request.uri().path());
            let body = Body::collect_bytes(request.into_body()).await.unwrap();
            noted.lock().push(format!("{what} {}", String::from_utf8_lossy(&body)));
            Ok::<_, Infallible>(http::Response::new(Body::from(answer.into_bytes())))
        }
    });
    let operator = doubles::operator(kube::Client::new(server, "voice"));
    let ours = serde_json::from_str(&object(&json!([crate::names::FINALIZER]).to_string())).unwrap();
    operator.put(Item::Service(Resource::of(&ours).unwrap()));
    operator.told_all(None);
    operator.look(&Key::new("voice", "a"), &mut Care::default()).await.unwrap();
    let written = written.lock();
    let is_let_go = |line: &String| {
        line.starts_with("PATCH ") && line.contains("/streamservices/a ") && line.contains(r#""finalizers":[]"#)
    };
    assert!(written.iter().any(is_let_go), "{written:?}");
}
