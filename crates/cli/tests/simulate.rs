//! `streamfleet simulate`, the program itself: a recorded load, a generated one, and what is no load.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const RULES: [(&str, &str); 3] =
    [("streamfleet", "streamfleet"), ("HPA 70 %, 5 h", "hpa5h"), ("HPA 70 %, 30 s", "hpa30s")];
/// What a command line that cannot be understood ends with.
const USAGE: i32 = 64;

fn simulate(words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamfleet"));
    command.arg("simulate").args(words.split_whitespace()).stdin(Stdio::null());
    command
}

/// What it says of something that it can do.
#[track_caller]
fn said(words: &str) -> String {
    text(&simulate(words).output().unwrap())
}

#[track_caller]
fn text(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{}: {errors}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("streamfleet-simulate-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn at(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.0.join(name), bytes).unwrap();
        self.at(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// An hour of calls, in milliseconds: when each comes and goes. But for the first none does so at a whole minute.
fn calls() -> Vec<(u64, u64)> {
    (0..400).map(|n| (n * 9_100, n * 9_100 + 60_250 + n * 37_000 % 240_000)).collect()
}

/// The same as a file has it: by a Unix clock, not in their order.
fn recorded() -> String {
    let mut text = "start,duration\n# an hour\n".to_owned();
    for (start, end) in calls().into_iter().rev() {
        let begin = 1_700_000_000_500 + start;
        writeln!(text, "{}.{:03},{}", begin / 1_000, begin % 1_000, (end - start) as f64 / 1_000.0).unwrap();
    }
    text
}

/// The rows of a table in Markdown, without its two lines of head.
fn rows(table: &str) -> Vec<Vec<&str>> {
    let lines = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// What a row says, of what JSON has.
fn as_row(seed: u64, rule: (&str, &str), day: &Value) -> Vec<String> {
    let side = &day[rule.1];
    let count = |key: &str| side[key].as_u64().unwrap().to_string();
    let wait = |key: &str| format!("{:.1} s", side["waits"][key].as_f64().unwrap());
    let hours = side["podHours"].as_f64().unwrap();
    let share = hours / day["hpa5h"]["podHours"].as_f64().unwrap();
    let counts = ["offered", "killed", "refused", "held"].map(count);
    let rest = [count("made"), count("mostPods"), format!("{hours:.0}"), format!("{share:.3}")];
    [vec![seed.to_string(), rule.0.to_owned()], counts.into(), ["p50", "p95", "max"].map(wait).into(), rest.into()]
        .concat()
}

#[test]
fn a_recorded_load_is_played_as_it_was() {
    let folder = Folder::new("recorded");
    let (load, svg) = (folder.write("calls.csv", recorded()), folder.at("calls.svg"));
    // More places than calls: nobody waits, and every count is known beforehand.
    let words = format!("--load {load} --capacity 5 --min 12");
    let table = said(&format!("{words} --svg {svg}"));
    let days: Value = serde_json::from_str(&said(&format!("{words} --output json"))).unwrap();
    let expected: Vec<_> = RULES.map(|rule| as_row(1, rule, &days[0])).into();
    assert_eq!(
        (rows(&table), days.as_array().unwrap().len()),
        (expected.iter().map(|row| row.iter().map(String::as_str).collect()).collect(), 1)
    );

    let hours = calls().iter().map(|(start, end)| (end - start) as f64).sum::<f64>() / 3_600_000.0;
    for (name, key) in RULES {
        let side = &days[0][key];
        let counts = ["offered", "killed", "refused", "held", "mostPods"].map(|key| side[key].as_u64().unwrap());
        assert_eq!(counts, [400, 0, 0, 0, 12], "{name}");
        assert!((side["sessionHours"].as_f64().unwrap() - hours).abs() < 1e-6, "{name}: {side:#}, of {hours} hours");
    }
    check_course(&said(&format!("{words} --output csv")));
    check_picture(&std::fs::read_to_string(svg).unwrap());

    // The same from a pipe.
    let mut piped = simulate("--load - --capacity 5 --min 12")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    piped.stdin.take().unwrap().write_all(recorded().as_bytes()).unwrap();
    assert_eq!(text(&piped.wait_with_output().unwrap()), table);
}

/// Each side has a sample a minute, with the calls that there were.
#[track_caller]
fn check_course(csv: &str) {
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("seed,rule,seconds,sessions,capacity,pods"));
    let mut samples = [0; 3];
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let rule = RULES.iter().position(|(_, key)| *key == fields[1]).expect(line);
        let numbers: Vec<u64> = fields[2..].iter().map(|field| field.parse().expect(line)).collect();
        let at = samples[rule] * 60_000;
        let live = calls().iter().filter(|(start, end)| *start <= at && at < *end).count();
        assert_eq!((fields[0], &numbers[..]), ("1", &[at / 1_000, live as u64, 60, 12][..]), "{line}");
        samples[rule] += 1;
    }
    let minutes = calls().iter().map(|(_, end)| *end).max().unwrap() / 60_000 + 1;
    assert_eq!(samples, [minutes; 3]);
}

/// A picture for each rule: what the pods could take, and beneath it the calls.
#[track_caller]
fn check_picture(svg: &str) {
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && svg.ends_with("</svg>\n"), "{svg}");
    assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    for (name, _) in RULES {
        assert!(svg.contains(&format!(">{name}: ")), "{name}");
    }
    let [pods, capacity, sessions] = ["all pods", "pods that serve", "sessions"].map(|name| curves(svg, name));
    for curves in [&pods, &capacity, &sessions] {
        assert_eq!(curves.len(), 3);
    }
    for ((pods, capacity), sessions) in pods.iter().zip(&capacity).zip(&sessions) {
        assert!(pods.len() > 60 && pods.len() == sessions.len(), "{} and {}", pods.len(), sessions.len());
        assert_eq!(pods, capacity, "nothing starts or drains");
        // Down is where there is less.
        let most = sessions.iter().map(|(_, y)| *y).fold(f64::INFINITY, f64::min);
        let least = sessions.iter().map(|(_, y)| *y).fold(0.0, f64::max);
        assert!(pods.iter().zip(sessions).all(|((x, full), (at, y))| x == at && full < y), "{sessions:?}");
        assert!(pods.is_sorted_by(|(one, _), (next, _)| one < next) && least - most > 50.0, "{sessions:?}");
    }
}

/// The lines of the colour in which the legend names something.
fn curves(svg: &str, name: &str) -> Vec<Vec<(f64, f64)>> {
    let legend = svg.lines().find(|line| line.ends_with(&format!(">{name}</text>"))).expect(name);
    let colour = legend.split("fill=\"").nth(1).unwrap().split('"').next().unwrap();
    let stroke = format!("stroke=\"{colour}\"");
    let point = |text: &str| text.split_once(' ').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap())).unwrap();
    let points = |line: &str| {
        let path = line.split("d=\"M").nth(1).unwrap().split('"').next().unwrap();
        path.split('L').map(point).collect()
    };
    svg.lines().filter(|line| line.starts_with("<path") && line.contains(&stroke)).map(points).collect()
}

