//! How a connection ends: refused, played out, closed, or given up.

use std::time::Instant;

use streamfleet_session::CloseReason;
use streamfleet_session::wire::Failure;

use super::state::{EchoedMark, State};
use super::{CLOSE_TIME, Connection, Event, Farewell};
use crate::close::{CloseCode, CloseFrame, End};
use crate::protocol::{BadFrame, ServerFrame};

impl Connection {
    /// Refuses the session of [`Event::Start`], or that of a client which has not said `start` yet.
    pub fn refuse(&mut self, now: Instant, failure: Failure) {
        if matches!(self.state, State::Waiting { .. } | State::Deciding) {
            let code = CloseCode::of_refusal(&failure);
            self.say(now, &ServerFrame::Failed(failure));
            self.shut(now, End::Refused, code);
        }
    }

    /// The session ends in good order: what waits is played first.
    pub fn finish(&mut self, now: Instant, farewell: Farewell) {
        match std::mem::replace(&mut self.state, State::Deciding) {
            State::Open(mut audio) => {
                audio.output.finish(now);
                let mark = if self.words.has_marks() { EchoedMark::Unsent } else { EchoedMark::None };
                self.state = State::Ending { audio, farewell, mark };
                self.say_goodbye(now);
            }
            State::Waiting { .. } | State::Deciding => self.close(now, farewell.reason),
            other => self.state = other,
        }
    }

    /// The session ends at once: nothing more is played.
    pub fn close(&mut self, now: Instant, reason: CloseReason) {
        if !self.state.is_over() {
            self.shut(now, End::Session(reason), CloseCode::of_reason(reason));
        }
    }

    pub(super) fn stop(&mut self, now: Instant) {
        if let Some(audio) = self.state.audio_mut() {
            audio.input.finish();
        }
        self.shut(now, End::Stopped, CloseCode::Normal);
    }

    /// After the last audio has played: the last words, and the end.
    pub(super) fn say_goodbye(&mut self, now: Instant) {
        if let State::Ending { farewell, .. } = &self.state
            && self.state.over_at().is_some_and(|over| over <= now)
        {
            let Farewell { reason, message } = farewell.clone();
            if let Some(message) = message {
                self.say(now, &ServerFrame::Message(message));
            }
            self.shut(now, End::Session(reason), CloseCode::of_reason(reason));
        }
    }

    pub(super) fn fail(&mut self, now: Instant, error: &BadFrame) {
        if self.words.has_messages() {
            self.push_text(now, error.to_json());
        }
        self.shut(now, End::BadInput, error.close_code());
    }

    pub(super) fn too_slow(&mut self, now: Instant) {
        self.outbox.clear();
        self.shut(now, End::SlowClient, CloseCode::Policy);
    }

    /// The end is decided; what is in the outbox goes first.
    pub(super) fn shut(&mut self, now: Instant, end: End, code: CloseCode) {
        if self.state.is_over() {
            return;
        }
        self.end(end);
        let frame = CloseFrame { code, reason: end.as_str() };
        let audio = self.state.take_audio();
        self.state = State::Closing { audio, frame, until: now + CLOSE_TIME, is_sent: false };
    }

    pub(super) fn end(&mut self, end: End) {
        if !self.state.is_over() {
            self.events.push_back(Event::Ended(end));
        }
    }
}
