use proptest::prelude::*;
use serde_json::json;

use super::*;

const MARK: u32 = 0xab;

/// The number in the line of an id.
fn number(line: &str) -> Option<u64> {
    line.strip_prefix("id: 000000ab-")?.parse().ok()
}

fn outputs(count: u64) -> Outputs {
    let mut outputs = Outputs::new(MARK);
    for number in 1..=count {
        assert_eq!(outputs.push(&[json!(number)]), Ok(number));
    }
    outputs
}

#[test]
fn format() {
    let now = Instant::now();
    #[track_caller]
    fn check(now: Instant, arguments: &[Value], data: &str) {
        let mut outputs = Outputs::new(MARK);
        outputs.push(arguments).unwrap();
        let expected = format!("id: 000000ab-1\nevent: output\ndata: {data}\n\n");
        assert_eq!(outputs.open(now, None).unwrap().poll(&outputs, now), Chunk::Text(expected));
    }
    check(now, &[json!("a\nb\r\n")], r#""a\nb\r\n""#);
    check(now, &[json!({"a": 1})], r#"{"a":1}"#);
    check(now, &[json!(1), json!("x")], r#"[1,"x"]"#);
    check(now, &[], "[]");
    check(now, &[json!([1])], "[1]");
}

#[test]
fn waits_and_keeps_alive() {
    let start = Instant::now();
    let mut outputs = Outputs::new(MARK);
    let mut cursor = outputs.open(start, None).unwrap();
    let at = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(cursor.poll(&outputs, start), Chunk::Wait(at(15)));
    assert_eq!(cursor.poll(&outputs, at(15)), Chunk::Text(": keep-alive\n\n".into()));
    assert_eq!(cursor.poll(&outputs, at(16)), Chunk::Wait(at(30)));
    outputs.push(&[json!(1)]).unwrap();
    assert_eq!(cursor.poll(&outputs, at(20)), Chunk::Text("id: 000000ab-1\nevent: output\ndata: 1\n\n".into()));
    assert_eq!(cursor.poll(&outputs, at(20)), Chunk::Wait(at(35)));
    outputs.end(at(21));
    assert_eq!(cursor.poll(&outputs, at(21)), Chunk::End);
    assert_eq!(outputs.expires_at(), Some(at(21) + AFTERLIFE));
}

/// Everything that a reader with this header gets, as ids; `None` for 204.
fn ids(outputs: &Outputs, now: Instant, header: Option<&str>) -> Option<Vec<u64>> {
    let mut cursor = outputs.open(now, header)?;
    let mut ids = Vec::new();
    while let Chunk::Text(text) = cursor.poll(outputs, now) {
        ids.extend(text.lines().filter_map(number));
    }
    Some(ids)
}

#[test]
fn resumption() {
    let now = Instant::now();
    let mut outputs = outputs(3);
    for (header, expected) in [
        (None, vec![1, 2, 3]),
        (Some("000000ab-1"), vec![2, 3]),
        (Some(" 000000ab-3 "), vec![]),
        (Some("000000ab-0"), vec![1, 2, 3]),
        // Of another history, or nonsense: better twice than never.
        (Some("000000ac-2"), vec![1, 2, 3]),
        (Some("ab-2"), vec![1, 2, 3]),
        (Some("2"), vec![1, 2, 3]),
        (Some("000000ab-4"), vec![1, 2, 3]),
        (Some("000000ab--1"), vec![1, 2, 3]),
        (Some("000000ab-x"), vec![1, 2, 3]),
        (Some("000000ab-18446744073709551616"), vec![1, 2, 3]),
        (Some("-"), vec![1, 2, 3]),
        (Some("x"), vec![1, 2, 3]),
    ] {
        assert_eq!(ids(&outputs, now, header), Some(expected), "{header:?}");
    }
    outputs.end(now);
    assert_eq!(ids(&outputs, now, Some("000000ab-1")), Some(vec![2, 3]));
    assert_eq!(ids(&outputs, now, Some("000000ab-3")), None);
    assert_eq!(ids(&outputs, now, None), Some(vec![1, 2, 3]));
    let mut empty = Outputs::new(MARK);
    assert_eq!(ids(&empty, now, None), Some(vec![]));
    empty.end(now);
    assert_eq!(ids(&empty, now, None), None);
}

#[test]
fn a_reader_that_was_away_too_long_is_told() {
    let now = Instant::now();
    let count = MAX_EVENTS as u64 + 10;
    let outputs = outputs(count);
    let mut cursor = outputs.open(now, Some("000000ab-2")).unwrap();
    let Chunk::Text(text) = cursor.poll(&outputs, now) else { panic!() };
    assert!(text.starts_with(": 8 outputs are no longer kept\n\nid: 000000ab-11\n"), "{text}");
    assert_eq!(ids(&outputs, now, Some("000000ab-2")), Some((11..=count).collect()));
}

#[test]
fn a_late_reader_gets_pieces() {
    let now = Instant::now();
    let mut outputs = Outputs::new(MARK);
    for _ in 0..10 {
        outputs.push(&[json!("x".repeat(10_000))]).unwrap();
    }
    let mut cursor = outputs.open(now, None).unwrap();
    let Chunk::Text(text) = cursor.poll(&outputs, now) else { panic!() };
    assert!(text.len() < CHUNK + 10_100);
    assert_eq!(ids(&outputs, now, None), Some((1..=10).collect()));
}

#[test]
fn a_session_that_goes_on_numbers_on() {
    let now = Instant::now();
    let mut outputs = outputs(2);
    outputs.end(now);
    assert_eq!(ids(&outputs, now, Some("000000ab-2")), None);
    outputs.resume();
    assert_eq!((outputs.expires_at(), ids(&outputs, now, Some("000000ab-2"))), (None, Some(vec![])));
    assert_eq!(outputs.push(&[json!("more")]), Ok(3));
    assert_eq!(ids(&outputs, now, Some("000000ab-2")), Some(vec![3]));
}

#[test]
fn the_newest_are_at_hand() {
    let outputs = outputs(4);
    assert_eq!(outputs.recent(2).collect::<Vec<_>>(), ["3", "4"]);
    assert_eq!(outputs.recent(9).count(), 4);
}

#[test]
fn what_is_forgotten_takes_no_room_and_ends_its_readers() {
    let now = Instant::now();
    let mut outputs = outputs(300);
    let mut cursor = outputs.open(now, Some("000000ab-100")).unwrap();
    outputs.forget(now);
    assert_eq!((outputs.bytes(), outputs.recent(9).count()), (0, 0));
    let Chunk::Text(text) = cursor.poll(&outputs, now) else { panic!() };
    assert_eq!(text, ": 200 outputs are no longer kept\n\n");
    assert_eq!(cursor.poll(&outputs, now), Chunk::End);
    assert_eq!(ids(&outputs, now, Some("000000ab-300")), None);
}

#[test]
fn large_outputs_are_refused() {
    let mut outputs = Outputs::new(MARK);
    assert_eq!(outputs.push(&[json!("x".repeat(MAX_OUTPUT - 1))]), Err(OutputTooLarge));
    assert_eq!(outputs.push(&[json!("x".repeat(MAX_OUTPUT - 2))]), Ok(1));
}

proptest! {
    // Megabytes in each case.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn bounded_and_in_order(sizes in proptest::collection::vec(0usize..MAX_OUTPUT, 1..40), reads in any::<u64>()) {
        let now = Instant::now();
        let mut outputs = Outputs::new(MARK);
        let mut cursor = outputs.open(now, None).unwrap();
        let mut last = 0;
        for (at, size) in sizes.iter().enumerate() {
            outputs.push(&[json!("x".repeat(size.saturating_sub(2)))]).unwrap();
            prop_assert!(outputs.kept.len() <= MAX_EVENTS);
            prop_assert!(outputs.bytes <= MAX_BYTES);
            prop_assert_eq!(outputs.bytes, outputs.kept.iter().map(|json| json.len()).sum::<usize>());
            if reads >> (at % 64) & 1 == 1 && let Chunk::Text(text) = cursor.poll(&outputs, now) {
                for id in text.lines().filter_map(number) {
                    prop_assert!(id > last);
                    last = id;
                }
            }
        }
    }
}

#[test]
fn event_ids_are_read_as_they_are_written() {
    let id = EventId { mark: 0x0bad_cafe, number: u64::MAX };
    assert_eq!((id.to_string().parse(), " 0badcafe-7\n".parse()), (Ok(id), Ok(EventId { number: 7, ..id })));
    for wrong in
        ["", "7", "badcafe-7", "0BADCAFE-7", "0badcafe-", "0badcafe--1", "0badcafe-18446744073709551616", "+badcafe-1"]
    {
        assert_eq!(wrong.parse::<EventId>(), Err(InvalidEventId), "{wrong:?}");
    }
}

#[test]
fn a_history_goes_on_where_another_one_ended() {
    let (before, between, own) = (EventId { mark: 1, number: 2 }, EventId { mark: 2, number: 4 }, 3);
    let mut outputs = Outputs::new(own);
    outputs.push(&[Value::from(5)]).unwrap();
    outputs.adopt(Earlier { marks: vec![before, between], texts: ["2", "3", "4"].map(str::to_owned).to_vec() });
    let rest = |outputs: &Outputs, seen: Option<&str>| {
        let mut cursor = outputs.open(Instant::now(), seen).unwrap();
        match cursor.poll(outputs, Instant::now()) {
            Chunk::Text(text) => {
                text.lines().filter_map(|line| line.strip_prefix("id: ")).collect::<Vec<_>>().join(" ")
            }
            other => format!("{other:?}"),
        }
    };
    let all = "00000003-2 00000003-3 00000003-4 00000003-5";
    let cases = [
        (None, all),
        (Some("00000003-4"), &all[33..]),
        (Some("00000001-1"), all),
        (Some("00000001-2"), &all[11..]),
        // Seen after this history had taken over: it has numbers of its own for what follows.
        (Some("00000001-3"), &all[11..]),
        (Some("00000002-9"), &all[33..]),
        (Some("00000009-4"), all),
    ];
    for (seen, expected) in cases {
        assert_eq!(rest(&outputs, seen), expected, "{seen:?}");
    }
    outputs.push(&[Value::from(6)]).unwrap();
    assert_eq!((outputs.last(), outputs.oldest()), (6, 2));
    let after: Vec<(u64, &str)> = outputs.after(4).map(|(number, json)| (number, &**json)).collect();
    assert_eq!(after, [(5, "5"), (6, "6")]);
}

#[test]
fn what_is_adopted_is_bounded_too() {
    let marks: Vec<EventId> = (0..20).map(|mark| EventId { mark, number: u64::from(mark) + 300 }).collect();
    let mut outputs = Outputs::new(99);
    outputs.push(&[Value::from("own")]).unwrap();
    outputs.adopt(Earlier { marks, texts: vec!["0".to_owned(); 300] });
    assert_eq!((outputs.earlier().len(), outputs.after(0).count(), outputs.last()), (MAX_EARLIER, MAX_EVENTS, 320));
    assert_eq!(outputs.after(319).map(|(_, json)| &**json).collect::<Vec<_>>(), ["\"own\""]);
}
