//! Outputs, on Redis.

use async_trait::async_trait;
use streamfleet_session::{ServiceName, SessionId};

use super::reply::{self, Reply};
use super::{RedisStore, plain};
use crate::context::StoreError;
use crate::directory::FleetError;
use crate::outputs::{Outputs, Read};
use crate::words::{Owner, Ticket};

#[async_trait]
impl Outputs for RedisStore {
    async fn append(
        &self,
        service: &ServiceName,
        owner: &Owner,
        ticket: Ticket,
        json: &str,
    ) -> Result<Option<u64>, FleetError> {
        let arguments = [owner.worker.as_str(), &owner.epoch.to_string(), &ticket.to_string(), json];
        let answer = self.run(&self.scripts().append, service, &arguments).await?;
        let number: u64 = reply::parse(&reply::text(answer)?)?;
        Ok(Some(number).filter(|number| *number > 0))
    }

    async fn outputs(
        &self,
        service: &ServiceName,
        session: &SessionId,
        after: u64,
    ) -> Result<Option<Read>, StoreError> {
        // Lua counts in doubles: beyond 2^53 two numbers are one, and no session says as much.
        let after = after.min(1 << 53).to_string();
        let arguments = [session.as_str(), &after];
        let answer = self.run(&self.scripts().outputs, service, &arguments).await.map_err(plain)?;
        let mut reply = Reply::new(answer)?;
        let Some(over) = reply.some_text()? else { return Ok(None) };
        let first: u64 = reply.parsed()?;
        let mut read = Read { outputs: Vec::new(), over: over == "1" };
        for number in first.. {
            if reply.is_empty() {
                break;
            }
            read.outputs.push((number, reply.text()?));
        }
        Ok(Some(read))
    }
}
