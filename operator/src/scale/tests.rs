use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kube::client::Body;
use streamfleet_process::config::Mistakes;
use streamfleet_scaling::{Phase, Stay};
use streamfleet_store::Gate;

use super::*;
use crate::doubles::{self, view};
use crate::facts::Trouble;
use crate::kind::Kind;
use crate::precedence::Conflict;
use crate::resource::Resource;
use crate::view::{Known, Version};

const NOW: Moment = Moment::from_millis(1_000_000_000);

fn seen(variants: &Value, pods: &[Value]) -> Seen {
    let spec = json!({
        "handler": { "name": "echo" }, "limits": { "timeLimitSeconds": 60 }, "routing": { "variants": variants },
    });
    let metadata = json!({ "namespace": "voice", "name": "a", "uid": "u", "generation": 1 });
    let object = serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap();
    let pods = pods.iter().map(|pod| PodFacts::of(&serde_json::from_value(pod.clone()).unwrap())).collect();
    let resource = Arc::new(Resource::of(&object).unwrap());
    Seen { pods, ..doubles::seen(resource) }
}

fn decided(seen: &Seen, workers: &[Worker<String>], arrived: u64, care: &mut Care, now: Moment) -> Scaling {
    care.judged = None;
    care.judge(&seen.resource).unwrap();
    let runs = Run::all(seen, care.prepared.as_deref(), care);
    let traffic = Traffic { arrived, ..Traffic::default() };
    Scaling::decide(runs, &Standing::Served, &seen.pods, workers, Some(traffic), care, now)
}

fn pod(name: &str, variant: &str, ending: bool) -> Value {
    let set = format!("{}-5d8f", worker("a", Some(variant).filter(|variant| *variant != "base")));
    let mut pod = json!({ "metadata": {
        "name": name, "uid": name, "creationTimestamp": "1970-01-12T00:00:00Z",
        "labels": { "streamfleet.dev/variant": variant },
        "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "uid": "r", "controller": true }],
    } });
    if ending {
        pod["metadata"]["deletionTimestamp"] = "1970-01-12T13:00:00Z".into();
    }
    pod
}

/// Whoever gave a variant half of the users instead of a tenth got as many workers as maxReplicas allows: its counters are the
/// service's of all time, times its share.
#[test]
fn another_weight_is_no_rush() {
    let mut care = Care::default();
    let at = |seconds| NOW + Duration::from_secs(seconds);
    let weight = |weight: u32| seen(&json!([{ "name": "b", "weight": weight }]), &[]);
    let _ = decided(&weight(10), &[], 100_000, &mut care, at(0));
    let _ = decided(&weight(10), &[], 100_200, &mut care, at(20));
    let rate = |care: &Care, variant: Option<&str>| care.scaling[&variant.map(str::to_owned)].arrivals();
    assert!((rate(&care, Some("b")) - 1.0).abs() < 0.01);
    let _ = decided(&weight(50), &[], 100_400, &mut care, at(40));
    assert!((rate(&care, Some("b")) - 1.0).abs() < 0.01, "{}", rate(&care, Some("b")));
    let _ = decided(&weight(50), &[], 100_500, &mut care, at(50));
    let (base, b) = (rate(&care, None), rate(&care, Some("b")));
    assert!(b > 1.0 && b <= 5.0 && (5.0..9.1).contains(&base), "from now on it has half: {base} {b}");
}

/// A Deployment that retires has pods of its own, whatever variant its labels name: those of another one do not go with it.
#[test]
fn who_goes_is_of_the_deployment_that_goes() {
    let mut seen = seen(&json!([{ "name": "b", "weight": 50 }]), &[pod("w", "b", false)]);
    let retiring = DeploymentFacts { variant: Some("b".to_owned()), replicas: 1, ..DeploymentFacts::default() };
    seen.deployments.insert("a-b-worker".to_owned(), retiring);
    let worker = Worker::serving("w".to_owned(), NOW - Duration::from_secs(90), Duration::from_secs(5), 3, 20);
    let scaling = decided(&seen, &[worker], 10, &mut Care::default(), NOW);
    assert_eq!(scaling.retiring(), ["a-b-worker"]);
    assert!(scaling.runs.iter().all(|run| run.wanted.drain.is_empty()), "{scaling:?}");
}

/// A variant of weight 0 finishes the calls that it has. maxReplicas is not what keeps it from more.
#[test]
fn who_is_to_have_no_calls_is_not_limited() {
    let variants = json!([{ "name": "b", "weight": 0 }]);
    let seen = seen(&variants, &[pod("w", "b", false)]);
    let worker = Worker::serving("w".to_owned(), NOW - Duration::from_secs(90), Duration::from_secs(5), 3, 20);
    let scaling = decided(&seen, &[worker], 10, &mut Care::default(), NOW);
    assert_eq!(scaling.limited(), None);
}

