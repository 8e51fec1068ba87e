//! Whose turn it is: from pauses, arguments and a reply's progress to what is to be done.

use std::collections::VecDeque;

use serde_json::Value;

use crate::MAX_UTTERANCE_S;
use streamfleet_handler::AudioFrame;

/// What may interrupt a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Interruption {
    /// Nothing: what is said while a reply runs is not heard. FastRTC's `can_interrupt=False`.
    Never,
    /// A whole utterance: the reply goes on until the user has paused. FastRTC's `can_interrupt=True`.
    #[default]
    OnPause,
    /// The user's first words: the reply falls silent as soon as they have started talking.
    OnSpeech,
}

/// Whether a reply waits for arguments from the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Arguments {
    /// It runs at once.
    #[default]
    Unused,
    /// The client is asked for them every turn, and the reply runs when they are there. FastRTC's `needs_args=True`.
    Awaited,
}

/// Whether something is said before the user has said anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Startup {
    /// The user speaks first.
    #[default]
    Silent,
    /// FastRTC's `startup_fn`.
    Speaks,
}

/// How turns are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TurnOptions {
    /// What may interrupt a reply.
    pub interruption: Interruption,
    /// Whether replies wait for arguments.
    pub arguments: Arguments,
    /// Whether there is a reply before the first utterance.
    pub startup: Startup,
}

/// The arguments of one reply, as the client sent them.
pub type Args = Vec<Value>;

/// Which reply of a session: they are numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyId(u64);

/// What happens to a [`Turns`].
#[derive(Clone, Debug, PartialEq)]
pub enum TurnInput {
    /// The session has begun. Once, before anything else.
    Began,
    /// The user has started talking.
    StartedTalking,
    /// The user has paused.
    Paused(AudioFrame),
    /// The client wants the reply now, to what has been said so far, perhaps nothing; it may bring the arguments.
    Triggered(AudioFrame, Option<Args>),
    /// Arguments from the client.
    Args(Args),
    /// A reply is about to give audio.
    Spoke(ReplyId),
    /// A reply has come to its end by itself.
    Over(ReplyId),
    /// Whatever replies have said so far has been played by now.
    PlayedOut,
    /// What was to be played has been thrown away by whoever drives the session.
    Interrupted,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Tell the client.
    Log(Log),
    /// Ask the client for arguments.
    SendInput,
    /// Run the reply function, or the startup function.
    StartReply {
        /// Its number, for what it reports.
        id: ReplyId,
        /// What it replies to.
        to: Opening,
        /// Its arguments: empty if none are awaited.
        args: Args,
    },
    /// Stop this reply; nothing that it still says counts.
    CancelReply(ReplyId),
    /// Throw away what the client has not heard yet.
    ClearQueue,
}

/// What the client is told about turns: `{"type":"log","data":…}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Log {
    /// The user has started talking.
    StartedTalking,
    /// The user has paused.
    PauseDetected,
    /// The first audio of a reply follows; or, if a reply ends without any, this is where it would have.
    ResponseStarting,
}

impl Log {
    /// The message's `data`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StartedTalking => "started_talking",
            Self::PauseDetected => "pause_detected",
            Self::ResponseStarting => "response_starting",
        }
    }
}

/// What a reply replies to.
#[derive(Clone, Debug, PartialEq)]
pub enum Opening {
    /// Nothing: the session has begun.
    Startup,
    /// The user.
    Utterance(AudioFrame),
}

/// Whether the user is listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hearing {
    /// Yes.
    Open,
    /// No: a reply runs that nothing may interrupt.
    Closed,
}

/// The order of turns in one session.
///
/// For each reply the client sees `started_talking`, `pause_detected`, `send_input` if arguments are awaited, and
/// `response_starting`, in this order, the last at most once: a reply that is interrupted before its first audio has
/// none. After a trigger `started_talking` may be missing, for the startup reply `pause_detected` as well.
///
/// Differences from FastRTC 0.0.34, each of which loses or repeats something there:
/// - `response_starting` comes once a reply, not with every piece of audio.
/// - What the user has begun to say when a reply ends by itself stays theirs; FastRTC forgets it.
/// - A turn that interrupts waits for arguments of its own, and does not take those of the reply it interrupted.
/// - A trigger while a reply runs interrupts it, if that is allowed; in FastRTC it has no effect.
///
/// **Arguments.** Those that come while no reply runs are kept for the next one, the latest only; they may come before
/// the pause. Those that come while a reply runs belong to its turn and are forgotten with it.
///
/// **A pause while arguments are awaited** adds to what the reply will be given; the client is not asked again.
#[derive(Debug)]
pub struct Turns {
    options: TurnOptions,
    state: State,
    /// Arguments for the next reply.
    kept: Option<Args>,
    /// Whether replies have said something that the client may not have heard yet.
    unheard: Said,
    last: u64,
    effects: VecDeque<Effect>,
}

#[derive(Debug)]
enum State {
    /// The user's turn.
    Listening,
    /// A reply waits for its arguments.
    Waiting(Opening),
    Replying(ReplyId, Said),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Something,
}

impl Turns {
    /// A session that has not begun.
    #[must_use]
    pub fn new(options: TurnOptions) -> Self {
        Self { options, state: State::Listening, kept: None, unheard: Said::Nothing, last: 0, effects: VecDeque::new() }
    }

