use super::*;
use crate::header::Extensions;
use crate::index::Index;
use proptest::prelude::*;
use rtc::crypto::default_provider;
use rtc::srtp::context::Context;
use rtc::srtp::option::srtp_replay_protection;
use rtc::srtp::protection_profile::ProtectionProfile;
use std::collections::HashSet;

const PROFILES: [Profile; 2] = [Profile::AeadAes128Gcm, Profile::Aes128CmSha1_80];
const SSRC: u32 = 0xDEAD_BEEF;

/// Any material will do, as long as no two octets of keys or salts are alike.
fn material() -> Vec<u8> {
    (0..64u8).map(|i| i.wrapping_mul(7).wrapping_add(3)).collect()
}

fn endpoint(profile: Profile, role: Role) -> (Rx, Tx) {
    let provider = default_provider().unwrap();
    let keys = Keys::from_exporter(&material(), profile, role).unwrap();
    (Rx::new(provider.crypto(), &keys).unwrap(), Tx::new(provider.crypto(), &keys).unwrap())
}

/// The core's own contexts at the other end: what the client sends with, what it receives with.
fn core_client(profile: Profile) -> (Context, Context) {
    let (name, salt) = match profile {
        Profile::AeadAes128Gcm => (ProtectionProfile::AeadAes128Gcm, 12),
        Profile::Aes128CmSha1_80 => (ProtectionProfile::Aes128CmHmacSha1_80, 14),
    };
    let (material, provider) = (material(), default_provider().unwrap());
    let context = |key: usize, at: usize| {
        let (key, salt) = (&material[key..key + 16], &material[at..at + salt]);
        Context::new(key, salt, name, Some(srtp_replay_protection(128)), None, provider.crypto()).unwrap()
    };
    (context(0, 32), context(16, 32 + salt))
}

#[derive(Clone, Copy)]
struct Shape {
    extension: bool,
    padding: u8,
}

const PLAIN: Shape = Shape { extension: false, padding: 0 };

fn packet(ssrc: u32, sequence: u16, shape: Shape) -> Vec<u8> {
    let mut packet = vec![0x80 | u8::from(shape.extension) << 4 | u8::from(shape.padding > 0) << 5, 111];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 1, 0]);
    packet.extend_from_slice(&ssrc.to_be_bytes());
    if shape.extension {
        packet.extend_from_slice(&[0xBE, 0xDE, 0, 2, 0x10, 0xAA, 0x31, 1, 2, 0, 0, 0]);
    }
    packet.extend_from_slice(b"payload");
    if shape.padding > 0 {
        packet.resize(packet.len() + usize::from(shape.padding) - 1, 0);
        packet.push(shape.padding);
    }
    packet
}

fn outgoing<'a>(ssrc: u32, index: u64, extensions: &'a Extensions, payload: &'a [u8]) -> Outgoing<'a> {
    Outgoing {
        ssrc,
        index: Index::new(index).unwrap(),
        marker: index.is_multiple_of(2),
        payload_type: 111,
        timestamp: 5,
        extensions,
        payload,
    }
}

/// Against the core's implementation, over two wraps, with extensions, padding, loss, reordering and replays.
#[test]
fn interoperates_with_the_core() {
    let mut mid = Extensions::default();
    mid.push(4, b"0").unwrap();
    for profile in PROFILES {
        let (mut rx, mut tx) = endpoint(profile, Role::Server);
        let (mut peer_tx, mut peer_rx) = core_client(profile);
        let mut held: Option<(u64, Vec<u8>)> = None;
        for i in 64_000u64..64_000 + 70_000 {
            if i % 97 == 0 {
                continue;
            }
            let shape = Shape { extension: i % 3 == 0, padding: if i % 5 == 0 { 4 } else { 0 } };
            let wire = peer_tx.encrypt_rtp(&packet(SSRC, i as u16, shape)).unwrap().to_vec();
            let mut arrivals = vec![(i, wire)];
            if i % 11 == 0 {
                held = arrivals.pop();
            } else if i % 11 == 3
                && let Some(late) = held.take()
            {
                arrivals.push(late);
            }
            for (i, wire) in arrivals {
                let mut octets = wire.clone();
                let opened = rx.open(&mut octets).unwrap();
                assert_eq!((opened.index.get(), &octets[opened.payload.clone()]), (i, &b"payload"[..]));
                let value = (i % 3 == 0).then_some(&[0xAA][..]);
                assert_eq!(opened.header.extension(&octets, 1), value);
                assert_eq!(rx.open(&mut wire.clone()), Err(Refused::Replay));

                let extensions = if i % 2 == 0 { &mid } else { Extensions::NONE };
                let packet = outgoing(SSRC, i, extensions, b"payload");
                let mut out = b"before".to_vec();
                tx.seal(&mut out, &packet).unwrap();
                let len = out.len();
                assert_eq!(tx.seal(&mut out, &packet), Err(SealError::UsedIndex(packet.index)));
                assert_eq!(out.len(), len);
                let got = peer_rx.decrypt_rtp(&out[6..]).unwrap();
                assert!(got.ends_with(b"payload"));
                assert_eq!(got.len(), 12 + extensions.as_bytes().len() + 7);
            }
        }
        assert_eq!(tx.last_index(SSRC), Index::new(64_000 + 69_999));
        assert_eq!(tx.last_index(1), None);
    }
}

