//! What must hold for any datagram that is read as RTP or RTCP. The fuzz target and the replay of its corpus run this
//! same function.

use std::time::{Duration, Instant, UNIX_EPOCH};

use rtc::crypto::default_provider;
use streamfleet_rtp::rtcp::{Event, WallClock, read};
use streamfleet_rtp::srtp::Role;
use streamfleet_rtp::{Extensions, Header, Index, Keys, Outgoing, Profile, Refused, Rx, Tx};

/// Both sides' keys and salts: any octets will do, as long as nobody's fuzzer can guess a tag.
const MATERIAL: [u8; 60] = *b"both write keys, sixteen octets each, then the two salts ...";

/// A datagram as it comes off the socket: its header, the packet as SRTP, the packet as what SRTP protects, and as RTCP.
pub(crate) fn rtp(bytes: &[u8]) {
    if let Ok(header) = Header::parse(bytes) {
        header_is_within(&header, bytes);
    }
    for profile in [Profile::AeadAes128Gcm, Profile::Aes128CmSha1_80] {
        // Nobody who lacks the keys is believed, and nobody is believed twice.
        let mut forged = bytes.to_vec();
        let outcome = endpoint(profile, Role::Server).1.open(&mut forged);
        assert!(matches!(outcome, Err(Refused::Malformed | Refused::Forged)), "{outcome:?}");
        sealed_and_opened(profile, bytes);
    }
    rtcp(bytes);
}

fn header_is_within(header: &Header, packet: &[u8]) {
    assert!((12..=packet.len()).contains(&header.len) && header.payload_type < 128);
    let mut octets = 0;
    for (id, value) in header.extensions(packet) {
        octets += value.len();
        assert!(header.extension(packet, id).is_some());
    }
    assert!(octets <= header.len - 12, "extensions of {octets} octets in a header of {}", header.len);
}

fn endpoint(profile: Profile, role: Role) -> (Tx, Rx) {
    let provider = default_provider().expect("the provider that the tests are built with");
    let keys = Keys::from_exporter(&MATERIAL, profile, role).expect("enough for either profile");
    let (tx, rx) = (Tx::new(provider.crypto(), &keys), Rx::new(provider.crypto(), &keys));
    (tx.expect("the provider has both ciphers"), rx.expect("the provider has both ciphers"))
}

/// The octets as fields and payload of a packet of ours: it opens at the other end to what it was, once.
fn sealed_and_opened(profile: Profile, bytes: &[u8]) {
    let Some((head, payload)) = bytes.split_first_chunk::<12>() else { return };
    let [marker, payload_type, i0, i1, i2, t0, t1, s0, s1, id, length, flip] = *head;
    let mut extensions = Extensions::default();
    let value = &payload[..payload.len().min(usize::from(length))];
    let extended = extensions.push(id, value).is_ok();
    let index = Index::new(u64::from_be_bytes([0, 0, 0, 0, 0, i0, i1, i2])).expect("24 bits are less than 48");
    let packet = Outgoing {
        ssrc: u32::from(u16::from_be_bytes([s0, s1])),
        index,
        marker: marker & 1 == 1,
        payload_type: payload_type & 0x7f,
        timestamp: u32::from(u16::from_be_bytes([t0, t1])),
        extensions: &extensions,
        payload,
    };
    let mut wire = Vec::new();
    endpoint(profile, Role::Client).0.seal(&mut wire, &packet).expect("a first packet has a new index");
    let mut rx = endpoint(profile, Role::Server).1;

    // One changed bit anywhere, and nothing of it is used. (In the CSRC count or the extension bit it may make the
    // header reach beyond the packet.)
    let mut changed = wire.clone();
    let at = usize::from(flip) % changed.len();
    changed[at] ^= 1 << (flip & 7);
    let refused = rx.open(&mut changed);
    assert!(matches!(refused, Err(Refused::Forged | Refused::Malformed)), "{refused:?}");

    // A receiver knows no more of the first index than the 16 bits that travel: beyond them the tag must not fit.
    let mut received = wire.clone();
    match rx.open(&mut received) {
        Ok(opened) => {
            assert_eq!((opened.index, index.roll_over_counter()), (index, 0));
            assert_eq!(&received[opened.payload], payload);
            assert_eq!((opened.header.ssrc, opened.header.timestamp), (packet.ssrc, packet.timestamp));
            assert_eq!((opened.header.marker, opened.header.payload_type), (packet.marker, packet.payload_type));
            assert_eq!(opened.header.extension(&received, id), extended.then_some(value));
            assert_eq!(rx.open(&mut wire), Err(Refused::Replay));
        }
        Err(refused) => {
            assert!(index.roll_over_counter() > 0 && refused == Refused::Forged, "{refused:?} at {index:?}");
        }
    }
}

/// What an authenticated peer may say of our sources.
fn rtcp(bytes: &[u8]) {
    let mut octets = bytes;
    let Ok(packets) = rtc::rtcp::packet::unmarshal(&mut octets) else { return };
    let now = Instant::now();
    let clock = WallClock::new(now, UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let mut events = 0;
    read(&packets, now, &clock, |event| {
        events += 1;
        if let Event::Feedback { feedback, .. } = event {
            assert!((0.0..1.0).contains(&feedback.loss()));
            assert!(feedback.total_lost < 1 << 23);
            assert!(feedback.round_trip.is_none_or(|rtt| rtt <= Duration::from_secs(60)));
            let _ = feedback.jitter_at(8_000);
        }
    });
    // The smallest thing that can be said takes four octets.
    assert!(events <= bytes.len() / 4, "{events} events in {} octets", bytes.len());
}
