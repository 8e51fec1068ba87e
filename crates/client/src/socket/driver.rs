//! The task of one call on a socket: waits for whatever comes first, applies it, sends and plays what is due.

use std::sync::Arc;
use std::time::{Duration, Instant};

use streamfleet_audio::PcmFormat;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::attach::{self, Attached};
use super::open::{End, Received, Socket};
use super::options::SocketOptions;
use super::talk::{News, Talk};
use super::words::{self, Say};
use crate::call::{Command, Event, Shared, Summary};
use crate::error::ClientError;
use crate::join::Persistence;
use crate::life::{EndReason, Input, Life, Loss, Output};
use crate::message::Message;
use crate::options::{Reconnect, Resume};
use crate::phone::options::PhoneOptions;
use crate::stats::{CallStats, SetupTimes, Stopwatch, TrackCounters};

/// How often a silent server is asked whether it is there.
const PROBE_EVERY: Duration = Duration::from_secs(3);
/// Frames that are taken before media that is due is sent.
const MAX_BATCH: usize = 64;

/// Runs one call.
pub(crate) struct SocketDriver {
    /// How to take the session up again; telephone calls are not.
    again: Option<Arc<SocketOptions>>,
    liveness: Duration,
    shared: Arc<Shared>,
    socket: Option<Socket>,
    /// Frames that came before the call's task began.
    first: Option<words::Frame>,
    talk: Talk,
    life: Life,
    next: JoinSet<Result<Attached, ClientError>>,
    adopted: Option<Box<Attached>>,
    /// Why it is over, once it is; what has come is still played.
    ending: Option<EndReason>,
    resume: Option<Resume>,
    stopwatch: Stopwatch,
    setup: SetupTimes,
    heard_at: Instant,
    next_probe: Instant,
    reconnects: u32,
}

/// What woke the driver.
enum Wake {
    HangUp,
    Audio(Vec<i16>, PcmFormat),
    Command(Command),
    Socket(Received),
    Next(Result<Box<Attached>, String>),
    Timeout,
}

impl SocketDriver {
    /// A call of FastRTC's kind.
    ///
    /// # Errors
    /// The server cannot be reached, refuses the call, works at other rates, or there is no codec.
    pub(crate) async fn plain(options: SocketOptions, shared: Arc<Shared>) -> Result<Self, ClientError> {
        let mut attached = attach::plain(&options, options.resume.as_ref(), Persistence::First).await?;
        let rates = match options.rates(attached.said()) {
            Ok(rates) => rates,
            Err(error) => {
                // The session has begun; a server that is gone needs no goodbye.
                let _ = attached.socket.send(words::Frame::Text(Say::Stop.text())).await;
                attached.socket.close().await;
                return Err(error);
            }
        };
        let talk = Talk::plain(&options, rates, Instant::now())?;
        let life = Life::new(options.reconnect);
        let (resume, liveness) = (options.resume.clone(), options.timeouts.liveness);
        let mut driver = Self::new(attached, talk, life, shared, liveness);
        (driver.again, driver.resume) = (Some(Arc::new(options)), resume);
        Ok(driver)
    }

    /// A telephone call.
    ///
    /// # Errors
    /// The server cannot be reached or refuses the call, or its TwiML leads nowhere.
    pub(crate) async fn phone(options: PhoneOptions, shared: Arc<Shared>) -> Result<Self, ClientError> {
        let (attached, stream) = attach::phone(&options).await?;
        let talk = Talk::phone(stream, options.delay, Instant::now())?;
        Ok(Self::new(attached, talk, Life::new(Reconnect::Never), shared, options.timeouts.liveness))
    }

    fn new(attached: Attached, talk: Talk, life: Life, shared: Arc<Shared>, liveness: Duration) -> Self {
        let now = Instant::now();
        let mut driver = Self {
            again: None,
            liveness,
            shared,
            socket: None,
            first: None,
            talk,
            life,
            next: JoinSet::new(),
            adopted: None,
            ending: None,
            resume: None,
            stopwatch: attached.stopwatch,
            setup: attached.setup,
            heard_at: now,
            next_probe: now + PROBE_EVERY,
            reconnects: 0,
        };
        driver.take(now, attached);
        driver
    }

    /// The format of received audio.
    pub(crate) fn format(&self) -> PcmFormat {
        self.talk.format()
    }

