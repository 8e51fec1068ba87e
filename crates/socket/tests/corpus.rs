//! Replays the fuzzing corpus, so that an input that once broke a parser stays a test.

#![allow(missing_docs)]

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use proptest::prelude::*;

mod checks;

/// Runs every file of a target's corpus through its check, and demands that there are some.
fn replay(target: &str, check: fn(&[u8])) {
    let inputs = corpus(target);
    for (path, input) in &inputs {
        // The check's own message does not know which input broke it.
        assert!(catch_unwind(|| check(input)).is_ok(), "{path} breaks it");
    }
    assert!(inputs.len() >= 8, "the corpus of {target} has only {} inputs", inputs.len());
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let paths = fs::read_dir(&folder).expect("the corpus is part of the checkout");
    let mut paths: Vec<_> = paths.map(|entry| entry.expect("the folder is readable").path()).collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| fs::read(path).expect("the input is readable");
    paths.iter().map(|path| (path.display().to_string(), read(path))).collect()
}

#[test]
fn client_frames() {
    replay("client_frames", checks::client_frames);
}

#[test]
fn socket_frames() {
    replay("socket_frames", checks::socket_frames);
}

#[test]
fn twilio_frames() {
    replay("twilio_frames", checks::twilio_frames);
}

#[test]
fn webhook() {
    replay("webhook", checks::webhook);
}

#[test]
fn last_event_id() {
    replay("last_event_id", checks::last_event_id);
}

/// An input of the corpus in which some octets have become others: near to what is valid, where parsers have their edges.
fn damaged(target: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let inputs: Vec<Vec<u8>> = corpus(target).into_iter().map(|(_, input)| input).collect();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (prop::sample::select(inputs), changes).prop_map(|(mut input, changes)| {
        for (at, byte) in changes {
            if !input.is_empty() {
                let at = at.index(input.len());
                input[at] = byte;
            }
        }
        input
    })
}

proptest! {
    #[test]
    fn damaged_client_frames(input in damaged("client_frames")) {
        checks::client_frames(&input);
    }

    #[test]
    fn damaged_socket_frames(input in damaged("socket_frames")) {
        checks::socket_frames(&input);
    }

    #[test]
    fn damaged_twilio_frames(input in damaged("twilio_frames")) {
        checks::twilio_frames(&input);
    }

    #[test]
    fn damaged_webhooks(input in damaged("webhook")) {
        checks::webhook(&input);
    }

    #[test]
    fn damaged_event_ids(input in damaged("last_event_id")) {
        checks::last_event_id(&input);
    }
}
