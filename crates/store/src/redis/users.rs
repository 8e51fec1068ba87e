//! Users of services, as access control lists of Redis.

use async_trait::async_trait;
use redis::{Cmd, RedisError};
use ring::digest::{SHA256, digest};
use streamfleet_session::ServiceName;

use super::{RedisStore, keys, plain, refusal};
use crate::context::StoreError;
use crate::users::{Users, user_of};

/// What a worker's user may do, with the keys and channels of its service alone: what scripts call, how they are called, wake-ups, and
/// how clients find their way in a Cluster and behind Sentinels.
pub const RIGHTS: &[&str] = &[
    "-@all",
    "+evalsha",
    "+eval",
    "+ping",
    "+hello",
    "+ssubscribe",
    "+sunsubscribe",
    "+spublish",
    "+time",
    "+get",
    "+set",
    "+del",
    "+exists",
    "+pexpire",
    "+incrby",
    "+decrby",
    "+hget",
    "+hset",
    "+hdel",
    "+hmget",
    "+hgetall",
    "+hkeys",
    "+hlen",
    "+hexists",
    "+hincrby",
    "+zadd",
    "+zrem",
    "+zrange",
    "+zrangebyscore",
    "+zrangebylex",
    "+zscore",
    "+zlexcount",
    "+llen",
    "+lrange",
    "+lpop",
    "+rpop",
    "+rpush",
    "+role",
    "+cluster|slots",
];

#[async_trait]
impl Users for RedisStore {
    fn connections(&self) -> u64 {
        self.0.supervisor.connections()
    }

    async fn admit(&self, service: &ServiceName, password: &str) -> Result<(), StoreError> {
        let all = keys::all(service);
        let mut command = redis::cmd("ACL");
        // In one step: nobody is without rights meanwhile. And the hash alone: a server that knows no such command repeats what it was told.
        let hash = digest(&SHA256, password.as_bytes());
        let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        command.arg("SETUSER").arg(user_of(service)).arg("reset").arg("on").arg(format!("#{hash}"));
        command.arg(format!("~{all}")).arg("resetchannels").arg(format!("&{all}")).arg(RIGHTS);
        self.rule(&command).await
    }

    async fn dismiss(&self, service: &ServiceName) -> Result<(), StoreError> {
        self.rule(redis::cmd("ACL").arg("DELUSER").arg(user_of(service))).await
    }
}

impl RedisStore {
    /// At every node of a Cluster, each of which has users of its own. A replica that is silent is no reason to doubt the connection: nothing
    /// else is asked of replicas.
    async fn rule(&self, command: &Cmd) -> Result<(), StoreError> {
        let mut link = self.0.supervisor.link().await?;
        link.send(command).await.map(|_| ()).map_err(|error| refused(&error))
    }
}

/// It is there and will not, now or later: its user may not, or it is something that knows no users.
fn refused(error: &RedisError) -> StoreError {
    match error.code() {
        Some("ERR") => StoreError::Refused(format!("ERR {}", error.detail().unwrap_or_default())),
        _ => plain(refusal(error)),
    }
}
