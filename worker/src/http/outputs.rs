//! `GET {p}/outputs`: a session's additional outputs as server-sent events, for browsers' `EventSource`.
//!
//! A stream holds a place in the session's history and one of the worker's places for streams; text is made when the
//! connection has taken what was made before. It ends with its session, and so when the worker stops.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::stream::unfold;
use streamfleet_session::wire::{Failure, OutputsQuery};
use tokio::sync::OwnedSemaphorePermit;

use super::offer::FULL_RETRY;
use super::record::Route;
use super::{Door, reply, source};
use crate::history::{Following, Reader};

/// What a client has seen, in the header that `EventSource` sends by itself (HTML Living Standard, 9.2.4).
const LAST_EVENT_ID: &str = "last-event-id";

/// What a client of the outputs gets.
enum Outcome {
    Stream(Reader, OwnedSemaphorePermit),
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
    match door.outputs(&query, request.headers(), source).await {
        Ok(Outcome::Stream(reader, place)) => {
            record("opened");
            reply::events(body(reader, place))
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
    async fn outputs(&self, query: &OutputsQuery, headers: &HeaderMap, source: SocketAddr) -> Result<Outcome, Failure> {
        let reached = self.reached(&query.webrtc_id, headers, query.access_token.as_deref(), source).await?;
        // One that is none of ours is as good as none.
        let seen = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
        match reached.shared.history().follow(seen) {
            Following::Over => Ok(Outcome::Over),
            Following::Crowded => Ok(Outcome::Crowded),
            Following::Open(reader) => {
                let place = self.api.streams.clone().try_acquire_owned();
                let place = place.map_err(|_| Failure::NoCapacity { retry_after: FULL_RETRY })?;
                Ok(Outcome::Stream(reader, place))
            }
        }
    }
}

/// The stream, which holds its places as long as its connection lasts.
fn body(reader: Reader, place: OwnedSemaphorePermit) -> Body {
    let pieces = unfold((reader, place), async |(mut reader, place)| {
        let piece = reader.next().await?;
        Some((Ok::<_, Infallible>(piece), (reader, place)))
    });
    Body::from_stream(pieces)
}
