use std::convert::Infallible;
use std::sync::Arc;

use http::{Method, Request, Response};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use streamfleet_scaling::{Figures, Phase, Worker};

use super::*;
use crate::doubles::{self, NOW};
use crate::facts::DeploymentFacts;
use crate::names::{MANAGED_BY, SERVICE};
use crate::resource::Resource;
use crate::scale::{Run, Scaling, target};
use crate::status::Standing;
use crate::steps::Deeds;
use crate::view::{Item, Known};

/// What becomes of answers.
#[derive(Clone, Copy, PartialEq)]
enum Answers {
    Arrive,
    /// Somebody on the way says that there is no API server.
    Lost,
    Never,
}

/// A Deployment at an API server.
struct Server {
    replicas: i64,
    version: u32,
    answers: Answers,
    asked: u32,
    owner: Value,
}

impl Server {
    fn object(&self) -> Value {
        let owner = &self.owner;
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "namespace": "voice", "name": "a-worker", "uid": "d", "resourceVersion": self.version.to_string(),
                "labels": { MANAGED_BY.0: MANAGED_BY.1, SERVICE: "a" }, "ownerReferences": owner },
            "spec": { "replicas": self.replicas, "selector": {}, "template": {} },
        })
    }

    /// As the API server does it: what a patch names is what has to be there.
    fn answer(&mut self, method: &Method, patch: &Value) -> (u16, Value) {
        self.asked += 1;
        if method == Method::PATCH {
            let (there, named) = (self.object(), &patch["metadata"]);
            if ["uid", "resourceVersion"].iter().any(|key| named[*key] != there["metadata"][*key]) {
                return (409, Value::Null);
            }
            self.said(patch["spec"]["replicas"].as_i64().unwrap());
        }
        if self.answers == Answers::Lost { (503, Value::Null) } else { (200, self.object()) }
    }

    fn said(&mut self, replicas: i64) {
        self.replicas = replicas;
        self.version += 1;
    }
}

struct Bench {
    server: Arc<Mutex<Server>>,
    operator: Operator,
    care: Care,
}

impl Bench {
    /// Five pods are wanted, and everybody knows.
    fn new() -> Self {
        let owner = json!([{ "apiVersion": "streamfleet.dev/v1alpha1", "kind": "StreamService", "name": "a", "uid": "u", "controller": true }]);
        let server = Server { replicas: 5, version: 1, answers: Answers::Arrive, asked: 0, owner };
        let server = Arc::new(Mutex::new(server));
        let behind = server.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let behind = behind.clone();
            async move {
                let (head, body) = request.into_parts();
                let patch = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap_or_default();
                let (code, object) = behind.lock().answer(&head.method, &patch);
                if behind.lock().answers == Answers::Never {
                    std::future::pending::<()>().await;
                }
                let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": "", "code": code });
                let body = if code == 200 { object } else { status };
                Ok::<_, Infallible>(
                    Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap(),
                )
            }
        });
        let operator = doubles::operator(kube::Client::new(service, "voice"));
        let mut bench = Self { server, operator, care: Care { uid: "u".to_owned(), ..Care::default() } };
        bench.care.replicas.insert("a-worker".to_owned(), 5);
        bench.watch();
        bench
    }

    fn key() -> Key {
        Key::new("voice", "a")
    }

    /// The watch tells.
    fn watch(&self) {
        let object = self.server.lock().object();
        let facts = DeploymentFacts::of(&serde_json::from_value(object.clone()).unwrap());
        let known = Known::of(&object);
        let item = Item::Object(Kind::Deployment, Self::key(), "a-worker".to_owned(), known, Some(facts));
        self.operator.view.lock().put(item);
    }

    fn look(&self) -> (Seen, Findings) {
        let spec = json!({ "handler": { "name": "echo" }, "limits": { "timeLimitSeconds": 60 } });
        let metadata = json!({ "namespace": "voice", "name": "a", "uid": "u" });
        let object = serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap();
        let mut seen = doubles::seen(Arc::new(Resource::of(&object).unwrap()));
        let facts = self.operator.view.lock().get(&Self::key()).unwrap().deployments.get("a-worker").unwrap().clone();
        seen.deployments.insert("a-worker".to_owned(), facts);
        let runs = Run::all(&seen, None, &self.care);
        let scaling = Scaling { runs, want: 0, limited: None, wake: None, why: None, done: Deeds::default() };
        let findings = Findings {
            standing: Standing::Served,
            figures: Figures::Fresh,
            silence: None,
            traffic: None,
            workers: Vec::new(),
            scaling,
            faults: Vec::new(),
            now: NOW,
        };
        (seen, findings)
    }

    /// A look that asks for so many more pods. Returns whether the API server was there, and how many it has made by what it knows.
    async fn raise(&mut self, more: u32) -> (bool, u32) {
        let (_, mut findings) = self.look();
        findings.scaling.runs[0].wanted.create = more;
        let done = self.operator.raise(&Self::key(), &mut findings, &mut self.care).await;
        (done.is_ok(), findings.scaling.created())
    }

    fn server(&self) -> (i64, u32) {
        let server = self.server.lock();
        (server.replicas, server.asked)
    }
}