    /// Runs the call to its end.
    pub(crate) async fn run(
        mut self,
        mut audio: mpsc::Receiver<(Vec<i16>, PcmFormat)>,
        mut commands: mpsc::Receiver<Command>,
        hang_up: CancellationToken,
    ) -> Summary {
        let reason = loop {
            if let Some(frame) = self.first.take() {
                self.heard(Instant::now(), Received::Frame(frame));
            }
            let wake = self.wait(&mut audio, &mut commands, &hang_up).await;
            let now = Instant::now();
            if let Some(reason) = self.apply(now, wake).await {
                break reason;
            }
            self.follow_life(now);
            self.send_and_play(now).await;
            // What has come is played to its end, unless the user has hung up.
            match &self.ending {
                Some(reason) if *reason == EndReason::HungUp || self.talk.played_out().is_none_or(|end| end <= now) => {
                    break reason.clone();
                }
                _ => {}
            }
        };
        self.next.shutdown().await;
        let stats = self.stats();
        if let Some(mut socket) = self.socket.take() {
            if reason == EndReason::HungUp {
                // A server that is gone needs no goodbye.
                let _ = socket.send(self.talk.goodbye()).await;
            }
            socket.close().await;
        }
        self.shared.events.put(Event::Ended(reason.clone()));
        Summary { reason, stats }
    }

    async fn wait(
        &mut self,
        audio: &mut mpsc::Receiver<(Vec<i16>, PcmFormat)>,
        commands: &mut mpsc::Receiver<Command>,
        hang_up: &CancellationToken,
    ) -> Wake {
        let played_out = self.ending.as_ref().and_then(|_| self.talk.played_out());
        let deadline = [self.talk.poll_timeout(), self.life.poll_timeout(), Some(self.next_probe), played_out];
        let deadline = deadline.into_iter().flatten().min().unwrap_or(self.next_probe);
        let room = self.talk.has_room();
        tokio::select! {
            () = hang_up.cancelled() => Wake::HangUp,
            () = tokio::time::sleep_until(deadline.into()) => Wake::Timeout,
            received = next(self.socket.as_mut()) => Wake::Socket(received),
            Some((samples, format)) = audio.recv(), if room => Wake::Audio(samples, format),
            Some(command) = commands.recv() => Wake::Command(command),
            Some(joined) = self.next.join_next() => Wake::Next(match joined {
                Ok(joined) => joined.map(Box::new).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            }),
        }
    }

    /// `Some` if the call is over at once.
    async fn apply(&mut self, now: Instant, wake: Wake) -> Option<EndReason> {
        match wake {
            Wake::HangUp => return Some(self.ending.take().unwrap_or(EndReason::HungUp)),
            Wake::Audio(samples, format) => {
                if let Err(error) = self.talk.push(now, &samples, format) {
                    tracing::warn!(%error, "audio cannot be sent");
                }
            }
            Wake::Command(command) => self.command(command),
            Wake::Socket(received) => {
                self.heard(now, received);
                self.take_what_is_there(now);
            }
            Wake::Next(Ok(attached)) => {
                self.adopted = Some(attached);
                self.life.handle_input(now, Input::Rejoined);
            }
            Wake::Next(Err(reason)) => {
                self.shared.events.put(Event::ReconnectFailed { reason: reason.clone() });
                self.life.handle_input(now, Input::RejoinFailed(reason));
            }
            Wake::Timeout => {
                self.life.handle_timeout(now);
                self.probe(now).await;
            }
        }
        None
    }

    /// More frames may have come together with one.
    fn take_what_is_there(&mut self, now: Instant) {
        for _ in 0..MAX_BATCH {
            let Some(socket) = &mut self.socket else { return };
            let Some(received) = futures_util::FutureExt::now_or_never(socket.next()) else { return };
            self.heard(now, received);
        }
    }

    fn heard(&mut self, now: Instant, received: Received) {
        self.heard_at = now;
        let frame = match received {
            Received::Frame(frame) => frame,
            Received::Alive => return,
            Received::Ended(end) => return self.ended(now, end),
        };
        let Some(news) = self.talk.handle_frame(now, &frame) else { return };
        match news {
            News::Session(token) => self.resume = Some(token),
            News::Cleared => self.shared.events.put(Event::Cleared),
            News::Refused(refusal) => {
                self.life.handle_input(now, Input::Broken(refusal.to_string()));
            }
            News::Message(message) => self.said(now, message),
        }
    }

    fn said(&mut self, now: Instant, message: Message) {
        if let Message::Reconnect { reason, .. } = &message {
            tracing::info!(%reason, "the server asks for a new socket");
        }
        if let Some(input) = Input::of(&message) {
            self.life.handle_input(now, input);
        }
        self.shared.events.put(Event::Message(message));
    }

