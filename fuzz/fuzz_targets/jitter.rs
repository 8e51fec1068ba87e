#![no_main]

#[path = "../../crates/audio/tests/checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::jitter(bytes));
