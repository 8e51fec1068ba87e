//! What every session begins with, whatever its transport, and what it gives back at its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use streamfleet_handler::{self as sdk, LinkConfig, LoopEnd, link};
use streamfleet_process::telemetry::trace::trace_id;
use streamfleet_session::{CloseReason, Identity, ResumeToken, ServiceName, SessionId};
use streamfleet_store::{Demand, LastWords};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::afterlife::Over;
use super::context::{Held, Resumed};
use super::drain::Urged;
use super::moving::{Leaving, Mover, leave};
use super::quality::summarise;
use super::seal::Seal;
use super::via::{Order, Via, deliver};
use super::{END_TIMEOUT, Live, Sessions, Table};
use crate::admission::{Entry, Slot};
use crate::fleet::{Member, Place};
use crate::history::{History, Writing};
use crate::http::{Audit, Service};
use crate::media::shared::Token;
use crate::media::{Event, Shared, Stage};
use crate::metrics::SessionMetrics;

/// What a session begins with, whatever its transport.
pub(super) struct Beginning<'a> {
    pub(super) token: Token,
    pub(super) transport: sdk::Transport,
    pub(super) service: &'a Service,
    pub(super) id: SessionId,
    pub(super) identity: Identity,
    pub(super) slot: Slot,
    pub(super) context: Held,
    pub(super) resumed: Resumed,
}

/// A session that has begun and has no transport yet.
pub(super) struct Begun {
    pub(super) live: Live,
    pub(super) guard: Guard,
    pub(super) context: sdk::Context,
    pub(super) data: sdk::Data,
    /// Of one whose client comes from another connection.
    pub(super) mover: Option<Mover>,
}

impl Sessions {
    /// What every session has: its view, its guard, its handler's context.
    pub(super) fn begin(&self, beginning: Beginning<'_>, via: Via) -> Begun {
        let Beginning { token, transport, service, id, identity, slot, context: held, resumed } = beginning;
        let earlier = match resumed {
            Resumed::Yes => self.inner.table.history(&id, held.id()),
            Resumed::No => None,
        };
        // Of one that has been elsewhere, the fleet knows what it has said there.
        let elsewhere = held.place().is_some() && resumed == Resumed::Yes && earlier.is_none();
        let history = earlier.unwrap_or_else(|| match elsewhere {
            true => Arc::new(History::awaiting()),
            false => Arc::default(),
        });
        let writing = history.write();
        let shared = Shared::new(token, id.clone(), service.name.clone(), transport, &identity);
        let shared = Arc::new(shared.with_history(writing.history().clone()));
        if resumed == Resumed::Yes {
            shared.record(Event::Resumed);
        }
        let context = sdk::Context {
            session_id: id,
            transport,
            service: service.name.clone(),
            user_id: identity.user_id,
            verified: identity.verified,
            metadata: identity.metadata,
            claims: held.place().map(Place::claims).unwrap_or_default(),
            variant: held.place().and_then(|place| place.placed().variant.clone()),
            resumed: resumed == Resumed::Yes,
            trace_id: trace_id(&tracing::Span::current()),
        };
        let data = held.data();
        let cancel = CancellationToken::new();
        let mover = (slot.entry() == Entry::TakeOver).then(|| Mover {
            shared: shared.clone(),
            via: via.clone(),
            arrival: held.arrival(),
            cancel: cancel.clone(),
        });
        let live = Live {
            shared: shared.clone(),
            via,
            context: held.id(),
            replies: sdk::Replies::default(),
            inputs: None,
            session: None,
            resume: Some(held.issued()),
            admitted: Instant::now(),
            time_limit: service.limits.time_limit,
            urged: Urged::default(),
            seal: Seal::default(),
            moving: None,
        };
        let guard = Guard {
            table: self.inner.table.clone(),
            shared,
            cancel,
            metrics: self.inner.metrics.clone(),
            began: Instant::now(),
            writing: Some(writing),
            _slot: slot,
            context: held,
        };
        Begun { live, guard, context, data, mover }
    }

