//! `ReplyOnPause`: a reply function made into a handler.

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use parking_lot::Mutex;
use streamfleet_handler::{
    AudioFrame, Emit, Handler, HandlerError, Input, Media, Message, PcmFormat, Session, Transport, async_trait,
};

use crate::reply::{Item, Replies, ReplyFn};
use crate::{
    AlgoOptions, Args, Arguments, Earshot, Effect, Heard, Hearing, Interruption, Listener, Log, Opening, OptionsError,
    Request, Rules, Speaker, Startup, TurnInput, TurnOptions, Turns, Vad,
};

/// FastRTC's options of `ReplyOnPause`, with its names and defaults, and `interrupt_on`, which is ours.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplyOptions {
    /// When somebody has started talking, and when they have paused.
    pub algo_options: AlgoOptions,
    /// Whether the user may interrupt a reply. If not, nothing is heard while one runs.
    pub can_interrupt: bool,
    /// What interrupts a reply, if that is allowed.
    pub interrupt_on: InterruptOn,
    /// What the utterances come in: 48 000 Hz mono by default.
    pub input: PcmFormat,
    /// The rate of what replies say, mono, in Hz: 24 000 by default.
    pub output_sample_rate: u32,
    /// Whether replies wait for arguments from the client. Not on a telephone, which cannot send any.
    pub needs_args: bool,
}

impl Default for ReplyOptions {
    fn default() -> Self {
        Self {
            algo_options: AlgoOptions::default(),
            can_interrupt: true,
            interrupt_on: InterruptOn::default(),
            input: PcmFormat::mono(48_000),
            output_sample_rate: 24_000,
            needs_args: false,
        }
    }
}

/// What interrupts a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InterruptOn {
    /// The pause after what the user said, as in FastRTC: a cough or a "yes" does not, unless it is followed by one.
    #[default]
    Pause,
    /// The user's first words.
    Speech,
}

/// A handler that listens until the user pauses, then has a function reply.
///
/// The reply runs in a task of its own: it may wait for whatever it likes, and the user is heard meanwhile. It is
/// stopped at its next await when it is interrupted. If it fails or panics, its session ends with the reason
/// `handler_error`, and nothing else is touched. A reply function that computes or blocks for more than a millisecond
/// belongs on `tokio::task::spawn_blocking`.
///
/// ```
/// use streamfleet_pause::{ReplyOnPause, ReplyOptions};
///
/// // Says everything back.
/// let parrot = ReplyOnPause::new(ReplyOptions::default(), |request, speaker| async move {
///     speaker.audio(request.audio).await?;
///     Ok(())
/// })?;
/// # let _: Box<dyn streamfleet_handler::Handler> = Box::new(parrot);
/// # Ok::<(), streamfleet_pause::OptionsError>(())
/// ```
pub struct ReplyOnPause {
    plan: Arc<Plan>,
    state: Mutex<State>,
}

/// What all sessions share.
#[derive(Clone)]
struct Plan {
    options: ReplyOptions,
    rules: Rules,
    reply: ReplyFn,
    startup: Option<ReplyFn>,
    vad: Arc<dyn Fn() -> Box<dyn Vad + Send> + Send + Sync>,
}

struct State {
    /// Made at the start of the session.
    live: Option<Live>,
    /// Whoever waits in `emit`.
    waiting: Option<Waker>,
}

struct Live {
    session: Session,
    listener: Listener<Box<dyn Vad + Send>>,
    turns: Turns,
    replies: Replies,
    /// Where the listener was when a reply last spoke, until that has surely been played.
    spoke_at: Option<u64>,
    /// Scratch.
    heard: Vec<Heard>,
}

