use proptest::prelude::*;

use super::*;
use crate::top::view::tests::{NOW, facts, teller};
use crate::top::view::{Choice, Row};

fn view(choice: &Choice) -> View {
    View::of(&facts(), choice, &teller(), None, NOW)
}

fn check(view: &View, width: usize, height: Option<usize>, expected: &str) {
    assert_eq!(format!("\n{}\n", render(view, Size { width, height })), expected);
}

#[test]
fn all_of_it() {
    check(
        &view(&Choice::default()),
        usize::MAX,
        None,
        "
streamfleet top   cluster c   all namespaces   12:00:00 UTC
3 services   6 workers   2 starting   1 draining   34/60 sessions

SERVICE          READY  WORKERS  DRAINING  SESSIONS
test/broken      no     0/1      0         0/0       Degraded: ImagePullBackOff: no such image
voice/assistant  yes    2/2      1         31/40     https://v.example.com/assistant
voice/parrot     yes    1/2      0         3/20      Progressing: Starting: 1 of 2

WORKER                 SERVICE           STATE                        SESSIONS  AGE    NODE
broken-worker-1        test/broken       starting (ImagePullBackOff)  ?/20      1m05s  node-1
assistant-worker-7f-a  voice/assistant   serving                      18/20     2h01m  node-1
assistant-worker-7f-b  voice/assistant   serving                      ?/20      6m40s  node-2
assistant-worker-7f-c  voice/assistant   draining                     2/20      1d01h  node-2
parrot-b-worker-5d-b   voice/parrot [b]  starting                     ?/20      4s     node-2
parrot-worker-5d-a     voice/parrot      serving                      3/20      1m00s  node-1

DRAINS                       FOR    SESSIONS LEFT  WHY
voice/assistant-worker-7f-c  2m10s  2              fewer are wanted

AGO    SERVICE          DECISION
4s     voice/parrot     Creating          1 worker: 2 wanted, 1 there
30s    test/broken      ImagePullBackOff  no such image (x7)
2m10s  voice/assistant  Draining          assistant-worker-7f-c: 2 wanted, 3 there
",
    );
}

#[test]
fn as_much_as_fits() {
    check(
        &view(&Choice::default()),
        60,
        Some(20),
        "
streamfleet top   cluster c   all namespaces   12:00:00 UTC
3 services   6 workers   2 starting   1 draining   34/60 se~

SERVICE          READY  WORKERS  DRAINING  SESSIONS
test/broken      no     0/1      0         0/0       Degrad~
voice/assistant  yes    2/2      1         31/40     https:~
voice/parrot     yes    1/2      0         3/20      Progre~

WORKER                 SERVICE           STATE             ~
broken-worker-1        test/broken       starting (ImagePul~
assistant-worker-7f-a  voice/assistant   serving           ~
... 4 more

DRAINS                       FOR    SESSIONS LEFT  WHY
voice/assistant-worker-7f-c  2m10s  2              fewer ar~

AGO    SERVICE          DECISION
4s     voice/parrot     Creating          1 worker: 2 wante~
30s    test/broken      ImagePullBackOff  no such image (x7)
2m10s  voice/assistant  Draining          assistant-worker-~
",
    );
}

#[test]
fn workers_scroll() {
    let choice = |scroll: usize| Choice { namespace: Some("voice".to_owned()), scroll, ..Choice::default() };
    let workers = |scroll: usize| {
        let text = render(&view(&choice(scroll)), Size { width: 12, height: Some(19) });
        text.lines()
            .skip_while(|line| !line.starts_with("WORKER"))
            .skip(1)
            .take(4)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let all = ["assistant-w~", "parrot-b-wo~", "parrot-work~"];
    assert_eq!(workers(0), [all[0], all[0], all[0], "... 2 more"]);
    assert_eq!(workers(1), [all[0], all[0], all[1], "... 1 above~"]);
    assert_eq!(workers(9), [all[0], all[1], all[2], "... 2 above"]);
}

#[test]
fn the_last_line_is_for_whoever_looks() {
    let last = |view: &View, hands: Hands| {
        let lines = lines(view, Size { width: 80, height: Some(30) }, hands);
        assert_eq!(lines.len(), if hands == Hands::On || view.problem.is_some() { 30 } else { 23 });
        lines.last().cloned().unwrap()
    };
    let mut view = view(&Choice::default());
    assert_eq!(last(&view, Hands::On), (Look::Dim, KEYS.to_owned()));
    assert!(last(&view, Hands::Off).1.starts_with("2m10s"));
    view.problem = Some("pods: forbidden".to_owned());
    for hands in [Hands::On, Hands::Off] {
        assert_eq!(last(&view, hands), (Look::Warning, "pods: forbidden".to_owned()));
    }
}

#[test]
fn an_empty_cluster() {
    let view = View::of(&Default::default(), &Choice::default(), &teller(), None, NOW);
    check(
        &view,
        80,
        Some(24),
        "
streamfleet top   cluster c   all namespaces   12:00:00 UTC
0 services   0 workers   0 sessions

SERVICE  READY  WORKERS  DRAINING  SESSIONS
no services

WORKER  SERVICE  STATE  SESSIONS  AGE  NODE
no workers

DRAINS  FOR  SESSIONS LEFT  WHY
nobody drains

AGO  SERVICE  DECISION
nothing was decided lately
",
    );
}

/// An Event's note was written to an administrator's terminal as it was.
#[test]
fn a_terminal_obeys_nobody_but_us() {
    let bad = "\u{1b}]52;c;AAAA\u{7}\u{9b}2J\r\n\u{202e}x";
    let mut view = view(&Choice::default());
    view.problem = Some(bad.to_owned());
    view.title.push_str(bad);
    view.summary.push_str(bad);
    for table in &mut view.tables {
        table.rows.iter_mut().flat_map(|row| &mut row.cells).for_each(|cell| cell.push_str(bad));
    }
    for hands in [Hands::On, Hands::Off] {
        for (_, line) in lines(&view, Size { width: 300, height: Some(60) }, hands) {
            assert_eq!(line, plain(&line));
        }
    }
    assert!(render(&view, Size { width: usize::MAX, height: None }).contains(" ]52;c;AAAA  2J   x"));
}

#[test]
fn rows_are_shared() {
    for (needs, rows, expected) in [
        (&[3, 6, 1, 3][..], 100, [3, 6, 1, 3]),
        (&[3, 6, 1, 3], 10, [3, 3, 1, 3]),
        (&[9, 9, 9, 9], 20, [5, 5, 5, 5]),
        (&[1, 50, 1, 50], 12, [1, 5, 1, 5]),
        (&[3, 6, 1, 3], 0, [2, 2, 1, 2]),
    ] {
        assert_eq!(shares(needs, rows), expected, "{needs:?} in {rows}");
    }
}

proptest! {
    /// Whatever a terminal's size and whatever there is: no line is wider, and there are no more lines.
    #[test]
    fn it_fits(width in 0..200_usize, height in 0..60_usize, rows in prop::collection::vec("\\PC{0,80}", 0..40), scroll in 0..60_usize) {
        let mut view = view(&Choice { scroll, ..Choice::default() });
        let more = rows.into_iter().map(|text| Row { cells: vec![text.clone(), text, String::new()], look: Look::Plain });
        view.tables[1].rows.extend(more);
        view.tables[1].scroll = scroll;
        for hands in [Hands::On, Hands::Off] {
            let lines = lines(&view, Size { width, height: Some(height) }, hands);
            prop_assert!(lines.len() <= height);
            prop_assert!(lines.iter().all(|(_, line)| line.chars().count() <= width));
        }
    }
}
