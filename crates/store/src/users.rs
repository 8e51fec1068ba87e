//! Users of the store, one for each service: who has the login of a service's workers sees and changes what is that service's, and
//! nothing of another's.

use async_trait::async_trait;
use streamfleet_session::ServiceName;

use crate::context::StoreError;

/// Whoever makes users.
#[async_trait]
pub trait Users: Send + Sync + 'static {
    /// How often the store has been connected to. A server that has begun anew, or that was a replica before, knows no users: those
    /// that were made by an earlier connection are made again.
    fn connections(&self) -> u64;

    /// Makes the [user of a service](user_of), or sets it to what it is to be. Whoever has logged in as it before stays so.
    ///
    /// # Errors
    /// [`StoreError`]; `Refused` if this process' own user may not.
    async fn admit(&self, service: &ServiceName, password: &str) -> Result<(), StoreError>;

    /// Takes it away, with the connections of whoever has logged in as it.
    ///
    /// # Errors
    /// Likewise.
    async fn dismiss(&self, service: &ServiceName) -> Result<(), StoreError>;
}

/// The name of a service's user: `sf:NAMESPACE/NAME`.
#[must_use]
pub fn user_of(service: &ServiceName) -> String {
    format!("sf:{service}")
}
