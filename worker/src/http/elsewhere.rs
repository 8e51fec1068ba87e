//! Sessions of the fleet that other workers have: what is asked of them here stands in the store, and their owners do it.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use streamfleet_session::SessionId;
use streamfleet_session::wire::Failure;
use streamfleet_store::{Demand, Done, Filter, Listed, LiveSession, Read, SessionView, carry_out};

use super::access::{Authority, Holder, Sender, unavailable};
use super::{Audit, Door, reply};

/// How long a caller waits for what it has asked: a session that plays its last words takes longer, and is told to be on
/// its way.
const PATIENCE: Duration = Duration::from_secs(5);

impl Door {
    /// The live session `id` of another worker, for whoever may control it.
    pub(super) async fn elsewhere(
        &self,
        authority: Authority,
        id: &SessionId,
        source: SocketAddr,
    ) -> Result<Box<LiveSession>, Failure> {
        let member = self.member.as_ref().ok_or(Failure::NotFound)?;
        let holder = self.holder(authority, id).await.inspect_err(|failure| self.denied(id, source, failure))?;
        match member.store().session(member.service(), id).await.map_err(unavailable)? {
            Some(SessionView::Live(live)) => match holder {
                Holder::Operator => Ok(live),
                Holder::Client(context) if context == live.context => Ok(live),
                // Its own session is over, and the id another one's by now.
                Holder::Client(_) => Err(Failure::NotFound),
            },
            Some(SessionView::Over(_)) | None => Err(Failure::NotFound),
        }
    }

    /// Has something done by the session's owner.
    pub(super) async fn ask_owner(&self, live: &LiveSession, demand: &Demand, source: SocketAddr) -> Response {
        let Some(member) = &self.member else { return reply::failure(&Failure::NotFound) };
        let id = &live.session;
        let done = carry_out(&**member.store(), member.service(), live, demand, PATIENCE).await;
        let (outcome, response) = match (done.map_err(unavailable), demand) {
            (Ok(Done::Ended(reason)), _) => ("ended", reply::ended(id, reason)),
            (Ok(Done::TrackClosed), Demand::CloseTrack(track)) => {
                ("track_closed", reply::track_closed(id, track.as_str()))
            }
            (Ok(Done::TrackClosed | Done::Unknown), _) => ("not_found", reply::failure(&Failure::NotFound)),
            (Ok(Done::Pending), _) => ("ending", reply::ending(id)),
            (Err(failure), _) => (failure.as_str(), reply::failure(&failure)),
        };
        self.api.record.control(outcome);
        Audit { service: &self.service.name, session: id, user: live.user.as_ref() }.controlled(source, outcome);
        response
    }

    /// The sessions of the service, whoever has them; `None` where only this worker's can be known.
    pub(super) async fn listed(&self, query: &str) -> Option<Response> {
        let member = self.member.as_ref()?;
        let Some(filter) = Filter::from_query(form_urlencoded::parse(query.as_bytes())) else {
            self.api.record.control("invalid_filter");
            return Some(reply::other(StatusCode::UNPROCESSABLE_ENTITY, "invalid_filter"));
        };
        let page = match member.store().list(member.service(), &filter).await {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "the store does not answer: this worker's sessions are all that is known");
                return None;
            }
        };
        let sessions: Vec<Listed> = page.sessions.into_iter().map(Listed::from).collect();
        let mut list = json!({ "sessions": sessions });
        if let Some(next) = page.next {
            list["next"] = Value::String(next.to_string());
        }
        self.api.record.control("listed");
        Some(reply::json(StatusCode::OK, &list))
    }

    /// Whether these outputs are for whoever asks: for anybody who knows the id, or, where they are a verified user's, for whoever
    /// is that user, or shows the session's token or the operator's.
    pub(super) async fn may_read(&self, id: &SessionId, read: &Read, sender: Sender<'_>) -> Result<(), Failure> {
        if read.user.is_none() || sender.is(read.user.as_ref()) {
            return Ok(());
        }
        let shown = sender.shown().and_then(|token| self.api.access.authority(token));
        let holder = self.holder(shown.ok_or(Failure::Unauthorized)?, id).await?;
        let own = holder == Holder::Operator || holder == Holder::Client(read.context);
        if own { Ok(()) } else { Err(Failure::Unauthorized) }
    }
}
