//! What must hold for any input to the parsers. The fuzz targets and the replay of their corpus run these same
//! functions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;

use serde_json::Value;
use streamfleet_session::candidate::MAX_LINE;
use streamfleet_session::fleet::{Placed, Refused};
use streamfleet_session::ufrag::{Minted, RelayKey, RelayKeys, Seal, WorkerNetworks, WorkerPrefix};
use streamfleet_session::wire::{OfferBody, ServerMessage};
use streamfleet_session::{
    IdentityPolicy, Metadata, MetadataLimits, Network, ParsedCandidate, RemoteCandidate, SessionId, Ufrag, UserId,
    identify,
};

/// A body as it comes off the wire, and everything that an offer is put through before its SDP is read.
pub(crate) fn offer_body(bytes: &[u8]) {
    match OfferBody::parse(bytes) {
        Err(error) => {
            let text = error.to_json();
            let value: Value = serde_json::from_str(&text).expect("an error is JSON");
            assert!(value["detail"].as_array().is_some_and(|detail| !detail.is_empty()), "{text}");
            assert!(text.len() <= 64 * 1024, "an error of {} bytes", text.len());
        }
        Ok(body) => {
            let id = body.webrtc_id();
            assert_eq!(id.as_str().parse::<SessionId>().as_ref(), Ok(id));
            match body {
                OfferBody::Candidate { candidate, .. } => candidate_value(&candidate),
                OfferBody::Offer(offer) => {
                    let policy = IdentityPolicy::default();
                    if let Ok(identity) = identify(&offer, |_| Some("header-user"), &policy) {
                        metadata_is_within(&identity.metadata, &policy.metadata);
                        let user = identity.user_id.expect("the header names one");
                        assert_eq!(user.as_str().parse::<UserId>(), Ok(user.clone()));
                    }
                }
            }
        }
    }
}

/// A candidate as JSON, and as a bare line.
pub(crate) fn candidate(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(value) = serde_json::from_str(text) {
        candidate_value(&value);
    }
    candidate_value(&Value::from(text));
    if let Ok(candidate) = RemoteCandidate::from_line(text) {
        candidate_is_stable(&candidate);
    }
    // A client may not confuse a server of ours, nor a server a client.
    if let Ok(message) = ServerMessage::parse(text) {
        assert_eq!(ServerMessage::parse(&message.to_json()), Ok(message));
    }
}

/// Metadata as JSON.
pub(crate) fn metadata(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let limits = MetadataLimits::default();
    match Metadata::parse(&value, &limits) {
        Ok(metadata) => metadata_is_within(&metadata, &limits),
        Err(error) => assert!(error.to_string().len() <= 256, "{error}"),
    }
}

/// What a router says of a session in a header, and why a worker refuses it.
pub(crate) fn placed(bytes: &[u8]) {
    match Placed::decode(bytes) {
        Err(error) => assert!(error.to_string().len() <= 64, "{error}"),
        Ok(placed) => {
            let header = placed.encode();
            // What is written anew may be longer: names of fields that were left out.
            if let Ok(header) = header {
                assert_eq!(Placed::decode(header.as_bytes()).expect("what is written is read"), placed);
            }
            let shown = format!("{placed:?}");
            assert!(!shown.contains(&placed.context.token.reveal()), "{shown}");
        }
    }
    if let Ok(refused) = String::from_utf8_lossy(bytes).parse::<Refused>() {
        assert_eq!(refused.as_str().as_bytes(), bytes);
    }
}

/// Any installation; the keys are public, so that a corpus may hold ufrags that open.
static SEAL: LazyLock<Seal> = LazyLock::new(|| {
    let [current, previous] = [1, 2].map(|byte| RelayKey::from_random([byte; 32]));
    let ranges = ["10.244.0.0/16", "fd00:10:244::/64"].map(|range| range.parse().expect("a range"));
    let networks =
        WorkerNetworks::new(ranges.into(), "fd00:10:244::/64".parse().ok()).expect("one prefix for one range");
    Seal::new(&RelayKeys { current, previous: Some(previous) }, networks)
});

