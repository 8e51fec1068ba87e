//! Sessions over WebSockets: from an accepted `start` to a running session.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use streamfleet_handler::{self as sdk, LinkConfig, PcmFormat, Registered};
use streamfleet_session::wire::Failure;
use streamfleet_socket::audio::{BURST, FRAME};
use streamfleet_socket::protocol::Resume;
use streamfleet_socket::{AudioRates, SocketAudio};
use streamfleet_store::ContextKey;
use tokio::sync::mpsc;

use super::begin::{Beginning, Begun};
use super::moving::{Mover, enter, is_sealed};
use super::placed::Settled;
use super::via::Via;
use super::{Live, OVERLOADED, Sessions};
use crate::http::{Attached, Claimant, Returning, SocketRequest};
use crate::media::Shared;
use crate::sockets::session::{self, Command, MAX_COMMANDS, NewSession};
use crate::sockets::{Bell, Line};

/// The handler of a session without packets, and the formats it works in.
struct Voice {
    handler: Box<dyn sdk::Handler>,
    input: PcmFormat,
    output: PcmFormat,
}

/// A handler that can serve a socket, if this one can.
fn voice(prototype: &Registered) -> Result<Voice, Failure> {
    let refused = |detail: &str| Failure::InvalidOffer { detail: detail.to_owned() };
    let handler = match prototype.copy() {
        Registered::Handler(handler) => handler,
        Registered::Packets(handler) => {
            handler.frames().ok_or_else(|| refused("this service works on packets: it is served over WebRTC only"))?
        }
    };
    match handler.media() {
        sdk::Media::Frames { input, output } if input.channels == 1 => Ok(Voice { handler, input, output }),
        sdk::Media::Frames { .. } => {
            Err(refused("this service hears more than one channel: it is served over WebRTC only"))
        }
        sdk::Media::Packets => Err(refused("this service works on packets: it is served over WebRTC only")),
    }
}

/// What a network has held back comes in one piece over a socket, up to [`BURST`]: there is room for it beside what may
/// wait for a handler anyway.
fn bounds() -> LinkConfig {
    let usual = LinkConfig::default();
    let burst = BURST.div_duration_f64(FRAME).ceil() as usize;
    LinkConfig { max_queued_frames: usual.max_queued_frames + burst, ..usual }
}

impl Sessions {
    pub(super) async fn begin_socket(&self, request: SocketRequest, line: Line) -> Result<(), (Failure, Box<Line>)> {
        match self.prepare(request).await {
            Ok(prepared) => {
                let Prepared { new, live, mover, settled } = prepared;
                let entered = {
                    let mut table = self.inner.table.by_id.lock();
                    (!is_sealed(&table, live.shared.id())).then(|| {
                        self.inner.table.places.insert(settled.as_ref());
                        self.inner.table.over.lock().taken_up(&live.shared);
                        enter(&mut table, live)
                    })
                };
                let Some(superseded) = entered else {
                    new.shared.refuse();
                    drop(new);
                    return Err((Failure::ConnectionClosed, Box::new(line)));
                };
                self.settle(settled);
                self.follow(mover, superseded);
                self.inner.tasks.spawn(session::run(new, line));
                Ok(())
            }
            Err(failure) => Err((failure, Box::new(line))),
        }
    }