#[test]
fn both_roles_of_this_implementation_understand_each_other() {
    for profile in PROFILES {
        for (here, there) in [(Role::Client, Role::Server), (Role::Server, Role::Client)] {
            let (_, mut tx) = endpoint(profile, here);
            let ((mut rx, _), (mut same_side, _)) = (endpoint(profile, there), endpoint(profile, here));
            let mut out = vec![];
            tx.seal(&mut out, &outgoing(SSRC, 9, Extensions::NONE, b"")).unwrap();
            assert_eq!(out.len(), 12 + profile.tag_len());
            assert_eq!(same_side.open(&mut out.clone()), Err(Refused::Forged));
            assert_eq!(rx.open(&mut out).unwrap().payload, 12..12);
        }
    }
}

#[test]
fn refuses_forgeries_and_remembers_nothing_of_them() {
    for profile in PROFILES {
        let (mut rx, _) = endpoint(profile, Role::Server);
        let (mut peer_tx, _) = core_client(profile);
        let shape = Shape { extension: true, padding: 0 };
        let wire = peer_tx.encrypt_rtp(&packet(SSRC, 7, shape)).unwrap().to_vec();
        for bit in 0..wire.len() * 8 {
            let mut octets = wire.clone();
            octets[bit / 8] ^= 1 << (bit % 8);
            assert!(rx.open(&mut octets).is_err(), "bit {bit}");
        }
        for len in 0..wire.len() {
            assert!(rx.open(&mut wire[..len].to_vec()).is_err(), "length {len}");
        }
        assert_eq!(format!("{rx:?}"), format!("Rx {{ profile: {profile:?}, live: 0, retired: 0, .. }}"));
        assert!(rx.open(&mut wire.clone()).is_ok());
        // A forgery far ahead does not move the window of a known source either.
        let mut ahead = wire.clone();
        ahead[2] = 0x40;
        assert_eq!(rx.open(&mut ahead), Err(Refused::Forged));
        let next = peer_tx.encrypt_rtp(&packet(SSRC, 8, PLAIN)).unwrap().to_vec();
        assert_eq!(rx.open(&mut next.clone()).unwrap().index.get(), 8);
    }
}

#[test]
fn padding_is_not_payload() {
    let check = |padding: u8, last: u8, expected: Option<std::ops::Range<usize>>| {
        let (mut rx, _) = endpoint(PROFILES[0], Role::Server);
        let (mut peer_tx, _) = core_client(PROFILES[0]);
        let mut plain = packet(SSRC, 1, Shape { extension: false, padding });
        *plain.last_mut().unwrap() = last;
        let mut wire = peer_tx.encrypt_rtp(&plain).unwrap().to_vec();
        assert_eq!(rx.open(&mut wire).ok().map(|opened| opened.payload), expected, "{padding} {last}");
    };
    check(4, 4, Some(12..19));
    check(4, 11, Some(12..12)); // a probe: padding only
    check(4, 12, None); // more padding than there is packet
    check(4, 255, None);
    check(4, 0, Some(12..22)); // a padding that does not count itself
}

