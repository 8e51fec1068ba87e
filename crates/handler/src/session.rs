//! The session as its handler sees it.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use streamfleet_session::{Metadata, ServiceName, SessionId, UserId, Verification};

use crate::link::{Closed, SendError, Shared, TaskEnd};
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
    /// The trace this session belongs to: 32 hexadecimal digits (W3C Trace Context), where there is one.
    pub trace_id: Option<String>,
}

/// A handle to the running session: cheap to clone, usable from any task or thread, also after the session's end.
#[derive(Clone)]
pub struct Session {
    context: Arc<Context>,
    link: Arc<Shared>,
}

impl Session {
    /// The handle of the session whose handler runs on `end`.
    #[must_use]
    pub fn new(context: Context, end: &TaskEnd) -> Self {
        Self { context: Arc::new(context), link: end.shared() }
    }

    /// Who is calling, and how.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Ends the session: what has been emitted so far is played to its last sample, then the client gets `message`
    /// (empty: `Stream closed`). Calls of the handler that are under way are dropped and `shutdown` follows; a handler
    /// with audio of its own still queued emits [`Emit::EndStream`] behind it instead. The first end counts.
    ///
    /// # Errors
    /// [`Closed`] when the session is over already.
    pub fn end(&self, message: &str) -> Result<(), Closed> {
        self.link.put_end((!message.is_empty()).then(|| message.to_owned()))
    }

    /// Says something on the data channel, after what has been emitted so far.
    ///
    /// # Errors
    /// [`SendError::Full`] when the client does not keep up, [`SendError::Closed`] when the session is over.
    pub fn send(&self, message: Message) -> Result<(), SendError> {
        self.link.try_put(Emit::Message(message))
    }

    /// Sends an additional output, after what has been emitted so far.
    ///
    /// # Errors
    /// [`SendError::Full`] when the client does not keep up, [`SendError::Closed`] when the session is over.
    pub fn output(&self, value: Value) -> Result<(), SendError> {
        self.link.try_put(Emit::Output(value))
    }

    /// An empty sample buffer, from the session's small pool when there is one; its memory comes back once the frame
    /// made of it has been sent.
    #[must_use]
    pub fn buffer(&self) -> Vec<i16> {
        self.link.buffer()
    }

    /// Gives the samples of a received frame back to the pool.
    pub fn recycle(&self, buffer: Vec<i16>) {
        self.link.recycle(buffer);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("context", &self.context).finish_non_exhaustive()
    }
}
