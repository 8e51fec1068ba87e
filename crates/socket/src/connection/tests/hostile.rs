//! Clients that are broken, slow or worse.

use super::*;

#[test]
fn bad_frames_close_with_a_reason() {
    fn check(input: &str, message: &str, close: &str) {
        let mut drive = Drive::open();
        drive.text(input);
        let error = ServerMessage::Error(message.into()).to_json();
        drive.check_words(&[(0, &error), (0, close)]);
        assert_eq!(drive.end(), Some((0, End::BadInput)));
        assert!(drive.connection.is_closed());
    }
    check("hello", "a text message must be JSON", "1007 bad_input");
    check("{}", "a message must have a string \"event\"", "1008 bad_input");
    check(r#"{"event":"media","media":{"payload":"*"}}"#, "a payload must be base64", "1007 bad_input");
    check(START, "\"start\" may come only once", "1008 bad_input");
    check(&" ".repeat((256 << 10) + 1), "a message must be at most 262144 bytes long", "1009 bad_input");

    let mut drive = Drive::opened(r#"{"event":"start","websocket_id":"abc","codec":"pcm16"}"#);
    drive.connection.handle_binary(drive.now, &[0; 641]);
    drive.pull();
    let error = r#"{"type":"error","message":"pcm16 must have an even number of bytes"}"#;
    drive.check_words(&[(0, error), (0, "1007 bad_input")]);

    for (error, close) in [(BadFrame::TooLarge, "1009"), (BadFrame::Malformed, "1002"), (BadFrame::NotUtf8, "1007")] {
        let mut drive = Drive::open();
        drive.connection.handle_unreadable(drive.now, &error);
        drive.pull();
        drive.check_words(&[(0, &error.to_json()), (0, &format!("{close} bad_input"))]);
        assert_eq!(drive.end(), Some((0, End::BadInput)));
    }

    // Twilio is told nothing but the code.
    let mut call = Drive::call();
    call.text("hello");
    call.check_words(&[(0, "1007 bad_input")]);
}

#[test]
fn before_the_start() {
    let mut drive = Drive::new(Connection::client);
    drive.text(&media_frame(960));
    drive.connection.handle_binary(drive.now, &[0; 3]);
    drive.text(r#"{"event":"other"}"#);
    assert_eq!(drive.events, []);
    drive.text(r#"{"event":"ping"}"#);
    drive.check_words(&[(0, r#"{"event":"pong"}"#)]);
    assert!(drive.connection.send_audio(drive.now, &[0; 480], FORMAT).is_err());
    drive.text(START);
    // Not decided yet: what comes is nobody's.
    drive.text(&media_frame(960));
    let mut drive = drive.accept(None);
    drive.text(&media_frame(960));
    assert_eq!(drive.events.len(), 1);
}

#[test]
fn no_start() {
    let mut drive = Drive::new(Connection::client);
    drive.run(Duration::from_secs(29));
    assert_eq!(drive.words(), []);
    drive.run(Duration::from_secs(2));
    drive.check_words(&[(30_000, r#"{"type":"error","message":"no \"start\" came"}"#), (30_000, "1008 start_timeout")]);
    assert_eq!(drive.end(), Some((30_000, End::StartTimeout)));

    let mut call = Drive::new(Connection::telephone);
    call.run(Duration::from_secs(31));
    call.check_words(&[(30_000, "1008 start_timeout")]);
}

#[test]
fn a_dead_client() {
    let mut drive = Drive::open();
    drive.run(Duration::from_secs(100));
    drive.check_words(&[(20_000, "ping"), (40_000, "ping"), (60_000, "1001 silent")]);
    assert_eq!(drive.end(), Some((60_000, End::Silent)));
    assert!(drive.connection.is_closed());
}

#[test]
fn a_dead_client_and_a_driver_that_is_late() {
    let mut drive = Drive::open();
    drive.now += Duration::from_secs(25);
    drive.connection.handle_timeout(drive.now);
    drive.pull();
    drive.run(Duration::from_secs(100));
    drive.check_words(&[(25_000, "ping"), (45_000, "ping"), (60_000, "1001 silent")]);
}

#[test]
fn a_client_that_does_not_read() {
    let mut drive = Drive::open();
    drive.reads = Reads::Never;
    drive.say(24_000);
    assert_eq!(drive.sent.len(), 1);
    drive.run(Duration::from_secs(9));
    assert_eq!(drive.end(), None);
    drive.run(Duration::from_secs(20));
    assert_eq!(drive.end(), Some((10_000, End::SlowClient)));
    assert_eq!(End::SlowClient.as_str(), "slow_client");
    // The close frame never went out either, and is not waited for.
    assert!(drive.connection.is_closed());
    assert_eq!(drive.sent.len(), 1);
}

#[test]
fn a_client_that_reads_too_late_is_told() {
    let mut drive = Drive::open();
    drive.reads = Reads::Never;
    drive.say(24_000);
    drive.run(Duration::from_secs(12));
    drive.reads = Reads::AtOnce;
    drive.connection.transmitted(drive.now);
    drive.pull();
    drive.check_words(&[(12_000, "1008 slow_client")]);
}

#[test]
fn messages_to_a_client_that_does_not_read_are_bounded() {
    let mut drive = Drive::open();
    drive.reads = Reads::Never;
    for _ in 0..200 {
        drive.connection.send(drive.now, ServerMessage::FetchOutput);
        drive.pull();
    }
    assert_eq!(drive.end(), Some((0, End::SlowClient)));

    let mut drive = Drive::open();
    drive.reads = Reads::Never;
    for _ in 0..5 {
        drive.connection.send(drive.now, ServerMessage::Log("x".repeat(300_000)));
        drive.pull();
    }
    assert_eq!(drive.end(), Some((0, End::SlowClient)));
}

#[test]
fn a_stall_delays_audio_and_loses_none() {
    let mut drive = Drive::open();
    drive.say(24_000);
    drive.run(Duration::from_millis(100));
    drive.reads = Reads::Never;
    drive.run(Duration::from_secs(5));
    drive.reads = Reads::AtOnce;
    drive.connection.transmitted(drive.now);
    drive.pull();
    drive.run(Duration::from_secs(2));
    assert_eq!(drive.media().len(), 50);
}

#[derive(Debug, Clone)]
enum Step {
    Text(String),
    Binary(Vec<u8>),
    Wait(u64),
    Say(usize),
    Message,
    Clear,
    Finish,
    Close,
    Accept,
    Refuse,
    Stall,
    Read,
    Pong,
}

fn step() -> impl Strategy<Value = Step> {
    let text = prop_oneof![
        Just(START.to_owned()),
        Just(CALL.to_owned()),
        Just(r#"{"event":"start","websocket_id":"a","codec":"opus","framing":"binary"}"#.to_owned()),
        Just(r#"{"event":"ping"}"#.to_owned()),
        Just(r#"{"event":"dtmf","dtmf":{"digit":"1"}}"#.to_owned()),
        Just(r#"{"event":"mark","mark":{"name":"streamfleet-end"}}"#.to_owned()),
        (0usize..5_000).prop_map(media_frame),
        "\\PC{0,20}",
    ];
    prop_oneof![
        6 => text.prop_map(Step::Text),
        1 => proptest::collection::vec(any::<u8>(), 0..400).prop_map(Step::Binary),
        6 => (0u64..3_000).prop_map(Step::Wait),
        1 => Just(Step::Wait(61_000)),
        4 => (0usize..40_000).prop_map(Step::Say),
        2 => Just(Step::Message),
        1 => Just(Step::Clear),
        1 => Just(Step::Finish),
        1 => Just(Step::Close),
        4 => Just(Step::Accept),
        1 => Just(Step::Refuse),
        1 => Just(Step::Stall),
        2 => Just(Step::Read),
        2 => Just(Step::Pong),
    ]
}

proptest! {
    /// Whatever comes in whatever order: no panic, no timer that spins (see `Drive::run`), one end, nothing after it,
    /// and an end to every connection that is left alone.
    #[test]
    fn anything_in_any_order(steps in proptest::collection::vec(step(), 0..40), is_call in any::<bool>()) {
        let mut drive = Drive::new(if is_call { Connection::telephone } else { Connection::client });
        for step in steps {
            match step {
                Step::Text(text) => drive.connection.handle_text(drive.now, &text),
                Step::Binary(bytes) => drive.connection.handle_binary(drive.now, &bytes),
                Step::Wait(time) => drive.run(Duration::from_millis(time)),
                Step::Say(samples) => {
                    let _ = drive.connection.send_audio(drive.now, &vec![9; samples], FORMAT);
                }
                Step::Message => drive.connection.send(drive.now, ServerMessage::FetchOutput),
                Step::Clear => { drive.connection.clear(drive.now); }
                Step::Finish => drive.connection.finish(
                    drive.now,
                    Farewell { reason: CloseReason::EndStream, message: Some(ServerMessage::end_stream(None)) },
                ),
                Step::Close => drive.connection.close(drive.now, CloseReason::Shutdown),
                Step::Accept => {
                    drive.connection.accept(drive.now, SocketAudio::new(RATES).unwrap(), None).unwrap();
                }
                Step::Refuse => drive.connection.refuse(drive.now, Failure::Draining),
                Step::Stall => drive.reads = Reads::Never,
                Step::Read => {
                    drive.reads = Reads::AtOnce;
                    drive.connection.transmitted(drive.now);
                }
                Step::Pong => drive.connection.handle_pong(drive.now),
            }
            drive.pull();
        }
        // Whoever waits for a decision gets one; whoever is left alone is silent.
        drive.connection.refuse(drive.now, Failure::Draining);
        drive.pull();
        drive.run(Duration::from_secs(200));
        prop_assert!(drive.connection.is_closed());
        prop_assert_eq!(drive.connection.poll_timeout(), None);
        let ends = drive.events.iter().filter(|(_, event)| matches!(event, Event::Ended(_))).count();
        prop_assert_eq!(ends, 1);
        prop_assert!(matches!(drive.events.last(), Some((_, Event::Ended(_)))));
        let closes = drive.sent.iter().filter(|(_, transmit)| matches!(transmit, Transmit::Close(_))).count();
        prop_assert!(closes <= 1);
        if closes == 1 {
            prop_assert!(matches!(drive.sent.last(), Some((_, Transmit::Close(_)))));
        }
    }

    /// What a client has been sent is never further ahead of its clock than the lead, through any stalls.
    #[test]
    fn never_ahead(steps in proptest::collection::vec((0usize..30_000, 0u64..700, any::<bool>()), 1..30)) {
        let mut drive = Drive::open();
        for (samples, wait, stalls) in steps {
            drive.reads = if stalls { Reads::Never } else { Reads::AtOnce };
            if !stalls {
                drive.connection.transmitted(drive.now);
            }
            let _ = drive.connection.send_audio(drive.now, &vec![9; samples], FORMAT);
            drive.pull();
            drive.run(Duration::from_millis(wait));
            drive.connection.handle_pong(drive.now);
        }
        // A client that starts to play with the first frame and pauses when it has none.
        let mut plays_until = Duration::ZERO;
        for (at, transmit) in &drive.sent {
            let Transmit::Text(text) = transmit else { continue };
            let bytes = text.len() - media_frame(0).len();
            let at = Duration::from_millis(*at as u64);
            plays_until = plays_until.max(at) + FORMAT.duration(bytes / 4 * 3);
            // Times are rounded down to milliseconds, bytes up to base64's groups.
            prop_assert!(plays_until <= at + LEAD + Duration::from_millis(2), "{plays_until:?} at {at:?}");
        }
    }
}