#[test]
fn a_generated_load_is_its_seeds() {
    let day = said("--seed 3 --sessions-per-day 3000");
    assert_eq!(said("--seed 3 --sessions-per-day 3000"), day);
    let days = said("--seed 3..=4 --sessions-per-day 3000");
    let rows = rows(&days);
    assert_eq!(rows.len(), 6);
    assert!(days.starts_with(&day), "{days}");
    assert_ne!(rows[0][2], rows[3][2], "another day");
    for (n, row) in rows.iter().enumerate() {
        assert_eq!((row[0], row[1]), (["3", "4"][n / 3], RULES[n % 3].0));
        let number = |column: usize| row[column].trim_end_matches(" s").parse::<f64>().unwrap();
        let [sessions, killed, refused, held] = [2, 3, 4, 5].map(number);
        let [p50, p95, longest, made, most, hours, share] = [6, 7, 8, 9, 10, 11, 12].map(number);
        // A Poisson's deviation is 55; two bursts of ten minutes come on top.
        assert!((2_700.0..3_700.0).contains(&sessions) && refused + killed < sessions, "{row:?}");
        assert!(p50 <= p95 && p95 <= longest && longest <= 20.0 && (held > 0.0 || longest == 0.0), "{row:?}");
        assert!(most >= 1.0 && made >= most && hours >= 24.0 && hours <= most * 30.0, "{row:?}");
        match n % 3 {
            0 => assert!(killed == 0.0 && share < 1.0, "{row:?}"),
            1 => assert!(killed == 0.0 && share == 1.0, "{row:?}"),
            // What the others are compared with: it does not wait for calls.
            _ => assert!(killed > 0.0, "{row:?}"),
        }
    }
    let sum = |column: usize, rule: usize| {
        rows.iter().skip(rule).step_by(3).map(|row| row[column].parse::<u64>().unwrap()).sum::<u64>()
    };
    let end = format!(
        "; 0 killed, {} refused; HPA with 5 h: {} refused; with 30 s: {} killed\n",
        sum(4, 0),
        sum(4, 1),
        sum(3, 2)
    );
    assert!(days.contains("\n2 days: ") && days.ends_with(&end), "{days}");
}

