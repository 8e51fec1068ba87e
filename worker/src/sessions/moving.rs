//! Clients that move to another connection: two sessions of one id until the new one has connected.
//!
//! The new session waits beside the one that its client still has. When it has connected, it takes that one's place, and
//! the old one ends with `moved`; when it never does, nothing has happened. Of several on the way the newest counts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use streamfleet_session::{CloseReason, SessionId};
use streamfleet_store::Delivery;
use tokio_util::sync::CancellationToken;

use super::context::Arrival;
use super::via::{Order, Via, deliver};
use super::{END_TIMEOUT, Live, Sessions, Table};
use crate::media::{Shared, Stage};

/// For a session that is on the way to end: its loop has nobody to say goodbye to.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Makes a session known: as that of its id, or beside the one that its client still has. Returns the one that was on the
/// way before it, or itself if a later one of the same client's has overtaken it: its token is void already.
#[must_use]
pub(super) fn enter(sessions: &mut HashMap<SessionId, Live>, live: Live) -> Option<Box<Live>> {
    match sessions.get_mut(live.shared.id()) {
        Some(current) => {
            if current.context == live.context && current.knows_newer(live.resume) {
                return Some(Box::new(live));
            }
            // The token that is sure to be good, wherever the client is when it needs one.
            current.resume = live.resume;
            current.moving.replace(Box::new(live))
        }
        None => {
            sessions.insert(live.shared.id().clone(), live);
            None
        }
    }
}

/// Who has an id when one of its sessions has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Another session, or the one that left never had it.
    Another,
    /// It was the last.
    Nobody,
}

/// Forgets a session that is over. A client that is on its way from it has no other from now on.
pub(super) fn leave(sessions: &mut HashMap<SessionId, Live>, shared: &Shared) -> Leaving {
    // The id may be another session's by now.
    let Some(current) = sessions.get_mut(shared.id()) else { return Leaving::Another };
    if current.shared.token() != shared.token() {
        current.moving.take_if(|moving| moving.shared.token() == shared.token());
        return Leaving::Another;
    }
    match current.moving.take() {
        Some(next) => {
            let seal = current.seal.clone();
            *current = Live { seal, ..*next };
            Leaving::Another
        }
        None => {
            sessions.remove(shared.id());
            Leaving::Nobody
        }
    }
}

/// Whether the session of this id is being ended, so that nobody may come to be beside it.
pub(super) fn is_sealed(sessions: &HashMap<SessionId, Live>, id: &SessionId) -> bool {
    sessions.get(id).is_some_and(|current| current.seal.is_set())
}

/// What becomes of a session that has its client.
enum Arrived {
    /// It has taken the place of this one.
    Instead(Box<Live>),
    /// It has its place already.
    Alone,
    /// The one whose place it would take is being ended, and so is it.
    TooLate,
}

fn arrive(sessions: &mut HashMap<SessionId, Live>, shared: &Shared) -> Arrived {
    let Some(current) = sessions.get_mut(shared.id()) else { return Arrived::Alone };
    if current.shared.token() != shared.token() && current.seal.is_set() {
        return Arrived::TooLate;
    }
    match current.moving.take_if(|moving| moving.shared.token() == shared.token()) {
        Some(next) => Arrived::Instead(Box::new(std::mem::replace(current, *next))),
        None => Arrived::Alone,
    }
}

/// Waits for one client to arrive.
pub(super) struct Mover {
    pub(super) shared: Arc<Shared>,
    pub(super) via: Via,
    pub(super) arrival: Arrival,
    /// The session is over, be its stage what it may.
    pub(super) cancel: CancellationToken,
}

impl Mover {
    async fn run(self, table: Arc<Table>) {
        let Self { shared, via, arrival, cancel } = self;
        let mut stage = shared.watch();
        let connected = async { stage.wait_for(|stage| *stage != Stage::Connecting).await.map(|stage| *stage) };
        let stage = tokio::select! {
            stage = connected => stage.ok(),
            () = cancel.cancelled() => None,
        };
        if stage != Some(Stage::Active) {
            return;
        }
        let delivery = match via {
            // It has connected by the answer that has the token.
            Via::Loop(_) => Delivery::Known,
            // It has said `start`, and the message with the token is the first that it gets.
            Via::Socket(_) => Delivery::Sent,
        };
        if !arrival.confirm(delivery).await {
            // It came with a token that its client has not waited for.
            return end(&via, &shared, CloseReason::Superseded).await;
        }
        let arrived = arrive(&mut table.by_id.lock(), &shared);
        match arrived {
            Arrived::Instead(left) => end(&left.via, &left.shared, CloseReason::Moved).await,
            Arrived::Alone => {}
            Arrived::TooLate => end(&via, &shared, CloseReason::Superseded).await,
        }
    }
}

/// Ends a session that is in nobody's way any more.
async fn end(via: &Via, shared: &Shared, reason: CloseReason) {
    let mut stage = shared.watch();
    let told = async {
        tokio::select! {
            () = deliver(via, shared.token(), || Order::End(reason)) => {}
            _ = stage.wait_for(|stage| stage.reason().is_some()) => {}
        }
    };
    // A loop that takes no command for so long has stopped, and its sessions with it.
    let _ = tokio::time::timeout(END_TIMEOUT, told).await;
}

impl Sessions {
    /// Looks after a session that has been made known by [`enter`], and after the one that it has pushed aside.
    pub(super) fn follow(&self, mover: Option<Mover>, superseded: Option<Box<Live>>) {
        if let Some(mover) = mover {
            self.inner.tasks.spawn(mover.run(self.inner.table.clone()));
        }
        if let Some(old) = superseded {
            self.inner.tasks.spawn(async move { end(&old.via, &old.shared, CloseReason::Superseded).await });
        }
    }
}

/// The session ends that a client is moving from: it does not arrive elsewhere either.
pub(super) async fn stop(moving: Live, reason: CloseReason) {
    let mut stage = moving.shared.watch();
    let over = async {
        end(&moving.via, &moving.shared, reason).await;
        stage.wait_for(|stage| matches!(stage, Stage::Closed(_))).await.is_ok()
    };
    // One that takes longer has a loop that is behind, which the session itself waits for as well.
    let _ = tokio::time::timeout(STOP_TIMEOUT, over).await;
}
