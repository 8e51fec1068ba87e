use super::*;
use crate::facts::Stage;

const NOW: Moment = Moment::from_millis(1_000_000_000);

fn worker(phase: Phase, stay: Stay, sessions: u32) -> Worker<String> {
    let created = NOW - Duration::from_secs(300);
    let worker = Worker::serving("a".to_owned(), created, Duration::from_secs(10), sessions, 20);
    Worker { phase, stay, ..worker }
}

fn picture<'a>(standing: &'a Standing, workers: &'a [Worker<String>]) -> Picture<'a> {
    Picture {
        name: "assistant",
        generation: 3,
        standing,
        workers,
        pods: &[],
        coming: 0,
        deployments: &[],
        figures: Figures::Fresh,
        silence: None,
        want: 1,
        limited: None,
        faults: &[],
        url: None,
        now: NOW,
    }
}

fn of(picture: &Picture<'_>) -> Vec<String> {
    let status = picture.status(&StreamServiceStatus::default());
    status.conditions.iter().filter(|c| c.status == "True").map(|c| format!("{}={}", c.type_, c.reason)).collect()
}

#[test]
fn conditions() {
    let served = Standing::Served;
    let serving = [worker(Phase::Serving, Stay::Welcome, 3)];
    assert_eq!(of(&picture(&served, &serving)), ["Ready=WorkersReady"]);
    assert_eq!(of(&Picture { want: 0, ..picture(&served, &[]) }), ["Ready=ScaledToZero"]);
    assert_eq!(of(&Picture { coming: 1, ..picture(&served, &[]) }), ["Progressing=Starting"]);
    let leaving = [worker(Phase::Serving, Stay::Leaving, 3)];
    assert_eq!(of(&picture(&served, &leaving)), ["Ready=WorkersReady", "DrainBlocked=WaitsForReplacement"]);
    let faults = [Fault::new(Word::SecretInvalid, "too short")];
    let telephones = Picture { faults: &faults, ..picture(&served, &serving) };
    assert_eq!(of(&telephones), ["Ready=WorkersReady", "Degraded=SecretInvalid"]);
    let faults = faults.map(Fault::refusing);
    let refused = Picture { faults: &faults, ..picture(&served, &serving) };
    assert_eq!(of(&refused), ["Degraded=SecretInvalid"]);
    assert_eq!(message(&refused, "Ready"), "too short");
    let draining = [worker(Phase::Draining, Stay::Leaving, 3)];
    assert_eq!(of(&picture(&served, &draining)), ["Progressing=Draining", "DrainBlocked=SessionsLive"]);
    let surplus = [worker(Phase::Serving, Stay::Welcome, 3), worker(Phase::Draining, Stay::Welcome, 3)];
    assert_eq!(of(&picture(&served, &surplus)), ["Ready=WorkersReady", "Progressing=Draining"]);
    let stale = Picture { figures: Figures::Stale, limited: Some(Limit::Unknown), ..picture(&served, &serving) };
    assert_eq!(of(&stale), ["Ready=WorkersReady", "Degraded=StoreUnavailable", "ScalingLimited=StoreUnavailable"]);
    let full = Picture { silence: Some(&StoreError::NoMemory), ..stale.clone() };
    assert_eq!(of(&full), ["Ready=WorkersReady", "Degraded=StoreFull", "ScalingLimited=StoreFull"]);
    let lost = [worker(Phase::Lost, Stay::Welcome, 3), worker(Phase::Serving, Stay::Welcome, 0)];
    assert_eq!(of(&picture(&served, &lost)), ["Ready=WorkersReady", "Degraded=WorkersLost"]);
    let most = Picture { limited: Some(Limit::Lost), ..picture(&served, &lost[..1]) };
    assert_eq!(of(&most), ["Degraded=WorkersLost", "ScalingLimited=WorkersLost"], "and the store answers");
    let ending = Standing::Ending;
    assert_eq!(of(&picture(&ending, &draining)), ["Progressing=Deleting", "DrainBlocked=SessionsLive"]);
    let unheard = [Worker { figures: Figures::Stale, ..worker(Phase::Draining, Stay::Ending, 0) }];
    assert_eq!(of(&picture(&ending, &unheard)), ["Progressing=Deleting", "DrainBlocked=NodeSilent"]);
    let finishing = [worker(Phase::Draining, Stay::Ending, 3)];
    assert_eq!(of(&picture(&ending, &finishing)), ["Progressing=Deleting"], "it has its grace");
    let conflict = Standing::Displaced(Conflict { path: "/x".to_owned(), by: names::Key::new("voice", "other") });
    let status = picture(&conflict, &[]).status(&StreamServiceStatus::default());
    assert_eq!(status.conditions[0].message, "/x is served by voice/other, which was there before");
    let max = Limit::Max { needs: 12, max: 10 };
    let limited = Picture { limited: Some(max), ..picture(&served, &serving) };
    assert_eq!(of(&limited), ["Ready=WorkersReady", "ScalingLimited=MaxReplicas"]);
}

