//! The worker as it comes: every built-in handler, nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    streamfleet_worker::program::run(&streamfleet_pause::builtin::registry())
}