#[test]
fn what_cannot_be_done_is_said_in_a_line() {
    let folder = Folder::new("bad");
    #[track_caller]
    fn check(words: &str, status: i32, line: &str) {
        let output = simulate(words).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(status), true), "{words}: {errors}");
        assert_eq!(errors.lines().next(), Some(line), "{words}: {errors}");
        // What clap says more is how the command is used.
        assert!(status == USAGE || errors.lines().count() == 1, "{words}: {errors}");
        assert!(!errors.contains("panicked"), "{words}: {errors}");
    }
    let number = "is not a number of seconds from 0 on";
    for (text, what) in [
        (&b""[..], "no session in it: each line is `start,duration` in seconds".to_owned()),
        (b"start,duration\n1,2\n3;4\n", "line 3: `3;4` is not `start,duration`".to_owned()),
        (b"# a day\n\n1,2\n5,soon\n", format!("line 4: duration `soon` {number}")),
        (b"1,2\n-1,2\n", format!("line 2: start `-1` {number}")),
        (b"0,1\n99999999,1\n", "from the first to the last session it is more than a year".to_owned()),
        (b"1,2\n\xff,2\n", "stream did not contain valid UTF-8".to_owned()),
    ] {
        let file = folder.write("bad.csv", text);
        check(&format!("--load {file}"), 1, &format!("{file}: {what}"));
    }
    let none = folder.at("none.csv");
    check(&format!("--load {none}"), 1, &format!("{none}: No such file or directory (os error 2)"));
    let picture = folder.at("none/calls.svg");
    let words = format!("--sessions-per-day 100 --svg {picture}");
    check(&words, 1, &format!("{picture}: No such file or directory (os error 2)"));

    let load = folder.write("calls.csv", "1,2\n");
    for (option, value) in [
        ("--seed", "N"),
        ("--sessions-per-day", "N"),
        ("--bursts", "N"),
        ("--burst-factor", "X"),
        ("--burst-rise", "S"),
        ("--median", "S"),
    ] {
        let line = format!("error: the argument '--load <FILE>' cannot be used with '{option} <{value}>'");
        check(&format!("--load {load} {option} 2"), USAGE, &line);
    }
    check("--min 20 --max 10", USAGE, "error: --min 20 is more than --max 10");
    check("--capacity 0", USAGE, "error: invalid value '0' for '--capacity <N>': 0 is not in 1..=2048");
    let range = "error: invalid value '3..=1' for '--seed <N>': a range goes up, over 1000 days at most";
    check("--seed 3..=1", USAGE, range);
    check("--output yaml", USAGE, "error: invalid value 'yaml' for '--output <FORM>'");
}
