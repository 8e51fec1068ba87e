use serde_json::json;

use super::*;
use crate::top::facts::tests::{pod, service};
use crate::top::facts::{Count, Drain, Said, Service};

/// 2026-11-22T12:00:00Z.
pub(in crate::top) const NOW: i64 = 1_795_348_800;

fn worker(of: &str, state: State, sessions: Option<u32>, age: i64, node: &str) -> Worker {
    let base = Worker::read(&pod("w", &json!({}))).unwrap();
    Worker {
        service: Name::new("voice", of),
        state,
        sessions,
        created: Some(NOW - age),
        node: Some(node.to_owned()),
        ..base
    }
}

/// Two services, one of which scales down, and a third that cannot start.
pub(in crate::top) fn facts() -> Facts {
    let mut facts = Facts::default();
    let status = |ready: u32, desired: u32, draining: u32, sessions: u32, capacity: u32| Service {
        ready: Some(ready > 0),
        workers: Some(Count { ready, desired }),
        draining: Some(draining),
        sessions,
        capacity: Some(capacity),
        per_worker: Some(20),
        ..Service::default()
    };
    let services = [
        ("assistant", Service { url: Some("https://v.example.com/assistant".to_owned()), ..status(2, 2, 1, 31, 40) }),
        ("parrot", Service { remark: Some("Progressing: Starting: 1 of 2".to_owned()), ..status(1, 2, 0, 3, 20) }),
    ];
    for (name, service) in services {
        facts.services.insert(Name::new("voice", name), service);
    }
    let broken =
        Service { remark: Some("Degraded: ImagePullBackOff: no such image".to_owned()), ..status(0, 1, 0, 0, 0) };
    facts.services.insert(Name::new("test", "broken"), broken);
    let drain = Drain { since: Some(NOW - 130), reason: Some("fewer are wanted".to_owned()) };
    let workers = [
        ("assistant-worker-7f-a", worker("assistant", State::Serving, Some(18), 7_300, "node-1")),
        ("assistant-worker-7f-b", worker("assistant", State::Serving, None, 400, "node-2")),
        (
            "assistant-worker-7f-c",
            Worker { drain: Some(drain), ..worker("assistant", State::Draining, Some(2), 90_000, "node-2") },
        ),
        ("parrot-worker-5d-a", worker("parrot", State::Serving, Some(3), 60, "node-1")),
        (
            "parrot-b-worker-5d-b",
            Worker { variant: Some("b".to_owned()), ..worker("parrot", State::Starting(None), None, 4, "node-2") },
        ),
    ];
    for (name, worker) in workers {
        facts.workers.insert(Name::new("voice", name), worker);
    }
    let image = State::Starting(Some("ImagePullBackOff".to_owned()));
    let broken = Worker { service: Name::new("test", "broken"), ..worker("", image, None, 65, "node-1") };
    facts.workers.insert(Name::new("test", "broken-worker-1"), broken);
    let said = |of: (&str, &str), ago: i64, tone: Tone, reason: &str, note: &str, times: u32| Said {
        of: Name::new(of.0, of.1),
        at: NOW - ago,
        tone,
        reason: reason.to_owned(),
        note: note.to_owned(),
        times,
    };
    let all = [
        said(("voice", "assistant"), 130, Tone::Normal, "Draining", "assistant-worker-7f-c: 2 wanted, 3 there", 1),
        said(("voice", "parrot"), 4, Tone::Normal, "Creating", "1 worker: 2 wanted, 1 there", 1),
        said(("test", "broken"), 30, Tone::Warning, "ImagePullBackOff", "no such image", 7),
    ];
    for (n, said) in all.into_iter().enumerate() {
        facts.said.insert(Name::new(&said.of.namespace.clone(), &format!("e{n}")), said);
    }
    facts
}

pub(in crate::top) fn teller() -> Teller {
    Teller { name: "cluster c".to_owned(), ..Teller::default() }
}

