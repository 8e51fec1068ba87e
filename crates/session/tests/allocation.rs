//! What opening a ufrag allocates: nothing, whether it is one of ours or not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use streamfleet_session::ufrag::{RelayKey, Seal, Unopened, WorkerNetworks};

/// The system's allocator, counting how often this thread asks it.
struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn opening_allocates_nothing() {
    let seal = |ranges: &[&str]| {
        let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        let networks = WorkerNetworks::new(ranges, "fd00:10:244::/64".parse().ok()).unwrap();
        Seal::new(&RelayKey::from_random([1; 32]).into(), networks)
    };
    let before = CALLS.get();
    let (all, few) = (seal(&["10.0.0.0/8", "fd00:10:244::/64"]), seal(&["10.244.0.0/16", "fd00:10:244::/64"]));
    assert!(CALLS.get() > before, "nothing is counted");

    let mint = |target: &str| all.mint(target.parse().unwrap(), [7; Seal::RANDOM]).unwrap().ufrag;
    let (v4, v6, elsewhere) = (mint("10.244.3.7:5000"), mint("[fd00:10:244::7]:5003"), mint("10.245.3.7:5000"));
    let forged = format!("{}{}", &v4.as_str()[..31], if v4.as_str().ends_with('A') { "B" } else { "A" });
    for (text, expected) in [
        (v4.as_str(), None),
        (v6.as_str(), None),
        (elsewhere.as_str(), Some(Unopened::Elsewhere)),
        (&forged, Some(Unopened::Tag)),
        ("a1b2", Some(Unopened::Length)),
        ("a1b2a1b2a1b2a1b2a1b2a1b2a1b2a1b=", Some(Unopened::Character)),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", Some(Unopened::Version)),
    ] {
        let before = CALLS.get();
        let opened = black_box(few.open(black_box(text.as_bytes())));
        assert_eq!((opened.err(), CALLS.get() - before), (expected, 0), "{text}");
    }
}
