//! All sessions of the process: who is live, on which loop, with which handler.
//!
//! This is where an admitted offer becomes a session: an answer is made, a loop is chosen, the handler's task is
//! started. What a session holds here it gives back by being dropped, on whichever way it ends.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use streamfleet_audio::DelayBounds;
use streamfleet_handler::{self as sdk, LinkConfig, LoopEnd, Registered, link};
use streamfleet_process::telemetry::trace::trace_id;
use streamfleet_session::candidate::ParsedCandidate;
use streamfleet_session::wire::{Answer, Failure, ServerMessage};
use streamfleet_session::{CloseReason, Identity, ResumeToken, ServiceName, SessionId, State};
use streamfleet_store::{ContextStore, Memory};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Slot;
use crate::http::{Attached, Audit, Ended, Host, Modality, OpenRequest, Quality, Service, SessionView, SocketRequest};
use crate::media::answer::{AnswerRequest, IceCredentials, PeerFactory, Wants, answer};
use crate::media::driver::{LoopHandle, Overloaded};
use crate::media::session::{Endpoint, NewSession};
use crate::media::shard::Command;
use crate::media::shared::Token;
use crate::media::{Shared, Stage, TrackView};
use crate::metrics::SessionMetrics;
use crate::sockets::Line;

use self::context::{Held, Resumed};
use self::via::{Order, Via, deliver};

/// How long `end` waits for a session to be over: longer than the grace that a session gives its client.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Clients that the deadline of a drain would cut off are asked to offer elsewhere this long before it.
const RECONNECT_LEAD: Duration = Duration::from_secs(10);

/// When a client may come again that found its loop behind with its work.
const OVERLOADED: Duration = Duration::from_secs(2);

/// What clients are told to send media to.
#[derive(Clone, Debug)]
pub struct Advertised(pub Vec<IpAddr>);

#[derive(Clone)]
struct Live {
    shared: Arc<Shared>,
    via: Via,
    /// Where its handler takes inputs; none for a handler on the loop.
    inputs: Option<sdk::Inputs>,
    /// Its handler's handle; none for a handler on the loop.
    session: Option<sdk::Session>,
    resume: Option<ResumeToken>,
    admitted: Instant,
    time_limit: Option<Duration>,
}

struct Table {
    by_id: Mutex<HashMap<SessionId, Live>>,
}

/// The sessions of this process.
#[derive(Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
}

struct Inner {
    factory: PeerFactory,
    loops: Vec<LoopHandle>,
    advertised: Advertised,
    bounds: DelayBounds,
    handlers: HashMap<ServiceName, Registered>,
    contexts: Arc<dyn ContextStore>,
    table: Arc<Table>,
    tasks: TaskTracker,
    tokens: AtomicU64,
    metrics: SessionMetrics,
}

impl Sessions {
    pub(crate) fn new(
        factory: PeerFactory,
        loops: Vec<LoopHandle>,
        advertised: Advertised,
        bounds: DelayBounds,
        handlers: HashMap<ServiceName, Registered>,
        metrics: SessionMetrics,
    ) -> Self {
        Sessions {
            inner: Arc::new(Inner {
                factory,
                loops,
                advertised,
                bounds,
                handlers,
                contexts: Arc::new(Memory::default()),
                table: Arc::new(Table { by_id: Mutex::new(HashMap::new()) }),
                tasks: TaskTracker::new(),
                tokens: AtomicU64::new(1),
                metrics,
            }),
        }
    }

    /// Sessions that are not over.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.table.by_id.lock().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for the last session, at most until `deadline`. Clients that the deadline would cut off are asked to
    /// reconnect shortly before it; what is left then is ended. New offers must be refused by now.
    pub async fn drain(&self, deadline: Instant) {
        let mut asked = false;
        loop {
            let now = Instant::now();
            if self.is_empty() {
                return;
            }
            if now >= deadline {
                break;
            }
            if !asked && now + RECONNECT_LEAD >= deadline {
                asked = true;
                self.ask_to_reconnect(now, deadline);
            }
            tokio::time::sleep(Duration::from_millis(50).min(deadline - now)).await;
        }
        tracing::info!(sessions = self.len(), "the drain's deadline is over");
        self.end_all(CloseReason::Draining, END_TIMEOUT).await;
    }

