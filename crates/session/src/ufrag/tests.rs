use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

const RANDOM: [u8; Seal::RANDOM] = [0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab];
const PODS: &[&str] = &["10.244.0.0/16", "255.255.255.255", "fd00:10:244::/48"];

fn key(byte: u8) -> RelayKey {
    RelayKey::from_random([byte; 32])
}

fn networks(ranges: &[&str], prefix: Option<&str>) -> WorkerNetworks {
    let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
    WorkerNetworks::new(ranges, prefix.map(|prefix| prefix.parse().unwrap())).unwrap()
}

fn seal(current: RelayKey, previous: Option<RelayKey>) -> Seal {
    Seal::new(&RelayKeys { current, previous }, networks(PODS, Some("fd00:10:244::/64")))
}

fn mint(seal: &Seal, target: &str) -> Minted {
    seal.mint(target.parse().unwrap(), RANDOM).unwrap()
}

fn bytes(ufrag: Ufrag) -> [u8; SEALED] {
    read(ufrag.as_str().as_bytes()).unwrap()
}

/// Made with another implementation of HKDF, AES and CMAC (Python's `cryptography`). Routers and relays of two releases meet
/// while one is replaced by the other: a change here needs another version in the header.
#[test]
fn the_form_is_stable() {
    #[track_caller]
    fn check(secret: &str, prefix: &str, target: &str, random: [u8; 12], ufrag: &str, key: &str) {
        let key_of_all = secret.parse::<RelayKey>().unwrap();
        let seal = Seal::new(&key_of_all.into(), networks(PODS, Some(prefix)));
        let target = target.parse().unwrap();
        let minted = seal.mint(target, random).unwrap();
        assert_eq!((minted.ufrag.as_str(), minted.key.reveal().as_str()), (ufrag, key));
        assert_eq!(seal.open(ufrag.as_bytes()), Ok(Opened { target, key: minted.key }));
    }
    let a = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    let b = "t7e3t7e3t7e3t7e3t7e3t7e3t7e3t7e3t7e3t7e3t7e3t7e3t7e3tw==";
    let (v4, v6) = ("10.244.3.7:5000", "[fd00:10:244::7]:5003");
    let any = "fd00:10:244::/64";
    check(a, any, v4, RANDOM, "KaChoqOkpaanqC6SV7mKR9OP6PDG77mW", "4055a914100fedc87bc12be534e30908");
    check(a, any, v4, [0; 12], "KQAAAAAAAAAAAMvrs34Zm3fT1TaG8ZG4", "dc97022f7d1eee331ee5ad5edb87146d");
    let all_ones = "255.255.255.255:65535";
    check(a, any, all_ones, [0xFF; 12], "Kf///////////9a6cEd4KXFBmB0j0Pn4", "cefc37cfd0b595c73de9fc62c0855383");
    check(a, "fd00:10:244::/64", v6, RANDOM, "OaChoqOkUH/R2dfL5cmhnwsXbhRphwVz", "0390c82dff4f38a934d7cf006f1d3087");
    check(a, "fd00:10:244::/48", v6, RANDOM, "OaChovKg1xGiSwtZ6Kf1c7Df2qkEW0t7", "27a035301692d6ffe35d4027c1f95091");
    check(a, "fd00:10:244::/120", v6, RANDOM, "OaChoqOkpaanqKmqq2oXKRwkZ7f11Y8g", "4fa8e979c88aa23d005dce41b3ebd23c");
    check(b, any, v4, RANDOM, "JqChoqOkpaanqKe+bVm1qItOQt/coeO1", "ac4cd11c4d3c78b640a811f8b3023fec");
    check(b, "fd00:10:244::/64", v6, RANDOM, "NqChoqOks99jUYxoQDkKybo2+mpkkjRx", "92cd71e31af7c3d7c29fdf850561b190");
}

