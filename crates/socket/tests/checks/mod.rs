//! What must hold for any input to the parsers of sockets, calls and event streams. The fuzz targets and the replay of their
//! corpus run these same functions.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use streamfleet_audio::PcmFormat;
use streamfleet_session::wire::ServerMessage;
use streamfleet_session::{CloseReason, SessionId};
use streamfleet_socket::frames::{Message, Peek, Trace};
use streamfleet_socket::outputs::{AFTERLIFE, Chunk};
use streamfleet_socket::protocol::BadFrame;
use streamfleet_socket::telephone::{
    CallTokenKey, Forwarded, InvalidCallToken, PublicOrigin, RedeemedTokens, Scheme, TwilioToken, form_parameters,
};
use streamfleet_socket::{
    AudioRates, Connection, ConnectionLimits, Event, Farewell, Opening, Outputs, SocketAudio, Transmit,
};

/// More turns than any input's lines need.
const MAX_TURNS: usize = 100_000;
const RATES: AudioRates = AudioRates { input: 48_000, output: 24_000 };

/// What a client of `{p}/websocket/offer` sends: a line a message, binary where it begins with `#`.
pub(crate) fn client_frames(bytes: &[u8]) {
    let now = Instant::now();
    conversation(now, Connection::client(now, ConnectionLimits::default()), bytes);
}

/// Frames of RFC 6455, as a router reads them: in two pieces, cut where the first octet says, the same messages as in one; what is
/// passed on is what came; and where a frame ends is seen without reading it.
pub(crate) fn socket_frames(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let (first, second) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(messages(&[first, second]), messages(&[bytes]));
    let mut peek = Peek::default();
    peek.feed(bytes);
    if let Ok(Some(message @ (Message::Text(_) | Message::Binary(_)))) = peek.poll() {
        let mut again = Peek::default();
        again.feed(&peek.into_rest());
        assert_eq!(again.poll(), Ok(Some(message)), "what is passed on says the same");
    }
    let trace = |pieces: &[&[u8]]| {
        let mut trace = Trace::default();
        pieces.iter().for_each(|piece| trace.pass(piece));
        (trace.is_between_frames(), trace.has_ended(), trace.close_code())
    };
    assert_eq!(trace(&[first, second]), trace(&[bytes]));
}

/// What is read of these pieces, why it ends, and what is left.
fn messages(pieces: &[&[u8]]) -> (Vec<Message>, Option<BadFrame>, Vec<u8>) {
    let (mut peek, mut found) = (Peek::default(), Vec::new());
    for piece in pieces {
        peek.feed(piece);
        loop {
            match peek.poll() {
                Ok(Some(message)) => found.push(message),
                Ok(None) => break,
                Err(error) => return (found, Some(error), Vec::new()),
            }
        }
    }
    (found, None, peek.into_rest())
}

/// The same from a telephone company.
pub(crate) fn twilio_frames(bytes: &[u8]) {
    let now = Instant::now();
    conversation(now, Connection::telephone(now, ConnectionLimits::default()), bytes);
}

/// A driver as it should be: 20 ms between two messages, every session taken, and at last an end.
fn conversation(mut now: Instant, mut connection: Connection, bytes: &[u8]) {
    let mut seen = Seen::default();
    for line in bytes.split(|byte| *byte == b'\n').take(2_000) {
        match (line.strip_prefix(b"#"), std::str::from_utf8(line)) {
            (Some(binary), _) => connection.handle_binary(now, binary),
            (None, Ok(text)) => connection.handle_text(now, text),
            // The library under the driver closes for it.
            (None, Err(_)) => connection.handle_disconnect(None),
        }
        seen.pull(now, &mut connection);
        // What a handler says meanwhile; after the end nobody takes it.
        let _ = connection.send_audio(now, &[1_000; 480], PcmFormat::mono(24_000));
        now += Duration::from_millis(20);
        connection.handle_timeout(now);
        seen.pull(now, &mut connection);
    }
    let message = Some(ServerMessage::end_stream(None));
    connection.finish(now, Farewell { reason: CloseReason::EndStream, message });
    for _ in 0..MAX_TURNS {
        seen.pull(now, &mut connection);
        if connection.is_closed() {
            return;
        }
        let next = connection.poll_timeout().expect("what is not closed wants to be called again");
        now = next.max(now + Duration::from_millis(1));
        connection.handle_timeout(now);
    }
    panic!("it does not end");
}

/// What a connection has done.
#[derive(Default)]
struct Seen {
    started: bool,
    ended: bool,
    closed: bool,
}

