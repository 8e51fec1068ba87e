use super::*;
use crate::doubles::{NOW, pod, view};

fn ready(name: &str) -> PodFacts {
    pod(name, Stage::Ready(NOW - Duration::from_secs(80)))
}

fn look(met: &mut Acquaintance, pod: &PodFacts, views: &[WorkerView], figures: Figures) -> Worker<String> {
    let views = Views::of(views);
    let sight = Sight { pods: &[pod], views: &views, figures, now: NOW };
    met.workers(&sight, 50, |_| Circumstances::default()).remove(0)
}

/// A pod that was stuck was overdue only once a clock that was put back by an hour was again where it had been.
#[test]
fn a_clock_that_goes_back_begins_again() {
    let (mut met, views) = (Acquaintance::default(), Views::default());
    let pods = [pod("a", Stage::Waiting)];
    let all: Vec<&PodFacts> = pods.iter().collect();
    let mut since = |now: Moment| {
        let sight = Sight { pods: &all, views: &views, figures: Figures::Fresh, now };
        let since = met.workers(&sight, 50, |_| Circumstances::default())[0].since;
        (since, met.silent(&pods, now).len())
    };
    assert_eq!(since(NOW), (pods[0].created, 0));
    let back = NOW - Duration::from_secs(900);
    assert_eq!(since(back), (back, 0));
    assert_eq!(since(back + SILENCE), (back, 1));
}

#[test]
fn phases() {
    use Figures::{Fresh, Stale};
    let fresh = |pod: &PodFacts, views: &[WorkerView]| {
        let worker = look(&mut Acquaintance::default(), pod, views, Fresh);
        (worker.phase, worker.figures, worker.empty)
    };
    let open = [view("a", Gate::Open, 3)];
    let drained = [view("a", Gate::Draining, 0)];
    let busy = [view("a", Gate::Draining, 1)];
    let marked = |mut pod: PodFacts| {
        pod.marks.draining = true;
        pod
    };
    let ending = PodFacts { ending: true, ..ready("a") };
    assert_eq!(fresh(&ready("a"), &open), (Phase::Serving, Fresh, false));
    // Its probe is late, its calls go on.
    assert_eq!(fresh(&pod("a", Stage::Running), &open), (Phase::Serving, Fresh, false));
    assert_eq!(fresh(&ready("a"), &busy), (Phase::Draining, Fresh, false));
    assert_eq!(fresh(&marked(ready("a")), &open), (Phase::Draining, Fresh, false), "not asked yet");
    assert_eq!(fresh(&marked(ready("a")), &drained), (Phase::Draining, Fresh, true));
    assert_eq!(fresh(&ready("a"), &[]), (Phase::Lost, Stale, false), "its node is dead");
    let dead = PodFacts { was_ready: true, ..pod("a", Stage::Running) };
    assert_eq!(fresh(&dead, &[]), (Phase::Lost, Stale, false), "and the platform says so, to an operator that is new");
    assert_eq!(fresh(&marked(ready("a")), &[]), (Phase::Draining, Stale, false), "nobody says that it is empty");
    assert_eq!(fresh(&pod("a", Stage::Waiting), &[]), (Phase::Starting, Fresh, false));
    assert_eq!(fresh(&ending, &busy), (Phase::Draining, Fresh, false));
    let old = [WorkerView { age: Duration::from_secs(8), ..view("a", Gate::Draining, 0) }];
    assert_eq!(fresh(&marked(ready("a")), &old), (Phase::Draining, Stale, false), "it may have changed since");
}

#[test]
fn who_starts_on_a_dead_node_is_replaced() {
    let stay = |noticed: bool, age: u64, views: &[WorkerView], node: &str| {
        let on = |node: &str, pod: PodFacts| PodFacts { node: Some(node.to_owned()), ..pod };
        let created = NOW - Duration::from_secs(age);
        let pods = [
            on("dead", ready("lost")),
            on("other", ready("b")),
            on(node, PodFacts { noticed, created, ..pod("new", Stage::Waiting) }),
        ];
        let pods: Vec<&PodFacts> = pods.iter().collect();
        let views = Views::of(views);
        let sight = Sight { pods: &pods, views: &views, figures: Figures::Fresh, now: NOW };
        Acquaintance::default().workers(&sight, 50, |_| Circumstances::default()).remove(2).stay
    };
    let heard = [view("b", Gate::Open, 1)];
    assert_eq!(stay(false, 4, &heard, "dead"), Stay::Leaving);
    assert_eq!(stay(false, 4, &heard, "other"), Stay::Welcome);
    assert_eq!(stay(true, 4, &heard, "dead"), Stay::Welcome, "the node lives, its worker died");
    assert_eq!(stay(false, 2, &heard, "dead"), Stay::Welcome, "it may not have said so yet");
    let both = [view("b", Gate::Open, 1), view("lost", Gate::Open, 1)];
    assert_eq!(stay(false, 4, &both, "dead"), Stay::Welcome, "nobody is lost");
}

