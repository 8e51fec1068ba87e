//! One call on a socket, without the socket and without a clock: audio and words both ways.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use streamfleet_audio::{AudioError, PcmFormat, ReceiverStats};

use super::decoder::Decoder;
use super::options::{Framing, Rates, SampleRate, SocketCodec, SocketOptions};
use super::playout::{Played, Playout};
use super::uplink::{Idle, Uplink};
use super::words::{self, Frame, Heard, Say};
use crate::error::{ClientError, Refusal};
use crate::media::AudioChunk;
use crate::message::Message;
use crate::options::Resume;
use crate::phone::options::Digit;
use crate::phone::words::MediaStream;

/// How often the round trip is measured.
const PING_EVERY: Duration = Duration::from_secs(2);
/// Words that wait to be sent: marks given back by a `clear`, and keys.
const MAX_WORDS: usize = 512;

/// Whose frames are spoken.
pub(crate) enum Dialect {
    /// FastRTC's own.
    Plain(Framing),
    /// A telephone company's.
    Phone(MediaStream),
}

/// Something that the outside has to know.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum News {
    Session(Resume),
    Refused(Refusal),
    /// What was not yet heard has been taken back.
    Cleared,
    Message(Message),
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) malformed: u64,
    pub(crate) first_received: Option<Instant>,
    pub(crate) round_trip: Option<Duration>,
}

/// The call.
pub(crate) struct Talk {
    dialect: Dialect,
    uplink: Uplink,
    decoder: Decoder,
    playout: Playout,
    delay: Duration,
    out: VecDeque<Frame>,
    next_ping: Instant,
    pinged: Option<Instant>,
    payload: Vec<u8>,
    counters: Counters,
}

impl Talk {
    /// A call of FastRTC's kind, which begins at `now`.
    pub(crate) fn plain(options: &SocketOptions, rates: Rates, now: Instant) -> Result<Self, ClientError> {
        let uplink = Uplink::new(options.codec, rates.input, Idle::Quiet)?;
        let decoder = Decoder::new(options.codec, rates.output).map_err(audio)?;
        Ok(Self::new(Dialect::Plain(options.framing), uplink, decoder, options.delay, now))
    }

    /// A telephone call, which begins at `now`.
    pub(crate) fn phone(stream: MediaStream, delay: Duration, now: Instant) -> Result<Self, ClientError> {
        let uplink = Uplink::new(SocketCodec::MuLaw, SampleRate::TELEPHONE, Idle::Silence)?;
        let decoder = Decoder::new(SocketCodec::MuLaw, SampleRate::TELEPHONE).map_err(audio)?;
        Ok(Self::new(Dialect::Phone(stream), uplink, decoder, delay, now))
    }

