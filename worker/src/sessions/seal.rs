//! That a session is being ended on somebody's order: until that is done its client comes nowhere else in its name.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// Of one session, and of those that come to have its id from it. Looked at and changed under the table's lock, but for being
/// given up: an order that was not carried out in time leaves the session as it was.
#[derive(Debug, Clone, Default)]
pub(super) struct Seal(Arc<AtomicU32>);

/// One order to end a session; the seal is broken when all are dropped.
#[derive(Debug)]
pub(super) struct Sealed(Arc<AtomicU32>);

impl Seal {
    pub(super) fn set(&self) -> Sealed {
        self.0.fetch_add(1, Relaxed);
        Sealed(self.0.clone())
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Relaxed) > 0
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
