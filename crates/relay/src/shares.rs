//! How many flows of one session there may be.

use streamfleet_session::ufrag::SessionKey;

/// Counters: sessions that share one, by chance, share what one may have. A table that is full of calls has two flows for each.
const COUNTERS: usize = 1 << 16;

/// Flows of each session that its worker vouches for, counted by its key.
pub(crate) struct Shares {
    counts: Vec<u32>,
    most: u32,
}

impl Shares {
    /// At most so many for each.
    pub(crate) fn new(most: u32) -> Self {
        Self { counts: vec![0; COUNTERS], most }
    }

    /// One more. False, and not counted, if the session has as many as it may have.
    #[must_use]
    pub(crate) fn take(&mut self, key: &SessionKey) -> bool {
        let count = &mut self.counts[counter(key)];
        let may = *count < self.most;
        *count += u32::from(may);
        may
    }

    /// One that was taken is no more.
    pub(crate) fn give(&mut self, key: &SessionKey) {
        self.counts[counter(key)] -= 1;
    }
}

/// A key is secret, so that nobody chooses which sessions share a counter.
fn counter(key: &SessionKey) -> usize {
    let [first, second, ..] = *key.as_bytes();
    usize::from(u16::from_ne_bytes([first, second]))
}