    fn new(dialect: Dialect, mut uplink: Uplink, decoder: Decoder, delay: Duration, now: Instant) -> Self {
        uplink.begin(now);
        Self {
            dialect,
            uplink,
            playout: Playout::new(decoder.format(), delay),
            decoder,
            delay,
            out: VecDeque::new(),
            next_ping: now + PING_EVERY,
            pinged: None,
            payload: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// The format of received audio.
    pub(crate) fn format(&self) -> PcmFormat {
        self.decoder.format()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.uplink.has_room()
    }

    pub(crate) fn push(&mut self, now: Instant, samples: &[i16], format: PcmFormat) -> Result<(), AudioError> {
        self.uplink.push(now, samples, format)
    }

    pub(crate) fn flush(&mut self) {
        self.uplink.flush();
    }

    pub(crate) fn clear(&mut self) {
        self.uplink.clear();
    }

    /// A key is pressed. Only telephones have them.
    pub(crate) fn digit(&mut self, digit: Digit) {
        if let Dialect::Phone(stream) = &mut self.dialect {
            let text = stream.digit(digit);
            self.say(text);
        }
    }

    /// The call goes on over a new socket, which was sent a ping at `pinged`.
    pub(crate) fn attached(&mut self, pinged: Instant) {
        self.counters.first_received = None;
        self.pinged = Some(pinged);
        self.next_ping = pinged + PING_EVERY;
    }

    /// Takes a frame of the server.
    pub(crate) fn handle_frame(&mut self, now: Instant, frame: &Frame) -> Option<News> {
        let heard = match frame {
            Frame::Text(text) => match &self.dialect {
                Dialect::Plain(_) => words::read(text),
                Dialect::Phone(stream) => words::read_on(text, &stream.stream_sid),
            },
            Frame::Binary(payload) => Heard::Media(payload.clone()),
        };
        match heard {
            Heard::Media(payload) => {
                self.counters.received += 1;
                self.counters.first_received.get_or_insert(now);
                match self.decoder.decode(&payload) {
                    Some(samples) => self.playout.push(now, samples),
                    None => self.counters.malformed += 1,
                }
                None
            }
            Heard::Pong => {
                if let Some(sent) = self.pinged.take() {
                    self.counters.round_trip = Some(now.saturating_duration_since(sent));
                }
                None
            }
            Heard::Mark(name) => {
                if matches!(self.dialect, Dialect::Phone(_)) {
                    self.playout.mark(name);
                }
                None
            }
            Heard::Clear => {
                let marks = self.playout.clear();
                // As documented: the marks of what is taken back come back at once.
                marks.iter().for_each(|name| self.mark_reached(name));
                Some(News::Cleared)
            }
            // Its rates were looked at when the socket was attached.
            Heard::Session(token, _) => Some(News::Session(token)),
            Heard::Refused(refusal) => Some(News::Refused(refusal)),
            Heard::Message(message) => Some(News::Message(message)),
        }
    }

    /// When to come back, once [`Self::poll_chunk`] and [`Self::poll_frame`] have nothing more.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let ping = matches!(self.dialect, Dialect::Plain(_)).then_some(self.next_ping);
        [self.uplink.poll_timeout(), self.playout.poll_timeout(), ping].into_iter().flatten().min()
    }

    /// The next piece of audio whose time has come.
    pub(crate) fn poll_chunk(&mut self, now: Instant) -> Option<AudioChunk> {
        loop {
            match self.playout.poll(now)? {
                Played::Audio(chunk) => return Some(chunk),
                Played::Mark(name) => self.mark_reached(&name),
            }
        }
    }

    /// The next frame to send.
    pub(crate) fn poll_frame(&mut self, now: Instant) -> Option<Frame> {
        if let Some(frame) = self.out.pop_front() {
            return Some(frame);
        }
        if matches!(self.dialect, Dialect::Plain(_)) && self.next_ping <= now {
            self.next_ping = now + PING_EVERY;
            // One that is not answered yet measures the same.
            if self.pinged.is_none() {
                self.pinged = Some(now);
                return Some(Frame::Text(Say::Ping.text()));
            }
        }
        self.uplink.poll(now, &mut self.payload)?;
        self.counters.sent += 1;
        Some(match &mut self.dialect {
            Dialect::Plain(framing) => words::media(&self.payload, *framing),
            Dialect::Phone(stream) => Frame::Text(stream.media(&self.payload)),
        })
    }

    /// The last frame of a client that hangs up.
    pub(crate) fn goodbye(&mut self) -> Frame {
        Frame::Text(match &mut self.dialect {
            Dialect::Plain(_) => Say::Stop.text(),
            Dialect::Phone(stream) => stream.stop(),
        })
    }

    /// When everything that has come will have been heard.
    pub(crate) fn played_out(&self) -> Option<Instant> {
        self.playout.end()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// Frames that were dropped because the server was too far ahead.
    pub(crate) fn dropped(&self) -> u64 {
        self.playout.counters().dropped
    }

    pub(crate) fn receiver_stats(&self) -> ReceiverStats {
        let playout = self.playout.counters();
        let mut stats = ReceiverStats::default();
        stats.received = self.counters.received;
        stats.malformed = self.counters.malformed;
        stats.flushed = playout.dropped;
        stats.played = playout.played;
        stats.concealed_time = playout.gaps;
        stats.target_delay = self.delay;
        stats
    }

    fn mark_reached(&mut self, name: &str) {
        if let Dialect::Phone(stream) = &mut self.dialect {
            let text = stream.mark(name);
            self.say(text);
        }
    }

    fn say(&mut self, text: String) {
        if self.out.len() == MAX_WORDS {
            tracing::warn!("too many words wait for the socket: one is forgotten");
            return;
        }
        self.out.push_back(Frame::Text(text));
    }
}

fn audio(error: opus::Error) -> ClientError {
    ClientError::Decoder(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phone::options::PhoneOptions;
    use crate::socket::options::Said;
    use serde_json::{Value, json};
    use streamfleet_audio::analysis::tone_level;
    use streamfleet_audio::tone::Tone;

    const MS: Duration = Duration::from_millis(1);

    fn options() -> SocketOptions {
        SocketOptions::new("http://h".parse().unwrap())
    }

    fn plain(now: Instant) -> Talk {
        let options = options();
        Talk::plain(&options, options.rates(Said::default()).unwrap(), now).unwrap()
    }

    fn phone(now: Instant) -> Talk {
        let mut options = PhoneOptions::new("http://h".parse().unwrap());
        options.stream_sid = "MZ1".parse().unwrap();
        Talk::phone(options.stream(), Duration::ZERO, now).unwrap()
    }

    fn text(value: Value) -> Frame {
        Frame::Text(value.to_string())
    }

    fn parse(frame: &Frame) -> Value {
        let Frame::Text(text) = frame else { panic!("{frame:?}") };
        serde_json::from_str(text).unwrap()
    }

    /// A tone through a server that sends every frame back, at any codec.
    #[test]
    fn a_tone_comes_back() {
        for codec in [SocketCodec::MuLaw, SocketCodec::Pcm16, SocketCodec::Opus] {
            for framing in [Framing::Json, Framing::Binary] {
                let options = SocketOptions { codec, framing, ..options() };
                let start = Instant::now();
                let rate = SampleRate::new(48_000).unwrap();
                let mut talk = Talk::plain(&options, Rates { input: rate, output: rate }, start).unwrap();
                let mut tone = vec![0; 24_000];
                Tone::new(24_000, 440.0, -15.0).fill(&mut tone);
                talk.push(start, &tone, PcmFormat::mono(24_000)).unwrap();
                let mut heard = Vec::new();
                for ms in 0..1_200 {
                    let now = start + MS * ms;
                    while let Some(frame) = talk.poll_frame(now) {
                        assert_eq!(talk.handle_frame(now, &frame), None);
                    }
                    while let Some(chunk) = talk.poll_chunk(now) {
                        assert_eq!(chunk.format, PcmFormat::mono(48_000));
                        heard.extend(chunk.samples);
                    }
                }
                let level = tone_level(&heard[12_000..36_000], 48_000, 440.0);
                assert!((level + 15.0).abs() < 1.0, "{codec:?} {framing:?}: {level} dBFS");
                let counters = talk.counters();
                assert!(counters.sent >= 49 && counters.sent == counters.received, "{counters:?}");
                assert_eq!(talk.receiver_stats().concealed_time, Duration::ZERO);
            }
        }
    }

    #[test]
    fn the_round_trip_is_measured_and_only_one_ping_is_under_way() {
        let start = Instant::now();
        let mut talk = plain(start);
        let at = |ms| start + MS * ms;
        assert_eq!(talk.poll_timeout(), Some(at(2_000)));
        assert_eq!(talk.poll_frame(at(1_999)), None);
        assert_eq!(talk.poll_frame(at(2_000)), Some(text(json!({"event": "ping"}))));
        assert_eq!(talk.poll_frame(at(4_000)), None);
        talk.handle_frame(at(5_500), &text(json!({"event": "pong"})));
        assert_eq!(talk.counters().round_trip, Some(MS * 3_500));
        talk.handle_frame(at(5_600), &text(json!({"event": "pong"})));
        assert_eq!(talk.counters().round_trip, Some(MS * 3_500), "nobody asked");
        assert!(talk.poll_frame(at(6_000)).is_some());
    }

    #[test]
    fn news() {
        let now = Instant::now();
        let mut talk = plain(now);
        let token = Resume::new("T").unwrap();
        let session = json!({"type": "session", "data": {"resume": "T"}});
        assert_eq!(talk.handle_frame(now, &text(session)), Some(News::Session(token)));
        let log = json!({"type": "log", "data": "pause_detected"});
        assert_eq!(talk.handle_frame(now, &text(log)), Some(News::Message(Message::Log("pause_detected".into()))));
        let failed = json!({"status": "failed", "meta": {"error": "no"}});
        assert!(matches!(talk.handle_frame(now, &text(failed)), Some(News::Refused(_))));
    }

    #[test]
    fn a_telephone_gives_marks_back_when_they_are_heard() {
        let start = Instant::now();
        let mut talk = phone(start);
        let mark = |name: &str| text(json!({"event": "mark", "streamSid": "MZ1", "mark": {"name": name}}));
        let payload = |ms: usize| words::encode(&vec![0xFF; 8 * ms]);
        let media = |ms: usize| text(json!({"event": "media", "streamSid": "MZ1", "media": {"payload": payload(ms)}}));
        talk.handle_frame(start, &media(100));
        talk.handle_frame(start, &mark("a"));
        talk.handle_frame(start, &media(1_000));
        talk.handle_frame(start, &mark("b"));
        let mut marks = Vec::new();
        for ms in 0..400 {
            let now = start + MS * ms;
            if ms == 300 {
                assert_eq!(
                    talk.handle_frame(now, &text(json!({"event": "clear", "streamSid": "MZ1"}))),
                    Some(News::Cleared)
                );
                assert_eq!(talk.played_out(), None);
            }
            while talk.poll_chunk(now).is_some() {}
            while let Some(frame) = talk.poll_frame(now) {
                let value = parse(&frame);
                if value["event"] == "mark" {
                    marks.push((ms, value["mark"]["name"].as_str().unwrap().to_owned()));
                }
            }
        }
        assert_eq!(marks, [(100, "a".to_owned()), (300, "b".to_owned())]);
    }

    #[test]
    fn a_telephone_sends_silence_and_keys_and_no_pings() {
        let start = Instant::now();
        let mut talk = phone(start);
        talk.digit(Digit::new('7').unwrap());
        let mut events = Vec::new();
        for ms in 0..3_000 {
            while let Some(frame) = talk.poll_frame(start + MS * ms) {
                events.push(parse(&frame)["event"].as_str().unwrap().to_owned());
            }
        }
        assert_eq!((events[0].as_str(), events.len()), ("dtmf", 151));
        assert!(events[1..].iter().all(|event| event == "media"));
        assert_eq!(parse(&talk.goodbye())["event"], "stop");
    }
}
