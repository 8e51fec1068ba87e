//! A session whose audio travels over a WebSocket.

use std::any::Any;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use streamfleet_handler::{AudioFrame, Emit, Input, LoopEnd, PcmFormat, Pushed};
use streamfleet_session::ResumeToken;
use streamfleet_session::lifecycle::{CloseReason, LifeEvent, LifeLimits, Lifecycle, State};
use streamfleet_session::wire::{Failure, ServerMessage};
use streamfleet_socket::{Connection, End, Event, Farewell, SocketAudio};
use tokio::sync::mpsc;
use tokio::time::timeout_at;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

use super::bell::{Bell, Ear};
use super::line::Line;
use crate::feed::{Feed, Said, Taken, Voice, words};
use crate::media::{Event as Change, Intake, Quality, Shared, TrackEnd, millis};

/// Audio is taken from the handler this much ahead of what its pacing sends: a handler's task that is a few milliseconds
/// late must not leave a gap, and what was taken can still be forgotten here.
const AHEAD: Duration = Duration::from_millis(60);
/// Taken from a handler in one turn, so that one that always has more shares its thread.
const MAX_EMITS: usize = 64;
/// A session whose socket broke waits so long for its client: a lift, a change of networks.
const REATTACH_WINDOW: Duration = Duration::from_secs(30);
/// What the rest of the process sees of a session's audio is never much older than this.
const QUALITY_EVERY: Duration = Duration::from_secs(1);
/// Commands that wait: as many as anybody has reason to send at once.
pub(crate) const MAX_COMMANDS: usize = 16;

/// What stands for the `mid` of the one track that a session without an SDP has.
pub(crate) const TRACK: &str = "audio";

/// What others want of a session.
pub(crate) enum Command {
    /// It is to end.
    End(CloseReason),
    /// Its handler has failed, and this is what the client is told.
    HandlerFailed(String),
    /// The client is to come back elsewhere.
    Reconnect(Box<ServerMessage>),
    /// A track is to end; the sender is told what came of it.
    CloseTrack(Box<str>, mpsc::Sender<TrackEnd>),
    /// Its client is back on another socket and has shown who it is; this is what it shows the next time.
    Attach(Box<Line>, ResumeToken),
}

/// A session that is about to begin.
pub(crate) struct NewSession {
    pub(crate) shared: Arc<Shared>,
    pub(crate) link: LoopEnd,
    /// Rung by the link when the handler has something.
    pub(crate) woken: Arc<Bell>,
    pub(crate) input: PcmFormat,
    pub(crate) audio: SocketAudio,
    pub(crate) limits: LifeLimits,
    pub(crate) commands: mpsc::Receiver<Command>,
    /// Where what a session leaves behind is finished.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the process stops.
    pub(crate) stopping: CancellationToken,
    /// What the client may come back with; `None` if it has not asked.
    pub(crate) token: Option<ResumeToken>,
    /// Kept until the session is over.
    pub(crate) guard: Box<dyn Any + Send>,
}

/// Runs a session from its `start` to its end, over one socket or, if its client comes back, several.
pub(crate) async fn run(new: NewSession, line: Line) {
    let NewSession { shared, link, woken, input, audio, limits, commands, tasks, stopping, token, guard } = new;
    let resumable = if token.is_some() { Resumable::Yes } else { Resumable::No };
    let mut session = Session {
        shared,
        link,
        woken,
        input,
        life: Lifecycle::new(Instant::now(), limits),
        feed: Feed::new(AHEAD),
        position: 0,
        frames: 0,
        published_at: None,
        commands,
        called: Ear::new(),
        tasks,
        stopping: Some(Box::pin(stopping.cancelled_owned())),
        stopped: Ear::new(),
        resumable,
    };
    let (reason, last) = session.serve(line, audio, token).await;
    if session.shared.stage().reason().is_none() {
        session.shared.ending(reason);
    }
    // Whoever waits for the end finds the id free.
    drop(guard);
    session.shared.closed(reason);
    // A client that came back as the session ended is told so, also one whose token is still being looked at: it has its
    // place in the queue.
    session.commands.close();
    let late = async {
        while let Some(command) = session.commands.recv().await {
            if let Command::Attach(mut line, _) = command {
                line.refuse(Failure::ConnectionClosed).await;
            }
        }
    };
    let last = async {
        if let Some(mut line) = last {
            line.close().await;
        }
    };
    tokio::join!(late, last);
}