#[test]
fn of_what_it_is_told() {
    let words = |scope: Scope, namespace: Option<&str>| {
        scope.words(&Choice { namespace: namespace.map(str::to_owned), ..Choice::default() })
    };
    let only = || Scope::Namespace("a".to_owned());
    for (scope, namespace, expected) in [
        (Scope::AllNamespaces, None, Some("all namespaces")),
        (Scope::AllNamespaces, Some("b"), Some("namespace b")),
        (only(), None, Some("namespace a")),
        (only(), Some("a"), Some("namespace a")),
        (Scope::Service, None, None),
    ] {
        assert_eq!(words(scope, namespace).as_deref(), expected);
    }
    let by_a_router = Teller { scope: Scope::Service, ..teller() };
    let drains = |teller: &Teller| View::of(&Facts::default(), &Choice::default(), teller, None, NOW).tables[2].empty;
    assert_eq!([drains(&teller()), drains(&by_a_router)], ["nobody drains", "only a cluster tells of this"]);
    let note = Some("look here".to_owned());
    let noted = Teller { note: note.clone(), ..teller() };
    let problem =
        |problem: Option<&str>| View::of(&facts(), &Choice::default(), &noted, problem.map(str::to_owned), NOW).problem;
    assert_eq!((problem(None), problem(Some("away")).as_deref()), (note, Some("away")));
}

fn column(table: &Table, n: usize) -> Vec<&str> {
    table.rows.iter().map(|row| row.cells[n].as_str()).collect()
}

fn view(choice: &Choice) -> View {
    View::of(&facts(), choice, &teller(), None, NOW)
}

#[test]
fn everything_is_shown_where_nothing_is_chosen() {
    let view = view(&Choice::default());
    assert_eq!(view.title, "streamfleet top   cluster c   all namespaces   12:00:00 UTC");
    assert_eq!(view.summary, "3 services   6 workers   2 starting   1 draining   34/60 sessions");
    let [services, workers, drains, decisions] = view.tables.as_slice() else { panic!("four") };
    assert_eq!(column(services, 0), ["test/broken", "voice/assistant", "voice/parrot"]);
    assert_eq!(column(services, 4), ["0/0", "31/40", "3/20"]);
    assert_eq!(column(workers, 3), ["?/20", "18/20", "?/20", "2/20", "?/20", "3/20"]);
    assert_eq!(column(workers, 4), ["1m05s", "2h01m", "6m40s", "1d01h", "4s", "1m00s"]);
    assert_eq!(drains.rows[0].cells, ["voice/assistant-worker-7f-c", "2m10s", "2", "fewer are wanted"]);
    assert_eq!(column(decisions, 0), ["4s", "30s", "2m10s"], "the latest first");
    assert_eq!(decisions.rows[1].cells[3], "no such image (x7)");
    let looks = |table: &Table| table.rows.iter().map(|row| row.look).collect::<Vec<_>>();
    assert_eq!(looks(services), [Look::Warning, Look::Plain, Look::Plain]);
    assert_eq!(looks(decisions), [Look::Plain, Look::Warning, Look::Plain]);
}

#[test]
fn what_is_chosen_is_shown() {
    let view = view(&Choice { namespace: Some("voice".to_owned()), ..Choice::default() });
    assert!(view.title.contains("namespace voice"), "{}", view.title);
    assert_eq!(view.tables.iter().map(|table| table.rows.len()).collect::<Vec<_>>(), [2, 5, 1, 2]);
    let parrot = Name::new("voice", "parrot");
    let chosen = View::of(&facts(), &Choice { service: Some(parrot), ..Choice::default() }, &teller(), None, NOW);
    assert_eq!(chosen.tables.iter().map(|table| table.rows.len()).collect::<Vec<_>>(), [3, 2, 0, 1]);
    assert_eq!(chosen.tables[0].rows[2].look, Look::Chosen);
    assert_eq!(chosen.summary, "1 service   2 workers   1 starting   3/20 sessions");
}

#[test]
fn an_empty_cluster_and_a_service_of_which_nobody_has_said_anything() {
    let empty = View::of(&Facts::default(), &Choice::default(), &teller(), None, NOW);
    assert_eq!(empty.summary, "0 services   0 workers   0 sessions");
    let mut facts = Facts::default();
    let new = Service::read(&service("voice", "new", &json!({})));
    facts.services.insert(Name::new("voice", "new"), new);
    let view = View::of(&facts, &Choice::default(), &teller(), None, NOW);
    assert_eq!(view.tables[0].rows[0].cells, ["voice/new", "-", "-", "-", "0", ""]);
}

#[test]
fn lengths() {
    for (seconds, expected) in
        [(-3, "0s"), (59, "59s"), (61, "1m01s"), (11_100, "3h05m"), (86_399, "23h59m"), (90_000, "1d01h")]
    {
        assert_eq!(length(seconds), expected);
    }
}
