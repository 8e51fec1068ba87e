#![no_main]

#[path = "../../crates/net/tests/checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::stun(bytes));
