//! One socket's life: `waiting → deciding → open → ending → closing → closed`, in virtual time.
//!
//! The driver hands in what comes and calls [`Connection::handle_timeout`] at [`Connection::poll_timeout`]. After every
//! call it takes all of [`Connection::poll_event`] and, unless a frame is on its way, asks [`Connection::poll_transmit`].
//! It says [`Connection::transmitted`] when its transport has taken the frame: one is on its way at a time, so nothing
//! of a client that does not read piles up outside of the bounds here.

mod event;
mod outbox;
mod parting;
mod state;
mod words;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use streamfleet_audio::{AudioError, PcmFormat};
use streamfleet_session::wire::ServerMessage;
use streamfleet_session::{CloseReason, ResumeToken};

pub use self::event::{ConnectionLimits, Event, Farewell, Opening, Transmit};

use self::outbox::Outbox;
use self::state::State;
use self::words::{Said, Words};
use crate::audio::{PushError, SocketAudio};
use crate::close::{CloseCode, End};
use crate::protocol::{BadFrame, ServerFrame};

/// A frame may be on its way for so long. A client that takes nothing for ten seconds has, with the buffers of two
/// kernels before that, been gone for longer.
pub const SLOW_AFTER: Duration = Duration::from_secs(10);

/// A client that has been silent for so long is asked for a sign of life: below the minute after which proxies give up
/// idle connections. One that listens only is served as long as it answers.
pub const PING_AFTER: Duration = Duration::from_secs(20);

/// A client that has been silent for so long is gone: it has missed two pings.
pub const SILENT_AFTER: Duration = Duration::from_secs(60);

/// For a close frame, and what goes before it, to be taken.
pub const CLOSE_TIME: Duration = Duration::from_secs(5);

/// How long after its play time the mark at the end of a call's audio is waited for.
pub const MARK_GRACE: Duration = Duration::from_secs(2);

/// Digits that wait to be polled: more than fingers press before a driver's next turn.
const MAX_EVENTS: usize = 64;

/// The mark at the end of a call's audio.
const END_MARK: &str = "streamfleet-end";

/// One socket.
#[derive(Debug)]
pub struct Connection {
    words: Words,
    state: State,
    outbox: Outbox,
    events: VecDeque<Event>,
    /// When the frame that is on its way was given out.
    in_flight: Option<Instant>,
    heard_at: Instant,
    pinged_at: Option<Instant>,
    /// Reused for every frame.
    payload: Vec<u8>,
}

impl Connection {
    /// A socket at `{p}/websocket/offer`.
    #[must_use]
    pub fn client(now: Instant, limits: ConnectionLimits) -> Self {
        Self::new(now, limits, Words::client())
    }

    /// A socket at `{p}/telephone/handler`.
    #[must_use]
    pub fn telephone(now: Instant, limits: ConnectionLimits) -> Self {
        Self::new(now, limits, Words::telephone())
    }

    fn new(now: Instant, limits: ConnectionLimits, words: Words) -> Self {
        Self {
            words,
            state: State::Waiting { until: now.checked_add(limits.start_timeout) },
            outbox: Outbox::default(),
            events: VecDeque::new(),
            in_flight: None,
            heard_at: now,
            pinged_at: None,
            payload: Vec::new(),
        }
    }

    /// A text message came.
    pub fn handle_text(&mut self, now: Instant, text: &str) {
        self.heard(now);
        if self.state.is_over() {
            return;
        }
        match self.words.text(text) {
            Ok(Said::Start(opening)) => self.start(now, opening),
            Ok(Said::Media(payload)) => {
                if let State::Open(audio) = &mut self.state
                    && let Err(error) = audio.input.take(now, payload)
                {
                    self.fail(now, &error.into());
                }
            }
            Ok(Said::Ping) => self.push_text(now, ServerFrame::Pong.to_json()),
            Ok(Said::Digit(digit)) => {
                if matches!(self.state, State::Open(_)) && self.events.len() < MAX_EVENTS {
                    self.events.push_back(Event::Digit(digit));
                }
            }
            Ok(Said::Mark(name)) => self.state.mark_came_back(&name, now),
            Ok(Said::Stop) => self.stop(now),
            Ok(Said::Nothing) => {}
            Err(error) => self.fail(now, &error),
        }
    }

