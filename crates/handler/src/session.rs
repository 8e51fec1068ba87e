//! The session as its handler sees it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use streamfleet_session::{Metadata, ServiceName, SessionId, UserId, Verification};

use crate::data::Data;
use crate::link::{Closed, SendError, Shared, TaskEnd};
use crate::tasks::{Refused, Tasks};
use crate::{Emit, Message};

/// How the client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// WebRTC: ICE, DTLS, SRTP.
    WebRtc,
    /// Audio over a WebSocket.
    WebSocket,
    /// A telephone call's media stream.
    Telephone,
}

impl Transport {
    /// A stable label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WebRtc => "webrtc",
            Self::WebSocket => "websocket",
            Self::Telephone => "telephone",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who is calling, and how; the same on every transport and fixed for the session's life.
#[derive(Clone, Debug)]
pub struct Context {
    /// The id the client chose. Guessable: it says which session, never who.
    pub session_id: SessionId,
    /// How the client is connected.
    pub transport: Transport,
    /// The service that was called.
    pub service: ServiceName,
    /// The user, as far as known.
    pub user_id: Option<UserId>,
    /// Whether `user_id` was proven. An unverified one authorises nothing.
    pub verified: Verification,
    /// What the client sent along; parsed and bounded, never verified.
    pub metadata: Metadata,
    /// What a verified token says of the user; empty where there is none.
    pub claims: Map<String, Value>,
    /// The group of an experiment that this session is in.
    pub variant: Option<String>,
    /// Whether the session goes on where an earlier one of the same client ended: its [`Data`] is that one's, and empty if nothing was
    /// written to it.
    pub resumed: bool,
    /// The trace this session belongs to: 32 hexadecimal digits (W3C Trace Context), where there is one.
    pub trace_id: Option<String>,
}

impl Context {
    /// The context of the session whose handler's call, or whose [task](Session::spawn), this runs in.
    #[must_use]
    pub fn current() -> Option<Arc<Self>> {
        Session::current().map(|session| session.inner.context.clone())
    }
}

/// Ends sessions by their ids; what a session knows of the others.
pub trait Neighbours: Send + Sync {
    /// Ends the session `id` as its own handler would ([`Session::end`]).
    ///
    /// # Errors
    /// [`Closed`] when no such session lives.
    fn end(&self, id: &SessionId, message: &str) -> Result<(), Closed>;
}

/// A handle to the running session: cheap to clone, usable from any task or thread, also after the session's end.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    context: Arc<Context>,
    link: Arc<Shared>,
    data: Data,
    neighbours: Option<Arc<dyn Neighbours>>,
    tasks: Tasks,
}

tokio::task_local! {
    static CURRENT: Session;
}

impl Session {
    /// The handle of a session that stands alone: its data dies with it, and it knows no other session.
    #[must_use]
    pub fn new(context: Context, end: &TaskEnd) -> Self {
        Self::with(context, end, Data::detached(), None)
    }

    /// The handle of the session whose handler runs on `end`.
    #[must_use]
    pub fn with(context: Context, end: &TaskEnd, data: Data, neighbours: Option<Arc<dyn Neighbours>>) -> Self {
        let (context, link) = (Arc::new(context), end.shared());
        Self { inner: Arc::new(Inner { context, link, data, neighbours, tasks: Tasks::new() }) }
    }

    /// The session whose handler's call, or whose [task](Self::spawn), this runs in.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Runs `future` so that [`current`](Self::current) is this session in it.
    pub async fn scope<T>(&self, future: impl Future<Output = T>) -> T {
        CURRENT.scope(self.clone(), future).await
    }

    /// Who is calling, and how.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.inner.context
    }

    /// What is remembered of this conversation, shared with the application's backend.
    #[must_use]
    pub fn data(&self) -> &Data {
        &self.inner.data
    }

    /// Starts a task that belongs to the session: in it [`Session::current`] works, and it is cancelled at its next await
    /// when the session is over. A panic ends the task and is logged.
    ///
    /// # Errors
    /// [`Refused`] when the session is over, or has [too many](crate::MAX_TASKS) tasks.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Result<(), Refused> {
        // The task holds what it needs to find its session and not the other way round: no cycle keeps either alive.
        self.inner.tasks.spawn(CURRENT.scope(self.clone(), future))
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.inner.tasks
    }

    /// Ends the session: what has been emitted so far is played to its last sample, then the client gets `message`
    /// (empty: `Stream closed`). Calls of the handler that are under way are dropped and `shutdown` follows; a handler
    /// with audio of its own still queued emits [`Emit::EndStream`] behind it instead. The first end counts.
    ///
    /// # Errors
    /// [`Closed`] when the session is over already.
    pub fn end(&self, message: &str) -> Result<(), Closed> {
        self.inner.link.put_end((!message.is_empty()).then(|| message.to_owned()))
    }

    /// Ends another session of this process by its id, as [`end`](Self::end) would from within it.
    ///
    /// # Errors
    /// [`Closed`] when no such session lives.
    pub fn end_other(&self, id: &SessionId, message: &str) -> Result<(), Closed> {
        self.inner.neighbours.as_ref().ok_or(Closed)?.end(id, message)
    }

    /// Throws away the audio that was emitted and that the client has not heard yet, as far as the transport can take it
    /// back; everything else that was emitted keeps its place.
    ///
    /// # Errors
    /// [`Closed`] when the session is over.
    pub fn clear(&self) -> Result<(), Closed> {
        self.inner.link.clear()
    }

    /// How much audio that was emitted waits for the transport, which takes it as fast as it plays.
    #[must_use]
    pub fn queued_audio(&self) -> Duration {
        self.inner.link.queued_audio()
    }

    /// Says something on the data channel, after what has been emitted so far.
    ///
    /// # Errors
    /// [`SendError::Full`] when the client does not keep up, [`SendError::Closed`] when the session is over.
    pub fn send(&self, message: Message) -> Result<(), SendError> {
        self.inner.link.try_put(Emit::Message(message))
    }

    /// Says something beside the media now, ahead of all audio that waits to be played.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_now(&self, message: Message) -> Result<(), SendError> {
        self.inner.link.put_urgent(Emit::Message(message))
    }

    /// Sends an additional output, after what has been emitted so far.
    ///
    /// # Errors
    /// [`SendError::Full`] when the client does not keep up, [`SendError::Closed`] when the session is over.
    pub fn output(&self, value: Value) -> Result<(), SendError> {
        self.inner.link.try_put(Emit::Output(value))
    }

    /// An empty sample buffer, from the session's small pool when there is one; its memory comes back once the frame
    /// made of it has been sent.
    #[must_use]
    pub fn buffer(&self) -> Vec<i16> {
        self.inner.link.buffer()
    }

    /// Gives the samples of a received frame back to the pool.
    pub fn recycle(&self, buffer: Vec<i16>) {
        self.inner.link.recycle(buffer);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("context", &self.inner.context).finish_non_exhaustive()
    }
}