/// What a packet has in place of a ufrag; a ufrag for any target; and what is configured for them.
pub(crate) fn ufrag(bytes: &[u8]) {
    if let Ok(opened) = SEAL.open(bytes) {
        assert!(is_worker(opened.target), "{} is no worker's", opened.target);
        let text = str::from_utf8(bytes).expect("ice-chars are ASCII");
        let ufrag: Ufrag = text.parse().expect("what opens is a ufrag");
        assert_eq!(ufrag.as_str(), text);
        // One sign further is another ufrag, and nobody's.
        for at in 0..bytes.len() {
            let mut other = bytes.to_vec();
            other[at] = if other[at] == b'z' { b'0' } else { b'z' };
            assert!(SEAL.open(&other).is_err(), "{} opens too", other.escape_ascii());
        }
    }
    if let Some((random, rest)) = bytes.split_first_chunk()
        && let Some((port, address)) = rest.split_first_chunk()
    {
        let port = u16::from_be_bytes(*port);
        if let Some(address) = address.first_chunk() {
            mint(SocketAddr::new(Ipv4Addr::from_octets(*address).into(), port), *random);
        }
        if let Some(address) = address.first_chunk() {
            mint(SocketAddr::new(Ipv6Addr::from_octets(*address).into(), port), *random);
        }
    }
    let text = String::from_utf8_lossy(bytes);
    if let Ok(network) = text.parse::<Network>() {
        // A range of IPv6 that IPv4 is a part of holds none of it: such addresses are IPv4.
        assert_eq!(network.contains(network.base()), network.base().to_canonical() == network.base());
        if let Ok(prefix) = text.parse::<WorkerPrefix>() {
            assert!(WorkerNetworks::new(vec![network], Some(prefix)).is_ok_and(|both| both.contains(network.base())));
        }
    }
    if let Ok(key) = text.parse::<RelayKey>() {
        assert!(text.trim().len() > RelayKey::MIN_LEN && format!("{key:?}").len() < 24);
    }
}

fn mint(target: SocketAddr, random: [u8; Seal::RANDOM]) {
    let minted = SEAL.mint(target, random);
    assert_eq!(minted.is_ok(), is_worker(target), "{target}");
    if let Ok(Minted { ufrag, key }) = minted {
        assert!(ufrag.as_str().bytes().all(|c| c.is_ascii_alphanumeric() || c == b'+' || c == b'/'));
        let opened = SEAL.open(ufrag.as_str().as_bytes()).expect("what is minted opens");
        assert_eq!((opened.target.ip(), opened.target.port()), (target.ip().to_canonical(), target.port()));
        assert_eq!(opened.key, key);
    }
}

fn is_worker(target: SocketAddr) -> bool {
    let is_in_networks = match target.ip().to_canonical() {
        IpAddr::V4(address) => matches!(address.octets(), [10, 244, ..]),
        IpAddr::V6(address) => matches!(address.segments(), [0xfd00, 0x10, 0x244, 0, ..]),
    };
    is_in_networks && target.port() != 0
}

fn candidate_value(value: &Value) {
    if let Ok(ParsedCandidate::Candidate(candidate)) = RemoteCandidate::parse(value) {
        assert!(candidate.sdp_mid.is_some() || candidate.sdp_mline_index.is_some());
        let address = candidate.socket_addr().expect("names are ignored");
        assert!(address.port() != 0 && !address.ip().is_multicast() && !address.ip().is_unspecified());
        candidate_is_stable(&candidate);
    }
}

fn candidate_is_stable(candidate: &RemoteCandidate) {
    let line = &candidate.line;
    assert!(line.starts_with("candidate:") && line.len() <= MAX_LINE && !line.contains(char::is_control), "{line:?}");
    let again = RemoteCandidate::from_line(line).expect("a normalised line is a line");
    assert_eq!((&again.line, again.address, again.typ), (line, candidate.address, candidate.typ));
}

fn metadata_is_within(metadata: &Metadata, limits: &MetadataLimits) {
    let text = serde_json::to_string(metadata).expect("metadata is JSON");
    assert!(text.len() <= limits.max_bytes, "{} bytes", text.len());
    assert!(metadata.as_map().len() <= limits.max_keys);
    let value: Value = serde_json::from_str(&text).expect("metadata is JSON");
    assert_eq!(Metadata::parse(&value, limits).as_ref(), Ok(metadata));
}