/// A peer with more sources than have a window each: all go on, and nothing is ever accepted twice.
#[test]
fn idle_sources_make_room_and_are_not_replayable() {
    for profile in PROFILES {
        let (mut rx, _) = endpoint(profile, Role::Server);
        let (mut peer_tx, _) = core_client(profile);
        let mut wire = |ssrc, sequence| peer_tx.encrypt_rtp(&packet(ssrc, sequence, PLAIN)).unwrap().to_vec();
        let mut sent = vec![];
        for round in 0..3u16 {
            for ssrc in 0..20 {
                // A gap in each round: what is missing must not be accepted after the source's return either.
                sent.push(wire(ssrc, round * 10 + 1));
                assert!(rx.open(&mut sent.last().unwrap().clone()).is_ok(), "{ssrc} {round}");
            }
        }
        for old in &sent {
            assert_eq!(rx.open(&mut old.clone()), Err(Refused::Replay));
        }
        // Source 0 retired at 21: 15 never came, but is no longer told from a replay; 22 is new.
        let (late, next) = (wire(0, 15), wire(0, 22));
        assert_eq!(rx.open(&mut late.clone()), Err(Refused::Replay));
        assert_eq!(rx.open(&mut next.clone()).unwrap().index.get(), 22);
        assert_eq!(rx.open(&mut next.clone()), Err(Refused::Replay));
        assert_eq!(format!("{rx:?}"), format!("Rx {{ profile: {profile:?}, live: 8, retired: 12, .. }}"));
    }
}

#[test]
fn sources_are_bounded() {
    let (mut rx, mut tx) = endpoint(PROFILES[0], Role::Server);
    let (mut peer_tx, _) = core_client(PROFILES[0]);
    for ssrc in 0..300 {
        let mut wire = peer_tx.encrypt_rtp(&packet(ssrc, 1, PLAIN)).unwrap().to_vec();
        let expected = if ssrc < 8 + 256 { None } else { Some(Refused::TooManySources) };
        assert_eq!(rx.open(&mut wire).err(), expected, "{ssrc}");
    }
    // Known ones, also retired ones, go on.
    for ssrc in [0, 263] {
        let mut wire = peer_tx.encrypt_rtp(&packet(ssrc, 2, PLAIN)).unwrap().to_vec();
        assert!(rx.open(&mut wire).is_ok());
    }
    let mut out = vec![];
    for ssrc in 0..20 {
        let expected = if ssrc < 16 { Ok(()) } else { Err(SealError::TooManySources) };
        assert_eq!(tx.seal(&mut out, &outgoing(ssrc, 1, Extensions::NONE, b"")), expected);
    }
}

#[test]
fn a_source_that_returns_after_a_wrap_keeps_its_count() {
    let (mut rx, _) = endpoint(PROFILES[1], Role::Server);
    let (mut peer_tx, _) = core_client(PROFILES[1]);
    let mut wire = |ssrc, sequence: u64| peer_tx.encrypt_rtp(&packet(ssrc, sequence as u16, PLAIN)).unwrap().to_vec();
    for i in [0xFFF0, 0x1_0001] {
        assert_eq!(rx.open(&mut wire(1, i)).unwrap().index.get(), i);
    }
    for ssrc in 2..20 {
        assert!(rx.open(&mut wire(ssrc, 5)).is_ok());
    }
    assert_eq!(rx.open(&mut wire(1, 0x1_0002)).unwrap().index.get(), 0x1_0002);
}

#[test]
fn what_cannot_be_sealed_leaves_nothing_behind() {
    let (_, mut tx) = endpoint(PROFILES[0], Role::Server);
    let mut out = b"before".to_vec();
    let packet = Outgoing { payload_type: 128, ..outgoing(1, 1, Extensions::NONE, b"secret") };
    assert_eq!(tx.seal(&mut out, &packet), Err(SealError::PayloadType(128)));
    assert_eq!(out, b"before");
    assert_eq!(tx.last_index(1), None);
    // Old enough that it may have been used.
    tx.seal(&mut out, &outgoing(1, 1_000, Extensions::NONE, b"")).unwrap();
    assert_eq!(
        tx.seal(&mut out, &outgoing(1, 872, Extensions::NONE, b"")),
        Err(SealError::UsedIndex(Index::new(872).unwrap()))
    );
    assert_eq!(tx.seal(&mut out, &outgoing(1, 873, Extensions::NONE, b"")), Ok(()));
}

