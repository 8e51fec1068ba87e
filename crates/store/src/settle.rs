//! The wait for what was asked.

use std::time::Duration;

use streamfleet_session::ServiceName;
use tokio::time::{Instant, timeout_at};

use crate::context::StoreError;
use crate::sessions::{Outcome, Pending, Sessions};
use crate::wake::{Topic, Wakeups};

/// A lost wake-up costs at most this; rare enough to be no load.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Waits until a demand is done, at most `patience`; `None` if it is not done by then. It stands nevertheless.
///
/// # Errors
/// [`StoreError`], if the store gives no answer to the last look.
pub async fn settle<S: Sessions + Wakeups + ?Sized>(
    store: &S,
    service: &ServiceName,
    pending: &Pending,
    patience: Duration,
) -> Result<Option<Outcome>, StoreError> {
    let deadline = Instant::now() + patience;
    let mut listener = store.listen(service, Topic::Session(pending.session.clone()));
    loop {
        // A store that is away may come back before the caller's patience ends.
        let looked = store.outcome(service, pending).await;
        if let Ok(Some(outcome)) = looked {
            return Ok(Some(outcome));
        }
        let now = Instant::now();
        if now >= deadline {
            return looked;
        }
        let _ = timeout_at(deadline.min(now + LOOK_AGAIN), listener.woken()).await;
    }
}