/// Whether the client may come back when its socket breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resumable {
    Yes,
    No,
}

struct Session {
    shared: Arc<Shared>,
    link: LoopEnd,
    woken: Arc<Bell>,
    input: PcmFormat,
    life: Lifecycle,
    feed: Feed,
    /// Samples handed to the handler so far, for the timestamp of the next frame.
    position: usize,
    /// Frames handed to the handler so far.
    frames: u64,
    published_at: Option<Instant>,
    commands: mpsc::Receiver<Command>,
    /// Hears `commands`.
    called: Ear,
    tasks: TaskTracker,
    /// Until it has been obeyed.
    stopping: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Hears `stopping`.
    stopped: Ear,
    resumable: Resumable,
}

/// How a session's time on one socket is over.
enum Left {
    /// The session is; the socket has a close frame to send.
    Over(CloseReason, Box<Line>),
    /// Its client may come back.
    Lost(Option<SocketAudio>),
    /// Its client is back before the old socket was known to be broken.
    Replaced(Option<SocketAudio>, Box<Line>, ResumeToken),
}

enum Called {
    ByHandler,
    ByCommand(Command),
    /// The process stops.
    ToStop,
}

impl Session {
    async fn serve(
        &mut self,
        mut line: Line,
        mut audio: SocketAudio,
        mut token: Option<ResumeToken>,
    ) -> (CloseReason, Option<Box<Line>>) {
        loop {
            let now = Instant::now();
            if let Err(error) = line.connection.accept(now, audio, token) {
                tracing::error!(session = %self.shared.id(), %error, "no codec");
                return (CloseReason::InternalError, Some(Box::new(line)));
            }
            self.life.handle(LifeEvent::Connected, now);
            self.shared.active();
            let (kept, next, shown) = match self.attached(line).await {
                Left::Over(reason, line) => return (reason, Some(line)),
                Left::Replaced(audio, next, token) => (audio, next, token),
                Left::Lost(audio) => {
                    self.shared.record(Change::Detached);
                    match self.alone().await {
                        Ok((next, token)) => (audio, next, token),
                        Err(reason) => return (reason, None),
                    }
                }
            };
            // A connection that was open has audio; one that never was is not lost but refused.
            let Some(kept) = kept else { return (CloseReason::InternalError, Some(next)) };
            (line, audio, token) = (*next, kept, Some(shown));
        }
    }

    /// The session while it has a socket.
    async fn attached(&mut self, mut line: Line) -> Left {
        loop {
            while let Some(event) = line.connection.poll_event() {
                match event {
                    Event::Audio(samples) => self.hear(samples),
                    Event::Digit(digit) => self.give(Input::Dtmf(digit.as_char())),
                    // The connection has refused a second one.
                    Event::Start(_) => {}
                    Event::Ended(end) => return self.left(line, end),
                }
            }
            let now = Instant::now();
            self.publish(now, &line.connection);
            let more = self.speak(now, &mut line.connection);
            let lost = self.feed.take_dropped();
            if lost > 0 {
                tracing::warn!(session = %self.shared.id(), lost, "audio of a handler could not be played");
            }
            self.life.handle_timeout(now);
            if let Some(reason) = self.life.state().reason()
                && self.shared.stage().reason().is_none()
            {
                // The time limit.
                self.end_at_once(now, reason, &mut line.connection);
                continue;
            }
            if let State::Closed(reason) = self.life.state() {
                // What plays out takes longer than it may.
                line.connection.close(now, reason);
            }
            let until = if more { Some(now) } else { self.life.poll_timeout() };
            match line.turn(until, |cx| self.poll_called(cx)).await {
                Some(Called::ByCommand(Command::Attach(next, token))) => {
                    if self.shared.stage().reason().is_some() {
                        // It comes too late: what it would hear is being said to the socket that is there.
                        self.put_off(next, Failure::ConnectionClosed);
                        continue;
                    }
                    line.connection.close(Instant::now(), CloseReason::Moved);
                    let audio = line.connection.take_audio();
                    self.put_away(line);
                    return Left::Replaced(audio, next, token);
                }
                Some(Called::ByCommand(command)) => self.obey(command, &mut line.connection),
                Some(Called::ToStop) => {
                    self.stopping = None;
                    self.obey(Command::End(CloseReason::Shutdown), &mut line.connection);
                }
                Some(Called::ByHandler) | None => {}
            }
        }
    }

