//! What opening and sealing allocate: nothing per packet, and little per session.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and its figures are printed")]

use rtc::crypto::default_provider;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Instant;
use streamfleet_rtp::rtcp::{Reception, Transmission};
use streamfleet_rtp::srtp::Role;
use streamfleet_rtp::{Extensions, Index, Keys, Outgoing, Profile, Rx, Tx};

/// The system's allocator, counting what this thread asks of it.
struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
    static HELD: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: everything is passed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        HELD.set(HELD.get() + layout.size() as isize);
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get() - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn keys(profile: Profile, role: Role) -> Keys {
    Keys::from_exporter(&[7; 60], profile, role).unwrap()
}

fn check(profile: Profile, most_octets: isize) {
    let provider = default_provider().unwrap();
    let before = HELD.get();
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
            warm = CALLS.get();
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
    assert_eq!(CALLS.get() - warm, 0, "{profile:?}: allocations in 990 packets");
    drop(peer);
    drop((incoming, outgoing));
    let held = HELD.get() - before;
    println!("{profile:?}: {held} octets a session");
    assert!(held <= most_octets, "{profile:?}: {held}");
}

#[test]
fn packets_allocate_nothing_and_sessions_little() {
    // Two expanded keys of AES with GHASH tables, or two keys and two HMAC states, are most of it.
    check(Profile::AeadAes128Gcm, 2_560);
    check(Profile::Aes128CmSha1_80, 2_560);
}
