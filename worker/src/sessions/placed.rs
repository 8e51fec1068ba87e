//! Sessions that a router has placed here, by the names that the fleet knows them by.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use streamfleet_handler as sdk;
use streamfleet_session::{CloseReason, SessionId, UserId};
use streamfleet_store::{
    ContextId, Gate, Issued, Kept, LastWords, Phase, PinValue, Restored, Ticket, TrackId, TrackResult,
};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::begin::Begun;
use super::reach::close_track;
use super::via::{Order, Via, deliver};
use super::{END_TIMEOUT, Live, Sessions};
use crate::fleet::{Member, Owned, Reporter};
use crate::media::{Shared, Stage};

/// For the outputs of an earlier session, from a store that answers in milliseconds. Readers wait for it.
const FETCH_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// The placed sessions of this process, from before they are known until they are over.
#[derive(Default)]
pub(super) struct Places(Mutex<HashMap<Ticket, Settled>>);

/// One of them.
#[derive(Clone)]
pub(super) struct Settled {
    ticket: Ticket,
    shared: Arc<Shared>,
    via: Via,
    session: Option<sdk::Session>,
    context: ContextId,
    /// What its client was given first.
    issued: Issued,
    member: Arc<Member>,
    retention: std::time::Duration,
    pin: Option<PinValue>,
    /// Whom its context is given back to.
    kept_for: Option<UserId>,
    reporter: Reporter,
    cancel: CancellationToken,
    comes: Comes,
}

/// Whether its client has another session until it has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comes {
    Alone,
    FromAnother,
}

impl Places {
    pub(super) fn insert(&self, settled: Option<&Settled>) {
        if let Some(settled) = settled {
            self.0.lock().insert(settled.ticket, settled.clone());
        }
    }

    pub(super) fn remove(&self, ticket: Option<Ticket>) {
        if let Some(ticket) = ticket {
            self.0.lock().remove(&ticket);
        }
    }

    fn get(&self, ticket: Ticket) -> Option<Settled> {
        self.0.lock().get(&ticket).cloned()
    }
}

impl Begun {
    /// Its part in the fleet, if it has one.
    pub(super) fn settled(&self) -> Option<Settled> {
        let (live, place) = (&self.live, self.guard.context().place()?);
        place.describe(detail(&live.shared));
        place.publish(live.shared.history().clone());
        Some(Settled {
            ticket: place.ticket(),
            shared: live.shared.clone(),
            via: live.via.clone(),
            session: live.session.clone(),
            context: live.context,
            issued: place.issued(),
            member: place.member().clone(),
            retention: place.placed().retention,
            // One that is no value of ours has pinned nothing here.
            pin: place.placed().pin.as_ref().and_then(|pin| pin.parse().ok()),
            kept_for: place.placed().context.user.clone(),
            reporter: place.reporter(),
            cancel: self.guard.cancel().clone(),
            comes: if place.placed().takes_over.is_some() { Comes::FromAnother } else { Comes::Alone },
        })
    }
}

/// What the store shows of a session to those who cannot ask its worker.
pub(super) fn detail(shared: &Shared) -> Map<String, Value> {
    let since = shared.since().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    let verified = shared.verified().is_verified();
    let detail = json!({ "transport": shared.transport().as_str(), "since": since.as_secs(), "verified": verified });
    detail.as_object().cloned().unwrap_or_default()
}

fn phase(stage: Stage) -> Option<Phase> {
    match stage {
        Stage::Connecting => Some(Phase::Connecting),
        Stage::Active => Some(Phase::Active),
        Stage::Ending(_) => Some(Phase::Ending),
        // What holds its place says so.
        Stage::Closed(_) => None,
    }
}

async fn report(mut stage: watch::Receiver<Stage>, reporter: Reporter, over: CancellationToken) {
    loop {
        let Some(phase) = phase(*stage.borrow_and_update()) else { return };
        reporter.say(phase);
        let changed = tokio::select! {
            changed = stage.changed() => changed.is_ok(),
            () = over.cancelled() => false,
        };
        if !changed {
            return;
        }
    }
}