#[test]
fn what_is_no_ufrag_of_ours_is_told_apart() {
    let seal = seal(key(1), None);
    #[track_caller]
    fn check(seal: &Seal, text: &[u8], expected: Unopened) {
        assert_eq!(seal.open(text), Err(expected), "{}", text.escape_ascii());
    }
    let good = mint(&seal, "10.244.3.7:5000").ufrag;
    let good = good.as_str();
    check(&seal, b"", Unopened::Length);
    check(&seal, b"a1b2", Unopened::Length);
    check(&seal, &good.as_bytes()[..31], Unopened::Length);
    check(&seal, format!("{good}A").as_bytes(), Unopened::Length);
    check(&seal, format!("{good}:abcd").as_bytes(), Unopened::Length);
    check(&seal, &[b'A'; 70_000], Unopened::Length);
    for wrong in ["=", "-", "_", ":", " ", "\n", "\0", "\u{7f}"] {
        check(&seal, format!("{}{wrong}", &good[..31]).as_bytes(), Unopened::Character);
        check(&seal, format!("{wrong}{}", &good[1..]).as_bytes(), Unopened::Character);
    }
    check(&seal, &[0xFF; 32], Unopened::Character);
    check(&seal, format!("{}é", &good[..30]).as_bytes(), Unopened::Character);
    check(&seal, &[b'A'; 32], Unopened::Version);
    for version in (0..8).filter(|version| *version != 1) {
        let mut other = read(good.as_bytes()).unwrap();
        other[0] = other[0] & 0x1F | version << 5;
        check(&seal, Ufrag::of(other).as_str().as_bytes(), Unopened::Version);
    }
    for id in (0..16).filter(|id| *id != key(1).id().get()) {
        let mut other = read(good.as_bytes()).unwrap();
        other[0] = other[0] & 0xF0 | id;
        check(&seal, Ufrag::of(other).as_str().as_bytes(), Unopened::Key);
    }
    let v4_alone = Seal::new(&key(1).into(), networks(&["10.244.0.0/16"], None));
    check(&v4_alone, mint(&seal, "[fd00:10:244::7]:5000").ufrag.as_str().as_bytes(), Unopened::Family);
}

#[test]
fn reasons_have_labels_of_their_own() {
    let mut labels = Unopened::ALL.map(Unopened::as_str);
    labels.sort_unstable();
    assert!(labels.windows(2).all(|pair| pair[0] < pair[1]), "{labels:?}");
}

#[test]
fn another_installations_ufrag_is_forged() {
    // Both keys have the same id, so that nothing but the tag tells.
    let (ours, theirs) = (key(0), key(4));
    assert_eq!(ours.id(), theirs.id());
    for target in ["10.244.3.7:5000", "[fd00:10:244::7]:5003"] {
        let ufrag = mint(&seal(theirs.clone(), None), target).ufrag;
        assert_eq!(seal(ours.clone(), None).open(ufrag.as_str().as_bytes()), Err(Unopened::Tag));
    }
}

#[test]
fn nothing_leads_out_of_the_worker_networks() {
    #[track_caller]
    fn check(ranges: &[&str], prefix: Option<&str>, target: &str, expected: Result<(), Unsealable>) {
        let seal = Seal::new(&key(1).into(), networks(ranges, prefix));
        assert_eq!(seal.mint(target.parse().unwrap(), RANDOM).map(|_| ()), expected, "{target}");
    }
    let (pods, prefix) = (["10.244.0.0/16", "fd00:10:244::/64"].as_slice(), Some("fd00:10:244::/64"));
    check(pods, prefix, "10.244.255.255:1", Ok(()));
    check(pods, prefix, "10.245.0.1:5000", Err(Unsealable::Elsewhere));
    check(pods, prefix, "127.0.0.1:6379", Err(Unsealable::Elsewhere));
    check(pods, prefix, "10.244.3.7:0", Err(Unsealable::Port));
    check(pods, prefix, "[fd00:10:244::1]:65535", Ok(()));
    check(pods, prefix, "[fd00:10:244:1::1]:5000", Err(Unsealable::Elsewhere));
    check(pods, prefix, "[::1]:5000", Err(Unsealable::Elsewhere));
    check(&["fd00::/8"], prefix, "[fd00:10:245::1]:5000", Err(Unsealable::Prefix));
    check(&["10.244.0.0/16"], None, "[fd00:10:244::1]:5000", Err(Unsealable::Elsewhere));

    // What was minted before the networks were made smaller.
    let before = Seal::new(&key(1).into(), networks(pods, prefix));
    let after = Seal::new(&key(1).into(), networks(&["10.244.0.0/24", "fd00:10:244::/112"], prefix));
    for (target, opens) in [
        ("10.244.0.7:5000", true),
        ("10.244.3.7:5000", false),
        ("[fd00:10:244::7]:5003", true),
        ("[fd00:10:244::1:7]:5003", false),
    ] {
        let opened = after.open(mint(&before, target).ufrag.as_str().as_bytes()).map(|opened| opened.target);
        assert_eq!(opened, if opens { Ok(target.parse().unwrap()) } else { Err(Unopened::Elsewhere) }, "{target}");
    }
}