    async fn prepare(&self, request: SocketRequest) -> Result<Prepared, Failure> {
        let inner = &self.inner;
        let service = request.service;
        let Voice { handler, input, output } =
            voice(inner.handlers.get(&service.name).ok_or(Failure::ServiceNotFound)?)?;
        let audio = SocketAudio::new(AudioRates { input: input.rate, output: output.rate })
            .map_err(|error| Failure::InvalidOffer { detail: error.to_string() })?;
        let shown = match request.resume {
            Resume::With(token) => Some(token),
            Resume::No | Resume::Wanted => None,
        };
        let (context, resumed) =
            self.context(&service.name, &request.slot, &request.identity, shown, request.place).await?;
        let token = (request.resume != Resume::No).then(|| context.token());
        let (sender, commands) = mpsc::channel(MAX_COMMANDS);
        let beginning = Beginning {
            token: inner.tokens.fetch_add(1, Relaxed),
            transport: request.transport,
            service: &service,
            id: request.id,
            identity: request.identity,
            slot: request.slot,
            context,
            resumed,
        };
        let mut begun = self.begin(beginning, Via::Socket(sender));
        let woken = Bell::new();
        let wake = woken.clone();
        let link = self.start(&mut begun, handler, bounds(), Arc::new(move || wake.ring()));
        let settled = begun.settled();
        let Begun { live, guard, mover, .. } = begun;
        let call = request.call.map(|call| {
            let shared = &live.shared;
            self.inner.calls.enter(shared.service(), call, shared.token(), shared.id().clone())
        });
        let new = NewSession {
            shared: live.shared.clone(),
            link,
            woken,
            input,
            audio,
            limits: service.limits.life(),
            commands,
            tasks: inner.tasks.clone(),
            stopping: inner.stopping.clone(),
            token,
            guard: Box::new((call, guard)),
        };
        Ok(Prepared { new, live, mover, settled })
    }

    /// Gives a client that is back its session, if it lives here over a socket and the token is its own.
    pub(super) async fn reattach(&self, returning: Returning<'_>, line: Line) -> Attached {
        let Returning { service, id, token, owner, transport } = returning;
        let is_here = |shared: &Shared| shared.service() == service && shared.transport() == transport;
        let live = self.live(id);
        if live.is_none() && self.inner.table.over.lock().tell(service, id, token, Instant::now()) {
            // What ended while it was away is not begun anew behind its back.
            return Attached::Refused(Failure::ConnectionClosed, Box::new(line));
        }
        let live = live.filter(|live| is_here(&live.shared));
        let Some(Live { via: Via::Socket(commands), shared, resume, urged, .. }) = live else {
            return Attached::No(Box::new(line));
        };
        // A token is no way around an identity: a verified user's session is his alone.
        let owned = shared.verified().is_verified();
        let is_owner = match owner {
            Claimant::Known(identity) => identity.verified.is_verified() && shared.user() == identity.user_id.as_ref(),
            Claimant::Vouched => true,
        };
        if shared.stage().reason().is_some() || (owned && !is_owner) {
            return Attached::No(Box::new(line));
        }
        // The token is used up only when the session is sure to hear of it.
        let Ok(permit) = commands.try_reserve() else {
            return Attached::Refused(Failure::NoCapacity { retry_after: OVERLOADED }, Box::new(line));
        };
        let key = ContextKey { service: service.clone(), session: id.clone() };
        match self.contexts_of(service).rotate(&key, &token).await {
            Ok(Some(next)) => {
                let mut table = self.inner.table.by_id.lock();
                if let Some(live) = table.get_mut(id).filter(|live| live.shared.token() == shared.token()) {
                    // Its client may be on the way elsewhere by now, with a newer one.
                    if !live.knows_newer(Some(next)) {
                        live.resume = Some(next);
                    }
                }
                drop(table);
                urged.came_back(Instant::now());
                permit.send(Command::Attach(Box::new(line), next.token));
                Attached::Yes
            }
            // Not its token: to anybody else the id is simply in use.
            Ok(None) => Attached::No(Box::new(line)),
            // What the store gave out last is known here too, and stays good until it can give out another.
            Err(_) if resume.is_some_and(|issued| issued.token == token) => {
                urged.came_back(Instant::now());
                permit.send(Command::Attach(Box::new(line), token));
                Attached::Yes
            }
            Err(error) => {
                tracing::warn!(%error, "a resume token cannot be verified");
                Attached::Refused(Failure::UpstreamUnavailable, Box::new(line))
            }
        }
    }
}

/// A session that lacks its socket.
struct Prepared {
    new: NewSession,
    live: Live,
    mover: Option<Mover>,
    settled: Option<Settled>,
}