    /// Ends every session for this reason, and waits until they are over, at most `limit`.
    pub async fn end_all(&self, reason: CloseReason, limit: Duration) {
        let ids: Vec<SessionId> = self.inner.table.by_id.lock().keys().cloned().collect();
        let ends = futures_util::future::join_all(ids.iter().map(|id| self.end(id, reason)));
        // Those that are not over then end with their loop.
        drop(tokio::time::timeout(limit, ends).await);
    }

    fn ask_to_reconnect(&self, now: Instant, deadline: Instant) {
        let table = self.inner.table.by_id.lock();
        for live in table.values() {
            // A session whose own limit comes first is not cut off by the deadline.
            let own_end = live.time_limit.map(|limit| live.admitted + limit);
            if own_end.is_some_and(|end| end <= deadline) {
                continue;
            }
            let after = deadline.saturating_duration_since(now).min(Duration::from_secs(1));
            let message = ServerMessage::reconnect(after, CloseReason::Draining, live.resume);
            if live.via.send(live.shared.token(), Order::Reconnect(Box::new(message))).is_err() {
                tracing::warn!(session = %live.shared.id(), "could not be asked to reconnect");
            }
        }
    }

    /// Waits until every handler has shut down, at most `limit`.
    pub async fn handlers_done(&self, limit: Duration) {
        self.inner.tasks.close();
        if tokio::time::timeout(limit, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.inner.tasks.len(), "handlers did not shut down in time");
        }
    }

    /// Makes the loops look at whether they are to stop.
    pub(crate) fn wake_loops(&self) {
        for media in &self.inner.loops {
            media.wake();
        }
    }

    fn live(&self, id: &SessionId) -> Option<Live> {
        self.inner.table.by_id.lock().get(id).cloned()
    }

    fn least_loaded(&self) -> usize {
        let sessions = |l: &LoopHandle| l.counters.read().sessions;
        (0..self.inner.loops.len()).min_by_key(|i| sessions(&self.inner.loops[*i])).unwrap_or(0)
    }
}

/// What a session begins with, whatever its transport.
struct Beginning<'a> {
    token: Token,
    transport: sdk::Transport,
    service: &'a Service,
    id: SessionId,
    identity: Identity,
    slot: Slot,
    context: Held,
    resumed: Resumed,
}

/// A session that has begun and has no transport yet.
struct Begun {
    live: Live,
    guard: Guard,
    context: sdk::Context,
    data: sdk::Data,
}

impl Sessions {
    /// What every session has: its view, its guard, its handler's context.
    fn begin(&self, beginning: Beginning<'_>, via: Via) -> Begun {
        let Beginning { token, transport, service, id, identity, slot, context: held, resumed } = beginning;
        let shared = Arc::new(Shared::new(token, id.clone(), service.name.clone(), transport, &identity));
        let context = sdk::Context {
            session_id: id,
            transport,
            service: service.name.clone(),
            user_id: identity.user_id,
            verified: identity.verified,
            metadata: identity.metadata,
            claims: serde_json::Map::new(),
            variant: None,
            resumed: resumed == Resumed::Yes,
            trace_id: trace_id(&tracing::Span::current()),
        };
        let data = held.data();
        let live = Live {
            shared: shared.clone(),
            via,
            inputs: None,
            session: None,
            resume: Some(held.token()),
            admitted: Instant::now(),
            time_limit: service.limits.time_limit,
        };
        let guard = Guard {
            table: self.inner.table.clone(),
            shared,
            cancel: CancellationToken::new(),
            metrics: self.inner.metrics.clone(),
            began: Instant::now(),
            _slot: slot,
            _context: held,
        };
        Begun { live, guard, context, data }
    }

    /// Starts the session's handler in a task, which waits for the client to connect. Returns the transport's end of the link.
    fn start(&self, begun: &mut Begun, handler: Box<dyn sdk::Handler>, wake: Arc<dyn Fn() + Send + Sync>) -> LoopEnd {
        let (loop_end, end) = link(LinkConfig::default(), wake);
        let neighbours: Arc<dyn sdk::Neighbours> = Arc::new(Others(self.inner.table.clone()));
        let session = sdk::Session::with(begun.context.clone(), &end, begun.data.clone(), Some(neighbours));
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
        self.inner.tasks.spawn(task.run());
        loop_end
    }
}

/// The other sessions, as a handler reaches them.
struct Others(Arc<Table>);

impl sdk::Neighbours for Others {
    fn end(&self, id: &SessionId, message: &str) -> Result<(), sdk::Closed> {
        let session = self.0.by_id.lock().get(id).and_then(|live| live.session.clone());
        session.ok_or(sdk::Closed)?.end(message)
    }
}