    /// What calls a session, besides its socket.
    fn poll_called(&mut self, cx: &mut Context<'_>) -> Poll<Called> {
        if let Poll::Ready(Some(command)) = self.poll_command(cx) {
            return Poll::Ready(Called::ByCommand(command));
        }
        if self.poll_stopping(cx).is_ready() {
            return Poll::Ready(Called::ToStop);
        }
        if self.woken.heard(cx) { Poll::Ready(Called::ByHandler) } else { Poll::Pending }
    }

    /// The next command; `None` when nobody can send one any more.
    fn poll_command(&mut self, cx: &mut Context<'_>) -> Poll<Option<Command>> {
        self.called.poll(cx, |cx| self.commands.poll_recv(cx))
    }

    /// Ready when the process stops; never, once that has been obeyed.
    fn poll_stopping(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.stopping {
            Some(stopping) => self.stopped.poll(cx, |cx| stopping.as_mut().poll(cx)),
            None => Poll::Pending,
        }
    }

    /// The socket has ended: sees it closed, and says what that means for the session.
    fn left(&mut self, mut line: Line, end: End) -> Left {
        self.published_at = None;
        self.publish(Instant::now(), &line.connection);
        let reason = end.reason().unwrap_or(CloseReason::InternalError);
        if self.shared.stage().reason().is_none() {
            if self.resumable == Resumable::Yes && end.is_recoverable() {
                let audio = line.connection.take_audio();
                self.put_away(line);
                return Left::Lost(audio);
            }
            self.shared.ending(reason);
        }
        Left::Over(self.shared.stage().reason().unwrap_or(reason), Box::new(line))
    }

    /// A socket that the session has left sends its last words beside it.
    fn put_away(&self, mut line: Line) {
        self.tasks.spawn(async move { line.close().await });
    }

    fn put_off(&self, mut line: Box<Line>, failure: Failure) {
        self.tasks.spawn(async move { line.refuse(failure).await });
    }

    /// The session while its client is gone: the handler lives on, held back by what it has said already.
    async fn alone(&mut self) -> Result<(Box<Line>, ResumeToken), CloseReason> {
        let gives_up = Instant::now() + REATTACH_WINDOW;
        loop {
            // There is nobody to play to: a handler that has hung up is not kept waiting for somebody who listens.
            if self.link.is_ended() {
                self.keep_outputs();
                return Err(CloseReason::EndStream);
            }
            let until = self.life.poll_timeout().map_or(gives_up, |at| at.min(gives_up));
            let called = poll_fn(|cx| self.poll_called(cx));
            match timeout_at(until.into(), called).await {
                Ok(Called::ByCommand(Command::Attach(line, token))) => return Ok((line, token)),
                Ok(Called::ByCommand(Command::End(reason))) => return Err(reason),
                Ok(Called::ByCommand(Command::HandlerFailed(_))) => return Err(CloseReason::HandlerError),
                // It has nobody to tell.
                Ok(Called::ByCommand(Command::Reconnect(_))) => {}
                Ok(Called::ByCommand(Command::CloseTrack(mid, told))) => {
                    if tell(&mid, &told) == TrackEnd::Closed {
                        return Err(CloseReason::EndedByControl);
                    }
                }
                // What it has said waits for its client; an end does not.
                Ok(Called::ByHandler) => {}
                Ok(Called::ToStop) => return Err(CloseReason::Shutdown),
                Err(_) => {
                    let now = Instant::now();
                    self.life.handle_timeout(now);
                    if let Some(reason) = self.life.state().reason() {
                        return Err(reason);
                    }
                    if now >= gives_up {
                        return Err(CloseReason::ConnectionLost);
                    }
                }
            }
        }
    }

    /// What was put out before the end outlives the session, as it would have if its client had been there.
    fn keep_outputs(&mut self) {
        while let Some(emit) = self.feed.leave(&self.link) {
            // One that is too large is lost to a client that is there, too.
            if let Emit::Output(value) = emit {
                let _ = self.shared.output(&value);
            }
        }
    }

    /// Shows the rest of the process how this session's audio fares.
    fn publish(&mut self, now: Instant, connection: &Connection) {
        if self.published_at.is_some_and(|at| now.saturating_duration_since(at) < QUALITY_EVERY) {
            return;
        }
        let Some(audio) = connection.audio() else { return };
        self.published_at = Some(now);
        let intake = Intake {
            frames: self.frames,
            queued_ms: millis(audio.output.queued()),
            dropped_ms: millis(audio.input.dropped()),
        };
        self.shared.publish(Quality { intake: Some(intake), ..Quality::default() });
    }

