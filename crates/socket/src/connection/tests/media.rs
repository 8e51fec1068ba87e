//! What is said and heard while a session is open.

use super::*;

#[test]
fn a_conversation() {
    let mut drive = Drive::open();
    drive.text(&media_frame(1_500));
    drive.text(&media_frame(420));
    drive.text(r#"{"event":"ping"}"#);
    let frames: Vec<usize> = drive
        .events
        .iter()
        .map(|(_, event)| match event {
            Event::Audio(frame) => frame.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(frames, [960, 960]);
    drive.check_words(&[(0, r#"{"event":"pong"}"#)]);
    drive.say(24_000);
    assert_eq!(drive.media(), [0; 10]);
    drive.run(Duration::from_secs(1));
    assert_eq!(drive.media().len(), 50);
    let Some((_, Transmit::Text(text))) = drive.sent.last() else { panic!() };
    assert_eq!(text.len(), media_frame(480).len());
}

#[test]
fn what_is_due_at_once_goes_in_one_message_of_bounded_length() {
    fn check(start: &str, samples: usize, expected: &[usize]) {
        let mut drive = Drive::opened(start);
        drive.say(samples);
        let lengths: Vec<usize> = drive
            .sent
            .iter()
            .map(|(_, transmit)| match transmit {
                Transmit::Text(text) => payload(text).len(),
                Transmit::Binary(bytes) => bytes.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(lengths, expected, "{start}");
    }
    check(START, 480, &[480]);
    check(START, 960, &[960]);
    // What is not a whole frame waits, and what is further ahead than the client may be.
    check(START, 1_500, &[1_440]);
    check(START, 24_000, &[1_440, 1_440, 1_440, 480]);
    check(r#"{"event":"start","websocket_id":"abc","codec":"pcm16","framing":"binary"}"#, 960, &[1_920]);

    // A packet of Opus is a message.
    let mut drive = Drive::opened(r#"{"event":"start","websocket_id":"abc","codec":"opus","framing":"binary"}"#);
    drive.say(24_000);
    assert_eq!(drive.sent.len(), 10);
}

#[test]
fn formats() {
    fn check(codec: &str, framing: &str, expected: usize) {
        let mut drive = Drive::opened(&format!(
            r#"{{"event":"start","websocket_id":"abc","codec":"{codec}","framing":"{framing}"}}"#
        ));
        drive.say(480);
        drive.run(Duration::from_millis(500));
        let length = match &drive.sent[0].1 {
            Transmit::Binary(bytes) => bytes.len(),
            Transmit::Text(text) => text.len(),
            other => panic!("{other:?}"),
        };
        if codec == "opus" { assert!(length < expected) } else { assert_eq!(length, expected, "{codec} {framing}") }
    }
    let json = |bytes| media_frame(bytes).len();
    check("mulaw", "json", json(480));
    check("mulaw", "binary", 480);
    check("pcm16", "json", json(960));
    check("pcm16", "binary", 960);
    check("opus", "binary", 300);
    check("opus", "json", json(300));
}

#[test]
fn binary_input() {
    let mut drive = Drive::open();
    drive.connection.handle_binary(drive.now, &[0xff; 960]);
    drive.pull();
    assert_eq!(drive.events, [(0, Event::Audio(vec![0; 960]))]);
}

#[test]
fn a_token_is_the_first_thing_said() {
    let mut drive = Drive::new(Connection::client);
    drive.text(r#"{"event":"start","websocket_id":"abc","resume":true}"#);
    let mut drive = drive.accept(Some(ResumeToken::from_random([0xab; 16])));
    drive.say(480);
    let session = r#"{"type":"session","data":{"resume":"abababababababababababababababab","input_sample_rate":48000,"output_sample_rate":24000,"encoding":"mulaw"}}"#;
    assert_eq!(drive.sent[0], (0, Transmit::Text(session.into())));
}

#[test]
fn messages_do_not_wait_behind_audio() {
    let mut drive = Drive::open();
    drive.say(48_000);
    drive.run(Duration::from_millis(100));
    drive.connection.send(drive.now, ServerMessage::FetchOutput);
    drive.pull();
    drive.check_words(&[(100, r#"{"type":"fetch_output","data":[]}"#)]);
}

#[test]
fn interruption() {
    let mut drive = Drive::open();
    drive.say(48_000);
    drive.run(Duration::from_millis(100));
    assert_eq!(drive.connection.clear(drive.now), Duration::from_millis(1_700));
    drive.run(Duration::from_secs(1));
    assert_eq!(drive.media().len(), 15);
    assert_eq!(drive.words(), []);
    // The next reply begins at once.
    drive.say(480);
    assert_eq!(drive.media()[15..], [1_100]);
}

#[test]
fn interruption_of_a_call_takes_back_what_was_sent() {
    let mut drive = Drive::call();
    drive.say(48_000);
    drive.run(Duration::from_millis(100));
    drive.connection.clear(drive.now);
    drive.pull();
    drive.check_words(&[(100, r#"{"event":"clear","streamSid":"MZ1"}"#)]);
    drive.say(4_800);
    assert_eq!(drive.media()[15..], [100; 10]);
    let Some((_, Transmit::Text(text))) = drive.sent.last() else { panic!() };
    // 8 kHz, whatever the handler's rate.
    assert_eq!(*text, crate::protocol::stream_media(&"MZ1".parse().unwrap(), &payload(text)));
    assert_eq!(payload(text).len(), 160);
}

#[test]
fn a_call_has_digits_and_no_messages() {
    let mut drive = Drive::call();
    drive.text(r##"{"event":"dtmf","dtmf":{"digit":"#"}}"##);
    assert_eq!(drive.events, [(0, Event::Digit(Digit::parse("#").unwrap()))]);
    drive.connection.send(drive.now, ServerMessage::Log("pause_detected".into()));
    drive.text(r#"{"event":"media","media":{"track":"outbound","payload":"AAAA"}}"#);
    drive.text(&format!(r#"{{"event":"media","media":{{"payload":"{}"}}}}"#, "/".repeat(216)));
    drive.pull();
    assert_eq!(drive.sent, []);
    // 20 ms at 8 kHz are 20 ms at 48 kHz; what the caller hears is not among them.
    assert!(matches!(&drive.events[1..], [(0, Event::Audio(frame))] if frame.len() == 960));
}

#[test]
fn a_listener_that_answers_pings_may_stay() {
    let mut drive = Drive::open();
    for minute in 0..5 {
        for ping in 0..3 {
            drive.run(Duration::from_secs(20));
            assert_eq!(drive.words().len(), minute * 3 + ping + 1);
            drive.connection.handle_pong(drive.now);
        }
    }
    assert_eq!(drive.end(), None);
    assert!(drive.words().iter().all(|(_, word)| word == "ping"));
}

#[test]
fn who_sends_media_is_not_pinged() {
    let mut drive = Drive::open();
    for _ in 0..500 {
        drive.text(&media_frame(960));
        drive.run(Duration::from_millis(100));
    }
    assert_eq!(drive.words(), []);
}

#[test]
fn a_session_moves_to_another_socket() {
    let mut drive = Drive::open();
    drive.say(24_000);
    drive.connection.handle_disconnect(None);
    drive.pull();
    assert_eq!(drive.end(), Some((0, End::Disconnected)));
    assert!(End::Disconnected.is_recoverable());
    assert!(drive.connection.is_closed());
    let audio = drive.connection.take_audio().unwrap();
    assert!(drive.connection.take_audio().is_none());

    let mut drive = Drive::new(Connection::client);
    drive.text(r#"{"event":"start","websocket_id":"abc","codec":"pcm16"}"#);
    drive.frame = 960;
    drive.connection.accept(drive.now, audio, None).unwrap();
    drive.pull();
    drive.run(Duration::from_secs(2));
    // 200 ms went to the first socket.
    assert_eq!(drive.media().len(), 40);
}

#[test]
fn the_socket_that_was_left_says_goodbye() {
    let mut drive = Drive::open();
    drive.say(24_000);
    assert!(drive.connection.take_audio().is_none());
    assert_eq!(drive.connection.audio().unwrap().output.queued(), Duration::from_millis(800));
    drive.connection.close(drive.now, CloseReason::Moved);
    let audio = drive.connection.take_audio().unwrap();
    assert_eq!(audio.output.queued(), Duration::from_millis(800));
    drive.pull();
    drive.check_words(&[(0, "1000 moved")]);
    assert!(drive.connection.is_closed());
}
