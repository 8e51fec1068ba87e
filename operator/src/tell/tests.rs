use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use streamfleet_scaling::Moment;
use streamfleet_store::Gate;

use super::*;
use crate::doubles::NOW;
use crate::status::Standing;
use crate::steps::{PodId, Step};

fn status(kind: &str, is: &str, reason: &str) -> StreamServiceStatus {
    let condition = Condition {
        type_: kind.to_owned(),
        status: is.to_owned(),
        reason: reason.to_owned(),
        message: "a sentence".to_owned(),
        observed_generation: None,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    };
    StreamServiceStatus { conditions: vec![condition], ..StreamServiceStatus::default() }
}

#[test]
fn what_is_told_of_conditions() {
    let check = |before: Option<(&str, &str)>, after: (&str, &str, &str), expected: &[(Tone, &str)]| {
        let (kind, is, reason) = after;
        let before = before.map_or_else(StreamServiceStatus::default, |(is, reason)| status(kind, is, reason));
        let notes = transitions(&stands(&before), &status(kind, is, reason));
        let notes: Vec<_> = notes.iter().map(|note| (note.tone, note.reason.as_str())).collect();
        assert_eq!(notes, expected, "{after:?}");
    };
    check(None, ("Ready", "False", "NoWorkers"), &[]);
    check(None, ("Ready", "False", "Invalid"), &[(Tone::Warning, "Invalid")]);
    check(Some(("False", "Invalid")), ("Ready", "False", "Invalid"), &[]);
    check(None, ("Degraded", "False", "AsExpected"), &[]);
    check(Some(("False", "AsExpected")), ("Degraded", "True", "ErrImagePull"), &[(Tone::Warning, "ErrImagePull")]);
    check(
        Some(("True", "ErrImagePull")),
        ("Degraded", "True", "ImagePullBackOff"),
        &[(Tone::Warning, "ImagePullBackOff")],
    );
    check(Some(("True", "ErrImagePull")), ("Degraded", "False", "AsExpected"), &[(Tone::Normal, "NotDegraded")]);
    check(None, ("ScalingLimited", "True", "Starting"), &[]);
    check(None, ("ScalingLimited", "True", "MaxReplicas"), &[(Tone::Warning, "MaxReplicas")]);
}

#[test]
fn a_node_that_goes_is_told_of_once() {
    use crate::doubles::{NOW, pod};
    let on = |pod: PodFacts| PodFacts { node: Some("n".to_owned()), ..pod };
    let metadata = json!({ "namespace": "voice", "name": "s", "uid": "u", "generation": 1 });
    let spec = json!({ "handler": { "name": "echo" }, "limits": { "timeLimitSeconds": 60 } });
    let object = serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap();
    let resource = std::sync::Arc::new(Resource::of(&object).unwrap());
    let going_for = BTreeMap::from([("n".to_owned(), "cordoned".to_owned())]);
    let pods = vec![on(pod("a", Stage::Ready(NOW))), on(pod("b", Stage::Ready(NOW)))];
    let mut seen = Seen { pods, going: going_for, ..crate::doubles::seen(resource) };
    let mut care = Care::default();
    let told = |seen: &Seen, care: &mut Care| going(seen, care).len();
    assert_eq!((told(&seen, &mut care), told(&seen, &mut care)), (1, 0));
    (seen.pods[0].marks.draining, seen.pods[0].marks.reason) = (true, Some("its node goes".to_owned()));
    assert_eq!(told(&seen, &mut Care::default()), 0, "by another operator");
}

