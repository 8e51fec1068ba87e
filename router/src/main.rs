//! The router as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    streamfleet_router::program::run()
}