/// Without the prefix in the keys, the second would lead to a host of another network, and for one nonce in 256 the third to
/// another host of the same.
#[test]
fn a_ufrag_is_read_under_its_own_prefix_only() {
    let under = |prefix| Seal::new(&key(1).into(), networks(&["fd00::/16"], Some(prefix)));
    for (minted, opened) in [
        ("fd00:10:244::/64", "fd00:10:245::/64"),
        ("fd00:10:244::/120", "fd00:10:244::/112"),
        ("fd00:10:244::/112", "fd00:10:244::/120"),
        ("fd00:10:244::/48", "fd00:10:244::/56"),
    ] {
        let (minting, opening) = (under(minted), under(opened));
        for nonce in 0..=u16::MAX {
            let mut random = [0; 12];
            random[10..].copy_from_slice(&nonce.to_be_bytes());
            random[..2].copy_from_slice(&nonce.to_be_bytes());
            let ufrag = minting.mint("[fd00:10:244::7]:5000".parse().unwrap(), random).unwrap().ufrag;
            assert_eq!(opening.open(ufrag.as_str().as_bytes()), Err(Unopened::Tag), "{minted} {opened} {nonce}");
        }
    }
}

#[test]
fn keys_overlap_while_they_are_changed() {
    // The last pair has one id: both are tried.
    for (old, new) in [(key(1), key(2)), (key(9), key(4)), (key(0), key(4))] {
        let steps = [
            seal(old.clone(), None),
            seal(old.clone(), Some(new.clone())),
            seal(new.clone(), Some(old.clone())),
            seal(new.clone(), None),
        ];
        // Replicas are replaced one by one: each step's ufrags are opened by its neighbours.
        for (i, minting) in steps.iter().enumerate() {
            let minted = mint(minting, "10.244.3.7:5000");
            for (j, opening) in steps.iter().enumerate() {
                let opened = opening.open(minted.ufrag.as_str().as_bytes());
                // The first two mint with the old key, which the last does not know; the last two the other way round.
                let is_known = if i < 2 { j < 3 } else { j > 0 };
                match opened {
                    Ok(opened) => assert!(is_known && opened.key == minted.key, "{i} {j}"),
                    Err(Unopened::Tag) => assert!(!is_known && old.id() == new.id(), "{i} {j}"),
                    Err(error) => {
                        assert!(!is_known && error == Unopened::Key && old.id() != new.id(), "{i} {j} {error}")
                    }
                }
            }
        }
    }
}

#[test]
fn each_ufrag_has_a_key_of_its_own() {
    let seal = seal(key(1), None);
    let one = mint(&seal, "10.244.3.7:5000");
    assert_eq!(one, mint(&seal, "[::ffff:10.244.3.7]:5000"), "an IPv4 address is one however it is written");
    let mut keys: Vec<_> = (0..=u8::MAX)
        .map(|byte| seal.mint("10.244.3.7:5000".parse().unwrap(), [byte; 12]).unwrap().key.reveal())
        .chain([one.key.reveal(), mint(&seal, "10.244.3.7:5001").key.reveal()])
        .collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 258);
}

