//! The operator as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    streamfleet_operator::program::run()
}