/// Pods whose Deployment is not ours to tell anything were deleted, and made anew, for ever.
#[test]
fn nobody_goes_who_would_come_again() {
    let removed = |has_deployment: bool, standing: &Standing| {
        let mut seen = seen(&json!([]), &[pod("w", "base", false)]);
        if has_deployment {
            let facts = DeploymentFacts { replicas: 1, existing: 1, ..DeploymentFacts::default() };
            seen.deployments.insert("a-worker".to_owned(), facts);
        }
        let mut care = Care::default();
        care.judge(&seen.resource).unwrap();
        let born = NOW - Duration::from_secs(90);
        let worker = Worker::serving("w".to_owned(), born, Duration::from_secs(5), 0, 20);
        let worker = Worker { phase: Phase::Draining, empty: true, stay: Stay::Leaving, ..worker };
        let runs = Run::all(&seen, care.prepared.as_deref(), &care);
        let traffic = Some(Traffic::default());
        let scaling = Scaling::decide(runs, standing, &seen.pods, &[worker], traffic, &mut care, NOW);
        scaling.runs[0].wanted.remove.len()
    };
    assert_eq!(removed(true, &Standing::Served), 1);
    assert_eq!(removed(false, &Standing::Served), 0);
    assert_eq!(removed(false, &Standing::Ending), 1, "once, as those that come are left alone");
}

/// What can be made is on its way, and a rollout shares out what it is told.
#[test]
fn only_what_cannot_be_made_is_withdrawn() {
    let withdrawn = |failure: bool, updated: i32| {
        let mut seen = seen(&json!([]), &[pod("w", "base", false)]);
        let failure = failure.then(|| Trouble { reason: "FailedCreate".to_owned(), message: "quota".to_owned() });
        let facts = DeploymentFacts {
            replicas: 5,
            existing: 1,
            updated,
            observed: true,
            failure,
            ..DeploymentFacts::default()
        };
        seen.deployments.insert("a-worker".to_owned(), facts);
        let mut care = Care::default();
        let worker = Worker::serving("w".to_owned(), NOW - Duration::from_secs(90), Duration::from_secs(5), 3, 20);
        let look = |care: &mut Care, after: u64| {
            decided(&seen, std::slice::from_ref(&worker), 0, care, NOW + Duration::from_secs(after))
        };
        let _ = look(&mut care, 0);
        look(&mut care, 400).runs[0].wanted.withdraw
    };
    assert_eq!(withdrawn(true, 1), 4);
    assert_eq!(withdrawn(false, 1), 0);
    assert_eq!(withdrawn(true, 0), 0);
}

/// Whatever has pods is drained when its service goes: one of a variant whose Deployment was deleted, too.
#[test]
fn who_has_no_deployment_is_drained_with_its_service() {
    let seen = seen(&json!([]), &[pod("w", "b", false)]);
    let worker = Worker::serving("w".to_owned(), NOW - Duration::from_secs(90), Duration::from_secs(5), 3, 20);
    let mut care = Care::default();
    let runs = Run::all(&seen, None, &care);
    let scaling = Scaling::decide(runs, &Standing::Ending, &seen.pods, &[worker], None, &mut care, NOW);
    assert_eq!(scaling.runs[0].wanted.drain.len(), 1);
}

/// Somebody else's service has the path of one that has calls. They go on, and its workers serve again when the path is its own.
#[test]
fn who_is_displaced_finishes_its_calls_and_comes_back() {
    let displaced = Standing::Displaced(Conflict { path: "/x".to_owned(), by: Key::new("voice", "older") });
    let born = NOW - Duration::from_secs(90);
    let serves = |name: &str, sessions| Worker::serving(name.to_owned(), born, Duration::from_secs(5), sessions, 20);
    let drains =
        |name: &str, sessions| Worker { phase: Phase::Draining, empty: sessions == 0, ..serves(name, sessions) };
    let mut care = Care::default();
    let mut wanted = |standing: &Standing, workers: &[Worker<String>]| {
        let pods: Vec<Value> = workers.iter().map(|worker| pod(&worker.id, "base", false)).collect();
        let mut seen = seen(&json!([]), &pods);
        let count = i32::try_from(pods.len()).unwrap();
        let facts = DeploymentFacts {
            replicas: count,
            existing: count,
            updated: count,
            observed: true,
            ..DeploymentFacts::default()
        };
        seen.deployments.insert("a-worker".to_owned(), facts);
        care.judge(&seen.resource).unwrap();
        let runs = Run::all(&seen, care.prepared.as_deref(), &care);
        let traffic = Some(Traffic::default());
        let mut scaling = Scaling::decide(runs, standing, &seen.pods, workers, traffic, &mut care, NOW);
        std::mem::take(&mut scaling.runs[0].wanted)
    };
    let why = "another service has its path".to_owned();
    let drain = vec![("busy".to_owned(), why.clone()), ("idle".to_owned(), why)];
    let nothing = Wanted::default();
    assert_eq!(wanted(&displaced, &[serves("busy", 3), serves("idle", 0)]), Wanted { drain, ..nothing.clone() });
    let remove = vec!["idle".to_owned()];
    assert_eq!(wanted(&displaced, &[drains("busy", 3), drains("idle", 0)]), Wanted { remove, ..nothing.clone() });
    assert_eq!(wanted(&displaced, &[drains("busy", 3)]), nothing, "however long it takes");
    let undrain = vec!["busy".to_owned()];
    assert_eq!(wanted(&Standing::Served, &[drains("busy", 3)]), Wanted { undrain, ..nothing });
}