impl Seen {
    fn pull(&mut self, now: Instant, connection: &mut Connection) {
        for _ in 0..MAX_TURNS {
            if let Some(event) = connection.poll_event() {
                self.event(now, connection, event);
            } else if let Some(transmit) = connection.poll_transmit(now) {
                self.transmit(&transmit);
                connection.transmitted(now);
            } else {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn event(&mut self, now: Instant, connection: &mut Connection, event: Event) {
        assert!(!self.ended, "{event:?} after the end");
        match event {
            Event::Start(opening) => {
                assert!(!self.started, "a second start");
                self.started = true;
                let id = match &opening {
                    Opening::Client(start) => &start.id,
                    Opening::Call(start) => &start.stream_sid,
                };
                assert_eq!(id.as_str().parse::<SessionId>().as_ref(), Ok(id));
                let audio = SocketAudio::new(RATES).expect("an encoder can be made");
                connection.accept(now, audio, None).expect("a decoder can be made");
            }
            Event::Audio(samples) => {
                assert!(self.started, "audio of nobody");
                assert!((1..=960).contains(&samples.len()), "{} samples", samples.len());
            }
            Event::Digit(_) => assert!(self.started, "a key of nobody"),
            Event::Ended(_) => self.ended = true,
        }
    }

    fn transmit(&mut self, transmit: &Transmit) {
        assert!(!self.closed, "{transmit:?} after the close frame");
        match transmit {
            Transmit::Text(text) => {
                let value: Value = serde_json::from_str(text).expect("what is sent is JSON");
                assert!(value.is_object(), "{text}");
            }
            Transmit::Binary(payload) => assert!(!payload.is_empty(), "an empty frame"),
            Transmit::Ping => {}
            Transmit::Close(frame) => {
                // RFC 6455, 5.5: a control frame has at most 125 octets.
                assert!(frame.reason.len() <= 123, "{}", frame.reason);
                self.closed = true;
            }
        }
    }
}

/// What a request for TwiML says of itself: seven lines, four of them headers; then a signature, a token and the form.
pub(crate) fn webhook(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.splitn(7, '\n');
    let mut line = || lines.next().filter(|line| !line.is_empty());
    let headers = Forwarded { proto: line(), forwarded_host: line(), port: line(), host: line() };
    let (signature, token) = (line().unwrap_or_default(), line().unwrap_or_default());
    let form = form_parameters(line().unwrap_or_default().as_bytes());
    if let Ok(origin) = PublicOrigin::parse(headers, Scheme::Http) {
        let url = origin.url("/p/telephone/incoming");
        assert!(url.starts_with("http://") || url.starts_with("https://"), "{url}");
        // It goes into an attribute of XML, and is signed.
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'&' | b'\\' | b'@');
        assert!(url.bytes().all(plain), "{url:?}");
        let (_, authority) = url.split_once("://").expect("a scheme");
        assert!(authority.ends_with("/p/telephone/incoming") && !authority.starts_with('/'), "{url}");
        assert_eq!(origin.stream_url("/h"), format!("wss://{origin}/h"));
        // Nobody who does not know the token can sign.
        assert!(TwilioToken::new("the account's token").verify(&url, &form, signature).is_err());
    }
    let key = CallTokenKey::new("the account's token");
    let redeemed = RedeemedTokens::default().redeem(&key, "CA1", token, Duration::from_secs(1_000));
    assert_eq!(redeemed, Err(InvalidCallToken::Invalid));
    assert_eq!(key.verify_return("CA1", token), None);
}

/// A `Last-Event-ID`, against histories of every kind: each output once and in order, and then an end.
pub(crate) fn last_event_id(bytes: &[u8]) {
    let header = String::from_utf8_lossy(bytes);
    // As it is, and behind the mark without which nothing is an id.
    for header in [header.clone().into_owned(), format!("0000beef-{header}")] {
        last_event_id_of(0xbeef, &header);
    }
}

fn last_event_id_of(mark: u32, header: &str) {
    let now = Instant::now();
    for count in [0_u64, 1, 3, 300] {
        let mut outputs = Outputs::new(mark);
        for n in 1..=count {
            assert_eq!(outputs.push(&[json!({ "n": n, "text": "a\nb" })]), Ok(n));
        }
        let open = outputs.open(now, Some(header)).expect("a session that lives is listened to");
        outputs.end(now);
        assert_eq!(outputs.expires_at(), Some(now + AFTERLIFE));
        let mut ids = Vec::new();
        let mut cursor = open;
        loop {
            match cursor.poll(&outputs, now) {
                Chunk::Text(text) => {
                    assert!(text.ends_with("\n\n"), "{text:?}");
                    ids.extend(
                        text.lines()
                            .filter_map(|line| line.strip_prefix(&format!("id: {mark:08x}-"))?.parse::<u64>().ok()),
                    );
                }
                Chunk::Wait(_) => panic!("nothing comes after the end"),
                Chunk::End => break,
            }
        }
        assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ids:?}");
        assert!(ids.last().is_none_or(|last| *last == count), "{ids:?}");
        // Only who has seen the last one is told that there is nothing more.
        let number = header.trim().strip_prefix(&format!("{mark:08x}-"));
        let seen_all = number.is_some_and(|number| number.parse() == Ok(count)) || count == 0;
        assert_eq!(outputs.open(now, Some(header)).is_none(), seen_all, "{header:?} of {count}");
        assert_eq!(ids.is_empty(), seen_all, "{header:?} of {count}");
    }
}