fn message(picture: &Picture<'_>, kind: &str) -> String {
    let status = picture.status(&StreamServiceStatus::default());
    status.conditions.iter().find(|c| c.type_ == kind).map(|c| c.message.clone()).unwrap()
}

#[test]
fn what_the_store_says_is_told_where_it_is_no_outage() {
    let said = |error: StoreError| {
        let picture = Picture { figures: Figures::Stale, silence: Some(&error), ..picture(&Standing::Served, &[]) };
        let all = message(&picture, "Degraded");
        all.strip_suffix(": calls go on; no worker is drained or removed, and none is made beyond minReplicas")
            .unwrap()
            .to_owned()
    };
    let away = |why: &str| said(StoreError::Unavailable(why.to_owned()));
    assert_eq!(away("broken pipe"), "the store does not answer (broken pipe)");
    assert!(away(&"x".repeat(5_000)).len() < 600);
    assert_eq!(said(StoreError::NoMemory), "the store is full: its server has no memory left");
    assert_eq!(said(StoreError::Refused("WRONGTYPE no".to_owned())), "the store refuses: WRONGTYPE no");
    let schema = StoreError::Schema { found: "99999".to_owned(), ours: "1" };
    assert_eq!(said(schema), "the store is written in schema 99999, and this program reads and writes schema 1");
}

/// A pod that was made beside one that could not be pulled found no room, and that alone was told, by turns.
#[test]
fn the_fault_that_makes_the_others_is_told_first() {
    let pod = |name: &str, age: u64, reason: &str| {
        let trouble = Trouble { reason: reason.to_owned(), message: name.to_owned() };
        let created = NOW - Duration::from_secs(age);
        PodFacts { created, trouble: Some(trouble), ..crate::doubles::pod(name, Stage::Waiting) }
    };
    let (spare, old) = (pod("spare", 5, "Unschedulable"), pod("old", 60, "ImagePullBackOff"));
    let (older, crashing) = (pod("older", 90, "Unschedulable"), pod("crashing", 50, "CrashLoopBackOff"));
    let check = |pods: &[&PodFacts], expected: &str| {
        let served = Standing::Served;
        let status = Picture { pods, ..picture(&served, &[]) }.status(&StreamServiceStatus::default());
        let degraded = status.conditions.iter().find(|condition| condition.type_ == "Degraded").unwrap();
        assert_eq!(degraded.reason, expected, "{}", degraded.message);
    };
    check(&[&spare, &old], "ImagePullBackOff");
    check(&[&older, &crashing, &old], "ImagePullBackOff");
    check(&[&crashing, &spare], "CrashLoopBackOff");
    check(&[&spare, &older], "Unschedulable");
}

#[test]
fn one_is_one() {
    let draining = [worker(Phase::Draining, Stay::Leaving, 1)];
    assert_eq!(message(&picture(&Standing::Served, &draining), "DrainBlocked"), "1 worker is to go and has 1 session");
    let stale = Picture { figures: Figures::Stale, ..picture(&Standing::Served, &draining) };
    let text = "1 worker is draining, and the store does not say whether it is empty";
    assert_eq!(message(&stale, "DrainBlocked"), text);
}