impl ReplyOnPause {
    /// Replies with `reply`, called once a turn.
    ///
    /// # Errors
    /// [`OptionsError`] when the options can never work.
    pub fn new<F, R>(options: ReplyOptions, reply: F) -> Result<Self, OptionsError>
    where
        F: Fn(Request, Speaker) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let rules = Rules::new(&options.algo_options)?;
        let (reply, vad) = (ReplyFn::new(reply), Arc::new(|| Box::new(Earshot::new()) as Box<dyn Vad + Send>));
        Ok(Self::of(Arc::new(Plan { options, rules, reply, startup: None, vad })))
    }

    /// Has `startup` speak first, before the user has said anything: FastRTC's `startup_fn`. Copies that were made
    /// before keep what they had.
    #[must_use]
    pub fn with_startup<F, R>(self, startup: F) -> Self
    where
        F: Fn(Request, Speaker) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.replan(|plan| plan.startup = Some(ReplyFn::new(startup)))
    }

    /// Hears with another model than [`Earshot`]: FastRTC's `model`. Called once a session. Copies that were made before
    /// keep what they had.
    #[must_use]
    pub fn with_vad<V: Vad + Send + 'static>(self, vad: impl Fn() -> V + Send + Sync + 'static) -> Self {
        self.replan(|plan| plan.vad = Arc::new(move || Box::new(vad())))
    }

    /// Arguments from the client, for the reply that waits for them or the next one.
    pub fn set_args(&self, args: Args) {
        self.act(|live| live.turns.handle_input(TurnInput::Args(args)));
    }

    /// Has the function reply now, to what has been said so far.
    pub fn trigger_response(&self, args: Option<Args>) {
        self.act(|live| {
            if live.turns.hearing() == Hearing::Open {
                let samples = live.listener.take();
                let audio = AudioFrame { samples, format: live.listener.format(), timestamp: Duration::ZERO };
                live.turns.handle_input(TurnInput::Triggered(audio, args));
            }
        });
    }

    fn of(plan: Arc<Plan>) -> Self {
        Self { plan, state: Mutex::new(State { live: None, waiting: None }) }
    }

    fn replan(mut self, change: impl FnOnce(&mut Plan)) -> Self {
        change(Arc::make_mut(&mut self.plan));
        self
    }

    fn turn_options(&self, session: &Session) -> TurnOptions {
        let options = &self.plan.options;
        let awaits = options.needs_args && session.context().transport != Transport::Telephone;
        TurnOptions {
            interruption: match (options.can_interrupt, options.interrupt_on) {
                (false, _) => Interruption::Never,
                (true, InterruptOn::Pause) => Interruption::OnPause,
                (true, InterruptOn::Speech) => Interruption::OnSpeech,
            },
            arguments: if awaits { Arguments::Awaited } else { Arguments::Unused },
            startup: if self.plan.startup.is_some() { Startup::Speaks } else { Startup::Silent },
        }
    }

    /// Changes the live session's state and does what follows from it. Before the session has begun and after it is over
    /// nothing happens.
    fn act(&self, change: impl FnOnce(&mut Live)) {
        let mut state = self.state.lock();
        let Some(live) = &mut state.live else { return };
        change(live);
        live.perform(&self.plan);
        let waiting = state.waiting.take();
        drop(state);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    fn poll_emit(&self, cx: &mut Context<'_>) -> Poll<Result<Emit, HandlerError>> {
        let mut state = self.state.lock();
        let state = &mut *state;
        loop {
            state.waiting = Some(cx.waker().clone());
            let Some(live) = &mut state.live else { return Poll::Pending };
            let (id, item) = ready!(live.replies.poll(cx, &live.session));
            let emit = match item {
                Item::Emit(emit) => {
                    if matches!(&emit, Emit::Audio(frame) if !frame.samples.is_empty()) {
                        live.turns.handle_input(TurnInput::Spoke(id));
                        live.spoke_at = Some(live.listener.position());
                    }
                    Some(emit)
                }
                Item::Over(Ok(())) => {
                    live.gives_way(TurnInput::Over(id));
                    None
                }
                Item::Over(Err(error)) => return Poll::Ready(Err(error)),
            };
            live.perform(&self.plan);
            if let Some(emit) = emit {
                return Poll::Ready(Ok(emit));
            }
        }
    }
}

/// After so long what a reply said last has been played: a session takes 400 ms ahead of what plays, transports and
/// their clients together no more than a second.
const SURELY_PLAYED: Duration = Duration::from_secs(2);

impl Live {
    fn hear(&mut self, frame: AudioFrame) {
        if self.turns.hearing() == Hearing::Open {
            self.played_out();
            self.listener.hear(&frame.samples, &mut self.heard);
            for heard in self.heard.drain(..) {
                self.turns.handle_input(match heard {
                    Heard::StartedTalking { .. } => TurnInput::StartedTalking,
                    Heard::PauseDetected(utterance) => {
                        let format = self.listener.format();
                        let frames = usize::try_from(utterance.range.start).unwrap_or(usize::MAX);
                        let timestamp = format.duration(frames.saturating_mul(usize::from(format.channels)));
                        TurnInput::Paused(AudioFrame { samples: utterance.samples, format, timestamp })
                    }
                });
            }
        }
        self.session.recycle(frame.samples);
    }

    /// What the user says is the clock: one that stands still calls nothing played. Nor does one that jumps, as after a
    /// stall: what waits here has not even been sent.
    fn played_out(&mut self) {
        let format = self.listener.format();
        let Some(spoke_at) = self.spoke_at else { return };
        if !self.session.queued_audio().is_zero() {
            self.spoke_at = Some(self.listener.position());
            return;
        }
        let since = self.listener.position().saturating_sub(spoke_at);
        if since >= format.samples_in(SURELY_PLAYED) as u64 / u64::from(format.channels.max(1)) {
            self.spoke_at = None;
            self.turns.handle_input(TurnInput::PlayedOut);
        }
    }

