//! What an application implements.

use async_trait::async_trait;

use crate::{Emit, HandlerError, Input, Media, PacketHandler, Session};

/// One session's side of a conversation, in FastRTC's words.
///
/// A registered handler is a prototype: each session gets a [`copy`](Handler::copy) of its own, so state in `self` is
/// the session's alone. `receive` and `emit` run concurrently on one task and share `&self`; keep state behind a
/// `Mutex` that is never held across an await, and hand work over through a [`Queue`](crate::Queue). The calls run on
/// a shared runtime: anything that computes or blocks for more than a millisecond belongs on a thread of its own
/// (`tokio::task::spawn_blocking`).
///
/// An error or a panic of any call ends this session, with the reason `handler_error`, and nothing else.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Which media path, and which PCM formats. Asked once, before `start_up`.
    fn media(&self) -> Media {
        Media::default()
    }

    /// The factory: a fresh handler for one session, with this one's configuration.
    fn copy(&self) -> Box<dyn Handler>;

    /// Called once, before the first `receive` and `emit`; may take up to 30 s. Keep a clone of `session` to end it
    /// or to write to it from any task.
    async fn start_up(&self, session: &Session) -> Result<(), HandlerError> {
        let _ = session;
        Ok(())
    }

    /// One input. While a call is under way further input waits in a bounded queue, whose oldest media is dropped;
    /// `emit` goes on meanwhile.
    async fn receive(&self, input: Input) -> Result<(), HandlerError>;

    /// The next thing to give to the client; called again after each return. Waiting here costs nothing. It is not
    /// called while more audio is queued than the session's bound (400 ms by default): that is the back-pressure that
    /// paces a handler which always has more.
    async fn emit(&self) -> Result<Emit, HandlerError>;

    /// What makes it reply. Asked once, before `start_up`.
    fn replies(&self) -> Replies {
        Replies::Freely
    }

    /// What had been emitted and not yet heard was thrown away by whoever drives the handler
    /// ([`LoopEnd::clear_audio`](crate::LoopEnd::clear_audio)): forget what belongs to it. Not called for
    /// [`Session::clear`], by which a handler interrupts itself; the worker calls it never, as its clients cannot interrupt
    /// but by speaking.
    async fn reset(&self) {}

    /// Called once when the session is over, whatever ended it, also after a failed `start_up`; may take up to 5 s.
    /// A call of `receive` or `emit` that was under way has been dropped at its await.
    async fn shutdown(&self) {}
}

/// What makes a handler reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replies {
    /// Whatever it likes: [`Input::Trigger`] is not for it.
    #[default]
    Freely,
    /// The end of what somebody says, or [`Input::Trigger`].
    OnPause,
}

/// A prototype as it stands in the [`Registry`](crate::Registry).
pub enum Registered {
    /// Runs on a task, behind a link.
    Handler(Box<dyn Handler>),
    /// Runs on the media loop.
    Packets(Box<dyn PacketHandler>),
}

impl Registered {
    /// A fresh handler for one session.
    #[must_use]
    pub fn copy(&self) -> Self {
        match self {
            Self::Handler(handler) => Self::Handler(handler.copy()),
            Self::Packets(handler) => Self::Packets(handler.copy()),
        }
    }

    /// The media path of this handler's sessions.
    #[must_use]
    pub fn media(&self) -> Media {
        match self {
            Self::Handler(handler) => handler.media(),
            Self::Packets(_) => Media::Packets,
        }
    }
}

impl std::fmt::Debug for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self {
            Self::Handler(_) => "Handler",
            Self::Packets(_) => "Packets",
        };
        write!(f, "Registered::{kind}({:?})", self.media())
    }
}
