//! A reply while it runs: a task of its own, and what it says on the way to the client.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::Value;
use streamfleet_handler::{AudioFrame, Emit, HandlerError, PcmFormat, Session, Step};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Sleep, sleep};

use crate::{Args, ReplyId};

/// Items a reply may be ahead of what the session has taken from it, besides the session's own bound on audio (400 ms):
/// enough that neither waits for the other at every item.
const SAID_AHEAD: usize = 4;

/// Replies that were interrupted and have not stopped yet. A task stops at its next await, and a client may interrupt
/// several before the runtime has come to the first; many for long mean that reply functions block their thread, and
/// every further one would take another.
const MAX_LINGERING: usize = 4;

/// How long the newest reply waits for one of [`MAX_LINGERING`] to stop. A task that is not blocked stops within
/// milliseconds, also on a machine that is behind.
const STOPS_WITHIN: Duration = Duration::from_secs(2);

/// What a reply replies to.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What the user said, in the input's format; without samples if the client asked for a reply before anything was
    /// said. For the startup function always without.
    pub audio: AudioFrame,
    /// The arguments that the client sent, if they are awaited.
    pub args: Args,
}

/// The reply was interrupted, or the session is over: what it says is not heard any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reply was interrupted")]
pub struct Interrupted;

impl From<Interrupted> for HandlerError {
    /// So that `?` works in a reply function; nobody sees it, as an interrupted reply's outcome is of no interest.
    fn from(interrupted: Interrupted) -> Self {
        Self::new(interrupted)
    }
}

/// A reply's voice. What is said through it reaches the client in order; it waits while the client has enough to play.
pub struct Speaker {
    items: mpsc::Sender<Item>,
    output: PcmFormat,
    session: Session,
}

impl Speaker {
    /// Says mono samples at the handler's output rate.
    ///
    /// # Errors
    /// [`Interrupted`]: return as soon as you can.
    pub async fn say(&self, samples: Vec<i16>) -> Result<(), Interrupted> {
        self.emit(Emit::Audio(AudioFrame { samples, format: self.output, timestamp: Duration::ZERO })).await
    }

    /// Says audio of any format.
    ///
    /// # Errors
    /// [`Interrupted`]: return as soon as you can.
    pub async fn audio(&self, frame: AudioFrame) -> Result<(), Interrupted> {
        self.emit(Emit::Audio(frame)).await
    }

    /// Gives an additional output, after what has been said so far.
    ///
    /// # Errors
    /// [`Interrupted`]: return as soon as you can.
    pub async fn output(&self, value: Value) -> Result<(), Interrupted> {
        self.emit(Emit::Output(value)).await
    }

    /// Ends the session once everything said so far has been played.
    ///
    /// # Errors
    /// [`Interrupted`]: return as soon as you can.
    pub async fn end_stream(&self, message: Option<String>) -> Result<(), Interrupted> {
        self.emit(Emit::EndStream(message)).await
    }

    /// Gives anything that a handler can emit, after what has been said so far.
    ///
    /// # Errors
    /// [`Interrupted`]: return as soon as you can.
    pub async fn emit(&self, emit: Emit) -> Result<(), Interrupted> {
        self.items.send(Item::Emit(emit)).await.map_err(|_| Interrupted)
    }

    /// The format that [`say`](Speaker::say) speaks.
    #[must_use]
    pub fn format(&self) -> PcmFormat {
        self.output
    }

    /// The session that is spoken to.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }
}

impl fmt::Debug for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Speaker").field("output", &self.output).finish_non_exhaustive()
    }
}

type Outcome = Result<(), HandlerError>;

type BoxedReply = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// An application's reply function.
#[derive(Clone)]
pub(crate) struct ReplyFn(Arc<dyn Fn(Request, Speaker) -> BoxedReply + Send + Sync>);

impl ReplyFn {
    pub(crate) fn new<F, R>(function: F) -> Self
    where
        F: Fn(Request, Speaker) -> R + Send + Sync + 'static,
        R: Future<Output = Outcome> + Send + 'static,
    {
        Self(Arc::new(move |request, speaker| Box::pin(function(request, speaker))))
    }
}

/// What comes from a reply's task.
pub(crate) enum Item {
    Emit(Emit),
    /// The function has returned, failed or panicked; the last item.
    Over(Outcome),
}

/// The replies of one session: at most one is listened to.
pub(crate) struct Replies {
    tasks: JoinSet<()>,
    current: Option<Current>,
    /// The newest reply, while too many before it have not stopped.
    held: Option<Held>,
    /// When it is too late for one of those to stop: set with the first reply that was held, until one has stopped.
    overdue: Option<Pin<Box<Sleep>>>,
}

struct Current {
    id: ReplyId,
    items: mpsc::Receiver<Item>,
    task: AbortHandle,
    /// What has been taken from it in one piece and is handed out in several.
    parts: VecDeque<Emit>,
    rest: Option<Rest>,
}

/// A reply that has not begun.
struct Held {
    id: ReplyId,
    function: ReplyFn,
    request: Request,
    output: PcmFormat,
    session: Session,
}

