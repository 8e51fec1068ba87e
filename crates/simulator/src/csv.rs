//! Recorded loads: one session a line, `start,duration` in seconds.
//!
//! ```csv
//! start,duration
//! 0.25,312.5
//! 17,40
//! ```
//!
//! `start` counts from any beginning (a Unix time will do: the earliest is 0), in any order; `duration` is from the answer to the
//! end. The first line may be these names; empty lines and lines that begin with `#` are left out.

use crate::load::{Load, Session};

/// Sessions that are read at most: what a simulation keeps in 160 MB.
pub const MAX_SESSIONS: usize = 10_000_000;

/// The longest span, in seconds: a year.
const LONGEST: f64 = 366.0 * 86_400.0;

/// A file that is no load.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoLoad {
    /// A line is no session.
    #[error("line {line}: {what}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// There is none.
    #[error("no session in it: each line is `start,duration` in seconds")]
    Empty,
    /// There are too many.
    #[error("more than {MAX_SESSIONS} sessions")]
    TooMany,
    /// It takes too long.
    #[error("from the first to the last session it is more than a year")]
    TooLong,
}

/// Reads a recorded load. It ends when its last session does.
///
/// # Errors
/// [`NoLoad`].
pub fn read(text: &str) -> Result<Load, NoLoad> {
    let mut sessions: Vec<(f64, f64)> = Vec::new();
    let mut is_first = true;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let may_be_names = std::mem::take(&mut is_first);
        if may_be_names && line.split(',').map(str::trim).eq(["start", "duration"]) {
            continue;
        }
        if sessions.len() == MAX_SESSIONS {
            return Err(NoLoad::TooMany);
        }
        sessions.push(session(line).map_err(|what| NoLoad::Line { line: number + 1, what })?);
    }
    let begin = sessions.iter().map(|(start, _)| *start).reduce(f64::min).ok_or(NoLoad::Empty)?;
    if sessions.iter().any(|(start, duration)| start - begin + duration > LONGEST) {
        return Err(NoLoad::TooLong);
    }
    let whole =
        |(start, duration): (f64, f64)| Session { start: millis(start - begin), duration: millis(duration).max(1) };
    let sessions: Vec<Session> = sessions.into_iter().map(whole).collect();
    let until = sessions.iter().map(|session| session.start + session.duration).max().unwrap_or(0);
    Ok(Load::new(sessions, until + 1))
}

fn session(line: &str) -> Result<(f64, f64), String> {
    let mut fields = line.split(',').map(str::trim);
    let (Some(start), Some(duration), None) = (fields.next(), fields.next(), fields.next()) else {
        return Err(format!("`{line}` is not `start,duration`"));
    };
    let number = |name: &str, text: &str| match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err(format!("{name} `{text}` is not a number of seconds from 0 on")),
    };
    Ok((number("start", start)?, number("duration", duration)?))
}

fn millis(seconds: f64) -> u64 {
    (seconds * 1_000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_lines() {
        let load = read("start,duration\n\n# a comment\n1700000010.5 , 2\r\n1700000000,0.0004\n").unwrap();
        assert_eq!(load.sessions(), [Session { start: 0, duration: 1 }, Session { start: 10_500, duration: 2_000 }]);
        assert_eq!(load.until(), 12_501);
    }

    #[test]
    fn what_is_no_session_is_named() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            assert_eq!(read(text).unwrap_err().to_string(), expected);
        }
        check("", "no session in it: each line is `start,duration` in seconds");
        check("start,duration\n", "no session in it: each line is `start,duration` in seconds");
        check("1,2\nstart,duration", "line 2: start `start` is not a number of seconds from 0 on");
        check("1", "line 1: `1` is not `start,duration`");
        check("# day\n1,2,3", "line 2: `1,2,3` is not `start,duration`");
        check("-1,2", "line 1: start `-1` is not a number of seconds from 0 on");
        check("1,nan", "line 1: duration `nan` is not a number of seconds from 0 on");
        check("1,inf", "line 1: duration `inf` is not a number of seconds from 0 on");
        check("0,1\n32000000,1", "from the first to the last session it is more than a year");
    }
}
