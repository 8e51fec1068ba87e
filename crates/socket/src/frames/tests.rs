use proptest::prelude::*;

use super::*;
use crate::close::CloseFrame;
use crate::protocol::MAX_MESSAGE;

const MASK: [u8; 4] = [0x1f, 0, 0xa5, 7];

/// A client's frame.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write(Kind::Text, payload, &mut out);
    let at = out.len() - payload.len();
    out[0] = first;
    out[1] |= 0x80;
    unmask(&mut out[at..], MASK);
    out.splice(at..at, MASK);
    out
}

fn text(text: &str) -> Message {
    Message::Text(text.to_owned())
}

#[test]
fn messages_are_read_and_kept_as_they_came() {
    let mut peek = Peek::default();
    let (before, start, after) =
        (masked(0x81, b"{}"), [masked(0x01, b"st"), masked(0x80, b"art")].concat(), masked(0x82, b"media"));
    let ping = masked(0x89, b"?");
    for bytes in [&before, &masked(0x01, b"st"), &ping, &masked(0x80, b"art"), &after] {
        peek.feed(bytes);
    }
    assert_eq!(peek.poll(), Ok(Some(text("{}"))));
    assert_eq!(peek.poll(), Ok(Some(Message::Ping(b"?".to_vec()))));
    assert_eq!(peek.poll(), Ok(Some(text("start"))));
    assert_eq!(peek.into_rest(), [start, after].concat(), "without the ping, which has been answered");
}

#[test]
fn every_message() {
    #[track_caller]
    fn check(bytes: &[u8], expected: Result<Option<Message>, BadFrame>) {
        let mut peek = Peek::default();
        peek.feed(bytes);
        assert_eq!(peek.poll(), expected, "{bytes:?}");
    }
    check(&[], Ok(None));
    check(&[0x81], Ok(None));
    check(&masked(0x81, "é".as_bytes()), Ok(Some(text("é"))));
    check(&masked(0x82, b"x"), Ok(Some(Message::Binary(b"x".to_vec()))));
    check(&masked(0x8a, b""), Ok(Some(Message::Pong)));
    check(&masked(0x88, b""), Ok(Some(Message::Close(None))));
    check(&masked(0x88, b"\x03\xe8bye"), Ok(Some(Message::Close(Some(1000)))));
    check(&masked(0x88, b"\x03"), Err(BadFrame::Malformed));
    check(&masked(0x81, b"\xff"), Err(BadFrame::NotUtf8));
    // Reserved bits and opcodes, no mask, a continuation of nothing, a control frame in pieces or too long.
    for first in [0xc1, 0x83, 0x80, 0x09] {
        check(&masked(first, b"x"), Err(BadFrame::Malformed));
    }
    check(b"\x81\x01x", Err(BadFrame::Malformed));
    check(&masked(0x89, &[0; 126]), Err(BadFrame::Malformed));
    check(&[masked(0x01, b"a"), masked(0x81, b"b")].concat(), Err(BadFrame::Malformed));
}

#[test]
fn what_is_too_large_is_not_waited_for() {
    let head = |length: u64| [&[0x81, 0xff][..], &length.to_be_bytes(), &MASK].concat();
    let check = |bytes: &[&[u8]], expected| {
        let mut peek = Peek::default();
        bytes.iter().for_each(|bytes| peek.feed(bytes));
        assert_eq!(peek.poll(), expected);
    };
    check(&[&head(MAX_MESSAGE as u64)], Ok(None));
    check(&[&head(MAX_MESSAGE as u64 + 1)], Err(BadFrame::TooLarge));
    check(&[&head(u64::MAX)], Err(BadFrame::TooLarge));
    let half = masked(0x01, &vec![b'x'; MAX_MESSAGE / 2 + 1]);
    let rest = masked(0x80, &vec![b'x'; MAX_MESSAGE / 2]);
    check(&[&half, &rest], Err(BadFrame::TooLarge));
    // Many fragments of nothing.
    let nothing = [masked(0x01, b""), masked(0x00, b"").repeat(1 << 16)].concat();
    check(&[&nothing], Err(BadFrame::TooLarge));
}

