//! Which session a telephone call has, and that it was put through once.

use async_trait::async_trait;
use streamfleet_session::{ServiceName, SessionId};

use crate::context::StoreError;

/// Calls of a service that are known, the youngest. One is known for a day; a proof that a call shows is good for five minutes, so
/// that it stays good once with up to 800 calls a second. 40 MB.
pub const MAX_CALLS: usize = 1 << 18;

/// Telephone calls of a service: they know names of their own, which nobody else does, and not their sessions'.
#[async_trait]
pub trait Calls: Send + Sync + 'static {
    /// A call that was put through under this name has this session. False if the name has been used: it is good once.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn enter_call(&self, service: &ServiceName, call: u128, session: &SessionId) -> Result<bool, StoreError>;

    /// The session that a call was entered with.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn session_of_call(&self, service: &ServiceName, call: u128) -> Result<Option<SessionId>, StoreError>;
}
