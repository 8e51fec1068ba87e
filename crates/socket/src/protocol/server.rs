//! What a client of `{p}/websocket/offer` is sent.

use streamfleet_session::ResumeToken;
use streamfleet_session::wire::{Failure, ServerMessage};

use crate::payload;

/// A frame to the client that is no media.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerFrame {
    /// The token to attach again with. The first frame, if the client asked for it.
    Session(ResumeToken),
    /// The answer to a ping.
    Pong,
    /// A message as on a data channel.
    Message(ServerMessage),
    /// The session is refused.
    Failed(Failure),
}

impl ServerFrame {
    /// The text to send.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            // 32 hexadecimal digits need no escapes.
            Self::Session(token) => format!(r#"{{"type":"session","data":{{"resume":"{}"}}}}"#, token.reveal()),
            Self::Pong => r#"{"event":"pong"}"#.to_owned(),
            Self::Message(message) => message.to_json(),
            Self::Failed(failure) => failure.to_json(),
        }
    }
}

/// The text of a media frame.
#[must_use]
pub fn media(bytes: &[u8]) -> String {
    const BEFORE: &str = r#"{"event":"media","media":{"payload":""#;
    const AFTER: &str = r#""}}"#;
    let mut text = String::with_capacity(BEFORE.len() + payload::encoded_len(bytes.len()) + AFTER.len());
    text.push_str(BEFORE);
    payload::encode(bytes, &mut text);
    text.push_str(AFTER);
    text
}
