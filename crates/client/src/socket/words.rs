//! The frames of `{url}/websocket/offer`, as FastRTC has them, and of a telephone company where they are the same.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::options::{Framing, Reattach, Said, SampleRate, SocketCodec, SocketOptions};
use crate::error::Refusal;
use crate::message::Message;
use crate::options::Resume;
use crate::signal;

/// The standard alphabet, encoded with padding; decoded with or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One message on the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(String),
    Binary(Vec<u8>),
}

/// What the server said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Heard {
    Media(Vec<u8>),
    Pong,
    /// `session`: the token for the next socket, and what the server says of its rates.
    Session(Resume, Said),
    Refused(Refusal),
    /// Telephone: tell when everything before this has been heard.
    Mark(String),
    /// Telephone: forget what has not been heard.
    Clear,
    Message(Message),
}

/// What a client says.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Say<'a> {
    Start {
        websocket_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata: Option<&'a Map<String, Value>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        codec: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        framing: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        resume: Option<ResumeWord<'a>>,
    },
    Stop,
    Ping,
}

/// `resume`: `true` asks for a token, a token shows one.
pub(crate) enum ResumeWord<'a> {
    Wanted,
    Token(&'a str),
}

impl Serialize for ResumeWord<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Wanted => serializer.serialize_bool(true),
            Self::Token(token) => serializer.serialize_str(token),
        }
    }
}

impl Say<'_> {
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).expect("invariant: text keys and finite numbers only")
    }
}

/// The first frame of a call, with the newest token if there is one.
pub(crate) fn start(options: &SocketOptions, resume: Option<&Resume>) -> String {
    let metadata = options.start_metadata();
    Say::Start {
        websocket_id: options.websocket_id.as_str(),
        metadata: metadata.as_ref(),
        // The default goes without saying, so that the frame is FastRTC's own.
        codec: (options.codec != SocketCodec::default()).then(|| options.codec.name()),
        framing: (options.framing == Framing::Binary).then_some("binary"),
        resume: match (resume, options.reattach) {
            (Some(token), _) => Some(ResumeWord::Token(token.expose())),
            (None, Reattach::Ask) => Some(ResumeWord::Wanted),
            (None, Reattach::Plain) => None,
        },
    }
    .text()
}

/// A media frame.
pub(crate) fn media(payload: &[u8], framing: Framing) -> Frame {
    match framing {
        Framing::Binary => Frame::Binary(payload.to_vec()),
        Framing::Json => Frame::Text(media_text(payload)),
    }
}

/// A media frame as text. Base64 needs no escapes, so this is a copy and nothing more.
#[must_use]
pub fn media_text(payload: &[u8]) -> String {
    const HEAD: &str = r#"{"event":"media","media":{"payload":""#;
    let mut text = String::with_capacity(HEAD.len() + payload.len().div_ceil(3) * 4 + 3);
    text.push_str(HEAD);
    BASE64.encode_string(payload, &mut text);
    text.push_str(r#""}}"#);
    text
}

pub(crate) fn encode(payload: &[u8]) -> String {
    BASE64.encode(payload)
}

/// The keys of every frame that a server may send.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    media: Option<Media<'a>>,
    #[serde(borrow)]
    mark: Option<Mark<'a>>,
    #[serde(borrow, rename = "streamSid")]
    stream_sid: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    data: Option<Value>,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
    meta: Option<Value>,
}

#[derive(Deserialize)]
struct Media<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Mark<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

/// Reads what a server sent. Whatever is not understood is [`Message::Other`]: nothing is an error.
pub(crate) fn read(text: &str) -> Heard {
    known(text, None).unwrap_or_else(|| Heard::Message(Message::parse(text)))
}

/// Reads what a server sent on a telephone's media stream: what does not name the stream is not understood there.
pub(crate) fn read_on(text: &str, stream_sid: &str) -> Heard {
    known(text, Some(stream_sid)).unwrap_or_else(|| Heard::Message(Message::parse(text)))
}