/// The store had said that a worker is empty, and fell silent; meanwhile somebody put it back.
#[test]
fn nobody_is_drained_for_what_the_store_said_before_it_fell_silent() {
    let view = view("w", Gate::Draining, 0);
    let seen = seen(&json!([]), &[pod("w", "base", false)]);
    let mut care = Care { views: vec![view], ..Care::default() };
    let mut scaling = decided(&seen, &[], 0, &mut care, NOW);
    let drained = |steps: Steps| steps.then.iter().any(|step| matches!(step, Step::MarkDraining(..)));
    assert!(drained(scaling.steps(&seen, &mut care, Figures::Fresh, NOW, Instant::now())), "somebody has asked it to");
    assert!(!drained(scaling.steps(&seen, &mut care, Figures::Stale, NOW, Instant::now())));
}

/// An API server that answers everything with this status, and counts what it was asked.
fn operator(code: &Arc<AtomicU16>, asked: &Arc<AtomicU32>) -> Operator {
    let (code, asked) = (code.clone(), asked.clone());
    let server = tower::service_fn(move |request: http::Request<Body>| {
        asked.fetch_add(1, Ordering::Relaxed);
        let code = code.load(Ordering::Relaxed);
        let body = match code {
            200 if request.method() == http::Method::DELETE => {
                let mut pod = pod("w", "base", true);
                pod["metadata"]["labels"]["streamfleet.dev/service"] = "a".into();
                pod
            }
            200 => deployment(3),
            _ => {
                json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": "", "code": code })
            }
        };
        let answer = http::Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap();
        async move { Ok::<_, Infallible>(answer) }
    });
    doubles::operator(kube::Client::new(server, "voice"))
}

fn deployment(replicas: u32) -> Value {
    let owner = json!({ "apiVersion": "streamfleet.dev/v1alpha1", "kind": "StreamService", "name": "a", "uid": "u", "controller": true });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "namespace": "voice", "name": "a-worker", "uid": "d", "labels": { "streamfleet.dev/service": "a" },
            "ownerReferences": [owner] },
        "spec": { "replicas": replicas, "selector": {}, "template": {} },
    })
}

fn findings(standing: Standing, scaling: Scaling) -> Findings {
    Findings {
        standing,
        figures: Figures::Fresh,
        silence: None,
        traffic: None,
        workers: Vec::new(),
        scaling,
        faults: Vec::new(),
        now: NOW,
    }
}

/// A Deployment that there is, with so many pods wanted, and an operator that knows it.
fn there(operator: &Operator, replicas: u32) -> DeploymentFacts {
    let object = deployment(replicas);
    let facts = DeploymentFacts::of(&serde_json::from_value(object.clone()).unwrap());
    let item = Item::Object(
        Kind::Deployment,
        Key::new("voice", "a"),
        "a-worker".to_owned(),
        Known::of(&object),
        Some(facts.clone()),
    );
    operator.view.lock().put(item);
    facts
}

/// Whoever made a mistake in a specification lost a worker for good with each pod that was evicted, once an operator began that had
/// never read a better one.
#[tokio::test]
async fn what_cannot_be_read_keeps_its_workers() {
    let check = async |standing: Standing, asked_for: u32| {
        let (code, asked) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU32::new(0)));
        let operator = operator(&code, &asked);
        let mut seen = seen(&json!([]), &[pod("w", "base", false), pod("gone", "base", true)]);
        seen.deployments.insert("a-worker".to_owned(), there(&operator, 3));
        let mut care = Care { uid: "u".to_owned(), ..Care::default() };
        let runs = Run::all(&seen, None, &care);
        let scaling = Scaling::decide(runs, &standing, &seen.pods, &[], None, &mut care, NOW);
        let mut findings = findings(standing, scaling);
        assert!(operator.lower(&Key::new("voice", "a"), &seen, &mut findings, &mut care).await.is_ok());
        assert_eq!(asked.load(Ordering::Relaxed), asked_for, "{:?}", findings.standing);
    };
    check(Standing::Invalid(Mistakes::new()), 0).await;
    check(Standing::Ending, 1).await;
}