    fn hear(&mut self, samples: Vec<i16>) {
        self.frames += 1;
        let timestamp = self.input.duration(self.position);
        self.position += samples.len();
        self.give(Input::Audio(AudioFrame { samples, format: self.input, timestamp }));
    }

    /// A handler that is slow loses the oldest audio; one that has gone has said so.
    fn give(&self, input: Input) {
        if self.link.push(input) == Pushed::Refused {
            tracing::debug!(session = %self.shared.id(), "a handler does not keep up with what its client sends");
        }
    }

    /// Does what the handler says. Returns whether there may be more.
    fn speak(&mut self, now: Instant, connection: &mut Connection) -> bool {
        for _ in 0..MAX_EMITS {
            // What the client has not taken yet holds its handler back.
            if !connection.has_room() {
                return false;
            }
            match self.feed.next(now, &self.link, connection) {
                Some(Said::Now(emit)) => self.say(now, emit, connection),
                Some(Said::End(message)) => {
                    self.end(now, CloseReason::EndStream, Some(ServerMessage::end_stream(message)), connection);
                }
                None => return false,
            }
        }
        true
    }

    fn say(&mut self, now: Instant, emit: Emit, connection: &mut Connection) {
        match emit {
            Emit::Output(value) => {
                if self.shared.output(&value).is_ok() {
                    connection.send(now, ServerMessage::FetchOutput);
                }
            }
            Emit::Message(message) => connection.send_text(now, words(message)),
            // There is one track, and without it there is no session.
            Emit::CloseTrack(_) => self.end(now, CloseReason::EndStream, None, connection),
            Emit::Audio(_) | Emit::Packet(_) | Emit::Clear | Emit::EndStream(_) | Emit::All(_) | Emit::Nothing => {}
        }
    }

    fn obey(&mut self, command: Command, connection: &mut Connection) {
        let now = Instant::now();
        match command {
            Command::End(reason) => self.end_at_once(now, reason, connection),
            Command::HandlerFailed(message) => {
                connection.clear(now);
                self.end(now, CloseReason::HandlerError, Some(ServerMessage::Error(message)), connection);
            }
            Command::Reconnect(message) => connection.send(now, *message),
            // Without its one track there is no session.
            Command::CloseTrack(mid, told) => {
                if tell(&mid, &told) == TrackEnd::Closed {
                    self.end_at_once(now, CloseReason::EndedByControl, connection);
                }
            }
            // Taken by whoever calls this.
            Command::Attach(..) => {}
        }
    }

    /// What waits is played, then `goodbye` is said.
    fn end(&mut self, now: Instant, reason: CloseReason, goodbye: Option<ServerMessage>, connection: &mut Connection) {
        if self.shared.stage().reason().is_none() {
            self.life.handle(LifeEvent::End(reason), now);
            self.shared.ending(reason);
            connection.finish(now, Farewell { reason, message: goodbye });
        }
    }

    fn end_at_once(&mut self, now: Instant, reason: CloseReason, connection: &mut Connection) {
        if self.shared.stage().reason().is_none() {
            self.life.handle(LifeEvent::End(reason), now);
            self.shared.ending(reason);
        }
        connection.send(now, ServerMessage::UpdateConnection);
        connection.close(now, reason);
    }
}

/// Tells whoever asked for the end of a track what comes of it.
fn tell(mid: &str, told: &mpsc::Sender<TrackEnd>) -> TrackEnd {
    let end = if mid == TRACK { TrackEnd::Closed } else { TrackEnd::Unknown };
    // They may not wait any more.
    let _ = told.try_send(end);
    end
}

impl Voice for Connection {
    fn queued(&self) -> Duration {
        self.audio().map_or(Duration::ZERO, |audio| audio.output.queued())
    }

    fn push(&mut self, now: Instant, frame: &AudioFrame) -> Taken {
        match self.send_audio(now, &frame.samples, frame.format) {
            Ok(()) => Taken::Yes,
            Err(_) => Taken::Lost,
        }
    }

    /// The play-out sends an unfinished frame by itself when the client would run dry, and at the end.
    fn flush(&mut self) {}

    fn clear(&mut self, now: Instant) {
        Connection::clear(self, now);
    }
}