    /// A binary message came.
    pub fn handle_binary(&mut self, now: Instant, bytes: &[u8]) {
        self.heard(now);
        if self.state.is_over() {
            return;
        }
        match (self.words.binary(bytes), &mut self.state) {
            (Ok(payload), State::Open(audio)) => {
                if let Err(error) = audio.input.take(now, payload) {
                    self.fail(now, &error.into());
                }
            }
            (Ok(_), _) => {}
            (Err(error), _) => self.fail(now, &error),
        }
    }

    /// Any other sign of life came: a ping or pong of the WebSocket protocol.
    pub fn handle_pong(&mut self, now: Instant) {
        self.heard(now);
    }

    /// The transport cannot read what came, nor anything after it; it can still send.
    pub fn handle_unreadable(&mut self, now: Instant, error: &BadFrame) {
        if !self.state.is_over() {
            self.fail(now, error);
        }
    }

    /// The socket is gone: with the code of the client's close frame, or without one. Nothing can be sent any more.
    pub fn handle_disconnect(&mut self, code: Option<u16>) {
        // 1005 stands for a close frame without a code: what a browser sends for a plain `close()`.
        let end = if matches!(code, Some(1000 | 1005)) { End::Stopped } else { End::Disconnected };
        self.end(end);
        self.state = State::Closed(self.state.take_audio());
        self.outbox.clear();
        self.in_flight = None;
    }

