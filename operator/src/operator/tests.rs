use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use serde_json::json;
use streamfleet_process::config::Mistakes;
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, SpanRef};
use tracing_subscriber::{Layer, Registry};

use super::*;
use crate::doubles;
use crate::names::{FINALIZER, MANAGED_BY, SERVICE};
use crate::resource::Resource;
use crate::view::KnownPod;

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
    let ours = serde_json::from_str(&object(&json!([FINALIZER]).to_string())).unwrap();
    operator.put(Item::Service(Resource::of(&ours).unwrap()));
    operator.told_all(None);
    operator.look(&Key::new("voice", "a"), &mut Care::default()).await.unwrap();
    let written = written.lock();
    let is_let_go = |line: &String| {
        line.starts_with("PATCH ") && line.contains("/streamservices/a ") && line.contains(r#""finalizers":[]"#)
    };
    assert!(written.iter().any(is_let_go), "{written:?}");
}

/// What a span says.
#[derive(Default)]
struct Words(HashMap<&'static str, String>);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

/// The spans that have ended, each once: of which service, its name behind those that it is in, and the outcome.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<BTreeSet<String>>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut words = Words::default();
        attributes.record(&mut words);
        context.span(id).unwrap().extensions_mut().insert(words);
    }
    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        values.record(context.span(id).unwrap().extensions_mut().get_mut::<Words>().unwrap());
    }
    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        let word = |span: &SpanRef<'_, S>, name: &str| {
            let extensions = span.extensions();
            extensions.get::<Words>().and_then(|words| words.0.get(name).cloned()).unwrap_or_default()
        };
        let names: Vec<&str> = span.scope().from_root().map(|span| span.name()).collect();
        let of = span.scope().from_root().next().map(|root| word(&root, "service")).unwrap_or_default();
        self.0.lock().insert(format!("{of} {} {}", names.join("/"), word(&span, "outcome")));
    }
}

/// A trace tells of each look what it was about and what has become of it, part by part.
#[tokio::test]
async fn looks_and_their_parts_are_traced() {
    let recorder = Recorder::default();
    // With one subscriber alone a span that another thread reaches first would be taken for one that nobody wants, for good.
    drop(tracing::subscriber::set_global_default(Registry::default()));
    let _recording = tracing::subscriber::set_default(Registry::default().with(recorder.clone()));
    // It takes what is said of a service's status, and nothing else.
    let server = tower::service_fn(|request: http::Request<Body>| async move {
        let is_status = request.uri().path().ends_with("/status");
        let answer = if is_status {
            json!({ "apiVersion": streamfleet_service::API_VERSION, "kind": streamfleet_service::KIND, "metadata": {}, "spec": {} })
        } else {
            json!({ "kind": "Status", "status": "Failure", "message": "no", "reason": "", "code": 403 })
        };
        let body = Body::from(answer.to_string().into_bytes());
        Ok::<_, Infallible>(http::Response::builder().status(if is_status { 200 } else { 403 }).body(body).unwrap())
    });
    let operator = Arc::new(doubles::operator(kube::Client::new(server, "voice")));
    let (Item::Service(known), Item::Service(new)) = (service("known"), service("new")) else { unreachable!() };
    let Item::Service(wrong) = service("wrong") else { unreachable!() };
    let mut mistakes = Mistakes::new();
    mistakes.push("spec", "wrong");
    operator.put(Item::Service(Resource { finalizers: vec![FINALIZER.to_owned()], ..known }));
    operator.put(Item::Service(new));
    operator.put(Item::Service(Resource { said: Err(mistakes), ..wrong }));
    // A pod that is over is to be deleted.
    let owner = json!({ "kind": "ReplicaSet", "name": "known-worker-5d8f", "uid": "r", "controller": true });
    let labels = json!({ MANAGED_BY.0: MANAGED_BY.1, SERVICE: "known" });
    let metadata =
        json!({ "name": "p", "namespace": "voice", "uid": "p", "labels": labels, "ownerReferences": [owner] });
    let pod: Pod = serde_json::from_value(json!({ "metadata": metadata, "status": { "phase": "Failed" } })).unwrap();
    operator.put(Item::Pod(Key::new("voice", "known"), Box::new(KnownPod::of(&pod))));
    operator.told_all(None);
    let (mut running, stop) = (JoinSet::new(), CancellationToken::new());
    running.spawn(operator.run(NonZeroUsize::MIN, stop.clone()));
    let expected: BTreeSet<String> = [
        "voice/known look error",
        "voice/known look/store ok",
        "voice/known look/apply error",
        "voice/known look/steps error",
        "voice/known look/status ok",
        "voice/known look/event error",
        "voice/new look error",
        "voice/new look/store ok",
        "voice/new look/finalizers error",
        "voice/new look/status ok",
        "voice/new look/event error",
        "voice/wrong look invalid",
        "voice/wrong look/store ok",
        "voice/wrong look/status ok",
        "voice/wrong look/event error",
    ]
    .map(str::to_owned)
    .into();
    let looks = || recorder.0.lock().iter().filter(|span| span.contains(" look ")).count();
    let all_are_looked_at = async {
        while looks() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all_are_looked_at).await.expect("a look each");
    stop.cancel();
    while running.join_next().await.is_some() {}
    assert_eq!(*recorder.0.lock(), expected);
}
