//! How a program ends that cannot go on: why on standard error, and an exit code that says whose fault it is.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::config::Mistakes;

/// A configuration that cannot be used (`EX_USAGE` of sysexits).
pub const EXIT_CONFIG: u8 = 64;
/// A part of the program failed.
pub const EXIT_FAILED: u8 = 1;

/// A configuration that cannot be used: each mistake is a line.
#[must_use]
pub fn refuse(mistakes: &Mistakes) -> ExitCode {
    for mistake in mistakes.iter() {
        tell(mistake);
    }
    ExitCode::from(EXIT_CONFIG)
}

/// Something failed, and why.
#[must_use]
pub fn fail(error: impl Display) -> ExitCode {
    tell(error);
    ExitCode::from(EXIT_FAILED)
}

/// A line for whoever started the program: telemetry is not there yet, or no longer. Without a reader there is nobody to tell.
pub fn tell(line: impl Display) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_says_whose_fault_it_is() {
        let mut mistakes = Mistakes::new();
        mistakes.push("listen", "is no address");
        assert_eq!(format!("{:?}", refuse(&mistakes)), format!("{:?}", ExitCode::from(64)));
        assert_eq!(format!("{:?}", fail("the socket is taken")), format!("{:?}", ExitCode::from(1)));
    }
}
