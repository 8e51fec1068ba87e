//! Replays the fuzzing corpus, so that an input that once broke a parser stays a test.

#![allow(missing_docs)]

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

mod checks;

/// Runs every file of a target's corpus through its check, and demands that there are some.
fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is part of the checkout") {
        let path = entry.expect("the folder is readable").path();
        let input = fs::read(&path).expect("the input is readable");
        // The check's own message does not know which input broke it.
        let outcome = catch_unwind(|| check(&input));
        assert!(outcome.is_ok(), "{} breaks it", path.display());
        inputs += 1;
    }
    assert!(inputs >= 8, "the corpus of {target} has only {inputs} inputs");
}

#[test]
fn offer_body() {
    replay("offer_body", checks::offer_body);
}

#[test]
fn candidate() {
    replay("candidate", checks::candidate);
}

#[test]
fn metadata() {
    replay("metadata", checks::metadata);
}

#[test]
fn placed() {
    replay("placed", checks::placed);
}

#[test]
fn ufrag() {
    replay("ufrag", checks::ufrag);
}
