#![no_main]

#[path = "../../crates/identity/tests/checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::token(bytes));
