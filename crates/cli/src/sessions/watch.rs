//! What has changed between two looks at a list of sessions, and when to look again. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::session::Session;

/// The longest pause while the server does not answer; a router is back sooner than anybody would notice a longer one.
const LONGEST: Duration = Duration::from_secs(30);

/// Something that happened to a session.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    /// It is here.
    Began(Box<Session>),
    /// Its state, its user or its worker is another.
    Changed { from: Box<Session>, to: Box<Session> },
    /// It is here no more.
    Ended(Box<Session>),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = |f: &mut fmt::Formatter<'_>, session: &Session| {
            let named = [("user", &session.user), ("transport", &session.transport), ("worker", &session.worker)];
            named
                .into_iter()
                .filter_map(|(name, value)| Some((name, value.as_ref()?)))
                .try_for_each(|(name, value)| write!(f, "  {name} {value}"))
        };
        match self {
            Self::Began(session) => {
                write!(f, "began    {}  {}", session.id, session.state)?;
                facts(f, session)
            }
            Self::Changed { from, to } if from.state == to.state => {
                write!(f, "changed  {}  {}", to.id, to.state)?;
                facts(f, to)
            }
            Self::Changed { from, to } => {
                write!(f, "changed  {}  {} -> {}", to.id, from.state, to.state)?;
                facts(f, to)
            }
            Self::Ended(session) => write!(f, "ended    {}", session.id),
        }
    }
}

impl Change {
    pub(super) fn json(&self) -> Value {
        let (word, session) = match self {
            Self::Began(session) => ("began", session),
            Self::Changed { to, .. } => ("changed", to),
            Self::Ended(session) => ("ended", session),
        };
        json!({ "change": word, "session": session.raw })
    }
}

/// What was seen at the last look.
#[derive(Debug, Default)]
pub(super) struct Watched {
    known: Option<BTreeMap<String, Session>>,
}

impl Watched {
    /// Whether nothing has been seen yet.
    pub(super) fn is_new(&self) -> bool {
        self.known.is_none()
    }

    /// What has changed since the last look; at the first one all sessions begin. In the order of ids.
    pub(super) fn look(&mut self, sessions: Vec<Session>) -> Vec<Change> {
        let mut before = self.known.take().unwrap_or_default();
        let now: BTreeMap<String, Session> =
            sessions.into_iter().map(|session| (session.id.clone(), session)).collect();
        let mut changes = Vec::new();
        for (id, to) in &now {
            match before.remove(id) {
                None => changes.push(Change::Began(Box::new(to.clone()))),
                Some(from) if (&from.state, &from.user, &from.worker) != (&to.state, &to.user, &to.worker) => {
                    changes.push(Change::Changed { from: Box::new(from), to: Box::new(to.clone()) });
                }
                Some(_) => {}
            }
        }
        changes.extend(before.into_values().map(|session| Change::Ended(Box::new(session))));
        self.known = Some(now);
        changes
    }
}

/// When to look again.
#[derive(Debug)]
pub(super) struct Pace {
    every: Duration,
    failures: u32,
}

impl Pace {
    pub(super) fn new(every: Duration) -> Self {
        Self { every, failures: 0 }
    }

    pub(super) fn is_first_failure(&self) -> bool {
        self.failures == 0
    }

    /// Whether there were failures since the last success.
    pub(super) fn recovered(&self) -> bool {
        self.failures > 0
    }

    pub(super) fn after_success(&mut self) -> Duration {
        self.failures = 0;
        self.every
    }

    /// Pauses double while the server does not answer.
    pub(super) fn after_failure(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let factor = 2_u32.saturating_pow(self.failures);
        self.every.saturating_mul(factor).min(LONGEST.max(self.every))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: &str, state: &str, worker: &str) -> Session {
        Session::read(json!({ "id": id, "state": state, "worker": worker })).unwrap()
    }

    #[test]
    fn each_change_is_told_once() {
        let mut watched = Watched::default();
        let mut look = |sessions: &[(&str, &str, &str)]| {
            let sessions = sessions.iter().map(|(id, state, worker)| session(id, state, worker)).collect();
            watched.look(sessions).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(look(&[("b", "active", "w1")]), ["began    b  active  worker w1"]);
        assert_eq!(look(&[("b", "active", "w1")]), [""; 0]);
        assert_eq!(
            look(&[("a", "connecting", "w2"), ("b", "ending", "w1")]),
            ["began    a  connecting  worker w2", "changed  b  active -> ending  worker w1"]
        );
        assert_eq!(look(&[("a", "connecting", "w1")]), ["changed  a  connecting  worker w1", "ended    b"]);
        assert_eq!(look(&[]), ["ended    a"]);
    }

    #[test]
    fn json_has_all_that_was_said() {
        let [change] = Watched::default().look(vec![session("a", "active", "w")]).try_into().unwrap();
        assert_eq!(
            change.json(),
            json!({ "change": "began", "session": { "id": "a", "state": "active", "worker": "w" } })
        );
    }

    #[test]
    fn a_server_that_is_away_is_asked_less_often() {
        let mut pace = Pace::new(Duration::from_secs(1));
        assert!(pace.is_first_failure());
        let pauses: Vec<u64> = (0..7).map(|_| pace.after_failure().as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 30, 30, 30]);
        assert!(pace.recovered());
        assert_eq!(pace.after_success().as_secs(), 1);
        assert!(!pace.recovered());
        assert_eq!(Pace::new(Duration::from_secs(60)).after_failure().as_secs(), 60, "never more often than asked");
    }
}