#[test]
fn ufrags_and_session_keys_pass_as_json() {
    let minted = mint(&seal(key(1), None), "10.244.3.7:5000");
    let json = serde_json::to_string(&(minted.ufrag, minted.key)).unwrap();
    assert_eq!(json, format!("[\"{}\",\"{}\"]", minted.ufrag, minted.key.reveal()));
    assert_eq!(serde_json::from_str::<(Ufrag, SessionKey)>(&json).unwrap(), (minted.ufrag, minted.key));
    assert!(!format!("{minted:?}").contains(&minted.key.reveal()));
    for wrong in ["", "short", "=================================", "a1b2a1b2a1b2a1b2a1b2a1b2a1b2a1b-"] {
        assert!(wrong.parse::<Ufrag>().is_err(), "{wrong}");
    }
    for wrong in ["", "00", "0000000000000000000000000000000G", "000000000000000000000000000000000"] {
        assert!(wrong.parse::<SessionKey>().is_err(), "{wrong}");
    }
}

/// SplitMix64, so that the figures below are the same in every run.
fn random(seed: u64) -> [u8; 8] {
    let mut z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).to_be_bytes()
}

/// Whether every bit from byte `from` on is set in about half of the ufrags, and differs from the next ufrag's in about half.
/// A fair coin is off by more than five deviations once in two million bits.
#[track_caller]
fn look_random(ufrags: &[Ufrag], from: usize) {
    let bit = |bytes: &[u8; SEALED], bit: usize| u32::from(bytes[bit / 8] >> (bit % 8) & 1);
    let all: Vec<_> = ufrags.iter().map(|ufrag| bytes(*ufrag)).collect();
    let tolerance = 5.0 * (all.len() as f64).sqrt() / 2.0;
    for at in from * 8..SEALED * 8 {
        let set: u32 = all.iter().map(|bytes| bit(bytes, at)).sum();
        let changes: u32 = all.windows(2).map(|pair| bit(&pair[0], at) ^ bit(&pair[1], at)).sum();
        for count in [set, changes] {
            let off = (f64::from(count) - all.len() as f64 / 2.0).abs();
            assert!(off <= tolerance, "bit {at}: {count} of {}", all.len());
        }
    }
    // No two have a target in the same disguise, or a tag, more often than chance has it.
    for range in [from..from + 4, 16..20] {
        let mut parts: Vec<_> = all.iter().map(|bytes| &bytes[range.clone()]).collect();
        parts.sort();
        parts.dedup();
        assert!(parts.len() >= all.len() - 2, "{range:?}: {} of {}", parts.len(), all.len());
    }
}

#[test]
fn sessions_of_one_loop_look_unrelated() {
    let seal = Seal::new(&key(1).into(), networks(PODS, Some("fd00:10:244::/48")));
    for (target, first_of_target) in [("10.244.3.7:5000", 10), ("[fd00:10:244::7]:5003", 4)] {
        let target: SocketAddr = target.parse().unwrap();
        let of = |random: &dyn Fn(u32) -> [u8; 12], target: &dyn Fn(u32) -> SocketAddr| -> Vec<Ufrag> {
            (0..2048).map(|i| seal.mint(target(i), random(i)).unwrap().ufrag).collect()
        };
        // As they are minted: everything after the header.
        let fresh = |i: u32| {
            let mut bytes = [0; 12];
            bytes[..8].copy_from_slice(&random(2 * u64::from(i)));
            bytes[8..].copy_from_slice(&random(2 * u64::from(i) + 1)[..4]);
            bytes
        };
        look_random(&of(&fresh, &|_| target), 1);
        // With nonces that merely count, in the last bytes of each nonce: target and tag alone.
        let counting = |i: u32| {
            let mut bytes = [0; 12];
            bytes[first_of_target - 3..first_of_target - 1].copy_from_slice(&(i as u16).to_be_bytes());
            bytes
        };
        look_random(&of(&counting, &|_| target), first_of_target);
        // With one nonce for many targets.
        let ports = |i: u32| SocketAddr::new(target.ip(), 1 + i as u16);
        look_random(&of(&|_| RANDOM, &ports), first_of_target);
    }
}

