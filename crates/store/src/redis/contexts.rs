//! Contexts of one service, on Redis.

use async_trait::async_trait;
use redis::Script;
use serde_json::{Map, Value};
use streamfleet_session::{ResumeToken, ServiceName};

use super::reply::{self, Reply, nonsense};
use super::{RedisStore, plain};
use crate::context::{
    Claim, ContextId, ContextKey, ContextStore, Delivery, Expected, Generation, Issued, Opened, Sharing, StoreError,
    WriteError,
};
use crate::document::{Document, Version, checked};

/// A service's contexts. A context's name does not say whose it is, so the service is fixed here.
#[derive(Debug)]
pub(super) struct Contexts {
    store: RedisStore,
    service: ServiceName,
}

impl Contexts {
    pub(super) fn new(store: RedisStore, service: ServiceName) -> Self {
        Self { store, service }
    }
}

pub(super) fn context_name(id: ContextId) -> String {
    format!("{:032x}", id.0)
}

pub(super) fn context_id(name: &str) -> Result<ContextId, StoreError> {
    u128::from_str_radix(name, 16).map(ContextId).map_err(|_| nonsense())
}

/// What the store keeps of a token: whoever reads the store cannot resume with it. 128 random bits need no salt.
pub(super) fn fingerprint(token: &ResumeToken) -> String {
    Script::new(&token.reveal()).get_hash().to_owned()
}

pub(super) fn delivery(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Known => "known",
        Delivery::Sent => "sent",
    }
}

/// The end of an answer that opens a context: its tokens' generation, its version, its document.
pub(super) fn opened(
    reply: &mut Reply,
    id: ContextId,
    resumed: bool,
    token: ResumeToken,
) -> Result<Opened, StoreError> {
    let (generation, version) = (Generation(reply.parsed()?), Version(reply.parsed()?));
    let document = Document { data: reply::object(&reply.text()?)?, version };
    Ok(Opened { id, resumed, token, generation, document })
}

#[async_trait]
impl ContextStore for Contexts {
    async fn open(&self, key: &ContextKey, claim: &Claim) -> Result<Opened, StoreError> {
        let (id, token) = (ContextId(rand::random()), ResumeToken::from_random(rand::random()));
        let arguments = [
            key.session.to_string(),
            claim.token.as_ref().map(fingerprint).unwrap_or_default(),
            claim.user.as_ref().map(ToString::to_string).unwrap_or_default(),
            context_name(id),
            fingerprint(&token),
        ];
        let answer =
            self.store.run(&self.store.scripts().context_open, &key.service, &arguments).await.map_err(plain)?;
        let mut reply = Reply::new(answer)?;
        let (id, resumed) = (context_id(&reply.text()?)?, reply.text()? == "1");
        opened(&mut reply, id, resumed, token)
    }

    async fn find(&self, key: &ContextKey) -> Result<Option<ContextId>, StoreError> {
        let step = &self.store.scripts().context_find;
        let answer = self.store.run(step, &key.service, &[key.session.as_str()]).await.map_err(plain)?;
        let name = reply::text(answer)?;
        if name.is_empty() { Ok(None) } else { context_id(&name).map(Some) }
    }

    async fn rotate(&self, key: &ContextKey, token: &ResumeToken) -> Result<Option<Issued>, StoreError> {
        let next = ResumeToken::from_random(rand::random());
        let arguments = [key.session.to_string(), fingerprint(token), fingerprint(&next)];
        let step = &self.store.scripts().context_rotate;
        let answer = self.store.run(step, &key.service, &arguments).await.map_err(plain)?;
        let generation = reply::text(answer)?;
        if generation.is_empty() {
            return Ok(None);
        }
        Ok(Some(Issued { token: next, generation: Generation(reply::parse(&generation)?) }))
    }

    async fn share(&self, key: &ContextKey, claim: &Claim) -> Result<Sharing, StoreError> {
        let token = ResumeToken::from_random(rand::random());
        let arguments = [
            key.session.to_string(),
            claim.token.as_ref().map(fingerprint).unwrap_or_default(),
            claim.user.as_ref().map(ToString::to_string).unwrap_or_default(),
            fingerprint(&token),
        ];
        let step = &self.store.scripts().context_share;
        let answer = self.store.run(step, &key.service, &arguments).await.map_err(plain)?;
        let mut reply = Reply::new(answer)?;
        match reply.text()?.as_str() {
            "opened" => {
                let id = context_id(&reply.text()?)?;
                opened(&mut reply, id, true, token).map(Sharing::Opened)
            }
            "refused" => Ok(Sharing::Refused),
            "nobody" => Ok(Sharing::Nobody),
            _ => Err(nonsense()),
        }
    }

    async fn confirm(&self, id: ContextId, token: &ResumeToken, how_far: Delivery) -> Result<bool, StoreError> {
        let step = &self.store.scripts().context_confirm;
        let arguments = [context_name(id), fingerprint(token), delivery(how_far).to_owned()];
        let answer = self.store.run(step, &self.service, &arguments).await.map_err(plain)?;
        Ok(reply::text(answer)? == "1")
    }

    async fn verify(&self, key: &ContextKey, token: &ResumeToken) -> Result<Option<ContextId>, StoreError> {
        let arguments = [key.session.to_string(), fingerprint(token)];
        let step = &self.store.scripts().context_verify;
        let answer = self.store.run(step, &key.service, &arguments).await.map_err(plain)?;
        let name = reply::text(answer)?;
        if name.is_empty() { Ok(None) } else { context_id(&name).map(Some) }
    }

    async fn read(&self, id: ContextId) -> Result<Option<Document>, StoreError> {
        let step = &self.store.scripts().context_read;
        let answer = self.store.run(step, &self.service, &[context_name(id)]).await.map_err(plain)?;
        let mut reply = Reply::new(answer)?;
        if reply.is_empty() {
            return Ok(None);
        }
        let version = Version(reply.parsed()?);
        Ok(Some(Document { data: reply::object(&reply.text()?)?, version }))
    }

    async fn write(&self, id: ContextId, data: Map<String, Value>, expected: Expected) -> Result<Version, WriteError> {
        checked(&data)?;
        let expected = match expected {
            Expected::Anything => String::new(),
            Expected::Version(version) => version.to_string(),
        };
        let text = serde_json::to_string(&data).map_err(|_| nonsense())?;
        let arguments = [context_name(id), expected, text];
        let step = &self.store.scripts().context_write;
        let answer = self.store.run(step, &self.service, &arguments).await.map_err(plain)?;
        let mut reply = Reply::new(answer)?;
        match reply.text()?.as_str() {
            "written" => Ok(Version(reply.parsed()?)),
            "conflict" => Err(WriteError::Conflict { current: Version(reply.parsed()?) }),
            "gone" => Err(WriteError::Gone),
            _ => Err(nonsense().into()),
        }
    }

    async fn close(&self, id: ContextId) -> Result<(), StoreError> {
        let retention = self.store.0.config.bounds.retention.as_millis().to_string();
        let arguments = [context_name(id), retention];
        let step = &self.store.scripts().context_close;
        self.store.run(step, &self.service, &arguments).await.map(|_| ()).map_err(plain)
    }
}
