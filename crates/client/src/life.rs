//! The life of a call across peer connections: a pure state machine.
//!
//! A call outlives its peer connection: a draining server asks for a new offer, a dead one is replaced. While the new
//! connection is being made the old one goes on, if it still can.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::message::Message;
use crate::options::{Reconnect, Resume};

/// How long received audio may play on after the server has ended its side: as much as a jitter buffer holds.
const PLAY_OUT: Duration = Duration::from_millis(400);
/// The longest that a server may make a client wait before it joins again; more is a mistake of the server's.
const LONGEST_DELAY: Duration = Duration::from_secs(600);

/// Why a call is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// [`crate::Call::end`] was called, or the call was dropped.
    HungUp,
    /// The handler ended the stream, with this message.
    EndStream(String),
    /// The server closed the session without a message.
    ClosedByServer,
    /// The server vanished and could not be reached again; with what went wrong last.
    Lost(String),
}

/// How a connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The peer closed it: the session is over, there is nothing to come back to.
    Closed,
    /// Nothing is heard any more: the server died, or the network did.
    Vanished,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// The server asks for a new offer.
    Drain {
        after: Duration,
        resume: Option<Resume>,
    },
    Lost(Loss),
    EndStream(String),
    /// `update_connection: closed`.
    CloseAsked,
    /// The server ended it for a fault, in its words.
    Broken(String),
    /// The next connection is up.
    Rejoined,
    /// The next connection could not be made.
    RejoinFailed(String),
    HangUp,
}

