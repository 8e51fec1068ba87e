use super::*;
use proptest::prelude::*;
use std::net::SocketAddr;

/// The password and transaction of RFC 5769's test vectors.
const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";
const TRANSACTION: TransactionId =
    TransactionId([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);

/// RFC 5769 section 2.1.
const REQUEST: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\
    \x00\x06\x00\x09\x65\x76\x74\x6a\x3a\x68\x36\x76\x59\x20\x20\x20\
    \x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\
    \x80\x28\x00\x04\xe5\x7a\x3b\xcf";
/// RFC 5769 section 2.2.
const RESPONSE_V4: &[u8] = b"\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x0btest vector\x20\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43\
    \x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\
    \x80\x28\x00\x04\xc0\x7d\x4c\x96";
/// RFC 5769 section 2.3.
const RESPONSE_V6: &[u8] = b"\x01\x01\x00\x48\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
    \x80\x22\x00\x0btest vector\x20\x00\x20\x00\x14\x00\x02\xa1\x47\
    \x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9\
    \x00\x08\x00\x14\xa3\x82\x95\x4e\x4b\xe6\x7b\xf1\x17\x84\xc9\x7c\x82\x92\xc2\x75\xbf\xe3\xed\x41\
    \x80\x28\x00\x04\xc8\xfb\x0b\x4c";

#[test]
fn sample_request_of_rfc_5769() {
    let message = Message::parse(REQUEST).unwrap();
    assert_eq!((message.class(), message.method(), message.transaction()), (Class::Request, BINDING, TRANSACTION));
    assert_eq!((message.username(), message.local_ufrag()), (Some("evtj:h6vY"), Some("evtj")));
    assert_eq!(message.priority(), Some(0x6e00_01ff));
    assert_eq!((message.ice_controlled(), message.ice_controlling()), (Some(0x932f_f9b1_5126_3b36), None));
    assert!(!message.use_candidate());
    assert!(message.verify_integrity(PASSWORD));
    assert!(!message.verify_integrity(b"VOkJxbRl1RmTxUk/WvJxBT"));
    assert!(message.verify_fingerprint());
}

#[test]
fn sample_responses_of_rfc_5769() {
    for (octets, mapped) in
        [(RESPONSE_V4, "192.0.2.1:32853"), (RESPONSE_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")]
    {
        let message = Message::parse(octets).unwrap();
        assert_eq!((message.class(), message.method(), message.transaction()), (Class::Success, BINDING, TRANSACTION));
        assert_eq!(message.mapped_address(), Some(mapped.parse().unwrap()));
        assert!(message.verify_integrity(PASSWORD) && message.verify_fingerprint());
        assert_eq!((message.username(), message.error_code()), (None, None));
    }
}

#[test]
fn any_changed_bit_is_noticed() {
    for octets in [REQUEST, RESPONSE_V4, RESPONSE_V6] {
        for bit in 0..octets.len() * 8 {
            let mut changed = octets.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            let Ok(message) = Message::parse(&changed) else { continue };
            assert!(!message.verify_fingerprint(), "bit {bit}");
            // What is before the FINGERPRINT is covered, except an attribute type that then is no MESSAGE-INTEGRITY.
            assert_eq!(message.verify_integrity(PASSWORD), bit / 8 >= octets.len() - 8, "bit {bit}");
        }
    }
}

#[test]
fn what_follows_the_seal_does_not_count() {
    let mut octets = RESPONSE_V4[..RESPONSE_V4.len() - 8].to_vec();
    octets.extend_from_slice(b"\x00\x25\x00\x00\x00\x06\x00\x04evil");
    octets[3] = (octets.len() - HEADER) as u8;
    let message = Message::parse(&octets).unwrap();
    assert!(message.verify_integrity(PASSWORD));
    assert!(!message.use_candidate());
    assert_eq!(message.username(), None);
    assert!(!message.verify_fingerprint());
}

#[test]
fn malformed_messages() {
    let check = |octets: &[u8], expected| assert_eq!(Message::parse(octets).err(), Some(expected), "{octets:x?}");
    check(&[], ParseError::NotStun);
    check(&REQUEST[..19], ParseError::NotStun);
    check(&REQUEST[..REQUEST.len() - 1], ParseError::Length);
    check(&[REQUEST, &[0]].concat(), ParseError::Length);
    for (at, value, expected) in [
        (0, 0x80, ParseError::NotStun),
        (4, 0x20, ParseError::NotStun),
        (3, 0x57, ParseError::Length),
        (3, 0x54, ParseError::Length),
        (23, 0xFF, ParseError::Attribute), // SOFTWARE reaches beyond the end
        (22, 0xFF, ParseError::Attribute),
    ] {
        let mut octets = REQUEST.to_vec();
        octets[at] = value;
        check(&octets, expected);
    }
}

#[test]
fn odd_attributes_are_absent() {
    // Type, value, and what must not be read from it.
    let message = |kind: u16, value: &[u8]| {
        let mut octets = REQUEST[..HEADER].to_vec();
        octets.extend_from_slice(&kind.to_be_bytes());
        octets.extend_from_slice(&(value.len() as u16).to_be_bytes());
        octets.extend_from_slice(value);
        octets.resize(octets.len().next_multiple_of(4), 0);
        let length = (octets.len() - HEADER) as u16;
        octets[2..4].copy_from_slice(&length.to_be_bytes());
        octets
    };
    let parse = |octets: &[u8], read: fn(&Message<'_>) -> bool| assert!(!read(&Message::parse(octets).unwrap()));
    parse(&message(attribute::USERNAME, &[0xFF, 0xFE]), |m| m.username().is_some());
    parse(&message(attribute::USERNAME, b"nocolon"), |m| m.local_ufrag().is_some());
    parse(&message(attribute::PRIORITY, &[1, 2, 3]), |m| m.priority().is_some());
    parse(&message(attribute::ICE_CONTROLLED, &[1, 2, 3]), |m| m.ice_controlled().is_some());
    parse(&message(attribute::ERROR_CODE, &[0, 0, 4]), |m| m.error_code().is_some());
    parse(&message(attribute::ERROR_CODE, &[0, 0, 7, 1]), |m| m.error_code().is_some());
    parse(&message(attribute::ERROR_CODE, &[0, 0, 4, 100]), |m| m.error_code().is_some());
    parse(&message(attribute::XOR_MAPPED_ADDRESS, &[0, 1, 0, 0, 1, 2, 3]), |m| m.mapped_address().is_some());
    parse(&message(attribute::XOR_MAPPED_ADDRESS, &[0, 3, 0, 0, 1, 2, 3, 4]), |m| m.mapped_address().is_some());
    parse(&message(attribute::MESSAGE_INTEGRITY, &[0; 16]), |m| m.verify_integrity(PASSWORD));
    parse(&message(attribute::FINGERPRINT, &[0; 8]), |m| m.verify_fingerprint());
    parse(
        REQUEST[..HEADER - 18].iter().chain(&[0, 0]).chain(&REQUEST[4..HEADER]).copied().collect::<Vec<_>>().as_slice(),
        |m| m.verify_integrity(PASSWORD) || m.verify_fingerprint() || m.attributes().next().is_some(),
    );
}

#[test]
fn class_and_method_of_all_types() {
    let check = |kind: u16, class, method| {
        let mut octets = REQUEST[..HEADER].to_vec();
        octets[..2].copy_from_slice(&kind.to_be_bytes());
        octets[2..4].copy_from_slice(&[0, 0]);
        let message = Message::parse(&octets).unwrap();
        assert_eq!((message.class(), message.method()), (class, method), "{kind:04x}");
    };
    check(0x0001, Class::Request, BINDING);
    check(0x0011, Class::Indication, BINDING);
    check(0x0101, Class::Success, BINDING);
    check(0x0111, Class::Error, BINDING);
    check(0x0003, Class::Request, 0x003); // TURN's Allocate
    check(0x0117, Class::Error, 0x007);
    check(0x3EEF, Class::Request, 0xFFF);
    check(0x3FFF, Class::Error, 0xFFF);
}

fn request(nomination: Nomination, role: Role) -> Vec<u8> {
    let mut out = b"before".to_vec();
    let request = BindingRequest {
        transaction: TRANSACTION,
        remote_ufrag: "evtj",
        local_ufrag: "h6vY",
        priority: 0x6e00_01ff,
        role,
        nomination,
    };
    request.write(PASSWORD, &mut out).unwrap();
    assert_eq!(&out[..6], b"before");
    out.split_off(6)
}

#[test]
fn written_requests_can_be_read() {
    for (nomination, role) in [
        (Nomination::None, Role::Controlled(1)),
        (Nomination::UseCandidate, Role::Controlling(u64::MAX)),
        (Nomination::None, Role::Controlling(2)),
    ] {
        let octets = request(nomination, role);
        let message = Message::parse(&octets).unwrap();
        assert_eq!((message.class(), message.method(), message.transaction()), (Class::Request, BINDING, TRANSACTION));
        assert_eq!(message.username(), Some("evtj:h6vY"));
        assert_eq!(message.priority(), Some(0x6e00_01ff));
        assert_eq!(message.use_candidate(), nomination == Nomination::UseCandidate);
        let got = message.ice_controlling().map(Role::Controlling).or(message.ice_controlled().map(Role::Controlled));
        assert_eq!(got, Some(role));
        assert!(message.verify_integrity(PASSWORD) && message.verify_fingerprint());
        assert!(!message.verify_integrity(b"another"));
    }
}

#[test]
fn a_username_is_bounded() {
    let write = |ufrag: &str| {
        let mut out = vec![];
        let request = BindingRequest {
            transaction: TRANSACTION,
            remote_ufrag: ufrag,
            local_ufrag: "b",
            priority: 1,
            role: Role::Controlled(1),
            nomination: Nomination::None,
        };
        (request.write(PASSWORD, &mut out), out.len())
    };
    assert_eq!(write(&"a".repeat(MAX_USERNAME - 1)), (Err(BuildError::Username(MAX_USERNAME + 1)), 0));
    assert!(write(&"a".repeat(MAX_USERNAME - 2)).0.is_ok());
}

#[test]
fn written_responses_can_be_read() {
    for mapped in ["192.0.2.1:32853", "[2001:db8::1]:1", "0.0.0.0:0", "[::ffff:192.0.2.7]:9"] {
        let mapped: SocketAddr = mapped.parse().unwrap();
        let mut out = vec![];
        BindingSuccess { transaction: TRANSACTION, mapped }.write(PASSWORD, &mut out);
        let message = Message::parse(&out).unwrap();
        assert_eq!(message.class(), Class::Success);
        assert_eq!(message.mapped_address(), Some(SocketAddr::new(mapped.ip().to_canonical(), mapped.port())));
        assert!(message.verify_integrity(PASSWORD) && message.verify_fingerprint());
    }
    for (code, key) in
        [(ErrorCode::BadRequest, None), (ErrorCode::Unauthenticated, None), (ErrorCode::RoleConflict, Some(PASSWORD))]
    {
        let mut out = vec![];
        BindingError { transaction: TRANSACTION, code }.write(key, &mut out);
        let message = Message::parse(&out).unwrap();
        assert_eq!((message.class(), message.error_code()), (Class::Error, Some(code.number())));
        assert_eq!(message.verify_integrity(PASSWORD), key.is_some());
        assert!(message.verify_fingerprint());
    }
}

/// An answer to an address that nobody has verified must not be larger than the question.
#[test]
fn responses_are_no_larger_than_requests() {
    let request = request(Nomination::None, Role::Controlling(1)).len();
    let mut success = vec![];
    let mapped = "[2001:db8::1]:1".parse().unwrap();
    BindingSuccess { transaction: TRANSACTION, mapped }.write(PASSWORD, &mut success);
    assert!(success.len() <= request, "{} > {request}", success.len());
    for (code, key) in
        [(ErrorCode::BadRequest, None), (ErrorCode::Unauthenticated, None), (ErrorCode::RoleConflict, Some(PASSWORD))]
    {
        let mut error = vec![];
        BindingError { transaction: TRANSACTION, code }.write(key, &mut error);
        assert!(error.len() <= request, "{code:?}: {} > {request}", error.len());
    }
}

proptest! {
    #[test]
    fn any_octets_are_read_without_harm(mut octets in prop::collection::vec(any::<u8>(), 0..200), fix: bool) {
        if fix && octets.len() >= HEADER {
            octets[0] &= 0x3F;
            octets[4..8].copy_from_slice(&COOKIE);
            octets.truncate(HEADER + (octets.len() - HEADER) / 4 * 4);
            let length = (octets.len() - HEADER) as u16;
            octets[2..4].copy_from_slice(&length.to_be_bytes());
        }
        if let Ok(message) = Message::parse(&octets) {
            let _ = (message.class(), message.method(), message.transaction(), message.username(), message.priority());
            let _ = (message.mapped_address(), message.error_code(), message.ice_controlled(), message.use_candidate());
            prop_assert!(!message.verify_integrity(PASSWORD));
            let total: usize = message.attributes().map(|(_, value)| value.len() + ATTRIBUTE_HEADER).sum();
            prop_assert!(HEADER + total <= octets.len());
        }
    }

    /// Attributes of any kind and length, in any order, are found where they are.
    #[test]
    fn attributes_are_found(values in prop::collection::vec((0x0100u16..0x8000, prop::collection::vec(any::<u8>(), 0..9)), 0..8)) {
        let mut octets = REQUEST[..HEADER].to_vec();
        for (kind, value) in &values {
            octets.extend_from_slice(&kind.to_be_bytes());
            octets.extend_from_slice(&(value.len() as u16).to_be_bytes());
            octets.extend_from_slice(value);
            octets.resize(octets.len().next_multiple_of(4), 0xEE);
        }
        let length = (octets.len() - HEADER) as u16;
        octets[2..4].copy_from_slice(&length.to_be_bytes());
        let message = Message::parse(&octets).unwrap();
        let got: Vec<(u16, Vec<u8>)> = message.attributes().map(|(kind, value)| (kind, value.to_vec())).collect();
        prop_assert_eq!(got, values);
    }
}
