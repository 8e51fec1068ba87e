//! Calls that wait while no worker is ready: few, and not for long.
//!
//! A held offer costs a connection and its body; ICE begins only when the client has the answer, so nothing runs out
//! meanwhile. Whoever waits looks again at each change of the directory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use streamfleet_session::ServiceName;
use streamfleet_session::wire::Failure;

/// Calls held for all services. Each may have a body of 256 KiB: 128 MB.
pub const MAX_HELD: usize = 512;
/// Of these, for one service: one that cannot start must not take the places of all others.
pub const MAX_HELD_PER_SERVICE: usize = 256;
/// When to come back where no worker was ready in time: about what a pod takes to start.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The places of those who wait.
#[derive(Debug, Clone, Default)]
pub struct Hold(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    held: usize,
    by_service: HashMap<ServiceName, usize>,
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
        let mut table = self.0.lock();
        let waiting = table.by_service.get(service).copied().unwrap_or(0);
        if patience.is_zero() || table.held >= MAX_HELD || waiting >= MAX_HELD_PER_SERVICE {
            return Err(refused);
        }
        table.held += 1;
        table.by_service.insert(service.clone(), waiting + 1);
        Ok(Place { hold: self.clone(), service: service.clone(), until: now + patience })
    }

    /// How many wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.lock().held
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
        let mut table = self.hold.0.lock();
        table.held -= 1;
        if let Some(waiting) = table.by_service.get_mut(&self.service) {
            *waiting -= 1;
            if *waiting == 0 {
                table.by_service.remove(&self.service);
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
        assert!(hold.0.lock().by_service.is_empty(), "nobody leaves a trace");
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
