//! Calls that wait while no worker has a place for them: few, and not for long.
//!
//! A held offer costs a connection and its body; ICE begins only when the client has the answer, so nothing runs out
//! meanwhile. Whoever waits looks again whenever the directory is read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use streamfleet_session::ServiceName;
use streamfleet_session::wire::Failure;
use tokio::sync::Notify;

/// Calls held for all services. Each may have a body of 256 KiB: 128 MB.
pub const MAX_HELD: usize = 512;
/// Of these, for one service: one that cannot start must not take the places of all others.
pub const MAX_HELD_PER_SERVICE: usize = 256;
/// When to come back where no worker was ready in time: about what a pod takes to start.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The places of those who wait.
#[derive(Debug, Clone, Default)]
pub struct Hold(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    table: Mutex<Table>,
    /// Somebody waits for a service for which nobody did, or nobody does any more.
    turned: Notify,
    /// Somebody was refused of whose service nobody was since that was asked for.
    refused: Notify,
}

#[derive(Debug, Default)]
struct Table {
    held: usize,
    by_service: HashMap<ServiceName, usize>,
    /// Calls that were refused and of which nobody has been told; as many services as are configured.
    refused: HashMap<ServiceName, u32>,
}

/// A place of one who waits; dropping it gives it back.
#[derive(Debug)]
#[must_use = "a place that is dropped at once is nobody's"]
pub struct Place {
    hold: Hold,
    service: ServiceName,
    until: Instant,
}

impl Hold {
    /// A place for a call that may wait for `patience`.
    ///
    /// # Errors
    /// `no_capacity`, if it may not wait at all or too many do.
    pub fn enter(&self, service: &ServiceName, patience: Duration, now: Instant) -> Result<Place, Failure> {
        let refused = Failure::NoCapacity { retry_after: RETRY_AFTER };
        let mut table = self.0.table.lock();
        let waiting = table.by_service.get(service).copied().unwrap_or(0);
        if patience.is_zero() || table.held >= MAX_HELD || waiting >= MAX_HELD_PER_SERVICE {
            return Err(refused);
        }
        table.held += 1;
        table.by_service.insert(service.clone(), waiting + 1);
        if waiting == 0 {
            self.0.turned.notify_one();
        }
        Ok(Place { hold: self.clone(), service: service.clone(), until: now + patience })
    }

    /// How many wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.table.lock().held
    }

    /// How many wait for each service for which anybody does: at most [`MAX_HELD`].
    #[must_use]
    pub fn by_service(&self) -> HashMap<ServiceName, u32> {
        let count = |count: &usize| u32::try_from(*count).unwrap_or(u32::MAX);
        self.0.table.lock().by_service.iter().map(|(service, waiting)| (service.clone(), count(waiting))).collect()
    }

    /// A call had no place in the end.
    pub fn refuse(&self, service: &ServiceName) {
        let mut table = self.0.table.lock();
        match table.refused.get_mut(service) {
            Some(count) => *count = count.saturating_add(1),
            None => {
                table.refused.insert(service.clone(), 1);
                self.0.refused.notify_one();
            }
        }
    }

    /// How many calls were refused since this was asked last, by service.
    #[must_use]
    pub fn take_refused(&self) -> HashMap<ServiceName, u32> {
        std::mem::take(&mut self.0.table.lock().refused)
    }

    /// Waits until a call is refused of whose service none was since that was asked for, likewise.
    pub async fn refused(&self) {
        self.0.refused.notified().await;
    }

    /// Waits until somebody waits for a service for which nobody did, or nobody does any more. One waiter hears of it, at least once
    /// if that was before.
    pub async fn turned(&self) {
        self.0.turned.notified().await;
    }
}

impl Place {
    /// How much longer it may wait.
    ///
    /// # Errors
    /// `no_capacity` when its time is over.
    pub fn left(&self, now: Instant) -> Result<Duration, Failure> {
        let left = self.until.saturating_duration_since(now);
        if left.is_zero() { Err(Failure::NoCapacity { retry_after: RETRY_AFTER }) } else { Ok(left) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.hold.0.table.lock();
        table.held -= 1;
        if let Some(waiting) = table.by_service.get_mut(&self.service) {
            *waiting -= 1;
            if *waiting == 0 {
                table.by_service.remove(&self.service);
                self.hold.0.turned.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(n: usize) -> ServiceName {
        format!("s{n}").parse().unwrap()
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn places_are_few_and_come_back() {
        let (hold, now) = (Hold::default(), Instant::now());
        let take = |n: usize| {
            let held: Vec<Place> =
                std::iter::from_fn(|| hold.enter(&service(n), PATIENCE, now).ok()).take(1_000).collect();
            held
        };
        let (a, b) = (take(0), take(1));
        assert_eq!((a.len(), b.len(), take(2).len()), (MAX_HELD_PER_SERVICE, MAX_HELD - MAX_HELD_PER_SERVICE, 0));
        drop(a);
        assert_eq!(take(2).len(), MAX_HELD_PER_SERVICE);
        drop(b);
        assert_eq!(hold.held(), 0);
        assert!(hold.by_service().is_empty(), "nobody leaves a trace");
    }

    #[test]
    fn the_first_and_the_last_are_told_of() {
        use futures_util::FutureExt as _;
        let (hold, now) = (Hold::default(), Instant::now());
        let check = |what: &str, expected: bool, waiting: &[(usize, u32)]| {
            let waiting: HashMap<ServiceName, u32> = waiting.iter().map(|(n, held)| (service(*n), *held)).collect();
            assert_eq!((hold.turned().now_or_never().is_some(), hold.by_service()), (expected, waiting), "{what}");
        };
        check("nobody waits", false, &[]);
        let first = hold.enter(&service(0), PATIENCE, now);
        check("the first", true, &[(0, 1)]);
        let second = hold.enter(&service(0), PATIENCE, now);
        check("one more", false, &[(0, 2)]);
        let other = hold.enter(&service(1), PATIENCE, now);
        check("the first of another service", true, &[(0, 2), (1, 1)]);
        drop(first);
        check("one less", false, &[(0, 1), (1, 1)]);
        drop(second);
        check("the last", true, &[(1, 1)]);
        drop(other);
        drop(hold.enter(&service(1), PATIENCE, now));
        check("several at once are one", true, &[]);
    }

    #[test]
    fn who_is_refused_is_told_of_once() {
        use futures_util::FutureExt as _;
        let hold = Hold::default();
        let check = |expected: &[(usize, u32)]| {
            let expected: HashMap<ServiceName, u32> = expected.iter().map(|(n, count)| (service(*n), *count)).collect();
            let told = hold.refused().now_or_never().is_some();
            assert_eq!((told, hold.take_refused()), (!expected.is_empty(), expected));
        };
        check(&[]);
        [0, 0, 1].map(service).iter().for_each(|service| hold.refuse(service));
        check(&[(0, 2), (1, 1)]);
        check(&[]);
        hold.refuse(&service(1));
        check(&[(1, 1)]);
    }

    #[test]
    fn nobody_waits_longer_than_he_may() {
        let (hold, now) = (Hold::default(), Instant::now());
        let refused = Failure::NoCapacity { retry_after: RETRY_AFTER };
        assert_eq!(hold.enter(&service(0), Duration::ZERO, now).err(), Some(refused.clone()));
        let place = hold.enter(&service(0), PATIENCE, now).unwrap();
        let check = |seconds, expected| assert_eq!(place.left(now + Duration::from_secs(seconds)), expected);
        check(0, Ok(PATIENCE));
        check(19, Ok(Duration::from_secs(1)));
        check(20, Err(refused));
    }
}