/// Pods that had been made by a request whose answer was lost were taken away by a ReplicaSet, and not by a drain.
#[tokio::test(start_paused = true)]
async fn a_number_of_unknown_outcome_is_not_taken_back() {
    for answers in [Answers::Lost, Answers::Never] {
        let mut bench = Bench::new();
        bench.server.lock().answers = answers;
        assert_eq!(bench.raise(2).await, (false, 0));
        assert_eq!((bench.server(), bench.care.replicas.len()), ((7, 1), 0));
        bench.server.lock().answers = Answers::Arrive;
        bench.watch();
        assert_eq!(bench.raise(0).await, (true, 0));
        assert_eq!((bench.server(), bench.care.replicas["a-worker"]), ((7, 1), 7));
    }
}

#[tokio::test]
async fn a_number_is_said_over_what_is_known_and_over_nothing_else() {
    let check = async |meanwhile: fn(&mut Server), made: u32, expected: (i64, u32)| {
        let mut bench = Bench::new();
        meanwhile(&mut bench.server.lock());
        assert_eq!(bench.raise(2).await, (true, made));
        assert_eq!(bench.server(), expected);
    };
    check(|_| {}, 2, (7, 1)).await;
    // Only its status has changed, with a pod that came or went.
    check(|server| server.version += 1, 2, (7, 3)).await;
    // `kubectl scale`, or a leader before.
    check(|server| server.said(9), 0, (9, 2)).await;
}

/// The ReplicaSet would choose among pods that have calls.
#[tokio::test]
async fn nothing_is_lowered_that_somebody_has_raised() {
    let mut bench = Bench::new();
    let (seen, mut findings) = bench.look();
    findings.scaling.runs[0].removed = 1;
    bench.server.lock().said(9);
    bench.watch();
    let (key, care) = (Bench::key(), &mut bench.care);
    assert!(bench.operator.raise(&key, &mut findings, care).await.is_ok());
    assert_eq!((findings.scaling.runs[0].target, bench.server.lock().asked), (9, 0), "the next look decides");
    findings.scaling.runs[0].target = 5;
    assert!(bench.operator.lower(&key, &seen, &mut findings, care).await.is_ok());
    assert_eq!(bench.server(), (9, 0));
}

/// `kubectl delete --cascade=orphan`: pods were deleted, and made anew by a Deployment that nobody told to have fewer.
#[tokio::test]
async fn what_was_left_behind_goes_to_zero_and_another_s_does_not() {
    let check = async |owner: Value, expected: (i64, u32)| {
        let mut bench = Bench::new();
        bench.server.lock().owner = owner;
        bench.watch();
        let (seen, mut findings) = bench.look();
        findings.standing = Standing::Ending;
        assert!(bench.operator.lower(&Bench::key(), &seen, &mut findings, &mut bench.care).await.is_ok());
        assert_eq!(bench.server(), expected);
    };
    check(Value::Null, (0, 1)).await;
    check(json!([{ "kind": "App", "name": "x", "uid": "x", "controller": true }]), (5, 0)).await;
}

