//! A session's additional outputs, where any process can read them.

use async_trait::async_trait;
use streamfleet_session::{ServiceName, SessionId};

use crate::context::StoreError;
use crate::directory::FleetError;
use crate::words::{Owner, Ticket};

/// Outputs kept of a session: what a page has missed while it reconnected.
pub const MAX_OUTPUTS: usize = 256;
/// Bytes kept over all outputs of a session; the newest is always kept.
pub const MAX_OUTPUTS_BYTES: usize = 1 << 20;
/// Outputs that are read in one step.
pub const MAX_READ: usize = 64;

/// Some outputs of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    /// Number and JSON text of each, in order.
    pub outputs: Vec<(u64, String)>,
    /// Whether the session is over: after these there is nothing more to wait for.
    pub over: bool,
}

/// Outputs of sessions. They are numbered from 1, and some are kept for a while after their session's end.
#[async_trait]
pub trait Outputs: Send + Sync + 'static {
    /// Adds an output, a JSON text, and wakes its readers. Returns its number; `None` if the session is over.
    ///
    /// # Errors
    /// [`FleetError`].
    async fn append(
        &self,
        service: &ServiceName,
        owner: &Owner,
        ticket: Ticket,
        json: &str,
    ) -> Result<Option<u64>, FleetError>;

    /// At most [`MAX_READ`] outputs after number `after`, of the session that lives under the id or the last that did.
    /// `None` if neither is known.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn outputs(&self, service: &ServiceName, session: &SessionId, after: u64)
    -> Result<Option<Read>, StoreError>;
}