fn known(text: &str, stream_sid: Option<&str>) -> Option<Heard> {
    let fields: Fields<'_> = serde_json::from_str(text).ok()?;
    if fields.event.is_some() && stream_sid.is_some() && fields.stream_sid.as_deref() != stream_sid {
        return None;
    }
    match fields.event.as_deref() {
        Some("media") => return BASE64.decode(fields.media?.payload.as_bytes()).ok().map(Heard::Media),
        Some("pong") => return Some(Heard::Pong),
        Some("mark") => return fields.mark.map(|mark| Heard::Mark(mark.name.into_owned())),
        Some("clear") => return Some(Heard::Clear),
        _ => {}
    }
    if fields.status.as_deref() == Some("failed") {
        return Some(Heard::Refused(signal::failure(fields.meta.as_ref().unwrap_or(&Value::Null), 200, None)));
    }
    if fields.kind.as_deref() == Some("session") {
        let data = fields.data?;
        // One that cannot be a rate, or is not there, says nothing: older servers have none.
        let rate = |key| SampleRate::new(u32::try_from(data.get(key)?.as_u64()?).ok()?).ok();
        let said = Said { input: rate("input_sample_rate"), output: rate("output_sample_rate") };
        return Some(Heard::Session(Resume::new(data.get("resume")?.as_str()?)?, said));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options() -> SocketOptions {
        let mut options = SocketOptions::new("http://h".parse().unwrap());
        options.websocket_id = "abc".parse().unwrap();
        options
    }

    #[test]
    fn what_a_client_says() {
        fn check(options: &SocketOptions, token: Option<&str>, expected: &str) {
            assert_eq!(start(options, token.and_then(Resume::new).as_ref()), expected);
        }
        let plain = SocketOptions { reattach: Reattach::Plain, ..options() };
        check(&plain, None, r#"{"event":"start","websocket_id":"abc"}"#);
        check(&options(), None, r#"{"event":"start","websocket_id":"abc","resume":true}"#);
        let mut full = options();
        full.user_id = Some("ada".parse().unwrap());
        (full.codec, full.framing) = (SocketCodec::Opus, Framing::Binary);
        let expected = r#"{"event":"start","websocket_id":"abc","metadata":{"user_id":"ada"},"codec":"opus","framing":"binary","resume":"T"}"#;
        check(&full, Some("T"), expected);
        assert_eq!(Say::Stop.text(), r#"{"event":"stop"}"#);
        assert_eq!(Say::Ping.text(), r#"{"event":"ping"}"#);
        let expected = Frame::Text(r#"{"event":"media","media":{"payload":"/38="}}"#.into());
        assert_eq!(media(&[0xFF, 0x7F], Framing::Json), expected);
        assert_eq!(media(&[1, 2], Framing::Binary), Frame::Binary(vec![1, 2]));
    }

    #[test]
    fn what_a_server_says() {
        #[track_caller]
        fn check(text: &str, expected: Heard) {
            assert_eq!(read(text), expected, "{text}");
        }
        check(r#"{"event": "media", "media": {"payload": "/38="}}"#, Heard::Media(vec![0xFF, 0x7F]));
        check(r#"{"event":"media","media":{"payload":"\/38"},"streamSid":"MZ1"}"#, Heard::Media(vec![0xFF, 0x7F]));
        check(r#"{"event":"pong"}"#, Heard::Pong);
        check(r#"{"event":"mark","streamSid":"MZ1","mark":{"name":"end"}}"#, Heard::Mark("end".into()));
        check(r#"{"event":"clear","streamSid":"MZ1"}"#, Heard::Clear);
        let token = Resume::new("T").unwrap();
        check(r#"{"type":"session","data":{"resume":"T"}}"#, Heard::Session(token.clone(), Said::default()));
        let rates = r#""input_sample_rate":16000,"output_sample_rate":24000,"encoding":"mulaw""#;
        let hz = |hz| SampleRate::new(hz).ok();
        let said = Said { input: hz(16_000), output: hz(24_000) };
        check(&format!(r#"{{"type":"session","data":{{"resume":"T",{rates}}}}}"#), Heard::Session(token.clone(), said));
        for odd in ["7", "-1", "4294967297000", "1.5", "\"16000\"", "null", "[]"] {
            let text = format!(r#"{{"type":"session","data":{{"resume":"T","input_sample_rate":{odd}}}}}"#);
            check(&text, Heard::Session(token.clone(), Said::default()));
        }
        check(
            r#"{"status":"failed","meta":{"error":"concurrency_limit_reached","limit":1}}"#,
            Heard::Refused(Refusal {
                error: "concurrency_limit_reached".into(),
                status: 200,
                limit: Some(1),
                detail: None,
                retry_after: None,
            }),
        );
        check(r#"{"type":"fetch_output","data":[]}"#, Heard::Message(Message::FetchOutput));
        check(r#"{"type":"end_stream","data":"bye"}"#, Heard::Message(Message::EndStream("bye".into())));
        let stray = r#"{"event":"clear","streamSid":"MZ2"}"#;
        assert_eq!(read_on(stray, "MZ2"), Heard::Clear);
        for stray in [stray, r#"{"event":"clear"}"#] {
            assert_eq!(read_on(stray, "MZ1"), Heard::Message(Message::Other(stray.into())));
        }
        for text in [
            "",
            "7",
            r#"{"event":"media"}"#,
            r#"{"event":"media","media":{"payload":"?"}}"#,
            r#"{"event":"media","media":{"payload":7}}"#,
            r#"{"event":"mark"}"#,
            r#"{"type":"session","data":{}}"#,
        ] {
            check(text, Heard::Message(Message::Other(text.into())));
        }
    }

    proptest! {
        #[test]
        fn payloads_survive_the_way(payload in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(read(&media_text(&payload)), Heard::Media(payload));
        }

        #[test]
        fn no_text_breaks_the_reader(text in r#"(\{"(event|type|status|media)":)?[ -~]{0,60}"#) {
            let _ = read(&text);
        }
    }
}
