use proptest::prelude::*;
use serde_json::json;

use super::*;

/// What a candidate comes down to: line, mid, index, ufrag. Or the word for what it is instead.
fn shown(value: &Value) -> String {
    match RemoteCandidate::parse(value) {
        Ok(ParsedCandidate::Candidate(c)) => {
            format!("{} | {:?} {:?} {:?}", c.line, c.sdp_mid, c.sdp_mline_index, c.ufrag)
        }
        Ok(ParsedCandidate::EndOfCandidates) => "end".into(),
        Ok(ParsedCandidate::Ignored(reason)) => format!("ignored: {}", reason.as_str()),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn check(value: Value, expected: &str) {
    assert_eq!(shown(&value), expected, "{value}");
}

#[track_caller]
fn check_line(line: &str, expected: &str) {
    let suffix = if expected.starts_with("candidate:") { " | None Some(0) None" } else { "" };
    check(json!({"candidate": line, "sdpMLineIndex": 0}), &format!("{expected}{suffix}"));
}

#[test]
fn a_browser() {
    check(
        json!({
            "candidate": "candidate:2393089663 1 udp 2122260223 192.168.86.60 63692 typ host generation 0 ufrag LkZb network-id 1 network-cost 10",
            "sdpMid": "0", "sdpMLineIndex": 0, "usernameFragment": "LkZb",
        }),
        r#"candidate:2393089663 1 udp 2122260223 192.168.86.60 63692 typ host | Some("0") Some(0) Some("LkZb")"#,
    );
    check(
        json!({
            "candidate": "candidate:842163049 1 udp 1677729535 203.0.113.7 46154 typ srflx raddr 0.0.0.0 rport 0 generation 0 ufrag LkZb",
            "sdpMid": "audio", "sdpMLineIndex": 1, "usernameFragment": null,
        }),
        r#"candidate:842163049 1 udp 1677729535 203.0.113.7 46154 typ srflx raddr 0.0.0.0 rport 0 | Some("audio") Some(1) Some("LkZb")"#,
    );
    check(
        json!({
            "candidate": "candidate:1 1 udp 2122262783 2001:db8:0:0::1 9000 typ host", "sdpMid": "", "sdpMLineIndex": 2,
        }),
        "candidate:1 1 udp 2122262783 2001:db8::1 9000 typ host | None Some(2) None",
    );
}

#[test]
fn an_aiortc_program() {
    let line = "candidate:6815297761f2d6f2f5ae8e8a2b0e8a77 1 udp 2130706431 10.0.0.5 40000 typ host";
    let form = json!({"candidate": line, "id": "0", "label": 0, "type": "candidate"});
    let expected = format!(r#"{line} | Some("0") Some(0) None"#);
    check(form.clone(), &expected);
    check(json!(form.to_string()), &expected);
    // Eight tokens, no extension.
    check_line(line, line);
}

#[test]
fn media_sections() {
    let line = "candidate:1 1 udp 1 10.0.0.5 4000 typ host";
    for (mid, index, expected) in [
        (json!("a"), json!("0"), r#"Some("a") Some(0)"#),
        (json!("a"), json!(null), r#"Some("a") None"#),
        (json!(null), json!(" 3 "), "None Some(3)"),
        (json!(""), json!(65535), "None Some(65535)"),
    ] {
        check(json!({"candidate": line, "sdpMid": mid, "sdpMLineIndex": index}), &format!("{line} | {expected} None"));
    }
    check(json!({ "candidate": line }), "a candidate needs sdpMid or sdpMLineIndex");
    for wrong in [json!(-1), json!(65536), json!(0.5), json!("x"), json!(""), json!("+1"), json!([0]), json!(true)] {
        check(
            json!({"candidate": line, "sdpMid": "a", "sdpMLineIndex": wrong}),
            "a candidate's sdpMLineIndex is missing or invalid",
        );
    }
    for wrong in [json!(0), json!("a b"), json!("é"), json!("m".repeat(65)), json!({})] {
        check(
            json!({"candidate": line, "sdpMid": wrong, "sdpMLineIndex": 0}),
            "a candidate's sdpMid is missing or invalid",
        );
    }
    for wrong in [json!("abc"), json!("a b c"), json!(7), json!("u".repeat(257))] {
        check(
            json!({"candidate": line, "sdpMid": "0", "usernameFragment": wrong}),
            "a candidate's usernameFragment is missing or invalid",
        );
    }
}

#[test]
fn prefixes_and_spelling() {
    let normal = "candidate:1 1 udp 1 10.0.0.5 4000 typ host";
    for line in [
        "candidate:1 1 udp 1 10.0.0.5 4000 typ host",
        "a=candidate:1 1 udp 1 10.0.0.5 4000 typ host\r\n",
        "1 1 UDP 1 10.0.0.5 4000 typ host",
        "  candidate:1  1\tUDP 0001 ::ffff:10.0.0.5 4000 typ host generation",
        "candidate:1 1 udp 1 10.0.0.5 4000 typ host raddr nowhere rport 1",
        "candidate:1 1 udp 1 10.0.0.5 4000 typ host raddr 10.0.0.6 rport 99999",
    ] {
        check_line(line, normal);
    }
}

#[test]
fn the_end_of_candidates() {
    for value in [
        json!(null),
        json!(""),
        json!(" "),
        json!({ "candidate": "" }),
        json!({"candidate": null, "sdpMid": "0"}),
        json!({"candidate": "a=end-of-candidates", "sdpMLineIndex": 0}),
        json!({"candidate": "end-of-candidates"}),
        json!("{\"candidate\":\"\"}"),
    ] {
        check(value, "end");
    }
}

#[test]
fn of_no_use_here() {
    check_line("candidate:1 1 udp 1 3d7a1a54-1a6c-4bd6-a6fc-1c5a2c8a8f0b.local 4000 typ host", "ignored: mdns");
    check_line("candidate:1 1 udp 1 x.LOCAL 4000 typ host", "ignored: mdns");
    check_line("candidate:1 1 udp 1 turn.example.org 4000 typ relay", "ignored: host_name");
    check_line("candidate:1 1 tcp 1 10.0.0.5 9 typ host tcptype active", "ignored: transport");
    check_line("candidate:1 1 ssltcp 1 10.0.0.5 443 typ host", "ignored: transport");
    check_line("candidate:1 2 udp 1 10.0.0.5 4001 typ host", "ignored: component");
    check_line("candidate:1 1 udp 1 10.0.0.5 4001 typ future", "ignored: type");
    for address in ["10.0.0.5 0", "0.0.0.0 9", ":: 9", "224.0.0.1 9", "ff02::1 9", "255.255.255.255 9"] {
        check_line(&format!("candidate:1 1 udp 1 {address} typ host"), "ignored: address");
    }
}

#[test]
fn broken_lines_name_the_field() {
    for (line, field) in [
        ("candidate:", "foundation"),
        ("hello", "component"),
        ("candidate:f_ 1 udp 1 10.0.0.5 4000 typ host", "foundation"),
        ("candidate:123456789012345678901234567890123 1 udp 1 10.0.0.5 4000 typ host", "foundation"),
        ("candidate:1 0 udp 1 10.0.0.5 4000 typ host", "component"),
        ("candidate:1 257 udp 1 10.0.0.5 4000 typ host", "component"),
        ("candidate:1 +1 udp 1 10.0.0.5 4000 typ host", "component"),
        ("candidate:1 1 u=p 1 10.0.0.5 4000 typ host", "transport"),
        ("candidate:1 1 udp 4294967296 10.0.0.5 4000 typ host", "priority"),
        ("candidate:1 1 udp -1 10.0.0.5 4000 typ host", "priority"),
        ("candidate:1 1 udp 1 300.0.0.5 4000 typ host", "address"),
        ("candidate:1 1 udp 1 10.0.0 4000 typ host", "address"),
        ("candidate:1 1 udp 1 fe80::1%eth0 4000 typ host", "address"),
        ("candidate:1 1 udp 1 a..local 4000 typ host", "address"),
        ("candidate:1 1 udp 1 10.0.0.5 65536 typ host", "port"),
        ("candidate:1 1 udp 1 10.0.0.5 4000 type host", "typ"),
        ("candidate:1 1 udp 1 10.0.0.5 4000 typ", "type"),
        ("candidate:1 1 udp 1 10.0.0.5 4000 typ h=st", "type"),
        ("candidate:1 1 udp 1 10.0.0.5 4000 typ host ufrag a", "usernameFragment"),
    ] {
        check_line(line, &format!("a candidate's {field} is missing or invalid"));
    }
}

#[test]
fn other_shapes_are_refused() {
    let not = "a candidate must be an object with a candidate string";
    for value in [json!(5), json!([]), json!(true), json!({}), json!({"candidate": 5}), json!("hello"), json!("[1]")] {
        check(value, not);
    }
    check(json!({"candidate": {"candidate": ""}}), not);
    let long = "a candidate must be at most 512 bytes long";
    let line = "candidate:1 1 udp 1 10.0.0.5 4000 typ host x ";
    check_line(&format!("{line}{}", "y".repeat(512 - line.len())), line[..line.len() - 3].trim());
    check_line(&format!("{line}{}", "y".repeat(513 - line.len())), long);
    check(json!("[".repeat(1025)), long);
}

proptest! {
    #[test]
    fn any_text_is_survived_and_what_passes_is_stable(text in "(candidate:)?[a-z0-9.:/ +%-]{0,90}( typ (host|srflx))?[ -~]{0,20}") {
        if let Ok(candidate) = RemoteCandidate::from_line(&text) {
            prop_assert!(candidate.line.len() <= MAX_LINE);
            let again = RemoteCandidate::from_line(&candidate.line).unwrap();
            prop_assert_eq!(&again.line, &candidate.line);
            prop_assert_eq!(again.address, candidate.address);
        }
    }

    #[test]
    fn any_json_is_survived(value in crate::metadata::tests::any_json()) {
        let _ = RemoteCandidate::parse(&value);
        let _ = RemoteCandidate::parse(&json!({"candidate": value, "sdpMLineIndex": 0}));
        let _ = RemoteCandidate::parse(&json!({"candidate": "candidate:1 1 udp 1 10.0.0.5 4000 typ host", "sdpMid": value}));
    }

    #[test]
    fn every_udp_address_round_trips(ip in any::<IpAddr>(), port in 1u16.., foundation in "[A-Za-z0-9+/]{1,32}", priority in any::<u32>()) {
        let line = format!("candidate:{foundation} 1 udp {priority} {ip} {port} typ host");
        let candidate = RemoteCandidate::from_line(&line).unwrap();
        prop_assert_eq!(candidate.socket_addr(), Some(SocketAddr::new(ip.to_canonical(), port)));
        prop_assert_eq!((candidate.foundation, candidate.priority), (foundation, priority));
    }
}
