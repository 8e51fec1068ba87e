//! One session as its client, and whoever acts for it, reaches it beside its media.

use std::sync::Arc;
use std::time::Instant;

use streamfleet_session::wire::Failure;
use streamfleet_session::{ServiceName, SessionId};
use streamfleet_store::ContextId;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::afterlife::Over;
use super::via::{Order, Via, deliver};
use super::{END_TIMEOUT, Live, OVERLOADED, Sessions, Table};
use crate::history::History;
use crate::http::Reached;
use crate::media::{Shared, Stage, TrackEnd};

impl Sessions {
    /// The session of this service and id: the one that lives, or the last one that did while it is remembered.
    pub(super) fn reached(&self, service: &ServiceName, id: &SessionId) -> Option<Reached> {
        let table = &self.inner.table;
        let by_id = table.by_id.lock();
        let reached = match by_id.get(id) {
            Some(live) => Reached {
                shared: live.shared.clone(),
                context: live.context,
                inputs: live.inputs.clone(),
                replies: live.replies,
            },
            None => {
                let Over { shared, context, .. } = table.over.lock().get(id, Instant::now())?;
                Reached { shared, context, inputs: None, replies: Default::default() }
            }
        };
        Some(reached).filter(|reached| reached.shared.service() == service)
    }

    /// Has a track ended, and waits until that is done.
    pub(super) async fn end_track(&self, id: &SessionId, context: ContextId, mid: &str) -> Result<(), Failure> {
        let live = self.live(id).filter(|live| live.context == context);
        let Live { shared, via, .. } = live.ok_or(Failure::NotFound)?;
        close_track(&via, &shared, mid).await
    }
}

/// Has a track of this session ended, and waits until that is done.
pub(super) async fn close_track(via: &Via, shared: &Shared, mid: &str) -> Result<(), Failure> {
    if matches!(shared.stage(), Stage::Ending(_) | Stage::Closed(_)) {
        return Err(Failure::ConnectionClosed);
    }
    let (told, mut hears) = mpsc::channel(1);
    let end = async {
        // The sender goes with the order: if nobody carries it out, nobody answers.
        deliver(via, shared.token(), move || Order::CloseTrack(mid.into(), told.clone())).await;
        hears.recv().await
    };
    match timeout(END_TIMEOUT, end).await {
        Ok(Some(TrackEnd::Closed)) => Ok(()),
        // Without an answer the session has ended meanwhile.
        Ok(Some(TrackEnd::Unknown) | None) => Err(Failure::NotFound),
        Err(_) => Err(Failure::NoCapacity { retry_after: OVERLOADED }),
    }
}

impl Table {
    /// Where the outputs of a session belong that goes on with an earlier one's context: behind that one's.
    pub(super) fn history(&self, id: &SessionId, context: ContextId) -> Option<Arc<History>> {
        let by_id = self.by_id.lock();
        // The client moves, and the session that it leaves still lives.
        let live = by_id.get(id).filter(|live| live.context == context);
        match live {
            Some(live) => Some(live.shared.history().clone()),
            None => self.over.lock().history(id, context, Instant::now()),
        }
    }
}