#[test]
fn keys_need_enough_material() {
    let check = |profile: Profile, len: usize, expected: Option<usize>| {
        let got = Keys::from_exporter(&material()[..len], profile, Role::Client).err();
        assert_eq!(got, expected.map(|expected| KeyError::Material { expected, actual: len }));
    };
    check(Profile::AeadAes128Gcm, 55, Some(56));
    check(Profile::AeadAes128Gcm, 56, None);
    check(Profile::Aes128CmSha1_80, 59, Some(60));
    check(Profile::Aes128CmSha1_80, 60, None);
    let keys = Keys::from_exporter(&material(), Profile::AeadAes128Gcm, Role::Client).unwrap();
    assert_eq!(format!("{keys:?}"), "Keys { profile: AeadAes128Gcm, .. }");
    for profile in PROFILES {
        let name = match profile {
            Profile::AeadAes128Gcm => "SRTP_AEAD_AES_128_GCM",
            Profile::Aes128CmSha1_80 => "SRTP_AES128_CM_HMAC_SHA1_80",
        };
        assert_eq!(Profile::from_name(name), Some(profile));
    }
    assert_eq!(Profile::from_name("SRTP_NULL_HMAC_SHA1_80"), None);
}

/// What a session holds for SRTP, as far as this crate decides it.
#[test]
fn sizes() {
    assert!(size_of::<Rx>() <= 128, "{}", size_of::<Rx>());
    assert!(size_of::<Tx>() <= 96, "{}", size_of::<Tx>());
}

proptest! {
    #[test]
    fn any_octets_are_refused(octets in prop::collection::vec(any::<u8>(), 0..120), gcm: bool) {
        let (mut rx, _) = endpoint(PROFILES[usize::from(gcm)], Role::Server);
        let mut octets = octets;
        if let Some(first) = octets.first_mut() { *first = *first & 0x3F | 0x80; }
        prop_assert!(matches!(rx.open(&mut octets), Err(Refused::Malformed | Refused::Forged)));
    }

    /// Whatever the order, the losses and the repetitions: each index is opened at most once, and as what it was.
    #[test]
    fn each_index_is_opened_once(order in prop::collection::vec((0u32..12, 0u64..400), 1..200), start in 0u64..70_000) {
        let (mut rx, _) = endpoint(Profile::AeadAes128Gcm, Role::Server);
        let mut opened = HashSet::new();
        for (ssrc, i) in order {
            let i = start % 0x8000 + i;
            // A new transmitter each time: it is the network that repeats, not the peer.
            let (_, mut tx) = endpoint(Profile::AeadAes128Gcm, Role::Client);
            let mut wire = vec![];
            tx.seal(&mut wire, &outgoing(ssrc, i, Extensions::NONE, &i.to_be_bytes())).unwrap();
            match rx.open(&mut wire) {
                Ok(o) => {
                    prop_assert_eq!((o.index.get(), &wire[o.payload]), (i, &i.to_be_bytes()[..]));
                    prop_assert!(opened.insert((ssrc, i)));
                }
                Err(refused) => prop_assert_eq!(refused, Refused::Replay),
            }
        }
    }
}

/// `cargo test --release -p streamfleet-rtp cost -- --ignored --nocapture`: time per packet of 80 octets, in cache.
#[test]
#[ignore = "a measurement, of use only in a release build"]
fn cost() {
    const PACKETS: u32 = 20_000;
    let payload = [7u8; 80];
    for profile in PROFILES {
        let (mut rx, mut tx) = endpoint(profile, Role::Server);
        let (mut peer_tx, mut peer_rx) = core_client(profile);
        let plain: Vec<Vec<u8>> = (0..PACKETS)
            .map(|i| {
                let mut plain = packet(SSRC, i as u16, PLAIN);
                plain.truncate(12);
                plain.extend_from_slice(&payload);
                plain
            })
            .collect();
        let time = |mut work: Box<dyn FnMut() + '_>| {
            let start = std::time::Instant::now();
            work();
            start.elapsed() / PACKETS
        };
        let mut wires: Vec<Vec<u8>> = vec![];
        let core_seal =
            time(Box::new(|| wires = plain.iter().map(|p| peer_tx.encrypt_rtp(p).unwrap().to_vec()).collect()));
        let open = time(Box::new(|| wires.iter_mut().for_each(|wire| assert!(rx.open(wire).is_ok()))));
        let mut out = Vec::with_capacity(PACKETS as usize * 128);
        let seal = time(Box::new(|| {
            (0..PACKETS)
                .for_each(|i| tx.seal(&mut out, &outgoing(SSRC, i.into(), Extensions::NONE, &payload)).unwrap());
        }));
        let len = 12 + 80 + profile.tag_len();
        let core_open = time(Box::new(|| out.chunks(len).for_each(|wire| drop(peer_rx.decrypt_rtp(wire).unwrap()))));
        println!("{profile:?}: open {open:?}, seal {seal:?}; the core's: open {core_open:?}, seal {core_seal:?}");
    }
}
