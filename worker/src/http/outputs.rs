//! `GET {p}/outputs`: a session's additional outputs as server-sent events, for browsers' `EventSource`.
//!
//! A stream holds a place in the session's history and one of the worker's places for streams; text is made when the
//! connection has taken what was made before. It ends with its session, and so when the worker stops.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::stream::unfold;
use streamfleet_session::SessionId;
use streamfleet_session::wire::{Failure, OutputsQuery};
use tokio::sync::OwnedSemaphorePermit;

use super::access::{Sender, unavailable};
use super::offer::FULL_RETRY;
use super::record::Route;
use super::{Door, reply, source};
use crate::fleet::{Elsewhere, Follower};
use crate::history::{Following, Reader};

/// What a client has seen, in the header that `EventSource` sends by itself (HTML Living Standard, 9.2.4).
const LAST_EVENT_ID: &str = "last-event-id";

/// Where outputs come from.
enum Source {
    /// This worker's memory.
    Here(Reader),
    /// The store: another worker has the session, or had it.
    Elsewhere(Box<Follower>),
}

impl Source {
    async fn next(&mut self) -> Option<String> {
        match self {
            Self::Here(reader) => reader.next().await,
            Self::Elsewhere(follower) => follower.next().await,
        }
    }
}

/// What a client of the outputs gets.
enum Outcome {
    Stream(Source, OwnedSemaphorePermit),
    Over,
    Crowded,
}

pub(super) async fn outputs(State(door): State<Arc<Door>>, request: Request) -> Response {
    let source = source(request.extensions());
    let query = request.uri().query().unwrap_or_default();
    let record = |outcome| door.api.record.session(Route::Outputs, outcome);
    let query = match OutputsQuery::parse(form_urlencoded::parse(query.as_bytes())) {
        Ok(query) => query,
        Err(error) => {
            record("invalid_query");
            return reply::shape(&error);
        }
    };
    let sender = Sender::of(request.headers(), request.extensions(), query.access_token.as_deref());
    match door.outputs(&query.webrtc_id, sender).await {
        Ok(Outcome::Stream(outputs, place)) => {
            record("opened");
            reply::events(body(outputs, place))
        }
        Ok(Outcome::Over) => {
            record("over");
            reply::no_content()
        }
        Ok(Outcome::Crowded) => {
            record("too_many_readers");
            reply::too_many_readers()
        }
        Err(failure) => {
            record(failure.as_str());
            door.denied(&query.webrtc_id, source, &failure);
            reply::failure(&failure)
        }
    }
}

impl Door {
    async fn outputs(&self, id: &SessionId, sender: Sender<'_>) -> Result<Outcome, Failure> {
        // One that is none of ours is as good as none.
        let seen = sender.headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
        if let Some(outcome) = self.outputs_elsewhere(id, sender, seen).await? {
            return Ok(outcome);
        }
        let reached = self.reached(id, sender).await?;
        match reached.shared.history().follow(seen) {
            Following::Over => Ok(Outcome::Over),
            Following::Crowded => Ok(Outcome::Crowded),
            Following::Open(reader) => Ok(Outcome::Stream(Source::Here(reader), self.stream()?)),
        }
    }

    /// Those of a session that does not live here, where the fleet knows it. One that has been here may go on elsewhere.
    async fn outputs_elsewhere(
        &self,
        id: &SessionId,
        sender: Sender<'_>,
        seen: Option<&str>,
    ) -> Result<Option<Outcome>, Failure> {
        let Some(member) = self.member.as_ref().filter(|_| self.session(id).is_none()) else { return Ok(None) };
        let read = match member.outputs(id, seen).await {
            Ok(Some(read)) => read,
            Ok(None) => return Ok(None),
            Err(error) => {
                // What this worker remembers is better than nothing, and nothing is not the end.
                let remembered = self.api.host.reach(&self.service.name, id).map(|_| None);
                return remembered.ok_or_else(|| unavailable(error));
            }
        };
        self.may_read(id, &read, sender).await?;
        Ok(Some(match member.follow(id, &read, seen) {
            Elsewhere::Over => Outcome::Over,
            Elsewhere::Crowded => Outcome::Crowded,
            Elsewhere::Open(follower) => Outcome::Stream(Source::Elsewhere(follower), self.stream()?),
        }))
    }

    fn stream(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let place = self.api.streams.clone().try_acquire_owned();
        place.map_err(|_| Failure::NoCapacity { retry_after: FULL_RETRY })
    }
}

/// The stream, which holds its places as long as its connection lasts.
fn body(source: Source, place: OwnedSemaphorePermit) -> Body {
    let pieces = unfold((source, place), async |(mut source, place)| {
        let piece = source.next().await?;
        Some((Ok::<_, Infallible>(piece), (source, place)))
    });
    Body::from_stream(pieces)
}
