//! A reply while it runs: a task of its own, and what it says on the way to the client.

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

use crate::{Args, ReplyId};

/// Items a reply may be ahead of what the session has taken from it, besides the session's own bound on audio (400 ms):
/// enough that neither waits for the other at every item.
const SAID_AHEAD: usize = 4;

/// Replies that were interrupted and have not stopped yet. A task stops at its next await, so more than one at a time
/// means that reply functions block their thread; every further one would take another.
const MAX_LINGERING: usize = 4;

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
}

struct Current {
    id: ReplyId,
    items: mpsc::Receiver<Item>,
    task: AbortHandle,
    rest: Option<Rest>,
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
        Self { tasks: JoinSet::new(), current: None }
    }

    /// Starts a reply in place of the current one.
    ///
    /// # Errors
    /// Too many replies that were interrupted still run.
    pub(crate) fn start(
        &mut self,
        id: ReplyId,
        function: &ReplyFn,
        request: Request,
        output: PcmFormat,
        session: &Session,
    ) -> Result<(), HandlerError> {
        self.cancel();
        while self.tasks.try_join_next().is_some() {}
        if self.tasks.len() >= MAX_LINGERING {
            return Err(HandlerError::new("interrupted replies do not stop"));
        }
        let (sender, items) = mpsc::channel(SAID_AHEAD);
        let speaker = Speaker { items: sender.clone(), output, session: session.clone() };
        let function = function.clone();
        let scope = session.clone();
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
        let task = self.tasks.spawn(async move { scope.scope(reply).await });
        self.current = Some(Current { id, items, task, rest: None });
        Ok(())
    }

    /// Stops the current reply at its next await, and listens to nothing more of it.
    pub(crate) fn cancel(&mut self) {
        if let Some(current) = self.current.take() {
            current.task.abort();
        }
    }

    /// The next item of the current reply; waits for ever while there is none, so whoever starts one wakes the poller.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, session: &Session) -> Poll<(ReplyId, Item)> {
        let Some(current) = &mut self.current else { return Poll::Pending };
        let id = current.id;
        if let Some(piece) = current.rest.as_mut().and_then(|rest| rest.next(session.buffer())) {
            return Poll::Ready((id, Item::Emit(Emit::Audio(piece))));
        }
        current.rest = None;
        // The task sends its end before it drops its sender, unless the runtime drops it.
        let item = match ready!(current.items.poll_recv(cx)).unwrap_or(Item::Over(Ok(()))) {
            Item::Emit(Emit::Audio(frame)) if frame.duration() > PIECE => {
                let mut rest = Rest { frame, at: 0 };
                let first = rest.next(session.buffer()).map_or(Emit::Nothing, Emit::Audio);
                current.rest = Some(rest);
                Item::Emit(first)
            }
            Item::Over(outcome) => {
                self.current = None;
                Item::Over(outcome)
            }
            short @ Item::Emit(_) => short,
        };
        Poll::Ready((id, item))
    }

    /// The tasks, to be waited for.
    pub(crate) fn take_tasks(&mut self) -> JoinSet<()> {
        self.current = None;
        std::mem::take(&mut self.tasks)
    }
}