    /// Takes one input; drain [`poll_effect`](Turns::poll_effect) afterwards.
    pub fn handle_input(&mut self, input: TurnInput) {
        match input {
            TurnInput::Began => {
                if self.options.startup == Startup::Speaks {
                    self.open(Opening::Startup);
                }
            }
            TurnInput::StartedTalking => self.started_talking(),
            TurnInput::Paused(audio) => self.paused(audio),
            TurnInput::Triggered(audio, args) => self.triggered(audio, args),
            TurnInput::Args(args) => self.args(args),
            TurnInput::Spoke(id) => self.spoke(id),
            TurnInput::Over(id) => self.over(id),
            TurnInput::PlayedOut => self.unheard = Said::Nothing,
            TurnInput::Interrupted => {
                self.unheard = Said::Nothing;
                self.cancel();
            }
        }
    }

    /// The next thing to do; `None` until there is new input.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether the user is to be listened to now.
    #[must_use]
    pub fn hearing(&self) -> Hearing {
        match self.state {
            State::Replying(..) if self.options.interruption == Interruption::Never => Hearing::Closed,
            _ => Hearing::Open,
        }
    }

    fn started_talking(&mut self) {
        if self.hearing() == Hearing::Closed {
            return;
        }
        self.effects.push_back(Effect::Log(Log::StartedTalking));
        if self.options.interruption == Interruption::OnSpeech {
            self.cancel();
            self.clear();
        }
    }

    fn paused(&mut self, audio: AudioFrame) {
        if self.hearing() == Hearing::Closed {
            return;
        }
        self.interrupt();
        self.effects.push_back(Effect::Log(Log::PauseDetected));
        self.open(Opening::Utterance(audio));
    }

    fn triggered(&mut self, audio: AudioFrame, args: Option<Args>) {
        if self.hearing() == Hearing::Closed {
            return;
        }
        self.interrupt();
        self.effects.push_back(Effect::Log(Log::PauseDetected));
        self.kept = args.or_else(|| self.kept.take());
        self.open(Opening::Utterance(audio));
    }

    fn args(&mut self, args: Args) {
        if matches!(self.state, State::Replying(..)) {
            return;
        }
        match std::mem::replace(&mut self.state, State::Listening) {
            State::Waiting(opening) => self.start(opening, args),
            State::Listening | State::Replying(..) => self.kept = Some(args),
        }
    }

    fn spoke(&mut self, spoke: ReplyId) {
        if matches!(self.state, State::Replying(id, _) if id == spoke) {
            self.unheard = Said::Something;
            self.starts(spoke);
        }
    }

    /// A reply without audio starts with its end.
    fn starts(&mut self, starting: ReplyId) {
        if let State::Replying(id, said @ Said::Nothing) = &mut self.state
            && *id == starting
        {
            *said = Said::Something;
            self.effects.push_back(Effect::Log(Log::ResponseStarting));
        }
    }

    fn over(&mut self, over: ReplyId) {
        self.starts(over);
        if matches!(self.state, State::Replying(id, _) if id == over) {
            self.state = State::Listening;
        }
    }

    /// Ends what is under way for a turn that has the right to: stops the reply and what of it has not been heard.
    fn interrupt(&mut self) {
        self.cancel();
        if self.options.interruption != Interruption::Never {
            self.clear();
        }
    }

    /// Also when the reply has ended: its last words may still be playing. Not when nothing is, as a telephone is told
    /// each time.
    fn clear(&mut self) {
        if std::mem::replace(&mut self.unheard, Said::Nothing) == Said::Something {
            self.effects.push_back(Effect::ClearQueue);
        }
    }

    fn cancel(&mut self) {
        if let State::Replying(id, _) = self.state {
            self.effects.push_back(Effect::CancelReply(id));
            self.state = State::Listening;
        }
    }

    /// Begins a reply, or waits for its arguments.
    fn open(&mut self, opening: Opening) {
        if self.options.arguments == Arguments::Unused {
            return self.start(opening, Args::new());
        }
        let opening = match std::mem::replace(&mut self.state, State::Listening) {
            State::Waiting(earlier) => joined(earlier, opening),
            State::Listening | State::Replying(..) => {
                self.effects.push_back(Effect::SendInput);
                opening
            }
        };
        match self.kept.take() {
            Some(args) => self.start(opening, args),
            None => self.state = State::Waiting(opening),
        }
    }

    fn start(&mut self, to: Opening, args: Args) {
        self.last += 1;
        let id = ReplyId(self.last);
        self.kept = None;
        self.state = State::Replying(id, Said::Nothing);
        self.effects.push_back(Effect::StartReply { id, to, args });
    }
}

/// Two utterances that one reply answers; of more than [`MAX_UTTERANCE_S`] together the end is kept, as a client that
/// never sends its arguments must not fill the memory. A greeting that never was has been overtaken.
fn joined(earlier: Opening, later: Opening) -> Opening {
    match (earlier, later) {
        (Opening::Utterance(mut audio), Opening::Utterance(later)) if audio.format == later.format => {
            audio.samples.extend_from_slice(&later.samples);
            let frames = (MAX_UTTERANCE_S * f64::from(audio.format.rate)) as usize;
            let excess = audio.samples.len().saturating_sub(frames * usize::from(audio.format.channels));
            audio.samples.drain(..excess);
            Opening::Utterance(audio)
        }
        (_, later) => later,
    }
}

#[cfg(test)]
mod tests;
