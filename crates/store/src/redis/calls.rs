//! Telephone calls, on Redis.

use async_trait::async_trait;
use streamfleet_session::{ServiceName, SessionId};

use super::{RedisStore, plain, reply};
use crate::calls::Calls;
use crate::context::StoreError;

#[async_trait]
impl Calls for RedisStore {
    async fn enter_call(&self, service: &ServiceName, call: u128, session: &SessionId) -> Result<bool, StoreError> {
        let arguments = [&*format!("{call:032x}"), session.as_str()];
        let answer = self.run(&self.scripts().call_enter, service, &arguments).await.map_err(plain)?;
        Ok(reply::text(answer)? == "1")
    }

    async fn session_of_call(&self, service: &ServiceName, call: u128) -> Result<Option<SessionId>, StoreError> {
        let answer = self.run(&self.scripts().call_find, service, &[&*format!("{call:032x}")]).await.map_err(plain)?;
        let session = reply::text(answer)?;
        if session.is_empty() { Ok(None) } else { reply::parse(&session).map(Some) }
    }
}
