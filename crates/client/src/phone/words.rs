//! The frames of a media stream, with Twilio's names and types: its numbers are strings.

use std::collections::BTreeMap;

use serde::Serialize;

use super::options::Digit;
use crate::socket::words::encode;

/// Milliseconds of audio in a media frame.
const FRAME_MS: u64 = 20;

/// One media stream: who it is, and how far its numbers have got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MediaStream {
    pub(crate) stream_sid: String,
    pub(crate) call_sid: String,
    pub(crate) account_sid: String,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) counters: Counters,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Messages since `start`, which is the first.
    messages: u64,
    /// Media messages.
    chunks: u64,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Say<'a> {
    Connected {
        protocol: &'static str,
        version: &'static str,
    },
    #[serde(rename_all = "camelCase")]
    Start {
        sequence_number: String,
        start: Start<'a>,
        stream_sid: &'a str,
    },
    #[serde(rename_all = "camelCase")]
    Media {
        sequence_number: String,
        media: Media,
        stream_sid: &'a str,
    },
    #[serde(rename_all = "camelCase")]
    Dtmf {
        stream_sid: &'a str,
        sequence_number: String,
        dtmf: Dtmf,
    },
    #[serde(rename_all = "camelCase")]
    Mark {
        sequence_number: String,
        stream_sid: &'a str,
        mark: Mark<'a>,
    },
    #[serde(rename_all = "camelCase")]
    Stop {
        sequence_number: String,
        stop: Stop<'a>,
        stream_sid: &'a str,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Start<'a> {
    account_sid: &'a str,
    stream_sid: &'a str,
    call_sid: &'a str,
    tracks: [&'static str; 1],
    media_format: MediaFormat,
    custom_parameters: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MediaFormat {
    encoding: &'static str,
    sample_rate: u32,
    channels: u32,
}

#[derive(Serialize)]
struct Media {
    track: &'static str,
    chunk: String,
    timestamp: String,
    payload: String,
}

#[derive(Serialize)]
struct Dtmf {
    track: &'static str,
    digit: String,
}

#[derive(Serialize)]
struct Mark<'a> {
    name: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stop<'a> {
    account_sid: &'a str,
    call_sid: &'a str,
}

impl Say<'_> {
    fn text(&self) -> String {
        serde_json::to_string(self).expect("invariant: text keys and finite numbers only")
    }
}

impl MediaStream {
    /// What comes first: `connected`, then `start`.
    pub(crate) fn opening(&mut self) -> [String; 2] {
        let connected = Say::Connected { protocol: "Call", version: "1.0.0" }.text();
        let start = Say::Start {
            sequence_number: self.counters.message(),
            start: Start {
                account_sid: &self.account_sid,
                stream_sid: &self.stream_sid,
                call_sid: &self.call_sid,
                tracks: ["inbound"],
                media_format: MediaFormat { encoding: "audio/x-mulaw", sample_rate: 8_000, channels: 1 },
                custom_parameters: &self.parameters,
            },
            stream_sid: &self.stream_sid,
        };
        [connected, start.text()]
    }

    /// 20 ms of mu-law at 8 kHz.
    pub(crate) fn media(&mut self, payload: &[u8]) -> String {
        let timestamp = self.counters.chunks * FRAME_MS;
        self.counters.chunks += 1;
        Say::Media {
            sequence_number: self.counters.message(),
            media: Media {
                track: "inbound",
                chunk: self.counters.chunks.to_string(),
                timestamp: timestamp.to_string(),
                payload: encode(payload),
            },
            stream_sid: &self.stream_sid,
        }
        .text()
    }

    pub(crate) fn digit(&mut self, digit: Digit) -> String {
        Say::Dtmf {
            stream_sid: &self.stream_sid,
            sequence_number: self.counters.message(),
            dtmf: Dtmf { track: "inbound_track", digit: digit.key().to_string() },
        }
        .text()
    }

    /// The service's mark, given back.
    pub(crate) fn mark(&mut self, name: &str) -> String {
        let sequence_number = self.counters.message();
        Say::Mark { sequence_number, stream_sid: &self.stream_sid, mark: Mark { name } }.text()
    }

    /// The caller has hung up.
    pub(crate) fn stop(&mut self) -> String {
        let sequence_number = self.counters.message();
        let stop = Stop { account_sid: &self.account_sid, call_sid: &self.call_sid };
        Say::Stop { sequence_number, stop, stream_sid: &self.stream_sid }.text()
    }
}

impl Counters {
    fn message(&mut self) -> String {
        self.messages += 1;
        self.messages.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The documented messages, with other ids:
    /// <https://www.twilio.com/docs/voice/media-streams/websocket-messages>.
    #[test]
    fn the_documented_messages() {
        let mut stream = MediaStream {
            stream_sid: "MZ1".into(),
            call_sid: "CA1".into(),
            account_sid: "AC1".into(),
            parameters: BTreeMap::from([("FirstName".into(), "Jane".into())]),
            counters: Counters::default(),
        };
        #[track_caller]
        fn check(found: &str, expected: Value) {
            assert_eq!(serde_json::from_str::<Value>(found).unwrap(), expected);
        }
        let [connected, start] = stream.opening();
        check(&connected, json!({"event": "connected", "protocol": "Call", "version": "1.0.0"}));
        check(
            &start,
            json!({
                "event": "start", "sequenceNumber": "1", "streamSid": "MZ1",
                "start": {
                    "accountSid": "AC1", "streamSid": "MZ1", "callSid": "CA1", "tracks": ["inbound"],
                    "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                    "customParameters": {"FirstName": "Jane"},
                },
            }),
        );
        for (n, timestamp) in [("2", "0"), ("3", "20")] {
            let chunk = (n.parse::<u32>().unwrap() - 1).to_string();
            check(
                &stream.media(&[0xFF, 0x7F]),
                json!({
                    "event": "media", "sequenceNumber": n, "streamSid": "MZ1",
                    "media": {"track": "inbound", "chunk": chunk, "timestamp": timestamp, "payload": "/38="},
                }),
            );
        }
        check(
            &stream.digit(Digit::new('#').unwrap()),
            json!({
                "event": "dtmf", "sequenceNumber": "4", "streamSid": "MZ1",
                "dtmf": {"track": "inbound_track", "digit": "#"},
            }),
        );
        check(
            &stream.mark("end"),
            json!({"event": "mark", "sequenceNumber": "5", "streamSid": "MZ1", "mark": {"name": "end"}}),
        );
        check(
            &stream.stop(),
            json!({
                "event": "stop", "sequenceNumber": "6", "streamSid": "MZ1",
                "stop": {"accountSid": "AC1", "callSid": "CA1"},
            }),
        );
    }
}