    /// Starts the session's handler in a task, which waits for the client to connect. Returns the transport's end of the link,
    /// whose bounds the transport knows.
    pub(super) fn start(
        &self,
        begun: &mut Begun,
        handler: Box<dyn sdk::Handler>,
        bounds: LinkConfig,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> LoopEnd {
        let (loop_end, end) = link(bounds, wake);
        let neighbours = Arc::new(self.neighbours(&begun.context.service));
        let session = {
            // The tasks that the session is given run where its handler does.
            let _on = self.inner.handlers_on.enter();
            sdk::Session::with(begun.context.clone(), &end, begun.data.clone(), Some(neighbours))
        };
        begun.live.replies = handler.replies();
        begun.live.inputs = Some(loop_end.inputs());
        begun.live.session = Some(session.clone());
        let task = HandlerTask {
            handler,
            session,
            end,
            shared: begun.live.shared.clone(),
            cancel: begun.guard.cancel.clone(),
            to: begun.live.via.clone(),
        };
        self.inner.tasks.spawn_on(task.run(), &self.inner.handlers_on);
        loop_end
    }

    /// The sessions of this process, and of the fleet's service, as handlers reach them.
    pub(super) fn neighbours(&self, service: &ServiceName) -> impl sdk::Neighbours + use<> {
        let (inner, member) = (&self.inner, self.member_of(service).cloned());
        Others { table: inner.table.clone(), tasks: inner.tasks.clone(), runtime: Handle::current(), member }
    }
}

/// The other sessions, as a handler reaches them.
struct Others {
    table: Arc<Table>,
    tasks: TaskTracker,
    /// A handler may reach them from any thread.
    runtime: Handle,
    /// Who knows the sessions of other workers.
    member: Option<Arc<Member>>,
}

impl sdk::Neighbours for Others {
    fn end(&self, id: &SessionId, message: &str) -> Result<(), sdk::Closed> {
        let live = self.table.by_id.lock().get(id).cloned();
        let Some(live) = live else { return self.end_elsewhere(id, message) };
        if let Some(moving) = &live.moving {
            // Its client does not arrive elsewhere either; one that has ended by itself need not be told.
            let _ = self.end_one(moving, message);
        }
        self.end_one(&live, message)
    }
}

impl Others {
    /// Asks the fleet for the end of a session that is not here. Whether there is one is not known yet.
    fn end_elsewhere(&self, id: &SessionId, message: &str) -> Result<(), sdk::Closed> {
        let (member, id) = (self.member.clone().ok_or(sdk::Closed)?, id.clone());
        let demand = LastWords::cut(message).map_or(Demand::End(CloseReason::EndStream), Demand::EndStream);
        let ask = async move {
            match member.ask(&id, &demand).await {
                Ok(told) => tracing::debug!(session = %id, ?told, "a handler has asked for its end"),
                Err(error) => tracing::warn!(session = %id, %error, "a handler could not ask for its end"),
            }
        };
        self.tasks.spawn_on(ask, &self.runtime);
        Ok(())
    }

    fn end_one(&self, live: &Live, message: &str) -> Result<(), sdk::Closed> {
        if let Some(session) = &live.session {
            return session.end(message);
        }
        // A handler on the loop has no handle. What it has sent is on its way: there is nothing to play first.
        if live.shared.stage().reason().is_some() {
            return Err(sdk::Closed);
        }
        let (via, token) = (live.via.clone(), live.shared.token());
        let message = (!message.is_empty()).then(|| message.to_owned());
        // A loop that takes no command for so long has stopped, and its sessions with it.
        let told =
            async move { timeout(END_TIMEOUT, deliver(&via, token, || Order::EndStream(message.clone()))).await };
        self.tasks.spawn_on(told, &self.runtime);
        Ok(())
    }
}

/// Everything that a session gives back when it is over, on whichever way.
pub(super) struct Guard {
    table: Arc<Table>,
    shared: Arc<Shared>,
    cancel: CancellationToken,
    metrics: SessionMetrics,
    began: Instant,
    /// Its outputs end with it.
    writing: Option<Writing>,
    /// Given back before the fleet hears of it, which may then send the next.
    _slot: Slot,
    context: Held,
}

impl Guard {
    pub(super) fn context(&self) -> &Held {
        &self.context
    }