/// `cargo test --release -p streamfleet-session --lib ufrag -- --ignored --nocapture`
#[test]
#[ignore = "prints a rate, which means something on an idle machine only"]
fn rate_of_opening() {
    let seal = seal(key(1), Some(key(2)));
    for target in ["10.244.3.7:5000", "[fd00:10:244::7]:5003"] {
        let ufrag = mint(&seal, target).ufrag;
        let mut forged = bytes(ufrag);
        forged[23] ^= 1;
        for (what, ufrag) in [("ours", ufrag), ("forged", Ufrag::of(forged))] {
            let (start, count) = (std::time::Instant::now(), 1_000_000);
            let opened =
                (0..count).filter(|_| seal.open(std::hint::black_box(ufrag.as_str()).as_bytes()).is_ok()).count();
            let each = start.elapsed() / count;
            println!("{target}, {what}: {each:?} each, {opened} of {count} opened");
        }
    }
}

prop_compose! {
    fn v4()(low in any::<u16>(), port in 1..=u16::MAX) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::from_bits(0x0af4_0000 | u32::from(low)).into(), port)
    }
}

prop_compose! {
    /// A prefix, and an address under it.
    fn v6()(base in any::<u128>(), low in any::<u128>(), bytes in 6..=15_u32, port in 1..=u16::MAX) -> (String, SocketAddr) {
        let rest = u128::MAX >> (8 * bytes);
        // fd00::/8: neither link-local nor multicast.
        let base = (base >> 8 | 0xfd << 120) & !rest;
        let address = Ipv6Addr::from_bits(base | low & rest);
        (format!("{}/{}", Ipv6Addr::from_bits(base), 8 * bytes), SocketAddr::new(address.into(), port))
    }
}

/// A seal for one target, and that target.
fn any_target() -> impl Strategy<Value = (Seal, SocketAddr)> {
    let of_v4 = |target| (Seal::new(&key(1).into(), networks(&["10.244.0.0/16"], None)), target);
    let of_v6 =
        |(prefix, target): (String, _)| (Seal::new(&key(1).into(), networks(&[&prefix], Some(&prefix))), target);
    prop_oneof![v4().prop_map(of_v4), v6().prop_map(of_v6)]
}

proptest! {
    #[test]
    fn what_is_minted_opens((seal, target) in any_target(), random: [u8; 12]) {
        let minted = seal.mint(target, random).unwrap();
        let text = minted.ufrag.as_str();
        prop_assert_eq!(seal.open(text.as_bytes()), Ok(Opened { target, key: minted.key }));
        prop_assert_eq!(text.len(), 32);
        prop_assert!(text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'+' || c == b'/'));
        prop_assert_eq!(text.parse::<Ufrag>(), Ok(minted.ufrag));
    }

    #[test]
    fn a_flipped_bit_is_noticed((seal, target) in any_target(), random: [u8; 12]) {
        let good = bytes(seal.mint(target, random).unwrap().ufrag);
        for bit in 0..SEALED * 8 {
            let mut flipped = good;
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(seal.open(Ufrag::of(flipped).as_str().as_bytes()).is_err(), "bit {}", bit);
        }
    }

    #[test]
    fn a_forged_ufrag_does_not_open((seal, _) in any_target(), forged: [u8; SEALED]) {
        let mut forged = forged;
        // Past the cheap checks, to the tag.
        forged[0] = forged[0] & 0x10 | 0x20 | key(1).id().get();
        let opened = seal.open(Ufrag::of(forged).as_str().as_bytes());
        prop_assert!(matches!(opened, Err(Unopened::Tag | Unopened::Family)), "{:?}", opened);
    }

    #[test]
    fn anything_else_is_refused(text: Vec<u8>) {
        prop_assert!(seal(key(1), Some(key(2))).open(&text).is_err());
    }
}