#[test]
fn what_a_connection_sends() {
    #[track_caller]
    fn check(transmit: &Transmit, expected: &[u8]) {
        let mut out = Vec::new();
        write_transmit(transmit, &mut out);
        assert_eq!(out, expected, "{transmit:?}");
    }
    check(&Transmit::Text("ab".into()), b"\x81\x02ab");
    check(&Transmit::Binary(vec![1]), b"\x82\x01\x01");
    check(&Transmit::Ping, b"\x89\x00");
    let frame = CloseFrame { code: CloseCode::ServiceRestart, reason: "so" };
    check(&Transmit::Close(frame), b"\x88\x04\x03\xf4so");
    check(&Transmit::Binary(vec![7; 126]), &[&[0x82, 126, 0, 126][..], &[7; 126]].concat());
    check(&Transmit::Binary(vec![7; 70_000]), &[&[0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70][..], &[7; 70_000]].concat());
}

#[test]
fn the_end_is_seen_from_both_sides() {
    for (bytes, code) in [
        (&b"\x88\x02\x03\xe9"[..], Some(1001)),
        (&masked(0x88, b"\x03\xf3!")[..], Some(1011)),
        (&b"\x88\x00"[..], None),
    ] {
        let mut trace = Trace::default();
        trace.pass(b"\x81\x02ab");
        assert!(!trace.has_ended() && trace.is_between_frames());
        trace.pass(bytes);
        assert!(trace.has_ended() && trace.is_between_frames());
        assert_eq!(trace.close_code(), code);
    }
    let mut lost = Trace::default();
    lost.pass(b"HTTP/1.1 500");
    assert!(!lost.is_between_frames() && !lost.has_ended());
}

fn frames() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let kinds = prop::sample::select(vec![0x81_u8, 0x82, 0x89, 0x8a]);
    prop::collection::vec((kinds, prop::collection::vec(any::<u8>(), 0..300)), 0..8)
}

proptest! {
    /// However the bytes are cut, the same is read, and the trace is between two frames exactly where one ends.
    #[test]
    fn pieces_change_nothing(frames in frames(), cuts in prop::collection::vec(1..40_usize, 1..80)) {
        let frames: Vec<Vec<u8>> = frames
            .into_iter()
            .map(|(first, mut payload)| {
                payload.truncate(if first & 8 != 0 { 125 } else { 300 });
                masked(first, &payload)
            })
            .collect();
        let ends: Vec<usize> = frames.iter().scan(0, |at, frame| { *at += frame.len(); Some(*at) }).collect();
        let bytes = frames.concat();
        let read = |pieces: &[&[u8]]| {
            let mut peek = Peek::default();
            let mut found = Vec::new();
            for piece in pieces {
                peek.feed(piece);
                loop {
                    match peek.poll() {
                        Ok(Some(message)) => found.push(message),
                        Ok(None) => break,
                        Err(error) => return (found, Some(error)),
                    }
                }
            }
            (found, None)
        };
        let (mut pieces, mut rest, mut trace, mut at) = (Vec::new(), &bytes[..], Trace::default(), 0);
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = after;
            trace.pass(piece);
            at += piece.len();
            prop_assert_eq!(trace.is_between_frames(), at == 0 || ends.contains(&at));
        }
        pieces.push(rest);
        prop_assert_eq!(read(&pieces), read(&[&bytes]));
    }

    /// Nothing that a client sends makes the reader panic, or keep more than there is a bound for.
    #[test]
    fn anything_may_come(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (mut peek, mut trace) = (Peek::default(), Trace::default());
        peek.feed(&bytes);
        while let Ok(Some(_)) = peek.poll() {}
        trace.pass(&bytes);
        prop_assert!(peek.into_rest().len() <= bytes.len());
    }
}