fn credentials() -> IceCredentials {
    use rand::Rng;
    let mut rng = rand::rng();
    let mut text = |n: usize| (0..n).map(|_| char::from(rng.sample(rand::distr::Alphanumeric))).collect();
    // RFC 8445 5.3 asks for 24 and 128 bits; a character carries almost six.
    IceCredentials { ufrag: text(16), pwd: text(24) }
}

fn view(shared: &Shared) -> SessionView {
    let state = match shared.stage() {
        Stage::Connecting => State::Connecting,
        Stage::Active => State::Active,
        Stage::Ending(reason) => State::Ending(reason),
        Stage::Closed(reason) => State::Closed(reason),
    };
    let figures = shared.quality();
    let sum = |count: fn(&TrackView) -> u64| figures.tracks.iter().map(count).sum::<u64>();
    let (received, lost) = (sum(|t| t.packets_received), sum(|t| t.packets_lost));
    let quality = (!figures.tracks.is_empty()).then(|| Quality {
        rtt_ms: figures.rtt_ms,
        loss_received: if received + lost == 0 { 0.0 } else { lost as f64 / (received + lost) as f64 },
        loss_sent: figures.tracks.iter().find_map(|t| t.remote_fraction_lost).map(f64::from),
        jitter_ms: figures.tracks.first().map_or(0.0, |t| t.jitter_ms),
        buffer_ms: figures.playout.as_ref().map(|p| p.current_delay_ms),
        packets_received: received,
        packets_sent: sum(|t| t.packets_sent),
        frames_concealed: figures.playout.as_ref().map_or(0, |p| p.concealed),
        frames_repaired: figures.playout.as_ref().map_or(0, |p| p.fec_repaired),
    });
    SessionView {
        id: shared.id().clone(),
        service: shared.service().clone(),
        transport: shared.transport(),
        user_id: shared.user().cloned(),
        verified: shared.verified().is_verified(),
        state,
        since: shared.since(),
        quality,
        outputs: shared.outputs(),
    }
}

/// Everything that a session gives back when it is over, on whichever way.
struct Guard {
    table: Arc<Table>,
    shared: Arc<Shared>,
    cancel: CancellationToken,
    metrics: SessionMetrics,
    began: Instant,
    _slot: Slot,
    _context: Held,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.cancel.cancel();
        let mut table = self.table.by_id.lock();
        // The id may be another session's by now.
        if table.get(self.shared.id()).is_some_and(|live| live.shared.token() == self.shared.token()) {
            table.remove(self.shared.id());
        }
        drop(table);
        if self.shared.is_refused() {
            return;
        }
        // A loop that stops drops its sessions as they are.
        let reason = self.shared.stage().reason().unwrap_or(CloseReason::Shutdown);
        self.metrics.ended(reason, self.began.elapsed());
        Audit { service: self.shared.service(), session: self.shared.id(), user: self.shared.user() }
            .ended(reason, self.began.elapsed());
    }
}

#[async_trait]
impl Host for Sessions {
    async fn open(&self, request: OpenRequest) -> Result<Answer, Failure> {
        let inner = &self.inner;
        let prototype = inner.handlers.get(&request.service.name).ok_or(Failure::ServiceNotFound)?.copy();
        let modality = request.service.modality;
        let wants = Wants {
            audio: modality != Modality::Video,
            // Frames are audio: pictures travel on the encoded path only.
            video: modality != Modality::Audio && prototype.media() == sdk::Media::Packets,
        };
        let on = self.least_loaded();
        let port = inner.loops[on].port;
        let advertised: Vec<SocketAddr> = inner.advertised.0.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        let answer_request = AnswerRequest {
            offer: &request.sdp,
            credentials: credentials(),
            advertised: &advertised,
            wants,
            early: &request.early,
        };
        let answered = answer(&inner.factory, answer_request, Instant::now())
            .map_err(|error| Failure::InvalidOffer { detail: error.to_string() })?;
        let sdp = answered.sdp.clone();

        let token = inner.tokens.fetch_add(1, Relaxed);
        let (context, resumed) =
            self.context(&request.service.name, &request.id, &request.identity, request.resume).await?;
        let resume = context.token();
        let via = Via::Loop(inner.loops[on].clone());
        let limits = request.service.limits;
        let mut begun = self.begin(
            Beginning {
                token,
                transport: sdk::Transport::WebRtc,
                service: &request.service,
                id: request.id.clone(),
                identity: request.identity,
                slot: request.slot,
                context,
                resumed,
            },
            via,
        );
        let endpoint = match prototype {
            Registered::Packets(handler) => Endpoint::Packets(handler),
            Registered::Handler(handler) => {
                let media = handler.media();
                let link = self.start(&mut begun, handler, inner.loops[on].ready(token));
                Endpoint::Task { link, media }
            }
        };
        let Begun { live, guard, .. } = begun;
        let shared = live.shared.clone();
        let new = Box::new(NewSession {
            answered,
            endpoint,
            limits: limits.life(),
            bounds: inner.bounds,
            shared: shared.clone(),
            provider: inner.factory.provider().clone(),
            guard: Box::new(guard),
        });
        // Under one lock: from the moment that others can find the id, the loop has the session before what they ask of it.
        let opened = {
            let mut table = inner.table.by_id.lock();
            let opened = inner.loops[on].open(new);
            if opened.is_ok() {
                table.insert(request.id, live);
            }
            opened
        };
        if let Err(refused) = opened {
            shared.refuse();
            drop(refused);
            return Err(Failure::NoCapacity { retry_after: OVERLOADED });
        }
        Ok(Answer { sdp, resume: Some(resume) })
    }