/// A transition was counted with each look until the status was written, which is paced: "x12" of two conflicts.
#[tokio::test]
async fn a_transition_is_told_once_however_late_its_status_is_written() {
    use crate::precedence::Conflict;
    use streamfleet_scaling::Figures;

    let server = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        let body = json!({ "kind": "Status", "status": "Failure", "code": 409, "message": "no" }).to_string();
        let answer = http::Response::builder().status(409).body(kube::client::Body::from(body.into_bytes()));
        Ok::<_, std::convert::Infallible>(answer.unwrap())
    });
    let operator = crate::doubles::operator(kube::Client::new(server, "voice"));
    let key = Key::new("voice", "s");
    let metadata = json!({ "namespace": "voice", "name": "s", "uid": "u", "generation": 1 });
    let spec = json!({ "handler": { "name": "echo" }, "limits": { "timeLimitSeconds": 60 } });
    let object = serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap();
    let resource = std::sync::Arc::new(Resource::of(&object).unwrap());
    let seen = crate::doubles::seen(resource);
    let mut care = Care::default();
    let conflict = || Standing::Displaced(Conflict { path: "/x".to_owned(), by: Key::new("voice", "other") });
    let look = async |standing: Standing, care: &mut Care| {
        let now = NOW;
        let scaling = Scaling::decide(Vec::new(), &standing, &[], &[], None, care, now);
        let (figures, workers, faults) = (Figures::Fresh, Vec::new(), Vec::new());
        let findings = Findings { standing, figures, silence: None, traffic: None, workers, scaling, faults, now };
        operator.tell(&key, &seen, &findings, care).await;
    };
    for _ in 0..5 {
        look(conflict(), &mut care).await;
    }
    look(Standing::Served, &mut care).await;
    look(conflict(), &mut care).await;
    let text = "/x is served by voice/other, which was there before";
    let note = Note::warning(Reason::Told("PathConflict".to_owned()), "Reconcile", text);
    let later = Instant::now() + Duration::from_secs(60);
    let Telling::Again(_, times) = care.ledger.tell("s", &note, 0, later) else { panic!("it was not told") };
    assert_eq!(times, 3, "two conflicts, and this one");
}

