#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| streamfleet_worker::media::fuzzing::answer(bytes));
