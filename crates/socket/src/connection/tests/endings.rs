//! How it ends.

use super::*;

#[test]
fn end_stream_plays_to_the_last_sample() {
    let mut drive = Drive::open();
    drive.say(24_100);
    drive.run(Duration::from_millis(50));
    drive.finish(Some("bye"));
    assert!(drive.connection.send_audio(drive.now, &[0; 480], FORMAT).is_err());
    drive.run(Duration::from_secs(5));
    // 24 100 samples are 1 004.2 ms, and the client has had the first at 0.
    drive.check_words(&[(1_004, r#"{"type":"end_stream","data":"bye"}"#), (1_004, "1000 end_stream")]);
    assert_eq!(drive.media().len(), 51);
    assert_eq!(drive.end(), Some((1_004, End::Session(CloseReason::EndStream))));
    assert!(drive.connection.is_closed());
    assert_eq!(drive.connection.poll_timeout(), None);
}

#[test]
fn end_stream_in_silence_is_prompt() {
    let mut drive = Drive::open();
    drive.run(Duration::from_millis(50));
    drive.finish(None);
    drive.check_words(&[(50, "1000 end_stream")]);
    assert_eq!(drive.end(), Some((50, End::Session(CloseReason::EndStream))));
}

#[test]
fn a_call_ends_when_its_last_mark_comes_back() {
    let mark = r#"{"event":"mark","mark":{"name":"streamfleet-end"},"streamSid":"MZ1"}"#;
    let mut drive = Drive::call();
    drive.say(24_000);
    drive.finish(Some("bye"));
    drive.run(Duration::from_millis(900));
    // After the last frame: the 3 ms by which the filter is behind.
    drive.check_words(&[(820, mark)]);
    drive.run(Duration::from_millis(200));
    drive.text(r#"{"event":"mark","mark":{"name":"another"}}"#);
    drive.run(Duration::ZERO);
    assert_eq!(drive.end(), None);
    drive.text(mark);
    drive.run(Duration::ZERO);
    drive.check_words(&[(820, mark), (1_100, "1000 end_stream")]);
}

#[test]
fn a_silent_call_is_asked_too() {
    let mut drive = Drive::call();
    drive.run(Duration::from_millis(50));
    drive.finish(None);
    assert_eq!(drive.words().len(), 1);
    drive.run(Duration::from_millis(10));
    drive.text(r#"{"event":"mark","mark":{"name":"streamfleet-end"}}"#);
    drive.run(Duration::ZERO);
    assert_eq!(drive.end(), Some((60, End::Session(CloseReason::EndStream))));
}

#[test]
fn a_mark_that_does_not_come_back_is_not_waited_for_long() {
    let mut drive = Drive::call();
    drive.say(24_000);
    drive.finish(None);
    drive.run(Duration::from_secs(10));
    let words = drive.words();
    assert_eq!(words[1].1, "1000 end_stream");
    assert!((3_000..3_010).contains(&words[1].0), "{words:?}");
}

#[test]
fn an_interruption_while_it_plays_out_ends_it() {
    let mut drive = Drive::open();
    drive.say(48_000);
    drive.finish(Some("bye"));
    drive.run(Duration::from_millis(100));
    drive.connection.clear(drive.now);
    drive.run(Duration::from_secs(1));
    // What was sent still plays.
    drive.check_words(&[(300, r#"{"type":"end_stream","data":"bye"}"#), (300, "1000 end_stream")]);
}

#[test]
fn the_client_stops() {
    let mut drive = Drive::open();
    drive.text(&media_frame(1_000));
    drive.text(r#"{"event":"stop"}"#);
    // What it said last is heard, then the end.
    assert!(matches!(&drive.events[1], (0, Event::Audio(frame)) if frame.len() == 40));
    assert_eq!(drive.end(), Some((0, End::Stopped)));
    drive.check_words(&[(0, "1000 stopped")]);
    assert!(drive.connection.is_closed());
    assert_eq!(drive.events.len(), 3);
}

#[test]
fn control_ends_it_at_once() {
    let mut drive = Drive::open();
    drive.say(48_000);
    let media = drive.media().len();
    drive.connection.close(drive.now, CloseReason::EndedByControl);
    drive.pull();
    drive.run(Duration::from_secs(1));
    assert_eq!(drive.media().len(), media);
    drive.check_words(&[(0, "1000 ended_by_control")]);
    assert_eq!(drive.end(), Some((0, End::Session(CloseReason::EndedByControl))));
}

#[test]
fn refusals() {
    fn check(failure: Failure, expected: &[&str]) {
        let mut drive = Drive::new(Connection::client);
        drive.text(START);
        drive.connection.refuse(drive.now, failure);
        drive.pull();
        drive.check_words(&expected.iter().map(|&word| (0, word)).collect::<Vec<_>>());
        assert_eq!(drive.end(), Some((0, End::Refused)));
        assert_eq!(End::Refused.reason(), None);
        assert!(drive.connection.is_closed());
    }
    let limit = NonZeroU32::MIN;
    check(
        Failure::ConcurrencyLimitReached { limit },
        &[r#"{"status":"failed","meta":{"error":"concurrency_limit_reached","limit":1}}"#, "1000 refused"],
    );
    check(
        Failure::ConnectionAlreadyExists,
        &[r#"{"status":"failed","meta":{"error":"connection_already_exists"}}"#, "1000 refused"],
    );
    check(Failure::Unauthorized, &[r#"{"status":"failed","meta":{"error":"unauthorized"}}"#, "1008 refused"]);
    check(Failure::Draining, &[r#"{"status":"failed","meta":{"error":"draining"}}"#, "1013 refused"]);

    let mut call = Drive::new(Connection::telephone);
    call.text(CALL);
    call.connection.refuse(call.now, Failure::ConcurrencyLimitReached { limit });
    call.pull();
    call.check_words(&[(0, "1000 refused")]);
}

#[test]
fn how_a_socket_goes() {
    for (code, end) in [
        (Some(1000), End::Stopped),
        (Some(1005), End::Stopped),
        (Some(1001), End::Disconnected),
        (Some(1006), End::Disconnected),
        (None, End::Disconnected),
    ] {
        let mut drive = Drive::open();
        drive.say(24_000);
        drive.connection.handle_disconnect(code);
        let sent = drive.sent.len();
        drive.run(Duration::from_secs(100));
        drive.pull();
        assert_eq!(drive.end(), Some((100_000, end)), "{code:?}");
        assert_eq!(drive.sent.len(), sent);
        assert!(drive.connection.is_closed());
    }
}

#[test]
fn the_first_end_stays() {
    let mut drive = Drive::open();
    drive.text(r#"{"event":"stop"}"#);
    drive.connection.close(drive.now, CloseReason::Shutdown);
    drive.text("garbage");
    drive.connection.handle_disconnect(None);
    drive.pull();
    assert_eq!(drive.events, [(0, Event::Ended(End::Stopped))]);
}

/// An interruption that came after the end put a `clear` behind the close frame.
#[test]
fn nothing_follows_the_close_frame() {
    let mut drive = Drive::call();
    drive.say(24_000);
    drive.text("garbage");
    let sent = drive.sent.len();
    drive.connection.clear(drive.now);
    drive.connection.send(drive.now, ServerMessage::FetchOutput);
    drive.finish(Some("bye"));
    drive.text(r#"{"event":"ping"}"#);
    drive.run(Duration::from_secs(10));
    assert_eq!(drive.sent.len(), sent);
    assert!(matches!(drive.sent.last(), Some((0, Transmit::Close(_)))));
}