/// Audio that a reply has said at once, handed out piece by piece: what is interrupted is then mostly still here, and
/// what else is to be told waits behind no more than the session's bound on audio.
struct Rest {
    frame: AudioFrame,
    /// The first sample that has not been handed out.
    at: usize,
}

/// How long a piece is: one packet's worth.
const PIECE: Duration = Duration::from_millis(20);

impl Rest {
    fn next(&mut self, mut samples: Vec<i16>) -> Option<AudioFrame> {
        let format = self.frame.format;
        let left = self.frame.samples.get(self.at..).filter(|left| !left.is_empty())?;
        samples.extend_from_slice(&left[..left.len().min(format.samples_in(PIECE).max(1))]);
        let timestamp = self.frame.timestamp + format.duration(self.at);
        self.at += samples.len();
        Some(AudioFrame { samples, format, timestamp })
    }
}

impl Replies {
    pub(crate) fn new() -> Self {
        Self { tasks: JoinSet::new(), current: None, held: None, overdue: None }
    }

    /// Starts a reply in place of the current one; once there is room, if too many that were interrupted still run.
    pub(crate) fn start(
        &mut self,
        id: ReplyId,
        function: &ReplyFn,
        request: Request,
        output: PcmFormat,
        session: &Session,
    ) {
        self.cancel();
        while self.tasks.try_join_next().is_some() {
            self.overdue = None;
        }
        let reply = Held { id, function: function.clone(), request, output, session: session.clone() };
        if self.tasks.len() < MAX_LINGERING {
            return self.run(reply);
        }
        self.overdue.get_or_insert_with(|| Box::pin(sleep(STOPS_WITHIN)));
        self.held = Some(reply);
    }

    fn run(&mut self, reply: Held) {
        let Held { id, function, request, output, session } = reply;
        let (sender, items) = mpsc::channel(SAID_AHEAD);
        let speaker = Speaker { items: sender.clone(), output, session: session.clone() };
        let reply = async move {
            // The call itself may panic as well as its future.
            let reply = AssertUnwindSafe(async { (function.0)(request, speaker).await });
            let outcome = reply
                .catch_unwind()
                .await
                .unwrap_or_else(|panic| Err(HandlerError::panicked(Step::Emit, panic.as_ref())));
            // Nobody listens any more if it was interrupted meanwhile.
            let _ = sender.send(Item::Over(outcome)).await;
        };
        // In a reply `Context::current()` is its session's, as in every other call.
        let task = self.tasks.spawn(async move { session.scope(reply).await });
        self.current = Some(Current { id, items, task, parts: VecDeque::new(), rest: None });
    }

    /// Stops the current reply at its next await, and listens to nothing more of it.
    pub(crate) fn cancel(&mut self) {
        self.held = None;
        if let Some(current) = self.current.take() {
            current.task.abort();
        }
    }

    /// The next item of the current reply; waits for ever while there is none, so whoever starts one wakes the poller.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, session: &Session) -> Poll<(ReplyId, Item)> {
        if let Some(held) = self.held.take() {
            match self.tasks.poll_join_next(cx) {
                Poll::Ready(_) => {
                    self.overdue = None;
                    self.run(held);
                }
                Poll::Pending => {
                    let overdue = self.overdue.get_or_insert_with(|| Box::pin(sleep(STOPS_WITHIN)));
                    if overdue.as_mut().poll(cx).is_ready() {
                        let error = HandlerError::new("interrupted replies do not stop");
                        return Poll::Ready((held.id, Item::Over(Err(error))));
                    }
                    self.held = Some(held);
                    return Poll::Pending;
                }
            }
        }
        let Some(current) = &mut self.current else { return Poll::Pending };
        let id = current.id;
        let item = ready!(current.poll(cx, session));
        if let Item::Over(_) = item {
            self.current = None;
        }
        Poll::Ready((id, item))
    }

    /// The tasks, to be waited for.
    pub(crate) fn take_tasks(&mut self) -> JoinSet<()> {
        (self.current, self.held) = (None, None);
        std::mem::take(&mut self.tasks)
    }
}

impl Current {
    /// One thing at a time, and of audio no more than a [`PIECE`], however it was said.
    fn poll(&mut self, cx: &mut Context<'_>, session: &Session) -> Poll<Item> {
        loop {
            if let Some(piece) = self.rest.as_mut().and_then(|rest| rest.next(session.buffer())) {
                return Poll::Ready(Item::Emit(Emit::Audio(piece)));
            }
            self.rest = None;
            let emit = match self.parts.pop_front() {
                Some(part) => part,
                // The task sends its end before it drops its sender, unless the runtime drops it.
                None => match ready!(self.items.poll_recv(cx)).unwrap_or(Item::Over(Ok(()))) {
                    Item::Emit(emit) => emit,
                    over @ Item::Over(_) => return Poll::Ready(over),
                },
            };
            match emit {
                Emit::All(parts) => {
                    for part in parts.into_iter().rev() {
                        self.parts.push_front(part);
                    }
                }
                Emit::Audio(frame) if frame.duration() > PIECE => self.rest = Some(Rest { frame, at: 0 }),
                Emit::Nothing => {}
                emit => return Poll::Ready(Item::Emit(emit)),
            }
        }
    }
}