/// Fetches what a session has put out before it came here. Of a client that moves, when it has arrived: until then its other
/// session says more.
async fn go_on(settled: Settled) {
    let Settled { shared, member, context, cancel, comes, .. } = settled;
    let mut stage = shared.watch();
    let earlier = async {
        if comes == Comes::FromAnother {
            // Its own `Shared` sends: it cannot be gone.
            let _ = stage.wait_for(|stage| *stage != Stage::Connecting).await;
        }
        timeout(FETCH_TIMEOUT, member.earlier(context)).await
    };
    let earlier = tokio::select! {
        earlier = earlier => earlier,
        () = cancel.cancelled() => return,
    };
    let earlier = match earlier {
        Ok(Ok(earlier)) => earlier,
        Ok(Err(error)) => {
            tracing::warn!(session = %shared.id(), %error, "what it has put out before is not known here");
            None
        }
        Err(_) => {
            tracing::warn!(session = %shared.id(), "what it has put out before did not come in time");
            None
        }
    };
    shared.history().adopt(earlier);
}

impl Sessions {
    /// A placed session has become known: from now on the fleet hears where it is.
    pub(super) fn settle(&self, settled: Option<Settled>) {
        let Some(settled) = settled else { return };
        if settled.shared.history().is_awaiting() {
            self.inner.tasks.spawn(go_on(settled.clone()));
        }
        let Settled { shared, reporter, cancel, .. } = settled;
        self.inner.tasks.spawn(report(shared.watch(), reporter, cancel));
    }

    /// Whether the session is the one that has its id, and as what.
    fn holder(&self, id: &SessionId, settled: &Settled) -> Option<Live> {
        self.live(id).filter(|live| live.shared.token() == settled.shared.token())
    }
}

#[async_trait]
impl Owned for Sessions {
    fn held(&self, member: &Member) -> Vec<Ticket> {
        let places: Vec<Settled> = self.inner.table.places.0.lock().values().cloned().collect();
        let of_service = places.iter().filter(|settled| settled.member.service() == member.service());
        of_service.filter(|settled| self.holder(settled.shared.id(), settled).is_some()).map(|s| s.ticket).collect()
    }

    fn restorable(&self, member: &Member, tickets: &[Ticket]) -> Vec<Restored> {
        let restored = |ticket: &Ticket| {
            let settled = self.inner.table.places.get(*ticket)?;
            let live = self.holder(settled.shared.id(), &settled)?;
            let (shared, document) = (&settled.shared, member.contexts().known(settled.context)?);
            Some(Restored {
                ticket: *ticket,
                session: shared.id().clone(),
                user: shared.user().cloned(),
                pin: settled.pin.clone(),
                phase: phase(shared.stage())?,
                age: live.admitted.elapsed(),
                retention: settled.retention,
                detail: detail(shared),
                context: Kept {
                    id: settled.context,
                    user: settled.kept_for.clone(),
                    issued: live.resume.unwrap_or(settled.issued),
                    data: document.data,
                    version: document.version,
                },
            })
        };
        tickets.iter().filter_map(restored).collect()
    }

    fn urge(&self, member: &Member, gate: Gate) {
        self.urge_all(member, gate, Instant::now());
    }

    async fn end(&self, ticket: Ticket, reason: CloseReason, words: Option<&LastWords>) -> bool {
        let Some(Settled { shared, via, session, .. }) = self.inner.table.places.get(ticket) else { return false };
        let mut stage = shared.watch();
        let told = async {
            match (reason, session) {
                // As its own handler would: what it has said is heard to its end.
                (CloseReason::EndStream, Some(session)) => drop(session.end(words.map_or("", LastWords::as_str))),
                (CloseReason::EndStream, None) => {
                    let words = words.map(|words| words.as_str().to_owned());
                    deliver(&via, shared.token(), || Order::EndStream(words.clone())).await;
                }
                _ => deliver(&via, shared.token(), || Order::End(reason)).await,
            }
            std::future::pending::<()>().await;
        };
        let over = async {
            tokio::select! {
                _ = stage.wait_for(|stage| matches!(stage, Stage::Closed(_))) => {}
                () = told => {}
            }
        };
        // One that takes longer is asked for again with the next renewal.
        let _ = timeout(END_TIMEOUT, over).await;
        true
    }

    async fn close_track(&self, ticket: Ticket, track: &TrackId) -> Option<TrackResult> {
        use streamfleet_session::wire::Failure;
        let Settled { shared, via, .. } = self.inner.table.places.get(ticket)?;
        match close_track(&via, &shared, track.as_str()).await {
            Ok(()) => Some(TrackResult::Closed),
            Err(Failure::NotFound) => Some(TrackResult::Unknown),
            Err(_) => None,
        }
    }
}