/// A policy that refused to have a pod deleted was asked every two seconds, and Events and metrics told of one removed worker after
/// the other.
#[tokio::test]
async fn what_is_refused_is_not_told_as_done() {
    let (code, asked) = (Arc::new(AtomicU16::new(403)), Arc::new(AtomicU32::new(0)));
    let operator = operator(&code, &asked);
    let key = Key::new("voice", "a");
    let seen = seen(&json!([]), &[pod("w", "base", false)]);
    let known = KnownPod { facts: seen.pods[0].clone(), version: Version::default() };
    operator.view.lock().put(Item::Pod(key.clone(), Box::new(known)));
    let (service, mut care) = ("voice/a".parse().unwrap(), Care::default());
    let look = async |care: &mut Care| {
        let mut scaling = decided(&seen, &[], 0, care, NOW);
        scaling.runs[0].wanted = Wanted { remove: vec!["w".to_owned()], ..Wanted::default() };
        let steps = scaling.steps(&seen, care, Figures::Fresh, NOW, Instant::now());
        let mut findings = findings(Standing::Served, scaling);
        assert!(operator.carry_out(&key, &service, &steps.then, &mut findings, care).await.is_ok());
        operator.count(&key, &findings);
        (findings.scaling.done.removed, findings.faults.len(), asked.load(Ordering::Relaxed))
    };
    assert_eq!(look(&mut care).await, (vec![], 1, 1));
    code.store(200, Ordering::Relaxed);
    assert_eq!(look(&mut care).await, (vec!["w".to_owned()], 0, 2));
    let is_ending = operator.view.lock().get(&key).unwrap().pods.values().all(|pod| pod.facts.ending);
    assert!(is_ending, "it is not deleted a second time");
    // A webhook that hangs is not waited for with each pod of each look.
    care.pods_rest = Some(Box::new(Rest::after(Fault::new(Word::PodRefused, "no answer"), Instant::now())));
    assert_eq!(look(&mut care).await, (vec![], 1, 2));
}

/// A policy that refuses a number of pods was asked every two seconds, and Events and metrics told of workers that nobody had made.
#[tokio::test]
async fn workers_that_are_refused_are_not_created() {
    let (code, asked) = (Arc::new(AtomicU16::new(403)), Arc::new(AtomicU32::new(0)));
    let operator = operator(&code, &asked);
    let key = Key::new("voice", "a");
    let mut seen = seen(&json!([]), &[]);
    seen.deployments.insert("a-worker".to_owned(), there(&operator, 1));
    let mut care = Care { uid: "u".to_owned(), ..Care::default() };
    let look = async |care: &mut Care| {
        let mut scaling = decided(&seen, &[], 0, care, NOW);
        scaling.runs[0].wanted.create = 2;
        let mut findings = findings(Standing::Served, scaling);
        assert!(operator.raise(&key, &mut findings, care).await.is_ok());
        (findings.scaling.created(), findings.faults.len(), asked.load(Ordering::Relaxed))
    };
    assert_eq!(look(&mut care).await, (0, 1, 1));
    assert_eq!(look(&mut care).await, (0, 1, 1), "it is told, and not asked again at once");
    assert!(care.replicas.is_empty());
    care.denied.values_mut().for_each(|denied| denied.wait.until = Instant::now());
    code.store(200, Ordering::Relaxed);
    assert_eq!(look(&mut care).await, (2, 0, 2));
    assert_eq!((care.replicas["a-worker"], care.denied.len()), (3, 0));
}

/// A drain that was over began anew with the pod's own grace, which is as long.
#[tokio::test]
async fn who_has_had_its_time_is_given_none_but_to_leave() {
    let asked = Arc::new(parking_lot::Mutex::new(Value::Null));
    let noted = asked.clone();
    let server = tower::service_fn(move |request: http::Request<Body>| {
        let noted = noted.clone();
        async move {
            *noted.lock() = serde_json::from_slice(&request.into_body().collect_bytes().await.unwrap()).unwrap();
            let answer = Body::from(br#"{"kind":"Status","status":"Success"}"#.to_vec());
            Ok::<_, Infallible>(http::Response::new(answer))
        }
    });
    let operator = doubles::operator(kube::Client::new(server, "voice"));
    let pod = PodId { name: "p".to_owned(), uid: "u".to_owned() };
    for (step, expected) in [(Step::Delete(pod.clone()), Value::Null), (Step::Expel(pod), 15.into())] {
        let done = operator.step(&Key::new("voice", "a"), &"voice/a".parse().unwrap(), &step).await;
        assert!(matches!(done, Ok(Done::Yes)));
        let asked = asked.lock();
        assert_eq!((&asked["gracePeriodSeconds"], &asked["preconditions"]["uid"]), (&expected, &"u".into()));
    }
}
