use std::iter::repeat_n;
use std::num::NonZeroU32;

use proptest::prelude::*;
use streamfleet_session::wire::Failure;

use super::*;
use crate::audio::{AudioRates, LEAD};
use crate::protocol::{BadFrame, Digit};

mod endings;
mod hostile;
mod media;

const RATES: AudioRates = AudioRates { input: 48_000, output: 24_000 };
const START: &str = r#"{"event":"start","websocket_id":"abc"}"#;
const CALL: &str = r#"{"event":"start","streamSid":"MZ1","start":{"callSid":"CA1"}}"#;
const FORMAT: PcmFormat = PcmFormat::mono(24_000);

/// How a client takes what it is sent.
#[derive(Clone, Copy, PartialEq)]
enum Reads {
    AtOnce,
    Never,
}

/// A connection, its time, and a driver as it should be.
struct Drive {
    connection: Connection,
    start: Instant,
    now: Instant,
    reads: Reads,
    /// With the milliseconds since the start.
    sent: Vec<(u128, Transmit)>,
    events: Vec<(u128, Event)>,
    /// Bytes of 20 ms in the codec of `start`; more than any packet of Opus.
    frame: usize,
}

impl Drive {
    fn new(connection: impl FnOnce(Instant, ConnectionLimits) -> Connection) -> Self {
        let now = Instant::now();
        let connection = connection(now, ConnectionLimits::default());
        Self { connection, start: now, now, reads: Reads::AtOnce, sent: Vec::new(), events: Vec::new(), frame: 480 }
    }

    /// An accepted session.
    fn open() -> Self {
        Self::opened(START)
    }

    fn opened(start: &str) -> Self {
        let mut drive = Self::new(Connection::client);
        drive.text(start);
        drive.accept(None)
    }

    fn call() -> Self {
        let mut drive = Self::new(Connection::telephone);
        drive.text(r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#);
        drive.frame = 160;
        drive.text(CALL);
        drive.accept(None)
    }

    fn accept(mut self, token: Option<ResumeToken>) -> Self {
        assert!(matches!(self.events.pop(), Some((_, Event::Start(_)))));
        self.connection.accept(self.now, SocketAudio::new(RATES).unwrap(), token).unwrap();
        self.pull();
        self
    }

    fn text(&mut self, text: &str) {
        self.connection.handle_text(self.now, text);
        self.pull();
    }

    fn say(&mut self, samples: usize) {
        self.connection.send_audio(self.now, &vec![1_000; samples], FORMAT).unwrap();
        self.pull();
    }

    fn finish(&mut self, message: Option<&str>) {
        let message = message.map(|text| ServerMessage::end_stream(Some(text.into())));
        self.connection.finish(self.now, Farewell { reason: CloseReason::EndStream, message });
        self.pull();
    }

    fn at(&self) -> u128 {
        (self.now - self.start).as_millis()
    }

    fn pull(&mut self) {
        let at = self.at();
        loop {
            while let Some(event) = self.connection.poll_event() {
                self.events.push((at, event));
            }
            let Some(transmit) = self.connection.poll_transmit(self.now) else { break };
            self.sent.push((at, transmit));
            if self.reads == Reads::Never {
                break;
            }
            self.connection.transmitted(self.now);
        }
    }

    /// Lets time pass, from timer to timer.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut turns = 0;
        while let Some(due) = self.connection.poll_timeout().filter(|&due| due <= end) {
            // A timer that nothing comes of would keep a core busy.
            turns = if due <= self.now { turns + 1 } else { 0 };
            assert!(turns < 3, "{:?} is asked for again and again", due - self.start);
            self.now = self.now.max(due);
            self.connection.handle_timeout(self.now);
            self.pull();
        }
        self.now = end;
    }

    /// Texts and close codes that were sent, with their times; media are left out.
    fn words(&self) -> Vec<(u128, String)> {
        self.sent
            .iter()
            .filter_map(|(at, transmit)| match transmit {
                Transmit::Text(text) if text.contains(r#""event":"media""#) => None,
                Transmit::Text(text) => Some((*at, text.clone())),
                Transmit::Close(frame) => Some((*at, format!("{} {}", frame.code.as_u16(), frame.reason))),
                Transmit::Ping => Some((*at, "ping".to_owned())),
                Transmit::Binary(_) => None,
            })
            .collect()
    }

    /// When each 20 ms of audio were sent, however many were in one message.
    fn media(&self) -> Vec<u128> {
        let frames = |transmit: &Transmit| match transmit {
            Transmit::Text(text) if text.contains(r#""event":"media""#) => payload(text).len().div_ceil(self.frame),
            Transmit::Binary(bytes) => bytes.len().div_ceil(self.frame),
            _ => 0,
        };
        self.sent.iter().flat_map(|(at, transmit)| repeat_n(*at, frames(transmit))).collect()
    }

    fn end(&self) -> Option<(u128, End)> {
        match self.events.last() {
            Some((at, Event::Ended(end))) => Some((*at, *end)),
            _ => None,
        }
    }

    #[track_caller]
    fn check_words(&self, expected: &[(u128, &str)]) {
        let words = self.words();
        let words: Vec<(u128, &str)> = words.iter().map(|(at, text)| (*at, text.as_str())).collect();
        assert_eq!(words, expected);
    }
}

/// What a media frame carries.
fn payload(text: &str) -> Vec<u8> {
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    crate::payload::decode_strictly(value["media"]["payload"].as_str().unwrap()).unwrap()
}

/// A media frame of so many bytes of silence.
fn media_frame(bytes: usize) -> String {
    crate::protocol::media(&vec![0xff; bytes])
}
