//! What opening and sealing allocate: nothing per packet, and little per session.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and its figures are printed")]

use rtc::crypto::default_provider;
use std::time::Instant;
use streamfleet_counting::{Counting, calls, held};
use streamfleet_rtp::rtcp::{Reception, Transmission};
use streamfleet_rtp::srtp::Role;
use streamfleet_rtp::{Extensions, Index, Keys, Outgoing, Profile, Rx, Tx};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn keys(profile: Profile, role: Role) -> Keys {
    Keys::from_exporter(&[7; 60], profile, role).unwrap()
}

fn check(profile: Profile, most_octets: i64) {
    let provider = default_provider().unwrap();
    let before = held();
    let keys_of_one = keys(profile, Role::Server);
    let mut session = Box::new((
        Rx::new(provider.crypto(), &keys_of_one).unwrap(),
        Tx::new(provider.crypto(), &keys_of_one).unwrap(),
        Reception::new(1, 48_000, Index::first(1), Instant::now()),
        Transmission::new(2, 48_000),
    ));
    drop(keys_of_one);
    let mut peer = Tx::new(provider.crypto(), &keys(profile, Role::Client)).unwrap();

    let (mut incoming, mut outgoing) = (Vec::with_capacity(256), Vec::with_capacity(256));
    let packet = |ssrc, i| Outgoing {
        ssrc,
        index: Index::new(i).unwrap(),
        marker: false,
        payload_type: 111,
        timestamp: 0,
        extensions: Extensions::NONE,
        payload: &[1; 80],
    };
    let mut warm = 0;
    for i in 0..1_000 {
        if i == 10 {
            warm = calls();
        }
        let now = Instant::now();
        incoming.clear();
        peer.seal(&mut incoming, &packet(1, i)).unwrap();
        let (rx, tx, reception, transmission) = &mut *session;
        let opened = rx.open(&mut incoming).unwrap();
        reception.packet(opened.index, opened.header.timestamp, opened.payload.len(), now);
        outgoing.clear();
        tx.seal(&mut outgoing, &packet(2, i)).unwrap();
        transmission.packet(0, 80, now);
    }
    assert_eq!(calls() - warm, 0, "{profile:?}: allocations in 990 packets");
    drop(peer);
    drop((incoming, outgoing));
    let held = held() - before;
    println!("{profile:?}: {held} octets a session");
    assert!(held <= most_octets, "{profile:?}: {held}");
}

#[test]
fn packets_allocate_nothing_and_sessions_little() {
    // Two expanded keys of AES with GHASH tables, or two keys and two HMAC states, are most of it.
    check(Profile::AeadAes128Gcm, 2_560);
    check(Profile::Aes128CmSha1_80, 2_560);
}
