#![no_main]

#[path = "../../crates/store/tests/checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::merge_patch(bytes));
