//! Each step by table; how they play together is in [`played`](super::played).

use super::*;
use crate::doubles::{self, NOW};
use crate::facts::Marks;

const RULES: Rules = Rules { max_drain: None, disruption: Disruption::Never, now: NOW };

fn pod(marks: Marks) -> PodFacts {
    PodFacts { marks, ..doubles::pod("a", Stage::Ready(NOW)) }
}

fn serving() -> PodFacts {
    pod(Marks { protected: true, ..Marks::default() })
}

fn draining(for_seconds: u64) -> PodFacts {
    let since = Some(NOW - Duration::from_secs(for_seconds));
    pod(Marks { draining: true, since, protected: true, ..Marks::default() })
}

fn view(gate: Gate) -> WorkerView {
    doubles::view("a", gate, 1)
}

fn id() -> PodId {
    PodId { name: "a".to_owned(), uid: "uid-a".to_owned() }
}

fn of(wanted: &Wanted, pod: &PodFacts, gate: Gate, rules: &Rules) -> (Vec<Step>, Vec<Step>) {
    let steps = steps(wanted, &[pod], Some(&Views::of(&[view(gate)])), rules, |_| true, |_| false);
    (steps.first, steps.then)
}

fn ask(gate: Gate) -> Step {
    Step::Ask("a".to_owned(), gate)
}

#[test]
fn each_way_has_its_order() {
    let none = Wanted::default();
    let drain = Wanted { drain: vec![("a".to_owned(), "why".to_owned())], ..Wanted::default() };
    let undrain = Wanted { undrain: vec!["a".to_owned()], ..Wanted::default() };
    let remove = Wanted { remove: vec!["a".to_owned()], ..Wanted::default() };
    let mark = Step::MarkDraining(id(), NOW, "why".to_owned());
    assert_eq!(of(&none, &serving(), Gate::Open, &RULES), (vec![], vec![]), "nothing to do is nothing done");
    assert_eq!(of(&none, &draining(9), Gate::Draining, &RULES), (vec![], vec![]));
    assert_eq!(of(&drain, &serving(), Gate::Open, &RULES), (vec![], vec![mark, ask(Gate::Draining)]));
    // The process that marked it died before it could ask.
    assert_eq!(of(&none, &draining(9), Gate::Open, &RULES), (vec![], vec![ask(Gate::Draining)]));
    assert_eq!(
        of(&undrain, &draining(9), Gate::Draining, &RULES),
        (vec![Step::MarkServing(id()), ask(Gate::Open)], vec![])
    );
    assert_eq!(of(&undrain, &serving(), Gate::Draining, &RULES), (vec![ask(Gate::Open)], vec![]), "it has not heard");
    assert_eq!(
        of(&remove, &draining(9), Gate::Draining, &RULES),
        (vec![], vec![Step::Unprotect(id()), Step::Delete(id())])
    );
    let bare = pod(Marks::default());
    assert_eq!(of(&none, &bare, Gate::Open, &RULES).1, [Step::Protect(id())], "taken away by hand");
    let ending = PodFacts { ending: true, ..draining(9) };
    assert_eq!(of(&remove, &ending, Gate::Draining, &RULES), (vec![], vec![]), "it goes already");
    let over = PodFacts { stage: Stage::Over, ..serving() };
    assert_eq!(of(&none, &over, Gate::Open, &RULES).1, [Step::Delete(id())]);
}

#[test]
fn who_ends_takes_no_more_sessions() {
    let ending = PodFacts { ending: true, ..serving() };
    let of_view = |view: WorkerView| {
        steps(&Wanted::default(), &[&ending], Some(&Views::of(&[view])), &RULES, |_| false, |_| false).then
    };
    assert_eq!(of_view(view(Gate::Open)), [ask(Gate::Draining)], "it may not have heard of it");
    assert_eq!(of_view(view(Gate::Draining)), []);
}

#[test]
fn a_drain_may_be_bounded() {
    let none = Wanted::default();
    let rules = Rules { max_drain: Some(Duration::from_secs(30)), ..RULES };
    assert!(rules.is_overdue(&draining(31)) && !rules.is_overdue(&draining(30)));
    assert!(!RULES.is_overdue(&draining(1_000_000)));
    let then = |pod: &PodFacts, views: Option<&Views<'_>>, over: bool| {
        steps(&none, &[pod], views, &rules, |_| false, |_| over).then
    };
    let (asked, to_ask, unknown) = ([view(Gate::Leaving)], [view(Gate::Draining)], Views::default());
    let gone = |how: fn(PodId) -> Step| vec![Step::Unprotect(id()), how(id())];
    for (seconds, views, over, expected) in [
        (30, Some(&Views::of(&to_ask)), false, vec![]),
        (31, Some(&Views::of(&to_ask)), false, vec![ask(Gate::Leaving)]),
        (31, Some(&Views::of(&asked)), false, vec![]),
        (1_000_000, Some(&Views::of(&asked)), false, vec![]),
        // With its own grace it would drain for as long once more.
        (31, Some(&Views::of(&asked)), true, gone(Step::Expel)),
        (1_000_000, Some(&unknown), false, vec![]),
        (31, Some(&unknown), true, gone(Step::Delete)),
        // A store that is away says nothing of anybody.
        (1_000_000, None, false, vec![]),
    ] {
        assert_eq!(then(&draining(seconds), views, over), expected, "{seconds} s, {views:?}, {over}");
    }
}

#[test]
fn upgrades_wait_for_calls_unless_the_service_says_otherwise() {
    let none = Wanted::default();
    let rules = Rules { disruption: Disruption::OnUpgrade, ..RULES };
    assert_eq!(of(&none, &draining(9), Gate::Draining, &rules).1, [Step::Unprotect(id())]);
    assert_eq!(of(&none, &serving(), Gate::Open, &rules).1, [], "its replacement is not there yet");
    let mut bare = draining(9);
    bare.marks.protected = false;
    let then =
        |goes| steps(&none, &[&bare], Some(&Views::of(&[view(Gate::Draining)])), &rules, |_| goes, |_| false).then;
    assert_eq!(then(true), []);
    assert_eq!(then(false), [Step::Protect(id())], "the node stays after all, and it has calls");
}

#[test]
fn somebody_else_may_drain_a_worker() {
    let why = "it was asked to by somebody else".to_owned();
    let found = of(&Wanted::default(), &serving(), Gate::Draining, &RULES).1;
    assert_eq!(found, [Step::MarkDraining(id(), NOW, why)]);
}

#[test]
fn a_service_that_goes_drains_all_and_removes_who_is_empty() {
    let worker = |id: &str, phase, empty| Worker {
        phase,
        empty,
        ..Worker::serving(id.to_owned(), Moment::default(), Duration::ZERO, 0, 20)
    };
    let lost = worker("lost", Phase::Lost, false);
    let ending = Worker { stay: Stay::Ending, ..worker("ending", Phase::Draining, true) };
    let workers = [
        worker("serving", Phase::Serving, false),
        worker("busy", Phase::Draining, false),
        worker("empty", Phase::Draining, true),
        lost,
        ending,
    ];
    let silent = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(close(&workers, &silent(&["busy", "serving"]), "deleted").remove, ["busy", "empty"]);
    let wanted = close(&workers, &silent(&[]), "deleted");
    assert_eq!(wanted.remove, ["empty"]);
    assert_eq!(wanted.drain.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["serving", "lost"]);
    assert_eq!((wanted.create, wanted.undrain.len()), (0, 0));
}
