//! Media that clients send here, as whoever leaves looks at it.

use std::sync::Arc;
use std::time::Duration;

use streamfleet_carrier::{Counters, Way};
use tokio::time::sleep;

/// A client that talks sends fifty packets a second, or a check every few seconds where it says nothing. Who sends nothing for this long
/// misses nothing that its next check would not find.
const QUIET: Duration = Duration::from_secs(1);

/// What a relay's threads have passed on from clients to workers.
#[derive(Clone)]
pub(crate) struct Traffic(Arc<[Arc<Counters>]>);

impl Traffic {
    pub(super) fn of(threads: &[Arc<Counters>]) -> Self {
        Self(threads.into())
    }

    fn packets(&self) -> u64 {
        self.0.iter().map(|counters| counters.packets(Way::ToWorker)).sum()
    }

    /// Waits until nothing has come for a second: whoever stands before the relay sends its clients to another one by then.
    pub(crate) async fn has_gone(&self) {
        let mut before = self.packets();
        loop {
            sleep(QUIET).await;
            let now = self.packets();
            if now == before {
                return;
            }
            before = now;
        }
    }
}
