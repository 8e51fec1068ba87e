//! What a client of `{p}/websocket/offer` is sent.

use streamfleet_session::ResumeToken;
use streamfleet_session::wire::{Failure, ServerMessage};

use crate::audio::AudioRates;
use crate::codec::WireCodec;
use crate::payload;

/// A frame to the client that is no media.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerFrame {
    /// What the session is. The first frame, if the client asked for it.
    Session {
        /// What to attach again with.
        token: ResumeToken,
        /// In Hz: what the client is to send at, and what it is sent at. Nothing else in the protocol says so.
        rates: AudioRates,
        /// What media frames hold.
        codec: WireCodec,
    },
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
            // Digits and our own names need no escapes.
            Self::Session { token, rates: AudioRates { input, output }, codec } => format!(
                r#"{{"type":"session","data":{{"resume":"{}","input_sample_rate":{input},"output_sample_rate":{output},"encoding":"{}"}}}}"#,
                token.reveal(),
                codec.as_str(),
            ),
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
