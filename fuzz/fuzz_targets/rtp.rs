#![no_main]

#[path = "../../crates/rtp/tests/checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::rtp(bytes));
