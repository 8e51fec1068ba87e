//! Control of sessions from anywhere: what anybody may ask, waited for, and sessions as lists show them.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use streamfleet_session::{CloseReason, ServiceName, SessionId};

use crate::context::StoreError;
use crate::directory::Demand;
use crate::sessions::{Filter, LiveSession, MAX_PAGE, Outcome, Phase, Sessions, Told, TrackResult};
use crate::settle::settle;
use crate::wake::Wakeups;

/// What came of a demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// The session is over, for this reason: an earlier one, if it was ending already.
    Ended(CloseReason),
    /// The track is closed.
    TrackClosed,
    /// There is no such session any more, or it has no such track.
    Unknown,
    /// It stands, and is done when the session's owner can.
    Pending,
}

/// Asks something of a live session, and waits for it, at most `patience`.
///
/// # Errors
/// [`StoreError`]; whether it stands is not known then.
pub async fn carry_out<S: Sessions + Wakeups + ?Sized>(
    store: &S,
    service: &ServiceName,
    live: &LiveSession,
    demand: &Demand,
    patience: Duration,
) -> Result<Done, StoreError> {
    let outcome = match store.ask(service, &live.session, Some(live.context), demand).await? {
        Told::Pending(pending) => settle(store, service, &pending, patience).await?,
        Told::Over(reason) => Some(Outcome::Ended(reason)),
        Told::Unknown => return Ok(Done::Unknown),
    };
    Ok(match (outcome, demand) {
        (Some(Outcome::Ended(reason)), Demand::End(_) | Demand::EndStream(_)) => Done::Ended(reason),
        (Some(Outcome::Track(TrackResult::Closed)), Demand::CloseTrack(_)) => Done::TrackClosed,
        // The session has ended before its track could, or has no such track.
        (Some(_), _) => Done::Unknown,
        (None, _) => Done::Pending,
    })
}

/// A session as a list shows it: what its worker has said of it, and where it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listed {
    /// Its id.
    pub id: SessionId,
    /// Who has it.
    pub worker: String,
    /// A [`Phase`]'s label.
    pub state: &'static str,
    /// Who it counts for.
    pub user_id: Option<String>,
    /// For how long it has lived, in milliseconds.
    pub age_ms: u64,
    /// Its owner's description.
    #[serde(flatten)]
    pub detail: Map<String, Value>,
}

impl From<LiveSession> for Listed {
    fn from(live: LiveSession) -> Self {
        let mut detail = live.detail;
        // What is known here is newer.
        for key in ["id", "worker", "state", "user_id", "age_ms"] {
            detail.remove(key);
        }
        Self {
            id: live.session,
            worker: live.at.worker.to_string(),
            state: live.phase.as_str(),
            user_id: live.user.map(|user| user.to_string()),
            age_ms: u64::try_from(live.age.as_millis()).unwrap_or(u64::MAX),
            detail,
        }
    }
}

impl Filter {
    /// Which sessions the parameters of a query ask for: `user`, `state`, `after`, `limit`. Unknown ones are ignored; `None`
    /// if a value can be none of ours.
    pub fn from_query<N: AsRef<str>, V: AsRef<str>>(parameters: impl IntoIterator<Item = (N, V)>) -> Option<Self> {
        let mut filter = Self { limit: MAX_PAGE, ..Self::default() };
        for (name, value) in parameters {
            let value = value.as_ref();
            match name.as_ref() {
                "user" => filter.user = Some(value.parse().ok()?),
                "state" => filter.phase = Some(Phase::from_label(value)?),
                "after" => filter.after = Some(value.parse().ok()?),
                "limit" => filter.limit = value.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit))?,
                _ => {}
            }
        }
        Some(filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let check = |query: &[(&str, &str)]| {
            Filter::from_query(query.iter().copied()).map(|filter| {
                let Filter { user, phase, after, limit } = filter;
                (user.map(|u| u.to_string()), phase, after.map(|id| id.to_string()), limit)
            })
        };
        assert_eq!(check(&[]), Some((None, None, None, MAX_PAGE)));
        let all = check(&[("user", "mia"), ("state", "active"), ("after", "x"), ("limit", "7"), ("other", "1")]);
        assert_eq!(all, Some((Some("mia".to_owned()), Some(Phase::Active), Some("x".to_owned()), 7)));
        for wrong in
            [("state", "lost"), ("limit", "0"), ("limit", "201"), ("limit", "x"), ("after", "a b"), ("user", "")]
        {
            assert!(check(&[wrong]).is_none(), "{wrong:?}");
        }
    }
}
