//! Outputs of sessions that other workers have or had, as the store has them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use streamfleet_session::SessionId;
use streamfleet_socket::outputs::{Earlier, EventId, KEEP_ALIVE, KEEP_ALIVE_COMMENT, event, missing};
use streamfleet_store::{ContextId, Listener, Read, Seen, StoreError, Topic, Whose};
use tokio::time::{Instant, sleep_until};

use super::Member;
use crate::history::MAX_READERS;

/// How long a reader relies on wake-ups: one that is lost delays an output by so much.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Readers of each session that is elsewhere.
#[derive(Debug, Default)]
pub(super) struct Readers(Mutex<HashMap<SessionId, usize>>);

/// A reader's place, given back when it is dropped.
#[derive(Debug)]
struct Place {
    member: Arc<Member>,
    session: SessionId,
}

impl Place {
    fn take(member: &Arc<Member>, session: &SessionId) -> Option<Self> {
        let mut readers = member.readers().0.lock();
        let count = readers.entry(session.clone()).or_default();
        if *count >= MAX_READERS {
            return None;
        }
        *count += 1;
        Some(Self { member: member.clone(), session: session.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut readers = self.member.readers().0.lock();
        if let Some(count) = readers.get_mut(&self.session) {
            *count -= 1;
            if *count == 0 {
                readers.remove(&self.session);
            }
        }
    }
}

/// What a reader of another worker's session finds.
#[derive(Debug)]
pub(crate) enum Elsewhere {
    /// Something to read, now or later.
    Open(Box<Follower>),
    /// The session is over and the reader has seen everything.
    Over,
    /// There are [`MAX_READERS`] already.
    Crowded,
}

/// One reader. It holds its place and no text.
#[derive(Debug)]
pub(crate) struct Follower {
    place: Place,
    context: ContextId,
    seen: Option<Seen>,
    listener: Listener,
    written: Instant,
}

fn seen(last_event_id: Option<&str>) -> Option<Seen> {
    let EventId { mark, number } = last_event_id?.parse().ok()?;
    Some(Seen { mark, number })
}

/// The events of what was read, and the last of them.
fn events(read: &Read, seen: Option<Seen>) -> Option<(String, Seen)> {
    let (mark, first) = (read.mark?, read.outputs.first()?.0);
    let own = seen.filter(|seen| seen.mark == mark).map(|seen| seen.number);
    let before = |seen: Seen| read.earlier.iter().find(|id| id.mark == seen.mark).map(|id| id.number.min(seen.number));
    let known = own.or_else(|| seen.and_then(before)).unwrap_or(0);
    let mut text = String::new();
    if first > known + 1 {
        text += &missing(first - known - 1);
    }
    let mut last = known;
    for (number, json) in &read.outputs {
        text += &event(EventId { mark, number: *number }, json);
        last = *number;
    }
    Some((text, Seen { mark, number: last }))
}

impl Member {
    /// What is known of the outputs of a session: those after what was seen.
    pub(crate) async fn outputs(
        &self,
        session: &SessionId,
        last_event_id: Option<&str>,
    ) -> Result<Option<Read>, StoreError> {
        self.store().outputs(self.service(), Whose::Session(session), seen(last_event_id)).await
    }

    /// Follows the outputs of which this has been read, by somebody who may.
    pub(crate) fn follow(self: &Arc<Self>, session: &SessionId, read: &Read, last_event_id: Option<&str>) -> Elsewhere {
        if read.over && read.outputs.is_empty() {
            return Elsewhere::Over;
        }
        let Some(place) = Place::take(self, session) else { return Elsewhere::Crowded };
        let listener = self.store().listen(self.service(), Topic::Session(session.clone()));
        let (context, seen, written) = (read.context, seen(last_event_id), Instant::now());
        Elsewhere::Open(Box::new(Follower { place, context, seen, listener, written }))
    }

    /// All that is kept of what sessions with this context have put out elsewhere.
    pub(crate) async fn earlier(&self, context: ContextId) -> Result<Option<Earlier>, StoreError> {
        let (mut texts, mut seen, mut next) = (Vec::new(), None, 0);
        loop {
            let read = self.store().outputs(self.service(), Whose::Context(context), seen).await?;
            let Some(Read { mark: Some(mark), earlier, outputs, last, .. }) = read else { return Ok(None) };
            if outputs.first().is_some_and(|(number, _)| *number != next) {
                // What was read before has been given up since.
                texts.clear();
            }
            let read_to = outputs.last().map_or(last, |(number, _)| *number);
            texts.extend(outputs.into_iter().map(|(_, json)| json));
            if read_to >= last {
                let name = |seen: &Seen| EventId { mark: seen.mark, number: seen.number };
                let mut marks: Vec<EventId> = earlier.iter().map(name).collect();
                marks.push(EventId { mark, number: last });
                return Ok(Some(Earlier { marks, texts }));
            }
            (seen, next) = (Some(Seen { mark, number: read_to }), read_to + 1);
        }
    }
}

impl Follower {
    /// The next piece of the event stream, once there is one. `None` when there is no more to come: the session is over, or
    /// another one has its id.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            let member = &self.place.member;
            let whose = Whose::Session(&self.place.session);
            match member.store().outputs(member.service(), whose, self.seen).await {
                Ok(Some(read)) if read.context == self.context => {
                    if let Some((text, seen)) = events(&read, self.seen) {
                        (self.seen, self.written) = (Some(seen), Instant::now());
                        return Some(text);
                    }
                    if read.over {
                        return None;
                    }
                }
                Ok(_) => return None,
                // It goes on when the store is back.
                Err(error) => tracing::debug!(session = %self.place.session, %error, "outputs cannot be read"),
            }
            let now = Instant::now();
            let alive_until = self.written + KEEP_ALIVE;
            if now >= alive_until {
                self.written = now;
                return Some(KEEP_ALIVE_COMMENT.to_owned());
            }
            tokio::select! {
                () = self.listener.woken() => {}
                () = sleep_until(alive_until.min(now + LOOK_AGAIN)) => {}
            }
        }
    }
}