/// It was said that a worker starts of which there was no pod, and could be none.
#[test]
fn what_cannot_be_made_does_not_start() {
    let served = Standing::Served;
    let coming = Picture { coming: 1, ..picture(&served, &[]) };
    let check = |picture: &Picture<'_>, expected: &str| {
        assert_eq!(picture.progressing().reason.as_str(), expected);
    };
    check(&coming, "Starting");
    let faults = [Fault::new(Word::ForeignObject, "Deployment s-worker is somebody else's")];
    check(&Picture { faults: &faults, ..coming.clone() }, "NotMade");
    let text = "1 worker is wanted and cannot be made: Degraded says why";
    assert_eq!(message(&Picture { faults: &faults, ..coming.clone() }, "Progressing"), text);
    let there = DeploymentFacts { observed: true, ..DeploymentFacts::default() };
    check(&Picture { faults: &faults, deployments: std::slice::from_ref(&there), ..coming.clone() }, "Starting");
    let failure = Some(Trouble { reason: "FailedCreate".to_owned(), message: "quota".to_owned() });
    check(&Picture { deployments: &[DeploymentFacts { failure, ..there }], ..coming.clone() }, "NotMade");
    let starting = [worker(Phase::Starting, Stay::Welcome, 0)];
    check(&Picture { faults: &faults, workers: &starting, ..coming }, "Starting");
}

#[test]
fn what_has_not_changed_keeps_its_time() {
    let served = Standing::Served;
    let serving = [worker(Phase::Serving, Stay::Welcome, 3)];
    let first = picture(&served, &serving).status(&StreamServiceStatus::default());
    let later = Picture { now: NOW + Duration::from_secs(9), ..picture(&served, &serving) };
    assert_eq!(later.status(&first), first);
    assert!(!is_news(&first, &later.status(&first)));
    let zero = Picture { workers: &[], now: NOW + Duration::from_secs(9), ..picture(&served, &[]) };
    let after = zero.status(&first);
    assert_ne!(after.conditions[0].last_transition_time, first.conditions[0].last_transition_time);
    assert_eq!(after.conditions[2].last_transition_time, first.conditions[2].last_transition_time);
    assert!(is_news(&first, &after));
}

/// Whoever has just written a specification waits for what is said of that one.
#[test]
fn each_condition_names_the_specification_that_it_is_about() {
    let served = Standing::Served;
    let of = |status: &StreamServiceStatus| {
        let conditions = status.conditions.iter().map(|condition| condition.observed_generation);
        (status.observed_generation, conditions.collect::<Vec<_>>())
    };
    let first = picture(&served, &[]).status(&StreamServiceStatus::default());
    assert_eq!(of(&first), (Some(3), vec![Some(3); 5]));
    let after = Picture { generation: 4, ..picture(&served, &[]) }.status(&first);
    assert_eq!(of(&after), (Some(4), vec![Some(4); 5]), "though nothing else has changed");
}

#[test]
fn faults_are_told_once_each() {
    let served = Standing::Served;
    let fault = |n: u32| Fault::new(Reason::Told("ErrImagePull".to_owned()), format!("no such image {n}"));
    let faults = [fault(1), fault(2), Fault::new(Reason::Told("failed-create!".to_owned()), "exceeded quota")];
    let status = Picture { faults: &faults, ..picture(&served, &[]) }.status(&StreamServiceStatus::default());
    assert_eq!(status.conditions[2].reason, "ErrImagePull");
    assert_eq!(status.conditions[2].message, "no such image 1; exceeded quota");
    let said = [Fault::new(Reason::Told("CrashLoopBackOff".to_owned()), "\u{1b}[31mno\u{7f}\u{ffff}\n")];
    let status = Picture { faults: &said, ..picture(&served, &[]) }.status(&StreamServiceStatus::default());
    assert_eq!(status.conditions[2].message, "\u{fffd}[31mno\u{fffd}\u{fffd}\n");
    assert_eq!((one_word("failed-create!"), one_word("9")), ("failedcreate".to_owned(), "R9".to_owned()));
}