/// The store was away, and that was told of each condition, with other words for each.
#[test]
fn what_stands_in_the_way_of_several_is_told_once() {
    let both = |is: &str, reason: &str| {
        let conditions = ["Degraded", "ScalingLimited"].map(|kind| status(kind, is, reason).conditions.remove(0));
        StreamServiceStatus { conditions: conditions.into(), ..StreamServiceStatus::default() }
    };
    let (well, away) = (both("False", "AsExpected"), both("True", "StoreUnavailable"));
    let reasons = |before: &StreamServiceStatus, after: &StreamServiceStatus| {
        transitions(&stands(before), after).into_iter().map(|note| note.reason.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(reasons(&well, &away), ["StoreUnavailable"]);
    let mut later = away.clone();
    later.conditions.extend(status("DrainBlocked", "True", "StoreUnavailable").conditions);
    assert_eq!(reasons(&away, &later), [""; 0], "it has been told");
    assert_eq!(reasons(&away, &well), ["NotDegraded"]);
}

#[test]
fn rollouts_are_told_from_beginning_to_end() {
    let facts = |updated, existing, observed| {
        vec![DeploymentFacts { updated, existing, observed, ..DeploymentFacts::default() }]
    };
    let mut rolling = None;
    let mut reason = |facts: Vec<DeploymentFacts>| rollout(&mut rolling, &facts).map(|note| note.reason);
    assert_eq!(reason(facts(0, 3, true)), None, "nobody knows what was told before");
    assert_eq!(reason(facts(3, 3, true)), Some(Word::RolledOut.into()));
    assert_eq!(reason(facts(3, 3, false)), None, "another number of pods");
    assert_eq!(reason(facts(0, 3, true)), Some(Word::RollingOut.into()));
    assert_eq!(reason(facts(1, 4, true)), None);
    assert_eq!(reason(facts(1, 4, false)), None, "still");
    assert_eq!(reason(facts(3, 3, true)), Some(Word::RolledOut.into()));
}

/// `kubectl scale` said "scaled", and nothing else was ever said.
#[test]
fn a_number_that_counts_for_nothing_is_told_once() {
    let resource = |mode: &str, replicas: u32, is_new: bool| {
        let autoscaling = json!({ "mode": mode, "replicas": replicas });
        let spec =
            json!({ "handler": { "name": "echo" }, "limits": { "timeLimitSeconds": 60 }, "autoscaling": autoscaling });
        let status = if is_new { json!({}) } else { json!({ "observedGeneration": 1 }) };
        let metadata = json!({ "namespace": "voice", "name": "s", "uid": "u", "generation": 1 });
        let object = json!({ "metadata": metadata, "spec": spec, "status": status });
        Resource::of(&serde_json::from_value(object).unwrap()).unwrap()
    };
    let check = |looks: &[(&str, u32, bool)], expected: &[bool]| {
        let mut asked = None;
        let mut told = |&(mode, replicas, is_new)| ignored(&resource(mode, replicas, is_new), &mut asked).is_some();
        assert_eq!(looks.iter().map(&mut told).collect::<Vec<_>>(), expected, "{looks:?}");
    };
    check(&[("Sessions", 1, true), ("Sessions", 5, false), ("Sessions", 5, false)], &[false, true, false]);
    check(&[("Sessions", 5, true), ("Sessions", 6, false)], &[true, true]);
    check(&[("Sessions", 5, false), ("Sessions", 1, false)], &[false, true]);
    check(&[("External", 1, true), ("External", 5, false), ("Sessions", 5, false)], &[false; 3]);
}

#[test]
fn texts_of_events_are_short() {
    assert_eq!(brief("a sentence"), "a sentence");
    let long = "a word, and ".repeat(40);
    let text = brief(&long);
    assert!(text.len() <= MAX_BRIEF + 4 && text.ends_with(" …") && !text.ends_with(", …"), "{text}");
    assert!(brief(&"ä".repeat(300)).len() <= MAX_BRIEF + 4);
}

/// Places are those of serving workers: what takes them must be theirs too.
#[test]
fn draining_workers_take_no_places() {
    let worker = |phase, sessions| {
        let born = Moment::from_millis(0);
        Worker { phase, ..Worker::serving("a".to_owned(), born, Duration::from_secs(1), sessions, 50) }
    };
    let workers = [
        worker(Phase::Starting, 0),
        worker(Phase::Serving, 10),
        worker(Phase::Draining, 40),
        worker(Phase::Draining, 30),
        worker(Phase::Lost, 5),
    ];
    let expected = metrics::Figures {
        starting: 1,
        serving: 1,
        draining: 2,
        sessions: 85,
        serving_sessions: 10,
        capacity: 50,
        ..metrics::Figures::default()
    };
    assert_eq!(figures(&workers), expected);
}

/// "1 worker created, 1 wanted" was said where there was one, which could not start.
#[test]
fn what_is_told_of_new_workers() {
    let check = |limited, expected: &str| assert_eq!(created_text(1, limited, 1, "minReplicas"), expected);
    check(None, "1 worker created, 1 wanted: minReplicas");
    check(Some(Limit::Starting { starting: 1 }), "1 worker created, 1 wanted: minReplicas");
    let not_ready = |overdue| Some(Limit::NotReady { overdue });
    check(not_ready(1), "1 worker created beside 1 that does not become ready, 1 wanted: minReplicas");
    check(not_ready(2), "1 worker created beside 2 that do not become ready, 1 wanted: minReplicas");
}

#[test]
fn what_was_done_is_told() {
    let mut scaling = Scaling::decide(Vec::new(), &Standing::Served, &[], &[], None, &mut Care::default(), NOW);
    let pod = |name: &str| PodId { name: name.to_owned(), uid: "u".to_owned() };
    assert!(decisions(&scaling).is_empty());
    for step in [
        Step::MarkServing(pod("a")),
        Step::Ask("a".to_owned(), Gate::Open),
        Step::MarkDraining(pod("b"), NOW, "no calls".to_owned()),
        Step::Ask("b".to_owned(), Gate::Draining),
        Step::Ask("c".to_owned(), Gate::Leaving),
        Step::Unprotect(pod("d")),
    ] {
        scaling.did(&step);
    }
    let expected = [
        Note::normal(Word::WorkersUndrained, "Scale", "1 worker put back: a"),
        Note::normal(Word::WorkersDraining, "Drain", "1 worker (no calls): b"),
        Note::warning(
            Word::DrainExpired,
            "Drain",
            "1 worker told to send their clients elsewhere, as maxDrainSeconds is over: c",
        ),
    ];
    assert_eq!(decisions(&scaling), expected);
}

#[test]
fn names_in_a_sentence() {
    let of = |n: usize| named(&(0..n).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!((of(1), of(4), of(6)), ("0".to_owned(), "0, 1, 2, 3".to_owned(), "0, 1, 2, 3 and 2 more".to_owned()));
}
