//! What opening a ufrag allocates: nothing, whether it is one of ours or not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::hint::black_box;

use streamfleet_counting::{Counting, calls};
use streamfleet_session::ufrag::{RelayKey, Seal, Unopened, WorkerNetworks};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn opening_allocates_nothing() {
    let seal = |ranges: &[&str]| {
        let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        let networks = WorkerNetworks::new(ranges, "fd00:10:244::/64".parse().ok()).unwrap();
        Seal::new(&RelayKey::from_random([1; 32]).into(), networks)
    };
    let before = calls();
    let (all, few) = (seal(&["10.0.0.0/8", "fd00:10:244::/64"]), seal(&["10.244.0.0/16", "fd00:10:244::/64"]));
    assert!(calls() > before, "nothing is counted");

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
        let before = calls();
        let opened = black_box(few.open(black_box(text.as_bytes())));
        assert_eq!((opened.err(), calls() - before), (expected, 0), "{text}");
    }
}
