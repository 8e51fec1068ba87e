//! What a server says on the data channel, read leniently: a client must get on with servers of other versions.

use std::time::Duration;

use serde_json::Value;

use crate::options::Resume;

/// Longest text that is looked into. What is longer is handed on as it is.
const MAX_PARSED: usize = 64 * 1024;

/// One data-channel message of the server.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Message {
    /// `send_input`: the handler waits for arguments.
    SendInput,
    /// `fetch_output`: there is one more additional output to fetch.
    FetchOutput,
    /// `end_stream`: the handler is done; the audio before it has been sent.
    EndStream(String),
    /// `stopword`: the stop word was heard.
    StopWord,
    /// `error`: what went wrong in the handler.
    Error(String),
    /// `warning`: what the handler wants to be known.
    Warning(String),
    /// `log`: `started_talking`, `pause_detected`, `response_starting`, or any other text.
    Log(String),
    /// `update_connection: closed`: the server wants the client to close.
    Close,
    /// `reconnect`: the server drains and wants a new offer with the same id.
    Reconnect {
        /// When.
        after: Duration,
        /// Why, such as `draining`.
        reason: String,
        /// The token which the new offer shows to get the session's context back.
        resume: Option<Resume>,
    },
    /// Anything else, as it came.
    Other(String),
}

impl Message {
    /// Reads one message. Whatever is not understood is [`Message::Other`]: nothing is an error.
    pub fn parse(text: &str) -> Self {
        if text.len() > MAX_PARSED {
            return Self::Other(text.to_owned());
        }
        serde_json::from_str::<Value>(text).ok().and_then(known).unwrap_or_else(|| Self::Other(text.to_owned()))
    }
}

fn known(value: Value) -> Option<Message> {
    let data = value.get("data");
    // FastRTC says `message` in errors and warnings and `data` elsewhere; servers of other makers mix them up.
    let text = || {
        let text = [value.get("message"), data].into_iter().flatten().find_map(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let message = match value.get("type")?.as_str()? {
        "send_input" => Message::SendInput,
        "fetch_output" => Message::FetchOutput,
        "end_stream" => Message::EndStream(text()),
        "stopword" => Message::StopWord,
        "error" => Message::Error(text()),
        "warning" => Message::Warning(text()),
        "log" => Message::Log(text()),
        "update_connection" if data.and_then(Value::as_str) == Some("closed") => Message::Close,
        "reconnect" => reconnect(data.unwrap_or(&Value::Null)),
        _ => return None,
    };
    Some(message)
}

fn reconnect(data: &Value) -> Message {
    let text = |key| data.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    Message::Reconnect {
        after: Duration::from_millis(data.get("after_ms").and_then(Value::as_u64).unwrap_or(0)),
        reason: text("reason"),
        resume: Resume::new(text("resume")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages() {
        fn check(text: &str, expected: Message) {
            assert_eq!(Message::parse(text), expected, "{text}");
        }
        let other = |text: &str| Message::Other(text.to_owned());
        check(r#"{"type":"send_input","data":[]}"#, Message::SendInput);
        check(r#"{"type":"fetch_output","data":[]}"#, Message::FetchOutput);
        check(r#"{"type":"end_stream","data":"Stream closed"}"#, Message::EndStream("Stream closed".into()));
        check(r#"{"type":"end_stream"}"#, Message::EndStream(String::new()));
        check(r#"{"type":"stopword","data":""}"#, Message::StopWord);
        check(r#"{"type":"error","message":"boom"}"#, Message::Error("boom".into()));
        check(r#"{"type":"error","data":"boom"}"#, Message::Error("boom".into()));
        check(r#"{"type":"warning","message":"hm"}"#, Message::Warning("hm".into()));
        check(r#"{"type":"log","data":"pause_detected"}"#, Message::Log("pause_detected".into()));
        check(r#"{"type":"update_connection","data":"closed"}"#, Message::Close);
        let open = r#"{"type":"update_connection","data":"open"}"#;
        check(open, other(open));
        check(
            r#"{"type":"reconnect","data":{"after_ms":250,"reason":"draining","resume":"T"}}"#,
            Message::Reconnect {
                after: Duration::from_millis(250),
                reason: "draining".into(),
                resume: Resume::new("T"),
            },
        );
        check(
            r#"{"type":"reconnect"}"#,
            Message::Reconnect { after: Duration::ZERO, reason: String::new(), resume: None },
        );
        for text in ["", "hello", "[1,2]", r#"{"type":7}"#, r#"{"type":"new_kind","data":1}"#, "{"] {
            check(text, other(text));
        }
        let long = format!(r#"{{"type":"log","data":"{}"}}"#, "x".repeat(MAX_PARSED));
        check(&long, other(&long));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in r#"(\{"type":"(log|error|reconnect)","(data|message)":)?[ -~]{0,60}"#) {
            let _ = Message::parse(&text);
        }
    }
}
