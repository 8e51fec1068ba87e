//! Who is asked to connect elsewhere while a worker drains: whom it would cut off, or everybody if somebody wants it empty.
//! Nobody else: a rollout interrupts nobody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use streamfleet_session::wire::ServerMessage;
use streamfleet_session::{CloseReason, RECONNECT_LEAD};
use streamfleet_store::Gate;

use super::via::Order;
use super::{Live, Sessions};
use crate::fleet::Member;

/// Clients that are asked together come again spread over so much time: another worker is to take them one by one.
const SPREAD: Duration = Duration::from_secs(10);
/// Into so many parts.
const PARTS: u32 = 100;
/// For those who have a deadline behind them, if that is no nearer.
const SOON: Duration = Duration::from_secs(1);
/// Who comes back here all the same is asked again so much later: it may be that nobody else takes him yet.
const AGAIN: Duration = Duration::from_secs(10);

/// Whether a session's client has been asked to connect elsewhere.
#[derive(Debug, Clone, Default)]
pub(super) struct Urged(Arc<Mutex<Asked>>);

#[derive(Debug, Clone, Copy, Default)]
enum Asked {
    #[default]
    No,
    Yes,
    /// In vain: it is to be asked once more, and not before this.
    Again(Instant),
}

impl Urged {
    /// Whether it is to be asked now; then it has been.
    fn take(&self, now: Instant) -> bool {
        let mut asked = self.0.lock();
        let is_due = match *asked {
            Asked::No => true,
            Asked::Yes => false,
            Asked::Again(at) => now >= at,
        };
        if is_due {
            *asked = Asked::Yes;
        }
        is_due
    }

    fn clear(&self) {
        *self.0.lock() = Asked::No;
    }

    /// Its client is back on another connection to the same session.
    pub(super) fn came_back(&self, now: Instant) {
        let mut asked = self.0.lock();
        if let Asked::Yes = *asked {
            *asked = Asked::Again(now + AGAIN);
        }
    }
}

/// How long a session lasts by itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// When its client connected.
    pub(super) connected: Option<Instant>,
    /// From then on.
    pub(super) limit: Option<Duration>,
}

impl Span {
    /// Whether a deadline would end it before it ends by itself.
    pub(super) fn is_cut_off(self, deadline: Instant, now: Instant) -> bool {
        // One that has not connected cannot have begun earlier than now.
        let end = self.limit.and_then(|limit| self.connected.unwrap_or(now).checked_add(limit));
        end.is_none_or(|end| end > deadline)
    }
}

/// When the client comes again who is the `n`th to be asked.
fn turn(n: usize) -> Duration {
    SPREAD / PARTS * u32::try_from(n % PARTS as usize).unwrap_or(0)
}

impl Live {
    fn span(&self) -> Span {
        Span { connected: self.shared.connected_at(), limit: self.time_limit }
    }

    fn is_asked_to_reconnect(&self, after: Duration) {
        let token = self.resume.map(|issued| issued.token);
        let message = ServerMessage::reconnect(after, CloseReason::Draining, token);
        if self.via.send(self.shared.token(), Order::Reconnect(Box::new(message))).is_err() {
            tracing::warn!(session = %self.shared.id(), "could not be asked to reconnect");
            self.urged.clear();
        }
    }
}

impl Sessions {
    /// The deadline of a drain is near: asks those whom it would cut off to come again before it.
    pub(super) fn warn_of(&self, now: Instant, deadline: Instant) {
        let after = (deadline.saturating_duration_since(now) / 2).min(SOON);
        let table = self.inner.table.by_id.lock();
        for live in table.values().filter(|live| live.span().is_cut_off(deadline, now)) {
            live.is_asked_to_reconnect(after);
        }
    }

    /// Whether it is time for that.
    pub(super) fn is_near(now: Instant, deadline: Instant) -> bool {
        now + RECONNECT_LEAD >= deadline
    }

    /// Somebody wants this worker empty: asks each client of the service once, and once more who has come back here. Whoever connects
    /// later is asked the next time.
    pub(crate) fn urge_all(&self, member: &Member, gate: Gate, now: Instant) {
        let table = self.inner.table.by_id.lock();
        let of_service = table.values().filter(|live| live.shared.service() == member.service());
        match gate {
            Gate::Leaving => {
                let here = of_service.filter(|live| live.shared.connected_at().is_some());
                let unasked = here.filter(|live| live.urged.take(now));
                unasked.enumerate().for_each(|(n, live)| live.is_asked_to_reconnect(turn(n)));
            }
            Gate::Open | Gate::Draining => of_service.for_each(|live| live.urged.clear()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_would_be_cut_off_is() {
        let now = Instant::now() + Duration::from_secs(1000);
        let deadline = now + Duration::from_secs(60);
        let check = |ago: Option<u64>, limit: Option<u64>, expected: bool| {
            let connected = ago.map(|ago| now - Duration::from_secs(ago));
            let span = Span { connected, limit: limit.map(Duration::from_secs) };
            assert_eq!(span.is_cut_off(deadline, now), expected, "{span:?}");
        };
        check(Some(10), None, true);
        check(Some(10), Some(70), false);
        check(Some(10), Some(71), true);
        check(Some(500), Some(400), false);
        check(None, Some(60), false);
        check(None, Some(61), true);
        check(Some(10), Some(u64::MAX), true);
    }

    #[test]
    fn who_comes_back_is_asked_again_in_time() {
        let (urged, begun) = (Urged::default(), Instant::now());
        let take = |seconds: u64| urged.take(begun + Duration::from_secs(seconds));
        let comes_back = |seconds: u64| urged.came_back(begun + Duration::from_secs(seconds));
        comes_back(0);
        assert!(take(0), "that was before it was asked");
        assert!(!take(60));
        comes_back(60);
        // A network that breaks again and again puts nothing off.
        comes_back(69);
        assert!(!take(69));
        assert!(take(70));
        assert!(!take(200));
        comes_back(200);
        urged.clear();
        assert!(take(201), "that was another time");
    }

    #[test]
    fn clients_come_one_by_one() {
        let turns: Vec<Duration> = (0..250).map(turn).collect();
        assert_eq!((turns[0], turns[1], turns[100]), (Duration::ZERO, Duration::from_millis(100), Duration::ZERO));
        assert!(turns.iter().all(|turn| *turn < SPREAD));
    }
}