    /// A reply has come to its end. What was said while it could not be interrupted is part of no utterance.
    fn gives_way(&mut self, input: TurnInput) {
        let before = self.turns.hearing();
        self.turns.handle_input(input);
        if before == Hearing::Closed && self.turns.hearing() == Hearing::Open {
            self.listener.resume();
        }
    }

    /// Does what the turns have decided.
    fn perform(&mut self, plan: &Plan) {
        let mut way = Way::Ahead;
        while let Some(effect) = self.turns.poll_effect() {
            match effect {
                Effect::Log(Log::ResponseStarting) => {
                    tell(&self.session, Way::InOrder, Message::Log(Log::ResponseStarting.as_str().to_owned()));
                }
                Effect::Log(log) => tell(&self.session, way, Message::Log(log.as_str().to_owned())),
                Effect::SendInput => tell(&self.session, way, Message::SendInput),
                Effect::ClearQueue => {
                    // A session that is over has nothing to clear.
                    let _ = self.session.clear();
                    way = Way::InOrder;
                }
                Effect::CancelReply(_) => self.replies.cancel(),
                Effect::StartReply { id, to, args } => {
                    let silence = || AudioFrame {
                        samples: Vec::new(),
                        format: self.listener.format(),
                        timestamp: Duration::ZERO,
                    };
                    let (function, audio) = match (to, &plan.startup) {
                        (Opening::Utterance(audio), _) => (&plan.reply, audio),
                        (Opening::Startup, Some(startup)) => (startup, silence()),
                        (Opening::Startup, None) => (&plan.reply, silence()),
                    };
                    let output = PcmFormat::mono(plan.options.output_sample_rate);
                    self.replies.start(id, function, Request { audio, args }, output, &self.session);
                }
            }
        }
    }
}

/// How a message about turns reaches the client.
#[derive(Clone, Copy)]
enum Way {
    /// Ahead of the audio that waits: what a reply answers to is told at once.
    Ahead,
    /// After what was said before: that a reply begins, with its first words. Also what follows an interruption, as no
    /// audio waits any more, and the interrupted reply's beginning may.
    InOrder,
}

/// What a client does not keep up with is not worth waiting for.
fn tell(session: &Session, way: Way, message: Message) {
    let sent = match way {
        Way::Ahead => session.send_now(message),
        Way::InOrder => session.send(message),
    };
    if let Err(error) = sent {
        tracing::debug!(session = %session.context().session_id, %error, "a message about turns was not sent");
    }
}

#[async_trait]
impl Handler for ReplyOnPause {
    fn media(&self) -> Media {
        Media::Frames { input: self.plan.options.input, output: PcmFormat::mono(self.plan.options.output_sample_rate) }
    }

    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self::of(self.plan.clone()))
    }

    async fn start_up(&self, session: &Session) -> Result<(), HandlerError> {
        self.state.lock().live = Some(Live {
            session: session.clone(),
            listener: Listener::new(self.plan.options.input, self.plan.rules, (self.plan.vad)()),
            turns: Turns::new(self.turn_options(session)),
            replies: Replies::new(),
            spoke_at: None,
            heard: Vec::new(),
        });
        self.act(|live| live.turns.handle_input(TurnInput::Began));
        Ok(())
    }

    async fn receive(&self, input: Input) -> Result<(), HandlerError> {
        match input {
            Input::Audio(frame) if frame.format == self.plan.options.input => self.act(|live| live.hear(frame)),
            Input::Audio(_) => return Err(HandlerError::new("the audio is not of the format that was asked for")),
            Input::Args(args) => self.set_args(args),
            Input::Trigger(args) => self.trigger_response(args),
            Input::Packet(_) | Input::Message(_) | Input::Dtmf(_) => {}
        }
        Ok(())
    }

    fn replies(&self) -> streamfleet_handler::Replies {
        streamfleet_handler::Replies::OnPause
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        poll_fn(|cx| self.poll_emit(cx)).await
    }

    async fn reset(&self) {
        self.act(|live| live.gives_way(TurnInput::Interrupted));
    }

    async fn shutdown(&self) {
        let live = self.state.lock().live.take();
        if let Some(mut live) = live {
            live.replies.take_tasks().shutdown().await;
        }
    }
}

impl fmt::Debug for ReplyOnPause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyOnPause").field("options", &self.plan.options).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
