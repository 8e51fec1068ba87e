use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn placed() -> Placed {
    let object = |value: Value| value.as_object().unwrap().clone();
    Placed {
        v: Form,
        ticket: 0xff,
        epoch: 1_763_728_062_000,
        session: "a1b2".parse().unwrap(),
        user: Some("ann".parse().unwrap()),
        verified: true,
        metadata: object(json!({"plan": "gold"})),
        claims: object(json!({"sub": "ann"})),
        variant: Some("b".to_owned()),
        pin: Some("room 7".to_owned()),
        standing: Standing::Claimed,
        context: PlacedContext {
            id: 7,
            version: 3,
            data: object(json!({"turns": [1, 2]})),
            resumed: true,
            token: ResumeToken::from_random([5; ResumeToken::LEN]),
            generation: 4,
            user: None,
        },
        takes_over: Some(1),
        client: "[2001:db8::1]:4711".parse().unwrap(),
        retention: Duration::from_secs(600),
        media: None,
    }
}

#[test]
fn a_user_in_a_header() {
    for id in ["ann", "Zoë 李", "a b,c", &"é".repeat(UserId::MAX_LEN)] {
        let user: UserId = id.parse().unwrap();
        let header = encode_user(&user);
        assert!(header.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')), "{header}");
        assert_eq!(decode_user(header.as_bytes()), Some(user), "{id}");
    }
    assert_eq!(encode_user(&"ann".parse().unwrap()), "YW5u");
    // "ann " and "", what is no base64, and what is no UTF-8.
    for none in ["YW5uIA", "", "ann!", "_w"] {
        assert_eq!(decode_user(none.as_bytes()), None, "{none}");
    }
    assert!(is_reserved(USER_HEADER));
}

/// What routers and workers of different builds have to agree on.
#[test]
fn a_place_on_the_wire() {
    let expected = json!({
        "v": 1,
        "ticket": "00000000000000ff",
        "epoch": 1_763_728_062_000_u64,
        "session": "a1b2",
        "user": "ann",
        "verified": true,
        "media": null,
        "metadata": {"plan": "gold"},
        "claims": {"sub": "ann"},
        "variant": "b",
        "pin": "room 7",
        "standing": "claimed",
        "context": {
            "id": "00000000000000000000000000000007",
            "version": 3,
            "data": {"turns": [1, 2]},
            "resumed": true,
            "token": "05050505050505050505050505050505",
            "generation": 4,
            "user": null
        },
        "takesOver": "0000000000000001",
        "client": "[2001:db8::1]:4711",
        "retentionMs": 600_000
    });
    assert_eq!(serde_json::to_value(placed()).unwrap(), expected);
    assert_eq!(serde_json::from_value::<Placed>(expected).unwrap(), placed());
    let header = placed().encode().unwrap();
    assert!(header.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "a header's value: {header}");
    assert_eq!(Placed::decode(header.as_bytes()).unwrap(), placed());
}

#[test]
fn a_place_that_is_none() {
    let check = |change: &dyn Fn(&mut Value)| {
        let mut json = serde_json::to_value(placed()).unwrap();
        change(&mut json);
        let header = URL_SAFE_NO_PAD.encode(json.to_string());
        assert!(Placed::decode(header.as_bytes()).is_err(), "{json}");
    };
    check(&|json| json["v"] = json!(2));
    check(&|json| json["ticket"] = json!("ff"));
    check(&|json| json["ticket"] = json!("00000000000000FF"));
    check(&|json| json["ticket"] = json!("+0000000000000ff"));
    check(&|json| json["takesOver"] = json!(1));
    check(&|json| json["context"]["id"] = json!("7"));
    check(&|json| json["context"]["token"] = json!("7"));
    check(&|json| json["session"] = json!("a b"));
    check(&|json| json["user"] = json!(""));
    check(&|json| json["client"] = json!("somewhere"));
    check(&|json| *json = json!(null));
    assert!(matches!(Placed::decode(b"="), Err(InvalidPlaced::Encoding)));
    assert!(matches!(Placed::decode(&vec![b'A'; MAX_PLACED + 1]), Err(InvalidPlaced::TooLarge(_))));
}

#[test]
fn the_largest_context_fits_and_a_larger_place_is_refused() {
    let mut placed = placed();
    placed.context.data.insert("text".to_owned(), json!("x".repeat((64 << 10) - 64)));
    placed.metadata.insert("more".to_owned(), json!("m".repeat(4096)));
    placed.claims.insert("more".to_owned(), json!("c".repeat(4096)));
    let header = placed.encode().unwrap();
    assert!(header.len() < 100 << 10, "{}", header.len());
    assert_eq!(Placed::decode(header.as_bytes()).unwrap(), placed);
    placed.claims.insert("most".to_owned(), json!("c".repeat(64 << 10)));
    assert_eq!(placed.encode(), Err(PlacedTooLarge));
}

#[test]
fn nothing_of_the_client_shows() {
    let text = format!("{:?}", placed());
    for secret in ["ann", "gold", "0505", "turns"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn reasons_have_labels() {
    for refused in Refused::ALL {
        assert_eq!(refused.as_str().parse(), Ok(refused));
    }
    assert_eq!("else".parse::<Refused>(), Err(InvalidRefused));
}

#[test]
fn what_clients_may_not_say() {
    for (name, expected) in [
        (SECRET_HEADER, true),
        (PLACED_HEADER, true),
        (REFUSED_HEADER, true),
        ("Streamfleet-Else", true),
        ("streamfleet-", true),
        ("streamfleet", false),
        ("x-streamfleet-secret", false),
        ("streamfleé-secret", false),
    ] {
        assert_eq!(is_reserved(name), expected, "{name}");
    }
}

proptest! {
    #[test]
    fn no_header_is_too_strange(header in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = Placed::decode(&header);
    }

    #[test]
    fn bits_go_there_and_back(ticket: u64, id: u128, takes_over: Option<u64>) {
        let mut placed = placed();
        (placed.ticket, placed.context.id, placed.takes_over) = (ticket, id, takes_over);
        prop_assert_eq!(Placed::decode(placed.encode().unwrap().as_bytes()).unwrap(), placed);
    }
}

#[test]
fn what_a_place_without_a_claim_rests_on() {
    let some = NonZeroU32::new;
    let share = Share::of(some(10), None, 4);
    assert_eq!(share, Share { sessions: some(3), of_user: None });
    assert_eq!(Share::of(some(2), some(1), 9), Share { sessions: some(1), of_user: some(1) }, "never nothing");
    assert_eq!(Share::of(some(2), None, 0).sessions, some(2));
    let standing = json!({"provisional": {"sessions": 3, "ofUser": null}});
    assert_eq!(serde_json::to_value(Standing::Provisional(share)).unwrap(), standing);
    // A router that says nothing of it has claimed.
    let mut said = serde_json::to_value(placed()).unwrap();
    said.as_object_mut().unwrap().remove("standing");
    assert_eq!(serde_json::from_value::<Placed>(said).unwrap().standing, Standing::Claimed);
}