#[test]
fn a_process_that_died_is_not_lost() {
    let mut met = Acquaintance::default();
    let crashed = PodFacts { restarts: 1, ..pod("a", Stage::Waiting) };
    assert_eq!(look(&mut met, &ready("a"), &[view("a", Gate::Open, 0)], Figures::Fresh).phase, Phase::Serving);
    assert_eq!(look(&mut met, &crashed, &[], Figures::Fresh).phase, Phase::Starting);
    assert_eq!(look(&mut met, &ready("a"), &[], Figures::Fresh).phase, Phase::Lost);
}

#[test]
fn who_has_never_registered_holds_nothing() {
    let draining = |stage| {
        let mut pod = pod("a", stage);
        pod.marks.draining = true;
        pod
    };
    let empty = |met: &mut Acquaintance, pod: &PodFacts| {
        // A pod without a worker is no stranger's word: the store has answered.
        look(met, pod, &[], Figures::Fresh).empty
    };
    let mut from_birth = Acquaintance::default();
    look(&mut from_birth, &pod("a", Stage::Waiting), &[], Figures::Fresh);
    look(&mut from_birth, &pod("a", Stage::Running), &[], Figures::Fresh);
    assert!(empty(&mut from_birth, &draining(Stage::Running)));
    assert!(!empty(&mut Acquaintance::default(), &draining(Stage::Running)), "it was met too late to know");
    assert!(empty(&mut Acquaintance::default(), &draining(Stage::Waiting)), "nothing of it runs");
}

/// A deleted service does not wait for a node that will never answer, and waits for every call.
#[test]
fn who_is_over() {
    use Figures::{Fresh, Stale};
    let late = PodFacts { ending: true, gone_by: Some(NOW - Duration::from_secs(31)), ..ready("a") };
    let check = |pod: &PodFacts, views: &[WorkerView], figures, expected: bool| {
        assert_eq!(is_over(pod, &Views::of(views), figures, NOW), expected, "{pod:?}");
    };
    check(&late, &[], Fresh, true);
    check(&late, &[], Stale, false);
    check(&late, &[view("a", Gate::Draining, 0)], Fresh, false);
    check(&late, &[view("other", Gate::Open, 9)], Fresh, true);
    check(&PodFacts { gone_by: Some(NOW - Duration::from_secs(29)), ..late.clone() }, &[], Fresh, false);
    check(&PodFacts { ending: false, ..late }, &[], Fresh, false);
    check(&ready("a"), &[], Fresh, false);
    check(&pod("a", Stage::Over), &[], Stale, true);
}

#[test]
fn who_is_never_heard_of_while_the_store_answers_is_silent() {
    let mut met = Acquaintance::default();
    let mut pod = pod("a", Stage::Running);
    pod.marks.draining = true;
    let mut at = |seconds: u64, views: &[WorkerView], figures| {
        let now = NOW + Duration::from_secs(seconds);
        let views = Views::of(views);
        met.workers(&Sight { pods: &[&pod], views: &views, figures, now }, 50, |_| Circumstances::default());
        !met.silent(std::slice::from_ref(&pod), now).is_empty()
    };
    assert!(!at(0, &[], Figures::Fresh) && !at(299, &[], Figures::Fresh));
    assert!(at(300, &[], Figures::Fresh));
    assert!(!at(301, &[], Figures::Stale), "the store is away");
    assert!(!at(302, &[], Figures::Fresh) && !at(601, &[], Figures::Fresh), "it begins anew");
    assert!(at(602, &[], Figures::Fresh));
    assert!(!at(603, &[view("a", Gate::Open, 0)], Figures::Fresh), "there it is");
}

