//! Messages from server to client over the data channel.

use std::borrow::Cow;
use std::time::Duration;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::to_json;
use crate::lifecycle::CloseReason;
use crate::token::ResumeToken;

/// What a server says over the data channel, as JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerMessage {
    /// The handler waits for arguments.
    SendInput,
    /// One more additional output is there to be fetched.
    FetchOutput,
    /// The stream is over, with a message; everything before it has played.
    EndStream(String),
    /// A stop word was heard.
    Stopword,
    /// The handler failed.
    Error(String),
    /// The handler warns.
    Warning(String),
    /// A word about what goes on: `started_talking`, `pause_detected`, `response_starting`, or an echo.
    Log(String),
    /// The client should close the connection.
    UpdateConnection,
    /// The client should offer again, with the same id and this token; its context is kept.
    Reconnect {
        /// How long to wait first, in milliseconds.
        after_ms: u64,
        /// The label of a close reason. A client may meet one that it does not know.
        reason: Cow<'static, str>,
        /// The token to offer; absent where sessions cannot be resumed.
        resume: Option<ResumeToken>,
    },
}

/// A message that is none of [`ServerMessage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a message of the data channel's protocol")]
pub struct UnknownMessage;

impl ServerMessage {
    /// What `end_stream` says when the handler gave no message.
    pub const STREAM_CLOSED: &'static str = "Stream closed";

    /// The end of the stream with the handler's message, or the default.
    pub fn end_stream(message: Option<String>) -> Self {
        Self::EndStream(message.unwrap_or_else(|| Self::STREAM_CLOSED.to_owned()))
    }

    /// The acknowledgement of a client's message, which FastRTC's clients expect for each.
    pub fn log_received(message: &str) -> Self {
        Self::Log(format!("Server received: {message}"))
    }

    /// The request to offer again.
    pub fn reconnect(after: Duration, reason: CloseReason, resume: Option<ResumeToken>) -> Self {
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        Self::Reconnect { after_ms, reason: reason.as_str().into(), resume }
    }

    /// The text to send.
    pub fn to_json(&self) -> String {
        to_json(self)
    }

    /// Reads a message as a client does: unknown keys are ignored, and the text of an `error` or `warning` may be under
    /// `data` too.
    ///
    /// # Errors
    /// When the text is no message of this protocol.
    pub fn parse(text: &str) -> Result<Self, UnknownMessage> {
        let value: Value = serde_json::from_str(text).map_err(|_| UnknownMessage)?;
        let data = &value["data"];
        let data_text = || data.as_str().map(str::to_owned).ok_or(UnknownMessage);
        let message = || match value["message"].as_str() {
            Some(text) => Ok(text.to_owned()),
            None => data_text(),
        };
        match value["type"].as_str() {
            Some("send_input") => Ok(Self::SendInput),
            Some("fetch_output") => Ok(Self::FetchOutput),
            Some("end_stream") => Ok(Self::EndStream(data_text()?)),
            Some("stopword") => Ok(Self::Stopword),
            Some("error") => Ok(Self::Error(message()?)),
            Some("warning") => Ok(Self::Warning(message()?)),
            Some("log") => Ok(Self::Log(data_text()?)),
            Some("update_connection") if data == "closed" => Ok(Self::UpdateConnection),
            Some("reconnect") => Ok(Self::Reconnect {
                after_ms: data["after_ms"].as_u64().ok_or(UnknownMessage)?,
                reason: data["reason"].as_str().ok_or(UnknownMessage)?.to_owned().into(),
                resume: data["resume"].as_str().and_then(|token| token.parse().ok()),
            }),
            _ => Err(UnknownMessage),
        }
    }

    const fn type_name(&self) -> &'static str {
        match self {
            Self::SendInput => "send_input",
            Self::FetchOutput => "fetch_output",
            Self::EndStream(_) => "end_stream",
            Self::Stopword => "stopword",
            Self::Error(_) => "error",
            Self::Warning(_) => "warning",
            Self::Log(_) => "log",
            Self::UpdateConnection => "update_connection",
            Self::Reconnect { .. } => "reconnect",
        }
    }
}

impl Serialize for ServerMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Reconnect<'a> {
            after_ms: u64,
            reason: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            resume: Option<ResumeToken>,
        }
        let mut object = serializer.serialize_struct("ServerMessage", 2)?;
        object.serialize_field("type", self.type_name())?;
        match self {
            Self::SendInput | Self::FetchOutput => object.serialize_field("data", &[(); 0])?,
            Self::EndStream(text) | Self::Log(text) => object.serialize_field("data", text)?,
            Self::Stopword => object.serialize_field("data", "")?,
            // The browser snippets read `message` here and `data` everywhere else.
            Self::Error(text) | Self::Warning(text) => object.serialize_field("message", text)?,
            Self::UpdateConnection => object.serialize_field("data", "closed")?,
            Self::Reconnect { after_ms, reason, resume } => {
                object.serialize_field("data", &Reconnect { after_ms: *after_ms, reason, resume: *resume })?;
            }
        }
        object.end()
    }
}
