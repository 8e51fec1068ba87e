//! What must hold for any datagram that is read as STUN. The fuzz target and the replay of its corpus run this same
//! function.

use streamfleet_net::demux::{Kind, classify};
use streamfleet_net::stun::{
    BINDING, BindingRequest, BindingSuccess, Class, HEADER, MAX_USERNAME, Message, Nomination, Role,
};

/// The password of RFC 5769's vectors, so that a mutated vector may still be authentic.
const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

/// A datagram as it comes off the socket, and what the loop asks of it.
pub(crate) fn stun(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else { return };
    // Methods that begin like DTLS are nobody's (RFC 7983); ICE's own may not get lost.
    assert!(message.method() != BINDING || classify(bytes) == Kind::Stun, "a binding would not be read as one");

    let mut octets = HEADER;
    for (_, value) in message.attributes() {
        octets += 4 + value.len().next_multiple_of(4);
    }
    assert!(octets <= bytes.len(), "attributes of {octets} octets in {}", bytes.len());
    assert!(message.method() < 1 << 12);
    assert!(message.error_code().is_none_or(|code| (300..700).contains(&code)));
    assert_eq!(message.local_ufrag(), message.username().and_then(|name| Some(name.split_once(':')?.0)));
    let _ = (message.ice_controlling(), message.ice_controlled(), message.use_candidate());

    // No other key makes the same tag.
    if message.verify_integrity(PASSWORD) {
        assert!(!message.verify_integrity(b"another password"));
    }
    // A right checksum stands at the end: not even one octet may follow it.
    if message.verify_fingerprint() {
        let longer = [bytes, &[0; 4]].concat();
        assert!(Message::parse(&longer).is_err());
    }

    if let Some((remote, local)) = message.username().and_then(|name| name.split_once(':')) {
        rewritten_request(&message, remote, local);
    }
    if let Some(mapped) = message.mapped_address() {
        let mut out = Vec::new();
        BindingSuccess { transaction: message.transaction(), mapped }.write(PASSWORD, &mut out);
        let again = Message::parse(&out).expect("what we write we can read");
        assert_eq!((again.class(), again.method()), (Class::Success, BINDING));
        assert_eq!(again.transaction(), message.transaction());
        let ip = mapped.ip().to_canonical();
        assert_eq!(again.mapped_address().map(|a| (a.ip(), a.port())), Some((ip, mapped.port())));
        assert!(again.verify_integrity(PASSWORD) && again.verify_fingerprint());
    }
}

/// Written by us, a request says what was read from the other's.
fn rewritten_request(message: &Message<'_>, remote_ufrag: &str, local_ufrag: &str) {
    let request = BindingRequest {
        transaction: message.transaction(),
        remote_ufrag,
        local_ufrag,
        priority: message.priority().unwrap_or_default(),
        role: match (message.ice_controlling(), message.ice_controlled()) {
            (Some(tie_breaker), _) => Role::Controlling(tie_breaker),
            (None, tie_breaker) => Role::Controlled(tie_breaker.unwrap_or_default()),
        },
        nomination: if message.use_candidate() { Nomination::UseCandidate } else { Nomination::None },
    };
    let mut out = vec![0xff];
    let written = request.write(PASSWORD, &mut out);
    assert_eq!(written.is_ok(), remote_ufrag.len() + 1 + local_ufrag.len() <= MAX_USERNAME);
    if written.is_err() {
        assert_eq!(out, [0xff], "a refused request leaves the buffer as it was");
        return;
    }
    let again = Message::parse(&out[1..]).expect("what we write we can read");
    assert_eq!(again.username(), message.username());
    assert_eq!(again.priority(), Some(request.priority));
    assert_eq!(again.use_candidate(), message.use_candidate());
    assert!(again.verify_integrity(PASSWORD) && again.verify_fingerprint());
}