impl Input {
    /// What a message of the server's means for the call's life, whatever carried it; most mean nothing.
    pub(crate) fn of(message: &Message) -> Option<Self> {
        match message {
            Message::EndStream(text) => Some(Self::EndStream(text.clone())),
            Message::Close => Some(Self::CloseAsked),
            Message::Reconnect { after, resume, .. } => Some(Self::Drain { after: *after, resume: resume.clone() }),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Make the next connection, with this token if there is a new one.
    Rejoin { resume: Option<Resume> },
    /// Replace the connection by the next one.
    Adopt,
    /// Close everything.
    Finish(EndReason),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Live,
    /// Will join again at this time.
    Waiting {
        at: Instant,
        resume: Option<Resume>,
    },
    Rejoining {
        old: Old,
    },
    /// Playing out.
    Ending {
        at: Instant,
        reason: EndReason,
    },
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Old {
    Alive,
    Dead,
    /// The server has closed it.
    Closed,
}

/// The state machine. Feed it with [`Life::handle_input`] and [`Life::handle_timeout`], drain it with
/// [`Life::poll_output`].
#[derive(Debug)]
pub(crate) struct Life {
    policy: Reconnect,
    state: State,
    outputs: VecDeque<Output>,
}

impl Life {
    pub(crate) fn new(policy: Reconnect) -> Self {
        Self { policy, state: State::Live, outputs: VecDeque::new() }
    }

    pub(crate) fn handle_input(&mut self, now: Instant, input: Input) {
        let state = std::mem::replace(&mut self.state, State::Over);
        self.state = self.next(now, state, input);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let state = std::mem::replace(&mut self.state, State::Over);
        self.state = match state {
            State::Waiting { at, resume } if at <= now => self.rejoin(resume, Old::Alive),
            State::Ending { at, reason } if at <= now => self.finish(reason),
            other => other,
        };
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { at, .. } | State::Ending { at, .. } => Some(*at),
            State::Live | State::Rejoining { .. } | State::Over => None,
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn next(&mut self, now: Instant, state: State, input: Input) -> State {
        match (state, input) {
            (State::Over, _) => State::Over,
            (State::Ending { reason, .. }, Input::Lost(_) | Input::Broken(_) | Input::HangUp) => self.finish(reason),
            (ending @ State::Ending { .. }, _) => ending,
            (_, Input::HangUp) => self.finish(EndReason::HungUp),
            (_, Input::EndStream(message)) => ending(now, EndReason::EndStream(message)),
            // The server knows that the next connection is up before this client does, and is done with this one.
            (State::Rejoining { .. }, Input::CloseAsked) => State::Rejoining { old: Old::Closed },
            (_, Input::CloseAsked) => ending(now, EndReason::ClosedByServer),
            (_, Input::Broken(why)) => self.finish(EndReason::Lost(why)),

            (State::Live | State::Waiting { .. }, Input::Drain { after, resume }) => match self.policy {
                Reconnect::Never => State::Live,
                Reconnect::Follow => State::Waiting { at: now + after.min(LONGEST_DELAY), resume },
            },
            (rejoining @ State::Rejoining { .. }, Input::Drain { .. }) => rejoining,

            (State::Waiting { resume, .. }, Input::Lost(_)) => self.rejoin(resume, Old::Dead),
            (State::Live, Input::Lost(loss)) => match (loss, self.policy) {
                (Loss::Closed, _) => self.finish(EndReason::ClosedByServer),
                (Loss::Vanished, Reconnect::Never) => self.finish(EndReason::Lost("the server vanished".to_owned())),
                (Loss::Vanished, Reconnect::Follow) => self.rejoin(None, Old::Dead),
            },
            (closed @ State::Rejoining { old: Old::Closed }, Input::Lost(_)) => closed,
            (State::Rejoining { .. }, Input::Lost(_)) => State::Rejoining { old: Old::Dead },

            (State::Rejoining { .. }, Input::Rejoined) => {
                self.outputs.push_back(Output::Adopt);
                State::Live
            }
            (State::Rejoining { old: Old::Alive }, Input::RejoinFailed(_)) => State::Live,
            (State::Rejoining { old: Old::Dead }, Input::RejoinFailed(why)) => self.finish(EndReason::Lost(why)),
            (State::Rejoining { old: Old::Closed }, Input::RejoinFailed(_)) => self.finish(EndReason::ClosedByServer),
            // An answer to a question that nobody asked any more.
            (other, Input::Rejoined | Input::RejoinFailed(_)) => other,
        }
    }

    fn rejoin(&mut self, resume: Option<Resume>, old: Old) -> State {
        self.outputs.push_back(Output::Rejoin { resume });
        State::Rejoining { old }
    }

    fn finish(&mut self, reason: EndReason) -> State {
        self.outputs.push_back(Output::Finish(reason));
        State::Over
    }
}

fn ending(now: Instant, reason: EndReason) -> State {
    State::Ending { at: now + PLAY_OUT, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(ms: u64) -> Input {
        Input::Drain { after: Duration::from_millis(ms), resume: Resume::new("t") }
    }

    fn rejoin(token: Option<&str>) -> Output {
        Output::Rejoin { resume: token.and_then(Resume::new) }
    }

    /// Inputs with the milliseconds at which they come, and all outputs until ten minutes later.
    fn check(policy: Reconnect, inputs: &[(u64, Input)], expected: &[Output]) {
        let start = Instant::now();
        let mut life = Life::new(policy);
        let mut found = Vec::new();
        let run = |life: &mut Life, until: Instant, found: &mut Vec<Output>| {
            while let Some(at) = life.poll_timeout().filter(|at| *at <= until) {
                life.handle_timeout(at);
                found.extend(std::iter::from_fn(|| life.poll_output()));
            }
        };
        for (ms, input) in inputs {
            let now = start + Duration::from_millis(*ms);
            run(&mut life, now, &mut found);
            life.handle_input(now, input.clone());
            found.extend(std::iter::from_fn(|| life.poll_output()));
        }
        run(&mut life, start + Duration::from_secs(600), &mut found);
        assert_eq!(found, expected, "{policy:?} {inputs:?}");
    }

    #[test]
    fn lives() {
        use EndReason::{ClosedByServer, EndStream, HungUp, Lost};
        use Output::{Adopt, Finish};
        use Reconnect::{Follow, Never};
        let closed = || Input::Lost(Loss::Closed);
        let vanished = || Input::Lost(Loss::Vanished);
        let failed = || Input::RejoinFailed("no".into());

        check(Follow, &[(0, Input::HangUp)], &[Finish(HungUp)]);
        check(Follow, &[(0, closed())], &[Finish(ClosedByServer)]);
        check(Never, &[(0, vanished())], &[Finish(Lost("the server vanished".into()))]);
        check(Never, &[(0, drain(0))], &[]);
        // A drain: join again after the delay, and swap.
        check(Follow, &[(0, drain(50)), (100, Input::Rejoined)], &[rejoin(Some("t")), Adopt]);
        // The old connection breaks before the delay is over.
        check(Follow, &[(0, drain(9_000)), (100, closed()), (200, Input::Rejoined)], &[rejoin(Some("t")), Adopt]);
        // The old one goes on when the new one cannot be made.
        check(Follow, &[(0, drain(0)), (9, failed()), (20, Input::HangUp)], &[rejoin(Some("t")), Finish(HungUp)]);
        // Both are gone.
        check(Follow, &[(0, drain(0)), (9, closed()), (20, failed())], &[rejoin(Some("t")), Finish(Lost("no".into()))]);
        // The server closes it because the new one is up, and says so first; or it closes both.
        let moved = [(0, drain(0)), (9, Input::CloseAsked), (10, closed())];
        let and = |last: (u64, Input)| [&moved[..], &[last]].concat();
        check(Follow, &and((20, Input::Rejoined)), &[rejoin(Some("t")), Adopt]);
        check(Follow, &and((20, failed())), &[rejoin(Some("t")), Finish(ClosedByServer)]);
        // The worker died.
        check(Follow, &[(0, vanished()), (900, Input::Rejoined)], &[rejoin(None), Adopt]);
        check(Follow, &[(0, vanished()), (900, failed())], &[rejoin(None), Finish(Lost("no".into()))]);
        // A fault is not waited for, and nobody comes back to it.
        check(Follow, &[(0, Input::Broken("1011".into())), (1, vanished())], &[Finish(Lost("1011".into()))]);
        check(
            Follow,
            &[(0, Input::EndStream("bye".into())), (1, Input::Broken("1011".into()))],
            &[Finish(EndStream("bye".into()))],
        );
        // The handler's end is not a loss, and what was said before it is played.
        check(Follow, &[(0, Input::EndStream("bye".into())), (100, closed())], &[Finish(EndStream("bye".into()))]);
        check(Follow, &[(0, Input::EndStream("bye".into()))], &[Finish(EndStream("bye".into()))]);
        check(Follow, &[(0, Input::CloseAsked), (1, drain(0)), (2, vanished())], &[Finish(ClosedByServer)]);
        // A connection that comes up after the call has ended is not adopted.
        check(Follow, &[(0, vanished()), (1, Input::HangUp), (2, Input::Rejoined)], &[rejoin(None), Finish(HungUp)]);
    }

    #[test]
    fn a_silly_delay_is_bounded() {
        let start = Instant::now();
        let mut life = Life::new(Reconnect::Follow);
        life.handle_input(start, Input::Drain { after: Duration::MAX, resume: None });
        assert_eq!(life.poll_timeout(), Some(start + LONGEST_DELAY));
    }

    proptest! {
        /// Whatever comes in: a call ends at most once, never does anything afterwards, and never has two next
        /// connections at a time.
        #[test]
        fn order_holds(inputs in prop::collection::vec((0u64..2_000, 0u8..8), 0..40)) {
            let mut now = Instant::now();
            let mut life = Life::new(Reconnect::Follow);
            let (mut over, mut rejoining) = (false, false);
            for (ms, kind) in inputs {
                now += Duration::from_millis(ms);
                let input = match kind {
                    0 => drain(ms),
                    1 => Input::Lost(Loss::Closed),
                    2 => Input::Lost(Loss::Vanished),
                    3 => Input::Rejoined,
                    4 => Input::RejoinFailed(String::new()),
                    5 if ms > 1_800 => Input::EndStream(String::new()),
                    6 if ms > 1_800 => Input::HangUp,
                    _ => { life.handle_timeout(now); continue }
                };
                if matches!(input, Input::Rejoined | Input::RejoinFailed(_)) {
                    if !rejoining { continue }
                    rejoining = false;
                }
                life.handle_timeout(now);
                life.handle_input(now, input);
                while let Some(output) = life.poll_output() {
                    prop_assert!(!over);
                    match output {
                        Output::Rejoin { .. } => { prop_assert!(!rejoining); rejoining = true }
                        Output::Finish(_) => over = true,
                        Output::Adopt => {}
                    }
                }
            }
        }
    }
}
