//! Each step by table; how they play together is in [`played`](super::played).

use streamfleet_store::{Heartbeat, Order};

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
    let steps = steps(wanted, &[pod], Some(&Views::of(&[view(gate)])), rules, |_| true);
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
    let of_view =
        |view: WorkerView| steps(&Wanted::default(), &[&ending], Some(&Views::of(&[view])), &RULES, |_| false).then;
    assert_eq!(of_view(view(Gate::Open)), [ask(Gate::Draining)], "it may not have heard of it");
    assert_eq!(of_view(view(Gate::Draining)), []);
}

#[test]
fn a_drain_may_be_bounded() {
    let none = Wanted::default();
    let rules = Rules { max_drain: Some(Duration::from_secs(30)), ..RULES };
    assert_eq!(of(&none, &draining(30), Gate::Draining, &rules).1, []);
    assert_eq!(of(&none, &draining(31), Gate::Draining, &rules).1, [ask(Gate::Leaving)]);
    assert!(rules.is_overdue(&draining(31)) && !rules.is_overdue(&draining(30)));
    assert!(!RULES.is_overdue(&draining(1_000_000)));
    let heard = |order: u64, before: u64| {
        let since = NOW - Duration::from_secs(before);
        PodFacts {
            marks: Marks { leaving: Some(Leaving { order: Order(order), since }), ..draining(1_000_000).marks },
            ..draining(0)
        }
    };
    let leaving = |order: u64| {
        let view = view(Gate::Leaving);
        let said = view.said.map(|said| Heartbeat { heard: Order(order), ..said });
        WorkerView { order: Order(order), said, ..view }
    };
    let of_view =
        |pod: &PodFacts, view: WorkerView| steps(&none, &[pod], Some(&Views::of(&[view])), &rules, |_| false).then;
    let mark = || Step::MarkLeaving(id(), Leaving { order: Order(7), since: NOW });
    let gone = |how: fn(PodId) -> Step| vec![Step::Unprotect(id()), how(id())];
    assert_eq!(of_view(&draining(31), leaving(7)), [mark()], "from now on its clients have their time");
    assert_eq!(of_view(&heard(7, 60), leaving(7)), []);
    assert_eq!(of_view(&heard(7, 61), leaving(7)), gone(Step::Expel));
    // However long it has drained: somebody has to have asked it, and it to have heard.
    assert_eq!(of_view(&draining(1_000_000), view(Gate::Draining)), [ask(Gate::Leaving)], "nobody has");
    let deaf = WorkerView { order: Order(8), ..leaving(7) };
    assert_eq!(of_view(&heard(7, 61), deaf), [], "it has not heard of this one");
    assert_eq!(of_view(&heard(6, 61), leaving(7)), [mark()], "it was put back since, and drains again");
    // A store that is away says nothing of anybody. Of one that it does not know, nobody will ever hear.
    assert_eq!(steps(&none, &[&heard(7, 61)], None, &rules, |_| false).then, []);
    let unknown = |pod: &PodFacts| steps(&none, &[pod], Some(&Views::default()), &rules, |_| false).then;
    assert_eq!(unknown(&draining(30)), []);
    let unasked = Step::MarkLeaving(id(), Leaving { order: Order::default(), since: NOW });
    assert_eq!(unknown(&heard(7, 61)), [unasked], "it may come back");
    assert_eq!(unknown(&heard(0, 60)), []);
    assert_eq!(unknown(&heard(0, 61)), gone(Step::Delete));
    assert_eq!(of_view(&heard(0, 61), leaving(7)), [mark()], "it has come back");
}

#[test]
fn upgrades_wait_for_calls_unless_the_service_says_otherwise() {
    let none = Wanted::default();
    let rules = Rules { disruption: Disruption::OnUpgrade, ..RULES };
    assert_eq!(of(&none, &draining(9), Gate::Draining, &rules).1, [Step::Unprotect(id())]);
    assert_eq!(of(&none, &serving(), Gate::Open, &rules).1, [], "its replacement is not there yet");
    let mut bare = draining(9);
    bare.marks.protected = false;
    let then = |goes| steps(&none, &[&bare], Some(&Views::of(&[view(Gate::Draining)])), &rules, |_| goes).then;
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
