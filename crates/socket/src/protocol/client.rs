//! What a client of `{p}/websocket/offer` sends.

use std::str::FromStr;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use streamfleet_session::{ResumeToken, SessionId};

use super::{BadFrame, field, session_id};
use crate::codec::{Framing, UnknownName, WireCodec};
use crate::payload::PayloadBuffer;

/// The largest message taken, in bytes: two seconds of the widest format (16-bit, 48 kHz) in base64, where clients send 20
/// to 1 000 ms at a time, and as much as an offer over HTTP may be. A `start` is read into values that take up to sixteen
/// times the memory of their text, and a WebSocket library keeps a buffer as large as the largest message that it has read:
/// it is to be told this bound too.
pub const MAX_MESSAGE: usize = 256 << 10;

/// A frame from the client.
#[derive(Debug, PartialEq)]
pub enum ClientFrame<'a> {
    /// The first frame: who it is.
    Start(Box<Start>),
    /// Audio in the session's codec.
    Media(&'a [u8]),
    /// The client hangs up.
    Stop,
    /// The client wants a `pong`.
    Ping,
    /// An event that we do not know. Clients of other versions may send some.
    Ignored,
}

/// `start`.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// The id that the client chose.
    pub id: SessionId,
    /// The metadata as sent, unread: identity judges it after the service is known.
    pub metadata: Option<Value>,
    /// The codec of both directions.
    pub codec: WireCodec,
    /// How media is to be sent.
    pub framing: Framing,
    /// Whether the session may be taken up again, or is.
    pub resume: Resume,
}

/// What `start` says about resuming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resume {
    /// Nothing: the session ends with its socket.
    #[default]
    No,
    /// `true`: the client wants a token. So does one whose token cannot be ours.
    Wanted,
    /// The token of an earlier session.
    With(ResumeToken),
}

/// The fields of any frame. Values are read only if the event has them.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    media: Option<&'a RawValue>,
    #[serde(borrow)]
    websocket_id: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    codec: Option<&'a RawValue>,
    #[serde(borrow)]
    framing: Option<&'a RawValue>,
    #[serde(borrow)]
    resume: Option<&'a RawValue>,
}

impl<'a> field::Message<'a> for Fields<'a> {
    fn event(&self) -> Option<&'a RawValue> {
        self.event
    }
}

#[derive(Deserialize)]
struct Media<'a> {
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// Reads frames, one after the other.
#[derive(Debug, Default)]
pub struct ClientReader {
    payload: PayloadBuffer,
}

impl ClientReader {
    /// Reads a text message.
    ///
    /// # Errors
    /// Everything that [`BadFrame`] names but what depends on the codec.
    pub fn text(&mut self, text: &str) -> Result<ClientFrame<'_>, BadFrame> {
        // What is base64 throughout has neither quotes nor escapes: it is the whole payload, and the message nothing else.
        // Anything else has its mistake named below.
        if let Some(payload) = usual_media(text)
            && self.payload.decode(payload).is_ok()
        {
            return Ok(ClientFrame::Media(self.payload.bytes()));
        }
        let (event, fields): (_, Fields<'_>) = field::message(text)?;
        match &*event {
            "media" => {
                let media: Media<'_> = field::media(fields.media)?;
                field::payload(media.payload, &mut self.payload).map(ClientFrame::Media)
            }
            "start" => fields.start().map(|start| ClientFrame::Start(Box::new(start))),
            "stop" => Ok(ClientFrame::Stop),
            "ping" => Ok(ClientFrame::Ping),
            _ => Ok(ClientFrame::Ignored),
        }
    }

    /// Reads a binary message: nothing but a payload.
    ///
    /// # Errors
    /// [`BadFrame::TooLarge`].
    pub fn binary<'a>(&self, bytes: &'a [u8]) -> Result<ClientFrame<'a>, BadFrame> {
        if bytes.len() > MAX_MESSAGE { Err(BadFrame::TooLarge) } else { Ok(ClientFrame::Media(bytes)) }
    }
}

/// The inside of a `payload`, if the rest of a message is media exactly as browsers or Python write it: fifty times a second
/// from each client, and not worth being read as JSON.
fn usual_media(text: &str) -> Option<&str> {
    const USUAL: [(&str, &str); 2] = [
        (r#"{"event":"media","media":{"payload":""#, r#""}}"#),
        (r#"{"event": "media", "media": {"payload": ""#, r#""}}"#),
    ];
    if text.len() > MAX_MESSAGE {
        return None;
    }
    USUAL.iter().find_map(|(before, after)| text.strip_prefix(before)?.strip_suffix(after))
}

impl Fields<'_> {
    fn start(&self) -> Result<Start, BadFrame> {
        Ok(Start {
            id: session_id("websocket_id", field::string(self.websocket_id).as_deref())?,
            metadata: match self.metadata {
                // Nested deeper than any reader follows: no metadata is accepted like that.
                Some(raw) => Some(field::value(Some(raw)).ok_or(BadFrame::NotJson)?),
                None => None,
            },
            codec: named("codec", self.codec)?,
            framing: named("framing", self.framing)?,
            resume: match field::string(self.resume) {
                Some(token) => token.parse().map_or(Resume::Wanted, Resume::With),
                None if self.resume.is_some_and(|raw| raw.get() == "true") => Resume::Wanted,
                None => Resume::No,
            },
        })
    }
}

/// A name of ours, or its default if it is absent.
fn named<T: FromStr<Err = UnknownName> + Default>(key: &'static str, raw: Option<&RawValue>) -> Result<T, BadFrame> {
    if raw.is_none() {
        return Ok(T::default());
    }
    // What is no string gets the same answer as a name that is none.
    let text = field::string(raw).unwrap_or_default();
    text.parse().map_err(|unknown| BadFrame::Unknown { key, unknown })
}
