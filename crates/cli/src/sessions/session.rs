//! A session as a server shows it, read leniently: routers and workers show different keys, and later ones will show more.

use std::time::{Duration, SystemTime};

use serde_json::Value;

/// One session of a list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) user: Option<String>,
    pub(crate) transport: Option<String>,
    pub(crate) worker: Option<String>,
    age: Age,
    /// All that was said of it.
    pub(crate) raw: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    /// A router's word.
    Known(Duration),
    /// A worker's: when it began.
    Since(SystemTime),
    Unknown,
}

impl Session {
    /// `None` for what has no id and no state.
    pub(crate) fn read(raw: Value) -> Option<Self> {
        let text = |key: &str| raw.get(key).and_then(Value::as_str).map(str::to_owned);
        let number = |key: &str| raw.get(key).and_then(Value::as_f64);
        let since = number("since").and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let age = match number("age_ms").and_then(|age| Duration::try_from_secs_f64(age / 1000.0).ok()) {
            Some(age) => Age::Known(age),
            None => since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)).map_or(Age::Unknown, Age::Since),
        };
        Some(Self {
            id: text("id")?,
            state: text("state")?,
            user: text("user_id"),
            transport: text("transport"),
            worker: text("worker"),
            age,
            raw,
        })
    }

    pub(crate) fn age(&self, now: SystemTime) -> Option<Duration> {
        match self.age {
            Age::Known(age) => Some(age),
            // Clocks of two machines differ.
            Age::Since(since) => Some(now.duration_since(since).unwrap_or_default()),
            Age::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_routers_and_workers_show() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let age = |raw: Value| Session::read(raw).unwrap().age(now).map(|age| age.as_millis());
        assert_eq!(age(json!({ "id": "a", "state": "active", "age_ms": 1500, "since": 1 })), Some(1_500));
        assert_eq!(age(json!({ "id": "a", "state": "active", "since": 990.5 })), Some(9_500));
        assert_eq!(age(json!({ "id": "a", "state": "active", "since": 2_000 })), Some(0));
        assert_eq!(age(json!({ "id": "a", "state": "active", "since": -1, "age_ms": "x" })), None);
        assert_eq!(Session::read(json!({ "id": "a" })), None);
        assert_eq!(Session::read(json!([])), None);
    }
}