    fn ended(&mut self, now: Instant, end: End) {
        tracing::debug!(?end, "the socket ended");
        self.socket = None;
        self.life.handle_input(
            now,
            match end {
                End::Closed => Input::Lost(Loss::Closed),
                End::Fault(words) => Input::Broken(format!("the server closed the socket: {words}")),
                End::Vanished(_) => Input::Lost(Loss::Vanished),
            },
        );
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Flush => self.talk.flush(),
            Command::Clear => self.talk.clear(),
            Command::Digit(digit) => self.talk.digit(digit),
            // A receiver that is gone does not want the answer any more.
            Command::Stats(reply) => drop(reply.send(self.stats())),
            Command::Resume(reply) => drop(reply.send(self.resume.clone())),
            // `Call` refuses them on a socket.
            Command::Text(_) | Command::Video(_) => {}
        }
    }

    fn follow_life(&mut self, now: Instant) {
        while let Some(output) = self.life.poll_output() {
            match output {
                Output::Finish(reason) => self.ending = Some(reason),
                Output::Rejoin { resume } => self.rejoin(resume),
                Output::Adopt => {
                    if let Some(attached) = self.adopted.take() {
                        self.reconnects += 1;
                        (self.stopwatch, self.setup) = (attached.stopwatch, attached.setup);
                        self.take(now, *attached);
                        self.shared.events.put(Event::Reconnected);
                    }
                }
            }
        }
    }

    fn rejoin(&mut self, resume: Option<Resume>) {
        let Some(options) = self.again.clone() else { return };
        if resume.is_some() {
            self.resume = resume;
        }
        let reason = if self.socket.is_none() { "the socket broke" } else { "the server asked for it" };
        self.shared.events.put(Event::Reconnecting { reason: reason.to_owned() });
        let resume = self.resume.clone();
        self.next.spawn(async move {
            let limit = options.timeouts.rejoin + options.timeouts.connect;
            let url = options.url.socket_url().to_string();
            tokio::time::timeout(limit, attach::plain(&options, resume.as_ref(), Persistence::Again))
                .await
                .unwrap_or(Err(ClientError::NotAccepted { url, after: limit }))
        });
    }

    /// Goes on with this socket. An old one is dropped: its session has moved.
    fn take(&mut self, now: Instant, attached: Attached) {
        self.socket = Some(attached.socket);
        self.talk.attached(attached.pinged);
        (self.heard_at, self.first) = (now, attached.first);
    }

    /// Asks a silent server whether it is there, and gives up one that does not say.
    async fn probe(&mut self, now: Instant) {
        if self.next_probe > now {
            return;
        }
        self.next_probe = now + PROBE_EVERY;
        let Some(socket) = &mut self.socket else { return };
        let silent = now.saturating_duration_since(self.heard_at);
        let sent = if silent >= PROBE_EVERY { socket.probe().await } else { Ok(()) };
        match sent {
            Err(error) => self.ended(now, End::Vanished(error.to_string())),
            Ok(()) if silent >= self.liveness => self.ended(now, End::Vanished(format!("silent for {silent:.0?}"))),
            Ok(()) => {}
        }
    }

    async fn send_and_play(&mut self, now: Instant) {
        while let Some(chunk) = self.talk.poll_chunk(now) {
            self.shared.audio.put(chunk);
        }
        while let Some(frame) = self.talk.poll_frame(now) {
            // Between two sockets, what is spoken is lost, as on any telephone.
            let Some(socket) = &mut self.socket else { continue };
            if let Err(error) = socket.send(frame).await {
                self.ended(now, End::Vanished(error.to_string()));
            }
        }
    }

    fn stats(&self) -> CallStats {
        let counters = self.talk.counters();
        let mut setup = self.setup;
        setup.first_media = counters.first_received.map(|at| self.stopwatch.at(at));
        CallStats {
            setup,
            round_trip: counters.round_trip,
            audio: TrackCounters { sent: counters.sent, received: counters.received, lost: 0 },
            playout: Some(self.talk.receiver_stats()),
            chunks_dropped: self.shared.audio.dropped() + self.talk.dropped(),
            reconnects: self.reconnects,
            ..CallStats::default()
        }
    }
}

/// The next message; never, where there is no socket.
async fn next(socket: Option<&mut Socket>) -> Received {
    match socket {
        Some(socket) => socket.next().await,
        None => std::future::pending().await,
    }
}
