//! Twilio's bidirectional media streams: the messages of `<Connect><Stream>` in both directions, as Twilio documents
//! them under "Media Streams - WebSocket Messages".

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use streamfleet_session::{ResumeToken, SessionId};

use super::{BadFrame, field, session_id};
use crate::payload::{self, PayloadBuffer};

/// The `<Parameter>` that carries the token of our own TwiML. It is taken out before the rest becomes metadata.
pub const PARAMETER_TOKEN: &str = "streamfleet_token";

/// The `<Parameter>` with the session that a call comes back to. Taken out likewise.
pub const PARAMETER_SESSION: &str = "streamfleet_session";

/// The `<Parameter>` with that session's resume token. Taken out likewise.
pub const PARAMETER_RESUME: &str = "streamfleet_resume";

/// The longest name of a mark that is kept, in bytes: they are ours.
const MAX_NAME: usize = 128;

/// A frame from Twilio.
#[derive(Debug, PartialEq)]
pub enum TwilioFrame<'a> {
    /// The first frame. It says nothing.
    Connected,
    /// The second: which call.
    Start(Box<CallStart>),
    /// 8 kHz mu-law.
    Media(TwilioMedia<'a>),
    /// What was sent before this mark has played, or was cleared.
    Mark(String),
    /// A key was pressed.
    Dtmf(Digit),
    /// The call is over.
    Stop,
    /// An event that we do not know.
    Ignored,
}

/// `start`.
#[derive(Debug, Clone, PartialEq)]
pub struct CallStart {
    /// The stream: the session's id.
    pub stream_sid: SessionId,
    /// The call it belongs to.
    pub call_sid: Option<CallSid>,
    /// The `<Parameter>`s of our TwiML without those of ours below: metadata, unread.
    pub parameters: Map<String, Value>,
    /// The token of our TwiML as sent, not verified.
    pub token: Option<String>,
    /// The session that the call comes back to, as sent.
    pub resume: Option<CallResume>,
}

/// What brings a call back to its session over another stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallResume {
    /// The session: its first stream's id.
    pub session: SessionId,
    /// What its client has to show.
    pub token: ResumeToken,
}

/// A call's own id, which all its streams have in common: 1 to 64 letters and digits. Twilio's have 34.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CallSid(Box<str>);

impl CallSid {
    const MAX_LEN: usize = 64;

    /// The id, if the text is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = (1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_id.then(|| Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `media`.
#[derive(Debug, PartialEq, Eq)]
pub struct TwilioMedia<'a> {
    /// Which side of the call is heard. A bidirectional stream has the caller's only.
    pub track: CallTrack,
    /// Its number, from 1.
    pub chunk: Option<u64>,
    /// When it was said, from the start of the stream.
    pub timestamp: Option<Duration>,
    /// 8 kHz mu-law.
    pub payload: &'a [u8],
}

/// One side of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallTrack {
    /// The caller.
    Inbound,
    /// What the caller hears.
    Outbound,
}

/// A key of a telephone: `0` to `9`, `*`, `#`, `A` to `D` (ITU-T Q.23).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digit(char);

impl Digit {
    /// The digit of a text of one character.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut characters = text.chars();
        let digit = characters.next().filter(|digit| matches!(digit, '0'..='9' | '*' | '#' | 'A'..='D'))?;
        characters.next().is_none().then_some(Self(digit))
    }

    /// The character on the key.
    #[must_use]
    pub const fn as_char(self) -> char {
        self.0
    }
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    media: Option<&'a RawValue>,
    #[serde(borrow)]
    start: Option<&'a RawValue>,
    #[serde(borrow)]
    mark: Option<&'a RawValue>,
    #[serde(borrow)]
    dtmf: Option<&'a RawValue>,
    #[serde(borrow, rename = "streamSid")]
    stream_sid: Option<&'a RawValue>,
}

impl<'a> field::Message<'a> for Fields<'a> {
    fn event(&self) -> Option<&'a RawValue> {
        self.event
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StartFields<'a> {
    #[serde(borrow)]
    stream_sid: Option<&'a RawValue>,
    #[serde(borrow)]
    call_sid: Option<&'a RawValue>,
    #[serde(borrow)]
    custom_parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    media_format: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FormatFields<'a> {
    #[serde(borrow)]
    encoding: Option<&'a RawValue>,
    #[serde(borrow)]
    sample_rate: Option<&'a RawValue>,
    #[serde(borrow)]
    channels: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct MediaFields<'a> {
    #[serde(borrow)]
    track: Option<&'a RawValue>,
    #[serde(borrow)]
    chunk: Option<&'a RawValue>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct MarkFields<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct DtmfFields<'a> {
    #[serde(borrow)]
    digit: Option<&'a RawValue>,
}

/// Reads frames, one after the other.
#[derive(Debug, Default)]
pub struct TwilioReader {
    payload: PayloadBuffer,
}