/// Six of ten that a quota had let be made: for each that went another one came, and none went at last whose places nobody could fill.
#[tokio::test]
async fn what_was_asked_for_in_vain_is_withdrawn_and_no_pod_goes() {
    let check = async |withdraw: u32, pods: usize, existing: i32, removed: i32, expected: (i64, u32)| {
        let mut bench = Bench::new();
        let (mut seen, mut findings) = bench.look();
        for n in 0..pods {
            let mut pod = doubles::pod(&format!("w{n}"), crate::facts::Stage::Running);
            pod.deployment = Some("a-worker".to_owned());
            seen.pods.push(pod);
        }
        let run = &mut findings.scaling.runs[0];
        run.facts.as_mut().unwrap().existing = existing;
        (run.wanted.withdraw, run.removed) = (withdraw, removed);
        assert!(bench.operator.lower(&Bench::key(), &seen, &mut findings, &mut bench.care).await.is_ok());
        assert_eq!(bench.server(), expected);
        assert_eq!(i64::from(bench.care.replicas["a-worker"]), expected.0);
    };
    check(0, 3, 3, 0, (5, 0)).await;
    check(2, 3, 3, 0, (3, 1)).await;
    check(1, 3, 3, 0, (4, 1)).await;
    check(5, 0, 0, 0, (0, 1)).await;
    // With one that goes in the same look.
    check(2, 3, 3, 1, (2, 1)).await;
    // One has come meanwhile, by what either knows.
    check(2, 4, 3, 0, (4, 1)).await;
    check(2, 3, 4, 0, (4, 1)).await;
    check(2, 6, 6, 0, (5, 0)).await;
}

/// A policy that refuses fewer pods is not answered by deleting one after the other, each of which is made anew.
#[tokio::test]
async fn who_may_not_be_told_to_have_fewer_keeps_its_pods() {
    let mut bench = Bench::new();
    let wait = Wait::after(None, Instant::now(), 0.5);
    let mut removed_with = |denied: Option<i32>| {
        bench.care.denied.clear();
        if let Some(replicas) = denied {
            let denial = Denial { replicas, wait, fault: Fault::new(Word::ObjectRefused, "no") };
            bench.care.denied.insert("a-worker".to_owned(), Box::new(denial));
        }
        let (seen, _) = bench.look();
        let worker = Worker {
            phase: Phase::Draining,
            empty: true,
            ..Worker::serving("w".to_owned(), NOW, std::time::Duration::ZERO, 0, 20)
        };
        let mut pod = doubles::pod("w", crate::facts::Stage::Running);
        pod.deployment = Some("a-worker".to_owned());
        let runs = Run::all(&seen, None, &bench.care);
        let scaling = Scaling::decide(runs, &Standing::Ending, &[pod], &[worker], None, &mut bench.care, NOW);
        scaling.runs[0].wanted.remove.len()
    };
    assert_eq!(removed_with(None), 1);
    assert_eq!(removed_with(Some(4)), 0);
    assert_eq!(removed_with(Some(6)), 1, "more pods were refused");
}

#[test]
fn how_many_there_shall_be_until_it_is_decided() {
    let check = |said: Option<i32>, there: Option<(i32, i32)>, pods: i32, expected: i32| {
        let facts =
            there.map(|(replicas, existing)| DeploymentFacts { replicas, existing, ..DeploymentFacts::default() });
        assert_eq!(target(said, facts.as_ref(), pods), expected, "{said:?} {there:?} {pods}");
    };
    check(None, Some((5, 5)), 5, 5);
    check(Some(5), Some((5, 5)), 5, 5);
    check(Some(5), Some((5, 6)), 6, 5);
    // By hand: fewer are put back, more are drained; those that nobody has made are not made.
    check(Some(5), Some((3, 5)), 5, 5);
    check(Some(5), Some((9, 9)), 9, 9);
    check(Some(5), Some((9, 5)), 7, 7);
    check(Some(5), Some((9, 8)), 5, 8);
    check(Some(5), Some((5_000, 5)), 5, 5);
    // Its labels were taken away, or it was deleted and its pods were not.
    check(None, None, 3, 3);
    check(Some(5), None, 3, 5);
    check(None, None, 0, 0);
}