/// A probe that fails once makes a pod ready anew: of one that is ten hours old, an operator that begins would learn that its
/// likes take ten hours.
#[test]
fn a_probe_that_failed_is_no_start() {
    let old = |after: u64| {
        let created = NOW - Duration::from_secs(36_000);
        PodFacts { created, ..pod("a", Stage::Ready(created + Duration::from_secs(after))) }
    };
    let open = [view("a", Gate::Open, 1)];
    let start = |met: &mut Acquaintance, pod: &PodFacts| {
        look(met, pod, &open, Figures::Fresh).start.map(|start| start.as_secs())
    };
    assert_eq!(start(&mut Acquaintance::default(), &old(30)), Some(30));
    assert_eq!(start(&mut Acquaintance::default(), &old(35_990)), None);
    let mut from_birth = Acquaintance::default();
    look(&mut from_birth, &PodFacts { stage: Stage::Waiting, ..old(0) }, &[], Figures::Fresh);
    assert_eq!(start(&mut from_birth, &old(900)), Some(900), "it was waited for");
}

/// An operator whose clock was half a minute behind the API server's learned that workers start in no time, and made none ahead.
#[test]
fn this_machine_s_clock_says_nothing_of_starts() {
    let open = [view("a", Gate::Open, 1)];
    let start = |created: Moment, stage| {
        let pod = PodFacts { created, ..pod("a", stage) };
        look(&mut Acquaintance::default(), &pod, &open, Figures::Fresh).start
    };
    let ahead = NOW + Duration::from_secs(30);
    assert_eq!(start(ahead, Stage::Running), None);
    assert_eq!(start(ahead, Stage::Ready(ahead + Duration::from_secs(7))), Some(Duration::from_secs(7)));
    assert_eq!(start(ahead, Stage::Ready(NOW)), None, "its node's clock is behind");
}

/// Ten thousand pods were compared with each other, every two seconds.
#[test]
fn a_large_fleet_is_looked_through_once() {
    let many: Vec<PodFacts> = (0..20_000).map(|n| pod(&format!("w{n}"), Stage::Running)).collect();
    let told: Vec<WorkerView> = many.iter().map(|pod| view(&pod.name, Gate::Open, 1)).collect();
    let (pods, views): (Vec<&PodFacts>, _) = (many.iter().collect(), Views::of(&told));
    let sight = Sight { pods: &pods, views: &views, figures: Figures::Fresh, now: NOW };
    let mut met = Acquaintance::default();
    let begun = std::time::Instant::now();
    for _ in 0..2 {
        assert_eq!(met.workers(&sight, 20, |_| Circumstances::default()).len(), many.len());
    }
    // Pairs of them are 400 million; this is a matter of milliseconds, and machines of tests are slow.
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn silence_changes_nothing() {
    let mut met = Acquaintance::default();
    assert_eq!(look(&mut met, &ready("a"), &[view("a", Gate::Open, 3)], Figures::Fresh).phase, Phase::Serving);
    let silent = look(&mut met, &ready("a"), &[], Figures::Stale);
    assert_eq!((silent.phase, silent.figures, silent.empty), (Phase::Serving, Figures::Stale, false));
    // An operator that begins in the silence goes by what Kubernetes says.
    for (stage, expected) in
        [(Stage::Ready(NOW), Phase::Serving), (Stage::Running, Phase::Starting), (Stage::Waiting, Phase::Starting)]
    {
        let seen = look(&mut Acquaintance::default(), &pod("a", stage), &[], Figures::Stale);
        assert_eq!((seen.phase, seen.figures, seen.empty), (expected, Figures::Stale, false), "{stage:?}");
    }
}

#[test]
fn a_rollout_is_no_surplus() {
    let worker = |id: &str, at: u64| Worker::starting(id.to_owned(), Moment::from_millis(at), 20);
    let serving =
        |id: &str, at: u64| Worker::serving(id.to_owned(), Moment::from_millis(at), Duration::from_secs(1), 0, 20);
    let ids = |snapshot: &Snapshot<String>| snapshot.workers.iter().map(|w| w.id.clone()).collect::<Vec<_>>();
    let workers = vec![worker("new", 9), serving("a", 1), serving("b", 2)];
    let rolling = snapshot(workers.clone(), 2, Rolling::Yes, None);
    assert_eq!((ids(&rolling), rolling.coming), (vec!["a".to_owned(), "b".to_owned()], 0));
    assert_eq!(snapshot(workers.clone(), 2, Rolling::No, None).workers.len(), 3);
    assert_eq!(snapshot(workers, 5, Rolling::No, None).coming, 2);
    let going = vec![Worker { stay: Stay::Ending, ..serving("a", 1) }];
    assert_eq!(snapshot(going, 1, Rolling::No, None).coming, 1, "its replacement");
}
