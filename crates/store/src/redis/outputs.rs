//! Outputs, on Redis.

use async_trait::async_trait;
use streamfleet_session::ServiceName;

use super::contexts::{context_id, context_name};
use super::reply::{self, Reply, nonsense};
use super::{RedisStore, plain};
use crate::context::StoreError;
use crate::directory::FleetError;
use crate::outputs::{Appended, Batch, MAX_EARLIER, MAX_READ, Outputs, Read, Seen, Whose};
use crate::words::{Owner, Ticket};

/// Lua counts in doubles: beyond 2^53 two numbers are one, and no session says as much.
const MAX_NUMBER: u64 = 1 << 53;

fn number(number: u64) -> String {
    number.min(MAX_NUMBER).to_string()
}

fn mark(mark: u32) -> String {
    format!("{mark:08x}")
}

fn parse_mark(text: &str) -> Result<u32, StoreError> {
    u32::from_str_radix(text, 16).map_err(|_| nonsense())
}

fn earlier(seen: &[Seen]) -> Result<String, StoreError> {
    let latest = &seen[seen.len().saturating_sub(MAX_EARLIER)..];
    let pairs: Vec<(String, u64)> = latest.iter().map(|seen| (mark(seen.mark), seen.number.min(MAX_NUMBER))).collect();
    serde_json::to_string(&pairs).map_err(|_| nonsense())
}

fn parse_earlier(text: &str) -> Result<Vec<Seen>, StoreError> {
    let pairs: Vec<(String, u64)> = serde_json::from_str(text).map_err(|_| nonsense())?;
    pairs.iter().map(|(mark, number)| Ok(Seen { mark: parse_mark(mark)?, number: *number })).collect()
}

#[async_trait]
impl Outputs for RedisStore {
    async fn append(
        &self,
        service: &ServiceName,
        owner: &Owner,
        ticket: Ticket,
        batch: &Batch<'_>,
    ) -> Result<Appended, FleetError> {
        let mut arguments = vec![
            owner.worker.to_string(),
            owner.epoch.to_string(),
            ticket.to_string(),
            mark(batch.mark),
            earlier(batch.earlier)?,
            number(batch.first),
            number(batch.oldest),
        ];
        arguments.extend(batch.texts.iter().take(MAX_READ).map(|text| text.as_ref().to_owned()));
        let answer = self.run(&self.scripts().append, service, &arguments).await?;
        let mut reply = Reply::new(answer)?;
        Ok(match reply.text()?.as_str() {
            "upto" => Appended::Upto(reply.parsed()?),
            "missing" => Appended::Missing(reply.parsed()?),
            "over" => Appended::Over,
            _ => return Err(nonsense().into()),
        })
    }

    async fn outputs(
        &self,
        service: &ServiceName,
        whose: Whose<'_>,
        seen: Option<Seen>,
    ) -> Result<Option<Read>, StoreError> {
        let (kind, name) = match whose {
            Whose::Session(session) => ("session", session.to_string()),
            Whose::Context(context) => ("context", context_name(context)),
        };
        let (seen_mark, seen_number) =
            seen.map_or_else(|| ("-".to_owned(), number(0)), |seen| (mark(seen.mark), number(seen.number)));
        let arguments = [kind.to_owned(), name, seen_mark, seen_number];
        let answer = self.run(&self.scripts().outputs, service, &arguments).await.map_err(plain)?;
        let mut reply = Reply::new(answer)?;
        let Some(over) = reply.some_text()? else { return Ok(None) };
        let context = context_id(&reply.text()?)?;
        let user = reply.some_text()?.map(|user| reply::parse(&user)).transpose()?;
        let mark = reply.some_text()?.map(|mark| parse_mark(&mark)).transpose()?;
        let earlier = parse_earlier(&reply.text()?)?;
        let (last, first): (u64, u64) = (reply.parsed()?, reply.parsed()?);
        let mut outputs = Vec::new();
        for number in first.. {
            if reply.is_empty() {
                break;
            }
            outputs.push((number, reply.text()?));
        }
        Ok(Some(Read { context, user, mark, earlier, outputs, last, over: over == "1" }))
    }
}