    /// Cancelled when the session is over.
    pub(super) fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.cancel.cancel();
        drop(self.writing.take());
        self.table.places.remove(self.context.place().map(Place::ticket));
        let mut table = self.table.by_id.lock();
        let unknown_to = newest_token(&table, &self.shared).filter(|_| ended_unheard(&self.shared));
        let forgotten = (leave(&mut table, &self.shared) == Leaving::Nobody).then(|| {
            let over = Over { shared: self.shared.clone(), context: self.context.id(), unknown_to };
            // Under both locks: there is no moment at which nobody knows it.
            self.table.over.lock().insert(over, Instant::now())
        });
        drop(table);
        drop(forgotten);
        if self.shared.is_refused() {
            return;
        }
        // A loop that stops drops its sessions as they are.
        let reason = self.shared.stage().reason().unwrap_or(CloseReason::Shutdown);
        self.context.over(reason);
        self.metrics.ended(reason, self.began.elapsed());
        summarise(&self.shared, reason, self.began.elapsed());
        Audit { service: self.shared.service(), session: self.shared.id(), user: self.shared.user() }
            .ended(reason, self.began.elapsed());
    }
}

/// What the client of a session shows the next time, as far as known.
fn newest_token(table: &HashMap<SessionId, Live>, shared: &Shared) -> Option<ResumeToken> {
    let live = table.get(shared.id()).filter(|live| live.shared.token() == shared.token());
    live.and_then(|live| live.resume).map(|issued| issued.token)
}

/// Whether a session was ended while its client was away. One that ended for want of a client is none: to come too late
/// is to begin anew.
fn ended_unheard(shared: &Shared) -> bool {
    let reason = shared.stage().reason();
    let events = shared.changes().into_iter().rev().map(|change| change.event);
    let last = events.into_iter().find(|event| matches!(event, Event::Attached | Event::Detached));
    last == Some(Event::Detached) && reason.is_some_and(|reason| reason != CloseReason::ConnectionLost)
}

/// A session's handler, which begins when the client has connected.
pub(super) struct HandlerTask {
    pub(super) handler: Box<dyn sdk::Handler>,
    pub(super) session: sdk::Session,
    pub(super) end: sdk::TaskEnd,
    pub(super) shared: Arc<Shared>,
    pub(super) cancel: CancellationToken,
    pub(super) to: Via,
}

impl HandlerTask {
    pub(super) async fn run(self) {
        let mut stage = self.shared.watch();
        // Between two looks a session may have come and gone: whatever it is, it is not connecting any more.
        let left = async { stage.wait_for(|stage| *stage != Stage::Connecting).await.map(|stage| *stage) };
        let stage = tokio::select! {
            left = left => left.ok(),
            () = self.cancel.cancelled() => None,
        };
        // A client that is gone needs no handler, even if it was there for a moment.
        if stage != Some(Stage::Active) {
            return;
        }
        let ended = sdk::run(self.handler, self.session, self.end, self.cancel.clone()).await;
        let sdk::Ended::Failed(error) = ended else { return };
        tracing::warn!(session = %self.shared.id(), %error, "handler failed");
        let message = error.client_message().to_owned();
        // The session must not stay connected and silent.
        tokio::select! {
            () = deliver(&self.to, self.shared.token(), || Order::HandlerFailed(message.clone())) => {}
            () = self.cancel.cancelled() => {}
        }
    }
}
