use std::fmt::Debug;

use proptest::prelude::*;

use super::*;

#[track_caller]
fn check<T: FromStr<Err = ParseError> + AsRef<str> + Debug>(input: &str, expected: Result<&str, &str>) {
    let parsed = input.parse::<T>();
    let shown = parsed.as_ref().map(AsRef::as_ref).map_err(ToString::to_string);
    assert_eq!(shown.as_ref().map(|text| *text).map_err(String::as_str), expected, "{input:?}");
}

#[test]
fn session_ids() {
    for accepted in ["a", "0f3k9x2ab1q", "user:42@host.example~x_y-z", "7d0e6d6e-33a5-4b0e-9c0f-3f8f1c1a7a10"] {
        check::<SessionId>(accepted, Ok(accepted));
    }
    for accepted in ["...", ".a", "a..", "~"] {
        check::<SessionId>(accepted, Ok(accepted));
    }
    for segment in [".", ".."] {
        check::<SessionId>(segment, Err("a session id must not be . or .."));
    }
    let longest = "x".repeat(128);
    check::<SessionId>(&longest, Ok(&longest));
    check::<SessionId>(&"x".repeat(129), Err("a session id must be at most 128 characters long"));
    check::<SessionId>("", Err("a session id must not be empty"));
    let charset =
        |position| format!("a session id may consist of A-Z a-z 0-9 . _ ~ : @ - only (character {position} is not)");
    for (input, position) in
        [(" a", 1), ("a b", 2), ("a/b", 2), ("a{b}", 2), ("ab\n", 3), ("a\0", 2), ("é", 1), ("a%20", 2)]
    {
        check::<SessionId>(input, Err(&charset(position)));
    }
}

#[test]
fn user_ids() {
    check::<UserId>("ana@example.org", Ok("ana@example.org"));
    check::<UserId>("  Zoë 李 ", Ok("Zoë 李"));
    check::<UserId>("a\u{0}b\r\nc\u{202e}d", Ok("abcd"));
    check::<UserId>("\n\t \u{200b}", Err("a user id must not be empty"));
    check::<UserId>("", Err("a user id must not be empty"));
    let longest = "é".repeat(256);
    check::<UserId>(&longest, Ok(&longest));
    check::<UserId>(&"é".repeat(257), Err("a user id must be at most 256 characters long"));
    check::<UserId>(&"\n".repeat(1 << 20), Err("a user id must be at most 256 characters long"));
}

#[test]
fn service_names() {
    for accepted in ["echo", "echo-frames", "voice/assistant", "0"] {
        check::<ServiceName>(accepted, Ok(accepted));
    }
    check::<ServiceName>("", Err("a service's name must not be empty"));
    check::<ServiceName>("voice/", Err("a service's name must not be empty"));
    check::<ServiceName>("/x", Err("a service's namespace must not be empty"));
    check::<ServiceName>("a/b/c", Err("a service's name may consist of a-z 0-9 - only (character 2 is not)"));
    check::<ServiceName>("Echo", Err("a service's name may consist of a-z 0-9 - only (character 1 is not)"));
    check::<ServiceName>("echo-", Err("a service's name must begin and end with a letter or a digit"));
    check::<ServiceName>(&"a".repeat(64), Err("a service's name must be at most 63 characters long"));

    let name: ServiceName = "voice/assistant".parse().unwrap();
    assert_eq!((name.namespace(), name.name()), (Some("voice"), "assistant"));
    let name: ServiceName = "echo".parse().unwrap();
    assert_eq!((name.namespace(), name.name()), (None, "echo"));
}

#[test]
fn path_prefixes() {
    for (input, normal) in
        [("", ""), ("/", ""), ("/a", "/a"), ("/a/", "/a"), ("/a/b.c/~d", "/a/b.c/~d"), ("/...", "/...")]
    {
        check::<PathPrefix>(input, Ok(normal));
    }
    check::<PathPrefix>("a/b", Err("a path prefix must begin with /"));
    for doubled in ["//", "/a//b", "/a//", "//a"] {
        check::<PathPrefix>(doubled, Err("a path prefix must not contain //"));
    }
    for dots in ["/.", "/..", "/a/../b", "/a/./b"] {
        check::<PathPrefix>(dots, Err("a path prefix must not contain . or .. as a segment"));
    }
    let charset = "a path prefix may consist of A-Z a-z 0-9 . _ ~ - / only (character 2 is not)";
    for foreign in ["/{id}", "/%2e", "/ a", "/*rest", "/é"] {
        check::<PathPrefix>(foreign, Err(charset));
    }
    check::<PathPrefix>(&format!("/{}", "a".repeat(256)), Err("a path prefix must be at most 256 characters long"));
}

#[test]
fn a_prefix_matches_whole_segments() {
    fn check(prefix: &str, path: &str, expected: Option<&str>) {
        assert_eq!(prefix.parse::<PathPrefix>().unwrap().strip(path), expected, "{prefix:?} {path:?}");
    }
    check("/echo", "/echo/webrtc/offer", Some("/webrtc/offer"));
    check("/echo", "/echo", Some(""));
    check("/echo", "/echo-frames/webrtc/offer", None);
    check("/echo", "/", None);
    check("", "/webrtc/offer", Some("/webrtc/offer"));
    check("", "", Some(""));
}

#[test]
fn ids_are_json_strings_and_checked_when_read() {
    let id: SessionId = serde_json::from_str(r#""ab\u0063""#).unwrap();
    assert_eq!(serde_json::to_string(&id).unwrap(), r#""abc""#);
    let refused = serde_json::from_str::<SessionId>(r#""a b""#).unwrap_err().to_string();
    assert!(refused.starts_with("a session id may consist of"), "{refused}");
    assert!(serde_json::from_str::<SessionId>("5").is_err());
}

proptest! {
    #[test]
    fn accepted_session_ids_round_trip(text in "[A-Za-z0-9._~:@-]{1,128}") {
        prop_assume!(text != "." && text != "..");
        let id: SessionId = text.parse().unwrap();
        prop_assert_eq!(id.to_string(), text);
        let json = serde_json::to_string(&id).unwrap();
        prop_assert_eq!(serde_json::from_str::<SessionId>(&json).unwrap(), id);
    }

    #[test]
    fn a_session_id_accepts_exactly_its_alphabet(text in "\\PC{0,140}") {
        let ok = (1..=128).contains(&text.chars().count())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._~:@-".contains(c))
            && ![".", ".."].contains(&text.as_str());
        prop_assert_eq!(text.parse::<SessionId>().is_ok(), ok);
    }

    #[test]
    fn parsing_twice_changes_nothing(text in any::<String>()) {
        if let Ok(user) = text.parse::<UserId>() {
            prop_assert!(user.as_str().chars().count() <= UserId::MAX_LEN);
            prop_assert!(!user.as_str().chars().any(char::is_control));
            prop_assert_eq!(user.as_str().parse::<UserId>().unwrap(), user);
        }
        if let Ok(service) = text.parse::<ServiceName>() {
            prop_assert_eq!(service.as_str(), &text);
        }
    }

    #[test]
    fn a_normalised_prefix_is_a_fixed_point(text in "[/a.~{ -]{0,12}") {
        if let Ok(prefix) = text.parse::<PathPrefix>() {
            prop_assert!(prefix.is_root() || (prefix.as_str().starts_with('/') && !prefix.as_str().ends_with('/')));
            prop_assert_eq!(prefix.as_str().parse::<PathPrefix>().unwrap(), prefix);
        }
    }
}
