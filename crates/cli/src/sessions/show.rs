//! Sessions for people: a table of many, all of one.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use serde_json::{Number, Value};

use super::session::Session;
use crate::plain::plain;

const HEAD: [&str; 6] = ["SESSION", "STATE", "AGE", "USER", "TRANSPORT", "WORKER"];

/// A line for each session, under a head; the columns as wide as they need.
pub(super) fn table(sessions: &[Session], now: SystemTime) -> String {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let rows = sessions.iter().map(|session| {
        let age = session.age(now).map_or_else(|| "-".to_owned(), length);
        let (user, transport, worker) = (or_dash(&session.user), or_dash(&session.transport), or_dash(&session.worker));
        [session.id.clone(), session.state.clone(), age, user, transport, worker].map(|cell| plain(&cell))
    });
    let rows: Vec<[String; 6]> = std::iter::once(HEAD.map(str::to_owned)).chain(rows).collect();
    let widths: Vec<usize> =
        (0..HEAD.len()).map(|n| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// `3h05m`, `4m10s`, `7s`.
fn length(age: Duration) -> String {
    let (hours, minutes, seconds) = (age.as_secs() / 3_600, age.as_secs() / 60 % 60, age.as_secs() % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds:02}s"),
        _ => format!("{hours}h{minutes:02}m"),
    }
}

/// All that is known, a fact a line, what belongs together indented.
pub(super) fn whole(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    text.trim_end().to_owned()
}

/// A measured number: what is behind its first digit is noise.
fn rounded(number: &Number) -> f64 {
    (number.as_f64().unwrap_or_default() * 10.0).round() / 10.0
}

fn write(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, value)| (format!("{}:", plain(key)), value)).collect(),
        Value::Array(list) => list.iter().map(|value| ("-".to_owned(), value)).collect(),
        _ => return,
    };
    for (name, value) in entries {
        let nested = match value {
            Value::Object(map) => map.values().any(|value| value.is_object() || value.is_array()) || map.len() > 4,
            Value::Array(list) => !list.is_empty(),
            _ => false,
        };
        // A text takes whatever is written to it.
        let _ = match value {
            _ if nested => writeln!(text, "{indent}{name}"),
            Value::String(said) => writeln!(text, "{indent}{name} {}", plain(said)),
            Value::Null => writeln!(text, "{indent}{name} -"),
            Value::Number(number) if number.is_f64() => writeln!(text, "{indent}{name} {}", rounded(number)),
            other => writeln!(text, "{indent}{name} {}", plain(&other.to_string())),
        };
        if nested {
            write(value, depth + 1, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table() {
        let sessions = [
            json!({ "id": "ann", "state": "active", "age_ms": 250_000, "user_id": "mia", "transport": "webrtc", "worker": "w1" }),
            json!({ "id": "a-long-id", "state": "connecting", "age_ms": 900 }),
        ];
        let sessions = sessions.map(|raw| Session::read(raw).unwrap());
        assert_eq!(
            table(&sessions, SystemTime::UNIX_EPOCH),
            "SESSION    STATE       AGE    USER  TRANSPORT  WORKER\n\
             ann        active      4m10s  mia   webrtc     w1\n\
             a-long-id  connecting  0s     -     -          -"
        );
        assert_eq!(table(&[], SystemTime::UNIX_EPOCH), "SESSION  STATE  AGE  USER  TRANSPORT  WORKER");
    }

    /// What a caller said of himself was written to the terminal of whoever looked.
    #[test]
    fn nobody_but_us_drives_the_terminal() {
        let bad = "a\u{1b}[2J\nfake: b\u{9b}0c";
        let raw = json!({ "id": "ann", "state": "active", "user_id": bad, "data": { bad: [bad], "b": [{ "c": bad }], "d": [] } });
        let table = table(&[Session::read(raw.clone()).unwrap()], SystemTime::UNIX_EPOCH);
        for (text, rows) in [(table, 2), (whole(&raw), 9)] {
            assert_eq!(text.lines().count(), rows, "{text}");
            assert!(text.lines().all(|line| line == plain(line)), "{text:?}");
        }
    }

    #[test]
    fn ages() {
        for (seconds, expected) in [(0, "0s"), (59, "59s"), (61, "1m01s"), (11_100, "3h05m"), (360_000, "100h00m")] {
            assert_eq!(length(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn all_of_a_session() {
        let session = json!({
            "id": "ann",
            "user_id": null,
            "changes": [{ "at": 1, "change": "active" }],
            "outputs": [],
            "quality": { "a": 1, "b": 464.046_999_999_999_97, "c": null, "d": 4, "e": true },
        });
        assert_eq!(
            whole(&session),
            "changes:\n  - {\"at\":1,\"change\":\"active\"}\nid: ann\noutputs: []\nquality:\n  a: 1\n  b: 464\n  c: -\n  d: 4\n  e: true\nuser_id: -"
        );
    }
}