    /// Lets time pass. May be called at any time.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &self.state {
            State::Waiting { until } if until.is_some_and(|until| until <= now) => {
                self.say(now, &ServerFrame::Message(ServerMessage::Error("no \"start\" came".into())));
                self.shut(now, End::StartTimeout, CloseCode::Policy);
            }
            State::Open(_) | State::Ending { .. } => {
                if self.in_flight.is_some_and(|since| since + SLOW_AFTER <= now) {
                    self.too_slow(now);
                } else if self.heard_at + SILENT_AFTER <= now {
                    self.shut(now, End::Silent, CloseCode::GoingAway);
                } else if self.ping_at() <= now {
                    self.pinged_at = Some(now);
                    self.push(now, Transmit::Ping);
                }
                self.say_goodbye(now);
            }
            State::Closing { until, .. } if *until <= now => {
                self.state = State::Closed(self.state.take_audio());
                self.outbox.clear();
            }
            State::Waiting { .. } | State::Deciding | State::Closing { .. } | State::Closed(_) => {}
        }
    }

    /// Takes the session of [`Event::Start`], with its audio: new, or that of the session that is taken up. `token` is
    /// what the client may come back with.
    ///
    /// # Errors
    /// libopus is out of memory; the connection is closed.
    pub fn accept(
        &mut self,
        now: Instant,
        mut audio: SocketAudio,
        token: Option<ResumeToken>,
    ) -> Result<(), AudioError> {
        if !matches!(self.state, State::Deciding) {
            return Ok(());
        }
        if let Err(error) = audio.attach(now, self.words.codec()) {
            self.shut(now, End::Session(CloseReason::InternalError), CloseCode::Internal);
            return Err(error);
        }
        self.heard_at = now;
        let rates = audio.rates();
        self.state = State::Open(Box::new(audio));
        if let Some(token) = token {
            self.say(now, &ServerFrame::Session { token, rates, codec: self.words.codec() });
        }
        Ok(())
    }

    /// The handler says something.
    ///
    /// # Errors
    /// [`PushError`]. After the end, and before the beginning, it is [`PushError::Finished`].
    pub fn send_audio(&mut self, now: Instant, samples: &[i16], format: PcmFormat) -> Result<(), PushError> {
        match &mut self.state {
            State::Open(audio) => audio.output.push(now, samples, format),
            _ => Err(PushError::Finished),
        }
    }

    /// A message to the client. Telephones have no words for it, and get none.
    pub fn send(&mut self, now: Instant, message: ServerMessage) {
        if matches!(self.state, State::Open(_) | State::Ending { .. }) {
            self.say(now, &ServerFrame::Message(message));
        }
    }

    /// Whether messages can be sent without the client being taken for one that does not read.
    #[must_use]
    pub fn has_room(&self) -> bool {
        matches!(self.state, State::Open(_) | State::Ending { .. }) && self.outbox.has_room()
    }

    /// A text of the handler's own, as it is. Telephones get none.
    pub fn send_text(&mut self, now: Instant, text: String) {
        if self.words.has_messages() && matches!(self.state, State::Open(_) | State::Ending { .. }) {
            self.push_text(now, text);
        }
    }

    /// Interruption: what the client has not been sent is forgotten, and on a telephone what was not played either.
    /// Gives how much was forgotten here.
    pub fn clear(&mut self, now: Instant) -> Duration {
        let Some(audio) = self.state.audio_to_send() else { return Duration::ZERO };
        let forgotten = audio.output.clear();
        if let Some(clear) = self.words.clear() {
            // Even if all should have played by now: the other side may be late.
            audio.output.client_cleared(now);
            self.push_text(now, clear);
        }
        self.say_goodbye(now);
        forgotten
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        // Audio first, so that the end does not overtake it. A digit may: it is no part of speech.
        if let Some(frame) = self.state.audio_mut().and_then(|audio| audio.input.poll()) {
            return Some(Event::Audio(frame));
        }
        self.events.pop_front()
    }

    /// The next frame to send. `None` while one is on its way.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        if self.in_flight.is_some() {
            return None;
        }
        let transmit = self.outbox.pop().or_else(|| self.next_media(now)).or_else(|| self.state.close_frame())?;
        self.in_flight = Some(now);
        Some(transmit)
    }

    /// The transport has taken the frame.
    pub fn transmitted(&mut self, now: Instant) {
        self.in_flight = None;
        if let State::Closing { is_sent: true, .. } = self.state {
            self.state = State::Closed(self.state.take_audio());
        }
        self.say_goodbye(now);
    }

    /// When [`Self::handle_timeout`] or [`Self::poll_transmit`] has something to do, if ever.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until } => *until,
            State::Deciding | State::Closed(_) => None,
            State::Closing { until, .. } => Some(*until),
            State::Open(audio) | State::Ending { audio, .. } => {
                let life = self.ping_at().min(self.heard_at + SILENT_AFTER);
                let transport = match self.in_flight {
                    Some(since) => Some(since + SLOW_AFTER),
                    None => audio.output.poll_timeout(),
                };
                [Some(life), transport, self.state.over_at()].into_iter().flatten().min()
            }
        }
    }

    /// Whether nothing is left to be done: the socket can be dropped.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed(_))
    }

    /// The session's audio, to read what waits and what was dropped.
    #[must_use]
    pub fn audio(&self) -> Option<&SocketAudio> {
        self.state.audio()
    }

    /// After the end: the session's audio, for a client that comes back, or has come back on another socket. What this
    /// one has left to say is still sent.
    #[must_use]
    pub fn take_audio(&mut self) -> Option<SocketAudio> {
        self.state.release_audio().map(|audio| *audio)
    }

    fn start(&mut self, now: Instant, opening: Opening) {
        if matches!(self.state, State::Waiting { .. }) {
            self.state = State::Deciding;
            self.events.push_back(Event::Start(opening));
        } else {
            self.fail(now, &BadFrame::StartedTwice);
        }
    }

    /// The audio that is due, or the mark after the last of it.
    fn next_media(&mut self, now: Instant) -> Option<Transmit> {
        let audio = self.state.audio_to_send()?;
        if audio.output.poll_message(now, &mut self.payload).is_some() {
            return Some(self.words.media(&mut self.payload));
        }
        let played_out_at = audio.output.played_out_at()?;
        let mark = self.words.mark(END_MARK)?;
        self.state.mark_is_due(played_out_at.max(now) + MARK_GRACE).then_some(Transmit::Text(mark))
    }

    fn say(&mut self, now: Instant, frame: &ServerFrame) {
        if self.words.has_messages() {
            self.push_text(now, frame.to_json());
        }
    }

    fn push_text(&mut self, now: Instant, text: String) {
        self.push(now, Transmit::Text(text));
    }

    fn push(&mut self, now: Instant, transmit: Transmit) {
        // Nothing may follow the close frame.
        if !self.state.is_over() && self.outbox.push(transmit).is_err() {
            self.too_slow(now);
        }
    }

    fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.pinged_at = None;
    }

    fn ping_at(&self) -> Instant {
        self.pinged_at.unwrap_or(self.heard_at) + PING_AFTER
    }
}

#[cfg(test)]
mod tests;
