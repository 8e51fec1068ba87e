//! Waiting for what a cluster does in its own time.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Between two looks.
const PACE: Duration = Duration::from_millis(100);

/// Looks again and again until there is something to see. What `look` fails with is not the end of it, only told in the end.
///
/// # Errors
/// When there is nothing after `limit`: `what` was waited for, and the last failure.
pub async fn eventually<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let seen = look().await;
        if let Ok(Some(seen)) = seen {
            return Ok(seen);
        }
        if Instant::now() > deadline {
            let error = seen.err().map(|error| format!(": {error:#}")).unwrap_or_default();
            return Err(anyhow!("not after {limit:?}: {what}{error}"));
        }
        tokio::time::sleep(PACE).await;
    }
}

/// The same on a thread that may wait.
///
/// # Errors
/// As of [`eventually`].
pub(crate) fn eventually_here<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(Some(seen)) => return Ok(seen),
            Ok(None) if Instant::now() > deadline => return Err(anyhow!("not after {limit:?}: {what}")),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("not after {limit:?}: {what}")));
            }
            _ => std::thread::sleep(PACE / 5),
        }
    }
}