    async fn open_socket(&self, request: SocketRequest, line: Line) -> Result<(), (Failure, Box<Line>)> {
        self.begin_socket(request, line).await
    }

    async fn attach(
        &self,
        service: &ServiceName,
        id: &SessionId,
        token: ResumeToken,
        identity: &Identity,
        line: Line,
    ) -> Attached {
        self.reattach(service, id, token, identity, line).await
    }

    fn sockets(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    async fn candidate(
        &self,
        service: &ServiceName,
        id: &SessionId,
        candidate: ParsedCandidate,
    ) -> Result<(), Failure> {
        let live = self.live(id).filter(|live| live.shared.service() == service);
        let Some(Live { shared, via: Via::Loop(media), .. }) = live else { return Err(Failure::UnknownConnection) };
        if matches!(shared.stage(), Stage::Ending(_) | Stage::Closed(_)) {
            return Err(Failure::ConnectionClosed);
        }
        if let ParsedCandidate::Candidate(candidate) = candidate {
            let command = Command::Candidate(shared.token(), Box::new(candidate));
            media.send(command).map_err(|Overloaded| Failure::NoCapacity { retry_after: OVERLOADED })?;
        }
        Ok(())
    }

    fn sessions(&self, service: &ServiceName) -> Vec<SessionView> {
        // Loops take this lock when a session ends: it is held for the list of them and not for their views.
        let table = self.inner.table.by_id.lock();
        let of_service = table.values().filter(|live| live.shared.service() == service);
        let shared: Vec<Arc<Shared>> = of_service.map(|live| live.shared.clone()).collect();
        drop(table);
        shared.iter().map(|shared| view(shared)).collect()
    }

    fn session(&self, id: &SessionId) -> Option<SessionView> {
        self.live(id).map(|live| view(&live.shared))
    }

    async fn end(&self, id: &SessionId, reason: CloseReason) -> Result<Ended, Failure> {
        let Live { shared, via, .. } = self.live(id).ok_or(Failure::NotFound)?;
        let mut stage = shared.watch();
        let end = async {
            deliver(&via, shared.token(), || Order::End(reason)).await;
            // The session's own `Shared` sends: it cannot be gone.
            stage.wait_for(|stage| matches!(stage, Stage::Closed(_))).await.is_ok()
        };
        // Whether the time was enough is what the stage says.
        let _ = tokio::time::timeout(END_TIMEOUT, end).await;
        match shared.stage() {
            Stage::Closed(reason) => Ok(Ended::Closed(reason)),
            Stage::Ending(_) => Ok(Ended::Ending),
            // The loop has not come to it.
            Stage::Connecting | Stage::Active => Err(Failure::NoCapacity { retry_after: OVERLOADED }),
        }
    }
}

/// A session's handler, which begins when the client has connected.
struct HandlerTask {
    handler: Box<dyn sdk::Handler>,
    session: sdk::Session,
    end: sdk::TaskEnd,
    shared: Arc<Shared>,
    cancel: CancellationToken,
    to: Via,
}

impl HandlerTask {
    async fn run(self) {
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

mod context;
mod socket;
mod via;

#[cfg(test)]
mod tests;