impl TwilioReader {
    /// Reads a text message. Twilio sends no others.
    ///
    /// # Errors
    /// Everything that [`BadFrame`] names. A mark without a name and a digit that is none are ignored: a call does not
    /// end for them.
    pub fn text(&mut self, text: &str) -> Result<TwilioFrame<'_>, BadFrame> {
        let (event, fields): (_, Fields<'_>) = field::message(text)?;
        match &*event {
            "media" => self.media(fields.media).map(TwilioFrame::Media),
            "start" => fields.start().map(|start| TwilioFrame::Start(Box::new(start))),
            "mark" => Ok(fields.mark().map_or(TwilioFrame::Ignored, TwilioFrame::Mark)),
            "dtmf" => Ok(fields.digit().map_or(TwilioFrame::Ignored, TwilioFrame::Dtmf)),
            "connected" => Ok(TwilioFrame::Connected),
            "stop" => Ok(TwilioFrame::Stop),
            _ => Ok(TwilioFrame::Ignored),
        }
    }

    fn media(&mut self, raw: Option<&RawValue>) -> Result<TwilioMedia<'_>, BadFrame> {
        let media: MediaFields<'_> = field::media(raw)?;
        let is_outbound = field::string(media.track).is_some_and(|track| track == "outbound");
        Ok(TwilioMedia {
            track: if is_outbound { CallTrack::Outbound } else { CallTrack::Inbound },
            chunk: field::number(media.chunk),
            timestamp: field::number(media.timestamp).map(Duration::from_millis),
            payload: field::payload(media.payload, &mut self.payload)?,
        })
    }
}

impl Fields<'_> {
    fn start(&self) -> Result<CallStart, BadFrame> {
        let start: StartFields<'_> = match self.start {
            Some(raw) => field::object(raw.get()).unwrap_or_default(),
            None => StartFields::default(),
        };
        if let Some(raw) = start.media_format {
            let format: FormatFields<'_> = field::object(raw.get()).map_err(|_| BadFrame::MediaFormat)?;
            let fits = field::string(format.encoding).is_some_and(|encoding| encoding == "audio/x-mulaw")
                && field::number(format.sample_rate) == Some(8_000)
                && format.channels.is_none_or(|channels| field::number(Some(channels)) == Some(1));
            if !fits {
                return Err(BadFrame::MediaFormat);
            }
        }
        // FastRTC reads the outer one, Twilio sends both.
        let stream_sid = field::string(self.stream_sid).or_else(|| field::string(start.stream_sid));
        let mut parameters: Map<String, Value> = field::value(start.custom_parameters).unwrap_or_default();
        let mut ours = |name| match parameters.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let token = ours(PARAMETER_TOKEN);
        let resume = match (ours(PARAMETER_SESSION), ours(PARAMETER_RESUME)) {
            (Some(session), Some(token)) => {
                session.parse().ok().zip(token.parse().ok()).map(|(session, token)| CallResume { session, token })
            }
            _ => None,
        };
        Ok(CallStart {
            stream_sid: session_id("streamSid", stream_sid.as_deref())?,
            call_sid: field::string(start.call_sid).and_then(|sid| CallSid::parse(&sid)),
            parameters,
            token,
            resume,
        })
    }

    fn mark(&self) -> Option<String> {
        let mark: MarkFields<'_> = field::object(self.mark?.get()).ok()?;
        field::string(mark.name).filter(|name| name.len() <= MAX_NAME).map(Into::into)
    }

    fn digit(&self) -> Option<Digit> {
        let dtmf: DtmfFields<'_> = field::object(self.dtmf?.get()).ok()?;
        Digit::parse(&field::string(dtmf.digit)?)
    }
}

/// The text that plays 8 kHz mu-law to the caller.
#[must_use]
pub fn stream_media(stream: &SessionId, bytes: &[u8]) -> String {
    // Ids are made of characters that need no escapes.
    const BEFORE: &str = r#"{"event":"media","media":{"payload":""#;
    const BETWEEN: &str = r#""},"streamSid":""#;
    let length = BEFORE.len() + payload::encoded_len(bytes.len()) + BETWEEN.len() + stream.as_str().len() + 2;
    let mut text = String::with_capacity(length);
    text.push_str(BEFORE);
    payload::encode(bytes, &mut text);
    text.push_str(BETWEEN);
    text.push_str(stream.as_str());
    text.push_str("\"}");
    text
}

/// The text that asks for `name` back once everything before it has played.
#[must_use]
pub fn mark(stream: &SessionId, name: &str) -> String {
    let name = Value::from(name);
    format!(r#"{{"event":"mark","mark":{{"name":{name}}},"streamSid":"{stream}"}}"#)
}

/// The text that makes Twilio forget what it has not played.
#[must_use]
pub fn clear(stream: &SessionId) -> String {
    format!(r#"{{"event":"clear","streamSid":"{stream}"}}"#)
}
